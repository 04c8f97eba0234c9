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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FLUSH_ROWS = 256
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS features"
    " (key BLOB, digest BLOB, vector BLOB NOT NULL, about TEXT NOT NULL, PRIMARY KEY (key, digest)) WITHOUT ROWID"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a picture: its features (D,) and its odd but harmless traits."""

    features: NDArray[np.generic]
    notes: tuple[str, ...]


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
        row: tuple[bytes, str] | None = None
        with self._lock, self._guarded():
            row = self._pending.get(digest)
            if row is None and self._connection is not None:
                query = "SELECT vector, about FROM features WHERE key = ? AND digest = ?"
                row = self._connection.execute(query, (self._key, digest)).fetchone()
        if row is None or len(row[0]) != self._n_bytes:
            return None
        self.hits += 1
        return Entry(np.frombuffer(row[0], self._dtype), tuple(json.loads(row[1])))

    def put(self, digest: bytes, entry: Entry) -> None:
        """Remember an entry."""
        with self._lock:
            if self._connection is None:
                return
            self._pending[digest] = (entry.features.tobytes(), json.dumps(entry.notes))
            if len(self._pending) >= _FLUSH_ROWS:
                self._flush()

    def _open(self) -> None:
        connection = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection

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
