"""Attacks on a torch module: pictures changed by at most eps in each pixel so that the module gets them wrong.

A module takes pictures (N, H, W, C), 0 … 255, and gives logits (N, K). `eps` and `step` are shares of that range, such
as 2 / 255. Attacked pictures are float32, stay within 0 … 255, and are not rounded to whole pixel values. Sources:
FGSM, Goodfellow et al. 2015, arXiv 1412.6572; PGD, Madry et al. 2018, arXiv 1706.06083; the loss on margins, Carlini &
Wagner 2017, arXiv 1608.04644.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from luce.arrays import positive
from luce.torch.margins import whole

WHITE = 255.0
_LEAST = 1e-30  # temperature: in float32 neither it nor its inverse is 0 or infinite
Loss = Callable[[Tensor, Tensor], Tensor]  # logits (N, K) and target (N,) to (N,): what an attack makes large


def entropy(logits: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """The cross-entropy (N,) of softmax(logits / temperature).

    Where the softmax is 1 for the target to the last bit its gradient is 0, and an attack by it gets nowhere.
    """
    return functional.cross_entropy(logits / temperature, target, reduction="none")


def scaled_entropy(logits: Tensor, target: Tensor, height: float) -> Tensor:
    """The cross-entropy (N,) at a temperature for each picture: its highest logit is `height` above the mean of all.

    What the logits are multiplied by changes nothing.
    """
    above = (logits.amax(1, keepdim=True) - logits.mean(1, keepdim=True)).detach()
    return functional.cross_entropy(logits / (above / height).clamp(min=_LEAST), target, reduction="none")


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """The highest logit of another class minus the target's: its gradient does not depend on a temperature."""
    own = functional.one_hot(target, logits.shape[1]).bool()
    return logits.masked_fill(own, -torch.inf).amax(1) - logits[own]


def gradient(model: nn.Module, pictures: Tensor, target: Tensor, loss: Loss = entropy) -> tuple[Tensor, Tensor]:
    """The gradient of the loss with respect to the pictures, 0 where it overflows, and the logits (N, K)."""
    pixels = pictures.detach().float().requires_grad_()
    with torch.enable_grad():
        logits = model(pixels)
        (slope,) = torch.autograd.grad(loss(logits, target).sum(), pixels)
    return slope.nan_to_num(0.0), logits.detach()


def fgsm(model: nn.Module, pictures: Tensor, target: Tensor, eps: float, *, loss: Loss = entropy) -> Tensor:
    """The fast gradient sign method: one step of eps in the direction of the gradient's signs.

    Args:
        model: in evaluation mode.
        pictures: (N, H, W, C), 0 … 255 in any dtype.
        target: (N,) int64 class ids.
        eps: greatest change of a pixel, in (0, 1].
        loss: what is made large.

    Returns:
        The attacked pictures (N, H, W, C) float32.

    Raises:
        ValueError: eps is out of range.
    """
    _check(eps)
    slope, _ = gradient(model, pictures, target, loss)
    return (pictures.float() + WHITE * eps * slope.sign()).clamp(0, WHITE)


def pgd(
    model: nn.Module,
    pictures: Tensor,
    target: Tensor,
    eps: float,
    *,
    steps: int = 20,
    step: float | None = None,
    restarts: int = 1,
    loss: Loss = entropy,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Projected gradient descent: steps along the gradient's signs, each brought back into the ball around the picture.

    Every start is a random picture of the ball. A picture that is wrong is left as it is.

    Args:
        model: in evaluation mode.
        pictures: (N, H, W, C), 0 … 255 in any dtype.
        target: (N,) int64 class ids.
        eps: greatest change of a pixel, in (0, 1].
        steps: of each start.
        step: how far a step changes a pixel; by default 2.5 eps / steps.
        restarts: how many starts are tried on a picture that is still right.
        loss: what is made large.
        generator: of the starts.

    Returns:
        The attacked pictures (N, H, W, C) float32: wrong ones where any were found, else those of the last start.

    Raises:
        TypeError, ValueError: an argument is out of range.
    """
    _check(eps)
    whole("pgd", "steps", steps, 1)
    whole("pgd", "restarts", restarts, 1)
    size = WHITE * (2.5 * eps / steps if step is None else positive("pgd", "step", step))
    middle = pictures.float()
    low, high = (middle - WHITE * eps).clamp(min=0), (middle + WHITE * eps).clamp(max=WHITE)
    attacked, left = middle.clone(), torch.arange(len(middle))
    for _ in range(restarts):
        share = torch.rand(middle.shape, generator=generator)
        attacked[left] = (low + share * (high - low))[left]
        rows = left
        for _ in range(steps):
            slope, logits = gradient(model, attacked[rows], target[rows], loss)
            right = logits.argmax(1) == target[rows]
            rows, slope = rows[right], slope[right]
            if not len(rows):
                break
            attacked[rows] = (attacked[rows] + size * slope.sign()).clamp(low[rows], high[rows])
        left = left[is_right(model, attacked[left], target[left])]
        if not len(left):
            break
    return attacked


def noise(pictures: Tensor, eps: float, generator: torch.Generator | None = None) -> Tensor:
    """Every pixel up or down by eps, at random: what needs no gradient and no knowledge of the module."""
    _check(eps)
    sign = torch.randint(0, 2, pictures.shape, generator=generator) * 2 - 1
    return (pictures.float() + WHITE * eps * sign).clamp(0, WHITE)


def is_right(model: nn.Module, pictures: Tensor, target: Tensor) -> Tensor:
    """(N,) whether the highest logit is the target's."""
    with torch.no_grad():
        found: Tensor = model(pictures.float()).argmax(1) == target
    return found


def _check(eps: float) -> None:
    if not 0 < eps <= 1:
        raise ValueError(
            f"attack: eps must lie in (0, 1], a share of the range of a pixel such as 2 / 255; got {eps!r}"
        )
