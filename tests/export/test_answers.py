"""answers.csv: written, read back with every digit, and refused in words where it is not whole."""

import csv
from pathlib import Path

import msgspec
import numpy as np
import pytest

from medimg_edge.errors import RunError, WriteError
from medimg_edge.manifest import Task
from medimg_export import metrics
from medimg_export.answers import FILE, Answers, answers_of, read_answers

HOSTILE = ['a,"b"\n.png', "c\rd.png", "=1+1.png", "\udcff;.png", " é 肺.png", "f.png"]


def written(folder: Path, task: Task = "binary", groups: bool = True) -> Answers:
    """Answers to six images in a folder, with their metrics."""
    random = np.random.default_rng(0)
    labels: tuple[str, ...] = ("normal", "ill") if task == "binary" else ("a", "b,", '"c"')
    y = np.arange(6) % len(labels) if task != "multilabel" else random.integers(0, 2, (6, 3))
    p = random.random((6, 1 if task == "binary" else 3)) ** 9
    thresholds: dict[str, float] | None
    thresholds = None if task == "multiclass" else dict.fromkeys(labels, 0.03)
    of = [f"patient\n{i // 2}" for i in range(6)] if groups else None
    answers = answers_of(task, labels, HOSTILE, of, y, p, thresholds)
    found = metrics.evaluate(task, labels, y, p, thresholds=thresholds, bootstrap=0)
    (folder / "metrics.json").write_bytes(msgspec.json.encode(found))
    answers.write(folder)
    return answers


@pytest.mark.parametrize("groups", [True, False])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_what_is_written_is_read_back(tmp_path: Path, task: Task, groups: bool):
    answers = written(tmp_path, task, groups)
    found = read_answers(tmp_path)
    assert (found.task, found.labels) == (task, answers.labels)
    assert found.names == [name.replace("\udcff", "\\udcff") for name in HOSTILE]
    assert found.groups == answers.groups
    assert np.array_equal(found.y, answers.y)
    assert np.array_equal(found.p, answers.p)  # every digit
    assert np.array_equal(found.called, answers.called)
    assert answers.called.any()
    assert not answers.called.all()
    assert sorted(each.name for each in tmp_path.iterdir()) == [FILE, "metrics.json"]


def test_the_table_says_it_in_words(tmp_path: Path):
    answers = written(tmp_path)
    with (tmp_path / FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", "group", "truth", "probability:ill", "decision"]
    assert [row["truth"] for row in rows] == ["normal", "ill"] * 3
    for row, p in zip(rows, answers.p[:, 0], strict=True):
        assert float(row["probability:ill"]) == p
        assert row["decision"] == ("positive" if p >= 0.03 else "negative")


def test_several_labels_are_between_semicolons(tmp_path: Path):
    y, p = [[1, 1], [0, 0]], [[0.9, 0.2], [0.7, 0.8]]
    answers = answers_of("multilabel", ("left", "top"), ["1", "2"], None, y, p, None)
    assert [answers.truth(row) for row in (0, 1)] == ["left;top", ""]
    assert [answers.decision(row) for row in (0, 1)] == ["left", "left;top"]


def test_some_rows_of_a_table(tmp_path: Path):
    answers = written(tmp_path)
    some = answers.rows(np.array([4, 1]))
    assert some.names == [HOSTILE[4], HOSTILE[1]]
    assert some.groups == ["patient\n2", "patient\n0"]
    assert some.y.tolist() == [0, 1]
    assert some.p.tolist() == answers.p[[4, 1]].tolist()
    (column,) = some.columns
    assert column.called.tolist() == answers.called[[4, 1], 0].tolist()
    assert column.truth.tolist() == [False, True]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"normal"', '"well"', "'well' is none of normal, ill"),
        ('"positive"', '"refer"', "'refer' is none of negative, positive"),
        ('"probability:ill"', '"p"', "first line is not name,group,truth,probability:ill"),
        ('"f.png"', '"=1+1.png"', "a name is there twice"),
        ('"ill",0', '"ill",zero', "zero"),
        (',"negative"', "", "has not the 5 cells"),
        ('"f.png"', '"f.png', "cannot be read"),
    ],
)
def test_a_table_that_was_changed_is_refused(tmp_path: Path, old: str, new: str, message: str):
    written(tmp_path)
    text = (tmp_path / FILE).read_bytes().decode()
    assert old in text
    (tmp_path / FILE).write_bytes(text.replace(old, new).encode())
    with pytest.raises(RunError, match=message):
        read_answers(tmp_path)


def test_a_table_that_is_not_whole_is_refused(tmp_path: Path):
    written(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: whole.index(b'"f.png"')])
    with pytest.raises(RunError, match=r"has 5 images, and metrics\.json was made of 6"):
        read_answers(tmp_path)
    (tmp_path / FILE).write_bytes(b"")
    with pytest.raises(RunError, match="first line"):
        read_answers(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(RunError, match=r"holds no answers\.csv: an older medimg-edge wrote it"):
        read_answers(tmp_path)


@pytest.mark.parametrize(("content", "message"), [(None, "holds no"), (b"{}", "cannot be read")])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, content, message: str):
    if content is not None:
        (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(RunError, match=rf"{message}.*"):
        read_answers(tmp_path)


def test_a_table_that_cannot_be_written_is_a_write_error(tmp_path: Path):
    answers = written(tmp_path)
    with pytest.raises(WriteError, match=r"answers\.csv"):
        answers.write(tmp_path / "missing")
