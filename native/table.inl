// The table of one instruction set: which kernel serves which shape.
#pragma once

#include <tuple>

#include "rows.inl"
#include "short_rows.inl"

namespace {

// The kernel for short rows where the rows are short.
template <auto kShort, auto kLong, class T, class... Rest>
void by_length(const T* x, Rest... rest) {
  const auto arguments = std::tuple(rest...);
  const size_t k = std::get<sizeof...(Rest) - 2>(arguments);
  (k <= kShortRow ? kShort : kLong)(x, rest...);
}

template <class T>
constexpr luce::RowKernels<T> row_kernels() {
  return {by_length<softmax_short<T>, softmax<T>>, by_length<log_softmax_short<T>, log_softmax<T>>,
          by_length<logsumexp_short<T>, logsumexp<T>>, by_length<cross_entropy_short<T>, cross_entropy<T>>,
          cross_entropy_soft<T>};
}

}  // namespace
