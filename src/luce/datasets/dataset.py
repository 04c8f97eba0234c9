"""A data set: pictures with known classes, and everything the user must know about them."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce.errors import DataError

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the data that the user must know. It is listed and counted, never silently repaired.

    Attributes:
        kind: a short fixed word such as "unreadable" or "label-conflict"; docs list them.
        path: the file, or "" where it is about a class or the whole set.
        reason: what is wrong and what was done about it, in one sentence.
        class_name: the class concerned, or "".
    """

    kind: str
    path: str
    reason: str
    class_name: str = ""

    def to_dict(self) -> dict[str, str]:
        """Keys `kind`, `path`, `reason` and `class`."""
        return {"kind": self.kind, "path": self.path, "reason": self.reason, "class": self.class_name}


@dataclass(frozen=True, eq=False)
class Dataset:
    """N pictures with known classes, an immutable value. `luce.open_dataset` makes it.

    Attributes:
        name: for messages: the path or name it was opened by.
        classes: K distinct names in the order of the labels.
        pictures: N paths, or uint8 pixels (N, height, width) or (N, height, width, 3).
        labels: (N,) int64, positions in `classes`.
        splits: "train", "val" or "test" for each picture; `None` when the data names no parts.
        groups: (N,) int64; pictures with the same number never part. `None`: each picture by itself.
        weights: (N,) float64, positive. `None`: all 1.
        problems: what was found while listing.
        rows: (N,) int64, for pixels only: their positions in the data as it was opened.
    """

    name: str
    classes: tuple[str, ...]
    pictures: tuple[Path, ...] | NDArray[np.uint8] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    splits: tuple[Part, ...] | None = field(default=None, repr=False)
    groups: NDArray[np.int64] | None = field(default=None, repr=False)
    weights: NDArray[np.float64] | None = field(default=None, repr=False)
    problems: tuple[Problem, ...] = field(default=(), repr=False)
    rows: NDArray[np.int64] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        n = len(self.pictures)
        if len(set(self.classes)) != len(self.classes) or "" in self.classes:
            raise ValueError(f"Dataset: class names must be distinct and not empty, got {self.classes}")
        for what in ("labels", "splits", "groups", "weights", "rows"):
            value = getattr(self, what)
            if value is not None and len(value) != n:
                raise ValueError(f"Dataset: {what} must have one entry for each of {n} pictures, got {len(value)}")
        if n and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise ValueError(
                f"Dataset: labels must lie in 0 … {len(self.classes) - 1}, "
                f"got {self.labels.min()} … {self.labels.max()}"
            )
        if self.splits is not None and not set(self.splits) <= set(PARTS):
            raise ValueError(f"Dataset: splits must be train, val or test, got {sorted(set(self.splits))}")
        if isinstance(self.pictures, np.ndarray) and self.rows is None:
            object.__setattr__(self, "rows", np.arange(n))

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def sources(self) -> tuple[Path | NDArray[np.uint8], ...]:
        """The N pictures as `luce.images.decode` takes them; pixels are views, not copies."""
        return tuple(self.pictures)

    def identifier(self, i: int) -> str:
        """Return the path of picture i as text that can be printed anywhere, or `name[row]` for pixels."""
        if isinstance(self.pictures, np.ndarray):
            return f"{self.name}[{i if self.rows is None else self.rows[i]}]"
        return printable(self.pictures[i])

    def take(self, indices: ArrayLike) -> Dataset:
        """Return the data set of some of the pictures, in the order of `indices` (M,)."""
        index = np.asarray(indices, np.int64).reshape(-1)
        if np.array_equal(index, np.arange(len(self))):
            return self
        pictures = self.pictures
        return replace(
            self,
            pictures=pictures[index] if isinstance(pictures, np.ndarray) else tuple(pictures[i] for i in index),
            labels=self.labels[index],
            splits=None if self.splits is None else tuple(self.splits[i] for i in index),
            groups=None if self.groups is None else self.groups[index],
            weights=None if self.weights is None else self.weights[index],
            rows=None if self.rows is None else self.rows[index],
        )

    def held_out(self) -> Dataset:
        """Return the part to measure on: test if the data names one, else val, else all of it."""
        for part in ("test", "val"):
            if self.splits is not None and part in self.splits:
                return self.take([i for i, split in enumerate(self.splits) if split == part])
        return self


