"""A small GoogLeNet with batch norm: every module looks with four kernels at once and puts the maps side by side.

Sources: Szegedy et al. 2015, arXiv 1409.4842, for the modules; Ioffe & Szegedy 2015, arXiv 1502.03167, for batch norm
in them. Six modules where the original has nine, half its channels, and none of its auxiliary classifiers, which batch
norm made needless.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luce.torch.networks.parts import Stem, average, check_picture, conv_norm_relu, first_layers, scaled

LEAST = 4  # pixels: one is left behind the two pools
STEM = 64
# Channels: 1 x 1; squeeze and 3 x 3; squeeze and 5 x 5; behind the pool. A pool stands between the groups.
GROUPS = (
    ((32, 48, 64, 8, 16, 16), (64, 64, 96, 16, 48, 32)),
    ((96, 48, 104, 8, 24, 32), (80, 56, 112, 12, 32, 32)),
    ((128, 80, 160, 16, 64, 64), (192, 96, 192, 24, 64, 64)),
)


class Inception(nn.Module):
    """One module: 1 x 1; 1 x 1 then 3 x 3; 1 x 1 then 5 x 5; a pool then 1 x 1."""

    def __init__(self, before: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        one, squeeze3, three, squeeze5, five, pooled = channels
        self.branches = nn.ModuleList(
            (
                conv_norm_relu(before, one, 1),
                nn.Sequential(conv_norm_relu(before, squeeze3, 1), conv_norm_relu(squeeze3, three, 3)),
                nn.Sequential(conv_norm_relu(before, squeeze5, 1), conv_norm_relu(squeeze5, five, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_norm_relu(before, pooled, 1)),
            )
        )
        self.n_channels = one + three + five + pooled

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, n_channels, H, W) of (N, before, H, W)."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class GoogLeNet(nn.Module):
    """A stem, three groups of two modules with pools between them, the average over the picture."""

    n_features: int

    def __init__(self, first: nn.Module, before: int, width_factor: float) -> None:
        super().__init__()
        layers = [first]
        for group in GROUPS:
            if len(layers) > 1:
                layers.append(nn.MaxPool2d(3, 2, 1))
            for channels in group:
                module = Inception(
                    before, tuple(scaled("inception", "width_factor", width_factor, n) for n in channels)
                )
                layers.append(module)
                before = module.n_channels
        self.body = nn.Sequential(*layers)
        self.n_features = before

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, n_features) of pictures (N, C, H, W)."""
        return average(self.body(x))


def build(channels: int, height: int, width: int, *, width_factor: float = 1.0, stem: Stem | None = None) -> GoogLeNet:
    """A small GoogLeNet for pictures of any size from 4 x 4.

    Args:
        channels: of the pictures.
        height: of the pictures.
        width: of the pictures.
        width_factor: multiplies the channels of every layer, positive.
        stem: "cifar": 3 x 3 at full resolution; "imagenet": 7 x 7 with stride 2 and a pool; None: "cifar" up to
            64 x 64.

    Raises:
        TypeError, ValueError: the message names the argument.
    """
    check_picture("inception", channels, height, width, least=LEAST)
    before = scaled("inception", "width_factor", width_factor, STEM)
    return GoogLeNet(first_layers("inception", stem, channels, before, height, width), before, width_factor)
