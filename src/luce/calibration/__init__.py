"""Calibration: logits that were not trained on → probabilities that mean what they say."""

from luce.calibration.temperature import Temperature, fit_temperature

__all__ = ["Temperature", "fit_temperature"]
