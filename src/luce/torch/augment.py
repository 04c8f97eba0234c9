"""Pictures varied as they are trained on: moved, turned, zoomed, mirrored, recoloured, partly covered, mixed.

Everything is drawn from the generator that the caller seeds for each step, so that a step can be done again exactly.
Covering a square is cutout (DeVries & Taylor 2017, arXiv 1708.04552). Mixing two pictures and their targets is mixup
(Zhang et al. 2018, arXiv 1710.09412), a rectangle of one put into the other cutmix (Yun et al. 2019, arXiv 1905.04899).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_SHARES = (("colour", 0.9), ("cutout", 1.0), ("mixup", 100.0), ("cutmix", 100.0))
_NUMBER_WORDS = frozenset(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])


@dataclass(frozen=True, slots=True)
class Augment:
    """How pictures are varied. Zeros vary nothing.

    Attributes:
        shift: greatest move in each direction, as a share of the side; what comes in is the mirrored edge.
        turn: greatest turn either way, in degrees.
        zoom: greatest change of size either way, as a share.
        crop: least share of the side that a random part keeps; 1 keeps the whole picture.
        flip: whether half of the pictures are mirrored left to right.
        colour: greatest change of brightness, contrast and saturation either way, as a share.
        cutout: side of a square that is covered with the batch's mean, as a share of the side.
        mixup: alpha of the Beta distribution from which the share of the other picture is drawn.
        cutmix: the same for the area of the rectangle that comes from the other picture; with `mixup` too, each batch
            takes one of the two.
        side: height and width of the result, for training on less than what is measured on (Touvron et al. 2019,
            arXiv 1906.06423); 0 keeps those of the picture.
    """

    shift: float = 0.0
    turn: float = 0.0
    zoom: float = 0.0
    flip: bool = False
    colour: float = 0.0
    cutout: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    crop: float = 1.0
    side: int = 0

    def __post_init__(self) -> None:
        for name, most in (("shift", 0.5), ("turn", 180.0), ("zoom", 0.9), *_SHARES):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ValueError(f"Augment: {name} must lie in 0 … {most:g}, got {value!r}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"Augment: crop must be above 0 and at most 1, got {self.crop!r}")
        if type(self.side) is not int or self.side < 0:
            raise ValueError(f"Augment: side must be a whole number, at least 0, got {self.side!r}")


def mirrors(classes: Sequence[str]) -> bool:
    """Whether a mirrored picture still belongs to its class: not where classes are digits, letters or numbers."""
    return not all(len(name) == 1 or name.isdigit() or name.lower() in _NUMBER_WORDS for name in classes)


def augment(pictures: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """Vary a batch.

    Args:
        pictures: (N, H, W, C) uint8.
        how: what to do.
        generator: decides; the same state gives the same result.

    Returns:
        (N, H, W, C) float32, 0 … 255; H and W are `how.side` if that is given.
    """
    if how.turn or how.zoom or how.crop < 1 or how.side:
        varied = _transformed(pictures.float(), how, generator)
    else:
        varied = _shifted(pictures, how.shift, generator).float()
    n, height, width, _ = varied.shape
    if how.flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
        varied[mirrored] = varied[mirrored].flip(2)
    if how.colour:
        varied = _recoloured(varied, how.colour, generator)
    if how.cutout:
        mean = varied.mean(dim=(0, 1, 2))
        inside = (
            _square(n, height, how.cutout, generator)[:, :, None] & _square(n, width, how.cutout, generator)[:, None]
        )
        varied = torch.where(inside[..., None], mean, varied)
    return varied


def mix(pictures: Tensor, target: Tensor, how: Augment, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix each picture of a batch, and its target, with the one before it.

    Args:
        pictures: (N, H, W, C) float32; changed.
        target: (N, K) distributions.
        how: its `mixup` and `cutmix`.
        generator: decides; the same state gives the same result.

    Returns:
        Both, of the same shapes.
    """
    n, height, width, _ = pictures.shape
    cut = how.cutmix > 0 and (how.mixup == 0 or bool(torch.rand((), generator=generator) < 0.5))
    alpha = how.cutmix if cut else how.mixup
    seed = int(torch.randint(1 << 62, (), generator=generator))
    share = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, n).astype(np.float32))
    if cut:
        inside = _rectangle(n, height, width, share.sqrt(), generator)
        share = inside.float().mean((1, 2))
        mixed = torch.where(inside[..., None], pictures.roll(1, 0), pictures)
    else:
        mixed = torch.lerp(pictures, pictures.roll(1, 0), share.view(n, 1, 1, 1))
    return mixed, torch.lerp(target, target.roll(1, 0), share[:, None].to(target.dtype))


def _recoloured(pictures: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Brightness, contrast around the picture's mean, saturation around its grey."""
    brightness, contrast, saturation = 1 + most * (torch.rand(3, len(pictures), 1, 1, 1, generator=generator) * 2 - 1)
    bright = pictures * brightness
    mean = bright.mean((1, 2, 3), keepdim=True)
    contrasted = torch.lerp(mean, bright, contrast)
    grey = contrasted.mean(3, keepdim=True)
    return torch.lerp(grey, contrasted, saturation).clamp_(0, 255)


def _rectangle(n: int, height: int, width: int, side: Tensor, generator: torch.Generator) -> Tensor:
    """Which pixels (n, height, width) lie in a rectangle at a random place, its sides so large a share of theirs."""
    rows, columns = (_span(torch.rand(n, 1, generator=generator), length, side[:, None]) for length in (height, width))
    return rows[:, :, None] & columns[:, None, :]


def _span(middle: Tensor, length: int, share: Tensor) -> Tensor:
    return ((torch.arange(length) + 0.5) / length - middle).abs() < share / 2


def _shifted(pictures: Tensor, share: float, generator: torch.Generator) -> Tensor:
    n, height, width, _ = pictures.shape
    rows = _mirrored_line(n, height, round(share * height), generator)
    columns = _mirrored_line(n, width, round(share * width), generator)
    return pictures[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _mirrored_line(n: int, length: int, most: int, generator: torch.Generator) -> Tensor:
    """Positions (n, length) along a side after a random move, mirrored at the ends."""
    moves = torch.randint(-most, most + 1, (n, 1), generator=generator)
    at = (torch.arange(length) + moves).abs()
    return (length - 1 - (length - 1 - at).abs()).clamp_(0, length - 1)


def _transformed(pictures: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """Turn, zoom, crop and move, resampled bilinearly; what comes in is the edge's own colour."""
    n, height, width, channels = pictures.shape
    after = (how.side or height, how.side or width)
    draw = torch.rand(n, 4, generator=generator) * 2 - 1
    kept = 1 - (1 - how.crop) * torch.rand(n, generator=generator)
    angle, size = draw[:, 0] * math.radians(how.turn), kept / (1 + draw[:, 1] * how.zoom)
    move = draw[:, 2:] * (2 * how.shift + 1 - kept)[:, None]
    cos, sin = angle.cos() * size, angle.sin() * size
    matrix = torch.stack([cos, -sin, move[:, 0], sin, cos, move[:, 1]], dim=1).view(n, 2, 3)
    grid = functional.affine_grid(matrix, [n, channels, *after], align_corners=False)
    planes = pictures.permute(0, 3, 1, 2)
    moved = functional.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    return moved.permute(0, 2, 3, 1)


def _square(n: int, length: int, share: float, generator: torch.Generator) -> Tensor:
    """Which positions (n, length) a randomly placed square covers."""
    middle = torch.randint(0, length, (n, 1), generator=generator)
    return (torch.arange(length) - middle).abs() * 2 < share * length
