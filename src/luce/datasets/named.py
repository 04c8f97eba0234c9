"""Data sets by name: digits, mnist, fashion-mnist, cifar10."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from luce.datasets import cifar, idx
from luce.datasets.dataset import Dataset, Part, Problem, Progress, printable
from luce.datasets.download import download
from luce.errors import DataError
from luce.paths import cache_dir, data_dirs

DIGITS = tuple("0123456789")


@dataclass(frozen=True, slots=True)
class _IdxSet:
    """A data set of four IDX files.

    Attributes:
        classes: official names.
        folders: names of folders in which people keep it; the last two are torchvision's.
        address: where its files are.
        sha256: of each file's content once unpacked: a mirror may pack it in another way.
    """

    classes: tuple[str, ...]
    folders: tuple[str, ...]
    address: str
    sha256: Mapping[str, str]


_IDX_SETS = {
    "mnist": _IdxSet(
        DIGITS,
        ("mnist", "MNIST", "MNIST/raw"),
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        {
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion-mnist": _IdxSet(
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        ("fashion-mnist", "FashionMNIST", "FashionMNIST/raw"),
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        {
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
    ),
}
_PREFIXES: tuple[tuple[Part, str], ...] = (("train", "train"), ("test", "t10k"))
NAMES = ("digits", *_IDX_SETS, "cifar10")


def open_named(name: str, *, progress: Progress | None = None) -> Dataset:
    """Open a data set by its name.

    `digits` ships inside scikit-learn. The others are looked for in the folders of `LUCE_DATA` (in
    `<folder>/<name>`, then in `<folder>` itself, where only the official files count), in Debian's
    `/usr/share/datasets`, and in the cache; else they are downloaded from their official address, or from
    `<LUCE_MIRROR>/<name>/`. A download must have the SHA-256 of the official data. Files that you put into
    `LUCE_DATA` are used even if they do not; that is listed as "not-official".

    Args:
        name: one of `NAMES`.
        progress: called with (label, done, total).

    Raises:
        DataError: files that were found are damaged.
        DownloadError: they could not be had; the message says what to do.
    """
    if name == "digits":
        return _digits()
    return (_cifar10 if name == "cifar10" else _idx_set)(name, progress)


def _digits() -> Dataset:
    """Scikit-learn's 1,797 digits, 8x8, without importing scikit-learn; 0 … 16 becomes 0 … 255."""
    spec = importlib.util.find_spec("sklearn")
    folder = Path(next(iter(spec.submodule_search_locations or ())) if spec else "")
    path = folder / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(path, "rt") as file:
            table = np.loadtxt(file, delimiter=",")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"digits: {printable(path)} cannot be read ({error}); install scikit-learn again") from None
    pixels = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return Dataset("digits", DIGITS, pixels, table[:, 64].astype(np.int64))


def _idx_set(name: str, progress: Progress | None) -> Dataset:
    about = _IDX_SETS[name]
    for folder in data_dirs():
        for candidate, own in [*((folder / sub, True) for sub in about.folders), (folder, False)]:
            files = _idx_files(candidate, about)
            if len(files) < len(about.sha256):
                continue
            wrong = [file for file, path in files.items() if _not_official(path, about.sha256[file])]
            if not wrong:
                return _open(files, name)
            if own:
                return _not_quite(_open(files, name), files[wrong[0]])
    folder = cache_dir() / "datasets" / name
    files = {file: folder / f"{file}.gz" for file in about.sha256}
    for file, path in files.items():
        sha256 = about.sha256[file]
        if not path.exists() or _not_official(path, sha256):
            download(
                _address(name, about.address, path.name),
                path,
                check=partial(_not_official, sha256=sha256),
                progress=progress,
                remedy=_remedy(name, path.name),
            )
    return _open(files, name)


def _open(files: Mapping[str, Path], name: str) -> Dataset:
    pairs: dict[Part, tuple[Path, Path]] = {
        part: (files[f"{prefix}-images-idx3-ubyte"], files[f"{prefix}-labels-idx1-ubyte"]) for part, prefix in _PREFIXES
    }
    return idx.open_pairs(pairs, name, _IDX_SETS[name].classes)


def _idx_files(folder: Path, about: _IdxSet) -> dict[str, Path]:
    """Find the files of the set that are in a folder; unpacked ones first."""
    found = {}
    for file in about.sha256:
        for path in (folder / file, folder / f"{file}.gz"):
            if file not in found and path.is_file():
                found[file] = path
    return found


def _not_official(path: Path, sha256: str) -> str:
    """Say what is wrong with an IDX file, "" if its content is the official one."""
    try:
        found = hashlib.sha256(idx.read_content(path)).hexdigest()
    except DataError as error:
        return str(error).removeprefix(f"{printable(path)}: ")
    return "" if found == sha256 else f"SHA-256 of the content {found}, it must be {sha256}"


def _not_quite(dataset: Dataset, path: Path) -> Dataset:
    reason = f"not the official {dataset.name} (its SHA-256 differs): used as it is"
    return replace(dataset, problems=(*dataset.problems, Problem("not-official", printable(path), reason)))


def _cifar10(name: str, progress: Progress | None) -> Dataset:
    for folder in data_dirs():
        for candidate in (folder / "cifar10", folder / "cifar-10", folder):
            dataset = cifar.find(candidate, progress)
            if dataset is not None:
                return dataset
    path = cache_dir() / "datasets" / name / cifar.ARCHIVE
    if not path.exists():
        address = _address(name, cifar.ADDRESS, cifar.ARCHIVE)
        remedy = _remedy(name, cifar.ARCHIVE)
        download(address, path, check=cifar.is_official, progress=progress, remedy=remedy)
    elif wrong := cifar.is_official(path):
        raise DataError(f"{printable(path)}: damaged ({wrong}); delete it and try again")
    dataset = cifar.find(path.parent, progress)
    if dataset is None:
        raise DataError(f"{printable(path)}: holds no CIFAR-10; delete it and try again")
    return dataset


def _address(name: str, official: str, file: str) -> str:
    mirror = os.environ.get("LUCE_MIRROR")
    return f"{mirror.rstrip('/')}/{name}/{file}" if mirror else f"{official}/{file}"


def _remedy(name: str, file: str) -> str:
    return (
        f"try again, name a mirror in LUCE_MIRROR, or get {file} in another way, put it into a folder {name} "
        f"and name the folder around it in LUCE_DATA"
    )
