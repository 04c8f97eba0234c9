"""What the second derivative of softmax regression looks like, roughly, and its inverse.

The second derivative is the mean over the rows of C_i ⊗ x_i x_i', where C_i (K, K) is the loss's own in the logits. It
is taken for (mean of C_i) ⊗ (mean of x_i x_i') plus the penalty. With the spectra of the two means its inverse is a
product from each side and a division; the spectrum of the features is computed once, however often the classes'
changes and whatever the penalty. Böhning's bound (doi 10.1007/BF00048682) is the case with (I - 11'/K) / 2 for the
classes' mean: measured on pixels, the mean itself saves two thirds of the passes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from luce import _native
from luce.regression.objective import Float64, Floats, Rows, gram

_MOST_FEATURES = 4096  # from there on the spectrum costs more memory and time than it saves
_FEW_PRODUCTS = 1 << 17  # of a gradient and the metric: a matrix library's calls would take longer than they do
_ROWS_EACH = 4  # rows for each feature below which the features' variances do as well, at a fraction of the work
_FLOOR = 1e-3  # of the classes' largest curvature, for biases


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Of the features' second moments in penalised units.

    Attributes:
        values: (D,) not negative.
        vectors: (D, D), a column for each value, in the dtype of the products with them; `None` where only the diagonal
            was taken.
        few: the same in float64 where they and the classes are few: then the native product is the faster one.
    """

    values: Float64
    vectors: Floats | None
    few: Float64 | None = None

    def at(self, dtype: type[np.float32] | type[np.float64]) -> Spectrum:
        """The same for products in another dtype."""
        return self if self.vectors is None else replace(self, vectors=self.vectors.astype(dtype, copy=False))

    def there(self, grad: Float64) -> Floats:
        """Coordinates of (..., D) in the basis of the vectors."""
        return grad if self.vectors is None else grad.astype(self.vectors.dtype) @ self.vectors

    def back(self, coordinates: Floats) -> Floats:
        """The reverse of `there`."""
        return coordinates if self.vectors is None else coordinates.astype(self.vectors.dtype) @ self.vectors.T


def spectrum(rows: Rows, unit: Float64, deviation: Float64) -> Spectrum:
    """The spectrum of the features in units of 1 / `unit`, or their variances where that is not worth its time.

    Args:
        rows: the data; their mean over the problems counts.
        unit: (D,).
        deviation: (D,) standard deviation of each feature.
    """
    d = rows.features.shape[1]
    n_rows = float(rows.total(np.array([float(len(rows.features))]))[0])
    if d > _MOST_FEATURES or n_rows < _ROWS_EACH * d:
        return Spectrum((deviation * unit) ** 2, None)
    values, vectors = np.linalg.eigh(gram(rows, unit))
    few = rows.n_classes * d * (rows.n_classes + d) <= _FEW_PRODUCTS
    return Spectrum(np.maximum(values, 0.0), vectors, np.ascontiguousarray(vectors) if few else None)


@dataclass(frozen=True, slots=True)
class Preconditioner:
    """The inverse for B problems.

    Attributes:
        spectrum: of the features.
        classes: (B, K, K), the eigenvectors of the classes' mean curvature, a column each.
        divisor: (B, K, D).
        bias_divisor: (B, K).
        mean: (B, D) of the features in penalised units, weighted by curvature: there a bias is independent of weights.
    """

    spectrum: Spectrum
    classes: Float64
    divisor: Float64
    bias_divisor: Float64
    mean: Float64

    def __call__(self, grad: Float64) -> Float64:
        """Apply it to gradients (B, K D + K), or any number of them where B is 1: weights, then biases."""
        n, (_, k, d) = len(grad), self.divisor.shape
        if self.spectrum.few is not None and n == len(self.divisor):
            out = np.empty_like(grad)
            _native.lbfgs_metric(
                self.spectrum.few,
                self.classes,
                self.divisor,
                self.bias_divisor,
                self.mean,
                np.ascontiguousarray(grad),
                out,
            )
            return out
        weights, bias = grad[:, : k * d].reshape(n, k, d), grad[:, k * d :]
        turned = self.spectrum.there(weights - bias[:, :, None] * self.mean[:, None])
        turned = self.classes.transpose(0, 2, 1) @ turned
        turned /= self.divisor
        step = self.spectrum.back(self.classes @ turned)
        out = np.empty_like(grad)
        out[:, : k * d] = step.reshape(n, -1)
        out[:, k * d :] = self.bias_step(bias) - (step @ self.mean[:, :, None])[:, :, 0]
        return out

    def bias_step(self, grad: Float64) -> Float64:
        """The step (B, K) in the biases alone."""
        turned = (grad[:, None] @ self.classes)[:, 0] / self.bias_divisor
        return np.asarray((self.classes @ turned[:, :, None])[:, :, 0])


def preconditioner(
    features: Spectrum, curvature: Float64, mean: Float64, strength: Float64, least: Float64 | float = 0.0
) -> Preconditioner:
    """The inverse from the features' spectrum, and of each problem the curvature (B, K, K), mean and penalty (B,).

    The curvature in the biases is taken to be `least` (B,) at least.
    """
    values, vectors = np.linalg.eigh(curvature)
    values = np.maximum(values, 0.0)
    most = np.maximum(values[:, -1:], np.finfo(np.float64).tiny)
    divisor = values[:, :, None] * features.values + strength[:, None, None]
    eps = np.finfo(np.float64 if features.vectors is None else features.vectors.dtype).eps  # below lies rounding
    floor = eps * most[:, :, None] * max(float(features.values.max(initial=0.0)), 1e-300)
    return Preconditioner(
        features,
        vectors,
        np.maximum(divisor, floor),
        np.maximum(values, np.maximum(_FLOOR * most, np.reshape(least, (-1, 1)))),
        mean,
    )
