"""A page to draw on: 400 points wide, so that a screen of 400 pixels shows its letters at their size.

Everything is placed in points. matplotlib is loaded when the first page is made; its settings are those of this
module while a page is drawn and what they were before afterwards, whatever they were.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from luce.errors import LuceError
from luce.plots.themes import DARK, LIGHT, LINES, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Text
    from numpy.typing import ArrayLike

WIDTH = 400
_POINTS = 72
_SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters everywhere
    "font.size": 10.5,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "path",
    "svg.hashsalt": "luce",
}
_LOCK = threading.RLock()  # the settings belong to the process


@contextmanager
def settings() -> Iterator[None]:
    """The settings of matplotlib itself with ours on top, for as long as the block runs.

    Raises:
        LuceError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise LuceError("luce.plots: matplotlib is not installed; pip install 'luce[plot]'") from None
    with _LOCK, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


@dataclass(frozen=True)
class Page:
    """A figure with its colours. Lengths are in points from the lower left corner."""

    figure: Figure
    theme: Theme
    height: float

    def colour(self, hue: str) -> str:
        """The colour of a hue, by its name in `Theme`."""
        return str(getattr(self.theme, hue))

    def panel(self, bottom: float, height: float, *, left: float = 44, width: float = 340) -> Axes:
        """Empty axes without frame or ticks."""
        axes = self.figure.add_axes(
            (left / WIDTH, bottom / self.height, width / WIDTH, height / self.height), facecolor="none"
        )
        axes.set_axis_off()
        return axes

    def chart(
        self,
        bottom: float,
        height: float,
        *,
        x: str = "",
        y: str = "",
        left: float = 44,
        width: float = 340,
    ) -> Axes:
        """Axes with a grid, what x means below them and what y means above them."""
        axes = self.panel(bottom, height, left=left, width=width)
        axes.set_axis_on()
        axes.set_axisbelow(True)
        axes.grid(color=self.theme.grid, linewidth=0.7)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(self.theme.muted)
        axes.tick_params(colors=self.theme.muted, length=0, pad=4, labelsize=10)
        axes.tick_params(axis="x", length=3)
        if x:
            axes.set_xlabel(x, color=self.theme.ink, labelpad=4)
        if y:
            self.note(axes, (0, 1), y, move=(0, 7), hue="ink", va="bottom", of="axes fraction")
        return axes

    def curve(self, axes: Axes, x: ArrayLike, y: ArrayLike, name: str, hue: str, **changes: Any) -> Line2D:
        """A line in a hue and its line style; `name` is its label, by which it can be found in the axes."""
        style: dict[str, Any] = {"color": self.colour(hue), "linestyle": LINES[hue], "linewidth": 2.2}
        (line,) = axes.plot(x, y, label=name, **style | changes)
        return line

    def name(self, line: Line2D, x: float, move: tuple[float, float], *, text: str = "", **changes: Any) -> Text:
        """The name of a curve in its colour, beside its point at x."""
        y = float(np.interp(x, np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)))
        named = self.note(cast("Axes", line.axes), (x, y), text or str(line.get_label()), move=move, **changes)
        named.set_color(line.get_color())
        named.set_bbox({"facecolor": self.theme.background, "edgecolor": "none", "pad": 0.5})  # no grid behind it
        return named

    def bars(self, axes: Axes, x: ArrayLike, heights: ArrayLike, name: str, hue: str, form: str = "") -> BarContainer:
        """Bars 0.8 wide; with `form`, a format as of `format()`, each carries its value."""
        bars = axes.bar(x, heights, label=name, color=self.colour(hue))
        for at, height in zip(np.asarray(x, float), np.asarray(heights, float), strict=True):
            if form:
                self.note(axes, (at, height), format(height, form), move=(0, 3), hue=hue, ha="center", va="bottom")
        return bars

    def note(
        self,
        axes: Axes,
        at: tuple[float, float],
        text: str,
        *,
        move: tuple[float, float] = (0, 0),
        hue: str = "muted",
        ha: str = "left",
        va: str = "center",
        of: str = "data",
        **changes: Any,
    ) -> Text:
        """A text beside a point of the axes, moved from it by points."""
        return axes.annotate(
            text,
            at,
            xycoords=of,
            xytext=move,
            textcoords="offset points",
            color=self.colour(hue),
            ha=ha,
            va=va,
            annotation_clip=False,
            **changes,
        )


def probabilities(axes: Axes) -> None:
    """Ticks and limits of probabilities for the axis y, with room for the width of a line at 0 and 1."""
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])


@contextmanager
def page(height: float, title: str, note: str = "", *, dark: bool) -> Iterator[Page]:
    """A new page with its title and a line under it, to be drawn on within the block.

    Args:
        height: in points.
        title: what the picture shows, as a sentence of at most 50 letters.
        note: one more line, in a muted colour.
        dark: for a dark background.
    """
    theme = DARK if dark else LIGHT
    with settings():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH / _POINTS, height / _POINTS), dpi=2 * _POINTS, facecolor=theme.background)
        top = 1 - 13 / height
        figure.text(14 / WIDTH, top, title, color=theme.ink, fontsize=13, fontweight="bold", va="top")
        if note:
            figure.text(14 / WIDTH, top - 21 / height, note, color=theme.muted, va="top")
        yield Page(figure, theme, height)
