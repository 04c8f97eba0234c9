"""Softmax regression against scikit-learn, against a matrix product, and beside a busy process.

    make bench NAME=regression                       everything; writes docs/benchmarks.md
    .venv/bin/python bench/regression.py digits      the cases whose name has the word; prints only

The same objective for both: C = 1, pixels divided by 255 in float32; ours once more on the uint8 pixels themselves
with `feature_scale=1/255`. scikit-learn with tol=1e-4 and as many steps as it wants, on one thread or its default of
threads, whichever is faster in a few steps. Interleaved, whole fits. "To its objective": our fit with the largest tol
whose final objective is at or below scikit-learn's final one, found before anything is timed. Data: Debian's
dataset-fashion-mnist, MNIST and TrashNet from LUCE_DATA or ../shared/data, digits from scikit-learn.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, write_section
from numpy.typing import NDArray
from pictures import find_photos
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from threadpoolctl import threadpool_limits

import luce
from luce.backbones import extract, open_backbone, open_session
from luce.datasets import open_dataset
from luce.images import MAX_PIXELS
from luce.regression.objective import Rows, loss_and_grad

TOLS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01, 1e-3)
Work = Callable[[], Any]
Floats = NDArray[np.float32]


def times(jobs: dict[str, Work], rounds: int, pause: float = 0.05) -> dict[str, list[float]]:
    """Seconds of each job, interleaved, after a pause (s) in which waiting threads of the one before fall asleep."""
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            time.sleep(pause)  # else their waiting takes a core from this one
            start = time.perf_counter()
            job()
            taken[name].append(time.perf_counter() - start)
    return taken


def objective(x: NDArray[Any], y: NDArray[Any], coef: NDArray[Any], intercept: NDArray[Any]) -> float:
    """Mean cross-entropy + penalty at C = 1, float64."""
    total = 0.0
    for i in range(0, len(x), 5000):
        z = x[i : i + 5000].astype(np.float64) @ coef.T.astype(np.float64) + intercept
        total += float(np.sum(luce.cross_entropy(z, y[i : i + 5000], reduction="none")))
    return total / len(x) + float(np.sum(coef.astype(np.float64) ** 2)) / (2 * len(x))


def peer(x: NDArray[Any], y: NDArray[Any], *, threads: int | None, steps: int = 100_000) -> LogisticRegression:
    limit = contextlib.nullcontext() if threads is None else threadpool_limits(threads)
    with limit, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few steps are meant to be few
        return LogisticRegression(C=1.0, tol=1e-4, max_iter=steps).fit(x, y)


def ours(x: NDArray[Any], y: NDArray[Any], tol: float, scale: float = 1.0) -> luce.SoftmaxRegression:
    return luce.SoftmaxRegression(C=1.0, tol=tol, feature_scale=scale).fit(x, y)


def row(what: str, seconds: list[float], ratio: str, target: str, note: str) -> str:
    low, high = min(seconds), max(seconds)
    return f"| {what} | {statistics.median(seconds):.4g} | {low:.3g} … {high:.3g} | {ratio} | {target} | {note} |"


HEAD = ["| what | seconds | least … most | scikit-learn / ours | target | note |", "|---|---|---|---|---|---|"]


def pixels(name: str) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.uint8], NDArray[Any]]:
    """Training and test pictures and classes."""
    os.environ.setdefault("LUCE_DATA", "../shared/data")
    data = open_dataset(name)
    x, parts = np.asarray(data.pictures).reshape(len(data), -1), np.array(data.splits)
    train, test = parts == "train", parts == "test"
    return x[train], data.labels[train], x[test], data.labels[test]


def fit_case(name: str, x: Floats, y: NDArray[Any], bytes_: NDArray[np.uint8] | None, rounds: int,
             test: tuple[NDArray[Any], NDArray[Any]] | None, goals: tuple[str, str]) -> list[str]:  # fmt: skip
    """The rows of a fit."""
    first = peer(x, y, threads=1)
    theirs = objective(x, y, first.coef_, first.intercept_)
    tol, model = next(
        (tol, m) for tol in TOLS for m in [ours(x, y, tol)] if objective(x, y, m.coef_, m.intercept_) <= theirs
    )
    best = ours(x, y, 1e-6)
    jobs: dict[str, Work] = {
        "one": lambda: peer(x, y, threads=1),
        "to": lambda: ours(x, y, tol),
        "proof": lambda: ours(x, y, 1e-6),
    }
    if bytes_ is not None:
        jobs["to uint8"] = lambda: ours(bytes_, y, tol, 1 / 255)
        jobs["proof uint8"] = lambda: ours(bytes_, y, 1e-6, 1 / 255)
    taken = times(jobs, rounds)
    steps = 10  # with its default of threads a whole fit may take minutes: these are enough to see which is faster
    short: dict[str, Work] = {
        "one": lambda: peer(x, y, threads=1, steps=steps),
        "default": lambda: peer(x, y, threads=None, steps=steps),
    }
    few = times(short, 3)
    slower = statistics.median(few["default"]) / statistics.median(few["one"])
    reference = statistics.median(taken["one"]) * min(1.0, slower)

    def ratio(key: str) -> str:
        return f"{reference / statistics.median(taken[key]):.1f}"

    score = "" if test is None else f", test accuracy {first.score(*test):.4f}"
    lines = [
        row(f"{name}: scikit-learn, one thread", taken["one"], ratio("one"), "", f"{first.n_iter_[0]} steps, "
            f"objective {theirs:.7f}{score}"),
        row(f"{name}: scikit-learn, default threads, {steps} steps", few["default"], "", "", f"{slower:.1f} times as "
            "long as on one thread"),
        row(f"{name}: luce to its objective", taken["to"], ratio("to"), goals[0], f"tol={tol:g}, {model.n_passes_} "
            f"passes, objective {objective(x, y, model.coef_, model.intercept_):.7f}"),
    ]  # fmt: skip
    if bytes_ is not None:
        lines.append(row(f"{name}: the same from uint8", taken["to uint8"], ratio("to uint8"), "", ""))
    score = "" if test is None else f", test accuracy {best.score(*test):.4f}"
    lines.append(
        row(f"{name}: luce, gap of 1e-6 proven", taken["proof"], ratio("proof"), goals[1], f"{best.n_passes_} passes, "
            f"objective {objective(x, y, best.coef_, best.intercept_):.7f}, gap {best.certificate_.gap:.1e}{score}")
    )  # fmt: skip
    if bytes_ is not None:
        lines.append(row(f"{name}: the same from uint8", taken["proof uint8"], ratio("proof uint8"), "", ""))
    return lines


def pictures_case(name: str, title: str, rounds: int) -> list[str]:
    x, y, x_test, y_test = pixels(name)
    scaled = x.astype(np.float32) / np.float32(255)
    test = x_test.astype(np.float32) / np.float32(255), y_test
    return fit_case(title, scaled, y, x, rounds, test, ("at least 30", "at least 5"))


def digits() -> list[str]:
    x, y = load_digits(return_X_y=True)
    return fit_case("digits", x.astype(np.float32), y, None, 21, None, ("at least 10, under 0.02 s", ""))


def trashnet() -> list[str]:
    """The path of penalties on standardised features."""
    sys.argv = sys.argv[:1]  # a word there would be taken for a folder
    data = open_dataset(find_photos())
    backbone = open_backbone("efficientnet-lite0", (0, 0), grey=False, progress=lambda *_: None)
    found = extract(data.sources, backbone, open_session(backbone.graph), None, n_threads=2, max_pixels=MAX_PIXELS,
                    progress=lambda *_: None)  # fmt: skip
    x = np.asarray(found.values, np.float32)[:, -1280:]
    y = data.labels[found.rows]
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)

    def theirs(threads: int | None) -> LogisticRegressionCV:
        with contextlib.nullcontext() if threads is None else threadpool_limits(threads):
            return LogisticRegressionCV(
                Cs=10,
                cv=5,
                tol=1e-4,
                max_iter=100_000,
                scoring="neg_log_loss",
                l1_ratios=(0,),
                use_legacy_attributes=False,
            ).fit(x, y)

    jobs: dict[str, Work] = {
        "one": lambda: theirs(1),
        "default": lambda: theirs(None),
        "ours": lambda: luce.SoftmaxRegressionCV().fit(x, y),
    }
    peer_model, model = theirs(1), luce.SoftmaxRegressionCV().fit(x, y)
    taken = times(jobs, 5, pause=0.4)  # a BLAS with several threads keeps them awake for 0.2 s
    medians = {key: statistics.median(seconds) for key, seconds in taken.items()}
    reference = min(medians["one"], medians["default"])
    ratio = {key: f"{reference / median:.1f}" for key, median in medians.items()}
    name = f"TrashNet features {x.shape[0]} x {x.shape[1]}, 10 penalties, 5 folds"
    note = f"chose C = {float(np.ravel(peer_model.C_)[0]):.3g}"
    own = f"chose C = {model.C_:.3g}, final gap {model.certificate_.relative_gap:.1e} of the objective"
    return [
        row(f"{name}: LogisticRegressionCV, one thread", taken["one"], ratio["one"], "", note),
        row(f"{name}: LogisticRegressionCV, default threads", taken["default"], ratio["default"], "", ""),
        row(f"{name}: SoftmaxRegressionCV", taken["ours"], ratio["ours"], "at least 20", own),
    ]


def wide() -> list[str]:
    """One pass over many classes against the plain product of its size."""
    n, d, k = 100_000, 512, 1000
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d), np.float32)
    points = np.hstack([rng.standard_normal((1, k * d)) / 50, np.zeros((1, k))])
    rows = Rows(x, rng.integers(k, size=n), np.full((n, 1), 1 / n, np.float32), np.zeros(d), k, n_threads=2)
    matrix, out = points[0, : k * d].reshape(k, d).astype(np.float32), np.empty((n, k), np.float32)

    def ours_pass() -> None:
        with threadpool_limits(1):
            loss_and_grad(rows, points, np.zeros(1))

    taken = times({"product": lambda: np.matmul(x, matrix.T, out=out), "pass": ours_pass}, 7)
    product, one = (statistics.median(taken[key]) for key in ("product", "pass"))
    share = 2 * product / one
    rate = f"{n * d * k / product / 1e9:.0f} GMAC/s"
    note = f"{100 * share:.0f} % of its rate, {peak_extra('wide'):.0f} MB more memory at the peak"
    goal = "at least 60 % of its rate, under 300 MB"
    return [
        row(f"floor: float32 product {n} x {d} x {k}", taken["product"], "", "", rate),
        row("luce, loss and gradient in one pass", taken["pass"], "", goal, note),
    ]


def memory() -> list[str]:
    what = "60000 x 784 uint8, a fit to a gap of 1e-2: more memory at the peak"
    return [f"| {what} | | | | under 60 MB | {peak_extra('uint8'):.0f} MB |"]


def peak_extra(case: str) -> float:
    """MB that a process takes more at its peak, measured by itself."""
    result = subprocess.run([sys.executable, __file__, "--peak", case], capture_output=True, text=True, check=True)
    return float(result.stdout)


def measure_peak(case: str) -> None:
    rng = np.random.default_rng(0)
    if case == "uint8":
        y = rng.integers(10, size=60_000)
        centers = rng.integers(0, 200, (10, 784), np.uint8)
        x = np.empty((60_000, 784), np.uint8)
        for i in range(0, len(x), 1000):
            x[i : i + 1000] = centers[y[i : i + 1000]] + rng.integers(0, 56, (1000, 784), np.uint8)
        work: Work = functools.partial(ours, x, y, 1e-2, 1 / 255)
        ours(x[:500], y[:500], 1e-2)
    else:
        n, d, k = 100_000, 512, 1000
        x32 = rng.standard_normal((n, d), np.float32)
        points = np.hstack([rng.standard_normal((1, k * d)) / 50, np.zeros((1, k))])
        target, weight = rng.integers(k, size=n), np.full((n, 1), 1 / n, np.float32)
        small = Rows(x32[:2000], target[:2000], weight[:2000], np.zeros(d), k, n_threads=2)
        rows = Rows(x32, target, weight, np.zeros(d), k, n_threads=2)
        loss_and_grad(small, points, np.zeros(1))
        work = functools.partial(loss_and_grad, rows, points, np.zeros(1))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status("VmRSS")
    work()
    print((status("VmHWM") - before) / 1000)


def status(key: str) -> float:
    """KB from /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return float(line.split()[1])


