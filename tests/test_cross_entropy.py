"""Cross-entropy: the torch-shaped function and the fused loss and gradient of the softmax link."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from luce.links import Softmax
from luce.losses import cross_entropy
from tests import reference
from tests.test_arrays import ROWS

Array = NDArray[Any]
Reduction = Literal["none", "mean", "sum"]
INF, NAN = math.inf, math.nan
TARGETS = {"A": 2, "B": 1, "C": 0, "D": 1, "E": 5}
# Computed with 60 digits, independently of this project's code: at temperature 1 and at 2.
LOSSES = {
    "A": (0.407605964444, 0.680269670642),
    "B": (0.159396569126, 0.462285803784),
    "C": (3.02390905618, 1.97527819606),
    "D": (0.604130605337, 0.811448897595),
    "E": (3.15966934779, 2.32759238189),
}
GRADIENTS_OF_C = {
    1.0: [-0.951389175969, 0.359188105783, 0.592201070186],
    2.0: [-0.430638642619, 0.188543717365, 0.242094925254],
}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_published_losses(name: str) -> None:
    row, target = [ROWS[name]], [TARGETS[name]]
    assert cross_entropy(row, target) == pytest.approx(LOSSES[name][0], rel=2e-11)
    for temperature, expected in zip((1.0, 2.0), LOSSES[name], strict=True):
        loss, grad = Softmax(temperature).loss_and_grad(row, target)
        np.testing.assert_allclose(loss, [expected], rtol=2e-11)
        if name == "C":
            np.testing.assert_allclose(grad, [GRADIENTS_OF_C[temperature]], rtol=2e-11)


def slow(
    logits: list[list[float]],
    target: list[Any],
    weight: list[float],
    ignore_index: int,
    smoothing: float,
) -> tuple[list[float], float]:
    """Compute the loss of each row and the divisor of the mean, from the definition in loops."""
    losses, divisor = [], 0.0
    for row, given_target in zip(logits, target, strict=True):
        is_id = isinstance(given_target, int)
        if is_id and given_target == ignore_index:
            losses.append(0.0)
            continue
        y = reference.one_hot(given_target, len(row)) if is_id else given_target
        log_p = [float(v) for v in reference.log_softmax(row)]
        finite = [k for k, z in enumerate(row) if math.isfinite(z)]
        loss = 0.0
        for k, (share, w) in enumerate(zip(y, weight, strict=True)):
            smooth = (1 - smoothing) * share + (smoothing / len(finite) if k in finite else 0)
            if smooth * w != 0:
                loss -= smooth * w * log_p[k]
        losses.append(loss)
        divisor += weight[given_target] if is_id else 1
    return losses, divisor


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[list[float]], list[Any], list[float], float]:
    n, k = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    entry = st.floats(-30, 30, width=32)
    logits = draw(st.lists(st.lists(entry, min_size=k, max_size=k), min_size=n, max_size=n))
    for row in logits:  # a class that cannot be, now and then, but never all of them
        if k > 1 and draw(st.booleans()):
            row[draw(st.integers(0, k - 1))] = -INF
    target: list[Any]
    if draw(st.booleans()):
        target = [draw(st.sampled_from([-100, *(i for i, z in enumerate(row) if z > -INF)])) for row in logits]
    else:
        share = st.lists(st.integers(0, 4), min_size=k, max_size=k).filter(any)
        target = [[s / sum(shares) for s in shares] for shares in (draw(share) for _ in range(n))]
    weight = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=k, max_size=k))
    return logits, target, weight, draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))


@settings(deadline=None)
@given(problem=problems(), reduction=st.sampled_from(["none", "mean", "sum"]))
def test_it_is_the_definition(
    problem: tuple[list[list[float]], list[Any], list[float], float], reduction: Reduction
) -> None:
    logits, target, weight, smoothing = problem
    losses, divisor = slow(logits, target, weight, -100, smoothing)
    expected: Any = {
        "none": losses,
        "sum": math.fsum(losses),
        "mean": math.fsum(losses) / divisor if divisor else 0.0,
    }[reduction]
    got = cross_entropy(logits, target, weight=weight, reduction=reduction, label_smoothing=smoothing)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_dtype_of_the_logits_is_kept(dtype: type[np.floating]) -> None:
    x = np.array([[1, 2, 3], [3, 1, 0]], dtype)
    assert cross_entropy(x, [0, 1]).dtype == dtype
    assert cross_entropy(x, [0, 1], reduction="none").dtype == dtype
    assert [a.dtype for a in Softmax().loss_and_grad(x, [0, 1])] == [dtype, dtype]
    assert cross_entropy(np.array([[1, 2]]), [0]).dtype == np.float64


def test_half_precision_sums_are_taken_wider() -> None:
    x = np.zeros((3000, 4), np.float16)
    ids = np.zeros(3000, np.int64)
    assert cross_entropy(x, ids) == np.float16(math.log(4))
    assert cross_entropy(x, ids, reduction="sum") == np.float16(3000 * math.log(4))
    many = np.zeros((60_000, 4), np.float16)
    assert cross_entropy(many, np.zeros(60_000, int), reduction="sum") == np.inf  # without a warning


def test_every_row_ignored_gives_zero() -> None:
    x = np.array([[1.0, 2.0], [NAN, 2.0]])
    assert cross_entropy(x, [-100, -100]) == 0
    assert cross_entropy(x, [7, 7], ignore_index=7) == 0
    assert cross_entropy(x[:1], [0], weight=[0, 1]) == 0


def test_no_rows_give_zero() -> None:
    for reduction in ("mean", "sum"):
        assert cross_entropy(np.zeros((0, 3)), np.zeros(0, int), reduction=reduction) == 0
        assert cross_entropy(np.zeros((0, 3)), np.zeros((0, 3)), reduction=reduction) == 0
    assert cross_entropy(np.zeros((0, 3)), np.zeros(0, int), reduction="none").shape == (0,)
    loss, grad = Softmax().loss_and_grad(np.zeros((0, 3)), np.zeros(0, int))
    assert loss.shape == (0,)
    assert grad.shape == (0, 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_an_ignored_row_cannot_spoil_the_others(bad: float, smoothing: float) -> None:
    x = np.array([[bad, 1.0, 2.0], [1.0, 2.0, 3.0]])
    alone = cross_entropy(x[1:], [0], label_smoothing=smoothing)
    assert cross_entropy(x, [-100, 0], label_smoothing=smoothing) == alone
    losses = cross_entropy(x, [-100, 0], label_smoothing=smoothing, reduction="none")
    np.testing.assert_array_equal(losses, [0, alone])


def test_smoothing_spreads_over_the_finite_logits_only() -> None:
    with_impossible = cross_entropy([[1.0, 2.0, -INF]], [0], label_smoothing=0.1)
    assert math.isfinite(with_impossible)
    assert with_impossible == pytest.approx(float(cross_entropy([[1.0, 2.0]], [0], label_smoothing=0.1)), rel=1e-14)


def test_no_mass_on_an_impossible_class_costs_nothing() -> None:
    y = [[0.25, 0.75, 0.0]]
    expected = cross_entropy([[1.0, 2.0]], [[0.25, 0.75]])
    assert cross_entropy([[1.0, 2.0, -INF]], y) == pytest.approx(float(expected), rel=1e-14)
    loss, grad = Softmax().loss_and_grad([[1.0, 2.0, -INF]], y)
    assert loss[0] == pytest.approx(float(expected), rel=1e-14)
    assert np.isfinite(grad).all()
    assert cross_entropy([[1.0, -INF]], [1]) == INF


def test_a_class_of_weight_zero_costs_nothing_even_if_impossible() -> None:
    losses = cross_entropy([[1.0, -INF], [1.0, 2.0]], [1, 0], weight=[1, 0], reduction="none")
    np.testing.assert_allclose(losses, [0, math.log1p(math.e)])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, ">i4", np.int64, np.uint64])
def test_class_ids_of_any_integer_dtype(dtype: Any) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3))
    ids = np.array([2, 0, 1, 2])
    assert cross_entropy(x, ids.astype(dtype)) == cross_entropy(x, ids)
    for a, b in zip(Softmax().loss_and_grad(x, ids.astype(dtype)), Softmax().loss_and_grad(x, ids), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", [3, 200, -1, -100])
def test_a_class_id_out_of_range_is_named_with_its_row(bad: int) -> None:
    message = rf"target must lie in \[0, 3\); got {bad} at row 1\."
    ids = np.array([0, bad, bad])
    with pytest.raises(ValueError, match=message):
        Softmax().loss_and_grad(np.zeros((3, 3)), ids)
    if bad != -100:
        with pytest.raises(ValueError, match=message):
            cross_entropy(np.zeros((3, 3)), ids)


def test_an_unsigned_id_beyond_int64_does_not_wrap_round() -> None:
    with pytest.raises(ValueError, match="got 18446744073709551615 at row 0"):
        Softmax().loss_and_grad([[1.0, 2.0]], np.array([2**64 - 1], np.uint64))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_gradient_may_go_anywhere(dtype: type[np.floating]) -> None:
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(dtype)
    y = np.full((5, 4), 0.25, dtype)
    ids = np.arange(5) % 4
    for target in (ids, y):
        loss, grad = Softmax(2.0).loss_and_grad(x, target)
        memory = np.full(200, 7, dtype)
        places = (
            np.empty((5, 4), dtype), np.empty((5, 4), dtype, order="F"), memory[:80].reshape(5, 16)[:, ::4],
            np.empty((5, 4), np.dtype(dtype).newbyteorder()), y.copy() if target is y else x.copy(),
        )  # fmt: skip
        for place in places:
            got = Softmax(2.0).loss_and_grad(x, target, out=place)
            assert got[1] is place
            np.testing.assert_array_equal(got[0], loss)
            np.testing.assert_array_equal(place, grad)
        both = y.copy()
        np.testing.assert_array_equal(
            Softmax(2.0).loss_and_grad(x, both, out=both)[1], Softmax(2.0).loss_and_grad(x, y)[1]
        )


WRONG: tuple[tuple[type[Exception], str, Any, Any, dict[str, Any]], ...] = (
    (ValueError, r"logits must have shape \(rows, classes\)", [1.0, 2.0], [0], {}),
    (ValueError, "one class id for each of 2 rows", [[1.0, 2.0]] * 2, [0], {}),
    (ValueError, "distributions must have shape", [[1.0, 2.0]], [[1.0, 0.0, 0.0]], {}),
    (ValueError, "must not be negative or NaN; row 0", [[1.0, 2.0]], [[NAN, 0.0]], {}),
    (ValueError, "must not be negative or NaN; row 0", [[1.0, 2.0]], [[1.5, -0.5]], {}),
    (TypeError, "target must be integer class ids or floating", [[1.0, 2.0]], [True], {}),
    (TypeError, "target must be integer class ids or floating", [[1.0, 2.0]], ["cat"], {}),
    (ValueError, "reduction must be", [[1.0, 2.0]], [0], {"reduction": "avg"}),
    (ValueError, r"label_smoothing must lie in \[0, 1\]", [[1.0, 2.0]], [0], {"label_smoothing": 1.5}),
    (ValueError, r"label_smoothing must lie in \[0, 1\]", [[1.0, 2.0]], [0], {"label_smoothing": NAN}),
    (TypeError, "label_smoothing must be a number", [[1.0, 2.0]], [0], {"label_smoothing": "a"}),
    (ValueError, "weight must be 2 numbers, none negative", [[1.0, 2.0]], [0], {"weight": [1.0]}),
    (ValueError, "weight must be 2 numbers, none negative", [[1.0, 2.0]], [0], {"weight": [1.0, -1.0]}),
    (TypeError, "needs real numbers", [[1j, 2.0]], [0], {}),
)


@pytest.mark.parametrize(("error", "message", "logits", "target", "options"), WRONG, ids=lambda v: str(v)[:30])
def test_a_wrong_argument_is_named(
    error: type[Exception], message: str, logits: Any, target: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(error, match=f"^cross_entropy: .*{message}"):
        cross_entropy(logits, target, **options)
    if not options:
        with pytest.raises(error, match=rf"^Softmax\.loss_and_grad: .*{message}"):
            Softmax().loss_and_grad(logits, target)


@pytest.mark.parametrize("temperature", [0, -1.0, NAN, INF])
def test_a_link_with_a_wrong_temperature_is_not_made(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"^Softmax: temperature must be positive and finite.*argmax"):
        Softmax(temperature)
