"""Boltzmann's policy: softmax of values, actions drawn from it, and the value expected under it.

Small temperatures exploit, large ones explore; the policy depends on the scale of the values, and one schedule for all
arms can be suboptimal (Cesa-Bianchi et al. 2017, arXiv 1705.10257). The expected value is not a non-expansion, and its
gradient p_k (1 + (z_k - mean) / T) can be negative: `mellowmax` is the operator without these faults.
"""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce.arrays import checked_axis, enter, library, plain, positive
from luce.functions.gumbel import Random, with_noise
from luce.links.softmax import SOFTMAX
from luce.maps import ARGMAX, apply
from luce.maps.formulas import cast, choose, total, widened


def boltzmann(
    x: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """The policy: probabilities of actions with values x. It is `softmax(x)`, by its name in reinforcement learning.

    Arguments, result and errors are those of `softmax`; `temperature` is in units of the values.
    """
    return apply(SOFTMAX, x, axis, name="boltzmann", temperature=temperature, where=where, out=out, dtype=dtype)


def boltzmann_sample(
    x: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    rng: Random = None,
) -> NDArray[np.int64] | np.int64:
    """Draw one action of each row from the policy, exactly, as arg max of values with Gumbel noise.

    Args:
        x: values, real numbers of any shape.
        axis: of the actions.
        temperature: in units of the values, positive.
        where: booleans that broadcast to `x`; actions that are `False` are never drawn.
        rng: seed or `numpy.random.Generator`.

    Returns:
        Indices of actions, int64, of the shape of `x` without `axis`.

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: a row has no action to draw, holds a NaN, or an argument does not fit.

    >>> int(boltzmann_sample([1.0, 2.0, 30.0], rng=0))
    2
    """
    positive("boltzmann_sample", "temperature", temperature, ARGMAX)
    if library(x) is not None:
        other: Any = x
        x = np.asarray(other.detach().cpu().double() if hasattr(other, "detach") else np.from_dlpack(other))
    gate = enter("boltzmann_sample", x, axis, where=where)
    top = gate.rows.max(axis=1, initial=-np.inf)
    if not (top > -np.inf).all():
        raise ValueError("boltzmann_sample: a row has no action to draw from, or holds a NaN")
    z = with_noise("boltzmann_sample", gate.rows, rng, temperature)
    drawn = z.argmax(axis=1) if z.size else np.zeros(len(z), np.int64)
    return plain(drawn.reshape(gate.shape[:-1]))


def boltzmann_mean(
    x: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    keepdims: bool = False,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """The value expected under the policy, sum p x: between the mean (large temperature) and the maximum (small).

    Args:
        x: values, real numbers of any shape.
        axis: of the actions.
        temperature: in units of the values, positive.
        where: booleans that broadcast to `x`; entries that are `False` do not count.
        keepdims: keep `axis` with length 1.
        dtype: of the result, instead of the one that follows from `x`.

    Returns:
        Array without `axis`; NaN where nothing is left, since there is no value to expect.

    Raises:
        TypeError, ValueError: as `softmax`.

    >>> float(boltzmann_mean([1.0, 2.0, 3.0]).round(4))
    2.5752
    """
    positive("boltzmann_mean", "temperature", temperature, ARGMAX)
    if (xp := library(x)) is not None:
        return _mean_of_others(xp, x, axis, temperature, where, keepdims, dtype)
    gate = enter("boltzmann_mean", x, axis, where=where, dtype=dtype)
    p = boltzmann(gate.rows, temperature=temperature).astype(np.float64)
    halves = np.where(p > 0, gate.rows.astype(np.float64), 0) / 2  # so that no difference of two overflows
    shift = halves.max(axis=1, keepdims=True, initial=-np.inf, where=p > 0)
    shift = np.where(np.isfinite(shift), shift, 0)
    mean = 2 * (np.where(p > 0, p * (halves - shift), p - p).sum(axis=1) + shift[:, 0])
    mean = np.where(p.sum(axis=1) == 0, np.nan, mean)
    return gate.restore_reduced(mean, keepdims=keepdims)


def _mean_of_others(
    xp: Any, x: Any, axis: int, temperature: float, where: Any, keepdims: bool, dtype: Any
) -> NDArray[Any]:
    from luce.maps import foreign

    name = "boltzmann_mean"
    place = checked_axis(name, axis, x.ndim)
    given = foreign.floating(xp, name, x, dtype)
    z = widened(xp, foreign.masked(xp, name, given, where))
    kept = tuple(1 if i == place else n for i, n in enumerate(z.shape))
    if 0 in z.shape:
        mean = xp.full(kept, nan, dtype=z.dtype)
    else:
        z = xp.reshape(z, z.shape or (1,))
        p: Any = boltzmann(z, place, temperature=temperature)
        mean = total(xp, p * choose(xp, p == 0, 0.0, z), place)
        mean = choose(xp, total(xp, p, place) == 0, nan, mean)
    y = cast(xp, xp.reshape(mean, kept if keepdims else kept[:place] + kept[place + 1 :]), given.dtype)
    of_others: NDArray[Any] = foreign.finished(xp, name, y, None, dtype)
    return of_others
