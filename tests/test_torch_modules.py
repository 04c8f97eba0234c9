"""Links and their losses as torch modules: values, gradients, torch's options, dtypes, messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import luce
from luce.links import LINKS, Entmax, Sigmoid, SMTaylor, SoftMargin, Softmax, Spherical, Taylor
from luce.torch import LinkLoss, LinkProbabilities

F: Any = nn.functional
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
REDUCTIONS: tuple[Any, ...] = ("none", "mean", "sum")


def link(name: str) -> Any:
    return LINKS[name]()


def logits(n: int = 6, k: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    """Logits where every member is smooth, Taylor's to the right of its minimum."""
    values = torch.from_numpy(np.random.default_rng(0).uniform(0.1, 2.5, (n, k)))
    return values.to(dtype).requires_grad_()


IDS = torch.tensor([0, 3, 1, 2, 2, 0])
SPREAD = torch.softmax(torch.from_numpy(np.random.default_rng(1).normal(size=(6, 4))), 1)
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 4.5], dtype=torch.float64)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("name", LINKS)
def test_probabilities_are_those_of_the_link(name: str, log: bool) -> None:
    x = logits().reshape(2, 3, 4)
    module = LinkProbabilities(link(name), log=log)
    member = link(name)
    expected = (member.log_probabilities if log else member.probabilities)(x.detach().numpy())
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-13)
    assert torch.autograd.gradcheck(lambda x: module(x / 9), logits(2, 3))  # near each other: none has probability 0


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("target", [IDS, SPREAD], ids=["ids", "distributions"])
def test_loss_is_the_links_own(name: str, target: Tensor) -> None:
    x = logits()
    loss, grad = link(name).loss_and_grad(x.detach().numpy(), target.numpy())
    ours = LinkLoss(link(name), reduction="none")(x, target)
    np.testing.assert_allclose(ours.detach().numpy(), loss, rtol=1e-12)
    (slope,) = torch.autograd.grad(ours, x, torch.arange(1.0, 7.0, dtype=torch.float64))
    np.testing.assert_allclose(slope.numpy(), grad * np.arange(1, 7)[:, None], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("target", [IDS, SPREAD], ids=["ids", "distributions"])
def test_gradients_in_every_option(name: str, target: Tensor) -> None:
    for weight in (None, WEIGHT):
        for smoothing in (0.0, 0.2):
            for reduction in REDUCTIONS:
                loss = LinkLoss(link(name), weight=weight, label_smoothing=smoothing, reduction=reduction)
                assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, target), logits())


@pytest.mark.parametrize("target", [IDS, SPREAD], ids=["ids", "distributions"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
def test_softmax_is_torchs_loss(target: Tensor, smoothing: float, weight: Tensor | None) -> None:
    """And the native loss without a margin, softmax's too, shows that the rule for other links is the same."""
    for reduction in REDUCTIONS:
        options: Any = {"weight": weight, "label_smoothing": smoothing, "reduction": reduction}
        x = logits()
        theirs = nn.CrossEntropyLoss(**options)(x, target)
        torch.testing.assert_close(LinkLoss(**options)(x, target), theirs)
        torch.testing.assert_close(LinkLoss(Softmax(temperature=2.0), **options)(2 * x, target), theirs)
        native = LinkLoss(SoftMargin(margin=0.0), **options)(x, target)
        torch.testing.assert_close(native, theirs)
        slopes = [torch.autograd.grad(y.sum(), x)[0] for y in (native, theirs)]
        torch.testing.assert_close(*slopes)


def test_a_sparse_links_weights_and_smoothing_by_hand() -> None:
    x, q = logits(1), torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    smooth = 0.8 * q + 0.05
    mass = float(smooth[0] @ WEIGHT)
    expected = mass * Entmax().loss_and_grad(x.detach().numpy(), (smooth * WEIGHT / mass).numpy())[0]
    loss = LinkLoss(Entmax(), weight=WEIGHT, label_smoothing=0.2)(x, q)
    np.testing.assert_allclose(loss.item(), expected[0], rtol=1e-12)


def test_the_mean_divides_by_the_weights_of_ids_and_by_the_rows_of_distributions() -> None:
    x, one_hot = logits(), F.one_hot(IDS, 4).double()
    rows = LinkLoss(Taylor(), reduction="none")(x, IDS)
    by_ids = LinkLoss(Taylor(), weight=WEIGHT)(x, IDS)
    torch.testing.assert_close(by_ids, (rows * WEIGHT[IDS]).sum() / WEIGHT[IDS].sum())
    torch.testing.assert_close(LinkLoss(Taylor(), weight=WEIGHT)(x, one_hot), (rows * WEIGHT[IDS]).sum() / 6)


def test_margins_count() -> None:
    x = logits()
    for member in (SoftMargin(margin=1.0), SMTaylor(margin=0.1)):
        without = dataclasses.replace(member, margin=0.0)
        assert bool((LinkLoss(member)(x, IDS) > LinkLoss(without)(x, IDS)).all())
        torch.testing.assert_close(LinkProbabilities(member)(x), LinkProbabilities(without)(x))


def test_smoothing_leaves_out_what_is_not_there() -> None:
    x = torch.tensor([[0.0, -torch.inf, 0.0]])
    loss = LinkLoss(SoftMargin(margin=0.0), label_smoothing=0.1)(x, torch.tensor([0]))
    torch.testing.assert_close(loss, torch.tensor(2.0).log())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["softmax", "soft_margin", "sparsemax"])
def test_dtypes_are_kept_and_halves_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    x = logits(dtype=dtype)
    wide = x.detach().to(torch.float64 if dtype == torch.float64 else torch.float32).requires_grad_()
    loss = LinkLoss(link(name), weight=WEIGHT.float(), label_smoothing=0.1)
    ours, exact = loss(x, IDS), loss(wide, IDS)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, exact.to(dtype), rtol=0, atol=0)
    slope, expected = torch.autograd.grad(ours, x)[0], torch.autograd.grad(exact, wide)[0]
    assert slope.dtype == dtype
    torch.testing.assert_close(slope, expected.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32], ids=str)
