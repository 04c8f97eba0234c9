// One pass over the rows of a linear layer under a loss: logits, losses and gradient of a block of rows at a
// time, so that the rows are read once and no array of logits exists.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "kernels.hpp"
#include "threads.hpp"

namespace luce {

// B problems of k classes share rows x (n, d); their matrices stand below each other, m = B k.
template <class T, class X>
struct LinearRows {
  const X* x;
  std::size_t n, d, m;
  const T *center, *matrix, *offset;  // (d), (m, d), (m): logits = (x - center) matrix' + offset
};

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
};

namespace linear {

constexpr std::size_t kBlockBytes = 256 << 10;  // of features: they stay in the second cache
constexpr std::size_t kRunRows = 256;           // about, for a run of rows that adds up on its own
constexpr std::size_t kMostRuns = 32;           // the same for any number of threads: they change no result
constexpr std::size_t kRunBytes = 16 << 20;     // of all sums together
constexpr std::size_t kFewNumbers = 1 << 15;    // are added up by one thread

template <class T, class X>
std::size_t block_rows(const LinearRows<T, X>& rows) {
  return std::clamp<std::size_t>(kBlockBytes / std::max<std::size_t>(1, rows.d * sizeof(X)), 16, 256);
}

template <class T, class X>
const LinearKernels<T, X>& kernels_for(const Table<T>& table) {
  if constexpr (sizeof(X) == sizeof(std::uint8_t))
    return table.linear_u8;
  else if constexpr (sizeof(X) == sizeof(float))
    return table.linear_f32;
  else
    return table.linear_f64;
}

// The matrix and the center, whole lines of the caches, with zeros that fill them up.
template <class T>
struct Padded {
  static constexpr std::size_t kLine = 64 / sizeof(T);
  std::size_t stride;
  std::vector<T> numbers;
  T *center, *matrix;

  Padded(const T* from, const T* mean, std::size_t m, std::size_t d)
      : stride(padded(d)), numbers((m + 1) * stride + kLine) {
    void* start = numbers.data();
    std::size_t room = numbers.size() * sizeof(T);
    center = static_cast<T*>(std::align(64, (m + 1) * stride * sizeof(T), start, room));
    matrix = center + stride;
    std::copy_n(mean, d, center);
    for (std::size_t i = 0; i < m; ++i) std::copy_n(from + i * d, d, matrix + i * stride);
  }
  Padded(const Padded&) = delete;
};

// Sums of a run of rows: losses (B), gradient (m, stride), gradient in the offset (m).
struct Sums {
  std::vector<double> loss, grad, grad_offset;
};

template <class T, class X>
void run(const Table<T>& table, const LinearRows<T, X>& rows, const RowLoss<T>& loss, const Padded<T>& padded,
         std::size_t first, std::size_t last, Sums& sums) {
  const auto& kernels = kernels_for<T, X>(table);
  const std::size_t b = loss.problems, m = rows.m, k = m / b;
  sums.loss.assign(b, 0);
  sums.grad.assign(m * padded.stride, 0);
  sums.grad_offset.assign(m, 0);
  const std::size_t most = block_rows(rows), blocks = (last - first + most - 1) / most;
  const std::size_t block = ((last - first + blocks - 1) / blocks + 3) / 4 * 4;  // about equal ones
  std::vector<T> z(block * m), values(block * b), targets;
  std::vector<std::int64_t> classes;
  for (std::size_t row = first; row < last; row += block) {
    const std::size_t n = std::min(block, last - row);
    const X* x = rows.x + row * rows.d;
    const T* weight = loss.weight + row * b;
    kernels.logits(x, padded.center, padded.matrix, rows.offset, z.data(), n, rows.d, m);
    if (loss.classes) {
      const std::int64_t* y = loss.classes + row;
      if (b > 1) {
        classes.clear();
        for (std::size_t i = 0; i < n; ++i) classes.insert(classes.end(), b, y[i]);
        y = classes.data();
      }
      loss.by_class(z.data(), y, weight, values.data(), z.data(), n * b, k, loss.parameters);
    } else {
      const T* q = loss.distributions + row * k;
      if (b > 1) {
        targets.clear();
        for (std::size_t i = 0; i < n; ++i)
          for (std::size_t j = 0; j < b; ++j) targets.insert(targets.end(), q + i * k, q + (i + 1) * k);
        q = targets.data();
      }
      loss.by_distribution(z.data(), q, weight, values.data(), z.data(), n * b, k, loss.parameters);
    }
    table.add_columns(values.data(), n, b, sums.loss.data());
    table.add_columns(z.data(), n, m, sums.grad_offset.data());
    kernels.gradient(x, padded.center, z.data(), sums.grad.data(), n, rows.d, m);
  }
}

}  // namespace linear

