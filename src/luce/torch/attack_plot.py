"""Attacked pictures: before, what was added, after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from luce.plots.page import page
from luce.report.numbers import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_SIDE, _ROW = 116, 150  # points


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture before and after, (H, W, 1) or (H, W, 3) from 0 to 255, with what it was and is taken for."""

    before: NDArray[Any]
    after: NDArray[Any]
    class_before: str
    probability_before: float
    class_after: str
    probability_after: float


def attacked(examples: Sequence[Shown], note: str = "", *, dark: bool = False) -> Figure:
    """Pictures before an attack, what it added, and what they are taken for afterwards.

    Args:
        examples: one row each; none is said.
        note: a line under the title.
        dark: for a dark background.
    """
    if not examples:
        with page(76, "No picture was made wrong", note, dark=dark) as p:
            return p.figure
    height = 76 + _ROW * len(examples)
    with page(height, "What the attack added, and what it did", note, dark=dark) as p:
        for i, example in enumerate(examples):
            change = example.after.astype(float) - example.before
            times = 127.5 / max(float(np.abs(change).max()), 1e-6)
            columns = (
                (example.before, _taken(example.class_before, example.probability_before), "ink"),
                (127.5 + times * change, f"added, times {times:.3g}", "muted"),
                (example.after, _taken(example.class_after, example.probability_after), "vermilion"),
            )
            for j, (picture, text, hue) in enumerate(columns):
                axes = p.panel(height - 60 - _ROW * (i + 1) + 30, _SIDE, left=14 + 128 * j, width=_SIDE)
                whole = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
                axes.imshow(np.broadcast_to(whole, (*whole.shape[:2], 3)), interpolation="nearest")
                p.note(axes, (0, 0), text, move=(0, -11), hue=hue, of="axes fraction")
    return p.figure


def _taken(name: str, probability: float) -> str:
    return f"{name if len(name) <= 10 else name[:9] + '…'}: {percent(probability)}"
