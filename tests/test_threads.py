"""Threads: how many by default, and the native pool under many callers and after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luce import _native, threads
from luce.threads import cgroup_cores, default_threads


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUCE_THREADS", raising=False)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_variable_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCE_THREADS", "7")
    assert default_threads() == 7


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", " ", "1e3"])
def test_a_wrong_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("LUCE_THREADS", wrong)
    with pytest.raises(ValueError, match=r"LUCE_THREADS must be a whole number of at least 1, got"):
        default_threads()


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCE_THREADS", "")
    assert default_threads() >= 1


@pytest.mark.parametrize(
    ("cores", "quota", "expected"),
    [
        (8, "250000 100000", 3),
        (2, "250000 100000", 2),
        (8, "10000 100000", 1),
        (8, "max 100000", 8),
        (1, "max", 1),
    ],
)
def test_the_smaller_of_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: int, quota: str, expected: int
) -> None:
    write(tmp_path / "cg" / "cpu.max", quota)
    monkeypatch.setattr(threads, "_CGROUP", tmp_path / "cg")
    monkeypatch.setattr(threads, "_SELF", write(tmp_path / "self", "0::/\n"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    threads._available.cache_clear()
    try:
        assert default_threads() == expected
    finally:
        threads._available.cache_clear()


def test_version_2_takes_the_tightest_of_the_groups_around(tmp_path: Path) -> None:
    root, own = tmp_path / "cg", write(tmp_path / "self", "0::/a/b\n")
    write(root / "a" / "b" / "cpu.max", "max 100000\n")
    write(root / "a" / "cpu.max", "150000 100000\n")
    write(root / "cpu.max", "400000 100000\n")
    assert cgroup_cores(root, own) == 1.5


def test_version_1(tmp_path: Path) -> None:
    root, own = (
        tmp_path / "cg",
        write(tmp_path / "self", "5:cpuset:/x\n4:cpu,cpuacct:/job\n1:name=systemd:/y\n"),
    )
    write(root / "cpu" / "job" / "cpu.cfs_quota_us", "50000\n")
    write(root / "cpu" / "job" / "cpu.cfs_period_us", "100000\n")
    assert cgroup_cores(root, own) == 0.5


def test_version_1_without_limit(tmp_path: Path) -> None:
    root, own = tmp_path / "cg", write(tmp_path / "self", "4:cpu:/\n")
    write(root / "cpu" / "cpu.cfs_quota_us", "-1\n")
    write(root / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert cgroup_cores(root, own) is None


def test_a_path_that_leads_out_of_the_tree_is_not_followed_up(tmp_path: Path) -> None:
    write(tmp_path / "cpu.max", "100000 100000")
    root, own = tmp_path / "cg", write(tmp_path / "self", "0::/gone\n")
    root.mkdir()
    assert cgroup_cores(root, own) is None


@settings(deadline=None)
@given(membership=st.text(max_size=60), limit=st.text(max_size=30))
def test_whatever_the_files_hold_there_is_an_answer(
    tmp_path_factory: pytest.TempPathFactory, membership: str, limit: str
) -> None:
    root = tmp_path_factory.mktemp("cg")
    (root / "cpu.max").write_bytes(limit.encode("utf-8", "surrogatepass"))
    own = root / "self"
    own.write_bytes(b"0::/\n" + membership.replace("/", "").encode("utf-8", "surrogatepass"))
    cores = cgroup_cores(root, own)
    assert cores is None or cores > 0


@pytest.mark.parametrize("n_threads", [-1, 0, 2**31 - 1])
def test_any_number_of_threads_may_be_asked_for(n_threads: int) -> None:
    x = np.zeros((100_000, 1), np.float32)
    out = np.empty_like(x)
    _native.softmax(x, out, n_threads=n_threads)
    assert (out == 1).all()


def test_callers_on_many_threads_do_not_disturb_each_other() -> None:
    x = np.random.default_rng(0).standard_normal((4000, 40)).astype(np.float32)
    expected = np.empty_like(x)
    _native.softmax(x, expected)
    wrong = []

    def call() -> None:
        out = np.empty_like(x)
        for _ in range(20):
            out[:] = 0
            _native.softmax(x, out, n_threads=3)
            if not np.array_equal(out, expected):
                wrong.append(out)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


FORK = """
import os
import numpy as np
from luce import _native
x = np.random.default_rng(0).standard_normal((4000, 40)).astype(np.float32)
expected, out = np.empty_like(x), np.empty_like(x)
_native.softmax(x, expected, n_threads=3)
child = os.fork()
if child == 0:
    _native.softmax(x, out, n_threads=3)
    os._exit(0 if np.array_equal(out, expected) else 3)
assert os.waitpid(child, 0)[1] == 0
_native.softmax(x, out, n_threads=3)
assert np.array_equal(out, expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes_with_threads_of_its_own() -> None:
    run = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


def test_a_thread_that_runs_out_of_memory_tells_the_caller() -> None:
    code = """
import resource
import numpy as np
from luce import _native
x = np.zeros((4, 2_000_000), np.float32)  # every number is a candidate, and candidates are kept in doubles
out = np.empty_like(x)
_native.softmax(x, out, n_threads=2)  # the pool has its threads
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), resource.RLIM_INFINITY))
try:
    _native.entmax(x, out, n_threads=2, shape=2)
except MemoryError:
    print("told")
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
_native.entmax(x, out, n_threads=2, shape=2)
print(out[0, 0] * 2_000_000)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == ["told", "1.0"], run.stderr
