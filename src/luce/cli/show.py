"""`luce show`: what a model file says of itself."""

from __future__ import annotations

import json as json_module
from pathlib import Path

from luce.cli.console import Json, print_json

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
    from luce.model_file import read

    content, card = read(model)
    if json:
        print_json(json_module.loads(card.to_json()))
        return 0
    spec, training, backbone = card.preparation, card.training, card.backbone
    print(f"File         {model} ({len(content) / 1e6:.1f} MB), made by luce {training.get('luce_version', '?')}")
    print(f"Classes      {len(card.classes)}: {', '.join(card.classes[:12])}{', …' if len(card.classes) > 12 else ''}")
    print(f"Pictures     {spec.fit} to {spec.width} x {spec.height}, {spec.filter}, {spec.mode}")
    name = "none, the pixels themselves" if backbone["name"] == "none" else backbone["name"]
    licence = f", {backbone['licence']}" if backbone.get("licence") else ""
    print(f"Backbone     {name}{licence}; {backbone['n_features']:,} features")
    print(f"Temperature  {card.temperature:.4f}  {card.calibration.get('note') or ''}".rstrip())
    data, n_train, seed = training.get("data", "?"), training.get("n_train", 0), training.get("seed", "?")
    print(f"Trained on   {data}, {n_train:,} pictures, seed {seed}")
    if metrics := training.get("metrics"):
        print(
            f"Held out     accuracy {100 * metrics['accuracy']:.1f} % ({100 * metrics['accuracy_low']:.1f} … "
            f"{100 * metrics['accuracy_high']:.1f}), NLL {metrics['nll']:.4f}, calibration error "
            f"{100 * metrics['ece']:.1f} % on {metrics['n_test']:,} pictures"
        )
    return 0
