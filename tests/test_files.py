"""Files are the old one or the new one; the seal notices every changed byte; parallel work keeps its order."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from luce import seal
from luce.errors import LuceError, ModelError
from luce.files import check_writable, write_atomically
from luce.parallel import map_chunks


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_write_and_replace(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")
    write_atomically(path, "né")
    assert path.read_bytes() == "né".encode()
    assert names_in(tmp_path) == ["a"]


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for act in (lambda p: write_atomically(p, b"x"), check_writable):
        with pytest.raises(LuceError, match="it is a folder: name a file in it"):
            act(tmp_path / "d")
    assert names_in(tmp_path) == ["d"]


def test_a_missing_folder(tmp_path: Path) -> None:
    for act in (lambda p: write_atomically(p, b"x"), check_writable):
        with pytest.raises(LuceError, match=r"make the folder .*no first"):
            act(tmp_path / "no" / "x")


def test_a_folder_that_takes_no_files() -> None:
    for act in (lambda p: write_atomically(p, b"x"), check_writable):
        with pytest.raises(LuceError, match="cannot be written"):
            act(Path("/proc/luce-model.onnx"))


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    code = (
        "import sys, resource\n"
        "from luce.files import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_atomically(sys.argv[1], bytes(100_000))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "cannot be written (File too large)" in done.stderr
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_kill_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "a"
    old, new = b"o" * 3_000_000, b"n" * 3_000_000
    code = (
        "import sys\nfrom luce.files import write_atomically\nprint(flush=True)\n"
        "while True:\n    write_atomically(sys.argv[1], b'o' * 3_000_000)\n"
        "    write_atomically(sys.argv[1], b'n' * 3_000_000)"
    )
    path.write_bytes(old)
    for i in range(5):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.01 + 0.013 * i)  # the moment of the kill, not a measurement
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert path.read_bytes() in (old, new)


def test_the_seal_notices_every_changed_byte() -> None:
    body = bytes(range(256)) * 3
    sealed = seal.seal(body)
    seal.check(sealed)
    for position in range(len(sealed)):
        for mask in (1, 0x80, 0xFF):
            changed = bytearray(sealed)
            changed[position] ^= mask
            with pytest.raises(ModelError):
                seal.check(bytes(changed))


@pytest.mark.parametrize("cut", [0, 1, 50, 700])
def test_the_seal_notices_a_cut(cut: int) -> None:
    sealed = seal.seal(bytes(1000))
    with pytest.raises(ModelError, match="not written by Luce"):
        seal.check(sealed[:cut])
    with pytest.raises(ModelError):
        seal.check(sealed + bytes(1))


def test_a_sealed_model_is_still_onnx() -> None:
    import onnx

    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    onnx.helper.set_model_props(model, {"a": "b"})
    again = onnx.load_model_from_string(seal.seal(model.SerializeToString()))
    assert [entry.key for entry in again.metadata_props] == ["a", seal.KEY]


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_results_keep_their_order(n_threads: int, chunk: int) -> None:
    def work(items: Sequence[int]) -> list[int]:
        assert len(items) <= chunk
        return [i * i for i in items]

    assert list(map_chunks(range(50), work, chunk=chunk, n_threads=n_threads)) == [i * i for i in range(50)]
    assert list(map_chunks([], work, chunk=chunk, n_threads=n_threads)) == []


def test_items_are_taken_as_needed_and_work_stops_with_the_consumer() -> None:
    taken: list[int] = []
    lock = threading.Lock()

    def items() -> object:
        for i in range(10_000):
            with lock:
                taken.append(i)
            yield i

    results = map_chunks(items(), lambda run: list(run), chunk=2, n_threads=2)  # type: ignore[arg-type, var-annotated]
    assert [next(results) for _ in range(10)] == list(range(10))
    results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 10 + 2 * 2 * 2 + 2


def test_an_error_in_the_work_reaches_the_consumer() -> None:
    def work(items: Sequence[int]) -> list[int]:
        return [1 // i for i in items]

    with pytest.raises(ZeroDivisionError):
        list(map_chunks([2, 1, 0, 3], work, chunk=1, n_threads=2))


def test_until_the_rename_the_old_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    seen = []

    def rename(source: Path, target: Path) -> None:
        seen.append((Path(source).read_bytes(), Path(target).read_bytes()))
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", rename)
    with pytest.raises(LuceError, match="cannot be written"):
        write_atomically(path, b"new")
    assert seen == [(b"new", b"old")]
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a"]
