"""Batch norms folded into the convolutions in front of them: the same function, fewer weights."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

Module = TypeVar("Module", bound=nn.Module)


def fold_norms(model: Module) -> Module:
    """A copy, in evaluation mode, in which every convolution does the work of the batch norm behind it.

    It computes what the model does in evaluation, to rounding. Where a norm stood there is an `nn.Identity`, so that
    the names of all other layers stay.
    """
    folded = copy.deepcopy(model).eval()
    for part in folded.modules():
        if not isinstance(part, nn.Sequential):
            continue
        for i, (first, second) in enumerate(pairwise(part)):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                part[i], part[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return folded
