"""The softmax family against its peers and against a copy of the same memory.

    make bench NAME=links                          everything; writes docs/benchmarks.md
    .venv/bin/python bench/links.py sparsemax      the rows whose name has the word; prints only
    .venv/bin/python bench/links.py --quick        everything in few rounds; prints only

Interleaved: us, the peers, the floors, and again. Before each timing comes a pause, in which waiting threads of the
one before fall asleep, and one call that does not count; the first rounds do not count either. All arrays are NumPy's,
torch looks at the same memory. Floor: reading the logits and writing as many bytes; the fastest copy of three counts.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import entmax as peer_entmax
import numpy as np
import scipy.special
import torch
from machine import describe, write_section
from numpy.typing import NDArray
from rows import EPS, MARGIN, error
from torch.nn import functional

import luce
from luce.links import LINKS

QUICK = "--quick" in sys.argv
WARM_UP, ROUNDS = (1, 3) if QUICK else (2, 21)
PAUSE = 0.02
N_THREADS = 2
POOL = ThreadPoolExecutor(N_THREADS)

OURS, SOFTMAX, LOSS = "luce", "luce.softmax, out", "Softmax().loss_and_grad, out"
TORCH, SCIPY = "torch.softmax", "scipy.special.softmax"
ENTMAX, PARTIAL = "entmax on torch", "entmax on torch, k=128"  # sorting rows; the largest 128, and more where needed
BACKWARD = "torch cross_entropy and backward"
FLOOR = "floor"
AT_MOST = (FLOOR, SOFTMAX, LOSS)  # our time to theirs; with the peers it is theirs to ours

Floats = NDArray[np.float32]
Work = Callable[[], Any]
Job = tuple[dict[str, Work], Callable[[], str]]  # what is timed, ours first; our error


@dataclass(frozen=True)
class Case:
    """A row: how to make its work, and the ratios wanted; `calls` of it make one timing."""

    name: str
    prepare: Callable[[], Job]
    targets: dict[str, float]
    calls: int = 1


def normal(n: int, k: int) -> tuple[Floats, NDArray[np.int64]]:
    """Logits and class ids."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, k), np.float32), rng.integers(k, size=n)


def copies(x: Floats) -> dict[str, Work]:
    to = np.empty_like(x)
    source, target, half = torch.from_numpy(x), torch.from_numpy(to), len(x) // 2

    def side_by_side() -> None:
        list(POOL.map(np.copyto, (to[:half], to[half:]), (x[:half], x[half:])))

    return {
        f"{FLOOR}: torch copy_": lambda: target.copy_(source),
        f"{FLOOR}: numpy.copyto in {N_THREADS} threads": side_by_side,
        f"{FLOOR}: numpy.copyto in one thread": lambda: np.copyto(to, x),
    }


def softmax(n: int, k: int, axis: int = -1) -> Job:
    x, _ = normal(n, k)
    out, tensor, tensor_out = np.empty_like(x), torch.from_numpy(x), torch.from_numpy(np.empty_like(x))
    works: dict[str, Work] = {
        OURS: lambda: luce.softmax(x, axis, out=out),
        TORCH: lambda: torch.softmax(tensor, axis, out=tensor_out),
        SCIPY: lambda: scipy.special.softmax(x, axis),
    }
    return works | copies(x), lambda: error("softmax", np.moveaxis(works[OURS](), axis, -1), np.moveaxis(x, axis, -1))


def whole_call(n: int, k: int) -> Job:
    x, _ = normal(n, k)
    tensor = torch.from_numpy(x)
    works: dict[str, Work] = {
        OURS: lambda: luce.softmax(x),
        TORCH: lambda: torch.softmax(tensor, -1),
        SCIPY: lambda: scipy.special.softmax(x, -1),
    }
    return works | copies(x), lambda: error("softmax", works[OURS](), x)


def cross_entropy(n: int, k: int, *, with_out: bool) -> Job:
    x, ids = normal(n, k)
    grad = np.empty_like(x) if with_out else None
    leaf, target = torch.from_numpy(x).requires_grad_(), torch.from_numpy(ids)

    def forward_and_backward() -> None:
        leaf.grad = None
        torch.autograd.backward(functional.cross_entropy(leaf, target, reduction="sum"))

    link = LINKS["softmax"]()
    works: dict[str, Work] = {OURS: lambda: link.loss_and_grad(x, ids, out=grad), BACKWARD: forward_and_backward}
    return works | copies(x), lambda: error("softmax", works[OURS]()[1], x, ids, gradient=True)


