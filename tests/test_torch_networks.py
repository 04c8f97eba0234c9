"""Networks as trunks: shapes, gradients, evaluation, options, what they refuse, export, and that they learn."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from luce.backbones import open_backbone, open_session, run
from luce.images import Preparation
from luce.torch.export import to_backbone
from luce.torch.networks import NETWORKS, build_network
from luce.torch.networks.efficientnet_lite0 import CHANNELS, HEAD
from luce.torch.networks.moe import Experts, Gate, squared_variation
from luce.torch.networks.resnet import BasicBlock
from luce.torch.networks.vit import linear_attention
from luce.torch.recipe import Recipe
from luce.torch.trainer import Classifier, new_classifier

SMALL: dict[str, dict[str, Any]] = {
    "lenet": {},
    "cnn": {"width_factor": 0.25},
    "fastcnn": {"width_factor": 0.25},
    "vgg": {"width_factor": 0.125},
    "resnet": {"layers": (1, 1, 1)},
    "inception": {"width_factor": 0.125},
    "vit": {"n_channels": 32, "depth": 2},
    "moe": {"width_factor": 0.5},
    "efficientnet_lite0": {"pretrained": False},
}


def built(name: str, *size: int, **options: Any) -> Any:
    """A network; `Any`, since the attributes of `nn.Module` have no types."""
    torch.manual_seed(0)
    return build_network(name, *size, **options)


def small(name: str, channels: int = 1, height: int = 32, width: int = 32) -> Any:
    return built(name, channels, height, width, **SMALL[name])


def digits(n: int = 256, side: int = 32) -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    pictures = torch.from_numpy(x[:n].reshape(-1, 1, 8, 8) / 8 - 1).float()
    return functional.interpolate(pictures, (side, side)), torch.from_numpy(y[:n])


def test_every_network_is_tried() -> None:
    assert set(SMALL) == set(NETWORKS)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 32, 32), (3, 40, 33), (2, 31, 34)])
def test_features_of_pictures_of_any_size(name: str, channels: int, height: int, width: int) -> None:
    network = small(name, channels, height, width).eval()
    with torch.no_grad():
        features = network(torch.randn(2, channels, height, width))
        last = network(torch.randn(2, channels, height, width).to(memory_format=torch.channels_last))
    assert type(network.n_features) is int
    assert features.shape == last.shape == (2, network.n_features)
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
    learned = {key: p for key, p in network.named_parameters() if p.requires_grad}
    assert [key for key, p in learned.items() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    assert network.state_dict().keys() - learned.keys() <= {*dict(network.named_buffers()), "whiten.weight"}


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
    trunk = small(name, 1, 16, 16)
    model = nn.Sequential(trunk, nn.Linear(trunk.n_features, 10))
    pictures, target = digits(96, side=16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    losses = []
    for step in range(24):
        rows = slice(step % 3 * 32, step % 3 * 32 + 32)
        loss: Any = functional.cross_entropy(model(pictures[rows]), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


LEAST = {
    "lenet": 12,
    "cnn": 4,
    "fastcnn": 9,
    "vgg": 16,
    "resnet": 8,
    "inception": 4,
    "vit": 4,
    "moe": 4,
    "efficientnet_lite0": 16,
}


@pytest.mark.parametrize("name", SMALL)
def test_the_smallest_picture_and_one_that_is_too_small(name: str) -> None:
    least = LEAST[name]
    with torch.no_grad():
        assert torch.isfinite(small(name, 3, least, least).eval()(torch.randn(1, 3, least, least))).all()
    for height, width in ((least - 1, least), (least, least - 1)):
        said = (
            rf"^{name}: pictures must be at least {least} x {least} pixels, got {height} x {width} \(height x width\)"
        )
        with pytest.raises(ValueError, match=said):
            build_network(name, 3, height, width)
    for size in ((0, 32, 32), (3, -1, 32), (3, 32, 0)):
        with pytest.raises(ValueError, match=rf"^{name}: (channels|height|width) must be a whole number"):
            build_network(name, *size)


def test_unknown_names_and_options_are_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=rf"^build_network: name must be one of {', '.join(NETWORKS)}, got 'alexnet'$"):
        build_network("alexnet", 3, 32, 32)
    with pytest.raises(TypeError, match=r"^build_network: cnn has no option 'depth'; it has width_factor$"):
        build_network("cnn", 3, 32, 32, depth=3)
    with pytest.raises(TypeError, match=r"^build_network: lenet has no option 'depth'; it has none$"):
        build_network("lenet", 3, 32, 32, depth=3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cnn", {"width_factor": 0}, "width_factor must be positive"),
        ("vgg", {"depth": 12}, "depth must be one of 11, 13, 16, 19, got 12"),
        ("resnet", {"depth": 19}, "depth must be one of 18, 20, 32, 34, 56, got 19"),
        ("resnet", {"depth": 0}, "depth must be one of"),
        ("resnet", {"depth": 20, "layers": (1, 1)}, "depth and layers exclude each other"),
        ("resnet", {"layers": ()}, "layers must be the blocks of at least one stage"),
        ("resnet", {"stem": "mnist"}, "stem must be 'cifar', 'imagenet' or None, got 'mnist'"),
        ("inception", {"stem": "mnist"}, "stem must be"),
        ("vit", {"patch": 33}, "pictures must be at least 33 x 33 pixels"),
        ("vit", {"n_channels": 30}, "n_channels must be a multiple of heads, got 30 and 4"),
        ("vit", {"attention": "cubic"}, "attention must be 'softmax' or 'linear', got 'cubic'"),
        ("vit", {"pool": "max"}, "pool must be 'mean' or 'class', got 'max'"),
        ("moe", {"k": 9}, "k must be a whole number, from 1 to 8, got 9"),
        ("moe", {"balance": -1}, "balance must be finite and not negative"),
        ("efficientnet_lite0", {}, "channels must be 3 or 1 with the weights of ImageNet, got 2"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: {message}"):
        build_network(name, 2, 32, 32, **options)


def n_layers(network: nn.Module) -> int:
    """Layers of a plain network, shortcuts not counted."""
    convolutions = [key for key, m in network.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in key]
    return len(convolutions) + 1  # the last one is the trainer's


def test_depths_are_those_of_the_names() -> None:
    assert [n_layers(built("resnet", 3, 32, 32, depth=d)) for d in (18, 20, 32, 34, 56)] == [18, 20, 32, 34, 56]
    assert [n_layers(built("vgg", 3, 32, 32, depth=d, width_factor=0.1)) for d in (11, 13, 16, 19)] == [9, 11, 14, 17]
    assert n_layers(built("resnet", 3, 32, 32, layers=(1, 2))) == 8


@pytest.mark.parametrize(
    ("size", "options", "depth", "reduced"),
    [
        (64, {}, 20, 4),
        (65, {}, 18, 32),
        (32, {"stem": "imagenet"}, 20, 16),
        (65, {"stem": "cifar"}, 18, 8),
        (32, {"depth": 34}, 34, 8),
    ],
)
def test_a_residual_network_suits_the_size_of_its_pictures(
    size: int, options: dict[str, Any], depth: int, reduced: int
) -> None:
    network = built("resnet", 3, size, size, base=4, **options).eval()
    assert n_layers(network) == depth
    with torch.no_grad():
        maps = network.body(network.stem(torch.zeros(1, 3, size, size)))
    assert maps.shape[-1] == -(-size // reduced)


def test_residual_blocks_begin_as_the_identity() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 4, 5, 5)
    assert torch.equal(BasicBlock(4, 4, 1)(x), x)


def test_a_width_factor_multiplies_the_channels() -> None:
    for name in ("cnn", "vgg", "inception"):
        whole = built(name, 1, 32, 32).n_features
        assert built(name, 1, 32, 32, width_factor=0.25).n_features == whole // 4


def test_efficientnet_lite0_has_the_features_of_the_embedded_backbone() -> None:
    backbone = open_backbone("efficientnet-lite0", (224, 224), grey=False, progress=lambda *_: None)
    rough = np.random.default_rng(0).integers(0, 256, (1, 7, 7, 3), np.uint8)
    images = rough.repeat(32, 1).repeat(32, 2)  # squares in colours: noise would have the same averages everywhere
    images[:, ::5] //= 2
    expected = run(open_session(backbone.graph), images)[0][0]
    network = built("efficientnet_lite0", 3, 224, 224).eval()
    assert (network.pixel_mean, network.pixel_std) == (127.0, 128.0)
    x = (torch.from_numpy(images).float() - network.pixel_mean) / network.pixel_std
    with torch.no_grad():
        found = network(x.permute(0, 3, 1, 2))[0].numpy()
    assert found.shape == (network.n_features,) == expected.shape
    ends = np.cumsum([*CHANNELS, HEAD])[:-1]
    for stage, (a, b) in enumerate(zip(np.split(found, ends), np.split(expected, ends), strict=True)):
        assert np.abs(a - b).max() < 1e-3 * np.abs(b).max(), f"stage {stage}"


def test_efficientnet_lite0_sees_a_grey_picture_as_one_with_equal_channels() -> None:
    grey, colour = (built("efficientnet_lite0", n, 40, 33).eval() for n in (1, 3))
    x = torch.randn(2, 1, 40, 33)
    with torch.no_grad():
        torch.testing.assert_close(grey(x), colour(x.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit", {"n_channels": 32, "depth": 1, "attention": "linear", "pool": "class"}),
        ("resnet", {"layers": (1, 1), "stem": "imagenet"}),
        ("efficientnet_lite0", {}),
    ],
    ids=["vit", "resnet", "efficientnet_lite0"],
)
def test_options_and_odd_sizes_survive_the_export(name: str, options: dict[str, Any]) -> None:
    model = Classifier(built(name, 3, 40, 33, **options), 2, torch.full((3,), 127.0), torch.full((3,), 128.0)).eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 33, 3), np.uint8)
    found = run(open_session(to_backbone(model, name, Preparation(33, 40)).graph), images)[0]
    with torch.no_grad():
        expected = model.features(torch.from_numpy(images)).numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_linear_attention_is_the_explicit_sum_over_all_pairs() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, d, dtype=torch.float64) for n, d in ((5, 4), (7, 4), (7, 6)))
    q, k = (functional.elu(t) + 1 for t in (query, key))
    weights = torch.einsum("...nd,...md->...nm", q, k)
    weights /= weights.sum(-1, keepdim=True)
    torch.testing.assert_close(linear_attention(query, key, value), weights @ value)


def test_linear_attention_of_far_entries_stays_finite() -> None:
    query = torch.tensor([[-30.0], [-30.0]], requires_grad=True)  # elu(-30) + 1 rounds to 0 in float32
    result = linear_attention(query, torch.tensor([[-30.0], [-31.0]]), torch.tensor([[1.0], [0.0]]))
    torch.testing.assert_close(result, torch.full((2, 1), torch.sigmoid(torch.tensor(1.0)).item()))
    total: Any = result.sum()
    total.backward()
    assert torch.isfinite(linear_attention(torch.full((1, 1), -1e4), torch.zeros(1, 1), torch.zeros(1, 1))).all()


def test_the_first_layer_whitens_the_patches_of_the_pictures() -> None:
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=(300, 14, 14, 1)).cumsum(1).cumsum(2) + rng.normal(size=(300, 1, 1, 3)) * 5
    pictures = torch.from_numpy(np.clip(128 + 8 * smooth, 0, 255).astype(np.uint8))
    model = new_classifier(Recipe(network="fastcnn:width_factor=0.25"), pictures, 4, 0)
    trunk: Any = model.trunk
    with torch.no_grad():
        seen = trunk.whiten(model.normalised(pictures)).double()
    half = seen.shape[1] // 2
    torch.testing.assert_close(seen[:, half:], -seen[:, :half], rtol=1e-4, atol=1e-4)
    found = seen[:, :half].transpose(0, 1).flatten(1).cov()
    spread = found.diagonal()
    assert spread.max() < 1.01
    assert spread[-6:].min() > 0.9  # directions that the pictures fill
    assert (found - spread.diag()).abs().max() < 0.01
    assert not trunk.whiten.weight.requires_grad
    flat = torch.full((20, 9, 9, 1), 7, dtype=torch.uint8)  # nothing to whiten
    assert torch.isfinite(new_classifier(Recipe(network="fastcnn"), flat, 2, 0)(flat)).all()


def test_the_first_filters_let_their_input_through() -> None:
    trunk: Any = built("fastcnn", 3, 32, 32, width_factor=0.5)
    for layer in (part for part in trunk.body if isinstance(part, nn.Conv2d)):
        x = torch.randn(2, layer.in_channels, 8, 8)
        n = min(layer.in_channels, layer.out_channels)
        assert torch.equal(layer(x)[:, :n], x[:, :n])
        assert n == layer.out_channels or layer.weight[n:].std() > 0.01


@pytest.mark.parametrize("pool", ["mean", "class"])
@pytest.mark.parametrize("attention", ["softmax", "linear"])
def test_a_vision_transformer_uses_all_it_has(pool: str, attention: str) -> None:
    network = built("vit", 1, 18, 9, n_channels=32, depth=2, attention=attention, pool=pool)
    assert network.positions.shape == (1, 5 * 3 + (pool == "class"), 32)  # patches of 4, the last ones filled up
    pictures = torch.randn(2, 1, 18, 9, requires_grad=True)
    tokens = []
    network.norm.register_forward_hook(lambda _module, _given, result: tokens.append(result))
    features = network(pictures)
    torch.testing.assert_close(features, tokens[0].mean(1) if pool == "mean" else tokens[0][:, 0])
    (features * torch.randn(32)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert pictures.grad is not None
    assert bool((pictures.grad != 0).all())


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


def test_the_noise_of_the_gates_is_torchs_own() -> None:
    network, x = small("moe"), digits(16)[0]
    outputs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        outputs.append(network(x).detach())
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_the_load_counts_how_often_new_noise_would_choose_an_expert() -> None:
    torch.manual_seed(0)
    gate = Gate(3, 5, 2)
    with torch.no_grad():
        gate.weight.normal_()
        gate.noise_weight.normal_()
        x = torch.randn(1, 3)
        clean, deviation = x @ gate.weight, functional.softplus(x @ gate.noise_weight) + 1e-2
        torch.manual_seed(1)
        gate(x)
        torch.manual_seed(1)
        noisy = clean + torch.randn_like(clean) * deviation
        for i in range(5):
            drawn = noisy.repeat(20_000, 1)
            drawn[:, i] = clean[0, i] + torch.randn(20_000) * deviation[0, i]
            share = float((drawn.topk(2, 1).indices == i).any(1).double().mean())
            assert gate.load is not None
            assert float(gate.load[i]) == pytest.approx(share, abs=0.02)


def test_the_auxiliary_loss_is_of_gates_and_load_and_evens_them() -> None:
    torch.manual_seed(0)
    network = built("moe", 1, 8, 8, experts=4, k=1, width_factor=0.25, balance=0.5)
    pictures = torch.rand(64, 1, 8, 8)
    with torch.no_grad():
        network.gate.weight[:, 0] += 0.5  # nearly all go to the first expert
    optimizer = torch.optim.SGD(network.gate.parameters(), lr=0.3)
    first = None
    for _ in range(60):
        network(pictures)
        loss = network.auxiliary_loss()
        gate = network.gate
        expected = 0.5 * (squared_variation(gate.importance) + squared_variation(gate.load))
        torch.testing.assert_close(loss, expected)
        first = float(loss.detach()) if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert first is not None
    assert float(loss.detach()) < 0.3 * first
    pair = built("moe", 1, 8, 8, experts=4, k=2)
    pair(pictures)
    for use in (pair.gate.importance, pair.gate.load):
        assert torch.autograd.grad(squared_variation(use), pair.gate.weight, retain_graph=True)[0].abs().sum() > 0
    every = built("moe", 1, 8, 8, experts=3, k=3)
    every(pictures)
    torch.testing.assert_close(every.gate.load, torch.full((3,), 64.0))


def test_a_mixture_of_experts_in_training_can_be_copied() -> None:
    network = small("moe")
    with pytest.raises(RuntimeError, match=r"^moe: auxiliary_loss .* call train\(\) and forward first"):
        network.auxiliary_loss()
    network(digits(8)[0])
    assert network.auxiliary_loss().requires_grad
    with pytest.raises(RuntimeError, match="call train"):
        copy.deepcopy(network).auxiliary_loss()
