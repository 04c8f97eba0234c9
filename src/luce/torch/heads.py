"""Last layers that are trained with a margin between the classes.

Each is `head(features, target)`, features (N, D) and class ids (N,) to logits (N, K) for the cross-entropy of softmax.
The target only lowers its own logit; without one the logits are those of the test, plain or a scale times cosines.
`head.linear()` has the weights (K, D) and the bias (K,) that give the test's logits, of features of norm 1 where
`head.unit` is set: what a model file keeps.
t is the angle between the features of a row and the weights of a class, c its cosine. Halves work on norms and
margins in float32. Nothing is divided by a norm of 0: its cosine is 0, and gradients stay finite.
"""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor, nn

from luce.arrays import not_negative, positive
from luce.torch.margins import (
    LARGEST_MULTIPLE,
    Annealing,
    between,
    check_rows,
    new_weight,
    norm,
    of_target,
    of_wider_angle,
    psi,
    quotient,
    unit,
    whole,
    with_target,
)

LARGE_MARGIN_ANNEALING = Annealing()
SPHEREFACE_ANNEALING = Annealing(gamma=0.12, power=1.0, floor=5.0)


class LinearHead(nn.Module):
    """The plain last layer, features @ weight.T + bias, with the interface of the others.

    Args:
        n_features: D.
        n_classes: K.
        bias: add a number for each class.

    >>> LinearHead(64, 10)(torch.zeros(2, 64)).shape
    torch.Size([2, 10])
    """

    unit = False

    def __init__(self, n_features: int, n_classes: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = new_weight("LinearHead", n_features, n_classes)
        self.bias = nn.Parameter(torch.zeros(n_classes)) if bias else None

    def forward(self, features: Tensor, target: Tensor | None = None) -> Tensor:
        """Logits (N, K) of features (N, D); the target is checked and changes nothing."""
        check_rows("LinearHead", features, target, self.weight)
        return nn.functional.linear(features, self.weight, self.bias)

    def linear(self) -> tuple[Tensor, Tensor]:
        """Weights (K, D) and bias (K,) of the test's logits."""
        return self.weight, torch.zeros_like(self.weight[:, 0]) if self.bias is None else self.bias


class LargeMargin(nn.Module):
    """L-Softmax: the angle to the target's class counts m times. Liu et al. 2016, arXiv 1612.02295.

    The target's logit is |w| |x| psi(t) with psi(t) = (-1)^k cos(m t) - 2 k for t in [k pi / m, (k + 1) pi / m], which
    falls from 1 to 1 - 2 m; cos(m t) is Chebyshev's polynomial of c, so no arc cosine is taken and psi is smooth in c.
    Test logits are features @ weight.T; there is no bias. Each call with a target in training mode is a step of the
    annealing, counted in the buffer `steps`.

    Args:
        n_features: D.
        n_classes: K.
        margin: m, a whole number from 1 (none) to 4.
        annealing: how the margin comes in, or within how many steps; None for the whole margin at once, which may not
            converge.
    """

    steps: Tensor

    unit = False

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        *,
        margin: int = 2,
        annealing: Annealing | int | None = LARGE_MARGIN_ANNEALING,
    ) -> None:
        super().__init__()
        self.weight = new_weight("LargeMargin", n_features, n_classes)
        self.margin = whole("LargeMargin", "margin", margin, 1, LARGEST_MULTIPLE)
        self.annealing = Annealing.over(annealing) if isinstance(annealing, int) else annealing
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor, target: Tensor | None = None) -> Tensor:
        """Logits (N, K) of features (N, D), with the margin where class ids (N,) are given."""
        check_rows("LargeMargin", features, target, self.weight)
        logits = features @ self.weight.T
        if target is None:
            return logits
        length = norm(features) * norm(self.weight[target.long()])
        plain = of_target(logits, target)
        lowered = length * psi(quotient(plain, length), self.margin)
        return with_target(logits, target, _annealed(self, plain, lowered))

    def linear(self) -> tuple[Tensor, Tensor]:
        """Weights (K, D) and bias (K,) of the test's logits."""
        return self.weight, torch.zeros_like(self.weight[:, 0])


