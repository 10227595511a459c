"""What a site's calibration reaches on patients it has not seen, how sure that is, what to warn of.

Runs on the device: numpy, no training framework, no network.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import DataInvalid
from medimg_edge.manifest import OperatingPoint
from medimg_edge.operating_point import decide
from medimg_edge.site_calibration import Targets, fit_calibration
from medimg_edge.site_profile import Calibration
from medimg_edge.site_rates import Rates, rates

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

FOLDS = 5
ENOUGH = 50
"""Patients of each class: below, a sensitivity of .95 has an interval that is wider than .13."""
WIDE = 0.15
"""An interval of a rate that is wider than this says too little."""


@dataclass(frozen=True)
class Measured:
    """Rates of one label: with the bundle's own decisions, and with the profile's.

    profile: measured by cross-validation over patients, each decided by a fit that has not seen
        them; None where that could not be done. Its intervals take in those of the rates on the
        very images of the fit: the threshold was chosen there, and Wilson's around the former alone
        are too narrow (benchmarks/calibration_coverage.py).
    why: the reason for None, for people.
    """

    bundle: Rates
    profile: Rates | None
    why: str = ""


def measure(
    p: Floats,
    y: Flags,
    groups: list[str],
    point: OperatingPoint,
    fit: Calibration,
    targets: Targets,
) -> Measured:
    """The rates of one label; ``p`` the bundle's probabilities, ``y`` the labels, both (N,).

    groups: the patient of each image. point: the bundle's. fit: the site's.
    """
    bundle = rates(y, decisions(p, point), groups, targets.prevalence)
    found = cross_validated(p, y, groups, targets)
    if isinstance(found, str):
        return Measured(bundle, None, found)
    sheet = rates(y, decisions(fit.calibrated(p), fit.point), groups, targets.prevalence)
    return Measured(bundle, found.widened(sheet))


def decisions(p: NDArray[np.floating], point: OperatingPoint) -> list[str]:
    """The decision of each image."""
    return [decide(value, point) for value in p.tolist()]


def cross_validated(p: Floats, y: Flags, groups: list[str], targets: Targets) -> Rates | str:
    """The rates on patients that the fit has not seen, or why there are none."""
    folds = divide(y, groups)
    if folds is None:
        return (
            "too few patients of one class to check the profile on images it has not seen. Do not "
            "rely on it; label more images."
        )
    # The prevalence moves probabilities and thresholds together: no decision changes.
    plain = Targets(targets.sensitivity, targets.refer_specificity)
    called = [""] * len(p)
    for fold in range(folds.max() + 1):
        seen, unseen = folds != fold, np.flatnonzero(folds == fold)
        try:
            fitted = fit_calibration(p[seen], y[seen], plain)
        except DataInvalid:
            return (
                f"the profile could not be checked on images it has not seen: without 1/"
                f"{folds.max() + 1} of the patients, the finding is the rarer, the surer the "
                "bundle is of it. The bundle tells little on these images, or they are too few. "
                "Do not rely on the profile; label more images."
            )
        changed = fitted.calibrated(p[unseen])
        for row, decision in zip(unseen, decisions(changed, fitted.point), strict=True):
            called[row] = decision
    return rates(y, called, groups, targets.prevalence)


def divide(y: Flags, groups: list[str]) -> NDArray[np.int64] | None:
    """The fold of each image: patients whole, both classes spread evenly, the same every time.

    None where fewer than two patients have an image of one class. Patients are dealt in a row:
    those without the finding, those with images of both kinds, those with it. The holders of either
    class are neighbours in it, so that no fold takes all of them.
    """
    with_it, without = _holders(y, groups)
    count = min(FOLDS, len(with_it), len(without))
    if count < 2:
        return None
    row = sorted(
        with_it | without,
        key=lambda group: (
            (group in with_it) + (group not in without),
            hashlib.sha256(group.encode(errors="replace")).digest(),
        ),
    )
    fold_of = {group: at % count for at, group in enumerate(row)}
    return np.array([fold_of[group] for group in groups])


def warnings(
    measured: Measured,
    y: Flags,
    groups: list[str],
    grouped: bool,
    fit: Calibration,
    targets: Targets,
) -> list[str]:
    """What the person who made the profile of one label has to know before relying on it."""
    said = [measured.why] if measured.profile is None else []
    if targets.refer_specificity is not None and fit.point.refer is None:
        said.append(
            f"no image is referred: a specificity of {targets.refer_specificity:g} is reached from "
            f"the threshold on already ({fit.point.specificity:.3f} on these images)."
        )
    with_it, without = _holders(y, groups)
    if min(len(with_it), len(without)) < ENOUGH:
        said.append(
            f"{len(with_it)} {'patients' if grouped else 'images'} with it and {len(without)} "
            f"without are few; rely on {ENOUGH} or more of each. Label more."
        )
    if measured.profile is not None:
        said += _of_rates(measured.profile)
    return said


def ungrouped(grouped: bool) -> list[str]:
    """What to say of a sheet that does not tell patients apart."""
    if grouped:
        return []
    return [
        "Nothing says which images are of one patient: give a column group, or the intervals "
        "are too narrow where a patient has several images."
    ]


def _of_rates(profile: Rates) -> list[str]:
    said = []
    for name, rate in (
        ("sensitivity", profile.sensitivity),
        ("specificity", profile.specificity),
        ("PPV", profile.ppv),
    ):
        if rate.high - rate.low > WIDE:
            whose = f" of {rate.patients} patients" if rate.patients < rate.n else ""
            said.append(
                f"with {rate.n} images{whose} the {name} may be anywhere from {rate.low:.2f} "
                f"to {rate.high:.2f}. Label more images before you rely on it."
            )
    sensitivity, specificity = profile.sensitivity, profile.specificity
    if sensitivity.value is not None and specificity.low <= 1 - sensitivity.value:
        said.append(
            f"the profile may be no better than chance: it calls {1 - sensitivity.value:.2f} of "
            f"those with it negative, and of those without perhaps only {specificity.low:.2f}. "
            "Do not rely on it."
        )
    return said


def _holders(y: Flags, groups: list[str]) -> tuple[set[str], set[str]]:
    """The patients with an image with the finding, and with one without."""
    pairs = list(zip(groups, y.tolist(), strict=True))
    return {group for group, has in pairs if has}, {group for group, has in pairs if not has}
