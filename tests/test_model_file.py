"""The model file: plain ONNX for everybody, and refused with a reason when it is not what Luce wrote."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from luce import model_file, seal
from luce.backbones import open_backbone
from luce.card import Card
from luce.errors import LuceError, ModelError
from luce.heads import is_sparse
from luce.images import Preparation
from luce.links import Entmax, Link, Softmax, Sparsemax, Spherical, Taylor
from luce.model_file import CARD_KEY, GOLDEN_KEY, Golden

WIDTH, HEIGHT, K = 5, 4, 3
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(K, WIDTH * HEIGHT * 3)) / 1000
BIAS = RNG.normal(size=K)
IMAGES = RNG.integers(0, 256, (7, HEIGHT, WIDTH, 3)).astype(np.uint8)
CARD = Card(
    classes=("ant", "Bär", "猫 cat"),
    preparation=Preparation(WIDTH, HEIGHT, fit="squash"),
    backbone={"name": "none", "sha256": "", "licence": "", "n_features": WIDTH * HEIGHT * 3},
    temperature=1.7,
    calibration={"method": "temperature", "n_rows": 40, "nll_before": 1.5, "nll_after": None, "note": "a note"},
    training={"luce_version": "0", "data": "drawn", "n_train": 40, "metrics": {"accuracy": 0.5}, "path": [[0.1, 2.0]]},
)
GOLDEN = [
    Golden(IMAGES[0], np.array([0.1, 0.2, 0.7], np.float32)),
    Golden(IMAGES[1], np.array([1e-42, 1.0, np.nextafter(np.float32(0.5), np.float32(1))], np.float32)),
]


def built(card: Card = CARD, golden: list[Golden] = GOLDEN) -> bytes:
    backbone = open_backbone("none", (WIDTH, HEIGHT), grey=False, progress=lambda *_: None)
    return model_file.build(backbone.graph, WEIGHTS, BIAS, card, golden)


DATA = built()


def truth(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    logits = images.reshape(len(images), -1) @ WEIGHTS.T + BIAS
    e = np.exp(logits / CARD.temperature)
    return logits, e / e.sum(axis=1, keepdims=True)


# -- what is written


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model_file.write(path, DATA)
    data, card = model_file.read(path)
    assert data == DATA
    assert card == CARD
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_anybody_can_run_it(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model_file.write(path, DATA)
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    described = [(v.name, v.type, v.shape[1:]) for v in (*session.get_inputs(), *session.get_outputs())]
    assert described == [
        ("images", "tensor(uint8)", [HEIGHT, WIDTH, 3]),
        ("logits", "tensor(float)", [K]),
        ("probabilities", "tensor(float)", [K]),
    ]
    for n in (1, 7):
        logits, probabilities = session.run(["logits", "probabilities"], {"images": IMAGES[:n]})
        np.testing.assert_allclose(logits, truth(IMAGES[:n])[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(probabilities, truth(IMAGES[:n])[1], rtol=1e-5, atol=0)


def test_the_head_alone_computes_the_same() -> None:
    features = IMAGES.reshape(len(IMAGES), -1)
    for dtype in (np.uint8, np.float32):
        head = model_file.build_head(WEIGHTS, BIAS, CARD.temperature, dtype=np.dtype(dtype))
        onnx.checker.check_model(head, full_check=True)
        session = onnxruntime.InferenceSession(head, providers=["CPUExecutionProvider"])
        whole = onnxruntime.InferenceSession(DATA, providers=["CPUExecutionProvider"])
        alone = session.run(None, {"features": features.astype(dtype)})
        for ours, expected in zip(alone, whole.run(None, {"images": IMAGES}), strict=True):
            assert np.array_equal(ours, expected)


def test_building_is_deterministic() -> None:
    assert built() == DATA


def test_golden_vectors_come_back_exactly() -> None:
    found = model_file.golden_vectors(DATA, CARD)
    assert len(found) == len(GOLDEN)
    for ours, expected in zip(found, GOLDEN, strict=True):
        assert np.array_equal(ours.pixels, expected.pixels)
        assert ours.probabilities.dtype == np.float32
        assert ours.probabilities.tobytes() == expected.probabilities.tobytes()
    assert model_file.golden_vectors(built(golden=[]), CARD) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_no_number_that_json_does_not_know_is_written(bad: float) -> None:
    for card in (
        replace(CARD, training={"metrics": {"nll": bad}}),
        replace(CARD, calibration={**CARD.calibration, "nll_before": bad}),
        replace(CARD, temperature=bad),
    ):
        with pytest.raises(ValueError, match="not JSON compliant"):
            card.to_json()
        with pytest.raises(ValueError, match="not JSON compliant"):
            built(card)
    with pytest.raises(ValueError, match="not JSON compliant"):
        built(golden=[Golden(IMAGES[0], np.array([0, 0, bad], np.float32))])


def test_the_old_file_stays_when_the_new_one_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    model_file.write(path, DATA)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LuceError, match="No space left on device"):
        model_file.write(path, built(golden=[]))
    assert path.read_bytes() == DATA
    assert os.listdir(tmp_path) == ["m.onnx"]


# -- damage


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(DATA) - 1), st.integers(0, 7))
def test_every_flipped_bit_is_noticed(position: int, bit: int) -> None:
    changed = bytearray(DATA)
    changed[position] ^= 1 << bit
    with pytest.raises(ModelError):
        model_file.check(bytes(changed))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(DATA) - 1), st.binary(max_size=3))
def test_every_cut_is_noticed(length: int, tail: bytes) -> None:
    if DATA[:length] + tail != DATA:
        with pytest.raises(ModelError):
            model_file.check(DATA[:length] + tail)


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_every_appended_byte_is_noticed(tail: bytes) -> None:
    with pytest.raises(ModelError):
        model_file.check(DATA + tail)
    with pytest.raises(ModelError):
        model_file.check(tail + DATA)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(DATA) - 200), st.integers(1, 255))
def test_damage_under_a_fitting_seal_is_refused_or_harmless(position: int, mask: int) -> None:
    """Whoever seals a damaged file again gets a reason or a card, nothing else."""
    changed = bytearray(unsealed(DATA))
    changed[position % len(changed)] ^= mask
    with contextlib.suppress(ModelError):
        card = model_file.check(seal.seal(bytes(changed)))
        assert len(card.classes) == K


# -- foreign and hostile files


def unsealed(data: bytes) -> bytes:
    body = data[: -len(seal.seal(b""))]
    assert seal.seal(body) == data
    return body


def forged(change: Callable[[onnx.ModelProto], object], data: bytes = DATA) -> bytes:
    """The model with a change and a seal that fits."""
    model = onnx.load_model_from_string(unsealed(data))
    change(model)
    return seal.seal(model.SerializeToString())


def with_text(key: str, text: str) -> bytes:
    def change(model: onnx.ModelProto) -> None:
        for entry in model.metadata_props:
            if entry.key == key:
                entry.value = text

    return forged(change)


def with_card(**changes: object) -> bytes:
    return with_text(CARD_KEY, json.dumps(json.loads(CARD.to_json()) | changes))


def reason(data: bytes) -> str:
    """Why a file is refused: one line that says something."""
    with pytest.raises(ModelError) as caught:
        model_file.check(data)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_forging_alone_changes_nothing() -> None:
    assert model_file.check(forged(lambda _: None)) == CARD
    assert model_file.check(with_card()) == CARD


def test_foreign_files_are_refused() -> None:
    assert "it was not written by Luce" in reason(unsealed(DATA))
    assert "it was not written by Luce" in reason(b"")
    assert "it was not written by Luce" in reason(b"\x89PNG\r\n\x1a\n" * 100)
    for empty in (b"", b"\x08\x07"):
        assert "empty or not an ONNX file" in reason(seal.seal(empty))
    assert "damaged or not an ONNX file" in reason(seal.seal(b"<!doctype html>"))
    assert "no class names" in reason(forged(lambda m: m.metadata_props.pop(0)))
    assert "newer Luce (format 2, this one reads 1): update luce" in reason(with_card(format=2))


def test_a_file_that_describes_itself_twice_is_refused() -> None:
    card = CARD.to_json()
    assert "describes itself twice" in reason(forged(lambda m: m.metadata_props.add(key=CARD_KEY, value=card)))
    assert "describes itself twice" in reason(forged(lambda m: m.metadata_props.add(key=seal.KEY, value="0" * 64)))
    assert "a name comes twice" in reason(with_text(CARD_KEY, '{"classes": ["a", "b"], ' + card[1:]))


@pytest.mark.parametrize("text", ["", "null", "[]", "1", '"a"', "{", "[" * 100_000, '{"a":' * 50_000, "{}"])
def test_a_description_that_is_none_is_refused(text: str) -> None:
    assert "its description is incomplete or wrong" in reason(with_text(CARD_KEY, text))


KEYS = list(json.loads(CARD.to_json()))
WRONG: list[object] = [None, True, -1, 0, 1.5, 10**400, "", "abc", [], [[]], ["a", "a"], {}, {"a": 1}, [["name", "a"]]]


@pytest.mark.parametrize("key", KEYS)
def test_each_wrong_value_of_a_description_is_refused(key: str) -> None:
    content = json.loads(CARD.to_json())
    del content[key]
    assert f"'{key}' is missing" in reason(with_text(CARD_KEY, json.dumps(content)))
    fitting: dict[str, list[object]] = {"training": [{}, {"a": 1}]}
    for value in WRONG:
        if value not in fitting.get(key, []):
            assert reason(with_card(**{key: value}))


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("backbone", "name"),
        ("backbone", "sha256"),
        ("backbone", "licence"),
        ("backbone", "n_features"),
        ("link", "name"),
        ("calibration", "method"),
        ("calibration", "note"),
        *(("preparation", key) for key in CARD.preparation.to_dict()),
    ],
)
def test_each_part_of_the_description_is_whole(part: str, key: str) -> None:
    values = json.loads(CARD.to_json())[part]
    wrong: tuple[object, ...] = ([], {}, [1], 10**400 if key != "n_features" else 1.5)
    for value in wrong:
        assert reason(with_card(**{part: values | {key: value}}))
    del values[key]
    assert key in reason(with_card(**{part: values}))


@pytest.mark.parametrize("classes", [["a"], [], ["a", "b", "b"], ["a", "b", ""], ["a", "b", 3], ["a", "b"], "abc"])
def test_class_names_are_different_words_one_for_each_output(classes: object) -> None:
    assert "class" in reason(with_card(classes=classes))


def test_half_a_character_is_refused() -> None:
    assert "surrogates not allowed" in reason(with_card(classes=["a", "b", "\ud800"]))
    assert "surrogates not allowed" in reason(with_card(training={"data": "\udc80"}))


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "0", "-1", "1e400", "1e-300", "1e300", '"1.7"', "true"]
)
def test_temperatures_are_numbers_above_0(value: str) -> None:
    text = CARD.to_json().replace('"temperature": 1.7', f'"temperature": {value}')
    assert text != CARD.to_json()
    assert reason(with_text(CARD_KEY, text))


def test_true_is_no_temperature() -> None:
    warm = built(replace(CARD, temperature=1.0))
    text = CARD.to_json().replace('"temperature": 1.7', '"temperature": true')

    def change(model: onnx.ModelProto) -> None:
        model.metadata_props[0].value = text

    assert "its temperature is True" in reason(forged(change, warm))


def test_nothing_in_the_description_is_no_number() -> None:
    text = CARD.to_json().replace('"accuracy": 0.5', '"accuracy": NaN')
    assert "NaN is not a number in JSON" in reason(with_text(CARD_KEY, text))


@pytest.mark.parametrize("change", [{"width": 0}, {"width": 10**9}, {"crop": 0}, {"fit": "bend"}, {"version": 2}])
def test_preparations_out_of_range_are_refused(change: dict[str, object]) -> None:
    assert "Preparation" in reason(with_card(preparation=CARD.preparation.to_dict() | change))


def test_a_preparation_for_another_size_is_refused() -> None:
    assert "its input does not fit" in reason(with_card(preparation=CARD.preparation.to_dict() | {"width": 6}))


@pytest.mark.parametrize("value", [1.6, 1.70001, 1, 2])
def test_the_temperature_of_the_graph_is_the_one_that_is_stated(value: float) -> None:
    assert "its graph divides by another temperature" in reason(with_card(temperature=value))


def add_temperature(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array(1.7, np.float32), "head.temperature"))


def drop_temperature(model: onnx.ModelProto) -> None:
    kept = [tensor for tensor in model.graph.initializer if tensor.name != "head.temperature"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def other_link(model: onnx.ModelProto) -> None:
    model.graph.node[-1].op_type = "Sigmoid"
    del model.graph.node[-1].attribute[:]


def logits_for_probabilities(model: onnx.ModelProto) -> None:
    model.graph.node[-1].input[0] = "logits"


def fewer_nodes(model: onnx.ModelProto) -> None:
    del model.graph.node[:]


@pytest.mark.parametrize(
    "change", [add_temperature, drop_temperature, other_link, logits_for_probabilities, fewer_nodes]
)
def test_probabilities_are_the_softmax_of_the_scaled_logits(change: Callable[[onnx.ModelProto], None]) -> None:
    assert "temperature" in reason(forged(change))


LINKED: dict[Link, bytes] = {
    link: built(replace(CARD, link=link))
    for link in (Taylor(2), Taylor(4), Spherical(), Sparsemax(), Entmax(), Entmax(1.3))
}


@pytest.mark.parametrize("link", LINKED, ids=repr)
def test_every_link_is_written_and_read(link: Link) -> None:
    model = onnx.load_model_from_string(LINKED[link])
    onnx.checker.check_model(model, full_check=True)
    card = model_file.check(LINKED[link])
    assert card == replace(CARD, link=link)
    session = onnxruntime.InferenceSession(LINKED[link], providers=["CPUExecutionProvider"])
    p = session.run(["probabilities"], {"images": IMAGES})[0]
    expected = np.asarray(link.probabilities(truth(IMAGES)[0] / (CARD.temperature if is_sparse(link) else 1)))
    if not is_sparse(link):
        expected = expected ** (1 / CARD.temperature)
        expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p, expected, atol=2e-5)


@pytest.mark.parametrize("stated", [*LINKED, Softmax(), Taylor(6), Spherical(0.1), Entmax(1.4)], ids=repr)
@pytest.mark.parametrize("link", LINKED, ids=repr)
def test_the_link_of_the_graph_is_the_one_that_is_stated(link: Link, stated: Link) -> None:
    def change(model: onnx.ModelProto) -> None:
        entry = next(entry for entry in model.metadata_props if entry.key == CARD_KEY)
        entry.value = replace(CARD, link=stated).to_json()

    if link == stated:
        assert model_file.check(forged(change, LINKED[link])).link == link
    else:
        assert "its probabilities are not the" in reason(forged(change, LINKED[link]))


@pytest.mark.parametrize("link", LINKED, ids=repr)
def test_no_constant_of_a_link_is_another_or_there_twice(link: Link) -> None:
    names = [tensor.name for tensor in onnx.load_model_from_string(LINKED[link]).graph.initializer]
    for name in (name for name in names if name.startswith("head.c") and len(names) < 20):
        for twice in (False, True):

            def change(model: onnx.ModelProto, name: str = name, twice: bool = twice) -> None:
                tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
                other = numpy_helper.from_array(np.asarray(3 * numpy_helper.to_array(tensor) + 1), name)
                (model.graph.initializer.append if twice else tensor.CopyFrom)(other)

            assert "its probabilities are not the" in reason(forged(change, LINKED[link]))


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"name": "softmux"}, "the link 'softmux', which this Luce does not know"),
        ({"name": "taylor", "degree": 3}, "degree must be an even whole number"),
        ({"name": "entmax", "alpha": 0.5}, "alpha must be at least 1"),
        ({"name": "soft_margin", "margin": 0.5}, "no model file holds SoftMargin"),
        ({"name": "sigmoid"}, "sigmoid gives each class a probability of its own"),
        ({"name": "softmax", "degree": 2}, "degree"),
    ],
)
def test_links_that_cannot_be_are_refused(described: dict[str, object], message: str) -> None:
    assert message in reason(with_card(link=described))


def external(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../secrets")


def external_without_location(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].external_data.add(key="location", value="../../secrets")


def prepended(node: onnx.NodeProto) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.node.insert(0, node)


def external_constant(model: onnx.ModelProto) -> None:
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secrets")
    prepended(helper.make_node("Constant", [], ["c"], value=tensor))(model)


def external_sparse_constant(model: onnx.ModelProto) -> None:
    values = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    values.external_data.add(key="location", value="secrets")
    indices = numpy_helper.from_array(np.array([0]), "i")
    sparse = onnx.SparseTensorProto(values=values, indices=indices, dims=[4])
    prepended(helper.make_node("Constant", [], ["c"], sparse_value=sparse))(model)


def external_constants(model: onnx.ModelProto) -> None:
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    prepended(helper.make_node("Odd", [], ["c"], values=[tensor]))(model)


def sparse_initializer(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add(dims=[4])


def with_subgraph(op: str) -> Callable[[onnx.ModelProto], None]:
    body = helper.make_graph([], "body", [], [])
    return prepended(helper.make_node(op, [], ["c"], body=body))


def with_subgraphs(model: onnx.ModelProto) -> None:
    node = helper.make_node("Odd", [], ["c"], bodies=[helper.make_graph([], "body", [], [])])
    prepended(node)(model)


def with_function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("d", "F", ["a"], ["b"], [], []))


def huge(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [1 << 40, 1 << 40]


def negative(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [-1, -180]


def huge_constant(model: onnx.ModelProto) -> None:
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1 << 50])
    prepended(helper.make_node("Constant", [], ["c"], value=tensor))(model)


def of_domain(domain: str) -> Callable[[onnx.ModelProto], None]:
    return prepended(helper.make_node("Op", [], ["c"], domain=domain))


def rename_output(model: onnx.ModelProto) -> None:
    model.graph.output[1].name = "logits"


def swap_outputs(model: onnx.ModelProto) -> None:
    first, second = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend([second, first])


def more_classes(model: onnx.ModelProto) -> None:
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = K + 1


def double_output(model: onnx.ModelProto) -> None:
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.DOUBLE


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (external, "refer to another file"),
        (external_without_location, "refer to another file"),
        (external_constant, "refer to another file"),
        (external_constants, "refer to another file"),
        (external_sparse_constant, "refer to another file"),
        (sparse_initializer, "its weights are sparse"),
        (with_subgraph("Loop"), "loops, branches or functions"),
        (with_subgraph("If"), "loops, branches or functions"),
        (with_subgraph("Anything"), "loops, branches or functions"),
        (with_subgraphs, "loops, branches or functions"),
        (prepended(helper.make_node("Scan", [], ["c"])), "loops, branches or functions"),
        (with_function, "loops, branches or functions"),
        (lambda model: model.training_info.add(), "loops, branches or functions"),
        (of_domain("example.org"), "operators of an unknown origin: 'example.org'"),
        (of_domain("ai.onnx.ml"), "operators of an unknown origin: 'ai.onnx.ml'"),
        (huge, "have the shape [1099511627776, 1099511627776] but not the numbers"),
        (huge_constant, "have the shape [1125899906842624] but not the numbers"),
        (negative, "have the shape [-1, -180]"),
        (rename_output, "its outputs do not fit"),
        (swap_outputs, "its outputs do not fit"),
        (more_classes, "its outputs do not fit"),
        (double_output, "its outputs do not fit"),
        (fixed_batch, "its input does not fit"),
        (second_input, "its input does not fit"),
        (lambda model: model.graph.input.pop(), "its input does not fit"),
        (lambda model: model.graph.output.pop(), "its outputs do not fit"),
    ],
)
def test_hostile_graphs_are_refused(change: Callable[[onnx.ModelProto], object], why: str) -> None:
    assert why in reason(forged(change))


# -- golden vectors


def golden_item(pixels: bytes, probabilities: object) -> dict[str, object]:
    return {"pixels": base64.b64encode(pixels).decode(), "probabilities": probabilities}


FITTING = zlib.compress(IMAGES[0].tobytes())
BOMB = zlib.compress(bytes(1 << 26), 9)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "null",
        "[1]",
        "[[]]",
        "[{}]",
        "[" * 100_000,
        json.dumps([golden_item(BOMB, [0.2, 0.3, 0.5])]),
        json.dumps([golden_item(zlib.compress(IMAGES[0].tobytes()[:-1]), [0.2, 0.3, 0.5])]),
        json.dumps([golden_item(zlib.compress(IMAGES[0].tobytes() + b"x"), [0.2, 0.3, 0.5])]),
        json.dumps([golden_item(FITTING[:-1], [0.2, 0.3, 0.5])]),
        json.dumps([golden_item(FITTING[:-1] + b"x", [0.2, 0.3, 0.5])]),
        json.dumps([golden_item(b"no zlib", [0.2, 0.3, 0.5])]),
        json.dumps([{"pixels": "*", "probabilities": [0.2, 0.3, 0.5]}]),
        json.dumps([{"pixels": "é", "probabilities": [0.2, 0.3, 0.5]}]),
        json.dumps([{"pixels": 1, "probabilities": [0.2, 0.3, 0.5]}]),
        *(
            json.dumps([golden_item(FITTING, probabilities)])
            for probabilities in (
                [0.5, 0.5],
                [[0.2, 0.3, 0.5]],
                0.5,
                None,
                "abc",
                ["a", "b", "c"],
                [0.2, 0.3, float("nan")],
                [0.2, 0.3, None],
                [0.2, 0.3, 10**400],
                [-0.2, 0.7, 0.5],
                [0.2, 0.3, 1.5],
                [0.2, [0.3], 0.5],
            )
        ),
    ],
)
def test_golden_vectors_that_do_not_fit_are_refused(text: str) -> None:
    data = with_text(GOLDEN_KEY, text)
    assert "its golden vectors " in reason(data)
    with pytest.raises(ModelError, match="its golden vectors "):
        model_file.golden_vectors(data, CARD)


def test_golden_pictures_are_never_inflated_beyond_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb of 64 MB is opened no further than one byte past a picture."""
    limits: list[int] = []
    plain = zlib.decompressobj

    class Watched:
        def __init__(self) -> None:
            self.stream = plain()

        def decompress(self, data: bytes, limit: int = 0) -> bytes:
            limits.append(limit)
            return self.stream.decompress(data, limit)

        @property
        def eof(self) -> bool:
            return self.stream.eof

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    reason(with_text(GOLDEN_KEY, json.dumps([golden_item(BOMB, [0.2, 0.3, 0.5])])))
    assert limits == [IMAGES[0].nbytes + 1]


