"""The report: every number is there, nothing hostile gets through, and drawings lie where the data says."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luce.metrics import Bin
from luce.report import ClassScores, Confusion, Mistake, Report, Summary, render, svg
from luce.report.numbers import decimal, duration, percent

VOID = {"meta", "input", "img", "br", "link", "hr", "base"}
BLOCKS = {"td", "th", "dt", "dd", "p", "li", "h1", "h2", "h3", "summary", "caption"}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


@dataclass(frozen=True)
class Found:
    """A problem, as `luce.datasets` would make it."""

    kind: str
    path: str
    reason: str
    class_name: str | None = None


class Page(HTMLParser):
    """A page taken apart; `faults` lists tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.faults: list[str] = []
        self.texts: list[str] = []
        self.svg_texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(set(names)) < len(names):
            self.faults.append(f"<{tag}> repeats an attribute: {names}")
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if "svg" not in self._open:
            self.faults.append(f"<{tag}/> outside a drawing")
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self._open[-1:]}")
        else:
            self._open.pop()
        if tag in BLOCKS and "svg" not in self._open:
            self.texts.append(" ")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            (self.svg_texts if "svg" in self._open else self.texts).append(data)

    @property
    def text(self) -> str:
        """What there is to read outside drawings, with ordinary spaces."""
        return re.sub(r"\s+", " ", "".join(self.texts))

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in wanted.items())]


def bins(seed: int) -> list[Bin]:
    rng = np.random.default_rng(seed)
    made = []
    for b in range(15):
        n = int(rng.integers(0, 90)) if b > 2 else 0
        low, high = b / 15, (b + 1) / 15
        if n == 0:
            made.append(Bin(low, high, 0, None, None, None, None))
        else:
            accuracy = float(rng.uniform(0.2, 0.8))
            made.append(Bin(low, high, n, float(rng.uniform(low, high)), accuracy, accuracy - 0.11, accuracy + 0.13))
    return made


