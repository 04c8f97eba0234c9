"""Pictures to features: decode, prepare and compute in each thread, with the cache in front."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from luce.backbones.backbone import Backbone
from luce.backbones.feature_cache import Entry, FeatureCache
from luce.backbones.session import Session, run
from luce.errors import ImageError, LuceError
from luce.images import Preparation, Source, load, read_source
from luce.parallel import map_chunks
from luce.paths import cache_dir

_CHUNK_BYTES = 1 << 20  # prepared pixels of the pictures that a thread takes at once
_MOST_PICTURES = 256  # likewise
_MEMORY_BYTES = 4 << 30  # features beyond this are kept on the disk


@dataclass(frozen=True)
class Features:
    """What became of N pictures.

    Attributes:
        values: (M, D) features of the M readable pictures, in order.
        digests: (M, 32) uint8, SHA-256 of each picture's bytes.
        rows: (M,) their positions among the N.
        notes: (M,) tuples of odd but harmless traits.
        refused: position and reason of each unreadable picture.
        n_cached: how many were found in the cache.
    """

    values: NDArray[np.generic]
    digests: NDArray[np.uint8]
    rows: NDArray[np.int64]
    notes: tuple[tuple[str, ...], ...]
    refused: tuple[tuple[int, ImageError], ...]
    n_cached: int


@dataclass(frozen=True, slots=True)
class _Picture:
    """One picture on its way: its features are missing, then known."""

    digest: bytes
    entry: Entry | None = None
    pixels: NDArray[np.uint8] | None = None
    notes: tuple[str, ...] = ()
    cached: bool = False


def chunk_size(spec: Preparation) -> int:
    """Pictures that a thread takes at once: it decodes them all, then the network sees them all."""
    return int(np.clip(_CHUNK_BYTES // (spec.width * spec.height * 3), 1, _MOST_PICTURES))


def extract(
    sources: Sequence[Source],
    backbone: Backbone,
    session: Session,
    cache: FeatureCache | None,
    *,
    n_threads: int,
    max_pixels: int,
    progress: Callable[[int, int], None],
) -> Features:
    """Compute the features of every picture. An unreadable picture is listed, never replaced.

    Args:
        sources: N pictures.
        backbone: what to compute.
        session: of the backbone's graph.
        cache: where features are looked up and remembered, if anywhere.
        n_threads: each decodes, prepares and computes its own small batches.
        max_pixels: larger pictures are refused.
        progress: called with (done, N) from the caller's thread.
    """

    def work(batch: Sequence[Source]) -> list[_Picture | ImageError]:
        pictures = [_look_up(source, backbone, cache, max_pixels) for source in batch]
        return _compute(pictures, session, cache)

    values = _room(len(sources), backbone)
    digests = np.empty((len(sources), 32), np.uint8)
    rows: list[int] = []
    notes: list[tuple[str, ...]] = []
    refused: list[tuple[int, ImageError]] = []
    results = map_chunks(sources, work, chunk=chunk_size(backbone.preparation), n_threads=n_threads)
    n_cached = 0
    with contextlib.closing(cast("Generator[_Picture | ImageError]", results)):  # an interrupt ends the threads at once
        for i, result in enumerate(results):
            if isinstance(result, ImageError):
                refused.append((i, result))
            elif result.entry is not None:
                values[len(rows)] = result.entry.features
                digests[len(rows)] = np.frombuffer(result.digest, np.uint8)
                notes.append(result.entry.notes)
                rows.append(i)
                n_cached += result.cached
            progress(i + 1, len(sources))
    n = len(rows)
    return Features(values[:n], digests[:n], np.array(rows, np.int64), tuple(notes), tuple(refused), n_cached)


def _room(n: int, backbone: Backbone) -> NDArray[np.generic]:
    """An array (n, D) for features: in memory, or in a file without a name, which is gone when nobody uses it."""
    shape = (n, backbone.n_features)
    n_bytes = n * backbone.n_features * backbone.dtype.itemsize
    if n_bytes <= _MEMORY_BYTES:
        return np.empty(shape, backbone.dtype)
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError:
        free = 0
    if free < n_bytes:  # told here: in the middle of the work it would be a crash
        raise LuceError(
            f"{folder}: no room for {n_bytes / 1e9:.1f} GB of prepared pictures; free some space, or name another "
            "folder in LUCE_CACHE"
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, backbone.dtype, "w+", shape=shape)


def _look_up(source: Source, backbone: Backbone, cache: FeatureCache | None, max_pixels: int) -> _Picture | ImageError:
    try:
        content = read_source(source)
        digest = _digest(content)
        entry = None if cache is None else cache.get(digest)
        if entry is not None:
            return _Picture(digest, entry, cached=True)
        pixels, about = load(content, backbone.preparation, max_pixels=max_pixels)
    except ImageError as error:
        named = source if isinstance(source, str | os.PathLike) else None
        return ImageError(error.reason, error.path or named)
    return _Picture(digest, None, pixels, about.notes)


def _compute(
    pictures: list[_Picture | ImageError], session: Session, cache: FeatureCache | None
) -> list[_Picture | ImageError]:
    missing = [(i, p.pixels) for i, p in enumerate(pictures) if isinstance(p, _Picture) and p.pixels is not None]
    if not missing:
        return pictures
    features = run(session, np.stack([pixels for _, pixels in missing]))[0]
    for (i, _), vector in zip(missing, features, strict=True):
        picture = pictures[i]
        if isinstance(picture, _Picture):
            entry = Entry(vector, picture.notes)
            pictures[i] = replace(picture, entry=entry, pixels=None)
            if cache is not None:
                cache.put(picture.digest, entry)
    return pictures


def _digest(content: bytes | NDArray[np.generic]) -> bytes:
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    header = f"{content.shape} {content.dtype.str} ".encode()
    return hashlib.sha256(header + np.ascontiguousarray(content).tobytes()).digest()
