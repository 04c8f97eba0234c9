"""Folders of small pictures that the tests draw: coloured noise, a class to each colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = {"blue": (60, 70, 160), "green": (60, 160, 70), "red": (170, 60, 60)}


def draw(name: str, rng: np.random.Generator, side: int = 16) -> NDArray[np.uint8]:
    """A picture (side, side, 3) of a class: its colour, more or less of it, under noise."""
    strength = rng.uniform(0.0, 0.5)
    pixels = 128 + strength * (np.array(COLOURS[name]) - 128) + rng.normal(0, 50, (side, side, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def draw_folder(folder: Path, counts: Mapping[str, int], *, side: int = 16, seed: int = 0) -> Path:
    """One folder per class with so many PNG files, all different; returns the folder."""
    rng = np.random.default_rng(seed)
    for name, n in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.fromarray(draw(name, rng, side)).save(folder / name / f"{seed}-{i:04d}.png")
    return folder


EVEN = dict.fromkeys(COLOURS, 40)
