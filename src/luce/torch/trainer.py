"""A network trained from pictures in memory, so that a run that was cut off ends with the same weights, bit for bit.

Whatever is random in a step (the order of the pictures, how they are varied, dropout, gates' noise) is drawn from a
seed made of the run's seed, the epoch and the step. So a checkpoint needs to hold no random state, and a step can be
done again exactly, on the same machine with the same number of threads.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from luce.torch.augment import augment, mix
from luce.torch.checkpoint import Checkpoint
from luce.torch.heads import LinearHead
from luce.torch.margins import unit
from luce.torch.modules import LinkLoss
from luce.torch.recipe import Recipe
from luce.torch.spec import head_from, network_from

_WARM = 0.25  # share of the steps in which the learning rate rises
_FIRST = 0.04  # of the highest learning rate, at the first step
_MOMENTUM = 0.9
_HEAD_SCALE = 0.01  # of the last layer's first weights: polynomial links need small logits to start from
_MEASURED = 512  # pictures of a batch that is measured, at most
_MEASURED_PIXELS = 1 << 21  # likewise
_LOOKED_AT = 2000  # pictures that first weights are taken from, at most
_SAVE_SECONDS = 30.0

OnStep = Callable[[int, int], None]
OnEpoch = Callable[[tuple[dict[str, float], ...]], None]


class Classifier(nn.Module):
    """Pixels to logits: normalisation, a trunk, a linear layer.

    Args:
        trunk: pictures (N, C, H, W) to features (N, `n_features`).
        n_classes: K.
        mean: (C,) of the pixels, 0 … 255.
        deviation: (C,) of the pixels.
        head: the last layer, a name of `HEADS` with its options.
        mirror: in evaluation, take the mean of the trunk's features of each picture and its mirror image.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        n_classes: int,
        mean: Tensor,
        deviation: Tensor,
        head: str = "linear",
        *,
        mirror: bool = False,
    ) -> None:
        super().__init__()
        self.trunk, self.mirror = trunk, mirror
        self.head: Any = head_from(head, int(trunk.n_features), n_classes)  # type: ignore[arg-type]  # nn.Module's attributes are untyped
        if isinstance(self.head, LinearHead):
            nn.init.normal_(self.head.weight, std=_HEAD_SCALE)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        for weight in self.parameters():
            if weight.ndim == 4:  # filters, in the order in memory that the pictures have
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    def features(self, pictures: Tensor) -> Tensor:
        """Features (N, D) of pictures (N, H, W, C), 0 … 255 in any dtype; of norm 1 where the head looks at angles."""
        x = self.normalised(pictures)
        features: Tensor = self.trunk(x)
        if self.mirror and not self.training:
            features = (features + self.trunk(x.flip(3))) / 2
        return unit(features) if self.head.unit else features

    def normalised(self, pictures: Tensor) -> Tensor:
        """Pixels (N, C, H, W) of mean 0 and deviation 1; channels are last in memory, as the kernels like it."""
        return ((pictures.float() - self.mean) / self.deviation).permute(0, 3, 1, 2)

    def forward(self, pictures: Tensor, target: Tensor | None = None) -> Tensor:
        """Logits (N, K) of pictures (N, H, W, C), with the head's margin where class ids (N,) are given."""
        logits: Tensor = self.head(self.features(pictures), target)
        return logits


