"""What each change of the training is worth, on a part of train that is kept out to choose by.

Run: python benchmarks/ablation.py DATA --out FOLDER [--size 128] VARIANT[:SEED]...

DATA is the folder of the Kermany set; its official test images are not read. The dev fold is 15 %
of train's patients, by a hash of the patient, so that it is the same for every seed. "changed" is
the dev fold as another clinic's machine might show it, by four changes that no augmentation makes:
half the resolution, local contrast equalisation, a tighter crop, a fall of light to the sides. It
is there because dev is drawn like train, and the official test set is not. Decisions are taken at
two operating points of validation: Youden's, and the one that reaches a sensitivity of .95. The
baseline is the recipe as it stands: it has changed since the first rows, which name their commits.

Every run appends one line to FOLDER/ablation.csv; one that is there is not run again. About ten
minutes each at 128 pixels on two cores.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import time
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import table
from numpy.typing import NDArray

from medimg_edge.operating_point import operating_point
from medimg_export import recipe as recipes
from medimg_export.calibration import ece, fit_temperature
from medimg_export.class_folders import list_class_folders
from medimg_export.metrics import auc
from medimg_export.prepared import Prepared, prepare
from medimg_export.train import logits_of, predict, probabilities, train

RECIPE = "pneumonia-cxr"
VARIANTS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "aspect": {"training": {"augmentation": {"aspect": 0.5}}},
    "coarse": {"training": {"augmentation": {"coarse": 0.7}}},
    "sharpness": {"training": {"augmentation": {"sharpness": 1.5}}},
    "framing": {
        "training": {"epochs": 8, "patience": 8, "augmentation": {"aspect": 0.5, "zoom": 0.3}}
    },
    "framing and exposure": {
        "training": {
            "epochs": 8,
            "patience": 8,
            "augmentation": {
                "aspect": 0.5,
                "zoom": 0.3,
                "contrast": 0.4,
                "brightness": 0.2,
                "gamma": 0.5,
            },
        }
    },
    "longer": {"training": {"epochs": 8, "patience": 8}},
    "slow": {"training": {"learning_rate": 1e-4}},
    "sampling": {"training": {"balance": "sampling"}},
    "no weights": {"training": {"balance": "none"}},
}
DEV_PERCENT = 15


def main() -> None:
    """Run the variants that the table does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("variants", nargs="+", help=", ".join(VARIANTS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    listing = _write_listing(arguments.data, arguments.out / "dev" / "listing.csv")
    path = arguments.out / "ablation.csv"
    for each in arguments.variants:
        name, _, seed = each.partition(":")
        done = {(row["variant"], row["size"], row["seed"]) for row in table.stored(path)}
        if (name, str(arguments.size), seed or "0") not in done:
            row = _measure(listing, arguments.out, name, arguments.size, int(seed or 0))
            table.append(path, [row])
            print(row, flush=True)


def _write_listing(data: Path, path: Path) -> Path:
    """A CSV of the training images; the split "test" is the dev fold."""
    pattern = re.compile(str(recipes.load(RECIPE).data.group_pattern))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        for row in list_class_folders(data).rows:
            if row.split == "test":
                continue
            assert isinstance(row.source, Path)
            found = pattern.search(row.source.name)
            group = found[0] if found else row.name
            dev = int(hashlib.sha256(group.encode()).hexdigest(), 16) % 100 < DEV_PERCENT
            split = "test" if dev else ""
            writer.writerow((row.source.resolve(), row.labels[0], split))
    return path


def _measure(listing: Path, out: Path, name: str, size: int, seed: int) -> dict[str, Any]:
    began = time.perf_counter()
    recipe = recipes.load(RECIPE)
    recipe = recipes.override(recipe, pixels={"size": size}, training={"seed": seed})
    recipe = recipes.override(recipe, **VARIANTS[name])
    prepared = prepare(listing, recipe)
    folder = out / f"{name}-{size}-{seed}"
    folder.mkdir(exist_ok=True)
    trained = train(prepared, folder, resume=True, report=lambda row: print(name, row, flush=True))
    val, dev = prepared.splits.val, prepared.splits.test
    logits = logits_of(trained.model, prepared, val)
    temperature = fit_temperature("binary", logits, prepared.y[val])
    p = probabilities("binary", logits, temperature)[:, 0]
    points = {
        "": operating_point(prepared.y[val], p).threshold,
        "_at95": operating_point(prepared.y[val], p, sensitivity=0.95).threshold,
    }
    row = {
        "variant": name,
        "size": size,
        "seed": seed,
        "commit": table.commit(),
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "val_auc": round(auc("binary", prepared.y[val], p), 5),
    }
    seen = {"dev": lambda each: each} | CHANGES
    scores = {
        what: _scored(trained.model, prepared, dev, change, temperature)
        for what, change in seen.items()
    }
    y = prepared.y[dev]
    for each in (_wider, _narrower, _softer, _sharper):
        scores[each.__name__[1:]] = _scored(trained.model, prepared, dev, each, temperature)
    np.savez(folder / "scores.npz", y=y, val_y=prepared.y[val], val_p=p, **scores)  # pyright: ignore[reportArgumentType]
    trained.model.save(folder / "model.keras")
    row |= _figures("dev", y, scores["dev"], points)
    changed = np.concatenate([scores[what] for what in CHANGES])
    row |= _figures("changed", np.tile(y, len(CHANGES)), changed, points)
    row |= _figures("aspect", y, np.where(y == 1, scores["narrower"], scores["wider"]), points)
    row |= _figures("detail", y, np.where(y == 1, scores["sharper"], scores["softer"]), points)
    return row


def _scored(
    model: keras.Model, prepared: Prepared, rows: NDArray, change: Any, temperature: float
) -> NDArray[np.float64]:
    pixels = np.stack([change(prepared.cached.pixels[row]) for row in rows])
    every = np.concatenate(list(predict(model, pixels, np.arange(len(pixels)))))
    return probabilities("binary", every, temperature)[:, 0]


def _figures(what: str, y: NDArray, p: NDArray, points: dict[str, float]) -> dict[str, float]:
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    loss = -np.where(y == 1, np.log(clipped), np.log(1 - clipped))
    row = {
        f"{what}_auc": round(auc("binary", y, p), 5),
        f"{what}_loss": round(float((loss[y == 1].mean() + loss[y == 0].mean()) / 2), 5),
        f"{what}_ece": round(ece(p, y), 4),
    }
    for where, threshold in points.items():
        called = p >= threshold
        row[f"{what}_sensitivity{where}"] = round(float(called[y == 1].mean()), 4)
        row[f"{what}_specificity{where}"] = round(float((~called[y == 0]).mean()), 4)
    return row


def _half_resolution(pixels: NDArray) -> NDArray:
    height, width = pixels.shape[:2]
    small = cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height)).reshape(pixels.shape)


