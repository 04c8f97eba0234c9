"""Keep the documents true: `python docs/check.py` fails when one is stale, `--write` renews the generated ones."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
VERBS = ("train", "predict", "evaluate", "verify", "check", "attack", "show", "softmax", "plot", "compare")


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


def functions_page() -> str:
    """docs/functions.md with the table of error bounds that the tests read."""
    sys.path.insert(0, str(ROOT))
    from tests.tolerances import C

    rows = ["| function | float32 | float64 |", "|---|---|---|"]
    for name in dict.fromkeys(function for function, _ in C):
        rows.append(f"| {name} | {C[name, 'float32']:g} | {C[name, 'float64']:g} |")
    head, mark, rest = (DOCS / "functions.md").read_text().partition("<!-- tolerances: written by `make docs` -->\n")
    return head + mark + "\n".join(rows) + "\n" + rest[rest.index("<!-- /tolerances -->") :]


GENERATED = {"cli.md": cli_page, "functions.md": functions_page}


def stale_pages() -> list[str]:
    """Complaints about the generated pages."""
    pages = [(DOCS / name, write) for name, write in GENERATED.items()]
    return [
        f"docs/{p.name} is stale: run `make docs`" for p, write in pages if not p.exists() or p.read_text() != write()
    ]


def undocumented_names() -> list[str]:
    """Complaints about public names that no page mentions."""
    import luce

    text = "\n".join(page.read_text() for page in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))])
    names = [name for name in luce.__all__ if not name.startswith("_")]
    return [f"no page documents luce.{name}" for name in names if f"`{name}" not in text and f"luce.{name}" not in text]


def broken_links() -> list[str]:
    """Complaints about links to files that are not there."""
    found = []
    for page in [*ROOT.glob("*.md"), *DOCS.glob("*.md")]:
        text = page.read_text()
        links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text) + re.findall(r'(?:src|srcset)="([^":]+)"', text)
        for target in links:
            if not (page.parent / target).exists():
                found.append(f"{page.relative_to(ROOT)} links to {target}, which is not there")
    return found


if __name__ == "__main__":
    if "--write" in sys.argv:
        for name, write in GENERATED.items():
            (DOCS / name).write_text(write())
    complaints = stale_pages() + undocumented_names() + broken_links()
    print(*complaints, sep="\n", end="\n" if complaints else "")
    sys.exit(bool(complaints))
