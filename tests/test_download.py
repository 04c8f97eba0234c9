"""Downloads: whatever the server, the disk or a signal does, the file is the old one, none, or the whole new one."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from luce.datasets import download as module
from luce.datasets.download import download, has_sha256
from luce.errors import DownloadError
from tests.http_server import FAULTS, serve

CONTENT = b"\0a file\n" + bytes(range(256)) * 2000
CHECK = has_sha256(hashlib.sha256(CONTENT).hexdigest())
Calls = list[tuple[str, int, int]]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serve({"f.bin": CONTENT}) as address:
        yield address


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def record(calls: Calls) -> Callable[[str, int, int], None]:
    return lambda label, done, total: calls.append((label, done, total))


@pytest.mark.parametrize("how", ["good", "packed", "packs", "chunks", "moved"])
def test_a_good_download(server: str, how: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "f.bin"
    assert download(f"{server}/{how}/f.bin", target, check=CHECK) == target
    assert target.read_bytes() == CONTENT
    assert names_in(target.parent) == ["f.bin"]


def test_a_download_replaces_the_old_file(server: str, tmp_path: Path) -> None:
    target = tmp_path / "f.bin"
    target.write_bytes(b"old")
    download(f"{server}/good/f.bin", str(target))
    assert target.read_bytes() == CONTENT
    assert names_in(tmp_path) == ["f.bin"]


REASONS = {
    "missing": "the server answers with HTTP status 404",
    "broken": "the server answers with HTTP status 500",
    "breaks-off": "the connection broke off before the end",
    "resets": "no connection to the server",
    "promises-less": "other bytes than expected: SHA-256 ",
    "bad-length": "the server announces a length that is no number",
    "breaks-chunks": "the connection broke off before the end",
    "wrong": "other bytes than expected: SHA-256 ",
    "empty": "other bytes than expected: the server sent nothing",
    "page": "other bytes than expected: a web page came in place of the file",
    "stalls": "nothing came for 0.2 seconds",
    "circles": "the server sends us in circles",
    "says-packed": "the server says that it packs the file, but it does not",
}


def test_every_fault_of_the_server_is_tested() -> None:
    assert set(REASONS) == set(FAULTS)


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_gives_one_message_and_leaves_what_was_there(
    server: str, fault: str, old: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    target = tmp_path / "f.bin"
    if old is not None:
        target.write_bytes(old)
    with pytest.raises(DownloadError) as error:
        download(f"{server}/{fault}/f.bin", target, check=CHECK, remedy="ask a friend")
    message = str(error.value)
    assert message.startswith(f"{server}/{fault}/f.bin: {REASONS[fault]}")
    assert message.endswith("; ask a friend")
    assert "\n" not in message
    assert names_in(tmp_path) == ([] if old is None else ["f.bin"])
    assert old is None or target.read_bytes() == old


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"wrong", "promises-less"}))
def test_without_a_check_only_wrong_bytes_pass(
    server: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    with pytest.raises(DownloadError, match=r"; check the address and the network, then try again$"):
        download(f"{server}/{fault}/f.bin", tmp_path / "f.bin")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("page", [b"<html><body>", b"\xef\xbb\xbf\n <!DOCTYPE HTML>"])
def test_pages_in_other_spellings(page: bytes, tmp_path: Path) -> None:
    with serve({"f.bin": page}) as address, pytest.raises(DownloadError, match="a web page came"):
        download(f"{address}/good/f.bin", tmp_path / "f.bin")


def test_nobody_listens(tmp_path: Path) -> None:
    with serve({}) as address:
        pass
    with pytest.raises(DownloadError, match=f"{address}/f.bin: no connection to the server; check the address"):
        download(f"{address}/f.bin", tmp_path / "f.bin")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("url", ["f.bin", "ftp://127.0.0.1/f.bin", "http://", "http://[/f.bin", ""])
def test_an_address_that_is_none(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"; check the address and the network, then try again$") as error:
        download(url, tmp_path / "f.bin")
    assert str(error.value).startswith(f"{url}: ")
    assert "length" not in str(error.value)
    assert names_in(tmp_path) == []


def test_more_bytes_than_anything_has(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100_000)
    for how in ("good", "chunks"):
        with pytest.raises(DownloadError, match=f"{how}/f.bin: .*it sends more than .* GiB; check the address"):
            download(f"{server}/{how}/f.bin", tmp_path / "f.bin")
    assert names_in(tmp_path) == []


def test_the_limit_counts_each_byte_once(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", len(CONTENT) + (1 << 16))
    download(f"{server}/good/f.bin", tmp_path / "f.bin", check=CHECK)


@pytest.mark.parametrize("how", ["good", "packed", "packs"])
def test_progress_rises_to_the_total(server: str, how: str, tmp_path: Path) -> None:
    calls: Calls = []
    download(f"{server}/{how}/f.bin", tmp_path / "f.bin", progress=record(calls))
    assert len(calls) >= 2
    assert {label for label, _, _ in calls} == {"Downloading f.bin"}
    totals = {total for _, _, total in calls}
    assert len(totals) == 1
    assert (totals == {len(CONTENT)}) == (how != "packs")  # so no server packs what need not be packed
    done = [done for _, done, _ in calls]
    assert done == sorted(done)
    assert done[0] > 0
    assert {done[-1]} == totals


def test_progress_never_ends_for_a_download_that_breaks_off(server: str, tmp_path: Path) -> None:
    calls: Calls = []
    with pytest.raises(DownloadError):
        download(f"{server}/breaks-off/f.bin", tmp_path / "f.bin", progress=record(calls))
    assert calls
    assert all(done < total == len(CONTENT) for _, done, total in calls)


def test_progress_is_silent_when_the_server_tells_no_length(server: str, tmp_path: Path) -> None:
    calls: Calls = []
    download(f"{server}/chunks/f.bin", tmp_path / "f.bin", progress=record(calls))
    assert calls == []


def test_an_interrupt_leaves_nothing(server: str, tmp_path: Path) -> None:
    def interrupt(label: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(f"{server}/good/f.bin", tmp_path / "f.bin", progress=interrupt)
    assert names_in(tmp_path) == []


def test_an_error_in_the_callers_progress_is_not_the_servers(server: str, tmp_path: Path) -> None:
    def fail(label: str, done: int, total: int) -> None:
        raise ValueError("a bug of the caller")

    with pytest.raises(ValueError, match="a bug of the caller"):
        download(f"{server}/good/f.bin", tmp_path / "f.bin", progress=fail)
    assert names_in(tmp_path) == []


def test_a_file_or_folder_in_the_way(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"here first")
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "file" / "f.bin", tmp_path / "file" / "deep" / "f.bin", tmp_path / "folder"):
        with pytest.raises(DownloadError) as error:
            download(f"{server}/good/f.bin", target)
        assert str(error.value).startswith(f"{server}/good/f.bin: {target} cannot be written (")
        assert str(error.value).endswith("; make room there, or name another cache folder in LUCE_CACHE")
    assert (tmp_path / "file").read_bytes() == b"here first"
    assert names_in(tmp_path) == ["file", "folder"]
    assert names_in(tmp_path / "folder") == []


def test_a_folder_that_takes_no_files(server: str) -> None:
    with pytest.raises(DownloadError, match=r"/proc/f\.bin cannot be written \(.*\); make room there, or name another"):
        download(f"{server}/good/f.bin", "/proc/f.bin")


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys\nfrom luce.datasets.download import download\n{code}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_disk_that_is_full_leaves_the_old_file(server: str, tmp_path: Path) -> None:
    target = tmp_path / "f.bin"
    target.write_bytes(b"old")
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "download(sys.argv[1], sys.argv[2])"
    )
    output, errors = run(code, f"{server}/good/f.bin", str(target)).communicate()
    assert output == ""
    assert f"DownloadError: {server}/good/f.bin: {target} cannot be written (File too large); make room" in errors
    assert target.read_bytes() == b"old"
    assert names_in(tmp_path) == ["f.bin"]


def test_a_kill_in_the_middle_leaves_no_file_under_the_name(server: str, tmp_path: Path) -> None:
    target = tmp_path / "f.bin"
    code = "download(sys.argv[1], sys.argv[2], progress=lambda label, done, total: print(done, flush=True))"
    with run(code, f"{server}/stalls/f.bin", str(target)) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert names_in(tmp_path) != []  # it was in the middle
    assert not target.exists()
    download(f"{server}/good/f.bin", target, check=CHECK)
    assert target.read_bytes() == CONTENT


def test_two_downloads_to_one_place_both_succeed(server: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "f.bin"
    meet = threading.Barrier(2, timeout=30)

    def check(path: Path) -> str:
        meet.wait()  # both have all their bytes and neither has its name yet
        return CHECK(path)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: download(f"{server}/good/f.bin", target, check=check), range(2)))
    assert done == [target, target]
    assert target.read_bytes() == CONTENT
    assert names_in(target.parent) == ["f.bin"]
