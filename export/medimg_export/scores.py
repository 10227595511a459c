"""A table of answers as scores per label, and every statistic of them, from bootstrap weights.

A resample is a row of weights: how often each image was drawn. A statistic takes weights of
shape (b, n) and returns b values, many resamples at once; the table itself is the row of ones.
Undefined is NaN here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medimg_edge.errors import DataInvalid, NotFinite, TooFewImages
from medimg_edge.manifest import Task
from medimg_export.calibration import BINS, bin_index

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

DEFAULT_THRESHOLD = 0.5
BLOCK = 200_000  # weights held at once: bounds memory, and fits the processor's cache


@dataclass(frozen=True)
class LabelScores:
    """What is true of one label, what was scored, what was answered; each of shape (N,).

    For multiclass it is that label against the rest.
    """

    label: str
    truth: Flags
    score: Floats  # in [0, 1]
    called: Flags

    def values(self, weights: Floats) -> dict[str, Floats]:
        """Every statistic by its name, each of shape (b,)."""
        positive, negative = self.by_score(weights)
        n = weights.sum(axis=1)
        positives = weights @ self.truth
        calls = weights @ self.called
        tp = weights @ (self.truth & self.called)
        tn = n - positives - calls + tp
        return {
            "auc": _auc(positive, negative),
            "average_precision": _average_precision(positive, negative),
            "accuracy": ratio(tp + tn, n),
            "sensitivity": ratio(tp, positives),
            "specificity": ratio(tn, n - positives),
            "ppv": ratio(tp, calls),
            "npv": ratio(tn, n - calls),
            "f1": ratio(2 * tp, positives + calls),
            "ece": ratio(np.abs(weights @ self._gap_by_bin).sum(axis=1), n),
        }

    def among(self, name: str) -> Flags | None:
        """Bool (N,), the images that a rate is a share of; None for what is no rate."""
        return {
            "accuracy": np.ones_like(self.truth),
            "sensitivity": self.truth,
            "specificity": ~self.truth,
            "ppv": self.called,
            "npv": ~self.called,
        }.get(name)

    def auc(self, weights: Floats) -> Floats:
        """P(score of a positive > score of a negative), ties half (Mann and Whitney)."""
        return _auc(*self.by_score(weights))

    def by_score(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weight of positives and of negatives at each distinct score, ascending: (b, distinct)."""
        order, starts = self._ranks
        drawn = weights[:, order]
        positive = np.add.reduceat(drawn * self.truth[order], starts, axis=1)
        return positive, np.add.reduceat(drawn, starts, axis=1) - positive

    @cached_property
    def _ranks(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The order by score, ascending, and where in it each distinct score starts."""
        order = np.argsort(self.score, kind="stable")
        return order, np.flatnonzero(np.diff(self.score[order], prepend=-np.inf))

    @cached_property
    def _gap_by_bin(self) -> Floats:
        """(N, bins): score minus truth, in the column of the image's reliability bin."""
        gaps = np.zeros((len(self.score), BINS))
        gaps[np.arange(len(gaps)), bin_index(self.score)] = self.score - self.truth
        return gaps


def checked(task: Task, y: ArrayLike, p: ArrayLike, C: int) -> tuple[NDArray[np.int64], Floats]:
    """(y, p) as arrays of the task: y (N,), for multilabel (N, C); p (N, C), for binary (N, 1).

    ``C`` is the number of labels, 2 for binary. Raises TooFewImages (none), DataInvalid, NotFinite.
    """
    truth, probability = np.asarray(y), np.asarray(p, np.float64)
    if len(truth) == 0:
        raise TooFewImages("There is no image to evaluate; at least one is needed.")
    columns = 1 if task == "binary" else C
    probability = probability.reshape(len(probability), -1)
    if probability.shape != (len(truth), columns):
        raise DataInvalid(
            f"Found probabilities of shape {probability.shape} for {len(truth)} images; "
            f"a {task} task with {C} labels has ({len(truth)}, {columns})."
        )
    if truth.size != len(truth) * (columns if task == "multilabel" else 1):
        raise DataInvalid(f"Found truth of shape {truth.shape} for a {task} task of {C} labels.")
    top = C if task == "multiclass" else 2
    if not np.isin(truth, np.arange(top)).all():
        raise DataInvalid(f"Truth holds {np.unique(truth)[:9]}; a {task} task has 0 to {top - 1}.")
    if not np.isfinite(probability).all():
        raise NotFinite("A probability is NaN or infinite: the network has no usable weights.")
    truth = truth.astype(np.int64)
    return truth.reshape(-1, C) if task == "multilabel" else truth.ravel(), probability


def label_scores(
    task: Task,
    labels: Sequence[str],
    y: NDArray[np.int64],
    p: Floats,
    thresholds: dict[str, float] | None = None,
) -> list[LabelScores]:
    """One LabelScores per label that has a probability (binary: the positive one).

    ``y`` and ``p`` as ``checked`` returns them. Positive is p >= threshold, 0.5 where there are
    none; multiclass answers the most probable label.
    """
    findings = labels[1:] if task == "binary" else labels
    if task == "multiclass":
        truth = y[:, None] == np.arange(len(findings))
        called = p.argmax(axis=1)[:, None] == np.arange(len(findings))
    else:
        truth = y.reshape(len(y), -1) == 1
        limits = thresholds or default_thresholds(findings)
        called = p >= np.array([limits[label] for label in findings])
    return [
        LabelScores(label, truth[:, i], p[:, i], called[:, i]) for i, label in enumerate(findings)
    ]


def answer_scores(y: NDArray, p: Floats) -> LabelScores:
    """Multiclass: whether the answered label is right, and its probability."""
    right = p.argmax(axis=1) == y
    return LabelScores("answer", right, p.max(axis=1), np.ones_like(right))


def default_thresholds(findings: Sequence[str]) -> dict[str, float]:
    """0.5 for every label that has a probability."""
    return dict.fromkeys(findings, DEFAULT_THRESHOLD)


def resamples(n: int, groups: Sequence[str] | None, count: int, seed: int) -> Iterator[Floats]:
    """Blocks of bootstrap weights, shape (b, n), ``count`` rows in all.

    Images are drawn with replacement, or whole groups where ``groups`` names one per image:
    images of one patient resemble each other, and drawing them singly makes intervals too narrow.
    """
    unit = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(unit.max()) + 1
    random = np.random.default_rng(seed)
    rows = max(1, BLOCK // n)
    for start in range(0, count, rows):
        size = min(rows, count - start)
        drawn = random.integers(units, size=(size, units)) + units * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units)
        yield times[:, unit].astype(np.float64)


def _auc(positive: Floats, negative: Floats) -> Floats:
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return ratio((positive * below).sum(axis=1), pairs)


def _average_precision(positive: Floats, negative: Floats) -> Floats:
    """The sum of precision times gain in recall over distinct scores, not interpolated."""
    tp = np.cumsum(positive[:, ::-1], axis=1)[:, ::-1]
    called = tp + np.cumsum(negative[:, ::-1], axis=1)[:, ::-1]
    precision = np.divide(tp, called, out=np.zeros_like(tp), where=called > 0)
    return ratio((positive * precision).sum(axis=1), positive.sum(axis=1))


def ratio(part: Floats, whole: Floats) -> Floats:
    """``part`` / ``whole``, undefined where ``whole`` is 0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
