"""EfficientNet-Lite0 with its ImageNet weights, for fine-tuning: the network of the backbone, its batch norms kept.

The features are those of the backbone, the averages over the picture of the output of every stage. Weights are read by
`luce.backbones.efficientnet_lite`. Source: Tan & Le 2019, arXiv 1905.11946, in the Lite variant.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from luce.backbones.efficientnet_lite import BATCH_NORM_EPSILON, STAGES, read_weights, same_padding
from luce.torch.margins import whole
from luce.torch.networks.parts import average, check_picture, convolution

LEAST = 16  # pixels: one is left behind four strides
MOMENTUM: Final = 0.01  # of the running means and variances: the paper's decay of 0.99
STEM, HEAD = 32, 1280
CHANNELS: Final = (16, 24, 40, 80, 112, 192, 320)  # of each stage
Size = tuple[int, int]


class Convolution(nn.Sequential):
    """TensorFlow's padding, convolution, batch norm, ReLU6; `size` is that of the output."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int,
        stride: int,
        size: Size,
        *,
        depthwise: bool = False,
        relu: bool = True,
    ) -> None:
        top, bottom = same_padding(size[0], kernel, stride)
        left, right = same_padding(size[1], kernel, stride)
        even = top == bottom == left == right
        super().__init__(
            nn.Identity() if even else nn.ZeroPad2d((left, right, top, bottom)),
            convolution(before, after, kernel, stride, padding=top if even else 0, groups=before if depthwise else 1),
            nn.BatchNorm2d(after, eps=BATCH_NORM_EPSILON, momentum=MOMENTUM),
            nn.ReLU6() if relu else nn.Identity(),
        )
        self.size = (-(-size[0] // stride), -(-size[1] // stride))

    def fold(self) -> None:
        """Make one convolution with biases of convolution and batch norm, as they are in evaluation."""
        alone, norm = self[1].eval(), self[2].eval()
        assert isinstance(alone, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        self[1], self[2] = fuse_conv_bn_eval(alone, norm).requires_grad_(), nn.Identity()


class InvertedResidual(nn.Module):
    """Expand, filter every channel for itself, project; added to what came where a stage repeats."""

    def __init__(
        self, before: int, after: int, kernel: int, stride: int, expansion: int, size: Size, *, residual: bool
    ) -> None:
        super().__init__()
        inside = before * expansion
        self.expand = Convolution(before, inside, 1, 1, size) if expansion > 1 else None
        self.depthwise = Convolution(inside, inside, kernel, stride, size, depthwise=True)
        self.project = Convolution(inside, after, 1, 1, self.depthwise.size, relu=False)
        self.residual, self.strided = residual, stride > 1

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, after, H / stride, W / stride) of (N, before, H, W)."""
        inside = x if self.expand is None else self.expand(x)
        result: Tensor = self.project(self._filtered(inside))
        return result + x if self.residual else result

    def _filtered(self, x: Tensor) -> Tensor:
        maps: Tensor
        if self.strided and torch.is_autocast_enabled("cpu"):  # their gradient in bfloat16 takes ten times as long
            with torch.autocast("cpu", enabled=False):
                maps = self.depthwise(x.float())
        else:
            maps = self.depthwise(x)
        return maps

    def convolutions(self) -> list[tuple[str, str, Convolution]]:
        """Names of convolution and batch norm in the weights file, and the module that they belong to."""
        expand = [] if self.expand is None else [("_expand_conv", "_bn0", self.expand)]
        return [*expand, ("_depthwise_conv", "_bn1", self.depthwise), ("_project_conv", "_bn2", self.project)]


class EfficientNetLite0(nn.Module):
    """A stem, seven stages of inverted residual blocks, a head; the averages of every stage and the head side by side.

    Attributes:
        pixel_mean: what to subtract from pixels 0 to 255.
        pixel_std: what to divide the difference by.
    """

    n_features: int
    pixel_mean: float = 127.0
    pixel_std: float = 128.0

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.stem = Convolution(channels, STEM, 3, 2, (height, width))
        before, size = STEM, self.stem.size
        self.stages = nn.ModuleList()
        for (kernel, first_stride, expansion, repeats), after in zip(STAGES, CHANNELS, strict=True):
            stage = nn.Sequential()
            for repeat in range(repeats):
                stride = 1 if repeat else first_stride
                block = InvertedResidual(before, after, kernel, stride, expansion, size, residual=repeat > 0)
                stage.append(block)
                before, size = after, block.depthwise.size
            self.stages.append(stage)
        self.head = Convolution(before, HEAD, 1, 1, size)
        self.n_features = sum(CHANNELS) + HEAD

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, 2064) of pictures (N, C, H, W), which are (pixels - pixel_mean) / pixel_std."""
        x = self.stem(x)
        averages = []
        for stage in self.stages:
            x = stage(x)
            averages.append(average(x))
        return torch.cat((*averages, average(self.head(x))), 1)

    def convolutions(self) -> list[tuple[str, str, Convolution]]:
        """Names of convolution and batch norm in the weights file, and the module that they belong to."""
        found = [("_conv_stem", "_bn0", self.stem), ("_conv_head", "_bn1", self.head)]
        blocks = (block for block in self.modules() if isinstance(block, InvertedResidual))
        for i, block in enumerate(blocks):
            found += [(f"_blocks.{i}.{a}", f"_blocks.{i}.{b}", module) for a, b, module in block.convolutions()]
        return found


def _load(network: EfficientNetLite0, channels: int) -> None:
    """Put the weights of ImageNet in. A grey picture counts as one whose three channels are equal."""
    weights = {name: torch.from_numpy(values.copy()) for name, values in read_weights().items()}
    if channels == 1:
        weights["_conv_stem.weight"] = weights["_conv_stem.weight"].sum(1, keepdim=True)
    for convolution_name, norm_name, module in network.convolutions():
        module[1].load_state_dict({"weight": weights[f"{convolution_name}.weight"]})
        start = f"{norm_name}."
        module[2].load_state_dict({name[len(start) :]: w for name, w in weights.items() if name.startswith(start)})


def _freeze(network: EfficientNetLite0, parts: int) -> None:
    """Keep the first parts as they are, all batch norms' statistics, and the filters of a single channel.

    Of these the gradient takes as long as all the rest, and they are one weight in eighteen.
    """
    for _, _, module in network.convolutions():
        module.fold()
    for part in network.modules():
        if isinstance(part, nn.Conv2d) and part.groups > 1:
            part.requires_grad_(False)
    for part in (network.stem, *network.stages)[:parts]:
        part.requires_grad_(False)


def build(
    channels: int, height: int, width: int, *, pretrained: bool = True, frozen: int | None = None
) -> EfficientNetLite0:
    """EfficientNet-Lite0 for pictures of any size from 16 x 16; the weights were trained on 224 x 224.

    Args:
        channels: of the pictures, 3 or 1 with the weights of ImageNet.
        height: of the pictures: other sizes run too, padded as this one.
        width: of the pictures, likewise.
        pretrained: begin with the weights of ImageNet.
        frozen: for training on: of the stem and the seven stages, so many at the beginning stay as they are, which
            takes less time, as do depthwise filters; batch norms are folded into the convolutions, so that their
            statistics stay. `None` trains everything, norms by the statistics of each batch.

    Raises:
        TypeError, ValueError: the message names the argument.
        ModelError: the weights are not to be had.
    """
    check_picture("efficientnet_lite0", channels, height, width, least=LEAST)
    if pretrained and channels not in (1, 3):
        raise ValueError(
            f"efficientnet_lite0: channels must be 3 or 1 with the weights of ImageNet, got {channels}; "
            "pass pretrained=False for others"
        )
    if frozen is not None:
        whole("efficientnet_lite0", "frozen", frozen, 0, len(STAGES) + 1)
    network = EfficientNetLite0(channels, height, width)
    if pretrained:
        _load(network, channels)
    if frozen is not None:
        _freeze(network, frozen)
    return network
