// The two products of a linear layer with few outputs, where a matrix library reads the rows twice and fills
// its registers badly. Both keep a tile of results in registers: logits a few rows by a few outputs, summed
// over vectors of features; the gradient a few outputs by two vectors of features, summed over rows.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels.hpp"
#include "vec.hpp"

namespace {

using std::size_t;

#if defined(__AVX512F__) || defined(__ARM_NEON)  // 32 registers
constexpr int kLogitRows = 4, kLogitOutputs = 6, kGradientOutputs = 12;
#else  // 16
constexpr int kLogitRows = 3, kLogitOutputs = 4, kGradientOutputs = 6;
#endif
constexpr int kGradientVectors = 2;

// Call body(constant) with the constant that equals `count`, from 1 to kMost.
template <int kMost, class Body>
inline void with_constant(size_t count, Body body) {
  if constexpr (kMost > 1) {
    if (count < kMost) return with_constant<kMost - 1>(count, body);
  }
  body(std::integral_constant<int, kMost>());
}

// Call body(first, constant) on ranges of outputs of about equal length, at most kMost each.
template <int kMost, class Body>
inline void over_outputs(size_t m, Body body) {
  const size_t groups = (m + kMost - 1) / kMost;
  for (size_t g = 0; g < groups; ++g) {
    const size_t first = m * g / groups, last = m * (g + 1) / groups;
    with_constant<kMost>(last - first, [&](auto count) { body(first, count); });
  }
}

template <int kRows, int kOutputs, class T, class X>
inline void logits_tile(const X* x, const T* center, const T* matrix, const T* offset, T* z, size_t d,
                        size_t m) {
  constexpr size_t w = kWidth<T>;
  const size_t stride = luce::padded(d), whole = d / w * w;
  Vec<T> sums[kRows][kOutputs] = {};
  const auto step = [&](size_t j, auto read) {
    const Vec<T> c = load(center + j);
    Vec<T> v[kRows];
    for (int r = 0; r < kRows; ++r) v[r] = read(x + static_cast<size_t>(r) * d + j) - c;
    for (int q = 0; q < kOutputs; ++q) {
      const Vec<T> a = load(matrix + static_cast<size_t>(q) * stride + j);
      for (int r = 0; r < kRows; ++r) sums[r][q] = mul_add<T>(v[r], a, sums[r][q]);
    }
  };
  for (size_t j = 0; j < whole; j += w) step(j, [](const X* p) { return load_as<T>(p); });
  if (whole < d) step(whole, [rest = d - whole](const X* p) { return load_part_as<T>(p, rest); });
  static_assert(kRows <= 4);
  const auto row_of = [&](int r, int q) { return r < kRows ? sums[r < kRows ? r : 0][q] : Vec<T>{}; };
  for (int q = 0; q < kOutputs; ++q) {
    T four[4];
    sums_of<T>(row_of(0, q), row_of(1, q), row_of(2, q), row_of(3, q), four);
    for (int r = 0; r < kRows; ++r)
      z[static_cast<size_t>(r) * m + static_cast<size_t>(q)] = four[r] + offset[q];
  }
}

template <class T, class X>
void linear_logits(const X* x, const T* center, const T* matrix, const T* offset, T* z, size_t n, size_t d,
                   size_t m) {
  const size_t stride = luce::padded(d);
  for (size_t row = 0; row < n; row += kLogitRows) {
    with_constant<kLogitRows>(std::min<size_t>(kLogitRows, n - row), [&](auto rows) {
      over_outputs<kLogitOutputs>(m, [&](size_t first, auto count) {
        logits_tile<rows(), count()>(x + row * d, center, matrix + first * stride, offset + first,
                                     z + row * m + first, d, m);
      });
    });
  }
}

// Where `fetch` says so the rows that follow these are fetched meanwhile: their turn is next.
template <int kOutputs, class T, class X, class Read>
inline void gradient_tile(const X* x, const T* center, const T* residual, double* grad, size_t n, size_t d,
                          size_t m, size_t stride, size_t vectors, bool fetch, Read read) {
  constexpr size_t w = kWidth<T>, tile = kGradientVectors * w, line = 64 / sizeof(X);
  Vec<T> sums[kGradientVectors][kOutputs] = {};
  Vec<T> c[kGradientVectors];
  for (size_t v = 0; v < kGradientVectors; ++v) c[v] = v < vectors ? load(center + v * w) : splat(T(0));
  for (size_t row = 0; row < n; ++row, x += d, residual += m) {
    if (fetch)
      for (size_t i = 0; i < tile; i += line) __builtin_prefetch(x + n * d + i);
    Vec<T> a[kGradientVectors];
    for (size_t v = 0; v < kGradientVectors; ++v) a[v] = read(x, v * w) - c[v];
    for (int q = 0; q < kOutputs; ++q) {
      const Vec<T> r = splat(residual[q]);
      for (int v = 0; v < kGradientVectors; ++v) sums[v][q] = mul_add<T>(a[v], r, sums[v][q]);
    }
  }
  for (int q = 0; q < kOutputs; ++q)
    for (size_t v = 0; v < vectors; ++v) {
      double* to = grad + static_cast<size_t>(q) * stride + v * w;
      for (size_t i = 0; i < w; ++i) to[i] += static_cast<double>(sums[v][q][i]);
    }
}

template <class T, class X>
void linear_gradient(const X* x, const T* center, const T* residual, double* grad, size_t n, size_t d,
                     size_t m) {
  constexpr size_t w = kWidth<T>, tile = kGradientVectors * w;
  const size_t stride = luce::padded(d);
  for (size_t j = 0; j < d; j += tile) {
    const size_t rest = d - j, vectors = std::min<size_t>(kGradientVectors, (rest + w - 1) / w);
    over_outputs<kGradientOutputs>(m, [&](size_t first, auto count) {
      const auto run = [&](auto read) {
        gradient_tile<count()>(x + j, center + j, residual + first, grad + first * stride + j, n, d, m,
                               stride, vectors, first == 0, read);
      };
      if (rest >= tile)
        run([](const X* p, size_t at) { return load_as<T>(p + at); });
      else
        run([rest](const X* p, size_t at) {
          return at < rest ? load_part_as<T>(p + at, std::min(kWidth<T>, rest - at)) : splat(T(0));
        });
    });
  }
}

template <class T, class X>
void linear_moments(const X* x, const T* center, const T* weight, double* first, double* second, size_t n,
                    size_t d) {
  constexpr size_t w = kWidth<T>;
  for (size_t j = 0; j < d; j += w) {
    const Vec<T> c = load(center + j);
    Vec<T> sum = {}, squares = {};
    for (size_t row = 0; row < n; ++row) {
      const X* from = x + row * d + j;
      __builtin_prefetch(from + n * d);
      const Vec<T> a = (d - j >= w ? load_as<T>(from) : load_part_as<T>(from, d - j)) - c,
                   wa = a * weight[row];
      sum += wa;
      squares = mul_add<T>(wa, a, squares);
    }
    for (size_t i = 0; i < w; ++i) {
      first[j + i] += static_cast<double>(sum[i]);
      second[j + i] += static_cast<double>(squares[i]);
    }
  }
}

}  // namespace