def new_classifier(recipe: Recipe, pictures: Tensor, n_classes: int, seed: int) -> Classifier:
    """An untrained classifier for pictures (N, H, W, C) uint8, normalised by their own mean and deviation."""
    _, height, width, channels = pictures.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = network_from(recipe.network, channels, height, width)
        mean, deviation = (getattr(trunk, name, None) for name in ("pixel_mean", "pixel_std"))
        if mean is None or deviation is None:
            flat = pictures.reshape(-1, channels).double()
            mean, deviation = flat.mean(0), flat.std(0).clamp_(min=1.0)
        mean, deviation = (torch.as_tensor(v, dtype=torch.float32).expand(channels) for v in (mean, deviation))
        model = Classifier(trunk, n_classes, mean.clone(), deviation.clone(), recipe.head, mirror=recipe.mirror)
    look_at: Callable[[Tensor], None] | None = getattr(trunk, "look_at", None)
    if look_at is not None:  # it takes first weights from the pictures
        look_at(model.normalised(pictures[:: -(-len(pictures) // _LOOKED_AT)]))
    return model


@dataclass(slots=True)
class _Run:
    """What changes from step to step."""

    model: Classifier
    averaged: Classifier
    first: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    step: int = 0
    loss_sum: float = 0.0
    history: tuple[dict[str, float], ...] = ()


def train_network(
    pictures: Tensor,
    target: Tensor,
    n_classes: int,
    recipe: Recipe,
    *,
    seed: int = 0,
    head: tuple[Tensor, Tensor] | None = None,
    class_weight: Tensor | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    checkpoint: Checkpoint | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> Classifier:
    """Train a network from its first weights, or go on from a checkpoint.

    Args:
        pictures: (N, H, W, C) uint8.
        target: (N,) int64 class ids.
        n_classes: K.
        recipe: how.
        seed: of the weights, the order and everything else that is random.
        head: weights (K, D) and biases (K,) that the last layer begins with; by default small random ones.
        class_weight: (K,) of each class in the loss.
        validation: pictures and class ids to measure after each epoch.
        checkpoint: where the state is kept; if it holds one, training goes on from there.
        on_step: called with (steps done, steps in all) after each step.
        on_epoch: called after each epoch, and when a training goes on, with what is known of every epoch so far: its
            number, loss, accuracy on `validation`, seconds and pictures a second.

    Returns:
        The classifier with averaged weights, blended as the recipe says, in evaluation mode. It does not depend on
        `checkpoint` or on cuts.

    Raises:
        ValueError: fewer pictures than a batch norm needs, or a network that does not suit them.
        LuceError: the checkpoint belongs to another training or cannot be used.
    """
    if len(pictures) < 2:
        raise ValueError(f"train_network: needs at least 2 pictures, got {len(pictures)}")
    batch = min(recipe.batch_size, len(pictures))
    per_epoch = len(pictures) // batch
    total = per_epoch * recipe.epochs
    run = _begin(recipe, pictures, n_classes, seed, head)
    _restore(run, checkpoint)
    if run.history and on_epoch is not None:
        on_epoch(run.history)
    loss_of = LinkLoss(recipe.link, weight=class_weight, label_smoothing=recipe.label_smoothing)
    saved = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        while run.step < total and not _stalled(run.history, recipe.patience):
            epoch, first = divmod(run.step, per_epoch)
            began, order = time.monotonic(), _order(len(pictures), seed, epoch)
            run.model.train()
            for i in range(first, per_epoch):
                rows = order[i * batch : (i + 1) * batch]
                _step(run, pictures[rows], target[rows], recipe, loss_of, seed, run.step / total, per_epoch)
                if on_step is not None:
                    on_step(run.step, total)
                if checkpoint is not None and i + 1 < per_epoch and time.monotonic() - saved > _SAVE_SECONDS:
                    _save(run, checkpoint, recipe.epochs)
                    saved = time.monotonic()
            _end_epoch(run, recipe, epoch, per_epoch, (per_epoch - first) * batch, began, validation)
            if checkpoint is not None:
                _save(run, checkpoint, recipe.epochs)
                saved = time.monotonic()
            if on_epoch is not None:
                on_epoch(run.history)
    return _result(run, recipe)


def logits_of(model: Classifier, pictures: Tensor) -> Tensor:
    """Logits (N, K) float32 of pictures (N, H, W, C) in evaluation mode, without gradients."""
    model.eval()
    batch = min(max(_MEASURED_PIXELS // (pictures.shape[1] * pictures.shape[2]), 1), _MEASURED)
    with torch.no_grad():
        return torch.cat([model(pictures[i : i + batch]) for i in range(0, len(pictures), batch)])


def _begin(recipe: Recipe, pictures: Tensor, n_classes: int, seed: int, head: tuple[Tensor, Tensor] | None) -> _Run:
    model = new_classifier(recipe, pictures, n_classes, seed)
    if head is not None:
        model.head.load_state_dict({"weight": head[0], "bias": head[1]})
    first = copy.deepcopy(model.state_dict()) if recipe.blend < 1 else {}
    return _Run(model, copy.deepcopy(model), first, _optimizer(model, recipe))


def _optimizer(model: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = []
    for part, rate in ((model.trunk, recipe.trunk_rate), (model.head, 1.0)):
        trained = [p for p in part.parameters() if p.requires_grad]
        matrices, rest = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        groups.append({"params": matrices, "weight_decay": recipe.weight_decay, "rate": rate})
        groups.append({"params": rest, "weight_decay": 0.0, "rate": rate})
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=_MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _stalled(history: tuple[dict[str, float], ...], patience: int) -> bool:
    """Whether so many epochs in a row have brought nothing better on the validation pictures."""
    found = [line["accuracy"] for line in history if "accuracy" in line]
    return 0 < patience < len(found) and max(found[-patience:]) <= max(found[:-patience])


def _order(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=_generator(seed, epoch, 0))


def _generator(*numbers: int) -> torch.Generator:
    """A generator seeded by several numbers."""
    state = np.random.SeedSequence([n & 0xFFFFFFFFFFFFFFFF for n in numbers]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & 0x7FFFFFFFFFFFFFFF)


def one_cycle(share: float) -> float:
    """The learning rate as a share of the highest, when a share of the steps is done."""
    if share < _WARM:
        return _FIRST + (1 - _FIRST) * share / _WARM
    return 0.5 * (1 + math.cos(math.pi * (share - _WARM) / (1 - _WARM)))


def _step(
    run: _Run, pictures: Tensor, target: Tensor, recipe: Recipe, loss_of: nn.Module, seed: int, share: float, epoch: int
) -> None:
    """One step of the optimizer; `epoch` is the number of steps in one."""
    generator = _generator(seed, run.step, 1)
    torch.manual_seed(int(torch.randint(1 << 62, (), generator=generator)))  # for dropout and noisy gates
    varied = augment(pictures, recipe.augment, generator)
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.learning_rate * group["rate"] * one_cycle(share)
    if recipe.augment.mixup or recipe.augment.cutmix:
        one_hot = nn.functional.one_hot(target, len(run.model.head.linear()[1])).float()
        varied, target = mix(varied, one_hot, recipe.augment, generator)
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16 and has_bfloat16()):
        features = run.model.features(varied)
    loss = _loss(run.model.head, features.float(), target, loss_of)
    auxiliary: Callable[[], Tensor] | None = getattr(run.model.trunk, "auxiliary_loss", None)
    if auxiliary is not None:
        loss = loss + auxiliary()
    run.optimizer.zero_grad()
    torch.autograd.backward(loss)
    run.optimizer.step()
    run.step += 1
    run.loss_sum += float(loss.detach())
    half_life = recipe.average * epoch
    least = 1 - 0.5 ** (1 / half_life) if half_life > 0 else 1.0
    _average(run, max(least, 1 / run.step))


def _loss(head: Any, features: Tensor, target: Tensor, loss_of: nn.Module) -> Tensor:
    """The head's own objective where it has one, else the link's loss of its logits."""
    loss: Tensor
    if hasattr(head, "loss"):
        loss = head.loss(features, target)
    elif isinstance(head, LinearHead):
        loss = loss_of(head(features), target)
    else:
        loss = loss_of(head(features, target), target)
    return loss


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16 faster than in float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _average(run: _Run, share: float) -> None:
    """Move the averaged weights and statistics by a share towards the present ones."""
    with torch.no_grad():
        for mean, now in zip(run.averaged.state_dict().values(), run.model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, share)
            else:
                mean.copy_(now)


def _result(run: _Run, recipe: Recipe) -> Classifier:
    """What is measured and saved: the averaged weights, moved towards the first ones where the recipe says so."""
    if recipe.blend == 1:
        return run.averaged.eval()
    blended = copy.deepcopy(run.averaged)
    with torch.no_grad():
        for name, weight in blended.state_dict().items():
            if weight.is_floating_point():
                weight.lerp_(run.first[name], 1 - recipe.blend)
    return blended.eval()


def _end_epoch(
    run: _Run,
    recipe: Recipe,
    epoch: int,
    per_epoch: int,
    n_seen: int,
    began: float,
    validation: tuple[Tensor, Tensor] | None,
) -> None:
    seconds = time.monotonic() - began
    line = {
        "epoch": epoch + 1.0,
        "loss": run.loss_sum / per_epoch,
        "seconds": seconds,
        "rate": n_seen / max(seconds, 1e-9),
    }
    if validation is not None and len(validation[1]):
        found = logits_of(_result(run, recipe), validation[0]).argmax(1)
        line["accuracy"] = float((found == validation[1]).double().mean())
    run.loss_sum = 0.0
    run.history = (*run.history, line)


def _save(run: _Run, checkpoint: Checkpoint, epochs: int) -> None:
    checkpoint.save(
        {
            "model": run.model.state_dict(),
            "averaged": run.averaged.state_dict(),
            "first": run.first,
            "optimizer": run.optimizer.state_dict(),
            "step": run.step,
            "epochs": epochs,
            "loss_sum": run.loss_sum,
            "history": list(run.history),
        }
    )


def _restore(run: _Run, checkpoint: Checkpoint | None) -> None:
    state = None if checkpoint is None else checkpoint.load()
    if state is None:
        return
    run.model.load_state_dict(state["model"])
    run.averaged.load_state_dict(state["averaged"])
    run.first = state["first"]
    run.optimizer.load_state_dict(state["optimizer"])
    run.step, run.loss_sum = state["step"], state["loss_sum"]
    run.history = tuple(state["history"])
