"""Data sets by name: found where people keep them, downloaded only when needed, official or said not to be."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from luce import paths
from luce.datasets import Dataset, cifar, named, open_dataset
from luce.datasets.download import has_sha256
from luce.errors import DataError, DownloadError
from tests.http_server import serve

IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
SUMS = {name: named._IDX_SETS[name].sha256 for name in ("mnist", "fashion-mnist")}


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data, an empty cache, and a mirror that does not listen: no test asks the internet."""
    with serve({}) as closed:
        pass
    monkeypatch.setattr(paths, "_DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("LUCE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LUCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LUCE_MIRROR", closed)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)


def picture_rows(n: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28), dtype=np.uint8)


def small_idx(seed: int = 0) -> dict[str, bytes]:
    """The four files of a set with 20 + 10 pictures, two and one of each class."""
    files = {}
    for part, n in (("train", 20), ("t10k", 10)):
        images, labels = picture_rows(n, seed + n), np.arange(n, dtype=np.uint8) % 10
        size = (28).to_bytes(4, "big")
        files[f"{part}-images-idx3-ubyte"] = b"\0\0\x08\x03" + n.to_bytes(4, "big") + 2 * size + images.tobytes()
        files[f"{part}-labels-idx1-ubyte"] = b"\0\0\x08\x01" + n.to_bytes(4, "big") + labels.tobytes()
    return files


