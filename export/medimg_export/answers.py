"""``answers.csv``: what a model answered to each labelled image, so that it can be compared.

UTF-8 text with a header and one row an image. Every cell of text is in quotes, so that a name may
hold commas, quotes and line breaks:

    name                 as the data set names it, unique
    group                the patient; empty where the data set does not tell
    truth                the label; multilabel: its labels between semicolons
    probability:LABEL    one column for each label that has a probability, with all its digits
    decision             binary: positive or negative; multiclass: the label; multilabel: the labels
                         called, between semicolons
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from medimg_edge.errors import RunError
from medimg_edge.manifest import Task
from medimg_edge.record import printable
from medimg_edge.whole_file import write_whole
from medimg_export.metrics import Metrics
from medimg_export.scores import Flags, Floats, LabelScores, checked, label_scores

FILE = "answers.csv"
BETWEEN = ";"  # as in the label column of a data set's CSV


@dataclass(frozen=True, eq=False)
class Answers:
    """A table of answers; arrays as ``metrics`` describes them.

    called: bool (N, C), the decision about each label that has a probability.
    """

    task: Task
    labels: tuple[str, ...]
    names: list[str]
    groups: list[str] | None
    y: NDArray[np.int64]
    p: Floats
    called: Flags

    @property
    def columns(self) -> list[LabelScores]:
        """The scores of each label that has a probability, with the decisions of this table."""
        scored = label_scores(self.task, self.labels, self.y, self.p)
        return [replace(column, called=self.called[:, i]) for i, column in enumerate(scored)]

    def rows(self, rows: NDArray[np.intp]) -> Answers:
        """Only these images, in this order."""
        return replace(
            self,
            names=[self.names[row] for row in rows],
            groups=None if self.groups is None else [self.groups[row] for row in rows],
            y=self.y[rows],
            p=self.p[rows],
            called=self.called[rows],
        )

    def truth(self, row: int) -> str:
        """What is true of an image, in the words of the file."""
        if self.task == "multilabel":
            return BETWEEN.join(_marked(self.labels, self.y[row] == 1))
        return self.labels[int(self.y[row])]

    def decision(self, row: int) -> str:
        """What was decided about an image, in the words of the file."""
        if self.task == "binary":
            return "positive" if self.called[row, 0] else "negative"
        return BETWEEN.join(_marked(self.labels, self.called[row]))

    def write(self, folder: Path) -> None:
        """Write ``answers.csv`` into a folder. Raises WriteError."""
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(_header(self.task, self.labels))
        for row, name in enumerate(self.names):
            group = "" if self.groups is None else self.groups[row]
            cells = [printable(name), printable(group), self.truth(row)]
            writer.writerow([*cells, *self.p[row].tolist(), self.decision(row)])
        write_whole(folder / FILE, text.getvalue().encode())


def answers_of(
    task: Task,
    labels: Sequence[str],
    names: Sequence[str],
    groups: Sequence[str] | None,
    y: ArrayLike,
    p: ArrayLike,
    thresholds: dict[str, float] | None,
) -> Answers:
    """The table of these answers, decided as ``metrics.evaluate`` decides them."""
    truth, probability = checked(task, y, p, len(labels))
    columns = label_scores(task, labels, truth, probability, thresholds)
    return Answers(
        task=task,
        labels=tuple(labels),
        names=list(names),
        groups=None if groups is None else list(groups),
        y=truth,
        p=probability,
        called=np.stack([column.called for column in columns], axis=1),
    )


def read_answers(folder: Path) -> Answers:
    """The answers in the folder of a run or an evaluation. Raises RunError."""
    found = _metrics(folder)
    path = folder / FILE
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file, strict=True))
        expected = _header(found.task, found.labels)
        if lines[:1] != [expected]:
            raise ValueError(f"its first line is not {','.join(expected)}")
        if any(len(line) != len(expected) for line in lines):
            raise ValueError(f"a row has not the {len(expected)} cells of the first line")
        return _table(found, lines[1:])
    except FileNotFoundError as error:
        raise RunError(
            f"{folder} holds no {FILE}: an older medimg-edge wrote it. Run `medimg-edge evaluate` "
            "again, or train again."
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{path} cannot be read: {error}. Write it again by evaluate.") from error


def _metrics(folder: Path) -> Metrics:
    path = folder / "metrics.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Metrics)
    except FileNotFoundError as error:
        raise RunError(
            f"{folder} holds no metrics.json. Give the folder of a run or of an evaluation."
        ) from error
    except (OSError, msgspec.DecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from error


def _header(task: Task, labels: Sequence[str]) -> list[str]:
    findings = labels[1:] if task == "binary" else labels
    return ["name", "group", "truth", *(f"probability:{label}" for label in findings), "decision"]


def _table(found: Metrics, rows: list[list[str]]) -> Answers:
    if len(rows) != found.n:
        raise ValueError(f"it has {len(rows)} images, and metrics.json was made of {found.n}")
    names = [row[0] for row in rows]
    if len(set(names)) != len(names):
        raise ValueError("a name is there twice")
    groups = [row[1] for row in rows]
    several = found.task == "multilabel"
    truth = np.array([_numbers(found.labels, row[2], several) for row in rows])
    words = ("negative", "positive") if found.task == "binary" else found.labels
    decided = np.array([_numbers(words, row[-1], several) for row in rows])
    y, p = checked(
        found.task,
        truth if several else truth.argmax(axis=1),
        [[float(cell) for cell in row[3:-1]] for row in rows],
        len(found.labels),
    )
    return Answers(
        task=found.task,
        labels=found.labels,
        names=names,
        groups=groups if all(groups) else None,
        y=y,
        p=p,
        called=decided[:, 1:] if found.task == "binary" else decided,
    )


def _numbers(labels: Sequence[str], cell: str, several: bool) -> list[bool]:
    """Which labels a cell names. Raises ValueError for any other."""
    named = [cell] if not several else cell.split(BETWEEN) if cell else []
    if unknown := set(named) - set(labels):
        raise ValueError(f"{min(unknown)!r} is none of {', '.join(labels)}")
    return [label in named for label in labels]


def _marked(labels: Sequence[str], flags: NDArray[np.bool_]) -> list[str]:
    return [label for label, flag in zip(labels, flags, strict=True) if flag]
