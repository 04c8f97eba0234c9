"""A classifier as one ONNX file: graph, class names, preparation, calibration, record, golden vectors.

The file is plain ONNX: input `images` uint8 (batch, height, width, 3), outputs `logits` and `probabilities` float32
(batch, K). What is not in the graph stands as JSON in its metadata. There is no pickle and no code. A seal at the
end notices any changed byte (see `luce.seal`).
"""

from __future__ import annotations

import base64
import json
import os
import reprlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luce import seal
from luce.errors import ModelError
from luce.files import write_atomically
from luce.images import Preparation

FORMAT = 1
CARD_KEY = "luce.card"
GOLDEN_KEY = "luce.golden"
MAX_BYTES = 2**31 - 1  # protobuf's own limit
MAX_GOLDEN_BYTES = 1 << 28
_TEMPERATURE = "head.temperature"
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
_JSON_ERRORS = (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Golden:
    """Prepared pixels and the probabilities that the model must give for them.

    Attributes:
        pixels: (height, width, 3) uint8.
        probabilities: (K,) float32.
    """

    pixels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Card:
    """What a model file says of itself.

    Attributes:
        classes: the K names, in the order of the outputs.
        preparation: how a picture becomes the graph's input.
        backbone: name, sha256, licence and n_features.
        link: name and parameters of the link, e.g. {"name": "softmax"}.
        probability_kind: "softmax": each row is one distribution over the classes.
        temperature: divides the logits inside the graph.
        calibration: method, n_rows, nll_before, nll_after, note.
        training: the record: data, counts, penalty, seed, metrics, problems, version.
    """

    classes: tuple[str, ...]
    preparation: Preparation
    backbone: Mapping[str, Any]
    temperature: float
    calibration: Mapping[str, Any]
    training: Mapping[str, Any]
    link: Mapping[str, Any] = field(default_factory=lambda: {"name": "softmax"})
    probability_kind: str = "softmax"

    def to_json(self) -> str:
        """The card as JSON, without NaN or infinity."""
        content = {
            "format": FORMAT,
            "classes": list(self.classes),
            "preparation": self.preparation.to_dict(),
            "backbone": dict(self.backbone),
            "link": dict(self.link),
            "probability_kind": self.probability_kind,
            "temperature": self.temperature,
            "calibration": dict(self.calibration),
            "training": dict(self.training),
        }
        return json.dumps(content, ensure_ascii=False, allow_nan=False)


def build(
    backbone_graph: bytes,
    weights: NDArray[np.floating],
    bias: NDArray[np.floating],
    card: Card,
    golden: Sequence[Golden] = (),
) -> bytes:
    """Put the softmax head behind the backbone and write everything into one sealed ONNX file.

    Args:
        backbone_graph: serialised ONNX, `images` → `features` (batch, D), float32 or uint8.
        weights: (K, D).
        bias: (K,).
        card: goes into the metadata; its temperature into the graph.
        golden: vectors for `luce verify`.
    """
    import onnx

    model = onnx.load_model_from_string(backbone_graph)
    _append_head(model, weights, bias, card.temperature)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {CARD_KEY: card.to_json(), GOLDEN_KEY: _golden_to_json(golden)})
    model.producer_name = "luce"
    model.doc_string = "uint8 pictures to class probabilities; names and preparation are in metadata_props"
    return seal.seal(model.SerializeToString(deterministic=True))


def build_head(
    weights: NDArray[np.floating], bias: NDArray[np.floating], temperature: float, *, dtype: np.dtype[Any]
) -> bytes:
    """The head alone: `features` (batch, D) → `logits`, `probabilities`; the same nodes as in the whole model."""
    import onnx

    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    features = onnx.helper.make_tensor_value_info("features", kind, ["batch", weights.shape[1]])
    graph = onnx.helper.make_graph([], "head", [features], [features])
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    _append_head(model, weights, bias, temperature)
    return bytes(model.SerializeToString())


def _append_head(model: Any, weights: NDArray[np.floating], bias: NDArray[np.floating], temperature: float) -> None:
    """Replace the output `features` by `logits` and `probabilities`. `model` is an `onnx.ModelProto`."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    n_classes = len(bias)
    constants = {
        "head.weight": np.ascontiguousarray(weights.T, np.float32),
        "head.bias": np.asarray(bias, np.float32),
        _TEMPERATURE: np.float32(temperature),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    graph.node.extend(_head_nodes())
    del graph.output[:]
    for name in ("logits", "probabilities"):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", n_classes]))


def _head_nodes() -> list[Any]:
    from onnx import TensorProto, helper

    return [
        helper.make_node("Cast", ["features"], ["head.input"], to=TensorProto.FLOAT),
        helper.make_node("Gemm", ["head.input", "head.weight", "head.bias"], ["logits"]),
        helper.make_node("Div", ["logits", _TEMPERATURE], ["head.scaled"]),
        helper.make_node("Softmax", ["head.scaled"], ["probabilities"], axis=-1),
    ]


def read(path: str | os.PathLike[str]) -> tuple[bytes, Card]:
    """Read and check a model file.

    Returns:
        Its bytes and its card.

    Raises:
        ModelError: damaged, foreign, newer, or not what it says; the message has the path and the reason.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        if not file.is_file():
            raise ModelError(f"{file}: a model is a file, this is not one")
        if size > MAX_BYTES:
            raise ModelError(f"{file}: too large for a model file ({size:,} bytes)")
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}); is the path right?") from None
    except ValueError as error:  # a NUL in the path
        raise ModelError(f"{str(file)!r}: this is no path ({error})") from None
    try:
        return data, check(data)
    except ModelError as error:
        raise ModelError(f"{file}: not a usable model: {error}") from None


