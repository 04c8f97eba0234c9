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
        links: `LINKS`.

    Raises:
        ValueError: an unknown name or parameter, or no number; the message lists what there is.

    >>> parse_link("soft-margin:margin=0.6")
    SoftMargin(margin=0.6, temperature=1.0)
    """
    from luce.links import LINKS

    links = cast(dict[str, Any], LINKS)
    name, _, rest = text.partition(":")
    name = name.strip().replace("-", "_")
    if name not in links:
        raise ValueError(f"link: must be one of {', '.join(links)}, got {name!r}")
    known = {field.name: field.default for field in fields(links[name])}
    given: dict[str, float | int] = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if key not in known or not equals:
            raise ValueError(
                f"link: {name} takes {', '.join(f'{k}=NUMBER' for k in known)}, separated by commas, got {part!r}"
            )
        given[key] = _number(name, key, value, whole=type(known[key]) is int)
    missing = [key for key, default in known.items() if default is MISSING and key not in given]
    if missing:
        raise ValueError(f"link: {name} needs {missing[0]}=NUMBER")
    link: Link = links[name](**given)
    return link


def _number(name: str, key: str, text: str, *, whole: bool) -> float | int:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        raise ValueError(f"link: {key} of {name} must be a {'whole ' * whole}number, got {text!r}") from None
