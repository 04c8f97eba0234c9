"""Every member of the family against 50 digits: probabilities, logarithms, loss and gradient within derived bounds."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pytest

from luce.links import LINKS, Entmax, Link
from tests.laws import Array, distributions
from tests.member_bounds import bounds, parameters
from tests.reference import one_hot
from tests.reference_losses import MEMBERS
from tests.test_laws import members

LENGTHS = (1, 2, 3, 7, 8, 9, 17, 33, 64, 65, 130)
SLOW = (1, 2, 3, 8, 9, 17)  # entmax of any alpha takes its time with 60 digits
EXTRA: dict[str, tuple[Link, ...]] = {"entmax": (Entmax(alpha=3.0), Entmax(alpha=1.01, temperature=2.0))}


def rows_of(dtype: str, k: int) -> Array:
    """Rows (3, k): near 0, of the usual size, and wide."""
    rng = np.random.default_rng(k)
    return (rng.uniform(-1, 1, (3, k)) * np.array([[0.1], [3.0], [12.0]])).astype(dtype)


def within(values: Array, exact: Sequence[Decimal], allowed: Sequence[Decimal]) -> bool:
    return all(abs(Decimal(float(v)) - e) <= a for v, e, a in zip(values, exact, allowed, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(LINKS))
def test_results_lie_within_their_bounds(name: str, dtype: str, isa: str) -> None:
    for link in (*members(name), *EXTRA.get(name, ())):
        general = isinstance(link, Entmax) and link.alpha not in (1, 1.5, 2)
        for k in SLOW if general else LENGTHS:
            check(name, link, rows_of(dtype, k))


def check(name: str, link: Link, x: Array) -> None:
    k, truth = x.shape[1], MEMBERS[name]
    given = parameters(link)
    p, log_p = link.probabilities(x), link.log_probabilities(x)
    ids = np.arange(len(x)) * 5 % k
    y = distributions(x)
    y /= y.sum(1, keepdims=True)
    for target in (ids, y):
        loss, grad = link.loss_and_grad(x, target)
        for i, row in enumerate(x.tolist()):
            q = one_hot(int(ids[i]), k) if target is ids else y[i].tolist()
            b = bounds(name, link, row, q, x.dtype)
            where = (name, link, k, i)
            assert within(p[i], truth.probabilities(row, **given), b.probabilities), where
            if not isinstance(link, Entmax) and name != "sparsemax":
                assert within(log_p[i], truth.log_probabilities(row, **given), b.log_probabilities), where
            assert within(loss[i : i + 1], [truth.loss(row, q, **given)], [b.loss]), where
            assert within(grad[i], truth.gradient(row, q, **given), b.gradient), where
