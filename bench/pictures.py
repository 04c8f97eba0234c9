"""The main job against its floor: `luce train` on a folder of photos, and ONNX Runtime alone on the same pixels.

    make bench NAME=pictures                    TrashNet from LUCE_DATA or ../shared/data; writes docs/benchmarks.md
    .venv/bin/python bench/pictures.py FOLDER   any folder of pictures; prints only

Floor: every picture decoded and prepared beforehand, in memory, pushed through the same graph by ONNX Runtime in three
settings (all cores on batches of 32; one core each on batches of 6 and of 1); the fastest one counts. Interleaved:
the floors, training without a cache, training with a warm one, one prediction in a cold process, digits, the imports;
and again. Whole processes but for the floor. The floor's sessions are warmed up, the processes start cold.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from machine import describe, write_section
from numpy.typing import NDArray

from luce.backbones import open_backbone
from luce.datasets import open_dataset
from luce.images import load
from luce.threads import default_threads

ROUNDS = 4
N_THREADS = default_threads()
FLOOR = "floor: ONNX Runtime"


def find_photos() -> Path:
    """The folder on the command line, or TrashNet."""
    return Path(sys.argv[1]) if len(sys.argv) > 1 else unpacked()


def unpacked() -> Path:
    """TrashNet, unpacked from the development data."""
    folders = os.environ.get("LUCE_DATA", "../shared/data").split(os.pathsep)
    archive = next(
        Path(f) / "trashnet" / "trashnet-256-trainval.tar" for f in folders if (Path(f) / "trashnet").is_dir()
    )
    target = Path(tempfile.gettempdir()) / "luce-bench-trashnet"
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    return target / "trashnet"


def session(graph: bytes, n_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def floors(graph: bytes, pixels: NDArray[np.uint8]) -> dict[str, Callable[[], object]]:
    """ONNX Runtime alone, in three settings."""
    together, single = session(graph, N_THREADS), session(graph, 1)
    for warm in (together, single):
        warm.run(None, {"images": pixels[:32]})

    def one_batch_at_a_time() -> None:
        for i in range(0, len(pixels), 32):
            together.run(None, {"images": pixels[i : i + 32]})

    def side_by_side(size: int) -> None:
        with ThreadPoolExecutor(N_THREADS) as pool:
            starts = range(0, len(pixels), size)
            list(pool.map(lambda i: single.run(None, {"images": pixels[i : i + size]}), starts))

    return {
        f"{FLOOR}, all cores, batch 32": one_batch_at_a_time,
        f"{FLOOR}, one core each, batch 6": lambda: side_by_side(6),
        f"{FLOOR}, one core each, batch 1": lambda: side_by_side(1),
    }


def luce(*words: str, cache: str) -> str:
    """What the command prints on standard output."""
    command = [str(Path(sys.executable).with_name("luce")), *words]
    environment = os.environ | {"LUCE_CACHE": cache}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def python(code: str) -> None:
    """Run a fresh interpreter."""
    subprocess.run([sys.executable, "-c", code], check=True)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(photos: Path) -> tuple[dict[str, list[float]], dict[str, float], int]:
    """Seconds by row, the figures that `--json` gives, and the number of pictures."""
    backbone = open_backbone("efficientnet-lite0", (0, 0), grey=False, progress=lambda *_: None)
    pictures = [Path(str(source)) for source in open_dataset(photos).sources]
    with ThreadPoolExecutor(N_THREADS) as pool:
        pixels = np.stack(list(pool.map(lambda p: load(p, backbone.preparation)[0], pictures)))
    figures: dict[str, float] = {}
    rows: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            model, cache = f"{folder}/model.onnx", f"{folder}/cache"

            def train(model: str = model, cache: str = cache) -> None:
                figures.update(json.loads(luce("train", str(photos), "-o", model, "--json", "--quiet", cache=cache)))

            works: dict[str, Callable[[], object]] = {
                **floors(backbone.graph, pixels),
                "luce train, no cache yet": train,
                "luce train, warm cache": train,
                "luce predict, one photo": partial(luce, "predict", model, str(pictures[0]), cache=cache),
                "luce train digits": partial(luce, "train", "digits", "-o", f"{folder}/d.onnx", cache=cache),
                "python -c 'import luce'": partial(python, "import luce"),
                "python -c 'import numpy'": partial(python, "import numpy"),
            }
            for name, work in works.items():
                rows.setdefault(name, []).append(timed(work))
    return rows, figures, len(pixels)


def report(rows: dict[str, list[float]], figures: dict[str, float], n_pictures: int) -> str:
    """The section of docs/benchmarks.md."""
    floor = min(statistics.median(v) for name, v in rows.items() if name.startswith(FLOOR))
    lines = [
        f"{n_pictures:,} photos, {N_THREADS} threads, {describe()}. Whole processes, seconds, {ROUNDS} rounds.",
        "",
        "| what | median | least … most | to the floor |",
        "|---|---|---|---|",
    ]
    for name, values in rows.items():
        median = statistics.median(values)
        ratio = f"{median / floor:.2f}" if name.startswith(("floor", "luce train,")) else ""
        lines.append(f"| {name} | {median:.2f} | {min(values):.2f} … {max(values):.2f} | {ratio} |")
    a, e = figures["accuracy"], figures["ece"]
    lines += [
        "",
        f"On the held-out part: accuracy {a:.3f} ({figures['accuracy_low']:.3f} … {figures['accuracy_high']:.3f}), "
        f"ECE {e:.3f} ({figures['ece_low']:.3f} … {figures['ece_high']:.3f}).",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    text = report(*measure(find_photos()))
    print(text)
    if len(sys.argv) == 1:
        write_section("Photos of a folder per class (TrashNet)", "pictures", text)