def report(names: list[str], *, seed: int = 0, per_row: int = 40, **changes: object) -> Report:
    """Make a report full of numbers that differ from each other."""
    rng = np.random.default_rng(seed)
    k = len(names)
    counts = rng.multinomial(per_row, np.full(k, 1 / k), size=k) + np.diag(rng.integers(1, 100, k))
    figures = rng.uniform(0.1, 0.9, 17).tolist()
    keys = ("accuracy", "nll", "brier", "ece", "ece_uncalibrated")
    values = {f"{key}{end}": figures.pop() for key in keys for end in ("", "_low", "_high")}
    scores = [
        ClassScores(
            name=name,
            n_train=int(rng.integers(1000, 9999)),
            n_test=int(counts[i].sum()),
            precision=float(rng.uniform()),
            recall=float(rng.uniform()),
            recall_low=float(rng.uniform()),
            recall_high=float(rng.uniform()),
            f1=float(rng.uniform()),
        )
        for i, name in enumerate(names)
    ]
    mistakes = [
        Mistake(
            path=f"photos/{names[0]}/{i}.jpg",
            truth=names[0],
            predicted=names[-1],
            probability=float(rng.uniform(0.5, 0.9)),
            truth_probability=float(rng.uniform(0, 0.3)),
            thumbnail=PIXEL if i % 2 else "",
        )
        for i in range(5)
    ]
    made = Report(
        title="waste",
        subtitle="photos",
        summary=Summary(
            n_test=int(counts.sum()),
            n_train=8123,
            seconds=252.0,
            temperature=1.37,
            nll_uncalibrated=figures.pop(),
            **values,
        ),
        reliability=bins(seed + 1),
        reliability_uncalibrated=bins(seed + 2),
        confusion=Confusion(names, counts),
        per_class=scores,
        mistakes=mistakes,
        problems=[Found("unreadable", "a/b.jpg", "cut short", names[0]), Found("imbalance", "", "19 to 1")],
        problems_total={"unreadable": 4321},
        how_trained=[("Seed", "17"), ("Temperature", "1.37, fitted on 1,768 logits")],
        notes=["Read this."],
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the tests change any field


SIX = ["cardboard", "glass", "metal", "paper", "plastic", "trash"]
HOSTILE = [
    "<script>alert(1)</script>",
    "\" onmouseover='alert(2)' x=\"",
    "</style></script></title><img src=x onerror=alert(3)>",
    "{{ 7*7 }}{% raw %}",
    "<!-- -->]]>&lt;&amp;",
    "قطط وكلاب",
    "猫の写真" * 30,
    "e\u0301" * 40,
    "javascript:alert(4)",
]


def numbers_of(r: Report) -> list[str]:
    """Every number of a report, as the page must write it."""
    s = r.summary
    told = [
        percent(getattr(s, f"{k}{e}")) for k in ("accuracy", "ece", "ece_uncalibrated") for e in ("", "_low", "_high")
    ]
    told += [decimal(getattr(s, f"{k}{e}")) for k in ("nll", "brier") for e in ("", "_low", "_high")]
    told += [decimal(s.nll_uncalibrated), decimal(s.temperature), duration(s.seconds)]
    told += [f"{n:,}" for n in (s.n_test, s.n_train or 0)]
    for b in (*r.reliability, *r.reliability_uncalibrated):
        told += [
            f"{b.count:,}",
            percent(b.confidence),
            percent(b.accuracy),
            percent(b.accuracy_low),
            percent(b.accuracy_high),
        ]
    for c in r.per_class:
        told += [f"{c.n_train:,}", f"{c.n_test:,}"]
        told += [percent(v) for v in (c.precision, c.recall, c.recall_low, c.recall_high, c.f1)]
    for m in r.mistakes:
        told += [percent(m.probability), percent(m.truth_probability)]
    told += [f"{n:,}" for n in r.problems_total.values()]
    return [text.replace("\N{NO-BREAK SPACE}", " ") for text in told]


@pytest.mark.parametrize("n_classes", [1, 2, 6, 25, 26, 100])
def test_every_number_that_goes_in_is_on_the_page(n_classes: int) -> None:
    r = report([f"class {i}" for i in range(n_classes)])
    page = Page(render(r))
    missing = [text for text in numbers_of(r) if not re.search(rf"(?<![\d.,]){re.escape(text)}(?![\d,])", page.text)]
    assert missing == []
    for label, value in r.how_trained:
        assert label in page.text
        assert value in page.text


def test_the_confusion_matrix_is_a_table_of_its_counts_with_names() -> None:
    r = report(SIX)
    table = render(r).partition('<table class="matrix')[2].partition("</table>")[0]
    rows = [Page(row) for row in re.findall(r"<tr>.*?</tr>", table)]
    assert [text for text in rows[0].texts if text != " "][1:] == [*SIX, "all"]
    for i, row in enumerate(rows[1:]):
        counts = np.asarray(r.confusion.counts)[i]
        shares = [f"{100 * n / counts.sum():.0f}" for n in counts]
        told = [text for pair in zip(map(str, counts), shares, strict=True) for text in pair]
        assert [text for text in row.texts if text != " "] == [SIX[i], *told, str(counts.sum())]
        colours = [cell["class"].split() for cell in row.all("td")[:-1]]
        for j, (colour, *outline) in enumerate(colours):
            share = counts[j] / counts.sum()
            shade = max(level for level in range(1, 9) if share >= ((level - 1) / 8) ** 2)
            assert colour == (f"{'right' if i == j else 'wrong'}{shade}" if counts[j] else "none")
            assert outline == (["diag"] if i == j else [])


def test_figures_are_compared_with_what_a_simple_rule_would_reach() -> None:
    counts = np.diag([10, 20, 5])
    counts[1, 0] = 15
    text = Page(render(report(["a", "b", "c"], confusion=Confusion(["a", "b", "c"], counts)))).text
    assert "70.0 % by always saying b" in text  # 35 of 50
    assert re.search(r"(?<![−\d])1\.099 by guessing evenly", text)  # ln 3
    assert "0.667 by guessing evenly" in text  # 1 - 1/3


def test_of_many_classes_the_most_confused_pairs_are_listed() -> None:
    names = [f"kind {i}" for i in range(40)]
    counts = np.diag(np.full(40, 50))
    counts[3, 7], counts[20, 1], counts[7, 3] = 9, 12, 4
    html = render(report(names, confusion=Confusion(names, counts)))
    table = html.partition('aria-label="Most confused pairs"')[2].partition("</table>")[0]
    body = table.partition("<tbody>")[2]
    told = [[cell for cell in Page(row).texts if cell != " "] for row in re.findall(r"<tr>.*?</tr>", body)]
    spaced = [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in told]
    assert spaced == [
        ["kind 20", "kind 1", "12", "19.4 %"],
        ["kind 3", "kind 7", "9", "15.3 %"],
        ["kind 7", "kind 3", "4", "7.4 %"],
    ]


def assert_sound(html: str) -> Page:
    """Well-formed, unique ids that links and labels find, and nothing from outside."""
    page = Page(html)
    assert page.faults == []
    ids = Counter(a["id"] for _, a in page.tags if "id" in a)
    assert max(ids.values()) == 1
    for _, a in page.tags:
        for name in ("for", "aria-labelledby"):
            assert a.get(name, next(iter(ids))) in ids
        if "href" in a:
            assert a["href"][0] == "#"
            assert a["href"][1:] in ids
        assert a.get("src", "data:image/").startswith("data:image/")
        assert not {"srcset", "action", "data", "poster", "xlink:href", "ping"} & set(a)
        assert not [name for name in a if name.startswith("on")]
    assert len(page.all("script")) == 1
    assert not page.all("link") + page.all("iframe") + page.all("object") + page.all("base")
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert not re.search(r"url\(|@import", style)
    html.encode("utf-8")
    return page


@pytest.mark.parametrize("n_classes", [1, 2, 10, 25, 26, 100, 250])
def test_the_page_is_well_formed_and_refers_to_nothing_outside(n_classes: int) -> None:
    html = render(report([f"class {i}" for i in range(n_classes)]))
    assert_sound(html)
    without_pictures = re.sub(r"data:image/[^\"]*", "", html)
    assert "//" not in without_pictures
    assert "NaN" not in re.sub(r"isNaN", "", html)


def test_the_browser_is_told_to_run_only_our_script() -> None:
    html = render(report(SIX))
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    contents = [a["content"] for a in Page(html).all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(contents) == 1
    assert f"script-src 'sha256-{digest}';" in contents[0]
    assert contents[0].startswith("default-src 'none';")


@pytest.mark.parametrize("copies", [1, 4])
def test_hostile_names_and_paths_are_text_and_nothing_else(copies: int) -> None:
    names = [f"{name}{'' if i == 0 else i}" for i in range(copies) for name in HOSTILE]
    evil = HOSTILE[2]
    r = report(
        names,
        title=HOSTILE[0],
        subtitle=evil,
        notes=[evil],
        how_trained=[(HOSTILE[1], evil)],
        problems=[Found(evil, name, HOSTILE[1], name) for name in HOSTILE],
        problems_total={evil: 99},
        mistakes=[
            Mistake(path=name, truth=name, predicted=evil, probability=0.5, truth_probability=0.1, thumbnail=PIXEL)
            for name in HOSTILE
        ],
    )
    page = assert_sound(render(r))
    for name in HOSTILE:
        assert name in page.text
    harmless = assert_sound(render(report([f"n{i}" for i in range(len(names))])))
    strange = {tag for tag, _ in page.tags} - {tag for tag, _ in harmless.tags}
    assert strange <= {"title", "ul", "li", "details", "summary", "b"}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(codec=None), min_size=1, max_size=30), min_size=2, max_size=30, unique=True))
