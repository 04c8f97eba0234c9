"""Look at every picture of a data set and list what could do harm in training."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luce.datasets.dataset import Dataset, Problem
from luce.datasets.split import duplicates
from luce.errors import ImageError
from luce.images import MAX_PIXELS, Source, decode, read_source
from luce.parallel import map_chunks

TINY_CLASS = 10  # pictures; fewer cannot be learnt or measured
IMBALANCE = 10.0  # largest class over smallest
TINY_SIDE = 32  # pixels of the short side, when most pictures are larger
LONG_SIDE = 4.0  # long side over short side
_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Check:
    """What was found.

    Attributes:
        n_pictures: listed in the data set.
        n_readable: of these.
        per_class: pictures of each class, readable or not.
        sizes: (width, height) of the median, and the least and greatest side.
        formats: readable pictures by format.
        problems: everything the user should know.
    """

    n_pictures: int
    n_readable: int
    per_class: dict[str, int]
    sizes: dict[str, Any]
    formats: dict[str, int]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    digest: bytes
    size: tuple[int, int]
    format: str
    notes: tuple[str, ...]


def check(
    dataset: Dataset,
    *,
    n_threads: int,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[str, int, int], None] | None = None,
) -> Check:
    """Decode every picture once and list problems: unreadable ones, duplicates, tiny classes, imbalance, odd sizes.

    Args:
        dataset: what `luce.open_dataset` gives.
        n_threads: pictures decoded at once.
        max_pixels: larger pictures are refused.
        progress: called with (stage, done, total).
    """

    def work(batch: Sequence[Source]) -> list[_Seen | ImageError]:
        return [_look(source, max_pixels) for source in batch]

    problems = list(dataset.problems)
    seen: list[_Seen] = []
    rows: list[int] = []
    for i, result in enumerate(map_chunks(dataset.sources, work, chunk=_CHUNK, n_threads=n_threads)):
        if isinstance(result, ImageError):
            name = dataset.classes[dataset.labels[i]]
            problems.append(Problem("unreadable", dataset.identifier(i), result.reason, name))
        else:
            seen.append(result)
            rows.append(i)
            path = dataset.identifier(i)
            problems += [Problem("noted", path, note, dataset.classes[dataset.labels[i]]) for note in result.notes]
        if progress is not None:
            progress("Checking pictures", i + 1, len(dataset))
    if seen:
        digests = np.array([np.frombuffer(s.digest, np.uint8) for s in seen])
        problems += duplicates(dataset.take(np.array(rows)), digests)
        problems += _odd_sizes(dataset, rows, seen)
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    problems += _class_problems(dataset, counts)
    per_class = {name: int(n) for name, n in zip(dataset.classes, counts, strict=True)}
    formats = dict(Counter(s.format for s in seen).most_common())
    return Check(len(dataset), len(seen), per_class, _sizes(seen), formats, tuple(problems))


def _look(source: Source, max_pixels: int) -> _Seen | ImageError:
    try:
        content = read_source(source)
        picture = decode(content, min_side=64, max_pixels=max_pixels)
    except ImageError as error:
        return error
    raw = content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes()
    return _Seen(hashlib.sha256(raw).digest(), picture.size, picture.format, picture.notes)


def _sizes(seen: Sequence[_Seen]) -> dict[str, Any]:
    if not seen:
        return {}
    sides = np.array([s.size for s in seen])
    median: NDArray[np.float64] = np.median(sides, axis=0)
    return {
        "median": [int(median[0]), int(median[1])],
        "least_side": int(sides.min()),
        "greatest_side": int(sides.max()),
    }


def _odd_sizes(dataset: Dataset, rows: Sequence[int], seen: Sequence[_Seen]) -> list[Problem]:
    short = np.array([min(s.size) for s in seen])
    mostly_larger = np.median(short) > 2 * TINY_SIDE
    found = []
    for i, s in zip(rows, seen, strict=True):
        width, height = s.size
        name = dataset.classes[dataset.labels[i]]
        if mostly_larger and min(s.size) < TINY_SIDE:
            found.append(Problem("odd-size", dataset.identifier(i), f"only {width} x {height} pixels", name))
        elif max(s.size) > LONG_SIDE * min(s.size):
            reason = f"{width} x {height} pixels: very long, training squeezes it to the input of the network"
            found.append(Problem("odd-size", dataset.identifier(i), reason, name))
    return found


def _class_problems(dataset: Dataset, counts: NDArray[np.int64]) -> list[Problem]:
    found = [
        Problem("tiny-class", "", f"only {n} picture{'s' if n > 1 else ''}: too few to learn from and to measure", name)
        for name, n in zip(dataset.classes, counts, strict=True)
        if n < TINY_CLASS
    ]
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[least] and counts[most] > IMBALANCE * counts[least]:
        reason = (
            f"{dataset.classes[most]!r} has {counts[most] / counts[least]:.0f} times as many pictures as "
            f"{dataset.classes[least]!r}; consider --class-weight balanced"
        )
        found.append(Problem("imbalance", "", reason))
    return found
