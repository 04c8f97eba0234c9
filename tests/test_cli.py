"""The command line as a user meets it: fixed JSON keys, exit statuses, one message for each mistake."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import luce
from luce.backbones import open_backbone
from luce.cli import main
from luce.model_file import build
from tests.photos import EVEN, draw_folder

FIGURES = {
    "accuracy", "accuracy_low", "accuracy_high", "nll", "brier", "ece", "ece_uncalibrated", "temperature", "classes",
    "n_train", "n_test", "seconds", "problems",
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("photos"), EVEN)


@pytest.fixture(scope="module")
def model(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    assert main(["train", str(photos), "-o", str(path), "--quiet"]) == 0
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCE_CACHE", str(tmp_path / "cache"))


Capture = pytest.CaptureFixture[str]


def run(*words: str | Path, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "luce", *map(str, words)],
        input=stdin,
        capture_output=True,
        check=False,
        env=os.environ | environment,
    )


def test_train_writes_a_model_and_a_report(photos: Path, tmp_path: Path, capsys: Capture) -> None:
    model = tmp_path / "m.onnx"
    assert main(["train", str(photos), "-o", str(model)]) == 0
    out, err = capsys.readouterr()
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["m.html", "m.onnx"]
    assert (tmp_path / "m.html").read_text().lower().startswith("<!doctype html>")
    first_words = [line.split("  ")[0] for line in out.splitlines()]
    assert first_words == ["Accuracy", "Calibration", "NLL", "Model", "Report", "Time"]
    assert "features are pixels, no network" in err
    assert "Reading pictures: 120 of 120" in err


def test_train_without_output_only_measures(photos: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["train", str(photos), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Accuracy ")
    assert err == ""
    assert [p for p in tmp_path.iterdir() if p.is_file()] == []


@pytest.mark.parametrize("n_held_out", [24, 0])
def test_train_json_has_its_keys(photos: Path, capsys: Capture, n_held_out: int) -> None:
    share = "0.2" if n_held_out else "0"
    assert main(["train", str(photos), "--json", "--quiet", "--test-share", share]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() >= FIGURES
    assert figures["classes"] == ["blue", "green", "red"]
    assert (figures["n_train"], figures["n_test"]) == (120 - n_held_out, n_held_out)
    assert figures["problems"] == []
    assert (figures["accuracy"] is None) == (n_held_out == 0)


def test_evaluate_json_has_its_keys(model: Path, photos: Path, capsys: Capture) -> None:
    assert main(["evaluate", str(model), str(photos), "--json", "--quiet"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() >= FIGURES
    assert (figures["n_train"], figures["n_test"]) == (96, 120)


def test_evaluate_lists_problems_and_writes_a_report(
    model: Path, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    data = tmp_path / "d"
    shutil.copytree(photos, data)
    (data / "red").rename(data / "rot")
    report = tmp_path / "r.html"
    assert main(["evaluate", str(model), str(data), "--quiet", "--report", str(report)]) == 0
    out = capsys.readouterr().out
    assert "unknown-class: rot: the model does not know this class; its 40 pictures are left out" in out
    assert "missing-class: red" in out
    assert report.read_text().lower().startswith("<!doctype html>")


def test_predict_text(model: Path, photos: Path, capsys: Capture) -> None:
    picture = next((photos / "red").iterdir())
    assert main(["predict", str(model), str(picture)]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{picture}: ")
    assert "red > 99.9 %" in line or "red 9" in line
    assert line.count("\n") == 1


def test_predict_json_lines(model: Path, photos: Path, tmp_path: Path, capsys: Capture) -> None:
    good, missing = next((photos / "red").iterdir()), tmp_path / "none.jpg"
    assert main(["predict", str(model), str(good), str(missing), "--json", "--top", "2"]) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first.keys() == {"path", "class", "probability", "top"}
    assert first["path"] == str(good)
    assert len(first["top"]) == 2
    assert first["top"][0] == {"class": first["class"], "probability": first["probability"]}
    assert second == {"path": str(missing), "error": "no such file"}


def test_predict_csv(model: Path, photos: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "odd, folder"
    folder.mkdir()
    shutil.copy(next((photos / "red").iterdir()), folder / 'a "b".png')
    (folder / "x.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("not a picture, and not one that could be")
    assert main(["predict", str(model), str(folder), "--csv"]) == 1
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["path", "class", "probability", "error"]
    assert rows[1][0] == str(folder / 'a "b".png')
    assert 0 < float(rows[1][2]) <= 1
    assert rows[2] == [str(folder / "x.jpg"), "", "", "the file is empty"]
    assert len(rows) == 3


def test_predict_reads_a_list_from_standard_input(model: Path, photos: Path) -> None:
    pictures = sorted((photos / "red").iterdir())[:3]
    done = run("predict", model, "-", "--json", stdin="\n".join(map(str, [*pictures, ""])).encode())
    assert done.returncode == 0
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == list(map(str, pictures))


def test_a_file_name_that_is_no_text_comes_back_from_json(model: Path, photos: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    shutil.copy(next((photos / "red").iterdir()), os.fsdecode(name))
    for mode in ("0", "1"):
        done = run("predict", model, os.fsdecode(name), "--json", PYTHONUTF8=mode)
        assert done.returncode == 0, done.stderr
        assert os.fsencode(json.loads(done.stdout)["path"]) == name
    assert b"caf\\udce9.png: " in run("predict", model, tmp_path, PYTHONUTF8="1").stdout


def test_a_reader_that_leaves_is_no_failure_worth_a_traceback(model: Path, photos: Path) -> None:
    command = shlex.join([sys.executable, "-m", "luce", "predict", str(model), str(photos)]) + " | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_verify(model: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["verify", str(model)]) == 0
    assert "whole; stored pictures give the same probabilities" in capsys.readouterr().out
    assert main(["verify", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(model), "ok": True, "greatest_difference": 0.0}
    data = bytearray(model.read_bytes())
    for place in np.linspace(0, len(data) - 1, 25).astype(int):
        flipped = bytearray(data)
        flipped[place] ^= 1
        (tmp_path / "flipped.onnx").write_bytes(flipped)
        assert main(["verify", str(tmp_path / "flipped.onnx")]) == 2
        assert "flipped.onnx: not a usable model: it " in capsys.readouterr().err


def test_show(model: Path, capsys: Capture) -> None:
    assert main(["show", str(model)]) == 0
    out = capsys.readouterr().out
    assert "Classes      3: blue, green, red" in out
    assert "Held out     accuracy" in out
    assert main(["show", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["blue", "green", "red"]


def test_a_record_that_luce_did_not_write_is_one_message(model: Path, tmp_path: Path, capsys: Capture) -> None:
    classifier = luce.load(model)
    card = replace(classifier.card, training={"n_train": "many"})
    graph = open_backbone("none", (16, 16), grey=False, progress=lambda *_: None).graph
    odd = tmp_path / "odd.onnx"
    odd.write_bytes(build(graph, np.zeros((3, 768)), np.zeros(3), card))
    assert main(["show", str(odd)]) == 2
    assert "its record cannot be shown" in capsys.readouterr().err
    assert main(["show", str(odd), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["training"] == {"n_train": "many"}


def test_check(photos: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["check", str(photos), "--quiet"]) == 0
    assert "Problems     none" in capsys.readouterr().out
    data = tmp_path / "d"
    shutil.copytree(photos, data)
    (data / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert main(["check", str(data), "--quiet"]) == 1
    assert "unreadable (1)\n" in capsys.readouterr().out
    assert main(["check", str(data), "--quiet", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["n_pictures"], found["n_readable"]) == (121, 120)
    assert [problem["kind"] for problem in found["problems"]] == ["unreadable"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "parameter DATA requires an argument. `luce --help` lists what there is."),
        (["trian", "x"], 'Unknown command "trian"'),
        (["train", "digits", "--sed", "1"], "--sed"),
        (["train", "digits", "--seed", "x"], "--seed"),
        (["train", "digit"], "'digit': no such file or folder; did you mean digits?"),
        (["train", "digits", "--class-weight", "balance"], "--class-weight: expected NAME=NUMBER"),
        (["train", "digits", "--class-weight", "1=one"], "--class-weight: expected NAME=NUMBER"),
        (["train", "digits", "--prior", "1=2"], "prior: class '0' has no share"),
        (["train", "digits", "--test-share", "1"], "test_share must be at least 0 and below 1"),
        (["predict", "MODEL"], "name at least one picture or folder"),
        (["predict", "MODEL", "x.jpg", "--json", "--csv"], "--json and --csv exclude each other"),
        (["predict", "MODEL", "x.jpg", "--top", "0"], "--top must be at least 1"),
        (["predict", "MODEL", "EMPTY"], "no pictures in this folder"),
        (["predict", "nothing.onnx", "x.jpg"], "nothing.onnx: cannot be read"),
        (["predict", "EMPTY", "x.jpg"], "a model is a file, this is not one"),
        (["evaluate", "MODEL", "EMPTY"], "no pictures found in class folders"),
        (["check", "EMPTY"], "no pictures found in class folders"),
    ],
)
def test_a_mistake_gets_one_message_and_status_2(
    model: Path, tmp_path: Path, capsys: Capture, words: Sequence[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"MODEL": str(model), "EMPTY": str(tmp_path / "empty")}
    assert main([places.get(word, word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("luce: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("option", ["-o", "--report"])
@pytest.mark.parametrize(
    ("place", "remedy"),
    [("no/x.onnx", "make the folder"), ("dir.onnx", "it is a folder: name a file in it"), ("/proc/x.onnx", "choose")],
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    photos: Path, tmp_path: Path, capsys: Capture, option: str, place: str, remedy: str
) -> None:
    (tmp_path / "dir.onnx").mkdir()
    assert main(["train", str(photos), option, str(tmp_path / place)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "cannot be written" in err
    assert remedy in err


def test_a_full_disk_leaves_the_old_model(model: Path, photos: Path, tmp_path: Path) -> None:
    """A limit on file size is how a process meets a disk that fills up while it writes."""
    old = tmp_path / "m.onnx"
    shutil.copy(model, old)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000)); "
    code = limit + "import sys; from luce.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "train", str(photos), "-o", str(old), "--quiet", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"luce: {old}: cannot be written (File too large); free some space or choose another place\n"
    assert old.read_bytes() == model.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx"]


def test_a_file_that_vanishes_meanwhile_is_listed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from luce import datasets

    data = tmp_path / "d"
    shutil.copytree(photos, data)
    gone = sorted((data / "red").iterdir())[3]

    def vanishing(self: datasets.Dataset) -> object:
        gone.unlink(missing_ok=True)
        return tuple(self.pictures)

    monkeypatch.setattr(datasets.Dataset, "sources", property(vanishing))
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["train", str(data), "--json", "--quiet", "-o", str(tmp_path / "m.onnx")]) == 0
    figures = json.loads(output.getvalue())
    assert [(p["kind"], p["path"], p["reason"]) for p in figures["problems"]] == [
        ("unreadable", str(gone), "no such file")
    ]
    assert figures["n_train"] + figures["n_test"] == 119


def test_ctrl_c_leaves_the_old_model(model: Path, tmp_path: Path) -> None:
    """Interrupted while it reads pictures: the old file stays and nothing lies beside it."""
    data = draw_folder(tmp_path / "large", dict.fromkeys(EVEN, 100), side=40)
    old = tmp_path / "out" / "m.onnx"
    old.parent.mkdir()
    shutil.copy(model, old)
    command = [sys.executable, "-m", "luce", "train", str(data), "-o", str(old), "--no-cache"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Pictures of about 40 x 40 pixels")
    process.send_signal(signal.SIGINT)
    err = process.communicate()[1]
    assert process.returncode == 130
    assert err.splitlines()[-1] == "luce: stopped; nothing was half-written"
    assert "Traceback" not in err
    assert old.read_bytes() == model.read_bytes()
    assert [p.name for p in old.parent.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.parametrize("reports", [True, False])
def test_an_interrupt_that_python_forgets_still_stops(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quiet: bool, reports: bool
) -> None:
    """As when it arrives in a callback of the garbage collector, where no exception gets out."""
    from luce import training

    usual = signal.getsignal(signal.SIGINT)

    class Callback:
        def __del__(self) -> None:
            with contextlib.suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)  # the signal ends it at once

    def fit(_data: object, _options: object, *, progress: Callable[[str, int, int], None], say: object) -> object:
        del say
        Callback()
        if reports:
            progress("Reading pictures", 1, 2)
        return None

    monkeypatch.setattr(training, "fit", fit)
    words = ["train", "digits", "-o", str(tmp_path / "m.onnx")]
    assert main([*words, "--quiet"] if quiet else words) == 130
    assert capsys.readouterr().err == "luce: stopped; nothing was half-written\n"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is usual


def test_a_bug_is_one_sentence_and_shows_its_place_when_asked(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from luce import training

    def broken(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("oh no")

    monkeypatch.setattr(training, "fit", broken)
    assert main(["train", "digits", "--quiet"]) == 1
    assert capsys.readouterr().err == "luce: RuntimeError: oh no. This is a bug in Luce; LUCE_DEBUG=1 shows where\n"
    monkeypatch.setenv("LUCE_DEBUG", "1")
    with pytest.raises(RuntimeError, match="oh no"):
        main(["train", "digits", "--quiet"])


def test_help_of_every_verb_has_examples(capsys: Capture) -> None:
    for verb in ("train", "predict", "evaluate", "verify", "check", "show", "softmax", "plot"):
        assert main([verb, "--help"]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"Usage: luce {verb}")
        assert f" • luce {verb} " in text or f"luce {verb} pets.onnx -" in text
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("luce 0.")


def test_progress_bars_on_a_terminal(photos: Path) -> None:
    """In a pseudo-terminal: bars with counts on standard error, the figures on standard output."""
    import pty

    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "luce", "train", str(photos)]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=follower, env=environment, check=True)
    os.close(follower)
    shown = b""
    while chunk := _read(leader):
        shown += chunk
    os.close(leader)
    assert b"Reading pictures" in shown
    assert b"120/120" in shown
    assert done.stdout.startswith(b"Accuracy ")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the other end is closed
        return b""


def test_a_picture_wider_than_the_limit_is_refused(photos: Path, tmp_path: Path, capsys: Capture) -> None:
    data = tmp_path / "d"
    shutil.copytree(photos, data)
    Image.new("RGB", (40, 40)).save(data / "red" / "large.png")
    assert main(["train", str(data), "--quiet", "--json", "--max-pixels", "1000"]) == 0
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [p["reason"] for p in problems] == [
        "the picture is 40 x 40 pixels, more than the limit of 1,000 (max_pixels raises it)"
    ]
