"""The family's functions and links against published values: in float64 as they stand, in float32 by the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import luce
from luce import links
from luce.links import Link
from tests import reference, test_reference, vectors
from tests.reference_losses import MEMBERS
from tests.test_reference import published

Array = NDArray[Any]
# Names as in vectors.py.
MAPS: dict[str, Callable[[Array, Array], Array]] = {
    "softmax": lambda x, _: luce.softmax(x),
    "log_softmax": lambda x, _: luce.log_softmax(x),
    "softmax, T=2": lambda x, _: luce.softmax(x, temperature=2.0),
    "softmax, T=0.5": lambda x, _: luce.softmax(x, temperature=0.5),
    "sigmoid": lambda x, _: luce.sigmoid(x),
    "tanh": lambda x, _: luce.tanh(x),
    "normalize": lambda x, _: luce.normalize(x),
    "Taylor, degree 2": lambda x, _: luce.taylor_softmax(x),
    "Taylor, degree 4": lambda x, _: luce.taylor_softmax(x, degree=4),
    "Taylor, degree 6": lambda x, _: luce.taylor_softmax(x, degree=6),
    "soft margin 0.5": lambda x, ids: luce.soft_margin_softmax(x, target=ids, margin=0.5),
    "soft margin 0.5, Taylor, degree 2": lambda x, ids: luce.sm_taylor_softmax(x, target=ids, degree=2, margin=0.5),
    "soft margin 0.5, Taylor, degree 4": lambda x, ids: luce.sm_taylor_softmax(x, target=ids, degree=4, margin=0.5),
    "spherical, eps 1e-3": lambda x, _: luce.spherical_softmax(x, eps=1e-3),
    "sparsemax": lambda x, _: luce.sparsemax(x),
    "entmax, alpha 1.5": lambda x, _: luce.entmax15(x),
    "entmax, alpha 1.25": lambda x, _: luce.entmax(x, alpha=1.25),
    "pseudo-softmax": lambda x, _: luce.pseudo_softmax(x),
}
REDUCTIONS: dict[str, Callable[[Array], Array]] = {
    "logsumexp": luce.logsumexp,
    "mellowmax, omega 1": luce.mellowmax,
    "Boltzmann mean, T=1": luce.boltzmann_mean,
}
LINKS: dict[str, Link] = {
    "softmax": links.Softmax(),
    "softmax, T=2": links.Softmax(temperature=2.0),
    "softmax, smoothing 0.1": links.Softmax(),
    "Taylor, degree 2": links.Taylor(),
    "Taylor, degree 4": links.Taylor(degree=4),
    "soft margin 0.5": links.SoftMargin(),
    "soft margin 0.5, Taylor, degree 2": links.SMTaylor(),
    "soft margin 0.5, Taylor, degree 4": links.SMTaylor(degree=4),
    "spherical, eps 1e-3": links.Spherical(),
    "sparsemax": links.Sparsemax(),
    "entmax, alpha 1.5": links.Entmax(),
    "pseudo-softmax": links.PseudoSoftmax(),
}
LOSSES: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    **{name: link.loss_and_grad for name, link in LINKS.items()},
    "focal, gamma 2": lambda x, target: luce.focal_and_grad(x, target, gamma=2.0),
    "Brier": luce.brier_and_grad,
}
FLOAT32 = 2e-6  # relative, of results whose every step is rounded to float32


def given(letter: str, dtype: type[np.floating]) -> tuple[Array, Array]:
    """One row (1, K), rounded to a dtype, and its class (1,)."""
    return np.array([vectors.ROWS[letter]], dtype), np.array([vectors.TARGETS[letter]])


def targets(name: str, ids: Array, k: int, dtype: type[np.floating]) -> list[Array]:
    """The target as class ids and as a distribution; a smoothed one has no ids."""
    one_hot = np.eye(k, dtype=dtype)[ids]
    return [(0.9 * one_hot + 0.1 / k).astype(dtype)] if "smoothing" in name else [ids, one_hot]


def numbers(values: Any) -> list[float]:
    return [float(v) for v in values]


def test_every_published_value_is_looked_at() -> None:
    assert set(MAPS) == set(vectors.MAPS)
    assert set(REDUCTIONS) == set(vectors.REDUCTIONS) - {"sparsemax, tau"}
    assert set(LOSSES) == set(vectors.LOSSES)


@published(vectors.MAPS)
def test_maps(name: str, letter: str) -> None:
    x, ids = given(letter, np.float64)
    np.testing.assert_allclose(MAPS[name](x, ids)[0], vectors.MAPS[name][letter], rtol=1e-11)
    x, ids = given(letter, np.float32)
    got = MAPS[name](x, ids)
    assert got.dtype == np.float32
    row = x[0].tolist()
    exact = test_reference.MAPS[name](row, reference.one_hot(ids[0], len(row)))
    np.testing.assert_allclose(got[0], numbers(exact), rtol=FLOAT32)


@published({name: vectors.REDUCTIONS[name] for name in REDUCTIONS})
def test_reductions(name: str, letter: str) -> None:
    x, _ = given(letter, np.float64)
    np.testing.assert_allclose(REDUCTIONS[name](x), [vectors.REDUCTIONS[name][letter]], rtol=1e-11)
    x, _ = given(letter, np.float32)
    got = REDUCTIONS[name](x)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, numbers([test_reference.REDUCTIONS[name](x[0].tolist())]), rtol=FLOAT32)


@published(vectors.LOSSES)
def test_losses_and_gradients(name: str, letter: str) -> None:
    x, ids = given(letter, np.float64)
    for target in targets(name, ids, x.shape[1], np.float64):
        loss, grad = LOSSES[name](x, target)
        np.testing.assert_allclose(loss, [vectors.LOSSES[name][letter]], rtol=1e-11)
        if letter == "C" and name in vectors.GRADIENTS_OF_C:
            np.testing.assert_allclose(grad[0], vectors.GRADIENTS_OF_C[name], rtol=1e-11)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-11), (np.float32, FLOAT32)])
@published(vectors.LOSSES)
def test_losses_and_gradients_of_every_row(name: str, letter: str, dtype: type[np.floating], rtol: float) -> None:
    member, parameters = test_reference.LOSSES[name]
    exact_loss, exact_gradient = (MEMBERS[member].loss, MEMBERS[member].gradient) if isinstance(member, str) else member
    x, ids = given(letter, dtype)
    row = x[0].tolist()
    for target in targets(name, ids, len(row), dtype):
        loss, grad = LOSSES[name](x, target)
        assert loss.dtype == grad.dtype == dtype
        q = target[0].tolist() if target.ndim == 2 else reference.one_hot(ids[0], len(row))
        np.testing.assert_allclose(loss, numbers([exact_loss(row, q, **parameters)]), rtol=rtol)
        np.testing.assert_allclose(grad[0], numbers(exact_gradient(row, q, **parameters)), rtol=rtol)


@pytest.mark.parametrize("letter", sorted(vectors.ROWS))
@pytest.mark.parametrize("name", sorted(LINKS))
def test_probabilities_of_links(name: str, letter: str) -> None:
    member, parameters = test_reference.LOSSES[name]
    for dtype, rtol in ((np.float64, 1e-11), (np.float32, FLOAT32)):
        x, _ = given(letter, dtype)
        p, log_p = LINKS[name].probabilities(x), LINKS[name].log_probabilities(x)
        assert p.dtype == log_p.dtype == dtype
        row = x[0].tolist()
        np.testing.assert_allclose(p[0], numbers(MEMBERS[member].probabilities(row, **parameters)), rtol=rtol)
        exact = numbers(MEMBERS[member].log_probabilities(row, **parameters))
        np.testing.assert_allclose(log_p[0], exact, rtol=rtol)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("letter", sorted(vectors.ROWS))
def test_the_sigmoid_link(letter: str, temperature: float) -> None:
    link = links.Sigmoid(temperature=temperature)
    for dtype, rtol in ((np.float64, 1e-11), (np.float32, FLOAT32)):
        x, ids = given(letter, dtype)
        row, labels = x[0].tolist(), np.linspace(0, 1, x.shape[1], dtype=dtype)[None]
        one_hot = np.eye(x.shape[1], dtype=dtype)[ids]
        for target, q in ((ids, one_hot), (one_hot, one_hot), (labels, labels)):
            loss, grad = link.loss_and_grad(x, target)
            exact = MEMBERS["sigmoid"].loss(row, q[0].tolist(), temperature)
            np.testing.assert_allclose(loss, numbers([exact]), rtol=rtol)
            exact_gradient = numbers(MEMBERS["sigmoid"].gradient(row, q[0].tolist(), temperature))
            np.testing.assert_allclose(grad[0], exact_gradient, rtol=rtol, atol=rtol)
        exact_log = numbers(reference.log_sigmoid(row, temperature))
        least = float(np.finfo(dtype).smallest_normal)
        np.testing.assert_allclose(link.log_probabilities(x)[0], exact_log, rtol=rtol, atol=least)
