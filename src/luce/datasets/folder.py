"""A folder of pictures: one folder per class, also below `train/`, `val/` and `test/`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from luce.datasets.dataset import PARTS, Dataset, Part, Problem, join_parts, name_classes, printable
from luce.errors import DataError

PART_NAMES: dict[str, Part] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SYSTEM = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir"}
_NOT_PICTURE = re.compile(
    r".*\.(7z|avi|bat|bib|c|cfg|conf|cpp|css|csv|db|dll|docx?|exe|gz|h5|html?|ini|ipynb|jsonl?|js|lnk|log|m4a|mat|md"
    r"|mkv|mov|mp3|mp4|npy|npz|onnx|parquet|pdf|pickle|pkl|pptx?|pth?|py|rar|rst|rtf|sh|sqlite|tar|tex|toml|tsv|txt"
    r"|url|wav|webm|xlsx?|xml|xz|ya?ml|zip)|readme|licen[cs]e|copying|makefile|changelog|sha256sums|md5sums",
    re.IGNORECASE,
)


@dataclass
class _Scan:
    """What a walk through folders came across besides pictures."""

    problems: list[Problem] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)

    def note(self, kind: str, path: Path, reason: str, class_name: str = "") -> None:
        self.problems.append(Problem(kind, printable(path), reason, class_name))


def open_folder(path: str | os.PathLike[str]) -> Dataset:
    """List a folder that holds one folder per class, or such folders below `train/`, `val/` and `test/`.

    The names of the class folders (Unicode NFC) are the classes, in code point order. A class folder is
    searched with all its sub-folders. `training`, `valid`, `validation`, `dev` and `testing` mean train, val,
    val, val and test, in any case. These names are parts when at least one of such folders holds folders,
    else they are classes.

    Files are not opened. A file counts as a picture unless its name says otherwise; decoding decides later.
    Links are followed; a folder that was seen before in the same class is not entered again.

    Listed as problems: hidden and system files (one entry in all), "not-a-picture", "missing-file" (a link to
    nothing), "unreadable" (folders), "no-label" (pictures outside class folders), "empty-class", "nested",
    "odd-name", "unused-folder", "duplicate-name", "missing-class", "unknown-class" (see `join_parts`).

    Args:
        path: of the folder.

    Raises:
        DataError: it holds no class folders, no pictures, or pictures of one class only.
    """
    root = Path(path)
    scan = _Scan()
    parts = _parts(root, scan)
    found: list[tuple[Path, str, Part | None]] = []
    for folder, part in parts:
        for picture, name in _classes(folder, scan):
            found.append((picture, name, part))
    problems = [*scan.problems, *_hidden(scan)]
    if not found:
        raise _nothing_found(root, problems)
    labels, classes, alike = name_classes([name for _, name, _ in found])
    splits = tuple(part for _, _, part in found if part is not None)
    dataset = Dataset(
        printable(root),
        classes,
        tuple(picture for picture, _, _ in found),
        labels,
        splits or None,
        problems=(*problems, *alike),
    )
    try:
        return join_parts(dataset)
    except DataError as error:
        raise DataError(f"{error}{_did_you_mean(root, classes)}") from None


def pictures_below(folder: str | os.PathLike[str]) -> list[Path]:
    """List the pictures in a folder and its sub-folders, by name, without hidden files and other kinds."""
    return list(_walk(Path(folder), _Scan(), ""))


def _parts(root: Path, scan: _Scan) -> list[tuple[Path, Part | None]]:
    """Find the folders that hold class folders, with their part: either those below root, or root itself."""
    folders = _list(root, _Scan())[0]
    named = [folder for folder in folders if folder.name.lower() in PART_NAMES]
    if not any(_list(folder, _Scan())[0] for folder in named):
        return [(root, None)]
    folders, files = _list(root, scan)
    for folder in folders:
        if folder not in named:
            scan.note("unused-folder", folder, "lies beside train, val and test: not used")
    _note_loose(root, files, scan)
    by_part = {part: [f for f in named if PART_NAMES[f.name.lower()] == part] for part in PARTS}
    return [(folder, part) for part in PARTS for folder in by_part[part]]


def _classes(folder: Path, scan: _Scan) -> Iterator[tuple[Path, str]]:
    """Yield the pictures below the class folders of a folder, each with the name of its class."""
    class_folders, files = _list(folder, scan)
    _note_loose(folder, files, scan)
    for class_folder in class_folders:
        name = class_folder.name
        if name != printable(name):
            scan.note("odd-name", class_folder, "the name of this folder is not valid UTF-8: rename it; left out")
            continue
        pictures = list(_walk(class_folder, scan, name))
        nested = sorted(
            {picture.relative_to(class_folder).parts[0] for picture in pictures if picture.parent != class_folder}
        )
        if nested:
            listed = ", ".join(nested[:3]) + (", …" if len(nested) > 3 else "")
            scan.note("nested", class_folder, f"pictures in sub-folders ({listed}) count as {name!r}", name)
        if not pictures:
            scan.note("empty-class", class_folder, "this class folder holds no pictures", name)
        yield from ((picture, name) for picture in pictures)


def _walk(folder: Path, scan: _Scan, class_name: str) -> Iterator[Path]:
    """Yield the pictures below a folder, by name. Loops of links end: no folder is entered twice."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            about = here.stat()
        except OSError as error:
            scan.note("unreadable", here, f"the folder cannot be read: {error.strerror}", class_name)
            continue
        if (about.st_dev, about.st_ino) in seen:
            scan.note("duplicate", here, "a link to a folder that was read already: not read again", class_name)
            continue
        seen.add((about.st_dev, about.st_ino))
        folders, files = _list(here, scan, class_name)
        yield from (file for file in files if _may_be_picture(file, scan, class_name))
        waiting += reversed(folders)


