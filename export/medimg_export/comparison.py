"""Two models on the images that both answered: what differs, and by how much it could by chance.

A difference is always B minus A.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np

from medimg_edge.errors import DataInvalid, TooFewImages
from medimg_edge.manifest import Task
from medimg_export.answers import Answers
from medimg_export.listing import first_few
from medimg_export.metrics import NAMES, Estimate, drawn_values, estimate, overall, resampled
from medimg_export.paired import DeLong, McNemar, delong, mcnemar
from medimg_export.scores import Flags, Floats, LabelScores, answer_scores

ANSWER = "answer"
"""What multiclass has instead of findings: the one answer, right or wrong."""

INDEPENDENT = (
    "DeLong's and McNemar's tests treat the images as independent. Here images of one patient are "
    "grouped: the bootstrap intervals draw whole patients and are the ones to rely on."
)


OTHER_GROUPS = (
    "A and B tell other images to be of one patient: the intervals draw the patients of A. "
    "Evaluate both with one --group-pattern."
)


class Side(msgspec.Struct, frozen=True):
    """One of the two: ``left_out`` of its ``n`` images have no answer from the other."""

    name: str
    n: int
    left_out: int


class Change(msgspec.Struct, frozen=True):
    """A value of A, of B, and B minus A with its 95 % interval from the paired bootstrap."""

    a: float | None
    b: float | None
    difference: Estimate


class Finding(msgspec.Struct, frozen=True):
    """What differs in one label; multiclass: in the answer.

    ``mcnemar`` tests the decisions by the name of the value that it belongs to: accuracy (every
    image), sensitivity (images that have the label), specificity (those that do not). ``delong`` is
    None for multiclass, and where it says nothing.
    """

    label: str
    prevalence: float | None
    values: dict[str, Change]
    delong: DeLong | None
    mcnemar: dict[str, McNemar]


class Disagreement(msgspec.Struct, frozen=True):
    """An image on which the two decided differently.

    ``p_a`` and ``p_b`` are of ``label``; multiclass: of the label that each answered.
    """

    name: str
    label: str
    truth: str
    a: str
    b: str
    p_a: float
    p_b: float
    right: Literal["a", "b", "neither"]


class Comparison(msgspec.Struct, frozen=True):
    """What ``comparison.json`` holds. Names and shape are stable."""

    task: Task
    labels: tuple[str, ...]
    a: Side
    b: Side
    n: int
    groups: int | None
    resamples: int
    findings: tuple[Finding, ...]
    disagreements: tuple[Disagreement, ...]
    notes: tuple[str, ...]
    prevalence: dict[str, float] = {}


def common(a: Answers, b: Answers) -> tuple[Answers, Answers]:
    """The images that both answered, by name, in the order of A.

    One without groups gets those of the other. Raises DataInvalid where labels or
    truths differ, TooFewImages where no image is common.
    """
    if (a.task, a.labels) != (b.task, b.labels):
        raise DataInvalid(
            f"They answer different questions: A is {a.task} ({', '.join(a.labels)}), B is "
            f"{b.task} ({', '.join(b.labels)}). Compare models with the same labels in one order."
        )
    row_of_b = {name: row for row, name in enumerate(b.names)}
    rows = [(row, row_of_b[name]) for row, name in enumerate(a.names) if name in row_of_b]
    if not rows:
        raise TooFewImages(
            f"No image is in both: A has {first_few(a.names, 2)}, B has {first_few(b.names, 2)}. "
            "Evaluate both on the same data, from the same folder."
        )
    of_a, of_b = np.array(rows, np.intp).T
    a, b = a.rows(of_a), b.rows(of_b)
    other = [row for row in range(len(rows)) if not np.array_equal(a.y[row], b.y[row])]
    if other:
        said = (f"{a.names[i]} ({a.truth(i)!r} and {b.truth(i)!r})" for i in other)
        raise DataInvalid(
            f"The truth differs between A and B for {len(other)} of {len(rows)} common images: "
            f"{first_few(said, 3)}. Evaluate both on the same labels."
        )
    return replace(a, groups=a.groups or b.groups), replace(b, groups=b.groups or a.groups)


def compare(a: Side, b: Side, of_a: Answers, of_b: Answers, bootstrap: int = 1000) -> Comparison:
    """Every difference between two tables that ``common`` made of one set of images.

    Where they group the images otherwise, the groups of A are drawn.
    """
    groups, others = of_a.groups, of_b.groups
    of_b = replace(of_b, groups=groups)
    units = len(of_a.names) if groups is None else len(set(groups))
    return Comparison(
        task=of_a.task,
        labels=of_a.labels,
        a=a,
        b=b,
        n=len(of_a.names),
        groups=None if groups is None else units,
        resamples=resampled(len(of_a.names), groups, bootstrap),
        findings=tuple(_findings(of_a, of_b, bootstrap)),
        disagreements=tuple(_disagreements(of_a, of_b)),
        notes=(
            *([INDEPENDENT] if units < len(of_a.names) else []),
            *([] if _same_groups(groups, others) else [OTHER_GROUPS]),
        ),
        prevalence={column.label: float(column.truth.mean()) for column in of_a.columns},
    )


def _same_groups(a: list[str] | None, b: list[str] | None) -> bool:
    """Whether the same images are together, whatever the groups are called."""
    if a is None or b is None:
        return a is b
    return len(set(zip(a, b, strict=True))) == len(set(a)) == len(set(b))


def table(found: Comparison) -> list[tuple[str, str, str, str, str, str]]:
    """Rows for people: value, A, B, difference, its interval, p by the test that fits."""
    several = len(found.findings) > 1
    return [
        (
            f"{of.label}: {NAMES[name]}" if several else NAMES[name],
            number(change.a),
            number(change.b),
            number(change.difference.value, "+"),
            interval(change.difference),
            p_value(of, name),
        )
        for of in found.findings
        for name, change in of.values.items()
    ]


def number(value: float | None, sign: str = "") -> str:
    """Four decimals, because a difference is small, or "undefined"."""
    return "undefined" if value is None else f"{round(value, 4) + 0:{sign}.4f}"


def interval(of: Estimate) -> str:
    """The bounds with their signs, or nothing."""
    return "" if of.low is None else f"{number(of.low, '+')} to {number(of.high, '+')}"


def p_value(of: Finding, name: str) -> str:
    """P of the test that fits a value, with the test's name; nothing where there is none."""
    if name == "auc" and of.delong:
        return f"{p_text(of.delong.p)} DeLong"
    if name not in of.mcnemar:
        return ""
    p = of.mcnemar[name].p
    return p_text(p) if p is None else f"{p_text(p)} McNemar"


