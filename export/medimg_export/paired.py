"""Tests of two models that answered the same images: DeLong's for AUC, McNemar's for decisions.

Both take every image as independent of the others. Where a patient has several they find
differences too easily; the bootstrap by group in ``comparison`` does not.
"""

from __future__ import annotations

import msgspec
import numpy as np
from scipy.stats import binomtest, norm, rankdata

from medimg_export.scores import Flags, Floats

ROUNDING = 1e-12
"""Far below the smallest difference that images can make, far above that of arithmetic."""


class DeLong(msgspec.Struct, frozen=True):
    """AUC of B minus AUC of A, its standard error, its 95 % interval, and p (two-sided)."""

    difference: float
    error: float
    low: float
    high: float
    p: float


class McNemar(msgspec.Struct, frozen=True):
    """How many of ``n`` images both, only one, or neither decided right.

    p is exact, two-sided; None where there is no image.
    """

    n: int
    both: int
    only_a: int
    only_b: int
    neither: int
    p: float | None


def delong(truth: Flags, a: Floats, b: Floats) -> DeLong | None:
    """DeLong's test for two correlated ROC curves; every argument has shape (N,).

    DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44:837), by the midranks of Sun and Xu 2014
    (IEEE Signal Processing Letters 21:1389). The variance of the difference is that of the
    differences of the structural components, over positives and over negatives.

    None where it says nothing: fewer than two images of a class, or a difference of which the
    images show no variance at all.
    """
    m, n = int(truth.sum()), int((~truth).sum())
    if min(m, n) < 2:
        return None
    (positive_a, negative_a), (positive_b, negative_b) = (
        _components(truth, a),
        _components(truth, b),
    )
    difference = float(positive_b.mean() - positive_a.mean())
    variance = (
        np.var(positive_b - positive_a, ddof=1) / m + np.var(negative_b - negative_a, ddof=1) / n
    )
    if variance < ROUNDING**2:
        return DeLong(0.0, 0.0, 0.0, 0.0, 1.0) if abs(difference) < ROUNDING else None
    error = float(np.sqrt(variance))
    reach = float(norm.ppf(0.975)) * error
    p = float(2 * norm.sf(abs(difference) / error))
    return DeLong(difference, error, difference - reach, difference + reach, p)


def _components(truth: Flags, score: Floats) -> tuple[Floats, Floats]:
    """Of each positive the share of negatives below it, of each negative that of positives above.

    Ties count half. The mean of either is the AUC.
    """
    ranks = rankdata(score)
    m, n = truth.sum(), (~truth).sum()
    below = (ranks[truth] - rankdata(score[truth])) / n
    above = 1 - (ranks[~truth] - rankdata(score[~truth])) / m
    return below, above


def mcnemar(right_a: Flags, right_b: Flags) -> McNemar:
    """McNemar's exact test: whether half of the images that one alone had right are A's.

    McNemar 1947 (Psychometrika 12:153), with the binomial distribution in place of chi square, so
    that few images are no obstacle. Where the two are right on the same images p is 1.
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    apart = only_a + only_b
    return McNemar(
        n=len(right_a),
        both=int((right_a & right_b).sum()),
        only_a=only_a,
        only_b=only_b,
        neither=int((~right_a & ~right_b).sum()),
        p=_p_value(only_a, apart) if len(right_a) else None,
    )


def _p_value(only_a: int, apart: int) -> float:
    return float(binomtest(only_a, apart).pvalue) if apart else 1.0
