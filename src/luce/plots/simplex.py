"""Where softmax, entmax15 and sparsemax send the logits of three classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from luce import links
from luce.plots.page import WIDTH, Page, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ANGLES = np.deg2rad([90, 210, 330])  # of the classes
CORNERS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=-1)  # of the simplex, one row per class
LENGTHS = (0.4, 0.8, 1.2, 1.6, 2.0, 2.4)
HUES = {"softmax": "blue", "entmax15": "green", "sparsemax": "vermilion"}
POINTS = {"A": (210, 0.4), "B": (135, 0.8), "C": (315, 2.4)}  # angle in degrees, length


def logits_at(angle: Floats, length: Floats) -> Floats:
    """Logits (..., 3) of sum 0 with this length, that point towards class k at the angle of its corner."""
    return np.asarray(np.sqrt(2 / 3) * length[..., None] * np.cos(angle[..., None] - ANGLES))


def simplex(*, dark: bool = False) -> Figure:
    """Where softmax, entmax15 and sparsemax send a net of logits of three classes.

    Args:
        dark: for a dark background.
    """
    note = "the same net of logits, and three of them, under each function"
    with page(426, "From three logits to the simplex", note, dark=dark) as p:
        for i, (name, hue) in enumerate({"logits": "ink", **HUES}.items()):
            left, bottom = 14 + 190 * (i % 2), 204 - 188 * (i // 2)
            axes = p.panel(bottom, 150, left=left, width=180)
            axes.set_anchor("S")
            _net(p, axes, getattr(links, name, _shrunk), hue)
            if name in HUES:
                axes.fill(*CORNERS.T, facecolor="none", edgecolor=p.theme.ink, linewidth=1, zorder=1)
            p.figure.text(left / WIDTH, (bottom + 144) / p.height, name, color=p.colour(hue))
    return p.figure


def _net(p: Page, axes: Axes, function: Callable[[Floats], Any], hue: str) -> None:
    def place(angle: Floats, length: Floats) -> Floats:
        return np.asarray(function(logits_at(angle, length)) @ CORNERS)

    turn, way = np.deg2rad(np.linspace(0, 360, 361)), np.linspace(0, LENGTHS[-1], 241)
    for degrees in range(0, 360, 15):
        x, y = place(np.full_like(way, np.deg2rad(degrees)), way).T
        p.curve(axes, x, y, f"ray {degrees}", "muted", linewidth=0.6, alpha=0.8)
    for length in LENGTHS:
        x, y = place(turn, np.full_like(turn, length)).T
        p.curve(axes, x, y, f"ring {length:g}", hue, linewidth=1.3, linestyle="-")
    for name, (degrees, length) in POINTS.items():
        x, y = place(np.array(np.deg2rad(degrees)), np.array(length))
        axes.plot(x, y, "o", color=p.theme.ink, markersize=5, label=name)
        letter = p.note(axes, (x, y), name, move=(6, 6), hue="ink", fontweight="bold")
        letter.set_bbox({"facecolor": p.theme.background, "edgecolor": "none", "pad": 0.5})
    for text, (x, y) in zip(("class 1", "2", "3"), CORNERS, strict=True):
        p.note(axes, (x, y), text, move=(11 * x, 11 * y), ha="center")
    axes.set_aspect("equal")
    axes.set(xlim=(-1.1, 1.1), ylim=(-1.05, 1.05) if function is _shrunk else (-0.65, 1.05))


def _shrunk(logits: Floats) -> Floats:
    """Logits with the outermost ring at the distance of the corners."""
    return np.asarray(logits / (np.sqrt(1.5) * LENGTHS[-1]))