def p_text(value: float | None) -> str:
    """Three decimals, or that it is below them, or "undefined"."""
    if value is None:
        return "undefined"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _findings(a: Answers, b: Answers, bootstrap: int) -> Iterator[Finding]:
    if a.task == "multiclass":
        yield _answer(a, b, bootstrap)
        return
    columns = list(zip(a.columns, b.columns, strict=True))
    for one, other in columns:
        (drawn_a,), (drawn_b,) = (drawn_values([x], a.groups, bootstrap) for x in (one, other))
        yield Finding(
            label=one.label,
            prevalence=float(one.truth.mean()),
            values=_changes(drawn_a, drawn_b),
            delong=delong(one.truth, one.score, other.score),
            mcnemar=_mcnemar(one, other),
        )


def _answer(a: Answers, b: Answers, bootstrap: int) -> Finding:
    drawn_a, drawn_b = (
        overall(x.task, drawn_values([*x.columns, answer_scores(x.y, x.p)], x.groups, bootstrap))
        for x in (a, b)
    )
    return Finding(
        label=ANSWER,
        prevalence=None,
        values=_changes(drawn_a, drawn_b),
        delong=None,
        mcnemar={"accuracy": mcnemar(_right(a), _right(b))},
    )


def _changes(a: dict[str, Floats], b: dict[str, Floats]) -> dict[str, Change]:
    return {
        name: Change(estimate(a[name]).value, estimate(b[name]).value, estimate(b[name] - a[name]))
        for name in a
    }


def _mcnemar(a: LabelScores, b: LabelScores) -> dict[str, McNemar]:
    right_a, right_b = a.called == a.truth, b.called == b.truth
    has = a.truth
    return {
        "accuracy": mcnemar(right_a, right_b),
        "sensitivity": mcnemar(right_a[has], right_b[has]),
        "specificity": mcnemar(right_a[~has], right_b[~has]),
    }


def _right(of: Answers) -> Flags:
    """Multiclass: bool (N,), whether the answered label is the true one."""
    return of.called[np.arange(len(of.y)), of.y]


def _disagreements(a: Answers, b: Answers) -> Iterator[Disagreement]:
    return _other_answers(a, b) if a.task == "multiclass" else _other_decisions(a, b)


def _other_answers(a: Answers, b: Answers) -> Iterator[Disagreement]:
    right_a, right_b = _right(a), _right(b)
    for row in np.flatnonzero((a.called != b.called).any(axis=1)).tolist():
        yield Disagreement(
            name=a.names[row],
            label=ANSWER,
            truth=a.truth(row),
            a=a.decision(row),
            b=b.decision(row),
            p_a=float(a.p[row].max()),
            p_b=float(b.p[row].max()),
            right="a" if right_a[row] else "b" if right_b[row] else "neither",
        )


def _other_decisions(a: Answers, b: Answers) -> Iterator[Disagreement]:
    words = ("negative", "positive")
    columns = a.columns
    for row, i in np.argwhere(a.called != b.called).tolist():
        truth = bool(columns[i].truth[row])
        yield Disagreement(
            name=a.names[row],
            label=columns[i].label,
            truth=words[truth],
            a=words[bool(a.called[row, i])],
            b=words[bool(b.called[row, i])],
            p_a=float(a.p[row, i]),
            p_b=float(b.p[row, i]),
            right="a" if a.called[row, i] == truth else "b",
        )
