"""Data sets of pixels: IDX files, .npz files, arrays in memory; and what `open_dataset` takes for what."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from luce.datasets import Dataset, Problem, open_dataset
from luce.datasets import idx as idx_module
from luce.datasets import pixels as pixels_module
from luce.errors import DataError

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def pixels(n: int, *shape: int) -> NDArray[np.uint8]:
    count = n * math.prod(shape)
    return (np.arange(count) % 251).astype(np.uint8).reshape(n, *shape)


def idx_bytes(array: NDArray[Any]) -> bytes:
    """Write the format by its description, independently of the reader."""
    code = CODES[array.dtype.str[1:]]
    header = bytes([0, 0, code, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def put_idx(folder: Path, n_train: int = 6, n_test: int = 4, *, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", n_train), ("t10k", n_test)):
        arrays = {"images-idx3": pixels(n, 4, 5), "labels-idx1": (np.arange(n) % 2).astype(np.uint8)}
        for name, array in arrays.items():
            data = idx_bytes(array)
            path = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_idx_files(tmp_path: Path, packed: bool) -> None:
    dataset = open_dataset(put_idx(tmp_path, packed=packed))
    assert isinstance(dataset.pictures, np.ndarray)
    assert np.array_equal(dataset.pictures, np.concatenate([pixels(6, 4, 5), pixels(4, 4, 5)]))
    assert dataset.labels.tolist() == [0, 1] * 5
    assert dataset.splits == ("train",) * 6 + ("test",) * 4
    assert dataset.classes == ("0", "1")
    assert dataset.identifier(7) == f"{tmp_path}[7]"


def test_a_file_stands_for_its_pair_and_gzip_is_known_by_content(tmp_path: Path) -> None:
    put_idx(tmp_path, packed=True)
    for path in sorted(tmp_path.iterdir()):
        path.rename(tmp_path / f"kept-{path.name.removesuffix('.gz')}")
    put_idx(tmp_path, 2, 2)
    dataset = open_dataset(tmp_path / "kept-train-labels-idx1-ubyte")
    assert len(dataset) == 6
    assert dataset.splits is None
    assert len(open_dataset(tmp_path / "t10k-images-idx3-ubyte")) == 2
    with pytest.raises(DataError, match=r"holds several data sets .* name one of the files"):
        open_dataset(tmp_path)


def test_colour_pictures_wide_labels_and_a_single_part(tmp_path: Path) -> None:
    (tmp_path / "train-images.idx4-ubyte").write_bytes(idx_bytes(pixels(3, 2, 2, 3)))
    (tmp_path / "train-labels.idx1-ubyte").write_bytes(idx_bytes(np.array([300, -7, 300], np.int16)))
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("-7", "300")
    assert dataset.labels.tolist() == [1, 0, 1]
    assert dataset.splits is None
    assert dataset.sources[0].shape == (2, 2, 3)  # type: ignore[union-attr]


def test_a_class_that_only_the_idx_test_part_has_is_left_out(tmp_path: Path) -> None:
    put_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.array([0, 9, 9, 1], np.uint8)))
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("0", "1")
    assert dataset.rows is not None
    assert dataset.rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 9]
    assert dataset.identifier(7) == f"{tmp_path}[9]"
    assert [(problem.kind, problem.class_name) for problem in dataset.problems] == [("unknown-class", "9")]


IMAGES = idx_bytes(pixels(6, 4, 5))
PACKED = gzip.compress(IMAGES, mtime=0)  # the time would become part of the names of tests


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an IDX file: it begins with nothing"),
        (b"\x00\x00\x08", "not an IDX file"),
        (b"<html>not found</html>", "not an IDX file: it begins with 3c 68 74 6d"),
        (b"\x00\x00\x07\x01" + bytes(4), "not an IDX file"),
        (b"\x00\x00\x08\x05" + bytes(40), "not an IDX file"),
        (IMAGES[:9], "not an IDX file"),
        (IMAGES[:-1], "announces 136 bytes but only 135 are there"),
        (IMAGES + b"x", "announces 136 bytes but there are more"),
        (PACKED[:-9], "gzip file is cut short"),
        (PACKED[:40], "gzip file is cut short"),
        (PACKED[:10] + b"\xff" * 9 + PACKED[19:], "gzip file is damaged"),
        (PACKED[:-8] + bytes(8), "gzip file is damaged"),
        (gzip.compress(IMAGES[:-5], mtime=0), "only 131 are there"),
        (gzip.compress(IMAGES + bytes(50), mtime=0), "there are more"),
        (b"\x00\x00\x08\x03" + b"\x00\xff\xff\xff" * 3, "announces 4.4e.12 GiB; the limit is 2 GiB"),
        (
            b"\x00\x00\x08\x03" + struct.pack(">3I", 2000, 1000, 1000),
            "announces 2,000,000,016 bytes but only 16",
        ),
        (idx_bytes(pixels(6, 20)), r"pictures must be \(N, height, width\)"),
        (idx_bytes(pixels(6, 4, 5).astype(np.float32)), "pictures must be uint8, got >f4"),
        (idx_bytes(pixels(6, 0, 5)), "pictures must have pixels"),
        (
            idx_bytes(pixels(5, 4, 5)),
            "holds 5 pictures but .* has 6 labels; the files do not belong together",
        ),
    ],
)
def test_damaged_images(tmp_path: Path, data: bytes, message: str) -> None:
    path = put_idx(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as error:
        open_dataset(tmp_path)
    assert str(error.value).startswith(str(path))


def test_a_label_file_with_pictures_in_it_is_refused(tmp_path: Path) -> None:
    put_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(IMAGES)
    with pytest.raises(DataError, match="labels must be a row of integers"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("missing", ["train-images", "train-labels", "t10k-images", "t10k-labels"])
def test_a_missing_idx_file_is_named(tmp_path: Path, missing: str) -> None:
    (put_idx(tmp_path) / f"{missing}-idx{3 if 'images' in missing else 1}-ubyte").unlink()
    part, what = missing.replace("t10k", "test").split("-")
    with pytest.raises(DataError, match=f"the {what} of the {part} part are missing"):
        open_dataset(tmp_path)


def test_parts_of_different_size_are_refused(tmp_path: Path) -> None:
    put_idx(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(pixels(4, 5, 5)))
    with pytest.raises(DataError, match="train and test pictures differ in size"):
        open_dataset(tmp_path)


def test_a_header_cannot_make_the_reader_allocate_what_it_claims(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(b"\x00\x00\x08\x03" + struct.pack(">3I", 2000, 1000, 1000) + bytes(1000)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="only 1,016 are there"):
            idx_module.read_content(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_is_not_unpacked_beyond_the_announced_size(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(IMAGES + bytes(50_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="there are more"):
            idx_module.read_content(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_idx_arrays_come_back(tmp_path: Path, data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(sorted(CODES))))
    shape = tuple(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4)))
    array = np.frombuffer(data.draw(st.binary(min_size=(n := math.prod(shape) * dtype.itemsize), max_size=n)), dtype)
    path = tmp_path / "x"
    path.write_bytes(idx_bytes(array.reshape(shape)))
    read = idx_module.parse(idx_module.read_content(path), path)
    assert read.dtype == dtype.newbyteorder(">")
    assert np.array_equal(read, array.reshape(shape), equal_nan=dtype.kind == "f")


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_keras_arrays(tmp_path: Path) -> None:
    x, y = pixels(6, 4, 4, 3), np.array([[0], [1], [2]] * 2)
    dataset = open_dataset(save(tmp_path / "k.npz", x_train=x, y_train=y, x_test=x[:3], y_test=y[:3]))
    assert dataset.classes == ("0", "1", "2")
    assert dataset.labels.tolist() == [0, 1, 2] * 3
    assert dataset.splits == ("train",) * 6 + ("test",) * 3
    assert isinstance(dataset.pictures, np.ndarray)
    assert np.array_equal(dataset.pictures[7], x[1])


def test_own_arrays_with_everything(tmp_path: Path) -> None:
    path = save(
        tmp_path / "own.npz",
        images=np.asfortranarray(pixels(4, 3, 3, 1)),
        labels=np.array([1, 0, 1, 0], np.uint8),
        classes=np.array(["cat", "dog"]),
        split=np.array(["train", "train", "Valid", "test"]),
        group=np.array([7, 7, -1, 3]),
        weight=np.array([1, 2, 3, 4], np.float32),
        other=np.zeros(3),
    )
    dataset = open_dataset(path)
    assert isinstance(dataset.pictures, np.ndarray)
    assert np.array_equal(dataset.pictures, pixels(4, 3, 3))
    assert dataset.classes == ("cat", "dog")
    assert dataset.splits == ("train", "train", "val", "test")
    assert dataset.groups is not None
    assert len(set(dataset.groups.tolist())) == 3
    assert dataset.groups[0] == dataset.groups[1]
    assert dataset.weights is not None
    assert dataset.weights.tolist() == [1, 2, 3, 4]
    assert {problem.kind for problem in dataset.problems} == {"missing-class"}


@pytest.mark.parametrize("labels", [np.array(["b", "a", "b"]), np.array([b"b", b"a", b"b"])])
def test_labels_may_be_names(tmp_path: Path, labels: NDArray[Any]) -> None:
    dataset = open_dataset(save(tmp_path / "n.npz", images=pixels(3, 2, 2), labels=labels))
    assert dataset.classes == ("a", "b")
    assert dataset.labels.tolist() == [1, 0, 1]


GOOD: dict[str, Any] = {"images": pixels(4, 3, 3), "labels": np.array([0, 1, 0, 1])}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "must hold the arrays images, labels.* it holds: x"),
        ({}, "it holds: none"),
        (
            {**GOOD, "images": np.zeros((4, 3, 3))},
            "pictures must be uint8, got float64; bring them to 0 … 255 first",
        ),
        ({**GOOD, "images": pixels(4, 3, 8, 8)}, "channels last, got .*; transpose"),
        ({**GOOD, "images": pixels(4, 9)}, r"pictures must be \(N, height, width\)"),
        ({**GOOD, "labels": np.array([0, 1, 0])}, r"labels must be \(4,\), one for each picture, got \(3,\)"),
        ({**GOOD, "labels": np.eye(4)}, r"labels must be \(4,\)"),
        ({**GOOD, "labels": np.zeros(4)}, "labels must be integers or class names, got float64"),
        ({**GOOD, "labels": np.zeros(4, int)}, "there is only '0'"),
        ({**GOOD, "classes": np.array(["a"])}, "label 1 of row 1 must lie in 0 … 0, there are 1 classes"),
        ({**GOOD, "classes": np.array(["a", "a"])}, "class names must be distinct"),
        ({**GOOD, "classes": np.array([3, 4])}, "classes must be a row of names"),
        ({**GOOD, "labels": np.array([-1, 0, 1, 0]), "classes": np.array(["a", "b"])}, "label -1 of row 0"),
        ({**GOOD, "split": np.array(["train", "train", "tset", "test"])}, "got 'tset' in row 2"),
        ({**GOOD, "weight": np.array([1, 1, np.nan, 1])}, "weight must be positive, got nan in row 2"),
        ({**GOOD, "weight": np.array([1, -1, 1, 1])}, "weight must be positive, got -1 in row 1"),
        ({**GOOD, "group": np.array([1, 2])}, r"group must be \(4,\)"),
        ({**GOOD, "labels": np.array([0, 1, None, 1])}, "holds pickled objects, which could run code"),
        (
            {
                "x_train": pixels(2, 3, 3),
                "y_train": np.arange(2),
                "x_test": pixels(2, 4, 3),
                "y_test": np.arange(2),
            },
            "x_train and x_test differ in size",
        ),
        (
            {
                "x_train": pixels(2, 3, 3),
                "y_train": np.arange(3),
                "x_test": pixels(3, 3, 3),
                "y_test": np.arange(2),
            },
            "y_train has 3 rows, x_train has 2",
        ),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = save(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message) as error:
        open_dataset(path)
    assert str(error.value).startswith(str(path))


class _Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_nothing_in_an_npz_file_is_unpickled(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    trap = np.array([_Trap(sprung)] * 4, object)
    path = save(tmp_path / "x.npz", images=pixels(4, 3, 3), labels=trap)
    with pytest.raises(DataError, match="pickled objects"):
        open_dataset(path)
    bare = tmp_path / "y.npz"
    with zipfile.ZipFile(bare, "w") as archive:
        archive.writestr("images.npy", pickle.dumps(_Trap(sprung)))
        archive.writestr("labels.npy", pickle.dumps(_Trap(sprung)))
    with pytest.raises(DataError, match=r"y\.npz: "):
        open_dataset(bare)
    assert not sprung.exists()


def npy_bytes(shape: tuple[int, ...], body: bytes) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue() + body


@pytest.mark.parametrize("shape", [(1 << 50, 8, 8), (1 << 20, 1 << 20, 1 << 24), (5, 3, 3), (-4, 3, 3)])
def test_an_npy_header_that_lies_is_refused_before_anything_is_allocated(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "x.npz"
    labels = io.BytesIO()
    np.save(labels, np.arange(4))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", npy_bytes(shape, bytes(36)))
        archive.writestr("labels.npy", labels.getvalue())
    with pytest.raises(DataError, match=r"images\.npy announces .* but holds 36 bytes"):
        open_dataset(path)


def test_an_npz_bomb_is_refused_by_its_announced_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, images=np.zeros((3000, 40, 40), np.uint8), labels=np.arange(3000) % 2)
    assert len(open_dataset(path)) == 3000
    monkeypatch.setattr(pixels_module, "MAX_BYTES", 4_000_000)
    with pytest.raises(DataError, match=r"unpacks to .* GiB; the limit is"):
        open_dataset(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 2000), cut=st.booleans(), bit=st.integers(0, 7))
def test_a_damaged_npz_file_gives_a_message_or_the_same_data(
    tmp_path: Path, position: int, cut: bool, bit: int
) -> None:
    path = tmp_path / "x.npz"
    file = io.BytesIO()
    np.savez_compressed(file, **GOOD)
    data = bytearray(file.getvalue())
    position %= len(data)
    if cut:
        del data[position:]
    else:
        data[position] ^= 1 << bit
    path.write_bytes(data)
    try:
        dataset = open_dataset(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(dataset.pictures, np.ndarray)
        assert np.array_equal(dataset.pictures, GOOD["images"])


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for data in (b"", b"not a zip", zlib.compress(b"x")):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"not an \.npz file, or damaged"):
            open_dataset(path)


def test_arrays_in_memory() -> None:
    x = pixels(4, 3, 3)
    dataset = open_dataset((x, ["b", "a", "b", "a"]))
    assert dataset.classes == ("a", "b")
    assert dataset.labels.tolist() == [1, 0, 1, 0]
    assert dataset.identifier(2) == "pictures[2]"
    assert isinstance(dataset.pictures, np.ndarray)
    assert np.shares_memory(dataset.pictures, x)
    assert open_dataset((x, np.array(["b", "a", "b", "a"], object))).classes == ("a", "b")
    paths = open_dataset((["x/1.jpg", "y/1.jpg"], [3, 5]))
    assert paths.pictures == (Path("x/1.jpg"), Path("y/1.jpg"))
    assert paths.classes == ("3", "5")
    with pytest.raises(TypeError, match="uint8, got float64"):
        open_dataset((x / 255, [0, 1, 0, 1]))
    with pytest.raises(ValueError, match=r"labels must be \(4,\)"):
        open_dataset((x, [0, 1]))
    with pytest.raises(TypeError, match="got 3 entries"):
        open_dataset((x, [0, 1, 0, 1], 3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="labels must be integers or class names, got object"):
        open_dataset((x, [0, None, "a", 1]))


@pytest.mark.parametrize("data", [None, 3, b"folder", ["a", "b"], {"images": 1}])
def test_what_is_no_data(data: Any) -> None:
    with pytest.raises(TypeError, match="data must be a path, a name, a Dataset or a pair"):
        open_dataset(data)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "'gone': no such file or folder; Data is a folder with one folder per class, a table"),
        ("fashionmnist", r"did you mean fashion-mnist\?"),
        ("CIFAR-10", r"did you mean cifar10\?"),
        ("x" * 5000, "no such file or folder"),
        ("nul\0byte", "no such file or folder"),
        ("", "'': no such file or folder; Data is a folder"),
    ],
)
def test_what_does_not_exist(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        open_dataset(name)


@pytest.mark.parametrize(
    ("name", "message"), [("a.zip", "unpack it first"), ("a.onnx", "is no data set"), ("a", "no data set")]
)
def test_other_files(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / name)


def test_a_folder_goes_before_a_name_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / "digits" / name).mkdir(parents=True)
        (tmp_path / "digits" / name / "1.png").write_bytes(b"x")
    dataset = open_dataset("digits")
    assert dataset.classes == ("a", "b")
    assert [problem.kind for problem in dataset.problems] == ["noted"]
    assert open_dataset("./digits").problems == ()


def test_a_dataset_is_returned_as_it_is() -> None:
    dataset = open_dataset((pixels(4, 3, 3), [0, 1, 0, 1]))
    assert open_dataset(dataset) is dataset


def test_taking_rows_takes_everything_that_belongs_to_them() -> None:
    dataset = Dataset(
        "set",
        ("a", "b"),
        pixels(4, 2, 2),
        np.array([0, 1, 0, 1]),
        ("train", "val", "test", "train"),
        np.array([5, 6, 7, 8]),
        np.array([1.0, 2, 3, 4]),
        (Problem("hidden", "", "x"),),
    )
    some = dataset.take([3, 1]).take([1, 0])
    assert isinstance(some.pictures, np.ndarray)
    assert np.array_equal(some.pictures, pixels(4, 2, 2)[[1, 3]])
    assert some.labels.tolist() == [1, 1]
    assert some.splits == ("val", "train")
    assert some.groups is not None
    assert some.groups.tolist() == [6, 8]
    assert some.weights is not None
    assert some.weights.tolist() == [2, 4]
    assert [some.identifier(i) for i in range(2)] == ["set[1]", "set[3]"]
    assert some.problems == dataset.problems
    assert dataset.take(range(4)) is dataset
    assert dataset.held_out().rows is not None
    assert dataset.held_out().rows.tolist() == [2]  # type: ignore[union-attr]
    assert dataset.take([0, 1]).held_out().labels.tolist() == [1]
    assert len(dataset.take([0, 3]).held_out()) == 2
    assert dataset.problems[0].to_dict() == {"kind": "hidden", "path": "", "reason": "x", "class": ""}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("classes", ("a", "a")),
        ("classes", ("a", "")),
        ("classes", ("a",)),
        ("labels", np.array([0, 1])),
        ("labels", np.array([0, 1, -1, 0])),
        ("splits", ("train", "val", "test", "holdout")),
        ("groups", np.array([1])),
        ("weights", np.ones(5)),
    ],
)
def test_a_dataset_that_contradicts_itself_is_refused(field: str, value: Any) -> None:
    fields = {
        "name": "x",
        "classes": ("a", "b"),
        "pictures": pixels(4, 2, 2),
        "labels": np.array([0, 1, 0, 1]),
    }
    Dataset(**fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Dataset: "):
        Dataset(**{**fields, field: value})
