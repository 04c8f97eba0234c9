"""Thirty times `kill -9` at random moments of a training: the old model or a whole new one, and a usable cache."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import luce
from luce.training import Options, fit
from tests.photos import EVEN, draw_folder

N_KILLS = 30


def train(data: Path, output: Path, cache: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "luce", "train", str(data), "-o", str(output), "--quiet"]
    return subprocess.Popen(command, env=os.environ | {"LUCE_CACHE": str(cache)})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures for the default network, so that the cache is written to."""
    return draw_folder(tmp_path_factory.mktemp("data"), dict.fromkeys(EVEN, 8), side=40)


def test_any_moment_is_a_good_moment_for_a_kill(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills fall anywhere in the time that a whole training takes here, and a little beyond."""
    monkeypatch.setenv("LUCE_CACHE", str(tmp_path / "other-cache"))
    old = fit(data, Options(seed=1)).classifier
    new = fit(data).classifier
    assert old.data != new.data
    output, cache = tmp_path / "out" / "m.onnx", tmp_path / "cache"
    output.parent.mkdir()
    began = time.monotonic()
    assert train(data, output, cache).wait() == 0
    whole = time.monotonic() - began
    moments = random.Random(0)
    seen = []
    for i in range(N_KILLS):
        old.save(output)
        if i % 3 == 0:
            shutil.rmtree(cache, ignore_errors=True)
        process = train(data, output, cache)
        try:
            process.wait(timeout=moments.uniform(0, 1.5 * whole))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        status = process.wait()
        assert status in (0, -signal.SIGKILL)
        left = luce.load(output)
        assert left.data in (old.data, new.data)
        left.verify()
        seen.append(left.data == new.data)
    monkeypatch.setenv("LUCE_CACHE", str(cache))
    assert fit(data).classifier.data == new.data
    assert fit(data).n_cached == 24
    assert 0 < sum(seen) < N_KILLS, "the moments must fall before and after the model is written"
