"""Where a cold `infer` of one image spends its time and memory, stage by stage.

Run: python benchmarks/stages.py BUNDLE IMAGE $(python -c 'import time; print(time.monotonic())').
Prints a line of JSON for each stage: its name, the milliseconds it took and the megabytes that the
process held after it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

_started = float(sys.argv[3])


def done(stage: str) -> None:
    """Print a stage and begin the next."""
    global _started
    took = time.monotonic() - _started
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    held = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    print(json.dumps([stage, round(took * 1000, 2), round(held, 1)]))
    _started = time.monotonic()


def main() -> None:
    """Go through what ``infer`` does, in its order."""
    bundle, image = sys.argv[1:3]
    done("start Python")
    import typer.main

    done("import typer")
    from medimg_edge.cli.application import app

    typer.main.get_command(app).commands["infer"]  # pyright: ignore[reportAttributeAccessIssue]
    done("the commands")
    import numpy  # noqa: F401

    done("import numpy")
    import cv2  # noqa: F401

    done("import cv2")
    import onnxruntime  # noqa: F401

    done("import onnxruntime")
    from medimg_edge.bundle import Bundle
    from medimg_edge.classifier import Classifier
    from medimg_edge.cli import answers  # noqa: F401
    from medimg_edge.record import encode

    done("import msgspec, simplejpeg, medimg_edge")
    opened = Bundle.open(bundle)
    done("open the bundle")
    classifier = Classifier(opened, profile=None)
    done("read, hash and load the model")
    encode(classifier.predict(image).record)
    done("decode, preprocess, answer")


if __name__ == "__main__":
    main()
