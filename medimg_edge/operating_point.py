"""From probabilities to decisions: where the threshold lies, and what lies on which side of it.

Everywhere in this project a decision is positive when ``p >= threshold``.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from medimg_edge.errors import RecipeError, TooFewImages
from medimg_edge.manifest import OperatingPoint

Floats = NDArray[np.float64]


def decide(probability: float, point: OperatingPoint) -> str:
    """``refer`` inside the refer band, else ``positive`` from the threshold on.

    The band's upper end is outside of it, unless it is 1.
    """
    if point.refer:
        low, high = point.refer
        if low <= probability and (probability < high or high >= 1):
            return "refer"
    return "positive" if probability >= point.threshold else "negative"


def operating_point(
    y: ArrayLike, p: ArrayLike, *, sensitivity: float | None = None
) -> OperatingPoint:
    """Choose the threshold of one label; ``y`` 0/1 and ``p`` in [0, 1], both of N values.

    Without a target: Youden's J = sensitivity + specificity - 1 at its largest (Youden 1950);
    of equal ones the threshold with the most room to its neighbours. With ``sensitivity`` in
    (0, 1]: the most specific point that reaches it, and of equally specific ones the most
    sensitive.

    Equal scores are decided alike. The threshold lies midway between the two neighbouring
    scores, so that another runtime's rounding (1e-4 is what the gates allow) flips nothing
    as long as those two are further apart than twice that. See ``between`` on single precision.

    Raises TooFewImages where a class is missing, RecipeError for a target outside of (0, 1].
    """
    truth = np.ravel(y).astype(bool)
    score = np.ravel(p).astype(np.float64)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        raise TooFewImages(
            f"An operating point needs both classes; found {positives} positive and "
            f"{negatives} negative images."
        )
    if sensitivity is not None and not 0 < sensitivity <= 1:
        raise RecipeError(f"The sensitivity to reach is {sensitivity}; accepted is (0, 1].")
    above, below = cuts(score)
    tp = positives - np.searchsorted(np.sort(score[truth]), above)
    tn = np.searchsorted(np.sort(score[~truth]), above)
    if sensitivity is None:
        rule = "youden"
        j = tp * negatives + tn * positives  # whole numbers, so that ties are ties
        best = np.lexsort((above - below, j))[-1]
    else:
        rule = f"sensitivity>={sensitivity:g}"
        reached = np.flatnonzero(tp / positives >= sensitivity)
        best = reached[np.lexsort((tp[reached], tn[reached]))[-1]]
    return OperatingPoint(
        threshold=between(float(below[best]), float(above[best])),
        rule=rule,
        sensitivity=float(tp[best] / positives),
        specificity=float(tn[best] / negatives),
    )


def reached(point: OperatingPoint, y: ArrayLike, p: ArrayLike) -> OperatingPoint:
    """The same point, with the sensitivity and specificity that it reaches on these N values.

    ``y`` 0/1 and ``p`` in [0, 1]; both classes are there.
    """
    truth, called = np.ravel(y).astype(bool), np.ravel(p) >= point.threshold
    return msgspec.structs.replace(
        point,
        sensitivity=float(called[truth].mean()),
        specificity=float((~called[~truth]).mean()),
    )


def cuts(score: Floats) -> tuple[Floats, Floats]:
    """Each distinct score and its lower neighbour, 0 for the lowest: a threshold fits between.

    A cut calls everything from ``above`` upwards positive, so there is always at least one call.
    """
    above = np.unique(score)
    return above, np.concatenate([[0.0], above[:-1]])


def between(below: float, above: float) -> float:
    """A t with below < t <= above (0 for 0, 0), near the middle.

    The middle is rounded to single precision, where probabilities live: hosts that compare in
    float32 and hosts that compare in float64 then decide alike.
    """
    middle = float(np.float32((below + above) / 2))
    return middle if below < middle <= above else above
