"""The family on arrays of any library of the array API, by the strict reference implementation.

`array_api_strict` offers what the standard has and nothing else: what runs here needs nothing beyond it.
"""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import array_api_strict as xp
import numpy as np
import pytest

import luce as package

luce: Any = package  # whose annotations speak of the arrays of NumPy
INF, NAN = math.inf, math.nan
Call = Callable[..., Any]
DTYPES = ("float64", "float32")
TOLERANCE = {"float64": 1e-13, "float32": 2e-6}
SHAPES = [(3, 5), (7,), (2, 3, 4), (), (0, 3), (3, 0), (1, 1)]


def of_entries(function: Call) -> Call:
    return lambda x, axis=-1, **options: function(x, **options)


def ids(x: Any, axis: int = -1) -> Any:
    """Class ids for each row along an axis, of the kind of `x`."""
    shape = list(x.shape)
    k = shape.pop(axis) if shape else 1
    targets = np.asarray(np.arange(math.prod(shape), dtype=np.int64).reshape(shape) % max(k, 1))
    return targets if isinstance(x, np.ndarray | np.generic) else xp.asarray(targets)


def with_target(function: Call) -> Call:
    return lambda x, axis=-1, **options: function(x, axis, target=ids(x, axis), **options)


SAME_SHAPE: dict[str, Call] = {
    "softmax": luce.softmax,
    "log_softmax": luce.log_softmax,
    "taylor 2": luce.taylor_softmax,
    "taylor 4": functools.partial(luce.taylor_softmax, degree=4, temperature=2.0),
    "soft_margin": with_target(luce.soft_margin_softmax),
    "sm_taylor": with_target(luce.sm_taylor_softmax),
    "spherical": luce.spherical_softmax,
    "sparsemax": luce.sparsemax,
    "entmax15": luce.entmax15,
    "entmax 1": functools.partial(luce.entmax, alpha=1),
    "entmax 1.2": functools.partial(luce.entmax, alpha=1.2),
    "entmax 3": functools.partial(luce.entmax, alpha=3.0, temperature=0.5),
    "boltzmann": luce.boltzmann,
    "pseudo_softmax": luce.pseudo_softmax,
    "sigmoid": of_entries(luce.sigmoid),
    "log_sigmoid": of_entries(luce.log_sigmoid),
    "tanh": of_entries(luce.tanh),
    "relu": of_entries(luce.relu),
    "normalize": lambda x, axis=-1, **options: luce.normalize(x * x, axis, **options),
}
REDUCTIONS: dict[str, Call] = {
    "logsumexp": luce.logsumexp,
    "mellowmax": luce.mellowmax,
    "boltzmann_mean": functools.partial(luce.boltzmann_mean, temperature=2.0),
}
DERIVED: dict[str, Call] = {
    "softmax_covariance": luce.softmax_covariance,
    "softmax_vjp": lambda x, axis=-1, **options: luce.softmax_vjp(luce.softmax(x, axis), x * x, axis, **options),
}
MASKABLE = SAME_SHAPE | REDUCTIONS
ALL = MASKABLE | DERIVED


def numbers(shape: tuple[int, ...] = (3, 5), dtype: str = "float64") -> tuple[Any, Any]:
    """The same numbers as an array of NumPy and of the library."""
    array = np.asarray(np.random.default_rng(0).normal(size=shape) * 3, dtype)
    return array, xp.asarray(array)


def assert_same(got: Any, expected: Any, dtype: str) -> None:
    assert type(got) is type(xp.asarray(0.0))
    assert got.dtype == getattr(xp, dtype)
    assert got.shape == np.shape(expected)
    np.testing.assert_allclose(np.asarray(got), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL)
def test_values_are_numpys(name: str, dtype: str) -> None:
    for shape in SHAPES:
        array, other = numbers(shape, dtype)
        for axis in range(-max(len(shape), 1), max(len(shape), 1)):
            if name in ("soft_margin", "sm_taylor") and shape and shape[axis] == 0:
                continue  # there is no class that could be the target
            assert_same(ALL[name](other, axis), ALL[name](array, axis), dtype)


