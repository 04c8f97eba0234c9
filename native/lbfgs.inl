// What L-BFGS does with its pairs, for one problem: products of all of them with a vector, the two loops of
// the recursion on the small matrices of products (Nocedal & Wright's algorithm 7.4 in the pairs'
// coordinates), and a combination of the pairs. Sums of a row do not depend on the rows beside it.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels.hpp"
#include "linear.inl"
#include "vec.hpp"

namespace {

// Rows that share a vector: as many sums as hide the latency of an addition.
constexpr int kPairRows = 8;

// out (count) = rows (count, n) times x (n), where rows lie `stride` apart.
inline void products(const double* rows, size_t count, size_t stride, const double* x, size_t n,
                     double* out) {
  constexpr size_t w = kWidth<double>;
  const size_t whole = n / w * w;
  over_outputs<kPairRows>(count, [&](size_t first, auto constant) {
    const double* from = rows + first * stride;
    Vec<double> sums[constant()] = {};
    for (size_t j = 0; j < whole; j += w) {
      const Vec<double> v = load(x + j);
      for (size_t r = 0; r < constant(); ++r)
        sums[r] = mul_add<double>(load(from + r * stride + j), v, sums[r]);
    }
    if (whole < n) {
      const Vec<double> v = load_part(x + whole, n - whole, 0.0);
      for (size_t r = 0; r < constant(); ++r)
        sums[r] = mul_add<double>(load_part(from + r * stride + whole, n - whole, 0.0), v, sums[r]);
    }
    for (size_t r = 0; r < constant(); ++r) out[first + r] = sum_of<double>(sums[r]);
  });
}

// out (n) += factors (count) times rows (count, n).
inline void add_rows(const double* rows, size_t count, size_t stride, const double* factors, size_t n,
                     double* out) {
  constexpr size_t w = kWidth<double>;
  const size_t whole = n / w * w;
  over_outputs<kPairRows>(count, [&](size_t first, auto constant) {
    const double* from = rows + first * stride;
    Vec<double> f[constant()];
    for (size_t r = 0; r < constant(); ++r) f[r] = splat(factors[first + r]);
    for (size_t j = 0; j < whole; j += w) {
      Vec<double> sum = load(out + j);
      for (size_t r = 0; r < constant(); ++r) sum = mul_add<double>(load(from + r * stride + j), f[r], sum);
      store(out + j, sum);
    }
    if (whole < n) {
      Vec<double> sum = load_part(out + whole, n - whole, 0.0);
      for (size_t r = 0; r < constant(); ++r)
        sum = mul_add<double>(load_part(from + r * stride + whole, n - whole, 0.0), f[r], sum);
      store_part(out + whole, sum, n - whole);
    }
  });
}

inline void subtract(const double* a, const double* b, double* __restrict out, size_t n) {
  for (size_t j = 0; j < n; ++j) out[j] = a[j] - b[j];
}

inline void lbfgs_add(const luce::LbfgsPairs& m, const double* step, const double* before,
                      const double* after, const double* turned_before, const double* turned_after) {
  const size_t n = m.n, most = m.most, place = m.newest;
  double *s = m.steps + place * n, *y = m.changes + place * n, *t = m.turned + place * n;
  std::copy_n(step, n, s);
  subtract(after, before, y, n);
  double *along = m.along + place * most, *lengths = m.lengths + place * most;
  products(s, 1, n, y, n, along + place);
  const bool told = along[place] > 0;
  if (told) {
    subtract(turned_after, turned_before, t, n);
    products(m.steps, m.count, n, y, n, along);
    products(m.turned, m.count, n, y, n, lengths);
    if (lengths[place] > 0) *m.scale = along[place] / lengths[place];
  } else {
    for (double* v : {s, y, t}) std::fill_n(v, n, 0.0);
    for (double* v : {along, lengths}) std::fill_n(v, m.count, 0.0);
    along[place] = 1;
  }
  for (size_t i = 0; i < m.count; ++i) {
    m.lengths[i * most + place] = lengths[i];
    if (i != place) m.along[i * most + place] = 0;  // this step came after that change
  }
}

// With the triangle A of `along` (a change's row, the steps before it), its diagonal D, the lengths L, steps
// S, turned changes T and scale c: A' a = S g, A b = D a + c (L a - T g), out = -c turned - S' b + c T' a.
inline void lbfgs_direction(const luce::LbfgsPairs& m, const double* grad, const double* turned_grad,
                            double* out, double* scratch) {
  const size_t n = m.n, most = m.most, count = m.count;
  const double scale = *m.scale;
  for (size_t j = 0; j < n; ++j) out[j] = -scale * turned_grad[j];
  if (count == 0) return;
  double* __restrict a = scratch, * __restrict b = a + most, * __restrict turned = b + most, * __restrict bent = turned + most;
  products(m.steps, count, n, grad, n, a);
  products(m.turned, count, n, grad, n, turned);
  for (size_t i = 0, k = m.newest; i < count; ++i, k = (k == 0 ? count : k) - 1) {
    const double* row = m.along + k * most;
    const double factor = a[k] / row[k];
    for (size_t j = 0; j < count; ++j) a[j] -= factor * row[j];
    a[k] = factor;
  }
  std::fill_n(bent, count, 0.0);
  std::fill_n(b, count, 0.0);
  add_rows(m.lengths, count, most, a, count, bent);
  for (size_t i = 0, k = m.newest; i < count; ++i) {
    k = k + 1 == count ? 0 : k + 1;  // from the oldest on
    const double* row = m.along + k * most;
    double known;
    products(row, 1, most, b, count, &known);
    b[k] = (row[k] * a[k] + scale * (bent[k] - turned[k]) - known) / row[k];
  }
  for (size_t i = 0; i < count; ++i) {
    a[i] *= scale;
    b[i] = -b[i];
  }
  add_rows(m.turned, count, n, a, n, out);
  add_rows(m.steps, count, n, b, n, out);
}

// out = the metric's product with one problem's gradient, see luce/regression/preconditioner.py: of weights W
// (k, d) and biases b (k), with features V (r, d), classes C and mean m, the steps of the weights are
// S = C M(C' (W - b m')), those of the biases C ((C' b) / bias_divisor) - S m. M multiplies a row by its
// roots, adds what lies along V once more with its gains, and multiplies by the roots again; without roots it
// is only what lies along V, with its gains.
inline void lbfgs_metric(const luce::LbfgsMetric& metric, const double* grad, double* out, double* scratch) {
  const size_t k = metric.k, d = metric.d, r = metric.r, stride = luce::padded(d);
  const double *bias = grad + k * d, *classes = metric.classes, *roots = metric.roots;
  double *a = scratch, *b = a + k * stride, *along = b + k * stride, *column = along + r * k,
         *turned = column + k, *none = turned + k;
  std::vector<const double*> vectors(r);
  std::vector<double*> rows(k);
  for (size_t q = 0; q < k; ++q) rows[q] = b + q * stride;
  for (size_t i = 0; i < r; ++i) vectors[i] = metric.vectors + i * d;
  const double* end = metric.vectors + r * d;
  std::fill_n(b, k * stride, 0.0);
  std::fill_n(none, std::max(stride, k), 0.0);
  for (size_t q = 0; q < k; ++q)
    for (size_t j = 0; j < d; ++j) a[q * d + j] = grad[q * d + j] - bias[q] * metric.mean[j];
  for (size_t q = 0; q < k; ++q) {
    for (size_t p = 0; p < k; ++p) column[p] = classes[p * k + q];
    add_rows(a, k, d, column, d, b + q * stride);
    products(bias, 1, k, column, k, turned + q);
    turned[q] /= metric.bias_divisor[q];
    if (roots)
      for (size_t j = 0; j < d; ++j) b[q * stride + j] *= roots[q * d + j];
  }
  linear_logits<double, double>(vectors.data(), end, none, b, none, along, r, d, k, k);
  for (size_t i = 0; i < r; ++i)
    for (size_t q = 0; q < k; ++q) along[i * k + q] *= metric.gain[q * r + i];
  if (!roots) std::fill_n(b, k * stride, 0.0);
  linear_gradient<double, double>(vectors.data(), end, nullptr, none, along, rows.data(), r, d, k, k);
  for (size_t q = 0; q < k; ++q)
    for (size_t j = 0; j < d; ++j) a[q * d + j] = b[q * stride + j] * (roots ? roots[q * d + j] : 1.0);
  std::fill_n(out, k * d, 0.0);
  for (size_t q = 0; q < k; ++q) {
    double *step = out + q * d, own, moved;
    add_rows(a, k, d, classes + q * k, d, step);
    products(classes + q * k, 1, k, turned, k, &own);
    products(step, 1, d, metric.mean, d, &moved);
    out[k * d + q] = own - moved;
  }
}

}  // namespace
