"""What each change of the training is worth, on a part of train that is kept out to choose by.

Run: python benchmarks/ablation.py DATA --out FOLDER [--size 128] VARIANT[:SEED]...

DATA is the folder of the Kermany set; its official test images are not read. The dev fold is 15 %
of train's patients, by a hash of the patient, so that it is the same for every seed. It is drawn
like train, and the official test set is not; so it is seen in other ways too:

    changed   as another clinic's machine might show it, by four changes, all together: half the
              resolution, local contrast equalisation, a fall of light to the sides, a tighter crop;
              the recipe's zoom makes the last one too, no augmentation the others
    shapes    with the classes' shapes exchanged: healthy children's films made wider, ill ones'
              narrower, by a quarter, which is how far apart the two lie (shortcuts.py). A network
              that was trained with such shapes is expected to bear this
    sharpness with the classes' sharpness exchanged, which no augmentation does
    files     with traces of JPEG on healthy children's films, and fewer on ill ones'

Decisions are taken at three operating points of validation: Youden's, the one that reaches a
sensitivity of .95, and Youden's on validation images as they are and under three draws of the
recipe's augmentation. Every variant changes the recipe as it stands, which has changed since the
first rows: a row names its commit. It is one line in FOLDER/ablation.csv, and one that is there is
not run again: name a new FOLDER for another commit. Four to fifteen minutes each at 128 pixels.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import re
import time
from pathlib import Path
from typing import Any

import cv2
import keras
import msgspec
import numpy as np
import table
from numpy.typing import NDArray
from shortcuts import EXCHANGES, cropped

from medimg_edge.operating_point import operating_point
from medimg_export import recipe as recipes
from medimg_export.calibration import ece, fit_temperature
from medimg_export.class_folders import list_class_folders
from medimg_export.metrics import auc
from medimg_export.prepared import Prepared, prepare
from medimg_export.train import logits_of, predict, probabilities, train, with_draws

RECIPE = "pneumonia-cxr"
AS_COPIED = {"blur": 0.0, "noise": 0.0, "jpeg": False}
AS_FILMED = AS_COPIED | {"aspect": 0.0, "zoom": 0.1}
AS_BEFORE = {"epochs": 4, "patience": 3, "validation_draws": 0, "augmentation": AS_FILMED}
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "as copied": {"training": {"augmentation": AS_COPIED}},
    "as filmed": {"training": {"augmentation": AS_FILMED}},
    "as filmed, 4 epochs": {"training": AS_BEFORE},
}
DRAWS = 3
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
    of_recipe = msgspec.to_builtins(recipes.load(RECIPE).training.augmentation)
    drawing = {"validation_draws": DRAWS, "augmentation": of_recipe}
    drawn = dataclasses.replace(
        prepared, recipe=recipes.override(prepared.recipe, training=drawing)
    )
    y, logits = prepared.y[val], logits_of(trained.model, prepared, val)
    seen_y, seen_logits = with_draws(drawn, trained.model, logits)
    temperature = fit_temperature("binary", logits, y)
    p = probabilities("binary", logits, temperature)[:, 0]
    seen_p = probabilities("binary", seen_logits, temperature)[:, 0]
    points = {
        "youden": operating_point(y, p).threshold,
        "at95": operating_point(y, p, sensitivity=0.95).threshold,
        "drawn": operating_point(seen_y, seen_p).threshold,
    }
    row = {
        "variant": name,
        "size": size,
        "seed": seed,
        "commit": table.commit(),
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "val_auc": round(auc("binary", y, p), 5),
    }
    seen = {"dev": lambda each: each} | CHANGES | EXCHANGED
    scores = {
        what: _scored(trained.model, prepared, dev, change, temperature)
        for what, change in seen.items()
    }
    y = prepared.y[dev]
    row |= _figures("dev", y, scores["dev"], points)
    changed = np.concatenate([scores[what] for what in CHANGES])
    row |= _figures("changed", np.tile(y, len(CHANGES)), changed, points)
    for what, (healthy, ill) in EXCHANGES.items():
        of = np.where(y == 1, scores[ill.__name__], scores[healthy.__name__])
        row |= _figures(what, y, of, points)
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
        row[f"{what}_sensitivity_{where}"] = round(float(called[y == 1].mean()), 4)
        row[f"{what}_specificity_{where}"] = round(float((~called[y == 0]).mean()), 4)
    return row


def _half_resolution(pixels: NDArray) -> NDArray:
    height, width = pixels.shape[:2]
    small = cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height)).reshape(pixels.shape)


def _equalised(pixels: NDArray) -> NDArray:
    return cv2.createCLAHE(2.0, (8, 8)).apply(pixels[..., 0])[..., None]


def _darker_sides(pixels: NDArray) -> NDArray:
    height, width = pixels.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.rint(pixels * (1 - 0.35 * np.hypot(x, y)[..., None] ** 2)).clip(0).astype(np.uint8)


CHANGES = {
    "half resolution": _half_resolution,
    "equalised": _equalised,
    "cropped": lambda pixels: cropped(pixels, 1 / 12, 1 / 12),
    "darker sides": _darker_sides,
}
EXCHANGED = {change.__name__: change for pair in EXCHANGES.values() for change in pair}


if __name__ == "__main__":
    main()
