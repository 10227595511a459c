"""Sites whose images are known: radiograph-like noise of a brightness, and what was seen of it."""

from __future__ import annotations

import json
import random
import statistics
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from medimg_edge.drift_records import Seen
from medimg_edge.manifest import Histogram, Reference
from medimg_edge.record import Finding, Model

LABEL = "opacity"
ARTIFACT = "model.onnx"
HASH = "ab" * 32


def site(
    rng: random.Random,
    count: int,
    *,
    darker: float = 0.0,
    ill: float = 0.3,
    rejected: float = 0.05,
    code: str = "not-like-training",
    time: str | None = None,
) -> list[Seen]:
    """What a model saw of so many images. darker: in standard deviations of the brightness."""
    return [_image(rng, darker, ill, rejected, code, time) for _ in range(count)]


def reference(images: Sequence[Seen]) -> Reference:
    """What an export would keep of them: ten bins of equal counts."""
    numbers: dict[str, list[float]] = {}
    for each in images:
        for name, value in each.measured.items():
            if value is not None:
                numbers.setdefault(name, []).append(value)
        for finding in each.findings:
            numbers.setdefault(f"probability of {finding.label}", []).append(finding.probability)
    findings = [finding for each in images for finding in each.findings]
    return Reference(
        images=len(images),
        numbers={name: histogram(values) for name, values in numbers.items()},
        decisions={
            label: dict(Counter(each.decision for each in findings if each.label == label))
            for label in {each.label for each in findings}
        },
        codes=dict(Counter(each.code for each in images if each.code is not None)),
    )


def histogram(values: Iterable[float]) -> Histogram:
    values = sorted(values)
    inner = sorted(round(each, 9) for each in statistics.quantiles(values, n=10))
    edges = (min(values[0], inner[0]), *inner, max(values[-1], inner[-1]))
    counts = [0] * 10
    for value in values:
        counts[min(max(bisect_right(edges, value) - 1, 0), 9)] += 1
    return Histogram(edges, tuple(counts))


def put_reference(folder: Path, artifact: str, found: Reference) -> None:
    """Into a bundle's manifest, whose hash it changes."""
    path = folder / "manifest.json"
    raw: dict[str, Any] = json.loads(path.read_bytes())
    raw["reference"] = {artifact: msgspec.to_builtins(found)}
    path.write_text(json.dumps(raw))


def write_images(folder: Path, count: int, brightness: float, seed: int) -> Path:
    """Blurred noise, whose mean grey level is spread about ``brightness``."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(count):
        (folder / f"{number:03}.png").write_bytes(encoded(rng, brightness))
    return folder


def encoded(rng: np.random.Generator, brightness: float) -> bytes:
    noise = cv2.GaussianBlur(rng.normal(0, 200, (64, 64)), (0, 0), 3)
    values = noise + brightness + rng.normal(0, 12)
    return cv2.imencode(".png", np.clip(values, 0, 255).astype(np.uint8))[1].tobytes()


def _image(
    rng: random.Random, darker: float, ill: float, rejected: float, code: str, time: str | None
) -> Seen:
    p = rng.betavariate(6, 2) if rng.random() < ill else rng.betavariate(1.3, 7)
    measured: dict[str, float | None] = {
        "brightness": rng.gauss(120 - 13 * darker, 13),
        "contrast": rng.gauss(52, 6),
        "sharpness": rng.gauss(6, 1.1),
        "novelty": rng.gammavariate(9, 0.06),
    }
    if rng.random() < rejected:
        return Seen(status="rejected", code=code, time=time, measured=measured)
    decision = "positive" if p > 0.6 else "refer" if p > 0.4 else "negative"
    return Seen(
        status="ok",
        time=time,
        model=Model("phantom", "1", HASH),
        artifact=ARTIFACT,
        findings=(Finding(LABEL, p, decision),),
        measured=measured,
    )
