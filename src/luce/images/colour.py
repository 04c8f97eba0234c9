"""Colour: pixels of every kind to 8-bit RGB."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luce.errors import ImageError

_TRANSPARENT: Final = "transparent pixels laid over white"


def to_rgb(image: Image.Image, notes: list[str]) -> NDArray[np.uint8]:
    """Pixels (height, width, 3) of a loaded image in any mode.

    Raises:
        ImageError: its numbers have no meaning as a colour.
    """
    mode = image.mode
    if mode == "F":
        return _stacked(_scale_float(np.asarray(image)))
    if mode.startswith("I"):
        notes.append("16 bits scaled to 8")
        grey = _scale_16(np.asarray(image))
        if "transparency" in image.info:
            notes.append(_TRANSPARENT)
            grey[np.asarray(image) == image.info["transparency"]] = 255
        return _stacked(grey)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _over_white(np.asarray(image.convert("RGBA")), notes)
    return np.array(image.convert("RGB"))


def _over_white(rgba: NDArray[np.uint8], notes: list[str]) -> NDArray[np.uint8]:
    alpha = rgba[..., 3:].astype(np.uint16)
    if (alpha == 255).all():
        return np.ascontiguousarray(rgba[..., :3])
    notes.append(_TRANSPARENT)
    mixed = rgba[..., :3] * alpha + 255 * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def _scale_16(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("its pixels are 32-bit integers; save it with 8 or 16 bits")
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _scale_float(values: NDArray[Any]) -> NDArray[np.uint8]:
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
        raise ImageError("its floating pixels do not lie in 0 … 1 or 0 … 255; save it with 8 bits")
    scale = 255.0 if values.max() <= 1 else 1.0
    return np.rint(values * scale).astype(np.uint8)


def _stacked(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[:, :, None], 3, axis=2)


def from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels (height, width, 3) of an array of any allowed kind.

    Raises:
        TypeError, ValueError: its dtype or shape is not allowed.
    """
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16:
        array = _scale_16(array) if array.size else array.astype(np.uint8)
    elif array.dtype != np.uint8:
        raise TypeError(
            f"a picture array must be uint8, uint16 or bool, got {array.dtype}; "
            "convert it first, for example (255 * x).round().astype('uint8') if it lies in 0 … 1"
        )
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(
            f"a picture array must have shape (height, width), or (height, width, 1, 3 or 4), got {array.shape}"
            + ("; move the channels last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else "")
        )
    if channels == 4:
        return _over_white(array, [])
    if channels == 1:
        return _stacked(array.reshape(array.shape[:2]))
    return np.ascontiguousarray(array)
