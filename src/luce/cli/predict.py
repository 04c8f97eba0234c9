"""`luce predict`: the classes of pictures."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from luce.cli import STDIN
from luce.cli.console import Json, Threads, percent, print_json
from luce.errors import DataError


def predict(
    model: Path,
    /,
    *paths: str,
    top: int = 5,
    json: Json = False,
    csv: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    threads: Threads = None,
) -> int:
    """Classify pictures.

    A picture that cannot be read is listed with the reason, the others go on; the exit status is then 1.

    Examples:
      luce predict pets.onnx photo.jpg
      luce predict pets.onnx holiday/ --csv > holiday.csv
      find . -name '*.jpg' | luce predict pets.onnx - --json

    Args:
        model: The model file that luce train wrote.
        paths: Pictures, folders of pictures, or - for a list of paths on standard input, one a line.
        top: How many classes to list for each picture.
        json: Print a line of JSON for each picture: path, class, probability, top; or path, error.
        csv: Print CSV: path, class, probability, error.
        threads: Number of threads; by default one per available core.
    """
    from luce.classifier import load_classifier
    from luce.errors import ImageError

    if json and csv:
        raise ValueError("predict: --json and --csv exclude each other")
    if not paths:
        raise ValueError("predict: name at least one picture or folder, or - for a list on standard input")
    if top < 1:
        raise ValueError(f"predict: --top must be at least 1, got {top}")
    classifier = load_classifier(model)
    show = _show_json if json else _CsvTable().show if csv else _show_text
    failed = 0
    sources, results = _tee(_pictures(paths))
    for path, result in zip(sources, classifier.predict_each(results, top=top, n_threads=threads), strict=True):
        error = result.reason if isinstance(result, ImageError) else None
        failed += error is not None
        show(path, None if isinstance(result, ImageError) else result, error)
    return 1 if failed else 0


def _tee(paths: Iterator[str]) -> tuple[Iterator[str], Iterator[str]]:
    from itertools import tee

    first, second = tee(paths)
    return first, second


def _pictures(paths: tuple[str, ...]) -> Iterator[str]:
    """The pictures behind the words of the command line, in their order."""
    from luce.datasets.folder import pictures_below

    for word in paths:
        if word == STDIN:
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        elif Path(word).is_dir():
            found = [str(path) for path in pictures_below(Path(word))]
            if not found:
                raise DataError(f"{word}: no pictures in this folder")
            yield from found
        else:
            yield word


def _show_json(path: str, prediction: Any, error: str | None) -> None:
    print_json({"path": path, "error": error} if prediction is None else prediction.to_dict())


def _show_text(path: str, prediction: Any, error: str | None) -> None:
    if prediction is None:
        print(f"{path}: cannot be read: {error}", file=sys.stderr, flush=True)
        return
    others = ", ".join(f"{name} {percent(p)}" for name, p in prediction.top[1:] if p >= 0.0005)
    print(
        f"{path}: {prediction.class_name} {percent(prediction.probability)}" + (f"   ({others})" if others else ""),
        flush=True,
    )


class _CsvTable:
    """A header, then a row for each picture."""

    def __init__(self) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._writer.writerow(["path", "class", "probability", "error"])

    def show(self, path: str, prediction: Any, error: str | None) -> None:
        row = (
            [path, "", "", error]
            if prediction is None
            else [path, prediction.class_name, repr(prediction.probability), ""]
        )
        self._writer.writerow(row)
        sys.stdout.flush()
