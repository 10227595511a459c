"""A golden set for a bundle that a test has made: what it answers here is what is expected."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from medimg_edge import Classifier
from tests.device.kiosk_images import png


def with_golden_set(folder: Path, image: bytes | None = None) -> Path:
    """The bundle, with one image that `serve` checks before it answers; by default noise."""
    image = image or png()
    found = Classifier(folder).predict(image, name="golden")
    (folder / "golden").mkdir()
    files = {"golden/01.png": image, "golden/01.pixels": found.pixels.tobytes()}
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for name, data in files.items():
        (folder / name).write_bytes(data)
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    probabilities = [each.probability for each in found.findings]
    manifest["golden"] = [
        {
            "input": "golden/01.png",
            "pixels": "golden/01.pixels",
            "probability": dict.fromkeys(manifest["artifacts"], probabilities),
        }
    ]
    path.write_text(json.dumps(manifest))
    return folder
