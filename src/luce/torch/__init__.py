"""Luce on torch: links and losses as modules, last layers with a margin. An extra: `pip install luce[torch]`."""

from __future__ import annotations

from luce.torch.attack import fgsm, pgd
from luce.torch.heads import HEADS, ArcFace, CosFace, EnsembleMargin, LargeMargin, LinearHead, SphereFace
from luce.torch.load import load_network
from luce.torch.margins import Annealing
from luce.torch.modules import LinkLoss, LinkProbabilities
from luce.torch.under_attack import robustness

__all__ = [
    "HEADS",
    "Annealing",
    "ArcFace",
    "CosFace",
    "EnsembleMargin",
    "LargeMargin",
    "LinearHead",
    "LinkLoss",
    "LinkProbabilities",
    "SphereFace",
    "fgsm",
    "load_network",
    "pgd",
    "robustness",
]
