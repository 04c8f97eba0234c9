"""The calculator as a student uses it: what it prints can be typed into a pocket calculator and comes out the same."""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from luce.cli import main
from luce.cli.steps import FUNCTIONS

PAGE = Path(__file__).parent.parent / "docs" / "calculator.md"
Capture = pytest.CaptureFixture[str]

B = ["0.7", "3.1", "0.6"]
C = ["-2", "0", "0.5"]
EVERY = ",".join(FUNCTIONS)

# Of B, true class 1, with the parameters that hold without options; computed from the formulas with 60 digits.
OF_B = {
    "softmax": "0.0774 0.8527 0.0700",
    "log_softmax": "-2.5594 -0.1594 -2.6594",
    "sigmoid": "0.6682 0.9569 0.6457",
    "tanh": "0.6044 0.9959 0.5370",
    "relu": "0.7000 3.1000 0.6000",
    "normalize": "0.1591 0.7045 0.1364",
    "taylor": "0.1540 0.7051 0.1409",
    "soft_margin": "0.1164 0.7783 0.1053",
    "sm_taylor": "0.1817 0.6520 0.1663",
    "spherical": "0.0469 0.9186 0.0345",
    "sparsemax": "0.0000 1.0000 0.0000",
    "entmax15": "0.0000 1.0000 0.0000",
    "entmax": "0.0000 1.0000 0.0000",
    "pseudo": "0.1387 0.7319 0.1294",
}


