"""Peak memory of `luce train` on 2,000 and on 20,000 photos: only features may grow with their number.

    make bench NAME=memory      TrashNet's photos over and over, each with other bytes at its end; docs/benchmarks.md

The floor is what must grow: 2,064 float32 features for each photo.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import describe, write_section
from pictures import find_photos

from luce.backbones import open_backbone
from luce.datasets import open_dataset

COUNTS = (2_000, 20_000)


def multiply(photos: list[Path], count: int, folder: Path) -> None:
    """`count` files that differ in their last bytes."""
    for i in range(count):
        photo = photos[i % len(photos)]
        (folder / photo.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / photo.parent.name / f"{i:06d}.jpg").write_bytes(photo.read_bytes() + b"%d" % i)


def peak_megabytes(folder: Path) -> float:
    """Of one training without cache; the largest of all children so far, so the counts must rise."""
    command = [Path(sys.executable).with_name("luce"), "train", folder, "-o", f"{folder}.onnx", "--no-cache", "-q"]
    environment = os.environ | {"LUCE_CACHE": f"{folder}.cache"}
    subprocess.run(list(map(str, command)), env=environment, check=True, stdout=subprocess.DEVNULL)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000


if __name__ == "__main__":
    photos = [Path(str(source)) for source in open_dataset(find_photos()).sources]
    n_features = open_backbone("efficientnet-lite0", (0, 0), grey=False, progress=lambda *_: None).n_features
    lines = [f"{describe()}.", "", "| photos | peak memory, MB | their features, MB |", "|---|---|---|"]
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as root:
            multiply(photos, count, Path(root) / "photos")
            peak = peak_megabytes(Path(root) / "photos")
        lines.append(f"| {count:,} | {peak:.0f} | {count * n_features * 4 / 1e6:.0f} |")
    text = "\n".join(lines)
    print(text)
    write_section("Memory", "memory", text)
