"""From a data set to a calibrated classifier."""

from luce.training.pipeline import Options, Training, fit, train

__all__ = ["Options", "Training", "fit", "train"]