class SphereFace(nn.Module):
    """A-Softmax: L-Softmax with weights of norm 1. Liu et al. 2017, arXiv 1704.08063.

    Logits are |x| c, the target's |x| psi(t), see `LargeMargin`. The gradient is that of the formula; the authors' code
    rescales it. Each call with a target in training mode is a step of the annealing, counted in the buffer `steps`.

    Args:
        n_features: D.
        n_classes: K.
        margin: m, a whole number from 1 (none) to 4.
        annealing: how the margin comes in, as in the authors' code, or within how many steps; None for the whole
            margin at once.
    """

    steps: Tensor

    unit = False

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        *,
        margin: int = 4,
        annealing: Annealing | int | None = SPHEREFACE_ANNEALING,
    ) -> None:
        super().__init__()
        self.weight = new_weight("SphereFace", n_features, n_classes)
        self.margin = whole("SphereFace", "margin", margin, 1, LARGEST_MULTIPLE)
        self.annealing = Annealing.over(annealing) if isinstance(annealing, int) else annealing
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor, target: Tensor | None = None) -> Tensor:
        """Logits (N, K) of features (N, D), with the margin where class ids (N,) are given."""
        check_rows("SphereFace", features, target, self.weight)
        logits = features @ unit(self.weight).T
        if target is None:
            return logits
        length = norm(features)
        plain = of_target(logits, target)
        lowered = length * psi(quotient(plain, length), self.margin)
        return with_target(logits, target, _annealed(self, plain, lowered))

    def linear(self) -> tuple[Tensor, Tensor]:
        """Weights (K, D) and bias (K,) of the test's logits."""
        return unit(self.weight), torch.zeros_like(self.weight[:, 0])


class CosFace(nn.Module):
    """CosFace, or AM-Softmax: a margin off the target's cosine. Wang et al. 2018, arXiv 1801.09414 and 1801.05599.

    Logits are scale * c, the target's scale * (c - margin).

    Args:
        n_features: D.
        n_classes: K.
        scale: of the cosines, positive; the papers take 30 and 64.
        margin: in cosines, from 0 to 2, which is as far as two can be apart.
    """

    unit = True

    def __init__(self, n_features: int, n_classes: int, *, scale: float = 30.0, margin: float = 0.35) -> None:
        super().__init__()
        self.weight = new_weight("CosFace", n_features, n_classes)
        self.scale = positive("CosFace", "scale", scale)
        self.margin = between("CosFace", "margin", margin, 2.0, "2, the largest difference of cosines")

    def forward(self, features: Tensor, target: Tensor | None = None) -> Tensor:
        """Logits (N, K) of features (N, D), with the margin where class ids (N,) are given."""
        check_rows("CosFace", features, target, self.weight)
        cosines = unit(features) @ unit(self.weight).T
        if target is not None:
            cosines = with_target(cosines, target, of_target(cosines, target) - self.margin)
        return self.scale * cosines

    def linear(self) -> tuple[Tensor, Tensor]:
        """Weights (K, D) and bias (K,) of the test's logits."""
        return self.scale * unit(self.weight), torch.zeros_like(self.weight[:, 0])


class ArcFace(nn.Module):
    """ArcFace: a margin on the target's angle. Deng et al. 2019, arXiv 1801.07698.

    Logits are scale * c, the target's scale * cos(t + margin), computed as c cos(margin) - sqrt(1 - c^2) sin(margin).
    Past t + margin = pi, where the cosine would rise again, it goes on falling as scale * (c - margin sin(margin)).
    The gradient is that of the formula, sin(t + margin) / sin(t) in c (the authors' code leaves that factor out), where
    1 - c^2 is held at 1e-12 in float64 and 1e-7 in float32: so it is finite, and cos(margin) at c = 1.

    Args:
        n_features: D.
        n_classes: K.
        scale: of the cosines, positive.
        margin: in radians, from 0 to pi / 2, beyond which the target's logit would not be monotone.
    """

    unit = True

    def __init__(self, n_features: int, n_classes: int, *, scale: float = 64.0, margin: float = 0.5) -> None:
        super().__init__()
        self.weight = new_weight("ArcFace", n_features, n_classes)
        self.scale = positive("ArcFace", "scale", scale)
        self.margin = between("ArcFace", "margin", margin, math.pi / 2, "pi / 2 (radians)")

    def forward(self, features: Tensor, target: Tensor | None = None) -> Tensor:
        """Logits (N, K) of features (N, D), with the margin where class ids (N,) are given."""
        check_rows("ArcFace", features, target, self.weight)
        cosines = unit(features) @ unit(self.weight).T
        if target is not None:
            cosines = with_target(cosines, target, of_wider_angle(of_target(cosines, target), self.margin))
        return self.scale * cosines

    def linear(self) -> tuple[Tensor, Tensor]:
        """Weights (K, D) and bias (K,) of the test's logits."""
        return self.scale * unit(self.weight), torch.zeros_like(self.weight[:, 0])


