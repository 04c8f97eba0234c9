"""The native passes over rows: a plain float64 sum for every instruction set, dtype and shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from luce import _native
from luce.links import LINKS, Spherical, Taylor
from luce.regression import RowLoss, Rows, row_loss
from luce.regression.objective import affine, loss_and_grad
from luce.regression.row_loss import ENTMAX, SIGMOID, SOFTMAX
from tests import plain_regression as plain

Array = NDArray[Any]
FEATURES = ("uint8", "float32", "float64")
FLOATS = ("float32", "float64")
COLUMNS = (1, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100)
OUTPUTS = (*range(1, 14), 24)
ROWS = (1, 2, 3, 4, 5, 63, 64, 65, 257, 300, 513, 1000)
LOSSES = {name: row_loss(link()) for name, link in LINKS.items()} | {
    # eps of spherical softmax at 1: at its usual 1e-3 a number near zero turns its loss by 1 / sqrt(eps)
    "spherical": row_loss(Spherical(eps=1.0)),
    "taylor of degree 6, hot": row_loss(Taylor(degree=6, temperature=2.0)),
}


@dataclass(frozen=True)
class Case:
    """Rows and the operands of a pass over them."""

    x: Array
    center: Array
    matrix: Array
    offset: Array
    target: Array
    weight: Array
    loss: RowLoss = RowLoss()  # noqa: RUF009  # it is frozen

    @property
    def precision(self) -> float:
        return float(np.finfo(self.matrix.dtype).eps)


@dataclass(frozen=True)
class Sums:
    """What a pass gives."""

    loss: Array
    grad: Array
    grad_offset: Array


def case(
    n: int,
    d: int,
    k: int,
    features: str = "float32",
    dtype: str = "float32",
    *,
    problems: int = 1,
    soft: bool = False,
    loss: RowLoss | None = None,
    seed: int = 0,
) -> Case:
    rng = np.random.default_rng([seed, n, d, k, problems])
    x: Array = rng.integers(0, 256, (n, d)) if features == "uint8" else rng.normal(0.3, 1, (n, d))
    unit = 100 if features == "uint8" else 1
    weight = rng.random((n, problems)) * (rng.random((n, problems)) < 0.9)
    return Case(
        x.astype(features),
        (rng.normal(0.3, 0.2, d) * unit).astype(dtype),
        (rng.normal(size=(problems * k, d)) / unit / np.sqrt(d)).astype(dtype),
        rng.normal(size=problems * k).astype(dtype),
        rng.dirichlet(np.ones(k), n).astype(dtype) if soft else rng.integers(0, k, n),
        (weight / n).astype(dtype),
        RowLoss() if loss is None else loss,
    )


def points_of(c: Case) -> Array:
    """The weights and biases of each problem (B, K D + K)."""
    b = c.weight.shape[1]
    return np.hstack([c.matrix.reshape(b, -1), c.offset.reshape(b, -1)]).astype(np.float64)


def sums_of(value: Array, grad: Array, d: int) -> Sums:
    k = grad.shape[1] // (d + 1)
    return Sums(value, grad[:, : k * d].reshape(-1, d), grad[:, k * d :].reshape(-1))


def native_pass(c: Case, n_threads: int = 1) -> Sums:
    classes, distributions = (c.target, None) if c.target.ndim == 1 else (None, c.target)
    points = points_of(c)
    value, grad = np.full(len(points), np.nan), np.full(points.shape, np.nan)
    _native.linear_pass(
        c.x, c.center, points, None, np.zeros(len(points)), classes, distributions, c.weight, value, grad,
        c.loss.member, c.loss.beta, c.loss.shape, c.loss.margin, n_threads,
    )  # fmt: skip
    return sums_of(value, grad, c.x.shape[1])


def centred(c: Case) -> Array:
    """The rows as the kernels read them: rounded to the dtype of the arithmetic."""
    return np.asarray(c.x.astype(c.matrix.dtype).astype(np.float64) - c.center.astype(np.float64))


def plain_logits(c: Case) -> tuple[Array, Array]:
    """Logits (n, m), and the sums of the absolute values of their terms."""
    x, matrix, offset = centred(c), c.matrix.astype(np.float64), c.offset.astype(np.float64)
    return x @ matrix.T + offset, np.abs(x) @ np.abs(matrix).T + np.abs(offset)


def plain_pass(c: Case) -> tuple[Sums, Sums]:
    """The sums, and how far rounding may move them.

    A sum of d products is off by at most (d + 2) eps of its absolute terms (the difference and the product are rounded,
    too). Losses and gradients in the logits of every member here change by at most 2 beta (1 + beta) times as much, and
    by 20 eps of themselves and of what they are made of. Gradients are added in the dtype for a run of rows, here of at
    most 512, then in float64.
    """
    n, d = c.x.shape
    b = c.weight.shape[1]
    k = len(c.matrix) // b
    x, w = centred(c), c.weight.astype(np.float64)
    z, size = plain_logits(c)
    q = plain.distributions_of(c.target, k)
    beta = c.loss.beta
    value, allowed = (Sums(np.zeros(b), np.zeros((b * k, d)), np.zeros(b * k)) for _ in range(2))
    for j in range(b):
        part = slice(j * k, (j + 1) * k)
        loss, grad = plain.row_losses(c.loss, z[:, part], q)
        value.loss[j] = w[:, j] @ loss
        residual = grad * w[:, j, None]
        value.grad[part], value.grad_offset[part] = residual.T @ x, residual.sum(axis=0)
        reach = 1 + c.loss.margin + size[:, part].max(axis=1)
        moved = c.precision * 2 * (1 + beta) ** 2 * (d + 22) * reach * w[:, j]
        allowed.loss[j] = ((k if c.loss.member == SIGMOID else 1) * moved + c.precision * w[:, j] * loss).sum()
        adding = (min(n, 512) + 3) * c.precision
        allowed.grad[part] = moved @ np.abs(x) + adding * np.abs(residual).T @ np.abs(x)
        allowed.grad_offset[part] = moved.sum() + adding * np.abs(residual).sum(axis=0)
    return value, allowed


def off(found: Sums, expected: Sums, allowed: Sums) -> list[str]:
    """Which sums are further from the truth than rounding explains."""
    tiny = 1e-300
    return [
        f"{name}: {np.abs(getattr(found, name) - getattr(expected, name)).max()}"
        for name in ("loss", "grad", "grad_offset")
        if not (np.abs(getattr(found, name) - getattr(expected, name)) <= getattr(allowed, name) + tiny).all()
    ]


def assert_plain(c: Case) -> None:
    assert off(native_pass(c), *plain_pass(c)) == [], (c.x.shape, c.x.dtype, c.matrix.shape, c.matrix.dtype, c.loss)


def assert_same_bits(one: Sums, other: Sums) -> None:
    for name in ("loss", "grad", "grad_offset"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("features", FEATURES)
def test_a_pass_over_any_shape_is_the_plain_sum(features: str, dtype: str, isa: str) -> None:
    for i, d in enumerate(COLUMNS):
        for j, m in enumerate(OUTPUTS):
            assert_plain(case(ROWS[(i + j) % len(ROWS)], d, m, features, dtype, soft=(i + j) % 3 == 0))
        for n in ROWS:
            assert_plain(case(n, d, OUTPUTS[(i + n) % len(OUTPUTS)], features, dtype))
            assert_plain(case(n, d, 1 + (i + n) % 8, features, dtype, problems=3, soft=n % 2 == 0))


@pytest.mark.parametrize("problems", [1, 3])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", LOSSES)
def test_every_member_is_the_plain_sum_with_classes_and_distributions(
    name: str, dtype: str, problems: int, isa: str
) -> None:
    loss = LOSSES[name]
    for features in FEATURES:
        for k in (2, 3, 10, 24):
            for soft in (True, False) if loss.member != SIGMOID else (True,):
                assert_plain(case(70, 17, k, features, dtype, problems=problems, soft=soft, loss=loss))


@pytest.mark.parametrize(
    "twin",
    [
        lambda c: Case(c.x, c.center, c.matrix, c.offset, c.target, c.weight * 1.001, c.loss),
        lambda c: Case(c.x, c.center + np.float32(0.01), c.matrix, c.offset, c.target, c.weight, c.loss),
        lambda c: Case(c.x[:, ::-1].copy(), c.center, c.matrix, c.offset, c.target, c.weight, c.loss),
        lambda c: Case(c.x, c.center, c.matrix, c.offset, (c.target + (np.arange(300) == 299)) % 5, c.weight, c.loss),
        lambda c: Case(c.x, c.center, c.matrix, c.offset, c.target, c.weight, RowLoss(margin=0.01)),
        lambda c: Case(c.x, c.center, c.matrix, c.offset, c.target, c.weight, RowLoss(ENTMAX, 1.0, 1.01)),
    ],
    ids=["weight", "center", "columns", "the last target", "margin", "member"],
)
def test_the_tolerance_sees_a_wrong_twin(twin: Any) -> None:
    c = case(300, 16, 5)
    assert off(native_pass(c), *plain_pass(c)) == []
    assert off(native_pass(twin(c)), *plain_pass(c)) != []


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("features", FEATURES)
def test_logits_are_the_plain_products(features: str, dtype: str, isa: str) -> None:
    for i, d in enumerate(COLUMNS):
        for m in OUTPUTS:
            c = case(ROWS[(i + m) % 8], d, m, features, dtype)
            out = np.full((len(c.x), m), np.nan, dtype)
            _native.linear_logits(c.x, c.center, c.matrix, c.offset, out, 1)
            expected, size = plain_logits(c)
            assert (np.abs(out - expected) <= (d + 3) * c.precision * size).all(), (c.x.shape, m)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("features", ["float32", "float64"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_of_the_next_row_change_no_logit(number: float, features: str, dtype: str, isa: str) -> None:
    for d in COLUMNS:
        c = case(41, d, 5, features, dtype)
        expected, found = np.empty((2, 41, 5), dtype)
        _native.linear_logits(c.x, c.center, c.matrix, c.offset, expected, 1)
        c.x[1::2] = number
        _native.linear_logits(c.x, c.center, c.matrix, c.offset, found, 1)
        assert found[::2].tobytes() == expected[::2].tobytes(), d
        assert not np.isfinite(found[1::2]).any()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("features", FEATURES)
def test_moments_are_the_plain_sums(features: str, dtype: str, isa: str) -> None:
    for d in COLUMNS:
        for n in ROWS:
            c = case(n, d, 1, features, dtype)
            weight = np.ascontiguousarray(c.weight[:, 0])
            first, second = np.full((2, d), np.nan)
            _native.linear_moments(c.x, c.center, weight, first, second, 1)
            x, w = centred(c), weight.astype(np.float64)
            room = (min(n, 256) + 4) * c.precision
            assert (np.abs(first - w @ x) <= room * (w @ np.abs(x)) + 1e-300).all(), (n, d)
            assert (np.abs(second - w @ x**2) <= room * (w @ x**2) + 1e-300).all(), (n, d)


def named(changes: dict[str, Any]) -> str:
    return "-".join(f"{key} {getattr(value, 'shape', value)}" for key, value in changes.items())


def native_curvature(c: Case, step: int = 1, n_threads: int = 1) -> Array:
    b, d = c.weight.shape[1], c.x.shape[1]
    k = len(c.matrix) // b
    sums = np.full((b, k * k + d + 2), np.nan)
    _native.linear_curvature(
        c.x, c.center, c.matrix, c.offset, c.weight, c.loss.member, c.loss.beta, c.loss.shape, step, sums, n_threads
    )  # fmt: skip
    return sums


def plain_curvature(c: Case, step: int = 1) -> tuple[Array, Array]:
    """The sums as they are written down, and those of the absolute values of their terms."""
    b = c.weight.shape[1]
    k = len(c.matrix) // b
    x, w = centred(c)[::step], c.weight[::step].astype(np.float64)
    z, _ = plain_logits(c)
    sums, sizes = [], []
    for j in range(b):
        a = c.loss.beta * z[::step, j * k : (j + 1) * k]
        bend = np.zeros((len(x), k, k))
        if c.loss.member == SIGMOID:
            p = 1 / (1 + np.exp(-a))
            s = p * (1 - p)
            bend[:, np.arange(k), np.arange(k)] = s
        else:
            e = np.exp(a - a.max(axis=1, keepdims=True))
            p = plain.entmax(a, c.loss.shape) if c.loss.member == ENTMAX else e / e.sum(axis=1, keepdims=True)
            s = np.where(p > 0, p ** (2 - c.loss.shape), 0) if c.loss.member == ENTMAX else p
            bend = s[:, :, None] * np.eye(k) - s[:, :, None] * s[:, None] / s.sum(axis=1)[:, None, None]
        bend *= c.loss.beta**2 * w[:, j, None, None]
        trace = np.trace(bend, axis1=1, axis2=2)
        sums.append(np.concatenate([bend.sum(axis=0).ravel(), trace @ x, [trace.sum(), w[:, j].sum()]]))
        mass = c.loss.beta**2 * w[:, j] * s.sum(axis=1)
        sizes.append(np.concatenate([np.full(k * k, mass.sum()), mass @ np.abs(x), [mass.sum(), w[:, j].sum()]]))
    return np.array(sums), np.array(sizes)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("name", ["softmax", "pseudo", "taylor of degree 6, hot", "spherical", "entmax", "sigmoid"])
def test_the_curvature_is_the_plain_sum(name: str, features: str, dtype: str, isa: str) -> None:
    room = 2e-4 if dtype == "float32" else 1e-11
    for i, d in enumerate(COLUMNS):
        for j, k in enumerate((1, 2, 3, 10, 17)):
            c = case(ROWS[(3 * i + j) % len(ROWS)], d, k, features, dtype, problems=1 + j % 3, loss=LOSSES[name])
            for step in (1, 3):
                expected, size = plain_curvature(c, step)
                found = native_curvature(c, step)
                assert (np.abs(found - expected) <= room * size + 1e-300).all(), (c.x.shape, k, step)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
@pytest.mark.parametrize("k", [2, 5])
def test_next_to_certain_rows_keep_their_curvature(k: int, name: str, isa: str) -> None:
    c = case(200, 17, k, loss=LOSSES[name])
    c.offset[:] = 18 * np.arange(k) if name == "softmax" else 18  # all are certain of the last class, or of each
    expected, _ = plain_curvature(c)
    assert np.trace(expected[0, : k * k].reshape(k, k)) < 1e-6 * c.weight.sum()
    np.testing.assert_allclose(native_curvature(c), expected, rtol=1e-3, atol=2e-5 * np.abs(expected[0, :-1]).max())


def test_the_curvature_of_many_rows_and_outputs_is_the_same_on_any_number_of_threads() -> None:
    for n, d, k, problems in ((20_000, 33, 4, 3), (5000, 20, 150, 1)):
        c = case(n, d, k, problems=problems)
        one = native_curvature(c)
        expected, size = plain_curvature(c)
        assert (np.abs(one - expected) <= 1e-3 * size).all()
        for n_threads in (2, 5):
            assert native_curvature(c, n_threads=n_threads).tobytes() == one.tobytes()


@pytest.mark.parametrize("name", ["softmax", "entmax", "sigmoid"])
def test_a_row_of_weight_zero_adds_nothing_to_the_curvature(name: str, isa: str) -> None:
    c = case(64, 7, 3, problems=2, loss=LOSSES[name])
    c.weight[10] = 0
    c.matrix[:] *= 10
    expected = native_curvature(c)
    c.x[10] = 3e38  # its logits are no numbers
    np.testing.assert_array_equal(native_curvature(c), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.ones((5, 1), np.float32)}, "weight must have shape"),
        ({"weight": np.ones((6, 2), np.float32)}, "weight must have shape"),
        ({"weight": np.ones((6, 0), np.float32)}, "weight must have shape"),
        ({"sums": np.empty((1, 14))}, "sums must have shape"),
        ({"sums": np.empty((2, 15))}, "sums must have shape"),
        ({"member": 5}, "no such loss"),
        ({"step": 0}, "no such step"),
        ({"offset": np.zeros(4, np.float32)}, "offset must have one entry"),
    ],
    ids=lambda v: v if isinstance(v, str) else named(v),
)
def test_the_curvature_refuses_what_does_not_fit(changes: dict[str, Any], message: str) -> None:
    c = case(6, 4, 3)
    given: dict[str, Any] = {
        "x": c.x, "center": c.center, "matrix": c.matrix, "offset": c.offset, "weight": c.weight, "member": SOFTMAX,
        "beta": 1.0, "shape": 0.0, "step": 1, "sums": np.empty((1, 15)), "n_threads": 1,
    }  # fmt: skip
    _native.linear_curvature(**given)
    with pytest.raises(ValueError, match=message):
        _native.linear_curvature(**given | changes)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("features", FEATURES)
def test_threads_change_no_bit(features: str, dtype: str, soft: bool) -> None:
    c = case(5003, 33, 4, features, dtype, problems=3, soft=soft)  # enough products for threads to be woken
    one = native_pass(c, 1)
    z = np.empty((5003, 12), dtype)
    _native.linear_logits(c.x, c.center, c.matrix, c.offset, z, 1)
    for n_threads in (2, 5):
        assert_same_bits(native_pass(c, n_threads), one)
        again = np.empty_like(z)
        _native.linear_logits(c.x, c.center, c.matrix, c.offset, again, n_threads)
        assert again.tobytes() == z.tobytes()
    wide = case(40_000, 33, 1, features, dtype)
    weight = np.ascontiguousarray(wide.weight[:, 0])
    moments = []
    for n_threads in (1, 2, 5):
        first, second = np.empty((2, 33))
        _native.linear_moments(wide.x, wide.center, weight, first, second, n_threads)
        moments.append(first.tobytes() + second.tobytes())
    assert len(set(moments)) == 1


@pytest.mark.parametrize("features", FEATURES)
def test_rows_that_cannot_be_written_are_read(features: str, tmp_path: Path) -> None:
    c = case(300, 17, 5, features)
    expected = native_pass(c)
    np.save(tmp_path / "x.npy", c.x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    c.x.setflags(write=False)
    for x in (c.x, mapped):
        assert_same_bits(native_pass(Case(x, c.center, c.matrix, c.offset, c.target, c.weight)), expected)


def test_rows_that_do_not_begin_on_a_cache_line_are_read() -> None:
    c = case(65, 33, 5)
    expected = native_pass(c)
    buffer = np.empty(c.x.size + 1, np.float32)
    shifted = buffer[1:].reshape(c.x.shape)
    shifted[:] = c.x
    assert_same_bits(native_pass(Case(shifted, c.center, c.matrix, c.offset, c.target, c.weight)), expected)


def test_nothing_is_read_or_written_beyond_the_ends(isa: str) -> None:
    for n, d, m in ((5, 3, 2), (4, 17, 5), (3, 31, 13), (63, 33, 24)):
        c = case(n, d, m)
        expected = native_pass(c)
        fenced = np.full(c.x.size + 64, np.nan, np.float32)
        inner = fenced[32:-32].reshape(c.x.shape)
        inner[:] = c.x
        grad = np.full((3, m * d + m), 7.0)
        _native.linear_pass(
            inner, c.center, points_of(c), None, np.zeros(1), c.target, None, c.weight, np.empty(1), grad[1:-1],
            SOFTMAX, 1.0, 0.0, 0.0, 1,
        )  # fmt: skip
        assert grad[1, : m * d].tobytes() == expected.grad.tobytes()
        assert (grad[[0, -1]] == 7).all()


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("problems", [1, 2])
def test_a_penalty_and_units_are_those_that_are_written_down(problems: int, k: int, isa: str) -> None:
    c = case(200, 19, k, "float64", "float64", problems=problems)
    rng = np.random.default_rng(k)
    unit, strength = rng.uniform(0.5, 2, 19), rng.uniform(0.1, 1, problems)
    points = points_of(c)
    alone = native_pass(Case(c.x, c.center, c.matrix * unit, c.offset, c.target, c.weight))
    value, grad = np.full(problems, np.nan), np.full(points.shape, np.nan)
    _native.linear_pass(
        c.x, c.center, points, unit, strength, c.target, None, c.weight, value, grad, SOFTMAX, 1.0, 0.0, 0.0, 1
    )  # fmt: skip
    found, weights = sums_of(value, grad, 19), points[:, : k * 19]
    np.testing.assert_allclose(found.loss, alone.loss + strength / 2 * np.sum(weights**2, axis=1), rtol=1e-13)
    penalised = alone.grad * unit + np.repeat(strength, k)[:, None] * c.matrix
    np.testing.assert_allclose(found.grad, penalised, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(found.grad_offset, alone.grad_offset, rtol=1e-11, atol=1e-14)


def test_a_row_of_weight_zero_may_hold_anything_large(isa: str) -> None:
    c = case(64, 7, 3)
    weight = c.weight.copy()
    weight[10] = 0
    expected = native_pass(Case(c.x, c.center, c.matrix, c.offset, c.target, weight))
    x = c.x.copy()
    x[10] = 1e30
    found = native_pass(Case(x, c.center, c.matrix, c.offset, c.target, weight))
    assert_same_bits(found, expected)


def arguments(**changes: Any) -> dict[str, Any]:
    c = case(6, 4, 3)
    given = {
        "x": c.x,
        "center": c.center,
        "points": points_of(c),
        "unit": None,
        "strength": np.zeros(1),
        "classes": c.target,
        "distributions": None,
        "weight": c.weight,
        "value": np.empty(1),
        "grad": np.empty((1, 15)),
        "member": SOFTMAX,
        "beta": 1.0,
        "shape": 0.0,
        "margin": 0.0,
        "n_threads": 1,
    }
    return given | changes


F32 = np.float32
WRONG_PASSES: list[dict[str, Any]] = [
    {"center": np.zeros(5, F32)},
    {"points": np.zeros((1, 14))},
    {"points": np.zeros((2, 15))},
    {"points": np.zeros((1, 0)), "grad": np.empty((1, 0))},
    {"points": np.zeros((1, 10)), "grad": np.empty((1, 10))},  # two classes, of which there are three
    {"unit": np.ones(5)},
    {"strength": np.ones(2)},
    {"classes": np.zeros(5, np.int64)},
    {"classes": np.full(6, 3)},
    {"classes": np.zeros(6, np.int64), "distributions": np.full((6, 3), 1 / 3, F32)},
    {"classes": None},
    {"classes": None, "distributions": np.full((6, 2), 0.5, F32)},
    {"classes": None, "distributions": np.full((5, 3), 1 / 3, F32)},
    {"weight": np.ones((5, 1), F32)},
    {"weight": np.ones((6, 2), F32)},
    {"weight": np.ones((6, 0), F32)},
    {"value": np.empty(2)},
    {"grad": np.empty((1, 14))},
    {"grad": np.empty((2, 15))},
    {"member": 5},
    {"member": -1},
    {"member": SIGMOID},  # with classes
]
WRONG_TYPES: list[dict[str, Any]] = [
    {"x": np.zeros((6, 4), np.int64)},
    {"x": np.zeros((4, 6), F32).T},
    {"x": np.zeros((6, 8), F32)[:, ::2]},
    {"x": np.zeros(6, F32)},
    {"center": np.zeros(4)},
    {"points": np.zeros((1, 15), F32)},
    {"unit": np.ones(4, F32)},
    {"strength": np.zeros(1, F32)},
    {"weight": np.ones((6, 1))},
    {"weight": np.ones(6, F32)},
    {"classes": np.zeros(6, np.int32)},
    {"value": np.empty(1, F32)},
    {"grad": np.empty((1, 15), F32)},
    {"grad": np.empty((1, 30))[:, ::2]},
]


@pytest.mark.parametrize("changes", WRONG_PASSES, ids=named)
def test_a_pass_refuses_shapes_that_do_not_fit(changes: dict[str, Any]) -> None:
    _native.linear_pass(**arguments())
    with pytest.raises(ValueError, match=r"must|no such|either|not below"):
        _native.linear_pass(**arguments(**changes))


@pytest.mark.parametrize("changes", WRONG_TYPES, ids=named)
def test_a_pass_refuses_arrays_of_another_kind(changes: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="incompatible"):
        _native.linear_pass(**arguments(**changes))


def test_a_pass_does_not_write_to_what_is_read_only() -> None:
    grad = np.empty((1, 15))
    grad.setflags(write=False)
    with pytest.raises(TypeError, match="incompatible"):
        _native.linear_pass(**arguments(grad=grad))


def test_logits_and_moments_refuse_shapes_that_do_not_fit() -> None:
    c = case(6, 4, 3)
    for out in (np.empty((6, 2), F32), np.empty((5, 3), F32)):
        with pytest.raises(ValueError, match="out must have shape"):
            _native.linear_logits(c.x, c.center, c.matrix, c.offset, out, 1)
    with pytest.raises(TypeError, match="incompatible"):
        _native.linear_logits(c.x, c.center, c.matrix, c.offset, np.empty((6, 3)), 1)
    with pytest.raises(ValueError, match="one entry for each column"):
        _native.linear_moments(c.x, c.center, np.ones(6, F32), np.empty(3), np.empty(4), 1)
    with pytest.raises(ValueError, match="one entry for each row"):
        _native.linear_moments(c.x, c.center, np.ones(5, F32), np.empty(4), np.empty(4), 1)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("k", "problems"), [(97, 1), (40, 3)])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("features", FEATURES)
def test_many_outputs_are_the_plain_sum_on_any_number_of_threads(
    features: str, dtype: str, k: int, problems: int, soft: bool
) -> None:
    for name in ("softmax", "soft_margin", "taylor", "spherical", "entmax", *(["sigmoid"] if soft else [])):
        c = case(600, 20, k, features, dtype, problems=problems, soft=soft, loss=LOSSES[name])
        found = []
        for n_threads in (1, 2, 5):
            rows = Rows(c.x, c.target, c.weight, c.center.astype(np.float64), k, c.loss, True, n_threads)
            found.append(sums_of(*loss_and_grad(rows, points_of(c), np.zeros(problems)), 20))
        assert off(found[0], *plain_pass(c)) == [], name
        assert_same_bits(found[1], found[0])
        assert_same_bits(found[2], found[0])


@pytest.mark.parametrize("m", [96, 97, 120])
def test_logits_of_many_outputs_are_the_plain_products(m: int) -> None:
    for features in FEATURES:
        for dtype in FLOATS:
            c = case(200, 30, m, features, dtype)
            out = affine(c.x, c.matrix, c.offset, c.center, 2)
            expected, size = plain_logits(c)
            assert out.dtype == dtype
            assert (np.abs(out - expected) <= 33 * c.precision * size).all()
