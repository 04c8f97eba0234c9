"""A backbone: prepared pixels in, features out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from luce.images import Preparation


@dataclass(frozen=True, slots=True)
class Backbone:
    """A frozen network with everything needed to use it again.

    Attributes:
        name: "none", "efficientnet-lite0", or the path or hub name that the user gave.
        graph: serialised ONNX: `images` uint8 (batch, height, width, 3) → `features` (batch, D).
        sha256: of what it was made from: the weights file, or the ONNX file.
        licence: as far as it is known.
        n_features: D.
        dtype: of the features: float32, or uint8 for pixels.
        preparation: how pictures become its input.
        notes: what the user should know about it.
    """

    name: str
    graph: bytes = field(repr=False)
    sha256: str
    licence: str
    n_features: int
    dtype: np.dtype[np.generic]
    preparation: Preparation
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Says exactly what is computed: features under the same key are interchangeable."""
        graph = hashlib.sha256(self.graph).hexdigest()
        return f"2|{graph}|{sorted(self.preparation.to_dict().items())}"
