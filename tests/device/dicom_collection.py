"""Real DICOM files: those that pydicom's wheel brings, and those in the folder of real images."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from medimg_edge.image import Image

POINTS = Path(__file__).parent.parent / "data" / "dicom-points.csv"


def rows() -> list[dict[str, str]]:
    """What each readable file shows at three points; see ``test_dicom_files``."""
    with POINTS.open(newline="") as file:
        return list(csv.DictReader(file))


def marks(name: str) -> tuple:
    """A file in a folder is not the wheel's."""
    if "/" not in name:
        return ()
    skip = pytest.mark.skipif(
        "MEDIMG_EDGE_DATA" not in os.environ, reason="MEDIMG_EDGE_DATA is unset"
    )
    return pytest.mark.data, skip


def path(name: str) -> Path:
    """Of a file by its name in the table."""
    if "/" in name:
        return Path(os.environ["MEDIMG_EDGE_DATA"], "dicom", name)
    found = get_testdata_file(name, download=False)
    if found is None:
        pytest.skip(f"this pydicom does not bring {name}")
    return Path(str(found))


def displayed(image: Image) -> np.ndarray:
    """What a display shows: float32 (H, W, C) in [0, 255]."""
    grey = image.voi.grey(image.frames[0])
    return 255 - grey if image.inverted else grey


def shown(image: Image) -> np.ndarray:
    """The same in 256 levels: uint8 (H, W, C)."""
    return np.rint(displayed(image)).astype(np.uint8)
