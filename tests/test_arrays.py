"""The gate, seen through the functions that stand behind it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from luce.arrays import as_rows
from luce.links import log_softmax, logsumexp, softmax
from tests import reference, tolerances

Array = NDArray[Any]
MAPS: tuple[tuple[Callable[..., Array], Callable[..., Any]], ...] = (
    (softmax, reference.softmax),
    (log_softmax, reference.log_softmax),
)
ROWS: dict[str, list[float]] = {
    "A": [1, 2, 3],
    "B": [0.7, 3.1, 0.6],
    "C": [-2, 0, 0.5],
    "D": [1000, 1000.5, 999],
    "E": [0.5, -1.25, 2, 0, -3, 1.5, 4.25, -0.75, 3, -2.5],
}
# Computed with 60 digits, independently of this project's code.
SOFTMAX: dict[str, list[float]] = {
    "A": [0.0900305731704, 0.244728471055, 0.665240955775],
    "B": [0.0773514025876, 0.852658154014, 0.0699904433989],
    "C": [0.0486108240313, 0.359188105783, 0.592201070186],
    "D": [0.331498960424, 0.546549387266, 0.12195165231],
    "E": [
        0.0156127194468, 0.00271308382626, 0.0699713541031, 0.00946959302599, 4.71463275401e-4,
        0.0424397715651, 0.663869723842, 0.00447311901355, 0.190201860371, 7.77311530507e-4,
    ],
}  # fmt: skip
LOG_TABLE: dict[str, list[float]] = {
    "A": [-2.40760596444, -1.40760596444, -0.407605964444],
    "B": [-2.55939656913, -0.159396569126, -2.65939656913],
    "C": [-3.02390905618, -1.02390905618, -0.52390905618],
    "D": [-1.10413060534, -0.604130605337, -2.10413060534],
}
LOGSUMEXP = {
    "A": 3.40760596444,
    "B": 3.25939656913,
    "C": 1.02390905618,
    "D": 1001.10413061,
    "E": 4.65966934779,
}
AT_TEMPERATURE = {
    (2.0, "A"): [0.186323723226, 0.307195885718, 0.506480391056],
    (2.0, "C"): [0.138722714762, 0.377087434731, 0.484189850508],
    (2.0, "D"): [0.345954194822, 0.444213979162, 0.209831826016],
    (0.5, "A"): [0.0158762399765, 0.117310427826, 0.866813332197],
    (0.5, "C"): [0.00490168904967, 0.26762315415, 0.7274751568],
    (0.5, "D"): [0.259496460342, 0.705384512698, 0.0351190269593],
}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_published_values(name: str) -> None:
    np.testing.assert_allclose(softmax(ROWS[name]), SOFTMAX[name], rtol=2e-11)
    np.testing.assert_allclose(logsumexp(ROWS[name]), LOGSUMEXP[name], rtol=2e-11)
    if name in LOG_TABLE:
        np.testing.assert_allclose(log_softmax(ROWS[name]), LOG_TABLE[name], rtol=2e-11)


@pytest.mark.parametrize(("temperature", "name"), sorted(AT_TEMPERATURE))
def test_published_values_at_other_temperatures(temperature: float, name: str) -> None:
    expected = AT_TEMPERATURE[temperature, name]
    np.testing.assert_allclose(softmax(ROWS[name], temperature=temperature), expected, rtol=2e-11)


def along(function: Callable[[list[float]], Any], x: Array, axis: int) -> Array:
    """Apply a reference function of lists to every row along an axis."""
    rows = np.moveaxis(x.astype(np.float64), axis, -1)
    out = np.array([[float(v) for v in function(row.tolist())] for row in rows.reshape(-1, rows.shape[-1])])
    return np.moveaxis(out.reshape(rows.shape), -1, axis)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Array, int]:
    """Draw an array of any shape, dtype, byte order, strides and order of axes, and one of its axes."""
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    dtype = draw(st.sampled_from(["f2", "<f4", ">f4", "<f8", ">f8", "i1", "u2", ">i4", "i8"]))
    seed = draw(st.integers(0, 2**32 - 1))
    cuts = [draw(st.sampled_from([slice(n), slice(None, None, 2), slice(n - 1, None, -1)])) for n in shape]
    cells = np.random.default_rng(seed).uniform(-9, 9, [2 * n for n in shape])
    x = (np.abs(cells) if dtype == "u2" else cells).astype(dtype)[tuple(cuts)]
    x = x.transpose(draw(st.permutations(range(x.ndim))))
    if draw(st.booleans()):
        x.flags.writeable = False
    return x, draw(st.integers(-x.ndim, x.ndim - 1))


@settings(deadline=None)
@given(layout=layouts())
def test_any_layout_gives_the_values_of_its_rows(layout: tuple[Array, int]) -> None:
    x, axis = layout
    kept = x.copy()
    expected_dtype = np.float64 if x.dtype.kind in "iu" else x.dtype.newbyteorder("=")
    rtol = 40 * float(np.finfo(expected_dtype).eps)
    for function, truth in MAPS:
        y = function(x, axis)
        assert y.dtype == expected_dtype
        assert y.dtype.isnative
        smallest = rtol if function is log_softmax else float(np.finfo(expected_dtype).smallest_subnormal)
        np.testing.assert_allclose(y, along(truth, x, axis), rtol=rtol, atol=smallest)
    total = logsumexp(x, axis)
    expected = along(lambda row: [reference.logsumexp(row)] * len(row), x, axis)
    assert total.dtype == expected_dtype
    assert total.shape == x.shape[: axis % x.ndim] + x.shape[axis % x.ndim + 1 :]
    np.testing.assert_allclose(total, expected.take(0, axis), rtol=rtol, atol=rtol)
    assert logsumexp(x, axis, keepdims=True).shape == expected.take([0], axis).shape
    np.testing.assert_array_equal(x, kept)


@settings(deadline=None)
@given(layout=layouts(), order=st.sampled_from("CF"))
def test_out_is_filled_and_returned(layout: tuple[Array, int], order: Any) -> None:
    x, axis = layout
    for function, _ in MAPS:
        expected = function(x, axis)
        for dtype in (expected.dtype, expected.dtype.newbyteorder()):
            out = np.full(x.shape, 7, dtype, order=order)
            assert function(x, axis, out=out) is out
            np.testing.assert_array_equal(out, expected)


@settings(deadline=None)
@given(layout=layouts())
def test_out_may_be_the_input(layout: tuple[Array, int]) -> None:
    x, axis = layout
    if x.dtype.kind != "f" or not x.flags.writeable:
        return
    expected = softmax(x, axis)
    assert softmax(x, axis, out=x) is x
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("shift", [1, 4, 5])
def test_out_may_overlap_the_input(shift: int) -> None:
    memory = np.random.default_rng(0).standard_normal(20)
    x, out = memory[:12].reshape(3, 4), memory[shift : shift + 12].reshape(3, 4)
    expected = softmax(x)
    softmax(x, out=out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_out_may_be_the_transpose_of_the_input(axis: int) -> None:
    x = np.random.default_rng(0).standard_normal((4, 4))
    expected = softmax(x, axis)
    softmax(x, axis, out=x.T)
    np.testing.assert_array_equal(x.T, expected)


@settings(deadline=None)
@given(layout=layouts(), data=st.data())
def test_masked_entries_are_not_there(layout: tuple[Array, int], data: st.DataObject) -> None:
    x, axis = layout
    mask_shape = tuple(data.draw(st.sampled_from([n, 1])) for n in x.shape)
    bits = data.draw(st.lists(st.booleans(), min_size=math.prod(mask_shape), max_size=math.prod(mask_shape)))
    mask = np.array(bits, bool).reshape(mask_shape)
    full = np.broadcast_to(mask, x.shape)
    cut = np.where(full, x.astype(np.result_type(x, np.float16)), -np.inf)
    dtype = softmax(x).dtype
    for function in (softmax, log_softmax):
        y = function(x, axis, where=mask)
        np.testing.assert_array_equal(y, function(cut.astype(dtype), axis))
        assert (y[~full] == (0 if function is softmax else -np.inf)).all()
    np.testing.assert_array_equal(logsumexp(x, axis, where=mask), logsumexp(cut.astype(dtype), axis))


def test_a_masked_nan_does_no_harm() -> None:
    x = np.array([[np.nan, 1.0, 1.0], [np.inf, 3.0, 3.0]])
    np.testing.assert_array_equal(softmax(x, where=[False, True, True]), [[0, 0.5, 0.5]] * 2)


@pytest.mark.parametrize("function", [softmax, log_softmax])
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 3)])
def test_empty_gives_empty(function: Callable[..., Array], shape: tuple[int, ...]) -> None:
    for axis in range(len(shape)):
        assert function(np.zeros(shape, np.float32), axis).shape == shape
        assert function(np.zeros(shape), axis, where=np.ones(shape, bool)).shape == shape


def test_the_sum_of_nothing_is_minus_infinity() -> None:
    np.testing.assert_array_equal(logsumexp(np.zeros((3, 0))), [-np.inf] * 3)
    assert logsumexp(np.zeros((0, 3))).shape == (0,)
    assert logsumexp(np.zeros((2, 0, 3)), 1, keepdims=True).shape == (2, 1, 3)
    assert logsumexp([1.0, 2.0], where=[False, False]) == -np.inf


def test_many_equal_halves_do_not_vanish() -> None:
    p = softmax(np.zeros(70_000, np.float16))
    assert p.dtype == np.float16
    assert (p == np.float16(1 / 70_000)).all()
    assert logsumexp(np.zeros(70_000, np.float16)) == np.float16(math.log(70_000))
    assert softmax(np.full(1_000_000, 3, np.float16), dtype=np.float32).astype(np.float64).sum() == pytest.approx(1)


def test_halves_are_rounded_once() -> None:
    x = np.random.default_rng(0).uniform(-9, 9, (20, 50)).astype(np.float16)
    for function in (softmax, log_softmax, logsumexp):
        np.testing.assert_array_equal(function(x), function(x.astype(np.float32)).astype(np.float16))


def test_halves_overflow_to_infinity_in_silence() -> None:
    assert logsumexp(np.array([7e4, 1], np.float32), dtype=np.float16) == np.inf
    x = np.full(2, 65_504, np.float16)
    assert logsumexp(x, dtype=np.float32) == np.float32(65_504 + math.log(2))
    np.testing.assert_array_equal(log_softmax(np.array([60_000, -60_000], np.float16)), [0, -np.inf])


def test_a_narrower_dtype_is_rounded_to_at_the_end() -> None:
    x = np.array([1e300, 1e300, 1.0])  # beyond float32
    np.testing.assert_array_equal(softmax(x, dtype=np.float32), np.array([0.5, 0.5, 0], np.float32))
    y = np.array([20_000_001, 20_000_000])  # neighbours that float32 cannot tell apart
    np.testing.assert_array_equal(softmax(y, dtype=np.float32), softmax(y).astype(np.float32))
    assert softmax(y, dtype=np.float32)[0] > 0.7


def test_a_wider_dtype_is_computed_in() -> None:
    x = np.array([0.3, -0.2, 1.7], np.float32)
    np.testing.assert_array_equal(softmax(x, dtype=np.float64), softmax(x.astype(np.float64)))


def test_the_largest_numbers_side_by_side() -> None:
    np.testing.assert_array_equal(softmax([1e308, -1e308]), [1, 0])
    np.testing.assert_array_equal(log_softmax([1e308, 1e308, -np.inf])[:2], [-math.log(2)] * 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [1e-320, 1e-45, 1e-39, 1e-3, 1e3, 1e39, 1e300])
def test_any_positive_temperature(temperature: float, dtype: type[np.floating]) -> None:
    x = np.array([1, 2, 0.5, -np.inf, 2], dtype)
    p = softmax(x, temperature=temperature)
    for j, exact in enumerate(reference.softmax(x.tolist(), temperature)):
        assert abs(float(p[j]) - float(exact)) <= float(tolerances.softmax(exact, 1.5, temperature, dtype)) + 1e-6 * (
            temperature < 1e-38 and dtype is np.float32
        )
    assert not np.isnan(log_softmax(x, temperature=temperature)).any()


WRONG_TYPES: tuple[Any, ...] = (
    [True, False], [1j], ["a"], np.array([1, None]), np.array(["2020"], "M8[D]"),
    np.ma.array([1.0, 2.0], mask=[False, True]),
    *([np.array([1, 2], np.longdouble)] if np.dtype(np.longdouble).itemsize > 8 else []),
)  # fmt: skip


@pytest.mark.parametrize("x", WRONG_TYPES, ids=repr)
@pytest.mark.parametrize("function", [softmax, log_softmax, logsumexp])
def test_what_is_not_real_numbers_is_refused(function: Callable[..., Array], x: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{function.__name__}: (needs|takes no)"):
        function(x)


WRONG_CALLS: tuple[tuple[type[Exception], str, Any, dict[str, Any]], ...] = (
    (ValueError, r"axis must lie in \[-1, 1\)", 1.0, {"axis": 1}),
    (ValueError, "equally long", [[1.0], [1.0, 2.0]], {}),
    (ValueError, r"axis must lie in \[-1, 1\)", [1.0], {"axis": 1}),
    (TypeError, "axis must be a whole number", [1.0], {"axis": None}),
    (TypeError, "axis must be a whole number", [1.0], {"axis": 0.0}),
    (ValueError, "temperature must be positive.*argmax", [1.0], {"temperature": 0}),
    (ValueError, "temperature must be positive", [1.0], {"temperature": -2.0}),
    (ValueError, "temperature must be positive", [1.0], {"temperature": math.nan}),
    (ValueError, "temperature must be positive", [1.0], {"temperature": math.inf}),
    (TypeError, "temperature must be a number", [1.0], {"temperature": "1"}),
    (TypeError, "temperature must be a number", [1.0], {"temperature": True}),
    (TypeError, "dtype must be float16, bfloat16, float32 or float64", [1.0], {"dtype": np.int32}),
    (TypeError, "out must be a NumPy array", [1.0], {"out": [0.0]}),
    (ValueError, r"out must have shape \(1,\)", [1.0], {"out": np.zeros(2)}),
    (ValueError, "dtype float64", [1.0], {"out": np.zeros(1, np.float32)}),
    (ValueError, "read-only", [1.0], {"out": np.broadcast_to(0.0, (1,))}),
    (TypeError, "where must be booleans", [1.0], {"where": [1]}),
    (ValueError, r"does not broadcast to \(2,\)", [1.0, 2.0], {"where": [True, True, False]}),
)


@pytest.mark.parametrize(("error", "message", "x", "options"), WRONG_CALLS, ids=lambda v: str(v)[:30])
def test_a_wrong_argument_is_named(error: type[Exception], message: str, x: Any, options: dict[str, Any]) -> None:
    with pytest.raises(error, match=f"^softmax: .*{message}"):
        softmax(x, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7,), (5, 3), (2, 3, 70)])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_short_way_in_gives_the_same_bits(
    dtype: type[np.floating], shape: tuple[int, ...], temperature: float
) -> None:
    """`as_rows` serves plain arrays, `enter` everything: a mask that masks nothing takes the way through `enter`."""
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    everywhere = np.ones(shape, bool)
    for function in (softmax, log_softmax):
        expected = function(x, temperature=temperature, where=everywhere)
        assert as_rows(x, -1, None) is not None
        np.testing.assert_array_equal(function(x, temperature=temperature), expected)
        np.testing.assert_array_equal(function(x, len(shape) - 1, temperature=temperature), expected)
        out = np.full_like(x, 7)
        assert function(x, temperature=temperature, out=out) is out
        np.testing.assert_array_equal(out, expected)
        same = x.copy()
        assert function(same, temperature=temperature, out=same) is same
        np.testing.assert_array_equal(same, expected)


@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 70), (3, 5, 2, 9)])
@pytest.mark.parametrize("order", "CF")
def test_the_short_way_serves_every_axis_without_a_copy_of_the_array(shape: tuple[int, ...], order: Any) -> None:
    x = np.asarray(np.random.default_rng(0).normal(size=shape), order=order)
    for axis in range(-x.ndim, x.ndim):
        short = as_rows(x, axis, None)
        assert short is not None
        assert short[0].base is not None
        assert np.shares_memory(short[0], x)
        expected = np.moveaxis(softmax(np.ascontiguousarray(np.moveaxis(x, axis, -1))), -1, axis)
        np.testing.assert_allclose(softmax(x, axis), expected, rtol=1e-14)
        out = np.full_like(x, 7)
        assert softmax(x, axis, out=out) is out
        np.testing.assert_allclose(out, expected, rtol=1e-14)
        same = x.copy(order=order)
        softmax(same, axis, out=same)
        np.testing.assert_allclose(same, expected, rtol=1e-14)


def test_what_needs_care_does_not_take_the_short_way() -> None:
    x = np.zeros((4, 6), np.float32)
    bytes_of = np.zeros(4 * 6 * 4 + 1, np.uint8)
    locked = x.copy()
    locked.flags.writeable = False
    assert as_rows(locked, -1, None) is not None
    careful: list[tuple[Any, Any, Any]] = [
        (x.tolist(), -1, None),
        (x[:, ::2], -1, None),
        (np.zeros((2, 3, 4), np.float32).transpose(1, 0, 2), -1, None),
        (x.astype(np.float16), -1, None),
        (x.astype(">f4"), -1, None),
        (bytes_of[1:].view(np.float32).reshape(4, 6), -1, None),
        (np.ma.array(x), -1, None),
        (x, 2, None),
        (x, -3, None),
        (x, True, None),
        (x[:0], -1, None),
        (np.float32(1), -1, None),
        (x, -1, x[::-1]),
        (x, -1, np.zeros((4, 6))),
        (x, -1, np.zeros((6, 4), np.float32)),
        (x, -1, np.zeros((6, 4), np.float32).T),
        (x, -1, locked),
        (locked, -1, locked),
        (x[:3], -1, x[1:]),
        (x, -1, "out"),
    ]
    for given_x, axis, out in careful:
        assert as_rows(given_x, axis, out) is None, (given_x, axis, out)
