"""Softmax regression: features to logits."""

from luce.regression.cross_validation import Choice, choose_strength, standard
from luce.regression.objective import Rows, mean_and_deviation
from luce.regression.row_loss import RowLoss, row_loss
from luce.regression.solver import Penalty, Solution, solve

__all__ = [
    "Choice",
    "Penalty",
    "RowLoss",
    "Rows",
    "Solution",
    "choose_strength",
    "mean_and_deviation",
    "row_loss",
    "solve",
    "standard",
]
