"""How far from the truth a result may lie: one table, from which tests (and documents) take every bound.

With the machine epsilon eps of the dtype, bounds have the form (c + range / 2) eps. The part with the range
is derived: `x - max` is rounded before `exp`, which moves the exponent by up to half an eps of itself; with a
temperature other than 1, the inverse temperature and the product with it are rounded too, which makes it
three halves. c covers exp, sum and division. It was measured for each kernel on AVX2 and baseline (7 seeds,
17 lengths from 1 to 1000, ranges 0.1 to 80 in float32 and 600 in float64, temperatures 1 and 3) and raised
by at least 20 %.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from numpy.typing import DTypeLike

# (function, dtype): c. Measured maxima, in this order: 1.7, 2.3; 0.6, 1.9; 0.5, 0.3; 0.1, 0.6; 1.8, 2.0.
C = {
    ("softmax", "float32"): 2.0,
    ("softmax", "float64"): 4.0,
    ("log_softmax", "float32"): 1.0,
    ("log_softmax", "float64"): 3.0,
    ("logsumexp", "float32"): 1.0,
    ("logsumexp", "float64"): 1.0,
    ("loss", "float32"): 1.0,
    ("loss", "float64"): 2.0,
    ("gradient", "float32"): 2.5,
    ("gradient", "float64"): 4.0,
    # The members of the family (probabilities, loss and gradient), in the bounds of tests/member_bounds.py; measured on
    # AVX2 and baseline (11 lengths from 1 to 130, ranges 0.1 to 12) for each pair: 0, 0; 1, 1; 2, 0; 0.25, 1.5;
    # 0, 0.25; 1, 2.5; 1.5, 1.5; 1, 1.
    ("taylor", "float32"): 1.0,
    ("taylor", "float64"): 1.0,
    ("soft_margin", "float32"): 1.5,
    ("soft_margin", "float64"): 1.5,
    ("sm_taylor", "float32"): 2.5,
    ("sm_taylor", "float64"): 2.5,
    ("spherical", "float32"): 2.0,
    ("spherical", "float64"): 2.0,
    ("sparsemax", "float32"): 1.0,
    ("sparsemax", "float64"): 1.0,
    ("entmax", "float32"): 3.0,
    ("entmax", "float64"): 3.0,
    ("sigmoid", "float32"): 2.0,
    ("sigmoid", "float64"): 2.0,
    ("pseudo", "float32"): 1.5,
    ("pseudo", "float64"): 1.5,
}


def _c(function: str, dtype: DTypeLike) -> Decimal:
    return Decimal(C[function, np.dtype(dtype).name])


def eps(dtype: DTypeLike) -> Decimal:
    """Take the distance from 1 to the next larger number."""
    return Decimal(float(np.finfo(dtype).eps))


def _smallest(dtype: DTypeLike) -> Decimal:
    return Decimal(float(np.finfo(dtype).smallest_subnormal))


def _roundings(temperature: float) -> Decimal:
    """Count the rounding errors of the exponent, in eps of the exponent itself."""
    return Decimal("0.5") if temperature == 1 else Decimal("1.5")


def softmax(p: Decimal, gap: float, temperature: float, dtype: DTypeLike) -> Decimal:
    """For the entry with probability `p` whose logit lies `gap` below the largest."""
    exponent = Decimal(gap) / Decimal(temperature)
    return p * (_c("softmax", dtype) + _roundings(temperature) * exponent) * eps(dtype) + _smallest(dtype)


def log_softmax(log_p: Decimal, temperature: float, dtype: DTypeLike) -> Decimal:
    """For the entry `log_p`: its own rounding and that of the difference that it is made of."""
    return (_c("log_softmax", dtype) + (_roundings(temperature) + 1) * abs(log_p)) * eps(dtype)


def logsumexp(value: Decimal, top: float, temperature: float, dtype: DTypeLike) -> Decimal:
    """For a row whose largest logit is `top`; in float64 the logarithm of the sum is rounded once more by itself."""
    shift = Decimal(top) / Decimal(temperature)
    own = abs(value) / 2 if temperature == 1 else abs(value) + abs(shift)
    if np.dtype(dtype) == np.float64:
        own += abs(value - shift) / 2
    return (_c("logsumexp", dtype) + own) * eps(dtype)


def loss(value: Decimal, temperature: float, dtype: DTypeLike, terms: int = 1) -> Decimal:
    """For a row's cross-entropy; a distribution has `terms` positive terms, added one after the other."""
    return (_c("loss", dtype) + (_roundings(temperature) + 1 + Decimal(terms - 1) / 2) * abs(value)) * eps(dtype)


def gradient(p: Decimal, y: float, gap: float, temperature: float, dtype: DTypeLike, terms: int = 1) -> Decimal:
    """For the entry of the gradient with probability `p` and target `y`; `terms` as in `loss`."""
    exponent = Decimal(gap) / Decimal(temperature)
    relative = _c("gradient", dtype) + _roundings(temperature) * exponent + Decimal(terms - 1) / 2
    scale = Decimal(temperature)
    return (p * relative + Decimal(y) * _c("gradient", dtype)) * eps(dtype) / scale + _smallest(dtype)
