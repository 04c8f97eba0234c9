"""Splits and folds: the laws that make a held-out figure honest."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from luce.datasets import Dataset, Split, duplicates, folds, split
from luce.datasets.dataset import Part
from luce.errors import DataError


def digests_of(contents: list[int]) -> NDArray[np.uint8]:
    rows = [np.frombuffer(hashlib.sha256(str(content).encode()).digest(), np.uint8) for content in contents]
    return np.array(rows, np.uint8).reshape(-1, 32)


def make(labels: list[int], groups: list[int] | None = None, splits: tuple[Part, ...] | None = None) -> Dataset:
    n_classes = max(labels) + 1
    return Dataset(
        "set",
        tuple(f"class {k}" for k in range(n_classes)),
        tuple(Path(f"set/{k}/{i}.jpg") for i, k in enumerate(labels)),
        np.array(labels, np.int64),
        splits,
        None if groups is None else np.array(groups, np.int64),
    )


def held_out_per_class(dataset: Dataset, parts: Split) -> NDArray[np.int64]:
    return np.bincount(dataset.labels[parts.test], minlength=len(dataset.classes))


def connected(groups: list[int], contents: list[int]) -> list[int]:
    """Slow reference of the units: merge rows until nothing changes."""
    unit = list(range(len(contents)))
    changed = True
    while changed:
        changed = False
        for i in range(len(unit)):
            for j in range(i):
                if (groups[i] == groups[j] or contents[i] == contents[j]) and unit[i] != unit[j]:
                    unit[i] = unit[j] = min(unit[i], unit[j])
                    changed = True
    return unit


def partition(numbers: list[int] | NDArray[np.int64]) -> set[frozenset[int]]:
    blocks: dict[int, set[int]] = {}
    for i, number in enumerate(numbers):
        blocks.setdefault(int(number), set()).add(i)
    return {frozenset(block) for block in blocks.values()}


LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=40)
SHARE = st.floats(0.01, 0.95)
SEED = st.integers(0, 10**12)


@settings(max_examples=200, deadline=None)
@given(labels=LABELS, share=SHARE, seed=SEED)
def test_each_class_is_held_out_in_its_share(labels: list[int], share: float, seed: int) -> None:
    dataset = make(labels)
    parts = split(dataset, test_share=share, seed=seed, digests=digests_of(list(range(len(labels)))))
    assert sorted([*parts.train, *parts.test]) == list(range(len(labels)))
    assert parts.train.tolist() == sorted(parts.train)
    assert parts.test.tolist() == sorted(parts.test)
    total, held_out = np.bincount(labels), held_out_per_class(dataset, parts)
    for n, t in zip(total, held_out, strict=True):
        if n < 2:
            assert t == 0
        else:
            assert 1 <= t <= n - 1
            assert abs(t - share * n) <= 0.5 + 1e-9 or t in (1, n - 1)
            assert t != 1 or share * n <= 1.5 + 1e-9 or n == 2
            assert t != n - 1 or share * n >= n - 1.5 - 1e-9 or n == 2
    alone = [f"class {k}" for k in np.flatnonzero(total == 1)]
    assert [problem.class_name for problem in parts.problems] == alone
    assert {problem.kind for problem in parts.problems} <= {"not-measured"}


@settings(max_examples=200, deadline=None)
@given(data=st.data(), labels=LABELS, share=SHARE, seed=SEED)
def test_groups_and_identical_files_never_part(data: st.DataObject, labels: list[int], share: float, seed: int) -> None:
    n = len(labels)
    groups = data.draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    contents = data.draw(st.lists(st.integers(0, 30), min_size=n, max_size=n))
    dataset = make(labels, groups)
    parts = split(dataset, test_share=share, seed=seed, digests=digests_of(contents))
    assert sorted([*parts.train, *parts.test]) == list(range(n))
    side = np.zeros(n, bool)
    side[parts.test] = True
    for values in (groups, contents):
        for value in set(values):
            assert len({side[i] for i in range(n) if values[i] == value}) == 1
    unit = connected(groups, contents)
    assert partition(parts.units) == partition(unit)
    held_out, total = held_out_per_class(dataset, parts), np.bincount(labels)
    assert (held_out[total > 0] < total[total > 0]).all()
    not_measured = {problem.class_name for problem in parts.problems}
    assert not_measured == {f"class {k}" for k in np.flatnonzero((held_out == 0) & (total > 0))}
    of_class = [{unit[i] for i in range(n) if labels[i] == k} for k in range(len(total))]
    classes_of = {u: {labels[i] for i in range(n) if unit[i] == u} for u in set(unit)}
    for k, units in enumerate(of_class):
        if len(units) > 1 and all(len(classes_of[u]) == 1 for u in units):
            assert held_out[k] > 0  # with no ties to other classes, both sides are always possible


@settings(max_examples=100, deadline=None)
@given(data=st.data(), labels=LABELS, seed=SEED)
def test_the_split_depends_on_content_only(data: st.DataObject, labels: list[int], seed: int) -> None:
    n = len(labels)
    groups = data.draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    contents = data.draw(st.lists(st.integers(0, 30), min_size=n, max_size=n))
    order = data.draw(st.permutations(range(n)))
    renamed = data.draw(st.permutations(range(13)))
    one = split(make(labels, groups), seed=seed, digests=digests_of(contents))
    shuffled = make([labels[i] for i in order] + [4], [renamed[groups[i]] for i in order] + [99]).take(range(n))
    shuffled = replace(shuffled, pictures=tuple(Path(f"elsewhere/{i}") for i in range(n)))
    first = make([*labels, 4], [*groups, 99]).take(range(n))
    one = split(first, seed=seed, digests=digests_of(contents))
    two = split(shuffled, seed=seed, digests=digests_of([contents[i] for i in order]))
    assert {order[i] for i in two.test} == set(one.test.tolist())


def test_the_split_without_digests_depends_on_names_below_the_common_folder(tmp_path: Path) -> None:
    labels = [i % 3 for i in range(60)]
    here = make(labels)
    there = replace(here, pictures=tuple(tmp_path / path for path in here.sources))  # type: ignore[operator]
    order = np.random.default_rng(0).permutation(60)
    test = split(here).test
    assert np.array_equal(split(there).test, test)
    assert sorted(order[split(here.take(order)).test]) == test.tolist()
    assert not np.array_equal(split(here, seed=1).test, test)


def test_the_split_is_the_same_on_every_machine() -> None:
    """Frozen: a change here means that every user's held-out pictures change."""
    labels = [i % 2 for i in range(20)]
    assert split(make(labels), digests=digests_of(list(range(20)))).test.tolist() == [7, 14, 16, 19]
    assert split(make(labels), seed=7, digests=digests_of(list(range(20)))).test.tolist() == [0, 7, 12, 17]
    assert split(make(labels)).test.tolist() == [1, 4, 10, 13]
    assert folds(np.array(labels), 3, 0).tolist() == [1, 2, 0, 2, 0, 0, 0, 2, 2, 1, 1, 1, 2, 0, 2, 1, 0, 1, 1, 0]
    pairs = np.arange(20) // 2
    assert folds(np.array(labels), 3, 0, pairs)[::2].tolist() == [1, 0, 0, 0, 2, 1, 2, 2, 0, 1]


