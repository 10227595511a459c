"""What schemathesis sends as an image: one. A schema says "binary", and cannot say more."""

import cv2
import numpy as np
import schemathesis
from hypothesis import strategies as st

_SIDE = 32


def _encoded(suffix: str) -> st.SearchStrategy[bytes]:
    def encode(seed: int) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (_SIDE, _SIDE), np.uint8)
        return cv2.imencode(suffix, pixels)[1].tobytes()

    return st.integers(0, 2**32 - 1).map(encode)


for _type, _suffix in {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/tiff": ".tif",
    "application/dicom": ".png",
    "application/octet-stream": ".png",
}.items():
    schemathesis.openapi.media_type(_type, _encoded(_suffix))


@schemathesis.hook
def before_call(context, case, kwargs):
    """These images have one frame."""
    frame = str((case.query or {}).get("frame"))
    if frame.isdecimal() and 1 < int(frame) <= 10_000:
        case.query["frame"] = 1
