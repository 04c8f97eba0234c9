"""Split a data set into what is trained on and what is held out.

Pictures that must not part form a unit: those of one group, and those with the same bytes. Units are dealt in
an order that depends only on the seed and on their content, so the split does not depend on file order, paths
or platform, and few pictures change sides when a data set grows.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from luce.datasets.dataset import Dataset, Problem
from luce.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """Two sides of a data set.

    Attributes:
        train: (n_train,) int64, rows to train on, ascending.
        test: (n_test,) int64, rows held out, ascending.
        units: (N,) int64; rows with the same number stay together, also in `folds`.
        problems: what the user must know about it.
    """

    train: NDArray[np.int64]
    test: NDArray[np.int64]
    units: NDArray[np.int64]
    problems: tuple[Problem, ...]


def split(
    dataset: Dataset, *, test_share: float = 0.2, seed: int = 0, digests: NDArray[np.uint8] | None = None
) -> Split:
    """Hold pictures out to measure on.

    Parts that the data names are kept: test is held out and val joins train; without test, val is held out.
    But a training picture with the same bytes as one held out is not trained on ("leak"). Data that names
    only train, or no parts, is split here: by class, so that each class is held out in the same share (to the
    nearest picture when classes do not share groups), with at least one unit of each class on either side. A
    class of one unit is trained on and "not-measured".

    Args:
        dataset: N pictures.
        test_share: of each class, at least 0 and below 1; 0 holds nothing out. Not used for parts that are
            named.
        seed: another seed, another split.
        digests: (N, 32) uint8, SHA-256 of each picture's bytes. Without them pixels are hashed here, and
            paths are told apart by their names only.

    Raises:
        ValueError: `test_share` or the shape of `digests` is not as above.
        DataError: there is no picture to train on.
    """
    if not 0 <= test_share < 1:
        raise ValueError(f"test_share must be at least 0 and below 1, got {test_share}")
    if not len(dataset):
        raise DataError(f"{dataset.name}: no pictures to split")
    keys = _keys(dataset) if digests is None else np.ascontiguousarray(digests, np.uint8)
    if keys.shape != (len(dataset), 32):
        raise ValueError(f"digests must be uint8 ({len(dataset)}, 32), got {keys.shape}")
    same = _same_rows(keys)
    units = same if dataset.groups is None else _unite(dataset.groups, same)
    if dataset.splits is not None and set(dataset.splits) != {"train"}:
        return _as_named(dataset, same, units)
    held_out, problems = _hold_out(dataset, units, _order(units, keys, seed), test_share)
    if dataset.splits is not None and held_out.any():
        reason = f"the data names no val or test part: {held_out.sum():,} pictures of its train part are held out"
        problems.append(Problem("no-test-part", "", reason))
    return Split(np.flatnonzero(~held_out), np.flatnonzero(held_out), units, tuple(problems))


def duplicates(dataset: Dataset, digests: NDArray[np.uint8]) -> list[Problem]:
    """List pictures with the same bytes: "duplicate", or "label-conflict" where their classes differ.

    Each is compared with the first of its kind, all of them stay in the data.

    Args:
        dataset: N pictures.
        digests: (N, 32) uint8, SHA-256 of each picture's bytes.
    """
    same = _same_rows(np.ascontiguousarray(digests, np.uint8))
    first = np.full(len(dataset), -1)
    problems = []
    for i in np.flatnonzero(np.bincount(same)[same] > 1) if len(dataset) else ():
        if first[same[i]] < 0:
            first[same[i]] = i
            continue
        original = int(first[same[i]])
        name, other = dataset.classes[dataset.labels[i]], dataset.classes[dataset.labels[original]]
        kind = "duplicate" if name == other else "label-conflict"
        reason = f"the same bytes as {dataset.identifier(original)}"
        if name != other:
            reason += f", which has class {other!r}: one of the two labels is wrong"
        problems.append(Problem(kind, dataset.identifier(int(i)), reason, name))
    return problems


def _keys(dataset: Dataset) -> NDArray[np.uint8]:
    """32 bytes for each row: a hash of its pixels, or of its path below the folder that all paths share."""
    if isinstance(dataset.pictures, np.ndarray):
        contents = [np.ascontiguousarray(picture).tobytes() for picture in dataset.pictures]
    else:
        paths = [os.path.abspath(path) for path in dataset.pictures]
        root = os.path.commonpath(paths) if len(set(paths)) > 1 else ""
        contents = [os.fsencode(Path(os.path.relpath(path, root or "/")).as_posix()) for path in paths]
    rows = [np.frombuffer(hashlib.sha256(content).digest(), np.uint8) for content in contents]
    return np.array(rows, np.uint8).reshape(-1, 32)


def _same_rows(keys: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Give each row a number, the same for equal rows."""
    return np.unique(keys.view("V32").reshape(-1), return_inverse=True)[1].astype(np.int64)


