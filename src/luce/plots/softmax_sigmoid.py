"""Softmax of two classes beside the sigmoid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from luce.links import sigmoid, softmax
from luce.plots.page import page, probabilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def softmax_sigmoid(*, dark: bool = False) -> Figure:
    """With two classes, softmax is the sigmoid of the difference of the logits.

    Args:
        dark: for a dark background.
    """
    t = np.linspace(-6, 6, 241)
    first, second = softmax(np.stack([t, np.zeros_like(t)], axis=-1)).T
    note = "softmax([t, 0])  =  [sigmoid(t), sigmoid(−t)]"
    with page(292, "Softmax of two classes is the sigmoid", note, dark=dark) as p:
        axes = p.chart(44, 168, x="t, the logit of class 1 minus that of class 2", y="probability")
        p.curve(axes, t, first, "softmax, class 1", "blue", linewidth=6.5, alpha=0.5)
        p.curve(axes, t, second, "softmax, class 2", "green", linewidth=6.5, alpha=0.5, linestyle="solid")
        p.curve(axes, t, sigmoid(t), "sigmoid(t)", "ink", linewidth=1.5, linestyle=(0, (4, 3)))
        p.curve(axes, t, sigmoid(-t), "sigmoid(−t)", "ink", linewidth=1.5, linestyle=(0, (1.4, 2.2)))
        p.note(axes, (2.3, 0.75), "softmax, class 1", hue="blue")
        p.note(axes, (2.3, 0.63), "dashed: sigmoid(t)", hue="ink")
        p.note(axes, (-2.3, 0.75), "softmax, class 2", hue="green", ha="right")
        p.note(axes, (-2.3, 0.63), "dotted: sigmoid(−t)", hue="ink", ha="right")
        axes.set(xlim=(-6, 6), xticks=range(-6, 7, 2))
        probabilities(axes)
    return p.figure
