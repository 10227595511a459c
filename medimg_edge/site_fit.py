"""A clinic's own labelled images -> a site profile, and what it reaches on images it has not seen.

Runs on the device: numpy, no training framework, no network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medimg_edge.classifier import Classifier, Progress
from medimg_edge.errors import DataInvalid, TooFewImages
from medimg_edge.label_csv import LabelledImage, first_few, read_labels
from medimg_edge.manifest import OperatingPoint
from medimg_edge.operating_point import decide, operating_point
from medimg_edge.record import Failure
from medimg_edge.site_profile import Calibration, SiteData, SiteProfile, calibrated, logit

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

FOLDS = 5
Z = 1.959964
"""The 97.5th percentile of the normal distribution."""
WIDE = 0.15
"""An interval of a sensitivity or a specificity that is wider than this says too little."""


@dataclass(frozen=True)
class Rate:
    """A share of ``n`` images with its 95 % interval; ``value`` is None where n is 0."""

    value: float | None
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Rates:
    """How decisions about one label turn out.

    sensitivity: of the images with the finding, those not called negative.
    specificity: of those without, those called negative.
    ppv: of the images called positive, those with the finding.
    referred: of all images, those left to a person.
    """

    sensitivity: Rate
    specificity: Rate
    ppv: Rate
    referred: Rate


@dataclass(frozen=True)
class Measured:
    """Rates of one label: with the bundle's own decisions, and with the profile's.

    profile: measured by cross-validation over patients, each decided by a fit that has not seen
        them; None where a class has too few patients for it.
    """

    bundle: Rates
    profile: Rates | None


@dataclass(frozen=True)
class Fitted:
    """The profile, and what to tell the person who made it."""

    profile: SiteProfile
    measured: dict[str, Measured]
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]


def fit_profile(
    classifier: Classifier,
    sheet: Path,
    *,
    sensitivity: float | None = None,
    refer_specificity: float | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Answer the images of a CSV (path,label[,group]) and fit a profile to them.

    classifier: loaded without a profile.
    sensitivity: the most specific operating point that reaches it; None: Youden's.
    refer_specificity: positive only from where this specificity is reached on; between the
        operating point and there: refer. None: no band.

    Raises DataMissing, DataInvalid (a label that the bundle does not know, missing files, a
    multiclass bundle), TooFewImages (one class), RecipeError (a target outside of (0, 1]).
    """
    manifest = classifier.manifest
    if manifest.task == "multiclass":
        raise DataInvalid(
            f"{manifest.name} tells {len(manifest.labels)} classes apart and takes the likeliest; "
            "a site profile moves thresholds, which it has none of."
        )
    rows = read_labels(sheet).rows
    _refuse_unknown(sheet, rows, manifest.labels, manifest.task == "binary")
    found = classifier.answer(rows, lambda row: row.path, progress)
    answered = found.items
    labels = manifest.findings
    y = np.array([[label in row.labels for label in labels] for row in answered])
    p = np.array([[each.probability for each in one.findings] for one in found.predictions])
    groups = [row.group or row.name for row in answered]
    grouped = any(row.group for row in answered)
    _refuse_one_class(sheet, y, labels, len(found.failures))

    targets = sensitivity, refer_specificity
    findings = {label: _fit(p[:, i], y[:, i], *targets) for i, label in enumerate(labels)}
    points = manifest.decision[classifier.artifact]
    measured = {
        label: Measured(
            bundle=_rates(y[:, i], _decided(p[:, i], points[label]), groups),
            profile=_cross_validated(p[:, i], y[:, i], groups, targets),
        )
        for i, label in enumerate(labels)
    }
    profile = SiteProfile(
        bundle=classifier.bundle.hash,
        artifact=classifier.artifact,
        findings=findings,
        data=SiteData(
            images=len(answered),
            patients=len(set(groups)) if grouped else None,
            positives={label: int(y[:, i].sum()) for i, label in enumerate(labels)},
            sha256=_fingerprint(answered),
        ),
        created=datetime.now(UTC).date().isoformat(),
    )
    failures = tuple(failure for _, failure in found.failures)
    return Fitted(profile, measured, failures, tuple(_warnings(measured, grouped)))


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


def wilson(count: int, n: int, effective: int) -> Rate:
    """``count`` of ``n`` with Wilson's interval (1927) for ``effective`` independent draws."""
    if n == 0:
        return Rate(None, 0.0, 1.0, 0)
    rate, m = count / n, effective
    centre = (rate + Z**2 / (2 * m)) / (1 + Z**2 / m)
    half = Z * sqrt(rate * (1 - rate) / m + Z**2 / (4 * m**2)) / (1 + Z**2 / m)
    return Rate(rate, max(0.0, centre - half), min(1.0, centre + half), n)


