"""Training: what is learnt, what is held out, what is said about the data."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import luce
from luce.datasets import Dataset, open_dataset
from luce.errors import DataError, ModelError
from luce.training import Options, Training, fit
from luce.training.ready import gathered
from tests.photos import EVEN, draw, draw_folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("photos"), EVEN)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LUCE_CACHE", str(folder))
    return folder


def kinds(training: Training) -> list[str]:
    return sorted(problem.kind for problem in training.problems)


def test_digits_are_learnt() -> None:
    training = fit("digits")
    assert training.evaluation is not None
    assert training.evaluation.metrics.accuracy.value >= 0.96
    assert (training.n_train, training.evaluation.metrics.n) == (1438, 359)
    assert training.classifier.classes == tuple("0123456789")


def test_what_was_measured_is_what_the_model_says(photos: Path) -> None:
    training = fit(photos)
    evaluation = training.evaluation
    assert evaluation is not None
    paths = [evaluation.data.pictures[i] for i in range(len(evaluation.data))]
    assert len(paths) == evaluation.metrics.n == 24
    said = training.classifier.predict_proba(paths)
    np.testing.assert_allclose(said, evaluation.probabilities, atol=1e-6)
    again = training.classifier.evaluate((paths, [training.classifier.classes[k] for k in evaluation.target]))
    assert again.metrics.to_dict() == pytest.approx(evaluation.metrics.to_dict(), abs=1e-6)
    assert training.classifier.card.training["metrics"] == evaluation.metrics.to_dict()


@pytest.mark.parametrize("n_threads", [1, 3])
def test_the_same_bytes_whatever_the_number_of_threads(photos: Path, n_threads: int) -> None:
    first = fit(photos, Options(n_threads=2))
    assert fit(photos, Options(n_threads=n_threads)).classifier.data == first.classifier.data


def test_another_seed_holds_out_other_pictures(photos: Path) -> None:
    sides = []
    for seed in (0, 1):
        evaluation = fit(photos, Options(seed=seed)).evaluation
        assert evaluation is not None
        sides.append({str(path) for path in evaluation.data.pictures})
    assert sides[0] != sides[1]


def test_held_out_pictures_have_no_part_in_the_fit(tmp_path: Path) -> None:
    """Labels of the test part that are all wrong change the measurement and nothing else."""
    right = draw_folder(tmp_path / "right", {}, seed=0)
    for part, seed in (("train", 1), ("test", 2)):
        draw_folder(right / part, EVEN, seed=seed)
    wrong = tmp_path / "wrong"
    shutil.copytree(right, wrong)
    (wrong / "test" / "red").rename(wrong / "test" / "x")
    (wrong / "test" / "blue").rename(wrong / "test" / "red")
    (wrong / "test" / "x").rename(wrong / "test" / "blue")
    one, two = fit(right), fit(wrong)
    assert one.evaluation is not None
    assert two.evaluation is not None
    assert two.evaluation.metrics.accuracy.value < 0.5 < one.evaluation.metrics.accuracy.value
    picture = next((right / "test" / "red").iterdir())
    np.testing.assert_array_equal(one.classifier.predict_proba(picture), two.classifier.predict_proba(picture))


def test_weights_leave_the_probabilities_at_the_stated_prior(tmp_path: Path) -> None:
    """Balanced weights tell the fit that classes are equally frequent; the correction takes that back."""
    counts = {"blue": 400, "green": 60, "red": 60}
    folder = draw_folder(tmp_path / "train-me", counts, side=4)
    rng = np.random.default_rng(1)
    fresh = [draw(name, rng, 4) for name, n in counts.items() for _ in range(3 * n)]
    means = {}
    for weight in (None, "balanced"):
        options = Options(test_share=0, class_weight=weight, n_threads=1)
        means[weight] = fit(folder, options).classifier.predict_proba(fresh).mean(axis=0)
    share = np.array(list(counts.values())) / sum(counts.values())
    np.testing.assert_allclose(means[None], share, atol=0.05)
    np.testing.assert_allclose(means["balanced"], share, atol=0.05)


def test_another_prior_shifts_the_logits_by_its_logarithm(photos: Path) -> None:
    picture = next((photos / "red").iterdir())
    plain = fit(photos, Options(class_weight={"red": 3.0})).classifier
    prior = {"blue": 0.7, "green": 0.2, "red": 0.1}
    other = fit(photos, Options(class_weight={"red": 3.0}, prior=prior)).classifier
    pixels = np.asarray(Image.open(picture))[None]
    shift = (other.run(pixels)[0] - plain.run(pixels)[0])[0]
    expected = np.log([prior[name] * 3 for name in plain.classes])
    np.testing.assert_allclose(shift - shift.mean(), expected - expected.mean(), atol=2e-3)
    assert other.card.training["prior"] == prior


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"class_weight": {"cat": 1.0}}, "class_weight: no class 'cat'; the classes are blue, green, red"),
        ({"class_weight": {"red": -1.0}}, "class_weight: values must be positive numbers, got -1.0 for 'red'"),
        ({"class_weight": "balance"}, "class_weight must be None, 'balanced' or a weight by class"),
        ({"prior": {"red": 1.0}}, "prior: class 'blue' has no share; every class needs one"),
        ({"prior": "even"}, "prior must be 'train', 'uniform' or a share by class, got 'even'"),
        ({"test_share": 1.0}, "test_share must be at least 0 and below 1, got 1.0"),
        ({"max_unreadable": -0.1}, "max_unreadable must lie in 0 … 1, got -0.1"),
        ({"n_threads": 0}, "n_threads must be at least 1, got 0"),
        ({"backbone": "resnet"}, "unknown backbone 'resnet': it must be one of none, efficientnet-lite0"),
    ],
)
def test_a_wrong_option_is_refused_before_the_work(photos: Path, wrong: dict[str, Any], message: str) -> None:
    stages: list[str] = []
    with pytest.raises(ValueError, match=message):
        luce.train(photos, **wrong, progress=lambda stage, *_: stages.append(stage))
    assert stages == []


def test_damage_is_listed_and_never_replaced(tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "p", EVEN)
    (folder / "red" / "bad.jpg").write_bytes(b"no picture")
    shutil.copy(folder / "red" / "0-0001.png", folder / "green" / "twin.png")
    shutil.copy(folder / "red" / "0-0002.png", folder / "red" / "twin.png")
    (folder / "red" / ".hidden.png").write_bytes(b"")
    training = fit(folder)
    assert kinds(training) == ["duplicate", "hidden", "label-conflict", "unreadable"]
    bad = next(problem for problem in training.problems if problem.kind == "unreadable")
    assert (bad.path, bad.class_name) == (str(folder / "red" / "bad.jpg"), "red")
    assert training.evaluation is not None
    assert training.n_train + training.evaluation.metrics.n == 122
    assert training.classifier.card.training["problems"]["unreadable"] == 1


def test_too_many_unreadable_pictures_stop_the_training(tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "p", dict.fromkeys(EVEN, 10))
    for i in range(3):
        (folder / "red" / f"bad{i}.png").write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=r"3 of 33 pictures cannot be read, more than the allowed 5%\. The first: .*bad0"
    ):
        fit(folder)
    assert kinds(fit(folder, Options(max_unreadable=0.1))).count("unreadable") == 3


def test_no_picture_can_be_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "p" / name).mkdir(parents=True)
        (tmp_path / "p" / name / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match="no picture could be read; `luce check` lists the reasons"):
        fit(tmp_path / "p")


def test_a_class_with_one_picture_is_learnt_and_not_measured(tmp_path: Path) -> None:
    training = fit(draw_folder(tmp_path / "p", EVEN | {"red": 1}))
    assert kinds(training) == ["not-measured"]
    assert training.classifier.classes == ("blue", "green", "red")
    calibration = training.classifier.card.calibration
    assert calibration["method"] == "temperature"
    assert 0.05 <= training.classifier.temperature <= 20


def test_little_data_is_not_calibrated_and_that_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    training = fit(draw_folder(tmp_path / "p", dict.fromkeys(EVEN, 3)), say=said.append)
    assert training.classifier.temperature == 1.0
    assert "Too little data to calibrate" in training.classifier.card.calibration["note"]
    assert any("the temperature stays 1" in sentence for sentence in said)


def test_nothing_held_out_is_nothing_measured(photos: Path) -> None:
    training = fit(photos, Options(test_share=0))
    assert training.evaluation is None
    assert "metrics" not in training.classifier.card.training
    assert training.classifier.verify() == 0.0


def test_groups_stay_together(tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "p", EVEN)
    rows = [
        f"{picture},{picture.parent.name},person {i // 4}" for i, picture in enumerate(sorted(folder.rglob("*.png")))
    ]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["path,label,group", *rows]))
    evaluation = fit(table).evaluation
    assert evaluation is not None
    held_out = {str(path) for path in evaluation.data.pictures}
    for person in range(30):
        members = {row.split(",")[0] for row in rows if row.endswith(f"person {person}")}
        assert members <= held_out or members.isdisjoint(held_out)


def test_weights_of_the_table_count_like_repeated_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = np.stack([draw(name, rng, 4) for name in ("red", "blue") for _ in range(40)])
    labels = np.repeat([0, 1], 40)
    twice = np.concatenate([pixels, pixels[:40]])
    weighted = Dataset("w", ("r", "b"), pixels, labels, weights=np.repeat([2.0, 1.0], 40))
    repeated = Dataset("r", ("r", "b"), twice, np.concatenate([labels, labels[:40]]))
    options = Options(test_share=0)
    shown = pixels[::7]
    one, two = (fit(data, options).classifier for data in (weighted, repeated))
    logits = one.run(shown)[0], two.run(shown)[0]
    assert abs(one.card.training["penalty"] - two.card.training["penalty"]) < 1e-12
    np.testing.assert_allclose(logits[0], logits[1], atol=0.01)


def test_sentences_and_stages(photos: Path) -> None:
    said: list[str] = []
    stages: dict[str, list[tuple[int, int]]] = {}
    fit(photos, progress=lambda s, done, total: stages.setdefault(s, []).append((done, total)), say=said.append)
    assert said[0] == "Pictures of about 16 x 16 pixels: features are pixels, no network (--backbone changes it)."
    assert said[1] == "96 pictures to train on, 24 held out, 3 classes."
    assert list(stages) == ["Reading pictures", "Choosing the penalty", "Fitting"]
    for calls in stages.values():
        assert calls == sorted(calls)
        assert calls[-1][0] == calls[-1][1]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures larger than 32 x 32 go through the default backbone."""
    return draw_folder(tmp_path_factory.mktemp("large"), dict.fromkeys(EVEN, 6), side=40)


