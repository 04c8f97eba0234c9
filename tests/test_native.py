"""The native kernels: exact to their stated bounds on every instruction set."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from luce import _native
from tests import reference, tolerances

Array = NDArray[Any]
DTYPES = ("float32", "float64")
LENGTHS = (
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    15,
    16,
    17,
    31,
    32,
    33,
    35,
    1000,
)  # around every width W: W - 1, W, W + 1, 2 W + 1


@functools.cache
def logits(dtype: str, k: int) -> Array:
    """Rows (4, k) of range 0.1, 8, 80 and (float64) 600, the last far from 0."""
    rng = np.random.default_rng(k)
    spans = np.array([[0.1], [8.0], [80.0], [80.0 if dtype == "float32" else 600.0]])
    x: Array = (rng.uniform(-0.5, 0.5, (4, k)) * spans + np.array([[0.0], [0.0], [90.0], [-1000.0]])).astype(dtype)
    return x


Truth = Callable[..., Any]


@functools.cache
def truth(function: Truth, dtype: str, k: int, temperature: float) -> list[Any]:
    """Apply `function` to each row; the same for every instruction set."""
    return [function(row, temperature) for row in logits(dtype, k).tolist()]


def distance(value: np.floating[Any], exact: Decimal) -> Decimal:
    return abs(Decimal(float(value)) - exact)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("k", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_and_its_logarithms_keep_their_bounds(dtype: str, k: int, temperature: float, isa: str) -> None:
    x = logits(dtype, k)
    p, log_p, total = np.empty_like(x), np.empty_like(x), np.empty(len(x), dtype)
    _native.softmax(x, p, 1 / temperature)
    _native.log_softmax(x, log_p, 1 / temperature)
    _native.logsumexp(x, total, 1 / temperature)
    for i, row in enumerate(x.tolist()):
        top = max(row)
        exact_total = truth(reference.logsumexp, dtype, k, temperature)[i]
        assert distance(total[i], exact_total) <= tolerances.logsumexp(exact_total, top, temperature, dtype)
        for j, exact in enumerate(truth(reference.softmax, dtype, k, temperature)[i]):
            allowed = tolerances.softmax(exact, top - row[j], temperature, dtype)
            assert distance(p[i, j], exact) <= allowed, (i, j)
        for j, exact in enumerate(truth(reference.log_softmax, dtype, k, temperature)[i]):
            assert distance(log_p[i, j], exact) <= tolerances.log_softmax(exact, temperature, dtype), (i, j)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("k", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_keeps_its_bounds(dtype: str, k: int, temperature: float, soft: bool, isa: str) -> None:
    x = logits(dtype, k)
    ids = np.arange(len(x)) % k
    y = np.random.default_rng(1).dirichlet(np.ones(k), len(x)).astype(dtype) if soft else np.eye(k, dtype=dtype)[ids]
    loss, grad = np.empty(len(x), dtype), np.empty_like(x)
    if soft:
        _native.softmax_loss(x, y, loss, grad, None, 1 / temperature)
    else:
        _native.softmax_loss(x, ids, loss, grad, None, 1 / temperature)
    terms = k if soft else 1
    for i, (row, target) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        exact_loss = reference.cross_entropy(row, target, temperature)
        assert distance(loss[i], exact_loss) <= tolerances.loss(exact_loss, temperature, dtype, terms)
        p = truth(reference.softmax, dtype, k, temperature)[i]
        for j, exact in enumerate(reference.gradient(row, target, temperature)):
            gap = max(row) - row[j]
            allowed = tolerances.gradient(p[j], target[j], gap, temperature, dtype, terms)
            assert distance(grad[i, j], exact) <= allowed, (i, j)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [2, 3, 9, 30])
def test_a_log_probability_is_not_above_zero_nor_a_loss_below(dtype: str, k: int, isa: str) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(20_000, k - 1)), rng.uniform(0, 90, (20_000, 1))], axis=1).astype(dtype)
    log_p, loss, grad = np.empty_like(x), np.empty(len(x), dtype), np.empty_like(x)
    _native.log_softmax(x, log_p)
    _native.softmax_loss(x, np.full(len(x), k - 1), loss, grad)
    assert (log_p <= 0).all()
    assert (loss >= 0).all()
    slab = np.ascontiguousarray(x.T)[None]
    columns = np.empty_like(slab)
    _native.log_softmax(slab, columns)
    assert (columns <= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_probabilities_below_the_normal_range_are_rounded_not_lost(dtype: str, isa: str) -> None:
    depth = np.float32(102) if dtype == "float32" else 744.0
    x = np.array([[0, -depth]], dtype)
    p = np.empty_like(x)
    _native.softmax(x, p)
    exact = reference.softmax(x[0].tolist())[1]
    assert 0 < p[0, 1] < np.finfo(dtype).smallest_normal
    assert distance(p[0, 1], exact) <= Decimal(float(np.finfo(dtype).smallest_subnormal))


INF, NAN = np.inf, np.nan
CORNERS = (
    [INF, 1.0, -INF], [INF, INF, 0.0], [-INF, -INF, -INF], [-INF, 2.0, 3.0], [NAN, 1.0, 2.0], [NAN, INF, 1.0],
    [NAN, -INF, -INF], [NAN, NAN, NAN], [0.0, 0.0, 0.0], [-0.0, 0.0, -INF],
)  # fmt: skip


@pytest.mark.parametrize("copies", [1, 3, 11, 40])
@pytest.mark.parametrize("corner", CORNERS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_corners_are_the_limits(dtype: str, corner: list[float], copies: int, isa: str) -> None:
    x = np.tile(np.array([corner], dtype), copies)
    row = x[0].tolist()
    p, log_p, total = np.empty_like(x), np.empty_like(x), np.empty(1, dtype)
    _native.softmax(x, p)
    _native.log_softmax(x, log_p)
    _native.logsumexp(x, total)
    close = functools.partial(np.testing.assert_allclose, rtol=4 * float(np.finfo(dtype).eps))
    close(p[0], [float(v) for v in reference.softmax(row)])
    close(log_p[0], [float(v) for v in reference.log_softmax(row)])
    close(total[0], float(reference.logsumexp(row)))
    for class_id in range(3):
        y = reference.one_hot(class_id, len(row))
        loss, grad = np.empty(1, dtype), np.empty_like(x)
        expected = float(reference.cross_entropy(row, y)), [float(v) for v in reference.gradient(row, y)]
        _native.softmax_loss(x, np.array([class_id]), loss, grad)
        close(loss[0], expected[0])
        close(grad[0], expected[1], atol=float(np.finfo(dtype).eps))
        _native.softmax_loss(x, np.array([y], dtype), loss, grad)
        close(loss[0], expected[0])
        close(grad[0], expected[1], atol=float(np.finfo(dtype).eps))


@pytest.mark.parametrize("place", range(19))
@pytest.mark.parametrize("value", [INF, NAN])
def test_one_special_entry_is_seen_wherever_it_stands(place: int, value: float, isa: str) -> None:
    for dtype in DTYPES:
        x = np.zeros((1, 19), dtype)
        x[0, place] = value
        p = np.empty_like(x)
        _native.softmax(x, p)
        np.testing.assert_array_equal(p[0], [float(v) for v in reference.softmax(x[0].tolist())])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 3, 8, 9, 40])
def test_results_may_overwrite_the_input_and_nothing_else(dtype: str, k: int, isa: str) -> None:
    x = np.random.default_rng(0).standard_normal((5, k)).astype(dtype)
    ids = np.arange(5) % k
    y = np.full_like(x, 1 / k)
    guard = np.full((7, k), 77, dtype)
    calls: list[Callable[[Array, Array], None]] = [
        lambda x, out: _native.softmax(x, out),
        lambda x, out: _native.log_softmax(x, out),
        lambda x, out: _native.softmax_loss(x, ids, np.empty(5, dtype), out),
        lambda x, out: _native.softmax_loss(x, y, np.empty(5, dtype), out),
    ]
    for call in calls:
        apart = np.empty_like(x)
        call(x, apart)
        guard[:] = 77
        guard[1:6] = x
        call(guard[1:6], guard[1:6])
        np.testing.assert_array_equal(guard[1:6], apart)
        assert (guard[[0, 6]] == 77).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_row_weights_multiply_loss_and_gradient(dtype: str, isa: str) -> None:
    x = np.random.default_rng(0).standard_normal((4, 9)).astype(dtype)
    weight = np.array([2, 0.5, 0, 4], dtype)  # powers of two: exact
    ids, y = np.array([0, 8, 3, 3]), np.full_like(x, 1 / 9)
    for call, target in ((_native.softmax_loss, ids), (_native.softmax_loss, y)):
        plain, weighted = (np.empty(4, dtype), np.empty_like(x)), (np.empty(4, dtype), np.empty_like(x))
        call(x, target, *plain)
        call(x, target, *weighted, weight)
        np.testing.assert_array_equal(weighted[0], plain[0] * weight)
        np.testing.assert_allclose(weighted[1], plain[1] * weight[:, None], rtol=4 * float(np.finfo(dtype).eps))


def test_a_negative_class_id_is_a_row_to_pass_over(isa: str) -> None:
    x = np.array([[NAN, 1.0], [1.0, 2.0]])
    loss, grad = np.full(2, 9.0), np.full((2, 2), 9.0)
    _native.softmax_loss(x, np.array([-1, 0]), loss, grad)
    assert loss[0] == 0
    assert (grad[0] == 0).all()
    assert loss[1] > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(20_000, 7), (301, 999), (3, 70_000), (1, 200_000)])
def test_threads_never_change_a_result(dtype: str, shape: tuple[int, int], isa: str) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    ids = np.arange(shape[0]) % shape[1]
    results = []
    for n_threads in (1, 2, 3, 5):
        p, grad, loss, total = (
            np.empty_like(x),
            np.empty_like(x),
            np.empty(shape[0], dtype),
            np.empty(shape[0], dtype),
        )
        _native.softmax(x, p, n_threads=n_threads)
        _native.logsumexp(x, total, n_threads=n_threads)
        _native.softmax_loss(x, ids, loss, grad, n_threads=n_threads)
        results.append(b"".join(a.tobytes() for a in (p, total, loss, grad)))
    assert len(set(results)) == 1


def import_with(isa: str) -> subprocess.CompletedProcess[str]:
    code = "from luce import _native; print(_native.instruction_set())"
    environment = {**os.environ, "LUCE_ISA": isa}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("name", _native.instruction_sets())
def test_the_variable_forces_an_instruction_set(name: str) -> None:
    assert import_with(name).stdout.strip() == name


@pytest.mark.parametrize(
    "name", ["sse9", "AVX2", "baseline ", "neon" if "avx2" in _native.instruction_sets() else "avx2"]
)
def test_a_name_that_does_not_run_here_fails_on_import(name: str) -> None:
    run = import_with(name)
    assert run.returncode != 0
    message = run.stderr.strip().splitlines()[-1]
    assert f"LUCE_ISA is '{name}'; this machine runs: " in message
    for known in _native.instruction_sets():
        assert known in message


def test_instruction_sets_end_with_the_one_that_runs_everywhere() -> None:
    assert _native.instruction_sets()[-1] == "baseline"
    with pytest.raises(ValueError, match="does not run 'sse9'"):
        _native.force_instruction_set("sse9")


def test_the_binding_takes_no_array_that_it_would_have_to_copy() -> None:
    out = np.empty((2, 3), np.float32)
    wrong: tuple[Array, ...] = (
        np.zeros((2, 3)), np.zeros((3, 2), np.float32).T, np.zeros(3, np.float32), np.zeros((2, 3), np.int32),
        np.zeros((2, 6), np.float32)[:, ::2], np.zeros((2, 3), ">f4"),
    )  # fmt: skip
    for x in wrong:
        with pytest.raises(TypeError):
            _native.softmax(x, out)
    out.flags.writeable = False
    with pytest.raises(TypeError):
        _native.softmax(np.zeros((2, 3), np.float32), out)


def test_the_binding_refuses_shapes_that_do_not_fit() -> None:
    x, loss, grad = np.zeros((2, 3), np.float32), np.empty(2, np.float32), np.empty((2, 3), np.float32)
    with pytest.raises(ValueError, match="out"):
        _native.softmax(x, np.empty((3, 3), np.float32))
    with pytest.raises(ValueError, match="out"):
        _native.logsumexp(x, np.empty(3, np.float32))
    with pytest.raises(ValueError, match="below the number of classes"):
        _native.softmax_loss(x, np.array([0, 3]), loss, grad)
    with pytest.raises(ValueError, match="target"):
        _native.softmax_loss(x, np.array([0, 1, 2]), loss, grad)
    with pytest.raises(ValueError, match="weight"):
        _native.softmax_loss(x, np.array([0, 1]), loss, grad, np.ones(3, np.float32))
    with pytest.raises(ValueError, match="target"):
        _native.softmax_loss(x, np.zeros((2, 2), np.float32), loss, grad)
