"""Links and their losses as torch modules.

`LinkProbabilities` runs the operators of the functions on arrays. `LinkLoss` is a link's own loss: the fused native
`loss_and_grad`, which reads the logits once and has the gradient when backward asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from luce.arrays import number
from luce.links import Link, Softmax
from luce.links.fused import checked_target
from luce.losses.cross_entropy import Reduction
from luce.losses.tensors import reduced
from luce.maps import foreign
from luce.maps.formulas import widened
from luce.torch.plain import plain_losses


class LinkProbabilities(nn.Module):
    """Logits (..., K) to the probabilities (..., K) of a link, or to their logarithms.

    Any device and any floating dtype, which the result keeps; first and second derivatives, `torch.compile` and
    `torch.func` as in the functions on arrays. A margin counts in training only and is not here.

    Args:
        link: such as `luce.links.Softmax(temperature=2.0)`.
        log: give logarithms; sparse links have -inf among them, whose gradient is NaN.

    Raises:
        TypeError: `link` is no link.

    >>> LinkProbabilities(Softmax())(torch.zeros(1, 4))
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """

    def __init__(self, link: Link, *, log: bool = False) -> None:
        super().__init__()
        self.link = checked_link("LinkProbabilities", link)
        self.log = log

    def forward(self, logits: Tensor) -> Tensor:
        """Probabilities (..., K), or their logarithms, of logits (..., K)."""
        function: Any = self.link.log_probabilities if self.log else self.link.probabilities
        result: Tensor = function(logits)
        return result

    def extra_repr(self) -> str:
        """What stands between the brackets of the module's name."""
        return f"{self.link}, log={self.log}"


