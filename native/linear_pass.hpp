// One pass over the rows of a linear layer under a loss: logits, losses and gradient of a block of rows at a
// time, so that the rows are read once and no array of logits exists.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "linear_rows.hpp"

namespace luce {

// The loss of each row and problem: class ids or distributions, and weights (n, B), row by row.
template <class T>
struct RowLoss {
  typename MemberKernels<T>::Loss by_class = nullptr;
  typename MemberKernels<T>::SoftLoss by_distribution = nullptr;
  const std::int64_t* classes = nullptr;  // (n)
  const T* distributions = nullptr;       // (n, k)
  const T* weight;
  std::size_t problems;
  Parameters parameters;
  bool shifts;  // whether adding a number to all logits of a row changes nothing
};

namespace linear {

constexpr std::size_t kEnoughOutputs = 5;     // of a problem, for products of its own
constexpr std::size_t kFewNumbers = 1 << 15;  // are added up by one thread

// Sums of a run of rows: losses (B), gradient (m, stride), gradient in the offset (m).
template <class T>
struct Sums {
  std::vector<T> grad;
  std::vector<double> loss, grad_offset;
};

// The rows of a run that count in the same problems.
struct Group {
  std::vector<std::size_t> problems;
  std::size_t first, n;  // in the order of the run
};

// Puts the rows of a run, from order.front() on, in an order where those of a group are together. With more
// problems than a mask has bits every row counts in all of them.
template <class T>
std::vector<Group> grouped(const T* weight, std::size_t problems, std::vector<std::size_t>& order) {
  Group all{std::vector<std::size_t>(problems), 0, order.size()};
  std::iota(all.problems.begin(), all.problems.end(), 0);
  const std::size_t begin = order.front();
  const T *from = weight + begin * problems, *end = from + order.size() * problems;
  if (problems > 64 || std::find(from, end, T(0)) == end) return {all};
  std::vector<std::uint64_t> masks(order.size());
  for (std::size_t i = 0; i < masks.size(); ++i)
    for (std::size_t b = 0; b < problems; ++b) masks[i] |= std::uint64_t{*from++ != 0} << b;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return masks[a - begin] < masks[b - begin]; });
  std::vector<Group> groups;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::uint64_t mask = masks[order[i] - begin];
    if (i == 0 || mask != masks[order[i - 1] - begin]) {
      groups.push_back({{}, i, 0});
      for (std::size_t b = 0; b < problems; ++b)
        if (mask >> b & 1) groups.back().problems.push_back(b);
    }
    ++groups.back().n;
  }
  return groups;
}

inline double sum_of_squares(const double* from, std::size_t n) {
  constexpr std::size_t chains = 8;  // side by side: each addition waits for the one before
  double sums[chains] = {};
  for (std::size_t i = 0; i < n; ++i) sums[i % chains] += from[i] * from[i];
  return std::accumulate(sums, sums + chains, 0.0);
}

// What a thread needs for a run and its blocks of rows; kept from call to call, since small passes would
// spend their time on getting it.
template <class T, class X>
struct Scratch {
  std::vector<std::size_t> order;
  std::vector<const X*> x;
  std::vector<T*> to;  // the rows of the gradient
  std::vector<T> z, residual, values, weights, targets;
  std::vector<std::int64_t> classes;
  std::vector<double> columns;

  void fit(std::size_t rows, std::size_t most, std::size_t b, std::size_t k, bool ids) {
    order.resize(rows);
    x.resize(rows + most);
    for (auto* each : {&z, b > 1 ? &residual : &z, ids ? &z : &targets})
      if (each->size() < most * b * k) each->resize(most * b * k);
    for (auto* each : {&values, &weights})
      if (each->size() < most * b) each->resize(most * b);
    if (classes.size() < most * b) classes.resize(most * b);
    columns.resize(b * k + b);
  }
};

