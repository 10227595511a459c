"""Selective classification: how often answers are wrong if the least sure ones are not given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from medimg_edge.manifest import Task
from medimg_export.metrics import Estimate, estimate, resampled
from medimg_export.scores import DEFAULT_THRESHOLD, Flags, Floats, resamples

COVERAGE = np.linspace(0.01, 1, 100)
"""Where the curve is drawn: at every hundredth of the images."""

SATURATED = 1e-7
"""Nearer to 1 a float32 probability cannot tell how near; the same bound holds for 0."""


@dataclass(frozen=True)
class Selective:
    """How sure each answer is, in any unit, and whether it is wrong; both of shape (N,)."""

    sureness: Floats
    wrong: Flags

    def errors(self, weights: Floats, coverage: Floats = COVERAGE) -> Floats:
        """The error at each coverage in (0, 1], for weights of shape (b, N): (b, len(coverage)).

        Coverage c is the share of images that are answered when the surest are answered first and
        all others are referred; the error is the share of wrong answers among them, which is the
        selective risk under 0/1 loss of El-Yaniv and Wiener 2010 (On the Foundations of Noise-free
        Selective Classification), drawn as by Geifman and El-Yaniv 2017 (Selective Classification
        for Deep Neural Networks). Images that are equally sure are answered in random order, of
        which this is the mean: the number of wrong answers grows evenly from the first of them to
        the last. At c = 1 it is the error of all.
        """
        order = np.argsort(-self.sureness, kind="stable")
        starts = np.flatnonzero(np.diff(self.sureness[order], prepend=np.inf))
        drawn = weights[:, order]
        answered = np.cumsum(np.add.reduceat(drawn, starts, axis=1), axis=1)
        wrong = np.cumsum(np.add.reduceat(drawn * self.wrong[order], starts, axis=1), axis=1)
        counts = [
            np.interp(coverage * of[-1], np.append(0, of), np.append(0, bad)) / of[-1]
            for of, bad in zip(answered, wrong, strict=True)
        ]
        return np.array(counts) / coverage


@dataclass(frozen=True)
class CoverageCurve:
    """The error at each of ``COVERAGE``, with its 95 % interval point by point; ``n`` images.

    augrc: the mean over all coverages of the share of images that are answered, and wrong; the
        area under the generalized risk coverage curve of Traub et al. 2024, "Overcoming Common
        Flaws in the Evaluation of Selective Classification Systems".
    """

    n: int
    errors: tuple[Estimate, ...]
    augrc: Estimate


def selective_of(
    task: Task, y: NDArray[np.int64], p: Floats, thresholds: dict[str, float] | None
) -> Selective | None:
    """The answers as ``metrics.evaluate`` gives them; None for multilabel, which has many.

    Sureness is the distance of the probability from the threshold, both as logits; for multiclass
    the probability of the answered label (softmax response).
    """
    if task == "multilabel":
        return None
    if task == "multiclass":
        return Selective(p.max(axis=1), p.argmax(axis=1) != y)
    threshold = next(iter(thresholds.values())) if thresholds else DEFAULT_THRESHOLD
    inside = (SATURATED, 1 - SATURATED)
    distance = np.abs(logit(np.clip(p[:, 0], *inside)) - logit(np.clip(threshold, *inside)))
    return Selective(distance, (p[:, 0] >= threshold) != (y == 1))


def coverage_curve(
    of: Selective, groups: Sequence[str] | None, bootstrap: int = 1000, seed: int = 0
) -> CoverageCurve:
    """The curve with its intervals; with ``groups`` (a name per image) whole groups are drawn."""
    n = len(of.wrong)
    blocks = [of.errors(np.ones((1, n)))]
    blocks += [
        of.errors(weights)
        for weights in resamples(n, groups, resampled(n, groups, bootstrap), seed)
    ]
    errors = np.concatenate(blocks)
    steps = np.append(0, COVERAGE)
    areas = np.atleast_1d(np.trapezoid(np.pad(errors * COVERAGE, ((0, 0), (1, 0))), steps, axis=1))
    return CoverageCurve(n, tuple(estimate(column) for column in errors.T), estimate(areas))
