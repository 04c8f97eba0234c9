"""LeNet-5 as it is used today: max pools for trained subsampling, ReLU for tanh.

Source: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition".
"""

from __future__ import annotations

from torch import Tensor, nn

from luce.torch.networks.parts import check_picture, convolution, dense

LEAST = 12  # pixels: one is left before the dense layers


class LeNet(nn.Module):
    """Convolutions 5 x 5 with 6 and 16 channels, each with a pool behind it, and dense layers of 120 and 84.

    The dense layers see every place of the map, so pictures must have the size that the network was built for.
    """

    n_features: int

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        check_picture("lenet", channels, height, width, least=LEAST)
        self.body = nn.Sequential(
            *(convolution(channels, 6, 5, bias=True), nn.ReLU(), nn.MaxPool2d(2)),
            *(convolution(6, 16, 5, padding=0, bias=True), nn.ReLU(), nn.MaxPool2d(2)),
        )
        flat = 16 * _left(height) * _left(width)
        self.dense = nn.Sequential(nn.Flatten(), dense(flat, 120), nn.ReLU(), dense(120, 84), nn.ReLU())
        self.n_features = 84

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, 84) of pictures (N, C, H, W)."""
        features: Tensor = self.dense(self.body(x))
        return features


def _left(size: int) -> int:
    """Height or width of the map in front of the dense layers."""
    return (size // 2 - 4) // 2


def build(channels: int, height: int, width: int) -> LeNet:
    """LeNet for pictures of one size, at least 12 x 12.

    Raises:
        TypeError, ValueError: the message names the argument.
    """
    return LeNet(channels, height, width)
