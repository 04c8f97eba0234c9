"""Open a data set in any form."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from luce.datasets import named
from luce.datasets.dataset import Dataset, Problem, Progress, printable
from luce.datasets.folder import open_folder
from luce.datasets.idx import is_idx, open_idx
from luce.datasets.pixels import from_arrays, open_npz
from luce.datasets.table import open_table
from luce.errors import DataError

_FORMS = (
    "a folder with one folder per class, a table (.csv or .tsv) with the columns path,label, an .npz file, "
    f"IDX files, or one of the names {', '.join(named.NAMES)}"
)

_PACKED = (".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".xz", ".txz", ".bz2", ".tbz2", ".zst")


def open_dataset(
    data: str | os.PathLike[str] | Dataset | tuple[Any, Any], *, progress: Progress | None = None
) -> Dataset:
    """Open a data set.

    Args:
        data: a folder with one folder per class, also below `train/ val/ test/`; a `.csv` or `.tsv` table
            with the columns `path,label[,split,group,weight]`; an `.npz` file; an IDX file or a folder with
            IDX files; one of the names `digits`, `mnist`, `fashion-mnist`, `cifar10`; a pair (pictures,
            labels) of uint8 pixels (N, height, width[, 3]) or N paths, and N integers or class names; or a
            `Dataset`, which is returned. A file or folder that exists goes before a name; that is listed.
        progress: called with (label, done, total) while downloading or unpacking.

    Raises:
        TypeError: none of these.
        DataError: it cannot be used; the message says why and what to do.
        DownloadError: a named data set is not here and cannot be downloaded.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, tuple):
        return _from_pair(data)
    if not isinstance(data, str | os.PathLike):
        raise TypeError(
            f"data must be a path, a name, a Dataset or a pair (pictures, labels), got {type(data).__name__}"
        )
    path = Path(data)
    shown = printable(data)
    if not shown or not _exists(path):  # Path("") would be the current folder
        name = os.fspath(data)
        if name in named.NAMES:
            return named.open_named(name, progress=progress)
        raise DataError(f"{shown!r}: no such file or folder; {_did_you_mean(path, name)}Data is {_FORMS}")
    dataset = _open_path(path, shown)
    if os.fspath(data) not in named.NAMES:
        return dataset
    reason = f"taken as the folder here, not as the data set named {shown}; run elsewhere to get that"
    return replace(dataset, problems=(*dataset.problems, Problem("noted", shown, reason)))


def _did_you_mean(path: Path, name: str) -> str:
    """Give a hint: the name of a data set, or of something that lies where the missing path should."""
    near = difflib.get_close_matches(name.lower(), named.NAMES, 1)
    try:
        beside = {entry.lower(): entry for entry in os.listdir(path.parent) if not entry.startswith(".")}
    except (OSError, ValueError):
        beside = {}
    if not near:
        matches = difflib.get_close_matches(path.name.lower(), beside, 1)
        near = [printable(path.with_name(beside[match])) for match in matches]
    return f"did you mean {near[0]}? " if near else ""


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def _open_path(path: Path, shown: str) -> Dataset:
    try:
        if is_idx(path):
            return open_idx(path)
    except OSError as error:
        raise DataError(f"{shown}: the folder cannot be listed: {error.strerror}") from None
    if path.is_dir():
        return open_folder(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return open_table(path)
    if suffix == ".npz":
        return open_npz(path)
    remedy = "unpack it first and name the folder. " if suffix in _PACKED else ""
    raise DataError(f"{shown}: this kind of file is no data set; {remedy}Data is {_FORMS}")


def _from_pair(data: tuple[Any, ...]) -> Dataset:
    if len(data) != 2:
        raise TypeError(f"data must be a pair (pictures, labels), got {len(data)} entries")
    pictures, labels = data
    if isinstance(pictures, str | bytes | os.PathLike) or not hasattr(pictures, "__len__"):
        raise TypeError(
            "data must be a path, or a pair (pictures, labels) of pixels or N paths and N labels, "
            f"got a pair with {type(pictures).__name__} for the pictures"
        )
    if len(pictures) == 0:
        raise DataError("the pair (pictures, labels) holds no pictures")
    if isinstance(pictures, np.ndarray) and pictures.dtype.kind == "U":
        pictures = pictures.tolist()
    if not isinstance(pictures, np.ndarray) and all(isinstance(p, str | os.PathLike) for p in pictures):
        pictures = [Path(p) for p in pictures]
    return from_arrays(pictures, labels)
