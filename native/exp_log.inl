// exp of a vector, for arguments up to 0 (what softmax needs after the maximum is subtracted), and its
// logarithm.
//
// exp(x) = 2^n exp(r), n = round(x / ln 2), r = x - n ln 2, |r| <= ln(2) / 2 (in two parts where one product
// is not exact enough); exp(r) = 1 + r + r^2 q(r), q interpolating at the Chebyshev nodes (degree 6 in float,
// 11 in double: within 0.1 ulp). Results below the normal range are rounded once, 2^n being applied in two
// factors. How far results may be off is in tests/tolerances.py. -inf gives 0, NaN NaN.
//
// log(x) = e ln 2 + log(m), x = 2^e m, sqrt(1/2) <= m < sqrt(2); with f = m - 1 and s = f / (2 + f),
// log(1 + f) = 2 atanh(s) = f - f^2 / 2 + s (f^2 / 2 + R), R = sum of 2 s^(2i) / (2i + 1) for i >= 1, whose
// series is cut below 0.1 ulp. 0 gives -inf, +inf itself, less than 0 NaN.
#pragma once

#include <limits>

#include "vec.hpp"

namespace {

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float kNormal = -87.0f;   // from here on exp is not below the normal range
  static constexpr float kLowest = -105.0f;  // exp rounds to 0 below -103.98
  static constexpr float kLog2e = 1.44269504088896341f;
  static constexpr float kLn2High = 0.693359375f;  // 9 bits: n times it is exact
  static constexpr float kLn2Low = -2.12194440e-4f;
  static constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23
  static constexpr int kMantissa = 23;
  static constexpr int kBias = 127;
  static constexpr float kTerms[] = {
      1.0f, 1.0f, 0.5f, 0.16666577025598f, 0.04166655466205f, 0.00836317307451f, 0.00139261761199f};
  static constexpr int kLogTerms = 4;
  static constexpr float kSqrtHalf = 0.707106781186547524f;
  static constexpr float kSubnormal = 16777216.0f;  // 2^24 brings them into the normal range
  static constexpr float kSubnormalBits = 24;
};

template <>
struct ExpConstants<double> {
  static constexpr double kNormal = -708.0;
  static constexpr double kLowest = -746.0;  // exp rounds to 0 below -745.13
  static constexpr double kLog2e = 1.44269504088896340735992468100189214;
  static constexpr double kLn2High = 6.93145751953125e-1;  // 21 bits
  static constexpr double kLn2Low = 1.42860682030941723212e-6;
  static constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int kMantissa = 52;
  static constexpr int kBias = 1023;
  static constexpr double kTerms[] = {1.0,
                                      1.0,
                                      0.50000000000000010211,
                                      0.16666666666666667452,
                                      0.041666666666624161903,
                                      0.0083333333333300644495,
                                      0.0013888888917196719077,
                                      0.00019841269863040545271,
                                      0.000024801521322368693266,
                                      2.7557268480310025526e-6,
                                      2.7620075879983366586e-7,
                                      2.5100375832561233664e-8};
  static constexpr int kLogTerms = 9;
  static constexpr double kSqrtHalf = 0.707106781186547524400844362104849039;
  static constexpr double kSubnormal = 18014398509481984.0;  // 2^54
  static constexpr double kSubnormalBits = 54;
};

// 1 / i!
constexpr double inverse_factorial(int i) { return i < 2 ? 1.0 : inverse_factorial(i - 1) / i; }

template <class T>
inline Vec<T> power_of_two(VecInt<T> n) {
  using C = ExpConstants<T>;
  return bits<Vec<T>>((n + C::kBias) << C::kMantissa);
}

// exp(x) without the power of two that shifted = n + kRounder holds.
template <class T>
inline Vec<T> exp_fraction(Vec<T> x, Vec<T> shifted) {
  using C = ExpConstants<T>;
  constexpr int degree = sizeof(C::kTerms) / sizeof(T) - 1;
  const Vec<T> n = shifted - C::kRounder;
  Vec<T> r;
  if constexpr (kRoundsOnce && sizeof(T) == sizeof(float))
    r = mul_add<T>(n, splat(-(C::kLn2High + C::kLn2Low)), x);
  else
    r = mul_add<T>(n, splat(-C::kLn2Low), mul_add<T>(n, splat(-C::kLn2High), x));
  Vec<T> p = splat(C::kTerms[degree]);
  for (int i = degree - 1; i >= 0; --i) p = mul_add<T>(p, r, splat(C::kTerms[i]));
  return p;
}

template <class T>
inline Vec<T> exp_nonpositive(Vec<T> x) {
  using C = ExpConstants<T>;
  using Int = typename VecTypes<T>::Int;
  if (all<T>(x >= C::kNormal)) [[likely]] {
    const Vec<T> shifted = mul_add<T>(x, splat(C::kLog2e), splat(C::kRounder));
    return bits<Vec<T>>(bits<VecInt<T>>(exp_fraction<T>(x, shifted)) +
                        (bits<VecInt<T>>(shifted) << C::kMantissa));
  }
  const Vec<T> clamped = max<T>(splat(C::kLowest), x);  // exp(kLowest) rounds to 0; a NaN stays
  const Vec<T> shifted = mul_add<T>(clamped, splat(C::kLog2e), splat(C::kRounder));
  const VecInt<T> exponent = bits<VecInt<T>>(shifted) - bits<Int>(C::kRounder), half = exponent >> 1;
  return exp_fraction<T>(clamped, shifted) * power_of_two<T>(half) * power_of_two<T>(exponent - half);
}

template <class T>
inline Vec<T> log_of(Vec<T> x) {
  using C = ExpConstants<T>;
  using Int = typename VecTypes<T>::Int;
  using Limits = std::numeric_limits<T>;
  const VecInt<T> tiny = x < Limits::min();
  const Vec<T> normal = tiny ? x * C::kSubnormal : x;
  const VecInt<T> exponent = (bits<VecInt<T>>(normal) - bits<Int>(C::kSqrtHalf)) >> C::kMantissa;
  const Vec<T> f = bits<Vec<T>>(bits<VecInt<T>>(normal) - (exponent << C::kMantissa)) - T(1);
  Vec<T> e = bits<Vec<T>>(exponent + bits<Int>(C::kRounder)) - C::kRounder;
  e = tiny ? e - C::kSubnormalBits : e;
  const Vec<T> s = f / (f + T(2)), z = s * s, half = f * f * T(0.5);
  Vec<T> r = splat(T(2) / (2 * C::kLogTerms + 1));
  for (int i = C::kLogTerms - 1; i >= 1; --i) r = mul_add<T>(r, z, splat(T(2) / (2 * i + 1)));
  const Vec<T> low = mul_add<T>(e, splat(C::kLn2Low), s * mul_add<T>(r, z, half));
  const Vec<T> result = mul_add<T>(e, splat(C::kLn2High), f - (half - low));
  const Vec<T> edge = x == T(0) ? splat(-Limits::infinity()) : splat(Limits::quiet_NaN());
  return x > T(0) ? (x <= Limits::max() ? result : x) : edge;
}

// log(1 + x) for x in [0, 1].
template <class T>
inline Vec<T> log_one_plus(Vec<T> x) {
  const Vec<T> u = x + T(1);
  return log_of<T>(u) + (x - (u - T(1))) / u;
}

}  // namespace
