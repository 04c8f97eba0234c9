"""`luce check`: what could do harm in training, found before it does."""

from __future__ import annotations

from collections import Counter

from luce.cli.console import Json, Quiet, Threads, print_json, reporter

_SHOWN = 10


EXAMPLES = (
    ("luce check photos", "a folder with one folder of pictures per class"),
    ("luce check labels.csv --json", "everything found, as one JSON object"),
)


def check(
    data: str,
    /,
    *,
    max_pixels: int = 100_000_000,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Look at every picture of a data set and list problems.

    Unreadable files, byte-identical pictures (also under two classes), tiny classes, imbalance, odd sizes, files that
    are no pictures. Nothing is changed. The exit status is 1 when a picture cannot be read.

    Args:
        data: Pictures with known classes, in any form that luce train takes.
        max_pixels: Pictures with more pixels count as unreadable.
        threads: Number of threads; by default one per available core.
        json: Print one JSON object.
        quiet: No progress.
    """
    from dataclasses import asdict

    from luce.datasets import open_dataset
    from luce.datasets.check import check as look
    from luce.threads import default_threads

    with reporter(quiet=quiet) as console:
        dataset = open_dataset(data, progress=console.progress)
        found = look(dataset, n_threads=threads or default_threads(), max_pixels=max_pixels, progress=console.progress)
    status = 0 if found.n_readable == found.n_pictures else 1
    if json:
        print_json(asdict(found) | {"problems": [problem.to_dict() for problem in found.problems]})
        return status
    print(f"Pictures     {found.n_pictures:,}, {found.n_readable:,} readable")
    if found.sizes:
        width, height = found.sizes["median"]
        least, greatest = found.sizes["least_side"], found.sizes["greatest_side"]
        print(f"Sizes        median {width} x {height}, sides {least:,} … {greatest:,}")
    print(f"Formats      {', '.join(f'{n:,} {name}' for name, n in found.formats.items()) or 'none'}")
    print("Classes      " + ", ".join(f"{name} {n:,}" for name, n in found.per_class.items()))
    kinds = Counter(problem.kind for problem in found.problems)
    if not kinds:
        print("Problems     none")
    for kind, n in sorted(kinds.items()):
        print(f"\n{kind} ({n:,})")
        same = [problem for problem in found.problems if problem.kind == kind]
        for problem in same[:_SHOWN]:
            where = problem.path or problem.class_name
            print(f"  {where + ': ' if where else ''}{problem.reason}")
        if n > _SHOWN:
            print(f"  … and {n - _SHOWN:,} more (--json lists them all)")
    return status
