"""What statisticians ask of a fit: standard errors, z, p, odds ratios with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """Coefficients relative to a reference class, with their uncertainty.

    Attributes:
        reference: the class that the odds are relative to.
        classes: the other K - 1 classes.
        features: D names and "intercept".
        estimate: (K - 1, D + 1) log odds ratios per unit of each feature.
        standard_error: (K - 1, D + 1), from the Fisher information.
        covariance: ((K - 1)(D + 1), same) of all estimates, class by class.
        level: of the intervals.
    """

    reference: Any
    classes: tuple[Any, ...]
    features: tuple[str, ...]
    estimate: Float64
    standard_error: Float64
    covariance: Float64
    level: float = 0.95

    @property
    def z(self) -> Float64:
        """Estimate over standard error, (K - 1, D + 1)."""
        return self.estimate / self.standard_error

    @property
    def p_value(self) -> Float64:
        """Two-sided, of z under the standard normal, (K - 1, D + 1)."""
        two_sided = np.vectorize(lambda z: math.erfc(abs(z) / math.sqrt(2)), otypes=[np.float64])
        return np.asarray(two_sided(self.z))

    @property
    def odds_ratio(self) -> Float64:
        """exp(estimate): factor on the odds against the reference per unit of the feature."""
        return np.exp(self.estimate)

    @property
    def interval(self) -> tuple[Float64, Float64]:
        """Lower and upper ends of the odds ratios' intervals, each (K - 1, D + 1)."""
        reach = NormalDist().inv_cdf((1 + self.level) / 2) * self.standard_error
        return np.exp(self.estimate - reach), np.exp(self.estimate + reach)

    def __str__(self) -> str:
        """A table, a line for each class and feature."""
        width = max(len(f"{c}: {f}") for c in self.classes for f in self.features)
        low, high = self.interval
        percent = f"{100 * self.level:g} %"
        lines = [
            f"relative to {self.reference}",
            f"{'':<{width}}  {'estimate':>9}  {'std. err.':>9}  {'z':>7}  {'p':>7}  {'odds':>8}  {percent} of the odds",
        ]
        for i, c in enumerate(self.classes):
            for j, f in enumerate(self.features):
                lines.append(
                    f"{f'{c}: {f}':<{width}}  {self.estimate[i, j]:9.4f}  {self.standard_error[i, j]:9.4f}  "
                    f"{self.z[i, j]:7.2f}  {self.p_value[i, j]:7.4f}  {self.odds_ratio[i, j]:8.4g}  "
                    f"{low[i, j]:.4g} … {high[i, j]:.4g}"
                )
        return "\n".join(lines)
