"""Loss and gradient of every link."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from luce.links import LINKS
from luce.plots.page import page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
_ROW = 122


def loss(*, dark: bool = False) -> Figure:
    """Loss and gradient of every link, while the logit of the true class grows.

    Args:
        dark: for a dark background.
    """
    t = np.linspace(-4, 4, 321)
    logits = np.stack([t, np.ones_like(t), -np.ones_like(t)], axis=-1)
    target = np.zeros(t.shape, dtype=np.int64)
    reference, _ = LINKS["softmax"]().loss_and_grad(logits, target)
    rows = -(-len(LINKS) // COLUMNS)
    note = "logits [t, 1, −1], t is the true one; grey: the loss of softmax"
    with page(86 + _ROW * rows, "Loss and gradient of every link", note, dark=dark) as p:
        for i, (name, link) in enumerate(LINKS.items()):
            row, column = divmod(i, COLUMNS)
            axes = p.chart(44 + _ROW * (rows - 1 - row), 88, left=30 + 122 * column, width=112, x="t", y=name)
            value, gradient = link().loss_and_grad(logits, target)
            if i:
                p.curve(axes, t, reference, "softmax", "muted", linewidth=1)
            line = p.curve(axes, t, value, f"{name}: loss", "blue", linewidth=2)
            slope = p.curve(axes, t, gradient[:, 0], f"{name}: gradient", "vermilion", linewidth=2)
            if i == 0:
                p.name(line, -1, (6, 8), text="loss")
                p.name(slope, -3.6, (0, -9), text="its gradient")
            _ticks(axes, first=column == 0, last=i + COLUMNS >= len(LINKS))
    return p.figure


def _ticks(axes: Axes, *, first: bool, last: bool) -> None:
    """Numbers only left of the first column and below the last row."""
    axes.set(xlim=(-4, 4), ylim=(-2.4, 5), xticks=[-3, 0, 3], yticks=[-2, 0, 2, 4])
    axes.tick_params(labelleft=first, labelbottom=last)
    axes.xaxis.label.set_visible(last)
