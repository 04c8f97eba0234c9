// Losses of rows one by one, and their gradients: -log of the target's probability, in one go.
//
// The gradient of a member with weights w and slopes w' is beta (w'_k / sum - [k is the target] w'_k / w_k).
#pragma once

#include "rows.inl"

namespace {

template <class F, class T>
void loss(const T* x, const int64_t* target, const T* weight, T* losses, T* grad, size_t n, size_t k,
          const Parameters& p) {
  F f(p);
  Output<T> output(x, grad, k, p);
  Parts<T> parts;
  const double beta = static_cast<double>(static_cast<T>(p.beta));
  for (size_t row = 0; row < n; ++row, x += k, grad += k) {
    const T w = weight ? weight[row] : T(1);
    if (target[row] < 0 || w == 0) {
      losses[row] = 0;
      fill(grad, k, T(0));
      continue;
    }
    const auto y = static_cast<size_t>(target[row]);
    const Patch<T> patch = Patch<T>::of(x, target + row, p);
    const T a = patch.read(x, y);
    double sum;
    if constexpr (F::kShifts) {
      T* weights = output.weights(grad);
      if (!weigh_parts<true>(f, x, weights, k, patch, parts)) {
        special_loss(f, x, y, w, losses + row, grad, k, patch);
        continue;
      }
      sum = parts.sum;
      scale_parts(parts, weights, grad, k, f.beta[0], static_cast<double>(w) * beta / sum, output.streaming);
    } else {
      sum = weigh<false>(f, x, grad, k, patch);
      if (!usable<T>(sum)) {
        special_loss(f, x, y, w, losses + row, grad, k, patch);
        continue;
      }
      const T scale = static_cast<T>(static_cast<double>(w) * beta / sum);
      map_row(x, grad, k, output.streaming, [f, scale](Vec<T> v) { return f.slope(v, v) * scale; });
      if (patch.at < k) grad[y] = f.slope(splat(a), splat(a))[0] * scale;
    }
    losses[row] = static_cast<T>((std::log(sum) - f.log_weight_of(a)) * static_cast<double>(w));
    grad[y] -= static_cast<T>(f.ratio_of(a) * beta * static_cast<double>(w));
  }
}

// A row that the vectors do not serve, with a distribution for a target.
template <class F, class T>
void special_soft_loss(const F& f, const T* x, const T* target, T w, T* loss, T* grad, size_t k,
                       const Survey<T>& row) {
  double value = 0, mass = 0, sum = static_cast<double>(row.infinite);
  Slowly slow;
  if (!row.limit()) sum = weigh_slowly(f, x, k, {}, row, slow);
  for (size_t i = 0; i < k; ++i) {
    if (target[i] == 0) continue;  // 0 times -inf is 0
    const double v = static_cast<double>(x[i]);
    const double weight = row.limit() ? (v == kInfinity<double> ? 1 : 0) : slow.weight(v);
    value += static_cast<double>(target[i]) * (std::log(sum > 0 ? sum : 1) - std::log(weight));
    mass += static_cast<double>(target[i]);
  }
  *loss = row.nan ? kNaN<T> : static_cast<T>(value * static_cast<double>(w));
  for (size_t i = 0; i < k; ++i) {
    if (row.nan || row.limit()) {
      grad[i] = row.nan ? kNaN<T> : T(0);
      continue;
    }
    const double v = static_cast<double>(x[i]), weight = slow.weight(v), slope = slow.slope(v);
    const double pull = weight > 0 ? slope / weight * static_cast<double>(target[i]) : 0;
    grad[i] = static_cast<T>((mass * slope / sum - pull) * slow.beta * static_cast<double>(w));
  }
}

// With targets that are distributions q the margin is taken off each number in proportion: a = x - margin q /
// beta.
template <class F, class T>
void soft_loss(const T* x, const T* target, const T* weight, T* losses, T* grad, size_t n, size_t k,
               const Parameters& p) {
  F f(p);
  const double beta = static_cast<double>(static_cast<T>(p.beta));
  std::vector<T> moved(p.margin != 0 ? k : 0);
  Parts<T> parts;
  for (size_t row = 0; row < n; ++row, x += k, grad += k, target += k) {
    const T w = weight ? weight[row] : T(1);
    const T* a = x;
    if (p.margin != 0) {
      for (size_t i = 0; i < k; ++i)
        moved[i] =
            static_cast<T>(static_cast<double>(x[i]) - p.margin / p.beta * static_cast<double>(target[i]));
      a = moved.data();
    }
    double sum;
    bool ok;
    if constexpr (F::kShifts) {
      ok = weigh_parts<false>(f, a, grad, k, {}, parts);
      sum = parts.sum;
    } else {
      sum = weigh<false>(f, a, grad, k, {});
      ok = usable<T>(sum);
    }
    if (w == 0) {
      losses[row] = 0;
      fill(grad, k, T(0));
      continue;
    }
    if (!ok) {
      special_soft_loss(f, a, target, w, losses + row, grad, k, Survey<T>(a, k, {}));
      continue;
    }
    double mass = 0, dot = 0;
    const T pull = static_cast<T>(static_cast<double>(w) * beta);
    for (size_t i = 0; i < k; ++i) mass += static_cast<double>(target[i]);
    const T scale = static_cast<T>(static_cast<double>(w) * beta * mass / sum);
    for (size_t i = 0; i < k; i += kWidth<T>) {
      const size_t count = std::min(kWidth<T>, k - i);
      const Vec<T> v = load_some(a + i, count, -kInfinity<T>), q = load_some(target + i, count, T(0));
      const Vec<T> lw = f.log_weight(v), none = splat(T(0)), fw = f.weight(v), slope = f.slope(v, fw);
      dot += horizontal_sum<T>(q == T(0) ? none : q * lw);
      Vec<T> ratio = splat(T(1));
      if constexpr (!F::kShifts) ratio = fw == T(0) ? none : slope / fw;
      store_some(grad + i, slope * scale - q * ratio * pull, count);
    }
    losses[row] = static_cast<T>((std::log(sum) * mass - dot) * static_cast<double>(w));
  }
}

}  // namespace
