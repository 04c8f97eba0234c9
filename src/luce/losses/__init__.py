"""Losses take logits, never probabilities, and come with their gradient."""

from luce.losses.brier import brier, brier_and_grad
from luce.losses.cross_entropy import cross_entropy
from luce.losses.focal import focal, focal_and_grad
from luce.losses.linear import linear_cross_entropy

__all__ = ["brier", "brier_and_grad", "cross_entropy", "focal", "focal_and_grad", "linear_cross_entropy"]
