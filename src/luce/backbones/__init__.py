"""Backbones: prepared pixels to features, run by ONNX Runtime."""

from luce.backbones.backbone import Backbone
from luce.backbones.extract import Features, extract
from luce.backbones.feature_cache import FeatureCache
from luce.backbones.registry import NAMES, open_backbone
from luce.backbones.session import Session, open_session, run

__all__ = [
    "NAMES",
    "Backbone",
    "FeatureCache",
    "Features",
    "Session",
    "extract",
    "open_backbone",
    "open_session",
    "run",
]
