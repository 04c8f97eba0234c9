"""`luce evaluate`: how good a model is on pictures with known classes."""

from __future__ import annotations

import time
from pathlib import Path

from luce.cli.console import Json, Quiet, Threads, print_json, print_metrics, print_problems, reporter

EXAMPLES = (
    ("luce evaluate pets.onnx test-photos", "a folder with one folder of pictures per class"),
    ("luce evaluate pets.onnx labels.csv --json", "the figures as one JSON object"),
    ("luce evaluate pets.onnx test-photos --report test.html", "with a report"),
)


def evaluate(
    model: Path,
    data: str,
    /,
    *,
    report: Path | None = None,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Measure a model on pictures with known classes.

    Classes are joined by name. Where the data has parts, the test part is measured, else val.

    Args:
        model: The model file that luce train wrote.
        data: Pictures with known classes, in any form that luce train takes.
        report: Write an HTML report there.
        threads: Number of threads; by default one per available core.
        json: Print one JSON object with the figures.
        quiet: No progress, no sentences.
    """
    from luce.classifier import load_classifier
    from luce.files import check_writable, write_atomically

    if report is not None:
        check_writable(report)
    began = time.perf_counter()
    classifier = load_classifier(model)
    with reporter(quiet=quiet) as console:
        result = classifier.evaluate(data, n_threads=threads, progress=console.progress)
        if report is not None:
            from luce.report import evaluation_report

            write_atomically(report, evaluation_report(classifier, result))
    if json:
        figures = result.metrics.to_dict() | {
            "temperature": classifier.temperature,
            "classes": list(classifier.classes),
            "n_train": classifier.card.training.get("n_train"),
            "seconds": round(time.perf_counter() - began, 3),
            "problems": [problem.to_dict() for problem in result.problems],
        }
        print_json(figures)
        return 0
    print_metrics(result.metrics, classifier.temperature, "pictures")
    print_problems(result.problems)
    return 0
