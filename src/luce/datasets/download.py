"""Downloads that end with the right bytes under the right name, or with one clear message."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luce.datasets.dataset import Progress, printable
from luce.errors import DownloadError

TIMEOUT = 30.0  # seconds without a byte
MAX_BYTES = 8 << 30
_CHUNK = 1 << 16


class _Refused(Exception):
    """What the server sends cannot be a file of ours."""


@dataclass
class _Meter:
    """What pooch calls a progress bar: it sets `total` and reports chunks."""

    progress: Progress | None
    label: str
    total: int = 0
    done: int = 0

    def update(self, n_bytes: int) -> None:
        self.done += n_bytes
        if self.done > MAX_BYTES:
            raise _Refused(f"it sends more than {MAX_BYTES >> 30} GiB")
        if self.progress is not None and self.total:
            self.progress(self.label, min(self.done, self.total), self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    check: Callable[[Path], str] | None = None,
    progress: Progress | None = None,
    remedy: str = "check the address and the network, then try again",
) -> Path:
    """Download a file. Whatever happens, `path` is the old file, no file, or the whole new one.

    Args:
        url: http or https.
        path: where to; its folder is made when needed.
        check: gets the path of the whole file before it gets its name; what it says is wrong, "" if nothing.
        progress: called with (label, bytes done, bytes in all), when the server tells how many.
        remedy: ends the error message.

    Returns:
        The path.

    Raises:
        DownloadError: no connection, broken off, stalled, an error status, nothing, a web page or other bytes than
            promised, or the file cannot be written. The message names the address.
    """
    target = Path(path)
    try:
        with new_file(target) as temporary:
            try:
                _fetch(url, temporary, _Meter(progress, f"Downloading {target.name}"))
            except _faults() as error:
                raise DownloadError(f"{url}: {_reason(error)}; {remedy}") from None
            if wrong := _no_file(temporary) or (check(temporary) if check else ""):
                raise DownloadError(f"{url}: other bytes than expected: {wrong}; {remedy}")
    except OSError as error:
        reason = f"{printable(target)} cannot be written ({error.strerror or error})"
        remedy = "make room there, or name another cache folder in LUCE_CACHE"
        raise DownloadError(f"{url}: {reason}; {remedy}") from None
    return target


def _fetch(url: str, path: Path, meter: _Meter) -> None:
    from pooch import HTTPDownloader

    with contextlib.ExitStack() as answers:

        def look(response: Any, **_: object) -> None:
            answers.callback(response.close)  # pooch leaves the connection open after an error
            if not response.headers.get("Content-Length", "0").isdecimal():
                raise _Refused("the server announces a length that is no number")

        fetch = HTTPDownloader(
            progressbar=meter,
            chunk_size=_CHUNK,
            timeout=TIMEOUT,
            headers={"Accept-Encoding": "identity"},  # else a server may send .gz files unpacked
            hooks={"response": look},
        )
        fetch(url, str(path), None)


def _faults() -> tuple[type[Exception], ...]:
    """What `_fetch` raises besides an `OSError` of the disk."""
    from requests import RequestException

    return RequestException, _Refused


def _no_file(path: Path) -> str:
    """Say that nothing came, or one of the pages that networks and servers send in place of a file."""
    with open(path, "rb") as file:
        start = file.read(256)
    if not start:
        return "the server sent nothing"
    is_page = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype html", b"<html"))
    return "a web page came in place of the file" if is_page else ""


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`, renamed to it at the end, or removed after an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def has_sha256(expected: str) -> Callable[[Path], str]:
    """Make a check for `download`: the file has this SHA-256."""

    def check(path: Path) -> str:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return "" if found == expected else f"SHA-256 {found}, it must be {expected}"

    return check


def _reason(error: Exception) -> str:
    """Tell what went wrong between here and the server."""
    import requests
    from requests import exceptions

    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers with HTTP status {error.response.status_code}"
    if isinstance(error, requests.Timeout) or "timed out" in str(error).lower():
        return f"nothing came for {TIMEOUT:g} seconds"
    if isinstance(error, exceptions.ChunkedEncodingError):
        return "the connection broke off before the end"
    if isinstance(error, exceptions.ContentDecodingError):
        return "the server says that it packs the file, but it does not"
    if isinstance(error, requests.ConnectionError):
        return "no connection to the server"
    if isinstance(error, requests.TooManyRedirects):
        return "the server sends us in circles"
    return f"the download failed: {error}"
