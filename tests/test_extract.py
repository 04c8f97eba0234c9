"""Pictures to features: order, refusals, threads, the cache, flat memory, interrupts."""

from __future__ import annotations

import hashlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from luce.backbones import Backbone, FeatureCache, Features, Session, open_backbone, open_session, run
from luce.backbones import extract as extract_function
from luce.backbones.extract import chunk_size
from luce.errors import ImageError, LuceError, ModelError
from luce.images import MAX_PIXELS, Preparation, Source, load
from tests.photos import draw

SIDE = 20  # of the drawn pictures; the backbone takes 8 x 8
MODULE = sys.modules["luce.backbones.extract"]  # the package holds the function under this name


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    found = [folder / f"{i:03d}.png" for i in range(40)]
    for i, path in enumerate(found):
        Image.fromarray(draw(("blue", "green", "red")[i % 3], rng, SIDE)).save(path)
    return found


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return open_backbone("none", (8, 8), grey=False, progress=lambda *_: None)


@pytest.fixture(scope="module")
def session(backbone: Backbone) -> Session:
    return open_session(backbone.graph)


@pytest.fixture(autouse=True)
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of 4 pictures of 8 x 8, so that a few pictures make many runs."""
    monkeypatch.setattr(MODULE, "_CHUNK_BYTES", 4 * 8 * 8 * 3)


def extract(
    sources: Sequence[Source],
    backbone: Backbone,
    session: Session,
    cache: FeatureCache | None = None,
    *,
    n_threads: int = 2,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Features:
    return extract_function(
        sources, backbone, session, cache, n_threads=n_threads, max_pixels=max_pixels, progress=progress
    )


def opened(path: Path, backbone: Backbone) -> FeatureCache:
    return FeatureCache(path, backbone.key, backbone.dtype, backbone.n_features)


def expected(paths: Sequence[Path], backbone: Backbone) -> NDArray[np.uint8]:
    """The pixels backbone by hand."""
    return np.stack([load(path, backbone.preparation)[0].reshape(-1) for path in paths])


def same(one: Features, two: Features) -> bool:
    return (
        one.values.tobytes() == two.values.tobytes()
        and np.array_equal(one.digests, two.digests)
        and np.array_equal(one.rows, two.rows)
        and one.notes == two.notes
        and [(i, str(e)) for i, e in one.refused] == [(i, str(e)) for i, e in two.refused]
    )


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_features_stand_in_the_order_of_their_pictures(
    paths: list[Path], backbone: Backbone, session: Session, n_threads: int
) -> None:
    features = extract(paths, backbone, session, n_threads=n_threads)
    assert np.array_equal(features.values, expected(paths, backbone))
    assert features.values.dtype == np.uint8
    assert features.rows.tolist() == list(range(len(paths)))
    assert features.refused == ()
    assert features.n_cached == 0


def test_digests_are_those_of_the_files(paths: list[Path], backbone: Backbone, session: Session) -> None:
    features = extract(paths, backbone, session)
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in paths]
    assert [row.tobytes() for row in features.digests] == digests
    by_bytes = extract([path.read_bytes() for path in paths], backbone, session)
    assert same(features, by_bytes)


def test_arrays_have_digests_by_their_content_and_shape(backbone: Backbone, session: Session) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    others = [picture.copy(), picture.reshape(8, 6, 3), picture + np.uint8(1)]
    digests = [row.tobytes() for row in extract([picture, *others], backbone, session).digests]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize("n_threads", [1, 3])
def test_what_cannot_be_read_is_listed_with_its_position_and_reason(
    paths: list[Path], backbone: Backbone, session: Session, tmp_path: Path, n_threads: int
) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    whole = paths[0].read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    sources: list[Source] = list(paths[:10])
    bad: dict[int, tuple[Source, str]] = {
        0: (tmp_path / "text.jpg", "not a picture of a known format"),
        5: (str(tmp_path / "none.png"), "no such file"),
        6: (whole[:100], "damaged or cut off"),
        9: (tmp_path / "cut.png", "damaged or cut off"),
        13: (tmp_path, "it is a folder"),
    }
    for position, (source, _) in bad.items():
        sources.insert(position, source)
    features = extract(sources, backbone, session, n_threads=n_threads)
    assert [i for i, _ in features.refused] == list(bad)
    for (i, error), (source, why) in zip(features.refused, bad.values(), strict=True):
        assert isinstance(error, ImageError)
        assert why in error.reason
        assert error.path == (None if i == 6 else str(source))
    good = [i for i in range(len(sources)) if i not in bad]
    assert features.rows.tolist() == good
    assert np.array_equal(features.values, expected(paths[:10], backbone))
    assert len(features.digests) == len(features.notes) == 10


def test_nothing_readable_gives_nothing(backbone: Backbone, session: Session) -> None:
    features = extract([b"a", b"b"], backbone, session)
    assert features.values.shape == (0, 192)
    assert len(features.refused) == 2
    assert extract([], backbone, session).values.shape == (0, 192)


def test_pictures_beyond_the_limit_are_refused(paths: list[Path], backbone: Backbone, session: Session) -> None:
    assert len(extract(paths, backbone, session, max_pixels=SIDE * SIDE).rows) == len(paths)
    refused = extract(paths, backbone, session, max_pixels=SIDE * SIDE - 1).refused
    assert len(refused) == len(paths)
    assert "more than the limit of 399" in refused[0][1].reason


# -- bit for bit


@pytest.fixture(scope="module")
def network() -> Backbone:
    return open_backbone("efficientnet-lite0", (1, 1), grey=False, progress=lambda *_: None)


def test_threads_and_company_change_no_bit_of_the_networks_features(
    paths: list[Path], network: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime gives a picture the same bits alone and among others: no tolerance is needed."""
    session = open_session(network.graph)
    few = paths[:7]
    one = extract(few, network, session, n_threads=1)
    assert one.values.dtype == np.float32
    assert one.values.std() > 0
    assert same(one, extract(few, network, session, n_threads=2))
    monkeypatch.setattr(MODULE, "_CHUNK_BYTES", 3 * 224 * 224 * 3)
    assert chunk_size(network.preparation) == 3
    assert same(one, extract(few, network, session, n_threads=3))
    backward = extract(few[::-1], network, session, n_threads=2)
    assert backward.values[::-1].tobytes() == one.values.tobytes()
    for i in (0, 6):
        assert extract([few[i]], network, session).values.tobytes() == one.values[i : i + 1].tobytes()


