"""Temperature scaling finds the minimum, and says when it cannot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from luce.calibration import fit_temperature
from luce.links import Entmax, Link, Sparsemax, log_softmax, softmax


def sample(n: int, k: int, scale: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits whose classes are drawn from their own softmax: calibrated at temperature 1."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, scale, (n, k))
    u = rng.random(n)
    return z, (softmax(z).cumsum(axis=1) < u[:, None]).sum(axis=1).clip(0, k - 1)


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_the_true_temperature_is_found(factor: float) -> None:
    z, y = sample(20_000, 5, 2.0, 0)
    assert fit_temperature(z * factor, y).value == pytest.approx(factor, rel=0.05)


@given(st.integers(0, 1000), st.sampled_from([0.5, 2.0, 6.0]))
def test_no_temperature_nearby_is_better(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    z, y = rng.normal(0, scale, (80, 3)), rng.integers(0, 3, 80)
    z[np.arange(80), y] += 1
    weight = rng.random(80)
    fitted = fit_temperature(z, y, weight)

    def nll(t: float) -> float:
        return float(-np.average(log_softmax(z / t)[np.arange(80), y], weights=weight))

    assert fitted.loss_after == pytest.approx(nll(fitted.value))
    assert fitted.loss_before == pytest.approx(nll(1.0))
    if not fitted.note:
        for t in (fitted.value * 0.99, fitted.value * 1.01):
            assert nll(t) >= fitted.loss_after - 1e-12


def test_too_little_data_says_so_and_keeps_one() -> None:
    z, y = sample(49, 3, 1.0, 0)
    fitted = fit_temperature(5 * z, y)
    assert fitted.value == 1.0
    assert "Too little data to calibrate (49 pictures" in fitted.note
    z, y = sample(50, 3, 1.0, 0)
    assert fit_temperature(5 * z, y).value != 1.0


def test_useless_and_perfect_logits_end_at_the_edge_and_say_so() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    wrong = np.zeros((200, 3))
    wrong[np.arange(200), (y + 1) % 3] = 5.0
    assert fit_temperature(wrong, y).value == pytest.approx(20)
    assert "edge of its range" in fit_temperature(wrong, y).note
    right = np.zeros((200, 3))
    right[np.arange(200), y] = 5.0
    assert fit_temperature(right, y).value == pytest.approx(0.05)
    assert "edge of its range" in fit_temperature(right, y).note


@pytest.mark.parametrize("link", [Sparsemax(), Entmax(), Entmax(1.2)], ids=repr)
@given(st.integers(0, 1000), st.sampled_from([0.5, 2.0, 6.0]))
def test_sparse_links_have_the_least_of_their_own_loss(link: Link, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    z, y = rng.normal(0, scale, (80, 3)), rng.integers(0, 3, 80)
    z[np.arange(80), y] += 1
    weight = rng.random(80)
    fitted = fit_temperature(z, y, weight, link=link)

    def loss(t: float) -> float:
        return float(np.average(link.loss_and_grad(z / t, y)[0], weights=weight))

    assert fitted.loss_after == pytest.approx(loss(fitted.value))
    assert fitted.loss_before == pytest.approx(loss(1.0))
    if not fitted.note:
        for t in (fitted.value * 0.99, fitted.value * 1.01):
            assert loss(t) >= fitted.loss_after - 1e-12


def test_of_the_temperatures_without_any_loss_the_most_cautious_is_taken() -> None:
    y = np.arange(60) % 3
    z = np.zeros((60, 3))
    z[np.arange(60), y] = 3.0  # sparsemax has no loss where the true logit leads by 1, entmax with 1.5 by 2
    assert fit_temperature(z, y, link=Sparsemax()).value == pytest.approx(3.0, rel=1e-5)
    assert fit_temperature(z, y, link=Entmax()).value == pytest.approx(1.5, rel=1e-5)
    assert fit_temperature(z, y, link=Entmax()).note == ""
