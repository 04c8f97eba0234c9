"""`luce softmax`: a calculator for the softmax function and its relatives, with every step if one likes."""

from __future__ import annotations

import difflib
import inspect
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from luce.cli.console import STDIN, Json, print_json
from luce.cli.steps import FUNCTIONS, Question, Row, bracketed, corner, formula, number, plain, powers, values
from luce.cli.steps import steps as steps_of

EXAMPLES = (
    ("luce softmax 0.7 3.1 0.6", "three logits become three probabilities"),
    ("luce softmax 0.7 3.1 0.6 --steps", "how, to follow with a pocket calculator"),
    ("luce softmax 0.7 3.1 0.6 --with sigmoid,normalize", "other functions beside it"),
    ("luce softmax -2 0 0.5 --names cat,dog,fish --temperature 2", "softer, and with names"),
    ("luce softmax - --json < logits.txt", "numbers from a file, as one JSON object"),
)

_WIDTH = 100  # of the output at most
_ALL, _SOME = 40, 20  # more rows than the first are not shown without asking, but so many of the largest
_WORKED = 8  # rows that are worked out
_BAR, _LEAST_BAR = 40, 6  # cells of a bar
_NAME = 24  # cells of a name
_BLOCKS = " ▏▎▍▌▋▊▉█"
_PLAIN = str.maketrans({"█": "#", **dict.fromkeys("▌▋▊▉", "#"), **dict.fromkeys("▏▎▍", " "), "…": "..."})

_Line = list[tuple[str, str]]  # pieces of text, each with its style
_Flag = Annotated[bool, Parameter(negative="", show_default=False)]
_Count = Annotated[int | None, Parameter(show_default=False)]
_Number = Annotated[float | None, Parameter(show_default=False)]
_Word = Annotated[str | None, Parameter(show_default=False)]


def softmax(
    *numbers: Annotated[str, Parameter(allow_leading_hyphen=True)],  # so that -1,5 gets its remedy
    temperature: float = 1.0,
    with_: Annotated[list[str] | None, Parameter(name="--with", negative="", show_default=False)] = None,
    steps: _Flag = False,
    names: _Word = None,
    target: _Word = None,
    degree: _Count = None,
    margin: _Number = None,
    eps: _Number = None,
    alpha: _Number = None,
    digits: int = 4,
    top: _Count = None,
    json: Json = False,
) -> int:
    """Work out softmax, step by step if you like, and compare it with other functions.

    Args:
        numbers: The logits, separated by spaces, also inf, -inf (not there), nan and 1e3; or - for standard input.
        temperature: Divides the logits first: above 1 softer, below 1 sharper.
        with_: Further functions, separated by commas: log_softmax, sigmoid, tanh, relu, normalize, taylor,
            soft_margin, sm_taylor, spherical, sparsemax, entmax15, entmax, pseudo.
        steps: Show each step in words and numbers.
        names: Names of the logits, separated by commas; without, they are counted from 0.
        target: The true class, for soft_margin and sm_taylor: its name, or its number counted from 0.
        degree: Of taylor and sm_taylor, even; 2 without.
        margin: Of soft_margin and sm_taylor; 0.5 without.
        eps: Of spherical; 0.001 without.
        alpha: Of entmax, at least 1; 1.5 without.
        digits: Decimals of the results.
        top: Show only so many rows, the largest first; of more than 40 logits 20 without.
        json: Print one JSON object; what JSON cannot hold (nan, inf) is null.
    """
    if not 1 <= digits <= 9:
        raise ValueError(f"softmax: --digits must be from 1 to 9, got {digits}")
    if top is not None and top < 1:
        raise ValueError(f"softmax: --top must be at least 1, got {top}")
    functions = _functions(with_ or [])
    logits = np.array(_logits(numbers))
    labels = _labels(names, len(logits))
    given = {"degree": degree, "margin": margin, "eps": eps, "alpha": alpha, "target": target}
    parameters: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    _check_parameters(parameters, functions)
    if target is not None:
        parameters["target"] = _target(target, labels)
    question = Question(logits, temperature=temperature, digits=digits, **parameters)
    results = {name: values(name, question) for name in functions}
    if json:
        print_json(_figures(labels, question, results, steps))
        return 0
    rows = list(range(len(logits)))
    if top or len(rows) > _ALL:
        rows = [int(k) for k in np.argsort(-logits, kind="stable")[: top or _SOME]]
    page = _Page(question, results, [_fitting(label) for label in labels], rows, _width())
    _print([*page.tables(steps), *(page.worked() if steps else page.legend())])
    return 0