def zipped(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(data) for name, data in files.items()}


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Small files that count as the official ones, of both sets."""
    files = small_idx()
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    for name in SUMS:
        monkeypatch.setitem(named._IDX_SETS, name, replace(named._IDX_SETS[name], sha256=sums))
    return files


def assert_is_small_set(dataset: Dataset, name: str, seed: int = 0) -> None:
    assert dataset.name == name
    assert dataset.classes == named._IDX_SETS[name].classes
    assert isinstance(dataset.pictures, np.ndarray)
    assert np.array_equal(dataset.pictures, np.concatenate([picture_rows(20, seed + 20), picture_rows(10, seed + 10)]))
    assert dataset.labels.tolist() == [i % 10 for i in range(30)]
    assert dataset.splits == ("train",) * 20 + ("test",) * 10


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    truth = load_digits()
    dataset = open_dataset("digits")
    assert isinstance(dataset.pictures, np.ndarray)
    assert dataset.pictures.dtype == np.uint8
    assert dataset.pictures.shape == (1797, 8, 8)
    assert np.abs(dataset.pictures - truth.images * (255 / 16)).max() <= 0.5
    assert dataset.pictures.max() == 255
    assert np.array_equal(dataset.labels, truth.target)
    assert dataset.classes == tuple("0123456789")
    assert dataset.splits is None
    assert dataset.problems == ()


def test_digits_do_not_import_scikit_learn() -> None:
    code = "import sys; from luce.datasets import open_dataset; n = len(open_dataset('digits'))\n"
    code += "print(n, [name for name in ('sklearn', 'requests', 'pooch', 'onnxruntime') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1797 []\n"


@pytest.mark.parametrize(
    "data",
    [None, b"no gzip", gzip.compress(b"1,2,x\n"), gzip.compress(bytes(999))[:-9]],
    ids=["missing", "not packed", "no numbers", "cut"],
)
def test_digits_without_their_file(tmp_path: Path, data: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sklearn" / "datasets" / "data").mkdir(parents=True)
    (tmp_path / "sklearn" / "__init__.py").touch()
    if data is not None:
        (tmp_path / "sklearn" / "datasets" / "data" / "digits.csv.gz").write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    with pytest.raises(DataError, match=r"^digits: .*digits\.csv\.gz cannot be read .*; install scikit-learn again$"):
        open_dataset("digits")


LAYOUTS = [
    ("mnist", "mnist"),
    ("mnist", "MNIST"),
    ("mnist", "MNIST/raw"),
    ("mnist", "."),
    ("fashion-mnist", "fashion-mnist"),
    ("fashion-mnist", "FashionMNIST"),
    ("fashion-mnist", "FashionMNIST/raw"),
    ("fashion-mnist", "."),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_official_files_in_a_data_folder(
    official: dict[str, bytes], name: str, layout: str, packed: bool, tmp_path: Path
) -> None:
    put(tmp_path / "data" / layout, zipped(official) if packed else official)
    dataset = open_dataset(name)
    assert_is_small_set(dataset, name)
    assert dataset.problems == ()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_other_files_count_in_a_folder_of_the_name_only_and_that_is_said(
    official: dict[str, bytes], name: str, layout: str, tmp_path: Path
) -> None:
    folder = put(tmp_path / "data" / layout, small_idx(seed=5))
    if layout == ".":
        with pytest.raises(DownloadError):
            open_dataset(name)
        return
    dataset = open_dataset(name)
    assert_is_small_set(dataset, name, seed=5)
    (problem,) = dataset.problems
    assert problem.kind == "not-official"
    assert problem.path == str(folder / "train-images-idx3-ubyte")
    assert problem.reason == f"not the official {name} (its SHA-256 differs): used as it is"


def test_folders_are_searched_in_their_order_and_debians_last(
    official: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "debian" / "mnist", official)
    assert_is_small_set(open_dataset("mnist"), "mnist")
    put(tmp_path / "second" / "mnist", small_idx(seed=2))
    put(tmp_path / "first" / "mnist", small_idx(seed=1))
    monkeypatch.setenv("LUCE_DATA", f"{tmp_path / 'first'}{os.pathsep}{tmp_path / 'second'}")
    assert_is_small_set(open_dataset("mnist"), "mnist", seed=1)


def test_a_folder_without_all_files_is_passed_over(official: dict[str, bytes], tmp_path: Path) -> None:
    folder = put(tmp_path / "data" / "mnist", small_idx(seed=5))
    (folder / IDX_NAMES[3]).unlink()
    put(tmp_path / "data", official)
    assert_is_small_set(open_dataset("mnist"), "mnist")


def test_other_idx_files_beside_the_set_do_not_disturb(official: dict[str, bytes], tmp_path: Path) -> None:
    others = {f"emnist-{name}": data for name, data in small_idx(seed=5).items()}
    put(tmp_path / "data", official | others | zipped({IDX_NAMES[0]: small_idx(seed=6)[IDX_NAMES[0]]}))
    assert_is_small_set(open_dataset("mnist"), "mnist")


def test_damaged_files_in_a_data_folder_are_named(official: dict[str, bytes], tmp_path: Path) -> None:
    folder = put(tmp_path / "data" / "mnist", official)
    (folder / IDX_NAMES[2]).write_bytes(official[IDX_NAMES[2]][:-1])
    with pytest.raises(DataError, match=rf"^{folder}/{IDX_NAMES[2]}: .* only .* are there; get the file again"):
        open_dataset("mnist")


@pytest.fixture
def mirror(official: dict[str, bytes]) -> Iterator[str]:
    with serve(zipped(official)) as address:
        yield address


@pytest.mark.parametrize("name", SUMS)
def test_a_download_from_a_mirror_and_then_from_the_cache(
    name: str, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = []
    monkeypatch.setenv("LUCE_MIRROR", f"{mirror}/good/")
    dataset = open_dataset(name, progress=lambda label, done, total: labels.append(label))
    assert_is_small_set(dataset, name)
    assert dataset.problems == ()
    assert list(dict.fromkeys(labels)) == [f"Downloading {file}.gz" for file in IDX_NAMES]
    folder = tmp_path / "cache" / "datasets" / name
    assert sorted(os.listdir(folder)) == sorted(f"{file}.gz" for file in IDX_NAMES)
    monkeypatch.setenv("LUCE_MIRROR", f"{mirror}/missing")
    assert_is_small_set(open_dataset(name), name)


@pytest.mark.parametrize("variable", [None, ""])
def test_a_download_from_the_official_address(
    variable: str | None, mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SUMS:
        monkeypatch.setitem(named._IDX_SETS, name, replace(named._IDX_SETS[name], address=f"{mirror}/good/{name}"))
    monkeypatch.delenv("LUCE_MIRROR")
    if variable is not None:
        monkeypatch.setenv("LUCE_MIRROR", variable)
    for name in SUMS:
        assert_is_small_set(open_dataset(name), name)


def test_a_mirror_may_pack_files_in_another_way_or_not_at_all(
    official: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve({f"{name}.gz": data for name, data in official.items()}) as address:
        monkeypatch.setenv("LUCE_MIRROR", f"{address}/good")
        assert_is_small_set(open_dataset("mnist"), "mnist")
    with serve({f"{name}.gz": gzip.compress(data, 1) for name, data in official.items()}) as address:
        monkeypatch.setenv("LUCE_MIRROR", f"{address}/good")
        assert_is_small_set(open_dataset("fashion-mnist"), "fashion-mnist")


def test_wrong_bytes_from_a_mirror_are_refused(
    official: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(zipped(small_idx(seed=5))) as address:
        monkeypatch.setenv("LUCE_MIRROR", f"{address}/good")
        with pytest.raises(DownloadError, match=r"idx3-ubyte\.gz: other bytes than expected: SHA-256 of the content"):
            open_dataset("mnist")
        monkeypatch.setenv("LUCE_MIRROR", f"{address}/wrong")
        with pytest.raises(DownloadError, match="other bytes than expected: not an IDX file"):
            open_dataset("mnist")
    assert os.listdir(tmp_path / "cache" / "datasets" / "mnist") == []


def test_only_what_is_missing_or_damaged_in_the_cache_is_downloaded(
    official: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = zipped(official)
    for name, damage in (("mnist", b"damaged"), ("fashion-mnist", None)):
        folder = put(tmp_path / "cache" / "datasets" / name, packed)
        one = folder / f"{IDX_NAMES[1]}.gz"
        one.unlink()
        if damage:
            one.write_bytes(damage)
        with serve({one.name: packed[one.name]}) as address:  # asking for any other gives 404
            monkeypatch.setenv("LUCE_MIRROR", f"{address}/good")
            assert_is_small_set(open_dataset(name), name)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "train-images-idx3-ubyte.gz"),
        ("fashion-mnist", "train-images-idx3-ubyte.gz"),
        ("cifar10", "cifar-10-binary.tar.gz"),
    ],
)
def test_what_to_do_when_nothing_can_be_had(name: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = os.environ["LUCE_MIRROR"]
    monkeypatch.setenv("LUCE_MIRROR", f"{mirror}/")
    with pytest.raises(DownloadError) as error:
        open_dataset(name)
    assert str(error.value) == (
        f"{mirror}/{name}/{file}: no connection to the server; try again, name a mirror in "
        f"LUCE_MIRROR, or get {file} in another way, put it into a folder {name} and name the folder around it in "
        "LUCE_DATA"
    )


def test_a_cache_that_cannot_be_written(mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    monkeypatch.setenv("LUCE_MIRROR", f"{mirror}/good")
    with pytest.raises(DownloadError, match=r"cannot be written \(.*\); make room there, or name another cache folder"):
        open_dataset("mnist")


@pytest.mark.data
def test_the_real_mnist(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCE_DATA", str(data_dir))
    dataset = open_dataset("mnist")
    assert isinstance(dataset.pictures, np.ndarray)
    assert dataset.pictures.shape == (70_000, 28, 28)
    assert dataset.splits == ("train",) * 60_000 + ("test",) * 10_000
    assert dataset.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.problems == ()  # so it is the official one


BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def batch(b: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The planes (10, 3072) and labels (10,) of a small batch."""
    planes = np.random.default_rng(b).integers(0, 256, (10, 3072), dtype=np.uint8)
    return planes, np.roll(np.arange(10), b)