def test_few_pictures_change_sides_when_the_data_grow() -> None:
    labels, contents = [i % 2 for i in range(400)], list(range(400))
    before = split(make(labels[:360]), digests=digests_of(contents[:360]))
    after = split(make(labels), digests=digests_of(contents))
    assert len(set(before.test) - set(after.test)) <= 12


def test_pixels_are_compared_by_their_bytes() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 4, 4), dtype=np.uint8)
    pixels[20:] = pixels[:20]
    dataset = Dataset("set", ("a", "b"), pixels, np.tile([0, 1], 20))
    parts = split(dataset)
    assert {i % 20 for i in parts.test}.isdisjoint({i % 20 for i in parts.train})
    assert len(parts.test) == 8


def test_persons_with_pictures_of_every_class() -> None:
    """As in a set of hand signs: ten persons, each showing each of five signs four times."""
    labels = [k for _ in range(10) for k in range(5) for _ in range(4)]
    persons = [i // 20 for i in range(200)]
    dataset = make(labels, persons)
    parts = split(dataset, seed=3)
    assert len({persons[i] for i in parts.test}) == 2
    assert held_out_per_class(dataset, parts).tolist() == [8] * 5
    assert {persons[i] for i in parts.test}.isdisjoint({persons[i] for i in parts.train})


def test_classes_whose_groups_are_tied_are_listed() -> None:
    """Three classes, each pair of them in one group: some class is on one side only, whatever one does."""
    dataset = make([0, 1, 0, 2, 1, 2], [0, 0, 1, 1, 2, 2])
    for seed in range(8):
        parts = split(dataset, seed=seed)
        assert np.bincount(dataset.labels[parts.train], minlength=3).min() > 0
        assert [problem.kind for problem in parts.problems] == ["not-measured"]
        assert "its groups are tied" in parts.problems[0].reason


def test_reasons_why_a_class_is_not_measured() -> None:
    dataset = make([0, 1, 1, 1, 2, 2], [0, 1, 1, 1, 2, 3])
    reasons = {problem.class_name: problem.reason for problem in split(dataset).problems}
    assert reasons["class 0"].startswith("only one picture: ")
    assert reasons["class 1"].startswith("all pictures belong together: ")
    assert set(reasons) == {"class 0", "class 1"}


def test_nothing_is_held_out_for_a_share_of_0() -> None:
    parts = split(make([0, 1, 0, 1]), test_share=0)
    assert parts.train.tolist() == [0, 1, 2, 3]
    assert parts.test.tolist() == []
    assert parts.problems == ()


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(ValueError, match="test_share must be at least 0 and below 1"):
        split(make([0, 1]), test_share=share)


def test_digests_of_the_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"digests must be uint8 \(2, 32\), got \(3, 32\)"):
        split(make([0, 1]), digests=digests_of([1, 2, 3]))