def run(capsys: Capture, *words: str) -> str:
    """What `luce softmax` prints."""
    assert main(["softmax", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def figures(capsys: Capture, *words: str) -> dict[str, Any]:
    value = json.loads(run(capsys, *words, "--json"), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert isinstance(value, dict)
    return value


def column(page: str, title: str, n: int) -> list[str]:
    """The cells of a column of the table, and its sum."""
    head, *lines = page[page[: page.index(title)].rfind("\n\n") + 1 :].lstrip("\n").splitlines()
    end = head.index(title) + len(title)
    return [line[:end].split()[-1] for line in lines[: n + 1]]


def test_three_logits_become_three_probabilities(capsys: Capture) -> None:
    assert run(capsys, *B).splitlines() == [
        "     logit  softmax",
        "0      0.7   0.0774 ███▏",
        "1      3.1   0.8527 ██████████████████████████████████▏",
        "2      0.6   0.0700 ██▊",
        "sum          1.0000",
    ]


def test_softmax_beside_simple_normalisation(capsys: Capture) -> None:
    page = run(capsys, *B, "--with", "normalize")
    assert column(page, "softmax", 3) == ["0.0774", "0.8527", "0.0700", "1.0000"]
    assert column(page, "normalize", 3) == ["0.1591", "0.7045", "0.1364", "1.0000"]
    assert "normalize  x / sum of x\n" in page


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function(capsys: Capture, name: str) -> None:
    target = ["--target", "1"] if "target" in FUNCTIONS[name].parameters else []
    found = figures(capsys, *B, "--with", name, *target)["values"]
    assert list(found) == list(dict.fromkeys(["softmax", name]))
    np.testing.assert_allclose(found[name], [float(text) for text in OF_B[name].split()], rtol=0, atol=5.1e-5)


def test_the_help_names_every_function(capsys: Capture) -> None:
    text = " ".join(run(capsys, "--help").replace("│", " ").split())
    assert ", ".join(name for name in FUNCTIONS if name != "softmax") + "." in text
    assert "luce softmax - --json < logits.txt" in text


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (["--degree", "4"], "taylor", [0.111790393013, 0.335371179039, 0.552838427948]),
        (["--degree", "4", "--margin", "0.5", "--target", "0"], "sm_taylor", [0.196682464455, 0.303317535545, 0.5]),
        (["--target", "a", "--names", "a,b,c"], "soft_margin", [0.0300588875696, 0.366192216282, 0.603748896149]),
        (["--eps", "1e-3"], "spherical", [0.940747707501, 2.35128144839e-4, 0.0590171643546]),
        (["--alpha", "1.25"], "entmax", [0.00533941784644, 0.352109785968, 0.642550796185]),
        (["--temperature", "2"], "softmax", [0.138722714762, 0.377087434731, 0.484189850508]),
        (["--temperature", "1.442695040889"], "softmax", [0.0938363213561, 0.375345285424, 0.53081839322]),
    ],
)
def test_parameters(capsys: Capture, words: list[str], name: str, expected: list[float]) -> None:
    found = figures(capsys, *C, "--with", name, *words)
    np.testing.assert_allclose(found["values"][name], expected, rtol=0, atol=1e-9)
    assert set(found["parameters"]) == set(FUNCTIONS[name].parameters)


def test_the_temperature_divides_first_whatever_the_function(capsys: Capture) -> None:
    words = ["--with", EVERY, "--target", "1", "--margin", "0.25"]
    one = figures(capsys, "1", "2", "0.5", *words)["values"]
    two = figures(capsys, "2", "4", "1", *words, "--temperature", "2")["values"]
    for name, function in FUNCTIONS.items():
        if function.tempered:
            np.testing.assert_allclose(two[name], one[name], rtol=1e-12, atol=1e-12, err_msg=name)


def typed(text: str) -> float:
    """The outcome of a sum, as a pocket calculator would give it."""
    text = re.sub(r"(\d+)!", lambda found: str(math.factorial(int(found[1]))), text)
    text = re.sub(r"ln ([\d.]+)", r"log(\1)", text).replace("^", "**")
    value = eval(text, {"__builtins__": {}}, {"e": math.e, "log": math.log, "max": max})
    assert isinstance(value, int | float)
    return float(value)


@pytest.mark.parametrize("temperature", ["1", "2", "0.3"])
@pytest.mark.parametrize("logits", [B, C, ["1", "1"], ["4"], ["-1.5", "-3", "-1.25", "-1"], ["100", "104", "103.5"]])
@pytest.mark.parametrize("parameters", [[], ["--degree", "4", "--alpha", "1.25"], ["--alpha", "2"]])
def test_every_sum_comes_out_on_a_pocket_calculator(
    capsys: Capture, logits: list[str], temperature: str, parameters: list[str]
) -> None:
    functions = [name for name in FUNCTIONS if name != "normalize" or min(map(float, logits)) > 0]
    words = ["--with", ",".join(functions), "--target", "0", "--temperature", temperature, "--steps"]
    page = run(capsys, *logits, *words, *parameters)
    page = re.sub(r"\n {7,}", " ", page.partition("\n\n")[2])  # lines that go on
    lines = [re.sub(r"^(   \d   |\d\. Add them up\. *)", "", line) for line in page.splitlines()]
    sums = [line.split(" = ") for line in lines if re.match(r"[-\d(me].* = -?\d", line) and "2.718282" not in line]
    assert len(sums) >= len(functions) * len(logits)
    for left, right in sums:
        decimals = len(right.partition(".")[2])
        unit = 10.0**-decimals if "e" not in right else 0.06 * float(right)
        assert abs(typed(left) - float(right)) <= 1.01 * unit, f"{left} = {right}"


@pytest.mark.parametrize("block", re.findall(r"```text\n\$ luce softmax (.*)\n([^`]*)```", PAGE.read_text()))
def test_the_examples_of_the_page(capsys: Capture, block: tuple[str, str]) -> None:
    words, shown = block
    assert run(capsys, *words.split()) == shown


def test_steps_in_plain_words(capsys: Capture) -> None:
    page = run(capsys, *B, "--steps")
    assert column(page, "- 3.1", 2) == ["-2.4", "0.0", "-2.5"]
    assert column(page, "e^", 3) == ["0.090718", "1.000000", "0.082085", "1.172803"]
    for line in [
        "1. Find the largest logit, 3.1, and subtract it from each.",
        "   2   0.6 - 3.1 = -2.5",
        "2. Raise e = 2.718282 to each of these: the key e^x.",
        "   0   e^-2.4 = 0.090718",
        "       0.090718 + 1.000000 + 0.082085 = 1.172803",
        "   1   1.000000 / 1.172803 = 0.8527",
    ]:
        assert f"\n{line}" in page
    assert "temperature" not in page
    tempered = run(capsys, *B, "--steps", "--temperature", "2")
    assert "1. Divide every logit by the temperature, 2.\n   0   0.7 / 2 = 0.35\n" in tempered


@pytest.mark.parametrize(
    "words", [["-2", "0", "0.5"], ["--", "-2", "0", "0.5"], ["[-2,", "0,", "0.5]"], ["−2", "0", ".5"]]
)
def test_ways_to_write_numbers(capsys: Capture, words: list[str]) -> None:
    assert figures(capsys, "--digits", "3", *words)["logits"] == [-2, 0, 0.5] if words[0] != "--" else True
    assert column(run(capsys, "--digits", "3", *words), "softmax", 3) == ["0.049", "0.359", "0.592", "1.000"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["1e3", "-inf", "1000"], [0.5, 0, 0.5]),
        (["inf", "1", "-Infinity"], [1, 0, 0]),
        (["inf", "1", "+inf"], [0.5, 0, 0.5]),
        (["-inf", "-inf"], [0, 0]),
        (["nan", "1"], [None, None]),
        (["-1e308", "1e308"], [0, 1]),
        (["-.5"], [1]),
    ],
)
def test_corners(capsys: Capture, words: list[str], expected: list[float | None]) -> None:
    assert figures(capsys, *words)["values"]["softmax"] == expected
    with_steps = figures(capsys, *words, "--steps")["steps"]
    assert set(with_steps) == {"divided", "maximum", "minus_maximum", "exponentials", "sum"}
    functions = ",".join(name for name in FUNCTIONS if name != "normalize")
    page = run(capsys, *words, "--with", functions, "--target", "0", "--steps")
    assert ("(nan)" in page) == ("nan" in words)
    assert ("nan" in page) == ("nan" in words)