def binary_batches() -> dict[str, bytes]:
    return {
        f"{name}.bin": b"".join(bytes([label]) + row.tobytes() for row, label in zip(*batch(b), strict=True))
        for b, name in enumerate(BATCHES)
    }


def python_batches(protocol: int = 4) -> dict[str, bytes]:
    files = {}
    for b, name in enumerate(BATCHES):
        planes, labels = batch(b)
        content = {b"batch_label": name.encode(), b"labels": labels.tolist(), b"data": planes, b"filenames": [b"x.png"]}
        files[name] = pickle.dumps(content, protocol)
    return files


def tarred(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


def below(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def assert_is_small_cifar(dataset: Dataset) -> None:
    assert dataset.name == "cifar10"
    assert dataset.classes == cifar.CLASSES
    assert isinstance(dataset.pictures, np.ndarray)
    assert dataset.pictures.shape == (60, 32, 32, 3)
    assert dataset.splits == ("train",) * 50 + ("test",) * 10
    for b in range(6):
        planes, labels = batch(b)
        assert dataset.labels[10 * b : 10 * b + 10].tolist() == labels.tolist()
        for channel in range(3):
            plane = planes[3, 1024 * channel : 1024 * (channel + 1)].reshape(32, 32)
            assert np.array_equal(dataset.pictures[10 * b + 3, :, :, channel], plane)


CIFAR_FORMS = {
    "cifar10": binary_batches,
    "cifar-10": binary_batches,
    ".": binary_batches,
    "cifar10/cifar-10-batches-bin": binary_batches,
    "cifar-10-batches-bin": binary_batches,
    "cifar-10/cifar-10-batches-py": python_batches,
    "cifar-10-batches-py": python_batches,
}


@pytest.mark.parametrize("place", CIFAR_FORMS)
def test_cifar_batches_in_a_data_folder(place: str, tmp_path: Path) -> None:
    put(tmp_path / "data" / place, CIFAR_FORMS[place]())
    dataset = open_dataset("cifar10")
    assert_is_small_cifar(dataset)
    kind = "not-official" if CIFAR_FORMS[place] is python_batches else "noted"
    assert [problem.kind for problem in dataset.problems] == [kind]


@pytest.mark.parametrize(
    ("archive", "files"),
    [
        ("cifar-10-binary.tar.gz", below("cifar-10-batches-bin", binary_batches())),
        ("cifar-10-python.tar.gz", below("cifar-10-batches-py", python_batches())),
    ],
)
def test_cifar_archives_in_a_data_folder(archive: str, files: dict[str, bytes], tmp_path: Path) -> None:
    path = put(tmp_path / "data" / "cifar10", {archive: tarred(files | {"readme.html": b"x"})}) / archive
    dataset = open_dataset("cifar10")
    assert_is_small_cifar(dataset)
    assert [(problem.kind, problem.path) for problem in dataset.problems] == [("not-official", str(path))]
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=rf"^{path}: the archive is damaged \(.*\); get it again"):
        open_dataset("cifar10")
    path.write_bytes(tarred(dict(list(files.items())[:-1])))
    with pytest.raises(DataError, match=rf"^{path}: test_batch.* is not in it; get it again"):
        open_dataset("cifar10")


def test_official_cifar_gives_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = python_batches()
    monkeypatch.setattr(cifar, "_MD5", {name: hashlib.md5(data).hexdigest() for name, data in files.items()})
    put(tmp_path / "data" / "cifar-10-batches-py", files)
    assert open_dataset("cifar10").problems == ()


def test_cifar_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tarred(below("cifar-10-batches-bin", binary_batches()))
    with serve({cifar.ARCHIVE: archive}) as address:
        monkeypatch.setenv("LUCE_MIRROR", f"{address}/good")
        with pytest.raises(DownloadError, match=r"cifar-10-binary\.tar\.gz: other bytes than expected: SHA-256"):
            open_dataset("cifar10")
        monkeypatch.setattr(cifar, "is_official", has_sha256(hashlib.sha256(archive).hexdigest()))
        dataset = open_dataset("cifar10")
    assert_is_small_cifar(dataset)
    assert dataset.problems == ()
    assert_is_small_cifar(open_dataset("cifar10"))
    path = tmp_path / "cache" / "datasets" / "cifar10" / cifar.ARCHIVE
    path.write_bytes(archive[:-1])
    with pytest.raises(DataError, match=rf"^{path}: damaged \(SHA-256 .*\); delete it and try again"):
        open_dataset("cifar10")


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_python_batches_of_every_protocol_that_holds_bytes(protocol: int, tmp_path: Path) -> None:
    planes, labels = batch(1)
    told = {b"data": np.asfortranarray(planes) if protocol == 3 else planes, b"labels": labels.tolist()}
    read, numbers = cifar._pickled(pickle.dumps(told, min(protocol, 4)))
    assert np.array_equal(read, planes)
    assert numbers.tolist() == labels.tolist()


class _Call:
    """Calls something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    batches = python_batches()
    for trap in (
        _Call(os.system, f"touch {sprung}"),
        _Call(eval, f"open({str(sprung)!r}, 'w')"),
        _Call(__import__, "os"),
        _Call(np.load, str(sprung), None, True),
    ):
        for content in (trap, {b"data": trap, b"labels": [1]}):
            batches["data_batch_3"] = pickle.dumps(content)
            folder = put(tmp_path / "data" / "cifar-10-batches-py", batches)
            with pytest.raises(DataError) as error:
                open_dataset("cifar10")
            assert str(error.value).startswith(f"{folder}: data_batch_3 is damaged (it wants to call ")
            assert str(error.value).endswith(", which it must not); get it again")
            assert not sprung.exists()
    pickle.loads(pickle.dumps(_Call(os.system, f"touch {sprung}")))
    assert sprung.exists()  # the trap works elsewhere


def test_a_forged_dtype_makes_no_pointers_of_bytes() -> None:
    """NumPy believes a pickled dtype; one of objects over raw bytes crashes the process or worse."""
    objects = _Call(np.dtype, "O")
    state = (1, (1, 3072), objects, False, bytes(8 * 3072))

    class _Array:
        def __reduce__(self) -> Any:
            return (np.empty(0).__reduce__()[0], (np.ndarray, (0,), b"b"), state)

    with pytest.raises(ValueError, match=r"data must be uint8 \(N, 3072\), got O"):
        cifar._pickled(pickle.dumps({b"data": _Array(), b"labels": [1]}))


PLANES = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps({b"data": PLANES, b"labels": [1, 2]}, 4)[:-50],
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": PLANES}, 4),
        pickle.dumps({b"data": PLANES, b"labels": [1]}, 4),
        pickle.dumps({b"data": PLANES, b"labels": ["a", "b"]}, 4),
        pickle.dumps({b"data": PLANES, b"labels": [1, [2]]}, 4),
        pickle.dumps({b"data": PLANES[:, 1:], b"labels": [1, 2]}, 4),
        pickle.dumps({b"data": PLANES.astype(np.int16), b"labels": [1, 2]}, 4),
        pickle.dumps({b"data": PLANES[0], b"labels": [1, 2]}, 4),
        pickle.dumps({b"data": [[1] * 3072], b"labels": [1]}, 4),
        pickle.dumps({b"data": np.ndarray, b"labels": [1]}, 4),
    ],
    ids=range(13),
)
def test_python_batches_that_are_damaged(content: bytes, tmp_path: Path) -> None:
    folder = put(tmp_path / "data" / "cifar-10-batches-py", python_batches() | {"data_batch_2": content})
    with pytest.raises(DataError, match=rf"^{folder}: data_batch_2 is damaged \(.*\); get it again$"):
        open_dataset("cifar10")


def test_binary_batches_that_are_damaged(tmp_path: Path) -> None:
    files = binary_batches()
    folder = put(tmp_path / "data" / "cifar10", files)
    for data in (b"", files["test_batch.bin"][:-1]):
        (folder / "test_batch.bin").write_bytes(data)
        with pytest.raises(DataError, match=rf"^{folder}: test_batch\.bin is damaged \(.*3,073\); get it again"):
            open_dataset("cifar10")
    (folder / "test_batch.bin").write_bytes(b"\x0a" + files["test_batch.bin"][1:])
    with pytest.raises(DataError, match=r"^cifar10: label 10 of picture 50 must lie in 0 … 9"):
        open_dataset("cifar10")


def cifar_pictures(kind: str, n: int = 2) -> dict[str, bytes]:
    """`train/<class>/` and `test/<class>/` with pictures, each of one colour that tells its place."""
    files = {}
    for p, part in enumerate(("train", "test")):
        for k, name in enumerate(cifar.CLASSES):
            for i in range(n):
                target = io.BytesIO()
                Image.new("RGB", (32, 32), (100 * p + i, 20 * k, 50)).save(target, kind)
                files[f"{part}/{name}/{i}.{kind}"] = target.getvalue()
    return files


def test_cifar_as_folders_of_pictures(tmp_path: Path) -> None:
    for name, data in cifar_pictures("png").items():
        put((tmp_path / "data" / "cifar10" / name).parent, {Path(name).name: data})
    dataset = open_dataset("cifar10")
    assert dataset.name == "cifar10"
    assert dataset.classes == cifar.CLASSES
    assert len(dataset) == 40
    assert [problem.kind for problem in dataset.problems] == ["not-official"]


def test_cifar_as_an_archive_of_pictures_is_decoded_once(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "cifar10"
    files = below("cifar10", cifar_pictures("png")) | {"cifar10/README": b"x"}
    path = put(folder, {"cifar10-jpeg.tar.xz": tarred(files, "w:xz")}) / "cifar10-jpeg.tar.xz"
    first = open_dataset("cifar10")
    (decoded,) = (tmp_path / "cache" / "datasets" / "cifar10").iterdir()
    about = decoded.stat()
    second = open_dataset("cifar10")
    for dataset in (first, second):
        assert dataset.name == "cifar10"
        assert dataset.classes == cifar.CLASSES
        assert dataset.splits == ("train",) * 20 + ("test",) * 20
        assert isinstance(dataset.pictures, np.ndarray)
        assert dataset.labels.tolist() == [k for _ in "ab" for k in range(10) for _ in "ab"]
        assert dataset.pictures[:, 9, 9, 0].tolist() == [0, 1] * 10 + [100, 101] * 10
        assert dataset.pictures[:, 0, 0, 1].tolist() == (20 * dataset.labels).tolist()
        assert [(problem.kind, problem.path) for problem in dataset.problems] == [("not-official", str(path))]
    assert decoded.stat().st_mtime_ns == about.st_mtime_ns
    decoded.write_bytes(b"damaged")
    assert np.array_equal(open_dataset("cifar10").labels, first.labels)
    assert decoded.stat().st_size == about.st_size


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    put(tmp_path / "data" / "cifar10", {"cifar10-jpeg.tar.xz": tarred(cifar_pictures("jpeg"), "w:xz")})
    assert len(open_dataset("cifar10")) == 40


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no train/<class>/ and test/<class>/ with pictures"),
        ({"train/dog/1.png": b"x"}, r"train/dog/1\.png is damaged: "),
        (
            {"spare/dog/1.png": cifar_pictures("png")["train/dog/1.png"]},
            r"spare/dog/1\.png does not belong to CIFAR-10",
        ),
    ],
)
def test_archives_of_pictures_that_are_damaged(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    for mode in ("w:xz", "w:gz"):
        data = tarred(files, mode)
        path = put(tmp_path / "data" / "cifar10", {"cifar10-jpeg.tar.xz": data}) / "cifar10-jpeg.tar.xz"
        with pytest.raises(DataError, match=f"^{path}: {message}"):
            open_dataset("cifar10")
        whole = tarred(cifar_pictures("png", n=9), mode)
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=rf"^{path}: the archive is damaged \(.*\); get it again"):
            open_dataset("cifar10")


@pytest.mark.data
def test_the_real_cifar10_as_an_archive_of_pictures(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCE_DATA", str(data_dir))
    dataset = open_dataset("cifar10")
    assert dataset.classes == cifar.CLASSES
    assert dataset.splits is not None
    assert (dataset.splits.count("train"), dataset.splits.count("test")) == (50_000, 10_000)
    assert np.bincount(dataset.labels).tolist() == [6000] * 10
    assert [problem.kind for problem in dataset.problems] == ["not-official"]
