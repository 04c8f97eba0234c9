"""Features that were computed before, found again by the content of the picture.

One SQLite file: a kill at any moment loses at most the last second of work, and several processes may use it at once.
The cache is never needed: whatever goes wrong with it, the work goes on without and the reason is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FLUSH_ROWS = 256
_CHECKSUM_BYTES = 4
_PATIENCE = 10.0  # seconds to wait for other users of the file
_PAUSE = 0.01
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS features"
    " (key BLOB, digest BLOB, vector BLOB NOT NULL, about TEXT NOT NULL, PRIMARY KEY (key, digest)) WITHOUT ROWID"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a picture: its features (D,) and its odd but harmless traits."""

    features: NDArray[np.generic]
    notes: tuple[str, ...]


def _checksum(vector: bytes, about: str) -> bytes:
    """Stands behind a vector: SQLite notices damage to its own structure, not to what it keeps."""
    return zlib.crc32(vector, zlib.crc32(about.encode())).to_bytes(_CHECKSUM_BYTES, "little")


class FeatureCache:
    """Features by (key, digest of the picture's bytes). Use as a context manager; safe from several threads.

    Args:
        path: of the SQLite file; its folder is made when needed.
        key: says what computed the features: backbone, preparation and versions.
        dtype: of the features.
        n_features: D.
    """

    def __init__(self, path: Path, key: str, dtype: np.dtype[np.generic], n_features: int) -> None:
        self.trouble = ""
        self.hits = 0
        self._path = path
        self._key = hashlib.sha256(key.encode()).digest()
        self._dtype = dtype
        self._n_bytes = n_features * dtype.itemsize
        self._lock = threading.Lock()
        self._pending: dict[bytes, tuple[bytes, str]] = {}
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> FeatureCache:
        with self._guarded():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self._remove()  # damaged: what it held can be computed again
                self._open()
        return self

    def __exit__(self, *_exception: object) -> None:
        with self._lock:
            self._flush()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def get(self, digest: bytes) -> Entry | None:
        """The entry of a picture, if it is known."""
        entry = None
        with self._lock, self._guarded():
            row: tuple[object, object] | None = self._pending.get(digest)
            if row is None and self._connection is not None:
                query = "SELECT vector, about FROM features WHERE key = ? AND digest = ?"
                row = self._connection.execute(query, (self._key, digest)).fetchone()
            entry = self._entry(row)
            self.hits += entry is not None
        return entry

    def put(self, digest: bytes, entry: Entry) -> None:
        """Remember an entry."""
        with self._lock:
            if self._connection is None:
                return
            vector, about = entry.features.tobytes(), json.dumps(entry.notes)
            self._pending[digest] = (vector + _checksum(vector, about), about)
            if len(self._pending) >= _FLUSH_ROWS:
                self._flush()

    def _entry(self, row: tuple[object, object] | None) -> Entry | None:
        """The entry in a row; none if the row is of another kind or damaged."""
        match row:
            case (bytes() as stored, str() as about) if len(stored) == self._n_bytes + _CHECKSUM_BYTES:
                vector = stored[: self._n_bytes]
                if vector + _checksum(vector, about) == stored:
                    return Entry(np.frombuffer(vector, self._dtype), tuple(json.loads(about)))
        return None

    def _open(self) -> None:
        connection = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            self._set_up(connection)
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        """Try again while others open or close the file: SQLite does not wait for a change of the journal mode."""
        last = time.monotonic() + _PATIENCE
        while True:
            try:
                for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", _SCHEMA):
                    connection.execute(statement)
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > last:
                    raise
                time.sleep(_PAUSE)  # whoever holds the file is done in milliseconds

    def _flush(self) -> None:
        if self._connection is None or not self._pending:
            return
        rows = [(self._key, digest, *row) for digest, row in self._pending.items()]
        with self._guarded():
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)", rows)
            self._connection.execute("COMMIT")
        self._pending.clear()

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Go on without the cache when it fails, and keep the reason."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self.trouble = f"{self._path}: features are not cached: {error}"
            if self._connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.close()
                self._connection = None
