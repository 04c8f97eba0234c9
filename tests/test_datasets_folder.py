"""Folders of pictures: what is listed, what is left out, and that it is said."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from luce.datasets import Dataset, open_dataset, split
from luce.datasets.folder import pictures_below
from luce.errors import DataError


def put(root: Path, *names: str) -> Path:
    """Make small files with different bytes."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def listed(dataset: Dataset) -> dict[str, str]:
    """Class name by file, relative to the folder."""
    return {
        os.path.relpath(dataset.sources[i], dataset.name): dataset.classes[dataset.labels[i]]  # type: ignore[arg-type]
        for i in range(len(dataset))
    }


def kinds(dataset: Dataset) -> list[tuple[str, str]]:
    return sorted((problem.kind, problem.class_name) for problem in dataset.problems)


def test_one_folder_per_class(tmp_path: Path) -> None:
    dataset = open_dataset(put(tmp_path, "dog/1.jpg", "cat/2.JPG", "cat/1.png", "Zebra/unknown.suffix", "cat/none"))
    assert dataset.classes == ("Zebra", "cat", "dog")
    assert listed(dataset) == {
        "Zebra/unknown.suffix": "Zebra",
        "cat/1.png": "cat",
        "cat/2.JPG": "cat",
        "cat/none": "cat",
        "dog/1.jpg": "dog",
    }
    assert (dataset.splits, dataset.groups, dataset.weights) == (None, None, None)
    assert dataset.problems == ()
    assert dataset.identifier(0) == str(tmp_path / "Zebra/unknown.suffix")


def test_a_relative_path_and_text_open_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "set/a/1", "set/b/1")
    monkeypatch.chdir(tmp_path)
    assert open_dataset("set").pictures == (Path("set/a/1"), Path("set/b/1"))
    assert open_dataset(Path("set/")).pictures == (Path("set/a/1"), Path("set/b/1"))


def test_what_is_no_picture_is_listed(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "a/notes.txt", "a/README", "b/1.jpg", "b/labels.JSON", "about.md", "a/readme.jpg")
    dataset = open_dataset(tmp_path)
    assert set(listed(dataset)) == {"a/1.jpg", "b/1.jpg", "a/readme.jpg"}
    assert kinds(dataset) == [("not-a-picture", ""), *[("not-a-picture", "a")] * 2, ("not-a-picture", "b")]
    assert {problem.path for problem in dataset.problems} == {
        str(tmp_path / name) for name in ("about.md", "a/notes.txt", "a/README", "b/labels.JSON")
    }


def test_hidden_files_are_listed_once_with_their_number(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "a/.DS_Store", "a/Thumbs.db", "b/1.jpg", "b/desktop.ini", "__MACOSX/a/._1.jpg")
    put(tmp_path, ".ipynb_checkpoints/1.jpg", ".git/config", "a/.hidden/1.jpg")
    dataset = open_dataset(tmp_path)
    assert set(listed(dataset)) == {"a/1.jpg", "b/1.jpg"}
    (problem,) = dataset.problems
    assert problem.kind == "hidden"
    assert problem.reason.startswith("7 hidden")


def test_sub_folders_belong_to_their_class_and_that_is_said(tmp_path: Path) -> None:
    dataset = open_dataset(put(tmp_path, "a/1.jpg", "a/x/2.jpg", "a/x/y/3.jpg", "b/1.jpg"))
    assert listed(dataset) == {"a/1.jpg": "a", "a/x/2.jpg": "a", "a/x/y/3.jpg": "a", "b/1.jpg": "b"}
    assert kinds(dataset) == [("nested", "a")]


