"""What the second derivative of softmax regression looks like, roughly, and its inverse.

The second derivative is the mean over the rows of C_i ⊗ x_i x_i', where C_i (K, K) is the loss's own in the logits. It
is taken for (mean of C_i) ⊗ (mean of x_i x_i') plus the penalty. With the spectra of the two means its inverse is a
product from each side and a division; the spectrum of the features is computed once, however often the classes'
changes and whatever the penalty. Böhning's bound (doi 10.1007/BF00048682) is the case with (I - 11'/K) / 2 for the
classes' mean: measured on pixels, the mean itself saves two thirds of the passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luce import _native
from luce.parallel import map_chunks
from luce.regression.objective import Float64, Floats, Rows, affine

_MOST_FEATURES = 4096  # from there on the whole spectrum costs more memory and time than it saves
_FEW_PRODUCTS = 1 << 17  # of a gradient and the metric: a matrix library's calls would take longer than they do
_ROWS_EACH = 4  # rows for each feature below which the greatest eigenvalues do as well, at a fraction of the work
_GREATEST = 40  # eigenvalues
_FEW_CLASSES = 32  # up to here the native product with a part of the spectrum is the faster one
_SPARE = 8  # more directions for the iteration that finds them
_FEW_ROWS, _SAMPLE_NUMBERS = 256, 1 << 22  # of the greatest eigenvalues' sample, at least and about
_GRAM_ROWS = 6  # for each feature; more save no pass
_BLOCK_BYTES = 1 << 22  # of features at once
_FLOOR = 1e-3  # of the classes' largest curvature, for biases


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Of the features' second moments in penalised units: R eigenvalues and what they leave of the variances.

    Attributes:
        values: (R,) not negative.
        vectors: (R, D), a row for each value, in the dtype of the products with them.
        rest: (D,) variances that are left, as if they were independent; `None` where nothing is.
        few: the vectors in float64 where they are few: then the native product is the faster one.
    """

    values: Float64
    vectors: Floats
    rest: Float64 | None = None
    few: Float64 | None = None

    def at(self, dtype: type[np.float32] | type[np.float64]) -> Spectrum:
        """The same for products in another dtype."""
        return replace(self, vectors=self.vectors.astype(dtype, copy=False))

    def there(self, grad: Float64) -> Floats:
        """Coordinates (..., R) of (..., D) in the basis of the vectors."""
        return grad.astype(self.vectors.dtype) @ self.vectors.T

    def back(self, coordinates: Floats) -> Floats:
        """The reverse of `there`."""
        return coordinates.astype(self.vectors.dtype) @ self.vectors


def spectrum(rows: Rows, unit: Float64, deviation: Float64) -> Spectrum:
    """The spectrum of the features in units of 1 / `unit`, or its greatest part where all of it is not worth its time.

    Args:
        rows: the data; their mean over the problems counts.
        unit: (D,).
        deviation: (D,) standard deviation of each feature.
    """
    d = rows.features.shape[1]
    if d > _MOST_FEATURES or (rows.n_rows < _ROWS_EACH * d and d > _ROWS_EACH * _GREATEST):
        return _greatest(rows, unit, (deviation**2 + (rows.center - rows.origin) ** 2) * unit**2)
    values, vectors = np.linalg.eigh(gram(rows, unit))
    few = rows.n_classes * d * (rows.n_classes + d) <= _FEW_PRODUCTS
    vectors = np.ascontiguousarray(vectors.T)
    return Spectrum(np.maximum(values, 0.0), vectors, few=vectors if few else None)


def _greatest(rows: Rows, unit: Float64, variances: Float64) -> Spectrum:
    """The greatest eigenvalues of a sample by subspace iteration (Halko et al. 2011, doi 10.1137/090771806)."""
    x, share = sample(rows, unit)
    rng = np.random.default_rng(0)
    n, none = min(_GREATEST + _SPARE, x.shape[1]), np.zeros(x.shape[1], x.dtype)
    block = rng.standard_normal((len(x), n), dtype=np.float32).astype(x.dtype)
    for _ in range(2):
        basis, _ = np.linalg.qr(rows.total((block.T @ x).astype(np.float64)).T)
        block = affine(x, np.ascontiguousarray(basis.T, x.dtype), none[:n], none, rows.n_threads)
    values, turn = np.linalg.eigh(rows.total((block.T @ block).astype(np.float64)) / share)
    vectors = (turn.T @ basis.T)[-_GREATEST:]
    values = np.maximum(values[-_GREATEST:], 0.0)
    rest = np.maximum(variances - values @ vectors**2, 0.0)
    return Spectrum(values, vectors, rest, few=vectors if rows.n_classes <= _FEW_CLASSES else None)


