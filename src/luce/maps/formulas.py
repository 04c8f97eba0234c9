"""The family by the functions of the array API: definitions in the open, for libraries that have no kernels here.

Every function takes the namespace `xp` first. What is not there (-inf) counts nothing, a row with +inf is shared among
these, a row with nothing is 0. Gradients pass through them without NaN: what is replaced is replaced before it is
computed with.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial, inf
from typing import Any

Array = Any


def largest(xp: Any, z: Array, axis: int) -> Array:
    """The largest entry along an axis, kept as length 1."""
    return xp.amax(z, axis=axis, keepdims=True) if hasattr(xp, "amax") else xp.max(z, axis=axis, keepdims=True)


def total(xp: Any, values: Array, axis: int) -> Array:
    """The sum along an axis, kept as length 1."""
    return xp.sum(values, axis=axis, keepdims=True)


def choose(xp: Any, condition: Array, yes: Array | float, no: Array) -> Array:
    """`xp.where` with a number for `yes`."""
    return xp.where(condition, xp.full_like(no, yes) if isinstance(yes, int | float) else yes, no)


def weights(xp: Any, z: Array, axis: int, weight: Callable[[Array], Array], *, shifts: bool) -> tuple[Array, Array]:
    """What each entry counts, and their sum, 1 where that is 0."""
    top = constant(xp, largest(xp, z, axis))
    absent, limit = z == -inf, xp.abs(top) == inf
    safe = choose(xp, absent | limit, 0.0, z - choose(xp, limit, 0.0, top) if shifts else z)
    w = choose(xp, absent, 0.0, weight(safe))
    w = choose(xp, limit, cast(xp, z == inf, z.dtype), w)
    s = total(xp, w, axis)
    return w, choose(xp, s == 0, 1.0, s)


def shares(xp: Any, z: Array, axis: int, weight: Callable[[Array], Array], *, shifts: bool = False) -> Array:
    """Weights divided by their sum."""
    w, s = weights(xp, z, axis, weight, shifts=shifts)
    return w / s


def log_shares(xp: Any, z: Array, axis: int, weight: Callable[[Array], Array]) -> Array:
    """Logarithms of weights divided by their sum."""
    w, s = weights(xp, z, axis, weight, shifts=False)
    return xp.where(w == 0, xp.full_like(z, -inf), xp.log(choose(xp, w == 0, 1.0, w)) - xp.log(s))


def cast(xp: Any, x: Array, dtype: Any) -> Array:
    """`x` as numbers of `dtype`."""
    if x.dtype == dtype:
        return x
    return x.to(dtype) if xp.__name__ == "torch" else xp.astype(x, dtype)


def widened(xp: Any, x: Array) -> Array:
    """`x` in float32 if it is of halves."""
    return cast(xp, x, xp.float32) if str(x.dtype).endswith("float16") else x


def by_formula(xp: Any, m: Any, z: Array, axis: int, shape: Any) -> Array:
    """Evaluate the formula of a `Map`, halves in float32."""
    if 0 in z.shape:
        return z
    return cast(xp, m.formula(xp, widened(xp, z), axis, shape), z.dtype)


def pull_back(xp: Any, m: Any, y: Array, z: Array, g: Array, axis: int, shape: float) -> Array:
    """The product of g with the Jacobian of a `Map` in z; 0 where there is nothing, and in rows with +inf."""
    return alive(xp, m, y, z, g, axis, lambda y, z, g: m.vjp(xp, y, z, g, axis, shape))


def alive(xp: Any, m: Any, y: Array, z: Array, g: Array, axis: int, product: Callable[..., Array]) -> Array:
    """`product(y, z, g)` where the `Map` has a derivative, 0 where it has none."""
    dead = xp.abs(z) == inf if m.elementwise else (z == -inf) | (xp.abs(largest(xp, z, axis)) == inf)
    y, z, g = (choose(xp, dead, 0.0, a) for a in (y, z, g))
    return choose(xp, dead, 0.0, product(y, z, g))


def constant(xp: Any, x: Array) -> Array:
    """`x` for which no derivative is taken: what is added and taken off again."""
    return x.detach() if xp.__name__ == "torch" else x


def softmax(xp: Any, z: Array, axis: int, shape: float = 0) -> Array:
    """exp(z) over its sum."""
    return shares(xp, z, axis, xp.exp, shifts=True)


def log_softmax(xp: Any, z: Array, axis: int, shape: float = 0) -> Array:
    """Z less the logarithm of the sum of exp(z)."""
    _, s = weights(xp, z, axis, xp.exp, shifts=True)
    top = constant(xp, largest(xp, z, axis))
    limit = xp.abs(top) == inf
    inside = z - choose(xp, limit, 0.0, top) - xp.log(s)
    return xp.where(limit, choose(xp, z == inf, 0.0, xp.full_like(z, -inf)) - xp.log(s), inside)


def logsumexp(xp: Any, z: Array, axis: int) -> Array:
    """Log of the sum of exp(z), kept as length 1."""
    top = constant(xp, largest(xp, z, axis))
    limit = xp.abs(top) == inf
    _, s = weights(xp, z, axis, xp.exp, shifts=True)
    return xp.where(limit, top, choose(xp, limit, 0.0, top) + xp.log(s))


def polynomial(xp: Any, z: Array, degree: int, unit: Array) -> Array:
    """Sum of z^i / i! to a degree, times unit^degree, which keeps it from overflow."""
    u = z * unit
    s = xp.ones_like(u) / factorial(degree)
    for i in range(degree - 1, -1, -1):
        s = s * u + unit ** (degree - i) / factorial(i)
    return s


def square(xp: Any, z: Array, eps: float, unit: Array) -> Array:
    """z^2 + eps, times unit^2, which keeps it from overflow."""
    u = z * unit
    return u * u + eps * unit * unit


def unit_of(xp: Any, sizes: Array) -> Array:
    """What brings numbers of such sizes to at most 1, if they are larger."""
    return constant(xp, 1 / choose(xp, sizes < 1, 1.0, sizes))


def taylor(xp: Any, z: Array, axis: int, degree: float) -> Array:
    """The polynomial over its sum."""
    return shares(xp, z, axis, lambda u: polynomial(xp, u, int(degree), unit_of(xp, largest(xp, xp.abs(u), axis))))


def log_taylor(xp: Any, z: Array, axis: int, degree: float) -> Array:
    """Logarithm of `taylor`."""
    return log_shares(xp, z, axis, lambda u: polynomial(xp, u, int(degree), unit_of(xp, largest(xp, xp.abs(u), axis))))


def spherical(xp: Any, z: Array, axis: int, eps: float) -> Array:
    """z^2 + eps over its sum."""
    return shares(xp, z, axis, lambda u: square(xp, u, eps, unit_of(xp, largest(xp, xp.abs(u), axis))))


def log_spherical(xp: Any, z: Array, axis: int, eps: float) -> Array:
    """Logarithm of `spherical`."""
    return log_shares(xp, z, axis, lambda u: square(xp, u, eps, unit_of(xp, largest(xp, xp.abs(u), axis))))


def entmax(xp: Any, z: Array, axis: int, alpha: float | Array) -> Array:
    """max((alpha - 1) z - tau, 0)^(1 / (alpha - 1)), tau by halving; alpha = 1 is softmax."""
    if not isinstance(alpha, int | float):
        one = alpha == 1
        return xp.where(one, softmax(xp, z, axis), sparse(xp, z, axis, choose(xp, one, 2.0, alpha)))
    return softmax(xp, z, axis) if alpha == 1 else sparse(xp, z, axis, alpha)


def sparse(xp: Any, z: Array, axis: int, alpha: float | Array) -> Array:
    """Entmax for alpha > 1."""
    top = largest(xp, z, axis)
    limit = xp.abs(top) == inf
    u = (z - choose(xp, limit, 0.0, top)) * (alpha - 1)
    u = choose(xp, limit, -1.0, u)  # any finite number: such a row is replaced below
    low = xp.full_like(top, -1.0)
    high = xp.zeros_like(top)
    power = 1 / (alpha - 1)
    for _ in range(60):
        middle = (low + high) / 2
        enough = total(xp, _above(xp, u, middle) ** power, axis) >= 1
        low, high = xp.where(enough, middle, low), xp.where(enough, high, middle)
    p = _above(xp, u, low) ** power
    s = total(xp, p, axis)
    return xp.where(limit, softmax(xp, z, axis), p / choose(xp, s == 0, 1.0, s))


def _above(xp: Any, u: Array, tau: Array) -> Array:
    return choose(xp, u - tau < 0, 0.0, u - tau)


def sigmoid(xp: Any, z: Array, axis: int = -1, shape: float = 0) -> Array:
    """1 / (1 + exp(-z))."""
    e = xp.exp(-xp.abs(z))
    return choose(xp, z >= 0, 1.0, e) / (1 + e)


def log_sigmoid(xp: Any, z: Array, axis: int = -1, shape: float = 0) -> Array:
    """min(z, 0) - log(1 + exp(-|z|))."""
    return choose(xp, z > 0, 0.0, z) - xp.log1p(xp.exp(-xp.abs(z)))


# Products with Jacobians: (xp, y, z, g, axis, shape), y the result, g what comes from behind.


def softmax_vjp(xp: Any, y: Array, z: Array, g: Array, axis: int, shape: float = 0) -> Array:
    """J = diag(p) - p p^T."""
    return y * (g - total(xp, y * g, axis))


def log_softmax_vjp(xp: Any, y: Array, z: Array, g: Array, axis: int, shape: float = 0) -> Array:
    """J = I - 1 p^T."""
    return g - xp.exp(y) * total(xp, g, axis)


def ratio_vjp(ratio: Callable[..., Array], *, log: bool) -> Callable[..., Array]:
    """For p = w / sum w with r = w' / w: J = diag(p r) - p (p r)^T, or that of log p."""

    def vjp(xp: Any, y: Array, z: Array, g: Array, axis: int, shape: float) -> Array:
        r = ratio(xp, z, shape)
        if log:
            return r * (g - xp.exp(y) * total(xp, g, axis))
        return r * y * (g - total(xp, y * g, axis))

    return vjp


