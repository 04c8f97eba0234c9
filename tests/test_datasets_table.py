"""Tables of pictures: every row is used or listed with its line."""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luce.datasets import Dataset, open_dataset
from luce.errors import DataError


def make(folder: Path, text: str | bytes, name: str = "labels.csv", pictures: str = "a b c d e") -> Path:
    """Write a table and pictures beside it."""
    for picture in pictures.split():
        (folder / f"{picture}.jpg").write_bytes(picture.encode())
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(dataset: Dataset) -> list[tuple[str, str]]:
    return [
        (Path(dataset.identifier(i)).name, dataset.classes[label]) for i, label in enumerate(dataset.labels.tolist())
    ]


def test_a_plain_table(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path, "path,label\na.jpg,dog\nb.jpg,cat\n./c.jpg,dog\n"))
    assert dataset.classes == ("cat", "dog")
    assert rows(dataset) == [("a.jpg", "dog"), ("b.jpg", "cat"), ("c.jpg", "dog")]
    assert (dataset.splits, dataset.groups, dataset.weights) == (None, None, None)
    assert dataset.problems == ()
    assert dataset.sources[2] == tmp_path / "c.jpg"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("path,label\na.jpg,dog\nb.jpg,cat\n", "t.csv"),
        ("path;label\na.jpg;dog\nb.jpg;cat\n", "t.csv"),
        ("path\tlabel\na.jpg\tdog\nb.jpg\tcat\n", "t.tsv"),
        ("path\tlabel\na.jpg\tdog\nb.jpg\tcat\n", "t.CSV"),
        ("\ufeffpath,label\r\na.jpg,dog\r\nb.jpg,cat", "t.csv"),
        ('"Path", "LABEL "\n"a.jpg", "dog"\n\nb.jpg, cat\n\n', "t.csv"),
        ("\nwho,label,note,path\nx,dog,,a.jpg\ny,cat,none,b.jpg\n", "t.csv"),
        ("path,label\n{folder}/a.jpg,dog\n{folder}/b.jpg,cat\n", "t.csv"),
        ("path,label\nsub/../a.jpg,dog\nb.jpg,cat\n", "t.csv"),
    ],
)
def test_spellings_of_the_same_table(tmp_path: Path, text: str, name: str) -> None:
    dataset = open_dataset(make(tmp_path, text.replace("{folder}", str(tmp_path)), name))
    assert rows(dataset) == [("a.jpg", "dog"), ("b.jpg", "cat")]
    assert dataset.problems == ()


def test_optional_columns(tmp_path: Path) -> None:
    text = (
        "path,label,split,group,weight\n"
        "a.jpg,x,train,anna,1\n"
        "b.jpg,y,Training,,2.5\n"
        "c.jpg,x,valid,anna,1e-3\n"
        "d.jpg,y,test,,1\n"
    )
    dataset = open_dataset(make(tmp_path, text))
    assert dataset.splits == ("train", "train", "val", "test")
    assert dataset.weights is not None
    assert dataset.weights.tolist() == [1, 2.5, 1e-3, 1]
    assert dataset.groups is not None
    a, b, c, d = dataset.groups.tolist()
    assert a == c
    assert len({a, b, d}) == 3


def test_every_row_that_cannot_be_used_is_listed_with_its_line(tmp_path: Path) -> None:
    text = (
        "path,label,split,weight\n"
        "a.jpg,x,train,1\n"
        "b.jpg,y,train,1\n"
        "c.jpg,,train,1\n"
        "gone.jpg,x,train,1\n"
        "d.jpg,x,holdout,1\n"
        "d.jpg,x,train,-1\n"
        "d.jpg,x,train,nan\n"
        "d.jpg,x,train,inf\n"
        "d.jpg,x,train,0\n"
        "d.jpg,x,train,much\n"
        "d.jpg,x,train\n"
        "d.jpg,my,cat,train,1\n"
        ",x,train,1\n"
        "b.jpg,y,train,1\n"
        "e.jpg,x,train,1\n"
        "e.jpg,y,train,1\n"
        "d.jpg, ,train,1\n"
        "d.jpg,x,,1\n"
        "d\0.jpg,x,train,1\n"
    )
    dataset = open_dataset(make(tmp_path, text))
    assert rows(dataset) == [("a.jpg", "x"), ("b.jpg", "y")]
    found = {problem.reason.split(":")[0].removeprefix("line "): problem for problem in dataset.problems}
    conflict = next(problem for problem in dataset.problems if problem.kind == "label-conflict")
    assert "'x' in line 16, 'y' in line 17" in conflict.reason
    assert conflict.path == str(tmp_path / "e.jpg")
    assert {line: problem.kind for line, problem in found.items() if line.isdigit()} == {
        "4": "no-label",
        "5": "missing-file",
        "6": "unknown-split",
        **dict.fromkeys(map(str, range(7, 12)), "bad-weight"),
        "12": "bad-row",
        "13": "bad-row",
        "14": "missing-file",
        "15": "duplicate",
        "18": "no-label",
        "19": "unknown-split",
        "20": "missing-file",
    }
    assert len(dataset.problems) == 18 - 2


