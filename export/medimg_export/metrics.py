"""How good the answers are, with bootstrap intervals.

Arrays, here and in the other modules, by task:

    binary       y int (N,) in {0, 1}       p float (N,) or (N, 1), probability of labels[1]
    multiclass   y int (N,) in 0..C-1       p float (N, C), softmax
    multilabel   y int (N, C) in {0, 1}     p float (N, C)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from medimg_edge.errors import TooFewImages
from medimg_edge.manifest import Task
from medimg_edge.site_rates import wilson
from medimg_export.scores import (
    Flags,
    Floats,
    LabelScores,
    answer_scores,
    checked,
    default_thresholds,
    label_scores,
    resamples,
)

NAMES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "ece": "ECE",
}


class Estimate(msgspec.Struct, frozen=True):
    """A value and its 95 % interval; ``None`` where undefined. See ``evaluate``."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Counts(msgspec.Struct, frozen=True):
    """Decisions about one label (for multiclass: that label against the rest)."""

    tp: int
    fp: int
    fn: int
    tn: int


class Resampling(msgspec.Struct, frozen=True):
    """How the intervals were made.

    ``resamples`` is 0 where none were asked for or there is one unit only. ``unit`` is ``image``
    or ``group``. ``one_class`` counts the resamples in which a label that has both classes had
    one only; they are ignored for the values that need both.
    """

    resamples: int
    seed: int
    unit: str
    one_class: int


class Subgroup(msgspec.Struct, frozen=True):
    """The values of some of the images.

    ``against`` is how many images of the other class, from outside, the AUC was measured against:
    of a subgroup that holds one class only, and has no other values than AUC and the sensitivity
    or specificity of that class. Else it is 0, and ``values`` are those of ``Metrics``.
    """

    n: int
    groups: int | None
    prevalence: dict[str, float]
    against: int
    values: dict[str, Estimate]


class Referral(msgspec.Struct, frozen=True):
    """What a refer band [low, high) of one label does.

    ``referred`` is the share of all images that are left to a person; ``error`` the share of wrong
    decisions among the ``answered`` others.
    """

    band: tuple[float, float]
    referred: Estimate
    answered: int
    error: Estimate


class Metrics(msgspec.Struct, frozen=True):
    """What ``metrics.json`` holds. Names and shape are stable.

    ``values``     binary: every name in ``NAMES`` but balanced_accuracy.
                   multilabel: the same names, each the mean over labels.
                   multiclass: auc, average_precision and f1 (means over labels, one against the
                   rest), accuracy, balanced_accuracy, ece (of the answered label's probability).
    ``per_label``  the binary values by label; binary has its positive label, multiclass has no
                   accuracy and ece there.
    ``counts``     decisions by the same labels.
    ``prevalence`` share of images that have the label, by the same labels.
    ``confusion``  rows truth, columns answers, both in the order of ``labels``; multilabel None.
    ``thresholds`` by the same labels; multiclass None.
    ``subgroups``  by what the images' names tell, where that was asked for.
    ``ece_before`` the ECE at temperature 1, where the temperature is known and no site profile
                   changed the probabilities.
    ``profile``    the hash of the site profile that the answers are of.
    ``referrals``  by label what its refer band does, where one has a band. The other values know
                   the threshold only.
    """

    task: Task
    labels: tuple[str, ...]
    n: int
    groups: int | None
    prevalence: dict[str, float]
    thresholds: dict[str, float] | None
    values: dict[str, Estimate]
    per_label: dict[str, dict[str, Estimate]]
    counts: dict[str, Counts]
    confusion: tuple[tuple[int, ...], ...] | None
    resampling: Resampling
    subgroups: dict[str, Subgroup] | None = None
    ece_before: Estimate | None = None
    profile: str | None = None
    referrals: dict[str, Referral] | None = None


