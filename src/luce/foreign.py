"""Maps on arrays that are not NumPy's: by formula for any library of the array API, by an operator for torch.

Torch tensors on the CPU run the native kernels behind a registered operator, with first and second derivatives, under
`torch.compile`, `torch.func.grad` and `vmap`; on other devices the operator runs the formula.
"""

from __future__ import annotations

import functools
from math import inf
from typing import Any

import numpy as np

from luce import formulas
from luce.arrays import checked_axis, checked_mask
from luce.formulas import choose, entmax_slope, entmax_vjp, largest, softmax_slope
from luce.maps import MAPS, Map
from luce.maps import apply as apply_to_numpy

Array = Any


def apply(
    xp: Any,
    m: Map,
    x: Array,
    axis: int,
    shape: Any,
    temperature: float,
    where: Array | None,
    out: Array | None,
    dtype: Any,
) -> Array:
    """Apply a map to an array of the library `xp`; arguments as in `luce.maps.apply`, `shape` may be a tensor."""
    place = checked_axis(m.name, axis, x.ndim) - max(x.ndim, 1)  # counted from the end, as vmap needs it
    z = masked(xp, m.name, floating(xp, m.name, x), where)
    z = z if x.ndim else xp.reshape(z, (1,))
    if xp.__name__ == "torch":
        if _is_tensor(shape):
            y = _entmax_operator()(z, shape, place, float(temperature))
        else:
            y = _operator()(z, m.name, place, float(temperature), float(shape))
    else:
        y = by_formula(xp, m, z / temperature if temperature != 1 else z, place, shape)
    y = xp.reshape(y, x.shape)
    return finished(xp, m.name, y, out, dtype)


def logsumexp(
    xp: Any, x: Array, axis: int, weights: Array | None, where: Array | None, keepdims: bool, dtype: Any
) -> Array:
    """`luce.logsumexp` of an array of the library `xp`."""
    place = checked_axis("logsumexp", axis, x.ndim)
    z = masked(xp, "logsumexp", floating(xp, "logsumexp", x), where)
    given = z.dtype
    z = _widened(xp, z if x.ndim else xp.reshape(z, (1,)))
    if weights is not None:
        w = xp.asarray(weights, dtype=z.dtype)
        if bool((w < 0).any() if hasattr(w, "any") else xp.any(w < 0)):
            raise ValueError("logsumexp: weights must not be negative or NaN")
        z = z + choose(xp, w == 0, -inf, xp.log(choose(xp, w == 0, 1.0, w)))
    if z.shape[place] == 0:
        y = xp.full(tuple(n or 1 for n in z.shape), -inf, dtype=z.dtype)
    else:
        y = formulas.logsumexp(xp, z, place)
    kept = [*x.shape[:place], *([1] if keepdims and x.ndim else []), *x.shape[place + 1 :]]
    return finished(xp, "logsumexp", _cast(xp, xp.reshape(y, tuple(kept)), given), None, dtype)


def by_formula(xp: Any, m: Map, z: Array, axis: int, shape: Any) -> Array:
    """Evaluate the map's formula, halves in float32."""
    if 0 in z.shape:
        return z
    wide = _widened(xp, z)
    return _cast(xp, m.formula(xp, wide, axis, shape), z.dtype)


def floating(xp: Any, name: str, x: Array) -> Array:
    """`x` if it is of real floating numbers, as the default floating type if it is of integers.

    Raises:
        TypeError: it is neither.
    """
    kind = str(x.dtype).rpartition(".")[2]
    if kind.startswith(("float", "bfloat")):
        return x
    if not kind.startswith(("int", "uint")):
        raise TypeError(f"{name}: needs real numbers, got dtype {x.dtype}")
    return _cast(xp, x, xp.get_default_dtype() if xp.__name__ == "torch" else xp.float64)


def masked(xp: Any, name: str, z: Array, where: Array | None) -> Array:
    """`z` with -inf where `where` is `False`."""
    if where is None:
        return z
    if not hasattr(where, "shape"):
        where = checked_mask(name, where, tuple(z.shape))
    mask = xp.asarray(where)
    if "bool" not in str(mask.dtype):
        raise TypeError(f"{name}: where must be booleans, got dtype {mask.dtype}")
    return xp.where(mask, z, xp.full_like(z, -inf))


def finished(xp: Any, name: str, y: Array, out: Array | None, dtype: Any) -> Array:
    """A result in the dtype wanted, and in `out` if given.

    Raises:
        TypeError, ValueError: `out` does not fit.
    """
    if dtype is not None:
        y = _cast(xp, y, dtype)
    if out is None:
        return y
    if xp.__name__ != "torch" or not isinstance(out, xp.Tensor):
        raise TypeError(f"{name}: out must be a tensor for a torch tensor, and is not offered for other libraries")
    if out.shape != y.shape or out.dtype != y.dtype:
        raise ValueError(
            f"{name}: out must have shape {tuple(y.shape)} and dtype {y.dtype}, got {tuple(out.shape)} and {out.dtype}"
        )
    if xp.is_grad_enabled() and (y.requires_grad or out.requires_grad):
        raise ValueError(f"{name}: out cannot take part in automatic differentiation; leave it out or use no_grad")
    return out.copy_(y)


def pull_back(xp: Any, m: Map, y: Array, z: Array, g: Array, axis: int, shape: float) -> Array:
    """The product of g with the map's Jacobian in z; 0 where there is nothing, and in rows with +inf."""
    return _alive(xp, m, y, z, g, axis, lambda y, z, g: m.vjp(xp, y, z, g, axis, shape))


