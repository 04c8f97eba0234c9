"""Softmax regression: features to logits."""

from luce.regression.cross_validation import Choice, choose_strength
from luce.regression.objective import Rows, mean_and_deviation
from luce.regression.solver import Penalty, Solution, gap_bound, solve

__all__ = [
    "Choice",
    "Penalty",
    "Rows",
    "Solution",
    "choose_strength",
    "gap_bound",
    "mean_and_deviation",
    "solve",
]
