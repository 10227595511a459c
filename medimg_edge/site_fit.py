"""A clinic's own labelled images -> a site profile, and what it reaches on images it has not seen.

Runs on the device: numpy, no training framework, no network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medimg_edge.classifier import Classifier, Progress
from medimg_edge.dicom.acquisition import acquisition, numbered
from medimg_edge.errors import DataInvalid, TooFewImages
from medimg_edge.label_csv import LabelledImage, first_few, read_labels
from medimg_edge.manifest import Manifest
from medimg_edge.record import Failure
from medimg_edge.site_calibration import Targets, fit_calibration
from medimg_edge.site_check import Measured, measure, ungrouped, warnings
from medimg_edge.site_profile import SiteData, SiteProfile

Flags = NDArray[np.bool_]


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
    prevalence: float | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Answer the images of a CSV (path,label[,group]) and fit a profile to them.

    classifier: loaded without a profile.
    sensitivity, refer_specificity, prevalence: see ``Targets``.

    Raises DataMissing, DataInvalid (a label that the bundle does not know, missing files, a
    multiclass bundle, a prevalence for several findings), TooFewImages (one class), RecipeError (a
    target out of its range); a target before any image is answered.
    """
    targets = Targets(sensitivity, refer_specificity, prevalence)
    manifest = classifier.manifest
    _refuse_task(manifest, targets)
    rows = read_labels(sheet).rows
    _refuse_unknown(sheet, rows, manifest.labels, manifest.task == "binary")
    found = classifier.answer(rows, lambda row: row.path, progress)
    answered = found.items
    labels = manifest.findings
    y = np.array([[label in row.labels for label in labels] for row in answered])
    p = np.array([[each.probability for each in one.findings] for one in found.predictions])
    patients = _patients(answered)
    groups = [patient or row.name for row, patient in zip(answered, patients, strict=True)]
    grouped = any(patients)
    _refuse_one_class(sheet, y, labels, len(found.failures))

    points = manifest.decision[classifier.artifact]
    findings, measured, said = {}, {}, []
    for i, label in enumerate(labels):
        fit = findings[label] = fit_calibration(p[:, i], y[:, i], targets)
        measured[label] = measure(p[:, i], y[:, i], groups, points[label], fit, targets)
        said += [
            f"{label}: {each}"
            for each in warnings(measured[label], y[:, i], groups, grouped, fit, targets)
        ]
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
    return Fitted(profile, measured, failures, (*said, *ungrouped(grouped)))


def _patients(rows: list[LabelledImage]) -> list[str | None]:
    """As the sheet tells them; where it tells none, as the headers of DICOM files do."""
    told = [row.group for row in rows]
    return told if any(told) else numbered(acquisition(row.path).patient for row in rows)


def _refuse_task(manifest: Manifest, targets: Targets) -> None:
    if manifest.task == "multiclass":
        raise DataInvalid(
            f"{manifest.name} tells {len(manifest.labels)} classes apart and takes the likeliest; "
            "a site profile moves thresholds, which it has none of."
        )
    if targets.prevalence is not None and len(manifest.findings) > 1:
        raise DataInvalid(
            f"A prevalence is the share of one finding, and {manifest.name} has "
            f"{len(manifest.findings)}: {first_few(manifest.findings)}. Leave out --prevalence "
            "and label images as they come in."
        )


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


def _fingerprint(rows: list[LabelledImage]) -> str:
    lines = []
    for row in rows:
        with row.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{content} {';'.join(row.labels)}\n")
    return hashlib.sha256("".join(sorted(lines)).encode(errors="replace")).hexdigest()