// Losses and gradients in the logits, in place, of n rows in the problems of a group.
template <class T, class X>
void losses(const LinearRows<T, X>& rows, const RowLoss<T>& loss, const Group& group,
            const std::size_t* order, std::size_t n, Scratch<T, X>& scratch) {
  const std::size_t b = loss.problems, k = rows.m / b, count = group.problems.size();
  const bool as_they_lie = b == 1 && order[n - 1] - order[0] == n - 1;
  const T* weights = loss.weight + order[0];
  const std::int64_t* classes = loss.classes ? loss.classes + order[0] : nullptr;
  if (!as_they_lie) {
    weights = scratch.weights.data();
    classes = scratch.classes.data();
    for (std::size_t r = 0, at = 0; r < n; ++r)
      for (std::size_t a = 0; a < count; ++a, ++at) {
        scratch.weights[at] = loss.weight[order[r] * b + group.problems[a]];
        if (loss.classes) scratch.classes[at] = loss.classes[order[r]];
      }
  }
  T *z = scratch.z.data(), *values = scratch.values.data();
  if (loss.classes) return loss.by_class(z, classes, weights, values, z, n * count, k, loss.parameters);
  for (std::size_t r = 0; r < n; ++r)
    for (std::size_t a = 0; a < count; ++a)
      std::copy_n(loss.distributions + order[r] * k, k, scratch.targets.data() + (r * count + a) * k);
  loss.by_distribution(z, scratch.targets.data(), weights, values, z, n * count, k, loss.parameters);
}

// The sums of the rows from first to last. Rows that count in the same problems are taken together, and the
// others' products left out. Where adding a number to all logits of a row changes nothing, `padded` holds the
// differences from the last class, whose logit is 0, and whose gradient is what the others' sum lacks.
template <class T, class X>
[[gnu::noinline]] void run(const Table<T>& table, const LinearRows<T, X>& rows, const RowLoss<T>& loss,
                           const Padded<T>& padded, std::size_t first, std::size_t last,
                           Scratch<T, X>& scratch, Sums<T>& sums) {
  const auto& kernels = kernels_for<T, X>(table);
  const std::size_t b = loss.problems, m = rows.m, k = m / b, d = rows.d, stride = padded.stride;
  sums.loss.assign(b, 0);
  sums.grad.assign(m * stride, 0);
  sums.grad_offset.assign(m, 0);
  if (first == last) return;
  const std::size_t most = block_rows(rows);
  scratch.fit(last - first, most, b, k, loss.classes);
  std::vector<std::size_t>& order = scratch.order;
  const X** x = scratch.x.data();
  std::iota(order.begin(), order.end(), first);
  const std::vector<Group> groups = grouped(loss.weight, b, order);
  std::transform(order.begin(), order.end(), x, [&](std::size_t row) { return rows.x + row * d; });
  for (std::size_t i = 0; i < most; ++i)  // to fetch
    x[last - first + i] = rows.x + std::min(last + i, rows.n - 1) * d;
  const X* end = rows.x + rows.n * d;
  T* z = scratch.z.data();
  for (const Group& group : groups) {
    const std::size_t count = group.problems.size(), apart = count * k;
    if (count == 0) continue;
    // Call work(output, outputs, place in a row of z): problem by problem, or all at once.
    const auto each = [&](const auto& work) {
      if (count == b && padded.outputs == k) return work(0, m, 0);
      for (std::size_t a = 0; a < count; ++a) work(group.problems[a] * k, padded.outputs, a * k);
    };
    auto& to = scratch.to;
    to.clear();
    for (const std::size_t p : group.problems)
      for (std::size_t c = 0; c < padded.outputs; ++c) to.push_back(sums.grad.data() + (p * k + c) * stride);
    const std::size_t blocks = (group.n + most - 1) / most;
    const std::size_t block =
        std::min(most, ((group.n + blocks - 1) / blocks + 3) / 4 * 4);  // about equal ones
    for (std::size_t at = 0; at < group.n; at += block) {
      const std::size_t from = group.first + at, n = std::min(block, group.n - at);
      each([&](std::size_t q, std::size_t outputs, std::size_t place) {
        kernels.logits(x + from, end, padded.center, padded.matrix + q * stride, padded.offset.data() + q,
                       z + place, n, d, outputs, apart);
      });
      if (padded.outputs < k)
        for (std::size_t i = k - 1; i < n * apart; i += k) z[i] = 0;
      losses(rows, loss, group, order.data() + from, n, scratch);
      std::fill(scratch.columns.begin(), scratch.columns.end(), 0.0);
      double *columns = scratch.columns.data(), *values = columns + m;
      table.add_columns(z, n, apart, columns);
      table.add_columns(scratch.values.data(), n, count, values);
      for (std::size_t a = 0; a < count; ++a) {
        sums.loss[group.problems[a]] += values[a];
        for (std::size_t c = 0; c < k; ++c) sums.grad_offset[group.problems[a] * k + c] += columns[a * k + c];
      }
      const T* residual = z;
      if (count > 1 && padded.outputs < k) {
        T* close = scratch.residual.data();
        for (std::size_t i = 0; i < n * count; ++i) close = std::copy_n(z + i * k, padded.outputs, close);
        residual = scratch.residual.data();
      }
      kernels.gradient(x + from, end, x + from + n, padded.center, residual, to.data(), n, d, to.size(),
                       count > 1 ? to.size() : k);
    }
  }
}

}  // namespace linear

