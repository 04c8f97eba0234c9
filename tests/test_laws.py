"""Every law on every link, dtype and instruction set that this machine runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from luce import _native
from luce.links import LINKS, Link, Softmax
from tests.laws import HOLDS_FOR, LAWS, Array, Law

DTYPES = (np.float16, np.float32, np.float64)
OTHER_PARAMETERS: dict[str, tuple[Link, ...]] = {"softmax": (Softmax(temperature=2.0), Softmax(temperature=0.3))}


def samples(dtype: type[np.floating]) -> Iterator[Array]:
    """Logits of many lengths: on both sides of every vector width, short and long."""
    rng = np.random.default_rng(2)
    for k in (1, 2, 3, 7, 8, 9, 16, 17, 33, 100):
        for spread in (0.1, 6.0):
            yield rng.uniform(-spread, spread, (5, k)).astype(dtype)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(LINKS))
def test_law(name: str, dtype: type[np.floating], law: Law, isa: str) -> None:
    if name not in HOLDS_FOR.get(law, (name,)):
        return
    assert _native.instruction_set() == isa
    for link in members(name):
        for rows in samples(dtype):
            law(link, rows)


def members(name: str) -> tuple[Link, ...]:
    """Make the link as it comes, and with other parameters."""
    return LINKS[name](), *OTHER_PARAMETERS.get(name, ())