def spin() -> None:
    while True:
        pass


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
    process.start()
    time.sleep(0.5)
    try:
        yield
    finally:
        process.kill()
        process.join()


def busy() -> list[str]:
    """Alone, and with another process that keeps one core busy, in turn."""
    x, y, *_ = pixels("mnist")
    x = x[:10_000]
    scaled = x.astype(np.float32) / np.float32(255)

    def few() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 30 steps are enough to see
            LogisticRegression(max_iter=30).fit(scaled, y[:10_000])

    jobs: dict[str, Work] = {"luce": lambda: ours(scaled, y[:10_000], 1e-3), "scikit-learn": few}
    alone: dict[str, list[float]] = {name: [] for name in jobs}
    beside: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(5):
        for name, seconds in times(jobs, 1).items():
            alone[name] += seconds
        with busy_process():
            for name, seconds in times(jobs, 1).items():
                beside[name] += seconds
    lines = []
    for name, what in (("luce", "luce to a gap of 1e-3"), ("scikit-learn", "scikit-learn, default threads, 30 steps")):
        ratio = statistics.median(beside[name]) / statistics.median(alone[name])
        goal = "at most 2.2" if name == "luce" else ""
        lines.append(row(f"MNIST, 10,000 rows, {what}: alone", alone[name], "", "", ""))
        lines.append(row("beside a busy process", beside[name], "", goal, f"{ratio:.2f} times as long"))
    return lines


CASES: dict[str, Callable[[], list[str]]] = {
    "digits": digits,
    "wide": wide,
    "memory": memory,
    "mnist": functools.partial(pictures_case, "mnist", "MNIST", 3),
    "busy": busy,
    "fashion": functools.partial(pictures_case, "fashion-mnist", "Fashion-MNIST", 2),
    "trashnet": trashnet,
}

if __name__ == "__main__":
    if "--peak" in sys.argv:
        measure_peak(sys.argv[-1])
        sys.exit()
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    lines: list[str] = []
    for name, case in CASES.items():
        if word not in name:
            continue
        fresh = case()
        print(*fresh, sep="\n", flush=True)
        lines += fresh
        about = f"{describe()}, scikit-learn {version('scikit-learn')}. float32, C = 1, {os.cpu_count()} cores."
        if not word:  # after every case, so that none is lost
            write_section("Softmax regression", "regression", "\n".join([about, "", *HEAD, *lines]))
