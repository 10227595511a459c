"""A bundle of a few hundred bytes, whose model is none: archives and manifests are not asked."""

from __future__ import annotations

import hashlib
from pathlib import Path

from medimg_edge import manifest as m


def small_bundle(folder: Path) -> Path:
    """Write it into a new folder."""
    (folder / "golden").mkdir(parents=True)
    (folder / "signatures").mkdir()
    files = {
        "model.onnx": b"no model" * 8,
        "golden/01.png": b"no image" * 200,
        "CARD.md": b"# Card\n",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "signatures" / "clinic.sig").write_bytes(b"-----BEGIN SSH SIGNATURE-----\n")
    entries = {
        name: m.FileEntry(len(data), hashlib.sha256(data).hexdigest())
        for name, data in files.items()
    }
    model = entries.pop("model.onnx")
    manifest = m.Manifest(
        name="small",
        version="1.0",
        task="binary",
        labels=("normal", "other"),
        intended_use="tests",
        input=m.Input(shape=(8, 8, 1)),
        preprocessing=m.Preprocessing(8, 8),
        outputs={"probability": m.Output((None, 1), "probability")},
        decision={"model.onnx": {"other": m.OperatingPoint(threshold=0.5, rule="stated")}},
        default_artifact="model.onnx",
        artifacts={"model.onnx": m.Artifact(model.bytes, model.sha256, "onnx", "float32")},
        files=entries,
    )
    (folder / "manifest.json").write_bytes(m.encode(manifest))
    return folder