def test_ids_of_any_integer_dtype(dtype: torch.dtype) -> None:
    for member in (Softmax(), Taylor()):
        loss = LinkLoss(member, weight=WEIGHT, label_smoothing=0.1)
        torch.testing.assert_close(loss(logits(), IDS.to(dtype)), loss(logits(), IDS))


def test_other_layouts() -> None:
    x = logits(4, 6)
    loss = LinkLoss(Spherical())
    torch.testing.assert_close(loss(x.T, IDS), loss(x.T.contiguous(), IDS))


def test_nothing_to_average_is_0() -> None:
    x, loss = logits(), LinkLoss(Taylor(), weight=[0.0, 1.0, 1.0, 1.0])
    nothing = loss(x, torch.zeros(6, dtype=torch.int64))
    assert nothing.item() == 0
    assert torch.autograd.grad(nothing, x)[0].count_nonzero() == 0
    assert loss(x[:0], IDS[:0]).item() == 0


def test_weights_are_a_buffer() -> None:
    loss = LinkLoss(Taylor(), weight=[1, 2, 3, 4])
    assert list(loss.state_dict()) == ["weight"]
    assert list(LinkLoss().state_dict()) == []
    other = LinkLoss(Taylor(), weight=[1, 1, 1, 1])
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(other(logits(), IDS), loss(logits(), IDS))
    own = torch.ones(4)
    kept = LinkLoss(weight=own)
    own[0] = 5
    torch.testing.assert_close(kept.weight, torch.ones(4))


# torch looks at the gradients of what it finds after a break of the graph, and warns itself of that.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("name", ["softmax", "taylor"])
def test_under_compile(name: str) -> None:
    module, loss = nn.Linear(4, 4).double(), LinkLoss(link(name), weight=WEIGHT)

    def step(x: Tensor) -> Tensor:
        y: Tensor = loss(module(x).exp(), IDS) * 2
        return y

    compiled: Callable[[Tensor], Tensor] = torch.compile(step, fullgraph=name == "softmax", backend="eager")
    x = logits()
    ours, eager = compiled(x), step(x)
    torch.testing.assert_close(ours, eager)
    torch.testing.assert_close(torch.autograd.grad(ours, x), torch.autograd.grad(eager, x))


def test_softmax_works_on_other_devices() -> None:
    loss = LinkLoss(weight=torch.ones(4), label_smoothing=0.1).to("meta")
    assert loss(logits().to("meta"), IDS.to("meta")).device.type == "meta"


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("target", [IDS, SPREAD], ids=["ids", "distributions"])
def test_plain_operations_give_the_same_and_a_second_derivative(name: str, target: Tensor) -> None:
    for weight in (None, WEIGHT):
        options: dict[str, Any] = {"weight": weight, "label_smoothing": 0.1, "reduction": "none"}
        x = logits() * 3 - 2 if name in ("sparsemax", "entmax") else logits()  # some probabilities are 0
        ours, native = (LinkLoss(link(name), plain=plain, **options)(x, target) for plain in (True, False))
        torch.testing.assert_close(ours, native, rtol=1e-12, atol=1e-13)
        (slope,), (expected,) = (torch.autograd.grad(y.sum(), x, retain_graph=True) for y in (ours, native))
        torch.testing.assert_close(slope, expected, rtol=1e-10, atol=1e-12)
    loss = LinkLoss(link(name), plain=True)
    near = logits() / 9 if name in ("sparsemax", "entmax") else logits()
    assert torch.autograd.gradgradcheck(lambda x: loss(x, target), near.detach().requires_grad_())