def gram(rows: Rows, unit: Float64) -> Float64:
    """Second moments (D, D) of the features from the origin, times `unit`, over a sample of the rows."""
    n, d = rows.features.shape
    step = max(1, -(-n // max(_GRAM_ROWS * d, 4096)))
    features, weight = rows.features[::step], rows.weight[::step].mean(axis=1, dtype=np.float64)
    size = max(64, _BLOCK_BYTES // (rows.weight.itemsize * d))

    def part(starts: Sequence[int]) -> list[Floats]:
        block = slice(starts[0], starts[0] + size)
        x = _weighed(rows, features[block], weight[block], unit)
        return [x.T @ x]

    sums = np.zeros((d, d))
    starts = range(0, len(features), size)
    if len(starts) == 1:  # no thread is worth its start
        sums += part(starts)[0]
    else:
        for moments in map_chunks(starts, part, chunk=1, n_threads=max(1, rows.n_threads)):
            sums += moments
    share = rows.total(np.array([weight.sum()]))
    return rows.total(sums) / max(float(share[0]), np.finfo(np.float64).tiny)


def sample(rows: Rows, unit: Float64) -> tuple[Floats, float]:
    """Some rows (S, D) from the origin, times `unit` and the root of their weight.

    Returns:
        The rows, in the dtype of the arithmetic, and the sum of their weights over all processes.
    """
    n, d = rows.features.shape
    wanted = min(n, max(_FEW_ROWS, _SAMPLE_NUMBERS // d))
    step = max(1, -(-n // wanted))
    weight = rows.weight[::step].mean(axis=1, dtype=np.float64)
    x = _weighed(rows, rows.features[::step], weight, unit)
    share = float(rows.total(np.array([weight.sum()]))[0])
    return x, max(share, np.finfo(np.float64).tiny)


def _weighed(rows: Rows, features: NDArray[Any], weight: Float64, unit: Float64) -> Floats:
    """Some of the features, measured from the origin, times `unit` and the root of their weight."""
    dtype = rows.weight.dtype
    x: Floats = features.astype(dtype)
    x -= rows.origin.astype(dtype)
    x *= unit.astype(dtype)
    x *= np.sqrt(weight)[:, None].astype(dtype)
    return x


@dataclass(frozen=True, slots=True)
class Preconditioner:
    """The inverse for B problems.

    Attributes:
        spectrum: of the features.
        classes: (B, K, K), the eigenvectors of the classes' mean curvature, a column each.
        gain: (B, K, R), of what lies along each vector.
        roots: (B, K, D), of the inverse where the spectrum leaves something: the product is with them, then with the
            vectors' gains besides 1, then with them again, which is positive whatever they are.
        bias_divisor: (B, K).
        mean: (B, D) of the features in penalised units, weighted by curvature: there a bias is independent of weights.
        n_threads: threads that share the gradients; they change no result.
    """

    spectrum: Spectrum
    classes: Float64
    gain: Float64
    roots: Float64 | None
    bias_divisor: Float64
    mean: Float64
    n_threads: int = 1

    def __call__(self, grads: Float64) -> Float64:
        """Apply it to M gradients (B, M, K D + K) of each problem: weights, then biases."""
        if self.spectrum.few is not None:
            out = np.empty(grads.shape)
            _native.lbfgs_metric(
                self.spectrum.few, self.classes, self.gain, self.roots, self.bias_divisor, self.mean,
                np.ascontiguousarray(grads), out, self.n_threads,
            )  # fmt: skip
            return out
        (n_problems, m, _), k, d = grads.shape, len(self.classes[0]), self.mean.shape[1]
        weights, bias = grads[..., : k * d].reshape(n_problems, m, k, d), grads[..., k * d :]
        classes = self.classes[:, None]
        turned = weights - bias[..., None] * self.mean[:, None, None]
        if self.roots is None:
            along = classes.swapaxes(2, 3) @ self.spectrum.there(turned)
            along *= self.gain[:, None]
            step = self.spectrum.back(classes @ along)
        else:
            turned = classes.swapaxes(2, 3) @ turned
            turned *= self.roots[:, None]
            turned += self.spectrum.back(self.spectrum.there(turned) * self.gain[:, None])
            turned *= self.roots[:, None]
            step = classes @ turned
        out = np.empty_like(grads)
        out[..., : k * d] = step.reshape(n_problems, m, -1)
        out[..., k * d :] = self._bias_steps(bias) - np.einsum("bmkd,bd->bmk", step, self.mean)
        return out

    def bias_step(self, grad: Float64) -> Float64:
        """The step (B, K) in the biases alone."""
        return self._bias_steps(grad[:, None])[:, 0]

    def _bias_steps(self, grads: Float64) -> Float64:
        steps: Float64 = grads @ self.classes / self.bias_divisor[:, None] @ self.classes.swapaxes(1, 2)
        return steps


def preconditioner(
    features: Spectrum,
    curvature: Float64,
    mean: Float64,
    strength: Float64,
    least: Float64 | float = 0.0,
    n_threads: int = 1,
) -> Preconditioner:
    """The inverse from the features' spectrum, and of each problem the curvature (B, K, K), mean and penalty (B,).

    The curvature in the biases is taken to be `least` (B,) at least.
    """
    values, vectors = np.linalg.eigh(curvature)
    values = np.maximum(values, 0.0)
    most = np.maximum(values[:, -1:], np.finfo(np.float64).tiny)
    eps = np.finfo(features.vectors.dtype).eps  # below lies rounding
    floor = eps * most[:, :, None] * max(float(features.values.max(initial=0.0)), 1e-300)

    def divisor(variances: Float64) -> Float64:
        all_of_them: Float64 = np.maximum(values[:, :, None] * variances + strength[:, None, None], floor)
        return all_of_them

    gain, roots = 1 / divisor(features.values), None
    if features.rest is not None:
        rest = divisor(features.rest)
        gain = gain * divisor(features.vectors**2 @ features.rest) - 1
        roots = 1 / np.sqrt(rest)
    return Preconditioner(
        features,
        vectors,
        gain,
        roots,
        np.maximum(values, np.maximum(_FLOOR * most, np.reshape(least, (-1, 1)))),
        mean,
        n_threads,
    )
