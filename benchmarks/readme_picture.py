"""The picture in the README: a synthetic radiograph beside what the network found in it.

python benchmarks/readme_picture.py BUNDLE docs/answer.jpg [--seed 100021]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from medimg_edge.classifier import Classifier
from medimg_edge.heatmap import SIDE, overlay
from medimg_export.phantom_chest import chest


def main() -> None:
    """Write the picture."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--seed", type=int, default=100_021)
    chosen = arguments.parse_args()
    phantom = chest(chosen.seed, positive=True, size=SIDE)
    found = Classifier(chosen.bundle, profile=None).predict(phantom.pixels)
    assert found.heatmap is not None
    radiograph = np.repeat((phantom.pixels >> 8).astype(np.uint8)[..., None], 3, axis=2)
    evidence = overlay(radiograph, found.heatmap[..., 0])
    gap = np.full((SIDE, 12, 3), 255, np.uint8)
    picture = np.hstack([radiograph, gap, evidence])
    cv2.imwrite(str(chosen.out), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    print(f"{found.label} p = {found.probability:.3f}, {found.decision}")


if __name__ == "__main__":
    main()