def taylor_ratio(xp: Any, z: Array, degree: float) -> Array:
    """f_(n-1) / f_n."""
    unit = unit_of(xp, xp.abs(z))
    return unit * polynomial(xp, z, int(degree) - 1, unit) / polynomial(xp, z, int(degree), unit)


def spherical_ratio(xp: Any, z: Array, eps: float) -> Array:
    """2 z / (z^2 + eps)."""
    unit = unit_of(xp, xp.abs(z))
    return unit * (2 * z * unit) / square(xp, z, eps, unit)


def entmax_vjp(xp: Any, y: Array, z: Array, g: Array, axis: int, alpha: float | Array) -> Array:
    """J = diag(s) - s s^T / sum s, s = p^(2 - alpha) on the support."""
    s = support_power(xp, y, 2 - alpha)
    n = total(xp, s, axis)
    return s * (g - total(xp, s * g, axis) / choose(xp, n == 0, 1.0, n))


def support_power(xp: Any, p: Array, exponent: float | Array) -> Array:
    """p^exponent where p > 0, else 0."""
    return choose(xp, p <= 0, 0.0, choose(xp, p <= 0, 1.0, p) ** exponent)


def entmax_slope(xp: Any, p: Array, axis: int, alpha: float | Array) -> Array:
    """Derivative of entmax in alpha > 1. Source: Correia, Niculae & Martins 2019, arXiv 1909.00015."""
    s = support_power(xp, p, 2 - alpha)
    q = s / total(xp, s, axis)
    h = p * xp.log(choose(xp, p <= 0, 1.0, p))
    return (p - q) / (alpha - 1) ** 2 - (h - q * total(xp, h, axis)) / (alpha - 1)


def softmax_slope(xp: Any, p: Array, axis: int) -> Array:
    """The same at alpha = 1: p (E[log^2 p] - log^2 p) / 2."""
    log_p = xp.log(choose(xp, p <= 0, 1.0, p))
    return p * (total(xp, p * log_p**2, axis) - log_p**2) / 2


def sigmoid_vjp(xp: Any, y: Array, z: Array, g: Array, axis: int = -1, shape: float = 0) -> Array:
    """J = diag(y (1 - y))."""
    return y * (1 - y) * g


def log_sigmoid_vjp(xp: Any, y: Array, z: Array, g: Array, axis: int = -1, shape: float = 0) -> Array:
    """J = diag(1 - exp(y))."""
    return (1 - xp.exp(y)) * g
