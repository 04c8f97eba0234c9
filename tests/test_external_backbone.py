"""ONNX networks of other people as backbones: what they compute, and what is refused with one message."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from luce import model_file
from luce.backbones import Backbone, open_backbone, open_session, run
from luce.card import Card
from luce.errors import DownloadError, ModelError
from luce.images import Preparation

Pixels = NDArray[np.uint8]
Shape = list[str | int | None]

SIDE = 4
CONFIG = {
    "size": {"height": SIDE, "width": SIDE},
    "rescale_factor": 1 / 128,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.5, 0.25, 2.0],
    "resample": 2,
}
WEIGHT = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUCE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def network(
    nodes: list[onnx.NodeProto],
    outputs: dict[str, Shape],
    *,
    shape: Shape | None = None,
    kind: int = TensorProto.FLOAT,
    weights: dict[str, NDArray[Any]] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model with the input `x`, (batch, 3, SIDE, SIDE) float32 unless told otherwise."""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", kind, shape or ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def convolution(output: str = "map", *, shape: Shape | None = None, opset: int = 17) -> onnx.ModelProto:
    """A 1 x 1 convolution with WEIGHT: a map of 5 channels."""
    node = helper.make_node("Conv", ["x", "w"], [output])
    weights = {"w": WEIGHT[:, :, None, None]}
    return network([node], {output: ["batch", 5, None, None]}, shape=shape, weights=weights, opset=opset)


def flat() -> onnx.ModelProto:
    """Every number of the input, in the order the network sees them."""
    return network([helper.make_node("Flatten", ["x"], ["y"], axis=1)], {"y": ["batch", None]})


def save(folder: Path, model: onnx.ModelProto | bytes, config: object = CONFIG) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "net.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (folder / "preprocessor_config.json").write_text(text)
    return path


def silent(*_: object) -> None:
    pass


def opened(path: Path | str) -> Backbone:
    return open_backbone(str(path), (7, 7), grey=False, progress=silent)


def pixels(height: int = SIDE, width: int = SIDE, n: int = 6) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3)).astype(np.uint8)


def features(backbone: Backbone, images: Pixels) -> NDArray[np.float32]:
    out = run(open_session(backbone.graph), images)[0].astype(np.float32)
    assert out.shape == (len(images), backbone.n_features)
    return out


def seen(images: Pixels, scale: float, mean: list[float], std: list[float]) -> NDArray[np.float64]:
    """What Hugging Face's processors give the network: rescaled, normalised, channels first."""
    return ((images.astype(np.float64) * scale - mean) / std).transpose(0, 3, 1, 2)


def close(ours: NDArray[np.float32], truth: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(ours, truth, rtol=1e-5, atol=1e-5 * np.abs(truth).max())


# -- what comes out


def test_a_map_is_averaged_after_the_configured_normalisation(tmp_path: Path) -> None:
    backbone = opened(save(tmp_path, convolution()))
    x = seen(pixels(), 1 / 128, [0.1, 0.2, 0.3], [0.5, 0.25, 2.0])
    close(features(backbone, pixels()), np.einsum("nchw,oc->no", x, WEIGHT) / SIDE**2)
    assert backbone.preparation == Preparation(SIDE, SIDE, fit="squash", filter="bilinear")
    assert backbone.dtype == np.float32
    assert backbone.n_features == 5


def test_tokens_are_averaged(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "to"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["tokens"], perm=[0, 2, 1]),
    ]
    model = network(nodes, {"tokens": ["batch", None, 3]}, weights={"to": np.array([0, 3, -1])})
    x = seen(pixels(), 1 / 128, [0.1, 0.2, 0.3], [0.5, 0.25, 2.0])
    close(features(opened(save(tmp_path, model)), pixels()), x.mean(axis=(2, 3)))


def test_vectors_are_taken_as_they_are(tmp_path: Path) -> None:
    x = seen(pixels(), 1 / 128, [0.1, 0.2, 0.3], [0.5, 0.25, 2.0])
    close(features(opened(save(tmp_path, flat())), pixels()), x.reshape(len(x), -1))