def test_no_pictures() -> None:
    with pytest.raises(DataError, match="set: no pictures to split"):
        split(make([0, 1]).take([]))


PARTS: tuple[Part, ...] = ("train", "val", "test", "train", "val", "test")


def test_named_parts_are_kept() -> None:
    labels = [0, 1, 0, 1, 0, 1]
    parts = split(make(labels, splits=PARTS), test_share=0.5, seed=9)
    assert parts.test.tolist() == [2, 5]
    assert parts.train.tolist() == [0, 1, 3, 4]  # val joins train where there is a test part
    no_test = tuple("train" if part == "test" else part for part in PARTS)
    parts = split(make(labels, splits=no_test))
    assert parts.test.tolist() == [1, 4]
    assert parts.problems == ()


def test_data_that_names_only_train_is_split_and_that_is_said() -> None:
    labels = [0, 1] * 5
    parts = split(make(labels, splits=("train",) * 10), seed=4)
    assert np.array_equal(parts.test, split(make(labels), seed=4).test)
    assert [problem.kind for problem in parts.problems] == ["no-test-part"]


def test_a_training_picture_with_the_bytes_of_a_held_out_one_is_not_trained_on() -> None:
    dataset = make([0, 1, 0, 1, 0, 1], splits=PARTS)
    parts = split(dataset, digests=digests_of([10, 11, 12, 12, 14, 11]))
    assert parts.test.tolist() == [2, 5]
    assert parts.train.tolist() == [0, 4]
    assert [(p.kind, p.path, p.class_name) for p in parts.problems] == [
        ("leak", "set/1/1.jpg", "class 1"),
        ("leak", "set/1/3.jpg", "class 1"),
    ]
    assert "the same bytes as set/0/2.jpg, which is held out" in parts.problems[1].reason


@settings(max_examples=100, deadline=None)
@given(data=st.data(), labels=LABELS)
def test_named_parts_never_share_bytes(data: st.DataObject, labels: list[int]) -> None:
    n = len(labels)
    contents = data.draw(st.lists(st.integers(0, 20), min_size=n, max_size=n))
    splits = tuple(data.draw(st.lists(st.sampled_from(["train", "val", "test"]), min_size=n, max_size=n)))
    dataset = make(labels, splits=splits)  # type: ignore[arg-type]
    if "train" not in splits and len(set(splits)) == 1:
        with pytest.raises(DataError, match="nothing to train on"):
            split(dataset)
        return
    side = "test" if "test" in splits else "val"
    kept_out = {content for content, part in zip(contents, splits, strict=True) if part == side}
    if kept_out >= set(contents):
        with pytest.raises(DataError, match="nothing to train on"):
            split(dataset, digests=digests_of(contents))
        return
    parts = split(dataset, digests=digests_of(contents))
    assert {contents[i] for i in parts.train}.isdisjoint({contents[i] for i in parts.test})
    if set(splits) != {"train"}:
        held_out = "test" if "test" in splits else "val"
        assert parts.test.tolist() == [i for i in range(n) if splits[i] == held_out]
        assert len(parts.train) + len(parts.test) + len(parts.problems) == n