// Weighted losses (B), gradient (m, d) and gradient in the offset (m), each summed over the rows.
template <class T, class X>
void linear_pass(const Table<T>& table, const LinearRows<T, X>& rows, const RowLoss<T>& loss, double* value,
                 double* grad, double* grad_offset, int n_threads) {
  using namespace linear;
  const Padded<T> padded(rows.matrix, rows.center, rows.m, rows.d);
  const std::size_t bytes = (rows.m * padded.stride + 1) * sizeof(double);
  const std::size_t most = std::max<std::size_t>(8, std::min(kMostRuns, kRunBytes / bytes));
  const std::size_t even = (rows.n / kRunRows + 1) / 2 * 2;  // two threads have as many each
  const std::size_t count = std::clamp<std::size_t>(even, 1, most);
  std::vector<Sums> sums(count);
  split_rows(count, n_threads, 1, [&](std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i)
      run(table, rows, loss, padded, rows.n * i / count, rows.n * (i + 1) / count, sums[i]);
  });
  std::fill_n(value, loss.problems, 0);
  for (const Sums& part : sums)
    for (std::size_t j = 0; j < loss.problems; ++j) value[j] += part.loss[j];
  const std::size_t numbers = count * rows.m * padded.stride;
  split_rows(rows.m, numbers < kFewNumbers ? 1 : n_threads, 1, [&](std::size_t first, std::size_t last) {
    for (std::size_t q = first; q < last; ++q) {
      double* to = grad + q * rows.d;
      std::copy_n(sums[0].grad.data() + q * padded.stride, rows.d, to);
      grad_offset[q] = sums[0].grad_offset[q];
      for (std::size_t i = 1; i < count; ++i) {
        const double* from = sums[i].grad.data() + q * padded.stride;
        for (std::size_t j = 0; j < rows.d; ++j) to[j] += from[j];
        grad_offset[q] += sums[i].grad_offset[q];
      }
    }
  });
}

// Logits (n, m).
template <class T, class X>
void linear_logits(const Table<T>& table, const LinearRows<T, X>& rows, T* out, int n_threads) {
  const linear::Padded<T> padded(rows.matrix, rows.center, rows.m, rows.d);
  split_rows(rows.n, n_threads, 4, [&](std::size_t first, std::size_t last) {
    linear::kernels_for<T, X>(table).logits(rows.x + first * rows.d, padded.center,
                                            padded.matrix, rows.offset, out + first * rows.m,
                                            last - first, rows.d, rows.m);
  });
}

// Weighted sums (d) of x - center and of its square over the rows, weight (n).
template <class T, class X>
void linear_moments(const Table<T>& table, const LinearRows<T, X>& rows, const T* weight, double* first,
                    double* second, int n_threads) {
  using namespace linear;
  const Padded<T> padded(rows.matrix, rows.center, rows.m, rows.d);
  const std::size_t count = std::clamp<std::size_t>(rows.n / kRunRows, 1, kMostRuns),
                    block = block_rows(rows);
  std::vector<std::vector<double>> sums(count);
  split_rows(count, n_threads, 1, [&](std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < to; ++i) {
      sums[i].assign(2 * padded.stride, 0);
      const std::size_t last = rows.n * (i + 1) / count;
      for (std::size_t row = rows.n * i / count; row < last; row += block)
        kernels_for<T, X>(table).moments(rows.x + row * rows.d, padded.center, weight + row,
                                         sums[i].data(), sums[i].data() + padded.stride,
                                         std::min(block, last - row), rows.d);
    }
  });
  std::fill_n(first, rows.d, 0);
  std::fill_n(second, rows.d, 0);
  for (const auto& part : sums)
    for (std::size_t j = 0; j < rows.d; ++j) {
      first[j] += part[j];
      second[j] += part[padded.stride + j];
    }
}

}  // namespace luce
