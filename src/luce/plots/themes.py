"""The colours of the pictures, light and dark.

Four hues after Okabe & Ito, which people with any colour vision tell apart. On white they are darkened until text in
them is readable, contrast at least 4.5; on dark the vermilion is lightened. Each hue has a line style of its own, so
a picture also works without colours.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """Colours, each as #rrggbb."""

    background: str
    ink: str
    muted: str
    grid: str
    blue: str
    vermilion: str
    green: str
    purple: str


LIGHT = Theme(
    background="#ffffff",
    ink="#1b1f24",
    muted="#57606a",
    grid="#d8dee4",
    blue="#0072b2",
    vermilion="#c25500",
    green="#00805d",
    purple="#8e3b78",
)
DARK = Theme(
    background="#0d1117",
    ink="#f0f3f6",
    muted="#9aa4af",
    grid="#30363d",
    blue="#56b4e9",
    vermilion="#e8853a",
    green="#009e73",
    purple="#cc79a7",
)
LINES = {
    "ink": "solid",
    "muted": "solid",
    "blue": "solid",
    "vermilion": (0, (5, 1.6)),
    "green": (0, (5, 1.6, 1.2, 1.6)),
    "purple": (0, (1.4, 1.2)),
}
