"""softmax, entmax15 and sparsemax: how many classes get a probability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from luce import links
from luce.plots.page import WIDTH, Page, page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOGITS = np.array([2.0, 1.5, 0.8, 0.0, -1.0])
HUES = {"softmax": "blue", "entmax15": "green", "sparsemax": "vermilion"}
_FULL = {"entmax15": 2, "sparsemax": 1}  # the lead from which a class takes all


def sparse(*, dark: bool = False) -> Figure:
    """Sparsemax and entmax15 give classes far behind a probability of exactly 0, softmax never does.

    Args:
        dark: for a dark background.
    """
    t = np.linspace(-3, 3, 241)
    pairs = np.stack([t, np.zeros_like(t)], axis=-1)
    note = "a class far behind gets exactly 0, one far ahead exactly 1"
    with page(422, "Sparse relatives of softmax", note, dark=dark) as p:
        axes = p.chart(186, 158, x="t", y="probability of a logit t beside a logit 0")
        for name, hue in HUES.items():
            line = p.curve(axes, t, getattr(links, name)(pairs)[:, 0], name, hue)
            if name == "softmax":
                p.name(line, 1.6, (8, -9))
            else:
                start = _FULL[name]
                axes.plot([start], [1], "o", color=p.colour(hue), markersize=7, label=f"{name} is 1")
                p.name(line, start, (-18 if start == 1 else 0, 10), va="bottom", ha="center")
        axes.set(xlim=(-3, 3), ylim=(-0.03, 1.2), xticks=range(-3, 4))
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        p.figure.text(14 / WIDTH, 130 / p.height, "probabilities of five logits", color=p.theme.ink)
        for i, (name, hue) in enumerate(HUES.items()):
            _bars(p, name, hue, 14 + 128 * i)
    return p.figure


def _bars(p: Page, name: str, hue: str, left: float) -> None:
    axes = p.panel(46, 66, left=left, width=116)
    values = getattr(links, name)(LOGITS)
    p.bars(axes, np.arange(5), values, name, hue)
    for i, (logit, value) in enumerate(zip(LOGITS, values, strict=True)):
        p.note(axes, (i, 0), f"{logit:g}".replace("-", "−"), move=(0, -5), ha="center", va="top", fontsize=10)
        if value == 0:
            p.note(axes, (i, 0), "0", move=(0, 2), hue=hue, ha="center", va="bottom")
    axes.axhline(0, color=p.theme.muted, linewidth=1)
    axes.set(xlim=(-0.6, 4.6), ylim=(0, 1))
    p.note(axes, (2, 0), name, move=(0, -20), hue=hue, ha="center", va="top")
