"""Probabilities and labels of one finding -> a site's calibration of it.

Runs on the device: numpy, no training framework, no network.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import DataInvalid, RecipeError
from medimg_edge.manifest import OperatingPoint
from medimg_edge.operating_point import between, operating_point
from medimg_edge.site_profile import Calibration, calibrated, logit

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Targets:
    """What a clinic asks for.

    sensitivity: the most specific operating point that reaches it; None: Youden's.
    refer_specificity: positive only from where this specificity is reached on; between the
        operating point and there: refer. None: no band.
    prevalence: the share of those examined that has the finding; None: as on the sheet.

    Raises RecipeError for a target outside of (0, 1], or a prevalence that is not inside.
    """

    sensitivity: float | None = None
    refer_specificity: float | None = None
    prevalence: float | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("sensitivity", self.sensitivity),
            ("specificity of the refer band", self.refer_specificity),
        ):
            if value is not None and not 0 < value <= 1:
                raise RecipeError(f"The {name} to reach is {value}; accepted is (0, 1].")
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            raise RecipeError(
                f"The prevalence is {self.prevalence}; accepted is a share between 0 and 1."
            )


def fit_calibration(p: Floats, y: Flags, targets: Targets) -> Calibration:
    """The curve and the operating point that fit ``p`` in [0, 1] of images with and without; (N,).

    Raises what ``fit_sigmoid`` does.
    """
    slope, intercept = fit_sigmoid(logit(p), y)
    changed = calibrated(p, slope, intercept)
    fit = Calibration(slope=slope, intercept=intercept, point=choose_point(y, changed, targets))
    if targets.prevalence is None:
        return fit
    return at_prevalence(fit, p, targets.prevalence, float(y.mean()))


def choose_point(y: Flags, p: NDArray[np.floating], targets: Targets) -> OperatingPoint:
    """The operating point, with the refer band where one is asked for and something is left to it.

    Where the specificity is reached at the threshold already there is no band.
    """
    point = operating_point(y, p, sensitivity=targets.sensitivity)
    if targets.refer_specificity is None:
        return point
    mirrored = operating_point(~y, 1 - p, sensitivity=targets.refer_specificity)
    upper = float(np.float32(1 - mirrored.threshold))
    if upper <= point.threshold:
        return point
    return msgspec.structs.replace(
        point,
        rule=f"{point.rule}, refer below specificity>={targets.refer_specificity:g}",
        refer=(point.threshold, upper),
    )


def at_prevalence(fit: Calibration, p: Floats, prevalence: float, sheet: float) -> Calibration:
    """A fit on images of which the share ``sheet`` has the finding, for where ``prevalence`` has.

    The log odds move by the difference of the two shares' (Saerens, Latinne, Decaestecker 2002):
    right where the ill look like the sheet's ill and the well like its well. The thresholds move
    along, so that every decision stays as it was. p: (N,), as ``fit_calibration`` took it.
    """
    shift = float(logit(np.array(prevalence)) - logit(np.array(sheet)))
    before = calibrated(p, fit.slope, fit.intercept)
    after = calibrated(p, fit.slope, fit.intercept + shift)
    old = fit.point
    point = msgspec.structs.replace(
        old,
        threshold=_moved(old.threshold, shift, before, after),
        refer=old.refer and tuple(_moved(each, shift, before, after) for each in old.refer),
    )
    return Calibration(fit.slope, fit.intercept + shift, point, prevalence)


def fit_sigmoid(z: Floats, y: Flags) -> tuple[float, float]:
    """(slope, intercept) for which sigmoid(slope * z + intercept) fits ``y`` best; both (N,).

    Platt 1999, by Newton's method on the log likelihood, with a weak prior (slope about 1,
    intercept about 0, as sure as one image) that keeps separable data finite.

    Raises DataInvalid where the slope is not positive: the more probable, the rarer.
    """
    prior = np.diag([1.0, 1 / 9])
    design = np.stack([z, np.ones_like(z)], axis=1)
    start: Floats = np.array([1.0, 0.0])

    def loss(at: Floats) -> float:
        margin = np.where(y, design @ at, -(design @ at))
        return float(np.logaddexp(0, -margin).sum() + (at - start) @ prior @ (at - start) / 2)

    found: Floats = start
    for _ in range(100):
        p: Floats = 0.5 * (1 + np.tanh(design @ found / 2))
        gradient = design.T @ (p - y) + prior @ (found - start)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + prior
        step = np.linalg.solve(hessian, gradient)
        while loss(found - step) > loss(found) and np.abs(step).max() > 1e-9:
            step /= 2
        found = found - step
        if np.abs(step).max() < 1e-9:
            break
    if found[0] <= 0:
        raise DataInvalid(
            "On these images the finding is the rarer, the surer the bundle is of it. Check that "
            "the labels are not swapped, and that these are images that the bundle is for."
        )
    return float(found[0]), float(found[1])


def _moved(
    threshold: float, shift: float, before: NDArray[np.float32], after: NDArray[np.float32]
) -> float:
    """The threshold in the shifted probabilities; rounding takes no image to its other side."""
    moved = float(calibrated(np.array(threshold), 1.0, shift))
    below = float(after[before < threshold].max(initial=0.0))
    above = float(after[before >= threshold].min(initial=1.0))
    return moved if below < moved <= above else between(below, above)
