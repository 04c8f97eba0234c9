"""The embedded backbone trained on: where it begins, what stays, cut off and resumed, exported, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from luce.backbones import open_session, run
from luce.classifier import ImageClassifier
from luce.cli import main
from luce.datasets import open_dataset
from luce.images import Preparation
from luce.links import Link, SoftMargin, Softmax, Taylor
from luce.torch.export import to_backbone
from luce.torch.finetune import NETWORK, embedded
from luce.torch.fit import fit, recipe_for
from luce.torch.networks import build_network
from luce.torch.pictures import held_back
from luce.torch.recipe import Recipe
from luce.torch.trainer import logits_of, new_classifier, train_network
from luce.training import Options
from luce.training.head import class_weights, fit_head, prior_shift
from luce.training.ready import make_ready
from tests.photos import draw_folder

QUICK = replace(recipe_for(("cat", "dog"), 20, grey=False, network=NETWORK, epochs=2), batch_size=8)
QUICK = replace(QUICK, augment=replace(QUICK.augment, side=32))


def silent(*_: object) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("photos"), {"blue": 10, "green": 8, "red": 6}, side=40)


def noise(n: int = 20, side: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (n, side, side, 3), dtype=torch.uint8, generator=generator)
    return pictures, torch.arange(n) % 3


def test_frozen_parts_and_single_channel_filters_stay_and_the_rest_learns() -> None:
    x, y = noise()
    recipe = replace(QUICK, epochs=1)
    trunk = train_network(x, y, 3, recipe).trunk
    before = build_network("efficientnet_lite0", 3, 40, 40, frozen=3)
    kept = {name for name, weight in before.named_parameters() if not weight.requires_grad}
    first = ("stem.", "stages.0.", "stages.1.")
    assert kept == {n for n, w in before.named_parameters() if n.startswith(first) or ".depthwise." in n}
    after = dict(trunk.named_parameters())
    assert {name for name, weight in before.named_parameters() if torch.equal(weight, after[name])} == kept


def test_frozen_norms_are_those_of_evaluation() -> None:
    x = noise(4, 48)[0].permute(0, 3, 1, 2) / 128.0 - 1
    with torch.no_grad():
        expected = build_network("efficientnet_lite0", 3, 48, 48).eval()(x)
        found = build_network("efficientnet_lite0", 3, 48, 48, frozen=0).train()(x)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    with pytest.raises(ValueError, match="frozen must be a whole number, from 0 to 8"):
        build_network("efficientnet_lite0", 3, 48, 48, frozen=9)


@pytest.mark.parametrize("link", [Softmax(), SoftMargin(margin=0.6, temperature=2.0)])
def test_it_begins_as_softmax_regression_on_the_backbone(photos: Path, link: Link) -> None:
    """A training that moves nothing ends there; classes weighted, to another prior."""
    options = Options(class_weight={"blue": 1.0, "green": 2.0, "red": 3.0}, prior="uniform", n_threads=1)
    said: list[str] = []
    recipe = replace(QUICK, epochs=1, learning_rate=1e-12, link=link)
    classifier = fit(photos, options, recipe=recipe, say=said.append).classifier
    ready = make_ready(open_dataset(photos), embedded(silent), options, silent, silent)
    held = held_back(ready, options.seed)
    data, features = ready.to_train.take(np.flatnonzero(~held)), ready.train_values[~held]
    head = fit_head(data, features, ready.units[~held], options, silent)
    shifts = [
        prior_shift(part, class_weights(part, options.class_weight)[part.labels], options.prior)
        for part in (data, ready.to_train)
    ]
    logits = head.logits(ready.test_values) * head.temperature.value + shifts[1] - shifts[0]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = classifier.predict_proba(ready.to_measure.sources)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    right = (head.logits(ready.train_values[held]) - shifts[0]).argmax(1) == ready.to_train.labels[held]
    assert any(text.startswith(f"Before the first epoch {right.mean():.2%} of") for text in said)


class Cut(Exception):
    """In place of a kill."""


def test_cut_off_and_resumed_it_gives_the_same_file(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luce.torch.trainer._SAVE_SECONDS", -1.0)  # after each step
    recipe, checkpoint, options = replace(QUICK, batch_size=5, blend=0.25), tmp_path / "state", Options(n_threads=1)
    whole = fit(photos, options, recipe=recipe).classifier
    steps: list[int] = []
    said: list[str] = []

    def resumed(*, resume: bool, cut: int) -> ImageClassifier:
        def progress(stage: str, done: int, total: int) -> None:
            if stage == "Training the network":
                assert total == 6
                steps.append(done)
                if done == cut:
                    raise Cut

        training = fit(
            photos, options, recipe=recipe, checkpoint=checkpoint, resume=resume, progress=progress, say=said.append
        )
        return training.classifier

    for resume, cut in ((False, 2), (True, 4)):  # its state was kept in an epoch, at the end of one
        with pytest.raises(Cut):
            resumed(resume=resume, cut=cut)
    assert resumed(resume=True, cut=0).data == whole.data
    assert steps == [1, 2, 2, 3, 4, 4, 5, 6]
    assert sum(text.startswith("Before the first epoch") for text in said) == 1


def test_the_exported_network_agrees_with_torch() -> None:
    x, y = noise()
    model = train_network(x, y, 3, QUICK)
    backbone = to_backbone(model, NETWORK, Preparation(40, 40))
    found = run(open_session(backbone.graph), x.numpy())[0]
    with torch.no_grad():
        expected = model.features(x).numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_trunk_learns_at_its_own_rate() -> None:
    x, y = noise(8)
    ends = []
    for rate in (1.0, 0.25):
        recipe = Recipe("cnn", optimizer="sgd", epochs=1, batch_size=8, trunk_rate=rate, average=0, bfloat16=False)
        ends.append(dict(train_network(x, y, 3, recipe).named_parameters()))
    start = dict(train_network(x, y, 3, replace(recipe, learning_rate=1e-30)).named_parameters())
    for name, weight in start.items():
        share = 0.25 if name.startswith("trunk.") else 1.0
        torch.testing.assert_close(ends[1][name] - weight, share * (ends[0][name] - weight), rtol=1e-2, atol=1e-6)
    with pytest.raises(ValueError, match="trunk_rate must be above 0"):
        Recipe(trunk_rate=0.0)


def test_the_result_lies_between_the_first_weights_and_the_trained_ones() -> None:
    x, y = noise(8)
    recipe = Recipe("cnn", epochs=2, batch_size=4, learning_rate=0.01)
    told: list[float] = []
    first, trained, between = (
        train_network(x, y, 3, how, validation=(x, y), on_epoch=lambda h: told.append(h[-1]["accuracy"]))
        for how in (replace(recipe, learning_rate=1e-30), recipe, replace(recipe, blend=0.25))
    )
    found = between.state_dict()
    for name, weight in trained.state_dict().items():
        if not name.endswith(("running_mean", "running_var")):  # those move without learning
            start = first.state_dict()[name]
            torch.testing.assert_close(found[name], start + (0.25 * (weight - start)).to(weight.dtype), msg=name)
    assert told[-1] == float((logits_of(between, x).argmax(1) == y).double().mean())
    fresh = new_classifier(recipe, x, 3, 0).state_dict()
    for name in (name for name in fresh if name.endswith(("running_mean", "running_var"))):
        torch.testing.assert_close(found[name], torch.lerp(fresh[name], trained.state_dict()[name], 0.25), msg=name)
    with pytest.raises(ValueError, match="blend must be above 0"):
        Recipe(blend=0.0)


@pytest.mark.parametrize(
    ("given", "blend"),
    [
        ({}, 0.5),
        ({"link": SoftMargin()}, 0.5),
        ({"link": Taylor()}, 1.0),
        ({"head": "arcface"}, 1.0),
        ({"blend": 0.8}, 0.8),
    ],
)
def test_a_last_layer_that_begins_at_random_is_not_blended(given: dict[str, Any], blend: float) -> None:
    assert recipe_for(("cat", "dog"), 500, grey=False, network=NETWORK, **given).blend == blend


def test_a_head_with_a_margin_is_trained_without_further_words(photos: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    words = ["--finetune", "--head", "arcface:margin=0.2", "--epochs", "1", "--threads", "1", "--no-report", "--quiet"]
    assert main(["train", str(photos), "-o", str(model), *words]) == 0
    assert main(["verify", str(model)]) == 0


def test_the_command_line_trains_it(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "m.onnx"
    words = ["--finetune", "--epochs", "1", "--backbone", "efficientnet-lite0", "--threads", "1", "--no-report"]
    assert main(["train", str(photos), "-o", str(model), *words]) == 0
    assert "Before the first epoch" in capsys.readouterr().err
    assert not model.with_suffix(".checkpoint").exists()
    assert main(["verify", str(model)]) == 0
    assert main(["evaluate", str(model), str(photos)]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network", "cnn"], "give one of them"),
        (["--backbone", "none"], "not none: leave --backbone or --finetune out"),
        (["--resume"], "name it with --output"),
        (["--link", "sigmoid"], "a model file holds one distribution"),
        (["--epochs", "0"], "epochs must be a whole number"),
    ],
)
def test_what_does_not_go_with_it_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["train", "digits", "--finetune", *words]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert told.count("\n") == 0


def test_without_torch_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("luce.cli.console.find_spec", lambda _name: None)
    assert main(["train", "digits", "--finetune"]) == 2
    assert "--finetune needs PyTorch, which is not installed: pip install 'luce[torch]'" in capsys.readouterr().err
