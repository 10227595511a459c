"""What a bundle answers when large JPEGs are decoded smaller, beside what it does of the whole.

Run: python benchmarks/scaled_decode.py BUNDLE DATA [--originals FOLDER]

DATA is what the bundle was trained from. The validation images of its training are enlarged until
1/2, 1/4 and 1/8 of their rows and columns are enough, given grain, and written as JPEG: the same
files are decoded whole and scaled. No answer to a test image is looked at. The originals are class
folders of full-size JPEGs. Also: how many images of DATA give another tensor. Three minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from medimg_edge import Classifier, read_image
from medimg_edge.bundle import Bundle
from medimg_edge.manifest import Preprocessing
from medimg_edge.preprocess import preprocess
from medimg_edge.reader import find_images
from medimg_export import recipe as recipes
from medimg_export.prepared import Prepared, prepare

TIMES = (2.5, 4.5, 9.0)
"""How much larger than the input: decoded at 1/2, 1/4, 1/8."""
GRAIN = 6.0
"""Standard deviation, of 255: what a detector adds, and what a decoder may pass on."""
QUALITY = 90


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--originals", type=Path)
    arguments = parser.parse_args()
    classifier = Classifier(Bundle.open(arguments.bundle), profile=None)
    manifest = classifier.manifest
    prepared = prepare(arguments.data, recipes.recall(manifest.training["recipe"]))
    print(f"{manifest.name} {manifest.version}, {classifier.artifact}")
    samples = prepared.cached.samples
    others = 0
    for each in samples:
        one, other = (preprocess(each.read(spec), spec) for spec in _specs(classifier))
        others += not np.array_equal(one, other)
    print(f"of the {len(samples)} images as they are {others} give another tensor")
    print("| images | n | AUC whole | AUC scaled | decisions that differ | largest, median dp |")
    print("| --- | --- | --- | --- | --- | --- |")
    rows = prepared.splits.val
    for times in TIMES:
        files = _enlarged(prepared, rows, times)
        _print_line(classifier, f"validation, x {times:g}", files, prepared.y[rows])
    if arguments.originals:
        paths = find_images(arguments.originals)
        ill = np.array([path.parent.name == manifest.labels[1] for path in paths])
        _print_line(classifier, "originals", map(Path.read_bytes, paths), ill)


def _specs(classifier: Classifier) -> tuple[Preprocessing, Preprocessing]:
    whole = msgspec.structs.replace(classifier.manifest.preprocessing, decode=msgspec.UNSET)
    return whole, msgspec.structs.replace(whole, decode="scaled")


def _enlarged(prepared: Prepared, rows: NDArray[np.int64], times: float) -> Iterable[bytes]:
    generator = np.random.default_rng(0)
    for row in rows:
        pixels = prepared.cached.pixels[row][..., 0]
        height, width = (round(times * side) for side in pixels.shape)
        large = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)
        grain = generator.normal(0, GRAIN, large.shape).astype(np.float32)
        shown = np.clip(np.rint(large + grain), 0, 255).astype(np.uint8)
        yield cv2.imencode(".jpg", shown, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))[1].tobytes()


def _print_line(
    classifier: Classifier, what: str, files: Iterable[bytes], y: NDArray[np.int64]
) -> None:
    specs = _specs(classifier)
    answers = np.array([[_probability(classifier, file, spec) for spec in specs] for file in files])
    (point,) = classifier.points.values()
    called = answers >= point.threshold
    away = np.abs(answers[:, 0] - answers[:, 1])
    before, after = (f"{roc_auc_score(y, answers[:, at]):.4f}" for at in (0, 1))
    differ = int((called[:, 0] != called[:, 1]).sum())
    print(
        f"| {what} | {len(y)} | {before} | {after} | {differ} | "
        f"{away.max():.3f}, {np.median(away):.4f} |"
    )


def _probability(classifier: Classifier, file: bytes, spec: Preprocessing) -> float:
    pixels = preprocess(read_image(file, needed=spec.needed), spec)
    return float(classifier.run(pixels[None])["probability"][0, 0])


if __name__ == "__main__":
    main()