# -- the cache


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("this was done before")

    for name in names:
        monkeypatch.setattr(MODULE, name, forbidden)


def with_notes(folder: Path) -> Path:
    """A picture with an odd trait."""
    path = folder / "clear.png"
    Image.fromarray(np.full((SIDE, SIDE, 4), 100, np.uint8), "RGBA").save(path)
    return path


def test_what_is_in_the_cache_is_not_decoded_or_computed_again(
    paths: list[Path], backbone: Backbone, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [*paths, tmp_path / "none.png", with_notes(tmp_path)]
    with opened(tmp_path / "c", backbone) as cache:
        first = extract(sources, backbone, session, cache)
    assert first.n_cached == 0
    assert first.notes[-1] == ("transparent pixels laid over white",)
    assert set(first.notes[:-1]) == {()}
    forbid(monkeypatch, "load", "run")
    with opened(tmp_path / "c", backbone) as cache:
        second = extract(sources, backbone, session, cache)
        assert second.n_cached == len(sources) - 1
        assert same(first, second)
        third = extract(sources[:3], backbone, session, cache)
        assert third.n_cached == 3  # of this call, not of the cache's whole life


def test_only_what_is_new_is_computed(
    paths: list[Path], backbone: Backbone, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "c", backbone) as cache:
        extract(paths[::2], backbone, session, cache)
    computed: list[int] = []

    def counting(session: Session, values: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        computed.append(len(values))
        return run(session, values)

    monkeypatch.setattr(MODULE, "run", counting)
    with opened(tmp_path / "c", backbone) as cache:
        features = extract(paths, backbone, session, cache)
    assert sum(computed) == features.n_cached == len(paths) // 2
    assert np.array_equal(features.values, expected(paths, backbone))


def test_the_cache_goes_by_content_not_by_name(
    paths: list[Path], backbone: Backbone, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    with opened(tmp_path / "c", backbone) as cache:
        for source in paths[:2]:
            path.write_bytes(source.read_bytes())
            features = extract([path], backbone, session, cache)
            assert features.n_cached == 0
            assert np.array_equal(features.values, expected([source], backbone))
        (tmp_path / "b.png").write_bytes(paths[0].read_bytes())
        assert extract([tmp_path / "b.png"], backbone, session, cache).n_cached == 1


def test_a_cache_that_fails_is_done_without(paths: list[Path], backbone: Backbone, session: Session) -> None:
    with opened(Path("/proc/luce/c"), backbone) as cache:
        features = extract(paths, backbone, session, cache)
    assert np.array_equal(features.values, expected(paths, backbone))
    assert cache.trouble


def test_a_picture_that_vanishes_in_between_is_refused(
    paths: list[Path], backbone: Backbone, session: Session, tmp_path: Path
) -> None:
    copies = [tmp_path / path.name for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        copy.write_bytes(path.read_bytes())

    def progress(done: int, total: int) -> None:
        if done == 1:
            copies[-1].unlink()

    with opened(tmp_path / "c", backbone) as cache:
        features = extract(copies, backbone, session, cache, n_threads=1, progress=progress)
        assert [(i, error.reason) for i, error in features.refused] == [(len(copies) - 1, "no such file")]
        assert extract(copies, backbone, session, cache).refused[0][0] == len(copies) - 1
    assert np.array_equal(features.values, expected(paths[:-1], backbone))


# -- progress, memory, interrupts, errors


@pytest.mark.parametrize("n_threads", [1, 3])
def test_progress_counts_every_picture_in_order_on_the_callers_thread(
    paths: list[Path], backbone: Backbone, session: Session, n_threads: int
) -> None:
    told: list[tuple[int, int, int]] = []
    sources = [*paths, Path("none.png")]
    extract(
        sources,
        backbone,
        session,
        n_threads=n_threads,
        progress=lambda done, total: told.append((done, total, threading.get_ident())),
    )
    assert told == [(i + 1, len(sources), threading.get_ident()) for i in range(len(sources))]


class Many(Sequence[Source]):
    """So many pictures, drawn one after the other when they are asked for."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    @overload
    def __getitem__(self, index: int) -> Source: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Source]: ...
    def __getitem__(self, index: int | slice) -> Source | Sequence[Source]:
        raise AssertionError("pictures are taken one after the other")

    def __iter__(self) -> Iterator[Source]:
        for i in range(self.n):
            yield np.full((8, 8, 3), i % 256, np.uint8)


def test_few_decoded_pictures_are_alive_at_once_however_many_there_are(
    backbone: Backbone, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Many(600)
    lock = threading.Lock()
    references: list[weakref.ref[NDArray[np.uint8]]] = []
    most = 0

    def watched(content: Source, spec: Preparation, *, max_pixels: int) -> Any:
        nonlocal most
        pixels, about = load(content, spec, max_pixels=max_pixels)
        pixels = pixels.copy()
        with lock:
            references.append(weakref.ref(pixels))
            most = max(most, sum(reference() is not None for reference in references))
        return pixels, about

    monkeypatch.setattr(MODULE, "load", watched)
    n_threads, chunk = 2, chunk_size(backbone.preparation)
    assert chunk == 4
    features = extract(sources, backbone, session, n_threads=n_threads)
    assert len(references) == 600
    assert features.values[:, 0].tolist() == [i % 256 for i in range(600)]
    assert chunk <= most <= 2 * n_threads * chunk
    assert all(reference() is None for reference in references)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_an_interrupt_stops_the_work_and_leaves_a_usable_cache(
    paths: list[Path],
    backbone: Backbone,
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_threads: int,
) -> None:
    loaded: list[object] = []

    def counting(content: Source, spec: Preparation, *, max_pixels: int) -> Any:
        loaded.append(None)
        return load(content, spec, max_pixels=max_pixels)

    def progress(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(MODULE, "load", counting)
    sources = paths * 5
    with opened(tmp_path / "c", backbone) as cache:
        with pytest.raises(KeyboardInterrupt) as caught:
            extract(sources, backbone, session, n_threads=n_threads, progress=progress)
        assert [t.name for t in threading.enumerate() if t.name.startswith("luce")] == []
        assert caught.traceback  # alive: the threads did not end because it went away
        assert len(loaded) <= 4 * (2 + 2 * n_threads)
        with pytest.raises(KeyboardInterrupt):
            extract(paths, backbone, session, cache, n_threads=n_threads, progress=progress)
    with opened(tmp_path / "c", backbone) as cache:
        features = extract(paths, backbone, session, cache)
    assert features.n_cached >= 6
    assert cache.trouble == ""
    assert np.array_equal(features.values, expected(paths, backbone))


def test_a_network_that_fails_is_one_error_of_ours(paths: list[Path], backbone: Backbone) -> None:
    other = open_backbone("none", (9, 9), grey=False, progress=lambda *_: None)
    with pytest.raises(ModelError, match="ONNX Runtime cannot run the graph"):
        extract(paths, backbone, open_session(other.graph))


def test_a_source_that_is_no_picture_at_all_is_the_callers_mistake(backbone: Backbone, session: Session) -> None:
    with pytest.raises(TypeError, match="a picture array must be uint8"):
        extract([np.zeros((4, 4, 3))], backbone, session)


def test_runs_are_small_for_large_pictures_and_bounded_for_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert chunk_size(Preparation(4096, 4096)) == 1
    assert chunk_size(Preparation(224, 224)) == 6
    assert chunk_size(Preparation(1, 1)) == 256


def test_the_network_sees_a_few_rows_at_a_time(backbone: Backbone, session: Session) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3000, 8, 8, 3), np.uint8)
    seen: list[int] = []

    class Watched:
        get_inputs = session.get_inputs

        def run(self, outputs: None, inputs: dict[str, Any]) -> Any:
            seen.append(len(inputs["images"]))
            return session.run(outputs, inputs)

    assert np.array_equal(run(Watched(), pixels)[0], pixels.reshape(3000, -1))
    assert seen == [1365, 1365, 270]
    assert run(Watched(), pixels[:0])[0].shape == (0, 192)


def test_features_that_memory_would_not_hold_are_kept_on_the_disk(
    paths: list[Path], backbone: Backbone, session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = extract(paths, backbone, session)
    monkeypatch.setattr(MODULE, "_MEMORY_BYTES", 0)
    monkeypatch.setenv("LUCE_CACHE", str(tmp_path / "cache"))
    found = extract(paths, backbone, session)
    assert isinstance(found.values, np.memmap)
    np.testing.assert_array_equal(found.values, expected.values)
    assert not list((tmp_path / "cache").iterdir())  # the file has no name: nothing is left behind
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LUCE_CACHE", str(tmp_path / "file"))
    with pytest.raises(LuceError, match="GB of prepared pictures; free some space"):
        extract(paths, backbone, session)
