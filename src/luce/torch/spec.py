"""A network or a last layer from text, as the command line takes it: `resnet:depth=20`, `arcface:margin=0.3`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from torch import nn

from luce.links.parse import split_spec
from luce.torch.heads import HEADS
from luce.torch.networks import NETWORKS


def network_from(text: str, channels: int, height: int, width: int) -> nn.Module:
    """The trunk that a text names, see `build_network`.

    Raises:
        ValueError: an unknown name or option, or a value out of range.
    """
    return _built("network", text, NETWORKS, channels, height, width)


def head_from(text: str, n_features: int, n_classes: int) -> nn.Module:
    """The last layer that a text names, see `luce.torch.heads`.

    Raises:
        ValueError: an unknown name or option, or a value out of range.
    """
    return _built("head", text, HEADS, n_features, n_classes)


def check_specs(network: str, head: str) -> None:
    """Check the names and options of both, before any data is read.

    Raises:
        ValueError: an unknown name or option.
    """
    _parsed("network", network, NETWORKS)
    _parsed("head", head, HEADS)


def _built(what: str, text: str, known: Mapping[str, Callable[..., nn.Module]], *sizes: int) -> nn.Module:
    make, options = _parsed(what, text, known)
    try:
        return make(*sizes, **options)
    except TypeError as error:  # a word where a number belongs: typed, so a value like any other
        raise ValueError(str(error)) from None


def _parsed(
    what: str, text: str, known: Mapping[str, Callable[..., nn.Module]]
) -> tuple[Callable[..., nn.Module], dict[str, int | float | str]]:
    name, parameters = split_spec(what, text)
    if name not in known:
        raise ValueError(f"{what}: must be one of {', '.join(known)}, got {name!r}")
    options = [p.name for p in inspect.signature(known[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key in parameters:
        if key not in options:
            has = f"it has {', '.join(options)}" if options else "it has none"
            raise ValueError(f"{what}: {name} has no option {key!r}; {has}")
    return known[name], {key: _value(value) for key, value in parameters.items()}


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
