"""Model files back into torch: the same logits and probabilities for every network, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

import luce
from luce import ImageClassifier, model_file, seal
from luce.backbones import open_session, run
from luce.card import Card
from luce.errors import ModelError
from luce.images import Preparation
from luce.model_file import Golden
from luce.torch import HEADS, load_network
from luce.torch.export import to_backbone
from luce.torch.fit import fit
from luce.torch.fold import fold_norms
from luce.torch.load import probabilities
from luce.torch.networks import NETWORKS
from luce.torch.recipe import Recipe
from luce.torch.spec import network_from
from luce.torch.trainer import Classifier
from luce.training import Options

SIDE = 16


def pictures(n: int, side: int = SIDE, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (n, side, side, channels), np.uint8)


def drawn(network: str, head: str = "linear") -> Classifier:
    """A classifier with weights and statistics as after a training, all of them different."""
    torch.manual_seed(0)
    trunk = network_from(network, 3, SIDE, SIDE)
    model = Classifier(trunk, 4, torch.tensor([90.0, 100.0, 110.0]), torch.tensor([50.0, 60.0, 70.0]), head)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(std=0.1)  # type: ignore[union-attr]  # it has running statistics
            norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
        model.head.weight.normal_()
    return model.eval()


def file_of(model: Classifier, **recipe: Any) -> ImageClassifier:
    """The model file of a classifier, as `luce train --network` makes it."""
    backbone = to_backbone(model, "network:test", Preparation(SIDE, SIDE))
    weight, bias = (part.detach().numpy() for part in model.head.linear())
    scale = np.abs(run(open_session(backbone.graph), pictures(8))[0] @ weight.T).max() / 5  # probabilities that differ
    described = {"name": backbone.name, "sha256": "", "licence": "", "n_features": backbone.n_features}
    card = Card(
        classes=tuple("abcd"),
        preparation=backbone.preparation,
        backbone=described,
        temperature=float(1.5 * scale),
        calibration={"method": "none", "note": None},
        training={"network": Recipe(**recipe).record()},
    )
    plain = ImageClassifier.from_bytes(model_file.build(backbone.graph, weight, bias, card))
    pixels = pictures(2)
    golden = [Golden(one, p) for one, p in zip(pixels, plain.run(pixels)[1], strict=True)]
    return ImageClassifier.from_bytes(model_file.build(backbone.graph, weight, bias, card, golden))


def check_agreement(network: nn.Module, classifier: ImageClassifier, pixels: NDArray[np.uint8]) -> None:
    logits, expected = classifier.run(np.repeat(pixels, 3 // pixels.shape[3], axis=3))
    with torch.no_grad():
        found = network(torch.from_numpy(pixels))
    assert np.ptp(expected, axis=0).max() > 0.02  # a network that sees nothing would agree as well
    assert np.abs(found.numpy() - logits).max() <= 1e-4 * np.abs(logits).max()
    assert np.abs(probabilities(found, classifier.card).numpy() - expected).max() <= 1e-5


@pytest.mark.parametrize("network", [*NETWORKS, "resnet:depth=20,base=4", "vit:attention=linear,pool=class"])
def test_every_network_comes_back(network: str, tmp_path: Path) -> None:
    model = drawn(network)
    classifier = file_of(model, network=network)
    classifier.save(tmp_path / "m.onnx")
    again = load_network(tmp_path / "m.onnx")
    assert not again.training
    check_agreement(again, classifier, pictures(6))
    folded = fold_norms(model).state_dict()
    kept = {name for name in folded if not name.endswith("noise_weight")}  # only training has noise
    assert all(torch.equal(again.state_dict()[name], folded[name]) for name in kept)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_comes_back(head: str) -> None:
    classifier = file_of(drawn("cnn:width_factor=0.25", head), network="cnn:width_factor=0.25", head=head)
    check_agreement(load_network(classifier), classifier, pictures(6))


def test_weights_that_are_equal_or_zero_come_back() -> None:
    """An untrained transformer: norms that are alike are written once, biases of 0 not at all."""
    trunk = network_from("vit", 3, SIDE, SIDE)
    model = Classifier(trunk, 4, torch.full((3,), 100.0), torch.full((3,), 50.0)).eval()
    nn.init.normal_(model.head.weight)
    classifier = file_of(model, network="vit")
    check_agreement(load_network(classifier), classifier, pictures(6))


def test_folded_norms_compute_the_same() -> None:
    model = drawn("inception")
    folded = fold_norms(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    x = torch.from_numpy(pictures(4))
    with torch.no_grad():
        expected, found = model(x), folded(x)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_mean_with_the_mirror_image_comes_back() -> None:
    trunk = network_from("cnn:width_factor=0.25", 3, SIDE, SIDE)
    mean, deviation = torch.full((3,), 100.0), torch.full((3,), 50.0)
    model = Classifier(trunk, 4, mean, deviation, mirror=True).eval()
    nn.init.normal_(model.head.weight)
    x = torch.from_numpy(pictures(6))
    with torch.no_grad():
        once = [trunk(model.normalised(view)) for view in (x, x.flip(2))]
        expected = model.head((once[0] + once[1]) / 2)
    assert (once[0] - once[1]).abs().max() > 0.01
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model(x.flip(2)), expected)
    classifier = file_of(model, network="cnn:width_factor=0.25", mirror=True)
    check_agreement(load_network(classifier), classifier, pictures(6))
    torch.testing.assert_close(model.train().features(x), trunk(model.normalised(x)))  # training sees one at a time


PRIOR: dict[str, Any] = {"class_weight": {"3": 4.0}, "prior": "uniform"}


@pytest.mark.parametrize(
    ("link", "options"),
    [
        (luce.links.SoftMargin(margin=0.3, temperature=2.0), PRIOR),
        (luce.links.Taylor(degree=4, temperature=2.0), PRIOR),
        (luce.links.Spherical(), {}),
        (luce.links.Sparsemax(temperature=0.5), {}),
        (luce.links.Entmax(alpha=1.25), {}),
    ],
    ids=repr,
)
def test_a_trained_file_comes_back(link: luce.links.Link, options: dict[str, Any]) -> None:
    """Scaled for its link, moved to another prior, divided by a fitted temperature."""
    recipe = Recipe(network="cnn:width_factor=0.25", epochs=4, link=link)
    classifier = fit("digits", Options(n_threads=1, **options), recipe=recipe).classifier
    network = load_network(classifier)
    assert len(network.mean) == 1
    check_agreement(network, classifier, pictures(6, 8, 1))


@pytest.mark.parametrize(("backbone", "channels"), [("none", 1), ("none", 3), ("efficientnet-lite0", 3)])
def test_a_linear_head_comes_back(backbone: str, channels: int) -> None:
    x, y = load_digits(return_X_y=True)
    grey = (x[:60].reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
    coloured = grey.repeat(3, 3) // np.array([1, 2, 3], np.uint8)
    classifier = luce.train((coloured if channels == 3 else grey, y[:60]), backbone=backbone)
    network = load_network(classifier)
    assert len(network.mean) == channels
    side = classifier.card.preparation.height
    logits, expected = classifier.run(np.repeat(pictures(3, side, channels), 3 // channels, axis=3))
    with torch.no_grad():
        found = network(torch.from_numpy(pictures(3, side, channels)))
    assert np.abs(found.numpy() - logits).max() <= 1e-4 * np.abs(logits).max()
    assert np.abs(probabilities(found, classifier.card).numpy() - expected).max() <= 1e-4


def changed(classifier: ImageClassifier, **changes: Any) -> ImageClassifier:
    return replace(classifier, card=replace(classifier.card, **changes))


def test_what_cannot_be_built_is_refused(tmp_path: Path) -> None:
    classifier = file_of(drawn("cnn:width_factor=0.25"), network="cnn:width_factor=0.25")
    foreign = changed(classifier, backbone={**classifier.card.backbone, "name": "hf:owner/repo"}, training={})
    with pytest.raises(ModelError, match=r"its backbone 'hf:owner/repo' is not a network that Luce can build"):
        load_network(foreign)
    for wrong in ("cnn", "alexnet", "cnn:depth=3", None):
        with pytest.raises(ModelError, match=r"its weights do not fit its network"):
            load_network(changed(classifier, training={"network": {"network": wrong}}))
    with pytest.raises(ModelError, match=r"m\.onnx: cannot be read"):
        load_network(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("named", "name", "message"),
    [
        ("", "", "an older Luce wrote it, without the names of its weights"),
        ("trunk.body.6.0.weight", "trunk.other", "as a torch module it gives probabilities that differ by"),
        ("trunk.body.6.0.weight", "trunk.body.0.0.weight", "its weights do not fit its network"),
    ],
)
def test_a_file_whose_weights_are_not_found_is_refused(tmp_path: Path, named: str, name: str, message: str) -> None:
    content = file_of(drawn("cnn:width_factor=0.25"), network="cnn:width_factor=0.25").data
    model = onnx.load_model_from_string(content[: -len(seal.seal(b""))])
    hits = [tensor for tensor in model.graph.initializer if tensor.doc_string and named in tensor.doc_string]
    assert hits
    for tensor in hits:
        tensor.doc_string = name
    path = tmp_path / "m.onnx"
    path.write_bytes(seal.seal(model.SerializeToString()))
    with pytest.raises(ModelError, match=rf"m\.onnx: {message}"):
        load_network(path)