def member(name: str, n: int, k: int) -> Job:
    """Probabilities, those with a margin for the targets."""
    x, ids = normal(n, k)
    out, other = np.empty_like(x), np.empty_like(x)
    works: dict[str, Work] = {
        OURS: {
            "taylor": lambda: luce.taylor_softmax(x, out=out),
            "sm_taylor": lambda: luce.sm_taylor_softmax(x, target=ids, margin=MARGIN, out=out),
            "soft_margin": lambda: luce.soft_margin_softmax(x, target=ids, margin=MARGIN, out=out),
            "spherical": lambda: luce.spherical_softmax(x, eps=EPS, out=out),
        }[name],
        SOFTMAX: lambda: luce.softmax(x, out=other),
    }
    return works | copies(x), lambda: error(name, works[OURS](), x, ids)


def member_loss(name: str, n: int, k: int) -> Job:
    x, ids = normal(n, k)
    grad, other = np.empty_like(x), np.empty_like(x)
    link, plain = LINKS[name](), LINKS["softmax"]()
    works: dict[str, Work] = {
        OURS: lambda: link.loss_and_grad(x, ids, out=grad),
        SOFTMAX: lambda: luce.softmax(x, out=other),
        LOSS: lambda: plain.loss_and_grad(x, ids, out=other),
    }
    return works | copies(x), lambda: error(name, works[OURS]()[1], x, ids, gradient=True)


def threshold(name: str, n: int, k: int) -> Job:
    x, _ = normal(n, k)
    ours, theirs = getattr(luce, name), getattr(peer_entmax, name)
    out, tensor = np.empty_like(x), torch.from_numpy(x)
    works: dict[str, Work] = {
        OURS: lambda: ours(x, out=out),
        ENTMAX: lambda: theirs(tensor, dim=-1),
        PARTIAL: lambda: theirs(tensor, dim=-1, k=128),
    }
    return works | copies(x), lambda: error(name, works[OURS](), x)


MEMBERS = ("taylor", "sm_taylor", "soft_margin", "spherical")
LOSSES = {(100_000, 10): 10.0, (10_000, 1_000): 8.0, (1_000, 50_000): 8.0}
THRESHOLDS = {"sparsemax": 30.0, "entmax15": 10.0}
CASES = (
    Case("softmax, out, 100000 x 10", partial(softmax, 100_000, 10), {TORCH: 15, SCIPY: 12}),
    Case("softmax, out, 10000 x 1000", partial(softmax, 10_000, 1_000), {TORCH: 1, SCIPY: 8, FLOOR: 1.3}),
    Case("softmax, out, 1000 x 50000", partial(softmax, 1_000, 50_000), {TORCH: 1.2, FLOOR: 1.3}),
    Case("softmax, out, 16 x 1000000", partial(softmax, 16, 1_000_000), {TORCH: 1.2, FLOOR: 1.6}),
    Case("softmax, out, axis 0 of 1000 x 10000", partial(softmax, 1_000, 10_000, 0), {TORCH: 1.2}),
    Case("softmax, whole call, 256 x 10", partial(whole_call, 256, 10), {TORCH: 2, SCIPY: 5}, calls=200),
    *(
        Case(f"cross-entropy, {words}, {n} x {k}", partial(cross_entropy, n, k, with_out=with_out), targets)
        for (n, k), ratio in LOSSES.items()
        for words, with_out, targets in (("out", True, {BACKWARD: ratio}), ("no out", False, {}))
    ),
    *(Case(f"{m}, out, 10000 x 1000", partial(member, m, 10_000, 1_000), {SOFTMAX: 1.5}) for m in MEMBERS),
    *(Case(f"{m} loss, out, 10000 x 1000", partial(member_loss, m, 10_000, 1_000), {SOFTMAX: 1.5}) for m in MEMBERS),
    *(
        Case(f"{name}, out, {n} x {k}", partial(threshold, name, n, k), {ENTMAX: ratio})
        for name, ratio in THRESHOLDS.items()
        for n, k in ((64, 50_000), (10_000, 1_000))
    ),
)


def timed(work: Work, calls: int) -> float:
    """Milliseconds of one call."""
    time.sleep(PAUSE)  # the peer's threads may spin after its turn, on the core that ours needs
    work()
    began = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - began) / calls * 1e3


def measure(works: dict[str, Work], calls: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in works}
    for i in range(WARM_UP + ROUNDS):
        for name, work in works.items():
            milliseconds = timed(work, calls)
            if i >= WARM_UP:
                times[name].append(milliseconds)
    return times


def three_digits(x: float) -> str:
    return f"{x:.3g}" if x < 100 else f"{x:.0f}"


def compared(name: str, median: float, ours: float, target: float | None) -> str:
    """The cells ratio, target and met."""
    at_most = name.startswith(AT_MOST)
    ratio = ours / median if at_most else median / ours
    if target is None:
        return f"{ratio:.2f} | | "
    met = ratio <= target if at_most else ratio >= target
    return f"{ratio:.2f} | {'at most' if at_most else 'at least'} {target:g} | {'yes' if met else 'no'}"


