"""How many threads to use: as many as this process may really run at once."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path

VARIABLE = "LUCE_THREADS"
_CGROUP = Path("/sys/fs/cgroup")
_SELF = Path("/proc/self/cgroup")


def default_threads() -> int:
    """The number of threads of a heavy call that names none.

    `LUCE_THREADS` if set; else the cores this process may run on, or its container's share of them (cgroup quota,
    rounded up), whichever is less.

    Raises:
        ValueError: `LUCE_THREADS` is not a whole number of at least 1.
    """
    wanted = os.environ.get(VARIABLE, "")
    if not wanted:
        return _available()
    if not wanted.isdecimal() or int(wanted) < 1:
        raise ValueError(f"{VARIABLE} must be a whole number of at least 1, got {wanted!r}")
    return int(wanted)


@functools.cache
def _available() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_cores(_CGROUP, _SELF)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def cgroup_cores(root: Path, membership: Path) -> float | None:
    """The cores that this process's cgroup may use, or `None` without a limit.

    Args:
        root: where the cgroup file system is mounted.
        membership: the file that says which groups this process is in, `/proc/self/cgroup`.
    """
    limits = []
    for line in _text(membership).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            limits += [_v2_limit(folder) for folder in _up_to(root, group)]
        elif "cpu" in controllers.split(","):
            limits += [_v1_limit(folder) for folder in _up_to(root / "cpu", group)]
    return min((limit for limit in limits if limit is not None), default=None)


def _up_to(root: Path, group: str) -> list[Path]:
    """The folder of a group and of every group that it is in: each may set a limit."""
    folder = root / group.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent == root or root in parent.parents)]


def _v2_limit(folder: Path) -> float | None:
    return _ratio(*[*_text(folder / "cpu.max").split(), "", ""][:2])


def _v1_limit(folder: Path) -> float | None:
    return _ratio(_text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> float | None:
    if not (quota.isdecimal() and period.isdecimal()) or int(quota) == 0 or int(period) == 0:
        return None  # "max", -1 or nothing there: no limit
    return int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
