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
def map_query(context, query):
    """These images have one frame."""
    frame = query.get("frame") if query else None
    return query | {"frame": 1} if isinstance(frame, int) and frame > 1 else query
