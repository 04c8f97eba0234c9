"""How a network is trained: every choice in one frozen value, with defaults that suit small and middling pictures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from luce.links import Link, Softmax
from luce.links.parse import split_spec
from luce.torch.augment import Augment

Optimizer = Literal["adamw", "sgd"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained.

    Attributes:
        network: a name of `NETWORKS`, with options as in "cnn:width_factor=2".
        head: the last layer, a name of `HEADS`, with options as in "arcface:margin=0.3". One with a margin is trained
            for the softmax and takes class ids only.
        link: whose loss is minimised; its temperature divides the logits in training.
        epochs: passes over the pictures.
        optimizer: "adamw" (Loshchilov & Hutter 2019, arXiv 1711.05101) or "sgd" with Nesterov's momentum 0.9. The
            learning rate follows one cycle: up over the first quarter, down to nothing (Smith & Topin 2018, arXiv
            1708.07120).
        learning_rate: the highest one.
        trunk_rate: the learning rate of all but the last layer, as a share of that: 1 from scratch, less for weights
            that are good already.
        weight_decay: of matrices and filters; biases and norms have none.
        batch_size: pictures of a step.
        label_smoothing: share of each target that is spread evenly.
        augment: how pictures are varied.
        average: half-life in steps of the weights' running average, as a share of an epoch; 0 for none. The averaged
            weights are what is measured and saved.
        blend: share of the trained weights in those that are measured and saved, the rest being the weights that the
            training began with: between two good networks lies a better one (Wortsman et al. 2022, arXiv 2109.01903). 1
            from scratch, where the first weights are good for nothing.
        mirror: measure and serve with the mean of the features of each picture and its mirror image: somewhat more
            often right, for twice the time of a prediction.
        patience: stop when so many epochs in a row have brought nothing better on the validation pictures; 0: never.
            Under one cycle the last epochs are the best ones, so this is for stopping what goes nowhere.
        bfloat16: products in bfloat16 where the processor has instructions for them.
    """

    network: str = "cnn"
    head: str = "linear"
    link: Link = field(default_factory=Softmax)
    epochs: int = 10
    optimizer: Optimizer = "adamw"
    learning_rate: float = 3e-3
    trunk_rate: float = 1.0
    weight_decay: float = 0.02
    batch_size: int = 128
    label_smoothing: float = 0.0
    augment: Augment = field(default_factory=Augment)
    average: float = 0.25
    blend: float = 1.0
    mirror: bool = False
    patience: int = 0
    bfloat16: bool = True

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 2), ("patience", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < low:
                raise ValueError(f"Recipe: {name} must be a whole number, at least {low}, got {value!r}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"Recipe: learning_rate must be positive, got {self.learning_rate!r}")
        if not 0 < self.trunk_rate <= 1:
            raise ValueError(f"Recipe: trunk_rate must be above 0 and at most 1, got {self.trunk_rate!r}")
        if not 0 < self.blend <= 1:
            raise ValueError(f"Recipe: blend must be above 0 and at most 1, got {self.blend!r}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"Recipe: weight_decay must be at least 0, got {self.weight_decay!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"Recipe: label_smoothing must be at least 0 and below 1, got {self.label_smoothing!r}")
        if not (math.isfinite(self.average) and self.average >= 0):
            raise ValueError(f"Recipe: average must be at least 0, got {self.average!r}")
        mixed = self.augment.mixup or self.augment.cutmix or self.label_smoothing
        if split_spec("head", self.head)[0] != "linear" and (mixed or self.link != Softmax()):
            raise ValueError(
                f"Recipe: the head {self.head!r} is trained with the plain softmax and class ids: leave out link, "
                "label_smoothing, mixup and cutmix"
            )
        if self.optimizer not in ("adamw", "sgd"):
            raise ValueError(f"Recipe: optimizer must be 'adamw' or 'sgd', got {self.optimizer!r}")

    def record(self) -> dict[str, Any]:
        """As JSON's kinds of values: what a model file and a checkpoint say of it."""
        return {**asdict(self), "link": repr(self.link)}


def parse_settings(text: str) -> dict[str, Any]:
    """Fields of a recipe and of its augmentation from text, as the command line takes them.

    Returns:
        Values by field; those of the augmentation below "augment", by theirs.

    Raises:
        ValueError: an unknown field, or a value of another kind; the message lists what there is.

    >>> parse_settings("learning_rate=0.01,batch_size=64,mixup=0.2")
    {'learning_rate': 0.01, 'batch_size': 64, 'augment': {'mixup': 0.2}}
    """
    own = {f.name: f.default for f in fields(Recipe) if f.name not in _APART}
    varied = {f.name: f.default for f in fields(Augment)}
    settings: dict[str, Any] = {}
    augment: dict[str, Any] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if key not in own and key not in varied:
            raise ValueError(f"recipe: takes {', '.join((*own, *varied))}, each as NAME=VALUE, got {part!r}")
        into, default = (settings, own[key]) if key in own else (augment, varied[key])
        into[key] = _value(key, value.strip(), default)
    return settings | ({"augment": augment} if augment else {})


_APART = ("network", "head", "link", "epochs", "augment")  # options of their own, or not in one word


def _value(key: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[text.lower()]
        return type(default)(text)
    except (ValueError, KeyError):
        kind = {bool: "yes or no", int: "a whole number", float: "a number"}[type(default)]
        raise ValueError(f"recipe: {key} must be {kind}, got {text!r}") from None
