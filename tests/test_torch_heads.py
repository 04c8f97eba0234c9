"""Margin heads: values by hand, gradients, what a margin may and may not do, corners, annealing, messages, training."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch
from torch import Tensor, nn

from luce.torch import HEADS, Annealing, ArcFace, CosFace, EnsembleMargin, LargeMargin, LinearHead, SphereFace
from luce.torch.margins import psi

F: Any = nn.functional
N, D, K = 5, 6, 4
# Every head with the whole margin at once, and the same without a margin.
FULL: dict[str, dict[str, Any]] = {
    "linear": {},
    "large_margin": {"margin": 3, "annealing": None},
    "sphereface": {"margin": 4, "annealing": None},
    "cosface": {"margin": 0.4, "scale": 16.0},
    "arcface": {"margin": 0.5, "scale": 16.0},
    "ensemble_margin": {"margin": 0.7},
}
NONE: dict[str, dict[str, Any]] = {
    "linear": {},
    "large_margin": {"margin": 1},
    "sphereface": {"margin": 1},
    "cosface": {"margin": 0},
    "arcface": {"margin": 0},
    "ensemble_margin": {"margin": 0},
}
MARGINS = [name for name in FULL if name != "linear"]
ANGULAR = ["large_margin", "sphereface", "cosface", "arcface"]
TARGET = torch.tensor([0, 3, 1, 2, 3])


def head(name: str, n_features: int = D, n_classes: int = K, **options: Any) -> Any:
    torch.manual_seed(1)
    made: Any = HEADS[name]
    return made(n_features, n_classes, **(options or FULL[name])).double()


def features(n: int = N, d: int = D) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, d))).requires_grad_()


def at_angles(name: str, angles: Tensor, **options: Any) -> tuple[Any, Tensor]:
    """A head of two classes in the plane, and features of length 2 at angles to the first class."""
    made = head(name, 2, 2, **options)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    return made, 2 * torch.stack([angles.cos(), angles.sin()], 1)


def of_target(logits: Tensor) -> Tensor:
    return logits[:, 0]


GRID = torch.linspace(0, math.pi, 2001, dtype=torch.float64)


def test_the_test_logits() -> None:
    x = features()
    for name in ("linear", "large_margin"):
        made = head(name)
        torch.testing.assert_close(made(x), x @ made.weight.T)
    made = head("ensemble_margin")
    torch.testing.assert_close(made(x), torch.stack([x @ w.T for w in made.weight]).mean(0))
    for name, scale in (("sphereface", x.norm(dim=1, keepdim=True)), ("cosface", 16), ("arcface", 16)):
        made = head(name)
        torch.testing.assert_close(made(x), scale * F.cosine_similarity(x[:, None], made.weight, dim=-1))


def test_the_plain_head_adds_its_bias() -> None:
    made = head("linear")
    with torch.no_grad():
        made.bias += torch.arange(K)
    x = features()
    torch.testing.assert_close(made(x), x @ made.weight.T + torch.arange(K))
    torch.testing.assert_close(made(x, TARGET), made(x))
    assert list(head("linear", bias=False).state_dict()) == ["weight"]


# c = 0.6, of a vector of length 16: values of the formulas, computed once with many digits.
PUBLISHED: dict[str, tuple[dict[str, Any], float]] = {
    "cosface": ({"scale": 16.0, "margin": 0.35}, 4.0),
    "arcface": ({"scale": 16.0, "margin": 0.5}, 2.28814570001),
    "sphereface 2": ({"margin": 2, "annealing": None}, -4.48),
    "sphereface 3": ({"margin": 3, "annealing": None}, -14.976),
    "sphereface 4": ({"margin": 4, "annealing": None}, -18.5088),
    "large_margin 2": ({"margin": 2, "annealing": None}, -4.48 * 3),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_values_of_the_formulas(name: str) -> None:
    options, expected = PUBLISHED[name]
    made, x = at_angles(name.split()[0], torch.tensor([math.acos(0.6)], dtype=torch.float64), **options)
    assert made(8 * x, torch.tensor([0]))[0, 0].item() == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("multiple", [1, 2, 3, 4])
def test_psi_is_its_definition(multiple: int) -> None:
    k = torch.floor(GRID * multiple / math.pi).clamp(max=multiple - 1)
    expected = (-1) ** k * torch.cos(multiple * GRID) - 2 * k
    torch.testing.assert_close(psi(GRID.cos(), multiple), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MARGINS)
def test_without_a_margin_the_logits_are_the_plain_ones(name: str) -> None:
    made, x = head(name, **NONE[name]), features()
    torch.testing.assert_close(made(x, TARGET), made(x), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", MARGINS)
def test_a_margin_lowers_the_targets_logit_and_no_other(name: str) -> None:
    made, x = head(name), features()
    there = F.one_hot(TARGET, K).bool()
    lowered, plain = made(x, TARGET), made(x)
    assert bool((lowered[there] < plain[there] - 1e-3).all())
    assert torch.equal(lowered[~there], plain[~there])


@pytest.mark.parametrize("name", ANGULAR)
def test_a_larger_margin_lowers_more(name: str) -> None:
    margins = {"cosface": (0.1, 0.5, 1.9), "arcface": (0.1, 0.5, 1.5)}.get(name, (1, 2, 3, 4))
    rest = {"annealing": None} if name in ("large_margin", "sphereface") else {"scale": 3.0}
    logits = []
    for margin in margins:
        made, x = at_angles(name, GRID, margin=margin, **rest)
        logits.append(of_target(made(x, torch.zeros(len(x), dtype=torch.int64))))
    assert all(bool((low <= high + 1e-12).all()) for high, low in pairwise(logits))


@pytest.mark.parametrize("name", ANGULAR)
def test_the_targets_logit_falls_with_the_angle(name: str) -> None:
    rest = {"annealing": None} if name in ("large_margin", "sphereface") else {}
    for margin in {"cosface": (0.35,), "arcface": (0.1, 0.5, 1.0, math.pi / 2)}.get(name, (1, 2, 3, 4)):
        made, x = at_angles(name, GRID, margin=margin, **rest)
        logits = of_target(made(x, torch.zeros(len(x), dtype=torch.int64)))
        assert bool((logits.diff() <= 1e-12).all()), margin
        assert bool((logits[::20].diff() < 0).all()), margin


def test_arcface_past_pi() -> None:
    angles = torch.tensor([math.pi - 0.5 - 1e-9, math.pi - 0.5 + 1e-9, 3.0], dtype=torch.float64)
    made, x = at_angles("arcface", angles, scale=10.0, margin=0.5)
    before, after, far = of_target(made(x, torch.zeros(3, dtype=torch.int64))).tolist()
    assert before == pytest.approx(-10)
    assert after == pytest.approx(10 * (math.cos(math.pi - 0.5) - 0.5 * math.sin(0.5)))
    assert far == pytest.approx(10 * (math.cos(3.0) - 0.5 * math.sin(0.5)))


def test_the_gradient_of_arcface_is_the_true_one() -> None:
    """The slope in the angle is -scale sin(t + margin), not -scale sin(t) as where autograd is kept from the margin."""
    angles = torch.tensor([0.3, 1.2, 2.4], dtype=torch.float64, requires_grad=True)
    made, x = at_angles("arcface", angles, scale=16.0, margin=0.5)
    (slope,) = torch.autograd.grad(of_target(made(x, torch.zeros(3, dtype=torch.int64))).sum(), angles)
    torch.testing.assert_close(slope, -16 * torch.sin(angles.detach() + 0.5), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("target", [TARGET, None], ids=["margin", "plain"])
def test_gradients(name: str, target: Tensor | None) -> None:
    made = head(name).eval()

    def logits(x: Tensor, weight: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(made, {"weight": weight}, (x, target))
        return y

    assert torch.autograd.gradcheck(logits, (features(), made.weight))


@pytest.mark.parametrize("name", ["large_margin", "sphereface"])
def test_gradients_while_the_margin_comes_in(name: str) -> None:
    made = head(name, annealing=Annealing(start=2.0, gamma=0.5, power=1.0)).eval()
    made.steps += 3
    assert torch.autograd.gradcheck(lambda x: made(x, TARGET), features())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", HEADS)
def test_gradients_are_finite_where_angles_end(name: str, dtype: torch.dtype) -> None:
    """Cosines of 1 and -1 up to rounding, both for the class next to it and through the loss; and no features."""
    made = head(name).to(dtype)
    first = made.weight[0] if made.weight.ndim == 3 else made.weight
    rows = torch.cat([first[TARGET], -first[TARGET], 1e-3 * first[TARGET], torch.zeros(N, D)]).detach()
    x = rows.to(dtype).requires_grad_()
    logits = made(x, TARGET.repeat(4))
    assert logits.dtype == dtype
    assert bool(logits.isfinite().all())
    F.cross_entropy(logits.float(), TARGET.repeat(4)).backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    assert bool(made.weight.grad.isfinite().all())


def test_gradients_are_finite_at_exact_cosines() -> None:
    for name in ANGULAR:
        for dtype in (torch.float64, torch.float32):
            made, _ = at_angles(name, GRID[:1])
            made = made.to(dtype)
            x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 0.0]], dtype=dtype, requires_grad=True)
            logits = made(x, torch.tensor([0, 0, 0]))
            slopes = torch.autograd.grad(logits[:, 0].sum(), (x, made.weight))
            assert all(bool(slope.isfinite().all()) for slope in slopes), name


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_smaller_dtypes_are_near_float64(name: str, dtype: torch.dtype) -> None:
    made, x = head(name).to(dtype), features().detach().to(dtype)
    small = made(x, TARGET)
    assert small.dtype == dtype
    atol = 300 * torch.finfo(dtype).eps
    torch.testing.assert_close(small.double(), made.double()(x.double(), TARGET), rtol=0, atol=atol)


def test_lambda_shrinks_to_its_floor() -> None:
    annealing = Annealing(start=1000.0, gamma=0.12, power=1.0, floor=5.0)
    steps = torch.tensor([0, 1, 100, 10**6])
    np.testing.assert_allclose(annealing.at(steps).numpy(), [1000, 1000 / 1.12, 1000 / 13, 5], rtol=1e-12)


@pytest.mark.parametrize("name", ["large_margin", "sphereface"])
def test_a_margin_comes_in_with_the_steps(name: str) -> None:
    annealing = Annealing(start=4.0, gamma=1.0, power=1.0, floor=1.0)
    made, full, x = head(name, margin=3, annealing=annealing), head(name, margin=3, annealing=None), features()
    plain, whole = made(x), full(x, TARGET)
    for share in (4.0, 2.0, 4 / 3, 1.0, 1.0):
        torch.testing.assert_close(made(x, TARGET), (share * plain + whole) / (1 + share))
    assert made.steps.item() == 5
    made(x)
    made.eval()(x, TARGET)
    assert made.steps.item() == 5


@pytest.mark.parametrize("name", HEADS)
def test_state_comes_back(name: str) -> None:
    has_steps, x = name in ("large_margin", "sphereface"), features()
    options = {"annealing": Annealing(start=4, gamma=1)} if has_steps else FULL[name]
    anything: Any = HEADS[name]
    torch.manual_seed(2)
    made, other = anything(D, K, **options).double(), anything(D, K, **options).double()
    for _ in range(3):
        made(x, TARGET)
    assert not torch.equal(other(x), made(x))
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(x), made(x))
    assert torch.equal(other(x, TARGET), made(x, TARGET))
    assert ("steps" in made.state_dict()) == has_steps


@pytest.mark.parametrize("name", HEADS)
def test_ids_of_any_integer_dtype_and_no_rows(name: str) -> None:
    made, x = head(name), features()
    for dtype in (torch.uint8, torch.int32):
        assert torch.equal(made(x, TARGET.to(dtype)), made(x, TARGET))
    assert made(x[:0], TARGET[:0]).shape == (0, K)


@pytest.mark.parametrize("name", HEADS)
def test_compiled_in_one_graph(name: str) -> None:
    made, x = head(name).eval(), features()
    compiled: Callable[..., Tensor] = torch.compile(made, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, TARGET), made(x, TARGET))


def test_the_penalty_is_the_criterion_of_each_pair() -> None:
    for n_features, n_classes in ((7, 3), (3, 7)):
        made = head("ensemble_margin", n_features, n_classes, n_heads=3, diversity=0.5)
        centre = torch.eye(n_classes).double() - 1 / n_classes
        grams = [w @ w.T for w in made.weight]
        pairs = [(0, 1), (0, 2), (1, 2)]
        traces = [torch.trace(grams[u] @ centre @ grams[v] @ centre) for u, v in pairs]
        torch.testing.assert_close(made.penalty(), 0.5 * torch.stack(traces).sum() / (n_classes - 1) ** 2)
        (slope,) = torch.autograd.grad(made.penalty(), made.weight)
        product = sum(centre @ (w @ w.T) @ centre @ made.weight[0] for w in made.weight[1:])
        torch.testing.assert_close(slope[0], 0.5 * 2 * product / (n_classes - 1) ** 2)


def test_the_objective_of_the_ensemble() -> None:
    made, x = head("ensemble_margin", margin=0.7, diversity=2.0), features()
    expected = made.penalty()
    for weight in made.weight:
        expected = expected + F.cross_entropy(x @ weight.T - 0.7 * F.one_hot(TARGET, K), TARGET)
    torch.testing.assert_close(made.loss(x, TARGET), expected)
    assert F.cross_entropy(made(x, TARGET), TARGET) < (expected - made.penalty()) / 3


def alike(made: Any) -> float:
    """The largest criterion of a pair, free of scale."""
    centred = (made.weight - made.weight.mean(1, keepdim=True)).detach()
    grams = [w @ w.T for w in centred]
    return max(
        float((grams[u] * grams[v]).sum() / grams[u].norm() / grams[v].norm()) for u, v in ((0, 1), (0, 2), (1, 2))
    )


def digits() -> tuple[Tensor, Tensor]:
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    return torch.from_numpy(x[:600] / 16).float() - 0.3, torch.from_numpy(y[:600])


def trained(made: Any, loss: Callable[[Any, Tensor, Tensor], Tensor]) -> tuple[float, float, float]:
    """The loss before and after a few steps, and how many digits are right without the margin."""
    x, y = digits()
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.05)
    first = loss(made, x, y).item()
    for _ in range(40):
        optimizer.zero_grad()
        value: Any = loss(made, x, y)
        value.backward()
        optimizer.step()
    return first, loss(made, x, y).item(), (made(x).argmax(1) == y).double().mean().item()


@pytest.mark.parametrize("name", HEADS)
def test_training_lowers_the_loss(name: str) -> None:
    torch.manual_seed(1)
    made: Any = HEADS[name]
    first, last, right = trained(made(64, 10), lambda made, x, y: F.cross_entropy(made(x, y), y))
    assert last < 0.7 * first
    assert right > 0.9


@pytest.mark.parametrize("name", ["large_margin", "sphereface"])
def test_training_lowers_the_loss_with_the_whole_margin_at_once(name: str) -> None:
    made = head(name, 64, 10, margin=2, annealing=None).float()
    first, last, _ = trained(made, lambda made, x, y: F.cross_entropy(made(x, y), y))
    assert last < 0.8 * first


def test_the_penalty_keeps_the_members_different() -> None:
    likeness = []
    for diversity in (0.0, 10.0):
        made = head("ensemble_margin", 64, 10, diversity=diversity).float()
        first, last, right = trained(made, lambda made, x, y: made.loss(x, y))
        assert last < 0.8 * first
        assert right > 0.8
        likeness.append(alike(made))
    assert likeness[0] > 0.9
    assert likeness[1] < 0.5


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "margin 0": (lambda: LargeMargin(D, K, margin=0), "LargeMargin: margin must be a whole number, from 1 to 4, got 0"),
    "margin 5": (lambda: SphereFace(D, K, margin=5), "SphereFace: margin must be a whole number, from 1 to 4, got 5"),
    "half a margin": (lambda: HEADS["sphereface"](D, K, margin=1.5), "SphereFace: margin must be a whole number"),
    "cosine": (lambda: CosFace(D, K, margin=-0.1), "CosFace: margin must lie from 0 to 2, .*, got -0.1"),
    "degrees": (lambda: ArcFace(D, K, margin=28.6), r"ArcFace: margin must lie from 0 to pi / 2 \(radians\), got 28.6"),
    "nan": (lambda: ArcFace(D, K, margin=math.nan), "ArcFace: margin must lie from 0 to"),
    "scale": (lambda: CosFace(D, K, scale=0), "CosFace: scale must be positive and finite, got 0"),
    "text": (lambda: HEADS["arcface"](D, K, scale="s"), "ArcFace: scale must be a number, got 's'"),
    "soft margin": (lambda: EnsembleMargin(D, K, margin=-1), "EnsembleMargin: margin must be finite and not negative"),
    "diversity": (lambda: EnsembleMargin(D, K, diversity=-1), "EnsembleMargin: diversity must be finite and not neg"),
    "one member": (lambda: EnsembleMargin(D, K, n_heads=1), "EnsembleMargin: n_heads must be a whole number, at lea"),
    "one class": (lambda: EnsembleMargin(D, 1), "EnsembleMargin: n_classes must be a whole number, at least 2, got 1"),
    "no features": (lambda: LinearHead(0, K), "LinearHead: n_features must be a whole number, at least 1, got 0"),
    "infinite": (lambda: HEADS["linear"](D, math.inf), "LinearHead: n_classes must be a whole number, at least 1"),
    "floor": (lambda: Annealing(floor=-1), "Annealing: floor must be finite and not negative, got -1"),
    "features": (lambda: head("arcface")(torch.zeros(N, 7)), r"ArcFace: features must have shape \(rows, 6\)"),
    "distributions": (lambda: head("cosface")(features(), torch.zeros(N, K)), "CosFace: target must be a tensor of"),
    "a list": (lambda: head("cosface")(features(), [0] * N), "CosFace: target must be a tensor of integer.*got list"),
    "too few": (lambda: head("sphereface")(features(), TARGET[1:]), "SphereFace: target must hold one class id"),
    "an id": (lambda: head("linear")(features(), TARGET + 1), r"LinearHead: target must lie in .*; got 4 at row 1"),
    "an id of loss": (lambda: head("ensemble_margin").loss(features(), TARGET - 1), "EnsembleMargin: target must lie"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_how(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()