def _equalised(pixels: NDArray) -> NDArray:
    return cv2.createCLAHE(2.0, (8, 8)).apply(pixels[..., 0])[..., None]


def _cropped(pixels: NDArray) -> NDArray:
    height, width = pixels.shape[:2]
    top, left = height // 12, width // 12
    inner = pixels[top : height - top, left : width - left]
    return cv2.resize(inner, (width, height)).reshape(pixels.shape)


def _wider(pixels: NDArray) -> NDArray:
    """As a film that was wider against its height, stretched to the same square."""
    height, width = pixels.shape[:2]
    cut = height // 10
    inner = pixels[cut : height - cut]
    return cv2.resize(inner, (width, height)).reshape(pixels.shape)


def _narrower(pixels: NDArray) -> NDArray:
    height, width = pixels.shape[:2]
    cut = width // 10
    inner = np.ascontiguousarray(pixels[:, cut : width - cut])
    return cv2.resize(inner, (width, height)).reshape(pixels.shape)


def _softer(pixels: NDArray) -> NDArray:
    return _detail(pixels, 1 / 1.5)


def _sharper(pixels: NDArray) -> NDArray:
    return _detail(pixels, 1.5)


def _detail(pixels: NDArray, gain: float) -> NDArray:
    blurred = cv2.GaussianBlur(pixels, (0, 0), 0.007 * len(pixels))
    return cv2.addWeighted(pixels, gain, blurred, 1 - gain, 0).reshape(pixels.shape)


def _darker_sides(pixels: NDArray) -> NDArray:
    height, width = pixels.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.rint(pixels * (1 - 0.35 * np.hypot(x, y)[..., None] ** 2)).clip(0).astype(np.uint8)


CHANGES = {
    "half resolution": _half_resolution,
    "equalised": _equalised,
    "cropped": _cropped,
    "darker sides": _darker_sides,
}


if __name__ == "__main__":
    main()
