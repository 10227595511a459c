"""What is turned away, and how sure the rest is: the table of docs/results.md on trust.

Run: python benchmarks/outliers.py BUNDLE DATA [--out FILE]

DATA is the folder of the public sets. Everything goes through the device's own Classifier: far
outliers by kind against the official test images (AUROC of the distance that `not-like-training`
is decided by), what is rejected of both, negatives of the test images, and the coverage of `--risk`
on validation folds that its bounds were not fitted on, and on test. The export chose the detector
by drawn noise, text and phantoms; the kinds here were not seen by it, but for noise, which is drawn
anew. 3 minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from table import markdown

from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier, Prediction
from medimg_edge.errors import MedimgEdgeError
from medimg_edge.image import Image
from medimg_edge.reader import Source, read_frames, read_image
from medimg_edge.record import Failure
from medimg_edge.risk import RISKS, bounds, key

PHOTOS = (
    *("astronaut", "brick", "camera", "cell", "chelsea", "clock_motion", "coffee", "coins"),
    *("color", "grass", "gravel", "horse", "ihc", "logo", "microaneurysms", "moon"),
    *("motorcycle_left", "rocket", "retina", "hubble_deep_field"),
)
CROPS = 3
DRAWN = 60
FOLDS = 200


@dataclass
class Kind:
    """Images of a kind: their distances where the network saw them, and what became of them."""

    distances: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    count: int = 0


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle")
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, help="write the tables here, too")
    asked = parser.parse_args()
    bundle = Bundle.open(asked.bundle)
    plain = Classifier(bundle, profile=None)
    judge = Judge(plain, Classifier(bundle, profile=None, screened=False))
    chests = asked.data / "kermany-cxr-224"
    told = ["\n".join(_outliers(judge, asked.data, chests)), "\n".join(_risk(asked.bundle, chests))]
    text = "\n\n".join(told) + "\n"
    print(text)
    if asked.out:
        asked.out.write_text(text)


@dataclass
class Judge:
    """The classifier as it answers, and the same without turning anything away."""

    strict: Classifier
    open: Classifier

    def of(self, sources: list[Source | Image]) -> Kind:
        """Every image is asked twice; one that cannot be preprocessed is rejected, too."""
        found = Kind(count=len(sources))
        for each in self.open.predict_many(sources):
            if isinstance(each, Prediction) and each.record.measured is not None:
                assert each.record.measured.novelty is not None
                found.distances.append(each.record.measured.novelty)
        for each in self.strict.predict_many(sources):
            found.codes[each.code if isinstance(each, Failure) else "answered"] += 1
        return found


def _outliers(judge: Judge, data: Path, chests: Path) -> Iterator[str]:
    files = sorted((chests / "test").rglob("*.jpeg")) or sorted((chests / "test").rglob("*.jp*g"))
    inside = judge.of([*files])
    rows = [_row("test images, inside", inside, None)]
    every: list[float] = []
    for name, sources in _kinds(data):
        found = judge.of(sources)
        every += found.distances
        rows.append(_row(name, found, _auroc(inside.distances, found.distances)))
    rows.append(("all kinds", "", f"{_auroc(inside.distances, every):.4f}", "", ""))
    negatives = judge.of([_negative(each) for each in files])
    rows.append(_row("negatives of the test images", negatives, None))
    yield f"{judge.strict.manifest.name} {judge.strict.manifest.version}, {judge.strict.artifact}"
    yield ""
    yield markdown(("kind", "images", "AUROC", "rejected", "by"), rows)


def _row(name: str, of: Kind, auroc: float | None) -> tuple[str, ...]:
    rejected = of.count - of.codes["answered"]
    by = ", ".join(f"{code} {n}" for code, n in of.codes.most_common() if code != "answered")
    return (
        name,
        str(of.count),
        "" if auroc is None else f"{auroc:.4f}",
        f"{rejected / of.count:.1%}",
        by,
    )


def _auroc(inside: list[float], outside: list[float]) -> float:
    truth = np.repeat([0, 1], [len(inside), len(outside)])
    return float(roc_auc_score(truth, [*inside, *outside]))


def _kinds(data: Path) -> Iterator[tuple[str, list[Source | Image]]]:
    generator = np.random.default_rng(11)
    yield "photographs (scikit-image)", [*_photos(generator)]
    yield "noise", [_noise(generator, at) for at in range(DRAWN)]
    yield "black, with the grain of a detector", [_black(generator) for _ in range(DRAWN)]
    yield "pages of text (scikit-image)", [*_pages(generator)]
    ultrasound = np.load(data / "breastmnist-28" / "breastmnist.npz")["test_images"]
    yield "breast ultrasound", [*ultrasound]
    for modality in ("US", "MR", "CT"):
        yield f"{modality} slices, DICOM", [*_dicom(data / "dicom" / modality)]
    yield "radiographs of other kinds, DICOM", [*_dicom(data / "dicom" / "CR")]


def _photos(generator: np.random.Generator) -> Iterator[Source]:
    for name in PHOTOS:
        yield from _with_crops(_read(name), generator)


def _pages(generator: np.random.Generator) -> Iterator[Source]:
    for name in ("page", "text"):
        for _ in range(3):
            yield from _with_crops(_read(name), generator)


def _with_crops(picture: NDArray, generator: np.random.Generator) -> Iterator[Source]:
    yield picture
    rows, columns = picture.shape[:2]
    for _ in range(CROPS):
        share = generator.uniform(0.5, 0.8)
        height, width = int(rows * share), int(columns * share)
        top = int(generator.integers(0, rows - height + 1))
        left = int(generator.integers(0, columns - width + 1))
        yield np.ascontiguousarray(picture[top : top + height, left : left + width])


def _read(name: str) -> NDArray:
    path = next((Path(skimage.__file__).parent / "data").glob(f"{name}.*"))
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return found if found.ndim == 2 else np.ascontiguousarray(found[..., 2::-1])


def _noise(generator: np.random.Generator, number: int) -> NDArray[np.uint8]:
    white = generator.integers(0, 256, (256, 256)).astype(np.uint8)
    if number % 3 == 0:
        return white
    if number % 3 == 1:
        return cv2.GaussianBlur(white, (0, 0), generator.uniform(1, 12)).astype(np.uint8)
    return np.clip(generator.normal(128, generator.uniform(10, 60), (256, 256)), 0, 255).astype(
        np.uint8
    )


def _black(generator: np.random.Generator) -> NDArray[np.uint8]:
    grain = generator.poisson(generator.uniform(0.2, 4), (300, 300))
    return np.clip(grain, 0, 255).astype(np.uint8)


def _dicom(folder: Path) -> Iterator[Image]:
    """Up to five frames of each file, without the headers, by which alone they are rejected."""
    for path in sorted(folder.glob("*.dcm")):
        try:
            frames = read_frames(path)
            for number in range(1, min(5, frames.frames) + 1):
                image = frames.image(number)
                yield Image(image.frames, image.voi, image.source, image.inverted)
        except MedimgEdgeError:
            continue


def _negative(path: Path) -> NDArray[np.uint8]:
    return 255 - read_image(path).frames[0].astype(np.uint8)


def _risk(bundle: str, chests: Path) -> Iterator[str]:
    """Coverage and what is referred, of each class."""
    tables = {split: Table.of(bundle, chests, split) for split in ("val", "test")}
    manifest = Bundle.open(bundle).manifest
    assert isinstance(manifest.risks, dict)
    ((_, own),) = manifest.risks[manifest.default_artifact].items()
    rows = []
    for risk in RISKS:
        folds = np.array([*_folds(tables["val"], risk)])
        whole = tables["test"].under(own[key(risk)])
        rows.append(
            (
                f"{risk:g}",
                *(f"{mean:.3f}" for mean in folds.mean(axis=0)[:2]),
                *(f"{each:.3f}" for each in whole),
            )
        )
    yield (
        f"Coverage of `--risk`: on halves of validation, by patient, whose other half the bounds "
        f"were fitted on (the mean of {FOLDS}), and on test by the bundle's own bounds."
    )
    yield ""
    names = ("negatives", "positives")
    yield markdown(
        (
            "risk",
            *(f"validation, {name}" for name in names),
            *(f"test, {name}" for name in names),
            "test, referred",
            "test, right of the answered",
        ),
        rows,
    )


@dataclass
class Table:
    """An evaluation's answers: truth (N,), probability (N,), patients (N,)."""

    y: NDArray[np.bool_]
    p: NDArray[np.float64]
    groups: NDArray[np.str_]

    @classmethod
    def of(cls, bundle: str, chests: Path, split: str) -> Table:
        """Evaluate a split as a user does."""
        with tempfile.TemporaryDirectory() as folder:
            words = ("evaluate", bundle, str(chests), "--split", split, "--out", folder)
            command = [sys.executable, "-m", "medimg_edge.cli", *words]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            with open(Path(folder, "answers.csv"), newline="") as file:
                rows = [*csv.DictReader(file)]
        name = next(key for key in rows[0] if key.startswith("probability:"))
        positive = name.removeprefix("probability:")
        return cls(
            np.array([row["truth"] == positive for row in rows]),
            np.array([float(row[name]) for row in rows]),
            np.array([row["group"] for row in rows]),
        )

    @property
    def by_class(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Probabilities of images with the label, and without it."""
        return self.p[self.y], self.p[~self.y]

    def rows(self, mask: NDArray[np.bool_]) -> Table:
        """Some of them."""
        return Table(self.y[mask], self.p[mask], self.groups[mask])

    def under(self, found: tuple[float, float]) -> tuple[float, float, float, float]:
        """Coverage of negatives and positives, the share referred, and right of the answered.

        An image of which neither label is possible is referred, and does not count as covered.
        """
        present, absent = self.p >= found[0], self.p <= found[1]
        referred = present == absent
        right = (present == self.y)[~referred]
        return (
            float(absent[~self.y].mean()),
            float(present[self.y].mean()),
            float(referred.mean()),
            float(right.mean()),
        )


def _folds(of: Table, risk: float) -> Iterator[tuple[float, float]]:
    generator = np.random.default_rng(0)
    patients = np.unique(of.groups)
    for _ in range(FOLDS):
        half = generator.permutation(patients)[: len(patients) // 2]
        fitted = np.isin(of.groups, half)
        yield of.rows(~fitted).under(bounds(of.rows(fitted).by_class, risk))[:2]


if __name__ == "__main__":
    main()
