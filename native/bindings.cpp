// Bindings and nothing else: Python has checked the arguments, the types here are the last guard.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "threads.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class T>
using Rows = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Column = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Numbers for which a second thread is worth waking.
constexpr std::size_t kGrain = 1 << 15;

const luce::Kernels* forced = nullptr;  // by tests only

const luce::Kernels& table() { return forced ? *forced : luce::kernels(); }

template <class T>
const luce::RowKernels<T>& row_kernels() {
  if constexpr (sizeof(T) == sizeof(float))
    return table().f32;
  else
    return table().f64;
}

void expect(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(what);
}

template <class F>
void over_rows(std::size_t n, std::size_t k, int n_threads, const F& work) {
  nb::gil_scoped_release unlocked;
  luce::split_rows(n, n * k < 2 * kGrain ? 1 : n_threads, work);
}

template <class T>
void bind_maps(nb::module_& m) {
  using Map = void (*)(const T*, T*, std::size_t, std::size_t, T);
  const auto bind = [&m](const char* name, Map luce::RowKernels<T>::* kernel) {
    m.def(
        name,
        [kernel](Rows<const T> x, Rows<T> out, T beta, int n_threads) {
          const std::size_t n = x.shape(0), k = x.shape(1);
          expect(out.shape(0) == n && out.shape(1) == k, "out must have the shape of x");
          const Map map = row_kernels<T>().*kernel;
          over_rows(n, k, n_threads, [&](std::size_t first, std::size_t last) {
            map(x.data() + first * k, out.data() + first * k, last - first, k, beta);
          });
        },
        "x"_a.noconvert(), "out"_a.noconvert(), "beta"_a = 1, "n_threads"_a = 1);
  };
  bind("softmax", &luce::RowKernels<T>::softmax);
  bind("log_softmax", &luce::RowKernels<T>::log_softmax);
  m.def(
      "logsumexp",
      [](Rows<const T> x, Column<T> out, T beta, int n_threads) {
        const std::size_t n = x.shape(0), k = x.shape(1);
        expect(out.shape(0) == n, "out must have one entry for each row");
        const auto reduce = row_kernels<T>().logsumexp;
        over_rows(n, k, n_threads, [&](std::size_t first, std::size_t last) {
          reduce(x.data() + first * k, out.data() + first, last - first, k, beta);
        });
      },
      "x"_a.noconvert(), "out"_a.noconvert(), "beta"_a = 1, "n_threads"_a = 1);
}

template <class T, class Target, class Kernel>
void run_loss(Kernel kernel, const Rows<const T>& x, const Target* target, std::size_t per_row,
              const Column<T>& loss, const Rows<T>& grad, const std::optional<Column<const T>>& weight,
              T beta, int n_threads) {
  const std::size_t n = x.shape(0), k = x.shape(1);
  expect(loss.shape(0) == n, "loss must have one entry for each row");
  expect(grad.shape(0) == n && grad.shape(1) == k, "grad must have the shape of x");
  expect(!weight || weight->shape(0) == n, "weight must have one entry for each row");
  const T* w = weight ? weight->data() : nullptr;
  over_rows(n, k, n_threads, [&](std::size_t first, std::size_t last) {
    kernel(x.data() + first * k, target + first * per_row, w ? w + first : nullptr, loss.data() + first,
           grad.data() + first * k, last - first, k, beta);
  });
}

template <class T>
void bind_losses(nb::module_& m) {
  m.def(
      "cross_entropy",
      [](Rows<const T> x, Column<const std::int64_t> target, Column<T> loss, Rows<T> grad,
         std::optional<Column<const T>> weight, T beta, int n_threads) {
        const std::size_t n = x.shape(0);
        expect(target.shape(0) == n, "target must have one entry for each row");
        const auto k = static_cast<std::int64_t>(x.shape(1));
        for (std::size_t i = 0; i < n; ++i)
          expect(target.data()[i] < k, "a target is not below the number of classes");
        run_loss<T>(row_kernels<T>().cross_entropy, x, target.data(), 1, loss, grad, weight, beta, n_threads);
      },
      "x"_a.noconvert(), "target"_a.noconvert(), "loss"_a.noconvert(), "grad"_a.noconvert(),
      "weight"_a.noconvert() = nb::none(), "beta"_a = 1, "n_threads"_a = 1);
  m.def(
      "cross_entropy_soft",
      [](Rows<const T> x, Rows<const T> target, Column<T> loss, Rows<T> grad,
         std::optional<Column<const T>> weight, T beta, int n_threads) {
        const std::size_t n = x.shape(0), k = x.shape(1);
        expect(target.shape(0) == n && target.shape(1) == k, "target must have the shape of x");
        run_loss<T>(row_kernels<T>().cross_entropy_soft, x, target.data(), k, loss, grad, weight, beta,
                    n_threads);
      },
      "x"_a.noconvert(), "target"_a.noconvert(), "loss"_a.noconvert(), "grad"_a.noconvert(),
      "weight"_a.noconvert() = nb::none(), "beta"_a = 1, "n_threads"_a = 1);
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "The kernels of Luce. Use the functions of `luce`, which check their arguments.";
  table();  // a wrong LUCE_ISA fails here, at import
  bind_maps<float>(m);
  bind_maps<double>(m);
  bind_losses<float>(m);
  bind_losses<double>(m);
  m.def("instruction_set", [] { return std::string(table().name); });
  m.def("instruction_sets", [] {
    std::size_t count = 0;
    const luce::Kernels* const* list = luce::available(&count);
    std::vector<std::string> names;
    for (std::size_t i = 0; i < count; ++i) names.emplace_back(list[i]->name);
    return names;
  });
  m.def("force_instruction_set", [](const std::string& name) {
    std::size_t count = 0;
    const luce::Kernels* const* list = luce::available(&count);
    for (std::size_t i = 0; i < count; ++i) {
      if (name == list[i]->name) {
        forced = list[i];
        return;
      }
    }
    throw std::invalid_argument("this machine does not run '" + name + "'");
  });
}
