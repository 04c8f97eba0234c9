// Kernels for many short rows: a vector holds the same column of as many rows as it is wide.
//
// A block of rows is turned on its side, worked on, and turned back. A row's result does not depend on the
// rows beside it, nor on how many there are. Sums are compensated (Dekker's FastTwoSum; a term larger than
// the sum before it costs a rounding, but then the sum doubles), so their error does not grow with k.
#pragma once

#include <utility>

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

// One column of a block, number by number: cheaper than turning a whole vector of columns for one or two of
// them.
template <class T, size_t... kRow>
inline Vec<T> pick_column(const T* const* row, size_t j, std::index_sequence<kRow...>) {
  return Vec<T>{row[kRow][j]...};
}
template <class T, size_t... kRow>
inline void put_column(T* rows, size_t k, size_t j, Vec<T> v, std::index_sequence<kRow...>) {
  ((rows[kRow * k + j] = v[kRow]), ...);
}

// Blocks of rows on their side. A row of fewer numbers than a vector has is read up to its end and no
// further.
template <class T>
struct Block {
  static constexpr size_t kRows = kWidth<T>;
  static constexpr size_t kFew = kRows / 4;  // columns that are better taken one by one
  using Places = std::make_index_sequence<kRows>;

  alignas(kVectorBytes) T x[kShortRow * kRows];  // as read, column by column
  alignas(kVectorBytes) T e[kShortRow * kRows];  // weights or slopes, later the result
  Vec<T> top;                                    // the largest numbers, as read
  Vec<T> sum, lost;                              // their sum is that of the row's weights
  size_t k, count;

  // Read `count` rows of `k` numbers; missing rows repeat the first. A last vector of columns overlaps the
  // one before it.
  void read(const T* rows, size_t row_length, size_t n_rows) {
    k = row_length;
    count = n_rows < kRows ? n_rows : kRows;
    const T* row[kRows];
    for (size_t r = 0; r < kRows; ++r) row[r] = rows + (r < count ? r : 0) * k;
    Vec<T> v[kRows];
    Vec<T> largest =
        splat(-kInfinity<T>);  // not `top`, which stores to x might change for all the compiler knows
    if (k < kRows) {
      for (size_t r = 0; r < kRows; ++r) v[r] = load_part(row[r], k, T(0));
      transpose<T>(v);
      for (size_t c = 0; c < k; ++c) {
        store(x + c * kRows, v[c]);
        largest = max<T>(v[c], largest);
      }
      top = largest;
      return;
    }
    for (size_t j = 0; j < k; j += kRows) {
      if (k - j <= kFew) {
        for (size_t c = j; c < k; ++c) {
          const Vec<T> column = pick_column(row, c, Places());
          store(x + c * kRows, column);
          largest = max<T>(column, largest);
        }
        break;
      }
      const size_t from = j + kRows <= k ? j : k - kRows;
      for (size_t r = 0; r < kRows; ++r) v[r] = load(row[r] + from);
      transpose<T>(v);
      for (size_t c = 0; c < kRows; ++c) {
        store(x + (from + c) * kRows, v[c]);
        largest = max<T>(v[c], largest);
      }
    }
    top = largest;
  }

  // Write e times `factor`, a factor for each row.
  void write(T* rows, Vec<T> factor) const {
    Vec<T> v[kRows];
    if (k < kRows) {
      for (size_t c = 0; c < kRows; ++c) v[c] = load(e + (c < k ? c : 0) * kRows) * factor;
      transpose<T>(v);
      for (size_t r = 0; r < count; ++r) store_part(rows + r * k, v[r], k);
      return;
    }
    for (size_t j = 0; j < k; j += kRows) {
      if (k - j <= kFew && count == kRows) {
        for (size_t c = j; c < k; ++c) put_column(rows, k, c, load(e + c * kRows) * factor, Places());
        break;
      }
      const size_t to = j + kRows <= k ? j : k - kRows;
      for (size_t c = 0; c < kRows; ++c) v[c] = load(e + (to + c) * kRows) * factor;
      transpose<T>(v);
      for (size_t r = 0; r < count; ++r) store(rows + r * k + to, v[r]);
    }
  }

  // Read the targets' numbers less the margin, where that is wanted.
  void patch(const int64_t* target, const Parameters& p) {
    if (target == nullptr || p.margin == 0) return;
    for (size_t r = 0; r < count; ++r) {
      if (target[r] < 0) continue;
      T& place = x[static_cast<size_t>(target[r]) * kRows + r];
      place = static_cast<T>(static_cast<double>(place) - p.margin / p.beta);
    }
    top = splat(-kInfinity<T>);
    for (size_t j = 0; j < k; ++j) top = max<T>(load(x + j * kRows), top);
  }