def _logits(words: Sequence[str]) -> list[float]:
    texts = [text for word in words for text in (_standard_input() if word == STDIN else [word])]
    found = [_logit(text) for text in texts if text.strip("[](),;")]
    if not found:
        raise ValueError("softmax: no numbers given; write some, as in luce softmax 0.7 3.1 0.6, or - to read them")
    return found


def _standard_input() -> list[str]:
    try:
        return sys.stdin.read().split()
    except UnicodeDecodeError:
        raise ValueError("softmax: standard input is not text; it must be numbers separated by spaces") from None


def _logit(text: str) -> float:
    """A number as people write it, also with a typographic minus, or out of a list in brackets."""
    word = text.strip("[](),;").replace("\N{MINUS SIGN}", "-")
    try:
        value = float(word)
    except ValueError:
        if re.match("-+[a-z]", word):
            known = [f"--{option.strip('_')}" for option in inspect.signature(softmax).parameters]
            guess = _guess(word.partition("=")[0], known)
            raise ValueError(f"softmax: no option {word}; {guess}luce softmax --help lists them") from None
        remedy = "numbers look like 3, -0.5, 1e3, inf, -inf or nan"
        if word in FUNCTIONS:
            remedy = f"functions go behind one --with, as in --with sigmoid,{word}"
        elif "," in word:
            remedy = "write a point for the decimals, and a space between numbers"
        raise ValueError(f"softmax: {text!r} is not a number; {remedy}") from None
    if math.isinf(value) and "inf" not in word.lower():
        raise ValueError(f"softmax: {text} is too large for a float64 number; write inf if that is meant")
    return value


def _functions(lists: Iterable[str]) -> list[str]:
    """Softmax and the further functions, each once, also under their names in the library."""
    names = ["softmax"]
    for word in (word.strip() for part in lists for word in part.split(",")):
        name = word.lower().replace("-", "_")
        name = name if name in FUNCTIONS else name.removesuffix("_softmax")
        if name not in FUNCTIONS:
            known = ", ".join(FUNCTIONS)
            raise ValueError(f"softmax: --with: no function {word!r}; {_guess(name, FUNCTIONS)}there are {known}")
        names.append(name)
    return list(dict.fromkeys(names))


