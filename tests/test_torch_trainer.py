"""What the trainer does beside training: mixing, recolouring, heads with a margin, patience, options as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor

from luce.backbones import open_session, run
from luce.images import Preparation
from luce.links import Taylor
from luce.torch.augment import Augment, augment, mix
from luce.torch.checkpoint import Checkpoint, identity
from luce.torch.export import to_backbone
from luce.torch.heads import HEADS, ArcFace, LargeMargin
from luce.torch.recipe import Recipe
from luce.torch.spec import head_from, network_from
from luce.torch.trainer import logits_of, train_network


def digits(n: int = 320) -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    return torch.from_numpy((x[:n].reshape(-1, 8, 8, 1) * 15).astype(np.uint8)), torch.from_numpy(y[:n])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_trains_and_is_exported(name: str, tmp_path: Path) -> None:
    x, y = digits()
    recipe = Recipe(network="cnn:width_factor=0.5", head=name, epochs=4, batch_size=32)
    losses: list[float] = []
    model = train_network(x, y, 10, recipe, on_epoch=lambda history: losses.append(history[-1]["loss"]))
    assert (logits_of(model, x).argmax(1) == y).double().mean() > 0.8
    backbone = to_backbone(model, "cnn", Preparation(8, 8))
    features = run(open_session(backbone.graph), x.expand(-1, -1, -1, 3).contiguous().numpy())[0]
    weight, bias = (part.detach().numpy() for part in model.head.linear())
    expected = logits_of(model, x).numpy()
    assert np.abs(features @ weight.T + bias - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["large_margin", "sphereface"])
def test_a_head_that_counts_steps_goes_on_with_the_same(name: str, tmp_path: Path) -> None:
    x, y = digits(128)
    recipe = Recipe(network="cnn:width_factor=0.25", head=name, epochs=2, batch_size=32)
    whole = train_network(x, y, 10, recipe)
    keeper = Checkpoint(tmp_path / "state", identity(recipe, x, y, 0))

    def cut(history: tuple[dict[str, float], ...]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_network(x, y, 10, recipe, checkpoint=keeper, on_epoch=cut)
    resumed = train_network(x, y, 10, recipe, checkpoint=keeper)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    assert int(whole.head.steps) == 8


@given(st.integers(0, 99), st.floats(0.1, 5), st.booleans())
def test_mixed_pictures_are_between_their_two(seed: int, alpha: float, cut: bool) -> None:
    pictures = torch.arange(4.0)[:, None, None, None].expand(4, 6, 5, 2) * 10  # picture i is 10 i everywhere
    how = Augment(cutmix=alpha) if cut else Augment(mixup=alpha)
    mixed, target = mix(pictures, torch.eye(4), how, generator(seed))
    share = target[torch.arange(4), torch.arange(4) - 1]  # of the picture before
    assert torch.allclose(target.sum(1), torch.ones(4))
    assert torch.allclose(target.diagonal() + share, torch.ones(4))
    before = pictures.roll(1, 0)
    expected = (1 - share[:, None]) * pictures.mean((1, 2)) + share[:, None] * before.mean((1, 2))
    assert torch.allclose(mixed.mean((1, 2)), expected, atol=1e-4)  # what the target says is what is in the picture
    if cut:
        assert bool(((mixed == pictures) | (mixed == before)).all())
    again = mix(pictures, torch.eye(4), how, generator(seed))
    assert torch.equal(mixed, again[0])


def test_a_cut_is_a_rectangle() -> None:
    pictures = torch.stack([torch.zeros(9, 9, 1), torch.full((9, 9, 1), 255.0)])
    found = 0
    for seed in range(20):
        mixed, _ = mix(pictures, torch.eye(2), Augment(cutmix=1.0), generator(seed))
        inside = mixed[0, :, :, 0] == 255
        rows, columns = inside.any(1), inside.any(0)
        assert torch.equal(inside, rows[:, None] & columns)
        found += bool(inside.any() and not inside.all())
    assert found > 10


def test_colours_change_and_stay_colours() -> None:
    pictures = torch.randint(0, 256, (8, 5, 5, 3), dtype=torch.uint8, generator=generator())
    varied = augment(pictures, Augment(colour=0.5), generator(1))
    assert bool((varied >= 0).all() and (varied <= 255).all())
    assert float((varied - pictures.float()).abs().mean()) > 5
    grey = torch.full((4, 3, 3, 1), 100, dtype=torch.uint8)  # no contrast, no saturation: brightness alone
    bright = augment(grey, Augment(colour=0.5), generator(2))
    assert bool((bright.amax((1, 2, 3)) - bright.amin((1, 2, 3)) < 1e-3).all())
    assert len(set(bright[:, 0, 0, 0].tolist())) == 4
    assert bool(((bright >= 50) & (bright <= 150)).all())


def test_training_on_mixtures_works() -> None:
    x, y = digits()
    recipe = Recipe(epochs=4, batch_size=32, link=Taylor(), augment=Augment(mixup=0.2, cutmix=1.0))
    model = train_network(x, y, 10, recipe)
    assert (logits_of(model, x).argmax(1) == y).double().mean() > 0.8


def test_patience_ends_what_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = digits(64)
    found = iter([0.5, 0.6, 0.6, 0.55, 0.6, 0.9])
    monkeypatch.setattr("luce.torch.trainer.logits_of", lambda *_: accuracy_of(next(found)))
    wrong = torch.zeros(20, dtype=torch.int64)

    def accuracy_of(share: float) -> Tensor:
        logits = torch.zeros(20, 10)
        logits[round(20 * share) :, 1] = 1
        return logits

    told: list[int] = []
    recipe = Recipe(network="cnn:width_factor=0.25", epochs=6, batch_size=32, patience=3)
    train_network(x, y, 10, recipe, validation=(x[:20], wrong), on_epoch=lambda history: told.append(len(history)))
    assert told[-1] == 5  # three epochs brought nothing better than 0.6


def test_networks_and_heads_from_text() -> None:
    network, head = network_from("cnn:width-factor=0.5", 1, 28, 28), head_from("arcface:margin=0.3,scale=16", 8, 3)
    assert network.n_features == 64
    assert isinstance(head, ArcFace)
    assert (head.margin, head.scale) == (0.3, 16.0)
    with pytest.raises(ValueError, match="attention must be"):
        network_from("vit:attention=cubic", 3, 32, 32)


def test_a_margin_comes_in_within_the_steps_given() -> None:
    head = head_from("large_margin:margin=2,annealing=50", 4, 3)
    assert isinstance(head, LargeMargin)
    assert head.annealing is not None
    shares = [float(head.annealing.at(torch.tensor(steps))) for steps in (0, 25, 50)]
    assert shares == pytest.approx([1000.0, 7.5, 0.1], rel=0.2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"head": "arcface", "link": Taylor()}, "plain softmax and class ids"),
        ({"head": "arcface", "augment": Augment(mixup=0.2)}, "plain softmax and class ids"),
        ({"head": "cosface:margin=0.1", "label_smoothing": 0.1}, "plain softmax and class ids"),
        ({"patience": -1}, "patience must be"),
    ],
)
def test_recipes_that_cannot_be_trained_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**wrong)
