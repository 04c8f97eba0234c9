"""How often a module is right under attack, and whether that figure can be believed.

An attack that follows the gradient of a loss fails on a module whose gradients are of no use, robust or not: with
large logits, or a low temperature, softmax is 1 to the last bit and the gradient of its cross-entropy exactly 0. So
each attack is run with several losses, some of which no temperature can change, and a picture counts as right only if
none of them succeeded. What else tells masked gradients is checked after Athalye et al. 2018, arXiv 1802.00420.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from luce.metrics import Estimate, wilson
from luce.torch.attack import Loss, entropy, fgsm, gradient, is_right, margin, noise, pgd, scaled_entropy

Method = Literal["fgsm", "pgd"]
Progress = Callable[[str, int, int], None]
Attack = Callable[[Tensor, Tensor, torch.Generator], Tensor]

_NAIVE = ("temperature 1", "the trained temperature")
_BATCH_PIXELS = 1 << 20
_MOST_PICTURES = 256  # of a batch
_HEIGHTS = {"a sharp temperature": 12.0, "a soft temperature": 6.0}  # see scaled_entropy; 6 to 20 attack best, measured
# Shares of the pictures that are a sign of masked gradients where more of them, beyond chance, ...
_FLAT = 0.01  # have no gradient
_BEHIND = 0.05  # withstand a naive loss and not another one
_FEW = 0.02  # withstand gradients and not noise, or many steps and not one
_LEFT = 0.05  # are right where every pixel may become anything
UNBOUNDED = "PGD, the margin, eps 1"


@dataclass(frozen=True, slots=True)
class Variant:
    """One attack by itself.

    Attributes:
        name: method and loss.
        accuracy: under it.
        flat: share of the pictures, of those right without attack, whose gradient is exactly 0; None without gradients.
    """

    name: str
    accuracy: Estimate
    flat: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A picture that an attack has made wrong.

    Attributes:
        before: (H, W, C).
        after: (H, W, C) float32.
    """

    before: Tensor
    after: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Robustness:
    """What attacks say about a module.

    Attributes:
        n: pictures.
        clean: accuracy without attack.
        attacked: accuracy where every variant counts: right is what no variant got wrong.
        variants: each attack by itself; the last one may change every pixel into anything, does not count for
            `attacked`, and leaves no picture right unless gradients are masked.
        signs: of masked gradients, each a sentence; with any, accuracy under attack may be lower than found.
        examples: the first pictures that were made wrong.
    """

    n: int
    clean: Estimate
    attacked: Estimate
    variants: tuple[Variant, ...]
    signs: tuple[str, ...]
    examples: tuple[Example, ...]

    def to_dict(self) -> dict[str, Any]:
        """The figures for JSON; accuracies also with `_low` and `_high`."""

        def figures(name: str, estimate: Estimate) -> dict[str, float]:
            return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}

        variants = [{"name": v.name, **figures("accuracy", v.accuracy), "no_gradient": v.flat} for v in self.variants]
        return {
            "n": self.n,
            **figures("accuracy", self.clean),
            **figures("accuracy_attacked", self.attacked),
            "masked": list(self.signs),
            "attacks": variants,
        }


def robustness(
    model: nn.Module,
    pictures: Tensor,
    target: Tensor,
    eps: float,
    *,
    method: Method = "pgd",
    temperature: float = 1.0,
    steps: int = 20,
    step: float | None = None,
    restarts: int = 2,
    seed: int = 0,
    keep: int = 0,
    progress: Progress | None = None,
) -> Robustness:
    """Attack a module in several ways and say how often it stays right.

    Args:
        model: pictures (N, H, W, C), 0 … 255, to logits (N, K); in evaluation mode.
        pictures: to attack, in any dtype.
        target: (N,) int64 class ids.
        eps: greatest change of a pixel, a share of its range in (0, 1].
        method: "fgsm", or "pgd", which has every FGSM as well.
        temperature: the trained one: probabilities are softmax(logits / temperature).
        steps: of PGD.
        step: of PGD, by default 2.5 eps / steps.
        restarts: random starts of PGD.
        seed: of the random starts and the noise.
        keep: how many examples are wanted.
        progress: called with (stage, done, total), each attack on each picture being one.

    Raises:
        TypeError, ValueError: an argument is out of range.
    """
    if method not in ("fgsm", "pgd"):
        raise ValueError(f"robustness: method must be fgsm or pgd, got {method!r}")
    if not len(pictures):
        raise ValueError("robustness: needs at least one picture")
    batches = _batches(pictures)
    losses = _losses(temperature)
    attacks = _attacks(model, losses, method, eps, steps, step, restarts)
    clean = torch.cat([is_right(model, pictures[rows], target[rows]) for rows in batches])
    right = {name: clean.clone() for name in attacks}
    flat = {name: torch.zeros_like(clean) for name in losses}
    examples: list[Example] = []
    done, total = 0, len(attacks) * len(pictures)
    progress = progress or (lambda *_: None)
    progress("Attacking", done, total)
    for number, batch in enumerate(batches):
        rows = batch[clean[batch]]
        fooled: dict[int, Example] = {}
        for kind, (name, attack) in enumerate(attacks.items()):
            if len(rows):
                changed = attack(pictures[rows], target[rows], _generator(seed, number, kind))
                right[name][rows] = found = is_right(model, changed, target[rows])
                if name != UNBOUNDED:
                    fooled |= {
                        int(rows[i]): Example(pictures[rows[i]], changed[i]) for i in (~found).nonzero()[:keep, 0]
                    }
            done += len(batch)
            progress("Attacking", done, total)
        examples += [fooled[row] for row in sorted(fooled)]
        for name, loss in losses.items():
            flat[name][rows] = _has_no_gradient(model, pictures[rows], target[rows], loss)
    shares = {name: int(rows.sum()) / max(1, int(clean.sum())) for name, rows in flat.items()}
    return Robustness(
        len(pictures),
        _share(clean),
        _share(torch.stack([r for name, r in right.items() if name != UNBOUNDED]).all(0)),
        tuple(Variant(name, _share(r), shares.get(name.partition(", ")[2])) for name, r in right.items()),
        tuple(_signs(right, flat, method.upper())),
        tuple(examples[:keep]),
    )


