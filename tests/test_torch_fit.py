"""Networks trained on data sets: cut off and resumed, exported, measured, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import luce
from luce.cli import main
from luce.cli.console import print_metrics
from luce.errors import LuceError
from luce.evaluation import Evaluation
from luce.heads import is_sparse, written
from luce.images import Preparation
from luce.links import LINKS, Entmax, Link, Sigmoid, SoftMargin, Taylor, parse_link, softmax
from luce.report import evaluation_report
from luce.torch.augment import Augment, augment, mirrors
from luce.torch.budget import epochs_within
from luce.torch.checkpoint import Checkpoint, identity
from luce.torch.export import to_backbone
from luce.torch.fit import FROM_SCRATCH, fit, recipe_for
from luce.torch.log import json_lines
from luce.torch.recipe import Recipe
from luce.torch.trainer import Classifier, logits_of, one_cycle, train_network
from luce.training import Options

TURNED = Augment(shift=0.1, turn=10, zoom=0.1, flip=True, cutout=0.3)


def digits(n: int = 200, side: int = 16) -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    small = (x[:n].reshape(-1, 8, 8) * 15).astype(np.uint8)
    return torch.from_numpy(small.repeat(side // 8, 1).repeat(side // 8, 2)[..., None]), torch.from_numpy(y[:n])


def same(one: Classifier, other: Classifier) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return all(torch.equal(a[key], b[key]) for key in a)


class Cut(Exception):
    """In place of a kill."""


@pytest.mark.parametrize("network", ["cnn", "moe"])
@pytest.mark.parametrize("at", [7, 12])  # in the middle of an epoch, at the end of one
def test_a_training_that_was_cut_off_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str, at: int
) -> None:
    monkeypatch.setattr("luce.torch.trainer._SAVE_SECONDS", -1.0)  # after each step
    x, y = digits()
    recipe = Recipe(network=network, epochs=3, batch_size=32, augment=TURNED)
    whole = train_network(x, y, 10, recipe)
    keeper = Checkpoint(tmp_path / "state", identity(recipe, x, y, 0))

    def cut(done: int, total: int) -> None:
        assert total == 18
        if done == at:
            raise Cut

    with pytest.raises(Cut):
        train_network(x, y, 10, recipe, checkpoint=keeper, on_step=cut)
    steps: list[int] = []
    resumed = train_network(x, y, 10, recipe, checkpoint=keeper, on_step=lambda done, _: steps.append(done))
    assert steps == list(range(at, 19))
    assert same(resumed, whole)
    assert not same(train_network(x, y, 10, recipe, seed=1), whole)


@pytest.mark.parametrize("name", LINKS)
def test_every_link_trains(name: str) -> None:
    x, y = digits(400)
    losses: list[float] = []
    recipe = Recipe(link=LINKS[name](), epochs=4, batch_size=32)
    model = train_network(x, y, 10, recipe, on_epoch=lambda history: losses.append(history[-1]["loss"]))
    assert losses[-1] < 0.6 * losses[0]
    assert model.training is False
    assert (logits_of(model, x).argmax(1) == y).double().mean() > 0.5


@pytest.mark.parametrize("network", FROM_SCRATCH)
def test_an_exported_network_agrees_with_torch(network: str) -> None:
    x, y = digits(64)
    model = train_network(x, y, 10, Recipe(network=network, epochs=1, batch_size=32))
    backbone = to_backbone(model, network, Preparation(16, 16))
    from luce.backbones import open_session, run

    found = run(open_session(backbone.graph), x.expand(-1, -1, -1, 3).contiguous().numpy())[0]
    with torch.no_grad():
        expected = model.features(x).numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    plain = onnx.load_model_from_string(backbone.graph)
    del plain.graph.initializer[:]  # their bytes may spell anything
    assert b"/site-packages/" not in plain.SerializeToString()
    assert b".py" not in plain.SerializeToString()


def test_a_fit_gives_a_calibrated_model_file(tmp_path: Path) -> None:
    said: list[str] = []
    recipe = Recipe(epochs=6, batch_size=32, link=SoftMargin(margin=0.6, temperature=2.0))
    checkpoint, log = tmp_path / "state", tmp_path / "log"
    result = fit(
        "digits", Options(), recipe=recipe, checkpoint=checkpoint, listeners=[json_lines(log)], say=said.append
    )
    assert result.evaluation is not None
    assert result.evaluation.metrics.accuracy.value > 0.9
    assert result.classifier.card.calibration["method"] == "temperature"
    assert result.classifier.card.training["network"]["link"] == repr(recipe.link)
    assert checkpoint.exists()  # until the model is saved
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert sum(text.startswith("Epoch ") for text in said) == 6
    result.classifier.save(tmp_path / "model.onnx")
    assert main(["verify", str(tmp_path / "model.onnx")]) == 0
    again = luce.load(tmp_path / "model.onnx")
    assert again.classes == tuple("0123456789")


def trained(
    monkeypatch: pytest.MonkeyPatch,
    link: Link,
    options: Options = Options(),  # noqa: B008
) -> tuple[luce.ImageClassifier, Classifier, Evaluation]:
    """A model file of digits after an epoch, the network in torch that it holds, and what was measured."""
    models: list[Classifier] = []

    def keep(*arguments: Any, **named: Any) -> Classifier:
        models.append(train_network(*arguments, **named))
        return models[0]

    monkeypatch.setattr("luce.torch.fit.train_network", keep)
    x, y = load_digits(return_X_y=True)
    pictures, names = (x[:800].reshape(-1, 8, 8) * 15).astype(np.uint8), [str(digit) for digit in y[:800]]
    result = fit((pictures, names), replace(options, n_threads=1), recipe=Recipe(epochs=1, batch_size=16, link=link))
    assert result.evaluation is not None
    return result.classifier, models[0], result.evaluation


@pytest.mark.parametrize(
    "link",
    [*(kind(temperature=0.8) for kind in LINKS.values() if kind is not Sigmoid), Entmax(1.25)],  # type: ignore[call-arg]
    ids=repr,
)
def test_a_model_file_ends_in_any_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], link: Link
) -> None:
    classifier, model, evaluation = trained(monkeypatch, link)
    path = tmp_path / "model.onnx"
    classifier.save(path)
    again = luce.load(path)
    assert again.verify() < 1e-6
    assert again.card.calibration["method"] == "temperature"
    assert 0.05 < again.temperature < 20
    pixels = np.stack([np.asarray(picture) for picture in evaluation.data.pictures])
    z = logits_of(model, torch.from_numpy(pixels)[..., None]).double().numpy()
    if is_sparse(again.card.link):
        expected = np.asarray(link.probabilities(z / again.temperature))
        assert (expected == 0).any()
    else:
        expected = softmax(np.asarray(link.log_probabilities(z)), temperature=again.temperature)
    p = again.predict_proba(list(pixels))
    assert np.abs(p - expected).max() <= 1e-4
    assert np.abs(evaluation.probabilities - p).max() <= 1e-5
    assert (p.argmax(axis=1) == evaluation.target).mean() > 0.5
    result = again.evaluate(evaluation.data)
    measured = result.metrics
    assert measured.accuracy == evaluation.metrics.accuracy
    assert measured.brier.value == pytest.approx(evaluation.metrics.brier.value, abs=1e-6)
    assert (measured.n_zero > 0) == np.isinf(measured.nll.value) == (p[range(len(p)), evaluation.target] == 0).any()
    assert f"<bdi>{written(again.card.link)}</bdi>" in evaluation_report(again, result)
    print_metrics(measured, again.temperature, "pictures")
    assert main(["show", str(path)]) == 0
    told = capsys.readouterr().out
    assert told.count("NLL infinite") == told.count("NLL          infinite") == (measured.n_zero > 0)
    assert f"Link         {written(again.card.link)}" in told


def test_the_class_shares_of_a_polynomial_link_are_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {str(digit): 1.0 + digit for digit in range(10)}
    link = Taylor(degree=2)
    classifier, model, evaluation = trained(monkeypatch, link, Options(class_weight="balanced", prior=shares))
    pixels = np.stack([np.asarray(picture) for picture in evaluation.data.pictures])
    z = logits_of(model, torch.from_numpy(pixels)[..., None]).double().numpy()
    stated = np.array([shares[name] for name in classifier.classes])  # balanced weights: trained with equal shares
    expected = softmax(np.asarray(link.log_probabilities(z)) + np.log(stated), temperature=classifier.temperature)
    assert np.abs(classifier.predict_proba(list(pixels)) - expected).max() <= 1e-4


def test_weights_of_rows_are_no_class_shares_for_sparse_links(tmp_path: Path) -> None:
    from PIL import Image

    lines = ["path,label,weight"]
    for i in range(20):
        Image.fromarray(np.full((16, 16), 10 * i, np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i % 2]},{1 + i % 2}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="weights of rows"):
        fit(str(tmp_path / "t.csv"), recipe=Recipe(epochs=1, link=Entmax()))


def test_killed_in_the_command_line_and_resumed(tmp_path: Path) -> None:
    words = ["train", "digits", "--network", "cnn", "--epochs", "3", "--no-report", "--threads", "1", "-o"]
    one, other = tmp_path / "one.onnx", tmp_path / "other.onnx"
    assert main([*words, str(one), "--quiet"]) == 0
    log = tmp_path / "log"
    command = [sys.executable, "-m", "luce", *words, str(other), "--log", str(log)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Epoch 2"):  # its checkpoint is written before it is told
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not other.exists()
    assert main([*words, str(other), "--resume", "--log", str(log), "--quiet"]) == 0
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [1, 2, 3]
    assert one.read_bytes() == other.read_bytes()
    assert not other.with_suffix(".checkpoint").exists()


def test_nothing_is_lost_by_a_training_that_forgets_to_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, state = tmp_path / "m.onnx", tmp_path / "m.checkpoint"
    words = ["train", "digits", "--network", "cnn", "--epochs", "1", "--no-report", "-o", str(model)]

    def full(*_: object) -> None:
        raise LuceError("the disk is full")

    with monkeypatch.context() as during:
        during.setattr(luce.ImageClassifier, "save", full)
        assert main([*words, "--quiet"]) == 1
    kept = state.read_bytes()
    capsys.readouterr()
    assert main(words) == 2
    assert "m.checkpoint holds a training that was cut off: go on with --resume" in capsys.readouterr().err
    assert state.read_bytes() == kept
    threads = torch.get_num_threads()
    assert main([*words, "--resume"]) == 0  # nothing is left to train
    assert model.exists()
    assert not state.exists()
    assert torch.get_num_threads() == threads
    capsys.readouterr()
    assert main([*words, "--resume"]) == 0
    assert "to go on from: the training begins anew" in capsys.readouterr().err


def test_checkpoints_of_others_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    x, y = digits(64)
    recipe = Recipe(epochs=1)
    path = tmp_path / "state"
    train_network(x, y, 10, recipe, checkpoint=Checkpoint(path, identity(recipe, x, y, 0)))
    with pytest.raises(LuceError, match="of another training"):
        train_network(x, y, 10, recipe, seed=1, checkpoint=Checkpoint(path, identity(recipe, x, y, 1)))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(LuceError, match="damaged; delete it"):
        train_network(x, y, 10, recipe, checkpoint=Checkpoint(path, identity(recipe, x, y, 0)))


def test_pictures_are_varied_by_the_generator_alone() -> None:
    x = torch.randint(0, 256, (6, 12, 10, 3), dtype=torch.uint8)
    seeded = torch.Generator().manual_seed
    assert torch.equal(augment(x, Augment(), seeded(0)), x.float())
    one, other = augment(x, TURNED, seeded(0)), augment(x, TURNED, seeded(0))
    assert torch.equal(one, other)
    assert not torch.equal(one, augment(x, TURNED, seeded(1)))
    assert one.shape == x.shape
    shifted = augment(x, Augment(shift=0.2), seeded(0))
    assert all(set(a.unique().tolist()) <= set(b.unique().tolist()) for a, b in zip(shifted, x.float(), strict=True))
    flipped = augment(x, Augment(flip=True), seeded(3))
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(1)) for a, b in zip(flipped, x.float(), strict=True))
    assert mirrors(["cat", "dog"])
    assert not mirrors(["0", "1", "a"])
    assert not mirrors(["zero", "One"])


def test_a_random_part_lies_in_the_picture_and_has_the_side_that_is_wanted() -> None:
    ramp = torch.arange(0, 256, 4, dtype=torch.uint8)  # the column, times 4
    x = ramp.expand(40, 64, 64)[..., None].contiguous()
    for side in (0, 48):
        varied = augment(x, Augment(crop=0.5, side=side), torch.Generator().manual_seed(0))
        assert varied.shape == (40, side or 64, side or 64, 1)
        rows = varied[:, 0, :, 0]
        steps = rows.diff(dim=1)[:, 1:-1]  # all alike: no edge is drawn out
        torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), rtol=0, atol=1e-3)
        share = steps[:, 0] / 4 * (side or 64) / 64
        assert share.min() >= 0.5 - 1e-3
        assert share.max() <= 1 + 1e-3
        assert share.max() - share.min() > 0.3
        assert rows[:, 0].max() > 60  # some begin at the right
        assert rows[:, 0].min() < 20


def test_the_learning_rate_goes_up_and_down() -> None:
    rates = [one_cycle(share) for share in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(1.0)
    assert rates[0] < 0.05
    assert rates[-1] == pytest.approx(0.0)
    assert np.argmax(rates) == 25


def test_a_recipe_suits_the_data() -> None:
    few, many = recipe_for(("cat", "dog"), 500, grey=False), recipe_for(("0", "1"), 60_000, grey=True, epochs=3)
    assert few.epochs > many.epochs == 3
    assert few.batch_size < many.batch_size
    assert few.augment.flip
    assert not many.augment.flip
    short = recipe_for(("0", "1"), 60_000, grey=True, epochs=1)
    assert (short.batch_size, short.augment) == (64, Augment(shift=many.augment.shift / 2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs must be"),
        ({"batch_size": 1}, "batch_size must be"),
        ({"learning_rate": -1.0}, "learning_rate must be"),
        ({"weight_decay": float("nan")}, "weight_decay must be"),
        ({"label_smoothing": 1.0}, "label_smoothing must"),
        ({"average": -1.0}, "average must be"),
        ({"optimizer": "adam"}, "optimizer must be"),
    ],
)
def test_wrong_recipes_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**wrong)


@pytest.mark.parametrize("name", ["shift", "turn", "zoom", "cutout"])
def test_wrong_augmentations_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must lie in"):
        Augment(**{name: -0.1})  # type: ignore[arg-type]  # none of these names is the boolean one


def test_wrong_parts_are_named() -> None:
    with pytest.raises(ValueError, match="crop must be above 0 and at most 1, got 0"):
        Augment(crop=0.0)
    with pytest.raises(ValueError, match="side must be a whole number, at least 0, got -1"):
        Augment(side=-1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--link", "softmax"], "--link belongs to the training of a network"),
        (["--epochs", "3"], "--epochs belongs to"),
        (["--resume"], "--resume belongs to"),
        (["--network", "cnn", "--resume"], "name it with --output"),
        (["--network", "cnn", "--backbone", "none"], "give one of them"),
        (["--network", "alexnet"], "network: must be one of lenet, cnn"),
        (["--network", "efficientnet_lite0"], "network: must be one of lenet, cnn"),
        (["--network", "cnn", "--link", "sigmoid"], "gives each class a probability of its own"),
        (["--network", "cnn", "--link", "entmax", "--class-weight", "balanced"], "leave out class weights"),
        (["--network", "cnn", "--link", "sparsemax", "--prior", "uniform"], "cannot be corrected to other class"),
        (["--network", "cnn", "--link", "softmux"], "must be one of softmax, taylor"),
        (["--network", "cnn", "--link", "softmax:margin=1"], "softmax takes temperature=NUMBER"),
        (["--network", "cnn", "--link", "softmax:temperature=x"], "must be a number, got 'x'"),
        (["--network", "cnn", "--epochs", "0"], "epochs must be a whole number"),
        (["--network", "cnn", "--epochs", "2", "--minutes", "1"], "--minutes must be a positive number"),
        (["--network", "cnn", "--minutes", "0"], "--minutes must be a positive number"),
        (["--network", "cnn", "--temperature", "-1"], "temperature must be"),
        (["--network", "cnn", "--head", "bigface"], "head: must be one of linear, large_margin"),
        (["--network", "cnn", "--recipe", "speed=1"], "recipe: takes optimizer"),
        (["--network", "cnn", "--epochs", "1", "--recipe", "blend=0.5"], "blend goes with --finetune"),
        (["--head", "arcface"], "--head belongs to"),
        (["--minutes", "1"], "--minutes belongs to"),
    ],
)
def test_a_users_mistake_is_answered_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["train", "digits", *words]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert told.count("\n") == 0


def test_without_torch_the_command_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("luce.cli.console.find_spec", lambda name: None if name == "torch" else found(name))
    assert main(["train", "digits", "--network", "cnn"]) == 2
    assert "pip install 'luce[torch]'" in capsys.readouterr().err


def test_links_from_text() -> None:
    assert parse_link("taylor:degree=4") == Taylor(degree=4)
    assert parse_link("soft-margin:margin=0.6,temperature=4") == SoftMargin(margin=0.6, temperature=4.0)
    for name, link in LINKS.items():
        assert parse_link(name) == link()


def test_options_of_a_training_reach_the_model_file(tmp_path: Path) -> None:
    model, log, events = tmp_path / "m.onnx", tmp_path / "log", tmp_path / "events"
    words = ["train", "digits", "--network", "cnn:width_factor=0.5", "--epochs", "2", "--no-report", "-o", str(model)]
    words += ["--head", "cosface:scale=10", "--recipe", "batch_size=32,shift=0.05", "--log", str(log)]
    assert main([*words, "--tensorboard", str(events), "--quiet"]) == 0
    assert main(["verify", str(model)]) == 0
    record = luce.load(model).card.training["network"]
    assert (record["network"], record["head"]) == ("cnn:width_factor=0.5", "cosface:scale=10")
    assert (record["batch_size"], record["augment"]["shift"], record["epochs"]) == (32, 0.05, 2)
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for name in ("loss", "accuracy"):
        found = [(event.step, event.value) for event in accumulator.Scalars(name)]
        assert found == [(line["epoch"], pytest.approx(line[name])) for line in lines]


def test_a_temperature_is_that_of_the_link(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    words = ["train", "digits", "--network", "cnn:width_factor=0.5", "--epochs", "1", "--no-report", "-o", str(model)]
    assert main([*words, "--link", "taylor:degree=4", "--temperature", "2", "--quiet"]) == 0
    assert luce.load(model).card.training["network"]["link"] == repr(Taylor(degree=4, temperature=2.0))


def test_without_tensorboard_the_command_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("luce.torch.log.find_spec", lambda name: None)
    assert main(["train", "digits", "--network", "cnn", "--tensorboard", "x"]) == 2
    assert "pip install tensorboard" in capsys.readouterr().err


def test_minutes_become_epochs_and_stay_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = digits(64)
    small = Recipe(network="cnn:width_factor=0.25", batch_size=32)
    clock = iter([0.0, 9.0, 10.0, 12.0])  # 2 seconds for an epoch, once warm
    with monkeypatch.context() as during:
        during.setattr("luce.torch.budget.train_network", lambda *_: None)
        during.setattr("luce.torch.budget.time.monotonic", lambda: next(clock))
        assert epochs_within(0.5, small, x, y, 10) == 15
    assert epochs_within(1e-9, small, x, y, 10) == 1
    state = tmp_path / "state"
    told: list[int] = []

    def cut(history: tuple[dict[str, float], ...]) -> None:
        told.append(len(history))
        raise Cut

    planned = iter([3, 99])
    monkeypatch.setattr("luce.torch.fit.epochs_within", lambda *_: next(planned))
    with pytest.raises(Cut):
        fit("digits", recipe=small, minutes=1.0, checkpoint=state, listeners=[cut])
    result = fit("digits", recipe=small, minutes=1.0, checkpoint=state, resume=True)
    assert result.classifier.card.training["network"]["epochs"] == 3
