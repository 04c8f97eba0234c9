// The rows of a linear layer: how the kernels read them, their logits, and the moments of their features.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "kernels.hpp"
#include "threads.hpp"

namespace luce {

// B problems of k classes share rows x (n, d): m = B k outputs.
template <class T, class X>
struct LinearRows {
  const X* x;
  std::size_t n, d, m;
  const T* center;  // (d)
};

// What makes logits of rows: (x - center) weights' + offset. The weights (k, d) and the offset (k) of each
// problem lie `apart` numbers from those of the one before; weights count times unit (d), if any.
template <class S>
struct LinearMap {
  const S *weights, *offset;
  std::size_t k, apart = 0;
  const S* unit = nullptr;
};

namespace linear {

constexpr std::size_t kBlockBytes = 256 << 10;  // of features: they stay in the second cache
constexpr std::size_t kRunRows = 256;           // about, for a run of rows that adds up on its own
constexpr std::size_t kMostRuns = 32;           // the same for any number of threads: they change no result
constexpr std::size_t kRunBytes = 16 << 20;     // of the sums of all runs

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

// The matrix (m, stride) and the offset (m) of a map and the center (stride), rounded to the dtype of the
// arithmetic, whole lines of the caches, with zeros that fill them up. With `one_less` each problem's less
// those of its last class, and of that class nothing.
template <class T>
struct Padded {
  static constexpr std::size_t kLine = 64 / sizeof(T);
  std::size_t stride, outputs;  // of a problem
  std::vector<T> numbers, offset;
  T *center, *matrix;

  template <class S>
  Padded(const LinearMap<S>& map, const T* mean, std::size_t m, std::size_t d, bool one_less = false)
      : stride(padded(d)),
        outputs(one_less ? map.k - 1 : map.k),
        numbers((m + 1) * stride + kLine),
        offset(m) {
    void* start = numbers.data();
    std::size_t room = numbers.size() * sizeof(T);
    center = static_cast<T*>(std::align(64, (m + 1) * stride * sizeof(T), start, room));
    matrix = center + stride;
    std::copy_n(mean, d, center);
    const std::vector<S> zeros(d), ones(map.unit ? 0 : d, S(1));
    const S* unit = map.unit ? map.unit : ones.data();
    for (std::size_t i = 0; i < m; ++i) {
      const std::size_t problem = i / map.k * map.apart, q = i % map.k, last = map.k - 1;
      if (q == outputs) continue;
      const S *bias = map.offset + problem, *from = map.weights + problem;
      const S *row = from + q * d, *base = one_less ? from + last * d : zeros.data();
      offset[i] = static_cast<T>(one_less ? bias[q] - bias[last] : bias[q]);
      for (std::size_t j = 0; j < d; ++j)
        matrix[i * stride + j] = static_cast<T>((row[j] - base[j]) * unit[j]);
    }
  }
  Padded(const Padded&) = delete;
};

}  // namespace linear

// Logits (n, m).
template <class T, class X>
void linear_logits(const Table<T>& table, const LinearRows<T, X>& rows, const LinearMap<T>& map, T* out,
                   int n_threads) {
  using namespace linear;
  const Padded<T> padded(map, rows.center, rows.m, rows.d);
  split_rows(rows.n, n_threads, 4, [&](std::size_t first, std::size_t last) {
    const std::size_t most = block_rows(rows);
    std::vector<const X*> x(most);
    for (std::size_t row = first; row < last; row += most) {
      const std::size_t n = std::min(most, last - row);
      for (std::size_t i = 0; i < n; ++i) x[i] = rows.x + (row + i) * rows.d;
      kernels_for<T, X>(table).logits(x.data(), rows.x + rows.n * rows.d, padded.center, padded.matrix,
                                      padded.offset.data(), out + row * rows.m, n, rows.d, rows.m, rows.m);
    }
  });
}

// Weighted sums (d) of x - center and of its square over the rows, weight (n).
template <class T, class X>
void linear_moments(const Table<T>& table, const LinearRows<T, X>& rows, const T* weight, double* first,
                    double* second, int n_threads) {
  using namespace linear;
  const Padded<T> padded(LinearMap<T>{nullptr, nullptr, 1}, rows.center, 0, rows.d);
  const std::size_t count = std::clamp<std::size_t>(rows.n / kRunRows, 1, kMostRuns),
                    block = block_rows(rows);
  std::vector<std::vector<double>> sums(count);
  split_rows(count, n_threads, 1, [&](std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < to; ++i) {
      sums[i].assign(2 * padded.stride, 0);
      const std::size_t last = rows.n * (i + 1) / count;
      for (std::size_t row = rows.n * i / count; row < last; row += block)
        kernels_for<T, X>(table).moments(rows.x + row * rows.d, padded.center, weight + row, sums[i].data(),
                                         sums[i].data() + padded.stride, std::min(block, last - row), rows.d);
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
