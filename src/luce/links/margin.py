"""A margin off the target's logit, for functions on arrays of any kind."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce.arrays import checked_axis, library, not_negative, positive
from luce.links.fused import checked_target
from luce.maps import ARGMAX, Map, apply


def with_margin(
    name: str,
    m: Map,
    x: ArrayLike,
    axis: int,
    target: ArrayLike,
    margin: float,
    shape: float,
    temperature: float,
    where: ArrayLike | None,
    out: NDArray[Any] | None,
    dtype: DTypeLike | None,
) -> NDArray[Any]:
    """Apply a map with a margin off the target of each row.

    Raises:
        TypeError, ValueError: the message names the argument.
    """
    not_negative(name, "margin", margin)
    positive(name, "temperature", temperature, ARGMAX)
    dims = tuple(np.shape(x))
    place = checked_axis(name, axis, len(dims))
    k = dims[place] if dims else 1
    ids = np.asarray(target)
    expected = dims[:place] + dims[place + 1 :]
    if ids.dtype.kind not in "iu" or ids.shape != expected:
        raise ValueError(
            f"{name}: target must hold class ids of shape {expected}, got dtype {ids.dtype} and shape {ids.shape}"
        )
    classes, _ = checked_target(name, ids.reshape(-1), ids.size, k, np.dtype(np.float64))
    if (xp := library(x)) is not None:
        mask = np.expand_dims(np.asarray(classes).reshape(expected), place) == np.arange(k).reshape(
            [-1 if i == place else 1 for i in range(max(len(dims), 1))]
        )
        offset = xp.asarray(mask.reshape(dims) * (margin * temperature), dtype=_floating_dtype(xp, x))
        return apply(m, x - offset, axis, shape=shape, temperature=temperature, where=where, out=out, dtype=dtype)
    return apply(
        m,
        x,
        axis,
        shape=shape,
        temperature=temperature,
        where=where,
        out=out,
        dtype=dtype,
        margin=margin,
        target=classes,
    )


def _floating_dtype(xp: Any, x: Any) -> Any:
    kind = str(x.dtype).rpartition(".")[2]
    return x.dtype if kind.startswith(("float", "bfloat")) else xp.float64
