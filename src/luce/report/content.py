"""What a report says: plain values, measured elsewhere.

Fractions are in [0, 1], intervals are 95 %. `None` is what is not known or not defined: a dash on the page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from luce.metrics import Bin

_PICTURE = re.compile(r"data:image/(?:png|jpeg|webp|gif);base64,[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of an evaluation.

    Attributes:
        n_test: pictures measured; 0 when nothing was held out.
        n_train: pictures trained on.
        seconds: wall time.
        temperature: divides the logits; 1 or `None` is no calibration.
        accuracy, brier, nll, ece: see `luce.metrics`, each with the ends of its interval.
        nll_uncalibrated, ece_uncalibrated: the same at temperature 1.
        n_zero: pictures whose true class got probability 0: with any, `nll` is infinite, written `None`.
    """

    n_test: int
    n_zero: int = 0
    n_train: int | None = None
    seconds: float | None = None
    temperature: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    nll: float | None = None
    nll_low: float | None = None
    nll_high: float | None = None
    nll_uncalibrated: float | None = None
    nll_uncalibrated_low: float | None = None
    nll_uncalibrated_high: float | None = None
    brier: float | None = None
    brier_low: float | None = None
    brier_high: float | None = None
    ece: float | None = None
    ece_low: float | None = None
    ece_high: float | None = None
    ece_uncalibrated: float | None = None
    ece_uncalibrated_low: float | None = None
    ece_uncalibrated_high: float | None = None

    @property
    def calibrated(self) -> bool:
        """Whether a temperature was fitted that changes the probabilities."""
        return self.temperature not in (None, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """Who is taken for whom.

    Attributes:
        classes: the K names.
        counts: (K, K) counts; rows are the truth, columns what was predicted. Kept as an int64 array.
    """

    classes: Sequence[str]
    counts: NDArray[np.int64] | Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        counts = np.asarray(self.counts)
        k = len(self.classes)
        if not np.issubdtype(counts.dtype, np.integer) or counts.shape != (k, k) or (counts < 0).any():
            raise ValueError(
                f"Confusion: counts must be non-negative integers of shape ({k}, {k}) for the {k} classes, "
                f"got shape {counts.shape} of dtype {counts.dtype}"
            )
        object.__setattr__(self, "counts", counts.astype(np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """How one class does."""

    name: str
    n_train: int | None = None
    n_test: int
    precision: float | None = None
    recall: float | None = None
    recall_low: float | None = None
    recall_high: float | None = None
    f1: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A picture that was taken for another class.

    Attributes:
        path: of the picture.
        truth: its class, to which the classifier gave `truth_probability`.
        predicted: what the classifier said, with `probability`.
        thumbnail: a `data:image/...;base64,` URI of a PNG, JPEG, WebP or GIF, or "".
    """

    path: str
    truth: str
    predicted: str
    probability: float
    truth_probability: float
    thumbnail: str = ""

    def __post_init__(self) -> None:
        if self.thumbnail and not _PICTURE.fullmatch(self.thumbnail):
            raise ValueError(
                "Mistake: thumbnail must be a data:image/(png|jpeg|webp|gif);base64 URI or empty, "
                f"got {self.thumbnail[:60]!r}"
            )


class Problem(Protocol):
    """Something found in the data: `luce.datasets` makes these."""

    @property
    def kind(self) -> str:
        """A short word such as "unreadable"."""

    @property
    def path(self) -> str:
        """The file, or "" where it is about a class or the whole set."""

    @property
    def reason(self) -> str:
        """What is wrong."""

    @property
    def class_name(self) -> str | None:
        """The class concerned, if any."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """Everything on the page.

    Attributes:
        title: usually the name of the data.
        subtitle: one line below it.
        summary: the figures.
        reliability: the bins of the calibrated probabilities; empty when nothing was measured.
        reliability_uncalibrated: the bins at temperature 1.
        confusion: the confusion matrix.
        per_class: in the order of the classes.
        mistakes: the most confident first.
        problems: what was found in the data; may be cut.
        problems_total: how many there are of each kind; by default those in `problems`.
        how_trained: (label, value) rows.
        notes: sentences for the reader.
        held_out: whether the pictures measured are known to be none of those trained on.
        link: what turns logits, divided by the temperature, into probabilities.
    """

    title: str
    subtitle: str = ""
    summary: Summary
    reliability: Sequence[Bin] = ()
    reliability_uncalibrated: Sequence[Bin] = ()
    confusion: Confusion
    per_class: Sequence[ClassScores] = ()
    mistakes: Sequence[Mistake] = ()
    problems: Sequence[Problem] = ()
    problems_total: Mapping[str, int] = field(default_factory=dict[str, int])
    how_trained: Sequence[tuple[str, Any]] = ()
    notes: Sequence[str] = ()
    held_out: bool = True
    link: str = "softmax"
