// Kernels for many short rows: a vector holds the same column of as many rows as it is wide.
//
// A block of rows is turned on its side, worked on, and turned back. A row's result does not depend on the
// rows beside it, nor on how many there are. Sums are compensated (Knuth's TwoSum), so their error does not
// grow with k.
#pragma once

#include "rows.inl"

namespace {

// Rows up to this length are worked on side by side: measured, longer ones are faster one by one.
constexpr size_t kShortRow = 64;

// Swap the two off-diagonal quarters of every square of 2 s rows and columns; from s = half the width down to
// 1 this turns W vectors of W numbers on their side.
template <class T, int s>
inline void transpose_step(Vec<T>* v) {
  constexpr int w = static_cast<int>(kWidth<T>);
  VecInt<T> low, high;
  for (int i = 0; i < w; ++i) {
    low[i] = i & s ? w + i - s : i;
    high[i] = i & s ? w + i : i + s;
  }
  for (int i = 0; i < w; ++i) {
    if (i & s) continue;
    const Vec<T> a = v[i], b = v[i + s];
    v[i] = __builtin_shuffle(a, b, low);
    v[i + s] = __builtin_shuffle(a, b, high);
  }
  if constexpr (s > 1) transpose_step<T, s / 2>(v);
}

template <class T>
inline void transpose(Vec<T>* v) {
  transpose_step<T, static_cast<int>(kWidth<T> / 2)>(v);
}

template <class T>
struct Block {
  static constexpr size_t kRows = kWidth<T>;

  alignas(kVectorBytes) T x[kShortRow * kRows];  // as read, column by column
  alignas(kVectorBytes) T e[kShortRow * kRows];  // exp(beta * (x - m)), later the result
  alignas(kVectorBytes) T m[kRows];              // largest entry of each row
  Vec<T> sum, lost;                              // their sum is that of the row's exponentials
  bool infinite;                                 // whether any row's largest entry is
  size_t k, count;

  double total(size_t r) const { return static_cast<double>(sum[r]) + static_cast<double>(lost[r]); }

  // Read `count` rows of `k` numbers; missing rows repeat the first.
  void read(const T* rows, size_t row_length, size_t n_rows) {
    k = row_length;
    count = n_rows < kRows ? n_rows : kRows;
    const T* row[kRows];
    for (size_t r = 0; r < kRows; ++r) row[r] = rows + (r < count ? r : 0) * k;
    size_t j = 0;
    Vec<T> v[kRows];
    for (; j + kRows <= k; j += kRows) {
      for (size_t r = 0; r < kRows; ++r) v[r] = load(row[r] + j);
      transpose<T>(v);
      for (size_t c = 0; c < kRows; ++c) store(x + (j + c) * kRows, v[c]);
    }
    for (; j < k; ++j) {
      for (size_t r = 0; r < kRows; ++r) x[j * kRows + r] = row[r][j];
    }
  }

  void write(T* rows) const {
    size_t j = 0;
    Vec<T> v[kRows];
    for (; j + kRows <= k; j += kRows) {
      for (size_t c = 0; c < kRows; ++c) v[c] = load(e + (j + c) * kRows);
      transpose<T>(v);
      for (size_t r = 0; r < count; ++r) store(rows + r * k + j, v[r]);
    }
    for (; j < k; ++j) {
      for (size_t r = 0; r < count; ++r) rows[r * k + j] = e[j * kRows + r];
    }
  }

  void exponentials(T beta) {
    Vec<T> top = splat(-kInfinity<T>);
    for (size_t j = 0; j < k; ++j) top = max<T>(load(x + j * kRows), top);
    sum = lost = splat(T(0));
    for (size_t j = 0; j < k; ++j) {
      const Vec<T> term = exp_nonpositive<T>((load(x + j * kRows) - top) * beta);
      store(e + j * kRows, term);
      const Vec<T> next = sum + term, part = next - sum;
      lost += (sum - (next - part)) + (term - part);
      sum = next;
    }
    store(m, top);
    const VecInt<T> bad = top - top != T(0);
    infinite = false;
    for (size_t r = 0; r < kRows; ++r) infinite |= bad[r] != 0;
  }

