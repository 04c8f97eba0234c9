"""Softmax regression on the rows of several processes: what they exchange, by torch.distributed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from luce.regression.objective import Float64, Total


def joined(group: Any, features: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any] | None, Total]:
    """The classes of all processes, and the sum over processes.

    Args:
        group: of processes; the default group if none.
        features: (n, D) rows of this process.
        y: (n,) classes, or (n, K) distributions, for which the classes are `None`.

    Raises:
        RuntimeError: torch is missing, or there is no process group.
        ValueError: the processes' arrays do not fit together; every process raises it.
    """
    try:
        import torch
        import torch.distributed as dist
    except ImportError:
        raise RuntimeError("fit_distributed needs torch: pip install 'luce[torch]'") from None
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError(
            "fit_distributed: no process group; start the program with torchrun and call "
            "torch.distributed.init_process_group('gloo') first"
        )
    mine = (features.shape[1], y.shape[1:], None if y.ndim > 1 else np.unique(y))
    everyone: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(everyone, mine, group)
    if len({(columns, shape) for columns, shape, _ in everyone}) > 1:
        raise ValueError(
            "fit_distributed: processes have arrays that differ: columns of X "
            f"{[a for a, _, _ in everyone]}, shape of a row of y {[b for _, b, _ in everyone]}"
        )
    classes = None if y.ndim > 1 else np.unique(np.concatenate([c for *_, c in everyone]))

    def total(sums: Float64) -> Float64:
        tensor = torch.from_numpy(np.ascontiguousarray(sums, np.float64).copy())
        dist.all_reduce(tensor, group=group)
        return np.asarray(tensor.numpy())

    return classes, total
