"""The one preparation: an upright picture becomes the network's input, the same way everywhere.

Training, evaluation, prediction and export all call this code with the specification that travels with the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luce.images.decode import MAX_PIXELS, Picture, decode
from luce.images.source import Source

Fit = Literal["crop", "squash", "pad"]
Filter = Literal["bicubic", "bilinear", "lanczos", "nearest", "box"]
Mode = Literal["rgb", "grey"]

VERSION: Final = 1
MAX_SIDE: Final = 8192
_FILTERS: Final = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
}
_PADDING: Final = (127, 127, 127)


@dataclass(frozen=True, slots=True)
class Preparation:
    """How an upright RGB picture becomes the network's input.

    Attributes:
        width: of the result, pixels.
        height: of the result, pixels.
        fit: "crop" takes the largest centred part of the result's shape, times `crop`; "squash" takes the whole
            picture whatever its shape; "pad" takes the whole picture and fills up with grey.
        crop: share kept by "crop", in (0, 1].
        filter: of the resampling, Pillow's, which widens with the reduction (no aliasing).
        mode: "grey" replaces the colours by their luma (ITU-R 601), in three equal channels.
    """

    width: int
    height: int
    fit: Fit = "squash"
    crop: float = 1.0
    filter: Filter = "bicubic"
    mode: Mode = "rgb"

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            side = getattr(self, name)
            if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= MAX_SIDE:
                raise ValueError(f"Preparation: {name} must be a whole number in 1 … {MAX_SIDE}, got {side!r}")
        for name, kind in (("fit", Fit), ("filter", Filter), ("mode", Mode)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"Preparation: {name} must be one of {get_args(kind)}, got {getattr(self, name)!r}")
        crop: object = self.crop
        if isinstance(crop, bool) or not isinstance(crop, int | float) or not 0 < crop <= 1:
            raise ValueError(f"Preparation: crop must lie in (0, 1], got {self.crop!r}")

    @property
    def min_side(self) -> int:
        """The short side that a picture must keep when it is decoded at a fraction of its size.

        The part that is resampled then still has at least 1 pixel for each pixel of the result. It is part of the
        preparation: another rule would give other pixels.
        """
        return int(np.ceil(max(self.width, self.height) / self.crop))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preparation:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: a key is missing, unknown, or out of range; the message names it.
        """
        known = {field.name for field in fields(cls)}
        given = dict(values)
        version = given.pop("version", None)
        if version != VERSION:
            raise ValueError(f"Preparation: version {version!r} is unknown, this Luce knows {VERSION}")
        if given.keys() != known:
            wrong = sorted(given.keys() ^ known)
            raise ValueError(f"Preparation: keys are missing or unknown: {', '.join(wrong)}")
        return cls(**given)


def prepare(picture: Picture | NDArray[np.uint8], spec: Preparation) -> NDArray[np.uint8]:
    """Bring a picture into the network's input.

    Args:
        picture: decoded, or its pixels (h, w, 3) uint8, upright RGB.
        spec: how.

    Returns:
        (height, width, 3) uint8.
    """
    pixels, part = (picture.pixels, picture.part) if isinstance(picture, Picture) else (picture, None)
    height, width = pixels.shape[:2]
    if (width, height) != (spec.width, spec.height) or part is not None or (spec.fit == "crop" and spec.crop < 1):
        pixels = _resized(pixels, part or (0.0, 0.0, width, height), spec)
    if spec.mode == "grey":
        luma = np.asarray(Image.fromarray(pixels).convert("L"))
        pixels = np.repeat(luma[:, :, None], 3, axis=2)
    return pixels


def _resized(
    pixels: NDArray[np.uint8], part: tuple[float, float, float, float], spec: Preparation
) -> NDArray[np.uint8]:
    left, top, right, bottom = part
    width, height = right - left, bottom - top
    image = Image.fromarray(pixels)
    resample = _FILTERS[spec.filter]
    if spec.fit == "squash":
        return np.array(image.resize((spec.width, spec.height), resample, part))
    if spec.fit == "crop":
        scale = min(width / spec.width, height / spec.height) * spec.crop
        # Rounding may exceed the side.
        across, down = max(0.0, (width - spec.width * scale) / 2), max(0.0, (height - spec.height * scale) / 2)
        box = (left + across, top + down, right - across, bottom - down)
        return np.array(image.resize((spec.width, spec.height), resample, box))
    scale = min(spec.width / width, spec.height / height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Image.new("RGB", (spec.width, spec.height), _PADDING)
    corner = ((spec.width - inner[0]) // 2, (spec.height - inner[1]) // 2)
    canvas.paste(image.resize(inner, resample, part), corner)
    return np.array(canvas)


def load(source: Source, spec: Preparation, *, max_pixels: int = MAX_PIXELS) -> tuple[NDArray[np.uint8], Picture]:
    """Decode and prepare in one go.

    Args:
        source: as for `decode`.
        spec: how to prepare.
        max_pixels: larger pictures are refused.

    Returns:
        The prepared pixels (height, width, 3), and the picture they come from.

    Raises:
        ImageError, TypeError, ValueError: as for `decode`.
    """
    picture = decode(source, min_side=spec.min_side, max_pixels=max_pixels)
    return prepare(picture, spec), picture