def test_plain_operations_work_where_logits_are_infinite() -> None:
    x = torch.tensor([[0.5, -torch.inf, 1.0], [1.0, 2.0, -torch.inf]], dtype=torch.float64)
    for name in LINKS.keys() - {"taylor", "sm_taylor", "spherical"}:
        losses = [LinkLoss(link(name), plain=plain, reduction="none") for plain in (True, False)]
        ours, native = (loss(x, torch.tensor([2, 0])) for loss in losses)
        torch.testing.assert_close(ours, native, msg=name)


@pytest.mark.parametrize("name", LINKS)
def test_losses_work_on_other_devices_and_in_whole_graphs(name: str) -> None:
    loss = LinkLoss(link(name), weight=torch.ones(4, dtype=torch.float64), label_smoothing=0.1).to("meta")
    assert loss(logits().to("meta"), IDS.to("meta")).device.type == "meta"
    plain = LinkLoss(link(name), plain=True)
    slope = torch.func.grad(lambda x: plain(x, IDS))(logits().detach())
    x = logits()
    torch.testing.assert_close(slope, torch.autograd.grad(LinkLoss(link(name))(x, IDS), x)[0], rtol=1e-9, atol=1e-12)


def test_how_they_are_printed() -> None:
    assert repr(LinkProbabilities(Sigmoid())) == f"LinkProbabilities({Sigmoid()}, log=False)"
    assert repr(LinkLoss()) == "LinkLoss(Softmax(temperature=1.0), label_smoothing=0.0, reduction='mean')"


def called(target: Any, x: Tensor | None = None, **options: Any) -> Callable[[], Any]:
    return lambda: LinkLoss(Taylor(), **options)(logits() if x is None else x, target)


MALFORMED: dict[str, tuple[Callable[[], Any], str]] = {
    "link class": (lambda: LinkProbabilities(Softmax), "LinkProbabilities: link must be a link"),  # type: ignore[arg-type]  # is tested
    "link name": (lambda: LinkLoss("softmax"), "LinkLoss: link must be a link"),  # type: ignore[arg-type]  # is tested
    "smoothing": (lambda: LinkLoss(label_smoothing=1.5), r"LinkLoss: label_smoothing must lie in \[0, 1\], got 1.5"),
    "reduction": (called(IDS, reduction="max"), "LinkLoss: reduction must be 'none', 'mean' or 'sum', got 'max'"),
    "negative weight": (lambda: LinkLoss(weight=[1.0, -1.0]), "LinkLoss: weight must be one number for each class"),
    "weight's shape": (lambda: LinkLoss(weight=[[1.0]]), "LinkLoss: weight must be one number for each class"),
    "too few weights": (called(IDS, weight=[1.0]), "LinkLoss: weight must be 4 numbers, one for each class, got 1"),
    "logits' shape": (called(IDS, torch.zeros(6)), r"LinkLoss: logits must have shape \(rows, classes\), got \(6,\)"),
    "logits' dtype": (called(IDS, torch.zeros(6, 4, dtype=torch.bool)), "LinkLoss: needs real numbers, got dtype bool"),
    "an id": (called(IDS + 1), r"LinkLoss: target must lie in \[0, 4\); got 4 at row 1"),
    "an ignored id": (called(IDS - 100), r"LinkLoss: target must lie in \[0, 4\); got -100 at row 0"),
    "ids' shape": (called(IDS[:5]), "LinkLoss: target must hold one class id for each of 6 rows"),
    "booleans": (called(IDS > 0), "LinkLoss: target must be integer class ids or floating distributions"),
    "a negative share": (called(SPREAD - 1), "LinkLoss: target distributions must not be negative or NaN; row 0 is"),
    "distributions' shape": (called(SPREAD[:, :3]), r"LinkLoss: target distributions must have shape \(6, 4\)"),
    "target's gradient": (called(logits()), "LinkLoss: target must need no gradient"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_calls_say_what_is_wrong(name: str) -> None:
    call, message = MALFORMED[name]
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()


def test_a_network_learns_with_every_link() -> None:
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(60, 5))).float()
    target = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    for name in LINKS:
        torch.manual_seed(0)
        network, loss = nn.Linear(5, 3), LinkLoss(link(name))
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)
        first = loss(network(x), target).item()
        for _ in range(60):
            optimizer.zero_grad()
            loss(network(x), target).backward()
            optimizer.step()
        assert loss(network(x), target).item() < 0.8 * first, name


def test_agrees_with_cross_entropy_of_the_functions() -> None:
    for member in (Softmax(), Taylor(), Spherical()):
        options: Any = {"weight": WEIGHT, "label_smoothing": 0.1}
        functional: Any = luce.cross_entropy
        for target in (IDS, SPREAD):
            theirs = functional(logits(), target, link=member, **options)
            torch.testing.assert_close(LinkLoss(member, **options)(logits(), target), theirs)