def _alive(xp: Any, m: Map, y: Array, z: Array, g: Array, axis: int, product: Any) -> Array:
    dead = xp.abs(z) == inf if m.elementwise else (z == -inf) | (xp.abs(largest(xp, z, axis)) == inf)
    y, z, g = (choose(xp, dead, 0.0, a) for a in (y, z, g))
    return choose(xp, dead, 0.0, product(y, z, g))


def _cast(xp: Any, x: Array, dtype: Any) -> Array:
    if x.dtype == dtype:
        return x
    return x.to(dtype) if xp.__name__ == "torch" else xp.astype(x, dtype)


def _widened(xp: Any, x: Array) -> Array:
    return _cast(xp, x, xp.float32) if str(x.dtype).endswith("float16") else x


def _is_tensor(value: object) -> bool:
    return hasattr(value, "requires_grad")


def _by_kernel(m: Map, x: Any, axis: int, temperature: float, **parameters: Any) -> Any:
    """Evaluate on a tensor, out of autograd's sight; the result is contiguous."""
    import torch

    if x.device.type != "cpu":
        return by_formula(torch, m, x / temperature, axis, parameters["shape"]).contiguous()
    array = _widened(torch, x.detach()).numpy()
    result = np.ascontiguousarray(apply_to_numpy(m, array, axis, temperature=temperature, **parameters))
    return torch.from_numpy(result).to(x.dtype)


@functools.cache
def _operator() -> Any:
    """Register the operator that runs any map on a tensor."""
    import torch

    def run(x: Any, name: str, axis: int, temperature: float, shape: float) -> Any:
        return _by_kernel(MAPS[name], x, axis, temperature, shape=shape)

    def remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, *ctx.arguments = inputs
        ctx.save_for_backward(x, output)

    def backward(ctx: Any, g: Any) -> tuple[Any, ...]:
        x, y = ctx.saved_tensors
        name, axis, temperature, shape = ctx.arguments
        y_, x_, g_ = (_widened(torch, t) for t in (y, x, g))
        dz = pull_back(torch, MAPS[name], y_, x_ / temperature, g_, axis, shape)
        return (dz / temperature).to(x.dtype), None, None, None, None

    schema = "(Tensor x, str name, int axis, float temperature, float shape) -> Tensor"
    return _register("luce::map", run, schema, remember, backward)


@functools.cache
def _entmax_operator() -> Any:
    """Register entmax with a tensor for alpha, which has a gradient, too."""
    import torch

    m = MAPS["entmax"]

    def run(x: Any, alpha: Any, axis: int, temperature: float) -> Any:
        if x.device.type != "cpu":
            return by_formula(torch, m, x / temperature, axis, alpha).contiguous()
        from luce.links.entmax import row_alphas

        array = _widened(torch, x.detach())
        alphas = row_alphas(alpha.detach().double().numpy(), tuple(x.shape), axis)
        rows = array.movedim(axis, -1).contiguous()
        p = np.empty_like(rows.numpy().reshape(-1, rows.shape[-1]))
        apply_to_numpy(m, rows.numpy().reshape(p.shape), -1, temperature=temperature, out=p, shapes=alphas)
        return torch.from_numpy(p.reshape(rows.shape)).movedim(-1, axis).contiguous().to(x.dtype)

    def remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, alpha, ctx.axis, ctx.temperature = inputs
        ctx.save_for_backward(x, alpha, output)

    def backward(ctx: Any, g: Any) -> tuple[Any, ...]:
        x, alpha, y = ctx.saved_tensors
        axis = ctx.axis
        y_, z, g_, a = (t.double() for t in (y, x / ctx.temperature, g, alpha))

        def both(y: Any, z: Any, g: Any) -> Any:
            return torch.stack((entmax_vjp(torch, y, z, g, axis, a), g * slope(torch, y, axis, a)))

        dz = _alive(torch, m, y_, z, g_, axis, lambda y, z, g: both(y, z, g)[0])
        by_alpha = _alive(torch, m, y_, z, g_, axis, lambda y, z, g: both(y, z, g)[1])
        return (dz / ctx.temperature).to(x.dtype), by_alpha.sum_to_size(alpha.shape).to(alpha.dtype), None, None

    schema = "(Tensor x, Tensor alpha, int axis, float temperature) -> Tensor"
    return _register("luce::entmax", run, schema, remember, backward)


def slope(xp: Any, p: Array, axis: int, alpha: Array) -> Array:
    """Derivative of entmax in alpha; within 1e-4 of 1 that at 1, where the general formula cancels."""
    near = alpha - 1 < 1e-4
    return xp.where(near, softmax_slope(xp, p, axis), entmax_slope(xp, p, axis, choose(xp, near, 2.0, alpha)))


def _register(name: str, run: Any, schema: str, remember: Any, backward: Any) -> Any:
    import torch

    operator = torch.library.custom_op(name, run, mutates_args=(), schema=schema)
    operator.register_fake(lambda x, *_: torch.empty_like(x, memory_format=torch.contiguous_format))
    operator.register_autograd(backward, setup_context=remember)

    def over_batch(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, int]:
        n = arguments[0].ndim - (in_dims[0] is not None)
        moved = []
        for argument, place in zip(arguments, in_dims, strict=True):
            if not _is_tensor(argument):
                moved.append(argument)
            elif place is None:  # the same for the whole batch
                moved.append(argument.expand(info.batch_size, *argument.shape) if argument.ndim == n else argument)
            else:  # a batch of smaller tensors has its missing axes made up
                first = argument.movedim(place, 0)
                moved.append(first.reshape(first.shape[0], *(1,) * (n + 1 - first.ndim), *first.shape[1:]))
        return operator(*moved), 0

    operator.register_vmap(over_batch)
    return operator
