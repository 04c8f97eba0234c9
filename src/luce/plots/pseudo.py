"""Pseudo-softmax: powers of 2 in place of powers of e."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from luce.links import pseudo_softmax, softmax
from luce.plots.page import Page, page, probabilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOGITS = np.array([1.0, 2.0, 3.0])
TEMPERATURE = float(1 / np.log(2))


def pseudo(*, dark: bool = False) -> Figure:
    """Pseudo-softmax takes powers of 2 in place of e: it is softmax at the temperature 1 / ln 2.

    Args:
        dark: for a dark background.
    """
    t = np.linspace(-6, 6, 241)
    pairs = np.stack([t, np.zeros_like(t)], axis=-1)
    note = "2ᶻ in place of eᶻ: softmax at the temperature 1 / ln 2 ≈ 1.44"
    with page(422, "Pseudo-softmax: base 2", note, dark=dark) as p:
        axes = p.chart(182, 160, x="t", y="probability of a logit t beside a logit 0")
        base2 = p.curve(
            axes, t, pseudo_softmax(pairs)[:, 0], "pseudo_softmax", "vermilion", linewidth=6.5, alpha=0.5, linestyle="-"
        )
        cooled = softmax(pairs, temperature=TEMPERATURE)[:, 0]
        p.curve(axes, t, cooled, "softmax, T = 1.44", "ink", linewidth=1.5, linestyle=(0, (4, 3)))
        base_e = p.curve(axes, t, softmax(pairs)[:, 0], "softmax", "blue")
        p.name(base_e, 2, (-12, 5), text="base e: softmax", ha="right")
        p.name(base2, 0.3, (22, -10), text="base 2: pseudo_softmax").set_alpha(1)
        p.note(axes, (0.3, np.interp(0.3, t, cooled)), "dashed: softmax, T = 1.44", move=(22, -27), hue="ink")
        axes.set(xlim=(-6, 6), xticks=range(-6, 7, 2))
        probabilities(axes)
        _bars(p)
    return p.figure


def _bars(p: Page) -> None:
    axes, at = p.panel(30, 78), np.arange(3) * 2.4
    p.bars(axes, at - 0.44, softmax(LOGITS), "softmax", "blue", ".3f")
    p.bars(axes, at + 0.44, pseudo_softmax(LOGITS), "pseudo_softmax", "vermilion", ".3f")
    axes.axhline(0, color=p.theme.muted, linewidth=1)
    axes.set(xlim=(-1, 5.8), ylim=(0, 0.8))
    for x, logit in zip(at, LOGITS, strict=True):
        p.note(axes, (x, 0), f"logit {logit:g}", move=(0, -5), hue="ink", ha="center", va="top")
    p.note(axes, (-0.9, 0.68), "from bar to bar × 2.718", hue="blue")
    p.note(axes, (-0.9, 0.5), "or × 2", hue="vermilion")