  void scale(Vec<T> factor) {
    for (size_t j = 0; j < k; ++j) store(e + j * kRows, load(e + j * kRows) * factor);
  }

  // Row r as it was read.
  void copy_row(size_t r, T* row) const {
    for (size_t j = 0; j < k; ++j) row[j] = x[j * kRows + r];
  }
};

template <class T>
void softmax_short(const T* x, T* out, size_t n, size_t k, T beta) {
  Block<T> block;
  T row[kShortRow];
  for (size_t first = 0; first < n; first += Block<T>::kRows) {
    block.read(x + first * k, k, n - first);
    block.exponentials(beta);
    block.scale(T(1) / (block.sum + block.lost));
    block.write(out + first * k);
    for (size_t r = 0; block.infinite && r < block.count; ++r) {
      if (!std::isinf(block.m[r])) continue;
      block.copy_row(r, row);
      softmax_at_infinity(row, out + (first + r) * k, k, block.m[r]);
    }
  }
}

template <class T>
void log_softmax_short(const T* x, T* out, size_t n, size_t k, T beta) {
  Block<T> block;
  T shift[Block<T>::kRows], row[kShortRow];
  for (size_t first = 0; first < n; first += Block<T>::kRows) {
    block.read(x + first * k, k, n - first);
    block.exponentials(beta);
    for (size_t r = 0; r < Block<T>::kRows; ++r) shift[r] = static_cast<T>(std::log(block.total(r)));
    const Vec<T> top = load(block.m), s = load(shift);
    for (size_t j = 0; j < k; ++j) {
      const size_t at = j * Block<T>::kRows;
      store(block.e + at, (load(block.x + at) - top) * beta - s);
    }
    block.write(out + first * k);
    for (size_t r = 0; block.infinite && r < block.count; ++r) {
      if (!std::isinf(block.m[r])) continue;
      block.copy_row(r, row);
      log_softmax_at_infinity(row, out + (first + r) * k, k, block.m[r]);
    }
  }
}

template <class T>
void logsumexp_short(const T* x, T* out, size_t n, size_t k, T beta) {
  Block<T> block;
  T row[kShortRow];
  for (size_t first = 0; first < n; first += Block<T>::kRows) {
    block.read(x + first * k, k, n - first);
    block.exponentials(beta);
    for (size_t r = 0; r < block.count; ++r) {
      if (std::isinf(block.m[r])) {
        block.copy_row(r, row);
        out[first + r] = has_nan(row, k) ? kNaN<T> : block.m[r];
      } else {
        out[first + r] = static_cast<T>(static_cast<double>(block.m[r]) * beta + std::log(block.total(r)));
      }
    }
  }
}

template <class T>
void cross_entropy_short(const T* x, const std::int64_t* target, const T* weight, T* loss, T* grad, size_t n,
                         size_t k, T beta) {
  Block<T> block;
  alignas(kVectorBytes) T w[Block<T>::kRows];
  T row[kShortRow];
  for (size_t first = 0; first < n; first += Block<T>::kRows) {
    block.read(x + first * k, k, n - first);
    block.exponentials(beta);
    for (size_t r = 0; r < Block<T>::kRows; ++r) w[r] = weight && r < block.count ? weight[first + r] : T(1);
    block.scale(load(w) * beta / (block.sum + block.lost));
    block.write(grad + first * k);
    for (size_t r = 0; r < block.count; ++r) {
      const std::int64_t y = target[first + r];
      const T m = block.m[r];
      T* g = grad + (first + r) * k;
      if (y < 0 || w[r] == 0 || std::isinf(m)) {
        block.copy_row(r, row);
        cross_entropy_special(row, y, w[r], loss + first + r, g, k);
        continue;
      }
      const T z = block.x[static_cast<size_t>(y) * Block<T>::kRows + r];
      loss[first + r] = static_cast<T>((std::log(block.total(r)) + static_cast<double>(m - z) * beta) * w[r]);
      g[y] -= w[r] * beta;
    }
  }
}

}  // namespace
