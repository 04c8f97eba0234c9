"""A table of pictures: CSV or TSV with the columns `path,label[,split,group,weight]`."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from luce.datasets.dataset import Dataset, Part, Problem, join_parts, name_classes, number_groups, printable
from luce.datasets.folder import PART_NAMES
from luce.errors import DataError

NEEDED = ("path", "label")
OPTIONAL = ("split", "group", "weight")


@dataclass
class _Row:
    """A row of the table that can be used so far."""

    line: int
    picture: Path
    label: str
    part: Part | None = None
    group: str = ""
    weight: float = 1.0


@dataclass
class _Reading:
    """The state of reading one table."""

    folder: Path
    columns: dict[str, int]
    n_columns: int
    rows: list[_Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def open_table(path: str | os.PathLike[str]) -> Dataset:
    """Read a table with a header line and the columns `path` and `label`, in any order and case.

    Optional columns: `split` (train, val, test or their usual synonyms), `group` (pictures of one group never
    part; empty for none), `weight` (a positive number). Other columns are ignored. UTF-8 with or without a
    byte order mark; `.tsv` is separated by tabs, other tables by the comma, semicolon or tab with which the
    header has these columns; fields may be quoted, and space after a separator does not count. Relative paths
    are relative to the table's folder.

    A row that cannot be used is left out and listed with its line: "bad-row" (number of fields), "no-label",
    "missing-file", "unknown-split", "bad-weight", "duplicate" (a path listed again with the same label) and
    "label-conflict" (a path with two labels: every one of its rows, since it is unknown which is right).

    Args:
        path: of the table.

    Raises:
        DataError: it is not such a table, or no two classes with pictures are in it.
    """
    table = Path(path)
    lines = _read(table)
    header = lines[0][1] if lines else []
    columns = _columns(table, header)
    reading = _Reading(table.parent, columns, len(header))
    for line, cells in lines[1:]:
        _take(reading, line, cells)
    _settle_repeats(reading)
    rows, problems = reading.rows, reading.problems
    if not rows:
        first = f"; the first problem: {problems[0].path}: {problems[0].reason}" if problems else ""
        raise DataError(f"{printable(table)}: no row of the table can be used{first}")
    labels, classes, alike = name_classes([row.label for row in rows])
    parts = tuple(row.part for row in rows if row.part is not None)
    dataset = Dataset(
        printable(table),
        classes,
        tuple(row.picture for row in rows),
        labels,
        splits=parts if "split" in columns else None,
        groups=number_groups([row.group for row in rows]) if "group" in columns else None,
        weights=np.array([row.weight for row in rows]) if "weight" in columns else None,
        problems=(*problems, *alike),
    )
    return join_parts(dataset)


def _read(table: Path) -> list[tuple[int, list[str]]]:
    """Read the lines that are not blank: number and fields."""
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{printable(table)}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = table.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(f"{printable(table)}: line {line} is not UTF-8; save the table as UTF-8 text") from None
    delimiter = _delimiter(table, text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    lines = []
    try:
        began = 1
        for cells in reader:
            if any(cells):
                lines.append((began, cells))
            began = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{printable(table)}: line {reader.line_num}: {error}; check its quotes") from None
    return lines


def _delimiter(table: Path, text: str) -> str:
    if table.suffix.lower() == ".tsv":
        return "\t"
    header = text.lstrip().partition("\n")[0]
    known = {*NEEDED, *OPTIONAL}
    return max(",;\t", key=lambda d: len(known & {cell.strip(' "\r').lower() for cell in header.split(d)}))


def _columns(table: Path, header: Sequence[str]) -> dict[str, int]:
    names = [cell.strip().lower() for cell in header]
    missing = [name for name in NEEDED if name not in names]
    if missing:
        came = ", ".join(cell[:40] for cell in header[:10]) or "nothing"
        raise DataError(
            f"{printable(table)}: the first line must name the columns path,label[,split,group,weight]; "
            f"missing: {', '.join(missing)}; it holds: {came}"
        )
    twice = [name for name in (*NEEDED, *OPTIONAL) if names.count(name) > 1]
    if twice:
        raise DataError(f"{printable(table)}: the first line names the column {twice[0]} twice")
    return {name: names.index(name) for name in (*NEEDED, *OPTIONAL) if name in names}


def _take(reading: _Reading, line: int, cells: list[str]) -> None:
    """Add a row, or the problem with it."""
    if len(cells) != reading.n_columns:
        reason = f"line {line}: {len(cells)} fields where the header has {reading.n_columns}: left out"
        reading.problems.append(Problem("bad-row", "", f"{reason}; a field that holds a separator needs quotes"))
        return
    cell = {name: cells[i] for name, i in reading.columns.items()}
    # normpath, not resolve: the same file under two names is found by its bytes.
    row = _Row(
        line,
        Path(os.path.normpath(reading.folder / cell["path"])),
        cell["label"],
        group=cell.get("group", ""),
    )

    def refuse(kind: str, reason: str) -> None:
        reading.problems.append(Problem(kind, printable(row.picture), f"line {line}: {reason}: left out", row.label))

    if not row.label.strip():
        return refuse("no-label", "the label is empty")
    if not cell["path"].strip() or not _is_file(row.picture):
        return refuse("missing-file", "no such file")
    if "split" in cell:
        row.part = PART_NAMES.get(cell["split"].strip().lower())
        if row.part is None:
            return refuse("unknown-split", f"split must be train, val or test, got {cell['split']!r}")
    if "weight" in cell:
        row.weight = _number(cell["weight"])
        if not (math.isfinite(row.weight) and row.weight > 0):
            return refuse("bad-weight", f"weight must be a positive number, got {cell['weight']!r}")
    reading.rows.append(row)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no permission; a zero byte in the name
        return False


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _settle_repeats(reading: _Reading) -> None:
    """Keep one row of a path that is listed again, and none of a path with two labels."""
    by_path: dict[Path, list[_Row]] = {}
    for row in reading.rows:
        by_path.setdefault(row.picture, []).append(row)
    left_out: set[int] = set()
    for picture, (first, *again) in by_path.items():
        if any(row.label != first.label for row in again):
            listed = ", ".join(f"{row.label!r} in line {row.line}" for row in (first, *again))
            reason = f"labelled {listed}: left out, since it is unknown which is right"
            reading.problems.append(Problem("label-conflict", printable(picture), reason, first.label))
            left_out.add(first.line)
        else:
            for row in again:
                reason = f"line {row.line}: listed in line {first.line} already: left out"
                reading.problems.append(Problem("duplicate", printable(picture), reason, row.label))
        left_out |= {row.line for row in again}
    reading.rows = [row for row in reading.rows if row.line not in left_out]
