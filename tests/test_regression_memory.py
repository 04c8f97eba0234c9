"""A fit allocates nothing of the size of its data; measured and limited in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SETUP = """
import resource, warnings
from pathlib import Path
import numpy as np
import luce
warnings.simplefilter("ignore")  # few steps are enough to see the memory

def status(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1000

def fit(x, y, **more):
    return luce.SoftmaxRegression(feature_scale=1 / 255, max_iter=12, **more).fit(x, y)
"""
BYTES = """
rng = np.random.default_rng(0)
y = rng.integers(10, size=60_000)
x = rng.integers(0, 56, (60_000, 784), np.uint8)
x += (y[:, None] == np.arange(784) % 10).view(np.uint8) * np.uint8(9)
fit(x[:500], y[:500])
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
fit(x, y)
print(status("VmHWM") - before)
"""
MAPPED = """
import sys
n = 600_000
made = np.lib.format.open_memmap(sys.argv[1], "w+", np.uint8, (n, 1000))
made[::7, ::3] = 200
made[:, :2] = (np.arange(n) % 2 * 100)[:, None]
made.flush()
del made
x = np.load(sys.argv[1], mmap_mode="r")
y = np.arange(n) % 2
fit(x[:500], y[:500])
limit = int((status("VmData") + 200) * 1e6)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
model = fit(x, y)
print(model.score(x[:1000], y[:1000]))
try:
    np.zeros(int(400e6), np.uint8).fill(1)
except MemoryError:
    print("limited")
"""


def run(code: str, *arguments: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", SETUP + code, *arguments], capture_output=True, text=True, timeout=240
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_a_fit_on_bytes_takes_less_than_60_mb() -> None:
    assert 1 < float(run(BYTES)[0]) < 60


def test_a_memory_map_larger_than_the_memory_allowed_is_fitted(tmp_path: Path) -> None:
    score, limited = run(MAPPED, str(tmp_path / "x.npy"))
    assert float(score) == 1.0
    assert limited == "limited"
