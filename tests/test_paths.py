"""Which folders Luce reads and writes besides those the user names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from luce.paths import cache_dir, data_dirs

DEBIAN = Path("/usr/share/datasets")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own and none of the variables."""
    for name in ("LUCE_CACHE", "LUCE_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_cache_lies_in_the_home_folder(home: Path) -> None:
    assert cache_dir() == home / ".cache" / "luce"
    assert list(home.iterdir()) == []  # naming it does not make it


@pytest.mark.parametrize(
    ("own", "shared", "expected"),
    [
        (None, "/shared", "/shared/luce"),
        ("/own", "/shared", "/own"),
        ("/own", None, "/own"),
        ("own", "/shared", "own"),
        ("", "/shared", "/shared/luce"),
        ("", "", "~/.cache/luce"),
        (None, "relative", "~/.cache/luce"),
        (None, "~/shared", "~/.cache/luce"),
        ("~/own", None, "~/own"),
        ("~", None, "~"),
    ],
)
def test_variables_that_name_the_cache(
    own: str | None, shared: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LUCE_CACHE", own), ("XDG_CACHE_HOME", shared)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cache_dir() == Path(expected).expanduser()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, []),
        ("", []),
        (os.pathsep, []),
        ("/b", ["/b"]),
        (os.pathsep.join(["/b", "", "a", "~/c", ""]), ["/b", "a", "~/c"]),
    ],
)
def test_data_folders_in_their_order_and_debians_last(
    value: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("LUCE_DATA", value)
    assert data_dirs() == (*(Path(folder).expanduser() for folder in expected), DEBIAN)


def test_a_home_that_nobody_has_is_taken_as_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCE_CACHE", "~no-such-user/cache")
    monkeypatch.setenv("LUCE_DATA", "~no-such-user/data")
    assert cache_dir() == Path("~no-such-user/cache")
    assert data_dirs() == (Path("~no-such-user/data"), DEBIAN)
