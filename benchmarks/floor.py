"""The floor: what a good engineer writes by hand for one model, and nothing that it does not need.

Run: python benchmarks/floor.py MODEL.onnx IMAGE...

Reads, resizes, runs, prints the path and the probability. No check of the file, the model or the
answer; no Exif, no window but the whole range, no polarity. `device.py` compares with it.
"""

from __future__ import annotations

import sys
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray


def load(model: str, threads: int = 1) -> onnxruntime.InferenceSession:
    """One thread and no spinning is the fastest start, and the fastest loop on small models."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def read(path: str, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """A file -> uint8 (H, W, C)."""
    if path.endswith(".dcm"):
        import pydicom

        stored = pydicom.dcmread(path)
        values = cv2.convertScaleAbs(stored.pixel_array, alpha=255 / (2**stored.BitsStored - 1))
        if channels == 3:
            values = cv2.cvtColor(values, cv2.COLOR_GRAY2BGR)
    else:
        values: Any = cv2.imread(
            path, cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
        )
    pixels = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
    return pixels.reshape(height, width, channels)


def main() -> None:
    """Answer every image."""
    session = load(sys.argv[1])
    _, height, width, channels = session.get_inputs()[0].shape
    for path in sys.argv[2:]:
        pixels = read(path, height, width, channels)
        found: Any = session.run(["probability"], {"pixels": pixels[None]})
        print(path, found[0][0])


if __name__ == "__main__":
    main()
