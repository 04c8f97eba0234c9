"""A fit on the rows of two processes is the fit on all rows."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from luce import SoftmaxRegression, softmax
from tests.plain_regression import blobs

ROOT = Path(__file__).resolve().parent.parent


def run(folder: Path, case: str) -> None:
    """Two processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
            "--master-port", str(port), "-m", "tests.distributed_fit", str(folder), case,
        ],
        cwd=ROOT,
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=120,
        capture_output=True,
    )  # fmt: skip


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    run(tmp_path, "fit")
    first, second = np.load(tmp_path / "0.npz"), np.load(tmp_path / "1.npz")
    for key in ("coef", "intercept", "classes"):
        assert np.array_equal(first[key], second[key]), key
    x, y = blobs(301, 5, 4)
    alone = SoftmaxRegression(C=2.0, tol=1e-10, class_weight="balanced").fit(x, y)
    np.testing.assert_allclose(first["coef"], alone.coef_, atol=1e-6)
    np.testing.assert_allclose(first["intercept"], alone.intercept_, atol=1e-6)
    half = SoftmaxRegression(C=2.0, tol=1e-10, class_weight="balanced").fit(x[:200], y[:200])
    assert np.abs(half.coef_ - alone.coef_).max() > 1e-3  # the twin that saw some of the rows


def test_processes_of_few_and_of_many_rows_decide_alike(tmp_path: Path) -> None:
    run(tmp_path, "uneven")  # 90 and 3,910: enough for another memory and another dtype, were it theirs to choose
    first, second = np.load(tmp_path / "0.npz"), np.load(tmp_path / "1.npz")
    for key in ("coef", "intercept", "classes"):
        assert np.array_equal(first[key], second[key]), key
    x, y = blobs(4000, 140, 20)
    alone = SoftmaxRegression(C=2.0, tol=1e-12, class_weight="balanced").fit(x, y)
    assert alone.n_iter_ > 20  # more than the few pairs of the smaller process
    np.testing.assert_allclose(first["coef"], alone.coef_, atol=1e-6)
    z = x @ first["coef"].T + first["intercept"]
    np.testing.assert_allclose(softmax(z), alone.predict_proba(x), atol=1e-6)


def test_every_process_says_that_the_columns_differ(tmp_path: Path) -> None:
    run(tmp_path, "columns")
    for rank in range(2):
        assert "columns of X [5, 4]" in (tmp_path / f"{rank}.txt").read_text()


def test_without_a_group_it_says_what_to_do() -> None:
    x, y = blobs(20, 2, 2)
    with pytest.raises(RuntimeError, match="init_process_group"):
        SoftmaxRegression().fit_distributed(x, y)


def test_without_torch_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    x, y = blobs(20, 2, 2)
    with pytest.raises(RuntimeError, match="pip install"):
        SoftmaxRegression().fit_distributed(x, y)
