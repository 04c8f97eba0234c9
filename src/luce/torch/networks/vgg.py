"""VGG with batch norm: 3 x 3 convolutions only, five groups of them, a pool behind each.

Source: Simonyan & Zisserman 2015, arXiv 1409.1556. The three dense layers, nine tenths of the original's weights, gave
way to the average over the picture. Pools round up, so that pictures of 28 x 28 have something left for the fifth.
"""

from __future__ import annotations

from torch import Tensor, nn

from luce.torch.networks.parts import average, check_picture, conv_norm_relu, scaled

LEAST = 16  # pixels: one is left behind four pools
GROUPS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Groups of 3 x 3 convolutions with 64, 128, 256, 512 and 512 channels, then the average over the picture."""

    n_features: int

    def __init__(self, channels: int, groups: tuple[int, ...], width_factor: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for repeats, base in zip(groups, CHANNELS, strict=True):
            after = scaled("vgg", "width_factor", width_factor, base)
            for _ in range(repeats):
                layers.append(conv_norm_relu(before, after, 3))
                before = after
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.body = nn.Sequential(*layers)
        self.n_features = before

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, n_features) of pictures (N, C, H, W)."""
        return average(self.body(x))


def build(channels: int, height: int, width: int, *, depth: int = 11, width_factor: float = 1.0) -> VGG:
    """VGG for pictures of any size from 16 x 16.

    Args:
        channels: of the pictures.
        height: of the pictures.
        width: of the pictures.
        depth: 11, 13, 16 or 19 layers, as they were counted with the three dense ones.
        width_factor: multiplies the channels of every layer, positive.

    Raises:
        TypeError, ValueError: the message names the argument.
    """
    check_picture("vgg", channels, height, width, least=LEAST)
    if depth not in GROUPS:
        raise ValueError(f"vgg: depth must be one of {', '.join(map(str, GROUPS))}, got {depth!r}")
    return VGG(channels, GROUPS[depth], width_factor)