def test_any_names_give_a_sound_page(names: list[str]) -> None:
    assert_sound(render(report(names, title=names[0])))


def test_bytes_of_a_path_that_are_no_utf8_are_replaced() -> None:
    path = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    page = assert_sound(render(report(SIX, problems=[Found("unreadable", path, "bad \x00 byte")])))
    assert "caf\N{REPLACEMENT CHARACTER}.jpg: bad \N{REPLACEMENT CHARACTER} byte" in page.text


@pytest.mark.parametrize(
    "thumbnail",
    ["photo.jpg", "https://example.org/x.png", "data:image/svg+xml;base64,AAAA", 'data:image/png;base64,"'],
)
def test_a_thumbnail_that_is_no_embedded_picture_is_refused(thumbnail: str) -> None:
    with pytest.raises(ValueError, match="thumbnail must be a data:image"):
        Mistake(path="a", truth="b", predicted="c", probability=1, truth_probability=0, thumbnail=thumbnail)


def test_counts_that_do_not_fit_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"non-negative integers of shape \(2, 2\)"):
        Confusion(["a", "b"], [[1, 2, 3], [4, 5, 6]])
    with pytest.raises(ValueError, match="non-negative"):
        Confusion(["a"], [[-1]])
    with pytest.raises(ValueError, match="one row for each class"):
        render(report(SIX, per_class=report(SIX[::-1]).per_class))
    with pytest.raises(ValueError, match="has 3 pictures but no values"):
        render(report(SIX, reliability=[Bin(0.0, 1.0, 3, None, None, None, None)]))


