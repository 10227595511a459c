"""medimg-edge on the device: the same answer as in training, or one line why not.

    from medimg_edge import Classifier
    print(Classifier("bundle").predict("chest.png").probability)

Everything is imported when it is first used, so that ``medimg-edge --help`` stays quick.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medimg_edge.bundle import Bundle
    from medimg_edge.classifier import Classifier, Prediction
    from medimg_edge.errors import MedimgEdgeError
    from medimg_edge.heatmap import overlay
    from medimg_edge.reader import read_image

__version__ = "0.1.0"

# OpenCV reads this when it is imported: a second line of defence behind limits.MAX_PIXELS.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**26))
# ONNX Runtime reports its use to its maker otherwise: in a clinic nothing may leave.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

_HOMES = {
    "Bundle": "bundle",
    "Classifier": "classifier",
    "MedimgEdgeError": "errors",
    "Prediction": "classifier",
    "overlay": "heatmap",
    "read_image": "reader",
}

__all__ = ["Bundle", "Classifier", "MedimgEdgeError", "Prediction", "overlay", "read_image"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medimg_edge' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"medimg_edge.{_HOMES[name]}"), name)
