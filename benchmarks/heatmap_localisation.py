"""Does the heatmap point at the opacity? Phantoms that no training saw, through a bundle's default.

    python benchmarks/heatmap_localisation.py BUNDLE [--count 200] [--seed 100000]

A hit: the centre of the heatmap's strongest cell lies in the mask of the opacities, dilated by one
cell. The share of the image that the dilated mask covers is what a random cell would hit.
Prints a Markdown table; exits 1 below 80 % or below three times the covered share.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from medimg_edge.classifier import Classifier
from medimg_export.phantom_chest import chest

HITS, TIMES_RANDOM = 0.80, 3.0
FIRST_SEED = 100_000
"""Far from the seeds that `medimg-edge demo` and `data phantom` begin with."""


@dataclass(frozen=True)
class Localisation:
    """positives: phantoms with opacities. found: those decided positive. hits: of these."""

    positives: int
    found: int
    hits: int
    covered: float
    grid: tuple[int, int]

    @property
    def hit_share(self) -> float:
        """Of the true positives."""
        return self.hits / max(1, self.found)

    @property
    def passes(self) -> bool:
        """Whether it points at the opacity, and not by chance."""
        return self.hit_share >= max(HITS, TIMES_RANDOM * self.covered)


def measure(classifier: Classifier, count: int, first_seed: int = FIRST_SEED) -> Localisation:
    """Answer ``count`` phantoms with opacities, of 256 pixels."""
    hits, covered, grid = [], [], (0, 0)
    for seed in range(first_seed, first_seed + count):
        phantom = chest(seed, positive=True, size=256)
        found = classifier.predict(phantom.pixels)
        assert found.heatmap is not None
        grid = found.heatmap.shape[:2]
        if found.decision != "positive":
            continue
        dilated = dilate_by_cell(phantom.mask, grid)
        row, column = np.unravel_index(found.heatmap[..., 0].argmax(), grid)
        at = [
            int((cell + 0.5) * side / cells)
            for cell, side, cells in zip((row, column), dilated.shape, grid, strict=True)
        ]
        hits.append(bool(dilated[at[0], at[1]]))
        covered.append(float((dilated > 0).mean()))
    return Localisation(count, len(hits), sum(hits), float(np.mean(covered)), grid)


def dilate_by_cell(mask: NDArray[np.uint8], grid: tuple[int, ...]) -> NDArray[np.uint8]:
    """Widen a mask by the height and width of one cell on every side."""
    rows, columns = (round(side / cells) for side, cells in zip(mask.shape, grid, strict=True))
    widened = cv2.dilate(mask, np.ones((2 * rows + 1, 2 * columns + 1), np.uint8))
    return np.asarray(widened, np.uint8)


def main() -> int:
    """Print the table; 1 where a limit is missed."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--count", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=FIRST_SEED)
    chosen = arguments.parse_args()
    classifier = Classifier(chosen.bundle, profile=None)
    found = measure(classifier, chosen.count, chosen.seed)
    print(
        "| artifact | grid | positives | found | maximum in the mask | mask covers | times chance |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print(
        f"| {classifier.artifact} | {found.grid[0]}x{found.grid[1]} | {found.positives} "
        f"| {found.found} | {found.hit_share:.1%} | {found.covered:.1%} "
        f"| {found.hit_share / found.covered:.1f} |"
    )
    return 0 if found.passes else 1


if __name__ == "__main__":
    sys.exit(main())