@pytest.mark.parametrize(
    ("change", "scale", "mean", "std"),
    [
        ({"do_rescale": False}, 1, [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]),
        ({"do_normalize": False}, 1 / 128, [0.0] * 3, [1.0] * 3),
        ({"do_normalize": False, "do_rescale": False}, 1, [0.0] * 3, [1.0] * 3),
        ({"do_normalize": False, "image_mean": None}, 1 / 128, [0.0] * 3, [1.0] * 3),
        ({"rescale_factor": 0.5}, 0.5, [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]),
        ({"image_mean": [100, 50, 0], "do_rescale": False}, 1, [100, 50, 0], [0.5, 0.25, 2.0]),
    ],
)
def test_the_config_decides_what_the_network_sees(
    tmp_path: Path, change: dict[str, object], scale: float, mean: list[float], std: list[float]
) -> None:
    x = seen(pixels(), scale, mean, std)
    close(features(opened(save(tmp_path, flat(), CONFIG | change)), pixels()), x.reshape(len(x), -1))


def test_without_a_rescale_factor_pixels_become_0_to_1(tmp_path: Path) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "rescale_factor"}
    x = seen(pixels(), 1 / 255, [0.1, 0.2, 0.3], [0.5, 0.25, 2.0])
    close(features(opened(save(tmp_path, flat(), config)), pixels()), x.reshape(len(x), -1))


@pytest.mark.parametrize(
    ("change", "height", "width"),
    [
        ({"size": 6}, 6, 6),
        ({"size": {"height": 5, "width": 7}}, 5, 7),
        ({"size": {"shortest_edge": 9}}, 9, 9),
        ({"size": 9, "crop_size": 6}, 6, 6),
        ({"size": {"shortest_edge": 9}, "crop_size": {"height": 5, "width": 6}}, 5, 6),
        ({"size": 9, "crop_size": 6, "do_center_crop": False}, 9, 9),
    ],
)
def test_a_network_for_any_size_gets_that_of_the_config(
    tmp_path: Path, change: dict[str, object], height: int, width: int
) -> None:
    backbone = opened(save(tmp_path, convolution(shape=["batch", 3, "h", "w"]), CONFIG | change))
    assert (backbone.preparation.height, backbone.preparation.width) == (height, width)
    x = seen(pixels(height, width), 1 / 128, [0.1, 0.2, 0.3], [0.5, 0.25, 2.0])
    close(features(backbone, pixels(height, width)), np.einsum("nchw,oc->no", x, WEIGHT) / (height * width))


def test_a_size_of_minus_one_in_the_network_means_any(tmp_path: Path) -> None:
    backbone = opened(save(tmp_path, convolution(shape=["batch", 3, -1, -1]), CONFIG | {"size": 6}))
    assert (backbone.preparation.height, backbone.preparation.width) == (6, 6)


def test_the_networks_own_size_wins_over_the_config(tmp_path: Path) -> None:
    backbone = opened(save(tmp_path, convolution(shape=["batch", 3, 5, 6]), CONFIG | {"size": 99}))
    assert (backbone.preparation.height, backbone.preparation.width) == (5, 6)


@pytest.mark.parametrize(
    ("number", "name"), [(0, "nearest"), (1, "lanczos"), (2, "bilinear"), (3, "bicubic"), (4, "box")]
)
def test_resample_numbers_are_pillows(tmp_path: Path, number: int, name: str) -> None:
    assert opened(save(tmp_path, flat(), CONFIG | {"resample": number})).preparation.filter == name


def raw(shape: Shape | None = None) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["y"], axis=1),
    ]
    return network(nodes, {"y": ["batch", None]}, shape=shape or ["batch", 5, 6, 3], kind=TensorProto.UINT8)


def test_a_network_for_uint8_pixels_needs_no_config_and_gets_them_unchanged(tmp_path: Path) -> None:
    backbone = opened(save(tmp_path, raw(), None))
    images = pixels(5, 6)
    assert np.array_equal(features(backbone, images), images.reshape(len(images), -1).astype(np.float32))
    assert backbone.preparation == Preparation(6, 5, fit="squash")


@pytest.mark.parametrize("name", ["features", "embedding", "embeddings", "pooler_output", "image_embeds"])
def test_the_output_with_a_known_name_is_preferred(tmp_path: Path, name: str) -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["first"], axis=1),
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], [name], axis=1),
    ]
    model = network(nodes, {"first": ["batch", None], name: ["batch", 3]})
    x = seen(pixels(), 1 / 128, [0.1, 0.2, 0.3], [0.5, 0.25, 2.0])
    close(features(opened(save(tmp_path, model)), pixels()), x.mean(axis=(2, 3)))


