"""Downloads that end with the right bytes under the right name, or with one clear message."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from luce.datasets.dataset import Progress, printable
from luce.errors import DownloadError

TIMEOUT = 30.0  # seconds without a byte
MAX_BYTES = 8 << 30
_CHUNK = 1 << 16


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
            raise ValueError(f"it sends more than {MAX_BYTES >> 30} GiB")
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
        DownloadError: no connection, broken off, stalled, an error status, other bytes than promised, or the
            file cannot be written. The message names the address.
    """
    from pooch import HTTPDownloader  # type: ignore[import-untyped]  # it ships no types
    from requests import HTTPError, RequestException

    target = Path(path)
    fetch = HTTPDownloader(
        progressbar=_Meter(progress, f"Downloading {target.name}"),
        chunk_size=_CHUNK,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},  # else a server may send .gz files unpacked
    )
    try:
        with new_file(target) as temporary:
            fetch(url, str(temporary), None)
            if wrong := check(temporary) if check else "":
                raise DownloadError(f"{url}: other bytes than expected: {wrong}; {remedy}")
    except HTTPError as error:
        status = "an error" if error.response is None else f"HTTP status {error.response.status_code}"
        raise DownloadError(f"{url}: the server answers with {status}; {remedy}") from None
    except (RequestException, ValueError) as error:
        raise DownloadError(f"{url}: the download failed: {_reason(error)}; {remedy}") from None
    except OSError as error:
        raise DownloadError(f"{url}: {printable(target)} cannot be written: {error.strerror}") from None
    return target


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
    """Tell the innermost cause, in its own words."""
    import requests

    if isinstance(error, requests.Timeout) or "timed out" in str(error).lower():
        return f"nothing came for {TIMEOUT:g} seconds"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off before the end"
    if isinstance(error, requests.ConnectionError):
        return "no connection to the server"
    return str(error)
