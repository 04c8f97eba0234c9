"""`check` lists what could do harm in training, each with its file, its reason and its class."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from luce.datasets import Dataset, Problem, open_dataset
from luce.datasets.check import Check, check
from tests.photos import draw_folder


def save(path: Path, width: int, height: int, seed: int = 0) -> Path:
    """A picture of noise, different for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, width, height]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def found(result: Check, *kinds: str) -> list[tuple[str, str, str]]:
    return [(p.kind, Path(p.path).name, p.class_name) for p in result.problems if not kinds or p.kind in kinds]


def only(result: Check, kind: str) -> Problem:
    (problem,) = (problem for problem in result.problems if problem.kind == kind)
    return problem


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Pictures with one of each problem: 12 green, 130 blue, 4 red, of which 3 cannot be read."""
    draw_folder(tmp_path, {"blue": 130, "green": 10, "red": 2}, side=70)
    (tmp_path / "red" / "broken.png").write_bytes((tmp_path / "red" / "0-0000.png").read_bytes()[:-40])
    (tmp_path / "red" / "page.jpg").write_bytes(b"<html>not found</html>")
    (tmp_path / "blue" / "empty.jpg").touch()
    shutil.copy(tmp_path / "green" / "0-0003.png", tmp_path / "green" / "copy.png")
    shutil.copy(tmp_path / "blue" / "0-0004.png", tmp_path / "green" / "stray.png")
    (tmp_path / "blue" / "0-0100.png").unlink()
    return tmp_path


@pytest.mark.parametrize("n_threads", [1, 4])
def test_everything_is_listed_and_counted(messy: Path, n_threads: int) -> None:
    result = check(open_dataset(messy), n_threads=n_threads)
    assert result.n_pictures == 130 + 12 + 4
    assert result.n_readable == result.n_pictures - 3
    assert result.per_class == {"blue": 130, "green": 12, "red": 4}
    assert result.formats == {"PNG": 143}
    assert result.sizes == {"median": [70, 70], "least_side": 70, "greatest_side": 70}
    assert found(result) == [
        ("unreadable", "empty.jpg", "blue"),
        ("unreadable", "broken.png", "red"),
        ("unreadable", "page.jpg", "red"),
        ("duplicate", "copy.png", "green"),
        ("label-conflict", "stray.png", "green"),
        ("tiny-class", "", "red"),
        ("imbalance", "", ""),
    ]
    assert [p.path for p in result.problems if p.kind == "unreadable"] == [
        str(messy / name) for name in ("blue/empty.jpg", "red/broken.png", "red/page.jpg")
    ]
    assert only(result, "label-conflict").reason == (
        f"the same bytes as {messy}/blue/0-0004.png, which has class 'blue': one of the two labels is wrong"
    )
    assert only(result, "tiny-class").reason == "only 4 pictures: too few to learn from and to measure"
    assert only(result, "imbalance").reason == (
        "'blue' has 32 times as many pictures as 'red'; consider --class-weight balanced"
    )


def test_threads_change_nothing(messy: Path) -> None:
    dataset = open_dataset(messy)
    one = check(dataset, n_threads=1)
    for n_threads in (2, 7):
        assert check(dataset, n_threads=n_threads) == one


def test_reasons_of_unreadable_pictures_tell_them_apart(messy: Path) -> None:
    problems = check(open_dataset(messy), n_threads=2).problems
    reasons = {Path(p.path).name: p.reason for p in problems if p.kind == "unreadable"}
    assert "HTML" in reasons["page.jpg"]
    assert len(set(reasons.values())) == 3
    assert not any(str(messy) in reason for reason in reasons.values())  # the path is told once, beside it


def test_a_good_data_set_has_no_problems(tmp_path: Path) -> None:
    dataset = open_dataset(draw_folder(tmp_path, {"blue": 10, "green": 100, "red": 10}))
    result = check(dataset, n_threads=2)
    assert result.problems == ()  # 10 pictures and 10 times as many are just within the limits
    assert result.n_readable == result.n_pictures == 120


@pytest.mark.parametrize(("least", "most", "kinds"), [(9, 90, ["tiny-class"]), (10, 101, ["imbalance"])])
def test_limits_of_class_sizes(least: int, most: int, kinds: list[str], tmp_path: Path) -> None:
    dataset = open_dataset(draw_folder(tmp_path, {"blue": least, "green": most}, side=4))
    assert [problem.kind for problem in check(dataset, n_threads=1).problems] == kinds


def test_a_class_of_one_picture_is_named_as_that(tmp_path: Path) -> None:
    dataset = open_dataset(draw_folder(tmp_path, {"blue": 1, "green": 10}))
    assert only(check(dataset, n_threads=1), "tiny-class").reason.startswith("only 1 picture: ")


def test_what_was_found_while_listing_comes_first(tmp_path: Path) -> None:
    draw_folder(tmp_path, {"blue": 10, "green": 10})
    (tmp_path / "blue" / ".hidden").touch()
    (tmp_path / "green" / "bad.png").touch()
    dataset = open_dataset(tmp_path)
    result = check(dataset, n_threads=1)
    assert result.problems[: len(dataset.problems)] == dataset.problems
    assert [problem.kind for problem in result.problems] == ["hidden", "unreadable"]


def test_odd_sizes(tmp_path: Path) -> None:
    for k in "ab":
        for i in range(10):
            save(tmp_path / k / f"{i}.png", 80, 100, i + 50 * (k == "b"))
    (tmp_path / "a" / "00-broken.png").touch()  # the positions of the readable ones differ from here on
    save(tmp_path / "a" / "small.png", 31, 90)
    save(tmp_path / "a" / "enough.png", 32, 90)
    save(tmp_path / "b" / "long.png", 165, 41)
    save(tmp_path / "b" / "high.png", 40, 161)
    save(tmp_path / "b" / "within.png", 160, 40)
    result = check(open_dataset(tmp_path), n_threads=2)
    assert found(result) == [
        ("unreadable", "00-broken.png", "a"),
        ("odd-size", "small.png", "a"),
        ("odd-size", "high.png", "b"),
        ("odd-size", "long.png", "b"),
    ]
    reasons = [problem.reason for problem in result.problems[1:]]
    assert reasons[0] == "only 31 x 90 pixels"
    assert reasons[1].startswith("40 x 161 pixels: very long")
    assert result.sizes == {"median": [80, 100], "least_side": 31, "greatest_side": 165}


def test_small_pictures_are_not_odd_among_small_ones(tmp_path: Path) -> None:
    assert check(open_dataset(draw_folder(tmp_path, {"blue": 10, "red": 10}, side=8)), n_threads=1).problems == ()


def test_sizes_are_those_of_the_files_not_of_a_quicker_decoding(tmp_path: Path) -> None:
    for k in "ab":
        for i in range(10):
            save(tmp_path / k / f"{i}.jpg", 640, 480, i + 50 * (k == "b"))
    save(tmp_path / "a" / "one.gif", 640, 480)
    result = check(open_dataset(tmp_path), n_threads=2)
    assert result.sizes == {"median": [640, 480], "least_side": 480, "greatest_side": 640}
    assert result.formats == {"JPEG": 20, "GIF": 1}
    assert list(result.formats) == ["JPEG", "GIF"]


def test_oddities_of_a_picture_are_noted(tmp_path: Path) -> None:
    draw_folder(tmp_path, {"blue": 10, "red": 10})
    glass = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    Image.fromarray(glass, "RGBA").save(tmp_path / "red" / "glass.png")
    result = check(open_dataset(tmp_path), n_threads=1)
    assert found(result) == [("noted", "glass.png", "red")]
    assert "transparen" in result.problems[0].reason


def test_larger_pictures_than_allowed_are_unreadable(tmp_path: Path) -> None:
    draw_folder(tmp_path, {"blue": 10, "red": 10})
    save(tmp_path / "red" / "huge.png", 40, 40)
    dataset = open_dataset(tmp_path)
    assert check(dataset, n_threads=1).problems == ()
    assert found(check(dataset, n_threads=1, max_pixels=1000)) == [("unreadable", "huge.png", "red")]


def test_pixels_in_memory(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 9, 7), dtype=np.uint8)
    pixels[20], pixels[21] = pixels[2], pixels[3]
    result = check(open_dataset((pixels, ["a", "b"] * 11 + ["b", "a"])), n_threads=2)
    assert result.formats == {"array": 24}
    assert result.sizes == {"median": [7, 9], "least_side": 7, "greatest_side": 9}
    assert [(p.kind, p.path, p.class_name) for p in result.problems] == [
        ("duplicate", "pictures[20]", "a"),
        ("duplicate", "pictures[21]", "b"),
    ]
    crossed = check(open_dataset((pixels, ["a", "b"] * 10 + ["b", "a", "a", "b"])), n_threads=2)
    assert Counter(p.kind for p in crossed.problems) == {"label-conflict": 2}


def test_a_file_that_went_away_since(tmp_path: Path) -> None:
    dataset = open_dataset(draw_folder(tmp_path, {"blue": 10, "red": 10}))
    gone = tmp_path / "blue" / "0-0003.png"
    gone.unlink()
    (problem,) = check(dataset, n_threads=2).problems
    assert problem == Problem("unreadable", str(gone), "no such file", "blue")


def test_a_data_set_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    result = check(open_dataset(tmp_path), n_threads=1)
    assert (result.n_pictures, result.n_readable, result.sizes, result.formats) == (2, 0, {}, {})
    assert Counter(p.kind for p in result.problems) == {"unreadable": 2, "tiny-class": 2}


def test_a_class_without_pictures_is_too_few(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 4), dtype=np.uint8)
    dataset = Dataset("set", ("a", "b", "none"), pixels, np.tile([0, 1], 10))
    (problem,) = check(dataset, n_threads=1).problems
    assert (problem.kind, problem.class_name) == ("tiny-class", "none")


def test_progress_counts_every_picture(tmp_path: Path) -> None:
    dataset = open_dataset(draw_folder(tmp_path, {"blue": 10, "red": 13}))
    calls: list[tuple[str, int, int]] = []
    check(dataset, n_threads=3, progress=lambda stage, done, total: calls.append((stage, done, total)))
    assert calls == [("Checking pictures", i + 1, 23) for i in range(23)]