def test_many_golden_vectors_are_refused_before_any_is_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "MAX_GOLDEN_BYTES", 2 * IMAGES[0].nbytes)
    model_file.check(DATA)
    three = json.dumps([golden_item(FITTING, [0.2, 0.3, 0.5])] * 3)
    monkeypatch.setattr(zlib, "decompressobj", None)
    assert "too many" in reason(with_text(GOLDEN_KEY, three))


# -- places that hold no model


def test_places_without_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, why in (
        ("folder", "a model is a file, this is not one"),
        ("pipe", "a model is a file, this is not one"),
        ("none", r"cannot be read \(No such file or directory\); is the path right?"),
        ("empty", "not a usable model: it was not written by Luce"),
        ("empty/m", "cannot be read"),
        ("a\0b", "this is no path"),
        ("x" * 5000, "cannot be read"),
    ):
        with pytest.raises(ModelError, match=why) as caught:
            model_file.read(tmp_path / name)
        assert repr(str(tmp_path / name))[1:-1] in str(caught.value)


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(DATA)
    monkeypatch.setattr(model_file, "MAX_BYTES", len(DATA))
    model_file.read(path)
    monkeypatch.setattr(model_file, "MAX_BYTES", len(DATA) - 1)
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(ModelError, match=rf"too large for a model file \({len(DATA):,} bytes\)"):
        model_file.read(path)


def test_the_path_stands_before_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(DATA[:-1])
    with pytest.raises(ModelError) as caught:
        model_file.read(path)
    assert str(caught.value).startswith(f"{path}: not a usable model: it ")
