"""The main job against its floor: `luce train` on a folder of photos, and ONNX Runtime alone on the same pixels.

    make bench NAME=pictures                    looks for trashnet in LUCE_DATA or ../shared/data
    .venv/bin/python bench/pictures.py FOLDER   any folder of pictures

Floor: every picture decoded and prepared beforehand, in memory, pushed through the same graph by ONNX Runtime with
its own two settings (all cores on one batch; one core per batch, batches side by side); the faster one counts.
Interleaved: floor, cold training, warm training, and again. Peer and floor get the same warm-up.
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
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from luce.backbones import open_backbone
from luce.datasets import open_dataset
from luce.images import load
from luce.threads import default_threads

ROUNDS = 3
N_THREADS = default_threads()


def find_photos() -> Path:
    """The folder on the command line, or TrashNet unpacked from the development data."""
    if len(sys.argv) > 1:
        return Path(sys.argv[1])
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


def floor_seconds(graph: bytes, pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Wall seconds of ONNX Runtime alone, in two settings."""
    together, single = session(graph, N_THREADS), session(graph, 1)

    def one_batch_at_a_time() -> None:
        for i in range(0, len(pixels), 32):
            together.run(None, {"images": pixels[i : i + 32]})

    def batches_side_by_side() -> None:
        with ThreadPoolExecutor(N_THREADS) as pool:
            list(pool.map(lambda i: single.run(None, {"images": pixels[i : i + 6]}), range(0, len(pixels), 6)))

    for warm in (together, single):
        warm.run(None, {"images": pixels[:32]})
    return {
        "all cores, batch 32": timed(one_batch_at_a_time),
        "one core each, batch 6": timed(batches_side_by_side),
    }


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def train(photos: Path, folder: str) -> tuple[float, dict[str, object]]:
    """Whole process: wall seconds and what `--json` says."""
    luce = Path(sys.executable).with_name("luce")
    environment = os.environ | {"LUCE_CACHE": f"{folder}/cache"}
    command = [str(luce), "train", str(photos), "-o", f"{folder}/model.onnx", "--json", "--quiet"]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, json.loads(done.stdout)


def main() -> None:
    photos = find_photos()
    backbone = open_backbone("efficientnet-lite0", (0, 0), grey=False, progress=lambda *_: None)
    with ThreadPoolExecutor(N_THREADS) as pool:
        pictures = open_dataset(photos).sources
        pixels = np.stack(list(pool.map(lambda p: load(p, backbone.preparation)[0], pictures)))
    rows: dict[str, list[float]] = {}
    figures: dict[str, object] = {}
    for _ in range(ROUNDS):
        for name, seconds in floor_seconds(backbone.graph, pixels).items():
            rows.setdefault(f"floor: ONNX Runtime, {name}", []).append(seconds)
        with tempfile.TemporaryDirectory() as folder:
            seconds, figures = train(photos, folder)
            rows.setdefault("luce train, no cache yet", []).append(seconds)
            seconds, figures = train(photos, folder)
            rows.setdefault("luce train, warm cache", []).append(seconds)
    print(f"{len(pixels):,} pictures, {N_THREADS} threads, {ROUNDS} rounds interleaved; seconds")
    for name, values in rows.items():
        print(f"{name:45} median {statistics.median(values):7.2f}   {min(values):.2f} … {max(values):.2f}")
    floor = min(statistics.median(v) for name, v in rows.items() if name.startswith("floor"))
    ratio = statistics.median(rows["luce train, no cache yet"]) / floor
    print(f"luce train / floor: {ratio:.3f}")
    print(
        {
            key: figures[key]
            for key in ("accuracy", "accuracy_low", "accuracy_high", "ece", "ece_uncalibrated", "temperature")
        }
    )


if __name__ == "__main__":
    main()
