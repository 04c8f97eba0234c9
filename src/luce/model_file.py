"""A classifier as one ONNX file: graph, class names, preparation, calibration, record, golden vectors.

The file is plain ONNX: input `images` uint8 (batch, height, width, 3), outputs `logits` and `probabilities` float32
(batch, K). What is not in the graph stands as JSON in its metadata. There is no pickle and no code. A seal at the
end notices any changed byte (see `luce.seal`).
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luce import heads, seal
from luce.card import JSON_ERRORS, Card, parse_card, reason, refuse_constant
from luce.errors import ModelError
from luce.files import write_atomically
from luce.links import Link, Softmax

CARD_KEY = "luce.card"
GOLDEN_KEY = "luce.golden"
MAX_BYTES = 2**31 - 1  # protobuf's own limit
MAX_GOLDEN_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Golden:
    """Prepared pixels and the probabilities that the model must give for them.

    Attributes:
        pixels: (height, width, 3) uint8.
        probabilities: (K,) float32.
    """

    pixels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]


def build(
    backbone_graph: bytes,
    weights: NDArray[np.floating],
    bias: NDArray[np.floating],
    card: Card,
    golden: Sequence[Golden] = (),
    *,
    shift: NDArray[np.floating] | None = None,
) -> bytes:
    """Put the head behind the backbone and write everything into one sealed ONNX file.

    Args:
        backbone_graph: serialised ONNX, `images` → `features` (batch, D), float32 or uint8.
        weights: (K, D).
        bias: (K,).
        card: goes into the metadata; its link and its temperature into the graph.
        golden: vectors for `luce verify`.
        shift: (K,) to add to the logarithms of the probabilities, for other class shares; not for sparse links.
    """
    import onnx

    model = onnx.load_model_from_string(backbone_graph)
    _append_head(model, weights, bias, card.temperature, card.link, shift)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {CARD_KEY: card.to_json(), GOLDEN_KEY: _golden_to_json(golden)})
    model.producer_name = "luce"
    model.doc_string = "uint8 pictures to class probabilities; names and preparation are in metadata_props"
    return seal.seal(model.SerializeToString(deterministic=True))


def build_head(
    weights: NDArray[np.floating],
    bias: NDArray[np.floating],
    temperature: float,
    *,
    dtype: np.dtype[Any],
    link: Link | None = None,
    shift: NDArray[np.floating] | None = None,
) -> bytes:
    """The head alone: `features` (batch, D) → `logits`, `probabilities`; the same nodes as in the whole model."""
    import onnx

    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    features = onnx.helper.make_tensor_value_info("features", kind, ["batch", weights.shape[1]])
    graph = onnx.helper.make_graph([], "head", [features], [features])
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    _append_head(model, weights, bias, temperature, link or Softmax(), shift)
    return bytes(model.SerializeToString())


def _append_head(
    model: Any,
    weights: NDArray[np.floating],
    bias: NDArray[np.floating],
    temperature: float,
    link: Link,
    shift: NDArray[np.floating] | None,
) -> None:
    """Replace the output `features` by `logits` and `probabilities`. `model` is an `onnx.ModelProto`."""
    from onnx import TensorProto, helper

    graph = model.graph
    n_classes = len(bias)
    nodes, constants = heads.head_nodes(link, n_classes)
    shift = np.zeros(n_classes) if shift is None else np.asarray(shift, np.float64)
    if heads.takes_shift(link):
        constants[heads.SHIFT] = shift
    elif heads.is_sparse(link) and shift.any():
        raise ValueError(f"build: the probabilities of {link!r} cannot be shifted to other class shares")
    else:
        bias = bias + shift
    constants[heads.WEIGHT] = np.ascontiguousarray(weights.T, np.float32)
    constants[heads.BIAS] = np.asarray(bias, np.float32)
    constants[heads.TEMPERATURE] = np.asarray(temperature, np.float32)
    graph.initializer.extend(_tensor(name, value) for name, value in constants.items())
    graph.node.extend(nodes)
    del graph.output[:]
    for name in ("logits", "probabilities"):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", n_classes]))


def _tensor(name: str, value: NDArray[Any]) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(value, name)


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
    _check_head(model.graph, card)


def _check_head(graph: Any, card: Card) -> None:
    """Check that the graph ends with the head of `build` for the link and the temperature that the card tells."""
    nodes, constants = heads.head_nodes(card.link, len(card.classes))
    found: dict[str, list[Any]] = {}
    for tensor in graph.initializer:
        found.setdefault(tensor.name, []).append(tensor)
    known = all(found.get(name) == [_tensor(name, value)] for name, value in constants.items())
    if list(graph.node[-len(nodes) :]) != nodes or not known:
        name = heads.describe(card.link)["name"]
        raise ModelError(f"its probabilities are not the {name} of its logits divided by its temperature")
    stated = _tensor(heads.TEMPERATURE, np.asarray(card.temperature, np.float32))
    if found.get(heads.TEMPERATURE) != [stated]:
        raise ModelError(f"its graph divides by another temperature than the {card.temperature:g} that it states")


def _signature(value: Any) -> tuple[str, int, tuple[int, ...]]:
    """Name, type and shape; 0 stands for any size."""
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, tuple(d.dim_value for d in tensor.shape.dim)


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
        items = json.loads(text, parse_constant=refuse_constant)
        if not isinstance(items, list) or len(items) * prod(shape) > MAX_GOLDEN_BYTES:
            raise ValueError("they are no list, or too many")
        vectors = [
            Golden(
                np.frombuffer(_inflate(item["pixels"], prod(shape)), np.uint8).reshape(shape),
                np.array(item["probabilities"], np.float64),
            )
            for item in items
        ]
    except (*JSON_ERRORS, zlib.error) as error:
        raise ModelError(f"its golden vectors are damaged: {reason(error)}") from None
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