// value (B) = each problem's weighted losses, summed over the rows, + strength (B) / 2 times the sum of the
// squares of its weights in the map; grad (B, apart) = the gradient of that in the map, whose offsets follow
// its weights.
template <class T, class X>
void linear_pass(const Table<T>& table, const LinearRows<T, X>& rows, const LinearMap<double>& map,
                 const RowLoss<T>& loss, const double* strength, double* value, double* grad, int n_threads) {
  using namespace linear;
  const std::size_t k = map.k, d = rows.d, kd = k * d;
  const bool one_less = loss.shifts && k > 1 && (loss.problems == 1 || k >= kEnoughOutputs);
  const Padded<T> padded(map, rows.center, rows.m, d, one_less);
  const std::size_t bytes = (rows.m * padded.stride + 1) * sizeof(T);
  const std::size_t most = std::max<std::size_t>(8, std::min(kMostRuns, kRunBytes / bytes));
  const std::size_t even = (rows.n / kRunRows + 1) / 2 * 2;  // two threads have as many each
  const std::size_t count = std::clamp<std::size_t>(even, 1, most);
  std::vector<Sums<T>> sums(count);
  split_rows(count, n_threads, 1, [&](std::size_t first, std::size_t last) {
    static thread_local Scratch<T, X> scratch;
    for (std::size_t i = first; i < last; ++i)
      run(table, rows, loss, padded, rows.n * i / count, rows.n * (i + 1) / count, scratch, sums[i]);
  });
  const std::size_t numbers = count * rows.m * padded.stride;
  split_rows(rows.m, numbers < kFewNumbers ? 1 : n_threads, 1, [&](std::size_t first, std::size_t last) {
    for (std::size_t q = first; q < last; ++q) {
      double* to = grad + q / k * map.apart;
      std::fill_n(to + q % k * d, d, 0);
      to[kd + q % k] = 0;
      for (const Sums<T>& part : sums) {
        table.add_wide(part.grad.data() + q * padded.stride, d, to + q % k * d);
        to[kd + q % k] += part.grad_offset[q];
      }
    }
  });
  for (std::size_t b = 0; b < loss.problems; ++b) {
    double* of_weights = grad + b * map.apart;
    for (std::size_t i = 0; one_less && i + 1 < k; ++i)
      for (std::size_t j = 0; j < d; ++j) of_weights[kd - d + j] -= of_weights[i * d + j];
    const double* weights = map.weights + b * map.apart;
    for (std::size_t i = 0; i < kd; i += d)
      for (std::size_t j = 0; j < d; ++j) {
        if (map.unit) of_weights[i + j] *= map.unit[j];
        of_weights[i + j] += strength[b] * weights[i + j];
      }
    value[b] = strength[b] / 2 * sum_of_squares(weights, kd);
    for (const Sums<T>& part : sums) value[b] += part.loss[b];
  }
}

}  // namespace luce
