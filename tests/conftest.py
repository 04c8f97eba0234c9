"""Fixtures shared by all tests."""

from __future__ import annotations

import os

# Before NumPy is imported: test processes share the cores, and BLAS threads that spin for one make all of them crawl.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # and so do torch's

from collections.abc import Iterator
from pathlib import Path

import pytest

from luce import _native

ROOT = Path(__file__).resolve().parent.parent


def _data_dir() -> Path:
    """The development data: the first existing folder of LUCE_DATA, else `../shared/data` beside the project."""
    folders = [Path(p) for p in os.environ.get("LUCE_DATA", "").split(os.pathsep) if p]
    for folder in [*folders, ROOT.parent / "shared" / "data"]:
        if (folder / "odd-images").is_dir():
            return folder
    pytest.skip("the development data sets are not here: set LUCE_DATA to their folder")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the development data sets (see CONTRIBUTING.md); tests that use it are marked `data`."""
    return _data_dir()


@pytest.fixture(params=_native.instruction_sets())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this machine runs, for the time of one test."""
    usual = _native.instruction_set()
    _native.force_instruction_set(request.param)
    yield request.param
    _native.force_instruction_set(usual)
