// The two products of a linear layer with few outputs, where a matrix library reads the rows twice and fills
// its registers badly. Both keep a tile of results in registers: logits a few rows by a few outputs, summed
// over vectors of features; the gradient a few outputs by two vectors of features, summed over rows.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels.hpp"
#include "vec.hpp"

namespace {

using std::size_t;

#if defined(__AVX512F__) || defined(__ARM_NEON)  // 32 registers
constexpr int kLogitRows = 4, kLogitOutputs = 6, kGradientOutputs = 12;
#else  // 16
constexpr int kLogitRows = 3, kLogitOutputs = 4, kGradientOutputs = 6;
#endif
constexpr size_t kLogitBytes = 32 << 10;

// Call body(constant) with the constant that equals `count`, from 1 to kMost.
template <int kMost, class Body>
inline void with_constant(size_t count, Body body) {
  if constexpr (kMost > 1) {
    if (count < kMost) return with_constant<kMost - 1>(count, body);
  }
  body(std::integral_constant<int, kMost>());
}

// Call body(first, constant) on ranges of outputs of about equal length, at most kMost each.
template <int kMost, class Body>
inline void over_outputs(size_t m, Body body) {
  const size_t groups = (m + kMost - 1) / kMost;
  for (size_t g = 0; g < groups; ++g) {
    const size_t first = m * g / groups, last = m * (g + 1) / groups;
    with_constant<kMost>(last - first, [&](auto count) { body(first, count); });
  }
}

// Call body(constant) with 0 to kCount - 1. A plain loop over an array of vectors leaves it in memory.
template <int kCount, class Body>
[[gnu::always_inline]] inline void repeat(const Body& body) {
  if constexpr (kCount > 0) {
    repeat<kCount - 1>(body);
    body(std::integral_constant<int, kCount - 1>());
  }
}

// Of every 2 s places the first s hold sums of halves of `a`, the others of `b`.
template <class T, int s>
[[gnu::always_inline]] inline Vec<T> fold(Vec<T> a, Vec<T> b) {
  constexpr int w = static_cast<int>(kWidth<T>);
  VecInt<T> low, high;
  for (int i = 0; i < w; ++i) {
    low[i] = i & s ? w + i - s : i;
    high[i] = i & s ? w + i : i + s;
  }
  return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
}

// The sum of vector(i) in place i, each by halves; i is an integral constant.
template <class T, int i = 0, int s = 1, class Vector>
[[gnu::always_inline]] inline Vec<T> sums_of(const Vector& vector) {
  if constexpr (s == kWidth<T>)
    return vector(std::integral_constant<int, i>());
  else
    return fold<T, s>(sums_of<T, i, 2 * s>(vector), sums_of<T, i + s, 2 * s>(vector));
}

template <class T>
inline T sum_of(Vec<T> v) {
  return sums_of<T>([v](auto) { return v; })[0];
}

// Outputs by rows whose sums fill a vector.
template <class T>
constexpr int kAcross = kWidth<T> < 4 ? 1 : kWidth<T> / 4;
template <class T>
constexpr int kDown = kWidth<T> / kAcross<T>;

// z (kRows, kOutputs) = start + the products of `count` of the features from j on. Rows of z lie m apart,
// those of start `apart`.
template <int kRows, int kOutputs, class T, class X>
[[gnu::flatten, gnu::noinline]] void logits_tile(const X* const* rows, const X* end, size_t j,
                                                 const T* center, const T* matrix, size_t stride,
                                                 const T* start, size_t apart, T* z, size_t count, size_t m) {
  constexpr size_t w = kWidth<T>;
  const size_t whole = count / w * w;
  const X* x[kRows];
  repeat<kRows>([&](auto r) { x[r] = rows[r] + j; });
  Vec<T> sums[kRows][kOutputs];
  repeat<kOutputs>([&](auto q) {
    repeat<kRows>([&](auto r) { sums[r][q] = Vec<T>{start[static_cast<size_t>(r) * apart + q]}; });
  });
  const auto step = [&](size_t at, auto read) {
    const Vec<T> c = load(center + at);
    Vec<T> v[kRows];
    repeat<kRows>([&](auto r) { v[r] = read(x[r] + at) - c; });
    repeat<kOutputs>([&](auto q) {
      const Vec<T> a = load(matrix + static_cast<size_t>(q) * stride + at);
      repeat<kRows>([&](auto r) { sums[r][q] = mul_add<T>(v[r], a, sums[r][q]); });
    });
  };
  for (size_t at = 0; at < whole; at += w) step(at, [](const X* p) { return load_as<T>(p); });
  if (whole < count)
    step(whole, [rest = count - whole, end](const X* p) { return load_part_as<T>(p, rest, end); });
  repeat<(kRows + kDown<T> - 1) / kDown<T>>([&](auto down) {
    repeat<(kOutputs + kAcross<T> - 1) / kAcross<T>>([&](auto across) {
      constexpr int row = down() * kDown<T>, first = across() * kAcross<T>;
      T numbers[w];  // beyond the tile its last ones again
      store(numbers, sums_of<T>([&](auto place) {
              constexpr int r = row + place() / kAcross<T>, q = first + place() % kAcross<T>;
              return sums[r < kRows ? r : kRows - 1][q < kOutputs ? q : kOutputs - 1];
            }));
      constexpr size_t bytes = std::min(kAcross<T>, kOutputs - first) * sizeof(T);
      for (int r = 0; r < kDown<T> && row + r < kRows; ++r)
        std::memcpy(z + static_cast<size_t>(row + r) * m + first, numbers + r * kAcross<T>, bytes);
    });
  });
}

// Features are taken in parts of which a tile's rows and outputs stay in the first cache.
template <class T, class X>
void linear_logits(const X* const* x, const X* end, const T* center, const T* matrix, const T* offset, T* z,
                   size_t n, size_t d, size_t m, size_t apart) {
  constexpr size_t w = kWidth<T>, most = kLogitBytes / sizeof(T) / (kLogitRows + kLogitOutputs);
  const size_t stride = luce::padded(d), parts = std::max<size_t>(1, (d + most - 1) / most),
               part = ((d + parts - 1) / parts + w - 1) / w * w;
  size_t j = 0;
  do {
    over_outputs<kLogitOutputs>(m, [&](size_t first, auto count) {
      for (size_t row = 0; row < n; row += kLogitRows) {
        T* to = z + row * apart + first;
        with_constant<kLogitRows>(std::min<size_t>(kLogitRows, n - row), [&](auto rows) {
          logits_tile<rows(), count()>(x + row, end, j, center + j, matrix + first * stride + j, stride,
                                       j == 0 ? offset + first : to, j == 0 ? 0 : apart, to,
                                       std::min(part, d - j), apart);
        });
      }
    });
    j += part;
  } while (j < d);
}

// Rows of grad from j on += residual' (x - center) of `vectors` vectors of the features from j on. The rows
// from `next` on, if any, are fetched meanwhile: their turn comes.
template <int kOutputs, int kVectors, class T, class X, class Read>
[[gnu::flatten, gnu::noinline]] void gradient_tile(const X* const* x, const X* const* next, size_t j,
                                                   const T* center, const T* residual, T* const* grad,
                                                   size_t n, size_t apart, size_t vectors, Read read) {
  constexpr size_t w = kWidth<T>, tile = kVectors * w, line = 64 / sizeof(X);
  Vec<T> sums[kVectors][kOutputs], c[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    c[v] = v < static_cast<int>(vectors) ? load(center + v * w) : Vec<T>{};
    for (int q = 0; q < kOutputs; ++q) sums[v][q] = Vec<T>{};
  }
  for (size_t row = 0; row < n; ++row, residual += apart) {
    if (next)
      for (size_t i = 0; i < tile; i += line) __builtin_prefetch(next[row] + j + i);
    const X* from = x[row] + j;
    Vec<T> a[kVectors];
    for (int v = 0; v < kVectors; ++v) a[v] = read(from, v * w) - c[v];
    for (int q = 0; q < kOutputs; ++q) {
      const Vec<T> r = splat(residual[q]);
      for (int v = 0; v < kVectors; ++v) sums[v][q] = mul_add<T>(a[v], r, sums[v][q]);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    if (v < static_cast<int>(vectors))
      for (int q = 0; q < kOutputs; ++q) {
        T* to = grad[q] + j + v * w;
        store(to, load(to) + sums[v][q]);
      }
  }
}

// A strip of the features stays in the first cache until every output has had it.
template <int kVectors, class T, class X>
inline void gradient_strips(const X* const* x, const X* end, const X* const* next, const T* center,
                            const T* residual, T* const* grad, size_t n, size_t d, size_t m, size_t apart) {
  constexpr size_t w = kWidth<T>, tile = kVectors * w;
  for (size_t j = 0; j < d; j += tile) {
    const size_t rest = d - j, vectors = std::min<size_t>(kVectors, (rest + w - 1) / w);
    over_outputs<2 * kGradientOutputs / kVectors>(m, [&](size_t first, auto count) {
      const auto run = [&](auto read) {
        gradient_tile<count(), kVectors>(x, first == 0 ? next : nullptr, j, center + j, residual + first,
                                         grad + first, n, apart, vectors, read);
      };
      if (rest >= tile)
        run([](const X* p, size_t at) { return load_as<T>(p + at); });
      else
        run([rest, end](const X* p, size_t at) {
          return at < rest ? load_part_as<T>(p + at, std::min(kWidth<T>, rest - at), end) : splat(T(0));
        });
    });
  }
}

template <class T, class X>
void linear_gradient(const X* const* x, const X* end, const X* const* next, const T* center,
                     const T* residual, T* const* grad, size_t n, size_t d, size_t m, size_t apart) {
  (2 * m <= kGradientOutputs ? gradient_strips<4, T, X> : gradient_strips<2, T, X>)(x, end, next, center,
                                                                                    residual, grad, n, d, m,
                                                                                    apart);
}

// A vector may reach into the next row, for nothing, but not beyond the last one.
template <class T>
void add_columns(const T* from, size_t n, size_t m, double* to) {
  constexpr size_t w = kWidth<double>, chains = 4;
  for (size_t j = 0; j < m; j += w) {
    const size_t count = std::min(w, m - j), whole = n * m < j + w ? 0 : (n * m - j - w) / m + 1;
    Vec<double> sums[chains] = {};
    size_t row = 0;
    for (; row + chains <= whole; row += chains)
      for (size_t i = 0; i < chains; ++i) sums[i] += load_as<double>(from + (row + i) * m + j);
    for (; row < n; ++row) sums[0] += load_part_as<double>(from + row * m + j, count, from + n * m);
    const Vec<double> sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    store_some(to + j, load_some(to + j, count, 0.0) + sum, count);
  }
}

template <class T>
void add_wide(const T* from, size_t n, double* to) {
  constexpr size_t w = kWidth<double>;
  size_t j = 0;
  for (; j + w <= n; j += w) store(to + j, load(to + j) + load_as<double>(from + j));
  for (; j < n; ++j) to[j] += static_cast<double>(from[j]);
}

template <class T, class X>
void linear_moments(const X* x, const T* center, const T* weight, double* first, double* second, size_t n,
                    size_t d) {
  constexpr size_t w = kWidth<T>;
  for (size_t j = 0; j < d; j += w) {
    const Vec<T> c = load(center + j);
    Vec<T> sum = {}, squares = {};
    for (size_t row = 0; row < n; ++row) {
      const X* from = x + row * d + j;
      __builtin_prefetch(from + n * d);
      const Vec<T> a = (d - j >= w ? load_as<T>(from) : load_part_as<T>(from, d - j, x + n * d)) - c,
                   wa = a * weight[row];
      sum += wa;
      squares = mul_add<T>(wa, a, squares);
    }
    for (size_t i = 0; i < w; ++i) {
      first[j + i] += static_cast<double>(sum[i]);
      second[j + i] += static_cast<double>(squares[i]);
    }
  }
}

}  // namespace
