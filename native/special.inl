// Rows that the vectors do not serve: with +inf or NaN in them, with nothing there, or with weights beyond
// the largest number. Plain loops in double; rare, so simple.
#pragma once

#include "family.inl"

namespace {

// One number of a row is read as another: where the margin of a target is taken off.
template <class T>
struct Patch {
  size_t at = std::numeric_limits<size_t>::max();
  T value = 0;

  // The patch of a row: its target's number with the margin taken off, after beta.
  static Patch of(const T* x, const int64_t* target, const Parameters& p) {
    if (target == nullptr || *target < 0 || p.margin == 0) return {};
    const auto y = static_cast<size_t>(*target);
    return {y, static_cast<T>(static_cast<double>(x[y]) - p.margin / p.beta)};
  }
  T read(const T* x, size_t i) const { return i == at ? value : x[i]; }
};

template <class T>
inline void fill(T* out, size_t k, T value) {
  for (size_t i = 0; i < k; ++i) out[i] = value;
}

// What a row is like, seen through a patch.
template <class T>
struct Survey {
  bool nan = false;
  size_t infinite = 0;  // how many are +inf
  bool empty = true;    // nothing there but -inf
  double largest = 0, top = -kInfinity<double>;

  Survey(const T* x, size_t k, Patch<T> patch) {
    for (size_t i = 0; i < k; ++i) {
      const double v = static_cast<double>(patch.read(x, i));
      nan |= v != v;
      infinite += v == kInfinity<double>;
      if (v == -kInfinity<double> || v != v) continue;
      empty = false;
      top = v > top ? v : top;
      largest = std::abs(v) > largest ? std::abs(v) : largest;
    }
  }
  bool limit() const { return infinite > 0 || empty; }
};

// The scale that keeps every weight of a row finite, and the sum of the weights.
template <class F, class T>
double weigh_slowly(const F& f, const T* x, size_t k, Patch<T> patch, const Survey<T>& row, Slowly& slow) {
  slow = slowly(f);
  slow.top = row.top;
  const double largest = row.largest * slow.beta;
  // eps below the smallest normal number must not decide whether anything is left: its root is a scale, too
  slow.largest = slow.degree ? std::fmax(1, largest) : std::fmax(largest, std::sqrt(slow.eps));
  double sum = 0;
  for (size_t i = 0; i < k; ++i) sum += slow.weight(static_cast<double>(patch.read(x, i)));
  return sum;
}

// Probabilities, or their logarithms; in place where out == x.
template <bool kLog, class F, class T>
void special_map(const F& f, const T* x, T* out, size_t k, Patch<T> patch) {
  const Survey<T> row(x, k, patch);
  if (row.nan) return fill(out, k, kNaN<T>);
  Slowly slow;
  double sum = static_cast<double>(row.infinite);
  if (!row.limit()) sum = weigh_slowly(f, x, k, patch, row, slow);
  for (size_t i = 0; i < k; ++i) {
    const double v = static_cast<double>(patch.read(x, i));
    const double w = row.limit() ? (v == kInfinity<double> ? 1 : 0) : slow.weight(v);
    const double p = w > 0 ? w / sum : 0;
    out[i] = static_cast<T>(kLog ? std::log(p) : p);
  }
}

// Loss and gradient of a row with class y.
template <class F, class T>
void special_loss(const F& f, const T* x, size_t y, T w, T* loss, T* grad, size_t k, Patch<T> patch) {
  const Survey<T> row(x, k, patch);
  const double a = static_cast<double>(patch.read(x, y));
  if (row.nan || row.limit()) {
    const double share = row.infinite ? std::log(static_cast<double>(row.infinite)) : kInfinity<double>;
    *loss = row.nan ? kNaN<T> : static_cast<T>((a == kInfinity<double> ? share : kInfinity<double>)*w);
    return fill(grad, k, row.nan ? kNaN<T> : T(0));
  }
  Slowly slow;
  const double sum = weigh_slowly(f, x, k, patch, row, slow), weight = slow.weight(a);
  const double ratio = weight > 0 ? slow.slope(a) / weight : 0;
  *loss = static_cast<T>((std::log(sum) - std::log(weight)) * w);
  for (size_t i = 0; i < k; ++i) {
    const double slope = slow.slope(static_cast<double>(patch.read(x, i))) / sum - (i == y ? ratio : 0);
    grad[i] = static_cast<T>(slope * slow.beta * w);
  }
}

}  // namespace