def printable(path: str | os.PathLike[str]) -> str:
    """Write a path as text; bytes of a file name that are not UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def name_classes(names: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...], list[Problem]]:
    """Turn the class name of each picture into a label.

    Names are equal when their Unicode normal forms (NFC) are; nothing else merges them.

    Args:
        names: N class names.

    Returns:
        Labels (N,), the class names in code point order, and a "duplicate-name" problem for each name that
        was merged or that another class resembles but for case and surrounding space.
    """
    spelt = sorted(set(names))
    normal = {name: unicodedata.normalize("NFC", name) for name in spelt}
    classes = tuple(sorted(set(normal.values())))
    position = {name: classes.index(form) for name, form in normal.items()}
    problems = []
    seen: set[str] = set()
    for name in spelt:
        if normal[name] in seen:
            reason = f"{name!r} is written with other code points elsewhere: taken as one class"
            problems.append(Problem("duplicate-name", "", reason, normal[name]))
        seen.add(normal[name])
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[name.strip().casefold()].append(name)
    for first, *others in alike.values():
        for other in others:
            reason = f"differs from class {first!r} only in case or surrounding space: taken as two classes"
            problems.append(Problem("duplicate-name", "", reason, other))
    return np.array([position[name] for name in names], np.int64), classes, problems


def number_groups(names: Sequence[str]) -> NDArray[np.int64]:
    """Numbers (N,) of groups by name; each "" is a group of its own."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(name or (i,), len(numbers)) for i, name in enumerate(names)], np.int64)


def join_parts(dataset: Dataset) -> Dataset:
    """Join the parts of a data set by class name, and refuse one that nothing can be learnt from.

    A class that only val or test has is left out with its pictures, as "unknown-class". A class that val or
    test lacks is listed as "missing-class". Classes without a picture are dropped.

    Raises:
        DataError: fewer than two classes are left.
    """
    counts = {part: np.zeros(len(dataset.classes), np.int64) for part in PARTS}
    if dataset.splits is None:
        counts["train"] = np.bincount(dataset.labels, minlength=len(dataset.classes))
    else:
        splits = np.array(dataset.splits)
        for part in PARTS:
            counts[part] = np.bincount(dataset.labels[splits == part], minlength=len(dataset.classes))
    known = (counts["train"] if counts["train"].any() else counts["val"] + counts["test"]) > 0
    problems = list(dataset.problems)
    for k, name in enumerate(dataset.classes):
        where = {part: int(counts[part][k]) for part in PARTS if counts[part].any()}
        if not known[k] and any(where.values()):
            reason = f"only in {_listed(where)}, not in train: these pictures are left out"
            problems.append(Problem("unknown-class", "", reason, name))
        elif known[k]:
            for part in (part for part, n in where.items() if n == 0):
                problems.append(Problem("missing-class", "", f"no picture of this class in {part}", name))
    kept = dataset.take(np.flatnonzero(known[dataset.labels]))
    classes = tuple(name for name, keep in zip(dataset.classes, known, strict=True) if keep)
    if len(classes) < 2:
        raise DataError(
            f"{dataset.name}: pictures of at least 2 classes are needed, "
            + (f"there is only {classes[0]!r}" if classes else "there are none")
        )
    labels = (np.cumsum(known) - 1)[kept.labels]
    return replace(kept, classes=classes, labels=labels, problems=tuple(problems))


def _listed(where: dict[Part, int]) -> str:
    return " and ".join(f"{part} ({n})" for part, n in where.items() if n)
