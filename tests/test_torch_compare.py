"""Comparisons of trainings: figures, pairs, what is kept and what is refused."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize_scalar

from luce.cli import main
from luce.errors import LuceError
from luce.links import Link, SoftMargin, Softmax, Sparsemax, Taylor, log_softmax, softmax
from luce.links.parse import split_specs
from luce.metrics import ece, nll, t_interval
from luce.plots import render
from luce.torch import compare as module
from luce.torch.compare import Job, compare, measure_run, prepare
from luce.torch.comparison import Comparison, Run, parse_runs
from luce.torch.comparison_plot import comparison as picture
from luce.torch.recipe import Recipe, parse_settings
from luce.torch.trainer import logits_of, train_network
from luce.training import Options

SMALL = Recipe(network="cnn:width_factor=0.25", epochs=1, batch_size=64)
ONE = Options(n_threads=1)


def run(variant: str, seed: int, accuracy: float, nll: float = 0.5) -> Run:
    return Run(variant, seed, f"{variant}{seed}", accuracy, nll, 0.1, 0.02, 1.1, nll - 0.1, 0.01, 3, 1.0)


def made(*runs: Run) -> Comparison:
    return Comparison("made", 10, 10, {name: {} for name in dict.fromkeys(r.variant for r in runs)}, runs)


def refused(*_: object, **__: object) -> None:
    raise AssertionError("a process was started")


def test_a_comparison_trains_what_is_missing_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results.json"
    recipes = {"softmax": SMALL, "sparsemax": replace(SMALL, link=Sparsemax())}
    first = compare("digits", recipes, seeds=1, results=results, options=ONE)
    assert {(r.variant, r.seed) for r in first.runs} == {("softmax", 0), ("sparsemax", 0)}
    assert not list(tmp_path.glob("*.checkpoint"))
    trained: list[str] = []
    second = compare("digits", recipes, seeds=2, results=results, options=ONE, say=trained.append)
    assert sum("seed 1" in line for line in trained) == 2
    assert sum("seed 0" in line for line in trained) == 0
    assert second.runs[:2] == first.runs
    monkeypatch.setattr(module, "ProcessPoolExecutor", refused)
    again = compare("digits", recipes, seeds=2, results=results, options=ONE)
    assert again.runs == second.runs == parse_runs(results.read_text())
    with pytest.raises(LuceError, match="holds another comparison"):
        compare("digits", {"softmax": replace(SMALL, epochs=2)}, seeds=1, results=results, options=ONE)


def test_a_run_measures_what_its_network_gives() -> None:
    data = prepare("digits", ONE, lambda *_: None, lambda _: None)
    assert len(data.train[0]) + len(data.calibration[0]) == 1438
    job = Job("sm", replace(SMALL, link=SoftMargin(temperature=2.0)), 3, "id")
    one, other = measure_run(data, job), measure_run(data, job)
    assert replace(one, seconds=0) == replace(other, seconds=0)
    logits = torch.zeros(len(data.test[1]), 10, dtype=torch.float64)
    logits[torch.arange(len(logits)), data.test[1]] = 3.0  # always right, at a probability that can be worked out
    mp = pytest.MonkeyPatch()
    with mp.context() as patched:
        patched.setattr(
            module, "logits_of", lambda _, pictures: logits if len(pictures) == len(logits) else logits[:144]
        )
        found = measure_run(data, job)
    p = math.exp(1.5) / (math.exp(1.5) + 9)
    assert found.accuracy == 1.0
    assert found.nll == pytest.approx(-math.log(p))
    assert found.ece == pytest.approx(1 - p)
    assert found.brier == pytest.approx((1 - p) ** 2 + 9 * ((1 - p) / 9) ** 2)


@pytest.mark.parametrize("link", [Sparsemax(temperature=0.5), Taylor(temperature=2.0), Softmax(temperature=3.0)])
def test_a_run_is_calibrated_as_a_model_file_is(link: Link) -> None:
    data = prepare("digits", ONE, lambda *_: None, lambda _: None)
    recipe = replace(SMALL, link=link)
    found = measure_run(data, Job("one", recipe, 0, "id"))
    model = train_network(*data.train, 10, recipe, seed=0)
    known, logits = (logits_of(model, part[0]).double().numpy() for part in (data.calibration, data.test))
    target, y = data.calibration[1].numpy(), data.test[1].numpy()

    def cost(log_t: float) -> float:  # of the probabilities to a power, or of the scores divided
        if isinstance(link, Sparsemax):
            return float(Sparsemax(temperature=0.5 * math.exp(log_t)).loss_and_grad(known, target)[0].mean())
        log_p = log_softmax(np.log(link.probabilities(known)) / math.exp(log_t))
        return float(-log_p[np.arange(len(target)), target].mean())

    edges = math.log(0.05), math.log(20)
    best = math.exp(minimize_scalar(cost, bounds=edges, method="bounded").x)
    assert found.temperature == pytest.approx(best, rel=2e-3)
    if isinstance(link, Sparsemax):
        p = Sparsemax(temperature=0.5 * found.temperature).probabilities(logits)
    else:
        p = softmax(np.log(link.probabilities(logits)) / found.temperature)
    assert found.ece_calibrated == pytest.approx(ece(p, y), abs=1e-6)
    assert found.nll_calibrated == pytest.approx(nll(p, y), rel=1e-6)


def test_killed_and_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["compare", "digits", "--network", "cnn:width_factor=0.5", "--links", "softmax,taylor:degree=2"]
    words += ["--seeds", "1", "--epochs", "4", "--threads", "1", "--json", "-o"]
    results = tmp_path / "killed.json"
    command = [sys.executable, "-m", "luce", *words, str(results)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: results.exists() and len(list(tmp_path.glob("*.checkpoint"))) == 1)
        workers = children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert workers
    wait_for(lambda: not any(map(alive, workers)))  # they end by themselves
    assert len(list(tmp_path.glob("*.checkpoint"))) == 1
    assert main([*words, str(results), "--quiet"]) == 0
    assert main([*words, str(tmp_path / "whole.json"), "--quiet"]) == 0
    assert figures(results) == figures(tmp_path / "whole.json")
    assert not list(tmp_path.glob("*.checkpoint"))


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 100
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def process_stat(pid: int) -> list[str]:
    """State, parent and more of a process, as proc(5) has them; nothing of one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def children(parent: int) -> list[int]:
    """The processes that have this parent."""
    every = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in every if process_stat(pid)[1:2] == [str(parent)]]