def attributes(drawing: str, tag: str, name: str) -> list[dict[str, str]]:
    return [a for a in Page(drawing).all(tag) if a.get("class") == name]


def test_marks_whiskers_gaps_and_bars_lie_where_the_data_says() -> None:
    data = bins(5)
    full = [b for b in data if b.count]
    drawing = str(svg.reliability(data, name="x", kind="after"))
    (plane,) = attributes(drawing, "rect", "plane")
    left, top, side = (float(plane[key]) for key in ("x", "y", "width"))

    def place(confidence: float | None, accuracy: float | None) -> tuple[float, float]:
        assert confidence is not None
        assert accuracy is not None
        return left + side * confidence, top + side - side * accuracy

    marks = attributes(drawing, "circle", "mark")
    whiskers = attributes(drawing, "path", "whisker")
    gaps = attributes(drawing, "path", "gap")
    assert len(marks) == len(whiskers) == len(gaps) == len(full)
    for b, mark, whisker, gap in zip(full, marks, whiskers, gaps, strict=True):
        x, y = place(b.confidence, b.accuracy)
        assert (float(mark["cx"]), float(mark["cy"])) == pytest.approx((x, y), abs=0.01)
        coordinates = [float(n) for n in re.findall(r"[\d.]+", whisker["d"])]
        _, high_y, _, x_again, _, low_y, *_ = coordinates
        assert x_again == pytest.approx(x, abs=0.01)
        assert low_y == pytest.approx(place(b.confidence, b.accuracy_low)[1], abs=0.01)
        assert high_y == pytest.approx(place(b.confidence, b.accuracy_high)[1], abs=0.01)
        gap_x, gap_from, gap_to = (float(n) for n in re.findall(r"[\d.]+", gap["d"]))
        assert (gap_x, gap_from, gap_to) == pytest.approx((x, place(b.confidence, b.confidence)[1], y), abs=0.01)
    bars = attributes(drawing, "rect", "bar")
    heights = [float(bar["height"]) for bar in bars]
    most = max(b.count for b in full)
    assert heights == pytest.approx([max(heights) * b.count / most for b in full], abs=0.02)
    assert len({round(float(bar["y"]) + float(bar["height"]), 1) for bar in bars}) == 1
    centers = [float(bar["x"]) + float(bar["width"]) / 2 for bar in bars]
    assert centers == pytest.approx([left + side * (b.low + b.high) / 2 for b in full], abs=0.02)


def test_diamonds_have_their_centre_where_the_data_says() -> None:
    data = bins(6)
    drawing = str(svg.reliability(data, name="x", kind="before"))
    (plane,) = attributes(drawing, "rect", "plane")
    left, top, side = (float(plane[key]) for key in ("x", "y", "width"))
    full = [b for b in data if b.count]
    for b, mark in zip(full, attributes(drawing, "path", "mark"), strict=True):
        corners = np.array(re.findall(r"-?[\d.]+", mark["d"]), float).reshape(4, 2)
        assert b.confidence is not None
        assert b.accuracy is not None
        expected = (left + side * b.confidence, top + side * (1 - b.accuracy))
        assert corners.mean(axis=0) == pytest.approx(expected, abs=0.01)


