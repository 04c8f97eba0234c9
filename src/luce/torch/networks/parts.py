"""What several networks are made of: checked sizes, convolutions with batch norm, the average over a picture."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from luce.arrays import positive
from luce.torch.margins import whole

Stem = Literal["cifar", "imagenet"]
LARGEST_SMALL = 64  # pixels: pictures up to this get the stem that keeps their resolution


def check_picture(name: str, channels: int, height: int, width: int, *, least: int) -> None:
    """Check what a network is built for.

    Raises:
        TypeError: no number.
        ValueError: not a positive whole number, or the picture is smaller than `least` in height or width.
    """
    for parameter, value in (("channels", channels), ("height", height), ("width", width)):
        whole(name, parameter, value, 1)
    if min(height, width) < least:
        raise ValueError(
            f"{name}: pictures must be at least {least} x {least} pixels, got {height} x {width} (height x width); "
            "enlarge them or choose another network"
        )


def scaled(name: str, parameter: str, value: float, channels: int) -> int:
    """`channels` times a positive factor, as a whole number of at least 1."""
    return max(1, round(positive(name, parameter, value) * channels))


def convolution(
    before: int,
    after: int,
    kernel: int,
    stride: int = 1,
    *,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution to be followed by ReLU: He's weights (He et al. 2015, arXiv 1502.01852), biases of 0.

    Without `padding` it keeps height and width at stride 1, for an odd kernel.
    """
    pad = kernel // 2 if padding is None else padding
    layer = nn.Conv2d(before, after, kernel, stride, pad, groups=groups, bias=bias)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def dense(before: int, after: int) -> nn.Linear:
    """A linear layer to be followed by ReLU: He's weights, biases of 0."""
    layer = nn.Linear(before, after)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


def conv_norm_relu(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(convolution(before, after, kernel, stride), nn.BatchNorm2d(after), nn.ReLU())


def first_layers(name: str, kind: Stem | None, channels: int, after: int, height: int, width: int) -> nn.Sequential:
    """The first layers of a network for small or for large pictures.

    Args:
        name: of the network, for messages.
        kind: "cifar": 3 x 3 at full resolution; "imagenet": 7 x 7 with stride 2 and a pool, a quarter of the
            resolution; None: by the size of the picture.
        channels: of the picture.
        after: channels of the output.
        height: of the picture.
        width: of the picture.

    Raises:
        ValueError: an unknown kind.
    """
    if kind is None:
        kind = "cifar" if max(height, width) <= LARGEST_SMALL else "imagenet"
    if kind == "cifar":
        return conv_norm_relu(channels, after, 3)
    if kind == "imagenet":
        return nn.Sequential(*conv_norm_relu(channels, after, 7, 2), nn.MaxPool2d(3, 2, 1))
    raise ValueError(f"{name}: stem must be 'cifar', 'imagenet' or None, got {kind!r}")


def average(x: Tensor) -> Tensor:
    """Averages (N, C) over the pictures of (N, C, H, W)."""
    return x.mean((2, 3))
