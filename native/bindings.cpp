// Bindings and nothing else: Python has checked the arguments, the types here are the last guard.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "linear_curvature.hpp"
#include "linear_pass.hpp"
#include "threads.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class T>
using Rows = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Column = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Slabs = nb::ndarray<T, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

// Numbers for which a second thread is worth waking.
constexpr std::size_t kGrain = 1 << 15;
// Products for which it is, in a linear layer.
constexpr std::size_t kLinearGrain = 1 << 19;
// Rows that short-row kernels work on side by side, whatever the instruction set.
constexpr std::size_t kMultiple = 16;
// What threads share out among them where there are no rows: columns, single numbers.
constexpr std::size_t kTileColumns = 64;
constexpr std::size_t kPiece = 1 << 12;

const luce::Kernels* forced = nullptr;  // by tests only

const luce::Kernels& table() { return forced ? *forced : luce::kernels(); }

template <class T>
const luce::Table<T>& kernels_of() {
  if constexpr (sizeof(T) == sizeof(float))
    return table().f32;
  else
    return table().f64;
}

void expect(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(what);
}

template <class F>
void over(std::size_t units, std::size_t numbers, int n_threads, const F& work) {
  nb::gil_scoped_release unlocked;
  luce::split_rows(units, numbers < 2 * kGrain ? 1 : n_threads, kMultiple, work);
}

using Target = std::optional<Column<const std::int64_t>>;
using Shapes = std::optional<Column<const double>>;

// The parameters for the rows from `first` on.
luce::Parameters from_row(luce::Parameters p, std::size_t first) {
  if (p.shapes) p.shapes += first;
  return p;
}

void expect_classes(const std::int64_t* target, std::size_t n, std::size_t k) {
  for (std::size_t i = 0; i < n; ++i)
    expect(target[i] < static_cast<std::int64_t>(k), "a target is not below the number of classes");
}

// A kernel from rows (n, k) to rows, or to one number for each (`per_row` = 1).
template <class T, class Out>
void run_map(typename luce::MemberKernels<T>::Map kernel, const Rows<const T>& x, const Out& out,
             std::size_t per_row, const Target& target, const Shapes& shapes, luce::Parameters p,
             int n_threads) {
  const std::size_t n = x.shape(0), k = x.shape(1);
  expect(!target || target->shape(0) == n, "target must have one entry for each row");
  expect(!shapes || shapes->shape(0) == n, "shapes must have one entry for each row");
  const std::int64_t* y = target ? target->data() : nullptr;
  if (y) expect_classes(y, n, k);
  p.shapes = shapes ? shapes->data() : nullptr;
  over(n, n * k, n_threads, [&](std::size_t first, std::size_t last) {
    kernel(x.data() + first * k, y ? y + first : nullptr, out.data() + first * per_row, last - first, k,
           from_row(p, first));
  });
}

template <class T>
void bind_map(nb::module_& m, const char* name, luce::MemberKernels<T> luce::Table<T>::* member,
              typename luce::MemberKernels<T>::Map luce::MemberKernels<T>::* map,
              typename luce::MemberKernels<T>::Columns luce::MemberKernels<T>::* columns) {
  m.def(
      name,
      [member, map](Rows<const T> x, Rows<T> out, double beta, int n_threads, double shape, double margin,
                    Target target, Shapes shapes) {
        expect(out.shape(0) == x.shape(0) && out.shape(1) == x.shape(1), "out must have the shape of x");
        run_map<T>(kernels_of<T>().*member.*map, x, out, x.shape(1), target, shapes,
                   {beta, shape, margin, nullptr, x.size()}, n_threads);
      },
      "x"_a.noconvert(), "out"_a.noconvert(), "beta"_a = 1, "n_threads"_a = 1, "shape"_a = 0, "margin"_a = 0,
      "target"_a.noconvert() = nb::none(), "shapes"_a.noconvert() = nb::none());
  m.def(
      name,
      [member, columns](Slabs<const T> x, Slabs<T> out, double beta, int n_threads, double shape) {
        const std::size_t slabs = x.shape(0), k = x.shape(1), stride = x.shape(2);
        expect(out.shape(0) == slabs && out.shape(1) == k && out.shape(2) == stride,
               "out must have the shape of x");
        const auto kernel = kernels_of<T>().*member.*columns;
        const luce::Parameters p{beta, shape, 0, nullptr, x.size()};
        const std::size_t tiles = (stride + kTileColumns - 1) / kTileColumns;
        over(slabs * tiles, slabs * k * stride, n_threads, [&](std::size_t first, std::size_t last) {
          while (first < last) {
            const std::size_t slab = first / tiles, end = std::min(last, (slab + 1) * tiles);
            kernel(x.data() + slab * k * stride, out.data() + slab * k * stride, k, stride,
                   (first - slab * tiles) * kTileColumns,
                   std::min(stride, (end - slab * tiles) * kTileColumns), p);
            first = end;
          }
        });
      },
      "x"_a.noconvert(), "out"_a.noconvert(), "beta"_a = 1, "n_threads"_a = 1, "shape"_a = 0);
}

template <class T, class Y, class Kernel>
void run_loss(Kernel kernel, const Rows<const T>& x, const Y* target, std::size_t per_row,
              const Column<T>& loss, const Rows<T>& grad, const std::optional<Column<const T>>& weight,
              luce::Parameters p, const Shapes& shapes, int n_threads) {
  const std::size_t n = x.shape(0), k = x.shape(1);
  expect(loss.shape(0) == n, "loss must have one entry for each row");
  expect(grad.shape(0) == n && grad.shape(1) == k, "grad must have the shape of x");
  expect(!weight || weight->shape(0) == n, "weight must have one entry for each row");
  expect(!shapes || shapes->shape(0) == n, "shapes must have one entry for each row");
  p.shapes = shapes ? shapes->data() : nullptr;
  const T* w = weight ? weight->data() : nullptr;
  over(n, n * k, n_threads, [&](std::size_t first, std::size_t last) {
    kernel(x.data() + first * k, target + first * per_row, w ? w + first : nullptr, loss.data() + first,
           grad.data() + first * k, last - first, k, from_row(p, first));
  });
}

template <class T, class Get>
void bind_soft_loss(nb::module_& m, const char* name, Get kernel) {
  m.def(
      name,
      [kernel](Rows<const T> x, Rows<const T> target, Column<T> loss, Rows<T> grad,
               std::optional<Column<const T>> weight, double beta, int n_threads, double shape, double margin,
               Shapes shapes) {
        const std::size_t n = x.shape(0), k = x.shape(1);
        expect(target.shape(0) == n && target.shape(1) == k, "target must have the shape of x");
        run_loss<T>(kernel(), x, target.data(), k, loss, grad, weight,
                    {beta, shape, margin, nullptr, x.size()}, shapes, n_threads);
      },
      "x"_a.noconvert(), "target"_a.noconvert(), "loss"_a.noconvert(), "grad"_a.noconvert(),
      "weight"_a.noconvert() = nb::none(), "beta"_a = 1, "n_threads"_a = 1, "shape"_a = 0, "margin"_a = 0,
      "shapes"_a.noconvert() = nb::none());
}

// The loss of a member: for class ids, and under the same name for distributions.
template <class T>
void bind_loss(nb::module_& m, const char* name, luce::MemberKernels<T> luce::Table<T>::* member) {
  m.def(
      name,
      [member](Rows<const T> x, Column<const std::int64_t> target, Column<T> loss, Rows<T> grad,
               std::optional<Column<const T>> weight, double beta, int n_threads, double shape, double margin,
               Shapes shapes) {
        expect(target.shape(0) == x.shape(0), "target must have one entry for each row");
        expect_classes(target.data(), x.shape(0), x.shape(1));
        run_loss<T>((kernels_of<T>().*member).loss, x, target.data(), 1, loss, grad, weight,
                    {beta, shape, margin, nullptr, x.size()}, shapes, n_threads);
      },
      "x"_a.noconvert(), "target"_a.noconvert(), "loss"_a.noconvert(), "grad"_a.noconvert(),
      "weight"_a.noconvert() = nb::none(), "beta"_a = 1, "n_threads"_a = 1, "shape"_a = 0, "margin"_a = 0,
      "shapes"_a.noconvert() = nb::none());
  bind_soft_loss<T>(m, name, [member] { return (kernels_of<T>().*member).soft_loss; });
}

template <class T, class Get>
void bind_elementwise(nb::module_& m, const char* name, Get kernel) {
  m.def(
      name,
      [kernel](Column<const T> x, Column<T> out, double beta, int n_threads) {
        const std::size_t n = x.shape(0);
        expect(out.shape(0) == n, "out must have the shape of x");
        const luce::Parameters p{beta, 0, 0, nullptr, x.size()};
        over((n + kPiece - 1) / kPiece, n, n_threads, [&](std::size_t first, std::size_t last) {
          const std::size_t from = first * kPiece;
          kernel()(x.data() + from, out.data() + from, std::min(n, last * kPiece) - from, p);
        });
      },
      "x"_a.noconvert(), "out"_a.noconvert(), "beta"_a = 1, "n_threads"_a = 1);
}

template <class T>
void bind_family(nb::module_& m) {
  using Table = luce::Table<T>;
  using Member = luce::MemberKernels<T>;
  bind_map<T>(m, "softmax", &Table::softmax, &Member::probabilities, &Member::columns);
  bind_map<T>(m, "taylor", &Table::taylor, &Member::probabilities, &Member::columns);
  bind_map<T>(m, "spherical", &Table::spherical, &Member::probabilities, &Member::columns);
  bind_map<T>(m, "entmax", &Table::entmax, &Member::probabilities, &Member::columns);
  bind_map<T>(m, "log_softmax", &Table::softmax, &Member::log_probabilities, &Member::log_columns);
  bind_map<T>(m, "log_taylor", &Table::taylor, &Member::log_probabilities, &Member::log_columns);
  bind_map<T>(m, "log_spherical", &Table::spherical, &Member::log_probabilities, &Member::log_columns);
  m.def(
      "logsumexp",
      [](Rows<const T> x, Column<T> out, double beta, int n_threads) {
        expect(out.shape(0) == x.shape(0), "out must have one entry for each row");
        run_map<T>(kernels_of<T>().logsumexp, x, out, 1, {}, {}, {beta, 0, 0, nullptr, x.size()}, n_threads);
      },
      "x"_a.noconvert(), "out"_a.noconvert(), "beta"_a = 1, "n_threads"_a = 1);
  bind_loss<T>(m, "softmax_loss", &Table::softmax);
  bind_loss<T>(m, "taylor_loss", &Table::taylor);
  bind_loss<T>(m, "spherical_loss", &Table::spherical);
  bind_loss<T>(m, "entmax_loss", &Table::entmax);
  bind_soft_loss<T>(m, "sigmoid_loss", [] { return kernels_of<T>().sigmoid_loss; });
  bind_elementwise<T>(m, "sigmoid", [] { return kernels_of<T>().sigmoid; });
  bind_elementwise<T>(m, "log_sigmoid", [] { return kernels_of<T>().log_sigmoid; });
}

template <class T, class X>
luce::LinearRows<T, X> linear_rows(const Rows<const X>& x, const Column<const T>& center, std::size_t m) {
  expect(center.shape(0) == x.shape(1), "center must have the columns of x");
  return {x.data(), x.shape(0), x.shape(1), m, center.data()};
}

template <class T>
luce::LinearMap<T> linear_map(const Rows<const T>& matrix, const Column<const T>& offset, std::size_t d) {
  const std::size_t m = matrix.shape(0);
  expect(matrix.shape(1) == d, "matrix must have the columns of x");
  expect(offset.shape(0) == m && m > 0, "offset must have one entry for each row of matrix");
  return {matrix.data(), offset.data(), m};
}

template <class T>
luce::RowLoss<T> row_loss(int member, const Target& classes,
                          const std::optional<Rows<const T>>& distributions, const Rows<const T>& weight,
                          std::size_t n, std::size_t problems, std::size_t k, luce::Parameters p) {
  using Table = luce::Table<T>;
  constexpr luce::MemberKernels<T> Table::* members[] = {&Table::softmax, &Table::taylor, &Table::spherical,
                                                         &Table::entmax};
  const Table& table = kernels_of<T>();
  expect(weight.shape(0) == n && weight.shape(1) == problems && problems > 0,
         "weight must have shape (n, B)");
  expect(member >= 0 && member <= 4, "no such loss");
  expect(classes.has_value() != distributions.has_value(), "either classes or distributions");
  luce::RowLoss<T> loss{
      .weight = weight.data(), .problems = problems, .parameters = p, .shifts = member == 0 || member == 3};
  if (classes) {
    expect(member < 4 && classes->shape(0) == n, "classes must have one entry for each row");
    expect_classes(classes->data(), n, k);
    loss.classes = classes->data();
    loss.by_class = (table.*members[member]).loss;
  } else {
    expect(distributions->shape(0) == n && distributions->shape(1) == k,
           "distributions must have shape (n, k)");
    loss.distributions = distributions->data();
    loss.by_distribution = member < 4 ? (table.*members[member]).soft_loss : table.sigmoid_loss;
  }
  return loss;
}

template <class T, class X>
void bind_linear(nb::module_& m) {
  m.def(
      "linear_pass",
      [](Rows<const X> x, Column<const T> center, Rows<const double> points,
         std::optional<Column<const double>> unit, Column<const double> strength, Target classes,
         std::optional<Rows<const T>> distributions, Rows<const T> weight, Column<double> value,
         Rows<double> grad, int member, double beta, double shape, double margin, int n_threads) {
        const std::size_t d = x.shape(1), problems = points.shape(0), size = points.shape(1);
        expect(size > 0 && size % (d + 1) == 0, "points must have shape (B, k d + k)");
        const std::size_t k = size / (d + 1);
        const auto rows = linear_rows<T, X>(x, center, problems * k);
        const auto row = row_loss<T>(member, classes, distributions, weight, rows.n, problems, k,
                                     {beta, shape, margin, nullptr, 0});
        expect(!unit || unit->shape(0) == d, "unit must have the columns of x");
        expect(strength.shape(0) == problems && value.shape(0) == problems && grad.shape(0) == problems &&
                   grad.shape(1) == size,
               "strength and value must have shape (B), grad that of points");
        const luce::LinearMap<double> map{points.data(), points.data() + k * d, k, size,
                                          unit ? unit->data() : nullptr};
        nb::gil_scoped_release unlocked;
        luce::linear_pass(kernels_of<T>(), rows, map, row, strength.data(), value.data(), grad.data(),
                          rows.n * rows.d * rows.m < kLinearGrain ? 1 : n_threads);
      },
      "x"_a.noconvert(), "center"_a.noconvert(), "points"_a.noconvert(), "unit"_a.noconvert().none(),
      "strength"_a.noconvert(), "classes"_a.noconvert().none(), "distributions"_a.noconvert().none(),
      "weight"_a.noconvert(), "value"_a.noconvert(), "grad"_a.noconvert(), "member"_a, "beta"_a, "shape"_a,
      "margin"_a, "n_threads"_a);
  m.def(
      "linear_logits",
      [](Rows<const X> x, Column<const T> center, Rows<const T> matrix, Column<const T> offset, Rows<T> out,
         int n_threads) {
        const auto rows = linear_rows<T, X>(x, center, matrix.shape(0));
        const auto map = linear_map<T>(matrix, offset, rows.d);
        expect(out.shape(0) == rows.n && out.shape(1) == rows.m, "out must have shape (n, m)");
        nb::gil_scoped_release unlocked;
        luce::linear_logits(kernels_of<T>(), rows, map, out.data(),
                            rows.n * rows.d * rows.m < kLinearGrain ? 1 : n_threads);
      },
      "x"_a.noconvert(), "center"_a.noconvert(), "matrix"_a.noconvert(), "offset"_a.noconvert(),
      "out"_a.noconvert(), "n_threads"_a);
  m.def(
      "linear_curvature",
      [](Rows<const X> x, Column<const T> center, Rows<const T> matrix, Column<const T> offset,
         Rows<const T> weight, int member, double beta, double shape, std::size_t step, Rows<double> sums,
         int n_threads) {
        const auto rows = linear_rows<T, X>(x, center, matrix.shape(0));
        const auto map = linear_map<T>(matrix, offset, rows.d);
        const std::size_t problems = weight.shape(1);
        expect(weight.shape(0) == rows.n && problems > 0 && rows.m % problems == 0,
               "weight must have shape (n, B), B k rows");
        const std::size_t k = rows.m / problems;
        expect(sums.shape(0) == problems && sums.shape(1) == k * k + rows.d + 2,
               "sums must have shape (B, k k + d + 2)");
        expect(member >= 0 && member <= 4 && step > 0, "no such loss, or no such step");
        const auto form = member == 4   ? luce::Bend::sigmoid
                          : member == 3 ? luce::Bend::entmax
                                        : luce::Bend::softmax;
        nb::gil_scoped_release unlocked;
        luce::linear_curvature(kernels_of<T>(), rows, map, weight.data(), problems, step, form, beta, shape,
                               sums.data(), rows.n / step * rows.d * rows.m < kLinearGrain ? 1 : n_threads);
      },
      "x"_a.noconvert(), "center"_a.noconvert(), "matrix"_a.noconvert(), "offset"_a.noconvert(),
      "weight"_a.noconvert(), "member"_a, "beta"_a, "shape"_a, "step"_a, "sums"_a.noconvert(), "n_threads"_a);
  m.def(
      "linear_moments",
      [](Rows<const X> x, Column<const T> center, Column<const T> weight, Column<double> first,
         Column<double> second, int n_threads) {
        const std::size_t n = x.shape(0), d = x.shape(1);
        expect(first.shape(0) == d && second.shape(0) == d, "one entry for each column");
        expect(weight.shape(0) == n, "weight must have one entry for each row");
        const auto rows = linear_rows<T, X>(x, center, 0);
        nb::gil_scoped_release unlocked;
        luce::linear_moments(kernels_of<T>(), rows, weight.data(), first.data(), second.data(),
                             n * d < kLinearGrain ? 1 : n_threads);
      },
      "x"_a.noconvert(), "center"_a.noconvert(), "weight"_a.noconvert(), "first"_a.noconvert(),
      "second"_a.noconvert(), "n_threads"_a);
}

using Pairs = nb::ndarray<double, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Places = Column<const std::int64_t>;

// Views of each problem's part of pairs (3, B, most, n) and products (2, B, most, most).
class LbfgsMemory {
 public:
  LbfgsMemory(const Pairs& pairs, const Pairs& products, const Column<double>& scale, const Places& count,
              const Places& newest)
      : problems_(pairs.shape(1)),
        pairs_(pairs.data()),
        products_(products.data()),
        scale_(scale.data()),
        count_(count.data()),
        newest_(newest.data()) {
    const std::size_t most = pairs.shape(2), n = pairs.shape(3);
    expect(pairs.shape(0) == 3 && products.shape(0) == 2 && products.shape(1) == problems_ &&
               products.shape(2) == most && products.shape(3) == most && scale.shape(0) == problems_,
           "pairs must have shape (3, B, most, n), products (2, B, most, most), scale (B)");
    expect(count.shape(0) == problems_ && newest.shape(0) == problems_,
           "count and newest must have shape (B)");
    for (std::size_t b = 0; b < problems_; ++b) {
      const auto taken = static_cast<std::size_t>(count_[b]), last = static_cast<std::size_t>(newest_[b]);
      expect(taken <= most && (taken == 0 || last < taken) && (taken == most || last + 1 >= taken),
             "newest must be one of the places that are taken, the last while there are free ones");
    }
    shape_.n = n;
    shape_.most = most;
  }
  std::size_t most() const { return shape_.most; }
  void expect_rows(std::initializer_list<const Rows<const double>*> all) const {
    for (const auto* rows : all)
      expect(rows->shape(0) == problems_ && rows->shape(1) == shape_.n, "vectors must have shape (B, n)");
  }
  // Call work(pairs, first number of its vectors) for each problem, where a number is read `times` times.
  template <class F>
  void each(std::size_t times, int n_threads, const F& work) const {
    over(problems_, problems_ * shape_.most * shape_.n * times, n_threads,
         [&](std::size_t first, std::size_t last) {
           for (std::size_t b = first; b < last; ++b) work(of(b), b);
         });
  }

 private:
  luce::LbfgsPairs of(std::size_t b) const {
    const std::size_t size = shape_.most * shape_.n, square = shape_.most * shape_.most;
    luce::LbfgsPairs p = shape_;
    p.steps = pairs_ + b * size;
    p.changes = p.steps + problems_ * size;
    p.turned = p.changes + problems_ * size;
    p.along = products_ + b * square;
    p.lengths = p.along + problems_ * square;
    p.scale = scale_ + b;
    p.count = static_cast<std::size_t>(count_[b]);
    p.newest = static_cast<std::size_t>(newest_[b]);
    return p;
  }
  std::size_t problems_;
  double *pairs_, *products_, *scale_;
  const std::int64_t *count_, *newest_;
  luce::LbfgsPairs shape_{};  // without the arrays
};

