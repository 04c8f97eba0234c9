"""Graphs that stay inside their file: what may be run, whoever wrote it."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from math import prod

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from luce.errors import ModelError

_DOMAINS = ("", "ai.onnx", "com.microsoft")  # those ONNX Runtime brings along
_SUBGRAPH_OPS = ("If", "Loop", "Scan", "SequenceMap")
_MOST_PER_BYTE = 4  # numbers: the smallest type has 2 bits


def parse(content: bytes) -> onnx.ModelProto:
    """The model in the bytes of an ONNX file.

    Raises:
        ModelError: they are something else.
    """
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise ModelError("it is damaged or not an ONNX file") from None
    if not model.HasField("graph"):
        raise ModelError("it is empty or not an ONNX file")
    return model


def refuse_open(model: onnx.ModelProto) -> None:
    """Refuse a network that could reach outside its file, run without end, or claims numbers it does not hold.

    Raises:
        ModelError: the reason, as a sentence about "it".
    """
    nodes = model.graph.node
    subgraphs = any(a.HasField("g") or a.graphs for n in nodes for a in n.attribute)
    if subgraphs or model.functions or model.training_info or any(n.op_type in _SUBGRAPH_OPS for n in nodes):
        raise ModelError("its graph holds loops, branches or functions; only a plain one is accepted")
    unknown = {node.domain for node in nodes}.difference(_DOMAINS)
    if unknown:
        raise ModelError(
            f"its graph uses operators of an unknown origin: {', '.join(map(reprlib.repr, sorted(unknown)[:3]))}"
        )
    if model.graph.sparse_initializer:
        raise ModelError("its weights are sparse; save it with dense ones")
    for tensor in _tensors(model.graph):
        if tensor.external_data or tensor.data_location != TensorProto.DEFAULT:
            raise ModelError("its weights refer to another file; save it with the weights inside")
        if min(tensor.dims, default=0) < 0 or prod(tensor.dims) > _MOST_PER_BYTE * tensor.ByteSize():
            name, shape = reprlib.repr(tensor.name), reprlib.repr(list(tensor.dims))
            raise ModelError(f"its weights {name} have the shape {shape} but not the numbers")


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            single = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in (*single, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