def _list(folder: Path, scan: _Scan, class_name: str = "") -> tuple[list[Path], list[Path]]:
    """Folders and regular files in a folder, by name; what is hidden, dangling or special is noted."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                path = folder / entry.name
                if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
                    scan.hidden.append(path)
                elif entry.is_dir():
                    folders.append(path)
                elif entry.is_file():
                    files.append(path)
                elif entry.is_symlink():
                    scan.note("missing-file", path, "a link to a file that does not exist", class_name)
                else:
                    scan.note("not-a-picture", path, "not a regular file", class_name)
    except OSError as error:
        scan.note("unreadable", folder, f"the folder cannot be listed: {error.strerror}", class_name)
    return folders, files


def _may_be_picture(file: Path, scan: _Scan, class_name: str) -> bool:
    if not _NOT_PICTURE.fullmatch(file.name):
        return True
    scan.note("not-a-picture", file, f"{file.suffix or file.name} files are not pictures: left out", class_name)
    return False


def _note_loose(folder: Path, files: list[Path], scan: _Scan) -> None:
    """Note files beside class folders: they have no class."""
    loose = [file for file in files if _may_be_picture(file, scan, "")]
    if loose:
        reason = f"{len(loose)} files lie in {printable(folder)} outside its class folders: left out, this is one"
        scan.note("no-label", loose[0], reason)


def _hidden(scan: _Scan) -> list[Problem]:
    if not scan.hidden:
        return []
    names = sorted({printable(path.name) for path in scan.hidden})
    listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    reason = f"{len(scan.hidden)} hidden or system files and folders left out ({listed}), this is one"
    return [Problem("hidden", printable(scan.hidden[0]), reason)]


def _nothing_found(root: Path, problems: list[Problem]) -> DataError:
    shown = printable(root)
    remedy = (
        f"put the pictures of each class into a folder of its own ({shown}/cat/1.jpg, {shown}/dog/2.jpg), "
        "or write a table (.csv) with the columns path,label"
    )
    kinds = {problem.kind: problem for problem in problems}
    if "unreadable" in kinds:
        return DataError(f"{kinds['unreadable'].path}: {kinds['unreadable'].reason}")
    if "no-label" in kinds:
        return DataError(f"{shown}: it holds pictures but no class folders; {remedy}")
    return DataError(f"{shown}: no pictures found in class folders; {remedy}")


def _did_you_mean(root: Path, classes: tuple[str, ...]) -> str:
    """Give a hint for a folder that merely wraps the folder with the classes."""
    inner = root / classes[0]
    folders = _list(inner, _Scan())[0] if len(classes) == 1 and inner.is_dir() else []
    if len(folders) < 2:
        return "; the pictures of each class belong in a folder of its own"
    listed = ", ".join(folder.name for folder in folders[:2]) + (", …" if len(folders) > 2 else "")
    return f"; did you mean {printable(inner)}, which holds {listed}?"
