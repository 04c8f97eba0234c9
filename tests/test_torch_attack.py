"""Attacks: closed forms, the ball, strength, masked gradients, and the command."""

from __future__ import annotations

import importlib.util
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from luce.cli import main
from luce.metrics import wilson
from luce.torch import fgsm, pgd, robustness
from luce.torch.attack import entropy, gradient, is_right, margin, noise, scaled_entropy
from luce.torch.recipe import Recipe
from luce.torch.trainer import Classifier, train_network
from luce.torch.under_attack import UNBOUNDED, Robustness

EPS = 0.1


class Linear(nn.Module):
    """Logits of the pixels themselves."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1) @ self.weight.T  # as in a transformer, not for 0 pictures


class Scaled(nn.Module):
    """Logits times a factor: the same classes, another temperature."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x) * self.factor
        return logits


class Powered(nn.Module):
    """The ninth power of the logits: the same classes, and no temperature that suits all pictures."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x) ** 9
        return logits


class Rounded(nn.Module):
    """Pixels in steps of 16 before the model: the gradient is 0 everywhere, and small changes are often lost."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model((x / 16).round() * 16)
        return logits


def random_case(seed: int) -> tuple[Linear, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 12, generator=generator) / 100
    pictures = torch.randint(0, 256, (5, 2, 2, 3), generator=generator, dtype=torch.uint8)
    return Linear(weight), pictures, torch.randint(0, 3, (5,), generator=generator)


@pytest.fixture(scope="module")
def digits() -> tuple[Classifier, Tensor, Tensor]:
    """A small trained network, and pictures that it did not see."""
    x, y = load_digits(return_X_y=True)
    pictures = torch.from_numpy((x.reshape(-1, 8, 8, 1) * 15).astype(np.uint8))
    target = torch.from_numpy(y)
    recipe = Recipe(network="cnn:width_factor=0.25", epochs=4, batch_size=32)
    return train_network(pictures[300:], target[300:], 10, recipe), pictures[:150], target[:150]


@given(st.integers(0, 1000), st.floats(0.001, 1.0), st.sampled_from([1.0, 3.0, 30.0]))
def test_fgsm_on_a_linear_model_has_a_closed_form(seed: int, eps: float, temperature: float) -> None:
    model, x, y = random_case(seed)
    found = fgsm(model, x, y, eps, loss=partial(entropy, temperature=temperature))
    z = (x.double().flatten(1) @ model.weight.double().T) / temperature
    error = z.softmax(1) - nn.functional.one_hot(y, 3)
    slope = (error @ model.weight.double()).reshape(x.shape)
    clear = slope.abs() > 1e-4 * slope.abs().max()  # elsewhere rounding may turn the sign
    expected = (x.double() + 255 * eps * slope.sign()).clamp(0, 255)
    assume(clear.double().mean() > 0.3)  # not where most pictures are beyond doubt and slopes far below the largest
    assert (found.double() - expected)[clear].abs().max() < 1e-4
    by_margin = fgsm(model, x, y, eps, loss=margin)
    rival = z.masked_fill(nn.functional.one_hot(y, 3).bool(), -torch.inf).argmax(1)
    direction = (model.weight[rival] - model.weight[y]).sign().reshape(x.shape)
    assert torch.equal(by_margin, (x + 255 * eps * direction).clamp(0, 255))


@given(st.integers(0, 1000), st.floats(1e-6, 1e6), st.sampled_from([6.0, 12.0]))
def test_the_scaled_entropy_does_not_see_the_scale(seed: int, factor: float, height: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, y = torch.randn(4, 5, generator=generator), torch.randint(0, 5, (4,), generator=generator)
    found = scaled_entropy(factor * logits, y, height)
    assert torch.allclose(found, scaled_entropy(logits, y, height), rtol=1e-4, atol=1e-4)
    for row, target, loss in zip(logits.double(), y, found, strict=True):
        temperature = float(row.max() - row.mean()) / height
        assert float(loss) == pytest.approx(float(entropy(row[None], target[None], temperature)), rel=1e-4, abs=1e-4)
    assert torch.isfinite(scaled_entropy(torch.zeros(1, 5), y[:1], height)).all()


def test_the_gradient_is_that_of_differences() -> None:
    model, x, y = random_case(7)
    for loss in (entropy, partial(entropy, temperature=2.0), margin):
        slope, logits = gradient(model, x, y, loss)
        assert torch.equal(logits, model(x.float()))
        step = torch.zeros_like(x, dtype=torch.float64)
        step[:, 1, 0, 2] = 1e-3
        exact = Linear(model.weight.double())
        difference = loss(exact(x + step), y) - loss(exact(x - step), y)
        assert torch.allclose(slope[:, 1, 0, 2].double(), difference / 2e-3, rtol=1e-3, atol=1e-8)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0.001, 1.0), st.integers(1, 6), st.floats(0.001, 1.0), st.integers(1, 3))
