"""Every member of the family against 50 digits: probabilities, logarithms, loss and gradient within derived bounds."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from luce import _native
from luce.links import (
    LINKS,
    Entmax,
    Link,
    PseudoSoftmax,
    Sigmoid,
    SMTaylor,
    SoftMargin,
    Softmax,
    Sparsemax,
    Spherical,
    Taylor,
)
from tests.laws import Array, distributions
from tests.member_bounds import bounds, parameters
from tests.reference import one_hot
from tests.reference_losses import MEMBERS
from tests.test_laws import members

LENGTHS = (1, 2, 3, 8, 9, 33, 64, 65)
SLOW = (3, 9)  # entmax of any alpha takes its time with 60 digits
EXTRA: dict[str, tuple[Link, ...]] = {"entmax": (Entmax(alpha=3.0), Entmax(alpha=1.01, temperature=2.0))}


def rows_of(dtype: str, k: int) -> Array:
    """Rows (3, k): near 0, of the usual size, and wide."""
    rng = np.random.default_rng(k)
    return np.asarray(rng.uniform(-1, 1, (3, k)) * np.array([[0.1], [3.0], [12.0]]), dtype)


def within(values: Array, exact: Sequence[Decimal], allowed: Sequence[Decimal]) -> bool:
    """Whether each value is that near; a logarithm of 0 is -inf in both."""
    return all(
        abs(Decimal(float(v)) - e) <= a if e.is_finite() and np.isfinite(v) else a > 10**6
        for v, e, a in zip(values, exact, allowed, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Truth:
    """The truth of one row and its bounds: probabilities, logarithms, loss, gradient."""

    exact: tuple[list[Decimal], list[Decimal], list[Decimal], list[Decimal]]
    allowed: tuple[list[Decimal], list[Decimal], list[Decimal], list[Decimal]]


def targets_of(x: Array, soft: bool) -> Array:
    if not soft:
        return np.asarray(np.arange(len(x)) * 5 % x.shape[1])
    y = distributions(x)
    return np.asarray(y / y.sum(1, keepdims=True))


@functools.cache  # the same for every instruction set
def truths(name: str, link: Any, dtype: str, k: int, soft: bool) -> list[Truth]:
    x, given, member = rows_of(dtype, k), parameters(link), MEMBERS[name]
    result = []
    for row, target in zip(x.tolist(), targets_of(x, soft).tolist(), strict=True):
        q = target if soft else one_hot(target, k)
        b = bounds(name, link, row, q, dtype)
        p, log_p = member.probabilities(row, **given), member.log_probabilities(row, **given)
        loss, grad = [member.loss(row, q, **given)], member.gradient(row, q, **given)
        result.append(Truth((p, log_p, loss, grad), (b.probabilities, b.log_probabilities, [b.loss], b.gradient)))
    return result


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(LINKS))
def test_results_lie_within_their_bounds(name: str, dtype: str) -> None:
    usual = _native.instruction_set()
    for link in (*members(name), *EXTRA.get(name, ())):
        general = isinstance(link, Entmax) and link.alpha not in (1, 1.5, 2)
        for k, soft in itertools.product(SLOW if general else LENGTHS, (False, True)):
            for isa in _native.instruction_sets():
                _native.force_instruction_set(isa)
                try:
                    check(name, link, rows_of(dtype, k), soft)
                finally:
                    _native.force_instruction_set(usual)


WRONG: tuple[tuple[str, Link, Link], ...] = (
    ("softmax", Softmax(), Softmax(temperature=1 + 1e-5)),
    ("taylor", Taylor(degree=4), Taylor(degree=6)),
    ("soft_margin", SoftMargin(margin=0.5), SoftMargin(margin=0.50001)),
    ("sm_taylor", SMTaylor(margin=0.5), SMTaylor(margin=0.50001)),
    ("spherical", Spherical(eps=1e-3), Spherical(eps=1.001e-3)),
    ("sparsemax", Sparsemax(), Sparsemax(temperature=1 + 1e-5)),
    ("entmax", Entmax(alpha=1.5), Entmax(alpha=1.50001)),
    ("sigmoid", Sigmoid(), Sigmoid(temperature=1 + 1e-5)),
    ("pseudo", PseudoSoftmax(), PseudoSoftmax(temperature=1 + 1e-5)),
)


@pytest.mark.parametrize(("name", "right", "wrong"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_a_slightly_wrong_twin_does_not(name: str, right: Link, wrong: Link) -> None:
    x = rows_of("float64", 9)
    check(name, right, x, False)
    with pytest.raises(AssertionError):
        check(name, right, x, False, wrong)


def check(name: str, link: Link, x: Array, soft: bool, twin: Link | None = None) -> None:
    """Hold the results of a link, or of its twin, against the truth about the link."""
    about: Any = link
    link = twin or link
    with np.errstate(divide="ignore"):
        p, log_p = link.probabilities(x), link.log_probabilities(x)
    loss, grad = link.loss_and_grad(x, targets_of(x, soft))
    results = (p, log_p, loss[:, None], grad)
    for i, truth in enumerate(truths(name, about, x.dtype.name, x.shape[1], soft)):
        for part, (values, exact, allowed) in enumerate(zip(results, truth.exact, truth.allowed, strict=True)):
            assert within(values[i], exact, allowed), (name, link, x.shape, i, part)
