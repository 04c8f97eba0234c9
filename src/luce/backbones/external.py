"""Any image network in an ONNX file as a backbone.

What the network wants must be known, never guessed: a float input needs `preprocessor_config.json` beside the file,
in Hugging Face's format. An input of uint8 in (batch, height, width, 3) is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from luce.backbones.backbone import Backbone
from luce.backbones.session import open_session, run
from luce.errors import ModelError
from luce.images import Preparation

CONFIG = "preprocessor_config.json"
_PREFIX = "backbone/"
_OUTPUT_NAMES = ("features", "embedding", "embeddings", "pooler_output", "image_embeds")
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
_LOWEST_OPSET = 11


@dataclass(frozen=True, slots=True)
class _Input:
    """What the network wants: channels-last uint8, or channels-first floats (pixel * scale - mean) / std."""

    height: int
    width: int
    raw: bool
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    filter: str = "bicubic"


def read(path: Path, name: str, licence: str = "unknown: ask the network's author") -> Backbone:
    """Wrap the network in an ONNX file.

    Args:
        path: of the file; weights outside it are not supported.
        name: how the user called it.
        licence: as far as it is known.

    Raises:
        ModelError: the file is damaged, does not take pictures, or it is unknown how it wants them.
    """
    try:
        content = path.read_bytes()
        model = onnx.load_model_from_string(content)
        onnx.checker.check_model(model)
    except OSError as error:
        raise ModelError(f"{path}: the backbone cannot be read ({error.strerror})") from None
    except Exception as error:  # protobuf and the checker raise classes of their own
        raise ModelError(f"{path}: not a valid ONNX file: {str(error).splitlines()[0]}") from None
    try:
        _refuse_strange(model)
        wanted = _wanted_input(model, path.parent / CONFIG)
        wrapped = _wrap(model, wanted)
        n_features = _count_features(wrapped, wanted)
    except ModelError as error:
        raise ModelError(f"{path}: cannot serve as a backbone: {error}") from None
    preparation = Preparation(wanted.width, wanted.height, fit="squash", filter=wanted.filter)  # type: ignore[arg-type]  # checked in _FILTERS
    digest = hashlib.sha256(content).hexdigest()
    dtype = np.dtype(np.float32)
    return Backbone(name, wrapped.SerializeToString(), digest, licence, n_features, dtype, preparation)


def _refuse_strange(model: onnx.ModelProto) -> None:
    domains = {node.domain for node in model.graph.node} - {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
    if domains:
        raise ModelError(f"it uses operators of an unknown origin: {', '.join(sorted(domains))}")
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < _LOWEST_OPSET:
        raise ModelError(f"its ONNX opset {opset} is too old; export it with opset {_LOWEST_OPSET} or newer")
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ModelError("its weights are in another file; save it with the weights inside")


def _wanted_input(model: onnx.ModelProto, config: Path) -> _Input:
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    if len(inputs) != 1:
        raise ModelError(f"it has {len(inputs)} inputs; a backbone has one, the pictures")
    tensor = inputs[0].type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if len(shape) != 4:
        raise ModelError(f"its input has {len(shape)} dimensions; pictures have 4")
    if tensor.elem_type == TensorProto.UINT8 and shape[3] == 3:
        if shape[1] is None or shape[2] is None:
            raise ModelError("its input has no fixed height and width")
        return _Input(shape[1], shape[2], raw=True)
    if tensor.elem_type != TensorProto.FLOAT or shape[1] not in (3, None):
        raise ModelError("its input is neither float32 (batch, 3, height, width) nor uint8 (batch, height, width, 3)")
    return _read_config(config, shape[2], shape[3])


def _read_config(config: Path, height: int | None, width: int | None) -> _Input:
    try:
        values = json.loads(config.read_text())
    except FileNotFoundError:
        raise ModelError(
            f"it is not known how it wants its pixels. Put a file {CONFIG} beside it, for example "
            '{"size": {"height": 224, "width": 224}, "rescale_factor": 0.00392156862745098, '
            '"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3}'
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{config} cannot be read: {error}") from None
    try:
        size = values.get("crop_size") or values.get("size") or {}
        if isinstance(size, int):
            size = {"height": size, "width": size}
        edge = size.get("shortest_edge")
        height = height or int(size.get("height", edge or 0))
        width = width or int(size.get("width", edge or 0))
        rescale = float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0
        normalise = values.get("do_normalize", True)
        mean = tuple(float(v) for v in values["image_mean"]) if normalise else (0.0,) * 3
        std = tuple(float(v) for v in values["image_std"]) if normalise else (1.0,) * 3
        resample = _FILTERS[int(values.get("resample", 3))]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{config} misses or misstates {error}") from None
    if not (0 < height <= 4096 and 0 < width <= 4096 and len(mean) == len(std) == 3 and min(std) > 0):
        raise ModelError(f"{config}: size, image_mean or image_std is out of range")
    return _Input(height, width, raw=False, scale=rescale, mean=mean, std=std, filter=resample)


def _wrap(model: onnx.ModelProto, wanted: _Input) -> onnx.ModelProto:
    """Pixels in front of the network, pooling behind it."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    entry = next(value.name for value in model.graph.input if value.name not in initializers)
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
    shape = ["batch", wanted.height, wanted.width, 3]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, shape))
    graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", "features"]))
    del graph.value_info[:]
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


def _count_features(model: onnx.ModelProto, wanted: _Input) -> int:
    blank: NDArray[np.uint8] = np.zeros((2, wanted.height, wanted.width, 3), np.uint8)
    try:
        features = run(open_session(model.SerializeToString()), blank)[0]
    except ModelError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no common class of their own
        raise ModelError(f"it fails on a blank picture: {str(error).splitlines()[0]}") from None
    if features.ndim != 2 or len(features) != 2 or features.dtype != np.float32:
        raise ModelError(f"it gives {features.dtype} of shape {features.shape} for 2 pictures, not (2, D) float32")
    return int(features.shape[1])
