// The table of one instruction set: which kernel serves which shape.
#pragma once

#include "columns.inl"
#include "elementwise.inl"
#include "lbfgs.inl"
#include "linear.inl"
#include "losses.inl"
#include "projections.inl"
#include "short_rows.inl"

namespace {

// The kernel for short rows where the rows are short; every kernel ends in (n, k, parameters).
template <auto kShort, auto kLong, class T>
void map_by_length(const T* x, const int64_t* target, T* out, size_t n, size_t k, const Parameters& p) {
  (k <= kShortRow ? kShort : kLong)(x, target, out, n, k, p);
}

template <class F, class T>
void loss_by_length(const T* x, const int64_t* target, const T* weight, T* losses, T* grad, size_t n,
                    size_t k, const Parameters& p) {
  (k <= kShortRow ? loss_short<F, T> : loss<F, T>)(x, target, weight, losses, grad, n, k, p);
}

template <class F, class T>
constexpr luce::MemberKernels<T> member() {
  return {map_by_length<map_short<false, F, T>, probabilities<F, T>, T>,
          map_by_length<map_short<true, F, T>, log_probabilities<F, T>, T>,
          columns<false, F, T>,
          columns<true, F, T>,
          loss_by_length<F, T>,
          soft_loss<F, T>};
}

// Taylor softmax: degree 2, which is the usual one, has loops of its own.
template <class T, class Member, class... Arguments>
void by_degree(Member kernel, const Parameters& p, Arguments... arguments) {
  constexpr luce::MemberKernels<T> second = member<Polynomial<T, 2>, T>(),
                                   any = member<Polynomial<T, 0>, T>();
  ((p.shape == 2 ? second : any).*kernel)(arguments..., p);
}

template <class T>
constexpr luce::MemberKernels<T> taylor() {
  using M = luce::MemberKernels<T>;
  return {[](const T* x, const int64_t* target, T* out, size_t n, size_t k, const Parameters& p) {
            by_degree<T>(&M::probabilities, p, x, target, out, n, k);
          },
          [](const T* x, const int64_t* target, T* out, size_t n, size_t k, const Parameters& p) {
            by_degree<T>(&M::log_probabilities, p, x, target, out, n, k);
          },
          [](const T* x, T* out, size_t k, size_t stride, size_t first, size_t last, const Parameters& p) {
            by_degree<T>(&M::columns, p, x, out, k, stride, first, last);
          },
          [](const T* x, T* out, size_t k, size_t stride, size_t first, size_t last, const Parameters& p) {
            by_degree<T>(&M::log_columns, p, x, out, k, stride, first, last);
          },
          [](const T* x, const int64_t* target, const T* weight, T* losses, T* grad, size_t n, size_t k,
             const Parameters& p) { by_degree<T>(&M::loss, p, x, target, weight, losses, grad, n, k); },
          [](const T* x, const T* target, const T* weight, T* losses, T* grad, size_t n, size_t k,
             const Parameters& p) { by_degree<T>(&M::soft_loss, p, x, target, weight, losses, grad, n, k); }};
}

template <class T, class X>
constexpr luce::LinearKernels<T, X> linear() {
  return {linear_logits<T, X>, linear_gradient<T, X>, linear_moments<T, X>};
}

template <class T>
constexpr luce::Table<T> table() {
  return {member<Exponential<T>, T>(),
          taylor<T>(),
          member<Quadratic<T>, T>(),
          {entmax<T>, nullptr, columns_by_rows<entmax<T>, T>, nullptr, entmax_loss<T>, entmax_soft_loss<T>},
          map_by_length<logsumexp_short<T>, logsumexp<T>, T>,
          sigmoid<T>,
          log_sigmoid<T>,
          sigmoid_loss<T>,
          add_columns<T>,
          add_wide<T>,
          linear<T, std::uint8_t>(),
          linear<T, float>(),
          linear<T, double>()};
}

constexpr luce::LbfgsKernels lbfgs() { return {lbfgs_add, lbfgs_direction, lbfgs_metric}; }

}  // namespace
