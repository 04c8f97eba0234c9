"""Pictures of the softmax family, each drawn from what Luce's functions return.

`PLOTS` maps the name of each picture to the function that draws it; a function takes `dark` and returns a matplotlib
`Figure`. `render` makes an SVG or PNG of one. matplotlib comes with `pip install 'luce[plot]'` and is loaded when the
first picture is drawn; its settings and pyplot are left alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from luce.plots.loss import loss
from luce.plots.normalize import normalize
from luce.plots.periodic import periodic
from luce.plots.pseudo import pseudo
from luce.plots.render import FORMATS, Format, render
from luce.plots.simplex import simplex
from luce.plots.soft_margin import soft_margin
from luce.plots.softmax_sigmoid import softmax_sigmoid
from luce.plots.sparse import sparse
from luce.plots.spherical import spherical
from luce.plots.taylor import taylor
from luce.plots.temperature import temperature

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Plot(Protocol):
    """A function that draws a picture. The first line of its docstring says what the picture shows."""

    __doc__: str | None

    def __call__(self, *, dark: bool = False) -> Figure:
        """The picture, for a light or a dark background."""


PLOTS: dict[str, Plot] = {
    "softmax-sigmoid": softmax_sigmoid,
    "temperature": temperature,
    "normalize": normalize,
    "simplex": simplex,
    "sparse": sparse,
    "taylor": taylor,
    "soft-margin": soft_margin,
    "spherical": spherical,
    "pseudo": pseudo,
    "periodic": periodic,
    "loss": loss,
}


def describe(name: str) -> str:
    """What a picture shows, in one sentence."""
    return (PLOTS[name].__doc__ or "").strip().partition("\n")[0]


__all__ = [
    "FORMATS",
    "PLOTS",
    "Format",
    "Plot",
    "describe",
    "loss",
    "normalize",
    "periodic",
    "pseudo",
    "render",
    "simplex",
    "soft_margin",
    "softmax_sigmoid",
    "sparse",
    "spherical",
    "taylor",
    "temperature",
]