def test_lines_are_counted_through_quoted_line_breaks(tmp_path: Path) -> None:
    text = 'path,label,note\na.jpg,x,"two\nlines"\nb.jpg,y,\u2028 here\ngone.jpg,x,\n'
    dataset = open_dataset(make(tmp_path, text))
    assert [problem.reason for problem in dataset.problems] == ["line 5: no such file: left out"]
    assert len(dataset) == 2


def test_labels_keep_their_spelling(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path, "path,label\na.jpg,cat\nb.jpg,cat \nc.jpg,Cat\nd.jpg,007\n"))
    assert dataset.classes == ("007", "Cat", "cat", "cat ")
    assert [problem.kind for problem in dataset.problems] == ["duplicate-name", "duplicate-name"]


def test_a_class_that_only_the_test_part_has_is_left_out(tmp_path: Path) -> None:
    text = "path,label,split\na.jpg,m,train\nb.jpg,n,train\nc.jpg,a,test\nd.jpg,n,test\n"
    dataset = open_dataset(make(tmp_path, text))
    assert rows(dataset) == [("a.jpg", "m"), ("b.jpg", "n"), ("d.jpg", "n")]
    assert dataset.splits == ("train", "train", "test")
    assert sorted(problem.kind for problem in dataset.problems) == ["missing-class", "unknown-class"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name the columns path,label.*missing: path, label; it holds: nothing"),
        ("\n\n", "it holds: nothing"),
        ("a.jpg,dog\nb.jpg,cat\n", "missing: path, label; it holds: a.jpg, dog"),
        ("file,label\na.jpg,dog\n", "missing: path; it holds: file, label"),
        ("path,label,label\na.jpg,dog,cat\n", "names the column label twice"),
        ("path,label\n", "no row of the table can be used$"),
        (
            "path,label\ngone.jpg,x\n",
            "no row of the table can be used; the first problem: .*gone.jpg: line 2: no such file",
        ),
        ("path,label\na.jpg,x\nb.jpg,x\n", "there is only 'x'"),
        ('path,label\na.jpg,"x\nb.jpg,y\n', "line 3: .*; check its quotes"),
        ('path,label\na.jpg,"x"y\nb.jpg,y\n', "line 2: .*; check its quotes"),
        ("path,label\na.jpg," + "x" * 200_000 + "\n", "line 2: .*field larger"),
        ("path,label\na.jpg,caf\xe9\n".encode("latin-1"), "line 2 is not UTF-8; save the table as UTF-8"),
        ("path,label\na.jpg,dog\n".encode("utf-16"), "line 1 is not UTF-8"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = make(tmp_path, text)
    with pytest.raises(DataError, match=message) as error:
        open_dataset(path)
    assert str(error.value).startswith(str(path))


CELL = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u2028"), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.lists(CELL.filter(lambda text: text.strip() == text != ""), min_size=5, max_size=5),
    delimiter=st.sampled_from(",;\t"),
)
def test_what_csv_writes_is_read_back(tmp_path: Path, labels: list[str], delimiter: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["path", "label"])
    writer.writerows(zip([f"{name}.jpg" for name in "abcde"], labels, strict=True))
    path = make(tmp_path, text.getvalue())
    wanted = [unicodedata.normalize("NFC", label) for label in labels]
    if len(set(wanted)) < 2:
        with pytest.raises(DataError, match="there is only"):
            open_dataset(path)
    else:
        assert [name for _, name in rows(open_dataset(path))] == wanted