def test_attacked_pictures_stay_in_the_ball_and_in_range(
    seed: int, eps: float, steps: int, step: float, restarts: int
) -> None:
    model, x, y = random_case(seed)
    generator = torch.Generator().manual_seed(seed)
    before = x.clone()
    for found in (
        fgsm(model, x, y, eps),
        pgd(model, x, y, eps, steps=steps, step=step, restarts=restarts, generator=generator),
        noise(x, eps, generator),
    ):
        assert found.shape == x.shape
        assert found.dtype == torch.float32
        assert found.min() >= 0
        assert found.max() <= 255
        assert (found - x).abs().max() <= 255 * eps * (1 + 1e-5) + 1e-4
        assert (found != x).any()
    assert torch.equal(x, before)


@pytest.mark.parametrize("loss", [entropy, margin])
def test_pgd_finds_what_is_there_on_a_linear_model(loss: object) -> None:
    """Whether a corner of the ball is wrong can be said exactly for two classes: the worst corner is FGSM's."""
    generator = torch.Generator().manual_seed(0)
    model = Linear(torch.randn(2, 12, generator=generator) / 100)
    x = torch.randint(60, 196, (200, 2, 2, 3), generator=generator, dtype=torch.uint8)
    y = model(x.float()).argmax(1)
    direction = (model.weight[1 - y] - model.weight[y]).reshape(x.shape)
    gap = (direction * x).flatten(1).sum(1)  # below 0: right
    possible = gap + 255 * EPS * direction.abs().flatten(1).sum(1) > 0
    found = ~is_right(model, pgd(model, x, y, EPS, loss=loss, generator=generator), y)  # type: ignore[arg-type]
    assert 20 < int(possible.sum()) < 180
    assert int((found != possible).sum()) <= 1
    assert not (found & ~possible).any()


def test_more_steps_and_starts_are_stronger(digits: tuple[Classifier, Tensor, Tensor]) -> None:
    model, x, y = digits
    seeded = torch.Generator().manual_seed
    clean = int(is_right(model, x, y).sum())
    one = int(is_right(model, fgsm(model, x, y, EPS), y).sum())
    many = int(is_right(model, pgd(model, x, y, EPS, generator=seeded(0)), y).sum())
    again = int(is_right(model, pgd(model, x, y, EPS, restarts=3, generator=seeded(0)), y).sum())
    assert again <= many <= one < clean


def accuracy(result: Robustness, name: str) -> float:
    (variant,) = (v for v in result.variants if v.name == name)
    return variant.accuracy.value


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
@pytest.mark.parametrize(("factor", "temperature"), [(1e4, 1.0), (1.0, 1e-4), (1e-4, 1e-8)])
def test_no_temperature_fakes_robustness(
    digits: tuple[Classifier, Tensor, Tensor], method: str, factor: float, temperature: float
) -> None:
    model, x, y = digits
    honest = robustness(model, x, y, EPS, method=method)  # type: ignore[arg-type]  # a word of the type
    assert honest.signs == ()
    masked = robustness(Scaled(model, factor), x, y, EPS, method=method, temperature=temperature)  # type: ignore[arg-type]
    naive = "temperature 1" if temperature == 1 else "the trained temperature"
    assert accuracy(masked, f"{method.upper()}, {naive}") > honest.attacked.value + 0.2  # what would have been believed
    assert masked.attacked.value <= honest.attacked.value + 0.02
    assert masked.clean == honest.clean
    assert any(sign.startswith(f"with {naive} the gradient is exactly 0") for sign in masked.signs)
    assert any(sign.startswith(f"{method.upper()} with {naive} fails") for sign in masked.signs)


def test_where_no_temperature_suits_the_margin_does(digits: tuple[Classifier, Tensor, Tensor]) -> None:
    model, x, y = digits
    honest, masked = robustness(model, x, y, EPS), robustness(Powered(model), x, y, EPS)
    assert accuracy(masked, "PGD, a sharp temperature") > honest.attacked.value + 0.2
    assert masked.attacked.value <= honest.attacked.value + 0.1
    assert masked.signs


def test_gradients_lost_inside_the_model_are_told(digits: tuple[Classifier, Tensor, Tensor]) -> None:
    model, x, y = digits
    result = robustness(Rounded(model), x, y, EPS)
    assert all(v.flat == 1 for v in result.variants if v.flat is not None)
    assert sum("the gradient is exactly 0 for" in sign for sign in result.signs) == 4  # all losses
    assert accuracy(result, "FGSM, the margin") == result.clean.value


def test_what_the_worst_case_is(digits: tuple[Classifier, Tensor, Tensor]) -> None:
    model, x, y = digits
    done: list[tuple[int, int]] = []
    result = robustness(model, x, y, EPS, temperature=2.0, keep=3, progress=lambda _, n, total: done.append((n, total)))
    assert result.n == len(x)
    assert result.clean.value == float(is_right(model, x, y).double().mean())
    hits = round(result.attacked.value * result.n)
    assert (result.attacked.low, result.attacked.high) == wilson(hits, result.n)
    bounded = [v for v in result.variants if v.name != UNBOUNDED]
    assert result.attacked.value <= min(v.accuracy.value for v in bounded)
    assert [v.name for v in result.variants].count("PGD, the trained temperature") == 1
    assert accuracy(result, UNBOUNDED) == 0
    assert done[0][0] == 0
    assert done[-1] == (len(x) * len(result.variants),) * 2
    assert len(result.examples) == 3
    for example in result.examples:
        assert (example.after - example.before).abs().max() <= 255 * EPS + 1e-3
        assert model(example.after[None]).argmax() != model(example.before[None].float()).argmax()
    json.dumps(result.to_dict(), allow_nan=False)


