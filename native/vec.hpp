// A vector of numbers on the compilers' vector extensions; its width is that of the instruction set compiled
// for.
#pragma once

#if defined(__SSE2__)
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

// The first `count` numbers of `v`.
template <class T>
inline void store_part(T* p, Vec<T> v, std::size_t count) {
#if defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>((1u << count) - 1);
  if constexpr (sizeof(T) == sizeof(float))
    _mm512_mask_storeu_ps(p, mask, (__m512)v);
  else
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask), (__m512d)v);
#else
  for (std::size_t i = 0; i < count; ++i) p[i] = v[i];
#endif
}

// The same where `count` may be that of a whole vector.
template <class T>
inline Vec<T> load_some(const T* p, std::size_t count, T fill) {
  return count >= kWidth<T> ? load(p) : load_part(p, count, fill);
}
template <class T>
inline void store_some(T* p, Vec<T> v, std::size_t count) {
  if (count >= kWidth<T>)
    store(p, v);
  else
    store_part(p, v, count);
}

template <class T>
inline Vec<T> splat(T value) {
  return value - Vec<T>{};  // minus nothing is no work: plus nothing would turn -0 into 0
}

// Whether mul_add rounds once.
#if defined(__FMA__) || defined(__AVX512F__) || defined(__ARM_NEON)
constexpr bool kRoundsOnce = true;
#else
constexpr bool kRoundsOnce = false;
#endif

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

template <class T>
inline Vec<T> absolute(Vec<T> v) {
  return v < T(0) ? -v : v;
}

// One bit for each place of a comparison, the first the lowest.
template <class T>
inline unsigned mask_bits(VecInt<T> where) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (sizeof(T) == sizeof(float))
    return static_cast<unsigned>(_mm256_movemask_ps((__m256)where));
  else
    return static_cast<unsigned>(_mm256_movemask_pd((__m256d)where));
#else
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == sizeof(float))
    return _mm512_movepi32_mask((__m512i)where);
  else
    return _mm512_movepi64_mask((__m512i)where);
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == sizeof(float))
    return static_cast<unsigned>(_mm_movemask_ps((__m128)where));
  else
    return static_cast<unsigned>(_mm_movemask_pd((__m128d)where));
#endif
  unsigned result = 0;
  for (std::size_t i = 0; i < kWidth<T>; ++i) result |= static_cast<unsigned>(where[i] != 0) << i;
  return result;
#endif
}

// Whether a comparison holds in every place.
template <class T>
inline bool all(VecInt<T> where) {
  return mask_bits<T>(where) == (1u << kWidth<T>)-1;
}

// Numbers of another type, converted: uint8 and either floating type to T.
template <class T, class X>
inline Vec<T> load_as(const X* p) {
  if constexpr (sizeof(X) == sizeof(T)) {
    return load(p);
  } else if constexpr (sizeof(X) == 1) {
#if defined(__AVX512F__)
    // The forms with a mask of ones: gcc takes the plain ones for reading what nobody wrote.
    if constexpr (sizeof(T) == sizeof(float))
      return (Vec<T>)_mm512_maskz_cvtepi32_ps(
          0xffff, _mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
    else
      return (Vec<T>)_mm512_maskz_cvtepi32_pd(
          0xff, _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == sizeof(float)) {
      return (Vec<T>)_mm256_cvtepi32_ps(
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
    } else {
      std::int32_t four;
      std::memcpy(&four, p, sizeof four);
      return (Vec<T>)_mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)));
    }
#else
    Vec<T> v;
    for (std::size_t i = 0; i < kWidth<T>; ++i) v[i] = static_cast<T>(p[i]);
    return v;
#endif
  } else {
    typedef X From __attribute__((vector_size(kVectorBytes / sizeof(T) * sizeof(X))));
    From v;
    std::memcpy(&v, p, sizeof v);
#if defined(__AVX512F__)  // in one go, where gcc takes two
    if constexpr (sizeof(T) > sizeof(X)) return (Vec<T>)_mm512_maskz_cvtps_pd(0xff, (__m256)v);
#endif
    return __builtin_convertvector(v, Vec<T>);
  }
}

// The first `count` of them, then zeros.
template <class T, class X>
inline Vec<T> load_part_as(const X* p, std::size_t count) {
  X buffer[kWidth<T>] = {};
  std::memcpy(buffer, p, count * sizeof(X));
  return load_as<T>(buffer);
}

// The same, where the numbers up to `end` may be read: a whole vector costs less than a part of one.
template <class T, class X>
inline Vec<T> load_part_as(const X* p, std::size_t count, const X* end) {
  if (end - p < static_cast<std::ptrdiff_t>(kWidth<T>)) [[unlikely]]
    return load_part_as<T>(p, count);
  VecInt<T> place;
  for (std::size_t i = 0; i < kWidth<T>; ++i) place[i] = static_cast<typename VecTypes<T>::Int>(i);
  return place < static_cast<typename VecTypes<T>::Int>(count) ? load_as<T>(p) : Vec<T>{};
}

// Write past the caches; `p` is aligned to a vector. `fence` before anyone else reads.
template <class T>
inline void stream(T* p, Vec<T> v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif defined(__AVX2__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#elif defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), (__m128i)v);
#else
  store(p, v);
#endif
}

inline void fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// A NaN in `a` is dropped, one in `b` is kept: the running maximum stands in `b`.
template <class T>
inline Vec<T> max(Vec<T> a, Vec<T> b) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (sizeof(T) == sizeof(float))
    return (Vec<T>)_mm256_max_ps((__m256)a, (__m256)b);
  else
    return (Vec<T>)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
  return a > b ? a : b;
#endif
}

template <class To, class From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace
