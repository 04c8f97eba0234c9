"""The gate under fuzz: every function on arrays of any layout, with any `out` and mask, and on what is no argument.

A layout never changes a result: where the classes lie side by side it is that of a fresh copy to the bit, elsewhere
within a few units of the last place, since other kernels serve other strides.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import luce
from luce.links import LINKS

Array = NDArray[Any]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(name) for name in ("f2", "<f4", ">f4", "<f8", ">f8")] + [BFLOAT16]
DTYPES = [*FLOATS, *(np.dtype(name) for name in ("i1", "u2", ">i4", "i8"))]
FEW = settings(deadline=None, max_examples=25)

# Functions of an array along an axis: those that give as many numbers as they take, and those that take the axis away.
MAPS: dict[str, Callable[..., Any]] = {
    name: getattr(luce, name)
    for name in (
        "softmax", "log_softmax", "taylor_softmax", "spherical_softmax", "sparsemax", "entmax15", "entmax",
        "pseudo_softmax", "boltzmann", "normalize",
    )
} | {
    "gumbel_softmax": functools.partial(luce.gumbel_softmax, rng=0),
    "entmax with alphas": lambda x, axis=-1, **o: luce.entmax(x, axis, alpha=np.full((1,) * x.ndim, 1.5), **o),
    "soft_margin_softmax": lambda x, axis=-1, **o: luce.soft_margin_softmax(x, axis, target=_first(x, axis), **o),
    "sm_taylor_softmax": lambda x, axis=-1, **o: luce.sm_taylor_softmax(x, axis, target=_first(x, axis), **o),
}  # fmt: skip


def _without_axis(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, axis=-1, **options: function(x, **options)


EACH: dict[str, Callable[..., Any]] = {
    name: _without_axis(getattr(luce, name)) for name in ("sigmoid", "log_sigmoid", "tanh", "relu")
}
REDUCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(luce, name) for name in ("logsumexp", "mellowmax", "boltzmann_mean")
}
OTHERS: dict[str, Callable[..., Any]] = {
    "softmax_covariance": luce.softmax_covariance,
    "softmax_vjp": lambda x, axis=-1: luce.softmax_vjp(x, x, axis),
    "entmax_slope": luce.entmax_slope,
}
WITH_OUT = MAPS | EACH
ALL = WITH_OUT | REDUCTIONS | OTHERS


def _first(x: Array, axis: int) -> NDArray[np.int64]:
    return np.zeros([n for i, n in enumerate(x.shape) if i != axis % x.ndim], np.int64)


def values(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], seed: int) -> Array:
    """Numbers that suit a function, now and then a corner; none that only some functions have to stand."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-40, 40, shape) / 8
    if name == "normalize":
        x = np.abs(x) + 1
    elif dtype.kind not in "iu" and seed % 3 == 0:
        x = np.where(rng.random(shape) < 0.2, rng.choice([-np.inf, np.inf, np.nan, 0.0, 6e4, -6e4], shape), x)
    signed: Any = np.abs(x) if dtype.kind == "u" else x
    numbers: Array = signed.astype(dtype)
    return numbers


LAYOUTS = ("plain", "strided", "turned", "fortran", "misaligned", "broadcast")


def laid_out(draw: Any, x: Array, kinds: tuple[str, ...] = LAYOUTS) -> Array:
    """The same numbers in another layout; where an axis is broadcast, its first ones for all."""
    kind = draw(st.sampled_from(kinds))
    view: Array
    if kind == "strided" and x.ndim:
        cuts = tuple(draw(st.sampled_from([slice(None), slice(None, None, 2), slice(None, None, -2)])) for _ in x.shape)
        buffer = np.zeros([2 * n for n in x.shape], x.dtype)
        view = buffer[tuple(cuts)][tuple(slice(n) for n in x.shape)]
    elif kind == "turned":
        order = draw(st.permutations(range(x.ndim)))
        view = np.zeros([x.shape[i] for i in order], x.dtype).transpose(np.argsort(order))
    elif kind == "fortran":
        view = np.zeros(x.shape, x.dtype, order="F")
    elif kind == "misaligned":
        view = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    elif kind == "broadcast" and x.ndim and 0 not in x.shape:
        place = draw(st.integers(0, x.ndim - 1))
        view = np.broadcast_to(x.take([0], place), x.shape)
        return view
    else:
        view = np.zeros(x.shape, x.dtype)
    view[...] = x
    return view


@st.composite
def arrays(draw: Any, name: str) -> tuple[Array, int]:
    """An array that suits a function, in any layout, perhaps read-only; and one of its axes."""
    sizes = (1, 2, 3, 4, 19) if name in ("soft_margin_softmax", "sm_taylor_softmax") else (0, 1, 2, 3, 4, 19)
    shape = tuple(draw(st.lists(st.sampled_from(sizes), max_size=4)))
    shape = shape if np.prod(shape) < 3000 else shape[:2]
    x = laid_out(draw, values(name, shape, draw(st.sampled_from(DTYPES)), draw(st.integers(0, 2**32 - 1))))
    if draw(st.booleans()):
        x.flags.writeable = False
    return x, draw(st.integers(-max(x.ndim, 1), max(x.ndim, 1) - 1))


def fresh(x: Array) -> Array:
    """A contiguous copy in this machine's byte order."""
    copy: Array = np.array(x, x.dtype.newbyteorder("="), order="C", copy=True)
    return copy


def same(got: Any, expected: Any, *, bits: bool) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype.newbyteorder("=") == expected.dtype
    assert got.shape == expected.shape
    info: Any = ml_dtypes.finfo
    unit = float(info(expected.dtype).eps)
    tolerance = 0 if bits else 16 * unit
    np.testing.assert_allclose(got.astype(float), expected.astype(float), rtol=tolerance, atol=tolerance)


def side_by_side(x: Array, axis: int) -> bool:
    """Whether the classes come last for `x` and for its fresh copy alike, so that one kernel serves both."""
    return (axis % max(x.ndim, 1) == max(x.ndim, 1) - 1) and (x.flags.c_contiguous or not x.flags.f_contiguous)


@pytest.mark.parametrize("name", ALL)
def test_any_layout_gives_what_a_fresh_copy_gives(name: str) -> None:
    @FEW
    @given(drawn=arrays(name))
    def run(drawn: tuple[Array, int]) -> None:
        x, axis = drawn
        kept = fresh(x)
        expected = ALL[name](fresh(x), axis)
        same(ALL[name](x, axis), expected, bits=name in EACH or side_by_side(x, axis))
        np.testing.assert_array_equal(x.astype(float), kept.astype(float))

    run()


def surroundings(array: Array) -> Array:
    """The buffer an array is a view of, as bytes."""
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    return np.frombuffer(base, np.uint8) if base.flags.c_contiguous else np.frombuffer(base.T, np.uint8)


@pytest.mark.parametrize("name", WITH_OUT)
def test_any_out_gets_the_result_and_nothing_else_is_written(name: str) -> None:
    @FEW
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        x, axis = data.draw(arrays(name))
        expected = np.asarray(WITH_OUT[name](fresh(x), axis))
        swap = expected.dtype != BFLOAT16 and data.draw(st.booleans())
        place = np.zeros(x.shape, expected.dtype.newbyteorder(">") if swap else expected.dtype)
        out = laid_out(data.draw, place)
        if not out.flags.writeable:
            return
        before, kept = surroundings(out).copy(), fresh(x)
        assert WITH_OUT[name](x, axis, out=out) is out
        same(out, expected, bits=name in EACH or side_by_side(x, axis))
        np.testing.assert_array_equal(x.astype(float), kept.astype(float))
        out[...] = 0  # what is left must be what was there
        np.testing.assert_array_equal(surroundings(out), before)

    run()


def overlapping() -> Iterator[tuple[str, Array, Array]]:
    """Pairs of an array and an `out` in the same memory, in ways that are and are not each other."""
    for dtype in (np.float32, np.float64, np.float16, BFLOAT16):
        buffer = (np.random.default_rng(0).integers(1, 40, 200) / 8).astype(dtype)
        square = buffer[:36].reshape(6, 6)
        yield "itself", square, square
        yield "itself as a view", square, square[:]
        yield "turned", square, square.T
        yield "upside down", square, square[::-1]
        yield "back to front", square[:, ::-1], square
        yield "one further", buffer[:30].reshape(5, 6), buffer[1:31].reshape(5, 6)
        yield "one row further", buffer[6:36].reshape(5, 6), buffer[:30].reshape(5, 6)
        yield "every second of what is written", buffer[:60:2].reshape(5, 6), buffer[:30].reshape(5, 6)
        yield "every second of what is read", buffer[:30].reshape(5, 6), buffer[:60].reshape(5, 12)[:, ::2]
        yield "one row for all", np.broadcast_to(buffer[:6], (5, 6)), buffer[:30].reshape(5, 6)
        yield "a view of its own bytes", square, square.view(np.uint8).reshape(-1)[:].view(dtype).reshape(6, 6)
    floats = (np.random.default_rng(0).integers(1, 40, 72) / 8).astype(np.float32)
    yield "halves in the place of floats", floats[:36].reshape(6, 6), floats.view(np.float16)[:36].reshape(6, 6)


@pytest.mark.parametrize("name", WITH_OUT)
def test_an_out_that_overlaps_what_is_read(name: str) -> None:
    for _, x, out in overlapping():
        if not out.flags.writeable:
            continue
        for axis in (0, 1, -1):
            kept = surroundings(x).copy()
            options = {"dtype": np.float16} if x.dtype == np.float32 and out.dtype == np.float16 else {}
            expected = WITH_OUT[name](fresh(x), axis, **options)
            assert WITH_OUT[name](x, axis, out=out, **options) is out
            same(out, expected, bits=False)
            surroundings(x)[...] = kept


def test_a_vector_and_an_out_that_overlap() -> None:
    for _, x, out in overlapping():
        if x.dtype != out.dtype:
            continue
        kept = surroundings(x).copy()
        expected = luce.softmax_vjp(fresh(x), fresh(out))
        assert luce.softmax_vjp(x, out, out=out) is out
        same(out, expected, bits=False)
        surroundings(x)[...] = kept


@pytest.mark.parametrize("name", WITH_OUT | REDUCTIONS)
def test_any_mask_gives_what_a_full_one_gives(name: str) -> None:
    function = (WITH_OUT | REDUCTIONS)[name]

    @FEW
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        x, axis = data.draw(arrays(name))
        part = tuple(data.draw(st.sampled_from([1, n])) for n in x.shape)
        mask = np.random.default_rng(data.draw(st.integers(0, 999))).random(part) < 0.7
        lacking = data.draw(st.integers(0, x.ndim))
        mask = laid_out(data.draw, mask[(0,) * lacking] if 0 not in mask.shape[:lacking] else mask)
        full = np.array(np.broadcast_to(mask, x.shape), order="C")
        expected = function(fresh(x), axis, where=full)
        got = function(x, axis, where=mask)
        same(got, expected, bits=name in EACH or side_by_side(x, axis))
        if name in WITH_OUT:
            masked = np.asarray(got)[~full].astype(float)
            masked = masked[~np.isnan(masked)]  # of rows with a NaN
            assert (masked == (-np.inf if name.startswith("log_") else 0)).all()
        if name in MAPS and x.dtype in FLOATS and name != "normalize":  # what is masked is as what is -inf
            gaps = np.where(full, fresh(x), fresh(x).dtype.type(-np.inf))
            same(got, function(gaps, axis), bits=False)

    run()


@pytest.mark.parametrize("link", [link_class() for link_class in LINKS.values()], ids=repr)
def test_losses_of_any_layout(link: Any) -> None:
    @FEW
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        n, k = data.draw(st.integers(0, 5)), data.draw(st.integers(1, 6))
        dtype = data.draw(st.sampled_from(DTYPES))
        x = laid_out(data.draw, values("", (n, k), dtype, data.draw(st.integers(0, 2**32 - 1))))
        if data.draw(st.booleans()):
            ids = (np.arange(n) % k).astype(data.draw(st.sampled_from(["i1", "u1", ">u2", "<i4", ">i8", "u8"])))
            y = laid_out(data.draw, ids)
        else:
            y = np.random.default_rng(n).dirichlet(np.ones(k), n).reshape(n, k)
            y = laid_out(data.draw, y.astype(data.draw(st.sampled_from(["<f4", ">f4", "<f8", ">f8"]))), LAYOUTS[:-1])
        plain = fresh(y)
        for array in (x, y):
            array.flags.writeable = False
        kept = fresh(x)
        loss, grad = link.loss_and_grad(fresh(x), plain)
        loss_2, grad_2 = link.loss_and_grad(x, y)
        same(loss_2, loss, bits=True)
        same(grad_2, grad, bits=True)
        np.testing.assert_array_equal(x.astype(float), kept.astype(float))
        np.testing.assert_array_equal(y.astype(float), plain.astype(float))
        swap = grad.dtype != BFLOAT16 and data.draw(st.booleans())
        out = laid_out(data.draw, np.zeros((n, k), grad.dtype.newbyteorder(">") if swap else grad.dtype))
        if out.flags.writeable:
            before = surroundings(out).copy()
            assert link.loss_and_grad(x, y, out=out)[1] is out
            same(out, grad, bits=True)
            out[...] = 0
            np.testing.assert_array_equal(surroundings(out), before)

    run()


@pytest.mark.parametrize("link", [link_class() for link_class in LINKS.values()], ids=repr)
def test_losses_whose_gradient_overlaps_what_is_read(link: Any) -> None:
    for _, x, out in overlapping():
        if x.dtype != out.dtype or not out.flags.writeable:
            continue
        n, k = x.shape
        kept = surroundings(x).copy()
        loss, grad = link.loss_and_grad(fresh(x), np.arange(n) % k)
        loss_2, grad_2 = link.loss_and_grad(x, np.arange(n) % k, out=out)
        assert grad_2 is out
        same(loss_2, loss, bits=False)
        same(out, grad, bits=False)
        surroundings(x)[...] = kept
        if not x.flags.writeable or x.dtype.itemsize < 4:
            continue
        x /= x.sum(1, keepdims=True)  # now the gradient goes to where the distributions are
        logits = np.ones((n, k), x.dtype)
        loss, grad = link.loss_and_grad(logits, fresh(x))
        loss_2, _ = link.loss_and_grad(logits, x, out=out)
        same(loss_2, loss, bits=False)
        same(out, grad, bits=False)
        surroundings(x)[...] = kept


def test_three_million_classes_in_halves() -> None:
    k = 3_000_000
    x = np.zeros(k, np.float16)
    x[-1] = 12
    for name in (
        "softmax",
        "taylor_softmax",
        "spherical_softmax",
        "pseudo_softmax",
        "boltzmann",
        "normalize",
        "entmax15",
    ):
        wide = MAPS[name](x, dtype=np.float32).astype(float)
        assert wide.sum() == pytest.approx(1, abs=1e-6), name
        assert wide[-1] > 80 * wide[0]
        np.testing.assert_array_equal(MAPS[name](x), wide.astype(np.float32).astype(np.float16))
    np.testing.assert_array_equal(luce.sparsemax(x).nonzero()[0], [k - 1])
    lse = np.log(k - 1 + np.exp(12.0))
    assert luce.logsumexp(x, dtype=np.float32) == pytest.approx(lse, rel=2e-7)
    assert luce.log_softmax(x, dtype=np.float32)[0] == pytest.approx(-lse, rel=2e-7)
    assert luce.mellowmax(x, dtype=np.float64) == pytest.approx(lse - np.log(k), rel=1e-12)
    np.testing.assert_allclose(luce.softmax(x.astype(BFLOAT16), dtype=np.float32), luce.softmax(x, dtype=np.float32))


# --- what is no argument --------------------------------------------------------------------------------------------


class Hostile:
    """Answers to every question with an object of no use."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise ValueError("no array")

    def __float__(self) -> float:
        raise TypeError("no number")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, _: Any) -> Any:
        raise IndexError

    def __eq__(self, _: object) -> bool:
        return False

    __hash__ = object.__hash__


def _endless() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


GARBAGE: tuple[Any, ...] = (
    None, True, 0, -1, 2**70, -(2**70), 10**400, 0.5, 1j, float("nan"), float("inf"), "zz", "", b"x", (), [], {}, set(),
    object(), object, np.ndarray, len, Hostile(), range(3), [None], ["a"], [[1.0], [1.0, 2.0]], [[[1.0]]], [1, 2, 3, 4],
    np.array(["a", "b"]), np.array([None, 1.0]), np.array("2020", "M8[D]"), np.zeros(2, "m8[s]"), np.zeros(2, "f4,i4"),
    np.zeros(0), np.zeros((2, 0)), np.zeros((3, 3, 3)), np.zeros(3, complex), np.zeros(3, bool), np.zeros(3, "g"),
    np.array([1, 2]), np.array([1.5]), np.array(7), np.ma.array([1.0, 2.0], mask=[True, False]), memoryview(b"abcd"),
    np.dtype("f8"), "bfloat16", "float32", int, np.float32, slice(2), ..., np.random.default_rng, -np.ones((2, 3)),
    _endless(),
)  # fmt: skip

X = np.array([[0.5, 1.0, 2.0], [0.25, 3.0, 1.0]])
ONE = [1, 2]
ARGUMENTS: dict[str, dict[str, Any]] = {
    **{
        name: {"x": X} for name in luce.__all__
        if name in {*MAPS, *EACH, *REDUCTIONS, "softmax_covariance", "entmax_slope", "boltzmann_sample"}
    },
    "soft_margin_softmax": {"x": X, "target": ONE},
    "sm_taylor_softmax": {"x": X, "target": ONE},
    "softmax_vjp": {"probabilities": X, "vector": X},
    "cross_entropy": {"logits": X, "target": ONE},
    "focal": {"logits": X, "target": ONE},
    "focal_and_grad": {"logits": X, "target": ONE},
    "brier": {"logits": X, "target": ONE},
    "brier_and_grad": {"logits": X, "target": ONE},
    "linear_cross_entropy": {"input": X, "linear_weight": np.ones((4, 3)), "target": ONE},
}  # fmt: skip
FREE = {"hard", "keepdims"}  # any object is true or false


def check(call: Callable[..., Any], name: str, arguments: dict[str, Any]) -> None:
    """A call gives a result, or says in the name of its function what is wrong."""
    try:
        call(**arguments)
    except Exception as error:  # any other than the two that are allowed is what the fuzz looks for
        named = re.match(rf"{name}(\.loss_and_grad)?: ", str(error))
        if not named or not isinstance(error, TypeError | ValueError):
            raise AssertionError(f"{arguments}: {error!r}") from error


def test_every_function_is_fuzzed() -> None:
    functions = {name for name in luce.__all__ if inspect.isfunction(getattr(luce, name)) and name[0].islower()}
    assert functions - set(ARGUMENTS) == {"load", "open_dataset", "train"}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_garbage_is_refused_in_the_name_of_the_function(name: str) -> None:
    function = getattr(luce, name)
    said = name.removesuffix("_and_grad")
    for parameter in inspect.signature(function).parameters:
        if parameter not in FREE:
            for thing in GARBAGE:
                check(function, said, {**ARGUMENTS[name], parameter: thing})


@pytest.mark.parametrize("name", ARGUMENTS)
def test_garbage_in_company(name: str) -> None:
    function = getattr(luce, name)
    parameters = [p for p in inspect.signature(function).parameters if p not in FREE]

    @settings(deadline=None, max_examples=40)
    @given(things=st.dictionaries(st.sampled_from(parameters), st.sampled_from(range(len(GARBAGE))), min_size=2))
    def run(things: dict[str, int]) -> None:
        drawn = {parameter: GARBAGE[i] for parameter, i in things.items()}
        check(function, name.removesuffix("_and_grad"), {**ARGUMENTS[name], **drawn})

    run()


@pytest.mark.parametrize("link_class", LINKS.values(), ids=lambda c: str(c.__name__))
def test_garbage_for_links(link_class: Any) -> None:
    for field in link_class.__dataclass_fields__:
        if field != "name":
            for thing in GARBAGE:
                check(link_class, link_class.__name__, {field: thing})
    link = link_class()
    anything = r"[A-Za-z_0-9]+"
    for thing in GARBAGE:
        check(link.probabilities, anything, {"logits": thing})
        check(link.log_probabilities, anything, {"logits": thing})
        for parameter in ("logits", "target", "out"):
            arguments = {"logits": X, "target": ONE, parameter: thing}
            check(link.loss_and_grad, link_class.__name__, arguments)