def _batches(pictures: Tensor) -> tuple[Tensor, ...]:
    size = max(1, min(_MOST_PICTURES, _BATCH_PIXELS // (pictures.shape[1] * pictures.shape[2])))
    return torch.split(torch.arange(len(pictures)), size)


def _has_no_gradient(model: nn.Module, pictures: Tensor, target: Tensor, loss: Loss) -> Tensor:
    """(N,) whether the gradient is exactly 0."""
    if not len(pictures):
        return torch.zeros(0, dtype=torch.bool)
    return ~gradient(model, pictures, target, loss)[0].flatten(1).any(1)


def _losses(temperature: float) -> dict[str, Loss]:
    """The losses by name: at temperature 1 and at the trained one, which is naive; then those that no scale changes."""
    losses: dict[str, Loss] = {_NAIVE[0]: entropy}
    if temperature != 1:
        losses[_NAIVE[1]] = partial(entropy, temperature=temperature)
    losses |= {name: partial(scaled_entropy, height=height) for name, height in _HEIGHTS.items()}
    return losses | {"the margin": margin}


def _attacks(
    model: nn.Module,
    losses: Mapping[str, Loss],
    method: Method,
    eps: float,
    steps: int,
    step: float | None,
    restarts: int,
) -> dict[str, Attack]:
    def by_sign(loss: Loss) -> Attack:
        return lambda x, y, _: fgsm(model, x, y, eps, loss=loss)

    def by_steps(loss: Loss) -> Attack:
        return lambda x, y, generator: pgd(
            model, x, y, eps, steps=steps, step=step, restarts=restarts, loss=loss, generator=generator
        )

    attacks: dict[str, Attack] = {"noise": lambda x, _, generator: noise(x, eps, generator)}
    attacks |= {f"FGSM, {name}": by_sign(loss) for name, loss in losses.items()}
    if method == "pgd":
        attacks |= {f"PGD, {name}": by_steps(loss) for name, loss in losses.items()}
    attacks[UNBOUNDED] = lambda x, y, generator: pgd(model, x, y, 1.0, loss=margin, generator=generator)
    return attacks


def _signs(right: Mapping[str, Tensor], flat: Mapping[str, Tensor], main: str) -> list[str]:
    """Sentences about what looks like masked gradients; `main` is the method of the attack."""
    by_gradient = {name: right[f"{main}, {name}"] for name in flat}
    strongest = min(by_gradient.values(), key=lambda r: int(r.sum()))
    found = [(flat[name], _FLAT, f"with {name} the gradient is exactly 0 for {{}} of the pictures") for name in flat]
    for name in _NAIVE:
        if name in flat:
            missed = by_gradient[name] & ~strongest
            found.append(
                (missed, _BEHIND, f"{main} with {name} fails on {{}} of the pictures where another loss succeeds")
            )
    for name in flat:
        lost = by_gradient[name] & ~right[f"FGSM, {name}"]
        found.append((lost, _FEW, f"with {name} one step succeeds on {{}} of the pictures where many steps fail"))
    chance = torch.stack(list(by_gradient.values())).all(0) & ~right["noise"]
    found.append((chance, _FEW, "noise succeeds on {} of the pictures where gradients fail"))
    found.append((right[UNBOUNDED], _LEFT, "{} of the pictures stay right where every pixel may become anything"))
    signs = []
    for rows, most, sentence in found:
        share = _share(rows)
        if share.low > most:
            signs.append(sentence.format(f"{100 * share.value:.0f} %"))
    return signs


def _share(right: Tensor) -> Estimate:
    hits, n = int(right.sum()), len(right)
    return Estimate(hits / n, *wilson(hits, n))


def _generator(seed: int, batch: int, kind: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, batch, kind]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & 0x7FFFFFFFFFFFFFFF)