def evaluate(
    task: Task,
    labels: Sequence[str],
    y: ArrayLike,
    p: ArrayLike,
    *,
    thresholds: dict[str, float] | None = None,
    groups: Sequence[str] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Metrics:
    """Every metric of the task with its interval.

    A decision is positive when p >= threshold; without ``thresholds`` that is 0.5. Multiclass
    answers the most probable label and takes no thresholds. With ``groups`` (a name per image)
    whole groups are drawn.

    A value is ``None`` where its denominator is 0 (PPV without a positive call, AUC with one
    class). Means over labels are over the labels for which the value is defined in the table.
    An interval is the 2.5th to 97.5th percentile over the resamples in which the value is
    defined, and ``None`` where that is fewer than half. Of a rate (accuracy, sensitivity,
    specificity, PPV, NPV) of exactly 0 or 1 every resample gives the same, which is no interval:
    it gets Wilson's (1927), for as many draws as groups, else images, are behind its denominator.
    Any other value that no resample changes, such as an AUC of 1, has no interval. ECE is biased
    upwards in small samples and more so in resamples of them: its value may lie at the lower end of
    its interval.

    Raises TooFewImages (no image), DataInvalid (y or p does not fit the labels), NotFinite.
    """
    truth, probability = checked(task, y, p, len(labels))
    columns = label_scores(task, labels, truth, probability, thresholds)
    scored = [*columns, answer_scores(truth, probability)] if task == "multiclass" else columns
    found = drawn_values(scored, groups, bootstrap, seed)
    names = [column.label for column in columns]
    return Metrics(
        task=task,
        labels=tuple(labels),
        n=len(truth),
        groups=None if groups is None else len(set(groups)),
        prevalence={column.label: float(column.truth.mean()) for column in columns},
        thresholds=None if task == "multiclass" else thresholds or default_thresholds(names),
        values=_estimates(overall(task, found), _whole(task, scored), groups),
        per_label={
            column.label: _estimates(of, column, groups)
            for column, of in zip(columns, _of_labels(task, found), strict=True)
        },
        counts={column.label: _counts(column) for column in columns},
        confusion=_confusion(task, truth, columns),
        resampling=Resampling(
            resamples=resampled(len(truth), groups, bootstrap),
            seed=seed,
            unit="image" if groups is None else "group",
            one_class=_one_class([of["auc"] for of in found[: len(columns)]]),
        ),
    )


def drawn_values(
    scored: Sequence[LabelScores],
    groups: Sequence[str] | None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> list[dict[str, Floats]]:
    """Of each label every statistic: the value of the table first, then those of its resamples.

    Equal ``groups`` and ``seed`` draw equal resamples, so that the values of two models on the same
    images can be subtracted from each other, draw by draw.
    """
    n = len(scored[0].truth)
    draws = resampled(n, groups, bootstrap)
    drawn = [[one.values(w) for one in scored] for w in table_then(n, groups, draws, seed)]
    return [
        {name: np.concatenate([block[i][name] for block in drawn]) for name in drawn[0][i]}
        for i in range(len(scored))
    ]


def resampled(n: int, groups: Sequence[str] | None, bootstrap: int) -> int:
    """How many resamples are made: none where there is one unit only."""
    return bootstrap if (n if groups is None else len(set(groups))) > 1 else 0


def overall(task: Task, found: list[dict[str, Floats]]) -> dict[str, Floats]:
    """The values of the whole, from those of each label; multiclass: the answer's come last."""
    if task == "binary":
        return found[0]
    if task == "multilabel":
        return {name: _mean(found, name) for name in found[0]}
    *of_labels, answers = found
    return {
        "auc": _mean(of_labels, "auc"),
        "average_precision": _mean(of_labels, "average_precision"),
        "accuracy": answers["accuracy"],
        "balanced_accuracy": _mean(of_labels, "sensitivity"),
        "f1": _mean(of_labels, "f1"),
        "ece": answers["ece"],
    }


def estimate(of: Floats) -> Estimate:
    """The value of the table, first in ``of``, and the percentiles of its resamples."""
    if not np.isfinite(of[0]):
        return Estimate(None)
    defined = of[1:][np.isfinite(of[1:])]
    if not len(defined) or 2 * len(defined) < len(of) - 1:
        return Estimate(float(of[0]))
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(float(of[0]), float(low), float(high))


def table(metrics: Metrics) -> list[tuple[str, str, str]]:
    """Rows (name, value, interval) for people; those of labels and subgroups come last."""
    rows = [(NAMES[name], *_cells(of)) for name, of in metrics.values.items()]
    if metrics.ece_before is not None:
        rows.append(("ECE at temperature 1", *_cells(metrics.ece_before)))
    for label, referral in (metrics.referrals or {}).items():
        of_label = "" if metrics.task == "binary" else f"{label}: "
        rows.append((f"{of_label}referred", *_cells(referral.referred)))
        rows.append((f"{of_label}error of the answered", *_cells(referral.error)))
    return rows + [
        (f"{part}: {NAMES[name]}", *_cells(of))
        for part, estimates in _parts(metrics).items()
        for name, of in estimates.items()
    ]


def _parts(metrics: Metrics) -> dict[str, dict[str, Estimate]]:
    """The values of labels, where there are several, and of subgroups."""
    parts = {} if metrics.task == "binary" else dict(metrics.per_label)
    for name, subgroup in (metrics.subgroups or {}).items():
        parts[f"{name} ({subgroup.n} images)"] = subgroup.values
    return parts


def of_whom(n: int, groups: int | None, prevalence: dict[str, float]) -> str:
    """One line for people: images, patients, and the share that has each label."""
    patients = ", patients unknown" if groups is None else f" of {groups} patients"
    shares = ", ".join(f"{label} {share:.1%}" for label, share in prevalence.items())
    return f"{n} images{patients}. Prevalence: {shares}."


def on_intervals(found: Metrics) -> list[str]:
    """Sentences on the intervals that the bootstrap cannot give, where there are such."""
    if not found.resampling.resamples:
        return []
    unit = "images" if found.groups is None else "patients"
    every = [*found.values.items(), *(each for of in _parts(found).values() for each in of.items())]
    rates = any(of.value in (0, 1) and of.low is not None for _, of in every)
    fixed = {NAMES[name]: None for name, of in every if of.value is not None and of.low is None}
    said = []
    if rates:
        said.append(f"Rates of 0 or 1 have Wilson's interval (1927), by {unit}.")
    if fixed:
        said.append(
            f"No interval ({', '.join(fixed)}): no resample changes the value, or too few have it."
        )
    return said


def auc(task: Task, y: ArrayLike, p: ArrayLike) -> float:
    """Area under the ROC curve, in [0, 1]; the mean over labels that have both classes.

    Raises TooFewImages where no label has both, DataInvalid, NotFinite.
    """
    columns = _with_both_classes(task, y, p)
    ones = np.ones((1, len(columns[0].truth)))
    return float(np.mean([column.auc(ones)[0] for column in columns]))


def paired_auc_loss(
    task: Task,
    y: ArrayLike,
    p_ref: ArrayLike,
    p_new: ArrayLike,
    groups: Sequence[str] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """(loss, low, high): AUC of ``p_ref`` minus AUC of ``p_new`` and its 95 % interval.

    Both are scored on the same resamples, so what they share cancels out. Where nothing can be
    resampled (one group, or a class that half of the resamples lack) the interval is (-1, 1):
    nothing is known. Raises as ``auc``.
    """
    reference, new = _with_both_classes(task, y, p_ref), _with_both_classes(task, y, p_new)
    n = len(reference[0].truth)
    draws = resampled(n, groups, bootstrap)
    losses = np.concatenate(
        [
            np.mean([a.auc(w) - b.auc(w) for a, b in zip(reference, new, strict=True)], axis=0)
            for w in table_then(n, groups, draws, seed)
        ]
    )
    loss = estimate(losses)
    low, high = (-1.0, 1.0) if loss.low is None or loss.high is None else (loss.low, loss.high)
    return float(losses[0]), low, high


def _with_both_classes(task: Task, y: ArrayLike, p: ArrayLike) -> list[LabelScores]:
    C = 2 if task == "binary" else np.asarray(p).shape[-1]
    truth, probability = checked(task, y, p, C)
    columns = label_scores(task, [str(i) for i in range(C)], truth, probability)
    both = [column for column in columns if column.truth.any() and not column.truth.all()]
    if not both:
        raise TooFewImages(
            f"All {len(truth)} images have the same label: an AUC needs images of both classes."
        )
    return both


def table_then(n: int, groups: Sequence[str] | None, count: int, seed: int) -> Iterator[Floats]:
    """The table itself (a row of ones), then its resamples."""
    yield np.ones((1, n))
    yield from resamples(n, groups, count, seed)


def _of_labels(task: Task, found: list[dict[str, Floats]]) -> list[dict[str, Floats]]:
    if task != "multiclass":
        return found
    return [{name: of[name] for name in of if name not in ("accuracy", "ece")} for of in found[:-1]]


def _mean(found: list[dict[str, Floats]], name: str) -> Floats:
    """Over the labels that have the value in the table, so that every resample means the same."""
    defined = [of[name] for of in found if np.isfinite(of[name][0])]
    return np.mean(defined, axis=0) if defined else np.full_like(found[0][name], np.nan)


def _whole(task: Task, scored: Sequence[LabelScores]) -> LabelScores | None:
    """Whose the rates of the whole are; None where they are means, which are no shares."""
    return {"binary": scored[0], "multiclass": scored[-1], "multilabel": None}[task]


def _estimates(
    values: dict[str, Floats], column: LabelScores | None, groups: Sequence[str] | None
) -> dict[str, Estimate]:
    """Of each statistic; the rates are those of ``column``."""
    return {
        name: rate_estimate(of, among, groups)
        if column is not None and (among := column.among(name)) is not None
        else _unless_fixed(of)
        for name, of in values.items()
    }


def rate_estimate(of: Floats, among: Flags, groups: Sequence[str] | None) -> Estimate:
    """As ``estimate``, of a share of the images ``among``; of 0 or 1 with Wilson's interval."""
    found = estimate(of)
    if found.value not in (0, 1) or len(of) == 1:
        return found
    n = int(among.sum())
    units = n if groups is None else len(set(np.asarray(groups)[among].tolist()))
    rate = wilson(round(found.value * n), n, units)
    return Estimate(found.value, min(rate.low, found.value), max(rate.high, found.value))


def _unless_fixed(of: Floats) -> Estimate:
    """As ``estimate``, without an interval where no resample changes the value."""
    found = estimate(of)
    return Estimate(found.value) if found.low == found.value == found.high else found


def _one_class(aucs: list[Floats]) -> int:
    missing = [np.isnan(of[1:]) for of in aucs if np.isfinite(of[0])]
    return int(np.any(missing, axis=0).sum()) if missing else 0


def _counts(of: LabelScores) -> Counts:
    return Counts(
        tp=int((of.truth & of.called).sum()),
        fp=int((~of.truth & of.called).sum()),
        fn=int((of.truth & ~of.called).sum()),
        tn=int((~of.truth & ~of.called).sum()),
    )


def _confusion(task: Task, y: NDArray, columns: list[LabelScores]) -> tuple | None:
    if task == "multilabel":
        return None
    answers = columns[0].called.astype(int)
    if task == "multiclass":
        answers = np.stack([column.called for column in columns]).argmax(axis=0)
    C = max(2, len(columns))
    flat = np.bincount(y * C + answers, minlength=C * C).reshape(C, C)
    return tuple(tuple(int(count) for count in row) for row in flat)


def _cells(of: Estimate) -> tuple[str, str]:
    value = "undefined" if of.value is None else f"{of.value:.3f}"
    return value, "" if of.low is None else f"{of.low:.3f} to {of.high:.3f}"
