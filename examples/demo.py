"""`make demo`: from a data set to a model, a report and the class of one picture, by the command a user would type."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from luce.cli import main
from luce.datasets import open_dataset

FOLDER = Path("demo")


def run(*words: str) -> None:
    """Type a command and show it."""
    print(f"\n$ luce {' '.join(words)}", flush=True)
    status = main(words)
    if status:
        sys.exit(status)


def draw_a_digit(path: Path) -> None:
    """Save one handwritten digit as a picture file, as if it came from a camera."""
    digits = open_dataset("digits")
    row = next(i for i in range(len(digits)) if digits.classes[digits.labels[i]] == "7")
    pixels = np.asarray(digits.pictures[row])
    Image.fromarray(pixels).resize((128, 128), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    model, picture = str(FOLDER / "digits.onnx"), FOLDER / "seven.png"
    draw_a_digit(picture)
    run("train", "digits", "-o", model)
    run("predict", model, str(picture))
    run("verify", model)
    print(f"\nThe report is {(FOLDER / 'digits.html').resolve()}")
    print(f"Your own pictures: {Path(sys.executable).parent / 'luce'} train FOLDER -o model.onnx")
