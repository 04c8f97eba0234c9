"""Any image network in an ONNX file as a backbone.

What the network wants must be known, never guessed: a float input needs `preprocessor_config.json` beside the file,
in Hugging Face's format. An input of uint8 in (batch, height, width, 3) is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from luce.backbones.backbone import Backbone
from luce.backbones.closed import parse, refuse_open
from luce.backbones.session import open_session, run
from luce.errors import ModelError
from luce.images import Preparation
from luce.images.prepare import Filter

CONFIG = "preprocessor_config.json"
_PREFIX = "backbone/"
_OUTPUT_NAMES = ("features", "embedding", "embeddings", "pooler_output", "image_embeds")
_FILTERS: dict[int, Filter] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
_UNSUPPORTED = ("do_flip_channel_order", "rescale_offset", "do_convert_grayscale")
_LOWEST_OPSET = 11
_LOWEST_IR = 4  # below, every weight must be an input too
_MAX_SIDE = 4096


@dataclass(frozen=True, slots=True)
class _Input:
    """What the network wants: channels-last uint8, or channels-first floats (pixel * scale - mean) / std."""

    height: int
    width: int
    raw: bool
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    filter: Filter = "bicubic"


def read(
    path: Path,
    name: str,
    licence: str = "unknown: ask the network's author",
    fetch_config: Callable[[Path], object] | None = None,
) -> Backbone:
    """Wrap the network in an ONNX file.

    Args:
        path: of the file; weights outside it are not supported.
        name: how the user called it.
        licence: as far as it is known.
        fetch_config: called with the path of the configuration when the network needs one and it is not there.

    Raises:
        ModelError: the file is damaged, does not take pictures, or it is unknown how it wants them.
    """
    content = _content(path)
    try:
        model = parse(content)
        refuse_open(model)
        _check_onnx(model)
        wanted = _wanted_input(model, path.parent / CONFIG, fetch_config)
        wrapped = _wrap(model, wanted)
        graph = wrapped.SerializeToString(deterministic=True)
        n_features = _count_features(graph, wanted)
    except ModelError as error:
        raise ModelError(f"{path}: cannot serve as a backbone: {error}") from None
    preparation = Preparation(wanted.width, wanted.height, fit="squash", filter=wanted.filter)
    digest = hashlib.sha256(content).hexdigest()
    return Backbone(name, graph, digest, licence, n_features, np.dtype(np.float32), preparation)


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{path}: a backbone is a file, this is not one")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: the backbone cannot be read ({error.strerror}); is the path right?") from None
    except ValueError as error:  # a NUL in the path
        raise ModelError(f"{str(path)!r}: this is no path ({error})") from None


def _check_onnx(model: onnx.ModelProto) -> None:
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < _LOWEST_OPSET:
        raise ModelError(f"its ONNX opset {opset} is too old; export it with opset {_LOWEST_OPSET} or newer")
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # the checker's classes have no common one of their own
        raise ModelError(f"it is not valid ONNX: {str(error).strip().splitlines()[0]}") from None


def _wanted_input(model: onnx.ModelProto, config: Path, fetch: Callable[[Path], object] | None) -> _Input:
    inputs = _inputs(model)
    if len(inputs) != 1:
        raise ModelError(f"it has {len(inputs)} inputs; a backbone has one, the pictures")
    tensor = inputs[0].type.tensor_type
    shape = [d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim]
    if len(shape) != 4:
        raise ModelError(f"its input has {len(shape)} dimensions; pictures have 4")
    if tensor.elem_type == TensorProto.UINT8 and shape[3] == 3:
        if shape[1] is None or shape[2] is None:
            raise ModelError("its input has no fixed height and width")
        return _sized(_Input(shape[1], shape[2], raw=True))
    if tensor.elem_type != TensorProto.FLOAT or shape[1] not in (3, None):
        raise ModelError("its input is neither float32 (batch, 3, height, width) nor uint8 (batch, height, width, 3)")
    if fetch is not None and not config.exists():
        fetch(config)
    return _read_config(config, shape[2], shape[3])


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are not given by weights."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]


def _sized(wanted: _Input) -> _Input:
    if max(wanted.height, wanted.width) > _MAX_SIDE:
        raise ModelError(
            f"it wants pictures of {wanted.width} x {wanted.height} pixels; {_MAX_SIDE} a side are allowed"
        )
    return wanted


def _read_config(config: Path, height: int | None, width: int | None) -> _Input:
    try:
        values = json.loads(config.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"it is not known how it wants its pixels. Put a file {CONFIG} beside it, for example "
            '{"size": {"height": 224, "width": 224}, "rescale_factor": 0.00392156862745098, '
            '"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3}'
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{config} cannot be read: {error}") from None
    try:
        wanted = _from_values(values, height, width)
    except KeyError as error:
        raise ModelError(f"{config} misses or misstates {error}") from None
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{config} has a value of the wrong kind: {error}") from None
    numbers = (wanted.scale, *wanted.mean, *wanted.std)
    if not (len(wanted.mean) == len(wanted.std) == 3 and np.isfinite(numbers).all()):
        raise ModelError(f"{config}: image_mean and image_std must be 3 numbers each, rescale_factor one")
    if min(wanted.scale, *wanted.std) <= 0 or min(wanted.height, wanted.width) < 1:
        raise ModelError(f"{config}: size, rescale_factor or image_std is missing or not above 0")
    return _sized(wanted)


def _from_values(values: dict[str, Any], height: int | None, width: int | None) -> _Input:
    for key in _UNSUPPORTED:
        if values.get(key):
            raise ValueError(f"{key} is not supported")
    cropped = values.get("do_center_crop", True)
    size = (values.get("crop_size") if cropped else None) or values.get("size") or {}
    if isinstance(size, int):
        size = {"height": size, "width": size}
    edge = size.get("shortest_edge", 0)
    scale = float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0
    normalised = values.get("do_normalize", True)
    return _Input(
        height or int(size.get("height", edge)),
        width or int(size.get("width", edge)),
        raw=False,
        scale=scale,
        mean=tuple(float(v) for v in values["image_mean"]) if normalised else (0.0,) * 3,
        std=tuple(float(v) for v in values["image_std"]) if normalised else (1.0,) * 3,
        filter=_FILTERS[int(values.get("resample", 3))],
    )


def _wrap(model: onnx.ModelProto, wanted: _Input) -> onnx.ModelProto:
    """Pixels in front of the network, pooling behind it."""
    if not model.graph.output:
        raise ModelError("it has no output")
    entry = _inputs(model)[0].name
    output = next((o for o in model.graph.output if o.name in _OUTPUT_NAMES), model.graph.output[0])
    rank = len(output.type.tensor_type.shape.dim)
    model = compose.add_prefix(model, _PREFIX)
    graph = model.graph
    front, constants = _front(wanted, _PREFIX + entry)
    back = _back(rank, _PREFIX + output.name)
    nodes = [*front, *graph.node, *back]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    shape: list[str | int | None] = ["batch", wanted.height, wanted.width, 3]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, shape))
    graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", "features"]))
    del graph.value_info[:], graph.quantization_annotation[:]
    model.ir_version = max(model.ir_version, _LOWEST_IR)
    return model


def _front(wanted: _Input, entry: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    if wanted.raw:
        return [helper.make_node("Identity", ["images"], [entry])], []
    mean = np.array(wanted.mean) / wanted.scale
    factor = wanted.scale / np.array(wanted.std)
    constants = [
        numpy_helper.from_array(mean.astype(np.float32), "pixel_mean"),
        numpy_helper.from_array(factor.astype(np.float32), "pixel_scale"),
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "pixel_mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "pixel_scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], [entry], perm=[0, 3, 1, 2]),
    ]
    return nodes, constants


def _back(rank: int, output: str) -> list[onnx.NodeProto]:
    if rank == 2:
        return [helper.make_node("Identity", [output], ["features"])]
    if rank == 3:  # (batch, tokens, D): the mean over the tokens, as a picture of width 1
        return [
            helper.make_node("Transpose", [output], ["tokens_last"], perm=[0, 2, 1]),
            helper.make_node("GlobalAveragePool", ["tokens_last"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["features"], axis=1),
        ]
    if rank == 4:
        return [
            helper.make_node("GlobalAveragePool", [output], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["features"], axis=1),
        ]
    raise ModelError(f"its output has {rank} dimensions; features have 2, 3 (tokens) or 4 (a map)")


def _count_features(graph: bytes, wanted: _Input) -> int:
    blank: NDArray[np.uint8] = np.zeros((2, wanted.height, wanted.width, 3), np.uint8)
    features = run(open_session(graph), blank)[0]
    if features.ndim != 2 or len(features) != 2 or features.dtype != np.float32:
        raise ModelError(f"it gives {features.dtype} of shape {features.shape} for 2 pictures, not (2, D) float32")
    return int(features.shape[1])
