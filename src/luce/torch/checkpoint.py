"""The state of a training on disk: the old one or the new one, never half of one, and never another training's."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from luce.errors import LuceError
from luce.files import write_atomically
from luce.torch.recipe import Recipe

_FORMAT = 1


class Checkpoint:
    """A file that keeps the state of one training.

    Args:
        path: of the file; it need not exist.
        identity: what the training is, see `identity`; a file of another one is refused.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity

    def save(self, state: dict[str, Any]) -> None:
        """Replace what is there.

        Raises:
            LuceError: it cannot be written; the old one is untouched.
        """
        buffer = io.BytesIO()
        torch.save({"format": _FORMAT, "identity": self.identity, "state": state}, buffer)
        write_atomically(self.path, buffer.getvalue())

    def load(self) -> dict[str, Any] | None:
        """The state that is there, or `None` without a file. Nothing in a file is executed.

        Raises:
            LuceError: it is damaged, or belongs to another training.
        """
        try:
            content = torch.load(self.path, weights_only=True)
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise LuceError(f"{self.path}: the checkpoint is damaged; delete it to begin anew") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise LuceError(f"{self.path}: no checkpoint of this version of Luce; delete it to begin anew")
        if content["identity"] != self.identity:
            raise LuceError(
                f"{self.path}: the checkpoint is of another training (other pictures, settings, seed or threads); "
                "repeat that training's command, or delete the file to begin anew"
            )
        state: dict[str, Any] = content["state"]
        return state


def epochs_in(path: Path) -> int | None:
    """How many epochs the training of a checkpoint was to have, or `None` without one that can be read."""
    try:
        return int(torch.load(path, weights_only=True)["state"]["epochs"])
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
        return None  # whoever goes on from it says what is wrong


def identity(recipe: Recipe, pictures: Tensor, target: Tensor, seed: int) -> str:
    """What makes two trainings the same: data, recipe, seed, number of threads and version of torch."""
    digest = hashlib.sha256(pictures.contiguous().numpy().data)
    digest.update(target.contiguous().numpy().data)
    settings = {"recipe": recipe.record(), "seed": seed, "threads": torch.get_num_threads(), "torch": torch.__version__}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()
