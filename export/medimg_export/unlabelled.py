"""Images that nobody labelled, made ready: cached as the device's pixels, without what judges.

An image that is also in validation or test, or is of a patient who is there, would let a training
see what it is measured by. It is left out, and counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medimg_edge.classifier import Progress
from medimg_edge.dicom.acquisition import acquisition
from medimg_edge.errors import TooFewImages
from medimg_edge.manifest import Preprocessing
from medimg_edge.record import printable
from medimg_export.dataset import Dataset, Sample
from medimg_export.npz import ArrayRow
from medimg_export.pixel_cache import CachedPixels, PixelCache
from medimg_export.splits import Splits
from medimg_export.stratify import Rows

LEAST = 2
"""Images, below which there is nothing to learn from without labels."""


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """What may be learned from without labels.

    cached.pixels: uint8 (N, H, W, C), on disk. rows: those that are used, ascending. contents,
    patients: how many were left out, because the same image is in validation or test, or another
    of the same patient. strangers: how many of rows are of nobody knows whom. kept_apart: the
    function's of this name; None where nothing is known of validation and test.
    """

    path: Path
    cached: CachedPixels
    rows: Rows
    found: tuple[str, ...] = ()
    contents: int = 0
    patients: int = 0
    strangers: int = 0
    kept_apart: str | None = None

    @property
    def fingerprint(self) -> str:
        """Of the used rows."""
        return fingerprint(self.cached.digests[row] for row in self.rows)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found and left out, for a person."""
        if self.kept_apart is None:
            told = "none was compared with a validation or a test"
        else:
            told = (
                f"{self.contents} were left out because they are also in validation or test, and "
                f"{self.patients} of patients who are there"
            )
        notes = [*self.found, f"{len(self.rows)} images without labels; {told}."]
        if self.strangers:
            notes.append(
                f"Of {self.strangers} of them no patient is known, who may be in validation or "
                "test with other images: a group pattern tells patients by names, and DICOM "
                "headers do by themselves."
            )
        return tuple(notes)

    def describe(self) -> dict[str, Any]:
        """What ``run.json`` says of them; JSON types only."""
        return {
            "path": printable(str(self.path)),
            "images": len(self.cached.samples) + len(self.cached.problems),
            "used": len(self.rows),
            "left_out": {"contents": self.contents, "patients": self.patients},
            "problems": [
                {"name": each.name, "code": each.code, "message": each.message}
                for each in self.cached.problems
            ],
            "fingerprint": self.fingerprint,
        }


def fingerprint(digests: Iterable[str]) -> str:
    """sha256 over contents, in whatever order."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def kept_apart(cached: CachedPixels, splits: Splits) -> str:
    """The ``fingerprint`` of what judges: validation and test, and whose images they are."""
    return fingerprint(
        f"{cached.digests[row]} {cached.samples[row].group}" for row in _held(splits)
    )


def alone(
    dataset: Dataset, preprocessing: Preprocessing, progress: Progress | None = None
) -> Unlabelled:
    """All images of ``open_unlabelled``. Raises TooFewImages, WriteError."""
    cached = PixelCache().build(dataset, preprocessing, progress)
    rows = np.arange(len(cached.samples))
    return _enough(Unlabelled(dataset.path, cached, rows, dataset.notes))


def beside(
    dataset: Dataset,
    labelled: CachedPixels,
    splits: Splits,
    preprocessing: Preprocessing,
    progress: Progress | None = None,
) -> Unlabelled:
    """Images of ``open_unlabelled``, without those that validation or test of another set knows.

    The same image is the same file, or other bytes with the same pixels for the network. A patient
    is known by the group, by a DICOM header, or by another of the images without labels that shows
    the same as one of validation or test.

    Raises TooFewImages, WriteError.
    """
    cached = PixelCache().build(dataset, preprocessing, progress)
    held = _held(splits)
    judges = {name for row in held for name in _contents(labelled, row)}
    rows = range(len(cached.samples))
    same = np.array([not judges.isdisjoint(_contents(cached, row)) for row in rows], bool)
    names = [_patients(each) for each in cached.samples]
    patients = {name for row in held for name in _patients(labelled.samples[row])}
    patients |= {name for row in np.flatnonzero(same) for name in names[row]}
    known = np.array([not patients.isdisjoint(each) for each in names], bool) & ~same
    kept = np.flatnonzero(~same & ~known)
    return _enough(
        Unlabelled(
            dataset.path,
            cached,
            kept,
            dataset.notes,
            contents=int(same.sum()),
            patients=int(known.sum()),
            strangers=sum(not names[row] for row in kept),
            kept_apart=kept_apart(labelled, splits),
        )
    )


def _held(splits: Splits) -> Rows:
    return np.concatenate([splits.val, splits.test])


def _contents(cached: CachedPixels, row: int) -> tuple[str, str]:
    return cached.digests[row], hashlib.sha256(cached.pixels[row]).hexdigest()


def _patients(sample: Sample) -> set[tuple[str, str]]:
    """By whatever tells them; who is numbered by one way is not who has that number by another."""
    header = None if isinstance(sample.source, ArrayRow) else acquisition(sample.source).patient
    told = {"group": sample.group, "header": header}
    return {(way, name) for way, name in told.items() if name is not None}


def _enough(found: Unlabelled) -> Unlabelled:
    if len(found.rows) < LEAST:
        raise TooFewImages(
            f"{len(found.rows)} of the images in {found.path} may be learned from; {LEAST} are the "
            f"least. {found.notes[-1]}"
        )
    return found
