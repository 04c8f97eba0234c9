// Row kernels, written once for every instruction set.
//
// A row is walked twice or three times: maximum; exponentials and their sum; scaling. The sum is kept in
// vectors for a block and in double over the blocks, so its error does not grow with the length of the row.
#pragma once

#include <cmath>
#include <limits>

#include "exp_log.inl"
#include "kernels.hpp"

namespace {

using std::size_t;

constexpr size_t kBlockVectors = 16;

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();
template <class T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

template <class T>
inline T horizontal_max(Vec<T> v) {
  T m = v[0];
  for (size_t i = 1; i < kWidth<T>; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

template <class T>
inline double horizontal_sum(Vec<T> v) {
  double s = 0;
  for (size_t i = 0; i < kWidth<T>; ++i) s += static_cast<double>(v[i]);
  return s;
}

// The largest entry of a row; NaNs are passed over, an empty or all-NaN row gives -inf.
template <class T>
inline T row_max(const T* x, size_t k) {
  constexpr size_t w = kWidth<T>;
  Vec<T> a = splat(-kInfinity<T>), b = a;
  size_t i = 0;
  for (; i + 2 * w <= k; i += 2 * w) {
    a = max<T>(load(x + i), a);
    b = max<T>(load(x + i + w), b);
  }
  if (i + w <= k) {
    a = max<T>(load(x + i), a);
    i += w;
  }
  if (i < k) b = max<T>(load_part(x + i, k - i, -kInfinity<T>), b);
  return horizontal_max<T>(max<T>(a, b));
}

template <class T>
inline bool has_nan(const T* x, size_t k) {
  bool found = false;
  for (size_t i = 0; i < k; ++i) found |= x[i] != x[i];
  return found;
}

// A sum whose error does not grow with the number of terms; every term is positive here, so the larger one
// needs no branch but a comparison. Source: Neumaier 1974, doi 10.1002/zamm.19740540106.
struct Sum {
  double value = 0, lost = 0;

  void add(double term) {
    const double next = value + term;
    lost += value >= term ? (value - next) + term : (term - next) + value;
    value = next;
  }
  double total() const { return value + lost; }
};

// Sum of exp(beta * (x - m)); the exponentials are stored where `out` is given. A NaN in the row gives NaN.
template <class T, bool kStore>
inline double exp_and_sum(const T* x, T* out, size_t k, T m, T beta) {
  constexpr size_t w = kWidth<T>;
  Sum total;
  size_t i = 0;
  while (i + w <= k) {
    Vec<T> sum = splat(T(0));
    for (size_t j = 0; j < kBlockVectors && i + w <= k; ++j, i += w) {
      const Vec<T> e = exp_nonpositive<T>((load(x + i) - m) * beta);
      if constexpr (kStore) store(out + i, e);
      sum += e;
    }
    total.add(horizontal_sum<T>(sum));
  }
  if (i < k) {
    const Vec<T> e = exp_nonpositive<T>((load_part(x + i, k - i, -kInfinity<T>) - m) * beta);
    if constexpr (kStore) store_part(out + i, e, k - i);
    total.add(horizontal_sum<T>(e));
  }
  return total.total();
}

template <class T, class F>
inline void map_row(const T* x, T* out, size_t k, F f) {
  constexpr size_t w = kWidth<T>;
  size_t i = 0;
  for (; i + w <= k; i += w) store(out + i, f(load(x + i)));
  if (i < k) store_part(out + i, f(load_part(x + i, k - i, T(0))), k - i);
}

template <class T>
inline void fill(T* out, size_t k, T value) {
  for (size_t i = 0; i < k; ++i) out[i] = value;
}

template <class T>
inline size_t count_infinite(const T* x, size_t k) {
  size_t n = 0;
  for (size_t i = 0; i < k; ++i) n += x[i] == kInfinity<T>;
  return n;
}

// Softmax of a row whose maximum is infinite: the limits, see kernels.hpp.
template <class T>
void softmax_at_infinity(const T* x, T* out, size_t k, T m) {
  if (has_nan(x, k)) return fill(out, k, kNaN<T>);
  const T share = m > 0 ? T(1) / static_cast<T>(count_infinite(x, k)) : T(0);
  for (size_t i = 0; i < k; ++i) out[i] = x[i] == kInfinity<T> ? share : T(0);
}

template <class T>
void softmax_row(const T* x, T* out, size_t k, T beta) {
  const T m = row_max(x, k);
  if (std::isinf(m)) return softmax_at_infinity(x, out, k, m);
  const T scale = static_cast<T>(1.0 / exp_and_sum<T, true>(x, out, k, m, beta));
  map_row(out, out, k, [scale](Vec<T> e) { return e * scale; });
}

template <class T>
void softmax(const T* x, T* out, size_t n, size_t k, T beta) {
  for (size_t row = 0; row < n; ++row) softmax_row(x + row * k, out + row * k, k, beta);
}

// Log of the sum of exp(beta * (x - m)) for a row with finite maximum m.
template <class T>
inline double log_sum(const T* x, size_t k, T m, T beta) {
  return std::log(exp_and_sum<T, false>(x, nullptr, k, m, beta));
}

template <class T>
void log_softmax_at_infinity(const T* x, T* out, size_t k, T m) {
  softmax_at_infinity(x, out, k, m);
  for (size_t i = 0; i < k; ++i) out[i] = std::log(out[i]);
}

template <class T>
void log_softmax(const T* x, T* out, size_t n, size_t k, T beta) {
  for (size_t row = 0; row < n; ++row, x += k, out += k) {
    const T m = row_max(x, k);
    if (std::isinf(m)) {
      log_softmax_at_infinity(x, out, k, m);
      continue;
    }
    const T shift = static_cast<T>(log_sum(x, k, m, beta));
    map_row(x, out, k, [m, beta, shift](Vec<T> v) { return (v - m) * beta - shift; });
  }
}

template <class T>
void logsumexp(const T* x, T* out, size_t n, size_t k, T beta) {
  for (size_t row = 0; row < n; ++row, x += k) {
    const T m = row_max(x, k);
    if (std::isinf(m)) {
      out[row] = has_nan(x, k) ? kNaN<T> : m;
    } else {
      out[row] = static_cast<T>(static_cast<double>(m) * beta + log_sum(x, k, m, beta));
    }
  }
}

// Loss of a class with logit +inf in a row whose maximum is infinite; that of any other class is infinite.
template <class T>
double loss_at_infinity(const T* x, size_t k) {
  return has_nan(x, k) ? kNaN<double> : std::log(static_cast<double>(count_infinite(x, k)));
}

// A row that does not count, or whose maximum is infinite.
template <class T>
void cross_entropy_special(const T* x, std::int64_t y, T w, T* loss, T* grad, size_t k) {
  if (y < 0 || w == 0) {
    *loss = 0;
    return fill(grad, k, T(0));
  }
  const double value = loss_at_infinity(x, k);
  *loss = x[y] == kInfinity<T> || value != value ? static_cast<T>(value * w) : kInfinity<T> * w;
  fill(grad, k, *loss != *loss ? kNaN<T> : T(0));
}

template <class T>
void cross_entropy(const T* x, const std::int64_t* target, const T* weight, T* loss, T* grad, size_t n,
                   size_t k, T beta) {
  for (size_t row = 0; row < n; ++row, x += k, grad += k) {
    const std::int64_t y = target[row];
    const T w = weight ? weight[row] : T(1);
    const T m = y < 0 || w == 0 ? T(0) : row_max(x, k);
    if (y < 0 || w == 0 || std::isinf(m)) {
      cross_entropy_special(x, y, w, loss + row, grad, k);
      continue;
    }
    const T z = x[y];
    const double sum = exp_and_sum<T, true>(x, grad, k, m, beta);
    const T scale = static_cast<T>(w * beta / sum);
    loss[row] = static_cast<T>((std::log(sum) + static_cast<double>(m - z) * beta) * w);
    map_row(grad, grad, k, [scale](Vec<T> e) { return e * scale; });
    grad[y] -= w * beta;
  }
}

template <class T>
void cross_entropy_soft(const T* x, const T* target, const T* weight, T* loss, T* grad, size_t n, size_t k,
                        T beta) {
  for (size_t row = 0; row < n; ++row, x += k, grad += k, target += k) {
    const T w = weight ? weight[row] : T(1);
    const T m = row_max(x, k);
    double mass = 0, dot = 0;
    const bool finite = !std::isinf(m);
    for (size_t i = 0; i < k; ++i) {
      if (target[i] == 0) continue;  // 0 times -inf is 0
      mass += target[i];
      dot += static_cast<double>(target[i]) * (finite ? (static_cast<double>(m) - x[i]) * beta : (m - x[i]));
    }
    if (!finite) {
      const double share = loss_at_infinity(x, k);
      const bool bad = share != share;
      double value = 0;
      for (size_t i = 0; i < k; ++i) {
        if (target[i] != 0) value += target[i] * (x[i] == kInfinity<T> ? share : kInfinity<double>);
      }
      loss[row] = bad ? kNaN<T> : static_cast<T>(value * w);
      fill(grad, k, bad ? kNaN<T> : T(0));
      continue;
    }
    const double sum = exp_and_sum<T, true>(x, grad, k, m, beta);
    loss[row] = static_cast<T>((std::log(sum) * mass + dot) * w);
    const T scale = static_cast<T>(w * beta * mass / sum), pull = w * beta;
    for (size_t i = 0; i < k; ++i) grad[i] = grad[i] * scale - target[i] * pull;
  }
}

}  // namespace
