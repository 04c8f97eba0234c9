"""What every link promises, as functions of a link; each raises AssertionError where the promise is broken.

`LAWS` is read by test_laws.py, which runs them on every link, and by test_laws_bite.py, which runs each on a
link that breaks it. `rows` are logits (N, K) without infinities.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luce.links import Link

Array = NDArray[Any]
Law = Callable[[Link, Array], None]


def slack(rows: Array) -> float:
    """Allow for sums and differences of probabilities of these logits."""
    span = float(np.ptp(rows, axis=1).max(initial=0)) if rows.size else 0.0
    return float((8 + span + math.sqrt(rows.shape[1])) * np.finfo(rows.dtype).eps)


def targets(rows: Array) -> NDArray[np.int64]:
    """Class ids that visit every class."""
    ids: NDArray[np.int64] = np.arange(len(rows), dtype=np.int64) * 7 % rows.shape[1]
    return ids


def distributions(rows: Array) -> Array:
    """Positive distributions (N, K) that have nothing to do with the logits."""
    raw = 1 + np.cos(np.arange(rows.size, dtype=np.float64)).reshape(rows.shape)
    y: Array = (raw / raw.sum(1, keepdims=True)).astype(rows.dtype)
    return y


def wide(array: Array) -> NDArray[np.float64]:
    return array.astype(np.float64)


def rows_sum_to_one(link: Link, rows: Array) -> None:
    p = link.probabilities(rows)
    assert p.dtype == rows.dtype
    assert p.shape == rows.shape
    assert (p >= 0).all()
    np.testing.assert_allclose(wide(p).sum(1), 1, rtol=0, atol=slack(rows))


def a_common_shift_changes_nothing(link: Link, rows: Array) -> None:
    whole = np.rint(rows)  # whole numbers, so that the shift itself is exact
    np.testing.assert_array_equal(link.probabilities(whole + rows.dtype.type(64)), link.probabilities(whole))


def permuting_classes_permutes_probabilities(link: Link, rows: Array) -> None:
    order = np.random.default_rng(5).permutation(rows.shape[1])
    p = wide(link.probabilities(rows))
    np.testing.assert_allclose(
        wide(link.probabilities(rows[:, order])), p[:, order], rtol=slack(rows), atol=slack(rows)
    )


def larger_logits_get_no_smaller_probabilities(link: Link, rows: Array) -> None:
    ordered = np.sort(rows, axis=1)
    assert (np.diff(wide(link.probabilities(ordered)), axis=1) >= 0).all()


def log_probabilities_are_logarithms(link: Link, rows: Array) -> None:
    p, log_p = wide(link.probabilities(rows)), wide(link.log_probabilities(rows))
    seen = p > 1e3 * float(np.finfo(rows.dtype).smallest_normal)
    allowed = slack(rows) * np.maximum(1, np.abs(log_p))
    assert (np.abs(np.exp(log_p) - p)[seen] <= (allowed * np.maximum(p, 1e-300))[seen] * 2).all()
    assert (log_p <= 0).all()


def a_row_depends_on_itself_alone(link: Link, rows: Array) -> None:
    alone = np.concatenate([link.probabilities(rows[i : i + 1]) for i in range(len(rows))])
    np.testing.assert_array_equal(link.probabilities(rows), alone)
    loss, grad = link.loss_and_grad(rows, targets(rows))
    for i, class_id in enumerate(targets(rows)):
        loss_i, grad_i = link.loss_and_grad(rows[i : i + 1], np.array([class_id]))
        np.testing.assert_array_equal(loss[i : i + 1], loss_i)
        np.testing.assert_array_equal(grad[i : i + 1], grad_i)


def inputs_are_left_alone(link: Link, rows: Array) -> None:
    given, y = rows.copy(), distributions(rows)
    kept = y.copy()
    given.flags.writeable = y.flags.writeable = False  # a writer raises, or shows below
    link.probabilities(given)
    link.log_probabilities(given)
    link.loss_and_grad(given, targets(rows))
    link.loss_and_grad(given, y)
    np.testing.assert_array_equal(given, rows)
    np.testing.assert_array_equal(y, kept)


def gradient_is_the_slope_of_the_loss(link: Link, rows: Array) -> None:
    if rows.dtype != np.float64:
        return  # differences of half and single precision are noise
    step = 2e-5
    for y in (targets(rows), distributions(rows)):
        _, grad = link.loss_and_grad(rows, y)
        for k in range(rows.shape[1]):
            bump = np.zeros_like(rows)
            bump[:, k] = step
            near, far = (
                link.loss_and_grad(rows + n * bump, y)[0] - link.loss_and_grad(rows - n * bump, y)[0] for n in (1, 2)
            )
            slope = (8 * near - far) / (12 * step)
            np.testing.assert_allclose(grad[:, k], slope, rtol=1e-6, atol=1e-7)


def gradient_is_written_to_out(link: Link, rows: Array) -> None:
    loss, grad = link.loss_and_grad(rows, targets(rows))
    place = rows.copy()
    loss_2, grad_2 = link.loss_and_grad(place, targets(rows), out=place)
    assert grad_2 is place
    np.testing.assert_array_equal(loss_2, loss)
    np.testing.assert_array_equal(place, grad)


def a_class_id_is_a_one_hot_distribution(link: Link, rows: Array) -> None:
    ids = targets(rows)
    loss, grad = link.loss_and_grad(rows, ids)
    loss_2, grad_2 = link.loss_and_grad(rows, np.eye(rows.shape[1], dtype=rows.dtype)[ids])
    scale = np.maximum(1, np.abs(wide(loss)))
    np.testing.assert_allclose(wide(loss) / scale, wide(loss_2) / scale, rtol=0, atol=slack(rows))
    np.testing.assert_allclose(wide(grad), wide(grad_2), rtol=slack(rows), atol=slack(rows))


def the_loss_is_least_at_its_own_probabilities(link: Link, rows: Array) -> None:
    """Gradient 0 at target = probabilities, and no loss below it: the Fenchel-Young property."""
    p = link.probabilities(rows)
    beside = np.concatenate([rows, np.ones_like(rows[:, :1])], axis=1)  # so that a row of one class is steep, too
    steepest = float(np.abs(wide(link.loss_and_grad(beside, targets(rows))[1])).max(initial=1))
    allowed = slack(rows) * steepest * max(1.0, float(np.abs(wide(rows)).max(initial=0)))
    loss, grad = link.loss_and_grad(rows, p)
    np.testing.assert_allclose(wide(grad), 0, rtol=0, atol=allowed)
    moved = rows + np.cos(np.arange(rows.size)).reshape(rows.shape).astype(rows.dtype)
    assert (wide(link.loss_and_grad(moved, p)[0]) - wide(loss) >= -allowed).all()
    assert (wide(link.loss_and_grad(rows, targets(rows))[0]) >= 0).all()


def a_logit_of_minus_infinity_is_not_there(link: Link, rows: Array) -> None:
    gap = np.full((len(rows), 1), -np.inf, rows.dtype)
    with_gap = np.concatenate([rows[:, :1], gap, rows[:, 1:]], axis=1)
    p = link.probabilities(with_gap)
    np.testing.assert_array_equal(p[:, 1], 0)
    np.testing.assert_array_equal(link.log_probabilities(with_gap)[:, 1], -np.inf)
    np.testing.assert_allclose(wide(np.delete(p, 1, 1)), wide(link.probabilities(rows)), rtol=0, atol=slack(rows))
    y = distributions(rows)
    loss, grad = link.loss_and_grad(rows, y)
    loss_2, grad_2 = link.loss_and_grad(with_gap, np.concatenate([y[:, :1], 0 * y[:, :1], y[:, 1:]], axis=1))
    np.testing.assert_array_equal(grad_2[:, 1], 0)
    np.testing.assert_allclose(wide(loss_2), wide(loss), rtol=slack(rows), atol=slack(rows))
    np.testing.assert_allclose(wide(np.delete(grad_2, 1, 1)), wide(grad), rtol=slack(rows), atol=slack(rows))


def infinite_logits_share_everything(link: Link, rows: Array) -> None:
    raised = rows.copy()
    raised[:, 0] = raised[:, -1] = np.inf
    n = min(2, rows.shape[1])
    p = link.probabilities(raised)
    np.testing.assert_array_equal(p[:, [0, -1]], rows.dtype.type(1 / n))
    np.testing.assert_array_equal(p[:, 1:-1], 0)
    loss, grad = link.loss_and_grad(raised, np.zeros(len(rows), np.int64))
    expected = np.log(n) if hasattr(link, "margin") else link.loss_and_grad(np.zeros((1, n)), [0])[0]
    np.testing.assert_allclose(wide(loss), np.broadcast_to(expected, loss.shape), rtol=slack(rows), atol=slack(rows))
    np.testing.assert_array_equal(grad, 0)


def nothing_and_nan_are_told_apart(link: Link, rows: Array) -> None:
    nothing, broken = np.full_like(rows, -np.inf), rows.copy()
    broken[:, rows.shape[1] // 2] = np.nan
    ids = targets(rows)
    np.testing.assert_array_equal(link.probabilities(nothing), 0)
    np.testing.assert_array_equal(link.loss_and_grad(nothing, ids)[1], 0)
    assert np.isnan(link.probabilities(broken)).all()
    assert all(np.isnan(result).all() for result in link.loss_and_grad(broken, ids))


def temperature_divides_the_logits(link: Link, rows: Array) -> None:
    given: Any = link
    replace = getattr(given, "__replace__", functools.partial(dataclasses.replace, given))
    half = replace(temperature=2 * given.temperature)
    np.testing.assert_array_equal(half.probabilities(rows * 2), link.probabilities(rows))
    loss, grad = link.loss_and_grad(rows, targets(rows))
    loss_2, grad_2 = half.loss_and_grad(rows * 2, targets(rows))
    np.testing.assert_allclose(wide(loss_2), wide(loss), rtol=slack(rows), atol=slack(rows))
    np.testing.assert_allclose(wide(grad_2), wide(grad) / 2, rtol=slack(rows), atol=slack(rows))


LAWS: tuple[Law, ...] = (
    rows_sum_to_one,
    a_common_shift_changes_nothing,
    permuting_classes_permutes_probabilities,
    larger_logits_get_no_smaller_probabilities,
    log_probabilities_are_logarithms,
    a_row_depends_on_itself_alone,
    inputs_are_left_alone,
    gradient_is_the_slope_of_the_loss,
    gradient_is_written_to_out,
    a_class_id_is_a_one_hot_distribution,
    the_loss_is_least_at_its_own_probabilities,
    a_logit_of_minus_infinity_is_not_there,
    infinite_logits_share_everything,
    nothing_and_nan_are_told_apart,
    temperature_divides_the_logits,
)

# Laws that do not hold for every link: the links they hold for.
_MONOTONE = ("softmax", "soft_margin", "sparsemax", "entmax", "pseudo")
_ONE_OF_K = ("softmax", "taylor", "soft_margin", "sm_taylor", "spherical", "sparsemax", "entmax", "pseudo")
HOLDS_FOR: dict[Law, tuple[str, ...]] = {
    rows_sum_to_one: _ONE_OF_K,
    a_common_shift_changes_nothing: _MONOTONE,
    larger_logits_get_no_smaller_probabilities: (*_MONOTONE, "sigmoid"),
    infinite_logits_share_everything: _ONE_OF_K,
    nothing_and_nan_are_told_apart: _ONE_OF_K,
    the_loss_is_least_at_its_own_probabilities: (  # a margin moves the least loss away
        "softmax", "taylor", "spherical", "sparsemax", "entmax", "pseudo", "sigmoid",
    ),
}  # fmt: skip
