// Functions of single numbers: sigmoid, its logarithm, and the cross-entropy of independent questions.
#pragma once

#include "rows.inl"

namespace {

// exp(-|u|), 1 / (1 + exp(-u)) from it.
template <class T>
inline Vec<T> sigmoid_of(Vec<T> u, Vec<T> e) {
  const Vec<T> numerator = u < T(0) ? e : splat(T(1));
  return numerator / (e + T(1));
}

template <class T>
void sigmoid(const T* x, T* out, size_t n, const Parameters& p) {
  const Vec<T> beta = splat(static_cast<T>(p.beta));
  map_row(x, out, n, false, [beta](Vec<T> v) {
    const Vec<T> u = v * beta;
    return sigmoid_of<T>(u, exp_nonpositive<T>(-absolute<T>(u)));
  });
}

// min(u, 0) - log(1 + exp(-|u|))
template <class T>
inline Vec<T> log_sigmoid_of(Vec<T> u, Vec<T> e) {
  return (u < T(0) ? u : splat(T(0))) - log_one_plus<T>(e);
}

template <class T>
void log_sigmoid(const T* x, T* out, size_t n, const Parameters& p) {
  const Vec<T> beta = splat(static_cast<T>(p.beta));
  map_row(x, out, n, false, [beta](Vec<T> v) {
    const Vec<T> u = v * beta, e = exp_nonpositive<T>(-absolute<T>(u));
    return u == u ? log_sigmoid_of<T>(u, e) : u;
  });
}

template <class T>
void sigmoid_loss(const T* x, const T* target, const T* weight, T* losses, T* grad, size_t n, size_t k,
                  const Parameters& p) {
  const T beta = static_cast<T>(p.beta);
  const Vec<T> none = splat(T(0));
  for (size_t row = 0; row < n; ++row, x += k, grad += k, target += k) {
    const T w = weight ? weight[row] : T(1);
    Sum total;
    for (size_t i = 0; i < k; i += kWidth<T>) {
      const size_t count = std::min(kWidth<T>, k - i);
      const Vec<T> u = load_some(x + i, count, -kInfinity<T>) * beta, q = load_some(target + i, count, T(0));
      const Vec<T> e = exp_nonpositive<T>(-absolute<T>(u)), one = splat(T(1));
      // -q log sigmoid(u) - (1 - q) log sigmoid(-u), where 0 times infinity is 0
      const Vec<T> yes = u == u ? -log_sigmoid_of<T>(u, e) : u, no = u == u ? -log_sigmoid_of<T>(-u, e) : u;
      const Vec<T> cost = (q == T(0) ? none : q * yes) + (q == one ? none : (one - q) * no);
      total.add(horizontal_sum<T>(cost));
      store_some(grad + i, (sigmoid_of<T>(u, e) - q) * (beta * w), count);
    }
    losses[row] = w == 0 ? T(0) : static_cast<T>(total.total() * static_cast<double>(w));
    if (w == 0) fill(grad, k, T(0));
  }
}

}  // namespace
