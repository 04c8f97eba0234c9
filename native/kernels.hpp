// The whole interface of the kernels: one table of functions per instruction set.
//
// Every kernel works on rows of `k` contiguous numbers. Inputs are multiplied by `beta`, the inverse
// temperature, as they are read. Results may overwrite inputs where the types agree. A row depends on nothing
// but itself, so any split of the rows over threads gives the same numbers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace luce {

template <class T>
struct RowKernels {
  // out (n, k) = softmax of each row. All -inf: zeros. j times +inf: 1 / j on these. A NaN: the row is NaN.
  void (*softmax)(const T* x, T* out, std::size_t n, std::size_t k, T beta);
  // out (n, k) = logarithm of the above, exact where the probability underflows.
  void (*log_softmax)(const T* x, T* out, std::size_t n, std::size_t k, T beta);
  // out (n) = log sum exp of each row.
  void (*logsumexp)(const T* x, T* out, std::size_t n, std::size_t k, T beta);
  // loss (n) = -log softmax[target], grad (n, k) = its gradient in x, both times weight (n), if any. A
  // negative target: 0 and zeros. Rows with +inf, or all -inf, have gradient 0.
  void (*cross_entropy)(const T* x, const std::int64_t* target, const T* weight, T* loss, T* grad,
                        std::size_t n, std::size_t k, T beta);
  // The same for target (n, k), a distribution for each row; 0 times -inf is 0. grad must not overlap target.
  void (*cross_entropy_soft)(const T* x, const T* target, const T* weight, T* loss, T* grad, std::size_t n,
                             std::size_t k, T beta);
};

struct Kernels {
  const char* name;
  RowKernels<float> f32;
  RowKernels<double> f64;
};

extern const Kernels kBaseline;
extern const Kernels kAvx2;
extern const Kernels kAvx512;
extern const Kernels kNeon;

// The table for this process: the best one that the processor runs, or the one that LUCE_ISA names. Throws
// std::runtime_error for a name that is unknown or cannot run here.
const Kernels& kernels();

// The tables that can run here, the best first; for tests.
const Kernels* const* available(std::size_t* count);

}  // namespace luce
