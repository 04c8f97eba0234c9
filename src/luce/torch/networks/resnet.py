"""Residual networks of basic blocks, for small pictures and for large ones.

Sources: He et al. 2016, arXiv 1512.03385; the last norm of each block begins with weights of 0, so that every block
begins as the identity (Goyal et al. 2017, arXiv 1706.02677). Where the shape changes the shortcut is a 1 x 1
convolution with batch norm, in the networks for CIFAR too, whose original pads with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from torch import Tensor, nn

from luce.torch.margins import whole
from luce.torch.networks.parts import (
    LARGEST_SMALL,
    Stem,
    average,
    check_picture,
    conv_norm_relu,
    convolution,
    first_layers,
)

LEAST = 8  # pixels: one is left behind three strides
# Blocks of each stage, and the channels of the first one; each further stage has twice as many.
DEPTHS: Final[dict[int, tuple[tuple[int, ...], int]]] = {
    18: ((2, 2, 2, 2), 64),
    34: ((3, 4, 6, 3), 64),
    20: ((3, 3, 3), 16),
    32: ((5, 5, 5), 16),
    56: ((9, 9, 9), 16),
}


class BasicBlock(nn.Module):
    """Two convolutions 3 x 3 and the shortcut around them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        last = nn.BatchNorm2d(after)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(conv_norm_relu(before, after, 3, stride), convolution(after, after, 3), last)
        same = stride == 1 and before == after
        projection = () if same else (convolution(before, after, 1, stride), nn.BatchNorm2d(after))
        self.shortcut = nn.Sequential(*projection)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, after, H / stride, W / stride) of (N, before, H, W)."""
        result: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return result


class ResNet(nn.Module):
    """A stem, stages of basic blocks that halve the picture and double the channels, the average over the picture."""

    n_features: int

    def __init__(self, first: nn.Module, layers: Sequence[int], base: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = base
        for stage, repeats in enumerate(layers):
            after = base << stage
            for repeat in range(repeats):
                blocks.append(BasicBlock(before, after, 2 if stage > 0 and repeat == 0 else 1))
                before = after
        self.stem = first
        self.body = nn.Sequential(*blocks)
        self.n_features = before

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, n_features) of pictures (N, C, H, W)."""
        return average(self.body(self.stem(x)))


def build(
    channels: int,
    height: int,
    width: int,
    *,
    depth: int | None = None,
    layers: Sequence[int] | None = None,
    base: int | None = None,
    stem: Stem | None = None,
) -> ResNet:
    """A residual network for pictures of any size from 8 x 8.

    Args:
        channels: of the pictures.
        height: of the pictures.
        width: of the pictures.
        depth: 20, 32 or 56 (three stages from 16 channels) or 18 or 34 (four stages from 64); None: 20 for pictures up
            to 64 x 64, else 18.
        layers: blocks of each stage, instead of `depth`, such as (1, 1, 1).
        base: channels of the first stage, instead of the depth's; 16 with `layers`.
        stem: "cifar": 3 x 3 at full resolution; "imagenet": 7 x 7 with stride 2 and a pool; None: by the size, as
            above.

    Raises:
        TypeError, ValueError: the message names the argument.
    """
    check_picture("resnet", channels, height, width, least=LEAST)
    if layers is None:
        if depth is None:
            depth = 20 if max(height, width) <= LARGEST_SMALL else 18
        if depth not in DEPTHS:
            raise ValueError(f"resnet: depth must be one of {', '.join(map(str, sorted(DEPTHS)))}, got {depth!r}")
        layers, usual = DEPTHS[depth]
    elif depth is not None:
        raise ValueError("resnet: depth and layers exclude each other; leave one of them out")
    else:
        layers, usual = [whole("resnet", "layers", n, 1) for n in layers], 16
        if not layers:
            raise ValueError("resnet: layers must be the blocks of at least one stage, such as (2, 2, 2)")
    base = whole("resnet", "base", usual if base is None else base, 1)
    return ResNet(first_layers("resnet", stem, channels, base, height, width), layers, base)
