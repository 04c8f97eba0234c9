"""Figures as files: the same figure gives the same bytes."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, get_args

from luce.plots.page import settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Format = Literal["svg", "png"]
FORMATS: tuple[Format, ...] = get_args(Format)
_PIXELS_PER_INCH = 216  # a PNG is three times as wide as the 400 points of a page


def render(figure: Figure, format: Format = "svg", *, title: str = "") -> bytes:
    """A figure as the bytes of an SVG or PNG file, without date or version in it.

    Args:
        figure: as a function of `luce.plots` returns it.
        format: "svg", in which letters are outlines and need no font, or "png", 1200 pixels wide.
        title: what the picture shows, for those who cannot see it; it is written into the file.

    Raises:
        ValueError: another format.
    """
    if format not in FORMATS:
        raise ValueError(f"render: format must be one of {', '.join(FORMATS)}, got {format!r}")
    metadata: dict[str, Any] = {"Title": title} if title else {}
    metadata |= {"Date": None, "Creator": None} if format == "svg" else {"Software": None}
    out = BytesIO()
    with settings():
        figure.savefig(out, format=format, dpi=_PIXELS_PER_INCH, metadata=metadata)
    return out.getvalue()
