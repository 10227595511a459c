"""What answers: a loaded classifier, the views of what it saw, and their pictures.

Only the process that answers imports it, for it loads native libraries.
"""

from __future__ import annotations

import gc
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from medimg_edge import device_profile, engines, golden, heatmap, record
from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier, Prediction
from medimg_edge.engines import Outputs
from medimg_edge.errors import AnswerStopped, MedimgEdgeError, Rejected, Unexpected
from medimg_edge.image import Image
from medimg_edge.kiosk import confinement
from medimg_edge.kiosk.messages import (
    STEP_SECONDS,
    Answer,
    Ask,
    AskAnswer,
    AskPicture,
    Facts,
    Golden,
    Picture,
    Ready,
    Setup,
    Told,
)
from medimg_edge.kiosk.shortage import is_of_memory
from medimg_edge.kiosk.start import Start
from medimg_edge.kiosk.view import SIDE, View
from medimg_edge.reader import read_image
from medimg_edge.trust import Standing

Parts = Sequence[bytes | memoryview]

_DECODERS = ("gdcm", "pylibjpeg")


class _Loaded(Classifier):
    """Its runs are steps of the start until it has given the golden set's answers."""

    is_starting = True

    def run(self, pixels: NDArray[np.uint8]) -> Outputs:
        """As ``Classifier.run``."""
        if self.is_starting:
            confinement.step(STEP_SECONDS)
        return super().run(pixels)


class Answering:
    """A loaded classifier that has given the golden set's answers. Construction raises our errors.

    A model that takes too long for that ends the process; see ``confinement``.

    ready: what is said of it.
    """

    def __init__(self, setup: Setup, start: Start) -> None:
        _import_pydicom()
        cv2.setNumThreads(1)  # the other cores are for who sends images
        bundle, standing = start.opened()
        device = (
            device_profile.find(bundle, start.notes.append) if setup.artifact == "auto" else None
        )
        if device is None:
            _import_runtime(bundle, setup.artifact)
        confinement.limit(confinement.LOADING_BYTES, for_good=False)
        confinement.step(STEP_SECONDS)
        self._classifier = _Loaded(
            bundle,
            artifact=setup.artifact,
            profile=setup.profile,
            device=device,
            force=setup.force,
            risk=setup.risk,
        )
        confinement.step(STEP_SECONDS)
        check = golden.require(self._classifier)
        confinement.step(0)
        self._classifier.is_starting = False
        facts = _facts(self._classifier, check, standing)
        self.ready = Ready(facts, str(bundle.path), tuple(start.notes))
        self._memory_bytes = setup.memory_bytes
        gc.collect()
        gc.freeze()
        confinement.trim()
        confinement.limit(setup.memory_bytes)

    def told(self, ask: Ask, payload: bytes) -> tuple[Told, Parts]:
        """What is said of an image, and its view's bytes; or a picture. Never raises."""
        try:
            if isinstance(ask, AskPicture):
                return Picture(), (_drawn(ask, View.decode(payload)),)
            return self._answered(ask, payload)
        except BaseException as error:
            return self._failed(ask, error), ()

    def _answered(self, ask: AskAnswer, data: bytes) -> tuple[Told, Parts]:
        started = time.perf_counter()
        spec = self._classifier.manifest.preprocessing
        image = read_image(data, needed=spec.needed, frame=ask.frame)
        try:
            found = self._classifier.predict(image, name=ask.name)
        except Rejected as error:  # it is shown all the same
            return self._failed(ask, error), self._view(data, image, None)
        view = self._view(data, image, found)
        milliseconds = round((time.perf_counter() - started) * 1000, 2)
        answer = msgspec.structs.replace(found.record, elapsed_ms=milliseconds)
        told = Answer("ok", None, answer.decision, msgspec.Raw(record.encode(answer)))
        return told, view

    def _view(self, data: bytes, image: Image, found: Prediction | None) -> Parts:
        manifest = self._classifier.manifest
        if not _is_reduced(data, image):
            return View.of(image, manifest, found).parts()
        shown = read_image(data, needed=(SIDE // 2, SIDE // 2, image.frames.shape[3]))
        return View.of(shown, manifest, found, seen=image).parts()

    def _failed(self, ask: Ask, error: BaseException) -> Answer | Picture:
        ours, fault = self._ours(error)
        traceback.clear_frames(error.__traceback__)  # they hold the image
        if isinstance(ask, AskPicture):
            return Picture(ours.code, ours.message, fault)
        failed = record.failure(ask.name, ours, ask.frame)
        raw = msgspec.Raw(record.encode(failed))
        return Answer(failed.status, failed.code, None, raw, fault)

    def _ours(self, error: BaseException) -> tuple[MedimgEdgeError, str | None]:
        """As an error of ours, and where in the code a fault of ours happened."""
        if is_of_memory(error):
            return AnswerStopped(
                "The image needs more memory than an answer may take here "
                f"({self._memory_bytes / 2**20:.0f} MB). Scale it down, or export one frame of it."
            ), None
        if isinstance(error, MedimgEdgeError):
            return error, None
        frame = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        return Unexpected(f"A fault of medimg-edge: {fault}. Please report it."), fault


def _drawn(ask: AskPicture, view: View) -> bytes:
    if ask.layer == "image":
        return heatmap.encode_png(view.image())
    return heatmap.encode_png(
        view.heat_layer(ask.label) if ask.layer == "heat" else view.overlay(ask.label)
    )


def _is_reduced(data: bytes, image: Image) -> bool:
    """Whether a JPEG was decoded to fewer pixels than it has."""
    if image.source != "jpeg" or image.needed is None:
        return False
    import simplejpeg

    height, width = simplejpeg.decode_jpeg_header(data, strict=False)[:2]
    return (height, width) not in (image.size, image.size[::-1])  # Exif may turn it by a quarter


def _facts(classifier: Classifier, check: golden.Check, standing: Standing) -> Facts:
    manifest = classifier.manifest
    return Facts(
        name=manifest.name,
        version=manifest.version,
        hash=classifier.bundle.hash,
        task=manifest.task,
        labels=manifest.labels,
        findings=manifest.findings,
        intended_use=manifest.intended_use,
        modality=manifest.modality,
        body_part=manifest.body_part,
        view=manifest.view,
        artifact=classifier.artifact,
        runtime=classifier.runtime,
        threads=classifier.threads,
        profile=classifier.profile_hash,
        operating_points=classifier.points,
        metrics=manifest.artifacts[classifier.artifact].metrics,
        has_heatmap="heatmap" in manifest.outputs,
        golden=Golden(
            check.cases,
            check.difference or 0.0,
            datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            check.message or None,
        ),
        risk=classifier.risk,
        signer=standing.name,
    )


def _import_runtime(bundle: Bundle, artifact: str) -> None:
    """Now: from a slow disk it takes seconds, which are none of the model's."""
    kind = bundle.manifest.artifacts[bundle.artifact(artifact)].format
    engines.version(engines.reference(kind))


def _import_pydicom() -> None:
    """Without decoders that it would load (17 MB) and not be asked for: ours run by themselves."""
    for each in _DECODERS:
        sys.modules[each] = None  # type: ignore[assignment] - Python's way to say: there is none
    try:
        import pydicom.pixels  # noqa: F401 - now, and not at the first DICOM image
    finally:
        for each in _DECODERS:
            del sys.modules[each]
