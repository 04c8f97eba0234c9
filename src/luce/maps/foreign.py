"""Maps on arrays that are not NumPy's: by formula for any library of the array API, by `operators` for torch."""

from __future__ import annotations

from math import inf
from typing import Any

from luce.arrays import checked_axis, checked_mask, library
from luce.maps import formulas
from luce.maps.formulas import by_formula, cast, choose, widened
from luce.maps.map import Map

Array = Any
_FLOATING = ("float16", "bfloat16", "float32", "float64")


def apply(
    xp: Any,
    m: Map,
    name: str,
    x: Array,
    axis: int,
    shape: Any,
    temperature: float,
    where: Array | None,
    out: Array | None,
    dtype: Any,
) -> Array:
    """Apply a map to an array of the library `xp`.

    `name` is the function's, the rest as in `luce.maps.apply`; `shape` may be a tensor.
    """
    place = checked_axis(name, axis, x.ndim) - max(x.ndim, 1)  # counted from the end, as vmap needs it
    z = masked(xp, name, floating(xp, name, x, dtype), where)
    z = z if x.ndim else xp.reshape(z, (1,))
    if xp.__name__ == "torch":
        from luce.maps import operators

        run = operators.apply_entmax if isinstance(shape, xp.Tensor) else operators.apply_map
        y = run(z, shape if isinstance(shape, xp.Tensor) else float(shape), m.name, place, float(temperature))
    else:
        y = by_formula(xp, m, z / temperature if temperature != 1 else z, place, shape)
    y = xp.reshape(y, x.shape)
    return finished(xp, name, y, out, dtype)


def logsumexp(
    xp: Any, x: Array, axis: int, weights: Array | None, where: Array | None, keepdims: bool, dtype: Any
) -> Array:
    """`luce.logsumexp` of an array of the library `xp`."""
    place = checked_axis("logsumexp", axis, x.ndim)
    z = masked(xp, "logsumexp", floating(xp, "logsumexp", x, dtype), where)
    given = z.dtype
    z = widened(xp, z if x.ndim else xp.reshape(z, (1,)))
    if weights is not None:
        w = _checked_weights(xp, weights, z, x.shape)
        z = z + choose(xp, w == 0, -inf, xp.log(choose(xp, w == 0, 1.0, w)))
    if z.shape[place] == 0:
        y = xp.full(tuple(n or 1 for n in z.shape), -inf, dtype=z.dtype)
    else:
        y = formulas.logsumexp(xp, z, place)
    kept = [*x.shape[:place], *([1] if keepdims and x.ndim else []), *x.shape[place + 1 :]]
    return finished(xp, "logsumexp", cast(xp, xp.reshape(y, tuple(kept)), given), None, dtype)


def row_alphas(xp: Any, alpha: Any, x: Array, axis: int) -> Array:
    """The alphas of `luce.entmax`, one or one for each row of `x`.

    Raises:
        ValueError: they do not broadcast, or one is below 1.
    """
    a = floating(xp, "entmax", own(xp, alpha, x))
    place = checked_axis("entmax", axis, x.ndim)
    rows = tuple(1 if i == place else n for i, n in enumerate(x.shape))
    if not broadcasts(a.shape, rows):
        raise ValueError(f"entmax: alpha of shape {tuple(a.shape)} does not broadcast to {rows}")
    if visible(xp, a) and not bool(xp.all((a >= 1) & (a < inf))):
        raise ValueError("entmax: alpha must be at least 1 and finite")
    return a


def _checked_weights(xp: Any, weights: Any, z: Array, shape: tuple[int, ...]) -> Array:
    w = cast(xp, own(xp, weights, z), z.dtype)
    if not broadcasts(w.shape, shape):
        raise ValueError(f"logsumexp: weights of shape {tuple(w.shape)} do not broadcast to {tuple(shape)}")
    if visible(xp, w) and not bool(xp.all((w >= 0) & (w < inf))):
        raise ValueError("logsumexp: weights must be finite and not negative")
    return w


def visible(xp: Any, *arrays: Array) -> bool:
    """Whether values can be looked at: they cannot under `torch.compile` and in the transforms of `torch.func`."""
    if xp.__name__ != "torch":
        return True
    return not xp.compiler.is_compiling() and not any(xp._C._functorch.is_functorch_wrapped_tensor(a) for a in arrays)


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether an array of a shape broadcasts to another, which stays as it is."""
    pairs = zip(reversed(tuple(shape)), reversed(tuple(to)), strict=False)
    return len(shape) <= len(to) and all(n in (1, m) for n, m in pairs)


def floating(xp: Any, name: str, x: Array, dtype: Any = None) -> Array:
    """`x` as floating numbers that hold both what it is and the result's dtype; integers as the default ones.

    Raises:
        TypeError: `x` is not of real numbers, or `dtype` is not one of these.
    """
    kind = str(x.dtype).rpartition(".")[2]
    if kind.startswith(("int", "uint")):
        x = cast(xp, x, xp.get_default_dtype() if xp.__name__ == "torch" else xp.float64)
    elif kind not in _FLOATING:
        hint = "; convert the booleans to numbers first" if kind == "bool" else ""
        raise TypeError(f"{name}: needs real numbers, got dtype {kind}{hint}")
    if dtype is None:
        return x
    if not isinstance(dtype, type(x.dtype)) or str(dtype).rpartition(".")[2] not in _FLOATING:
        raise TypeError(f"{name}: dtype must be float16, bfloat16, float32 or float64 of {xp.__name__}, got {dtype}")
    x = x if dtype == x.dtype else widened(xp, x)
    return cast(xp, x, dtype) if xp.finfo(dtype).bits > xp.finfo(x.dtype).bits else x


def own(xp: Any, a: Any, like: Array) -> Array:
    """`a` as an array of the library `xp`, where `like` is."""
    return a if library(a) is xp else xp.asarray(a, device=like.device)


def masked(xp: Any, name: str, z: Array, where: Array | None) -> Array:
    """`z` with -inf where `where` is `False`."""
    if where is None:
        return z
    if not hasattr(where, "shape"):
        where = checked_mask(name, where, tuple(z.shape))
    mask = own(xp, where, z)
    if "bool" not in str(mask.dtype):
        raise TypeError(f"{name}: where must be booleans, got dtype {str(mask.dtype).rpartition('.')[2]}")
    if not broadcasts(mask.shape, z.shape):
        raise ValueError(f"{name}: where of shape {tuple(mask.shape)} does not broadcast to {tuple(z.shape)}")
    return xp.where(mask, z, xp.full_like(z, -inf))


def finished(xp: Any, name: str, y: Array, out: Array | None, dtype: Any) -> Array:
    """A result in the dtype wanted, and in `out` if given.

    Raises:
        TypeError, ValueError: `out` does not fit.
    """
    if dtype is not None:
        y = cast(xp, y, dtype)
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
