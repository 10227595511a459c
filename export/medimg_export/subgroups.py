"""Subgroups that the names of images tell, such as bacterial and viral pneumonia."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import DataInvalid
from medimg_edge.manifest import Task
from medimg_export import metrics
from medimg_export.listing import compiled, first_few
from medimg_export.metrics import Subgroup
from medimg_export.scores import checked, label_scores


def subgroups_of(names: Sequence[str], pattern: str) -> list[str | None]:
    """The subgroup of each image: what the pattern's first parenthesis matches in its name.

    The pattern is searched in the whole name as ``answers.csv`` has it; None where it does not
    match. Raises DataInvalid where it is no regular expression, has no parenthesis, or matches no
    name.
    """
    expression = compiled(pattern, "subgroup")
    if not expression.groups:
        raise DataInvalid(
            f"The subgroup pattern {pattern!r} has no parenthesis to tell the subgroup, such as "
            r"'person\d+_(bacteria|virus)'."
        )
    matches = [expression.search(name) for name in names]
    found = [match[1] if match else None for match in matches]
    if not any(found):
        raise DataInvalid(
            f"The subgroup pattern {pattern!r} tells a subgroup for none of {len(names)} names, "
            f"such as {first_few(names, 3)}. Correct it or leave it out."
        )
    return [subgroup or None for subgroup in found]


def evaluate(
    task: Task,
    labels: Sequence[str],
    y: NDArray,
    p: NDArray[np.float64],
    subgroups: Sequence[str | None],
    *,
    thresholds: dict[str, float] | None = None,
    groups: Sequence[str] | None = None,
    bootstrap: int = 1000,
) -> dict[str, Subgroup]:
    """The values of each subgroup, in the order of their names; arguments as ``metrics.evaluate``.

    A binary subgroup of positives only has its sensitivity, and its AUC against every negative of
    the table; one of negatives only its specificity, and its AUC against every positive.
    """
    truth, probability = checked(task, y, p, len(labels))
    named = np.array([subgroup or "" for subgroup in subgroups])
    return {
        name: _subgroup(
            task, labels, truth, probability, named == name, thresholds, groups, bootstrap
        )
        for name in sorted({each for each in subgroups if each})
    }


def _subgroup(
    task: Task,
    labels: Sequence[str],
    y: NDArray[np.int64],
    p: NDArray[np.float64],
    own: NDArray[np.bool_],
    thresholds: dict[str, float] | None,
    groups: Sequence[str] | None,
    bootstrap: int,
) -> Subgroup:
    alone = task == "binary" and len(np.unique(y[own])) == 1
    used = own | (y != y[own][0]) if alone else own
    rows = np.flatnonzero(used)
    found = metrics.evaluate(
        task,
        labels,
        y[rows],
        p[rows],
        thresholds=thresholds,
        groups=None if groups is None else [groups[row] for row in rows.tolist()],
        bootstrap=bootstrap,
    )
    columns = label_scores(task, labels, y[own], p[own])
    kept = ("auc", "sensitivity" if y[own][0] == 1 else "specificity") if alone else found.values
    return Subgroup(
        n=int(own.sum()),
        groups=None
        if groups is None
        else len({groups[row] for row in np.flatnonzero(own).tolist()}),
        prevalence={column.label: float(column.truth.mean()) for column in columns},
        against=int(used.sum() - own.sum()),
        values={name: found.values[name] for name in kept},
    )
