"""The few exceptions of Luce.

A wrong type raises `TypeError`, a wrong value `ValueError`. What lies outside the caller's code, a file or a
download, raises a `LuceError`: its message is one sentence for the user with the path, the reason and the remedy.
"""

from __future__ import annotations

import os


class LuceError(Exception):
    """A file, a data set or a download is not as it must be. The message is meant for the user."""


class ImageError(LuceError):
    """A picture that cannot be used.

    Attributes:
        path: where it came from, as given by the caller; `None` for bytes, arrays and file objects.
        reason: why it was refused, without the path.
    """

    def __init__(self, reason: str, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else os.fspath(path)
        self.reason = reason
        super().__init__(reason if self.path is None else f"{self.path}: {reason}")


class DataError(LuceError):
    """A data set that cannot be used: no pictures, one class only, a table without the columns it needs."""


class ModelError(LuceError):
    """A model file that is damaged, foreign, made by a newer version, or hostile."""


class DownloadError(LuceError):
    """A download that failed, or gave other bytes than promised."""


class LuceWarning(UserWarning):
    """Something the user should know that does not stop the work."""
