"""Honest metrics: each with one definition, and an interval.

Arguments come as (probabilities or logits, target), the order of the losses; scikit-learn's metrics take the target
first. Shapes: N rows, K classes. Intervals are 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce.links import Link, Softmax

Float64 = NDArray[np.float64]

N_BINS = 15  # equal-width bins of the calibration error, as Guo et al. 2017
_Z95 = 1.959963984540054  # 97.5 % point of the normal distribution
_RESAMPLES = 1000
_MOST_DRAWS = 200_000_000  # bounds the time of a bootstrap on very many rows
_CHUNK_DRAWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability diagram: the rows whose confidence lies in [low, high), the last bin closed.

    `confidence` (mean), `accuracy` and its Wilson interval are `None` in an empty bin.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """What held-out rows say about a classifier.

    Attributes:
        n: rows.
        accuracy: share of rows whose most probable class is the target; Wilson interval.
        nll: mean negative log-likelihood in nats; bootstrap interval. Infinite, without an interval, if `n_zero` is
            not 0.
        n_zero: rows whose target has probability 0, which sparse links can give.
        brier: mean over rows of the squared error summed over classes, 0 … 2; bootstrap interval.
        ece: top-label expected calibration error, 15 equal-width bins; bootstrap interval.
        nll_uncalibrated, ece_uncalibrated: the same at temperature 1.
        bins, bins_uncalibrated: the reliability diagrams.
        confusion: (K, K) counts; rows are targets, columns predictions.
    """

    n: int
    accuracy: Estimate
    nll: Estimate
    n_zero: int
    brier: Estimate
    ece: Estimate
    nll_uncalibrated: Estimate
    ece_uncalibrated: Estimate
    bins: tuple[Bin, ...]
    bins_uncalibrated: tuple[Bin, ...]
    confusion: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """The figures for JSON: `n_test`, `n_zero`; accuracy, nll, brier and ece, each also with `_low` and `_high`.

        What is infinite is `None`.
        """
        figures: dict[str, Any] = {"n_test": self.n, "n_zero": self.n_zero}
        for name in ("accuracy", "nll", "brier", "ece", "nll_uncalibrated", "ece_uncalibrated"):
            estimate: Estimate = getattr(self, name)
            values = {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            figures |= {key: value if np.isfinite(value) else None for key, value in values.items()}
        return figures


def wilson(successes: float, n: float) -> tuple[float, float]:
    """The Wilson score interval of a proportion; (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, _Z95**2
    center = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low = 0.0 if successes == 0 else center - half
    high = 1.0 if successes == n else center + half
    return float(max(low, 0.0)), float(min(high, 1.0))


def t_interval(values: Sequence[float]) -> Estimate | None:
    """Mean with its 95 % interval after Student; without values None, with one an interval without bounds."""
    if not values:
        return None
    mean = float(np.mean(values))
    if len(values) == 1 or not math.isfinite(mean):
        return Estimate(mean, -math.inf, math.inf)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return Estimate(mean, mean - half, mean + half)


def accuracy(probabilities: ArrayLike, target: ArrayLike) -> Estimate:
    """Share of rows whose most probable class is the target, with its Wilson interval.

    Args:
        probabilities: (N, K), or logits: only the order counts.
        target: (N,) class ids.
    """
    p, y = _checked("accuracy", probabilities, target)
    right = int(np.sum(p.argmax(axis=1) == y))
    return Estimate(right / len(y), *wilson(right, len(y)))


def nll(probabilities: ArrayLike, target: ArrayLike) -> float:
    """Mean negative log-likelihood in nats; infinite where a target has probability 0."""
    p, y = _checked("nll", probabilities, target)
    with np.errstate(divide="ignore"):
        return float(-np.log(p[np.arange(len(y)), y]).mean())


def brier(probabilities: ArrayLike, target: ArrayLike) -> float:
    """Mean over rows of the squared error summed over classes, 0 … 2 (twice scikit-learn's binary score)."""
    p, y = _checked("brier", probabilities, target)
    return float(_brier_rows(p, y).mean())


def ece(probabilities: ArrayLike, target: ArrayLike, *, n_bins: int = N_BINS) -> float:
    """Top-label expected calibration error: mean over rows of |accuracy - confidence| of the row's bin.

    Bins are equal-width, [low, high), the last one closed. Source: Guo et al. 2017, arXiv 1706.04599.
    """
    p, y = _checked("ece", probabilities, target)
    return float(np.abs(_gap_columns(p, y, n_bins).sum(axis=0)).sum() / len(y))


def reliability(probabilities: ArrayLike, target: ArrayLike, *, n_bins: int = N_BINS) -> tuple[Bin, ...]:
    """The bins of a reliability diagram."""
    p, y = _checked("reliability", probabilities, target)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    index = _bin_index(confidence, n_bins)
    bins = []
    for b in range(n_bins):
        inside = index == b
        count, hits = int(inside.sum()), int(right[inside].sum())
        edges = b / n_bins, (b + 1) / n_bins
        if count == 0:
            bins.append(Bin(*edges, 0, None, None, None, None))
        else:
            bins.append(Bin(*edges, count, float(confidence[inside].mean()), hits / count, *wilson(hits, count)))
    return tuple(bins)


def confusion_matrix(predicted: ArrayLike, target: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Counts (K, K): rows are targets, columns predictions."""
    flat = np.asarray(target, np.int64) * n_classes + np.asarray(predicted, np.int64)
    return np.bincount(flat, minlength=n_classes**2).reshape(n_classes, n_classes)


def measure(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    temperature: float = 1.0,
    link: Link | None = None,
    seed: int = 0,
) -> Metrics:
    """Every metric of the probabilities of logits / temperature, and what it was at temperature 1.

    Args:
        logits: (N, K) of rows that were used neither for training nor for calibration.
        target: (N,) class ids.
        temperature: positive.
        link: softmax if not given.
        seed: of the bootstrap.

    Raises:
        ValueError: no rows, or shapes or ids that do not fit.
    """
    z, y = _checked("measure", logits, target)
    link = link or Softmax()
    log_p, log_plain = (np.asarray(link.log_probabilities(z / t), np.float64) for t in (temperature, 1.0))
    p, p_plain = np.exp(log_p), np.exp(log_plain)
    columns, zeros = [], []
    for logs, values in ((log_p, p), (log_plain, p_plain)):
        at_target = logs[np.arange(len(y)), y]
        zeros.append(int(np.isneginf(at_target).sum()))
        losses = np.where(np.isneginf(at_target), 0.0, -at_target)
        columns += [losses[:, None], _brier_rows(values, y)[:, None], _gap_columns(values, y, N_BINS)]
    means = bootstrap_means(np.concatenate(columns, axis=1), seed=seed)
    half = means.shape[1] // 2
    calibrated, plain = means[:, :half], means[:, half:]
    nll, nll_plain = (
        Estimate(np.inf, np.inf, np.inf) if n_zero else _interval(part[:, 0])
        for part, n_zero in zip((calibrated, plain), zeros, strict=True)
    )
    return Metrics(
        n=len(y),
        accuracy=accuracy(z, y),
        nll=nll,
        n_zero=zeros[0],
        brier=_interval(calibrated[:, 1]),
        ece=_interval(np.abs(calibrated[:, 2:]).sum(axis=1)),
        nll_uncalibrated=nll_plain,
        ece_uncalibrated=_interval(np.abs(plain[:, 2:]).sum(axis=1)),
        bins=reliability(p, y),
        bins_uncalibrated=reliability(p_plain, y),
        confusion=confusion_matrix(z.argmax(axis=1), y, z.shape[1]),
    )


def bootstrap_means(columns: Float64, *, seed: int = 0) -> Float64:
    """Column means of the rows and of resamples of them, drawn with replacement.

    Args:
        columns: (N, M).
        seed: of the draws.

    Returns:
        (1 + R, M): first the means of the data itself, then of R = 1000 resamples (fewer, at least 200, for more
        than 200,000 rows).
    """
    n = len(columns)
    resamples = int(np.clip(_MOST_DRAWS // n, 200, _RESAMPLES))
    rng = np.random.default_rng(seed)
    means = [columns.mean(axis=0, keepdims=True)]
    step = max(1, _CHUNK_DRAWS // n)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        draws = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        counts = np.bincount(draws.ravel(), minlength=size * n).reshape(size, n)
        means.append(counts @ columns / n)
    return np.concatenate(means)


def _interval(values: Float64) -> Estimate:
    """First entry: the value, at least 0; the rest: resamples, whose percentiles are moved by mean minus value.

    Without the move the interval of a calibration error can lie wholly above it: it is a sum of absolute values, to
    which resampling adds noise of its own.
    """
    low, high = np.percentile(values[1:], [2.5, 97.5]) + (values[0] - values[1:].mean())
    return Estimate(float(values[0]), float(max(low, 0.0)), float(high))


def _brier_rows(p: Float64, y: NDArray[np.int64]) -> Float64:
    at_target = p[np.arange(len(y)), y]
    return np.asarray((p * p).sum(axis=1) - 2 * at_target + 1)


def _gap_columns(p: Float64, y: NDArray[np.int64], n_bins: int) -> Float64:
    """(N, n_bins): right - confidence in the column of the row's bin, 0 elsewhere."""
    confidence = p.max(axis=1)
    columns = np.zeros((len(y), n_bins))
    columns[np.arange(len(y)), _bin_index(confidence, n_bins)] = (p.argmax(axis=1) == y) - confidence
    return columns


def _bin_index(confidence: Float64, n_bins: int) -> NDArray[np.int64]:
    edges = np.arange(1, n_bins) / n_bins
    return np.searchsorted(edges, confidence, side="right")


def _checked(name: str, values: ArrayLike, target: ArrayLike) -> tuple[Float64, NDArray[np.int64]]:
    p, y = np.asarray(values, np.float64), np.asarray(target)
    if p.ndim != 2 or len(p) == 0:
        raise ValueError(f"{name}: needs an array of shape (rows, classes) with at least one row, got {p.shape}")
    if y.shape != (len(p),) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{name}: target must be {len(p)} integer class ids, got shape {y.shape} of dtype {y.dtype}")
    bad = np.flatnonzero((y < 0) | (y >= p.shape[1]))
    if len(bad):
        raise ValueError(
            f"{name}: target must lie in [0, {p.shape[1]}); got {y[bad[0]]} at row {bad[0]}. "
            "If labels start at 1, subtract 1."
        )
    return p, y.astype(np.int64)