def table_rows(case: Case) -> list[str]:
    """One case: a line for us, for each peer and for the fastest floor."""
    works, our_error = case.prepare()
    times = measure(works, case.calls)
    medians = {name: statistics.median(values) for name, values in times.items()}
    floor = min((name for name in works if name.startswith(FLOOR)), key=lambda name: medians[name])
    lines = []
    for name in works:
        if name.startswith(FLOOR) and name != floor:
            continue
        low, _, high = statistics.quantiles(times[name], n=4, method="inclusive")
        target = case.targets.get(FLOOR if name == floor else name)
        cells = " | | " if name == OURS else compared(name, medians[name], medians[OURS], target)
        first, last = (case.name, our_error()) if name == OURS else ("", "")
        spread = f"{three_digits(medians[name])} | {three_digits(low)} … {three_digits(high)}"
        lines.append(f"| {first} | {name} | {spread} | {cells} | {last} |")
    return lines


# What a fresh process runs: `HWM` once with the process's own peak (its thread and code warm), once with tracemalloc.
MEMORY = """
import pathlib, re, tracemalloc
import numpy as np
{imports}
def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
work = lambda x: {call}
work(np.ones((8, 20_000)))
x = np.random.default_rng(0).standard_normal((8, 1_000_000))
if {traced}:
    tracemalloc.start()
    work(x)
    extra = tracemalloc.get_traced_memory()[1]
else:
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak()
    work(x)
    extra = peak() - before
print(100 * extra / x.nbytes)
"""
LOGSUMEXPS = {
    "luce.logsumexp": ("import luce", "luce.logsumexp(x)"),
    "scipy.special.logsumexp": ("import scipy.special", "scipy.special.logsumexp(x, axis=-1)"),
    "torch.logsumexp": ("import torch", "torch.logsumexp(torch.from_numpy(x), -1)"),
}


def memory_lines() -> list[str]:
    """Extra memory of logsumexp, each in two fresh processes; tracemalloc does not see into torch and our core."""
    lines = ["", "Extra memory of logsumexp, 8 x 1000000 float64, in % of the input (ours: under 1).", ""]
    lines += ["| what | peak of the process | NumPy's allocations |", "|---|---|---|"]
    for name, (imports, call) in LOGSUMEXPS.items():
        codes = [MEMORY.format(imports=imports, call=call, traced=traced) for traced in (False, True)]
        runs = [subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True) for c in codes]
        lines.append(f"| {name} | {' | '.join(f'{float(run.stdout):.2f}' for run in runs)} |")
    return lines


def pseudo_lines() -> list[str]:
    """How far the integer arithmetic of pseudo_softmax lies from what it stands for."""
    lines = ["", "pseudo_softmax of random int8 logits, scale 1/16, 10000 rows: largest (mean) difference from", ""]
    lines += ["| classes | softmax | 2**x / sum in float32 |", "|---|---|---|"]
    for k in (10, 1_000):
        q = np.random.default_rng(0).integers(-128, 128, (10_000, k), np.int8)
        x = q * np.float32(1 / 16)
        p = luce.pseudo_softmax(q, scale=1 / 16)
        gaps = [np.abs(p - other) for other in (luce.softmax(x), luce.pseudo_softmax(x))]
        lines.append(f"| {k} | {' | '.join(f'{gap.max():.2g} ({gap.mean():.2g})' for gap in gaps)} |")
    return lines


def report(word: str) -> str:
    """The section of docs/benchmarks.md, or the part of it that has the word in its name."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "scipy", "entmax"))
    lines = [
        f"{describe()}, {versions}. float32, standard normal logits, {N_THREADS} threads each (scipy has one), "
        f"{ROUNDS} rounds, median and quartiles of the milliseconds of one call. Ratio: a peer's time to ours; ours to "
        "that of the floor (the fastest copy of the same bytes), of our softmax and of its loss_and_grad. Error: the "
        "largest against float64 on a sample of rows, with the bound of tests/tolerances.py where there is one.",
        "",
        "| case | what | ms | quartiles | ratio | target | met | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        if word in case.name:
            lines += table_rows(case)
    for name, more in {"logsumexp": memory_lines, "pseudo": pseudo_lines}.items():
        if word in name:
            lines += more()
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(N_THREADS)
    os.environ["LUCE_THREADS"] = str(N_THREADS)
    text = report(next((word for word in sys.argv[1:] if word != "--quick"), ""))
    print(text)
    if len(sys.argv) == 1:
        write_section("The softmax family", "links", text)
