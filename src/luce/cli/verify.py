"""`luce verify`: whether the model file is whole and computes here what it computed at training."""

from __future__ import annotations

from pathlib import Path

from luce.cli.console import Json, print_json

EXAMPLES = (("luce verify pets.onnx", "exit status 0 when all is well"),)


def verify(model: Path, /, *, json: Json = False) -> int:
    """Check that a model file is whole and still gives the probabilities it gave at training.

    The checksum covers every byte; stored pictures are classified again and compared.

    Args:
        model: The model file that luce train wrote.
        json: Print one JSON object.
    """
    from luce.classifier import load_classifier

    worst = load_classifier(model).verify()
    if json:
        print_json({"path": str(model), "ok": True, "greatest_difference": worst})
    else:
        print(f"{model}: whole; stored pictures give the same probabilities (greatest difference {worst:.1g})")
    return 0