def test_the_cache_changes_nothing_but_the_work(large: Path, cache: Path) -> None:
    said: list[str] = []
    first = fit(large, say=said.append)
    assert "features are efficientnet-lite0" in said[0]
    assert first.n_cached == 0
    second = fit(large)
    assert second.n_cached == 18
    assert second.classifier.data == first.classifier.data
    third = fit(large, Options(cache=False))
    assert third.n_cached == 0
    assert third.classifier.data == first.classifier.data
    assert first.classifier.card.backbone["licence"] == "Apache-2.0"


def test_without_cache_nothing_is_remembered(large: Path, cache: Path) -> None:
    fit(large, Options(cache=False))
    assert not (cache / "features.sqlite").exists()


def test_a_wrong_cache_is_noticed(large: Path, cache: Path) -> None:
    fit(large)
    connection = sqlite3.connect(cache / "features.sqlite", isolation_level=None)
    rows = connection.execute("SELECT digest, vector FROM features ORDER BY digest").fetchall()
    for (digest, _), (_, vector) in zip(rows, rows[1:] + rows[:1], strict=True):
        connection.execute("UPDATE features SET vector = ? WHERE digest = ?", (vector, digest))
    connection.close()
    with pytest.raises(ModelError, match="the cached features are stale: train again with --no-cache"):
        fit(large)


def test_a_cache_that_cannot_be_written_is_done_without(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LUCE_CACHE", str(tmp_path / "file"))
    said: list[str] = []
    training = fit(large, say=said.append)
    assert any("features are not cached" in sentence for sentence in said)
    assert training.classifier.verify() == 0.0


def test_rows_aregathered_in_their_own_memory() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 300)).astype(np.float32)
    order = rng.permutation(50)[:37]
    expected = values[order]
    rows = gathered(values, order)
    np.testing.assert_array_equal(rows, expected)
    assert np.shares_memory(rows, values)


def test_train_is_what_the_readme_shows(photos: Path, tmp_path: Path) -> None:
    classifier = luce.train(photos, seed=3)
    path = tmp_path / "m.onnx"
    classifier.save(path)
    assert luce.load(path) == classifier
    record = json.loads(classifier.card.to_json())["training"]
    assert record["seed"] == 3
    assert record["n_train"] == 96
    assert open_dataset(photos).classes == classifier.classes
