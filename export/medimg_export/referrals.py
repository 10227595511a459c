"""What a refer band does: how many images go to a person, and how often the others are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medimg_edge.manifest import OperatingPoint
from medimg_export.metrics import Referral, rate_estimate, resampled, table_then
from medimg_export.scores import LabelScores, ratio


def evaluate(
    columns: Sequence[LabelScores],
    points: Mapping[str, OperatingPoint],
    *,
    groups: Sequence[str] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Referral] | None:
    """By label what its refer band does; None where no label has one.

    Intervals as those of the rates in ``metrics.evaluate``.
    """
    return {
        column.label: _referral(column, band, groups, bootstrap, seed)
        for column in columns
        if column.label in points and (band := points[column.label].refer) is not None
    } or None


def _referral(
    of: LabelScores,
    band: tuple[float, float],
    groups: Sequence[str] | None,
    bootstrap: int,
    seed: int,
) -> Referral:
    # As operating_point.decide.
    inside = (band[0] <= of.score) & ((of.score < band[1]) | (band[1] >= 1))
    every, answered = np.ones_like(inside), ~inside
    wrong = answered & (of.called != of.truth)
    n = len(inside)
    referred, error = [], []
    for weights in table_then(n, groups, resampled(n, groups, bootstrap), seed):
        referred.append(ratio(weights @ inside, weights.sum(axis=1)))
        error.append(ratio(weights @ wrong, weights @ answered))
    return Referral(
        band=band,
        referred=rate_estimate(np.concatenate(referred), every, groups),
        answered=int(answered.sum()),
        error=rate_estimate(np.concatenate(error), answered, groups),
    )