def test_an_empty_class_folder_is_a_problem(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg", "d/notes.txt")
    (tmp_path / "c").mkdir()
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("a", "b")
    assert kinds(dataset) == [("empty-class", "c"), ("empty-class", "d"), ("not-a-picture", "d")]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "valid", "testing"),
        ("TRAIN", "validation", "Test"),
        ("train", "dev", "test"),
    ],
)
def test_parts(tmp_path: Path, train: str, val: str, test: str) -> None:
    put(tmp_path, f"{train}/a/1", f"{train}/b/1", f"{val}/a/2", f"{val}/b/2", f"{test}/a/3", f"{test}/b/3")
    dataset = open_dataset(tmp_path)
    assert dataset.splits == ("train", "train", "val", "val", "test", "test")
    assert dataset.classes == ("a", "b")
    assert dataset.labels.tolist() == [0, 1] * 3
    assert dataset.problems == ()
    assert [path.name for path in dataset.held_out().sources] == ["3", "3"]  # type: ignore[union-attr]


def test_parts_are_joined_by_name_never_by_position(tmp_path: Path) -> None:
    """`test/` lacks the first class and has one of its own: positions there mean other classes than in `train/`."""
    put(
        tmp_path,
        "train/ant/1",
        "train/bee/1",
        "train/cow/1",
        "test/bee/2",
        "test/cow/2",
        "test/Aphid/2",
        "test/Aphid/3",
    )
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("ant", "bee", "cow")
    assert listed(dataset) == {f"{part}/{name}/{i}": name for part, name, i in [
        ("train", "ant", 1), ("train", "bee", 1), ("train", "cow", 1), ("test", "bee", 2), ("test", "cow", 2)
    ]}  # fmt: skip
    assert kinds(dataset) == [("missing-class", "ant"), ("unknown-class", "Aphid")]
    assert "test (2)" in next(p.reason for p in dataset.problems if p.kind == "unknown-class")


def test_part_names_that_hold_pictures_are_classes(tmp_path: Path) -> None:
    dataset = open_dataset(put(tmp_path, "train/1.jpg", "bus/1.jpg", "test/1.jpg"))
    assert dataset.classes == ("bus", "test", "train")
    assert dataset.splits is None


def test_pictures_without_class_beside_class_folders_are_listed(tmp_path: Path) -> None:
    dataset = open_dataset(put(tmp_path, "train/a/1", "train/b/1", "test/1.jpg", "test/2.jpg", "other/a/1", "x.jpg"))
    assert set(listed(dataset)) == {"train/a/1", "train/b/1"}
    assert kinds(dataset) == [("no-label", ""), ("no-label", ""), ("unused-folder", "")]
    assert any(problem.reason.startswith("2 files") for problem in dataset.problems)


def test_names_equal_in_nfc_are_one_class_and_others_are_not_merged(tmp_path: Path) -> None:
    put(tmp_path, "Caf\u00e9/1", "Cafe\u0301/2", "cat/1", "Cat/1", "dog/1", "dog /1")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("Caf\u00e9", "Cat", "cat", "dog", "dog ")
    names = listed(dataset)
    assert names["Cafe\u0301/2"] == names["Caf\u00e9/1"] == "Caf\u00e9"
    assert [kind for kind, _ in kinds(dataset)] == ["duplicate-name"] * 3


