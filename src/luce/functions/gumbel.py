"""Gumbel noise: exact samples of softmax, and their smooth stand-in.

arg max(z + G) with G = -log(E), E standard exponential, is a sample from softmax(z); softmax((z + G) / tau) is its
relaxation. Sources: Jang, Gu & Poole 2017, arXiv 1611.01144; Maddison, Mnih & Teh 2017, arXiv 1611.00712.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce.arrays import checked_axis, enter, library, positive
from luce.links.softmax import softmax
from luce.maps import ARGMAX
from luce.maps.formulas import cast, choose, largest, widened

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

    Noise is added in float64, to the distances from the largest logit, so that large logits do not swallow it. Logits
    of +inf are drawn from as equals, and nothing beside them.

    Args:
        x: logits, real numbers of any shape.
        axis: of the classes.
        tau: temperature of the relaxation, positive; towards 0 samples become one-hot.
        hard: one-hot samples. For torch tensors the gradient is that of the soft sample (straight-through, biased).
        rng: seed or `numpy.random.Generator`; a `torch.Generator` for torch tensors. None: fresh.
        where: booleans that broadcast to `x`; entries that are `False` are never drawn.
        out: array of the shape of `x` and the result's dtype; it may be `x` itself and is returned.
        dtype: float16, bfloat16, float32 or float64, instead of the one that follows from `x`.

    Returns:
        Array of the shape of `x`; each row sums to 1, or is 0 where everything is -inf or masked.

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: `tau` is not positive, or a shape or `axis` does not fit.

    >>> gumbel_softmax([1.0, 2.0, 3.0], hard=True, rng=0)
    array([0., 0., 1.])
    """
    positive("gumbel_softmax", "tau", tau, ARGMAX)
    if (xp := library(x)) is not None:
        of_others: NDArray[Any] = _of_others(xp, x, axis, tau, hard, rng, where, out, dtype)
        return of_others
    gate = enter("gumbel_softmax", x, axis, where=where, out=out, dtype=dtype)
    z = with_noise("gumbel_softmax", gate.rows, rng)
    p = softmax(z, temperature=tau)
    if hard:
        p = np.where(np.isnan(p), p, _one_hot(np, z, -1)) if p.size else p
    return gate.restore(p, out)


def with_noise(name: str, rows: NDArray[Any], rng: Random, temperature: float = 1.0) -> NDArray[np.float64]:
    """Rows (N, K) over a temperature, less the largest number of each, plus Gumbel noise."""
    if not rows.size:
        return rows.astype(np.float64)
    with np.errstate(over="ignore"):
        gaps: NDArray[np.float64] = _gaps(np, rows.astype(np.float64), -1) / temperature
    return gaps + _noise(name, rows.shape, rng)


def _noise(name: str, shape: tuple[int, ...], rng: Random) -> NDArray[np.float64]:
    if not (rng is None or isinstance(rng, int | np.integer | np.random.Generator)):
        raise TypeError(f"{name}: rng must be a seed or a numpy.random.Generator, got {type(rng).__name__}")
    if isinstance(rng, int | np.integer) and rng < 0:
        raise ValueError(f"{name}: rng must be a seed of at least 0 or a numpy.random.Generator, got {rng}")
    generator = np.random.default_rng(rng)
    noise: NDArray[np.float64] = -np.log(np.maximum(generator.standard_exponential(shape), np.finfo(np.float64).tiny))
    return noise


def _gaps(xp: Any, z: Any, axis: int) -> Any:
    """Distances from the largest of each row; beside +inf, which becomes 0, there is nothing but NaN."""
    top = largest(xp, z, axis)
    gaps = z - choose(xp, xp.abs(top) == inf, 0.0, top)
    gaps = choose(xp, (top == inf) & (z < inf), -inf, gaps)
    return choose(xp, z == inf, 0.0, gaps)


def _one_hot(xp: Any, z: Any, axis: int) -> Any:
    """Whether an entry is the first largest of its row, and not -inf."""
    k = z.shape[axis]
    places = xp.reshape(xp.arange(k), tuple(k if i == axis % z.ndim else 1 for i in range(z.ndim)))
    first = xp.argmax(z, **({"dim": axis} if xp.__name__ == "torch" else {"axis": axis}))
    first = xp.reshape(first, tuple(1 if i == axis % z.ndim else n for i, n in enumerate(z.shape)))
    return (places == first) & (z > -inf)


def _of_others(
    xp: Any, x: Any, axis: int, tau: float, hard: bool, rng: Random, where: Any, out: Any, dtype: Any
) -> Any:
    from luce.maps import foreign

    name = "gumbel_softmax"
    place = checked_axis(name, axis, x.ndim)
    given = foreign.floating(xp, name, x, dtype)
    z = widened(xp, foreign.masked(xp, name, given, where))
    if 0 in z.shape:
        return foreign.finished(xp, name, given, out, dtype)
    z = z if x.ndim else xp.reshape(z, (1,))
    if xp.__name__ == "torch":
        noise = -xp.empty_like(z).exponential_(generator=rng).clamp(min=xp.finfo(z.dtype).tiny).log()
    else:
        noise = xp.asarray(_noise(name, z.shape, rng), dtype=z.dtype)
    z = _gaps(xp, z, place) + noise
    p: Any = softmax(z, place, temperature=tau)
    if hard:
        picked = choose(xp, p != p, float("nan"), cast(xp, _one_hot(xp, z, place), p.dtype))
        p = picked - p.detach() + p if xp.__name__ == "torch" else picked
    p = cast(xp, xp.reshape(p, x.shape), given.dtype)
    return foreign.finished(xp, name, p, out, dtype)
