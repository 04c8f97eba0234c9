"""Pictures in: any source to upright RGB pixels, and these to a network's input."""

from luce.images.decode import MAX_PIXELS, Picture, decode, read_source
from luce.images.prepare import Preparation, load, prepare
from luce.images.source import Source

__all__ = ["MAX_PIXELS", "Picture", "Preparation", "Source", "decode", "load", "prepare", "read_source"]