def check(data: bytes) -> Card:
    """Check the bytes of a model file, its golden vectors too, and return its card.

    Raises:
        ModelError: without a path.
    """
    from luce.backbones.closed import parse

    seal.check(data)
    model = parse(data)
    entries = _entries(model)
    if CARD_KEY not in entries:
        raise ModelError("it holds no class names and no preparation")
    card = parse_card(entries[CARD_KEY])
    _check_graph(model, card)
    _golden_from_json(entries.get(GOLDEN_KEY, "[]"), card)
    return card


def _entries(model: Any) -> dict[str, str]:
    entries = {entry.key: entry.value for entry in model.metadata_props}
    if len(entries) != len(model.metadata_props):
        raise ModelError("it describes itself twice")
    return entries


def _check_graph(model: Any, card: Card) -> None:
    """Refuse graphs that could reach outside the file or run without end, or that do not fit the card."""
    from luce.backbones.closed import refuse_open

    refuse_open(model)
    spec, k = card.preparation, len(card.classes)
    wanted_input = [("images", 2, (0, spec.height, spec.width, 3))]
    wanted_outputs = [("logits", 1, (0, k)), ("probabilities", 1, (0, k))]
    if [_signature(v) for v in model.graph.input] != wanted_input:
        raise ModelError("its input does not fit its preparation")
    if [_signature(v) for v in model.graph.output] != wanted_outputs:
        raise ModelError("its outputs do not fit its class names")
    _check_head(model.graph, card.temperature)


def _check_head(graph: Any, temperature: float) -> None:
    """Check that the graph ends with the head of `build`, divided by the temperature that the card tells."""
    from onnx import numpy_helper

    head = _head_nodes()
    if list(graph.node[-len(head) :]) != head:
        raise ModelError("its probabilities are not the softmax of its logits divided by its temperature")
    stated = numpy_helper.from_array(np.asarray(np.float32(temperature)), _TEMPERATURE)
    if [tensor for tensor in graph.initializer if tensor.name == _TEMPERATURE] != [stated]:
        raise ModelError(f"its graph divides by another temperature than the {temperature:g} that it states")


def _signature(value: Any) -> tuple[str, int, tuple[int, ...]]:
    """Name, type and shape; 0 stands for any size."""
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, tuple(d.dim_value for d in tensor.shape.dim)


def parse_card(text: str) -> Card:
    """Read a card from JSON.

    Raises:
        ModelError: it is newer, incomplete or contradicts itself.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_repetition)
        version = content["format"]
        if type(version) is not int or version < 1:
            raise ModelError(f"its format number is {reprlib.repr(version)}")
        if version > FORMAT:
            raise ModelError(
                f"it was made by a newer Luce (format {reprlib.repr(version)}, this one reads {FORMAT}): update luce"
            )
        return _card(content)
    except _JSON_ERRORS as error:
        raise ModelError(f"its description is incomplete or wrong: {_reason(error)}") from None


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
    return Card(tuple(classes), preparation, temperature=float(temperature), probability_kind=kind, **parts)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name comes twice")
    return dict(pairs)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def golden_vectors(data: bytes, card: Card) -> list[Golden]:
    """The golden vectors of a checked model file.

    Raises:
        ModelError: they are damaged or do not fit the card.
    """
    from luce.backbones.closed import parse

    return _golden_from_json(_entries(parse(data)).get(GOLDEN_KEY, "[]"), card)


def _golden_from_json(text: str, card: Card) -> list[Golden]:
    shape = (card.preparation.height, card.preparation.width, 3)
    try:
        items = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(items, list) or len(items) * prod(shape) > MAX_GOLDEN_BYTES:
            raise ValueError("they are no list, or too many")
        vectors = [
            Golden(
                np.frombuffer(_inflate(item["pixels"], prod(shape)), np.uint8).reshape(shape),
                np.array(item["probabilities"], np.float64),
            )
            for item in items
        ]
    except (*_JSON_ERRORS, zlib.error) as error:
        raise ModelError(f"its golden vectors are damaged: {_reason(error)}") from None
    for vector in vectors:
        p = vector.probabilities
        if p.shape != (len(card.classes),) or not ((p >= 0) & (p <= 1)).all():
            raise ModelError("its golden vectors do not fit its classes")
    return [Golden(v.pixels, v.probabilities.astype(np.float32)) for v in vectors]


def _golden_to_json(golden: Sequence[Golden]) -> str:
    items = [
        {
            "pixels": base64.b64encode(zlib.compress(g.pixels.tobytes(), 6)).decode(),
            "probabilities": [float(p) for p in g.probabilities],
        }
        for g in golden
    ]
    return json.dumps(items, allow_nan=False)


def _inflate(text: str, size: int) -> bytes:
    """Decompress to exactly as many bytes as there must be, and never more."""
    stream = zlib.decompressobj()
    data = stream.decompress(base64.b64decode(text, validate=True), size + 1)
    if len(data) != size or not stream.eof:
        raise ValueError("a picture has the wrong size")
    return data


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a model file: the old one or the new one, never half of one.

    Raises:
        LuceError: it cannot be written; an old file is untouched.
    """
    write_atomically(path, data)
