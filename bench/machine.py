"""What a figure in a document must name, and how a benchmark writes its section of docs/benchmarks.md."""

from __future__ import annotations

import platform
import re
from importlib.metadata import version
from pathlib import Path

from luce import _native

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by the scripts in `bench/` (`make bench NAME=...`), each of which runs us, the peers and the physical floor
interleaved in one run. Machines are shared and noisy: read ratios, not seconds.
"""


def describe() -> str:
    """Processor, instruction set and versions."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", info)
    processor = model[1].strip() if model else platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "onnxruntime", "pillow"))
    return f"{processor} ({_native.instruction_set()}), Python {platform.python_version()}, {versions}"


def write_section(title: str, name: str, text: str) -> None:
    """Put a section into the page, in the place of the one with the same title."""
    page = PAGE.read_text() if PAGE.exists() else HEAD
    section = f"\n## {title}\n\n`make bench NAME={name}`: {text}\n"
    pattern = re.compile(rf"\n## {re.escape(title)}\n.*?(?=\n## |\Z)", re.DOTALL)
    PAGE.write_text(pattern.sub(lambda _: section, page) if pattern.search(page) else page + section)
