// sparsemax and entmax: p = max((alpha - 1) u - tau, 0)^(1 / (alpha - 1)), u = beta x, with the tau that
// makes p sum to 1. With u measured from the largest number, only (alpha - 1) u > -1 can be above tau: one
// walk picks these few, and tau is found among them without sorting.
//
// f(tau) = sum p - 1 falls and, for alpha <= 2, is convex: Newton's steps from tau = -1, where f >= 0, come
// from the left, never pass the root, and need few rounds, since each halves f or its slope. Numbers that
// fall below tau leave. alpha = 2 ends exactly when none leaves; alpha = 1.5 solves the quadratic of its
// support at the end. Sources: Martins & Astudillo 2016, arXiv 1602.02068; Peters, Niculae & Martins 2019,
// arXiv 1905.05702.
#pragma once

#include "losses.inl"

namespace {

// The numbers of a row that may be above tau.
struct Candidates {
  std::vector<double> value;  // (alpha - 1) u, measured from the largest: in (-1, 0]
  std::vector<size_t> place;
};

// Pick the candidates; false if there is a NaN.
template <class T>
bool pick(const T* x, size_t k, double top, double rate, Candidates& c) {
  constexpr size_t w = kWidth<T>;
  c.value.clear();
  c.place.clear();
  // The bound is let down a little, so that its rounding loses no candidate; what is too low leaves at once.
  const double bound = top - (1 + 1e-5) / rate;
  const T least =
      static_cast<T>(bound - std::abs(bound) * static_cast<double>(std::numeric_limits<T>::epsilon()));
  VecInt<T> bad{};
  for (size_t i = 0; i < k; i += w) {
    const size_t count = std::min(w, k - i);
    const Vec<T> v = load_some(x + i, count, -kInfinity<T>);
    bad |= v != v;
    for (unsigned hits = mask_bits<T>(v > least); hits; hits &= hits - 1) {
      const size_t place = i + static_cast<size_t>(__builtin_ctz(hits));
      const double u = (static_cast<double>(x[place]) - top) * rate;
      if (!(u > -1)) continue;
      c.value.push_back(u);
      c.place.push_back(place);
    }
  }
  return mask_bits<T>(bad) == 0;
}

// Drop the candidates that are not above tau.
inline size_t keep_above(Candidates& c, double tau) {
  size_t kept = 0;
  for (size_t i = 0; i < c.value.size(); ++i) {
    if (!(c.value[i] > tau)) continue;
    c.value[kept] = c.value[i];
    c.place[kept++] = c.place[i];
  }
  const size_t gone = c.value.size() - kept;
  c.value.resize(kept);
  c.place.resize(kept);
  return gone;
}

inline double sparsemax_tau(Candidates& c) {
  while (true) {
    double sum = 0;
    for (const double u : c.value) sum += u;
    const double tau = (sum - 1) / static_cast<double>(c.value.size());
    if (keep_above(c, tau) == 0) return tau;
  }
}

// The root of the quadratic of a support, sum (u - tau)^2 = 1, below its mean.
inline double entmax15_root(const Candidates& c) {
  const double n = static_cast<double>(c.value.size());
  double mean = 0, spread = 0;
  for (const double u : c.value) mean += u;
  mean /= n;
  for (const double u : c.value) spread += (u - mean) * (u - mean);
  return mean - std::sqrt(std::fmax(0, (1 - spread) / n));
}

inline double entmax15_tau(Candidates& c) {
  double tau = -1;
  for (int round = 0; round < 100; ++round) {
    double first = 0, second = 0;
    for (const double u : c.value) {
      first += u - tau;
      second += (u - tau) * (u - tau);
    }
    const double step = (second - 1) / (2 * first);
    if (!(step > 1e-16)) break;
    tau += step;
    if (keep_above(c, tau) == 0 && step < 1e-4) break;
  }
  const double root = entmax15_root(c);
  return root >= tau - 1e-3 ? root : tau;
}

// Any alpha > 1 but the two above: Newton where f is convex, halving where it is not.
inline double entmax_tau(Candidates& c, double alpha, size_t k) {
  const double power = 1 / (alpha - 1);
  const auto total = [&](double tau, double exponent) {
    double sum = 0;
    for (const double u : c.value)
      if (u > tau) sum += std::pow(u - tau, exponent);
    return sum;
  };
  double low = -1, high = -std::pow(static_cast<double>(k), 1 - alpha);
  if (alpha < 2) {
    for (int round = 0; round < 200; ++round) {
      const double step = (total(low, power) - 1) / (power * total(low, power - 1));
      if (!(step > 1e-17)) break;
      low += step;
    }
  } else {
    for (int round = 0; round < 100; ++round) {
      const double middle = low + (high - low) / 2;
      if (middle == low || middle == high) break;
      (total(middle, power) >= 1 ? low : high) = middle;
    }
  }
  keep_above(c, low);
  return low;
}

// The support of a row and its probabilities; rows that have limits instead are told by their survey.
struct Projection {
  Candidates support;
  std::vector<double> p;
  double top = 0;

