// A small pool of threads for splitting rows.
#pragma once

#include <cstddef>
#include <functional>

namespace luce {

// Call work(first, last) on ranges that together are [0, n), on up to n_threads threads, the caller's among
// them; ranges start at multiples of `multiple` where they are that long. What work throws is thrown to the
// caller. The pool serves one caller at a time: a second one meanwhile does its work alone. Safe after fork:
// the child makes its own threads when it first needs them.
void split_rows(std::size_t n, int n_threads, std::size_t multiple,
                const std::function<void(std::size_t, std::size_t)>& work);

}  // namespace luce
