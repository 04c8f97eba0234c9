"""A model file back into torch: the module whose logits and probabilities are the file's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from luce import model_file
from luce.backbones.closed import parse
from luce.backbones.registry import EFFICIENTNET_LITE0
from luce.card import Card, reason
from luce.classifier import GOLDEN_TOLERANCE, ImageClassifier, load_classifier
from luce.errors import ModelError
from luce.heads import BIAS, SHIFT, WEIGHT, on_logits, takes_shift
from luce.links import Link
from luce.links.parse import split_spec
from luce.torch.export import named_weights
from luce.torch.fold import fold_norms
from luce.torch.heads import HEADS
from luce.torch.networks import build_network
from luce.torch.spec import network_from
from luce.torch.trainer import Classifier


class LogHead(nn.Module):
    """The last layer of a Taylor or spherical link: features to the logarithms of its probabilities.

    Args:
        scores: the linear layer.
        link: of the model file.
        shift: (K,) added to the logarithms, for other class shares.
    """

    unit = False
    shift: Tensor

    def __init__(self, scores: nn.Module, link: Link, shift: Tensor) -> None:
        super().__init__()
        self.scores, self.link = scores, link
        self.register_buffer("shift", shift)

    def forward(self, features: Tensor, target: Tensor | None = None) -> Tensor:
        """Logits (N, K) of features (N, D); a target changes nothing."""
        log_p: Any = self.link.log_probabilities(self.scores(features))
        logits: Tensor = (log_p + self.shift).log_softmax(-1)
        return logits


class Pixels(nn.Module):
    """No network: pictures (N, C, H, W) to their pixels (N, H * W * C), in the order of the model file."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, n_features)."""
        return x.permute(0, 2, 3, 1).flatten(1)


def load_network(model: str | os.PathLike[str] | ImageClassifier) -> Classifier:
    """The torch module of a model file, in evaluation mode.

    It takes prepared pictures (N, H, W, C), 0 … 255 in any dtype; C is 1 where the file uses the first channel only.
    `probabilities(logits, card)` makes the file's probabilities of its logits. Batch norms are folded into the
    convolutions, as in the file. What only training needs, such as the noise of gates, is not in a file and is 0.

    Args:
        model: a file that `luce train` wrote, or a classifier. Its features must be those of a network trained by
            `luce train --network`, of the embedded EfficientNet-Lite0, or the pixels.

    Raises:
        ModelError: the file cannot be used, its backbone is no torch module here, or the module that was built does
            not give the file's probabilities.
    """
    if isinstance(model, ImageClassifier):
        return _load(model)
    classifier = load_classifier(model)
    try:
        return _load(classifier)
    except ModelError as error:
        raise ModelError(f"{os.fspath(model)}: {error}") from None


def _load(classifier: ImageClassifier) -> Classifier:
    graph, card = parse(classifier.data).graph, classifier.card
    name = card.backbone["name"]
    if name == "none":
        network = _pixels(card)
    elif name == EFFICIENTNET_LITE0:
        network = _embedded(card)
    else:
        network = _trained(card, named_weights(graph))
    last = _head(graph)
    network.load_state_dict({key: last[key] for key in (WEIGHT, BIAS) if key in last}, strict=False)
    if takes_shift(card.link):
        network.head = LogHead(network.head, card.link, last.get(SHIFT, torch.zeros(len(card.classes))))
    worst = _difference(network, classifier)
    if not worst <= GOLDEN_TOLERANCE:
        raise ModelError(
            f"as a torch module it gives probabilities that differ by {worst:.2g} from the file's (allowed: "
            f"{GOLDEN_TOLERANCE:g}); if an older Luce wrote the file, train it again"
        )
    return network


def probabilities(logits: Tensor, card: Card) -> Tensor:
    """The model file's probabilities (N, K) of the module's logits (N, K)."""
    p: Any = on_logits(card.link).probabilities(logits / card.temperature)
    result: Tensor = p
    return result


def _pixels(card: Card) -> Classifier:
    n_features = card.backbone["n_features"]
    channels = n_features // (card.preparation.width * card.preparation.height)
    return Classifier(Pixels(n_features), len(card.classes), torch.zeros(channels), torch.ones(channels)).eval()


def _embedded(card: Card) -> Classifier:
    trunk: Any = build_network("efficientnet_lite0", 3, card.preparation.height, card.preparation.width)
    mean, deviation = (torch.full((3,), value) for value in (trunk.pixel_mean, trunk.pixel_std))
    return fold_norms(Classifier(trunk, len(card.classes), mean, deviation))


def _trained(card: Card, weights: Mapping[str, Tensor]) -> Classifier:
    """A network of `luce train --network` with the weights of the file, its last layer still new."""
    recipe, spec = card.training.get("network"), card.preparation
    if not isinstance(recipe, dict):
        raise ModelError(
            f"its backbone {card.backbone['name']!r} is not a network that Luce can build in torch: that takes a model "
            f"of luce train --network, or with --backbone {EFFICIENTNET_LITE0} or none"
        )
    if not {"mean", "deviation"} <= weights.keys():
        raise ModelError("an older Luce wrote it, without the names of its weights: train it again")
    mean, deviation = weights["mean"], weights["deviation"]
    try:
        with torch.random.fork_rng(devices=[]):
            trunk = network_from(recipe["network"], len(mean), spec.height, spec.width)
        mirror = bool(recipe.get("mirror", False))
        network = fold_norms(Classifier(trunk, len(card.classes), mean, deviation, mirror=mirror))
        trained_with: Any = HEADS[split_spec("head", recipe.get("head", "linear"))[0]]
        network.head.unit = trained_with.unit
        network.load_state_dict({key: weights.get(key, torch.zeros_like(v)) for key, v in network.state_dict().items()})
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"its weights do not fit its network {recipe.get('network')!r} ({reason(error)})") from None
    return network


def _head(graph: Any) -> dict[str, Tensor]:
    """The last layer, as entries of the module's state, and its shift."""
    from onnx import numpy_helper

    names = (WEIGHT, BIAS, SHIFT)
    found = {t.name: numpy_helper.to_array(t).T.copy() for t in graph.initializer if t.name in names}
    return {name: torch.from_numpy(numbers).float() for name, numbers in found.items()}


def _difference(network: Classifier, classifier: ImageClassifier) -> float:
    """The greatest difference between a probability of the module and of the file, on the file's own pictures."""
    spec = classifier.card.preparation
    golden = [vector.pixels for vector in model_file.golden_vectors(classifier.data, classifier.card)]
    noise = np.random.default_rng(0).integers(0, 256, (spec.height, spec.width, 3), np.uint8)
    pixels = np.stack(golden or [np.repeat(noise[..., :1], 3, axis=2)])
    expected = torch.from_numpy(classifier.run(pixels)[1])
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels)[..., : len(network.mean)])
    return float((probabilities(logits, classifier.card) - expected).abs().max())
