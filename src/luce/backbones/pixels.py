"""No network: the pixels themselves are the features."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def build(width: int, height: int, *, grey: bool) -> onnx.ModelProto:
    """Build the graph: `images` uint8 (batch, height, width, 3) → `features` uint8 (batch, D).

    Args:
        width: pixels.
        height: pixels.
        grey: the three channels are equal, so the first is enough: D = height * width, else three times that.
    """
    nodes, initializers = [], []
    last = "images"
    if grey:
        for name, value in (("from", 0), ("to", 1), ("axis", 3)):
            initializers.append(numpy_helper.from_array(np.array([value], np.int64), name))
        nodes.append(helper.make_node("Slice", ["images", "from", "to", "axis"], ["first_channel"]))
        last = "first_channel"
    nodes.append(helper.make_node("Flatten", [last], ["features"], axis=1))
    n_features = width * height * (1 if grey else 3)
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", height, width, 3])],
        [helper.make_tensor_value_info("features", TensorProto.UINT8, ["batch", n_features])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
