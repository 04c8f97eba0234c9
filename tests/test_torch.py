"""The family on torch tensors: the values of NumPy, derivatives, `torch.compile` and `torch.func`, the same messages.

The last section pins where SciPy, torch and entmax part from the definitions, and what stands here instead.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import entmax
import ml_dtypes
import numpy as np
import pytest
import scipy.special
import torch
from torch.autograd.gradcheck import GradcheckError

import luce as package
from luce.maps import MAPS as MAPS_BY_NAME
from luce.maps import operators
from luce.maps.formulas import by_formula

luce: Any = package  # whose annotations speak of the arrays of NumPy
F: Any = torch.nn.functional
LINKS: Any = package.links.LINKS
FUNCTIONAL: Any = torch.autograd.functional
INF, NAN = math.inf, math.nan
Call = Callable[..., Any]
DTYPES = ("float64", "float32", "float16", "bfloat16")
# What may differ: a few roundings of the dtype that is computed in, then one of the dtype of the result.
TOLERANCE = {"float64": 1e-13, "float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}
SHAPES = [(3, 5), (7,), (2, 3, 4), (), (0, 3), (3, 0), (1, 1)]


def ids(x: Any, axis: int = -1) -> Any:
    """Class ids for each row along an axis, of the kind of `x`."""
    shape = list(x.shape)
    k = shape.pop(axis) if shape else 1
    targets = np.arange(math.prod(shape), dtype=np.int64).reshape(shape) % max(k, 1)
    return torch.from_numpy(np.asarray(targets)) if isinstance(x, torch.Tensor) else targets


def weights(x: Any) -> Any:
    values = (np.arange(math.prod(x.shape)).reshape(x.shape) % 3).astype(np.float64)
    return torch.from_numpy(np.asarray(values)) if isinstance(x, torch.Tensor) else values


def with_target(function: Call) -> Call:
    return lambda x, axis=-1, **options: function(x, axis, target=ids(x, axis), **options)


def of_entries(function: Call) -> Call:
    return lambda x, axis=-1, **options: function(x, **options)


def vjp(x: Any, axis: int = -1, **options: Any) -> Any:
    return luce.softmax_vjp(luce.softmax(x, axis), x * x, axis, **options)


MAPS: dict[str, Call] = {
    "softmax": luce.softmax,
    "log_softmax": luce.log_softmax,
    "taylor 2": luce.taylor_softmax,
    "taylor 4": functools.partial(luce.taylor_softmax, degree=4),
    "soft_margin": with_target(luce.soft_margin_softmax),
    "sm_taylor": with_target(luce.sm_taylor_softmax),
    "spherical": luce.spherical_softmax,
    "sparsemax": luce.sparsemax,
    "entmax15": luce.entmax15,
    "entmax 1.2": functools.partial(luce.entmax, alpha=1.2),
    "boltzmann": luce.boltzmann,
    "sigmoid": of_entries(luce.sigmoid),
    "log_sigmoid": of_entries(luce.log_sigmoid),
}
UNDIVIDED: dict[str, Call] = {  # maps that take no temperature
    "tanh": of_entries(luce.tanh),
    "relu": of_entries(luce.relu),
    "pseudo_softmax": luce.pseudo_softmax,
    "normalize": lambda x, axis=-1, **options: luce.normalize(x * x, axis, **options),
}
REDUCTIONS: dict[str, Call] = {
    "logsumexp": luce.logsumexp,
    "mellowmax": luce.mellowmax,
    "boltzmann_mean": luce.boltzmann_mean,
}
DERIVED: dict[str, Call] = {
    "weighted": lambda x, axis=-1, **options: luce.logsumexp(x, axis, weights=weights(x), **options),
    "softmax_covariance": luce.softmax_covariance,
    "softmax_vjp": vjp,
}
SAME_SHAPE = MAPS | UNDIVIDED
ALL = SAME_SHAPE | REDUCTIONS | DERIVED


def numbers(shape: tuple[int, ...] = (3, 5), dtype: str = "float64", *, seed: int = 0) -> tuple[Any, torch.Tensor]:
    """The same numbers as an array and as a tensor, none near 0."""
    raw = np.random.default_rng(seed).normal(size=shape) * 3
    raw = np.asarray(np.where(np.abs(raw) < 0.05, 0.5, raw))
    array = raw.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    return array, torch.tensor(np.asarray(array, np.float64)).to(getattr(torch, dtype))


def plain(value: Any) -> Any:
    """An array or a tensor as numbers in float64."""
    return np.asarray(value.detach().double() if isinstance(value, torch.Tensor) else value, np.float64)


def assert_same(got: torch.Tensor, expected: Any, dtype: str) -> None:
    assert got.dtype == getattr(torch, dtype)
    assert tuple(got.shape) == np.shape(expected)
    np.testing.assert_allclose(plain(got), plain(expected), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def axes(shape: tuple[int, ...]) -> range:
    return range(-max(len(shape), 1), max(len(shape), 1))


# Values.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL)
def test_values_are_numpys(name: str, dtype: str) -> None:
    for shape in SHAPES:
        if name == "softmax_vjp" and dtype == "bfloat16":
            continue  # NumPy multiplies bfloat16 by itself differently, before we are asked
        array, tensor = numbers(shape, dtype)
        for axis in axes(shape):
            if name in ("soft_margin", "sm_taylor") and shape and shape[axis] == 0:
                continue  # there is no class that could be the target
            assert_same(ALL[name](tensor, axis), ALL[name](array, axis), dtype)


@pytest.mark.parametrize("name", ALL)
def test_integers_become_the_default_dtype(name: str) -> None:
    raw = np.array([[1, 3, 2], [5, 0, 4]])
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        got = ALL[name](torch.tensor(raw, dtype=dtype))
        assert_same(got, ALL[name](raw.astype(np.float64)), "float32")


@pytest.mark.parametrize("name", ALL)
def test_any_strides(name: str) -> None:
    array, tensor = numbers((6, 4, 10))
    changes: list[Call] = [lambda x: x[::2], lambda x: x[:, :, ::3], lambda x: x[1], lambda x: x[:, 1:2]]
    for change in changes:
        assert_same(ALL[name](change(tensor)), ALL[name](change(array)), "float64")
    assert_same(ALL[name](tensor.permute(2, 0, 1), 1), ALL[name](array.transpose(2, 0, 1), 1), "float64")
    assert_same(ALL[name](tensor[:1].expand(5, 4, 10), 0), ALL[name](array[:1].repeat(5, 0), 0), "float64")


@pytest.mark.parametrize("name", MAPS)
def test_temperature_divides(name: str) -> None:
    array, tensor = numbers()
    for temperature in (0.5, 3.0, np.float32(2), 7):
        for axis in (0, 1):
            got = MAPS[name](tensor, axis, temperature=temperature)
            assert_same(got, MAPS[name](array, axis, temperature=temperature), "float64")


@pytest.mark.parametrize("name", SAME_SHAPE | REDUCTIONS)
def test_where_takes_out_and_has_no_gradient(name: str) -> None:
    array, tensor = numbers((4, 6))
    tensor.requires_grad_()
    mask = np.random.default_rng(1).random((4, 6)) < 0.6
    mask[2] = True
    for chosen in (mask, mask[0], mask[:, :1], np.True_):
        where = torch.from_numpy(np.asarray(chosen))
        if name in ("mellowmax", "boltzmann_mean"):
            chosen = chosen | np.eye(4, 6, dtype=bool)
            where = torch.from_numpy(chosen)
        expected = (SAME_SHAPE | REDUCTIONS)[name](array, where=chosen)
        got = (SAME_SHAPE | REDUCTIONS)[name](tensor, where=where)
        assert_same(got, expected, "float64")
        assert_same((SAME_SHAPE | REDUCTIONS)[name](tensor, where=chosen), expected, "float64")
        finite = torch.where(torch.isfinite(got), got, 0)
        (slope,) = torch.autograd.grad((finite * finite).sum() + finite.sum(), tensor)
        assert torch.isfinite(slope).all()
        outside = np.broadcast_to(~np.asarray(chosen), (4, 6))
        np.testing.assert_array_equal(plain(slope)[outside], 0)


@pytest.mark.parametrize("name", SAME_SHAPE)
def test_out_takes_the_result(name: str) -> None:
    _, tensor = numbers()
    function = SAME_SHAPE[name]
    place = torch.empty_like(tensor)
    assert function(tensor, out=place) is place
    torch.testing.assert_close(place, function(tensor), rtol=0, atol=0)
    if name != "normalize":  # which gets a square
        itself = tensor.clone()
        assert function(itself, out=itself) is itself
        torch.testing.assert_close(itself, place, rtol=0, atol=0)
    transposed = torch.empty(5, 3, dtype=torch.float64).T
    torch.testing.assert_close(function(tensor, out=transposed), place, rtol=0, atol=0)


@pytest.mark.parametrize("name", SAME_SHAPE)
def test_out_is_refused_where_it_cannot_be_right(name: str) -> None:
    _, tensor = numbers()
    function = SAME_SHAPE[name]
    for wrong in (torch.empty(3, 4, dtype=torch.float64), torch.empty(3, 5)):
        with pytest.raises(ValueError, match="out must have shape"):
            function(tensor, out=wrong)
    with pytest.raises(TypeError, match="out must be a tensor"):
        function(tensor, out=np.empty((3, 5)))
    followed = tensor.clone().requires_grad_()
    with pytest.raises(ValueError, match="automatic differentiation"):
        function(followed, out=torch.empty_like(tensor))
    with torch.no_grad():
        function(followed, out=torch.empty_like(tensor))


@pytest.mark.parametrize("name", SAME_SHAPE | REDUCTIONS)
def test_dtype_is_the_results(name: str) -> None:
    for given in DTYPES:
        array, tensor = numbers((2, 4), given)
        for wanted in DTYPES:
            if name == "normalize":  # of a square, which would be rounded before
                array, tensor = abs(np.rint(array.astype("f8"))).astype(array.dtype), tensor.round().abs()
            expected = (SAME_SHAPE | REDUCTIONS)[name](array, dtype=wanted)
            got = (SAME_SHAPE | REDUCTIONS)[name](tensor, dtype=getattr(torch, wanted))
            assert_same(got, expected, wanted)
    with pytest.raises(TypeError, match="dtype must be float16, bfloat16, float32 or float64"):
        (SAME_SHAPE | REDUCTIONS)[name](tensor, dtype=torch.int64)
    with pytest.raises(TypeError, match="dtype must be float16, bfloat16, float32 or float64"):
        (SAME_SHAPE | REDUCTIONS)[name](tensor, dtype=np.float32)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_keepdims(name: str) -> None:
    array, tensor = numbers((2, 3, 4))
    for axis in axes((2, 3, 4)):
        assert_same(
            REDUCTIONS[name](tensor, axis, keepdims=True), REDUCTIONS[name](array, axis, keepdims=True), "float64"
        )


@pytest.mark.parametrize("name", SAME_SHAPE | REDUCTIONS)
def test_corners_are_numpys(name: str) -> None:
    rows = np.array(
        [[1, INF, 2], [INF, 0, INF], [-INF, -INF, -INF], [1, NAN, 2], [-INF, 1, 2], [1e308, -1e308, 0], [0, 0, 0]]
    )
    if name == "normalize":
        rows = np.array([[1, INF, 2], [INF, 0, INF], [1, NAN, 2], [0, 1, 2], [1e150, 1e150, 0]])
    function = (SAME_SHAPE | REDUCTIONS)[name]
    with np.errstate(all="ignore"):
        expected = function(rows)
    assert_same(function(torch.tensor(rows)), expected, "float64")


def test_entmax_with_one_alpha_per_row() -> None:
    array, tensor = numbers((3, 4, 5))
    for axis in (-1, 0, 1):
        shape = [3, 4, 5]
        shape[axis] = 1
        alpha = np.linspace(1, 2.5, math.prod(shape)).reshape(shape)
        expected = luce.entmax(array, axis, alpha=alpha)
        for given in (torch.tensor(alpha), alpha):
            assert_same(luce.entmax(tensor, axis, alpha=given), expected, "float64")
    assert_same(luce.entmax(tensor, alpha=torch.tensor(1.5)), luce.entmax15(array), "float64")
    assert_same(luce.entmax(tensor[0, 0, 0], alpha=torch.tensor(1.5)), np.float64(1), "float64")


def test_gumbel_softmax() -> None:
    _, tensor = numbers((2000, 3), "float32")
    tensor[:] = torch.tensor([0.0, 1.0, -INF])

    def drawn(**options: Any) -> torch.Tensor:
        result: torch.Tensor = luce.gumbel_softmax(tensor, rng=torch.Generator().manual_seed(3), **options)
        return result

    soft, hard = drawn(tau=0.7), drawn(hard=True)
    torch.testing.assert_close(drawn(tau=0.7), soft, rtol=0, atol=0)
    torch.testing.assert_close(soft.sum(1), torch.ones(2000))
    assert ((hard == 0) | (hard == 1)).all()
    assert (hard.sum(1) == 1).all()
    assert (soft.argmax(1) == hard.argmax(1)).all()
    assert (soft[:, 2] == 0).all()
    expected = luce.softmax(np.array([0.0, 1.0]))[1]
    assert abs(float(hard[:, 1].mean()) - expected) < 4 * math.sqrt(expected * (1 - expected) / 2000)
    masked = drawn(where=torch.tensor([True, False, True]))
    assert (masked[:, 0] == 1).all()
    assert drawn(dtype=torch.float64).dtype == torch.float64


def test_hard_gumbel_softmax_has_the_gradient_of_the_soft_one() -> None:
    x = numbers()[1].requires_grad_()
    slopes = [
        torch.autograd.grad(
            (luce.gumbel_softmax(x, hard=hard, rng=torch.Generator().manual_seed(1)) * ids(x.T)).sum(), x
        )[0]
        for hard in (False, True)
    ]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=0, atol=0)


def test_boltzmann_sample_takes_tensors() -> None:
    _, tensor = numbers((50, 4))
    for x in (tensor, tensor.requires_grad_(), tensor.bfloat16()):
        np.testing.assert_array_equal(
            luce.boltzmann_sample(x, rng=5), luce.boltzmann_sample(x.detach().double().numpy(), rng=5)
        )


def test_integer_pseudo_softmax_takes_no_tensors_of_other_dtypes() -> None:
    with pytest.raises(TypeError, match="int8"):
        luce.pseudo_softmax(torch.zeros(2), scale=1.0)


# Derivatives.

TARGET = torch.tensor([4, 0, 2])
MIXED = torch.tensor([4, -100, 2])
SPREAD = torch.softmax(torch.eye(3, 5, dtype=torch.float64), 1)
CLASS_WEIGHT = torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0], dtype=torch.float64)


def drawn(x: torch.Tensor, axis: int = -1) -> Any:
    return luce.gumbel_softmax(x, axis, tau=0.8, rng=torch.Generator().manual_seed(2))


LOSSES: dict[str, Call] = {
    "class ids": lambda x: luce.cross_entropy(x, TARGET),
    "sum": lambda x: luce.cross_entropy(x, TARGET, reduction="sum"),
    "none": lambda x: luce.cross_entropy(x, TARGET, reduction="none"),
    "distributions": lambda x: luce.cross_entropy(x, SPREAD),
    "weight": lambda x: luce.cross_entropy(x, TARGET, weight=CLASS_WEIGHT),
    "smoothing": lambda x: luce.cross_entropy(x, TARGET, label_smoothing=0.2, weight=CLASS_WEIGHT),
    "smoothed distributions": lambda x: luce.cross_entropy(x, SPREAD, label_smoothing=0.2, weight=CLASS_WEIGHT),
    "ignore_index": lambda x: luce.cross_entropy(x, MIXED, label_smoothing=0.1),
    "taylor link": lambda x: luce.cross_entropy(x, TARGET, link=luce.links.Taylor(temperature=2.0)),
    "spherical link": lambda x: luce.cross_entropy(x, SPREAD, link=luce.links.Spherical()),
    "focal": lambda x: luce.focal(x, TARGET, gamma=1.5),
    "focal, distributions": lambda x: luce.focal(x, SPREAD),
    "brier": lambda x: luce.brier(x, TARGET),
    "brier, distributions": lambda x: luce.brier(x, SPREAD),
}


def followed(seed: int = 0) -> torch.Tensor:
    """Logits (3, 5) of the usual size that have a gradient."""
    return (numbers(seed=seed)[1] / 2).requires_grad_()


@pytest.mark.parametrize("name", [*ALL, "gumbel_softmax"])
def test_derivatives(name: str) -> None:
    function = (ALL | {"gumbel_softmax": drawn})[name]
    for axis in (-1, 0):
        along = functools.partial(function, axis=axis)
        assert torch.autograd.gradcheck(along, followed())
        assert torch.autograd.gradgradcheck(along, followed())


@pytest.mark.parametrize("name", MAPS)
def test_derivatives_at_a_temperature(name: str) -> None:
    along = functools.partial(MAPS[name], temperature=1.7)
    assert torch.autograd.gradcheck(along, followed())
    assert torch.autograd.gradgradcheck(along, followed())


@pytest.mark.parametrize("alpha", [1.3, [[1.2], [1.7], [2.5]], [1.5]])
def test_derivatives_in_alpha(alpha: Any) -> None:
    a = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)

    def function(x: torch.Tensor, a: torch.Tensor) -> Any:
        return luce.entmax(x, alpha=a, temperature=1.5)

    assert torch.autograd.gradcheck(function, (followed(), a))
    assert torch.autograd.gradgradcheck(function, (followed(), a))


def test_the_slope_in_alpha_is_that_of_numpy() -> None:
    array = numbers()[0]
    for alpha in (1.0, 1.00001, 1.1, 1.5, 2.0, 3.0):
        a = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
        p = luce.entmax(torch.tensor(array), alpha=a)
        slopes = [float(torch.autograd.grad(entry, a, retain_graph=True)[0]) for entry in p.ravel()]
        expected = luce.entmax_slope(array, alpha=alpha)
        np.testing.assert_allclose(np.reshape(slopes, (3, 5)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_derivatives_of_losses(name: str) -> None:
    assert torch.autograd.gradcheck(LOSSES[name], followed())
    assert torch.autograd.gradgradcheck(LOSSES[name], followed())


@pytest.mark.parametrize("rows_at_a_time", [1, 2, None])
def test_derivatives_of_linear_cross_entropy(rows_at_a_time: int | None) -> None:
    x, matrix, bias = (numbers(shape, seed=i)[1].requires_grad_() for i, shape in enumerate([(3, 2), (5, 2), (5,)]))

    def loss(x: Any, matrix: Any, bias: Any) -> Any:
        return luce.linear_cross_entropy(
            x, matrix, MIXED, linear_bias=bias, label_smoothing=0.1, rows_at_a_time=rows_at_a_time
        )

    assert torch.autograd.gradcheck(loss, (x, matrix, bias))
    assert torch.autograd.gradgradcheck(loss, (x, matrix, bias))
    whole = luce.cross_entropy(F.linear(x, matrix, bias), MIXED, label_smoothing=0.1)
    torch.testing.assert_close(loss(x, matrix, bias), whole)


@pytest.mark.parametrize("name", [*SAME_SHAPE, *REDUCTIONS, "softmax_covariance"])
def test_what_is_not_there_has_no_gradient(name: str) -> None:
    x = torch.tensor([[1.0, -INF, 2.0], [-INF] * 3, [INF, 0, 1], [INF, -INF, INF]], dtype=torch.float64)
    if name == "normalize":
        x = torch.tensor([[1.0, 0.0, 2.0], [INF, 0, 1]], dtype=torch.float64)
    x.requires_grad_()
    y = luce.normalize(x) if name == "normalize" else ALL[name](x)
    finite = torch.where(torch.isfinite(y), y, 0)
    (slope,) = torch.autograd.grad((finite * finite + finite).sum(), x)
    assert torch.isfinite(slope).all()
    if name not in ("tanh", "relu", "sigmoid", "log_sigmoid", "normalize"):
        np.testing.assert_array_equal(plain(slope)[1:], 0)
        assert slope[0, 1] == 0
        assert slope[0, 0] != 0 or name == "sparsemax"


@pytest.mark.parametrize("name", ["taylor 2", "taylor 4", "spherical", "softmax", "entmax15", "mellowmax", "logsumexp"])
def test_far_logits_have_finite_gradients(name: str) -> None:
    x = torch.tensor([[1e200, -1e150, 3.0], [1e30, 1e30, -1e30]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad((ALL[name](x) * torch.tensor([1.0, 2.0, 3.0])[: ALL[name](x).shape[-1]]).sum(), x)
    assert torch.isfinite(slope).all()


PARAMETERS = {"taylor_softmax": 4.0, "log_taylor_softmax": 2.0, "spherical_softmax": 0.1, "log_spherical_softmax": 1e-3}


@pytest.mark.parametrize("name", MAPS_BY_NAME)
def test_formulas_are_the_kernels(name: str) -> None:
    """What tensors on other devices are computed by, here on the CPU."""
    m = MAPS_BY_NAME[name]
    rows = [[1.0, -2.0, 0.5], [3.0, -INF, 1.0], [-INF, -INF, -INF], [INF, 0.0, 1.0], [NAN, 0.0, 1.0]]
    x = torch.tensor(rows, dtype=torch.float64)
    for shape in (1.0, 1.3, 1.5, 2.0) if name == "entmax" else (PARAMETERS.get(name, 0.0),):
        by_kernel = operators.apply_map(x, shape, name, -1, 1.0)
        torch.testing.assert_close(by_formula(torch, m, x, -1, shape), by_kernel, equal_nan=True)
        assert by_formula(torch, m, x.half(), -1, shape).dtype == torch.float16
    alpha = torch.tensor([[1.0], [1.5], [2.0], [1.2], [1.0]], dtype=torch.float64)
    if name == "entmax":
        by_kernel = operators.apply_entmax(x, alpha, name, -1, 1.0)
        torch.testing.assert_close(by_formula(torch, m, x, -1, alpha), by_kernel, equal_nan=True)


def test_a_row_of_nothing_has_no_gradient_in_alpha() -> None:
    x = torch.tensor([[-INF] * 3, [INF, 0, 1], [1, -INF, 2]], dtype=torch.float64, requires_grad=True)
    alpha = torch.full((3, 1), 1.5, dtype=torch.float64, requires_grad=True)
    slopes = torch.autograd.grad((luce.entmax(x, alpha=alpha) ** 2).sum(), (x, alpha))
    assert all(torch.isfinite(s).all() for s in slopes)
    assert (slopes[0][:2] == 0).all()
    assert (slopes[1][:2] == 0).all()
    assert slopes[1][2] != 0


def test_losses_of_what_is_not_there() -> None:
    x = torch.tensor([[1.0, -INF, 2.0], [-INF] * 3], dtype=torch.float64, requires_grad=True)
    spread = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
    for loss in (
        luce.cross_entropy(x, torch.tensor([0, -100]), label_smoothing=0.1),
        luce.cross_entropy(x, spread),
        luce.focal(x, spread).sum(),
        luce.brier(x, spread).sum(),
    ):
        (slope,) = torch.autograd.grad(loss, x)
        assert torch.isfinite(slope).all()
        assert (slope[1] == 0).all()
        assert slope[0, 1] == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", MAPS)
def test_gradients_of_halves(name: str, dtype: str) -> None:
    _, x = numbers((3, 5), dtype)
    x = x / 2
    results = []
    for given in (x, x.double()):
        leaf = given.clone().requires_grad_()
        (slope,) = torch.autograd.grad((MAPS[name](leaf) * weights(x).to(given.dtype)).sum(), leaf)
        results.append(slope)
    assert results[0].dtype == x.dtype
    scale = float(results[1].abs().max())
    np.testing.assert_allclose(plain(results[0]), plain(results[1]), rtol=0, atol=4 * TOLERANCE[dtype] * scale)


# torch.compile and torch.func.

QUIET = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own doing


def value_and_slope(function: Call, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y = function(x)
    (slope,) = torch.autograd.grad((y * y).sum(), x)
    return y, slope


def compiled(function: Call, backend: str = "aot_eager") -> Call:
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend=backend)


def at_fixed_ids(function: Call, **options: Any) -> Call:
    return lambda x: function(x, target=TARGET, **options)


COMPILED: dict[str, Call] = {
    **{name: call for name, call in (ALL | LOSSES).items() if name not in ("soft_margin", "sm_taylor", "weighted")},
    "soft_margin": at_fixed_ids(luce.soft_margin_softmax),
    "sm_taylor": at_fixed_ids(luce.sm_taylor_softmax, degree=4),
    "weighted": lambda x: luce.logsumexp(x, weights=CLASS_WEIGHT),
    "masked": lambda x: luce.entmax15(x, where=CLASS_WEIGHT > 0),
    "alpha": lambda x: luce.entmax(x, alpha=CLASS_WEIGHT[:3, None] + 1),
    "pseudo, half": lambda x: luce.pseudo_softmax(x.bfloat16(), dtype=torch.float32).double(),
    "axis": lambda x: luce.log_softmax(x, 0, temperature=2.0, dtype=torch.float64),
}  # fmt: skip


@QUIET
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_is_the_same(name: str) -> None:
    expected = value_and_slope(COMPILED[name], followed())
    for got, wanted in zip(value_and_slope(compiled(COMPILED[name]), followed()), expected, strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own doing
def test_compiled_by_inductor() -> None:
    """One function of many maps: compiling for the machine takes its time."""

    def head(x: torch.Tensor) -> Any:
        z = luce.softmax(x, temperature=2.0) + luce.taylor_softmax(x, degree=4) + luce.sigmoid(x) + luce.relu(x)
        return luce.cross_entropy(z, TARGET, label_smoothing=0.1) + luce.entmax15(z).square().sum()

    # torch's own compiler command does not quote its paths: where there is a space in them, it cannot compile anything.
    backend = "aot_eager" if " " in torch.__file__ else "inductor"
    expected = value_and_slope(head, followed())
    for got, wanted in zip(value_and_slope(compiled(head, backend), followed()), expected, strict=True):
        torch.testing.assert_close(got, wanted)


@QUIET
def test_compiled_with_another_number_of_rows_and_temperature() -> None:
    function = compiled(lambda x, t: luce.softmax(x, temperature=t))
    for rows, temperature in ((3, 1.0), (4, 2.0), (7, 0.3)):
        x = numbers((rows, 5))[1]
        torch.testing.assert_close(function(x, temperature), luce.softmax(x, temperature=temperature))


@pytest.mark.parametrize("name", ALL)
def test_func_grad_vmap_and_jacrev(name: str) -> None:
    function, x = ALL[name], followed()
    _, slope = value_and_slope(function, x)
    x = x.detach()
    torch.testing.assert_close(torch.func.grad(lambda x: (function(x) ** 2).sum())(x), slope)
    each = torch.stack([function(row) for row in x])
    torch.testing.assert_close(torch.func.vmap(function)(x), each)
    torch.testing.assert_close(torch.func.vmap(function, in_dims=1)(x.T), each)
    jacobians = torch.func.vmap(torch.func.jacrev(function))(x)
    plainly = torch.stack([FUNCTIONAL.jacobian(function, row) for row in x])
    torch.testing.assert_close(jacobians, plainly)


def test_second_derivatives_by_func() -> None:
    row = followed().detach()[0]
    hessian = torch.func.jacrev(torch.func.jacrev(luce.logsumexp))(row)
    torch.testing.assert_close(hessian, luce.softmax_covariance(row))
    for function in (luce.softmax, luce.entmax15, luce.taylor_softmax):
        by_func = torch.func.jacrev(torch.func.jacrev(lambda x, f=function: (f(x) ** 2).sum()))(row)
        plainly = FUNCTIONAL.hessian(lambda x, f=function: (f(x) ** 2).sum(), row)
        torch.testing.assert_close(by_func, plainly)


def test_alpha_under_vmap() -> None:
    x = followed().detach()
    alpha = torch.tensor([1.2, 1.5, 2.0], dtype=torch.float64)
    expected = luce.entmax(x, alpha=alpha[:, None])
    torch.testing.assert_close(torch.func.vmap(lambda x, a: luce.entmax(x, alpha=a))(x, alpha), expected)
    torch.testing.assert_close(torch.func.vmap(lambda x: luce.entmax(x, alpha=alpha[1]))(x)[1], expected[1])
    many = torch.func.vmap(lambda a: luce.entmax(x, alpha=a))(alpha)
    torch.testing.assert_close(many[[0, 1, 2], [0, 1, 2]], expected)
    slope = torch.func.grad(lambda a: (luce.entmax(x, alpha=a) ** 2).sum())(alpha[1])
    each = torch.func.vmap(torch.func.grad(lambda a, x: (luce.entmax(x, alpha=a) ** 2).sum()))(alpha[[1, 1, 1]], x)
    torch.testing.assert_close(each.sum(), slope)


def test_gradients_per_example() -> None:
    x = followed().detach()
    for loss in (
        lambda x, y: luce.cross_entropy(x[None], y[None], label_smoothing=0.1),
        lambda x, y: luce.focal(x[None], y[None]).sum(),
        lambda x, y: luce.brier(x[None], y[None]).sum(),
    ):
        each = torch.func.vmap(torch.func.grad(loss))(x, TARGET)
        plainly = torch.stack([torch.func.grad(loss)(x[i], TARGET[i]) for i in range(3)])
        torch.testing.assert_close(each, plainly)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_forward_mode_says_plainly_that_it_is_not_offered() -> None:
    x = followed().detach()
    # torch's own message and class: what a user sees who asks for what is not offered
    with pytest.raises(NotImplementedError, match="must implement the jvp function"):
        torch.func.jvp(luce.softmax, (x,), (x,))


def test_random_numbers_under_vmap_need_torchs_flag() -> None:
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(luce.gumbel_softmax)(followed().detach())


# Losses and links.


def test_losses_are_numpys() -> None:
    array, tensor = numbers()
    spread, class_weight = SPREAD.numpy(), CLASS_WEIGHT.numpy()
    for target in (TARGET, MIXED, SPREAD):
        for reduction in ("none", "mean", "sum"):
            for smoothing in (0, 0.3, 1):
                for weight in (None, CLASS_WEIGHT):
                    options: Any = {"reduction": reduction, "label_smoothing": smoothing}
                    got = luce.cross_entropy(tensor, target, weight=weight, **options)
                    plainly = None if weight is None else class_weight
                    assert_same(got, luce.cross_entropy(array, target.numpy(), weight=plainly, **options), "float64")
    for loss in (luce.focal, luce.brier):
        assert_same(loss(tensor, TARGET), loss(array, TARGET.numpy()), "float64")
        assert_same(loss(tensor, SPREAD), loss(array, spread), "float64")


@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_keep_the_dtype(dtype: str) -> None:
    array, tensor = numbers((3, 5), dtype)
    for loss in (luce.cross_entropy, luce.focal, luce.brier):
        assert_same(loss(tensor, TARGET), loss(array, TARGET.numpy()), dtype)
    for target in (TARGET.int(), TARGET.to(torch.uint8), TARGET.tolist(), TARGET.numpy()):
        assert_same(luce.cross_entropy(tensor, target), luce.cross_entropy(array, TARGET.numpy()), dtype)
    features, matrix = numbers((3, 4), dtype, seed=1), numbers((5, 4), dtype, seed=2)
    got = luce.linear_cross_entropy(features[1], matrix[1], TARGET)
    expected = luce.linear_cross_entropy(plain(features[0]), plain(matrix[0]), TARGET.numpy())
    np.testing.assert_allclose(plain(got), expected, rtol=3 * TOLERANCE[dtype])
    assert got.dtype == getattr(torch, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LINKS)
def test_links_take_tensors(name: str, dtype: str) -> None:
    array, tensor = numbers((3, 5), dtype)
    link = LINKS[name]()
    warmer: Any = dataclasses.replace(link, temperature=2.0)
    for member in (link, warmer):
        assert_same(member.probabilities(tensor), member.probabilities(array), dtype)
        with np.errstate(divide="ignore"):
            assert_same(member.log_probabilities(tensor), member.log_probabilities(array), dtype)
        for target in (TARGET, SPREAD, TARGET.to(torch.int16), SPREAD.half()):
            loss, grad = member.loss_and_grad(tensor, target)
            loss_2, grad_2 = member.loss_and_grad(array, target.numpy())
            assert_same(loss, loss_2, dtype)
            assert_same(grad, grad_2, dtype)
    place = torch.empty_like(tensor)
    loss, grad = link.loss_and_grad(tensor, TARGET, out=place)
    assert grad is place
    assert_same(place, link.loss_and_grad(array, TARGET.numpy())[1], dtype)


@pytest.mark.parametrize("name", ["softmax", "taylor", "spherical", "pseudo"])  # the others have losses of their own
def test_slopes_of_links_are_those_of_cross_entropy(name: str) -> None:
    link, x = LINKS[name](), followed()
    loss, grad = link.loss_and_grad(x, TARGET)
    same = luce.cross_entropy(x, TARGET, link=link, reduction="none")
    torch.testing.assert_close(loss, same.detach())
    torch.testing.assert_close(grad, torch.autograd.grad(same.sum(), x)[0])


# Messages.


MALFORMED: dict[str, Call] = {
    "dtype": lambda new: luce.softmax(new([True, False])),
    "dtype of logsumexp": lambda new: luce.logsumexp(new([True, False])),
    "complex": lambda new: luce.softmax(new([1j, 2])),
    "complex tanh": lambda new: luce.tanh(new([1j, 2])),
    "axis": lambda new: luce.softmax(new([[1.0, 2.0]]), 2),
    "axis of logsumexp": lambda new: luce.logsumexp(new([[1.0, 2.0]]), -3),
    "axis of mellowmax": lambda new: luce.mellowmax(new([[1.0, 2.0]]), 2),
    "axis of boltzmann_mean": lambda new: luce.boltzmann_mean(new([[1.0, 2.0]]), 2),
    "axis of normalize": lambda new: luce.normalize(new([[1.0, 2.0]]), 2),
    "axis of softmax_covariance": lambda new: luce.softmax_covariance(new([[1.0, 2.0]]), 2),
    "axis of softmax_vjp": lambda new: luce.softmax_vjp(new([[1.0, 2.0]]), new([[1.0, 2.0]]), 2),
    "axis of gumbel_softmax": lambda new: luce.gumbel_softmax(new([[1.0, 2.0]]), 2),
    "axis of entmax": lambda new: luce.entmax(new([[1.0, 2.0]]), 2, alpha=new([1.5])),
    "axis that is no whole number": lambda new: luce.softmax(new([[1.0, 2.0]]), 0.5),
    "temperature 0": lambda new: luce.softmax(new([1.0, 2.0]), temperature=0),
    "temperature -1": lambda new: luce.entmax15(new([1.0, 2.0]), temperature=-1),
    "temperature None": lambda new: luce.sigmoid(new([1.0, 2.0]), temperature=None),
    "tau 0": lambda new: luce.gumbel_softmax(new([1.0, 2.0]), tau=0),
    "omega 0": lambda new: luce.mellowmax(new([1.0, 2.0]), omega=0),
    "where of numbers": lambda new: luce.softmax(new([1.0, 2.0]), where=new([1, 0])),
    "where of another shape": lambda new: luce.softmax(new([1.0, 2.0]), where=new([True, False, True])),
    "where that is too large": lambda new: luce.tanh(new([1.0, 2.0]), where=new([[True], [False]])),
    "where of logsumexp": lambda new: luce.logsumexp(new([1.0, 2.0]), where=new([True, False, True])),
    "negative weight": lambda new: luce.logsumexp(new([1.0, 2.0]), weights=new([1.0, -1.0])),
    "NaN for a weight": lambda new: luce.logsumexp(new([1.0, 2.0]), weights=new([1.0, NAN])),
    "weights of another shape": lambda new: luce.logsumexp(new([1.0, 2.0]), weights=new([1.0, 1.0, 1.0])),
    "degree": lambda new: luce.taylor_softmax(new([1.0, 2.0]), degree=3),
    "eps": lambda new: luce.spherical_softmax(new([1.0, 2.0]), eps=0),
    "alpha": lambda new: luce.entmax(new([1.0, 2.0]), alpha=0.5),
    "alphas": lambda new: luce.entmax(new([[1.0, 2.0]]), alpha=new([[0.5]])),
    "shape of alphas": lambda new: luce.entmax(new([[1.0, 2.0]]), alpha=new([1.5, 1.5])),
    "margin": lambda new: luce.soft_margin_softmax(new([1.0, 2.0]), target=0, margin=-1),
    "class id of a margin": lambda new: luce.soft_margin_softmax(new([[1.0, 2.0]]), target=new([2])),
    "shape of ids": lambda new: luce.sm_taylor_softmax(new([[1.0, 2.0]]), target=new([1, 1])),
    "dtype of ids": lambda new: luce.soft_margin_softmax(new([[1.0, 2.0]]), target=new([1.0])),
    "negative share": lambda new: luce.normalize(new([1.0, -2.0])),
    "no sum": lambda new: luce.normalize(new([[1.0, 2.0], [0.0, 0.0]])),
    "no sum but masked": lambda new: luce.normalize(new([[1.0, 0.0]]), where=new([[False, True]])),
    "vector": lambda new: luce.softmax_vjp(new([0.5, 0.5]), new([1.0, 1.0, 1.0])),
    "class id": lambda new: luce.cross_entropy(new([[1.0, 2.0], [1.0, 2.0]]), new([0, 2])),
    "class id of linear": lambda new: luce.linear_cross_entropy(
        new([[1.0], [2.0], [3.0]]), new([[1.0], [2.0]]), new([0, 1, 2]), rows_at_a_time=1
    ),
    "class id of focal": lambda new: luce.focal(new([[1.0, 2.0]]), new([-1])),
    "class id of brier": lambda new: luce.brier(new([[1.0, 2.0]]), new([5])),
    "class id of a link": lambda new: luce.links.Softmax().loss_and_grad(new([[1.0, 2.0]]), new([5])),
    "boolean target": lambda new: luce.cross_entropy(new([[1.0, 2.0]]), new([True])),
    "negative distribution": lambda new: luce.cross_entropy(new([[1.0, 2.0]]), new([[1.5, -0.5]])),
    "shape of distributions": lambda new: luce.brier(new([[1.0, 2.0]]), new([[1.0]])),
    "logits of one row": lambda new: luce.cross_entropy(new([1.0, 2.0]), new([0])),
    "logits of focal": lambda new: luce.focal(new([1.0, 2.0]), new([0])),
    "logits of brier": lambda new: luce.brier(new([1.0, 2.0]), new([0])),
    "logits of a link": lambda new: luce.links.Taylor().loss_and_grad(new([1.0, 2.0]), new([0])),
    "class weight": lambda new: luce.cross_entropy(new([[1.0, 2.0]]), new([0]), weight=new([1.0, -1.0])),
    "reduction": lambda new: luce.cross_entropy(new([[1.0, 2.0]]), new([0]), reduction="max"),
    "smoothing": lambda new: luce.cross_entropy(new([[1.0, 2.0]]), new([0]), label_smoothing=2),
    "sparse link": lambda new: luce.cross_entropy(new([[1.0, 2.0]]), new([0]), link=luce.links.Sparsemax()),
    "shapes of linear": lambda new: luce.linear_cross_entropy(new([[1.0]]), new([[1.0, 2.0]]), new([0])),
    "bias of linear": lambda new: luce.linear_cross_entropy(
        new([[1.0]]), new([[1.0], [2.0]]), new([0]), linear_bias=new([1.0])
    ),
    "no values to draw from": lambda new: luce.boltzmann_sample(new([-INF, -INF])),
    "axis of boltzmann_sample": lambda new: luce.boltzmann_sample(new([1.0, 2.0]), 1),
}  # fmt: skip


def message(call: Call, new: Call) -> tuple[type[Exception], str]:
    with pytest.raises((TypeError, ValueError)) as caught:
        call(new)
    text = re.sub(r"(array|tensor)\(|, dtype=[a-z.0-9]+|\)|torch\.", "", str(caught.value))
    return caught.type, re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_calls_say_the_same_as_for_numpy(name: str) -> None:
    def new(values: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(values))

    assert message(MALFORMED[name], new) == message(MALFORMED[name], np.array)


# Where others are right, we agree; where they are not, it is pinned here.


def test_agrees_with_torch_where_that_is_right() -> None:
    x = followed()
    for ours, theirs in (
        (luce.softmax(x), torch.softmax(x, 1)),
        (luce.log_softmax(x, 0), torch.log_softmax(x, 0)),
        (luce.logsumexp(x), torch.logsumexp(x, 1)),
        (luce.sigmoid(x), torch.sigmoid(x)),
        (luce.log_sigmoid(x), F.logsigmoid(x)),
    ):
        torch.testing.assert_close(ours, theirs)
        slopes = [torch.autograd.grad((y * y).sum(), x, retain_graph=True)[0] for y in (ours, theirs)]
        torch.testing.assert_close(*slopes)
    reductions: tuple[Any, ...] = ("none", "mean", "sum")
    for reduction in reductions:
        for target in (TARGET, MIXED, SPREAD):
            for weight in (None, CLASS_WEIGHT):
                options: Any = {"weight": weight, "reduction": reduction, "label_smoothing": 0.1}
                torch.testing.assert_close(
                    luce.cross_entropy(x, target, **options), F.cross_entropy(x, target, **options)
                )
    matrix = numbers((5, 4), seed=3)[1]
    torch.testing.assert_close(
        luce.linear_cross_entropy(matrix[:3], matrix, TARGET), F.cross_entropy(matrix[:3] @ matrix.T, TARGET)
    )


def test_agrees_with_entmax_where_that_is_right() -> None:
    x = followed()
    alpha = torch.tensor([[1.2], [1.5], [2.3]], dtype=torch.float64, requires_grad=True)
    pairs: list[tuple[Any, Any]] = [
        (luce.sparsemax(x), entmax.sparsemax(x, dim=1)),
        (luce.entmax15(x, 0), entmax.entmax15(x, dim=0)),
        (luce.entmax(x, alpha=1.3), entmax.entmax_bisect(x, 1.3)),
        (luce.entmax(x, alpha=alpha), entmax.entmax_bisect(x, alpha)),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
        slopes = [torch.autograd.grad((y * y).sum(), x, retain_graph=True)[0] for y in (ours, theirs)]
        torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-12)
    slopes = [torch.autograd.grad((y * y).sum(), alpha)[0] for y in pairs[3]]
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-12)
    for link, loss in (("sparsemax", entmax.sparsemax_loss), ("entmax", entmax.entmax15_loss)):
        ours, grad = LINKS[link]().loss_and_grad(x, TARGET)
        theirs = loss(x, TARGET)
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(grad, torch.autograd.grad(theirs.sum(), x)[0], rtol=1e-9, atol=1e-12)


ONE, TWO, NONE = [1.0, INF, 2.0], [INF, 0.0, INF], [-INF, -INF, -INF]
HALVES = np.zeros(70000, np.float16)


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def slope(function: Call, values: Any) -> torch.Tensor:
    x = tensor(values).requires_grad_()
    y = function(x)
    return torch.autograd.grad(torch.where(torch.isfinite(y), y * y, 0).sum(), x)[0]


def row(x: Any) -> torch.Tensor:
    return tensor([x])


# (what is asked, what the others give, what stands here). A string is the start of an error.
PEERS: dict[str, tuple[Call, Any, Call, Any]] = {
    "softmax of one +inf, SciPy": (lambda: scipy.special.softmax(ONE), NAN, lambda: luce.softmax(ONE), [0, 1, 0]),
    "softmax of one +inf, torch": (
        lambda: torch.softmax(tensor(ONE), 0), NAN, lambda: luce.softmax(tensor(ONE)), [0, 1, 0]),
    "softmax of two +inf, SciPy": (lambda: scipy.special.softmax(TWO), NAN, lambda: luce.softmax(TWO), [0.5, 0, 0.5]),
    "softmax of two +inf, torch": (
        lambda: torch.softmax(tensor(TWO), 0), NAN, lambda: luce.softmax(tensor(TWO)), [0.5, 0, 0.5]),
    "softmax of nothing, SciPy": (lambda: scipy.special.softmax(NONE), NAN, lambda: luce.softmax(NONE), 0),
    "softmax of nothing, torch": (
        lambda: torch.softmax(tensor(NONE), 0), NAN, lambda: luce.softmax(tensor(NONE)), 0),
    "log_softmax of one +inf, SciPy": (
        lambda: scipy.special.log_softmax(ONE), [-INF, NAN, -INF], lambda: luce.log_softmax(ONE), [-INF, 0, -INF]),
    "log_softmax of one +inf, torch": (
        lambda: torch.log_softmax(tensor(ONE), 0), NAN, lambda: luce.log_softmax(tensor(ONE)), [-INF, 0, -INF]),
    "log_softmax of nothing, SciPy": (
        lambda: scipy.special.log_softmax(NONE), NAN, lambda: luce.log_softmax(NONE), -INF),
    "log_softmax of nothing, torch": (
        lambda: torch.log_softmax(tensor(NONE), 0), NAN, lambda: luce.log_softmax(tensor(NONE)), -INF),
    "slope of softmax of nothing, torch": (
        lambda: torch.func.grad(lambda x: torch.softmax(x, 0)[0])(tensor(NONE)), NAN,
        lambda: torch.func.grad(lambda x: luce.softmax(x)[0])(tensor(NONE)), 0),
    "slope of logsumexp of nothing, torch": (
        lambda: torch.func.grad(lambda x: torch.logsumexp(x, 0))(tensor(NONE)), NAN,
        lambda: torch.func.grad(luce.logsumexp)(tensor(NONE)), 0),
    "slope of logsumexp of one +inf, torch": (
        lambda: torch.func.grad(lambda x: torch.logsumexp(x, 0))(tensor(ONE)), [0, NAN, 0],
        lambda: torch.func.grad(luce.logsumexp)(tensor(ONE)), 0),
    "no classes, SciPy": (
        lambda: scipy.special.softmax(np.zeros((3, 0)), axis=1), "ValueError: zero-size array",
        lambda: luce.softmax(np.zeros((3, 0))).size, 0),
    "70,000 equal halves, SciPy": (
        lambda: scipy.special.softmax(HALVES), 0, lambda: luce.softmax(HALVES), np.float16(1 / 70000)),
    "logsumexp of halves, SciPy": (
        lambda: scipy.special.logsumexp(HALVES), INF, lambda: luce.logsumexp(HALVES), np.float16(math.log(70000))),
    "log_softmax of halves, SciPy": (
        lambda: scipy.special.log_softmax(HALVES), -INF,
        lambda: luce.log_softmax(HALVES), -np.float16(math.log(70000))),
    "logsumexp of halves, torch": (
        lambda: torch.logsumexp(torch.from_numpy(HALVES), 0), INF,
        lambda: luce.logsumexp(torch.from_numpy(HALVES)), np.float16(math.log(70000))),
    "log_softmax of halves, torch": (
        lambda: torch.log_softmax(torch.from_numpy(HALVES), 0), -INF,
        lambda: luce.log_softmax(torch.from_numpy(HALVES)), -np.float16(math.log(70000))),
    "integers, torch": (
        lambda: torch.softmax(torch.tensor([0, 0]), 0), "NotImplementedError",
        lambda: luce.softmax(torch.tensor([0, 0])), 0.5),
    "every row ignored, torch": (
        lambda: F.cross_entropy(tensor([[1, 2]]), torch.tensor([-100])), NAN,
        lambda: luce.cross_entropy(tensor([[1, 2]]), torch.tensor([-100])), 0),
    "no rows, torch": (
        lambda: F.cross_entropy(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)), NAN,
        lambda: luce.cross_entropy(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)), 0),
    "weights of 0 only, torch": (
        lambda: F.cross_entropy(tensor([[1, 2]]), torch.tensor([0]), weight=tensor([0, 1])), NAN,
        lambda: luce.cross_entropy(tensor([[1, 2]]), torch.tensor([0]), weight=tensor([0, 1])), 0),
    "smoothing beside -inf, torch": (
        lambda: F.cross_entropy(tensor([[0, -INF, 0]]), torch.tensor([0]), label_smoothing=0.1), INF,
        lambda: luce.cross_entropy(tensor([[0, -INF, 0]]), torch.tensor([0]), label_smoothing=0.1), math.log(2)),
    "no mass on -inf, torch": (
        lambda: F.cross_entropy(tensor([[0, -INF, 0]]), tensor([[0.5, 0, 0.5]])), NAN,
        lambda: luce.cross_entropy(tensor([[0, -INF, 0]]), tensor([[0.5, 0, 0.5]])), math.log(2)),
    "loss at +inf, torch": (
        lambda: F.cross_entropy(tensor([[0, INF]]), torch.tensor([1])), NAN,
        lambda: luce.cross_entropy(tensor([[0, INF]]), torch.tensor([1])), 0),
    "int32 class ids, torch": (
        lambda: F.cross_entropy(tensor([[0, 0]]), torch.tensor([1], dtype=torch.int32)), "RuntimeError: expected",
        lambda: luce.cross_entropy(tensor([[0, 0]]), torch.tensor([1], dtype=torch.int32)), math.log(2)),
    "tau 0, torch": (
        lambda: F.gumbel_softmax(tensor([1, 2]), tau=0), NAN,
        lambda: luce.gumbel_softmax(tensor([1, 2]), tau=0), "ValueError: gumbel_softmax: tau must be positive"),
    "sparsemax of one +inf, entmax": (
        lambda: entmax.sparsemax(row(ONE)), "RuntimeError: index -1", lambda: luce.sparsemax(row(ONE)), [[0, 1, 0]]),
    "entmax15 of one +inf, entmax": (
        lambda: entmax.entmax15(row(ONE)), "RuntimeError: index -1", lambda: luce.entmax15(row(ONE)), [[0, 1, 0]]),
    "entmax_bisect of one +inf, entmax": (
        lambda: entmax.entmax_bisect(row(ONE)), NAN, lambda: luce.entmax(row(ONE)), [[0, 1, 0]]),
    "sparsemax of nothing, entmax": (
        lambda: entmax.sparsemax(row(NONE)), "RuntimeError: index -1", lambda: luce.sparsemax(row(NONE)), 0),
    "entmax_bisect of nothing, entmax": (
        lambda: entmax.entmax_bisect(row(NONE)), NAN, lambda: luce.entmax(row(NONE)), 0),
    "sparsemax of NaN, entmax": (
        lambda: entmax.sparsemax(row([1.0, NAN])), "RuntimeError: index -1",
        lambda: luce.sparsemax(row([1.0, NAN])), NAN),
    "no classes, entmax": (
        lambda: entmax.sparsemax(torch.zeros(3, 0)), "IndexError",
        lambda: luce.sparsemax(torch.zeros(3, 0)).numel(), 0),
    "integers, entmax_bisect": (
        lambda: entmax.entmax_bisect(torch.tensor([0, 0, 9])), 1 / 3,
        lambda: luce.entmax(torch.tensor([0, 0, 9])), [0, 0, 1]),
    "alpha 1, entmax_bisect": (
        lambda: entmax.entmax_bisect(tensor([0.0, math.log(3)]), 1.0), 0.5,
        lambda: luce.entmax(tensor([0.0, math.log(3)]), alpha=1.0), [0.25, 0.75]),
    "far logits, entmax_bisect": (
        lambda: entmax.entmax_bisect(torch.tensor([1e8, 0, -1e8])), NAN,
        lambda: luce.entmax(torch.tensor([1e8, 0, -1e8])), [1, 0, 0]),
    "NumPy arrays, entmax": (
        lambda: entmax.sparsemax(np.zeros((1, 2))), "TypeError", lambda: luce.sparsemax(np.zeros((1, 2))), 0.5),
}  # fmt: skip


def outcome(call: Call) -> Any:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return call()
        except Exception as error:  # the peers raise every kind, and which one is what is compared
            return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("name", PEERS)
def test_where_others_part_from_the_definitions(name: str) -> None:
    theirs, expected_theirs, ours, expected_ours = PEERS[name]
    for call, expected in ((theirs, expected_theirs), (ours, expected_ours)):
        got = outcome(call)
        if isinstance(expected, str) or isinstance(got, str):
            assert str(got).startswith(str(expected))
        else:
            values = plain(got)
            np.testing.assert_allclose(values, np.broadcast_to(plain(expected), values.shape), rtol=1e-3, atol=1e-6)


def test_halves_of_entmax_do_not_sum_to_one() -> None:
    x = torch.tensor(np.random.default_rng(0).normal(size=(20, 1000))).bfloat16()

    def worst(p: Any) -> float:
        return float((p.double().sum(1) - 1).abs().max())

    assert worst(entmax.entmax15(x, dim=1)) > 0.02
    assert worst(luce.entmax15(x)) < 0.004


def test_second_derivatives_of_entmax15_are_wrong_in_entmax() -> None:
    with pytest.raises(GradcheckError):
        torch.autograd.gradgradcheck(lambda x: entmax.entmax15(x, dim=1), followed())
    assert torch.autograd.gradgradcheck(luce.entmax15, followed())


def test_the_slope_in_alpha_at_1_is_nan_in_entmax() -> None:
    alpha = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    x = followed().detach()
    assert torch.isnan(torch.autograd.grad(entmax.entmax_bisect(x, alpha).square().sum(), alpha)[0])
    assert torch.isfinite(torch.autograd.grad(luce.entmax(x, alpha=alpha).square().sum(), alpha)[0])


def test_entmax_does_not_work_under_func() -> None:
    x = followed().detach()
    for transform in (torch.func.vmap(entmax.sparsemax), torch.func.grad(lambda x: entmax.sparsemax(x).square().sum())):
        with pytest.raises(RuntimeError, match="setup_context"):
            transform(x)


def test_a_gradient_goes_into_tensors_only() -> None:
    link, x = luce.links.Softmax(), torch.zeros(2, 3)
    for out in (np.zeros((2, 3), np.float32), torch.zeros(3, 2)):
        with pytest.raises(TypeError, match=r"^Softmax\.loss_and_grad: out must be a tensor of the shape of logits"):
            link.loss_and_grad(x, torch.tensor([0, 1]), out=out)
    with pytest.raises(TypeError, match=r"^linear_cross_entropy: linear_weight and linear_bias must be tensors"):
        luce.linear_cross_entropy(x, [[1.0, 0.0, 0.0]], torch.tensor([0, 0]))
