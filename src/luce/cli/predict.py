"""`luce predict`: the classes of pictures."""

from __future__ import annotations

import csv as csv_module
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from luce.cli.console import STDIN, Json, Quiet, Threads, percent, print_json, reporter

if TYPE_CHECKING:
    from luce.classifier import Prediction
    from luce.errors import ImageError

    Result = Prediction | ImageError

EXAMPLES = (
    ("luce predict pets.onnx photo.jpg", "the classes of one picture"),
    ("luce predict pets.onnx holiday/ --csv > holiday.csv", "of all pictures in a folder, as a table"),
    ("find . -name '*.jpg' | luce predict pets.onnx - --json", "of a list of paths, a line of JSON each"),
)


def predict(
    model: Path,
    /,
    *paths: str,
    top: int = 5,
    json: Json = False,
    csv: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> int:
    """Classify pictures.

    A picture that cannot be read is listed with the reason, the others go on; the exit status is then 1.

    Args:
        model: The model file that luce train wrote.
        paths: Pictures, folders of pictures, or - for a list of paths on standard input, one a line.
        top: How many classes to list for each picture.
        json: Print a line of JSON for each picture: path, class, probability, top; or path, error.
        csv: Print CSV: path, class, probability, error.
        threads: Number of threads; by default one per available core.
        quiet: No progress bar when the output goes into a file.
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
    show = _show_json if json else _csv_table() if csv else _show_text
    listed = _listed(paths)
    bar_wanted = sys.stderr.isatty() and not sys.stdout.isatty() and isinstance(listed, Sequence)
    failed = 0
    with reporter(quiet=quiet or not bar_wanted) as console:
        for done, result in enumerate(classifier.predict_each(listed, top=top, n_threads=threads), 1):
            show(result)
            failed += isinstance(result, ImageError)
            console.progress("Classifying", done, len(listed) if isinstance(listed, Sequence) else done)
    return 1 if failed else 0


def _listed(paths: Sequence[str]) -> Sequence[str] | Iterator[str]:
    """The pictures behind the words of the command line, in their order; lazily if some come from standard input."""
    pictures = (picture for word in paths for picture in _behind(word))
    return pictures if STDIN in paths else list(pictures)


def _behind(word: str) -> Iterator[str]:
    from luce.datasets.folder import pictures_below
    from luce.errors import DataError

    if word == STDIN:
        yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
    elif Path(word).is_dir():
        found = pictures_below(word)
        if not found:
            raise DataError(f"{word}: no pictures in this folder")
        yield from map(str, found)
    else:
        yield word


def _show_json(result: Result) -> None:
    from luce.errors import ImageError

    if isinstance(result, ImageError):
        print_json({"path": result.path, "error": result.reason})
    else:
        print_json(result.to_dict())


def _show_text(result: Result) -> None:
    from luce.errors import ImageError

    if isinstance(result, ImageError):
        print(f"{result.path}: cannot be read: {result.reason}", file=sys.stderr, flush=True)
        return
    others = ", ".join(f"{name} {percent(p)}" for name, p in result.top[1:] if p >= 0.0005)
    best = f"{result.source}: {result.class_name} {percent(result.probability)}"
    print(best + (f"   ({others})" if others else ""), flush=True)


def _csv_table() -> Callable[[Result], None]:
    """Write a header now; then a row for each picture."""
    from luce.errors import ImageError

    writer = csv_module.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "class", "probability", "error"])

    def show(result: Result) -> None:
        if isinstance(result, ImageError):
            writer.writerow([result.path, "", "", result.reason])
        else:
            writer.writerow([result.source, result.class_name, repr(result.probability), ""])
        sys.stdout.flush()

    return show