def alive(pid: int) -> bool:
    """Whether it runs; one that ended and that nobody has asked after does not."""
    return process_stat(pid)[:1] not in ([], ["Z"])


def figures(results: Path) -> list[Run]:
    return sorted((replace(r, seconds=0.0) for r in parse_runs(results.read_text())), key=lambda r: r.variant)


def test_differences_are_paired_by_seed() -> None:
    runs = [run("softmax", s, a) for s, a in enumerate((0.90, 0.92, 0.97))]
    runs += [run("taylor", s, a) for s, a in enumerate((0.91, 0.935, 0.98))]
    result = made(*runs, run("alone", 0, 0.5))
    mean, difference = result.mean("taylor", "accuracy"), result.difference("taylor", "accuracy")
    assert mean is not None
    assert difference is not None
    assert mean.value == pytest.approx(0.941666667)
    expected = stats.ttest_rel([0.91, 0.935, 0.98], [0.90, 0.92, 0.97]).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    better, few = result.verdicts()
    assert better.startswith("taylor is better than softmax: +1.17 points")
    assert few == "alone: too few seeds to compare with softmax."
    assert made(*runs[3:], *runs[:3]).verdicts()[0].startswith("softmax is worse than taylor")


def test_infinite_figures_are_told() -> None:
    sparse = replace(run("sparsemax", 0, 0.9), nll=math.inf, nll_calibrated=math.inf)
    result = made(run("softmax", 0, 0.9), sparse)
    assert result.table()[2][3:] == ["∞", "2.00", "∞", "1.00"]
    content = json.loads(result.to_json())
    assert content["runs"][1]["nll"] is None
    assert parse_runs(result.to_json()) == result.runs


