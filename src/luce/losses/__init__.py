"""Losses take logits, never probabilities, and come with their gradient."""

from luce.losses.cross_entropy import cross_entropy

__all__ = ["cross_entropy"]
