"""Taylor softmax: polynomials in place of the exponential."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from luce.links import softmax, taylor_softmax
from luce.plots.page import page, probabilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEGREES = {2: "vermilion", 4: "green", 6: "purple"}


def taylor(*, dark: bool = False) -> Figure:
    """Taylor polynomials of even degree in place of exp, and the probabilities they give.

    Args:
        dark: for a dark background.
    """
    t = np.linspace(-3, 3, 241)
    pairs = np.stack([t, np.zeros_like(t)], axis=-1)
    note = "Taylor polynomials in place of exp; left of 0 they rise again"
    with page(424, "Taylor softmax", note, dark=dark) as p:
        weights = p.chart(218, 128, y="weight of a logit t")
        chances = p.chart(44, 140, x="t", y="probability of a logit t beside a logit 0")
        for degree, hue in DEGREES.items():
            first, second = taylor_softmax(pairs, degree=degree).T
            name = f"degree {degree}"
            weight = p.curve(weights, t, first / second, name, hue)  # a logit 0 weighs 1 in every degree
            p.name(weight, -3, (-5, {2: 2, 4: -1, 6: 0}[degree]), ha="right")
            p.name(p.curve(chances, t, first, name, hue), -3, (-5, 0), ha="right")
        p.name(p.curve(weights, t, np.exp(t), "exp", "blue"), -3, (-5, 0), ha="right")
        p.name(p.curve(chances, t, softmax(pairs)[:, 0], "softmax", "blue"), -3, (-5, 0), ha="right")
        weights.set(yscale="log", xlim=(-4.4, 3), ylim=(0.035, 28))
        weights.set_yticks([0.1, 1, 10], ["0.1", "1", "10"])
        weights.set_yticks([], minor=True)
        weights.set_xticks(range(-3, 4), [])
        chances.set(xlim=(-4.4, 3), xticks=range(-3, 4))
        probabilities(chances)
    return p.figure
