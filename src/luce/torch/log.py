"""What a training says of each epoch, for other programs: lines of JSON, and TensorBoard's events.

Each function makes a listener for `train_network`'s `on_epoch`. It is told all epochs so far, so a training that was
cut off and goes on leaves no gap and nothing twice.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from luce.files import write_atomically
from luce.torch.trainer import OnEpoch


def json_lines(path: Path) -> OnEpoch:
    """A line for each epoch; the file is written whole each time, so a kill leaves no half line."""

    def on_epoch(history: tuple[dict[str, float], ...]) -> None:
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in history))

    return on_epoch


def check_tensorboard() -> None:
    """Say how to install TensorBoard where it is missing.

    Raises:
        ValueError: it is.
    """
    if find_spec("tensorboard") is None:
        raise ValueError("--tensorboard needs TensorBoard, which is not installed: pip install tensorboard")


def tensorboard(folder: Path) -> OnEpoch:
    """Scalars `loss`, `accuracy` and `rate` by epoch, in a folder that `tensorboard --logdir` reads."""
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = None

    def on_epoch(history: tuple[dict[str, float], ...]) -> None:
        nonlocal writer
        new = history[-1:]
        if writer is None:  # TensorBoard leaves out what an earlier process wrote of these epochs
            writer, new = SummaryWriter(str(folder), purge_step=0), history
        for line in new:
            for name in line.keys() - {"epoch", "seconds"}:
                writer.add_scalar(name, line[name], int(line["epoch"]))
        writer.flush()

    return on_epoch
