"""A convolutional network that needs few epochs: small pictures, whitened patches, wide layers at low resolution.

The first layer sees patches of 2 x 2 pixels; its filters whiten those of the pictures to train on and stay as they are,
so that the layers behind begin with inputs of equal size that are not correlated. Then three stages of two convolutions
3 x 3, pooled after the first one; of each, as many filters as it has inputs begin by letting one of them through as it
is. Source of the design: Jordan 2024, arXiv 2404.00498. 90 million multiply-adds for 32 x 32 pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luce.torch.networks.parts import check_picture, convolution, scaled

LEAST = 9  # pixels: one is left behind three pools
_FLOOR = 5e-4  # of the variance along a direction, in units of a pixel's
_PATCH = 2


class FastCNN(nn.Module):
    """Whitened patches, channels 64, 192, 256, then the largest value of each over the picture."""

    n_features: int

    def __init__(self, channels: int, width_factor: float) -> None:
        super().__init__()
        a, b, c = (scaled("fastcnn", "width_factor", width_factor, n) for n in (64, 192, 256))
        patch = channels * _PATCH**2
        self.whiten = nn.Conv2d(channels, 2 * patch, _PATCH)
        self.whiten.weight.requires_grad_(False)
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]  # it has one
        self.body = nn.Sequential(nn.GELU(), *_stage(2 * patch, a), *_stage(a, b), *_stage(b, c))
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                nn.init.dirac_(layer.weight[: layer.in_channels].detach())
        self.n_features = c

    def look_at(self, pictures: Tensor) -> None:
        """Take the filters of the first layer from normalised pictures (N, C, H, W): each once and once negated."""
        patches = pictures.unfold(2, _PATCH, 1).unfold(3, _PATCH, 1).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
        covariance = patches.double().T.cov()
        variance, directions = torch.linalg.eigh(covariance)
        filters = (directions / (variance + _FLOOR).sqrt()).T.reshape(-1, *self.whiten.weight.shape[1:]).float()
        with torch.no_grad():
            self.whiten.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, n_features) of pictures (N, C, H, W)."""
        features: Tensor = self.body(self.whiten(x))
        return features.amax((2, 3))


def _stage(before: int, after: int) -> list[nn.Module]:
    return [
        *(convolution(before, after, 3), nn.MaxPool2d(2), nn.BatchNorm2d(after), nn.GELU()),
        *(convolution(after, after, 3), nn.BatchNorm2d(after), nn.GELU()),
    ]


def build(channels: int, height: int, width: int, *, width_factor: float = 1.0) -> FastCNN:
    """The network for pictures of any size from 9 x 9.

    Args:
        channels: of the pictures.
        height: of the pictures.
        width: of the pictures.
        width_factor: multiplies the channels of every layer, positive.

    Raises:
        TypeError, ValueError: the message names the argument.
    """
    check_picture("fastcnn", channels, height, width, least=LEAST)
    return FastCNN(channels, width_factor)
