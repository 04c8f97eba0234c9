"""Networks by name, each a trunk: an `nn.Module` from normalised pictures (N, C, H, W) to features (N, n_features).

One file has one network and its `build(channels, height, width, **options)`. The last layer is put behind by whoever
trains. Adding a network is one file and one line here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from luce.torch.networks import cnn, efficientnet_lite0, fastcnn, inception, lenet, moe, resnet, vgg, vit

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "lenet": lenet.build,
    "cnn": cnn.build,
    "fastcnn": fastcnn.build,
    "vgg": vgg.build,
    "resnet": resnet.build,
    "inception": inception.build,
    "vit": vit.build,
    "moe": moe.build,
    "efficientnet_lite0": efficientnet_lite0.build,
}


def build_network(name: str, channels: int, height: int, width: int, **options: Any) -> nn.Module:
    """Build a trunk; its weights are drawn from torch's global generator.

    Args:
        name: one of `NETWORKS`.
        channels: of the pictures.
        height: of the pictures.
        width: of the pictures.
        options: of the network, see its `build`.

    Returns:
        A module in training mode with an attribute `n_features`. `efficientnet_lite0` also says by `pixel_mean` and
        `pixel_std`, in units of 0 to 255, how pixels must be normalised.

    Raises:
        TypeError: an argument has the wrong type, or the network has no such option.
        ValueError: an unknown name, or an argument out of range: the message says which and what it may be.

    >>> build_network("cnn", 1, 28, 28, width_factor=0.5).n_features
    64
    """
    if name not in NETWORKS:
        raise ValueError(f"build_network: name must be one of {', '.join(NETWORKS)}, got {name!r}")
    build = NETWORKS[name]
    known = [p.name for p in inspect.signature(build).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise TypeError(f"build_network: {name} has no option {option!r}; {has}")
    return build(channels, height, width, **options)


__all__ = ["NETWORKS", "build_network"]
