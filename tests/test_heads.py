"""The end of a model file computes each link in ONNX Runtime, whatever the scores."""

from __future__ import annotations

from functools import cache
from typing import Any

import mpmath  # type: ignore[import-untyped]  # it has no types
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from luce import heads, model_file
from luce.backbones import open_session, run
from luce.links import (
    LINKS,
    Entmax,
    Link,
    PseudoSoftmax,
    Sigmoid,
    SMTaylor,
    SoftMargin,
    Softmax,
    Sparsemax,
    Spherical,
    Taylor,
    softmax,
)

EPS = float(np.finfo(np.float32).eps)
DENSE: list[Link] = [Softmax(), *map(Taylor, (2, 4, 10)), Spherical(), Spherical(1e-12)]
SPARSE: list[Link] = [Sparsemax(), *(Entmax(alpha) for alpha in (1.0 + 2e-8, 1.25, 1.5, 2.0, 3.0))]
ALL = DENSE + SPARSE


@cache
def session(link: Any, k: int, temperature: float = 1.0) -> Any:
    """A head whose scores are its features."""
    graph = model_file.build_head(np.eye(k), np.zeros(k), temperature, dtype=np.dtype(np.float32), link=link)
    onnx.checker.check_model(graph, full_check=True)
    return open_session(graph)


def outputs(link: Any, scores: NDArray[np.float32], temperature: float = 1.0) -> list[NDArray[np.float64]]:
    return [part.astype(np.float64) for part in run(session(link, scores.shape[1], temperature), scores)]