  // Weigh every number; weights are stored, or slopes. Returns the rows that special.inl has to serve.
  template <bool kSlopes, class F>
  VecInt<T> weigh(F& f) {
    VecInt<T> special{};
    if constexpr (F::kShifts) {
      special = top - top != T(0);
      f.top = top;
    }
    const F g = f;
    Vec<T> s = splat(T(0)), error = s;
    for (size_t j = 0; j < k; ++j) {
      const Vec<T> v = load(x + j * kRows), term = g.weight(v);
      store(e + j * kRows, kSlopes ? g.slope(v, term) : term);
      const Vec<T> next = s + term;
      error += term - (next - s);
      s = next;
    }
    sum = s;
    lost = error;
    if constexpr (!F::kShifts) {
      using Limits = std::numeric_limits<T>;
      special = (sum >= Limits::min() && sum <= Limits::max()) ? special : ~special;
    }
    return special;
  }

  // Where the largest weight is 1, the logarithm is not below 0, and rounding must not bring it there.
  template <class F>
  Vec<T> log_sum() const {
    const Vec<T> value = log_of<T>(sum) + lost / sum;
    return F::kShifts ? max<T>(splat(T(0)), value) : value;
  }

  // Row r as it was read, or patched.
  void copy_row(size_t r, T* row) const {
    for (size_t j = 0; j < k; ++j) row[j] = x[j * kRows + r];
  }
};

template <bool kLog, class F, class T>
void map_short(const T* x, const int64_t* target, T* out, size_t n, size_t k, const Parameters& p) {
  F f(p);
  Block<T> block;
  T row[kShortRow];
  for (size_t first = 0; first < n; first += Block<T>::kRows) {
    block.read(x + first * k, k, n - first);
    block.patch(target ? target + first : nullptr, p);
    const VecInt<T> special = block.template weigh<false>(f);
    Vec<T> factor = splat(T(1));
    if constexpr (kLog) {
      const Vec<T> shift = block.template log_sum<F>();
      for (size_t j = 0; j < k; ++j) {
        const size_t at = j * Block<T>::kRows;
        if constexpr (F::kShifts)
          store(block.e + at, f.log_weight(load(block.x + at)) - shift);
        else
          store(block.e + at, log_of<T>(load(block.e + at)) - shift);
      }
    } else {
      factor = T(1) / (block.sum + block.lost);
    }
    block.write(out + first * k, factor);
    if (mask_bits<T>(special) == 0) continue;
    for (size_t r = 0; r < block.count; ++r) {
      if (special[r] == 0) continue;
      block.copy_row(r, row);
      special_map<kLog, F, T>(f, row, out + (first + r) * k, k, {});
    }
  }
}

template <class T>
void logsumexp_short(const T* x, const int64_t*, T* out, size_t n, size_t k, const Parameters& p) {
  Exponential<T> f(p);
  Block<T> block;
  for (size_t first = 0; first < n; first += Block<T>::kRows) {
    block.read(x + first * k, k, n - first);
    const VecInt<T> special = block.template weigh<false>(f);
    store_some(out + first, f.top * f.beta + block.template log_sum<Exponential<T>>(), block.count);
    for (size_t r = 0; r < block.count; ++r) {
      if (special[r] == 0) continue;
      bool nan = false;
      for (size_t j = 0; j < k; ++j)
        nan |= block.x[j * Block<T>::kRows + r] != block.x[j * Block<T>::kRows + r];
      out[first + r] = nan ? kNaN<T> : f.top[r];
    }
  }
}

template <class F, class T>
void loss_short(const T* x, const int64_t* target, const T* weight, T* losses, T* grad, size_t n, size_t k,
                const Parameters& p) {
  constexpr size_t rows = Block<T>::kRows;
  F f(p);
  const T beta = static_cast<T>(p.beta);
  Block<T> block;
  alignas(kVectorBytes) T w[rows], a[rows], pull[rows];
  T row[kShortRow];
  for (size_t first = 0; first < n; first += rows) {
    block.read(x + first * k, k, n - first);
    block.patch(target + first, p);
    const VecInt<T> special = block.template weigh<true>(f);
    for (size_t r = 0; r < rows; ++r) {
      const int64_t y = r < block.count ? target[first + r] : -1;
      w[r] = weight && r < block.count ? weight[first + r] : T(1);
      a[r] = y < 0 ? T(0) : block.x[static_cast<size_t>(y) * rows + r];
    }
    const Vec<T> ws = load(w), at = load(a);
    Vec<T> ratio = splat(T(1));
    if constexpr (!F::kShifts) {
      const Vec<T> weighs = f.weight(at);
      ratio = weighs == T(0) ? splat(T(0)) : f.slope(at, weighs) / weighs;
    }
    store(pull, ratio * ws * beta);
    store_some(losses + first, (block.template log_sum<F>() - f.log_weight(at)) * ws, block.count);
    block.write(grad + first * k, ws * beta / (block.sum + block.lost));
    for (size_t r = 0; r < block.count; ++r) {
      const int64_t y = target[first + r];
      T* g = grad + (first + r) * k;
      if (y < 0 || w[r] == 0) {
        losses[first + r] = 0;
        fill(g, k, T(0));
      } else if (special[r]) {
        block.copy_row(r, row);
        special_loss<F, T>(f, row, static_cast<size_t>(y), w[r], losses + first + r, g, k, {});
      } else {
        g[y] -= pull[r];
      }
    }
  }
}

}  // namespace
