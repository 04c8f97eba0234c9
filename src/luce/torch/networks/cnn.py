"""A plain convolutional network that two CPU cores train in minutes: five layers 3 x 3, two pools, batch norm.

16 million multiply-adds for 28 x 28 pictures. The first layer alone works at full resolution; the two pools come early,
since a layer costs a quarter behind each.
"""

from __future__ import annotations

from torch import Tensor, nn

from luce.torch.networks.parts import average, check_picture, conv_norm_relu, scaled

LEAST = 4  # pixels: one is left behind the two pools


class CNN(nn.Module):
    """Channels 32, pool, 48, 64, pool, 96, 128, then the average over the picture."""

    n_features: int

    def __init__(self, channels: int, width_factor: float) -> None:
        super().__init__()
        a, b, c, d, e = (scaled("cnn", "width_factor", width_factor, n) for n in (32, 48, 64, 96, 128))
        self.body = nn.Sequential(
            *(conv_norm_relu(channels, a, 3), nn.MaxPool2d(2)),
            *(conv_norm_relu(a, b, 3), conv_norm_relu(b, c, 3), nn.MaxPool2d(2)),
            *(conv_norm_relu(c, d, 3), conv_norm_relu(d, e, 3)),
        )
        self.n_features = e

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, n_features) of pictures (N, C, H, W)."""
        return average(self.body(x))


def build(channels: int, height: int, width: int, *, width_factor: float = 1.0) -> CNN:
    """The network for pictures of any size from 4 x 4.

    Args:
        channels: of the pictures.
        height: of the pictures.
        width: of the pictures.
        width_factor: multiplies the channels of every layer, positive.

    Raises:
        TypeError, ValueError: the message names the argument.
    """
    check_picture("cnn", channels, height, width, least=LEAST)
    return CNN(channels, width_factor)
