"""The functions of the calculator, and how each is worked out with a pocket calculator.

Results come from the library. What is written here only shows how to get there: the sums to type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import luce

Row = NDArray[np.float64]
_Sum = Callable[[int], str]  # the sum to type for the row k, without its result


@dataclass(frozen=True)
class Question:
    """A row of logits (K,), the parameters of the functions, and the decimals of the results.

    Attributes:
        target: index of the true class, for the functions with a margin.
    """

    logits: Row
    temperature: float = 1.0
    degree: int = 2
    margin: float = 0.5
    eps: float = 1e-3
    alpha: float = 1.5
    target: int = -1
    digits: int = 4

    @property
    def decimals(self) -> int:
        """Decimals of what leads to the results, so that typing it gives their last digit."""
        return self.digits + 2

    def between(self, value: float) -> str:
        """A number on the way to the result."""
        return number(value, self.decimals, 3)

    @property
    def divided(self) -> Row:
        """The logits over the temperature."""
        with np.errstate(all="ignore"):
            return self.logits / self.temperature

    @property
    def strict(self) -> Row:
        """The divided logits with the margin taken off that of the true class."""
        strict = self.divided.copy()
        strict[self.target] -= self.margin
        return strict


@dataclass(frozen=True)
class Function:
    """A function of the calculator.

    Attributes:
        name: that of the library.
        sums: for a question and its result, the sum to type for a row.
        formula: of z, the logit over the temperature, or of x, the logit as it is; `{...}` is a field of the question.
        parameters: fields of the question that it reads beside the logits and the temperature.
        shares: its values lie between 0 and 1, so that bars and a sum say something.
        each: it takes every logit for itself.
        tempered: it is a function of z.
    """

    name: str
    sums: Callable[[Question, Row], _Sum]
    formula: str
    parameters: tuple[str, ...] = ()
    shares: bool = True
    each: bool = False
    tempered: bool = True


@dataclass(frozen=True)
class Step:
    """What is done, in plain words; a sum for each row; or one for all rows."""

    words: str
    sums: Mapping[int, str] = field(default_factory=dict)
    total: str = ""


def values(name: str, question: Question) -> Row:
    """What the library gives for the logits.

    Raises:
        ValueError: the function is not defined there, or a parameter is out of its range.
    """
    function, x = FUNCTIONS[name], question.logits
    arguments: dict[str, Any] = {parameter: getattr(question, parameter) for parameter in function.parameters}
    if "target" in arguments:
        arguments["target"] = np.array([question.target])
    if name == "pseudo":  # it has no temperature of its own
        x = question.divided
    elif function.tempered:
        arguments["temperature"] = question.temperature
    result: Row = getattr(luce, function.name)(x[None], **arguments)[0]
    return result


def powers(z: Row, base: float = math.e) -> tuple[Row, Row]:
    """The numbers minus the largest, and the base to the power of that."""
    with np.errstate(all="ignore"):
        shifted = z - z.max()
        return shifted, np.exp(shifted * math.log(base))


def steps(name: str, question: Question, result: Row, rows: Sequence[int]) -> list[Step]:
    """How `result`, the `values` of a function, is worked out; sums are written for `rows`."""
    function = FUNCTIONS[name]
    if not function.each and (words := corner(question)):
        return [Step(words)]
    if name == "softmax":
        return _softmax_steps(question, result, rows)
    words = formula(name, question)
    with np.errstate(all="ignore"):
        to_type = function.sums(question, result)
        sums = {k: f"{to_type(k)} = {number(result[k], question.digits)}" for k in rows}
    if any("inf" in sums[k] for k in rows if np.isfinite(question.logits[k])):
        return [Step(f"{words}; here the numbers are too large to be written out")]
    return [Step(words, sums)]


def formula(name: str, question: Question) -> str:
    """The formula of a function with its parameters in place."""
    parameters = FUNCTIONS[name].parameters
    return FUNCTIONS[name].formula.format(**{p: getattr(question, p) for p in parameters})


def number(value: float, decimals: int, significant: int = 1) -> str:
    """A value with so many decimals; huge ones, and those with too few significant digits, with a power of ten.

    >>> number(0.0773514, 4), number(4.5e-7, 4), number(0.0, 2), number(1e30, 4), number(1.63e-6, 6, 3)
    ('0.0774', '4.5e-07', '0.00', '1e+30', '1.630e-06')
    """
    if value != 0 and abs(value) < 0.5 * 10.0 ** (significant - 1 - decimals):
        return f"{value:.{significant}e}"
    if not math.isfinite(value) or abs(value) >= 1e9:
        return f"{value:.{decimals + 4}g}"
    return f"{value:.{decimals}f}"


def plain(value: float, decimals: int = 12) -> str:
    """A value as one would write it, with at most so many decimals, without the noise of the last binary digits.

    >>> plain(0.7 - 3.1), plain(3.0), plain(float("-inf")), plain(7 / 3, 6), plain(1e-9, 6)
    ('-2.4', '3', '-inf', '2.333333', '1e-09')
    """
    text = f"{value + 0.0:.12g}"
    if "e" in text or len(text.partition(".")[2]) <= decimals:
        return text
    return f"{value:.{decimals}f}".rstrip("0").rstrip(".") or text


def bracketed(value: float, decimals: int = 12) -> str:
    """The same, in brackets if there is a sign."""
    text = plain(value, decimals)
    return f"({text})" if text.startswith("-") else text


def corner(question: Question) -> str:
    """What to say of logits that no pocket calculator can work with; nothing of others."""
    z = question.logits
    infinite = int(np.isposinf(z).sum())
    if np.isnan(z).any():
        return "One logit is not a number (nan), so no result is one."
    if infinite:
        shared = "it gets everything" if infinite == 1 else f"the {infinite} of them share everything"
        return f"A logit of inf is above all others: {shared}, the others get nothing."
    if not np.isfinite(z).any():
        return "A logit of -inf means: not there. None is there, so no one gets anything."
    if not np.isfinite(question.divided[z > -np.inf]).all():
        return "Over this temperature the logits are too large to be written out."
    return ""


def _softmax_steps(q: Question, result: Row, rows: Sequence[int]) -> list[Step]:
    z, d = q.divided, q.decimals
    shifted, exps = powers(z)
    top, exp = plain(z.max(), d), [q.between(e) for e in exps]
    total, what = q.between(exps.sum()), "logit" if q.temperature == 1.0 else "of them"
    left = f" + … ({len(z) - len(rows):,} more)" if len(rows) < len(z) else ""
    first = Step(
        f"Divide every logit by the temperature, {plain(q.temperature)}.",
        {k: f"{plain(q.logits[k])} / {plain(q.temperature)} = {plain(z[k], d)}" for k in rows},
    )
    return [
        *([] if q.temperature == 1.0 else [first]),
        Step(
            f"Find the largest {what}, {top}, and subtract it from each. "
            "It changes no probability, and keeps the next numbers small.",
            {k: f"{plain(z[k], d)} - {bracketed(z.max(), d)} = {plain(shifted[k], d)}" for k in rows},
        ),
        Step(
            "Raise e = 2.718282 to each of these: the key e^x.",
            {k: f"e^{plain(shifted[k], d)} = {exp[k]}" for k in rows},
        ),
        Step("Add them up.", total=f"{' + '.join(exp[k] for k in rows)}{left} = {total}"),
        Step(
            "Divide each by this sum: these are the probabilities, and they add up to 1.",
            {k: f"{exp[k]} / {total} = {number(result[k], q.digits)}" for k in rows},
        ),
    ]


def _log_softmax(q: Question, result: Row) -> _Sum:
    z = q.divided
    top, total = plain(z.max(), q.decimals), q.between(powers(z)[1].sum())
    return lambda k: f"{plain(z[k], q.decimals)} - ({top} + ln {total})"


def _powers(z: Row, q: Question, base: float = math.e) -> _Sum:
    name, top, total = "e" if base == math.e else plain(base), bracketed(z.max(), q.decimals), powers(z, base)[1].sum()
    return lambda k: f"{name}^({plain(z[k], q.decimals)} - {top}) / {q.between(total)}"


def _tanh(q: Question, result: Row) -> _Sum:
    def to_type(k: int) -> str:
        x, opposite = plain(q.logits[k]), plain(-q.logits[k])
        return f"(e^{x} - e^{opposite}) / (e^{x} + e^{opposite})"

    return to_type


def _polynomials(z: Row, q: Question) -> _Sum:
    weights = np.ones_like(z)
    for power in range(q.degree, 0, -1):  # Horner: 1 + z/1 (1 + z/2 (1 + ...))
        weights = 1.0 + weights * z / power
    total = q.between(weights[z > -np.inf].sum())

    def to_type(k: int) -> str:
        at = bracketed(z[k], q.decimals)
        terms = [f"{at}^{i}/{math.factorial(i)}" for i in range(2, min(q.degree, 4) + 1)]
        if q.degree > 4:
            terms += ["…", f"{at}^{q.degree}/{q.degree}!"]
        return _if_there(z[k], f"({' + '.join(['1', at, *terms])}) / {total}")

    return to_type


def _normalize(q: Question, result: Row) -> _Sum:
    x = q.logits
    total = plain(x[x > -np.inf].sum())
    return lambda k: _if_there(x[k], f"{plain(x[k])} / {total}")


def _spherical(q: Question, result: Row) -> _Sum:
    z = q.divided
    total = q.between((z[z > -np.inf] ** 2 + q.eps).sum())
    return lambda k: _if_there(z[k], f"({bracketed(z[k], q.decimals)}^2 + {plain(q.eps)}) / {total}")


def _threshold(q: Question, result: Row, alpha: float) -> _Sum:
    """max((alpha - 1) z - t, 0)^(1 / (alpha - 1)); t is read off the largest."""
    if alpha == 1.0:
        return _powers(q.divided, q)
    z, best, factor = q.divided, int(np.argmax(result)), alpha - 1.0
    t = factor * z[best] - result[best] ** factor
    threshold = f"+ {q.between(-t)}" if t < 0 else f"- {q.between(t)}"
    times, power, written = "", "", plain
    if factor != 1.0:
        times, power, written = f"{plain(factor, 8)} * ", f"^{plain(1.0 / factor, 8)}", bracketed
    return lambda k: f"max({times}{written(z[k], q.decimals)} {threshold}, 0){power}"


def _if_there(z: float, text: str) -> str:
    return text if z > -math.inf else "not there"


FUNCTIONS = {
    "softmax": Function("softmax", lambda q, p: _powers(q.divided, q), "e^z / sum of e^z"),
    "log_softmax": Function("log_softmax", _log_softmax, "z - ln(sum of e^z), the logarithm of softmax", shares=False),
    "sigmoid": Function(
        "sigmoid",
        lambda q, p: lambda k: f"1 / (1 + e^{plain(-q.divided[k], q.decimals)})",
        "1 / (1 + e^-z), each for itself: they need not add up to 1",
        each=True,
    ),
    "tanh": Function("tanh", _tanh, "(e^x - e^-x) / (e^x + e^-x)", shares=False, each=True, tempered=False),
    "relu": Function(
        "relu",
        lambda q, p: lambda k: f"max({plain(q.logits[k])}, 0)",
        "max(x, 0)",
        shares=False,
        each=True,
        tempered=False,
    ),
    "normalize": Function("normalize", _normalize, "x / sum of x", tempered=False),
    "taylor": Function(
        "taylor_softmax",
        lambda q, p: _polynomials(q.divided, q),
        "f(z) / sum of f(z), f the series of e^z up to degree {degree}",
        ("degree",),
    ),
    "soft_margin": Function(
        "soft_margin_softmax",
        lambda q, p: _powers(q.strict, q),
        "softmax after {margin:g} is taken off the z of the true class",
        ("margin", "target"),
    ),
    "sm_taylor": Function(
        "sm_taylor_softmax",
        lambda q, p: _polynomials(q.strict, q),
        "taylor of degree {degree} after {margin:g} is taken off the z of the true class",
        ("degree", "margin", "target"),
    ),
    "spherical": Function("spherical_softmax", _spherical, "(z^2 + {eps:g}) / sum of (z^2 + {eps:g})", ("eps",)),
    "sparsemax": Function(
        "sparsemax", lambda q, p: _threshold(q, p, 2.0), "max(z - t, 0), the threshold t such that they add up to 1"
    ),
    "entmax15": Function(
        "entmax15", lambda q, p: _threshold(q, p, 1.5), "max(z/2 - t, 0)^2, the threshold t such that they add up to 1"
    ),
    "entmax": Function(
        "entmax",
        lambda q, p: _threshold(q, p, q.alpha),
        "softmax (alpha 1), sparsemax (alpha 2) or between them: alpha {alpha:g}",
        ("alpha",),
    ),
    "pseudo": Function("pseudo_softmax", lambda q, p: _powers(q.divided, q, 2.0), "2^z / sum of 2^z"),
}
