"""The folders that Luce reads and writes besides those the user names."""

from __future__ import annotations

import os
from pathlib import Path

_DEBIAN = Path("/usr/share/datasets")


def cache_dir() -> Path:
    """Name the user's cache folder: `LUCE_CACHE`, else `$XDG_CACHE_HOME/luce`, else `~/.cache/luce`."""
    own = os.environ.get("LUCE_CACHE")
    if own:
        return _expanded(own)
    shared = Path(os.environ.get("XDG_CACHE_HOME") or "")
    # The XDG specification says that a relative path there is invalid and must be ignored.
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "luce"


def data_dirs() -> tuple[Path, ...]:
    """List folders where data sets may lie: those of `LUCE_DATA` in their order, then Debian's."""
    own = os.environ.get("LUCE_DATA", "").split(os.pathsep)
    return (*(_expanded(folder) for folder in own if folder), _DEBIAN)


def _expanded(folder: str) -> Path:
    try:
        return Path(folder).expanduser()
    except RuntimeError:  # nobody of that name has a home
        return Path(folder)
