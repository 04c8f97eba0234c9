"""`luce plot`: pictures of the softmax family."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from luce.cli.console import STDIN
from luce.plots import PLOTS, Format, describe, render

EXAMPLES = (
    ("luce plot --list", "the names of the pictures and what they show"),
    ("luce plot temperature", "writes temperature.svg"),
    ("luce plot simplex -o simplex.png --dark", "for a dark background"),
    ("luce plot sparse taylor pseudo -o figures --format png", "several, into a folder that is there"),
)


def pictures() -> str:
    """The names of the pictures and what they show, as a Markdown list."""
    return "\n".join(["Pictures:", "", *(f"- `{name}`  \n  {describe(name)}" for name in PLOTS)])


def plot(
    *names: str,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], show_default=False)] = None,
    format: Annotated[Format | None, Parameter(show_default=False)] = None,
    dark: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    list_: Annotated[bool, Parameter(name="--list", negative="", show_default=False)] = False,
) -> int:
    """Draw pictures of the softmax function and its relatives.

    Needs matplotlib: pip install 'luce[plot]'. Each file that is written is named on a line of its own.

    Args:
        names: Which pictures; --list shows them.
        output: A file that ends in .svg or .png, or a folder. By default NAME.svg in the current folder.
        format: svg or png; by default as the output file ends, else svg.
        dark: Draw for a dark background.
        list_: List the pictures and what they show.
    """
    from luce.files import check_writable, write_atomically

    if list_:
        width = max(map(len, PLOTS))
        print(*(f"{name:{width}}  {describe(name)}" for name in PLOTS), sep="\n")
        return 0
    known = ", ".join(PLOTS)
    if not names:
        raise ValueError(f"plot: which picture? There are: {known}")
    if wrong := [name for name in names if name not in PLOTS]:
        raise ValueError(f"plot: no picture is called {', '.join(map(repr, wrong))}; there are: {known}")
    files = _files(list(dict.fromkeys(names)), output, format)
    for file, _ in files.values():
        check_writable(file)
    for name, (file, kind) in files.items():
        write_atomically(file, render(PLOTS[name](dark=dark), kind, title=describe(name)))
        print(file)
    return 0


def _files(names: list[str], output: Path | None, format: Format | None) -> dict[str, tuple[Path, Format]]:
    """The file of each picture and its format.

    Raises:
        ValueError: the output does not fit the names or the format.
    """
    if output is None or output.is_dir():
        kind = format or "svg"
        return {name: ((output or Path()) / f"{name}.{kind}", kind) for name in names}
    got = "-" if str(output) == STDIN else output
    if len(names) > 1:
        raise ValueError(f"--output: for {len(names)} pictures it must be a folder that is there, got {got}")
    ending = output.suffix.lower()
    if ending == ".svg" and format != "png":
        return {names[0]: (output, "svg")}
    if ending == ".png" and format != "svg":
        return {names[0]: (output, "png")}
    wanted = f".{format}" if format else ".svg or .png"
    raise ValueError(f"--output: must be a file that ends in {wanted}, or a folder that is there, got {got}")
