"""From a data set to a calibrated classifier."""

from luce.training.options import Options
from luce.training.pipeline import Training, fit, train

__all__ = ["Options", "Training", "fit", "train"]
