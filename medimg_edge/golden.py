"""The golden set: the bundle's own examples, answered again on this machine.

Pixels must be equal byte for byte; probabilities within the limits below. A bundle that does not
give the same answer here must not answer here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medimg_edge import engines
from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.device_profile import Setting
from medimg_edge.errors import GoldenMismatch, MedimgEdgeError
from medimg_edge.manifest import GoldenCase
from medimg_edge.operating_point import decide
from medimg_edge.preprocess import preprocess
from medimg_edge.reader import read_image

FLOAT32_LIMIT = 1e-4
INT8_WARNING = 0.02
"""An int8 kernel of another CPU rounds elsewhere: up to here without a word, up to
``INT8_LIMIT`` with a warning."""
INT8_LIMIT = 0.05
ENOUGH_CASES = 12
"""What an export writes; fewer say less, and verify says so."""
NEAR_THRESHOLD = 0.05
"""A decision may flip only where the expected probability lay this close to the threshold."""


@dataclass(frozen=True)
class Check:
    """The golden set through one artifact. ``difference`` is the largest |dp|."""

    artifact: str
    status: Literal["ok", "warning", "failed", "not run"]
    cases: int = 0
    difference: float | None = None
    message: str = ""


def verify(
    bundle: Bundle,
    progress: Callable[[str], None] | None = None,
    tuned: Setting | None = None,
) -> list[Check]:
    """Check everything that a bundle promises, on this machine.

    Every file is hashed; every golden input is decoded and preprocessed and must give the expected
    pixels; every artifact whose runtime is installed answers them, and so does what ``tune`` chose
    here. Raises FilesDiffer, or GoldenMismatch where pixels differ or no artifact can be run; an
    artifact that answers otherwise is a Check that ``failed``.
    """
    pixels = read_pixels(bundle)
    artifacts = bundle.manifest.artifacts
    checks = []
    for name in artifacts:
        if progress:
            progress(name)
        checks.append(_check(bundle, name, pixels))
    if tuned and tuned.runtime != engines.reference(artifacts[tuned.artifact].format):
        found = _check(bundle, tuned.artifact, pixels, tuned.runtime)
        checks.append(replace(found, artifact=f"{tuned.artifact} by {tuned.runtime}"))
    if all(check.status == "not run" for check in checks):
        raise GoldenMismatch(f"No artifact can be run on this machine: {checks[0].message}")
    return checks


def require(classifier: Classifier) -> Check:
    """Check what is loaded to answer, and nothing else of its bundle but the files' hashes.

    Raises FilesDiffer, GoldenMismatch.
    """
    bundle = classifier.bundle
    found = compare(bundle, classifier.artifact, read_pixels(bundle), classifier.run)
    if found.status == "failed":
        raise GoldenMismatch(
            f"{classifier.artifact} by {classifier.runtime} does not give the golden set's answers "
            f"here: {found.message}. Do not use the bundle on this machine; `medimg-edge verify` "
            "tells more."
        )
    return found


def read_pixels(bundle: Bundle) -> NDArray[np.uint8]:
    """The golden set's tensors, uint8 (N, H, W, C), as this machine makes them.

    Every file of the bundle is hashed first. Raises FilesDiffer, or GoldenMismatch where there is
    no golden set or one pixel differs.
    """
    bundle.check_contents()
    cases = bundle.manifest.golden
    if not cases:
        raise GoldenMismatch("The bundle has no golden set: nothing can be checked. Export anew.")
    return np.stack([_pixels(bundle, case) for case in cases])


def _pixels(bundle: Bundle, case: GoldenCase) -> NDArray[np.uint8]:
    spec = bundle.manifest.preprocessing
    encoded = bundle.read(case.input)
    expected = np.frombuffer(bundle.read(case.pixels), np.uint8)
    try:
        found = preprocess(read_image(encoded, needed=spec.needed), spec)
    except MedimgEdgeError as error:
        raise GoldenMismatch(f"{case.input} cannot be read here: {error}") from error
    if found.size != expected.size:
        raise GoldenMismatch(f"{case.pixels} has {expected.size} bytes, not {found.size}.")
    wrong = np.abs(found.reshape(-1).astype(int) - expected)
    if wrong.any():
        raise GoldenMismatch(
            f"{case.input} gives other pixels here: {np.count_nonzero(wrong)} of {wrong.size} "
            f"differ, by up to {wrong.max()} of 255. This machine's decoder or resizing is not the "
            "one that the model was trained with; do not use the bundle here."
        )
    return found


def _check(
    bundle: Bundle, name: str, pixels: NDArray[np.uint8], runtime: str | None = None
) -> Check:
    if not engines.installed(bundle.manifest.artifacts[name].format):
        return Check(name, "not run", message="LiteRT is not installed: medimg-edge[litert]")
    try:
        classifier = Classifier(bundle, artifact=name, profile=None, runtime=runtime)
    except MedimgEdgeError as error:
        return Check(name, "failed", len(pixels), message=error.message)
    return compare(bundle, name, pixels, classifier.run)


def compare(
    bundle: Bundle,
    name: str,
    pixels: NDArray[np.uint8],
    run: Callable[[NDArray[np.uint8]], engines.Outputs],
) -> Check:
    """Whether ``run`` gives an artifact's golden answers, image by image.

    pixels: as ``read_pixels`` returned them.
    """
    artifact = bundle.manifest.artifacts[name]
    try:
        found = [run(each[None])["probability"][0] for each in pixels]
    except MedimgEdgeError as error:
        return Check(name, "failed", len(pixels), message=error.message)
    expected = [np.array(case.probability.get(name, ())) for case in bundle.manifest.golden]
    if any(got.shape != wanted.shape for got, wanted in zip(found, expected, strict=True)):
        return Check(name, "failed", message="the golden set does not fit this artifact's outputs")
    worst = float(np.abs(np.stack(found) - np.stack(expected)).max())
    limit = FLOAT32_LIMIT if artifact.precision == "float32" else INT8_LIMIT
    flipped = _flipped(bundle, name, found, expected)
    if not worst <= limit:  # NaN is not
        message = f"max |dp| is {worst:.2g}, more than {limit:g}"
        return Check(name, "failed", len(pixels), worst, message)
    if flipped:
        message = f"{flipped} gets another decision here"
        return Check(name, "failed", len(pixels), worst, message)
    if artifact.precision == "int8" and worst > INT8_WARNING:
        message = f"max |dp| is more than {INT8_WARNING:g}: this CPU rounds int8 otherwise"
        return Check(name, "warning", len(pixels), worst, message)
    return Check(name, "ok", len(pixels), worst)


def _flipped(
    bundle: Bundle,
    name: str,
    found: list[NDArray[np.float32]],
    expected: list[NDArray[np.float64]],
) -> str | None:
    """The first golden input whose decision changed and was not a close call."""
    points = bundle.manifest.decision[name]
    for case, got, wanted in zip(bundle.manifest.golden, found, expected, strict=True):
        if bundle.manifest.task == "multiclass":
            best, second = np.sort(wanted)[::-1][:2]
            if got.argmax() != wanted.argmax() and best - second > NEAR_THRESHOLD:
                return case.input
            continue
        for label, p, q in zip(bundle.manifest.findings, got, wanted, strict=True):
            point = points[label]
            edges = (point.threshold, *(point.refer or ()))
            close = any(abs(q - edge) <= NEAR_THRESHOLD for edge in edges)
            if decide(float(p), point) != decide(float(q), point) and not close:
                return case.input
    return None
