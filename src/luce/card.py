"""What a model file says of itself: class names, preparation, calibration and how it came about, as JSON.

Text from a file is believed in nothing: each value that code relies on is checked here.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from luce import heads
from luce.errors import ModelError
from luce.images import Preparation
from luce.links import Link, Softmax

FORMAT = 1
_LOWEST_TEMPERATURE = 1e-30  # in float32 neither it nor its inverse is 0 or infinite
_STATED: tuple[tuple[str, str, Any], ...] = (
    ("backbone", "name", str),
    ("backbone", "sha256", str),
    ("backbone", "licence", str),
    ("backbone", "n_features", int),
    ("link", "name", str),
    ("calibration", "method", str),
    ("calibration", "note", str | None),
)
JSON_ERRORS = (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Card:
    """What a model file says of itself.

    Attributes:
        classes: the K names, in the order of the outputs.
        preparation: how a picture becomes the graph's input.
        backbone: name, sha256, licence and n_features.
        link: of the head, at test time; see `luce.heads`.
        probability_kind: "softmax": each row is one distribution over the classes.
        temperature: divides the logits inside the graph.
        calibration: method, n_rows, note, and the mean loss on these rows at temperature 1 and at the fitted one:
            nll_before and nll_after, or fenchel_young_before and fenchel_young_after of sparse links.
        training: the record: data, counts, penalty, seed, metrics, problems, version.
    """

    classes: tuple[str, ...]
    preparation: Preparation
    backbone: Mapping[str, Any]
    temperature: float
    calibration: Mapping[str, Any]
    training: Mapping[str, Any]
    link: Link = field(default_factory=Softmax)
    probability_kind: str = "softmax"

    def to_json(self) -> str:
        """The card as JSON, without NaN or infinity."""
        content = {
            "format": FORMAT,
            "classes": list(self.classes),
            "preparation": self.preparation.to_dict(),
            "backbone": dict(self.backbone),
            "link": heads.describe(self.link),
            "probability_kind": self.probability_kind,
            "temperature": self.temperature,
            "calibration": dict(self.calibration),
            "training": dict(self.training),
        }
        return json.dumps(content, ensure_ascii=False, allow_nan=False)


def parse_card(text: str) -> Card:
    """Read a card from JSON.

    Raises:
        ModelError: it is newer, incomplete or contradicts itself.
    """
    try:
        content = json.loads(text, parse_constant=refuse_constant, object_pairs_hook=_without_repetition)
        version = content["format"]
        if type(version) is not int or version < 1:
            raise ModelError(f"its format number is {reprlib.repr(version)}")
        if version > FORMAT:
            raise ModelError(
                f"it was made by a newer Luce (format {reprlib.repr(version)}, this one reads {FORMAT}): update luce"
            )
        return _card(content)
    except JSON_ERRORS as error:
        raise ModelError(f"its description is incomplete or wrong: {reason(error)}") from None


def _card(content: Mapping[str, Any]) -> Card:
    classes, temperature, kind = content["classes"], content["temperature"], content["probability_kind"]
    if not (isinstance(classes, list) and len(classes) >= 2 and all(isinstance(c, str) and c for c in classes)):
        raise ModelError("its class names are not two or more words")
    if len(set(classes)) != len(classes):
        raise ModelError("two of its classes have the same name")
    if type(temperature) not in (int, float) or not _LOWEST_TEMPERATURE <= temperature <= 1 / _LOWEST_TEMPERATURE:
        raise ModelError(f"its temperature is {reprlib.repr(temperature)}")
    if kind != "softmax":
        raise ModelError(f"its probabilities are of the kind {reprlib.repr(kind)}; this Luce knows softmax")
    parts = {name: content[name] for name in ("backbone", "link", "calibration", "training")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise ModelError(f"its {name} is not described by names and values")
    for part, key, kinds in _STATED:
        if not isinstance(parts[part][key], kinds):
            raise ModelError(f"its {part} has the {key} {reprlib.repr(parts[part][key])}")
    json.dumps(content, ensure_ascii=False).encode()  # half a character in any text is an error
    preparation = Preparation.from_dict(content["preparation"])
    return Card(
        tuple(classes),
        preparation,
        temperature=float(temperature),
        probability_kind=kind,
        **parts | {"link": heads.parse(parts["link"])},
    )


def refuse_constant(name: str) -> None:
    """For `json.loads`: NaN and infinity are no JSON."""
    raise ValueError(f"{name} is not a number in JSON")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name comes twice")
    return dict(pairs)


def reason(error: Exception) -> str:
    """What was wrong with a text, short and in one line."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return (str(error) or type(error).__name__).splitlines()[0][:200]
