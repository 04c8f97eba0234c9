"""How to train."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from luce.images import MAX_PIXELS
from luce.threads import default_threads

Progress = Callable[[str, int, int], None]
Say = Callable[[str], None]
ClassWeight = Literal["balanced"] | Mapping[str, float] | None
Prior = Literal["train", "uniform"] | Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Options:
    """How to train. See `luce.train` for the meaning of each."""

    backbone: str | None = None
    test_share: float = 0.2
    seed: int = 0
    class_weight: ClassWeight = None
    prior: Prior = "train"
    cache: bool = True
    n_threads: int | None = None
    max_pixels: int = MAX_PIXELS
    max_unreadable: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.test_share < 1:
            raise ValueError(f"test_share must be at least 0 and below 1, got {self.test_share}")
        if not 0 <= self.max_unreadable <= 1:
            raise ValueError(f"max_unreadable must lie in 0 … 1, got {self.max_unreadable}")
        if self.n_threads is not None and self.n_threads < 1:
            raise ValueError(f"n_threads must be at least 1, got {self.n_threads}")
        if isinstance(self.class_weight, str) and self.class_weight != "balanced":
            raise ValueError(f"class_weight must be None, 'balanced' or a weight by class, got {self.class_weight!r}")
        if isinstance(self.prior, str) and self.prior not in ("train", "uniform"):
            raise ValueError(f"prior must be 'train', 'uniform' or a share by class, got {self.prior!r}")

    @property
    def threads(self) -> int:
        """The number of threads meant by `n_threads`."""
        return self.n_threads or default_threads()

    def record(self) -> dict[str, Any]:
        """What the model file says of them."""
        weight, prior = self.class_weight, self.prior
        return {
            "class_weight": weight if weight is None or isinstance(weight, str) else dict(weight),
            "prior": prior if isinstance(prior, str) else dict(prior),
            "seed": self.seed,
        }

    def check_names(self, classes: tuple[str, ...]) -> None:
        """Check class weights and prior against the classes of the data.

        Raises:
            ValueError: an unknown class, a class without a share, or a value that is not positive and finite.
        """
        for what, values in (("class_weight", self.class_weight), ("prior", self.prior)):
            if values is None or isinstance(values, str):
                continue
            for name, value in values.items():
                if name not in classes:
                    listed = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
                    raise ValueError(f"{what}: no class {name!r}; the classes are {listed}")
                if not (math.isfinite(value) and value > 0):
                    raise ValueError(f"{what}: values must be positive numbers, got {value} for {name!r}")
            missing = [name for name in classes if name not in values]
            if missing and what == "prior":
                raise ValueError(f"prior: class {missing[0]!r} has no share; every class needs one")
