"""Gumbel noise: exact samples of softmax, and their smooth stand-in.

arg max(z + G) with G = -log(E), E standard exponential, is a sample from softmax(z); softmax((z + G) / tau) is its
relaxation. Sources: Jang, Gu & Poole 2017, arXiv 1611.01144; Maddison, Mnih & Teh 2017, arXiv 1611.00712.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce.arrays import as_array, checked_axis, library, positive
from luce.links import softmax
from luce.maps import ARGMAX

Random = Any  # what numpy.random.default_rng takes; a torch.Generator for torch tensors


def gumbel_softmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    tau: float = 1.0,
    hard: bool = False,
    rng: Random = None,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """Softmax of (x + Gumbel noise) / tau: a sample that can be differentiated.

    Args:
        x: logits, real numbers of any shape.
        axis: of the classes.
        tau: temperature of the relaxation, positive; towards 0 samples become one-hot.
        hard: one-hot samples. For torch tensors the gradient is that of the soft sample (straight-through, biased).
        rng: seed or `numpy.random.Generator`; a `torch.Generator` for torch tensors. None: fresh.
        where: booleans that broadcast to `x`; entries that are `False` are never drawn.
        out: array of the shape of `x` and the result's dtype.
        dtype: of the result, instead of the one that follows from `x`.

    Returns:
        Array of the shape of `x`; each row sums to 1.

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: `tau` is not positive, or a shape or `axis` does not fit.

    >>> gumbel_softmax([1.0, 2.0, 3.0], hard=True, rng=0)
    array([0., 0., 1.])
    """
    positive("gumbel_softmax", "tau", tau, ARGMAX)
    if (xp := library(x)) is not None:
        return _of_others(xp, x, axis, tau, hard, rng, where, out, dtype)
    z = noisy("gumbel_softmax", x, rng)
    wanted = _default(x) if dtype is None else dtype
    if not hard:
        return softmax(z, axis, temperature=tau, where=where, out=out, dtype=wanted)
    p = softmax(z, axis, temperature=tau, where=where, out=out, dtype=wanted)
    picked = _one_hot(np, np.atleast_1d(p), axis).reshape(np.shape(p)).astype(np.asarray(p).dtype)
    if out is None:
        return picked
    out[...] = picked
    return out


def noisy(name: str, x: ArrayLike, rng: Random) -> NDArray[np.float64]:
    """x plus Gumbel noise, in float64."""
    z = as_array(name, x)
    noise = np.random.default_rng(rng).standard_exponential(z.shape)
    return np.asarray(z.astype(np.float64) - np.log(np.maximum(noise, np.finfo(np.float64).tiny)))


def _default(x: ArrayLike) -> np.dtype[Any]:
    dtype = np.asarray(x).dtype
    return np.dtype(np.float64) if dtype.kind in "iu" else dtype


def _one_hot(xp: Any, p: Any, axis: int) -> Any:
    """1 at the first largest entry of each row that has a positive one."""
    k = p.shape[axis]
    shape = [k if i == axis % p.ndim else 1 for i in range(p.ndim)]
    places = xp.reshape(xp.arange(k), tuple(shape))
    first = xp.argmax(p, **({"dim": axis} if xp.__name__ == "torch" else {"axis": axis}))
    chosen = places == xp.reshape(first, tuple(1 if i == axis % p.ndim else n for i, n in enumerate(p.shape)))
    return chosen & (p > 0)


def _of_others(
    xp: Any, x: Any, axis: int, tau: float, hard: bool, rng: Random, where: Any, out: Any, dtype: Any
) -> Any:
    from luce import foreign

    z = foreign.floating(xp, "gumbel_softmax", x)
    if xp.__name__ == "torch":
        noise = -xp.empty_like(z).exponential_(generator=rng).clamp(min=xp.finfo(z.dtype).tiny).log()
    else:
        noise = xp.asarray(noisy("gumbel_softmax", np.zeros(z.shape), rng), dtype=z.dtype)
    p = softmax(z + noise, axis, temperature=tau, where=where)
    if hard:
        checked_axis("gumbel_softmax", axis, p.ndim)
        picked = foreign._cast(xp, _one_hot(xp, p, axis), p.dtype)
        p = picked - p.detach() + p if xp.__name__ == "torch" else picked
    return foreign.finished(xp, "gumbel_softmax", p, out, dtype)
