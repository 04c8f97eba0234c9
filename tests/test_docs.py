"""The documents are true: every example in a docstring and every Python example on a page runs as it is written."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import luce
from tests.photos import EVEN, draw_folder

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def modules() -> list[str]:
    found = pkgutil.walk_packages(luce.__path__, "luce.")
    return ["luce", *(m.name for m in found if m.name not in ("luce.__main__", "luce._native"))]


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_examples_on_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run in their order, in a folder with what they speak of: photos/, new/, photo.jpg."""
    monkeypatch.setenv("LUCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    draw_folder(tmp_path / "photos", EVEN)
    draw_folder(tmp_path, {"red": 1}, seed=1)
    (tmp_path / "red").rename(tmp_path / "new")
    next((tmp_path / "new").iterdir()).rename(tmp_path / "photo.jpg")
    names: dict[str, object] = {}
    for block in python_blocks(page):
        if ">>>" in block:
            runner = doctest.DocTestRunner()
            examples = doctest.DocTestParser().get_doctest(block, names, page.name, str(page), 0)
            runner.run(examples, clear_globs=False)
            names |= examples.globs
            assert runner.failures == 0
        else:
            exec(compile(block, str(page), "exec"), names)


def test_the_check_of_documents_notices_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    check = importlib.import_module("check")
    assert check.undocumented_names() == []
    assert check.broken_links() == []
    monkeypatch.setattr(luce, "__all__", [*luce.__all__, "not_there"])
    assert check.undocumented_names() == ["no page documents luce.not_there"]
