"""Keep the documents true: `python docs/check.py` fails when one is stale, `--write` renews the generated ones."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
VERBS = ("train", "predict", "evaluate", "verify", "check", "show")


def help_text(*words: str) -> str:
    """What `luce ... --help` prints, 100 columns wide and without colour."""
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    from luce.cli import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main([*words, "--help"])
    return "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())


def cli_page() -> str:
    """docs/cli.md."""
    parts = ["# The command line", "", "Written by `make docs` from `--help`; do not edit.", ""]
    for words in ((), *((verb,) for verb in VERBS)):
        parts += [f"## luce {' '.join(words)}".rstrip(), "", "```text", help_text(*words), "```", ""]
    return "\n".join(parts)


def stale_pages() -> list[str]:
    """Complaints about the generated pages."""
    page = DOCS / "cli.md"
    fresh = page.exists() and page.read_text() == cli_page()
    return [] if fresh else ["docs/cli.md is stale: run `make docs`"]


def undocumented_names() -> list[str]:
    """Complaints about public names that no page mentions."""
    import luce

    text = "\n".join(page.read_text() for page in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))])
    names = [name for name in luce.__all__ if not name.startswith("_")]
    return [f"no page documents luce.{name}" for name in names if f"`{name}" not in text and f"luce.{name}" not in text]


def broken_links() -> list[str]:
    """Complaints about links to files that are not there."""
    import re

    found = []
    for page in [*ROOT.glob("*.md"), *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                found.append(f"{page.relative_to(ROOT)} links to {target}, which is not there")
    return found


if __name__ == "__main__":
    if "--write" in sys.argv:
        (DOCS / "cli.md").write_text(cli_page())
    complaints = stale_pages() + undocumented_names() + broken_links()
    print(*complaints, sep="\n", end="\n" if complaints else "")
    sys.exit(bool(complaints))