void bind_lbfgs(nb::module_& m) {
  using Vectors = Rows<const double>;
  m.def(
      "lbfgs_add",
      [](Pairs pairs, Pairs products, Column<double> scale, Places count, Places newest,
         Column<const bool> moved, Vectors step, Vectors before, Vectors after, Vectors turned_before,
         Vectors turned_after, int n_threads) {
        const LbfgsMemory memory(pairs, products, scale, count, newest);
        memory.expect_rows({&step, &before, &after, &turned_before, &turned_after});
        expect(moved.shape(0) == step.shape(0), "moved must have shape (B)");
        for (std::size_t b = 0; b < step.shape(0); ++b)
          expect(!moved.data()[b] || count.data()[b] > 0, "no place");
        memory.each(2, n_threads, [&](const luce::LbfgsPairs& p, std::size_t b) {
          const std::size_t at = b * p.n;
          if (!moved.data()[b]) return;
          table().lbfgs.add(p, step.data() + at, before.data() + at, after.data() + at,
                            turned_before.data() + at, turned_after.data() + at);
        });
      },
      "pairs"_a.noconvert(), "products"_a.noconvert(), "scale"_a.noconvert(), "count"_a.noconvert(),
      "newest"_a.noconvert(), "moved"_a.noconvert(), "step"_a.noconvert(), "before"_a.noconvert(),
      "after"_a.noconvert(), "turned_before"_a.noconvert(), "turned_after"_a.noconvert(), "n_threads"_a);
  m.def(
      "lbfgs_direction",
      [](Pairs pairs, Pairs products, Column<double> scale, Places count, Places newest, Vectors grad,
         Vectors turned_grad, Rows<double> out, int n_threads) {
        const LbfgsMemory memory(pairs, products, scale, count, newest);
        const Vectors result(out);
        memory.expect_rows({&grad, &turned_grad, &result});
        memory.each(4, n_threads, [&](const luce::LbfgsPairs& p, std::size_t b) {
          const std::size_t at = b * p.n;
          std::vector<double> scratch(4 * memory.most());
          table().lbfgs.direction(p, grad.data() + at, turned_grad.data() + at, out.data() + at,
                                  scratch.data());
        });
      },
      "pairs"_a.noconvert(), "products"_a.noconvert(), "scale"_a.noconvert(), "count"_a.noconvert(),
      "newest"_a.noconvert(), "grad"_a.noconvert(), "turned_grad"_a.noconvert(), "out"_a.noconvert(),
      "n_threads"_a);
  m.def(
      "lbfgs_metric",
      [](Vectors vectors, Slabs<const double> classes, Slabs<const double> gain,
         std::optional<Slabs<const double>> roots, Vectors bias_divisor, Vectors mean,
         Slabs<const double> grads, Slabs<double> out, int n_threads) {
        const std::size_t n = gain.shape(0), k = gain.shape(1), r = gain.shape(2), d = vectors.shape(1),
                          count = grads.shape(1), size = k * (d + 1);
        expect(vectors.shape(0) == r && classes.shape(0) == n && classes.shape(1) == k &&
                   classes.shape(2) == k && bias_divisor.shape(0) == n && bias_divisor.shape(1) == k &&
                   mean.shape(0) == n && mean.shape(1) == d,
               "vectors must have shape (r, d), classes (B, k, k), gain (B, k, r), bias_divisor (B, k), mean "
               "(B, d)");
        expect(!roots || (roots->shape(0) == n && roots->shape(1) == k && roots->shape(2) == d),
               "roots must have shape (B, k, d)");
        expect(grads.shape(0) == n && grads.shape(2) == size && out.shape(0) == n && out.shape(1) == count &&
                   out.shape(2) == size,
               "grads and out must have shape (B, M, k d + k)");
        over(n * count, n * count * size * (2 * k + 4 * r), n_threads,
             [&](std::size_t first, std::size_t last) {
               std::vector<double> scratch(luce::LbfgsMetric{{}, {}, {}, {}, {}, {}, k, d, r}.scratch());
               for (std::size_t i = first; i < last; ++i) {
                 const std::size_t b = i / count;
                 const luce::LbfgsMetric metric{vectors.data(),
                                                classes.data() + b * k * k,
                                                gain.data() + b * k * r,
                                                roots ? roots->data() + b * k * d : nullptr,
                                                bias_divisor.data() + b * k,
                                                mean.data() + b * d,
                                                k,
                                                d,
                                                r};
                 table().lbfgs.metric(metric, grads.data() + i * size, out.data() + i * size, scratch.data());
               }
             });
      },
      "vectors"_a.noconvert(), "classes"_a.noconvert(), "gain"_a.noconvert(), "roots"_a.noconvert().none(),
      "bias_divisor"_a.noconvert(), "mean"_a.noconvert(), "grads"_a.noconvert(), "out"_a.noconvert(),
      "n_threads"_a);
}

// A contiguous NumPy array of float32 or float64 seen through the buffer protocol, which takes a fraction of
// the time of an nb::ndarray.
class View {
 public:
  View(PyObject* object, bool writable) {
    const int flags = PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0);
    open_ = PyObject_GetBuffer(object, &buffer_, flags) == 0;
    if (!open_) PyErr_Clear();
  }
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  ~View() {
    if (open_) PyBuffer_Release(&buffer_);
  }
  bool open() const { return open_; }
  char format() const {
    const char* f = buffer_.format;
    return f && (*f == 'f' || *f == 'd') && f[1] == 0 ? *f : 0;
  }
  const Py_buffer& operator*() const { return buffer_; }

 private:
  Py_buffer buffer_;
  bool open_;
};