  template <class T>
  bool of(const T* x, size_t k, double beta, double alpha) {
    const T m = row_max(x, k);
    if (std::isinf(m)) return false;
    top = static_cast<double>(m);
    if (!pick(x, k, top, beta * (alpha - 1), support)) return false;
    const double tau = alpha == 2     ? sparsemax_tau(support)
                       : alpha == 1.5 ? entmax15_tau(support)
                                      : entmax_tau(support, alpha, k);
    p.resize(support.value.size());
    double sum = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      const double u = support.value[i] - tau;
      p[i] = alpha == 2 ? u : alpha == 1.5 ? u * u : std::pow(u, 1 / (alpha - 1));
      sum += p[i];
    }
    for (double& v : p) v /= sum;
    return true;
  }
};

inline double alpha_of(const Parameters& p, size_t row) { return p.shapes ? p.shapes[row] : p.shape; }

// -sum of (q - q^alpha) / (alpha (alpha - 1)) for one q.
inline double negative_entropy(double q, double alpha) {
  const double power = alpha == 2 ? q * q : alpha == 1.5 ? q * std::sqrt(q) : std::pow(q, alpha);
  return (power - q) / (alpha * (alpha - 1));
}

template <class T>
void entmax(const T* x, const int64_t*, T* out, size_t n, size_t k, const Parameters& p) {
  Projection row;
  const double beta = static_cast<double>(static_cast<T>(p.beta));
  for (size_t r = 0; r < n; ++r, x += k, out += k) {
    const double alpha = alpha_of(p, r);
    if (alpha == 1) {
      probabilities<Exponential<T>, T>(x, nullptr, out, 1, k, p);
    } else if (!row.of(x, k, beta, alpha)) {
      special_map<false, Exponential<T>, T>(Exponential<T>(p), x, out, k, {});
    } else {
      fill(out, k, T(0));
      for (size_t i = 0; i < row.p.size(); ++i) out[row.support.place[i]] = static_cast<T>(row.p[i]);
    }
  }
}

// Fenchel-Young loss H(p) - H(q) + (p - q) u and its gradient p - q, u measured from the largest number.
template <class T, class Target>
void entmax_loss_row(const T* x, T w, T* loss, T* grad, size_t k, double beta, double alpha,
                     const Projection& row, Target q) {
  double value = 0;
  const double factor = beta * static_cast<double>(w);
  q([&](size_t i, double mass) {
    const double u = (static_cast<double>(x[i]) - row.top) * beta;
    value += negative_entropy(mass, alpha) - mass * u;
  });
  for (size_t i = 0; i < row.p.size(); ++i)
    value += row.p[i] * row.support.value[i] / (alpha - 1) - negative_entropy(row.p[i], alpha);
  fill(grad, k, T(0));
  q([&](size_t i, double mass) { grad[i] = static_cast<T>(-mass * factor); });
  for (size_t i = 0; i < row.p.size(); ++i) {
    T& place = grad[row.support.place[i]];
    place = static_cast<T>(row.p[i] * factor + static_cast<double>(place));
  }
  *loss = static_cast<T>(std::fmax(0, value) * static_cast<double>(w));
}