def test_the_seed_decides(digits: tuple[Classifier, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luce.torch.under_attack._BATCH_PIXELS", 64 * 40)  # four batches
    model, x, y = digits
    torch.manual_seed(0)
    one = robustness(model, x, y, EPS, seed=1, steps=3, keep=2)
    torch.manual_seed(1)
    other, third = (robustness(model, x, y, EPS, seed=seed, steps=3, keep=2) for seed in (1, 2))
    assert one.to_dict() == other.to_dict()
    assert all(torch.equal(a.after, b.after) for a, b in zip(one.examples, other.examples, strict=True))
    assert not all(torch.equal(a.after, b.after) for a, b in zip(one.examples, third.examples, strict=True))


def test_a_model_that_is_always_wrong_is_measured() -> None:
    model, x, _ = random_case(0)
    y = model(x.float()).argmin(1)
    result = robustness(model, x, y, EPS)
    assert result.clean.value == result.attacked.value == 0


@pytest.mark.parametrize("eps", [0.0, -0.1, 1.5, float("nan")])
def test_wrong_sizes_are_named(eps: float) -> None:
    model, x, y = random_case(0)
    for attack in (fgsm, pgd, robustness):
        with pytest.raises(ValueError, match="eps must lie in"):
            attack(model, x, y, eps)
    with pytest.raises(ValueError, match="pgd: steps must"):
        pgd(model, x, y, 0.1, steps=0)
    with pytest.raises(ValueError, match="pgd: step must be positive"):
        pgd(model, x, y, 0.1, step=0.0)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("attack") / "digits.onnx"
    words = [
        "train",
        "digits",
        "--network",
        "cnn",
        "--epochs",
        "2",
        "--no-report",
        "-q",
        "--threads",
        "1",
        "-o",
        str(path),
    ]
    assert main(words) == 0
    return path


def test_the_command(model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["attack", str(model_file), "digits", "--eps", "1/10", "--limit", "60", "--threads", "1"]
    picture = tmp_path / "attack.png"
    threads = torch.get_num_threads()
    capsys.readouterr()
    assert main([*words, "-o", str(picture)]) == 0
    told = capsys.readouterr()
    assert "60 of 1,797 pictures, drawn at random" in told.err
    assert "Attacking: " in told.err
    assert told.out.startswith("Clean  ")
    assert "\nAttacked  " in told.out
    assert "\n             PGD, the margin  " in told.out
    assert told.out.splitlines()[-1].startswith("Changing each pixel by at most 1/10 makes ")
    with Image.open(picture) as opened:
        assert opened.width == 1200
    assert torch.get_num_threads() == threads
    figures = []
    for method in ("pgd", "pgd", "fgsm"):
        assert main([*words, "--method", method, "--json", "--quiet"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        figures.append({k: v for k, v in json.loads(out).items() if k != "seconds"})
    pgd_one, pgd_other, by_fgsm = figures
    assert pgd_one == pgd_other
    assert pgd_one["eps"] == 0.1
    assert pgd_one["n"] == 60
    assert pgd_one["accuracy_attacked"] <= by_fgsm["accuracy_attacked"] < by_fgsm["accuracy"]
    assert not any(v["name"].startswith("PGD, temp") for v in by_fgsm["attacks"])


def test_the_command_says_what_is_masked(
    model_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from luce.torch import load

    loaded = load.load_network

    def scaled(path: Path) -> nn.Module:
        model = loaded(path)
        with torch.no_grad():
            model.head.weight *= 1e4
            model.head.bias *= 1e4
        return model

    monkeypatch.setattr(load, "load_network", scaled)
    assert main(["attack", str(model_file), "digits", "--eps", "0.1", "--limit", "60", "--method", "fgsm"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Gradients look masked: with temperature 1 the gradient is exactly 0 for ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--eps", "0"], "--eps must lie in"),
        (["--eps", "1/0"], "--eps must lie in"),
        (["--eps", "two"], "--eps must lie in"),
        (["--eps", "3"], "--eps must lie in"),
        (["--method", "fgsm", "--steps", "5"], "belong to --method pgd"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--restarts", "0"], "--restarts must be at least 1"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["-o", "attack.jpg"], "must end in .png"),
        (["--method", "cw"], "fgsm"),
    ],
)
def test_a_users_mistake_is_answered_in_one_line(
    model_file: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    capsys.readouterr()
    assert main(["attack", str(model_file), "digits", *words]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert told.count("\n") == 0


def test_without_torch_the_command_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("luce.cli.console.find_spec", lambda name: None if name == "torch" else found(name))
    assert main(["attack", "m.onnx", "digits"]) == 2
    assert "luce attack needs PyTorch, which is not installed: pip install 'luce[torch]'" in capsys.readouterr().err