def _guess(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = [name for name in known if name.startswith(word)] or difflib.get_close_matches(word, known)
    return f"did you mean {close[0]}? " if close else ""


def _labels(names: str | None, n: int) -> list[str]:
    if names is None:
        return [str(k) for k in range(n)]
    labels = [" ".join(name.split()) for name in names.split(",")]
    if len(labels) != n:
        raise ValueError(f"softmax: --names must be {n}, one for each logit, got {len(labels)}")
    if "" in labels or len(set(labels)) < n:
        raise ValueError(f"softmax: --names must all be different and none empty, got {names!r}")
    return labels


def _target(text: str, labels: Sequence[str]) -> int:
    if text.strip() not in labels:
        known = ", ".join(labels) if len(labels) <= 12 else f"{labels[0]}, …, {labels[-1]}"
        raise ValueError(f"softmax: --target must be the true class, one of {known}; got {text!r}")
    return labels.index(text.strip())


def _check_parameters(given: Iterable[str], functions: Sequence[str]) -> None:
    """Refuse a parameter without effect, and a margin without the class that it is for."""
    for name in given:
        takers = [function for function in FUNCTIONS if name in FUNCTIONS[function].parameters]
        if not set(takers) & set(functions):
            raise ValueError(f"softmax: --{name} is for {' and '.join(takers)}; add --with {takers[0]}")
    for function in functions:
        if "target" in FUNCTIONS[function].parameters and "target" not in given:
            raise ValueError(f"softmax: {function} takes a margin off the true class; say which with --target")


def _figures(labels: Sequence[str], q: Question, results: dict[str, Row], with_steps: bool) -> dict[str, Any]:
    used = {parameter for name in results for parameter in FUNCTIONS[name].parameters}
    figures: dict[str, Any] = {
        "names": list(labels),
        "logits": _listed(q.logits),
        "temperature": q.temperature,
        "parameters": {name: getattr(q, name) for name in sorted(used)},
        "values": {name: _listed(result) for name, result in results.items()},
        "sums": {name: _listed([result.sum()])[0] for name, result in results.items() if FUNCTIONS[name].shares},
    }
    if with_steps:
        shifted, exps = powers(q.divided)
        maximum, total = _listed([q.divided.max(), exps.sum()])
        between = {"divided": _listed(q.divided), "maximum": maximum, "minus_maximum": _listed(shifted)}
        figures["steps"] = between | {"exponentials": _listed(exps), "sum": total}
    return figures


def _listed(numbers: Iterable[float]) -> list[float | None]:
    return [float(x) if math.isfinite(x) else None for x in numbers]


@dataclass(frozen=True)
class _Column:
    """A title, a cell for each row and perhaps for the rows that are not shown, and the sum."""

    title: str
    cells: list[str]
    bars: Row | None = None

    @property
    def width(self) -> int:
        return max(map(len, (self.title, *self.cells)))


@dataclass(frozen=True)
class _Page:
    """The answer in lines of at most `width` cells."""

    question: Question
    results: dict[str, Row]
    labels: Sequence[str]
    rows: list[int]
    width: int

    def tables(self, with_steps: bool) -> list[_Line]:
        """One table, or several with the same rows where the functions do not fit side by side."""
        lead = [self._numbers("logit", self.question.logits), *(self._between() if with_steps else [])]
        columns = [self._values(name, result) for name, result in self.results.items()]
        tables: list[list[_Column]] = []
        while columns:
            fitting = [n for n in range(1, len(columns) + 1) if self._bar([*lead, *columns[:n]]) >= _LEAST_BAR]
            n = max(fitting, default=1)
            tables.append([*lead, *columns[:n]])
            columns, lead = columns[n:], lead[:1]
        bar = min(map(self._bar, tables))
        return [line for table in tables for line in [*self._table(table, bar), []]][:-1]

    def legend(self) -> list[_Line]:
        """What the columns are, where there are several or a temperature."""
        if len(self.results) == 1 and self.question.temperature == 1.0:
            return []
        width = max(map(len, self.results)) + 2
        lines: list[_Line] = [[]]
        for name in self.results:
            lines += self._paragraph(f"{name:<{width}}", formula(name, self.question), "dim")
        return [*lines, *self._letters(" " * width)]

    def _letters(self, first: str) -> list[_Line]:
        """What z and x are in the formulas."""
        t, both = plain(self.question.temperature), not all(FUNCTIONS[name].tempered for name in self.results)
        if t == "1":
            return self._paragraph(first, "z and x are the logit" if both else "z is the logit", "dim")
        return self._paragraph(first, f"z is the logit / {t}" + (", x the logit itself" if both else ""), "dim")

    def worked(self) -> list[_Line]:
        """The steps of every function in words and sums."""
        rows, more = self.rows[:_WORKED], len(self.labels) - _WORKED
        indent = max(_cells(self.labels[k]) for k in rows) + 6
        lines: list[_Line] = []
        for name, result in self.results.items():
            lines += [[], [(name, "bold")]]
            steps = steps_of(name, self.question, result, rows)
            for i, step in enumerate(steps, 1):
                lines += [[]] if i > 1 else []
                lines += self._paragraph(f"{i}. " if len(steps) > 1 else "   ", step.words)
                for k, text in step.sums.items():
                    first, *others = self._paragraph(" " * indent, text)
                    label = _padded(f"   {self.labels[k]}", indent)
                    lines += [[(label, "dim"), (first[0][0][indent:], "")], *others]
                if step.sums and more > 0:
                    lines.append([(f"   … and {more:,} more in the same way", "dim")])
                lines += self._paragraph(" " * indent, step.total)
        return lines if len(self.results) == 1 else [*lines, [], *self._letters("")]

    def _between(self) -> list[_Column]:
        """What stands between the logits and softmax."""
        q = self.question
        if corner(q):
            return []
        shifted, exps = powers(q.divided)
        return [
            *([] if q.temperature == 1.0 else [self._numbers(f"/ {plain(q.temperature)}", q.divided)]),
            self._numbers(f"- {bracketed(q.divided.max(), q.decimals)}", shifted),
            self._summed("e^", exps, q.between),
        ]

    def _numbers(self, title: str, numbers: Row) -> _Column:
        return _Column(title, [*_aligned(numbers[self.rows], self.question.decimals), "", ""])

    def _values(self, name: str, result: Row) -> _Column:
        digits = self.question.digits
        if not FUNCTIONS[name].shares:
            return _Column(name, [*(number(value, digits) for value in result[self.rows]), "", ""])
        return _Column(name, self._summed(name, result, lambda value: number(value, digits)).cells, result[self.rows])

    def _summed(self, title: str, numbers: Row, written: Callable[[float], str]) -> _Column:
        shown = [*numbers[self.rows], np.delete(numbers, self.rows).sum(), numbers.sum()]
        return _Column(title, [written(value) for value in shown])

    def _below(self) -> list[str]:
        """The names of the last two rows; the first of them is empty where all rows are shown."""
        more = len(self.labels) - len(self.rows)
        return [f"{more:,} more" if more else "", "sum"]

    def _bar(self, columns: Sequence[_Column]) -> int:
        """The width of a bar when these columns share the page."""
        labels = max(_cells(label) for label in [*(self.labels[k] for k in self.rows), *self._below()])
        taken = labels + sum(column.width + 2 for column in columns)
        barred = sum(column.bars is not None for column in columns)
        return min(_BAR, (self.width - taken) // max(barred, 1) - 1)

    def _table(self, columns: Sequence[_Column], bar: int) -> list[_Line]:
        labels = ["", *(self.labels[k] for k in self.rows), *self._below()]
        names = max(map(_cells, labels))
        best = int(np.argmax(self.results["softmax"][self.rows]))
        lines: list[_Line] = []
        for i, label in enumerate(labels, -1):
            within = 0 <= i < len(self.rows)
            style = ("bold" if i == best else "") if within else "dim"
            line = [(_padded(label, names), style)]
            for column in columns:
                text = column.title if i < 0 else column.cells[i]
                line.append((f"  {text:>{column.width}}", style))
                if column.bars is not None and bar > 0:
                    line.append((" " + _blocks(column.bars[i] if within else 0.0, bar), "cyan"))
            if label or i < len(self.rows):
                lines.append(line)
        return lines

    def _paragraph(self, first: str, text: str, style: str = "") -> list[_Line]:
        wrapped = textwrap.wrap(text, self.width, initial_indent=first, subsequent_indent=" " * len(first))
        return [[(line, style)] for line in wrapped]


def _aligned(numbers: Row, most: int) -> list[str]:
    """Numbers with as many decimals as the longest of them needs, if that is not too many."""
    texts = [plain(value, most) for value in numbers]
    if any("e" in text for text in texts):
        return texts
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return [f"{value + 0.0:.{decimals}f}" for value in numbers]


def _blocks(share: float, width: int) -> str:
    """A bar of `width` cells, filled to an eighth of a cell."""
    eighths = max(1, round(min(share, 1.0) * width * 8)) if share > 0 else 0
    return (_BLOCKS[8] * (eighths // 8) + _BLOCKS[eighths % 8]).ljust(width)[:width]


def _fitting(name: str) -> str:
    """A name that fits in a table."""
    from rich.cells import set_cell_size

    name = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return name if _cells(name) <= _NAME else set_cell_size(name, _NAME - 1).rstrip() + "…"


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _cells(text))


def _width() -> int:
    if not sys.stdout.isatty():
        return _WIDTH
    from rich.console import Console

    return max(40, min(Console().width, _WIDTH))


def _print(lines: Sequence[_Line]) -> None:
    """In colour on a terminal, else as plain text."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        console = Console(highlight=False)
        for line in lines:
            console.print(Text.assemble(*line), soft_wrap=True)
        return
    text = "\n".join("".join(piece for piece, _ in line).rstrip() for line in lines)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a stream that has no blocks
        text = "\n".join(line.rstrip() for line in text.translate(_PLAIN).splitlines())
    print(text)