class EnsembleMargin(nn.Module):
    """EM-Softmax: several heads with a soft margin that are kept different. Wang et al. 2018, arXiv 1805.03922.

    The objective is `loss`: the sum of the members' cross-entropies, each with the margin off the target's logit, and
    `penalty`. The prediction is the mean of the members' logits, which is what `forward` gives, with the margin where
    there is a target. The cross-entropy of that mean is below the mean of the members' and its gradient is the same for
    every member, so members trained on it alone differ by their start and the penalty only.

    The penalty is the Hilbert-Schmidt independence criterion with the linear kernel, |W_u^T H W_v|^2 / (K - 1)^2 with
    H = I - 1 / K; kernel and weighting are this module's choice, and may not be the paper's. It grows with the fourth
    power of the weights' size, so a large `diversity` keeps them small too.

    Args:
        n_features: D.
        n_classes: K, at least 2.
        n_heads: V members, at least 2.
        margin: in logits, not negative.
        diversity: how much the penalty counts, not negative.
    """

    unit = False

    def __init__(
        self, n_features: int, n_classes: int, *, n_heads: int = 3, margin: float = 0.5, diversity: float = 1e-3
    ) -> None:
        super().__init__()
        members = whole("EnsembleMargin", "n_heads", n_heads, 2)
        self.weight = new_weight(
            "EnsembleMargin", n_features, whole("EnsembleMargin", "n_classes", n_classes, 2), members
        )
        self.margin = not_negative("EnsembleMargin", "margin", margin)
        self.diversity = not_negative("EnsembleMargin", "diversity", diversity)

    def forward(self, features: Tensor, target: Tensor | None = None) -> Tensor:
        """Mean (N, K) of the members' logits of features (N, D), with the margin where class ids (N,) are given."""
        check_rows("EnsembleMargin", features, target, self.weight)
        logits = features @ self.weight.mean(0).T
        return logits if target is None else with_target(logits, target, of_target(logits, target) - self.margin)

    def linear(self) -> tuple[Tensor, Tensor]:
        """Weights (K, D) and bias (K,) of the test's logits."""
        weight = self.weight.mean(0)
        return weight, torch.zeros_like(weight[:, 0])

    def loss(self, features: Tensor, target: Tensor) -> Tensor:
        """The objective: the members' cross-entropies with margin, each a mean over rows, summed, and the penalty."""
        check_rows("EnsembleMargin", features, target, self.weight)
        total = self.penalty()
        for weight in self.weight:
            logits = features @ weight.T
            lowered = with_target(logits, target, of_target(logits, target) - self.margin)
            total = total + nn.functional.cross_entropy(lowered, target.long())
        return total

    def penalty(self) -> Tensor:
        """How alike the members are: the criterion of each pair, summed, times `diversity`."""
        centred = self.weight - self.weight.mean(1, keepdim=True)
        k, d = self.weight.shape[1:]
        if k <= d:  # the same number from the smaller products
            grams = centred @ centred.mT
            pairs = [(grams[u] * grams[v]).sum() for u, v in combinations(range(len(grams)), 2)]
        else:
            pairs = [(a.T @ b).square().sum() for a, b in combinations(centred, 2)]
        return self.diversity * torch.stack(pairs).sum() / (k - 1) ** 2


HEADS: dict[str, type[nn.Module]] = {
    "linear": LinearHead,
    "large_margin": LargeMargin,
    "sphereface": SphereFace,
    "cosface": CosFace,
    "arcface": ArcFace,
    "ensemble_margin": EnsembleMargin,
}


def _annealed(head: LargeMargin | SphereFace, plain: Tensor, lowered: Tensor) -> Tensor:
    """The target's logit at the head's step, which is counted in training."""
    mixed = lowered if head.annealing is None else head.annealing.mixed(plain, lowered, head.steps)
    if head.training:
        head.steps += 1
    return mixed
