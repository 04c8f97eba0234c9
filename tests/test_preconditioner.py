"""The metric of the solver is the inverse it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from luce import _native
from luce.links import Entmax, Link, Sigmoid, Softmax, Sparsemax
from luce.regression import row_loss
from luce.regression.objective import gram
from luce.regression.preconditioner import Spectrum, preconditioner, spectrum
from tests.plain_regression import blobs, distributions_of, rows_of


def test_the_metric_is_the_inverse_it_says() -> None:
    x, y = blobs(300, 5, 3)
    rows, deviation = rows_of(x, y)
    features = spectrum(rows, np.ones(5), deviation)
    assert features.vectors is not None
    moments = gram(rows, np.ones(5))
    np.testing.assert_allclose(features.back(features.there(np.eye(5)) * features.values), moments, atol=1e-12)
    c = np.stack([np.diag([0.3, 0.2, 0.1]) + 0.01, np.diag([0.05, 0.2, 0.4]) + 0.02])
    strength, mean = np.array([0.05, 0.2]), np.array([[0.5, 0.0, 0.1, -0.2, 0.3], [0.0, 0.4, -0.1, 0.2, 0.0]])
    metric = preconditioner(features, c, mean, strength)
    grad = np.random.default_rng(0).normal(size=(2, 18))
    found = metric(grad)
    for b in range(2):
        # the second derivative in weights and in biases that are shifted by weights @ mean
        dense = np.kron(c[b], moments) + strength[b] * np.eye(15)
        shift = np.kron(np.eye(3), mean[b])
        full = np.block([[dense + shift.T @ c[b] @ shift, shift.T @ c[b]], [c[b] @ shift, c[b]]])
        np.testing.assert_allclose(found[b], np.linalg.solve(full, grad[b]), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(metric.bias_step(grad[:, 15:])[b], np.linalg.solve(c[b], grad[b, 15:]), rtol=1e-9)
    alone = preconditioner(features, c[:1], mean[:1], strength[:1])
    np.testing.assert_allclose(alone(grad)[0], found[0], rtol=1e-12)  # of one problem: any number of gradients
    assert not np.allclose(alone(grad)[1], found[1])


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 23), st.integers(1, 70))
def test_the_native_product_is_that_of_matrices(seed: int, n_problems: int, k: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    a, c = rng.normal(size=(d, d)), rng.normal(size=(n_problems, k, k))
    values, vectors = np.linalg.eigh(a @ a.T)
    features = Spectrum(np.maximum(values, 0), vectors, np.ascontiguousarray(vectors))
    mean, strength = rng.normal(size=(n_problems, d)), rng.uniform(0.1, 1, n_problems)
    metric = preconditioner(features, c @ c.transpose(0, 2, 1), mean, strength)
    grad = rng.normal(size=(n_problems, k * d + k))
    expected = replace(metric, spectrum=replace(features, few=None))(grad)
    np.testing.assert_allclose(metric(grad), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_a_native_product_of_other_shapes_is_refused() -> None:
    square, rows, column = np.zeros((2, 3, 3)), np.zeros((2, 3)), np.zeros((2, 15))
    fitting: list[NDArray[Any]] = [
        np.zeros((4, 4)),
        square,
        np.zeros((2, 3, 4)),
        rows,
        np.zeros((2, 4)),
        column,
        column,
    ]
    _native.lbfgs_metric(*fitting)
    for i, part in enumerate(fitting):
        other = fitting.copy()
        other[i] = np.zeros((*part.shape[:-1], part.shape[-1] + 1))
        with pytest.raises(ValueError, match="must have shape"):
            _native.lbfgs_metric(*other)


def test_few_rows_take_the_variances() -> None:
    x, y = blobs(30, 20, 3)
    rows, deviation = rows_of(x, y)
    found = spectrum(rows, np.full(20, 0.5), deviation)
    assert found.vectors is None
    np.testing.assert_allclose(found.values, (deviation / 2) ** 2)


@pytest.mark.parametrize("link", [Softmax(2.0), Sparsemax(), Entmax(alpha=1.3), Sigmoid(0.7)], ids=str)
def test_the_curvature_is_that_of_the_loss(link: Link) -> None:
    rng = np.random.default_rng(2)
    z, weight = rng.normal(size=(40, 4)), rng.random(40)
    target = distributions_of(rng.integers(0, 4, 40), 4)
    found, trace = row_loss(link).curvature(z, weight)
    step = 1e-6
    columns = []
    for k in range(4):
        high, low = (link.loss_and_grad(z + sign * step * np.eye(4)[k], target)[1] for sign in (1, -1))
        columns.append(weight @ ((high - low) / (2 * step)))
    np.testing.assert_allclose(found, np.array(columns), atol=1e-4)
    assert trace.sum() == pytest.approx(np.trace(found))
