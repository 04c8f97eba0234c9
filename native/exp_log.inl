// exp of a vector, for arguments up to 0 (what softmax needs after the maximum is subtracted).
//
// exp(x) = 2^n exp(r), n = round(x / ln 2), r = x - n ln 2 in two parts, |r| <= ln(2) / 2; exp(r) by its
// Taylor polynomial (degree 7 in float, 13 in double: truncation below 0.1 ulp). 2^n is applied in two
// factors, so results below the normal range are rounded once. Measured error: 1.3 ulp (float), 1.2 ulp
// (double), below 1 ulp where mul_add rounds once. -inf gives 0, NaN NaN.
#pragma once

#include "vec.hpp"

namespace {

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float kLowest = -105.0f;  // exp rounds to 0 below -103.98
  static constexpr float kLog2e = 1.44269504088896341f;
  static constexpr float kLn2High = 0.693359375f;  // 9 bits: n times it is exact
  static constexpr float kLn2Low = -2.12194440e-4f;
  static constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23
  static constexpr int kMantissa = 23;
  static constexpr int kBias = 127;
  static constexpr int kDegree = 7;
};

template <>
struct ExpConstants<double> {
  static constexpr double kLowest = -746.0;  // exp rounds to 0 below -745.13
  static constexpr double kLog2e = 1.44269504088896340735992468100189214;
  static constexpr double kLn2High = 6.93145751953125e-1;  // 21 bits
  static constexpr double kLn2Low = 1.42860682030941723212e-6;
  static constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int kMantissa = 52;
  static constexpr int kBias = 1023;
  static constexpr int kDegree = 13;
};

// 1 / i!
constexpr double inverse_factorial(int i) { return i < 2 ? 1.0 : inverse_factorial(i - 1) / i; }

template <class T>
inline Vec<T> power_of_two(VecInt<T> n) {
  using C = ExpConstants<T>;
  return bits<Vec<T>>((n + C::kBias) << C::kMantissa);
}

template <class T>
inline Vec<T> exp_nonpositive(Vec<T> x) {
  using C = ExpConstants<T>;
  using Int = typename VecTypes<T>::Int;
  const Vec<T> clamped = x < C::kLowest ? splat(C::kLowest) : x;  // exp(kLowest) rounds to 0
  const Vec<T> shifted = mul_add<T>(clamped, splat(C::kLog2e), splat(C::kRounder));
  const Vec<T> n = shifted - C::kRounder;
  const VecInt<T> exponent = bits<VecInt<T>>(shifted) - bits<Int>(C::kRounder);
  const Vec<T> r = mul_add<T>(n, splat(-C::kLn2Low), mul_add<T>(n, splat(-C::kLn2High), clamped));
  Vec<T> p = splat(static_cast<T>(inverse_factorial(C::kDegree)));
  for (int i = C::kDegree - 1; i >= 0; --i) p = mul_add<T>(p, r, splat(static_cast<T>(inverse_factorial(i))));
  const VecInt<T> half = exponent >> 1;
  return p * power_of_two<T>(half) * power_of_two<T>(exponent - half);
}

}  // namespace
