"""What the chest set says of the illness outside of the lungs, and how far a bundle listens to it.

Run: python benchmarks/shortcuts.py DATA [BUNDLE...]

DATA is the folder of the public sets. No test image is looked at. First, on images of train: how
much wider the originals of ill children are than those of healthy ones, and how well the classes
can be told apart by the power spectrum alone, which knows nothing of where anything is. Then, for
each bundle, on the validation images of its own training and at its own operating point: as they
are, and with the shapes, the sharpness or the traces of JPEG of the two classes exchanged; and what
it says of the originals, which a clinic has, beside their copies, which it was trained on and which
are JPEG files at 224 pixels. A minute, and two for each bundle.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medimg_edge import Classifier, read_image
from medimg_edge.bundle import Bundle
from medimg_edge.reader import find_images
from medimg_edge.site_profile import logit
from medimg_export import recipe as recipes
from medimg_export.augment import as_jpeg
from medimg_export.prepared import Prepared, prepare

ORIGINALS, COPY = "kermany-cxr-fullres-sample", "kermany-cxr-224"
ILL = "PNEUMONIA"
BANDS = 12
FOLDS = 5
QUALITY = 75
"""Of the JPEG that the copy may be: the one that most software writes unasked."""


def cropped(pixels: NDArray[np.uint8], down: float, across: float) -> NDArray[np.uint8]:
    """Without those shares of the height and of the width at each side, at the old size."""
    height, width = pixels.shape[:2]
    top, left = int(height * down), int(width * across)
    inner = np.ascontiguousarray(pixels[top : height - top, left : width - left])
    return cv2.resize(inner, (width, height)).reshape(pixels.shape).astype(np.uint8, copy=False)


def wider(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As if the film had been a quarter wider against its height, before it became square."""
    return cropped(pixels, 0.1, 0)