def test_standard_input(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("[0.7,\n 3.1]\n\n"))
    found = figures(capsys, "-", "0.6", "--names", "cat, dog ,fish")
    assert found == {
        "names": ["cat", "dog", "fish"],
        "logits": [0.7, 3.1, 0.6],
        "temperature": 1.0,
        "parameters": {},
        "values": {"softmax": pytest.approx([0.0773514025876, 0.852658154014, 0.0699904433989], abs=1e-12)},
        "sums": {"softmax": pytest.approx(1.0, abs=1e-15)},
    }


def test_a_thousand_logits(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(0).normal(size=1000).round(3)
    text = " ".join(map(str, logits))
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    page = run(capsys, "-", "--with", "sigmoid,sparsemax", "--steps")
    table = page.split("\n\n")[0].splitlines()
    assert len(table) == 23  # a title, the 20 largest, the others together, the sum
    assert [int(line.split()[0]) for line in table[1:21]] == list(np.argsort(-logits, kind="stable")[:20])
    assert table[21].startswith("980 more ")
    shares = [float(share) for share in column(page, "softmax", 21)]
    assert sum(shares[:-1]) == pytest.approx(1.0, abs=22 * 5e-5)
    assert page.count("\n") < 90
    assert "(992 more) = " in page
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert len(run(capsys, "-", "--top", "1000").splitlines()) == 1002
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert len(figures(capsys, "-")["values"]["softmax"]) == 1000


@pytest.mark.parametrize("words", [[], ["--digits", "9", "--temperature", "0.123456789"], ["--degree", "10"]])
@pytest.mark.parametrize("logits", [B, ["1e-30", "123456.789", "0.1234567891"], [str(k) for k in range(30)]])
def test_a_pipe_gets_plain_text_of_at_most_100_columns(capsys: Capture, logits: list[str], words: list[str]) -> None:
    names = ",".join(f"a very long name of the class number {k}"[k % 20 :] for k in range(len(logits)))
    page = run(capsys, *logits, "--with", EVERY, "--target", names.split(",")[0], "--names", names, "--steps", *words)
    assert "\x1b" not in page
    assert max(map(len, page.splitlines())) <= 100
    assert page == "".join(line.rstrip() + "\n" for line in page.splitlines())


def test_wide_letters_keep_the_columns(capsys: Capture) -> None:
    title, cat, dog = run(capsys, "1", "2", "--names", "大きな猫,dog\x1b").splitlines()[:3]
    assert cat.startswith("大きな猫    ")
    assert dog.startswith("dog\N{REPLACEMENT CHARACTER}        ")
    assert len(title) == title.index("softmax") + 7


def test_a_stream_without_blocks_gets_signs_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert main(["softmax", "1", "2"]) == 0
    assert raw.getvalue().decode("ascii").splitlines()[1:3] == [
        "0        1   0.2689 " + "#" * 11,
        "1        2   0.7311 " + "#" * 29,
    ]


def test_colour_on_a_terminal_and_its_width(capsys: Capture) -> None:
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")} | {"TERM": "xterm"}
    subprocess.run([sys.executable, "-m", "luce", "softmax", *B], stdout=follower, env=environment, check=True)
    os.close(follower)
    shown = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert "\x1b[36m" in shown
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown).replace("\r", "")
    assert max(len(line.rstrip()) for line in plain.splitlines()) <= 60
    assert column(plain, "softmax", 3) == column(run(capsys, *B), "softmax", 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no numbers given; write some, as in luce softmax 0.7 3.1 0.6"),
        (["[]"], "no numbers given"),
        (["1", "two"], "'two' is not a number; numbers look like"),
        (["1,5", "2"], "write a point for the decimals"),
        (["-1,5", "2"], "write a point for the decimals"),
        (["1e400"], "1e400 is too large"),
        (["1", "--temperature", "0"], "temperature must be positive"),
        (["1", "--temperature", "nan"], "temperature must be positive"),
        (["1", "--temperature", "2,5"], "--temperature"),
        (["1", "--temp", "2"], "no option --temp; did you mean --temperature?"),
        (["1", "-x"], "no option -x; luce softmax --help lists them"),
        (["1", "--with", "sigmod"], "no function 'sigmod'; did you mean sigmoid? there are softmax, log_softmax, sigm"),
        (["1", "--with", ""], "no function ''"),
        (["1", "--with", "sigmoid", "normalize"], "as in --with sigmoid,normalize"),
        (["-1", "2", "--with", "normalize"], "normalize"),
        (["0", "0", "--with", "normalize"], "normalize"),
        (["1", "2", "--with", "taylor", "--degree", "3"], "degree must be"),
        (["1", "2", "--with", "taylor", "--degree", "0"], "degree must be"),
        (["1", "2", "--with", "entmax", "--alpha", "0.5"], "alpha must be"),
        (["1", "2", "--with", "spherical", "--eps", "-1"], "eps must be"),
        (["1", "2", "--with", "soft_margin", "--target", "0", "--margin", "-1"], "margin must be"),
        (["1", "2", "--degree", "4"], "--degree is for taylor and sm_taylor; add --with taylor"),
        (["1", "2", "--target", "0"], "--target is for soft_margin and sm_taylor"),
        (["1", "2", "--with", "soft-margin"], "soft_margin takes a margin off the true class; say which with --target"),
        (["1", "2", "--with", "soft_margin", "--target", "2"], "one of 0, 1; got '2'"),
        (["1", "2", "--with", "soft_margin", "--target", "0", "--names", "a,b"], "one of a, b; got '0'"),
        (["1", "2", "--names", "a"], "--names must be 2, one for each logit, got 1"),
        (["1", "2", "--names", "a,a"], "--names must all be different and none empty"),
        (["1", "2", "--names", "a,"], "--names must all be different and none empty"),
        (["1", "--digits", "0"], "--digits must be from 1 to 9"),
        (["1", "--top", "0"], "--top must be at least 1"),
    ],
)
@pytest.mark.parametrize("json_too", [False, True])
def test_a_mistake_gets_one_message_and_status_2(
    capsys: Capture, words: list[str], message: str, json_too: bool
) -> None:
    assert main(["softmax", *words, *(["--json"] if json_too else [])]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("luce: ")
    assert err.count("\n") == 1
    assert "bug" not in err


def test_standard_input_that_is_no_text(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe1"), encoding="utf-8"))
    assert main(["softmax", "-"]) == 2
    assert "standard input is not text" in capsys.readouterr().err