// The same for a row that is a limit: with +inf the targets on these cost H(p) - H(q), any other infinity.
template <class T, class Target>
void entmax_loss_limit(const T* x, T w, T* loss, T* grad, size_t k, double alpha, Target q) {
  const Survey<T> row(x, k, {});
  double value = row.empty ? kInfinity<double> : 0;
  const double share = row.infinite ? 1 / static_cast<double>(row.infinite) : 1;
  if (row.infinite) value = -static_cast<double>(row.infinite) * negative_entropy(share, alpha);
  q([&](size_t i, double mass) {
    value += x[i] == kInfinity<T> ? negative_entropy(mass, alpha) : kInfinity<double>;
  });
  *loss = row.nan ? kNaN<T> : static_cast<T>(std::fmax(0, value) * static_cast<double>(w));
  fill(grad, k, row.nan ? kNaN<T> : T(0));
}

template <class T>
void entmax_loss(const T* x, const int64_t* target, const T* weight, T* losses, T* grad, size_t n, size_t k,
                 const Parameters& p) {
  Projection row;
  const double beta = static_cast<double>(static_cast<T>(p.beta));
  for (size_t r = 0; r < n; ++r, x += k, grad += k) {
    const T w = weight ? weight[r] : T(1);
    const double alpha = alpha_of(p, r);
    if (target[r] < 0 || w == 0) {
      losses[r] = 0;
      fill(grad, k, T(0));
      continue;
    }
    const auto y = static_cast<size_t>(target[r]);
    if (alpha == 1)
      loss<Exponential<T>, T>(x, target + r, weight ? &w : nullptr, losses + r, grad, 1, k, p);
    else if (!row.of(x, k, beta, alpha))
      entmax_loss_limit(x, w, losses + r, grad, k, alpha, [y](auto&& each) { each(y, 1.0); });
    else
      entmax_loss_row(x, w, losses + r, grad, k, beta, alpha, row, [y](auto&& each) { each(y, 1.0); });
  }
}

template <class T>
void entmax_soft_loss(const T* x, const T* target, const T* weight, T* losses, T* grad, size_t n, size_t k,
                      const Parameters& p) {
  Projection row;
  const double beta = static_cast<double>(static_cast<T>(p.beta));
  for (size_t r = 0; r < n; ++r, x += k, grad += k, target += k) {
    const T w = weight ? weight[r] : T(1);
    const double alpha = alpha_of(p, r);
    const auto masses = [target, k](auto&& each) {
      for (size_t i = 0; i < k; ++i)
        if (target[i] != 0) each(i, static_cast<double>(target[i]));
    };
    if (w == 0) {
      losses[r] = 0;
      fill(grad, k, T(0));
    } else if (alpha == 1) {
      double negative = 0;  // of Shannon's entropy: the loss is 0 where p = q, as for every other alpha
      masses([&](size_t, double mass) { negative += mass * std::log(mass); });
      soft_loss<Exponential<T>, T>(x, target, weight ? &w : nullptr, losses + r, grad, 1, k, p);
      losses[r] = static_cast<T>(static_cast<double>(losses[r]) + negative * static_cast<double>(w));
    } else if (!row.of(x, k, beta, alpha)) {
      entmax_loss_limit(x, w, losses + r, grad, k, alpha, masses);
    } else {
      entmax_loss_row(x, w, losses + r, grad, k, beta, alpha, row, masses);
    }
  }
}

}  // namespace
