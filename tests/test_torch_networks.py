"""Networks as trunks: shapes, gradients, evaluation, what they refuse, and that they learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from luce.backbones import open_backbone, open_session, run
from luce.torch.networks import NETWORKS, build_network
from luce.torch.networks.moe import Experts, Gate, squared_variation
from luce.torch.networks.vit import linear_attention

SMALL: dict[str, dict[str, Any]] = {
    "lenet": {},
    "cnn": {"width_factor": 0.25},
    "vgg": {"width_factor": 0.125},
    "resnet": {"depth": 20},
    "inception": {"width_factor": 0.25},
    "vit": {"n_channels": 32, "depth": 2},
    "moe": {"width_factor": 0.5},
}


def small(name: str, channels: int = 1, height: int = 32, width: int = 32) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, channels, height, width, **SMALL[name])


def digits(n: int = 256) -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    pictures = torch.from_numpy(x[:n].reshape(-1, 1, 8, 8) / 8 - 1).float()
    return functional.interpolate(pictures, (32, 32)), torch.from_numpy(y[:n])


def test_every_network_is_tried() -> None:
    assert set(SMALL) | {"efficientnet_lite0"} == set(NETWORKS)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 32, 32), (3, 40, 33)])
def test_features_of_pictures_of_any_size(name: str, channels: int, height: int, width: int) -> None:
    network = small(name, channels, height, width).eval()
    with torch.no_grad():
        features = network(torch.randn(2, channels, height, width))
    assert features.shape == (2, network.n_features)
    assert torch.isfinite(features).all()
    assert features[0].std() > 0


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = small(name)
    loss: Any = network(digits(64)[0]).square().sum()
    auxiliary: Callable[[], Tensor] | None = getattr(network, "auxiliary_loss", None)
    if auxiliary is not None:
        loss = loss + auxiliary()
    loss.backward()
    without = [key for key, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


@pytest.mark.parametrize("name", SMALL)
def test_in_evaluation_a_picture_does_not_depend_on_the_others(name: str) -> None:
    network = small(name)
    pictures = digits(8)[0]
    network(pictures)  # statistics of batch norms
    network.eval()
    with torch.no_grad():
        together, alone = network(pictures), torch.cat([network(p[None]) for p in pictures])
        assert torch.equal(together, network(pictures))
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    one, other = small(name).state_dict(), small(name).state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    torch.manual_seed(1)
    third = build_network(name, 1, 32, 32, **SMALL[name]).state_dict()
    assert any(not torch.equal(one[key], third[key]) for key in one)


@pytest.mark.parametrize("name", SMALL)
def test_a_few_steps_learn_digits(name: str) -> None:
    trunk = small(name)
    model = nn.Sequential(trunk, nn.Linear(int(trunk.n_features), 10))  # type: ignore[arg-type]  # nn.Module's attributes are untyped
    pictures, target = digits()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    losses = []
    for step in range(40):
        rows = slice(step % 4 * 64, step % 4 * 64 + 64)
        loss: Any = functional.cross_entropy(model(pictures[rows]), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-4:]) < 0.85 * np.mean(losses[:2])


@pytest.mark.parametrize("name", [*SMALL, "efficientnet_lite0"])
def test_pictures_that_are_too_small_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: pictures must be at least"):
        build_network(name, 3, 2, 2)


def test_unknown_names_and_options_are_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="must be one of lenet, cnn"):
        build_network("alexnet", 3, 32, 32)
    with pytest.raises(TypeError, match="has no option 'depth'"):
        build_network("cnn", 3, 32, 32, depth=3)


def test_efficientnet_lite0_has_the_features_of_the_embedded_backbone() -> None:
    backbone = open_backbone("efficientnet-lite0", (224, 224), grey=False, progress=lambda *_: None)
    images = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    expected = run(open_session(backbone.graph), images)[0][0, -1280:]
    network = build_network("efficientnet_lite0", 3, 224, 224).eval()
    x = (torch.from_numpy(images).float() - network.pixel_mean) / network.pixel_std  # type: ignore[operator]  # numbers, though nn.Module's attributes are untyped
    with torch.no_grad():
        found = network(x.permute(0, 3, 1, 2))[0].numpy()[-1280:]
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_linear_attention_is_the_explicit_sum_over_all_pairs() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, d, dtype=torch.float64) for n, d in ((5, 4), (7, 4), (7, 6)))
    q, k = (functional.elu(t) + 1 for t in (query, key))
    weights = torch.einsum("...nd,...md->...nm", q, k)
    weights /= weights.sum(-1, keepdim=True)
    torch.testing.assert_close(linear_attention(query, key, value), weights @ value)
    network = build_network("vit", 1, 32, 32, n_channels=32, depth=2, attention="linear").eval()
    assert torch.isfinite(network(digits(2)[0])).all()


@pytest.mark.parametrize("training", [True, False])
def test_gates_of_the_chosen_experts_sum_to_one(training: bool) -> None:
    torch.manual_seed(0)
    gate = Gate(6, 8, 3).train(training)
    with torch.no_grad():
        gate.weight.normal_()
    gates = gate(torch.randn(50, 6))
    assert ((gates > 0).sum(1) == 3).all()
    torch.testing.assert_close(gates.sum(1), torch.ones(50))


def test_even_use_of_the_experts_costs_least() -> None:
    even, uneven = torch.full((4,), 5.0), torch.tensor([17.0, 1.0, 1.0, 1.0])
    assert float(squared_variation(even)) == 0
    assert float(squared_variation(uneven)) == pytest.approx(48 / 25)


def test_in_evaluation_the_experts_give_what_they_give_in_training() -> None:
    torch.manual_seed(0)
    experts, gate = Experts(6, 8, 5, 4), Gate(6, 4, 2).eval()
    with torch.no_grad():
        gate.weight.normal_()
    x = torch.randn(20, 6)
    gates = gate(x)
    torch.testing.assert_close(experts.train()(x, gates), experts.eval()(x, gates))
    with pytest.raises(RuntimeError, match=r"call train\(\) and forward first"):
        build_network("moe", 1, 32, 32).auxiliary_loss()  # type: ignore[operator]  # a method, though nn.Module's attributes are untyped