def _refuse_unknown(
    sheet: Path, rows: list[LabelledImage], labels: Sequence[str], binary: bool
) -> None:
    unknown = sorted({label for row in rows for label in row.labels} - set(labels))
    if unknown:
        raise DataInvalid(
            f"{sheet} has the label {first_few(map(repr, unknown))}, which the bundle does not "
            f"know; it knows {', '.join(labels)}. Correct the sheet."
        )
    wrong = [row.name for row in rows if len(row.labels) != 1]
    if binary and wrong:
        raise DataInvalid(
            f"{sheet}: each image is one of {' and '.join(labels)}; not so {first_few(wrong)}."
        )


def _refuse_one_class(sheet: Path, y: Flags, labels: Sequence[str], failures: int) -> None:
    for label, column in zip(labels, y.T, strict=True):
        if not column.any() or column.all():
            lost = f" ({failures} of its images could not be answered)" if failures else ""
            raise TooFewImages(
                f"Of the {len(column)} images of {sheet}{lost} {int(column.sum())} have "
                f"{label!r}: images with and without it are needed, better 50 of each."
            )


def _fit(
    p: Floats, y: Flags, sensitivity: float | None, refer_specificity: float | None
) -> Calibration:
    slope, intercept = fit_sigmoid(logit(p), y)
    changed = calibrated(p, slope, intercept)
    point = operating_point(y, changed, sensitivity=sensitivity)
    if refer_specificity is not None:
        mirrored = operating_point(~y, 1 - changed, sensitivity=refer_specificity)
        upper = float(np.float32(1 - mirrored.threshold))
        if upper > point.threshold:
            point = OperatingPoint(
                threshold=point.threshold,
                rule=f"{point.rule}, refer below specificity>={refer_specificity:g}",
                sensitivity=point.sensitivity,
                specificity=point.specificity,
                refer=(point.threshold, upper),
            )
    return Calibration(slope=slope, intercept=intercept, point=point)


def _decided(p: NDArray[np.floating], point: OperatingPoint) -> list[str]:
    return [decide(value, point) for value in p.tolist()]


def _cross_validated(
    p: Floats,
    y: Flags,
    groups: list[str],
    targets: tuple[float | None, float | None],
) -> Rates | None:
    folds = _folds(y, groups)
    if folds is None:
        return None
    decisions = [""] * len(p)
    for fold in range(folds.max() + 1):
        seen, unseen = folds != fold, np.flatnonzero(folds == fold)
        if y[seen].all() or not y[seen].any():
            return None
        fitted = _fit(p[seen], y[seen], *targets)
        changed = calibrated(p[unseen], fitted.slope, fitted.intercept)
        for row, decision in zip(unseen, _decided(changed, fitted.point), strict=True):
            decisions[row] = decision
    return _rates(y, decisions, groups)


def _folds(y: Flags, groups: list[str]) -> NDArray[np.int64] | None:
    """The fold of each image: patients whole, both classes spread evenly, the same every time."""
    positive = dict.fromkeys(groups, False)
    for group, truth in zip(groups, y.tolist(), strict=True):
        positive[group] |= truth
    fold_of: dict[str, int] = {}
    sizes = []
    for kind in (False, True):
        mine = [group for group in positive if positive[group] is kind]
        mine.sort(key=lambda group: hashlib.sha256(group.encode(errors="replace")).digest())
        sizes.append(len(mine))
        fold_of |= {group: at for at, group in enumerate(mine)}
    count = min(FOLDS, *sizes)
    if count < 2:
        return None
    return np.array([fold_of[group] % count for group in groups])


def _rates(y: Flags, decisions: list[str], groups: list[str]) -> Rates:
    called = np.array(decisions)
    names = np.array(groups)

    def rate(hit: Flags, among: Flags) -> Rate:
        n = int(among.sum())
        return wilson(int((hit & among).sum()), n, len(set(names[among].tolist())))

    positive, negative = called == "positive", called == "negative"
    return Rates(
        sensitivity=rate(~negative, y),
        specificity=rate(negative, ~y),
        ppv=rate(y, positive),
        referred=rate(called == "refer", np.ones_like(y)),
    )


def _fingerprint(rows: list[LabelledImage]) -> str:
    lines = []
    for row in rows:
        with row.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{content} {';'.join(row.labels)}\n")
    return hashlib.sha256("".join(sorted(lines)).encode(errors="replace")).hexdigest()


def _warnings(measured: dict[str, Measured], grouped: bool) -> list[str]:
    said = []
    for label, found in measured.items():
        if found.profile is None:
            said.append(
                f"{label}: too few patients of one class to check the profile on images it has not "
                "seen. Do not rely on it; label more images."
            )
            continue
        for name, rate in (
            ("sensitivity", found.profile.sensitivity),
            ("specificity", found.profile.specificity),
        ):
            if rate.high - rate.low > WIDE:
                said.append(
                    f"{label}: with {rate.n} images the {name} may be anywhere from {rate.low:.2f} "
                    f"to {rate.high:.2f}. Label more images before you rely on it."
                )
    if not grouped:
        said.append(
            "Nothing says which images are of one patient: give a column group, or the intervals "
            "are too narrow where a patient has several images."
        )
    return said
