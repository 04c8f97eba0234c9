"""`open_dataset` takes every form of data, and says of everything else what to do."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from luce.datasets import Dataset, open_dataset
from luce.errors import DataError
from tests.photos import draw_folder

PIXELS: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
LABELS = [0, 1, 2] * 2
FORMS = (
    "Data is a folder with one folder per class, a table (.csv or .tsv) with the columns path,label, an .npz file, "
    "IDX files, or one of the names digits, mnist, fashion-mnist, cifar10"
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def a_folder(root: Path) -> Any:
    return draw_folder(root / "photos", {"blue": 2, "green": 2, "red": 2})


def a_relative_path(root: Path) -> Any:
    return os.path.relpath(a_folder(root))


def parts(root: Path) -> Any:
    for part in ("train", "test"):
        draw_folder(root / "set" / part, dict.fromkeys(("blue", "green", "red"), 1), seed=len(part))
    return root / "set"


def a_table(root: Path, name: str = "t.csv", delimiter: str = ",") -> Any:
    files = sorted(a_folder(root).glob("*/*.png"))
    with open(root / name, "w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["path", "label"])
        writer.writerows([path.relative_to(root), path.parent.name] for path in files)
    return str(root / name)


def a_table_with_tabs(root: Path) -> Any:
    return a_table(root, "T.TSV", "\t")


def an_npz_file(root: Path) -> Any:
    np.savez(root / "x.npz", images=PIXELS, labels=LABELS)
    return root / "x.npz"


def idx_files(root: Path) -> Any:
    sizes = b"".join(size.to_bytes(4, "big") for size in PIXELS.shape)
    (root / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + PIXELS.tobytes())
    (root / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x06" + bytes(LABELS))
    return root


def an_idx_file(root: Path) -> Any:
    return idx_files(root) / "train-labels-idx1-ubyte"


def pixels_and_labels(root: Path) -> Any:
    return PIXELS, LABELS


def paths_and_labels(root: Path) -> Any:
    files = sorted(a_folder(root).glob("*/*.png"))
    return tuple(map(str, files)), [path.parent.name for path in files]


def an_array_of_paths_and_labels(root: Path) -> Any:
    paths, labels = paths_and_labels(root)
    return np.array(paths), np.array(labels)


def a_dataset(root: Path) -> Any:
    return open_dataset((PIXELS, LABELS))


@pytest.mark.parametrize(
    "make",
    [
        a_folder,
        a_relative_path,
        parts,
        a_table,
        a_table_with_tabs,
        an_npz_file,
        idx_files,
        an_idx_file,
        pixels_and_labels,
        paths_and_labels,
        an_array_of_paths_and_labels,
        a_dataset,
    ],
)
def test_every_form_opens(make: Any, tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path))
    assert isinstance(dataset, Dataset)
    assert len(dataset) == 6
    assert np.bincount(dataset.labels).tolist() == [2, 2, 2]
    assert dataset.classes in (("blue", "green", "red"), ("0", "1", "2"))
    assert dataset.problems == ()
    if isinstance(dataset.pictures, np.ndarray):
        assert np.array_equal(dataset.pictures, PIXELS)
        assert dataset.labels.tolist() == LABELS
    else:
        assert [path.parent.name for path in dataset.pictures] == [dataset.classes[k] for k in dataset.labels]


def test_digits_open_by_name_whatever_lies_around(tmp_path: Path) -> None:
    (tmp_path / "digits.txt").touch()
    assert len(open_dataset("digits")) == len(open_dataset(Path("digits"))) == 1797


@pytest.mark.parametrize(
    ("missing", "hint"),
    [
        ("gone", ""),
        ("", ""),
        (" ", ""),
        ("no/such/folder", ""),
        ("digit", "did you mean digits? "),
        ("MNIST", "did you mean mnist? "),
        ("fashion_mnist", "did you mean fashion-mnist? "),
        ("cifar-10", "did you mean cifar10? "),
        ("holiday-fotos", "did you mean holiday-Photos? "),
        ("HOLIDAY-FOTOS", "did you mean holiday-Photos? "),
        ("./holiday-photos", "did you mean holiday-Photos? "),
        ("holiday-Photos/cat", "did you mean holiday-Photos/cats? "),
        ("{folder}/holiday-photo", "did you mean {folder}/holiday-Photos? "),
    ],
)
def test_what_is_missing_and_what_may_be_meant(missing: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "holiday-Photos" / "cats").mkdir(parents=True)
    missing, hint = (text.replace("{folder}", str(tmp_path)) for text in (missing, hint))
    with pytest.raises(DataError) as error:
        open_dataset(missing)
    assert str(error.value) == f"{missing!r}: no such file or folder; {hint}{FORMS}"


@pytest.mark.parametrize(
    "name",
    ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.TAR.XZ", "x.7z", "x.rar", "x.tar.bz2", "x.tbz2", "x.txz", "x.zst"],
)
def test_an_archive_is_to_be_unpacked_first(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    with pytest.raises(DataError) as error:
        open_dataset(path)
    remedy = "unpack it first and name the folder"
    assert str(error.value) == f"{path}: this kind of file is no data set; {remedy}. {FORMS}"


@pytest.mark.parametrize("name", ["notes.txt", "cat.jpg", "model.onnx", "data.json", "none"])
def test_a_file_of_another_kind(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    with pytest.raises(DataError) as error:
        open_dataset(str(path))
    assert str(error.value) == f"{path}: this kind of file is no data set; {FORMS}"


@pytest.mark.parametrize("data", [None, 3, 2.5, b"folder", ["a", "b"], {"images": 1}, PIXELS, object()])
def test_what_is_of_the_wrong_type(data: Any) -> None:
    expected = "data must be a path, a name, a Dataset or a pair (pictures, labels), got "
    with pytest.raises(TypeError) as error:
        open_dataset(data)
    assert str(error.value) == expected + type(data).__name__


@pytest.mark.parametrize("data", [(), (PIXELS,), (PIXELS, LABELS, LABELS)])
def test_a_tuple_that_is_no_pair(data: Any) -> None:
    with pytest.raises(TypeError) as error:
        open_dataset(data)
    assert str(error.value) == f"data must be a pair (pictures, labels), got {len(data)} entries"


@pytest.mark.parametrize(
    ("pictures", "kind"),
    [("photos", "str"), (Path("photos"), "PosixPath"), (b"photos", "bytes"), (3, "int"), (None, "NoneType")],
)
def test_a_pair_whose_pictures_are_no_row(pictures: Any, kind: str) -> None:
    with pytest.raises(TypeError) as error:
        open_dataset((pictures, [0, 1, 0, 1, 0, 1]))
    assert str(error.value) == (
        "data must be a path, or a pair (pictures, labels) of pixels or N paths and N labels, "
        f"got a pair with {kind} for the pictures"
    )


@pytest.mark.parametrize(
    ("pair", "error", "message"),
    [
        ((PIXELS, [0, 1]), ValueError, r"labels must be \(6,\), one for each picture, got \(2,\)"),
        ((PIXELS, "aaabbb"), ValueError, r"labels must be \(6,\), one for each picture, got \(\)"),
        ((PIXELS / 255, LABELS), TypeError, r"pictures must be uint8, got float64; bring them to 0 … 255 first"),
        ((PIXELS, [0.5] * 6), TypeError, "labels must be integers or class names, got float64"),
        ((PIXELS, [7] * 6), DataError, "pictures of at least 2 classes are needed, there is only '7'"),
        (([], []), DataError, r"the pair \(pictures, labels\) holds no pictures"),
        ((PIXELS[:0], np.array([], int)), DataError, "holds no pictures"),
        ((["a.jpg", 3], [0, 1]), TypeError, "pictures must be"),
        ((["a.jpg", "b.jpg"], [0, 1, 2]), ValueError, r"labels must be \(2,\)"),
    ],
)
def test_a_pair_that_does_not_fit(pair: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_dataset(pair)


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10"])
def test_a_folder_with_the_name_of_a_data_set_is_taken_and_that_is_said(name: str, tmp_path: Path) -> None:
    draw_folder(tmp_path / name, {"blue": 1, "red": 2})
    dataset = open_dataset(name)
    assert dataset.classes == ("blue", "red")
    (problem,) = dataset.problems
    assert (problem.kind, problem.path) == ("noted", name)
    assert problem.reason == f"taken as the folder here, not as the data set named {name}; run elsewhere to get that"
    for unmistakable in (f"./{name}", str(tmp_path / name)):
        assert open_dataset(unmistakable).problems == ()


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(DataError, match=rf"^{tmp_path}: the folder cannot be listed: Permission denied$"):
        open_dataset(tmp_path)


def test_a_name_that_nothing_can_have() -> None:
    for name in ("x" * 5000, "nul\0byte", "\udcff"):
        with pytest.raises(DataError, match="no such file or folder; Data is a folder") as error:
            open_dataset(name)
        str(error.value).encode()
