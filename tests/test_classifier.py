"""The classifier as a value: sources of every kind, order, errors, names, and agreement with plain ONNX Runtime."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import luce
from luce import ImageClassifier, Prediction
from luce.classifier import GOLDEN_TOLERANCE
from luce.errors import DataError, ImageError, LuceError, ModelError
from luce.images import Source, load
from luce.model_file import build, golden_vectors
from luce.training import Options, fit
from tests.photos import EVEN, draw, draw_folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("photos"), EVEN)


@pytest.fixture(scope="module")
def classifier(photos: Path) -> ImageClassifier:
    return fit(photos).classifier


@pytest.fixture
def paths(photos: Path) -> list[Path]:
    return sorted(photos.rglob("*.png"))[::4]


def test_every_kind_of_source_gives_the_same(classifier: ImageClassifier, paths: list[Path]) -> None:
    path = paths[0]
    data = path.read_bytes()
    expected = classifier.predict_proba(path)
    assert expected.shape == (3,)
    assert expected.dtype == np.float32
    image = Image.open(path)
    sources: list[Source] = [str(path), data, bytearray(data), io.BytesIO(data), image, np.asarray(image)]
    for source in sources:
        np.testing.assert_array_equal(classifier.predict_proba(source), expected)


def test_predictions_are_ranked_probabilities_by_name(classifier: ImageClassifier, paths: list[Path]) -> None:
    prediction = classifier.predict(paths[0], top=2)
    p = classifier.predict_proba(paths[0])
    assert prediction.source == str(paths[0])
    assert prediction.class_name == classifier.classes[p.argmax()] == prediction.top[0][0]
    assert prediction.probability == prediction.top[0][1] == float(p.max())
    assert [q for _, q in prediction.top] == sorted(map(float, p), reverse=True)[:2]
    top = [{"class": name, "probability": q} for name, q in prediction.top]
    assert prediction.to_dict() == {
        "path": str(paths[0]),
        "class": prediction.class_name,
        "probability": prediction.probability,
        "top": top,
    }
    assert classifier.predict(np.asarray(Image.open(paths[0]))).source == ""


def test_more_classes_than_there_are_means_all(classifier: ImageClassifier, paths: list[Path]) -> None:
    assert len(classifier.predict(paths[0], top=99).top) == 3
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        classifier.predict(paths[0], top=0)


@pytest.mark.parametrize("n_threads", [1, 4])
def test_the_order_is_that_of_the_sources(classifier: ImageClassifier, paths: list[Path], n_threads: int) -> None:
    several = classifier.predict(paths, n_threads=n_threads)
    assert [p.source for p in several] == [str(path) for path in paths]
    one_by_one = [classifier.predict(path) for path in paths]
    assert [p.class_name for p in several] == [p.class_name for p in one_by_one]
    np.testing.assert_allclose([p.probability for p in several], [p.probability for p in one_by_one], atol=1e-6)


def test_a_stack_of_pixels_is_many_pictures(classifier: ImageClassifier, paths: list[Path]) -> None:
    stack = np.stack([np.asarray(Image.open(path)) for path in paths])
    np.testing.assert_array_equal(classifier.predict_proba(stack), classifier.predict_proba(paths))
    assert classifier.predict_proba([]).shape == (0, 3)


def test_a_bad_picture_stops_or_is_reported_in_its_place(
    classifier: ImageClassifier, paths: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"<html>")
    sources = [paths[0], bad, tmp_path / "missing.jpg", paths[1]]
    for act in (classifier.predict, classifier.predict_proba):
        with pytest.raises(ImageError, match=r"bad\.jpg: not a picture but an HTML page"):
            act(sources)
    first, second, third, fourth = classifier.predict_each(sources)
    assert isinstance(first, Prediction)
    assert isinstance(fourth, Prediction)
    assert isinstance(second, ImageError)
    assert isinstance(third, ImageError)
    assert (third.path, third.reason) == (str(tmp_path / "missing.jpg"), "no such file")


def test_an_endless_stream_is_consumed_as_needed(classifier: ImageClassifier, paths: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield paths[0]

    for _ in zip(range(10), classifier.predict_each(endless(), n_threads=2), strict=False):
        pass
    assert taken <= 10 + 5 * 256


def test_classes_are_joined_by_name(classifier: ImageClassifier, photos: Path, tmp_path: Path) -> None:
    """Other folders, another order, a class more and a class less: nothing shifts."""
    other = draw_folder(tmp_path / "o", {"red": 10, "green": 10}, seed=5)
    (other / "amber").mkdir()
    Image.new("RGB", (16, 16)).save(other / "amber" / "x.png")
    (other / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    evaluation = classifier.evaluate(other)
    assert evaluation.classes == ("blue", "green", "red")
    assert evaluation.metrics.n == 20
    assert evaluation.metrics.confusion.sum(axis=1).tolist() == [0, 10, 10]
    assert {(p.kind, p.class_name) for p in evaluation.problems} == {
        ("unknown-class", "amber"),
        ("missing-class", "blue"),
        ("unreadable", "red"),
    }
    assert np.mean(evaluation.probabilities.argmax(axis=1) == evaluation.target) > 0.7
    for i in range(20):
        assert Path(evaluation.data.identifier(i)).parent.name == evaluation.classes[evaluation.target[i]]


def test_nothing_in_common_is_an_error(classifier: ImageClassifier, tmp_path: Path) -> None:
    draw_folder(tmp_path, {"red": 2, "green": 2})
    (tmp_path / "red").rename(tmp_path / "rouge")
    (tmp_path / "green").rename(tmp_path / "vert")
    with pytest.raises(DataError, match="no readable picture of a class this model knows"):
        classifier.evaluate(tmp_path)


def test_a_part_named_test_is_what_is_measured(classifier: ImageClassifier, tmp_path: Path) -> None:
    for part, n in (("train", 9), ("val", 7), ("test", 5)):
        draw_folder(tmp_path / part, dict.fromkeys(EVEN, n), seed=n)
    assert classifier.evaluate(tmp_path).metrics.n == 15


def test_it_saves_loads_pickles_and_compares(classifier: ImageClassifier, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    classifier.save(path)
    assert path.read_bytes() == classifier.data
    loaded = luce.load(path)
    assert loaded == classifier
    assert len({loaded, classifier}) == 1
    assert loaded.card == classifier.card
    copied = pickle.loads(pickle.dumps(classifier))
    assert copied == classifier
    assert copied.classes == classifier.classes
    with pytest.raises(LuceError, match="make the folder"):
        classifier.save(tmp_path / "no" / "m.onnx")


def test_golden_vectors_are_replayed(classifier: ImageClassifier) -> None:
    assert classifier.verify() == 0.0
    vectors = golden_vectors(classifier.data, classifier.card)
    assert len(vectors) == 3


def test_verify_notices_other_probabilities(classifier: ImageClassifier, photos: Path) -> None:
    """A model whose weights differ from those that made its golden vectors, with a seal that fits."""
    training = fit(photos, Options(seed=1))
    vectors = golden_vectors(classifier.data, classifier.card)
    card = training.classifier.card
    backbone = _pixels_graph(training.classifier)
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(3, 768)) / 100, np.zeros(3)
    forged = ImageClassifier.from_bytes(build(backbone, weights, bias, card, vectors))
    with pytest.raises(ModelError, match="a stored picture gets probabilities that differ"):
        forged.verify()
    broken = ImageClassifier.from_bytes(build(backbone, weights * np.nan, bias, card, vectors))
    with pytest.raises(ModelError, match="differ by nan"):
        broken.verify()
    bare = ImageClassifier.from_bytes(build(backbone, weights, bias, card))
    with pytest.raises(ModelError, match="no golden vectors"):
        bare.verify()


def _pixels_graph(classifier: ImageClassifier) -> bytes:
    from luce.backbones import open_backbone

    spec = classifier.card.preparation
    return open_backbone("none", (spec.width, spec.height), grey=False, progress=lambda *_: None).graph


def test_python_command_and_onnxruntime_agree_on_100_pictures(tmp_path: Path) -> None:
    """With the default network; the file is run by ONNX Runtime as anybody would run it."""
    rng = np.random.default_rng(0)
    folder = draw_folder(tmp_path / "p", dict.fromkeys(EVEN, 8), side=40)
    model = tmp_path / "m.onnx"
    classifier = fit(folder, Options(cache=False)).classifier
    classifier.save(model)
    pictures = [tmp_path / f"{i:03d}.png" for i in range(100)]
    for i, path in enumerate(pictures):
        Image.fromarray(draw(sorted(EVEN)[i % 3], rng, 40)).save(path)
    by_python = classifier.predict_proba(pictures)
    command = [sys.executable, "-m", "luce", "predict", str(model), "--json", *map(str, pictures)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    said = [{item["class"]: item["probability"] for item in json.loads(line)["top"]} for line in lines]
    by_command = np.array([[row[name] for name in classifier.classes] for row in said])
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    pixels = np.stack([load(path, classifier.card.preparation)[0] for path in pictures])
    by_runtime = session.run(["probabilities"], {"images": pixels})[0]
    np.testing.assert_allclose(by_command, by_python, rtol=0, atol=1e-6)
    np.testing.assert_allclose(by_runtime, by_python, rtol=0, atol=1e-6)
    assert by_python.std(axis=0).min() > 1e-3
    assert GOLDEN_TOLERANCE > 1e-6