def test_without_a_known_name_the_first_output_counts(tmp_path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["b"], axis=1), helper.make_node("GlobalAveragePool", ["x"], ["a"])]
    model = network(nodes, {"b": ["batch", None], "a": ["batch", 3, 1, 1]})
    assert opened(save(tmp_path, model)).n_features == 3 * SIDE**2


# -- what a model file is made of


def head_on(backbone: Backbone) -> bytes:
    """A model file with an arbitrary head on the backbone."""
    card = Card(
        classes=("a", "b"),
        preparation=backbone.preparation,
        backbone={"name": backbone.name, "sha256": "", "licence": "", "n_features": backbone.n_features},
        temperature=1.5,
        calibration={"method": "none", "note": ""},
        training={},
    )
    return model_file.build(backbone.graph, np.ones((2, backbone.n_features)), np.zeros(2), card)


def clash() -> onnx.ModelProto:
    """A network that uses all the names that Luce uses."""
    weights = {name: np.float32(1) * np.ones(1, np.float32) for name in ("head.weight", "head.temperature")}
    nodes = [
        helper.make_node("Mul", ["x", "head.weight"], ["pixels"]),
        helper.make_node("Mul", ["pixels", "head.temperature"], ["scaled"]),
        helper.make_node("Identity", ["scaled"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"], axis=1),
        helper.make_node("Identity", ["logits"], ["images"]),
    ]
    return network(nodes, {"images": ["batch", None]}, weights=weights)


def with_empty_inputs() -> onnx.ModelProto:
    """A node with an input left out."""
    nodes = [helper.make_node("Clip", ["x", "", "top"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["y"])]
    return network(nodes, {"y": ["batch", 3, 1, 1]}, weights={"top": np.array(0.5, np.float32)})


def of_old_ir() -> onnx.ModelProto:
    """IR version 3: weights are listed among the inputs."""
    model = convolution(opset=11)
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [5, 3, 1, 1]))
    return model


@pytest.mark.parametrize(
    "make", [convolution, flat, clash, with_empty_inputs, of_old_ir, lambda: convolution(opset=11)]
)
def test_what_opens_as_a_backbone_becomes_a_model_file(tmp_path: Path, make: Callable[[], onnx.ModelProto]) -> None:
    backbone = opened(save(tmp_path, make()))
    data = head_on(backbone)
    model_file.check(data)
    onnx.checker.check_model(data)
    logits = run(open_session(data), pixels())[0].astype(np.float64)
    sums = features(backbone, pixels()).sum(axis=1)
    np.testing.assert_allclose(logits[:, 0], sums, rtol=1e-4, atol=1e-3)


def test_the_key_changes_with_the_network_and_with_its_config_but_not_with_its_place(tmp_path: Path) -> None:
    first = opened(save(tmp_path / "a", convolution())).key
    assert opened(save(tmp_path / "b", convolution())).key == first
    assert opened(save(tmp_path / "b", convolution(), CONFIG | {"image_mean": [0, 0, 0]})).key != first
    assert opened(save(tmp_path / "b", convolution(), CONFIG | {"resample": 3})).key != first
    assert opened(save(tmp_path / "b", convolution("features"))).key != first


# -- what is refused


def with_two_inputs() -> onnx.ModelProto:
    model = flat()
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
    return model


def without_output() -> onnx.ModelProto:
    model = flat()
    del model.graph.output[:]
    return model


def with_external_weights() -> onnx.ModelProto:
    model = convolution()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    return model


def with_external_constant() -> onnx.ModelProto:
    model = convolution()
    weight = model.graph.initializer.pop()
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=weight))
    return model


def of_domain(domain: str) -> onnx.ModelProto:
    model = network([helper.make_node("Normalizer", ["x"], ["y"], domain=domain)], {"y": ["batch", None]})
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


def with_a_branch() -> onnx.ModelProto:
    branch = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["b"], axis=1)],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    return network([node], {"y": ["batch", None]}, weights={"yes": np.array(True)})


def with_a_function() -> onnx.ModelProto:
    model = network([helper.make_node("F", ["x"], ["y"], domain="com.microsoft")], {"y": ["batch", None]})
    body = [helper.make_node("Flatten", ["a"], ["b"], axis=1)]
    model.functions.append(
        helper.make_function("com.microsoft", "F", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    )
    return model


def of_rank(rank: int) -> onnx.ModelProto:
    shape = np.array([0, *[1] * (rank - 2), -1])
    node = helper.make_node("Reshape", ["x", "to"], ["y"])
    return network([node], {"y": ["batch", *[None] * (rank - 1)]}, weights={"to": shape})


def lying_about_its_size() -> onnx.ModelProto:
    model = convolution()
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 20, 1, 1]
    return model