def test_gauges_and_recall_bars_are_to_scale() -> None:
    gauge = str(svg.gauge(0.3, 0.2, 0.7, 2.0, before=0.5, reference=1.0))
    (track,) = attributes(gauge, "path", "track")
    begin, _, end = (float(n) for n in re.findall(r"[\d.]+", track["d"]))

    def at(fraction: float) -> float:
        return begin + (end - begin) * fraction

    (dot,), (band,), (tick,), (was,) = (
        attributes(gauge, tag, name)
        for tag, name in (("circle", "dot"), ("path", "band"), ("path", "tick"), ("path", "was"))
    )
    assert float(dot["cx"]) == pytest.approx(at(0.15), abs=0.01)
    drawn = [float(n) for n in re.findall(r"[\d.]+", band["d"])]
    assert (drawn[0], drawn[2]) == pytest.approx((at(0.1), at(0.35)), abs=0.01)
    assert float(re.findall(r"[\d.]+", tick["d"])[0]) == pytest.approx(at(0.5), abs=0.01)
    assert float(re.findall(r"[\d.]+", was["d"])[0]) == pytest.approx(at(0.25), abs=0.01)
    bar = str(svg.recall_bar(0.6, 0.45, 0.8))
    (track,), (fill,), (whisker,) = (attributes(bar, "path", name) for name in ("track", "fill", "whisker"))
    length = float(track["d"].rpartition("H")[2])
    assert float(fill["d"].rpartition("H")[2]) == pytest.approx(0.6 * length, abs=0.01)
    xs = [float(n) for n in re.findall(r"[MH]([\d.]+)", whisker["d"])]
    assert xs == pytest.approx([0.45 * length, 0.45 * length, 0.8 * length, 0.8 * length], abs=0.01)


@pytest.mark.parametrize(("n_classes", "block"), [(26, 1), (200, 1), (201, 2), (500, 3)])
def test_the_drawn_matrix_has_each_cell_in_its_place_and_shade(n_classes: int, block: int) -> None:
    rng = np.random.default_rng(n_classes)
    counts = (rng.random((n_classes, n_classes)) < 0.02) * rng.integers(1, 9, (n_classes, n_classes))
    counts += np.diag(rng.integers(0, 30, n_classes))
    assert svg.block_size(n_classes) == block
    drawing = str(svg.heat_grid(counts, [f"c{i}" for i in range(n_classes)]))
    drawn: dict[tuple[int, int], str] = {}
    for path in Page(drawing).all("path"):
        for run in re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", path["d"]):
            x, y, width, back = map(int, run)
            assert width == back
            for column in range(x, x + width):
                assert (y, column) not in drawn
                drawn[y, column] = path["class"]
    n = -(-n_classes // block)
    for i in range(n):
        rows = counts[i * block : (i + 1) * block]
        for j in range(n):
            here = int(rows[:, j * block : (j + 1) * block].sum())
            if here == 0:
                assert (i, j) not in drawn
                continue
            share = here / rows.sum()
            shade = max(level for level in range(1, 9) if share >= ((level - 1) / 8) ** 2 - 1e-12)
            assert drawn[i, j] == f"{'right' if i == j else 'wrong'}{shade}"


def test_a_thousand_classes_stay_small() -> None:
    rng = np.random.default_rng(0)
    names = [f"a class of some length, number {i}" for i in range(1000)]
    counts = rng.integers(0, 3, (1000, 1000)) + np.diag(rng.integers(20, 60, 1000))
    page = render(report(names, confusion=Confusion(names, counts)))
    assert len(page.encode()) < 2_000_000
    assert_sound(page)


def test_equal_reports_give_equal_pages() -> None:
    assert render(report(SIX)) == render(report(SIX))


def test_a_long_list_of_problems_is_cut_and_counted() -> None:
    problems = [Found("unreadable", f"{i:05d}.jpg", "cut short", "glass") for i in range(3000)]
    page = assert_sound(render(report(SIX, problems=problems, problems_total={"unreadable": 5000, "rare-kind": 2})))
    assert sum(f"{i:05d}.jpg" in page.text for i in range(3000)) == 200
    assert "5,000 · Unreadable files" in page.text
    assert "… and 4,800 more." in page.text
    assert "2 · Rare kind" in page.text


def test_without_mistakes_or_problems_the_page_says_so() -> None:
    counts = np.diag([10, 20, 30, 40, 50, 60])
    r = report(SIX, mistakes=[], problems=[], problems_total={}, confusion=Confusion(SIX, counts))
    page = assert_sound(render(r))
    assert f"None: all of the {r.summary.n_test:,} held-out pictures were classified right." in page.text
    assert "No problems." in page.text
    assert "Confused most often" not in page.text


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_without_calibration_there_is_one_diagram_and_no_before(temperature: float | None) -> None:
    r = report(SIX)
    page = assert_sound(render(replace(r, summary=replace(r.summary, temperature=temperature))))
    assert len(page.all("svg", class_="diagram after")) == 1
    assert page.all("svg", class_="diagram before") == []
    assert "before calibration" not in page.text.lower()
    assert "No temperature was fitted" in page.text
    calibrated = assert_sound(render(r))
    assert len(calibrated.all("svg", class_="diagram before")) == 1
    assert "before calibration" in calibrated.text


def test_what_is_unknown_is_a_dash() -> None:
    nothing = ClassScores(name="a", n_test=0)
    r = Report(
        title="few",
        summary=Summary(n_test=3, accuracy=float("nan"), nll=float("inf")),
        confusion=Confusion(["a", "b"], [[0, 0], [1, 2]]),
        per_class=[nothing, replace(nothing, name="b", n_test=3)],
        reliability=[Bin(b / 15, (b + 1) / 15, 0, None, None, None, None) for b in range(15)],
    )
    page = assert_sound(render(r))
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)
    assert "None" not in page.text
    assert "∞" in page.text
    assert page.text.count("–") > 20
    assert "Only 3 held-out pictures" in page.text


