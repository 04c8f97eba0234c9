"""The pictures: complete, drawn from what the functions return, readable, the same bytes every time."""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

import luce
from luce.cli import main
from luce.links import LINKS
from luce.plots import FORMATS, PLOTS, describe, render, simplex
from luce.plots.themes import DARK, LIGHT, LINES, Theme

DRAWINGS = [(name, dark) for name in PLOTS for dark in (False, True)]
SVG = "{http://www.w3.org/2000/svg}"
Capture = pytest.CaptureFixture[str]


def line(figure: Figure, axes: int, name: str) -> tuple[Any, Any]:
    (found,) = (one for one in figure.axes[axes].get_lines() if one.get_label() == name)
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def bars(figure: Figure, name: str = "") -> list[list[float]]:
    """The heights of the groups of bars, or of those with this name."""
    groups = [group for axes in figure.axes for group in axes.containers if isinstance(group, BarContainer)]
    return [[bar.get_height() for bar in group.patches] for group in groups if name in ("", group.get_label())]


def pairs(t: Any, other: float = 0.0) -> Any:
    return np.stack([t, np.full_like(t, other)], axis=-1)


# The registry


def test_every_file_of_a_picture_is_in_the_registry() -> None:
    files = {path.stem for path in Path(luce.plots.__file__).parent.glob("*.py")}
    assert files - {"__init__", "page", "render", "themes"} == {name.replace("-", "_") for name in PLOTS}


@pytest.mark.parametrize("name", PLOTS)
def test_a_description_is_one_short_sentence(name: str) -> None:
    assert describe(name).endswith(".")
    assert len(describe(name)) <= 95
    assert name.replace("-", "_") in luce.plots.__all__
    assert getattr(luce.plots, name.replace("-", "_")) is PLOTS[name]


# What is drawn