class LinkLoss(nn.Module):
    """A link's own loss of logits (N, K), in nats: margins count, and sparse links have Fenchel and Young's loss.

    `Softmax` is left to `torch.nn.functional.cross_entropy`, which is faster: with it this is
    `torch.nn.CrossEntropyLoss`, its corners included (`luce.cross_entropy` defines them: infinite logits, no rows). The
    other links run the native `loss_and_grad`, loss and gradient together, without a second derivative or `torch.func`,
    and `torch.compile` breaks its graph there. Tensors on other devices, and any with `plain=True`, take torch's own
    operations, which have all of that and are slower: see `plain_losses`. No rows, or weights of 0 only, have a mean
    of 0.

    One rule puts class weights w and label smoothing before any link: a target q (an id is a one-hot q, smoothing
    spreads its share evenly over the classes with finite logits) counts q.w times as the target q * w / q.w. For
    softmax that is what torch does. The mean divides by the sum of the weights of the rows' classes for ids, by N for
    distributions.

    float32 and float64 are computed as they are, halves in float32 and rounded once; the gradient has the dtype of the
    logits.

    Args:
        link: instead of `Softmax()`; its temperature divides the logits.
        weight: (K,) class weights, not negative: a buffer, so that `state_dict` has them.
        label_smoothing: share of each target, in [0, 1], that is spread evenly.
        reduction: "none" for (N,), "mean" or "sum" for a number.
        plain: torch's own operations on the CPU too.

    Raises:
        TypeError, ValueError: the message names the argument.

    >>> from luce.links import SoftMargin
    >>> loss = LinkLoss(SoftMargin(margin=0.5), label_smoothing=0.1)
    >>> loss(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([2]))
    tensor(0.6518)
    """

    weight: Tensor | None

    def __init__(
        self,
        link: Link | None = None,
        *,
        weight: Any = None,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
        plain: bool = False,
    ) -> None:
        super().__init__()
        self.link = checked_link("LinkLoss", Softmax() if link is None else link)
        if not 0 <= number("LinkLoss", "label_smoothing", label_smoothing) <= 1:
            raise ValueError(f"LinkLoss: label_smoothing must lie in [0, 1], got {label_smoothing}")
        if str(reduction) not in ("none", "mean", "sum"):
            raise ValueError(f"LinkLoss: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
        self.label_smoothing = label_smoothing
        self.reduction = reduction
        self.plain = plain
        self.register_buffer("weight", None if weight is None else _class_weight(weight))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of logits (N, K), in their dtype: (N,), or a number.

        Args:
            logits: (N, K), floating, or integers, which become the default dtype.
            target: (N,) class ids of any integer dtype, or (N, K) distributions, floating, without a gradient.

        Raises:
            TypeError, ValueError: the message names the argument, and the row of a wrong class id.
        """
        given = foreign.floating(torch, "LinkLoss", logits)
        z: Tensor = widened(torch, given)
        weight = None if self.weight is None else self.weight.to(z)
        _check(z, target, weight)
        q = target.to(z.dtype) if target.is_floating_point() else target.long()
        if isinstance(self.link, Softmax):
            z, smoothing = z if self.link.temperature == 1 else z / self.link.temperature, self.label_smoothing
            by_torch = nn.functional.cross_entropy(z, q, weight, reduction=self.reduction, label_smoothing=smoothing)
            return by_torch.to(given.dtype)
        divisor = z.new_tensor(float(len(z))) if weight is None or q.ndim == 2 else weight[q].sum()
        if self.label_smoothing:
            q = _smoothed(z, q, self.label_smoothing)
        if weight is None:
            losses = self._losses(z, q)
        else:
            mass, q = _weighted(q, weight)
            losses = torch.where(mass == 0, 0.0, self._losses(z, q) * mass)
        loss: Tensor = reduced(losses, divisor, self.reduction, given.dtype)
        return loss

    def _losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss (N,) of each row, by the way that suits."""
        way = plain_losses if self.plain or logits.device.type != "cpu" else _native_losses
        return way(logits, target, self.link)

    def extra_repr(self) -> str:
        """What stands between the brackets of the module's name."""
        return f"{self.link}, label_smoothing={self.label_smoothing}, reduction={self.reduction!r}"


def checked_link(name: str, link: Link) -> Link:
    """Check that a value is a link.

    Raises:
        TypeError: it is not.
    """
    if isinstance(link, type) or not hasattr(link, "loss_and_grad"):
        raise TypeError(f"{name}: link must be a link, such as luce.links.Softmax(), got {link!r}")
    return link


def _class_weight(weight: Any) -> Tensor:
    values: Tensor = foreign.floating(torch, "LinkLoss: weight", torch.as_tensor(weight)).detach().clone()
    if values.ndim != 1 or not bool(((values >= 0) & torch.isfinite(values)).all()):
        raise ValueError(f"LinkLoss: weight must be one number for each class, none negative or infinite, got {values}")
    return values


def _check(logits: Tensor, target: Tensor, weight: Tensor | None) -> None:
    """Check shapes everywhere, and values where looking at them costs nothing."""
    if logits.ndim != 2:
        raise ValueError(f"LinkLoss: logits must have shape (rows, classes), got {tuple(logits.shape)}")
    n, k = logits.shape
    if weight is not None and len(weight) != k:
        raise ValueError(f"LinkLoss: weight must be {k} numbers, one for each class, got {len(weight)}")
    if target.requires_grad:
        raise ValueError("LinkLoss: target must need no gradient, since none is computed; pass target.detach()")
    if foreign.visible(torch, target, logits) and target.device.type == "cpu":
        values = widened(torch, target).numpy()
        checked_target("LinkLoss", values, n, k, values.dtype)


def _smoothed(logits: Tensor, target: Tensor, share: float) -> Tensor:
    """Targets as distributions (N, K), a share of each spread evenly over the finite logits."""
    finite = torch.isfinite(logits.detach()).to(logits.dtype)
    even = finite.mul_(share / finite.sum(1, keepdim=True).clamp(min=1))
    if target.ndim == 1:
        return even.scatter_add_(1, target[:, None], even.new_full((len(even), 1), 1 - share))
    return (1 - share) * target + target.sum(1, keepdim=True) * even


def _weighted(target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """How often each row counts (N,), and the target that it then has."""
    if target.ndim == 1:
        return weight[target], target
    mass = target @ weight
    counts = (mass > 0)[:, None]
    return mass, torch.where(counts, target * weight / torch.where(counts, mass[:, None], 1.0), target)


class _RowLosses(torch.autograd.Function):
    """Losses whose gradient is computed with them and waits for backward."""

    @staticmethod
    def forward(ctx: Any, logits: Any, target: Any, link: Any) -> Any:
        loss, grad = link.loss_and_grad(logits, target)
        ctx.save_for_backward(grad)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Any) -> Any:
        (grad,) = ctx.saved_tensors
        return grad * g[:, None], None, None


def _row_losses(logits: Tensor, target: Tensor, link: Link) -> Tensor:
    """Loss (N,) of each row."""
    apply: Callable[..., Tensor] = _RowLosses.apply
    return apply(logits, target, link)


_outside_graphs: Callable[..., Any] = torch.compiler.disable
_native_losses: Callable[[Tensor, Tensor, Link], Tensor] = _outside_graphs(_row_losses)