def for_one_picture_only() -> onnx.ModelProto:
    node = helper.make_node("Reshape", ["x", "to"], ["y"])
    return network([node], {"y": [1, None]}, weights={"to": np.array([1, -1])})


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (with_two_inputs(), "it has 2 inputs; a backbone has one"),
        (without_output(), "no output"),
        (with_external_weights(), "its weights refer to another file; save it with the weights inside"),
        (with_external_constant(), "its weights refer to another file; save it with the weights inside"),
        (of_domain("ai.onnx.ml"), "operators of an unknown origin: 'ai.onnx.ml'"),
        (of_domain("example.org"), "operators of an unknown origin: 'example.org'"),
        (with_a_branch(), "loops, branches or functions"),
        (with_a_function(), "loops, branches or functions"),
        (of_rank(5), "its output has 5 dimensions"),
        (lying_about_its_size(), r"its weights 'w' have the shape \[1048576, 1048576, 1, 1\]"),
        (for_one_picture_only(), r"it gives float32 of shape \(1, 96\) for 2 pictures"),
        (convolution(opset=10), "opset 10 is too old; export it with opset 11 or newer"),
        (convolution(shape=["batch", 3, SIDE]), "its input has 3 dimensions; pictures have 4"),
        (convolution(shape=["batch", 1, SIDE, SIDE]), "its input is neither float32"),
        (convolution(shape=["batch", 3, SIDE, 5000]), "it wants pictures of 5000 x 4 pixels; 4096 a side are allowed"),
        (raw(["batch", 5, 9000, 3]), "it wants pictures of 9000 x 5 pixels"),
        (raw(["batch", "h", 6, 3]), "its input has no fixed height and width"),
        (raw(["batch", 3, 5, 6]), "its input is neither float32"),
        (network([helper.make_node("Nonsense", ["x"], ["y"])], {"y": ["batch", 1]}), "not valid ONNX: .*Nonsense"),
        (network([helper.make_node("Flatten", ["q"], ["y"])], {"y": ["batch", 1]}), "not valid ONNX"),
        (b"", "empty or not an ONNX file"),
        (b"<!doctype html><title>Log in</title>", "damaged or not an ONNX file"),
        (flat().SerializeToString()[:-5], "damaged or not an ONNX file"),
    ],
)
def test_a_network_that_cannot_serve_is_refused_when_it_is_opened(
    tmp_path: Path, model: onnx.ModelProto | bytes, reason: str
) -> None:
    path = save(tmp_path, model)
    with pytest.raises(ModelError, match=reason) as caught:
        opened(path)
    assert str(caught.value).startswith(f"{path}: cannot serve as a backbone: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "it is not known how it wants its pixels. Put a file preprocessor_config.json beside it"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "has a value of the wrong kind"),
        ("null", "has a value of the wrong kind"),
        ({k: v for k, v in CONFIG.items() if k != "image_mean"}, "misses or misstates 'image_mean'"),
        ({k: v for k, v in CONFIG.items() if k != "image_std"}, "misses or misstates 'image_std'"),
        (CONFIG | {"image_mean": [1, 2]}, "must be 3 numbers each"),
        (CONFIG | {"image_mean": [1, 2, float("nan")]}, "must be 3 numbers each"),
        (CONFIG | {"image_std": [1, float("nan"), 1]}, "must be 3 numbers each"),
        (CONFIG | {"image_mean": "abc"}, "wrong kind"),
        (CONFIG | {"image_mean": 0.5}, "wrong kind"),
        (CONFIG | {"image_std": [1, 0, 1]}, "not above 0"),
        (CONFIG | {"rescale_factor": 0}, "not above 0"),
        (CONFIG | {"rescale_factor": float("inf")}, "must be 3 numbers each"),
        (CONFIG | {"rescale_factor": 10**400}, "wrong kind"),
        (CONFIG | {"resample": 5}, "misses or misstates 5"),
        (CONFIG | {"resample": float("inf")}, "wrong kind"),
        (CONFIG | {"resample": "bilinear"}, "wrong kind"),
        (CONFIG | {"do_flip_channel_order": True}, "do_flip_channel_order is not supported"),
        (CONFIG | {"rescale_offset": True}, "rescale_offset is not supported"),
    ],
)
def test_a_config_that_does_not_say_it_all_is_refused(tmp_path: Path, config: object, reason: str) -> None:
    path = save(tmp_path, flat(), config)
    with pytest.raises(ModelError, match=reason) as caught:
        opened(path)
    assert str(caught.value).startswith(f"{path}: cannot serve as a backbone: ")


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (None, "missing or not above 0"),
        ({"longest_edge": 5}, "missing or not above 0"),
        (-3, "missing or not above 0"),
        ({"height": "tall", "width": 5}, "wrong kind"),
        ("tall", "wrong kind"),
        (1e400, "wrong kind"),
        ({"shortest_edge": 1e400}, "wrong kind"),
        (100_000, "100000 x 100000 pixels; 4096 a side are allowed"),
    ],
)
def test_a_network_for_any_size_needs_one_from_the_config(tmp_path: Path, size: object, reason: str) -> None:
    path = save(tmp_path, convolution(shape=["batch", 3, "h", "w"]), CONFIG | {"size": size})
    with pytest.raises(ModelError, match=reason):
        opened(path)


