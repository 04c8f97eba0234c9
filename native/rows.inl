// Kernels for rows one by one.
//
// Members that shift (softmax) walk a row in parts that stay in the first cache: largest number, then weights
// relative to it, stored, and their sum; a second walk brings the parts to one scale and divides. The others
// add up the weights in a first walk and compute them again, divided, in a second: less memory traffic than
// storing them. Sums are kept in vectors for a block and in compensated doubles over the blocks, so their
// error does not grow with the length of the row. Results much larger than the caches are written past them.
#pragma once

#include <algorithm>
#include <vector>

#include "special.inl"

namespace {

constexpr size_t kBlockVectors = 16;
constexpr size_t kPartBytes = 16 << 10;
constexpr size_t kMostParts = 512;
constexpr size_t kWorkBytes = 256 << 10;   // rows up to this long are weighed in a buffer, not in the result
constexpr size_t kStreamBytes = 16 << 20;  // results from this size on are written past the caches

template <class T>
inline T horizontal_max(Vec<T> v) {
  T m = v[0];
  for (size_t i = 1; i < kWidth<T>; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

template <class T>
inline double horizontal_sum(Vec<T> v) {
  double s = 0;
  for (size_t i = 0; i < kWidth<T>; ++i) s += static_cast<double>(v[i]);
  return s;
}

// The largest entry of a row; NaNs are passed over, an empty or all-NaN row gives -inf.
template <class T>
inline T row_max(const T* x, size_t k) {
  constexpr size_t w = kWidth<T>;
  Vec<T> a = splat(-kInfinity<T>), b = a;
  size_t i = 0;
  for (; i + 2 * w <= k; i += 2 * w) {
    a = max<T>(load(x + i), a);
    b = max<T>(load(x + i + w), b);
  }
  if (i + w <= k) {
    a = max<T>(load(x + i), a);
    i += w;
  }
  if (i < k) b = max<T>(load_part(x + i, k - i, -kInfinity<T>), b);
  return horizontal_max<T>(max<T>(a, b));
}

template <class T>
inline T patched_max(const T* x, size_t k, Patch<T> patch) {
  if (patch.at >= k) return row_max(x, k);
  const T rest = std::max(row_max(x, patch.at), row_max(x + patch.at + 1, k - patch.at - 1));
  return patch.value > rest ? patch.value : rest;
}

// A sum whose error does not grow with the number of terms; every term is positive here, so the larger one
// needs no branch but a comparison. Source: Neumaier 1974, doi 10.1002/zamm.19740540106.
struct Sum {
  double value = 0, lost = 0;

  void add(double term) {
    const double next = value + term;
    lost += value >= term ? (value - next) + term : (term - next) + value;
    value = next;
  }
  double total() const { return lost == lost ? value + lost : value; }  // infinity has lost NaN
};

// Call body(x', place, count) on blocks of a row, x' being the block as the patch wants it read.
template <class T, class Body>
inline void over_blocks(const T* x, size_t k, Patch<T> patch, Body body) {
  constexpr size_t length = kBlockVectors * kWidth<T>;
  alignas(kVectorBytes) T copy[length];
  for (size_t i = 0; i < k; i += length) {
    const size_t count = std::min(length, k - i);
    const T* from = x + i;
    if (patch.at - i < count) {
      std::memcpy(copy, from, count * sizeof(T));
      copy[patch.at - i] = patch.value;
      from = copy;
    }
    body(from, i, count);
  }
}

// The sum of the weights of a row, which are stored where kStore says so.
template <bool kStore, class F, class T>
inline double weigh(const F& f, const T* x, T* out, size_t k, Patch<T> patch) {
  constexpr size_t w = kWidth<T>;
  const F g = f;  // a copy of its own: for all the compiler knows, stores to out might change `f`
  Sum total;
  over_blocks(x, k, patch, [&total, g, out](const T* from, size_t place, size_t count) {
    Vec<T> sum = splat(T(0));
    size_t i = 0;
    for (; i + w <= count; i += w) {
      const Vec<T> weight = g.weight(load(from + i));
      if constexpr (kStore) store(out + place + i, weight);
      sum += weight;
    }
    if (i < count) {
      const Vec<T> weight = g.weight(load_part(from + i, count - i, -kInfinity<T>));
      if constexpr (kStore) store_part(out + place + i, weight, count - i);
      sum += weight;
    }
    total.add(horizontal_sum<T>(sum));
  });
  return total.total();
}

// out = g(x) for each number of a row, past the caches if `streaming`.
template <class T, class G>
inline void map_row(const T* x, T* out, size_t k, bool streaming, G g) {
  constexpr size_t w = kWidth<T>;
  size_t i = 0;
  if (streaming) {
    const size_t odd = reinterpret_cast<std::uintptr_t>(out) % kVectorBytes / sizeof(T);
    const size_t head = std::min(k, odd ? w - odd : 0);
    if (head) store_part(out, g(load_part(x, head, T(0))), head);
    for (i = head; i + w <= k; i += w) stream(out + i, g(load(x + i)));
  } else {
    for (; i + w <= k; i += w) store(out + i, g(load(x + i)));
  }
  if (i < k) store_part(out + i, g(load_part(x + i, k - i, T(0))), k - i);
}

// The parts of a row whose weights are relative to the largest number of their part.
template <class T>
struct Parts {
  size_t length = 0, count = 0;
  T top = -kInfinity<T>;  // largest of all
  double sum = 0;         // of the weights, relative to the largest of all
  T tops[kMostParts];
  double sums[kMostParts];

  double relative(size_t part, T beta) const {
    const double gap =
        (static_cast<double>(tops[part]) - static_cast<double>(top)) * static_cast<double>(beta);
    return tops[part] == top ? 1 : std::exp(gap);
  }
};

// Weigh a row in parts; false for a row that special.inl has to serve, of which nothing has been overwritten.
template <bool kStore, class T>
inline bool weigh_parts(Exponential<T>& f, const T* x, T* out, size_t k, Patch<T> patch, Parts<T>& parts) {
  constexpr size_t block = kBlockVectors * kWidth<T>;
  const size_t least = (k + kMostParts - 1) / kMostParts;
  parts.length = std::max(kPartBytes / sizeof(T), (least + block - 1) / block * block);
  parts.count = (k + parts.length - 1) / parts.length;
  parts.top = -kInfinity<T>;
  parts.sum = 0;
  if (kStore && x == out && parts.count > 1 && std::isinf(patched_max(x, k, patch))) return false;
  for (size_t c = 0; c < parts.count; ++c) {
    const size_t first = c * parts.length, length = std::min(parts.length, k - first);
    const Patch<T> here{patch.at - first, patch.value};
    const T top = patched_max(x + first, length, here);
    if (top == kInfinity<T> || (parts.count == 1 && std::isinf(top))) return false;
    parts.tops[c] = top;
    parts.top = std::max(parts.top, top);
    f.top = splat(std::isinf(top) ? T(0) : top);
    parts.sums[c] = weigh<kStore>(f, x + first, out + first, length, here);
  }
  if (std::isinf(parts.top)) return false;
  for (size_t c = 0; c < parts.count; ++c) parts.sum += parts.sums[c] * parts.relative(c, f.beta[0]);
  f.top = splat(parts.top);
  return true;
}

// Bring stored weights to one scale, times `factor`.
template <class T>
inline void scale_parts(const Parts<T>& parts, const T* from, T* out, size_t k, T beta, double factor,
                        bool streaming) {
  for (size_t c = 0; c < parts.count; ++c) {
    const size_t first = c * parts.length, length = std::min(parts.length, k - first);
    const T scale = static_cast<T>(factor * parts.relative(c, beta));
    map_row(from + first, out + first, length, streaming, [scale](Vec<T> e) { return e * scale; });
  }
}

template <class T>
constexpr bool usable(double sum) {
  return sum >= static_cast<double>(std::numeric_limits<T>::min()) &&
         sum <= static_cast<double>(std::numeric_limits<T>::max());
}

// How a call writes its results.
template <class T>
struct Output {
  bool streaming;
  std::vector<T> work;

  Output(const T* x, const T* out, size_t k, const Parameters& p)
      : streaming(x != out && p.numbers * sizeof(T) >= kStreamBytes),
        work(streaming && k * sizeof(T) <= kWorkBytes ? k : 0) {}
  ~Output() {
    if (streaming) fence();
  }
  T* weights(T* out) { return work.empty() ? out : work.data(); }
};

template <class F, class T>
void probabilities(const T* x, const int64_t* target, T* out, size_t n, size_t k, const Parameters& p) {
  F f(p);
  Output<T> output(x, out, k, p);
  Parts<T> parts;
  for (size_t row = 0; row < n; ++row, x += k, out += k) {
    const Patch<T> patch = Patch<T>::of(x, target ? target + row : nullptr, p);
    if constexpr (F::kShifts) {
      T* weights = output.weights(out);
      if (weigh_parts<true>(f, x, weights, k, patch, parts))
        scale_parts(parts, weights, out, k, f.beta[0], 1 / parts.sum, output.streaming);
      else
        special_map<false>(f, x, out, k, patch);
    } else {
      const double sum = weigh<false>(f, x, out, k, patch);
      if (!usable<T>(sum)) {
        special_map<false>(f, x, out, k, patch);
        continue;
      }
      const T scale = static_cast<T>(1 / sum);
      map_row(x, out, k, output.streaming, [f, scale](Vec<T> v) { return f.weight(v) * scale; });
      if (patch.at < k) out[patch.at] = static_cast<T>(std::exp(f.log_weight_of(patch.value)) / sum);
    }
  }
}

template <class F, class T>
void log_probabilities(const T* x, const int64_t* target, T* out, size_t n, size_t k, const Parameters& p) {
  F f(p);
  Output<T> output(x, out, k, p);
  Parts<T> parts;
  for (size_t row = 0; row < n; ++row, x += k, out += k) {
    const Patch<T> patch = Patch<T>::of(x, target ? target + row : nullptr, p);
    double sum;
    bool ok;
    if constexpr (F::kShifts) {
      ok = weigh_parts<false>(f, x, out, k, patch, parts);
      sum = parts.sum;
    } else {
      sum = weigh<false>(f, x, out, k, patch);
      ok = usable<T>(sum);
    }
    if (!ok) {
      special_map<true>(f, x, out, k, patch);
      continue;
    }
    const T shift = static_cast<T>(std::log(sum));
    map_row(x, out, k, output.streaming, [f, shift](Vec<T> v) { return f.log_weight(v) - shift; });
    if (patch.at < k) out[patch.at] = static_cast<T>(f.log_weight_of(patch.value) - std::log(sum));
  }
}

template <class T>
void logsumexp(const T* x, const int64_t*, T* out, size_t n, size_t k, const Parameters& p) {
  Exponential<T> f(p);
  Parts<T> parts;
  for (size_t row = 0; row < n; ++row, x += k) {
    if (weigh_parts<false>(f, x, out, k, {}, parts)) {
      out[row] = static_cast<T>(static_cast<double>(parts.top) * f.beta[0] + std::log(parts.sum));
    } else {
      const Survey<T> survey(x, k, {});
      out[row] = survey.nan ? kNaN<T> : survey.infinite ? kInfinity<T> : -kInfinity<T>;
    }
  }
}

}  // namespace