@pytest.mark.parametrize("name", ALL)
def test_integers_become_float64(name: str) -> None:
    raw = np.array([[1, 3, 2], [5, 0, 4]])
    for dtype in (xp.int64, xp.int32, xp.int8, xp.uint8):
        assert_same(ALL[name](xp.asarray(raw, dtype=dtype)), ALL[name](raw.astype(np.float64)), "float64")


@pytest.mark.parametrize("name", MASKABLE)
def test_corners_are_numpys(name: str) -> None:
    rows = np.array(
        [[1, INF, 2], [INF, 0, INF], [-INF, -INF, -INF], [1, NAN, 2], [-INF, 1, 2], [1e308, -1e308, 0], [0, 0, 0]]
    )
    if name == "normalize":
        rows = np.array([[1, INF, 2], [INF, 0, INF], [1, NAN, 2], [0, 1, 2], [1e150, 1e150, 0]])
    with np.errstate(all="ignore"):
        assert_same(MASKABLE[name](xp.asarray(rows)), MASKABLE[name](rows), "float64")


@pytest.mark.parametrize("name", MASKABLE)
def test_where_takes_out(name: str) -> None:
    array, other = numbers((4, 6))
    mask = np.random.default_rng(1).random((4, 6)) < 0.6
    mask[2] = True
    masks: list[Any] = [mask, mask[0], mask[:, :1]]
    for chosen in masks:
        expected = MASKABLE[name](array, where=chosen)
        for where in (xp.asarray(chosen), chosen, chosen.tolist()):
            assert_same(MASKABLE[name](other, where=where), expected, "float64")


@pytest.mark.parametrize("name", MASKABLE)
def test_dtype_is_the_results(name: str) -> None:
    for given in DTYPES:
        array, other = numbers((2, 4), given)
        if name == "normalize":  # of a square, which would be rounded before
            array, other = np.abs(np.rint(array)), xp.abs(xp.round(other))
        for wanted in DTYPES:
            expected = MASKABLE[name](array, dtype=wanted)
            assert_same(MASKABLE[name](other, dtype=getattr(xp, wanted)), expected, wanted)
    for wrong in (xp.int64, np.float32, "float32"):
        with pytest.raises(TypeError, match="dtype must be float16, bfloat16, float32 or float64"):
            MASKABLE[name](other, dtype=wrong)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_keepdims(name: str) -> None:
    array, other = numbers((2, 3, 4))
    for axis in range(-3, 3):
        assert_same(
            REDUCTIONS[name](other, axis, keepdims=True), REDUCTIONS[name](array, axis, keepdims=True), "float64"
        )


@pytest.mark.parametrize("name", [*SAME_SHAPE, "softmax_vjp"])
def test_out_is_not_offered(name: str) -> None:
    _, other = numbers()
    for out in (xp.zeros((3, 5)), np.zeros((3, 5))):
        with pytest.raises(TypeError, match="out must be a tensor for a torch tensor, and is not offered for other"):
            ALL[name](other, out=out)


def test_weights_of_logsumexp() -> None:
    array, other = numbers()
    for weights in (np.arange(5.0), np.arange(15.0).reshape(3, 5), np.zeros(5)):
        expected = luce.logsumexp(array, weights=weights)
        assert_same(luce.logsumexp(other, weights=xp.asarray(weights)), expected, "float64")
        assert_same(luce.logsumexp(other, weights=weights), expected, "float64")


def test_entmax_with_one_alpha_per_row() -> None:
    array, other = numbers((3, 4))
    for axis, alpha in ((1, [[1.0], [1.5], [2.0]]), (0, [[1.0, 1.2, 1.7, 3.0]]), (1, [[2.0]])):
        expected = luce.entmax(array, axis, alpha=np.array(alpha))
        for given in (xp.asarray(alpha), np.array(alpha)):
            assert_same(luce.entmax(other, axis, alpha=given), expected, "float64")


