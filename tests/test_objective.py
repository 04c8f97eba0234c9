"""The data of softmax regression: losses, gradients, moments and curvature are those that are written down."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from luce.links import Sigmoid, Softmax
from luce.regression import mean_and_deviation, row_loss
from luce.regression.objective import curvature, logits, loss_and_grad
from luce.regression.preconditioner import gram, preconditioner, spectrum
from tests import plain_regression as plain


def packed(weights: NDArray[Any], bias: NDArray[Any]) -> NDArray[np.float64]:
    return np.hstack([weights.reshape(len(bias), -1), bias])


@given(st.integers(0, 10_000), st.sampled_from([np.uint8, np.float32, np.float64]), st.integers(1, 3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_gradient_is_that_of_the_loss(seed: int, dtype: type, n_problems: int, intercept: bool) -> None:
    rng = np.random.default_rng(seed)
    n, d, k = 40, 4, 3
    x: NDArray[Any] = (rng.random((n, d)) * 20).astype(dtype)
    y = np.append(np.arange(k), rng.integers(0, k, n - k))
    rows, _ = plain.rows_of(x, y, rng.random((n, n_problems)), intercept=intercept)
    weights = rng.normal(size=(n_problems, k, d)) / 5
    bias = rng.normal(size=(n_problems, k)) * intercept
    strength, unit = rng.random(n_problems), rng.uniform(0.5, 2, d)
    loss, grad, grad_bias = plain.mean_loss(rows, weights * unit, bias)
    expected = (
        loss + strength / 2 * np.sum(weights**2, axis=(1, 2)),
        packed(grad * unit + strength[:, None, None] * weights, grad_bias),
    )
    # float64: some hundred roundings of numbers below 100; float32 likewise
    for work, room in ((np.float64, 1e-12), (np.float32, 1e-4)):
        for found, other in zip(
            loss_and_grad(rows.at(work), packed(weights, bias), strength, unit), expected, strict=True
        ):
            np.testing.assert_allclose(found, other, atol=room, rtol=room)
    z = np.einsum("nd,bkd->nbk", x.astype(np.float64) - rows.origin, weights) + bias
    np.testing.assert_allclose(logits(rows, weights, bias), z, atol=1e-12)


@pytest.mark.parametrize("k", [2, 3, 7])
@pytest.mark.parametrize("n_problems", [1, 3, 70])
def test_rows_count_only_where_they_have_weight(k: int, n_problems: int) -> None:
    rng = np.random.default_rng(k)
    n, d = 300, 20
    x, y = rng.normal(size=(n, d)), rng.integers(0, k, n)
    fold = rng.integers(0, n_problems, n) if n_problems > 1 else np.ones(n)
    weight = (fold[:, None] != np.arange(n_problems)).astype(np.float64)
    weight[:, 0] *= rng.random(n) < 0.5
    x[weight[:, 0] == 0] += 3
    rows, _ = plain.rows_of(x, y, weight, n_classes=k)
    weights, bias = rng.normal(size=(n_problems, k, d)) / 5, rng.normal(size=(n_problems, k))
    strength, unit, points = rng.random(n_problems), rng.uniform(0.5, 2, d), packed(weights, bias)
    value, gradient = loss_and_grad(rows, points, strength, unit)
    loss, grad, grad_bias = plain.mean_loss(rows, weights * unit, bias)
    np.testing.assert_allclose(value, loss + strength / 2 * np.sum(weights**2, axis=(1, 2)), atol=1e-12)
    penalised = packed(grad * unit + strength[:, None, None] * weights, grad_bias)
    np.testing.assert_allclose(gradient, penalised, atol=1e-12)
    threaded = loss_and_grad(replace(rows, n_threads=3), points, strength, unit)
    for found, other in zip((value, gradient), threaded, strict=True):
        np.testing.assert_array_equal(found, other)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_mean_and_deviation_survive_a_large_offset(dtype: type) -> None:
    rng = np.random.default_rng(0)
    offset = 0 if dtype is np.uint8 else 10_000
    x: NDArray[Any] = (rng.random((5000, 3)) * 100 + offset).astype(dtype)
    x[:, 2] = 7
    weight = rng.random(5000)
    weight /= weight.sum()
    mean, deviation = mean_and_deviation(x, weight)
    x64 = x.astype(np.float64)
    expected = weight @ x64
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    np.testing.assert_allclose(deviation, np.sqrt(weight @ (x64 - expected) ** 2), rtol=2e-5, atol=1e-6)


def test_moments_of_parts_add_up() -> None:
    x, _ = plain.blobs(500, 4, 3)
    weight = np.full(500, 1 / 500)
    sums: list[NDArray[np.float64]] = []

    def watched(v: NDArray[np.float64]) -> NDArray[np.float64]:
        sums.append(v.copy())
        return v

    mean_and_deviation(x[:200] + 1e3, weight[:200], total=watched)
    assert len(sums) == 2  # what the first rows are near, then the moments
    assert sums[0][-1] == 64


def hessian(rows: Any, weights: NDArray[Any], bias: NDArray[Any]) -> NDArray[np.float64]:
    """The second derivative of the loss in weights and biases (K D + K), by central differences of the gradient."""
    k, d = weights.shape[1:]
    at = np.concatenate([weights.ravel(), bias.ravel()])
    columns = []
    for i in range(len(at)):
        ends = []
        for h in (1e-5, -1e-5):
            v = at.copy()
            v[i] += h
            _, grad, grad_bias = plain.mean_loss(rows, v[: k * d].reshape(1, k, d), v[k * d :].reshape(1, k))
            ends.append(np.concatenate([grad.ravel(), grad_bias.ravel()]))
        columns.append((ends[0] - ends[1]) / 2e-5)
    return np.array(columns)


def test_curvature_is_the_mean_second_derivative_in_the_logits() -> None:
    x, y = plain.blobs(300, 4, 3)
    rng = np.random.default_rng(0)
    for link in (Softmax(), Softmax(0.5), Sigmoid(2.0)):
        target = np.eye(3)[y] if isinstance(link, Sigmoid) else y
        weight = rng.random((300, 2))
        both, _ = plain.rows_of(x, target, weight, loss=row_loss(link))
        weights, bias = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3))
        matrices, _ = curvature(both, weights, bias)
        for b in range(2):
            rows = replace(both, weight=both.weight[:, b : b + 1].copy())
            expected = hessian(rows, weights[b : b + 1], bias[b : b + 1])[12:, 12:]
            np.testing.assert_allclose(matrices[b], expected, atol=1e-8)


def test_the_second_moments_are_those_of_centred_features() -> None:
    x, y = plain.blobs(300, 4, 3)
    rows, _ = plain.rows_of(x * 3 + 5, y)
    unit = np.array([1.0, 2.0, 3.0, 4.0])
    centred = (rows.features - rows.center) * unit
    np.testing.assert_allclose(gram(rows, unit), centred.T @ centred / 300, rtol=1e-10)


@pytest.mark.parametrize("intercept", [True, False])
def test_the_preconditioner_is_the_inverse_where_all_rows_bend_alike(intercept: bool) -> None:
    x, y = plain.blobs(300, 4, 3)
    rows, deviation = plain.rows_of(x, np.eye(3)[y], loss=row_loss(Sigmoid()), intercept=intercept)
    weights, bias = np.zeros((1, 3, 4)), np.zeros((1, 3))  # there each logit's second derivative is 1 / 4
    strength = 0.3
    full = hessian(rows, weights, bias)
    full[np.arange(12), np.arange(12)] += strength
    classes, mean = curvature(rows, weights, bias)
    inverse = preconditioner(spectrum(rows, np.ones(4), deviation), classes, mean, np.array([strength]))
    v = np.random.default_rng(0).normal(size=15)
    if not intercept:  # the biases stand still: neither they nor their gradient count
        v[12:] = 0
        np.testing.assert_allclose(inverse((full @ v * (np.arange(15) < 12))[None, None])[0, 0, :12], v[:12], atol=1e-6)
    else:
        np.testing.assert_allclose(inverse((full @ v)[None, None])[0, 0], v, atol=1e-6)