def test_a_config_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, flat(), None)
    (tmp_path / "preprocessor_config.json").write_bytes(b"\xff\xfe\0")
    with pytest.raises(ModelError, match="cannot be read"):
        opened(path)


def test_a_place_without_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    for name, reason in (
        ("folder.onnx", "a backbone is a file, this is not one"),
        ("pipe.onnx", "a backbone is a file, this is not one"),
        ("none.onnx", r"cannot be read \(No such file or directory\)"),
        ("a\0b.onnx", "this is no path"),
    ):
        with pytest.raises(ModelError, match=reason):
            opened(tmp_path / name)


def test_damage_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    whole = convolution().SerializeToString()
    path = save(tmp_path, whole)
    refused = 0
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x55
        path.write_bytes(changed)
        try:
            model_file.check(head_on(opened(path)))
        except ModelError:
            refused += 1
    assert refused > len(whole) // 4


@pytest.mark.parametrize("name", ["resnet", "", "net.pt", "None", "hf", "/"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown backbone .* none, efficientnet-lite0, the path of an \.onnx"):
        opened(name)


# -- from the hub


@dataclass
class Hub:
    """A hub on this machine: files by their whole path, and the requests it has had."""

    address: str
    files: dict[str, bytes]
    requests: list[str] = field(default_factory=list)
    breaks_off: bool = False


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(self.path)
            body = served.files.get(self.path)
            self.send_response(404 if body is None else 200)
            body = b"Entry not found" if body is None else body
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if served.breaks_off else body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Hub(f"http://127.0.0.1:{server.server_address[1]}", {})
    monkeypatch.setenv("HF_ENDPOINT", served.address + "/")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


MAIN = "/owner/repo/resolve/main"
JSON = f"{MAIN}/preprocessor_config.json"


def configured() -> bytes:
    return json.dumps(CONFIG).encode()


@pytest.mark.parametrize(
    ("name", "path", "asked"),
    [
        ("hf:owner/repo", "onnx/model.onnx", ["onnx/model.onnx"]),
        ("hf:owner/repo", "model.onnx", ["onnx/model.onnx", "model.onnx"]),
        ("hf:owner/repo:deep/er/net_v1.0.onnx", "deep/er/net_v1.0.onnx", ["deep/er/net_v1.0.onnx"]),
    ],
)
def test_a_network_comes_from_its_exact_place_on_the_hub(hub: Hub, name: str, path: str, asked: list[str]) -> None:
    content = convolution().SerializeToString()
    hub.files |= {f"{MAIN}/{path}": content, JSON: configured()}
    backbone = opened(name)
    assert hub.requests == [*[f"{MAIN}/{file}" for file in asked], JSON]
    assert backbone.name == name
    assert backbone.sha256 == hashlib.sha256(content).hexdigest()
    x = seen(pixels(), 1 / 128, [0.1, 0.2, 0.3], [0.5, 0.25, 2.0])
    close(features(backbone, pixels()), np.einsum("nchw,oc->no", x, WEIGHT) / SIDE**2)


@pytest.mark.parametrize("path", ["onnx/model.onnx", "model.onnx"])
def test_a_second_opening_asks_nobody_and_works_without_a_network(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    hub.files |= {f"{MAIN}/{path}": convolution().SerializeToString(), JSON: configured()}
    first = opened("hf:owner/repo")
    hub.requests.clear()
    hub.files.clear()
    assert opened("hf:owner/repo") == first
    assert hub.requests == []
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert opened("hf:owner/repo") == first


def test_a_network_for_uint8_pixels_is_not_asked_for_a_config(hub: Hub) -> None:
    hub.files |= {f"{MAIN}/model.onnx": raw().SerializeToString()}
    opened("hf:owner/repo:model.onnx")
    opened("hf:owner/repo:model.onnx")
    assert hub.requests == [f"{MAIN}/model.onnx"]


def test_without_a_config_on_the_hub_the_message_says_where_to_put_one(hub: Hub, cache: Path) -> None:
    hub.files |= {f"{MAIN}/model.onnx": flat().SerializeToString()}
    with pytest.raises(ModelError, match=r"Put a file preprocessor_config\.json beside it") as caught:
        opened("hf:owner/repo:model.onnx")
    place = Path(str(caught.value).split(": cannot serve")[0])
    assert place.is_relative_to(cache)
    (place.parent / "preprocessor_config.json").write_bytes(configured())
    assert opened("hf:owner/repo:model.onnx").n_features == 3 * SIDE**2


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("hf:owner/repo", "has no onnx/model.onnx and no model.onnx"),
        ("hf:owner/repo:a.onnx", "has no a.onnx"),
    ],
)
def test_what_the_hub_does_not_have_is_said_in_one_message(hub: Hub, cache: Path, name: str, missing: str) -> None:
    with pytest.raises(DownloadError, match=missing) as caught:
        opened(name)
    assert f"{hub.address}{MAIN}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_download_that_breaks_off_is_said_and_leaves_nothing(hub: Hub, cache: Path) -> None:
    hub.files |= {f"{MAIN}/onnx/model.onnx": convolution().SerializeToString(), JSON: configured()}
    hub.breaks_off = True
    with pytest.raises(DownloadError, match="broke off"):
        opened("hf:owner/repo")
    assert hub.requests == [f"{MAIN}/onnx/model.onnx"]  # another file would not be what was broken off
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    hub.breaks_off = False
    assert opened("hf:owner/repo").n_features == 5


@pytest.mark.parametrize(
    "page", [b"<!doctype html><title>Log in</title>", b"", b"version https://git-lfs", b"\x08\x07"]
)
def test_a_page_or_a_pointer_in_place_of_the_files_is_not_kept(hub: Hub, cache: Path, page: bytes) -> None:
    hub.files |= {f"{MAIN}/m.onnx": page, JSON: page}
    with pytest.raises(DownloadError, match=r"m\.onnx: other bytes than expected"):
        opened("hf:owner/repo:m.onnx")
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    hub.files[f"{MAIN}/m.onnx"] = flat().SerializeToString()
    with pytest.raises(DownloadError, match=r"config\.json: other bytes than expected"):
        opened("hf:owner/repo:m.onnx")
    hub.files[JSON] = configured()
    assert opened("hf:owner/repo:m.onnx").n_features == 3 * SIDE**2


def test_repositories_never_share_a_file(hub: Hub) -> None:
    for i, repository in enumerate(("a--b/c", "a/b--c", "a/b")):
        shape: Shape = ["batch", i + 1, i + 1, 3]
        hub.files[f"/{repository}/resolve/main/model.onnx"] = raw(shape).SerializeToString()
    sizes = [opened(f"hf:{repository}:model.onnx").n_features for repository in ("a--b/c", "a/b--c", "a/b")]
    assert sizes == [3, 12, 27]


@pytest.mark.parametrize(
    "name",
    [
        "hf:",
        "hf:a",
        "hf:a/",
        "hf:a/b/c",
        "hf:../x",
        "hf:x/..",
        "hf:./x",
        "hf:a/b:",
        "hf:a/b:c",
        "hf:a/b:.onnx",
        "hf:a/b:../../c.onnx",
        "hf:a/b:c/../../../d.onnx",
        "hf:a/b:/c.onnx",
        "hf:a/b:c//d.onnx",
        "hf:a/b:c\\..\\d.onnx",
        "hf:a b/c",
        "hf:a/b?c",
        "hf:a/b:c.onnx\n",
        "hf:a/b\n",
        "hf:a/b#:c.onnx",
        "hf:a/%2e%2e",
    ],
)
def test_names_that_lead_elsewhere_are_refused_before_anything_is_asked(hub: Hub, name: str) -> None:
    with pytest.raises(ValueError, match=r"it must look like hf:owner/repo or hf:owner/repo:folder/file\.onnx"):
        opened(name)
    assert hub.requests == []
