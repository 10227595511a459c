"""How hard the phantoms are: logistic regression on 32x32 pixels, and where an opacity lies.

Run: python benchmarks/phantom_difficulty.py [--train 800] [--test 400] [--seeds 3] [--size 128]

A set is worth training a network on only if a linear model fails on it. For every seed and train
size the script prints the AUC of logistic regression with the penalty that does best on the test
images themselves, which flatters the linear model; pixels as they are, and standardised per image.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from medimg_export.phantoms import chest

SIDE = 32
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def thumbnails(first: int, count: int, size: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Pixels (count, 1024) in [0, 1] and labels (count,), every second phantom positive."""
    rows = np.empty((count, SIDE * SIDE))
    for index in range(count):
        pixels = chest(first + index, index % 2 == 1, size).pixels
        rows[index] = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel() / 65535
    return rows, np.arange(count) % 2 == 1


def standardised(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every image with mean 0 and deviation 1: takes exposure and contrast out."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    return centred / (centred.std(axis=1, keepdims=True) + 1e-9)


def best_auc(
    train: tuple[NDArray[np.float64], NDArray[np.bool_]],
    test: tuple[NDArray[np.float64], NDArray[np.bool_]],
) -> float:
    """AUC on ``test`` at the penalty that is best there."""
    aucs = []
    for penalty in PENALTIES:
        model = LogisticRegression(C=penalty, max_iter=1000).fit(*train)
        aucs.append(roc_auc_score(test[1], model.decision_function(test[0])))
    return float(max(aucs))


def shares(first: int, count: int, size: int) -> NDArray[np.float64]:
    """(count,): the share of the picture that the opacities of one positive cover."""
    return np.array([(chest(first + i, True, size).mask > 0).mean() for i in range(count)])


def main() -> None:
    """Print one line per seed and train size."""
    parser = argparse.ArgumentParser(description="How hard the phantoms are.")
    parser.add_argument("--train", type=int, nargs="+", default=[200, 800])
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    largest = max(options.train)
    print("seed  train  test  AUC pixels  AUC standardised  ms per phantom")
    for seed in range(options.seeds):
        start = time.perf_counter()
        first = seed * 1_000_000
        rows, labels = thumbnails(first, largest + options.test, options.size)
        each = (time.perf_counter() - start) / len(rows) * 1000
        for train in options.train:
            aucs = [
                best_auc((x[:train], labels[:train]), (x[largest:], labels[largest:]))
                for x in (rows, standardised(rows))
            ]
            print(
                f"{seed:4}  {train:5}  {options.test:4}  {aucs[0]:10.3f}  {aucs[1]:16.3f}"
                f"  {each:14.1f}"
            )
    low, middle, high = np.percentile(shares(0, 100, options.size), [5, 50, 95])
    print(f"opacities cover {low:.1%} / {middle:.1%} / {high:.1%} of the picture (5, 50, 95 %)")


if __name__ == "__main__":
    main()
