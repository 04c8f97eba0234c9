// The whole interface of the kernels: one table of functions per instruction set.
//
// Every kernel works on rows of `k` contiguous numbers, or on the columns of slabs. A number of -inf is not
// there: it weighs nothing and has gradient 0. Results may overwrite inputs where the types agree. A row
// depends on nothing but itself, so any split of the rows over threads gives the same numbers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace luce {

struct Parameters {
  double beta = 1;                 // inverse temperature: multiplies every number as it is read
  double shape = 0;                // degree of Taylor, eps of spherical, alpha of entmax
  double margin = 0;               // taken off the target's number after beta
  const double* shapes = nullptr;  // alpha of each row (n), instead of `shape`
  std::size_t numbers = 0;         // of the whole call, of which a kernel sees a part
};

// A member of the family: how much a number weighs in its row.
template <class T>
struct MemberKernels {
  // out (n, k) = probabilities of each row; with target (n) the margin counts. Nothing there: zeros. j times
  // +inf: 1 / j on these. A NaN: the row is NaN.
  using Map = void (*)(const T* x, const std::int64_t* target, T* out, std::size_t n, std::size_t k,
                       const Parameters& p);
  // The same for columns [first, last) of a slab (k, stride): its classes lie `stride` numbers apart.
  using Columns = void (*)(const T* x, T* out, std::size_t k, std::size_t stride, std::size_t first,
                           std::size_t last, const Parameters& p);
  // loss (n), grad (n, k) = its gradient in x, both times weight (n), if any. A negative target: 0 and zeros.
  // Rows with +inf, or with nothing there, have gradient 0.
  using Loss = void (*)(const T* x, const std::int64_t* target, const T* weight, T* loss, T* grad,
                        std::size_t n, std::size_t k, const Parameters& p);
  // The same for target (n, k), a distribution for each row; 0 times -inf is 0. grad must not overlap target.
  using SoftLoss = void (*)(const T* x, const T* target, const T* weight, T* loss, T* grad, std::size_t n,
                            std::size_t k, const Parameters& p);

  Map probabilities, log_probabilities;
  Columns columns, log_columns;
  Loss loss;
  SoftLoss soft_loss;
};

// The columns with those that fill up a vector of any instruction set. An odd number of vectors: rows that
// lie a power of two apart would drive each other out of the caches.
constexpr std::size_t padded(std::size_t d) { return ((d + 15) / 16 | 1) * 16; }

// The two products of a linear layer over n rows of d features of X, read as x - center; the rows lie
// anywhere, none of them beyond `end`. `matrix` (m, padded) and `center` (padded) end in zeros that fill up a
// vector, where padded = padded(d). Rows of z and residual lie `apart`.
template <class T, class X>
struct LinearKernels {
  // z (n, m) = (x - center) matrix' + offset (m).
  void (*logits)(const X* const* x, const X* end, const T* center, const T* matrix, const T* offset, T* z,
                 std::size_t n, std::size_t d, std::size_t m, std::size_t apart);
  // Each of m rows of grad (padded) += its column of residual (n, m)' (x - center). The n rows from `next`
  // on, if any, are fetched meanwhile.
  void (*gradient)(const X* const* x, const X* end, const X* const* next, const T* center, const T* residual,
                   T* const* grad, std::size_t n, std::size_t d, std::size_t m, std::size_t apart);
  // first, second (padded) += weight' (x - center) and weight' (x - center)^2, for weight (n).
  void (*moments)(const X* x, const T* center, const T* weight, double* first, double* second, std::size_t n,
                  std::size_t d);
};

// The pairs of steps and changes of gradients that one problem of L-BFGS remembers, in the first `count` of
// `most` places, each next to the one before it, and round again once all are taken; `newest` is the place of
// the last.
struct LbfgsPairs {
  double *steps, *changes, *turned;  // (most, n); a change turned is the metric's product with it
  double* along;    // (most, most): each change times the steps up to its own, 0 for those after it
  double* lengths;  // (most, most): each change times each turned one
  double* scale;    // (1): what the newest pair with any curvature says the metric lacks
  std::size_t n, most, count, newest;
};

// The metric of one problem of k classes and d features, of which r directions are known.
struct LbfgsMetric {
  const double *vectors, *classes, *gain;     // (r, d), (k, k), (k, r)
  const double *roots, *bias_divisor, *mean;  // (k, d) or null where r is all; (k), (d)
  std::size_t k, d, r;
  std::size_t scratch() const { return (2 * k + 1) * padded(d) + r * k + 3 * k; }
};

struct LbfgsKernels {
  // Puts a step and the gradients on its ends in the newest place. Without curvature along it: as if it were
  // not.
  void (*add)(const LbfgsPairs& pairs, const double* step, const double* before, const double* after,
              const double* turned_before, const double* turned_after);
  // out (n) = the quasi-Newton step; scratch (4, most).
  void (*direction)(const LbfgsPairs& pairs, const double* grad, const double* turned_grad, double* out,
                    double* scratch);
  // out (k d + k) = the metric's product with grad; scratch as it says.
  void (*metric)(const LbfgsMetric& metric, const double* grad, double* out, double* scratch);
};

template <class T>
struct Table {
  MemberKernels<T> softmax, taylor, spherical, entmax;
  // out (n) = log sum exp of each row.
  typename MemberKernels<T>::Map logsumexp;
  // Of each of n numbers.
  void (*sigmoid)(const T* x, T* out, std::size_t n, const Parameters& p);
  void (*log_sigmoid)(const T* x, T* out, std::size_t n, const Parameters& p);
  // Cross-entropies of k independent questions, summed over each row; target (n, k) lies in [0, 1].
  typename MemberKernels<T>::SoftLoss sigmoid_loss;
  // to (m) += the sums of the columns of from (n, m).
  void (*add_columns)(const T* from, std::size_t n, std::size_t m, double* to);
  // to (n) += from (n).
  void (*add_wide)(const T* from, std::size_t n, double* to);
  LinearKernels<T, std::uint8_t> linear_u8;
  LinearKernels<T, float> linear_f32;
  LinearKernels<T, double> linear_f64;
};

struct Kernels {
  const char* name;
  Table<float> f32;
  Table<double> f64;
  LbfgsKernels lbfgs;
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