def test_random_choices_are_numpys() -> None:
    array, other = numbers((20, 4))
    for options in ({}, {"hard": True}, {"tau": 0.5}, {"where": np.array([True, False, True, True])}):
        assert_same(
            luce.gumbel_softmax(other, rng=7, **options), luce.gumbel_softmax(array, rng=7, **options), "float64"
        )
    np.testing.assert_array_equal(luce.boltzmann_sample(other, rng=7), luce.boltzmann_sample(array, rng=7))


MALFORMED: dict[str, Call] = {
    "dtype": lambda new: luce.softmax(new([True, False])),
    "complex": lambda new: luce.tanh(new([1j, 2])),
    "axis": lambda new: luce.softmax(new([[1.0, 2.0]]), 2),
    "axis of logsumexp": lambda new: luce.logsumexp(new([[1.0, 2.0]]), -3),
    "axis of normalize": lambda new: luce.normalize(new([[1.0, 2.0]]), 2),
    "temperature 0": lambda new: luce.entmax15(new([1.0, 2.0]), temperature=0),
    "where of numbers": lambda new: luce.softmax(new([1.0, 2.0]), where=new([1, 0])),
    "where of another shape": lambda new: luce.sigmoid(new([1.0, 2.0]), where=new([True, False, True])),
    "negative weight": lambda new: luce.logsumexp(new([1.0, 2.0]), weights=new([1.0, -1.0])),
    "weights of another shape": lambda new: luce.logsumexp(new([1.0, 2.0]), weights=new([1.0, 1.0, 1.0])),
    "alphas": lambda new: luce.entmax(new([[1.0, 2.0]]), alpha=new([[0.5]])),
    "class id": lambda new: luce.soft_margin_softmax(new([[1.0, 2.0]]), target=new([2])),
    "shape of ids": lambda new: luce.sm_taylor_softmax(new([[1.0, 2.0]]), target=new([1, 1])),
    "negative share": lambda new: luce.normalize(new([1.0, -2.0])),
    "no sum": lambda new: luce.normalize(new([[1.0, 2.0], [0.0, 0.0]])),
    "vector": lambda new: luce.softmax_vjp(new([0.5, 0.5]), new([1.0, 1.0, 1.0])),
    "nothing to draw from": lambda new: luce.boltzmann_sample(new([-INF, -INF])),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_calls_say_the_same_as_for_numpy(name: str) -> None:
    said = []
    for new in (np.array, lambda values: xp.asarray(np.array(values))):
        with pytest.raises((TypeError, ValueError)) as caught:
            MALFORMED[name](new)
        said.append((caught.type, str(caught.value)))
    assert said[1] == said[0]


LOSSES: dict[str, Call] = {
    "cross_entropy": luce.cross_entropy,
    "focal": luce.focal,
    "brier": luce.brier,
    "linear_cross_entropy": lambda x, y: luce.linear_cross_entropy(x, x, y),
    "Softmax": luce.links.Softmax().loss_and_grad,
    "Entmax": luce.links.Entmax().loss_and_grad,
    "Sigmoid": luce.links.Sigmoid().loss_and_grad,
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_say_plainly_that_they_are_not_offered(name: str) -> None:
    with pytest.raises(TypeError, match="takes NumPy arrays and torch tensors"):
        LOSSES[name](xp.asarray([[1.0, 2.0]]), xp.asarray([1]))


def test_nothing_is_imported_for_it() -> None:
    code = (
        "import sys, array_api_strict as xp, luce; luce.entmax15(xp.asarray([1.0, 2.0])); "
        "luce.soft_margin_softmax(xp.asarray([1.0, 2.0]), target=0); luce.normalize(xp.asarray([1.0, 2.0])); "
        "luce.mellowmax(xp.asarray([1.0])); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "scipy", "sklearn", "array_api_compat"}.isdisjoint(loaded)
