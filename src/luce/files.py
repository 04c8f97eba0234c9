"""Files that are either the old one or the new one, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from luce.errors import LuceError


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a file under a temporary name in the same folder, flush it to the disk, then rename it.

    Args:
        path: the file; an existing one is replaced only by a complete new one and keeps its permissions otherwise.
        data: bytes, or text that is written as UTF-8.

    Raises:
        LuceError: it cannot be written; the old file, if any, is untouched and no temporary file stays.
    """
    target = Path(path)
    content = data.encode() if isinstance(data, str) else data
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise LuceError(f"{target}: cannot be written ({error.strerror}); {_remedy(target, error)}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_writable(path: str | os.PathLike[str]) -> None:
    """Find out before a long work whether its result can be written, by writing nothing there.

    Raises:
        LuceError: the file could not be written; the message says why and what to do.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(descriptor)
        os.unlink(name)
    except OSError as error:
        raise LuceError(f"{target}: cannot be written ({error.strerror}); {_remedy(target, error)}") from None


def _remedy(path: Path, error: OSError) -> str:
    if path.is_dir():
        return "it is a folder: name a file in it"
    if not path.parent.is_dir():
        return f"make the folder {path.parent} first"
    if isinstance(error, PermissionError):
        return f"choose a folder you may write to, {path.parent} is not one"
    return "free some space or choose another place"