def test_when_nothing_was_measured_no_figures_are_shown() -> None:
    empty = Report(title="t", summary=Summary(n_test=0), confusion=Confusion(["a", "b"], np.zeros((2, 2), int)))
    page = assert_sound(render(empty))
    assert "no pictures were held out" in page.text
    assert "Accuracy" not in page.text
    assert page.all("table") == []


def even(count: int, accuracy_around_80: float) -> list[Bin]:
    """Calibrated bins except that those around 80 % have this accuracy."""
    made = []
    for b in range(15):
        middle = (b + 0.5) / 15
        accuracy = accuracy_around_80 if 0.65 < middle < 0.95 else middle
        made.append(Bin(b / 15, (b + 1) / 15, count, middle, accuracy, 0.0, 1.0))
    return made


@pytest.mark.parametrize(
    ("ece", "high", "n", "bins_", "says"),
    [
        (0.021, 0.05, 400, even(20, 0.8), True),
        (0.051, 0.07, 400, even(20, 0.8), False),
        (0.021, 0.11, 400, even(20, 0.8), False),
        (0.021, 0.05, 99, even(20, 0.8), False),
        (0.021, 0.05, 400, even(2, 0.8), False),
        (0.021, 0.05, 400, even(20, 0.6), False),
    ],
)
def test_eight_times_in_ten_is_said_only_where_the_data_bears_it_out(
    ece: float, high: float, n: int, bins_: list[Bin], says: bool
) -> None:
    r = report(SIX, reliability=bins_)
    r = replace(r, summary=replace(r.summary, ece=ece, ece_high=high, n_test=n, accuracy=0.9333))
    text = Page(render(r)).text
    assert f"Right on 93.3 % of {n} held-out pictures" in text
    assert ("it is right about 8 times in 10" in text) == says
    assert (f"off by {100 * ece:.1f} percentage points" in text) != says
    assert f"calibration error {100 * ece:.1f} %." in text


