"""ONNX Runtime sessions, opened in one way."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from luce.errors import ModelError

_BATCH_BYTES = 1 << 18

Session: TypeAlias = Any  # onnxruntime.InferenceSession, which has no types


def open_session(graph: bytes) -> Session:
    """Open a serialised graph for use from several threads at once.

    One session serves all threads and each call runs on its caller's thread: that is as fast as ONNX Runtime's own
    threads on small batches, keeps the cores busy while other threads decode, and gives the same numbers for any
    number of threads.

    Raises:
        ModelError: ONNX Runtime refuses the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it reports as an exception it need not print as well
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common class of their own
        raise ModelError(f"ONNX Runtime cannot open the graph: {_first_line(error)}") from None


def run(session: Session, values: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """All outputs for the one input (N, …).

    The network sees a few rows at a time, a picture of 224 x 224 by itself: measured, larger batches leave the cache
    and are slower.

    Raises:
        ModelError: the network fails on these values.
    """
    name = session.get_inputs()[0].name
    step = max(1, _BATCH_BYTES // max(1, values[:1].nbytes))
    try:
        parts = [session.run(None, {name: values[i : i + step]}) for i in range(0, max(1, len(values)), step)]
        return [np.concatenate(outputs) if len(parts) > 1 else outputs[0] for outputs in zip(*parts, strict=True)]
    except Exception as error:  # ONNX Runtime's errors have no common class of their own
        raise ModelError(f"ONNX Runtime cannot run the graph: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
