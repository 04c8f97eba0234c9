// A vector of numbers on the compilers' vector extensions; its width is that of the instruction set compiled
// for.
#pragma once

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
  T buffer[kWidth<T>];
  for (std::size_t i = 0; i < kWidth<T>; ++i) buffer[i] = i < count ? p[i] : fill;
  return load(buffer);
}

template <class T>
inline void store_part(T* p, Vec<T> v, std::size_t count) {
  std::memcpy(p, &v, count * sizeof(T));
}

template <class T>
inline Vec<T> splat(T value) {
  return Vec<T>{} + value;
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