@pytest.mark.parametrize(
    ("shift", "words"), [(0.3, "mostly too sure"), (-0.3, "mostly too cautious"), (0.0, "average:")]
)
def test_the_direction_of_the_error_is_named(shift: float, words: str) -> None:
    made = [Bin(b / 15, (b + 1) / 15, 30, (b + 0.5) / 15, (b + 0.5) / 15 - shift, 0.0, 1.0) for b in range(5, 10)]
    r = report(SIX, reliability=made)
    text = Page(render(replace(r, summary=replace(r.summary, ece=0.3)))).text
    assert words in text
    assert text.count("mostly") == (shift != 0)


def test_pictures_are_held_out_only_when_they_are_known_to_be() -> None:
    assert "held-out" in Page(render(report(SIX))).text
    assert "held-out" not in Page(render(report(SIX, held_out=False))).text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0.0 %"),
        (0.0004, "< 0.1 %"),
        (0.0005, "0.1 %"),
        (0.933, "93.3 %"),
        (0.9994, "99.9 %"),
        (0.99996, "> 99.9 %"),
        (1.0, "100.0 %"),
    ],
)
def test_percent(value: float | None, text: str) -> None:
    assert percent(value).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0.000"),
        (0.0001, "< 0.001"),
        (0.2144, "0.214"),
        (12.0, "12.000"),
        (float("inf"), "∞"),
    ],
)
def test_decimal(value: float | None, text: str) -> None:
    assert decimal(value).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (12.34, "12.3 s"), (59.96, "1 min 00 s"), (252, "4 min 12 s"), (7500, "2 h 05 min")],
)
def test_duration(value: float | None, text: str) -> None:
    assert duration(value).replace("\N{NO-BREAK SPACE}", " ") == text


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_on_every_colour_of_both_themes(theme: str) -> None:
    style = render(report(SIX)).partition("<style>")[2].partition("</style>")[0]
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--(\w+):(#\w{6});", blocks[0]))
    rules = re.findall(r"(@media [^{]*\{)?\s*(td\.[^{]*)\{ color: var\(--inverse\); \}", style)
    inverted: set[str] = set()
    for media, selector in rules:
        if not media or (theme == "dark" and "prefers-color-scheme: dark" in media):
            inverted |= set(re.findall(r"td\.(\w+)", selector))
    if theme == "dark":
        assert "prefers-color-scheme: dark" in style.partition(blocks[1])[0]
        colours |= dict(re.findall(r"--(\w+):(#\w{6});", blocks[1]))
    for name in ("ink", "muted", "after", "before"):
        assert contrast(colours[name], colours["card"]) >= 4.5
        assert contrast(colours[name], colours["page"]) >= 4.5
    assert contrast(colours["inverse"], colours["after"]) >= 4.5
    assert len(inverted) == (8 if theme == "dark" else 6)
    for kind in ("right", "wrong"):
        for shade in range(1, 9):
            cell = f"{kind}{shade}"
            assert contrast(colours["inverse" if cell in inverted else "ink"], colours[cell]) >= 4.5


def test_headings_tables_and_pictures_are_labelled() -> None:
    page = assert_sound(render(report(SIX)))
    assert len(page.all("h1")) == 1
    assert page.all("html", lang="en")
    assert all(a.get("scope") in ("col", "row") for a in page.all("th"))
    assert [a["alt"] for a in page.all("img")] == [f"The picture photos/cardboard/{i}.jpg" for i in (1, 3)]
    assert all(a.get("aria-label") or a.get("aria-hidden") == "true" for a in page.all("svg"))


def test_an_infinite_log_loss_says_why() -> None:
    figures = Summary(n_test=3, n_zero=2, accuracy=0.5, brier=0.4, temperature=0.8)
    page = render(
        Report(title="t", summary=figures, confusion=Confusion(["a", "b"], [[2, 1], [0, 0]]), link="sparsemax")
    )
    assert "∞" in page
    assert "the true class of 2 pictures got probability 0, as sparsemax can give." in page
    assert "The link sparsemax turns the scores" in page
    assert "<msup><mi>e</mi>" not in page  # the formula of softmax
    plain = render(Report(title="t", summary=figures, confusion=Confusion(["a", "b"], [[2, 1], [0, 0]])))
    assert "<msup><mi>e</mi>" in plain
