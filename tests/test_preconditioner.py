"""The metric of the solver is the inverse it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luce import _native
from luce.links import Entmax, Link, Sigmoid, Softmax, Sparsemax
from luce.regression import row_loss
from luce.regression.objective import curvature
from luce.regression.preconditioner import Spectrum, gram, preconditioner, spectrum
from tests.plain_regression import blobs, distributions_of, rows_of


def test_the_metric_is_the_inverse_it_says() -> None:
    x, y = blobs(300, 5, 3)
    rows, deviation = rows_of(x, y)
    features = spectrum(rows, np.ones(5), deviation)
    assert features.rest is None
    moments = gram(rows, np.ones(5))
    np.testing.assert_allclose(features.back(features.there(np.eye(5)) * features.values), moments, atol=1e-12)
    c = np.stack([np.diag([0.3, 0.2, 0.1]) + 0.01, np.diag([0.05, 0.2, 0.4]) + 0.02])
    strength, mean = np.array([0.05, 0.2]), np.array([[0.5, 0.0, 0.1, -0.2, 0.3], [0.0, 0.4, -0.1, 0.2, 0.0]])
    metric = preconditioner(features, c, mean, strength)
    grads = np.random.default_rng(0).normal(size=(2, 4, 18))
    found = metric(grads)
    for b in range(2):
        # the second derivative in weights and in biases that are shifted by weights @ mean
        dense = np.kron(c[b], moments) + strength[b] * np.eye(15)
        shift = np.kron(np.eye(3), mean[b])
        full = np.block([[dense + shift.T @ c[b] @ shift, shift.T @ c[b]], [c[b] @ shift, c[b]]])
        np.testing.assert_allclose(found[b], np.linalg.solve(full, grads[b].T).T, rtol=1e-9, atol=1e-9)
        step = metric.bias_step(grads[:, 0, 15:])[b]
        np.testing.assert_allclose(step, np.linalg.solve(c[b], grads[b, 0, 15:]), rtol=1e-9)


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 23), st.integers(1, 70), st.integers(1, 3))
def test_the_native_product_is_that_of_matrices(seed: int, n_problems: int, k: int, d: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    a, c = rng.normal(size=(d, d)), rng.normal(size=(n_problems, k, k))
    values, vectors = np.linalg.eigh(a @ a.T)
    vectors = np.ascontiguousarray(vectors.T)
    features = Spectrum(np.maximum(values, 0), vectors, few=vectors)
    mean, strength = rng.normal(size=(n_problems, d)), rng.uniform(0.1, 1, n_problems)
    metric = preconditioner(features, c @ c.transpose(0, 2, 1), mean, strength)
    grads = rng.normal(size=(n_problems, m, k * d + k))
    expected = replace(metric, spectrum=replace(features, few=None))(grads)
    np.testing.assert_allclose(metric(grads), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(2, 7), st.integers(2, 60))
def test_the_metric_of_a_part_of_the_spectrum_is_the_inverse_it_says(
    seed: int, n_problems: int, k: int, d: int
) -> None:
    rng = np.random.default_rng(seed)
    r = int(rng.integers(0, d))
    vectors = np.linalg.qr(rng.normal(size=(d, d)))[0][:r]
    values, rest = rng.uniform(1, 9, r), np.full(d, rng.uniform(0.1, 0.9))
    c = rng.normal(size=(n_problems, k, k))
    c = c @ c.transpose(0, 2, 1) + 0.1 * np.eye(k)
    mean, strength = rng.normal(size=(n_problems, d)), rng.uniform(0.1, 1, n_problems)
    metric = preconditioner(Spectrum(values, vectors, rest, vectors), c, mean, strength, n_threads=2)
    moments = vectors.T @ (values[:, None] * vectors) + np.diag(rest) @ (np.eye(d) - vectors.T @ vectors)
    grads = rng.normal(size=(n_problems, 2, k * d + k))
    found = metric(grads)
    many = replace(metric, spectrum=replace(metric.spectrum, few=None))  # for many classes: matrix products
    np.testing.assert_allclose(many(grads), found, rtol=1e-9, atol=1e-9 * np.abs(found).max())
    for b in range(n_problems):
        dense = np.kron(c[b], moments) + strength[b] * np.eye(k * d)
        shift = np.kron(np.eye(k), mean[b])
        full = np.block([[dense + shift.T @ c[b] @ shift, shift.T @ c[b]], [c[b] @ shift, c[b]]])
        np.testing.assert_allclose(full @ found[b].T, grads[b].T, rtol=1e-6, atol=1e-6)


@given(st.integers(0, 10**6))
def test_the_metric_is_positive_whatever_is_left_of_the_variances(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = np.linalg.qr(rng.normal(size=(12, 12)))[0][:3]
    features = Spectrum(10.0 ** rng.uniform(-6, 3, 3), vectors, 10.0 ** rng.uniform(-6, 3, 12), vectors)
    metric = preconditioner(features, np.diag([0.2, 0.1])[None], np.zeros((1, 12)), np.array([1e-3]))
    matrix = metric(np.eye(26)[None])[0]
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-9, atol=1e-9 * np.abs(matrix).max())
    size = 1 / np.sqrt(np.diag(matrix))
    assert np.linalg.eigvalsh(matrix * size * size[:, None])[0] > 0


def test_a_native_product_of_other_shapes_is_refused() -> None:
    square, rows, slabs = np.zeros((2, 3, 3)), np.zeros((2, 3)), np.zeros((2, 5, 15))
    fitting: list[Any] = [
        np.zeros((4, 4)),
        square,
        np.zeros((2, 3, 4)),
        np.zeros((2, 3, 4)),
        rows,
        np.zeros((2, 4)),
        slabs,
        slabs,
        1,
    ]
    _native.lbfgs_metric(*fitting)
    for i, part in enumerate(fitting[:-1]):
        other = fitting.copy()
        other[i] = np.zeros((*part.shape[:-1], part.shape[-1] + 1))
        with pytest.raises(ValueError, match="must have shape"):
            _native.lbfgs_metric(*other)


@pytest.mark.parametrize("intercept", [True, False])
def test_few_rows_take_the_greatest_values(intercept: bool) -> None:
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(200, 200)))[0]
    size = np.concatenate([10.0 ** np.linspace(1, 0.5, 20), np.full(180, 0.1)])
    x = rng.normal(size=(500, 200)) * size @ turn + rng.normal(size=200)
    rows, deviation = rows_of(x, rng.integers(0, 3, 500), intercept=intercept)
    unit = rng.uniform(0.5, 2, 200)
    found = spectrum(rows, unit, deviation)
    assert found.rest is not None
    values, vectors = np.linalg.eigh(gram(rows, unit))
    assert len(found.values) == 40
    np.testing.assert_allclose(found.values[-20:], values[-20:], rtol=1e-3)
    along = np.abs(np.vecdot(found.vectors[-20:], vectors.T[-20:]))
    np.testing.assert_allclose(along, 1, atol=0.01)
    variances = deviation**2 if intercept else np.mean(x**2, axis=0)
    left = variances * unit**2 - found.values @ found.vectors**2
    np.testing.assert_allclose(found.rest, np.maximum(left, 0))
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(40), atol=1e-12)


def test_few_features_are_known_whole_from_few_rows() -> None:
    x, y = blobs(30, 20, 3)
    rows, deviation = rows_of(x, y)
    assert spectrum(rows, np.ones(20), deviation).rest is None


@pytest.mark.parametrize("link", [Softmax(2.0), Sparsemax(), Entmax(alpha=1.3), Sigmoid(0.7)], ids=str)
@pytest.mark.parametrize("size", [1.0, 0.0])
def test_the_curvature_is_that_of_the_loss(link: Link, size: float) -> None:
    rng = np.random.default_rng(2)
    z, weight = size * rng.normal(size=(40, 4)), rng.random((40, 1))
    target = distributions_of(rng.integers(0, 4, 40), 4)
    rows, _ = rows_of(z, target, weight, loss=row_loss(link))
    found, _ = curvature(rows, np.eye(4)[None], rows.center[None])
    step = 1e-6
    columns = []
    for k in range(4):
        high, low = (link.loss_and_grad(z + sign * step * np.eye(4)[k], target)[1] for sign in (1, -1))
        columns.append(rows.weight[:, 0] @ ((high - low) / (2 * step)))
    np.testing.assert_allclose(found[0], np.array(columns), atol=1e-4)
    if size == 0:
        np.testing.assert_allclose(row_loss(link).curvature_at_zero(4), found[0], rtol=1e-12, atol=1e-15)