def test_a_folder_name_that_is_not_utf8_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, "a/1", "b/1")
    bad = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.mkdir(bad)
    Path(os.fsdecode(os.path.join(bad, b"1"))).write_bytes(b"x")
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"a", b"\xff.jpg"))).write_bytes(b"y")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("a", "b")
    assert [kind for kind, _ in kinds(dataset)] == ["odd-name"]
    for text in (dataset.identifier(1), dataset.problems[0].path):
        text.encode()
    assert dataset.identifier(1).endswith(r"\xff.jpg")


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    put(tmp_path, "set/a/1.jpg", "set/b/1.jpg", "elsewhere/2.jpg", "elsewhere/sub/3.jpg")
    (tmp_path / "set/a/link.jpg").symlink_to(tmp_path / "elsewhere/2.jpg")
    (tmp_path / "set/c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/a/loop").symlink_to(tmp_path / "set/a")
    (tmp_path / "set/b/up").symlink_to(tmp_path / "set")
    (tmp_path / "set/b/nowhere.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "set/b/self.jpg").symlink_to(tmp_path / "set/b/self.jpg")
    dataset = open_dataset(tmp_path / "set")
    names = listed(dataset)
    assert {"a/1.jpg", "a/link.jpg", "b/1.jpg", "c/2.jpg", "c/sub/3.jpg"} <= set(names)
    assert sorted(name for name, found in names.items() if found == "a") == ["a/1.jpg", "a/link.jpg"]
    assert {("missing-file", "b"), ("duplicate", "a")} <= set(kinds(dataset))


def test_a_class_with_links_to_one_folder_by_many_names_stays_small(tmp_path: Path) -> None:
    """Folders that all link to one another: followed blindly, that is n! ways."""
    put(tmp_path, *(f"set/a/f{i}/1.jpg" for i in range(9)), "set/b/1.jpg")
    for i in range(9):
        for j in range(9):
            if i != j:
                (tmp_path / f"set/a/f{i}/to{j}").symlink_to(tmp_path / f"set/a/f{j}")
    assert len(open_dataset(tmp_path / "set")) == 10


def test_pipes_and_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    os.mkfifo(tmp_path / "a/pipe.jpg")
    monkeypatch.chdir(tmp_path / "b")  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("s.jpg")
        dataset = open_dataset(tmp_path)
    assert set(listed(dataset)) == {"a/1.jpg", "b/1.jpg"}
    assert kinds(dataset) == [("not-a-picture", "a"), ("not-a-picture", "b")]


def test_a_folder_that_cannot_be_listed_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg", "b/closed/2.jpg", "closed/a/1.jpg")
    scandir = os.scandir

    def refuse(path: Path) -> object:  # not chmod: root may list every folder
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    dataset = open_dataset(tmp_path)
    assert set(listed(dataset)) == {"a/1.jpg", "b/1.jpg"}
    assert kinds(dataset) == [("empty-class", "closed"), ("unreadable", "b"), ("unreadable", "closed")]
    with pytest.raises(DataError, match="closed: the folder cannot be listed: Permission denied"):
        open_dataset(tmp_path / "closed")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no pictures found in class folders; put the pictures of each class into a folder of its own"),
        (("1.jpg", "2.jpg"), "it holds pictures but no class folders; put"),
        (("a/notes.txt", "b/notes.txt"), "no pictures found"),
        ((".git/1.jpg",), "no pictures found"),
        (("cat/1.jpg",), "at least 2 classes are needed, there is only 'cat'"),
        (("photos/cat/1.jpg", "photos/dog/1.jpg"), "did you mean .*photos, which holds cat, dog"),
        (("train/a/1.jpg", "test/a/1.jpg", "test/b/1.jpg"), "there is only 'a'"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        open_dataset(put(tmp_path, *names))
    assert str(error.value).startswith(str(tmp_path))


def test_a_set_with_only_a_test_part_cannot_be_split(tmp_path: Path) -> None:
    dataset = open_dataset(put(tmp_path, "test/a/1", "test/b/1"))
    assert dataset.classes == ("a", "b")
    with pytest.raises(DataError, match="only a test part, nothing to train on; name the folder test itself"):
        split(dataset)


def test_the_order_is_that_of_names_not_of_the_file_system(tmp_path: Path) -> None:
    names = [f"{c}/{i}.jpg" for c in "ba" for i in (2, 10, 1)]
    put(tmp_path / "one", *names)
    put(tmp_path / "two", *reversed(names))
    one, two = (open_dataset(tmp_path / name) for name in ("one", "two"))
    assert (
        list(listed(one)) == list(listed(two)) == ["a/1.jpg", "a/10.jpg", "a/2.jpg", "b/1.jpg", "b/10.jpg", "b/2.jpg"]
    )


def test_pictures_below_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a.jpg", "notes.txt", ".hidden.jpg", "sub/c.png", "sub/.git/x.jpg", "a/z.jpg")
    found = [str(path.relative_to(tmp_path)) for path in pictures_below(tmp_path)]
    assert found == ["a.jpg", "b.jpg", "a/z.jpg", "sub/c.png"]
    assert pictures_below(tmp_path / "gone") == []