// Numbers up to which a call takes the short way.
constexpr Py_ssize_t kSmall = 1 << 14;

template <class T>
void run_small(int member, bool log, const Py_buffer& x, void* out, double temperature, double shape) {
  using Member = luce::MemberKernels<T>;
  constexpr Member luce::Table<T>::* members[] = {&luce::Table<T>::softmax, &luce::Table<T>::taylor,
                                                  &luce::Table<T>::spherical, &luce::Table<T>::entmax};
  const Member& kernels = kernels_of<T>().*members[member];
  const auto k = static_cast<std::size_t>(x.shape[x.ndim - 1]);
  const luce::Parameters p{1 / temperature, shape, 0, nullptr, 0};
  (log ? kernels.log_probabilities : kernels.probabilities)(
      static_cast<const T*>(x.buf), nullptr, static_cast<T*>(out),
      static_cast<std::size_t>(x.len) / sizeof(T) / k, k, p);
}

// A member's map on a small array with the classes last, on the caller's thread and without giving up the
// GIL; None for everything that needs care, of which `luce.arrays` takes it.
nb::object small(int member, bool log, nb::handle x, nb::handle out, double temperature, double shape) {
  static PyObject* const numpy = PyImport_ImportModule("numpy");
  static PyObject* const array_type = PyObject_GetAttrString(numpy, "ndarray");
  static PyObject* const empty_like = PyObject_GetAttrString(numpy, "empty_like");
  const auto is_array = [](nb::handle h) {
    return reinterpret_cast<PyObject*>(Py_TYPE(h.ptr())) == array_type;
  };
  if (!is_array(x) || !(temperature > 1e-30 && temperature < 1e30)) return nb::none();
  const View from(x.ptr(), out.is(x));
  if (!from.open() || from.format() == 0 || (*from).ndim == 0 || (*from).len == 0 ||
      (*from).len / (*from).itemsize > kSmall)
    return nb::none();
  nb::object result;
  if (out.is_none())
    result = nb::steal(PyObject_CallOneArg(empty_like, x.ptr()));
  else if (is_array(out))
    result = nb::borrow(out);
  else
    return nb::none();
  if (!result.is_valid()) throw nb::python_error();  // no memory
  const View to(result.ptr(), true);
  if (!to.open() || to.format() != from.format() || (*to).ndim != (*from).ndim ||
      !std::equal((*to).shape, (*to).shape + (*to).ndim, (*from).shape))
    return nb::none();
  const auto a = reinterpret_cast<std::uintptr_t>((*from).buf),
             b = reinterpret_cast<std::uintptr_t>((*to).buf);
  const auto length = static_cast<std::uintptr_t>((*from).len),
             item = static_cast<std::uintptr_t>((*from).itemsize);
  if ((a != b && a < b + length && b < a + length) || (a | b) % item != 0) return nb::none();
  if (from.format() == 'f')
    run_small<float>(member, log, *from, (*to).buf, temperature, shape);
  else
    run_small<double>(member, log, *from, (*to).buf, temperature, shape);
  return result;
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "The kernels of Luce. Use the functions of `luce`, which check their arguments.";
  table();  // a wrong LUCE_ISA fails here, at import
  bind_family<float>(m);
  bind_family<double>(m);
  bind_linear<float, std::uint8_t>(m);
  bind_linear<float, float>(m);
  bind_linear<float, double>(m);
  bind_linear<double, std::uint8_t>(m);
  bind_linear<double, float>(m);
  bind_linear<double, double>(m);
  bind_lbfgs(m);
  m.def("small", small, "member"_a, "log"_a, "x"_a, "out"_a.none(), "temperature"_a, "shape"_a);
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
