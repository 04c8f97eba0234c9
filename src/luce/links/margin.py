"""A margin off the target's logit, for functions on arrays of any kind."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce.arrays import checked_axis, library, not_negative, positive, shape_of
from luce.links.fused import checked_target, target_array
from luce.maps import ARGMAX, Map, apply
from luce.maps.formulas import widened


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
    if (xp := library(x)) is not None:
        z, dtype = _of_others(xp, name, x, axis, target, margin * temperature, dtype)
        return apply(m, z, axis, name=name, shape=shape, temperature=temperature, where=where, out=out, dtype=dtype)
    dims = shape_of(name, x)
    place = checked_axis(name, axis, len(dims))
    k = dims[place] if dims else 1
    ids = target_array(name, target)
    expected = dims[:place] + dims[place + 1 :]
    if ids.dtype.kind not in "iu" or ids.shape != expected:
        raise ValueError(
            f"{name}: target must hold class ids of shape {expected}, got dtype {ids.dtype} and shape {ids.shape}"
        )
    classes, _ = checked_target(name, ids.reshape(-1), ids.size, k, np.dtype(np.float64))
    return apply(
        m,
        x,
        axis,
        name=name,
        shape=shape,
        temperature=temperature,
        where=where,
        out=out,
        dtype=dtype,
        margin=margin,
        target=classes,
    )


def _of_others(xp: Any, name: str, x: Any, axis: int, target: Any, offset: float, dtype: Any) -> tuple[Any, Any]:
    """`x` less the offset at the targets, halves in float32, and the dtype of the result."""
    from luce.maps import foreign

    given = foreign.floating(xp, name, x, dtype)
    place = checked_axis(name, axis, x.ndim)
    ids = foreign.own(xp, target, x)
    expected = tuple(x.shape[:place] + x.shape[place + 1 :])
    kind = str(ids.dtype).rpartition(".")[2]
    if not kind.startswith(("int", "uint")) or tuple(ids.shape) != expected:
        raise ValueError(
            f"{name}: target must hold class ids of shape {expected}, got dtype {kind} and shape {tuple(ids.shape)}"
        )
    k = x.shape[place] if x.ndim else 1
    if foreign.visible(xp, ids):
        values = np.asarray(ids.cpu() if xp.__name__ == "torch" else ids).reshape(-1)
        checked_target(name, values, values.size, k, np.dtype(np.float64))
    places = xp.reshape(xp.arange(k, device=x.device), tuple(k if i == place else 1 for i in range(x.ndim)))
    there = places == xp.reshape(ids, tuple(1 if i == place else n for i, n in enumerate(x.shape)))
    z = widened(xp, given)
    return xp.where(there, z - offset, z), given.dtype if dtype is None else dtype
