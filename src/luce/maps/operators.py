"""The operators behind the family on torch tensors.

On the CPU they run the native kernels, elsewhere the formulas. First and second derivatives are in torch's own
functions, so that `torch.compile`, `torch.func.grad` and `vmap` see through them; forward-mode derivatives are not
offered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from luce.arrays import rows_of_numbers
from luce.maps.formulas import alive, by_formula, choose, entmax_slope, entmax_vjp, pull_back, softmax_slope, widened
from luce.maps.map import MAPS
from luce.maps.map import apply as apply_to_numpy

Tensor = Any
NEAR_ONE = 1e-4  # alpha nearer to 1 has the slope at 1: the general formula cancels


def _run(x: Tensor, shape: float, name: str, axis: int, temperature: float) -> Tensor:
    if x.device.type != "cpu":
        return by_formula(torch, MAPS[name], x / temperature, axis, shape).contiguous()
    array = widened(torch, x.detach()).numpy()
    result = np.ascontiguousarray(apply_to_numpy(MAPS[name], array, axis, temperature=temperature, shape=shape))
    return torch.from_numpy(result).to(x.dtype)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.arguments = inputs
    ctx.save_for_backward(x, output)


def _backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    x, y = ctx.saved_tensors
    shape, name, axis, temperature = ctx.arguments
    y_, z, g_ = widened(torch, y), widened(torch, x) / temperature, widened(torch, g)
    dz = pull_back(torch, MAPS[name], y_, z, g_, axis, shape)
    return (dz / temperature).to(x.dtype), None, None, None, None


def _run_entmax(x: Tensor, alpha: Tensor, name: str, axis: int, temperature: float) -> Tensor:
    if x.device.type != "cpu":
        return by_formula(torch, MAPS[name], x / temperature, axis, alpha).contiguous()
    alphas = rows_of_numbers("entmax", "alpha", alpha.detach().double().numpy(), tuple(x.shape), axis % x.ndim, least=1)
    rows = widened(torch, x.detach()).movedim(axis, -1).contiguous()
    p = np.empty_like(rows.numpy().reshape(-1, rows.shape[-1]))
    apply_to_numpy(MAPS[name], rows.numpy().reshape(p.shape), -1, temperature=temperature, out=p, shapes=alphas)
    return torch.from_numpy(p.reshape(rows.shape)).movedim(-1, axis).contiguous().to(x.dtype)


def _remember_entmax(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, alpha, *ctx.arguments = inputs
    ctx.save_for_backward(x, alpha, output)


def _backward_entmax(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    x, alpha, y = ctx.saved_tensors
    name, axis, temperature = ctx.arguments
    y_, z, g_, a = y.double(), x.double() / temperature, g.double(), alpha.double()
    near = a - 1 < NEAR_ONE

    def by_alpha(y: Tensor, z: Tensor, g: Tensor) -> Tensor:
        general = entmax_slope(torch, y, axis, choose(torch, near, 2.0, a))
        return g * torch.where(near, softmax_slope(torch, y, axis), general)

    dz = alive(torch, MAPS[name], y_, z, g_, axis, lambda y, z, g: entmax_vjp(torch, y, z, g, axis, a))
    da = alive(torch, MAPS[name], y_, z, g_, axis, by_alpha).sum_to_size(alpha.shape)
    return (dz / temperature).to(x.dtype), da.to(alpha.dtype), None, None, None


def _over_batch(info: Any, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]) -> list[Any]:
    """Arguments with the batch first; the axis counts from the end and stays."""
    n = arguments[0].ndim - (in_dims[0] is not None)
    moved = []
    for argument, place in zip(arguments, in_dims, strict=True):
        if not isinstance(argument, torch.Tensor):
            moved.append(argument)
        elif place is None:  # the same for the whole batch
            moved.append(argument.expand(info.batch_size, *argument.shape) if argument.ndim == n else argument)
        else:  # a batch of smaller tensors has its missing axes made up
            first = argument.movedim(place, 0)
            moved.append(first.reshape(first.shape[0], *(1,) * (n + 1 - first.ndim), *first.shape[1:]))
    return moved


def _differentiable(
    name: str, schema: str, run: Callable[..., Tensor], remember: Callable[..., None], backward: Callable[..., Any]
) -> Callable[..., Tensor]:
    """Register an operator; what is returned calls it and is known to autograd, `torch.compile` and `torch.func`."""
    definition = torch.library.custom_op(f"luce::{name}", run, mutates_args=(), schema=schema)
    definition.register_fake(lambda x, *_: torch.empty_like(x, memory_format=torch.contiguous_format))
    operator = getattr(torch.ops.luce, name).default

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(x: Any, shape: Any, name: str, axis: int, temperature: float) -> Any:
            return operator(x, shape, name, axis, temperature)  # torch.compile takes the first of *inputs for ctx

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            remember(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return backward(ctx, g)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
            return apply(*_over_batch(info, in_dims, arguments)), 0

    apply: Callable[..., Tensor] = Differentiable.apply
    return apply


apply_map = _differentiable(
    "map",
    "(Tensor x, float shape, str name, int axis, float temperature) -> Tensor",
    _run,
    _remember,
    _backward,
)
apply_entmax = _differentiable(
    "entmax",
    "(Tensor x, Tensor alpha, str name, int axis, float temperature) -> Tensor",
    _run_entmax,
    _remember_entmax,
    _backward_entmax,
)
