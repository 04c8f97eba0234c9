// A vector of numbers on the compilers' vector extensions; its width is that of the instruction set compiled
// for.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include <cstdint>
#include <cstring>
#include <limits>

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;  // SSE2 and NEON
#endif

template <class T>
struct VecTypes;

template <>
struct VecTypes<float> {
  typedef float V __attribute__((vector_size(kVectorBytes)));
  typedef std::int32_t I __attribute__((vector_size(kVectorBytes)));
  using Int = std::int32_t;
};

template <>
struct VecTypes<double> {
  typedef double V __attribute__((vector_size(kVectorBytes)));
  typedef std::int64_t I __attribute__((vector_size(kVectorBytes)));
  using Int = std::int64_t;
};

template <class T>
using Vec = typename VecTypes<T>::V;
template <class T>
using VecInt = typename VecTypes<T>::I;

template <class T>
constexpr std::size_t kWidth = kVectorBytes / sizeof(T);

template <class T>
inline Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
inline void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}

// The first `count` numbers, then `fill`.
template <class T>
inline Vec<T> load_part(const T* p, std::size_t count, T fill) {
#if defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>((1u << count) - 1);
  const Vec<T> rest = Vec<T>{} + fill;
  if constexpr (sizeof(T) == sizeof(float))
    return (Vec<T>)_mm512_mask_loadu_ps((__m512)rest, mask, p);
  else
    return (Vec<T>)_mm512_mask_loadu_pd((__m512d)rest, static_cast<__mmask8>(mask), p);
#elif defined(__AVX2__)
  VecInt<T> place;
  for (std::size_t i = 0; i < kWidth<T>; ++i) place[i] = static_cast<typename VecTypes<T>::Int>(i);
  const VecInt<T> inside = place < static_cast<typename VecTypes<T>::Int>(count);
  Vec<T> v;
  if constexpr (sizeof(T) == sizeof(float))
    v = (Vec<T>)_mm256_maskload_ps(p, (__m256i)inside);
  else
    v = (Vec<T>)_mm256_maskload_pd(p, (__m256i)inside);
  return inside ? v : Vec<T>{} + fill;
#else
  T buffer[kWidth<T>];
  for (std::size_t i = 0; i < kWidth<T>; ++i) buffer[i] = i < count ? p[i] : fill;
  return load(buffer);
#endif
}

template <class T>
inline void store_part(T* p, Vec<T> v, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) p[i] = v[i];
}

template <class T>
inline Vec<T> splat(T value) {
  return Vec<T>{} + value;
}

// a * b + c, rounded once where the instruction set can (all but baseline x86).
template <class T>
inline Vec<T> mul_add(Vec<T> a, Vec<T> b, Vec<T> c) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == sizeof(float))
    return (Vec<T>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
  else
    return (Vec<T>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  if constexpr (sizeof(T) == sizeof(float))
    return (Vec<T>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
  else
    return (Vec<T>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__ARM_NEON)
  if constexpr (sizeof(T) == sizeof(float))
    return (Vec<T>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
  else
    return (Vec<T>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}

// A NaN in `a` is dropped, one in `b` is kept: the running maximum stands in `b`.
template <class T>
inline Vec<T> max(Vec<T> a, Vec<T> b) {
  return a > b ? a : b;
}

template <class To, class From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace
