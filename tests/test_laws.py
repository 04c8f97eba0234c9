"""Every law on every link, dtype and instruction set that this machine runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from luce import _native
from luce.links import (
    LINKS,
    Entmax,
    Link,
    SMTaylor,
    SoftMargin,
    Softmax,
    Sparsemax,
    Spherical,
    Taylor,
)
from tests.laws import HOLDS_FOR, LAWS, Array, Law

DTYPES = (np.float16, np.float32, np.float64)
OTHER_PARAMETERS: dict[str, tuple[Link, ...]] = {
    "softmax": (Softmax(temperature=2.0), Softmax(temperature=0.3)),
    "taylor": (Taylor(degree=4), Taylor(degree=10, temperature=3.0)),
    "soft_margin": (SoftMargin(margin=0.0), SoftMargin(margin=20.0)),
    "sm_taylor": (SMTaylor(degree=6, margin=0.1), SMTaylor(margin=0.0)),
    "spherical": (Spherical(eps=1.0), Spherical(eps=1e-2, temperature=0.5)),
    "sparsemax": (Sparsemax(temperature=4.0),),
    "entmax": (Entmax(alpha=1.0), Entmax(alpha=1.2), Entmax(alpha=2.0)),
}


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