def test_named_parts_with_the_same_pictures_leave_nothing_to_train_on() -> None:
    dataset = make([0, 1, 0, 1], splits=("train", "train", "test", "test"))
    with pytest.raises(
        DataError,
        match=r"set: all its training pictures are in its test part too, nothing to train on; give",
    ):
        split(dataset, digests=digests_of([10, 11, 10, 11]))


def test_groups_on_both_sides_of_named_parts_are_listed() -> None:
    parts = split(make([0, 1, 0, 1, 0, 1], [0, 1, 0, 3, 4, 1], PARTS))
    assert [(problem.kind, problem.path) for problem in parts.problems] == [("leak", "set/0/0.jpg")]
    assert parts.problems[0].reason.startswith("2 groups have pictures on both sides")
    assert parts.train.tolist() == [0, 1, 3, 4]


def test_duplicates_and_contradictions_are_listed() -> None:
    found = duplicates(make([0, 1, 0, 1, 0, 0]), digests_of([7, 8, 7, 7, 9, 7]))
    assert [(problem.kind, problem.path, problem.class_name) for problem in found] == [
        ("duplicate", "set/0/2.jpg", "class 0"),
        ("label-conflict", "set/1/3.jpg", "class 1"),
        ("duplicate", "set/0/5.jpg", "class 0"),
    ]
    assert found[1].reason == "the same bytes as set/0/0.jpg, which has class 'class 0': one of the two labels is wrong"
    assert duplicates(make([0, 1]), digests_of([1, 2])) == []


@settings(max_examples=200, deadline=None)
@given(labels=st.lists(st.integers(0, 4), min_size=2, max_size=40), n_folds=st.integers(2, 6), seed=SEED)
def test_folds_are_even(labels: list[int], n_folds: int, seed: int) -> None:
    target = np.array(labels)
    if n_folds > len(labels):
        with pytest.raises(ValueError, match=rf"n_folds must lie in 2 … {len(labels)}"):
            folds(target, n_folds, seed)
        return
    fold = folds(target, n_folds, seed)
    for rows in [fold, *(fold[target == k] for k in set(labels))]:
        counts = np.bincount(rows, minlength=n_folds)
        assert counts.max() - counts.min() <= 1
    assert np.array_equal(fold, folds(target, n_folds, seed, np.arange(len(labels))))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), labels=st.lists(st.integers(0, 4), min_size=4, max_size=40), seed=SEED)
def test_groups_never_part_between_folds(data: st.DataObject, labels: list[int], seed: int) -> None:
    n = len(labels)
    groups = np.array(data.draw(st.lists(st.integers(-3, 9), min_size=n, max_size=n)))
    n_groups = len(set(groups.tolist()))
    n_folds = data.draw(st.integers(2, max(2, n_groups)))
    if n_groups < 2:
        with pytest.raises(ValueError, match="n_folds must lie in 2 … 1, the number of rows or groups"):
            folds(np.array(labels), n_folds, seed, groups)
        return
    fold = folds(np.array(labels), n_folds, seed, groups)
    assert set(fold.tolist()) <= set(range(n_folds))
    for group in set(groups.tolist()):
        assert len(set(fold[groups == group].tolist())) == 1
    for k in set(labels):
        rows = np.array(labels) == k
        if len(set(groups[rows].tolist())) >= n_folds and all(
            len(set(np.array(labels)[groups == g].tolist())) == 1 for g in set(groups[rows].tolist())
        ):
            assert len(set(fold[rows].tolist())) == n_folds


def test_other_seeds_give_other_folds() -> None:
    labels = np.arange(100) % 4
    assert not np.array_equal(folds(labels, 5, 0), folds(labels, 5, 1))
    assert np.array_equal(folds(labels, 5, 1), folds(labels, 5, 1))
