"""A link from text, as the command line takes it: `taylor:degree=2`, `soft_margin:margin=0.6,temperature=4`."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, cast

from luce.links.link import Link


def parse_link(text: str) -> Link:
    """The link that a text names.

    Args:
        text: a name of `LINKS`, then perhaps a colon and parameters as `name=number`, separated by commas. Hyphens
            count as underscores.

    Raises:
        ValueError: an unknown name or parameter, or no number; the message lists what there is.

    >>> parse_link("soft-margin:margin=0.6")
    SoftMargin(margin=0.6, temperature=1.0)
    """
    from luce.links import LINKS

    links = cast(dict[str, Any], LINKS)
    name, parameters = split_spec("link", text)
    if name not in links:
        raise ValueError(f"link: must be one of {', '.join(links)}, got {name!r}")
    known = {field.name: field.default for field in fields(links[name])}
    given: dict[str, float | int] = {}
    for key, value in parameters.items():
        if key not in known:
            raise ValueError(
                f"link: {name} takes {', '.join(f'{k}=NUMBER' for k in known)}, separated by commas, got {key!r}"
            )
        given[key] = _number(name, key, value, whole=type(known[key]) is int)
    missing = [key for key, default in known.items() if default is MISSING and key not in given]
    if missing:
        raise ValueError(f"link: {name} needs {missing[0]}=NUMBER")
    link: Link = links[name](**given)
    return link


def split_spec(what: str, text: str) -> tuple[str, dict[str, str]]:
    """A name and its parameters from `name:key=value,key=value`, hyphens of names and keys as underscores.

    Args:
        what: is named, for the message.
        text: as it was typed.

    Raises:
        ValueError: a parameter is written in another way.

    >>> split_spec("network", "resnet:depth=20")
    ('resnet', {'depth': '20'})
    """
    name, _, rest = text.partition(":")
    parameters = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{what}: expected NAME:KEY=VALUE,KEY=VALUE, got {part!r} in {text!r}")
        parameters[key.strip().replace("-", "_")] = value.strip()
    return name.strip().replace("-", "_"), parameters


def split_specs(text: str) -> list[str]:
    """Several specs separated by commas; a `key=value` goes on with the parameters of the one before it.

    >>> split_specs("softmax,taylor:degree=2,temperature=4,sparsemax")
    ['softmax', 'taylor:degree=2,temperature=4', 'sparsemax']
    """
    specs: list[str] = []
    for part in text.split(","):
        if specs and "=" in part and ":" not in part:
            specs[-1] += f",{part.strip()}"
        else:
            specs.append(part.strip())
    return specs


def _number(name: str, key: str, text: str, *, whole: bool) -> float | int:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        raise ValueError(f"link: {key} of {name} must be a {'whole ' * whole}number, got {text!r}") from None
