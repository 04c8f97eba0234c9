"""Spherical softmax: squares in place of the exponential."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from luce.links import Softmax, Spherical, softmax, spherical_softmax
from luce.plots.page import page, probabilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPS = {0.001: "vermilion", 0.3: "green"}


def spherical(*, dark: bool = False) -> Figure:
    """Spherical softmax sees the size of a logit and not its sign.

    Args:
        dark: for a dark background.
    """
    t = np.linspace(-4, 4, 321)
    pairs, target = np.stack([t, np.ones_like(t)], axis=-1), np.zeros(t.shape, dtype=np.int64)
    with page(424, "Spherical softmax forgets the sign", "a logit z weighs z² + ε in place of exp(z)", dark=dark) as p:
        chances = p.chart(218, 128, y="probability of a logit t beside a logit 1")
        losses = p.chart(44, 140, x="t", y="loss, when the class of t is true")
        p.name(p.curve(chances, t, softmax(pairs)[:, 0], "softmax", "blue"), -3.8, (0, 9))
        p.name(p.curve(losses, t, Softmax().loss_and_grad(pairs, target)[0], "softmax", "blue"), -3, (7, 7))
        for eps, hue in EPS.items():
            name = f"ε = {eps:g}"
            chance = p.curve(chances, t, spherical_softmax(pairs, eps=eps)[:, 0], name, hue)
            line = p.curve(losses, t, Spherical(eps=eps).loss_and_grad(pairs, target)[0], name, hue)
            if eps == 0.001:
                p.name(chance, 0.25, (8, -2))
                p.name(line, 0.1, (8, 0))
            else:
                p.name(line, 0.4, (14, 9))
        chances.set(xlim=(-4, 4))
        chances.set_xticks(range(-4, 5, 2), [])
        probabilities(chances)
        losses.set(xlim=(-4, 4), ylim=(-0.2, 7.2), xticks=range(-4, 5, 2), yticks=range(0, 8, 2))
    return p.figure
