// Kernels for classes that are not the last axis: a vector holds the same class of neighbouring columns.
//
// Columns are worked on in tiles that stay in the second cache. A column's result does not depend on its
// tile.
#pragma once

#include "rows.inl"

namespace {

constexpr size_t kTile = 32;              // vectors, at most
constexpr size_t kTileBytes = 192 << 10;  // what a tile may take, unless it is one cache line wide
constexpr size_t kAhead = 12;             // rows that are fetched ahead: each is on a page of its own

// A column that the vectors do not serve.
template <class T>
struct Aside {
  size_t column;
  std::vector<T> x;

  Aside(const T* slab, size_t k, size_t stride, size_t c) : column(c), x(k) {
    for (size_t j = 0; j < k; ++j) x[j] = slab[j * stride + c];
  }
};

inline void fetch(const void* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(p) + i);
}

// One tile, worked on in `tile` (k vectors for each of its columns), read once and written once.
template <bool kLog, class F, class T>
void column_tile(F f, const T* x, T* out, T* tile, size_t k, size_t stride, size_t columns, bool streaming) {
  constexpr size_t w = kWidth<T>;
  const size_t vectors = (columns + w - 1) / w, width = vectors * w;
  Vec<T> top[kTile], sum[kTile], lost[kTile];
  for (size_t v = 0; v < vectors; ++v) {
    sum[v] = lost[v] = splat(T(0));
    top[v] = splat(-kInfinity<T>);
  }
  const auto weigh = [&](size_t v, Vec<T> value) {
    if constexpr (F::kShifts) f.top = top[v];
    const Vec<T> term = f.weight(value), next = sum[v] + term;
    lost[v] += term - (next - sum[v]);
    sum[v] = next;
    return term;
  };
  for (size_t j = 0; j < k; ++j) {
    const T* row = x + j * stride;
    if (j + kAhead < k) fetch(row + kAhead * stride, columns * sizeof(T));
    for (size_t v = 0; v < vectors; ++v) {
      Vec<T> value = load_some(row + v * w, columns - v * w, T(0));
      if constexpr (F::kShifts)
        top[v] = max<T>(value, top[v]);
      else
        value = weigh(v, value);
      store(tile + j * width + v * w, value);
    }
  }
  for (size_t j = 0; F::kShifts && j < k; ++j) {
    for (size_t v = 0; v < vectors; ++v) {
      const Vec<T> term = weigh(v, load(tile + j * width + v * w));
      if constexpr (!kLog) store(tile + j * width + v * w, term);
    }
  }
  std::vector<Aside<T>> aside;
  for (size_t c = 0; c < columns; ++c) {
    const bool fine =
        F::kShifts ? !std::isinf(top[c / w][c % w]) : usable<T>(static_cast<double>(sum[c / w][c % w]));
    if (!fine) aside.emplace_back(x, k, stride, c);
  }
  for (size_t v = 0; v < vectors; ++v) {
    if constexpr (kLog) {
      const Vec<T> value = log_of<T>(sum[v]) + lost[v] / sum[v];
      sum[v] = F::kShifts ? max<T>(splat(T(0)), value) : value;
    } else {
      sum[v] = T(1) / (sum[v] + lost[v]);
    }
  }
  for (size_t j = 0; j < k; ++j) {
    for (size_t v = 0; v < vectors; ++v) {
      Vec<T> value = load(tile + j * width + v * w);
      if constexpr (F::kShifts) f.top = top[v];
      if constexpr (kLog && F::kShifts) value = f.log_weight(value);
      if constexpr (kLog && !F::kShifts) value = log_of<T>(value);
      value = kLog ? value - sum[v] : value * sum[v];
      T* place = out + j * stride + v * w;
      if (streaming && v * w + w <= columns)
        stream(place, value);
      else
        store_some(place, value, columns - v * w);
    }
  }
  for (Aside<T>& column : aside) {
    special_map<kLog, F, T>(f, column.x.data(), column.x.data(), k, {});
    for (size_t j = 0; j < k; ++j) out[j * stride + column.column] = column.x[j];
  }
}

template <bool kLog, class F, class T>
void columns(const T* x, T* out, size_t k, size_t stride, size_t first, size_t last, const Parameters& p) {
  constexpr size_t w = kWidth<T>, line = std::max<size_t>(1, 64 / kVectorBytes);
  const size_t fit = kTileBytes / (std::max<size_t>(k, 1) * kVectorBytes) / line * line;
  const size_t vectors = std::clamp(fit, line, kTile), width = vectors * w;
  std::vector<T> room(k * width + w);
  T* tile = room.data();
  while (reinterpret_cast<std::uintptr_t>(tile) % kVectorBytes) ++tile;
  const bool aligned =
      (reinterpret_cast<std::uintptr_t>(out + first) | stride * sizeof(T)) % kVectorBytes == 0;
  const bool streaming = aligned && x != out && p.numbers * sizeof(T) >= kStreamBytes;
  for (size_t c = first; c < last; c += width)
    column_tile<kLog, F, T>(F(p), x + c, out + c, tile, k, stride, std::min(last - c, width), streaming);
  if (streaming) fence();
}

// For members whose rows need the classes side by side: a few columns at a time are brought into rows.
template <auto kMap, class T>
void columns_by_rows(const T* x, T* out, size_t k, size_t stride, size_t first, size_t last,
                     const Parameters& p) {
  constexpr size_t few = 64 / sizeof(T);  // those of a cache line
  std::vector<T> rows(few * k);
  for (size_t c = first; c < last; c += few) {
    const size_t count = std::min(few, last - c);
    for (size_t j = 0; j < k; ++j)
      for (size_t i = 0; i < count; ++i) rows[i * k + j] = x[j * stride + c + i];
    kMap(rows.data(), nullptr, rows.data(), count, k, p);
    for (size_t j = 0; j < k; ++j)
      for (size_t i = 0; i < count; ++i) out[j * stride + c + i] = rows[i * k + j];
  }
}

}  // namespace