def _unite(groups: NDArray[np.int64], same: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of the finest units in which neither a group nor a set of equal rows parts."""
    group = np.unique(groups, return_inverse=True)[1]
    parent = list(range(int(group.max(initial=-1)) + 1))

    def root(g: int) -> int:
        while parent[g] != g:
            parent[g] = g = parent[parent[g]]
        return g

    owner: dict[int, int] = {}
    for g, s in zip(group.tolist(), same.tolist(), strict=True):
        parent[root(g)] = root(owner.setdefault(s, g))
    return np.unique([root(g) for g in group.tolist()], return_inverse=True)[1].astype(np.int64)


def _order(units: NDArray[np.int64], keys: NDArray[np.uint8], seed: int) -> NDArray[np.int64]:
    """List the units in an order drawn by the seed from the smallest key of each."""
    least: dict[int, bytes] = {}
    for unit, key in zip(units.tolist(), (row.tobytes() for row in keys), strict=True):
        least[unit] = min(key, least.get(unit, key))
    salt = f"{int(seed)} ".encode()
    drawn = {unit: hashlib.sha256(salt + key).digest() for unit, key in least.items()}
    return np.array(sorted(drawn, key=lambda unit: drawn[unit]), np.int64)


def unit_contents(
    units: NDArray[np.int64], labels: NDArray[np.int64], order: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """For each unit in the given order: its number, its classes and how many rows it has of each."""
    pairs, counts = np.unique(np.stack([units, labels], axis=1), axis=0, return_counts=True)
    starts = np.searchsorted(pairs[:, 0], np.arange(len(order) + 1))
    for u in order.tolist():
        part = slice(starts[u], starts[u + 1])
        yield u, pairs[part, 1], counts[part]


def _as_named(dataset: Dataset, same: NDArray[np.int64], units: NDArray[np.int64]) -> Split:
    """Take the parts that the data names, without the training pictures that are held out too."""
    parts = np.array(dataset.splits)
    held_out = parts == ("test" if "test" in (dataset.splits or ()) else "val")
    if held_out.all():
        raise DataError(
            f"{dataset.name}: it has only a {parts[0]} part, nothing to train on; name the folder {parts[0]} itself"
        )
    twin = {int(same[i]): int(i) for i in np.flatnonzero(held_out)[::-1]}
    train, problems = [], []
    for i in np.flatnonzero(~held_out):
        j = twin.get(int(same[i]))
        if j is None:
            train.append(i)
            continue
        reason = f"the same bytes as {dataset.identifier(j)}, which is held out: not trained on"
        problems.append(Problem("leak", dataset.identifier(int(i)), reason, dataset.classes[dataset.labels[i]]))
    if not train:
        raise DataError(
            f"{dataset.name}: all its training pictures are in its {parts[held_out][0]} part too, nothing to train on; "
            "give one of the parts other pictures"
        )
    if dataset.groups is not None:
        both = np.intersect1d(dataset.groups[train], dataset.groups[held_out])
        if len(both):
            i = next(i for i in train if dataset.groups[i] in both)
            reason = f"{len(both)} groups have pictures on both sides of the named parts, this is one"
            problems.append(Problem("leak", dataset.identifier(int(i)), reason))
    return Split(np.array(train, np.int64), np.flatnonzero(held_out), units, tuple(problems))


def _hold_out(
    dataset: Dataset, units: NDArray[np.int64], order: NDArray[np.int64], test_share: float
) -> tuple[NDArray[np.bool_], list[Problem]]:
    """Which rows to hold out, and the classes of which none could be."""
    if test_share == 0:
        return np.zeros(len(dataset), bool), []
    contents = list(unit_contents(units, dataset.labels, order))
    deal = _Deal(contents, len(dataset.classes), test_share)
    # Units with several classes first: those with one then fill up what each class lacks.
    for u, classes, counts in sorted(contents, key=lambda content: len(content[1]) == 1):
        if deal.cost(classes, counts) < 0 and not deal.only_unit[classes].any():
            deal.move(u, classes, counts, 1)
    deal.mend()
    problems = []
    for k in np.flatnonzero((deal.held_out == 0) & (deal.total > 0)):
        one = deal.total[k] == 1
        what = (
            "only one picture"
            if one
            else "all pictures belong together"
            if deal.only_unit[k]
            else "its groups are tied"
        )
        reason = f"{what}: trained on, so that nothing of this class is held out to measure on"
        problems.append(Problem("not-measured", "", reason, dataset.classes[k]))
    return deal.is_held_out[units], problems


class _Deal:
    """Units dealt to two sides, and how many rows of each class that makes."""

    def __init__(
        self,
        contents: list[tuple[int, NDArray[np.int64], NDArray[np.int64]]],
        n_classes: int,
        test_share: float,
    ) -> None:
        self.contents = contents
        self.total = np.zeros(n_classes, np.int64)
        self._with_class: list[list[int]] = [[] for _ in range(n_classes)]
        for i, (_, classes, counts) in enumerate(contents):
            self.total[classes] += counts
            for k in classes:
                self._with_class[k].append(i)
        self.only_unit = np.array([len(units) == 1 for units in self._with_class])
        self.held_out = np.zeros(n_classes, np.int64)
        self.is_held_out = np.zeros(len(contents), bool)
        self._wanted = test_share * self.total

    def cost(self, classes: NDArray[np.int64], counts: NDArray[np.int64], sign: int = 1) -> float:
        """Tell what holding a unit out (sign -1: taking it back) adds to sum (held out - wanted)² / total."""
        missed = self.held_out[classes] - self._wanted[classes]
        return float((counts * (2 * sign * missed + counts) / self.total[classes]).sum())

    def move(self, unit: int, classes: NDArray[np.int64], counts: NDArray[np.int64], sign: int) -> None:
        self.is_held_out[unit] = sign > 0
        self.held_out[classes] += sign * counts

    def mend(self) -> None:
        """Give each class a row to train on, then, where that stays possible, one to measure on."""
        for sign in (-1, 1):
            for k in range(len(self.total)):
                here = self.total[k] - self.held_out[k] if sign < 0 else self.held_out[k]
                if here or self.only_unit[k]:
                    continue
                able = [
                    (self._robs(*self.contents[i][1:], sign), self.cost(*self.contents[i][1:], sign), i)
                    for i in self._with_class[k]
                    if self.is_held_out[self.contents[i][0]] == (sign < 0)
                ]
                able = [choice for choice in able if sign < 0 or not choice[0]]
                if able:
                    self.move(*self.contents[min(able)[2]], sign)

    def _robs(self, classes: NDArray[np.int64], counts: NDArray[np.int64], sign: int) -> bool:
        """Whether moving a unit leaves its former side without one of its classes."""
        left = self.held_out[classes] if sign < 0 else self.total[classes] - self.held_out[classes]
        return bool((left == counts).any())
