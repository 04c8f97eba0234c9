"""Backbones by name."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from luce import seal
from luce.backbones import efficientnet_lite, external, pixels
from luce.backbones.backbone import Backbone
from luce.backbones.closed import parse
from luce.datasets.download import download
from luce.errors import DownloadError, LuceError, ModelError
from luce.files import write_atomically
from luce.images import Preparation
from luce.paths import cache_dir

EFFICIENTNET_LITE0 = "efficientnet-lite0"
NAMES = ("none", EFFICIENTNET_LITE0)
_GRAPH_VERSION = 2
_HUB = "https://huggingface.co"  # HF_ENDPOINT names another, as in Hugging Face's own tools
_HUB_FILES = ("onnx/model.onnx", "model.onnx")
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # of a path: nothing that leads out of a folder
_HUB_NAME = re.compile(rf"hf:({_PART}/{_PART})(?::((?:{_PART}/)*{_PART}\.onnx))?")

Progress = Callable[[str, int, int], None]


def open_backbone(name: str, size: tuple[int, int], *, grey: bool, progress: Progress) -> Backbone:
    """Open a backbone.

    Args:
        name: "none" (the pixels themselves), "efficientnet-lite0", the path of an ONNX file, or
            `hf:owner/repo[:file]`.
        size: width and height that pixels are prepared to; networks have their own.
        grey: the pictures have no colour; only pixels care.
        progress: called with (label, done, total) while downloading.

    Raises:
        ValueError: an unknown name.
        ModelError, DownloadError: the file is not to be had or cannot serve.
    """
    if name == "none":
        return _pixels(size, grey=grey)
    if name == EFFICIENTNET_LITE0:
        return _efficientnet_lite0()
    if name.startswith("hf:"):
        return _from_hub(name, progress)
    if name.endswith(".onnx"):
        return external.read(Path(name), name)
    raise ValueError(
        f"unknown backbone {name!r}: it must be one of {', '.join(NAMES)}, the path of an .onnx file, "
        "or hf:owner/repo[:file]"
    )


def _pixels(size: tuple[int, int], *, grey: bool) -> Backbone:
    width, height = size
    graph = pixels.build(width, height, grey=grey).SerializeToString()
    spec = Preparation(width, height, fit="squash", mode="grey" if grey else "rgb")
    n_features = width * height * (1 if grey else 3)
    return Backbone("none", graph, "", "", n_features, np.dtype(np.uint8), spec)


def _efficientnet_lite0() -> Backbone:
    # The whole picture, not a centre crop: right on 0.912 of TrashNet's validation part, not 0.887 (last stage only).
    spec = Preparation(efficientnet_lite.SIZE, efficientnet_lite.SIZE, fit="squash", filter="bicubic")
    return Backbone(
        EFFICIENTNET_LITE0,
        _cached_graph(),
        efficientnet_lite.WEIGHTS_SHA256,
        "Apache-2.0",
        efficientnet_lite.N_FEATURES,
        np.dtype(np.float32),
        spec,
    )


def _cached_graph() -> bytes:
    """The graph from the cache, or built now and put there. A damaged file is built again."""
    path = cache_dir() / "backbones" / f"{EFFICIENTNET_LITE0}-{_GRAPH_VERSION}.onnx"
    try:
        data = path.read_bytes()
        seal.check(data)
    except (OSError, ModelError):
        data = seal.seal(efficientnet_lite.build().SerializeToString())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data)
        except (OSError, LuceError):
            pass  # a cache that cannot be written costs time, nothing else
    return data


def _from_hub(name: str, progress: Progress) -> Backbone:
    match = _HUB_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"backbone {name!r}: it must look like hf:owner/repo or hf:owner/repo:folder/file.onnx")
    repository, file = match.groups()
    base = f"{(os.environ.get('HF_ENDPOINT') or _HUB).rstrip('/')}/{repository}/resolve/main"

    def fetch_config(path: Path) -> None:
        with contextlib.suppress(_NotThere):  # the reader then says what to put there
            _download(f"{base}/{external.CONFIG}", path, _json_wrong, progress)

    path = _network(name, base, (file,) if file else _HUB_FILES, cache_dir() / "hub" / repository, progress)
    return external.read(path, name, "see the model's page on the hub", fetch_config)


def _network(name: str, base: str, files: tuple[str, ...], folder: Path, progress: Progress) -> Path:
    """The first of the files that is in the cache, else the first that the hub has."""
    for file in files:
        if (folder / file).exists():
            return folder / file
    for file in files:
        with contextlib.suppress(_NotThere):
            return _download(f"{base}/{file}", folder / file, _onnx_wrong, progress)
    raise DownloadError(
        f"backbone {name!r}: {base} has no {' and no '.join(files)}; look up the path of an .onnx file on the model's "
        "page and write hf:owner/repo:folder/file.onnx"
    )


class _NotThere(Exception):
    """The hub answers that it has no such file."""


def _download(url: str, path: Path, check: Callable[[Path], str], progress: Progress) -> Path:
    try:
        return download(url, path, check=check, progress=progress)
    except DownloadError as error:
        if "HTTP status 404" in str(error):
            raise _NotThere from None
        raise


def _onnx_wrong(path: Path) -> str:
    try:
        parse(path.read_bytes())
    except ModelError as error:
        return str(error)
    return ""


def _json_wrong(path: Path) -> str:
    try:
        json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        return "it is not JSON"
    return ""
