"""Focal loss, Brier's score, cross-entropy of any link and of a linear layer, against definitions in 50 digits."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from luce.links import LINKS, Entmax, Link, Sigmoid, SMTaylor, SoftMargin, Softmax, Sparsemax, Spherical, Taylor
from luce.losses import brier, brier_and_grad, cross_entropy, focal, focal_and_grad, linear, linear_cross_entropy
from tests import reference_losses as truth
from tests.reference import negative_log_likelihood, one_hot
from tests.vectors import ROWS, TARGETS

Array = NDArray[Any]
INF, NAN = math.inf, math.nan
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
# Computed with 60 digits, independently of this project's code: focal with gamma 2, and Brier.
PUBLISHED = {
    "A": (0.0456777989679, 0.180061146341),
    "B": (0.00346043887788, 0.0325915212281),
    "C": (2.73706516818, 1.38485956702),
    "D": (0.124219799483, 0.330381224452),
    "E": (2.89716904566, 1.39907896571),
}
GAMMAS = (0.0, 0.3, 1.0, 2.0, 5.0)
# name: (loss and gradient of rows, their truth for one row)
LOSSES: dict[str, tuple[Callable[..., tuple[Array, Array]], Callable[..., Any], Callable[..., Any]]] = {
    "brier": (brier_and_grad, truth.brier_loss, truth.brier_gradient),
    **{
        f"focal, gamma {gamma}": (
            lambda z, y, gamma=gamma: focal_and_grad(z, y, gamma=gamma),
            lambda z, y, gamma=gamma: truth.focal_loss(z, y, gamma),
            lambda z, y, gamma=gamma: truth.focal_gradient(z, y, gamma),
        )
        for gamma in GAMMAS
    },
}


def eps(dtype: Any) -> float:
    info: Any = ml_dtypes.finfo
    return float(info(dtype).eps)


def rows(n: int, k: int, dtype: Any = np.float64, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-5, 5, (n, k)).astype(dtype)


def distributions(n: int, k: int, dtype: Any = np.float64) -> Array:
    y = np.random.default_rng(9).dirichlet(np.ones(k), n)
    y[0] = np.eye(k)[0]
    return y.astype(dtype)


def expected(name: str, z: Array, y: Array) -> tuple[Array, Array]:
    """Losses and gradients of rows in float64, from the definitions."""
    _, loss, gradient = LOSSES[name]
    if y.ndim == 1:
        y = np.array([one_hot(int(class_id), z.shape[1]) for class_id in y])
    pairs = [(z_.tolist(), y_.tolist()) for z_, y_ in zip(z.astype(float), y.astype(float), strict=True)]
    return (
        np.array([float(loss(*pair)) for pair in pairs]),
        np.array([[float(v) for v in gradient(*pair)] for pair in pairs]).reshape(z.shape),
    )


@pytest.mark.parametrize("name", sorted(ROWS))
def test_published_losses(name: str) -> None:
    z, y = [ROWS[name]], [TARGETS[name]]
    np.testing.assert_allclose(focal(z, y), [PUBLISHED[name][0]], rtol=2e-11)
    np.testing.assert_allclose(brier(z, y), [PUBLISHED[name][1]], rtol=2e-11)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_in_every_dtype(name: str, dtype: Any) -> None:
    function = LOSSES[name][0]
    for k in (1, 2, 3, 17):
        z = rows(6, k, dtype)
        for y in (np.arange(6, dtype=np.uint8) % k, distributions(6, k), distributions(6, k, np.float32)):
            loss, grad = function(z, y)
            assert loss.dtype == grad.dtype == dtype
            expected_loss, expected_grad = expected(name, z, y)
            unit = max(eps(dtype), 8 * eps(np.float32) if y.dtype == np.float32 or eps(dtype) > 1e-8 else 0)
            np.testing.assert_allclose(loss.astype(float), expected_loss, rtol=16 * unit, atol=16 * unit)
            np.testing.assert_allclose(grad.astype(float), expected_grad, rtol=16 * unit, atol=16 * unit)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_differences(name: str) -> None:
    function = LOSSES[name][0]
    z, h = rows(5, 4), 1e-4
    for y in (np.arange(5) % 4, distributions(5, 4)):
        grad = function(z, y)[1]
        for k in range(4):
            bump = h * np.eye(4)[k]
            near, far = (function(z + n * bump, y)[0] - function(z - n * bump, y)[0] for n in (1, 2))
            np.testing.assert_allclose(grad[:, k], (8 * near - far) / (12 * h), atol=1e-10)


@given(
    row=st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=8),
    gamma=st.floats(0, 8),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=80)
def test_any_row_and_gamma(row: list[float], gamma: float, seed: int) -> None:
    class_id = seed % len(row)
    y = one_hot(class_id, len(row))
    loss, grad = focal_and_grad([row], [class_id], gamma=gamma)
    size = 1 + max(row) - min(row)
    np.testing.assert_allclose(loss, [float(truth.focal_loss(row, y, gamma))], rtol=4e-14 * size, atol=4e-15)
    exact = [float(v) for v in truth.focal_gradient(row, y, gamma)]
    np.testing.assert_allclose(grad, [exact], rtol=0, atol=4e-15 * size * max(1, gamma))
    score, slope = brier_and_grad([row], [class_id])
    np.testing.assert_allclose(score, [float(truth.brier_loss(row, y))], rtol=0, atol=4e-15 * size)
    exact = [float(v) for v in truth.brier_gradient(row, y)]
    np.testing.assert_allclose(slope, [exact], rtol=0, atol=4e-15 * size)
    assert 0 <= score[0] <= 2


def test_gamma_zero_is_cross_entropy() -> None:
    z = rows(7, 5)
    for y in (np.arange(7) % 5, distributions(7, 5)):
        loss, grad = focal_and_grad(z, y, gamma=0)
        expected_loss, expected_grad = Softmax().loss_and_grad(z, y)
        np.testing.assert_allclose(loss, expected_loss, rtol=1e-14)
        np.testing.assert_allclose(grad, expected_grad, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 1.5, 2.0])
def test_certainty_costs_nothing(dtype: Any, gamma: float) -> None:
    """Where p rounds to 1, (1 - p)^(gamma - 1) of a gamma below 1 is infinite, but the slope is not."""
    z = np.array([[200.0, -200.0, 0.0], [17.5, 0.0, 0.0], [40.0, 0.0, 1.0]]).astype(dtype)
    loss, grad = focal_and_grad(z, [0, 0, 0], gamma=gamma)
    expected_loss, expected_grad = expected(f"focal, gamma {gamma}", z, np.zeros(3, int)) if gamma in GAMMAS else (0, 0)
    assert np.isfinite(loss.astype(float)).all()
    assert np.isfinite(grad.astype(float)).all()
    np.testing.assert_allclose(loss.astype(float), expected_loss, rtol=1e-2, atol=2e-6 if gamma >= 0.3 else 0.3)
    np.testing.assert_allclose(grad.astype(float), expected_grad, rtol=1e-2, atol=2e-6 if gamma >= 0.3 else 0.3)
    score, slope = brier_and_grad(z, [0, 0, 0])
    np.testing.assert_allclose(score.astype(float), 0, atol=1e-12)
    np.testing.assert_allclose(slope.astype(float), 0, atol=1e-12)
    wrong, _ = brier_and_grad(z, [1, 1, 1])
    np.testing.assert_allclose(wrong.astype(float), 2, rtol=1e-6 + eps(dtype))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_almost_certain_rows_keep_their_digits(gamma: float) -> None:
    """1 - p comes from log p: in float32 1 - p itself would have lost them."""
    z = np.array([[8.0, 0.0], [11.0, 0.0], [14.0, 1.0]], np.float32)
    loss, grad = focal_and_grad(z, [0, 0, 0], gamma=gamma)
    expected_loss, expected_grad = expected(f"focal, gamma {gamma}", z, np.zeros(3, int))
    np.testing.assert_allclose(loss, expected_loss, rtol=2e-6)
    if gamma:
        np.testing.assert_allclose(grad[:, 1], expected_grad[:, 1], rtol=2e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_rows_in_corners(name: str) -> None:
    function = LOSSES[name][0]
    z = np.array([[-INF, 1.0, 2.0], [INF, 1.0, INF], [-INF, -INF, -INF], [0.0, 1e308, -1e308], [1.0, -INF, 0.0]])
    for y in (
        np.array([2, 0, 0, 1, 1]),
        np.array([[0, 0.5, 0.5], [0.5, 0.25, 0.25], [0, 1, 0], [0, 1, 0], [0.5, 0.5, 0]]),
    ):
        loss, grad = function(z, y)
        expected_loss, expected_grad = expected(name, z, y)
        np.testing.assert_allclose(loss, expected_loss, rtol=1e-14)
        finite = np.isfinite(expected_grad)
        np.testing.assert_allclose(grad[finite], expected_grad[finite], rtol=1e-13, atol=1e-15)
        assert not np.isnan(grad).any()
    loss, grad = function([[NAN, 1.0], [0.0, 1.0], [NAN, INF]], [1, 1, 0])
    np.testing.assert_array_equal(np.isnan(loss), [True, False, True])
    np.testing.assert_array_equal(np.isnan(grad), [[True] * 2, [False] * 2, [True] * 2])
    for shape in ((0, 3), (0, 0)):
        loss, grad = function(np.zeros(shape), np.zeros(0, int))
        assert (loss.shape, grad.shape) == ((0,), shape)


def test_a_target_of_mass_that_is_not_one() -> None:
    z = rows(4, 3)
    y = distributions(4, 3) * np.array([[2.0], [0.5], [0.0], [1.0]])
    for name, (function, *_) in LOSSES.items():
        loss, grad = function(z, y)
        expected_loss, expected_grad = expected(name, z, y)
        np.testing.assert_allclose(loss, expected_loss, rtol=1e-14)
        np.testing.assert_allclose(grad, expected_grad, rtol=1e-13, atol=1e-15)


def test_inputs_are_left_alone_and_any_layout_is_taken() -> None:
    z, y = rows(6, 4), distributions(6, 4)
    wide = np.repeat(np.repeat(z, 2, 0), 2, 1).astype(">f8")
    for function, *_ in LOSSES.values():
        loss, grad = function(z, y)
        for taken, target in ((wide[::2, ::2], y.astype(">f8")), (np.asfortranarray(z), np.asfortranarray(y))):
            taken.flags.writeable = target.flags.writeable = False
            kept = taken.copy(), target.copy()
            loss_2, grad_2 = function(taken, target)
            np.testing.assert_array_equal(loss, loss_2)
            np.testing.assert_array_equal(grad, grad_2)
            np.testing.assert_array_equal(taken, kept[0])
            np.testing.assert_array_equal(target, kept[1])


# --- cross-entropy with another link --------------------------------------------------------------------------------

OPEN_LINKS: tuple[Link, ...] = (
    Softmax(2.0), Taylor(), Taylor(4, 0.5), SoftMargin(), SMTaylor(), Spherical(), Sigmoid(), LINKS["pseudo"](),
)  # fmt: skip


def _parameters(link: Any) -> dict[str, Any]:
    return {field: getattr(link, field) for field in link.__dataclass_fields__ if field != "name"}


@pytest.mark.parametrize("link", OPEN_LINKS, ids=repr)
def test_any_positive_link(link: Any) -> None:
    z = rows(5, 4)
    member = truth.MEMBERS[link.name]
    log_p = [member.log_probabilities(row.tolist(), **_parameters(link)) for row in z]
    for y in (np.arange(5) % 4, distributions(5, 4)):
        q = np.eye(4)[y] if y.ndim == 1 else y
        each = [float(negative_log_likelihood(lp, t.tolist())) for lp, t in zip(log_p, q, strict=True)]
        np.testing.assert_allclose(cross_entropy(z, y, link=link, reduction="none"), each, rtol=1e-13)
        assert cross_entropy(z, y, link=link) == pytest.approx(np.mean(each), rel=1e-13)
        assert cross_entropy(z, y, link=link, reduction="sum") == pytest.approx(np.sum(each), rel=1e-13)
    weight = np.array([0.5, 2.0, 0.0, 1.0])
    y = np.array([0, 1, 2, 3, 9])
    picked = [-float(lp[k]) * weight[k] for lp, k in zip(log_p, y[:4], strict=False)]
    got = cross_entropy(z, y, link=link, weight=weight, ignore_index=9, reduction="none")
    np.testing.assert_allclose(got, [*picked, 0], rtol=1e-13)
    mean = cross_entropy(z, y, link=link, weight=weight, ignore_index=9)
    assert mean == pytest.approx(sum(picked) / 3.5, rel=1e-13)


@pytest.mark.parametrize("link", OPEN_LINKS, ids=repr)
def test_corners_of_any_positive_link(link: Link) -> None:
    z = np.array([[-INF, 1.0, 2.0], [0.5, -INF, 1.0], [NAN, 1.0, 2.0]])
    loss = np.asarray(cross_entropy(z, [0, 0, 1], link=link, reduction="none"))
    np.testing.assert_array_equal(np.isinf(loss), [True, False, False])
    np.testing.assert_array_equal(np.isnan(loss)[:2], [False, False])
    assert np.isnan(loss[2]) != isinstance(link, Sigmoid)  # which asks each class for itself
    q = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    loss = np.asarray(cross_entropy(z, q, link=link, reduction="none"))
    assert np.isfinite(loss[:2]).all()
    assert cross_entropy(np.zeros((0, 3)), np.zeros(0, int), link=link) == 0


@pytest.mark.parametrize("link", [Sparsemax(), Entmax(), Entmax(1.5, 2.0)])
def test_sparse_links_are_refused(link: Link) -> None:
    with pytest.raises(ValueError, match=r"^cross_entropy: .*probabilities of 0"):
        cross_entropy([[1.0, 2.0]], [0], link=link)
    with pytest.raises(ValueError, match=r"^linear_cross_entropy: .*link"):
        linear_cross_entropy([[1.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]], [0], link=link)


# --- cross-entropy of a linear layer --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("piece", [1, 3, 11, 100, None])
@pytest.mark.parametrize("kind", ["ids", "distributions"])
def test_pieces_give_the_cross_entropy_of_the_whole(kind: str, piece: int | None, dtype: Any) -> None:
    x, w, b = rows(11, 6, dtype), rows(5, 6, dtype, seed=1), rows(1, 5, dtype, seed=2)[0]
    y = np.arange(11) % 5 if kind == "ids" else distributions(11, 5)
    weight = np.array([0.5, 2.0, 0.0, 1.0, 3.0])
    compute = np.float64 if dtype == np.float64 else np.float32
    logits: Array = np.dot(x.astype(compute), w.astype(compute).T) + b.astype(compute)
    tolerance = 60 * eps(compute) + 2 * eps(dtype)
    for options in ({}, {"weight": weight}, {"label_smoothing": 0.2}, {"link": Spherical()}, {"link": Sigmoid(2.0)}):
        for reduction in ("none", "mean", "sum"):
            wanted: dict[str, Any] = {"reduction": reduction, **options}
            got = linear_cross_entropy(x, w, y, linear_bias=b, rows_at_a_time=piece, **wanted)
            assert np.asarray(got).dtype == dtype
            whole = np.asarray(cross_entropy(logits, y, **wanted), float)
            np.testing.assert_allclose(np.asarray(got, float), whole, rtol=tolerance, atol=tolerance)


def test_ignored_rows_and_empty_batches() -> None:
    x, w = rows(7, 3), rows(4, 3, seed=1)
    y = np.array([0, -100, 3, 2, -100, -100, 1])
    for piece in (1, 2, None):
        whole = cross_entropy(x @ w.T, y)
        assert linear_cross_entropy(x, w, y, rows_at_a_time=piece) == pytest.approx(float(whole), rel=1e-14)
        assert linear_cross_entropy(x, w, np.full(7, -100), rows_at_a_time=piece) == 0
        assert linear_cross_entropy(x[:0], w, y[:0], rows_at_a_time=piece) == 0
        assert linear_cross_entropy(x[:0], w, y[:0], reduction="none", rows_at_a_time=piece).shape == (0,)
        each = linear_cross_entropy(x, w, np.full(7, 9), ignore_index=9, reduction="none", rows_at_a_time=piece)
        np.testing.assert_array_equal(each, np.zeros(7))
    integers = linear_cross_entropy([[1, 0]], [[1, 0], [0, 1]], [0])
    assert integers.dtype == np.float64


def test_infinite_features_give_the_limits_in_silence() -> None:
    w = np.array([[1.0, 0.5], [0.5, 1.0]])
    x = np.array([[INF, 1.0], [-INF, 1.0], [3e38, 3e38]])
    np.testing.assert_array_equal(linear_cross_entropy(x[:2], w, [0, 0], reduction="none"), [math.log(2), INF])
    big = linear_cross_entropy(x[2:].astype(np.float32), [[1.0, 2.0], [1.0, -1.0]], [0])
    assert big == 0
    assert np.isnan(linear_cross_entropy([[INF, 1.0]], [[1.0, 0.5], [0.0, 1.0]], [0]))  # 0 times infinity


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_memory_stays_small(dtype: Any) -> None:
    """The logits of 500 rows and 100,000 classes are 200 MB in float32."""
    x, w = rows(500, 2, dtype), rows(100_000, 2, dtype, seed=1)
    y = np.arange(500) * 200
    expected = []
    for first in range(0, 500, 25):
        logits = x[first : first + 25].astype(float) @ w.astype(float).T
        top = logits.max(1)
        lse = top + np.log(np.exp(logits - top[:, None]).sum(1))
        expected.extend(lse - logits[np.arange(25), y[first : first + 25]])
    peaks = []
    for piece in (8, None):
        tracemalloc.start()
        loss = linear_cross_entropy(x, w, y, rows_at_a_time=piece)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert float(loss) == pytest.approx(np.mean(expected), rel=4 * eps(dtype))
    assert peaks[0] < 20e6
    assert peaks[1] < 90e6
    assert linear.PIECE * 4 < 200e6 / 8


# --- errors ---------------------------------------------------------------------------------------------------------

Z = np.zeros((3, 2))
BELOW = np.array([[1.0, 0.0], [0.5, 0.5], [-1.0, 2.0]])
W = np.zeros((4, 2))
BY_ROW = {"rows_at_a_time": 1}
LINEAR = "linear_cross_entropy: "
CLASSES = (Z, W, [0] * 3)
WRONG_CALLS: tuple[tuple[type[Exception], str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], ...] = (
    (ValueError, r"focal: logits must have shape \(rows, classes\)", focal, ([1.0], [0]), {}),
    (ValueError, "focal: needs an array of numbers", focal, ([[1.0], [1.0, 2.0]], [0, 0]), {}),
    (TypeError, "focal: needs real numbers", focal, ([["a"]], [0]), {}),
    (ValueError, "focal: target must lie in .* got 2 at row 1.*subtract 1", focal, (Z, [0, 2, 1]), {}),
    (ValueError, "focal: target must hold one class id for each of 3 rows", focal, (Z, [0, 1]), {}),
    (ValueError, "focal: target distributions must not be negative or NaN; row 2", focal, (Z, BELOW), {}),
    (ValueError, "focal: target distributions must have shape", focal, (Z, [0.5, 0.5]), {}),
    (TypeError, "focal: target must be integer", focal, (Z, ["a", "b", "c"]), {}),
    (TypeError, "focal: gamma must be a number", focal, (Z, [0, 0, 0]), {"gamma": "2"}),
    (ValueError, "focal: gamma must be finite and not negative", focal, (Z, [0, 0, 0]), {"gamma": -0.1}),
    (ValueError, "focal: gamma must be finite", focal, (Z, [0, 0, 0]), {"gamma": INF}),
    (ValueError, "brier: logits must have shape", brier, (np.zeros((2, 2, 2)), [0]), {}),
    (ValueError, "brier: target must lie in .* got -1 at row 2", brier, (Z, [0, 1, -1]), {}),
    (TypeError, "brier: target must be integer", brier_and_grad, (Z, None), {}),
    (ValueError, LINEAR + "input must have shape", linear_cross_entropy, (Z, W[:, :1], [0] * 3), {}),
    (ValueError, LINEAR + "input must have shape", linear_cross_entropy, (Z[0], W, [0]), {}),
    (TypeError, LINEAR + "input: needs real", linear_cross_entropy, ([["a"]], W, [0]), {}),
    (TypeError, LINEAR + "linear_weight: needs real", linear_cross_entropy, (Z, None, [0]), {}),
    (TypeError, LINEAR + "linear_bias: needs", linear_cross_entropy, CLASSES, {"linear_bias": ["a"] * 4}),
    (ValueError, LINEAR + "linear_bias must have shape", linear_cross_entropy, CLASSES, {"linear_bias": [0]}),
    (ValueError, LINEAR + "target must hold one class id", linear_cross_entropy, (Z, W, [0] * 4), {}),
    (ValueError, LINEAR + "target must hold one class id", linear_cross_entropy, (Z, W, 0), {}),
    (ValueError, LINEAR + "target must lie in .* got 4 at row 2", linear_cross_entropy, (Z, W, [0, 1, 4]), BY_ROW),
    (ValueError, LINEAR + "rows_at_a_time must be", linear_cross_entropy, CLASSES, {"rows_at_a_time": 0}),
    (ValueError, LINEAR + "rows_at_a_time must be", linear_cross_entropy, CLASSES, {"rows_at_a_time": -1}),
    (TypeError, LINEAR + "rows_at_a_time must be", linear_cross_entropy, CLASSES, {"rows_at_a_time": "1"}),
    (ValueError, LINEAR + "reduction must be", linear_cross_entropy, CLASSES, {"reduction": "avg"}),
    (ValueError, LINEAR + "label_smoothing must lie", linear_cross_entropy, CLASSES, {"label_smoothing": 2}),
    (ValueError, LINEAR + "link must be", linear_cross_entropy, CLASSES, {"link": Softmax}),
    (TypeError, LINEAR + "ignore_index must be", linear_cross_entropy, CLASSES, {"ignore_index": "a"}),
)  # fmt: skip


@pytest.mark.parametrize(
    ("error", "message", "function", "arguments", "options"),
    WRONG_CALLS,
    ids=lambda v: v[:40] if isinstance(v, str) else "",
)
def test_a_wrong_argument_is_named(
    error: type[Exception],
    message: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        function(*arguments, **options)