def narrower(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As if it had been a fifth narrower."""
    return cropped(pixels, 0, 0.1)


def softer(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With two thirds of its fine detail: about what lies between the classes' spectra."""
    return _detail(pixels, 1 / 1.5)


def sharper(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With half as much fine detail again."""
    return _detail(pixels, 1.5)


def _detail(pixels: NDArray[np.uint8], gain: float) -> NDArray[np.uint8]:
    blurred = cv2.GaussianBlur(pixels, (0, 0), 0.007 * len(pixels))
    changed = cv2.addWeighted(pixels, gain, blurred, 1 - gain, 0)
    return changed.reshape(pixels.shape).astype(np.uint8, copy=False)


def compressed(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Once more a JPEG, as the copy is one."""
    return as_jpeg(pixels, QUALITY)


def smoothed(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Without the edges of JPEG's blocks, and whatever else is as fine."""
    return cv2.GaussianBlur(pixels, (0, 0), 1).reshape(pixels.shape).astype(np.uint8, copy=False)


EXCHANGES = {
    "shapes": (wider, narrower),
    "sharpness": (softer, sharper),
    "files": (compressed, smoothed),
}
"""What happens to healthy children's images and to ill ones', so that each looks like the other."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundles", type=Path, nargs="*")
    arguments = parser.parse_args()
    _print_shapes(arguments.data / ORIGINALS)
    _print_spectra(arguments.data / COPY)
    for path in arguments.bundles:
        classifier = Classifier(Bundle.open(path), profile=None, screened=False)
        _print_exchanged(classifier, arguments.data / COPY)
        _print_originals(classifier, arguments.data)


def _print_shapes(originals: Path) -> None:
    files = find_images(originals)
    ill = np.array([file.parent.name == ILL for file in files])
    shapes = [read_image(file).frames.shape for file in files]
    aspect = np.array([width / height for _, height, width, _ in shapes])
    print(
        f"{len(files)} originals: width / height {aspect[~ill].mean():.2f} healthy, "
        f"{aspect[ill].mean():.2f} ill; AUC of it alone {roc_auc_score(ill, aspect):.3f}"
    )


def _print_spectra(copy: Path) -> None:
    prepared = prepare(copy, recipes.load("pneumonia-cxr"))
    rows = np.union1d(prepared.splits.train, prepared.splits.val)
    pixels, y = prepared.cached.pixels, prepared.y[rows]
    spectra = np.array([_spectrum(pixels[row][..., 0]) for row in rows])
    scores = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        spectra,
        y,
        groups=prepared.groups(rows),
        cv=GroupKFold(FOLDS),
        method="decision_function",
    )
    apart = spectra[y == 0].mean(axis=0) - spectra[y == 1].mean(axis=0)
    print(
        f"{len(rows)} images of train: AUC of the power spectrum alone "
        f"{roc_auc_score(y, scores):.3f}, cross-validated by patient; amplitude of detail, healthy "
        f"against ill {np.exp(apart / 2).min():.2f} to {np.exp(apart / 2).max():.2f} times"
    )


def _spectrum(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mean log power in bands from .05 to .5 cycles a pixel, of the standardised image."""
    side = len(pixels)
    window = np.outer(np.hanning(side), np.hanning(side))
    values = (pixels - pixels.mean()) / max(float(pixels.std()), 1e-6) * window
    power = np.log(np.abs(np.fft.fft2(values)) ** 2 + 1e-6)
    frequency = np.fft.fftfreq(side)
    band = np.digitize(
        np.hypot(*np.meshgrid(frequency, frequency)), np.linspace(0.05, 0.5, BANDS + 1)
    )
    return np.array([power[band == each].mean() for each in range(1, BANDS + 1)])


def _print_exchanged(classifier: Classifier, copy: Path) -> None:
    manifest = classifier.manifest
    prepared = prepare(copy, recipes.recall(manifest.training["recipe"]))
    (point,) = classifier.points.values()
    y = prepared.y[prepared.splits.val]
    print(f"{manifest.name} {manifest.version}, {classifier.artifact}, {len(y)} validation images")
    print("| | AUC | sensitivity | specificity |\n| --- | --- | --- | --- |")
    seen = {"as they are": _probabilities(classifier, prepared, _as_is)}
    for what, pair in EXCHANGES.items():
        healthy, ill = (_probabilities(classifier, prepared, change) for change in pair)
        seen[f"{what} exchanged"] = np.where(y == 1, ill, healthy)
    for what, p in seen.items():
        called = p >= point.threshold
        print(
            f"| {what} | {roc_auc_score(y, p):.4f} | {called[y == 1].mean():.3f} | "
            f"{(~called[y == 0]).mean():.3f} |"
        )


def _print_originals(classifier: Classifier, data: Path) -> None:
    """Images of train, so only the differences of the lines say something."""
    (point,) = classifier.points.values()
    files = find_images(data / ORIGINALS)
    ill = np.array([each.parent.name == ILL for each in files])
    copies = [data / COPY / "train" / each.parent.name / each.name for each in files]
    originals = [classifier.predict(each).pixels for each in files]
    seen = {
        "originals": originals,
        f"originals, then a JPEG of quality {QUALITY}": [compressed(each) for each in originals],
        "their copies": [classifier.predict(each).pixels for each in copies],
    }
    print("| | ill called so | healthy called so | mean logit, ill | mean logit, healthy |")
    print("| --- | --- | --- | --- | --- |")
    decided = {}
    for what, pixels in seen.items():
        p = np.array([classifier.run(each[None])["probability"][0, 0] for each in pixels])
        called = decided[what] = p >= point.threshold
        print(
            f"| {what} | {called[ill].sum()} of {ill.sum()} | "
            f"{(~called[~ill]).sum()} of {(~ill).sum()} | {logit(p[ill]).mean():.2f} | "
            f"{logit(p[~ill]).mean():.2f} |"
        )
    same = decided["originals"] == decided["their copies"]
    print(f"{same.sum()} of {len(same)} originals are decided as their copies")


def _as_is(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels


def _probabilities(
    classifier: Classifier,
    prepared: Prepared,
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
) -> NDArray[np.float64]:
    pixels = prepared.cached.pixels
    return np.array(
        [
            float(classifier.run(change(pixels[row])[None])["probability"][0, 0])
            for row in prepared.splits.val
        ]
    )


if __name__ == "__main__":
    main()
