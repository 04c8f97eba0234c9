"""A trained trunk as a backbone: an ONNX graph from uint8 pictures to features, like any other backbone's.

Each weight in the graph says in its `doc_string` which entries of the module's `state_dict` it is, so that
`luce.torch.load` finds it again: the exporter gives many of them other names, transposes some, and writes equal ones
once. Batch norms are folded before, by `fold_norms`.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from luce.backbones import Backbone
from luce.images import Preparation
from luce.torch.fold import fold_norms
from luce.torch.trainer import Classifier

_OPSET = 18
_TRANSPOSED = "^T"  # behind the name of a weight that stands transposed in the graph


class _Features(nn.Module):
    """Uint8 pictures (N, H, W, 3), of which a network for grey pictures takes the first channel, to features."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.features(images[..., : len(self.model.mean)])


def to_backbone(model: Classifier, name: str, preparation: Preparation) -> Backbone:
    """The trunk of a trained classifier, with its normalisation.

    Args:
        model: in evaluation mode.
        name: of the network.
        preparation: how pictures become its input.
    """
    from onnx import TensorProto, helper

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells that torchvision, which is not used, is missing
    folded = fold_norms(model)
    module = _Features(folded).eval()
    blank = torch.zeros(2, preparation.height, preparation.width, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns of what it uses of torch itself; nothing a caller could do
        program = torch.onnx.export(
            module,
            (blank,),
            dynamo=True,
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=_OPSET,
            verbose=False,
        )
    assert program is not None
    exported = program.model_proto
    del exported.metadata_props[:]
    graph = exported.graph
    del graph.metadata_props[:], graph.value_info[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]  # where in which file each node came from: the maker's own paths
    _name_weights(graph, folded.state_dict())
    d = model.head.linear()[0].shape[1]
    shape: list[str | int | None] = ["batch", preparation.height, preparation.width, 3]
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, shape))
    graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", d]))
    content = exported.SerializeToString(deterministic=True)
    digest = hashlib.sha256(content).hexdigest()
    licence = "the user's own"
    return Backbone(name, content, digest, licence, d, np.dtype(np.float32), preparation)


def _name_weights(graph: Any, state: Mapping[str, Tensor]) -> None:
    """Write into each weight of an `onnx.GraphProto` which entries of the state it holds, found by their numbers."""
    from onnx import numpy_helper

    names: dict[tuple[Any, ...], list[str]] = {}
    for name, value in state.items():
        if name.startswith("head."):  # the model file has its own
            continue
        numbers = value.numpy()
        names.setdefault(_content(numbers), []).append(name)
        if numbers.ndim == 2:
            names.setdefault(_content(numbers.T), []).append(name + _TRANSPOSED)
    for tensor in graph.initializer:
        tensor.doc_string = " ".join(names.get(_content(numpy_helper.to_array(tensor)), ()))


def _content(numbers: NDArray[Any]) -> tuple[Any, ...]:
    return numbers.dtype.str, numbers.shape, hashlib.sha256(np.ascontiguousarray(numbers).data).digest()


def named_weights(graph: Any) -> dict[str, Tensor]:
    """The entries of the state that the weights of an `onnx.GraphProto` say they are."""
    from onnx import numpy_helper

    found = {}
    for tensor in graph.initializer:
        for name in tensor.doc_string.split():
            numbers = numpy_helper.to_array(tensor)
            turned = numbers.T if name.endswith(_TRANSPOSED) else numbers
            found[name.removesuffix(_TRANSPOSED)] = torch.from_numpy(turned.copy())
    return found
