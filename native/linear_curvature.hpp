// The second derivative of a linear layer's loss in the logits, over a sample of the rows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "linear_rows.hpp"

namespace luce {

enum class Bend { softmax, entmax, sigmoid };  // the forms of a loss's second derivative

namespace linear {

// What a row adds: the sum of s, and the trace of its second derivative.
struct Bent {
  double sum, trace;
};

// In place of probabilities p (k): of entmax and softmax the s of diag(s) - s s' / sum(s), which is
// p^(2 - alpha), p itself where alpha is 1; of sigmoid, from the smaller side of each question, the diagonal.
// The trace is made of what lies beside the largest number: all that a row next to certain has.
template <class T>
Bent bend(T* p, std::size_t k, Bend form, double alpha) {
  double rest = 0, squares = 0;
  std::size_t top = 0;
  for (std::size_t q = 0; q < k; ++q) {
    if (form == Bend::sigmoid) p[q] *= 1 - p[q];
    if (form == Bend::entmax && p[q] > 0)
      p[q] = static_cast<T>(std::pow(static_cast<double>(p[q]), 2 - alpha));
    if (p[q] > p[top]) top = q;
  }
  for (std::size_t q = 0; q < k; ++q) {
    if (q == top) continue;
    rest += p[q];
    squares += static_cast<double>(p[q]) * p[q];
  }
  const double most = p[top], sum = most + rest;
  if (form == Bend::sigmoid) return {sum, sum};
  return {sum, sum > 0 ? (2 * most * rest + (rest * rest - squares)) / sum : 0};
}

}  // namespace linear

// Of every `step`-th row and each of B problems the weighted second derivative in the logits, its form times
// beta squared, summed over the rows: sums (B, k k + d + 2) = the matrix, x - center times each row's trace,
// the traces, the weights (n, B).
template <class T, class X>
void linear_curvature(const Table<T>& table, const LinearRows<T, X>& rows, const LinearMap<T>& map,
                      const T* weight, std::size_t problems, std::size_t step, Bend form, double beta,
                      double alpha, double* sums, int n_threads) {
  using namespace linear;
  const auto& kernels = kernels_for<T, X>(table);
  const std::size_t m = rows.m, k = m / problems, d = rows.d, n = (rows.n + step - 1) / step;
  const Padded<T> given(map, rows.center, m, d);
  const std::size_t wide = padded(k), of_problem = k * wide + given.stride, most = block_rows(rows);
  const std::size_t count = std::clamp<std::size_t>(
      n / kRunRows, 1,
      std::clamp<std::size_t>(kRunBytes / (problems * of_problem * sizeof(T)), 1, kMostRuns));
  const std::vector<T> none(wide);
  struct Sums {
    std::vector<T> numbers;
    std::vector<double> diagonal, trace, weight;  // the diagonal, of sigmoid
  };
  std::vector<Sums> runs(count);
  const auto run = [&](std::size_t first, std::size_t last, Sums& to) {
    to.numbers.resize(problems * of_problem);
    to.diagonal.resize(m);
    to.trace.resize(problems);
    to.weight.resize(problems);
    std::vector<T> z(most * m), scaled(most * m), traces(most * problems);
    std::vector<const X*> x(most);
    std::vector<const T*> s(most);
    std::vector<T*> matrix(k), means(problems);
    for (std::size_t b = 0; b < problems; ++b) means[b] = to.numbers.data() + b * of_problem + k * wide;
    for (; first < last; first += most) {
      const std::size_t size = std::min(most, last - first);
      for (std::size_t i = 0; i < size; ++i) x[i] = rows.x + (first + i) * step * d;
      const X* end = rows.x + rows.n * d;
      kernels.logits(x.data(), end, given.center, given.matrix, given.offset.data(), z.data(), size, d, m, m);
      const Parameters p{beta, alpha, 0, nullptr, 0};
      if (form == Bend::sigmoid) {
        for (std::size_t i = 0; i < size * m; ++i) z[i] = -std::abs(z[i]);
        table.sigmoid(z.data(), z.data(), size * m, p);
      } else
        (form == Bend::entmax ? table.entmax : table.softmax)
            .probabilities(z.data(), nullptr, z.data(), size * problems, k, p);
      for (std::size_t i = 0; i < size * problems; ++i) {
        const std::size_t b = i % problems;
        T *from = z.data() + i * k, *out = scaled.data() + i * k;
        const double w = weight[(first + i / problems) * step * problems + b], bent = w * beta * beta;
        if (w == 0) std::fill_n(from, k, T(0));  // whatever the row holds
        const auto [sum, own] = bend(from, k, form, alpha);
        const double trace = bent * own, share = sum > 0 ? bent / sum : 0;
        for (std::size_t q = 0; q < k; ++q) {
          if (form == Bend::sigmoid) to.diagonal[b * k + q] += bent * from[q];
          out[q] = static_cast<T>(-share * from[q]);
        }
        traces[i] = static_cast<T>(trace);
        to.trace[b] += trace;
        to.weight[b] += w;
      }
      kernels.gradient(x.data(), end, nullptr, given.center, traces.data(), means.data(), size, d, problems,
                       problems);
      if (form == Bend::sigmoid) continue;
      for (std::size_t b = 0; b < problems; ++b) {
        for (std::size_t i = 0; i < size; ++i) s[i] = z.data() + (i * problems + b) * k;
        for (std::size_t q = 0; q < k; ++q) matrix[q] = to.numbers.data() + b * of_problem + q * wide;
        kernels_for<T, T>(table).gradient(s.data(), z.data() + size * m, nullptr, none.data(),
                                          scaled.data() + b * k, matrix.data(), size, k, k, m);
      }
    }
  };
  split_rows(count, n_threads, 1, [&](std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) run(n * i / count, n * (i + 1) / count, runs[i]);
  });
  std::fill_n(sums, problems * (k * k + d + 2), 0);
  for (const Sums& part : runs)
    for (std::size_t b = 0; b < problems; ++b) {
      const T* from = part.numbers.data() + b * of_problem;
      double* to = sums + b * (k * k + d + 2);
      for (std::size_t q = 0; q < k; ++q) {
        table.add_wide(from + q * wide, k, to + q * k);
        to[q * k + q] = form == Bend::sigmoid ? to[q * k + q] + part.diagonal[b * k + q] : 0;
      }
      table.add_wide(from + k * wide, d, to + k * k);
      to[k * k + d] += part.trace[b];
      to[k * k + d + 1] += part.weight[b];
    }
  // A row of diag(s) - s s' / sum(s) sums to 0: its place on the diagonal is what the others leave, to the
  // last digit however certain the rows are.
  for (std::size_t b = 0; form != Bend::sigmoid && b < problems; ++b)
    for (std::size_t q = 0; q < k; ++q) {
      double* row = sums + b * (k * k + d + 2) + q * k;
      row[q] = -std::accumulate(row, row + k, 0.0);
    }
}

}  // namespace luce
