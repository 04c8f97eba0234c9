"""`luce show`: what a model file says of itself."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING

from luce.cli.console import Json, file_size, log_loss, print_json

if TYPE_CHECKING:
    from luce.card import Card

EXAMPLES = (
    ("luce show pets.onnx", "a page for people"),
    ("luce show pets.onnx --json", "everything the file says"),
)


def show(model: Path, /, *, json: Json = False) -> int:
    """Show what is in a model file: classes, preparation, calibration, how it was trained and how good it is.

    Args:
        model: The model file that luce train wrote.
        json: Print everything as one JSON object.
    """
    from luce.errors import ModelError
    from luce.model_file import read

    content, card = read(model)
    if json:
        print_json(json_module.loads(card.to_json()))
        return 0
    try:
        lines = _described(card)
    except (KeyError, TypeError, ValueError) as error:  # a record that Luce did not write
        raise ModelError(f"{model}: its record cannot be shown ({error!r}); --json shows it as it is") from None
    print(f"File         {model} ({file_size(len(content))})", *lines, sep="\n")
    return 0


def _described(card: Card) -> list[str]:
    from luce.heads import written

    spec, training, backbone = card.preparation, card.training, card.backbone
    names = ", ".join(card.classes[:12]) + (", …" if len(card.classes) > 12 else "")
    name = "none, the pixels themselves" if backbone["name"] == "none" else backbone["name"]
    licence = f", {backbone['licence']}" if backbone.get("licence") else ""
    data, n_train, seed = training.get("data", "?"), training.get("n_train", 0), training.get("seed", "?")
    lines = [
        f"Made by      luce {training.get('luce_version', '?')}",
        f"Classes      {len(card.classes)}: {names}",
        f"Pictures     {spec.fit} to {spec.width} x {spec.height}, {spec.filter}, {spec.mode}",
        f"Backbone     {name}{licence}; {backbone['n_features']:,} features",
        f"Link         {written(card.link)}",
        f"Temperature  {card.temperature:.4f}  {card.calibration.get('note') or ''}".rstrip(),
        f"Trained on   {data}, {n_train:,} pictures, seed {seed}",
    ]
    if metrics := training.get("metrics"):
        accuracy, low, high, ece = (100 * metrics[key] for key in ("accuracy", "accuracy_low", "accuracy_high", "ece"))
        lines.append(
            f"Held out     accuracy {accuracy:.1f} % ({low:.1f} … {high:.1f}), "
            f"NLL {log_loss(metrics['nll'], metrics.get('n_zero', 0))}, "
            f"calibration error {ece:.1f} % on {metrics['n_test']:,} pictures"
        )
    return lines