@st.composite
def score_rows(draw: st.DrawFn, most: float) -> NDArray[np.float32]:
    """Rows that are equal, near each other, usual, far apart or huge, with ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    k = draw(st.sampled_from([2, 3, 7, 100, 1000]))
    scale = draw(st.sampled_from([s for s in (0.0, 1e-4, 0.3, 3.0, 50.0, 1e6, 1e20, 1e28) if s <= most]))
    z = rng.normal(0, scale, (3, k)) + scale * draw(st.sampled_from([0.0, 10.0, -10.0]))
    if draw(st.booleans()):
        z = np.where(rng.random(z.shape) < 0.5, z[:, :1], z)
    return z.astype(np.float32)


@pytest.mark.parametrize("link", ALL, ids=repr)
@given(st.data())
def test_probabilities_are_those_of_the_link(link: Link, data: st.DataObject) -> None:
    z = data.draw(score_rows(1e6 if isinstance(link, Softmax) else 1e28))
    logits, p = outputs(link, z)
    truth = np.asarray(link.probabilities(z.astype(np.float64)))
    with np.errstate(divide="ignore"):
        size = np.where(truth > 0, np.abs(np.log(truth)), 0.0)
    added = 0 if heads.is_sparse(link) else z.shape[1] / 128  # ONNX Runtime's softmax adds its K terms in float32
    rounding = EPS * truth * (4 + added + (0 if heads.is_sparse(link) else size)) + 1e-37
    if heads.is_sparse(link):
        rounding += 1e-9 * (np.abs(truth) < 1e-3)  # where it begins to be above 0
    assert (np.abs(p - truth) <= rounding).all()
    assert np.abs(p.sum(axis=1) - 1).max() <= (8 + added) * EPS
    assert np.isfinite(logits).all()
    if heads.is_sparse(link):
        assert ((p == 0) == (truth == 0))[(truth == 0) | (truth > 1e-6)].all()
        assert np.array_equal(logits, z)
    elif heads.takes_shift(link):
        assert np.abs(logits - np.log(truth)).max() <= EPS * (1 + size.max())


@pytest.mark.parametrize("link", [Taylor(10), Spherical(), Sparsemax(), Entmax(), Entmax(1.2), Entmax(7.0)], ids=repr)
def test_scores_of_any_size_give_distributions(link: Link) -> None:
    largest = float(np.finfo(np.float32).max)
    for row in ([largest, 0, -largest], [largest, largest, 1], [0, 0, 0], [1e-45, 0, -1e-45], [1e38, 9e37, -1e-38]):
        logits, p = outputs(link, np.array([row], np.float32))
        assert np.isfinite(logits).all()
        assert ((p >= 0) & (p <= 1 + EPS)).all()
        assert p.sum() == pytest.approx(1, abs=4 * EPS)


@pytest.mark.parametrize("alpha", [4.5, 10.0])
def test_large_alphas_against_sixty_digits(alpha: float) -> None:
    """The link itself is off by 1e-6 (alpha = 4.5) to 1e-2 (10) in float64, at the edge of the support."""
    z = np.random.default_rng(0).normal(0, 0.1, (12, 10)).astype(np.float32)
    assert np.abs(outputs(Entmax(alpha), z)[1] - [slow_entmax(row, alpha) for row in z]).max() <= EPS


def slow_entmax(row: NDArray[np.float32], alpha: float) -> list[float]:
    """The threshold by halving, in 60 digits."""
    with mpmath.workdps(60):
        a = mpmath.mpf(alpha) - 1
        u = [a * mpmath.mpf(float(v)) for v in row]
        low, high = max(u) - 1, max(u)
        for _ in range(190):
            tau = (low + high) / 2
            p = [max(v - tau, mpmath.mpf(0)) ** (1 / a) for v in u]
            low, high = (tau, high) if sum(p) >= 1 else (low, tau)
        return [float(v) for v in p]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("link", [Softmax(), Taylor(4), Spherical(), Sparsemax(), Entmax(), Entmax(1.3)], ids=repr)
def test_the_temperature_divides_the_logits(link: Link, temperature: float) -> None:
    z = np.random.default_rng(1).normal(0, 2, (50, 6)).astype(np.float32)
    logits, p = outputs(link, z, temperature)
    truth = np.asarray(link.probabilities(z.astype(np.float64)))
    if heads.is_sparse(link):
        expected = np.asarray(link.probabilities(z.astype(np.float64) / temperature))
    else:
        expected = truth ** (1 / temperature) / (truth ** (1 / temperature)).sum(axis=1, keepdims=True)
    assert np.abs(p - expected).max() <= 20 * EPS
    assert np.abs(p - heads.on_logits(link).probabilities(logits / temperature)).max() <= 4 * EPS


@pytest.mark.parametrize("link", [Softmax(), Taylor(4), Spherical()], ids=repr)
def test_a_shift_changes_the_class_shares(link: Link) -> None:
    z = np.random.default_rng(2).normal(0, 2, (20, 3)).astype(np.float32)
    shares = np.array([0.2, 0.5, 0.3])
    options: dict[str, Any] = {"dtype": z.dtype, "link": link}
    shifted = open_session(model_file.build_head(np.eye(3), np.zeros(3), 1.0, **options, shift=np.log(shares)))
    expected = np.asarray(link.probabilities(z.astype(np.float64))) * shares
    assert np.abs(run(shifted, z)[1] - expected / expected.sum(axis=1, keepdims=True)).max() <= 8 * EPS


@pytest.mark.parametrize("link", [Sparsemax(), Entmax()], ids=repr)
def test_sparse_links_take_no_shift(link: Link) -> None:
    options: dict[str, Any] = {"dtype": np.dtype(np.float32), "link": link}
    with pytest.raises(ValueError, match="cannot be shifted"):
        model_file.build_head(np.eye(2), np.zeros(2), 1.0, **options, shift=np.array([0.1, 0.0]))
    model_file.build_head(np.eye(2), np.zeros(2), 1.0, **options, shift=np.zeros(2))


@pytest.mark.parametrize(
    "link",
    [
        Softmax(2.0),
        SoftMargin(0.6, 3.0),
        PseudoSoftmax(2.0),
        Taylor(4, 0.5),
        SMTaylor(6, 0.7, 2.0),
        Spherical(0.1, 2.0),
        Sparsemax(2.0),
        Entmax(1.3, 3.0),
        Entmax(1.0, 3.0),
    ],
    ids=repr,
)
def test_at_test_time_the_temperature_is_in_the_scores_and_margins_are_gone(link: Link) -> None:
    z = np.random.default_rng(3).normal(0, 2, (20, 5))
    held, scale = heads.at_test_time(link)
    np.testing.assert_allclose(held.probabilities(scale * z), link.probabilities(z), rtol=1e-10, atol=1e-10)
    assert heads.at_test_time(held) == (held, 1.0)
    assert heads.parse(heads.describe(held)) == held


def test_an_alpha_that_is_nearly_1_is_softmax() -> None:
    z = np.array([0.0, 1.0, 3.0])
    assert heads.at_test_time(Entmax(1 + 1e-9, 2.0)) == (Softmax(), 0.5)
    assert np.abs(softmax(z) - Entmax(1 + 1e-6).probabilities(z)).max() < 1e-6


def test_every_link_but_sigmoid_is_held() -> None:
    for kind in LINKS.values():
        if kind is not Sigmoid:
            heads.at_test_time(kind())
    with pytest.raises(ValueError, match="sigmoid gives each class a probability of its own"):
        heads.at_test_time(Sigmoid())


def test_links_are_written_as_the_command_line_reads_them() -> None:
    assert heads.written(Taylor(4)) == "taylor:degree=4"
    assert heads.written(Entmax(1.25)) == "entmax:alpha=1.25"
    assert heads.written(Softmax()) == "softmax"


@pytest.mark.parametrize(
    "described",
    [
        {"name": "softmux"},
        {"name": "sigmoid"},
        {"name": "soft_margin", "margin": 0.5},
        {"name": "taylor", "degree": 3},
        {"name": "taylor", "degree": True},
        {"name": "taylor", "degree": [2]},
        {"name": "taylor", "eps": 2},
        {"name": "taylor", "degree": 2, "temperature": 2.0},
        {"name": "spherical", "eps": 0},
        {"name": "spherical", "eps": "1"},
        {"name": "entmax", "alpha": 0.5},
        {"name": "entmax", "alpha": 1},
        {"name": "entmax", "alpha": 10**400},
    ],
)
def test_links_that_no_head_holds_are_refused(described: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        heads.parse(described)


def test_probabilities_of_softmax_need_no_more_nodes_than_before() -> None:
    nodes, constants = heads.head_nodes(Softmax(), 3)
    assert [node.op_type for node in nodes] == ["Cast", "Gemm", "Div", "Softmax"]
    assert constants == {}
    z = np.array([[1.0, 2.0, 4.0]], np.float32)
    assert np.abs(outputs(Softmax(), z, 2.0)[1] - softmax(z.astype(np.float64), temperature=2.0)).max() <= EPS
