"""The cache gives back what it was given, and never stands in the way."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from luce.backbones.feature_cache import Entry, FeatureCache

FLOAT = np.dtype(np.float32)


def entry(seed: int, n: int = 8) -> Entry:
    return Entry(np.random.default_rng(seed).random(n, np.float32), ("note",) if seed % 2 else ())


def digest(i: int) -> bytes:
    return i.to_bytes(32, "big")


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "c.sqlite"
    with FeatureCache(path, "k", FLOAT, 8) as cache:
        for i in range(600):
            cache.put(digest(i), entry(i))
        assert cache.get(digest(599)) is not None
    with FeatureCache(path, "k", FLOAT, 8) as cache:
        for i in range(600):
            found = cache.get(digest(i))
            assert found is not None
            assert np.array_equal(found.features, entry(i).features)
            assert found.notes == entry(i).notes
        assert cache.get(digest(600)) is None
        assert cache.hits == 600
        assert cache.trouble == ""


def test_other_keys_and_sizes_find_nothing(tmp_path: Path) -> None:
    with FeatureCache(tmp_path / "c", "k", FLOAT, 8) as cache:
        cache.put(digest(0), entry(0))
    with FeatureCache(tmp_path / "c", "other", FLOAT, 8) as cache:
        assert cache.get(digest(0)) is None
    with FeatureCache(tmp_path / "c", "k", FLOAT, 9) as cache:
        assert cache.get(digest(0)) is None


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_bytes(b"this is no database" * 1000)
    with FeatureCache(path, "k", FLOAT, 8) as cache:
        cache.put(digest(0), entry(0))
    assert cache.trouble == ""
    with FeatureCache(path, "k", FLOAT, 8) as cache:
        assert cache.get(digest(0)) is not None


def test_damage_inside_is_no_wrong_answer(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with FeatureCache(path, "k", FLOAT, 8) as cache:
        for i in range(2000):
            cache.put(digest(i), entry(i))
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 5] = os.urandom(4096 * 2)
    path.write_bytes(data)
    with FeatureCache(path, "k", FLOAT, 8) as cache:
        for i in range(2000):
            found = cache.get(digest(i))
            assert found is None or np.array_equal(found.features, entry(i).features)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE features SET vector = x'00000000' || substr(vector, 5)",
        "UPDATE features SET vector = substr(vector, 1, 32) || x'00000000'",
        "UPDATE features SET vector = substr(vector, 2)",
        "UPDATE features SET vector = substr(vector, 1, 32)",
        "UPDATE features SET vector = 'text'",
        "UPDATE features SET vector = 5",
        "UPDATE features SET about = '[\"other\"]'",
        "UPDATE features SET about = 'no json'",
        "UPDATE features SET about = CAST(x'ff' AS TEXT)",
        "UPDATE features SET about = x'00'",
    ],
)
def test_a_row_that_was_changed_is_not_believed(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "c"
    with FeatureCache(path, "k", FLOAT, 8) as cache:
        cache.put(digest(1), entry(1))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()
    with FeatureCache(path, "k", FLOAT, 8) as cache:
        assert cache.get(digest(1)) is None
        assert cache.hits == 0


def test_hits_are_counted_from_all_threads(tmp_path: Path) -> None:
    with FeatureCache(tmp_path / "c", "k", FLOAT, 8) as cache:
        cache.put(digest(0), entry(0))
        threads = [threading.Thread(target=lambda: [cache.get(digest(0)) for _ in range(500)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert cache.hits == 2000


def test_a_place_that_cannot_be_written_is_said_and_survived() -> None:
    with FeatureCache(Path("/proc/luce/c"), "k", FLOAT, 8) as cache:
        cache.put(digest(0), entry(0))
        assert cache.get(digest(0)) is None
    assert "features are not cached" in cache.trouble


def test_a_full_disk_is_said_and_survived(tmp_path: Path) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from luce.backbones.feature_cache import Entry, FeatureCache\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "with FeatureCache(Path(sys.argv[1]), 'k', np.dtype(np.float32), 1280) as cache:\n"
        "    for i in range(1000):\n"
        "        cache.put(i.to_bytes(32, 'big'), Entry(np.zeros(1280, np.float32), ()))\n"
        "print(cache.trouble)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "c")], capture_output=True, text=True, check=True)
    assert "features are not cached" in done.stdout


def test_a_kill_loses_at_most_what_was_not_written(tmp_path: Path) -> None:
    path = tmp_path / "c"
    code = (
        "import sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from luce.backbones.feature_cache import Entry, FeatureCache\n"
        "with FeatureCache(Path(sys.argv[1]), 'k', np.dtype(np.float32), 8) as cache:\n"
        "    for i in range(100_000_000):\n"
        "        cache.put(i.to_bytes(32, 'big'), Entry(np.full(8, i, np.float32), ()))\n"
        "        if i == 1000: print(flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.05)  # the moment of the kill, not a measurement
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with FeatureCache(path, "k", FLOAT, 8) as cache:
        for i in range(700):
            found = cache.get(digest(i))
            assert found is not None
            assert found.features.tolist() == [i] * 8
    assert cache.trouble == ""


def test_two_users_at_once(tmp_path: Path) -> None:
    def fill(start: int) -> None:
        with FeatureCache(tmp_path / "c", "k", FLOAT, 8) as cache:
            for i in range(start, start + 1000):
                cache.put(digest(i), entry(i))

    threads = [threading.Thread(target=fill, args=(start,)) for start in (0, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = sqlite3.connect(tmp_path / "c")
    assert count.execute("SELECT count(*) FROM features").fetchone() == (2000,)
    count.close()


def test_many_users_who_open_a_new_cache_at_once(tmp_path: Path) -> None:
    troubles = []

    def use(path: Path, barrier: threading.Barrier) -> None:
        barrier.wait()
        with FeatureCache(path, "k", FLOAT, 8) as cache:
            cache.put(digest(threading.get_ident()), entry(0))
        troubles.append(cache.trouble)

    for i in range(40):
        barrier = threading.Barrier(4)
        threads = [threading.Thread(target=use, args=(tmp_path / str(i), barrier)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(troubles) == {""}


@pytest.mark.parametrize("n", [1, 255, 256, 257])
def test_everything_is_written_at_the_end(tmp_path: Path, n: int) -> None:
    with FeatureCache(tmp_path / "c", "k", FLOAT, 8) as cache:
        for i in range(n):
            cache.put(digest(i), entry(i))
    with FeatureCache(tmp_path / "c", "k", FLOAT, 8) as cache:
        assert sum(cache.get(digest(i)) is not None for i in range(n)) == n
