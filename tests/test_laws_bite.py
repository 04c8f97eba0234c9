"""Each law goes red on a link that breaks it; a law that cannot fail holds nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from luce.links import Link, Softmax
from tests import laws
from tests.laws import Array, Law

TRUE = Softmax()


class Twin:
    """Softmax with one of its answers changed; with another temperature it answers rightly."""

    def __init__(
        self,
        p: Callable[[Array, Array], Array] = lambda p, z: p,
        log_p: Callable[[Array], Array] = lambda log_p: log_p,
        loss: Callable[[Array, Array], Array] = lambda loss, y: loss,
        grad: Callable[[Array, Array], Array] = lambda grad, y: grad,
    ) -> None:
        self._p, self._log_p, self._loss, self._grad = p, log_p, loss, grad
        self.temperature = 1.0

    def __replace__(self, temperature: float) -> Softmax:
        return Softmax(temperature)

    def probabilities(self, logits: ArrayLike) -> Array:
        z = np.asarray(logits)
        return self._p(TRUE.probabilities(z), z)

    def log_probabilities(self, logits: ArrayLike) -> Array:
        return self._log_p(TRUE.log_probabilities(logits))

    def loss_and_grad(self, logits: ArrayLike, target: ArrayLike, *, out: Array | None = None) -> tuple[Array, Array]:
        y = np.asarray(target)
        loss, grad = TRUE.loss_and_grad(logits, target, out=out)
        return self._loss(loss, y), self._grad(grad, y)


def scribbles(p: Array, z: Array) -> Array:
    z[0, 0] = 0
    return p


def reweighted(p: Array, by: Any) -> Array:
    q = p * by
    return np.asarray(q / q.sum(1, keepdims=True))


TWINS: dict[Law, Twin] = {
    laws.rows_sum_to_one: Twin(p=lambda p, z: p * 1.001),
    laws.a_common_shift_changes_nothing: Twin(p=lambda p, z: reweighted(p, np.exp(1e-3 * z * z))),
    laws.permuting_classes_permutes_probabilities: Twin(p=lambda p, z: reweighted(p, 1 + 1e-3 * np.arange(p.shape[1]))),
    laws.larger_logits_get_no_smaller_probabilities: Twin(p=lambda p, z: p[:, ::-1]),
    laws.log_probabilities_are_logarithms: Twin(log_p=lambda log_p: log_p - 1e-6),
    laws.a_row_depends_on_itself_alone: Twin(p=lambda p, z: p * (1 + 1e-12 * len(z))),
    laws.inputs_are_left_alone: Twin(p=scribbles),
    laws.gradient_is_the_slope_of_the_loss: Twin(grad=lambda grad, y: grad * 1.0001),
    laws.gradient_is_written_to_out: Twin(grad=lambda grad, y: grad.copy()),
    laws.a_class_id_is_a_one_hot_distribution: Twin(grad=lambda grad, y: grad * (1 if y.ndim == 1 else 1.0001)),
    laws.the_loss_is_least_at_its_own_probabilities: Twin(grad=lambda grad, y: grad + 1e-9),
    laws.a_logit_of_minus_infinity_is_not_there: Twin(p=lambda p, z: p + 1e-300),
    laws.infinite_logits_share_everything: Twin(p=lambda p, z: np.where(np.isinf(z), 1.0, p)),
    laws.nothing_and_nan_are_told_apart: Twin(p=lambda p, z: np.where(p.sum(1, keepdims=True) == 0, 0.1, p)),
    laws.temperature_divides_the_logits: Twin(loss=lambda loss, y: loss + 1),
}
MORE: tuple[tuple[Law, Twin], ...] = (
    (laws.rows_sum_to_one, Twin(p=lambda p, z: p.astype(np.float32))),
    (laws.a_row_depends_on_itself_alone, Twin(loss=lambda loss, y: loss * len(y))),
    (laws.gradient_is_the_slope_of_the_loss, Twin(loss=lambda loss, y: loss * 1.0001)),
    (laws.a_class_id_is_a_one_hot_distribution, Twin(loss=lambda loss, y: loss + 1e-6 * y.ndim)),
    (laws.the_loss_is_least_at_its_own_probabilities, Twin(loss=lambda loss, y: -loss)),
    (laws.the_loss_is_least_at_its_own_probabilities, Twin(loss=lambda loss, y: loss - 100)),
)


def rows() -> Array:
    return np.random.default_rng(3).uniform(-4, 4, (6, 9))


def test_every_law_has_a_twin() -> None:
    assert set(TWINS) == set(laws.LAWS)


@pytest.mark.parametrize(("law", "twin"), [*TWINS.items(), *MORE], ids=lambda v: getattr(v, "__name__", "twin"))
def test_the_law_bites(law: Law, twin: Link) -> None:
    law(TRUE, rows())
    with pytest.raises((AssertionError, ValueError)):
        law(twin, rows())
