// The members of the family that weigh each number for itself: probability = weight / sum of the weights.
//
// A member says, for a vector of numbers x as they were read (u = beta x):
//   weight(x)        what each counts; -inf counts 0
//   slope(x, w)      derivative of the weight in u, where w is the weight
//   log_weight(x)    logarithm of the weight, exact where the weight itself would underflow
// and for one number, in double: log_weight_of(x) and ratio_of(x) = slope / weight. Members with kShifts
// weigh relative to `top`, the largest number of the row (exp overflows otherwise). Weights that are not
// finite, or sum to nothing, send the row to special.inl.
#pragma once

#include <cmath>
#include <limits>

#include "exp_log.inl"
#include "kernels.hpp"

namespace {

using luce::Parameters;
using std::int64_t;
using std::size_t;

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();
template <class T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

// softmax: exp(u)
template <class T>
struct Exponential {
  static constexpr bool kShifts = true;
  Vec<T> beta, top{};

  explicit Exponential(const Parameters& p) : beta(splat(static_cast<T>(p.beta))) {}

  Vec<T> weight(Vec<T> x) const { return exp_nonpositive<T>((x - top) * beta); }
  Vec<T> slope(Vec<T>, Vec<T> w) const { return w; }
  Vec<T> log_weight(Vec<T> x) const { return (x - top) * beta; }
  double log_weight_of(T x) const { return static_cast<double>(x - top[0]) * beta[0]; }
  double ratio_of(T) const { return 1; }
};

// Taylor softmax: sum of u^i / i! for i = 0 ... n, n even; kDegree = 0 takes n from the parameters. The slope
// is the same sum to n - 1, which Horner's rule gives on the way.
template <class T, int kDegree>
struct Polynomial {
  static constexpr bool kShifts = false;
  T beta;
  int degree;

  explicit Polynomial(const Parameters& p)
      : beta(static_cast<T>(p.beta)), degree(kDegree ? kDegree : static_cast<int>(p.shape)) {}

  int n() const { return kDegree ? kDegree : degree; }

  Vec<T> sum(Vec<T> u, int last) const {
    Vec<T> s = splat(static_cast<T>(inverse_factorial(last)));
    for (int i = last - 1; i >= 0; --i) s = mul_add<T>(s, u, splat(static_cast<T>(inverse_factorial(i))));
    return s;
  }
  Vec<T> weight(Vec<T> x) const { return x == -kInfinity<T> ? splat(T(0)) : sum(x * beta, n()); }
  Vec<T> slope(Vec<T> x, Vec<T>) const { return x == -kInfinity<T> ? splat(T(0)) : sum(x * beta, n() - 1); }
  Vec<T> log_weight(Vec<T> x) const { return log_of<T>(weight(x)); }

  double sum_of(double u, int last) const {
    double s = inverse_factorial(last);
    for (int i = last - 1; i >= 0; --i) s = s * u + inverse_factorial(i);
    return s;
  }
  double log_weight_of(T x) const {
    return std::isinf(x) ? static_cast<double>(x) : std::log(sum_of(static_cast<double>(x) * beta, n()));
  }
  double ratio_of(T x) const {
    const double u = static_cast<double>(x) * beta;
    return std::isinf(x) ? 0 : sum_of(u, n() - 1) / sum_of(u, n());
  }
};

// Spherical softmax: u^2 + eps
template <class T>
struct Quadratic {
  static constexpr bool kShifts = false;
  T beta, eps;

  explicit Quadratic(const Parameters& p) : beta(static_cast<T>(p.beta)), eps(static_cast<T>(p.shape)) {}

  Vec<T> weight(Vec<T> x) const {
    const Vec<T> u = x * beta;
    return x == -kInfinity<T> ? splat(T(0)) : mul_add<T>(u, u, splat(eps));
  }
  Vec<T> slope(Vec<T> x, Vec<T>) const { return x == -kInfinity<T> ? splat(T(0)) : x * (beta + beta); }
  Vec<T> log_weight(Vec<T> x) const { return log_of<T>(weight(x)); }

  double weight_of(T x) const {
    const double u = static_cast<double>(x) * beta;
    return u * u + eps;
  }
  double log_weight_of(T x) const { return std::isinf(x) ? static_cast<double>(x) : std::log(weight_of(x)); }
  double ratio_of(T x) const { return std::isinf(x) ? 0 : 2 * static_cast<double>(x) * beta / weight_of(x); }
};

// Weights of one row in double, divided by a power of the largest number so that nothing overflows: what the
// members above fall back on. `weight` and `slope` share their scale.
struct Slowly {
  bool shifts = false;
  int degree = 0;  // 0: spherical
  double beta = 1, eps = 0, largest = 1, top = 0;

  double weight(double x) const { return value(x, degree); }
  double slope(double x) const {
    if (shifts) return weight(x);
    if (degree == 0) return x == -kInfinity<double> ? 0 : 2 * (x * beta / largest) / largest;
    return value(x, degree - 1);
  }
  double value(double x, int last) const {
    if (x == -kInfinity<double>) return 0;
    if (shifts) return std::exp((x - top) * beta);
    const double t = x * beta / largest;
    if (degree == 0) return t * t + eps / largest / largest;
    double s = 0;
    for (int i = last; i >= 0; --i) s = s * t + inverse_factorial(i) * std::pow(largest, i - degree);
    return s;
  }
};

template <class T>
Slowly slowly(const Exponential<T>& f) {
  return {.shifts = true, .beta = static_cast<double>(f.beta[0])};
}
template <class T, int kDegree>
Slowly slowly(const Polynomial<T, kDegree>& f) {
  return {.degree = f.n(), .beta = static_cast<double>(f.beta)};
}
template <class T>
Slowly slowly(const Quadratic<T>& f) {
  return {.beta = static_cast<double>(f.beta), .eps = static_cast<double>(f.eps)};
}

}  // namespace