def test_student_intervals() -> None:
    values = np.random.default_rng(0).normal(size=7)
    found = t_interval(list(values))
    low, high = stats.t.interval(0.95, 6, values.mean(), stats.sem(values))
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high))
    assert t_interval([]) is None
    one = t_interval([0.5])
    assert one is not None
    assert one.low == -math.inf


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99, "runs": []}', '{"format": 1, "runs": [{}]}'])
def test_a_file_that_is_no_comparison_is_left_alone(tmp_path: Path, content: str) -> None:
    results = tmp_path / "mine.json"
    results.write_text(content)
    with pytest.raises(LuceError, match="not the file of a comparison"):
        compare("digits", {"softmax": SMALL}, seeds=1, results=results, options=ONE)
    assert results.read_text() == content


def test_settings_and_lists_from_text() -> None:
    assert split_specs("softmax, taylor:degree=2,temperature=4,sparsemax") == [
        "softmax",
        "taylor:degree=2,temperature=4",
        "sparsemax",
    ]
    assert parse_settings("label-smoothing=0.1,bfloat16=no,cutmix=1,flip=yes,patience=3") == {
        "label_smoothing": 0.1,
        "bfloat16": False,
        "patience": 3,
        "augment": {"cutmix": 1.0, "flip": True},
    }
    for wrong, message in (
        ("rate=1", "takes head|takes optimizer"),
        ("patience=x", "must be a whole number"),
        ("flip=2", "yes or no"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_settings(wrong)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--links", "softmax,softmux"], "link: must be one of softmax, taylor"),
        (["--links", "softmax,softmax"], "softmax comes twice"),
        (["--heads", "linear,bigface"], "head: must be one of linear, large_margin"),
        (["--heads", "arcface:size=3"], "arcface has no option 'size'; it has scale, margin"),
        (["--heads", "arcface", "--links", "taylor"], "trained with the plain softmax"),
        (["--network", "cnn:depth=3"], "cnn has no option 'depth'; it has width_factor"),
        (["--network", "cnn:width_factor"], "expected NAME:KEY=VALUE"),
        (["--network", "cnn:width_factor=wide"], "width_factor must be a number"),
        (["--network", "lenet"], "pictures must be at least 12 x 12"),
        (["--links", "softmax,sigmoid"], "sigmoid gives each class a probability of its own"),
        (["--seeds", "0"], "needs a recipe and a seed"),
        (["--recipe", "speed=3"], "recipe: takes optimizer"),
        (["--plot", "x.gif"], "must end in .svg or .png"),
        (["--test-share", "0"], "needs held-out pictures"),
    ],
)
def test_a_users_mistake_is_answered_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["compare", "digits", "-o", str(tmp_path / "c.json"), "--quiet", *words]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert told.count("\n") == 0
    assert not list(tmp_path.iterdir())


def test_the_command_draws_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, plot = tmp_path / "c.json", tmp_path / "c.svg"
    words = ["compare", "digits", "--network", "cnn:width_factor=0.25", "--heads", "linear,cosface", "--seeds", "2"]
    words += ["--epochs", "1", "--threads", "2", "-o", str(results), "--plot", str(plot), "--quiet"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "accuracy %" in told
    assert "cosface" in told
    assert "softmax" in told
    assert plot.read_text().startswith("<?xml")
    assert list(json.loads(results.read_text())["recipes"]) == ["softmax", "cosface"]


def test_the_picture_has_every_run() -> None:
    figure = picture({"a": {0: 0.9, 1: 0.92}, "b": {0: 0.91, 1: 0.95}, "none": {}}, "note")
    upper, lower = figure.axes
    points = [np.asarray(c.get_offsets())[:, 0] for c in upper.collections]
    assert [sorted(p) for p in points] == [pytest.approx([90, 92]), pytest.approx([91, 95])]
    moved = np.asarray(lower.collections[1].get_offsets())[:, 0]
    assert sorted(moved) == pytest.approx([1, 3])
    assert render(figure) == render(picture({"a": {0: 0.9, 1: 0.92}, "b": {0: 0.91, 1: 0.95}, "none": {}}, "note"))