@pytest.mark.parametrize(
    ("name", "axes", "label", "expected"),
    [
        ("softmax-sigmoid", 0, "softmax, class 1", lambda t: luce.softmax(pairs(t))[:, 0]),
        ("softmax-sigmoid", 0, "softmax, class 2", lambda t: luce.softmax(pairs(t))[:, 1]),
        ("softmax-sigmoid", 0, "sigmoid(t)", luce.sigmoid),
        ("softmax-sigmoid", 0, "sigmoid(−t)", lambda t: luce.sigmoid(-t)),
        ("temperature", 0, "logit 3", lambda t: [luce.softmax([3.0, 2, 1], temperature=float(a))[0] for a in t]),
        ("temperature", 0, "logit 1", lambda t: [luce.softmax([3.0, 2, 1], temperature=float(a))[2] for a in t]),
        ("taylor", 0, "degree 4", lambda t: 1 + t + t**2 / 2 + t**3 / 6 + t**4 / 24),
        ("taylor", 0, "exp", np.exp),
        ("taylor", 1, "degree 2", lambda t: luce.taylor_softmax(pairs(t), degree=2)[:, 0]),
        ("taylor", 1, "degree 6", lambda t: luce.taylor_softmax(pairs(t), degree=6)[:, 0]),
        ("taylor", 1, "softmax", lambda t: luce.softmax(pairs(t))[:, 0]),
        ("sparse", 0, "softmax", lambda t: luce.softmax(pairs(t))[:, 0]),
        ("sparse", 0, "entmax15", lambda t: luce.entmax15(pairs(t))[:, 0]),
        ("sparse", 0, "sparsemax", lambda t: np.clip((t + 1) / 2, 0, 1)),
        ("soft-margin", 0, "m = 0", luce.sigmoid),
        ("soft-margin", 0, "m = 2", lambda t: luce.sigmoid(t - 2)),
        ("soft-margin", 1, "m = 1", lambda t: np.log1p(np.exp(1 - t))),
        ("spherical", 0, "ε = 0.3", lambda t: luce.spherical_softmax(pairs(t, 1), eps=0.3)[:, 0]),
        ("spherical", 1, "ε = 0.001", lambda t: -np.log(luce.spherical_softmax(pairs(t, 1), eps=0.001)[:, 0])),
        ("spherical", 1, "softmax", lambda t: np.log1p(np.exp(1 - t))),
        ("pseudo", 0, "pseudo_softmax", lambda t: 2**t / (2**t + 1)),
        ("pseudo", 0, "softmax, T = 1.44", lambda t: luce.pseudo_softmax(pairs(t))[:, 0]),
        ("pseudo", 0, "softmax", luce.sigmoid),
    ],
)
def test_a_curve_is_what_the_function_returns(name: str, axes: int, label: str, expected: Callable[..., Any]) -> None:
    x, y = line(PLOTS[name](), axes, label)
    assert len(x) > 200
    np.testing.assert_allclose(y, expected(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LINKS)
def test_the_loss_of_every_link_is_drawn_with_its_gradient(name: str) -> None:
    figure, axes = PLOTS["loss"](), list(LINKS).index(name)
    x, loss = line(figure, axes, f"{name}: loss")
    _, gradient = line(figure, axes, f"{name}: gradient")
    logits = np.stack([x, np.ones_like(x), -np.ones_like(x)], axis=-1)
    expected = LINKS[name]().loss_and_grad(logits, np.zeros(len(x), np.int64))
    np.testing.assert_array_equal(loss, expected[0])
    np.testing.assert_array_equal(gradient, expected[1][:, 0])
    smooth = (np.abs(x) > 0.5) & (np.abs(x) < 3.9)  # away from the steep middle of the spherical loss and the ends
    np.testing.assert_allclose(np.gradient(loss, x)[smooth], gradient[smooth], atol=0.02)


def test_bars_have_the_published_heights() -> None:
    heights = bars(PLOTS["normalize"]())
    first, shifted, scaled = ({"s": heights[i], "n": heights[i + 1]} for i in (0, 2, 4))
    np.testing.assert_allclose(first["s"], [0.0773514, 0.8526582, 0.0699904], atol=1e-7)
    np.testing.assert_allclose(first["n"], [0.1590909, 0.7045455, 0.1363636], atol=1e-7)
    np.testing.assert_allclose(shifted["s"], first["s"], rtol=1e-12)  # softmax ignores a shift
    np.testing.assert_allclose(shifted["n"], [0.2938144, 0.4175258, 0.2886598], atol=1e-7)
    np.testing.assert_allclose(scaled["n"], first["n"], rtol=1e-12)  # plain normalisation ignores a factor
    np.testing.assert_allclose(scaled["s"], luce.softmax([1.4, 6.2, 1.2]), rtol=1e-12)
    np.testing.assert_allclose(bars(PLOTS["pseudo"](), "pseudo_softmax"), [[1 / 7, 2 / 7, 4 / 7]], rtol=1e-12)
    np.testing.assert_allclose(bars(PLOTS["sparse"](), "sparsemax"), [[0.75, 0.25, 0, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(
        [bars(PLOTS["temperature"](), f"T = 4, logit {z}")[0][0] for z in (3, 2, 1)],
        luce.softmax([3.0, 2, 1], temperature=4),
        rtol=1e-12,
    )


def test_what_is_periodic_goes_in_and_comes_out() -> None:
    figure = PLOTS["periodic"]()
    for axes, name in itertools.product((0, 1), ("class 1", "class 2", "class 3")):
        x, y = line(figure, axes, name)
        later = np.interp(x[x <= 1] + 1, x, y)
        np.testing.assert_allclose(later, y[x <= 1], atol=1e-9)
    logits = np.stack([line(figure, 0, f"class {i}")[1] for i in (1, 2, 3)], axis=-1)
    chances = np.stack([line(figure, 1, f"class {i}")[1] for i in (1, 2, 3)], axis=-1)
    np.testing.assert_allclose(chances, luce.softmax(logits), rtol=1e-12)


def test_the_net_lies_in_the_simplex_where_the_functions_put_it() -> None:
    figure = PLOTS["simplex"]()
    corners = importlib.import_module("luce.plots.simplex").CORNERS
    for axes, function in enumerate((luce.softmax, luce.entmax15, luce.sparsemax), start=1):
        for ray, k in (("ray 90", 0), ("ray 210", 1), ("ray 330", 2)):  # towards a class
            x, y = line(figure, axes, ray)
            length = np.linspace(0, 2.4, len(x))
            logits = np.full((len(x), 3), -1 / np.sqrt(6)) * length[:, None]
            logits[:, k] = np.sqrt(2 / 3) * length
            np.testing.assert_allclose(np.stack([x, y], -1), function(logits) @ corners, atol=1e-12)
    inside, edge, corner = (np.array(line(figure, 3, name)).ravel() for name in "ABC")
    barycentric = np.linalg.inv(np.vstack([corners.T, np.ones(3)]))
    assert [(barycentric @ [*at, 1] > 1e-9).sum() for at in (inside, edge, corner)] == [3, 2, 1]


@pytest.mark.parametrize(
    ("picture", "name"),
    [
        *((picture, "softmax") for picture in PLOTS if picture not in ("soft-margin", "loss")),
        ("softmax-sigmoid", "sigmoid"),
        ("taylor", "taylor_softmax"),
        ("sparse", "entmax15"),
        ("sparse", "sparsemax"),
        ("soft-margin", "soft_margin_softmax"),
        ("simplex", "entmax15"),
        ("simplex", "sparsemax"),
        ("normalize", "normalize"),
        ("spherical", "spherical_softmax"),
        ("pseudo", "pseudo_softmax"),
    ],
)
def test_a_wrong_function_would_be_seen(picture: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = render(PLOTS[picture]())
    module = importlib.import_module(PLOTS[picture].__module__)
    imported = hasattr(module, name) and getattr(module, name) is not PLOTS[picture]
    holder = module if imported else luce.links if hasattr(luce.links, name) else luce.functions
    function = getattr(holder, name)
    monkeypatch.setattr(
        holder, name, lambda x, *args, **options: function(np.asarray(x) * 1.05 + 0.05, *args, **options)
    )
    assert render(PLOTS[picture]()) != right


# How it looks


def texts(figure: Figure) -> list[tuple[Text, Any]]:
    """Every text that is seen, with its box in pixels."""
    figure.draw_without_rendering()
    found = []
    for text in figure.findobj(Text):
        axes = text.axes
        seen = text.get_visible() and text.get_text() and (axes is None or axes.axison or text in axes.texts)
        if seen and _drawn(text, axes):
            found.append((text, text.get_window_extent()))
    return found


def _drawn(text: Text, axes: Any) -> bool:
    """Whether a label of a tick is within the limits of its axis; other texts are."""
    if axes is None:
        return True
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks() + axis.get_minor_ticks():
            if text in (tick.label1, tick.label2):
                return bool(low - 1e-9 <= tick.get_loc() <= high + 1e-9)
    return True


@pytest.mark.parametrize(("name", "dark"), DRAWINGS)
def test_no_text_overlaps_another_or_leaves_the_page(name: str, dark: bool) -> None:
    figure = PLOTS[name](dark=dark)
    found = texts(figure)
    assert len(found) > 10
    width, height = figure.canvas.get_width_height()
    for text, box in found:
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= 6, text
        assert float(text.get_fontsize()) >= 10, text
    for (one, a), (other, b) in itertools.combinations(found, 2):
        apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
        assert apart, f"{one.get_text()!r} overlaps {other.get_text()!r}"


@pytest.mark.parametrize("name", [name for name in PLOTS if name != "simplex"])  # its letters lie on the net
def test_no_curve_runs_through_a_text(name: str) -> None:
    figure = PLOTS[name]()
    found = texts(figure)
    for axes in figure.axes:
        low, high = axes.bbox.y0, axes.bbox.y1
        for curve in axes.get_lines():
            if curve.get_transform() != axes.transData:
                continue  # a rule across the axes
            x, y = curve.get_transform().transform(np.asarray(curve.get_xydata())).T
            steps = np.linspace(0, len(x) - 1, 20 * len(x))
            x, y = np.interp(steps, np.arange(len(x)), x), np.interp(steps, np.arange(len(x)), y)
            for text, box in found:
                through = (x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1) & (y > low) & (y < high)
                assert not through.any(), f"{curve.get_label()} runs through {text.get_text()!r}"


@pytest.mark.parametrize(("name", "dark"), DRAWINGS)
def test_every_colour_is_of_the_theme(name: str, dark: bool) -> None:
    figure, theme = PLOTS[name](dark=dark), DARK if dark else LIGHT
    colours = set(asdict(theme).values())
    assert to_hex(figure.get_facecolor()) == theme.background
    for text, _ in texts(figure):
        assert to_hex(text.get_color()) in colours - {theme.background, theme.grid}, text
    for drawn in (curve for axes in figure.axes for curve in axes.get_lines()):
        assert to_hex(drawn.get_color()) in colours, drawn


def test_the_checks_of_texts_notice_an_overlap() -> None:
    figure = PLOTS["pseudo"]()
    figure.text(0.04, 0.95, "over the title")
    boxes = [box for _, box in texts(figure)]
    assert any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def luminance(colour: str) -> float:
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("hue", ["ink", "muted", "blue", "vermilion", "green", "purple"])
def test_text_in_every_hue_is_readable_on_the_background(theme: Theme, hue: str) -> None:
    low, high = sorted([luminance(getattr(theme, hue)), luminance(theme.background)])
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_hues_have_line_styles_of_their_own() -> None:
    assert len({str(LINES[hue]) for hue in ("blue", "vermilion", "green", "purple")}) == 4


# Files


@pytest.mark.parametrize(("name", "dark"), DRAWINGS)
def test_an_svg_is_sound_and_the_same_every_time(name: str, dark: bool) -> None:
    content = render(PLOTS[name](dark=dark), title=describe(name))
    assert content == render(PLOTS[name](dark=dark), title=describe(name))
    assert content != render(PLOTS[name](dark=not dark), title=describe(name))
    root = ElementTree.fromstring(content)
    assert root.tag == f"{SVG}svg"
    assert root.attrib["width"] == "400pt"
    assert root.findtext(f"{SVG}title") == describe(name)
    assert not root.findall(f".//{SVG}image")  # curves stay curves
    assert not root.findall(f".//{SVG}text")  # letters need no font
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    assert b"<dc:date>" not in content
    assert matplotlib.__version__.encode() not in content.partition(b"<defs>")[0]


@pytest.mark.parametrize("name", PLOTS)
def test_a_png_is_1200_pixels_wide_and_the_same_every_time(name: str) -> None:
    content = render(PLOTS[name](), "png")
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20]) == 1200
    assert content == render(PLOTS[name](), "png")


def test_settings_of_matplotlib_neither_matter_nor_change() -> None:
    right = render(PLOTS["sparse"]())
    with matplotlib.rc_context(
        {"font.size": 30, "xtick.major.width": 4, "path.simplify": False, "svg.fonttype": "none"}
    ):
        before = dict(matplotlib.rcParams)
        assert render(PLOTS["sparse"]()) == right
        assert dict(matplotlib.rcParams) == before


def test_pyplot_is_not_loaded() -> None:
    code = "import sys; from luce.plots import *; a = 'matplotlib' in sys.modules; render(simplex()); "
    code += "print(a, 'matplotlib.pyplot' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="render: format must be one of svg, png, got 'pdf'"):
        render(simplex(), "pdf")  # type: ignore[arg-type]  # the point of the test


# The command


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_command_lists_every_picture(capsys: Capture) -> None:
    assert main(["plot", "--list"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [row.split(maxsplit=1) for row in out] == [[name, describe(name)] for name in PLOTS]


def test_the_help_names_every_picture(capsys: Capture) -> None:
    assert main(["plot", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in PLOTS)


def test_a_name_alone_writes_an_svg_here(folder: Path, capsys: Capture) -> None:
    assert main(["plot", "taylor", "pseudo", "taylor"]) == 0
    assert written(folder) == ["pseudo.svg", "taylor.svg"]
    assert capsys.readouterr().out.splitlines() == ["taylor.svg", "pseudo.svg"]
    assert (folder / "taylor.svg").read_bytes() == render(PLOTS["taylor"](), title=describe("taylor"))


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["-o", "a.svg"], ["a.svg"]),
        (["-o", "a.PNG"], ["a.PNG"]),
        (["-o", "a.png", "--format", "png"], ["a.png"]),
        (["--format", "png"], ["sparse.png"]),
        (["-o", "figures"], ["figures/sparse.svg"]),
        (["-o", "figures", "--format", "png", "--dark"], ["figures/sparse.png"]),
    ],
)
def test_where_a_picture_goes(words: list[str], files: list[str], folder: Path) -> None:
    (folder / "figures").mkdir()
    assert main(["plot", "sparse", *words]) == 0
    assert written(folder) == files
    content = (folder / files[0]).read_bytes()
    kind = FORMATS[files[0].lower().endswith("png")]
    assert content == render(PLOTS["sparse"](dark="--dark" in words), kind, title=describe("sparse"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "plot: which picture? There are: softmax-sigmoid, temperature, "),
        (["tailor", "taylor"], "plot: no picture is called 'tailor'; there are: softmax-sigmoid, temperature, "),
        (["taylor", "--format", "gif"], "gif"),
        (["taylor", "-o", "a.gif"], "--output: must be a file that ends in .svg or .png, or a folder that is there, "),
        (["taylor", "-o", "a.svg", "--format", "png"], "--output: must be a file that ends in .png, or a folder "),
        (["taylor", "pseudo", "-o", "a.svg"], "--output: for 2 pictures it must be a folder that is there, got a.svg"),
        (["taylor", "-o", "-"], "--output: must be a file that ends in .svg or .png, or a folder that is there, got -"),
    ],
)
def test_a_mistake_gives_one_message(words: list[str], message: str, folder: Path, capsys: Capture) -> None:
    assert main(["plot", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert (out, written(folder)) == ("", [])


def test_a_folder_that_is_not_there_is_named(folder: Path, capsys: Capture) -> None:
    assert main(["plot", "taylor", "-o", "no/a.svg"]) == 1
    assert "make the folder no first" in capsys.readouterr().err
    assert written(folder) == []


@pytest.mark.parametrize("words", [["taylor"], ["--list"]])
def test_without_matplotlib_the_command_says_what_to_install(
    words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    if words == ["--list"]:
        assert main(["plot", *words]) == 0
    else:
        assert main(["plot", *words]) == 1
        assert "pip install 'luce[plot]'" in capsys.readouterr().err
    assert written(folder) == []


# The page


def test_the_page_names_every_picture() -> None:
    page = (Path(__file__).parent.parent / "docs" / "plots.md").read_text()
    assert [name for name in PLOTS if f"| `{name}` |" not in page] == []
