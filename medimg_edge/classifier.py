"""Classifier(bundle).predict(image) -> Prediction."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from medimg_edge import engines, site_profile
from medimg_edge.admission import admit
from medimg_edge.batch import in_order
from medimg_edge.bundle import Bundle
from medimg_edge.cores import images_at_once
from medimg_edge.device_profile import DeviceProfile, choose
from medimg_edge.errors import MedimgEdgeError, RiskUnknown, TooFewImages
from medimg_edge.image import Header, Image
from medimg_edge.manifest import Manifest, OperatingPoint
from medimg_edge.operating_point import decide
from medimg_edge.preprocess import preprocess
from medimg_edge.reader import Source, read_frames, read_image
from medimg_edge.record import Answer, Failure, Finding, Model, dicom, failure, printable
from medimg_edge.risk import Risk
from medimg_edge.screening import Screen
from medimg_edge.site_profile import SiteProfile

Item = TypeVar("Item")
Progress = Callable[[str, int, int], None]
"""Called with what is done, how many are done, and of how many."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one image, and what explains it.

    record: as it is printed and stored.
    pixels: uint8 (H, W, C), what the network saw.
    header: of a DICOM input.
    heatmap: float32 (h, w, C), logits by place, one channel for each finding; None where the
        model has none.
    embedding: float32 (D,), the pooled features; None where the model returns none.
    """

    record: Answer
    pixels: NDArray[np.uint8]
    heatmap: NDArray[np.float32] | None
    embedding: NDArray[np.float32] | None
    header: Header | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """One for each label that was asked for."""
        return self.record.findings

    @property
    def label(self) -> str | None:
        """Binary: the positive label. Multiclass: the answered one. Multilabel: None."""
        return self.record.label

    @property
    def probability(self) -> float | None:
        """The calibrated probability of ``label``, in [0, 1]."""
        return self.record.probability

    @property
    def decision(self) -> str | None:
        """``positive``, ``negative`` or ``refer``; multiclass: the label."""
        return self.record.decision


@dataclass(frozen=True, eq=False)
class Answered(Generic[Item]):
    """``items`` and their ``predictions``, in order; what could not be answered stands aside."""

    items: list[Item]
    predictions: list[Prediction]
    failures: list[tuple[Item, Failure]]


class Classifier:
    """A bundle's artifact, loaded. May be shared between threads, and pickles by its bundle's path.

    artifact: a model file of the bundle; ``auto`` is what ``device_profile.choose`` says.
    profile: a site profile, its file, ``auto`` for the one beside the bundle where there is one, or
        None for the bundle's own calibration and operating points.
    device: what ``tune`` found best on this machine; see ``device_profile.find``.
    many: with the threads that it found best for ``predict_many``, not for one image.
    runtime, threads: to run by another than the choice.
    force: answer images of another kind than the model's, too; see ``admission``, ``screening``.
    screened: turn away what does not look like an image for this model; else it is answered, with
        the warning of ``force``, as ``evaluate`` needs it.
    risk: how often the true label of a class may be ruled out; what is not sure enough is referred.
        One of those that the bundle has bounds for; see ``risk``.

    Construction raises what ``Bundle.open`` does, ArtifactUnknown, ModelLoad, ModelRefused,
    ExtraMissing, ProfileInvalid, RiskUnknown, ReferenceMissing.
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str],
        *,
        artifact: str = "auto",
        profile: SiteProfile | str | os.PathLike[str] | None = "auto",
        device: DeviceProfile | None = None,
        many: bool = False,
        runtime: str | None = None,
        threads: int | None = None,
        force: bool = False,
        screened: bool = True,
        risk: float | None = None,
    ) -> None:
        self.force, self.screened, self.risk = force, screened, risk
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self.profile, self.profile_hash = _profile(profile, self.bundle)
        if self.profile is not None:
            self.profile.require_for(self.bundle, artifact)
        setting = choose(self.bundle, artifact, self.profile, device, many=many).setting
        self.artifact = setting.artifact
        self.threads = threads or setting.threads
        self._runtime = runtime or setting.runtime
        self._engine = engines.load(
            self.bundle.read(self.artifact),
            self.manifest.artifacts[self.artifact].format,
            self.manifest,
            threads=self.threads,
            runtime=self._runtime,
        )
        self._screen = Screen(self.bundle, self.artifact, force=force or not screened)
        self._risk = None if risk is None else self._bounds(risk)

    def _bounds(self, risk: float) -> Risk:
        if self.profile is not None:
            raise RiskUnknown(
                "The bundle's bounds of a risk hold for its own probabilities, and a site profile "
                "changes them. Answer without the profile (--profile none), or without --risk."
            )
        return Risk.of(self.manifest, self.artifact, risk)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    @property
    def runtime(self) -> str:
        """The name and version of the runtime that answers."""
        return self._engine.runtime

    def predict(
        self, source: Source | Image, *, name: str | None = None, frame: int | None = None
    ) -> Prediction:
        """Answer one image: a path, encoded bytes, an array, or what ``read_image`` returned.

        That has to have read it with ``needed=manifest.preprocessing.needed``.
        An array is uint8 over 0..255 or uint16 over 0..65535, grey or RGB; of any other,
        ``read_image(array, photometric=..., value_range=...)`` says what its values mean.
        Raises InputError, Rejected, ModelError or MachineFault. ``name`` is what the record calls
        the input; ``frame`` is one, from 1, of a DICOM file that has several.
        """
        started = time.perf_counter()
        if isinstance(source, Image):
            image = source
        else:
            needed = self.manifest.preprocessing.needed
            image = read_image(source, needed=needed, frame=frame)
        return self._predicted(image, name if name is not None else _name(source), started)

    def _predicted(self, image: Image, name: str, started: float) -> Prediction:
        warnings = image.warnings + admit(image, self.manifest, force=self.force)
        pixels = preprocess(image, self.manifest.preprocessing)
        measured, looks = self._screen.before(image, pixels)
        outputs = self.run(pixels[None])
        heatmap, embedding = outputs.get("heatmap"), outputs.get("embedding")
        embedding = None if embedding is None else embedding[0]
        measured, novelty = self._screen.behind(embedding, measured)
        findings = self._findings(outputs["probability"][0])
        answered = self._answered(findings)
        record = Answer(
            input=printable(name),
            frame=image.header.frame if image.header else None,
            frames=image.header.frames if image.header else None,
            findings=findings,
            label=answered.label if answered else None,
            probability=answered.probability if answered else None,
            decision=answered.decision if answered else None,
            warnings=(*warnings, *looks, *novelty),
            artifact=self.artifact,
            runtime=self.runtime,
            model=self._model,
            profile=self.profile_hash,
            elapsed_ms=round((time.perf_counter() - started) * 1000, 2),
            dicom=dicom(image.header) if image.header else None,
            measured=measured,
            risk=self._risk.risk if self._risk else None,
            possible=self._risk.possible(outputs["probability"][0]) if self._risk else None,
        )
        return Prediction(
            record=record,
            pixels=pixels,
            heatmap=None if heatmap is None else heatmap[0],
            embedding=embedding,
            header=image.header,
        )

    def predict_frames(
        self, source: Source, *, name: str | None = None, frame: int | None = None
    ) -> Generator[Prediction | Failure]:
        """One Prediction or Failure for each frame of a source, in order, or for ``frame`` alone.

        A frame that cannot be answered does not stop the rest. Raises InputError where the file
        cannot be read at all.
        """
        started = time.perf_counter()
        called = name if name is not None else _name(source)
        frames = read_frames(source, needed=self.manifest.preprocessing.needed)
        several = frames.frames if frames.frames > 1 else None
        for number in range(1, frames.frames + 1) if frame is None else (frame,):
            try:
                yield self._predicted(frames.image(number), called, started)
            except MedimgEdgeError as error:
                yield failure(called, error, number if several else None, several)
            started = time.perf_counter()

    def predict_many(
        self, sources: Iterable[Source | Image], *, cores: int | None = None
    ) -> Generator[Prediction | Failure]:
        """One Prediction or Failure for each input, in order; a bad one does not stop the rest.

        cores: to be used, by default all that this process may: as many images at a time as there
            are cores for the classifier's threads. ``sources`` is read a few images ahead.
        """
        return in_order(self._predict_or_failure, sources, self.at_once(cores))

    def at_once(self, cores: int | None = None) -> int:
        """How many images so many cores answer at a time; by default all this process may use."""
        return images_at_once(self.threads, cores)

    def _predict_or_failure(self, source: Source | Image) -> Prediction | Failure:
        try:
            return self.predict(source)
        except MedimgEdgeError as error:
            return failure(_name(source), error)

    def answer(
        self,
        items: Sequence[Item],
        source: Callable[[Item], Source],
        progress: Progress | None = None,
    ) -> Answered[Item]:
        """Answer what ``source`` says of each item. Raises TooFewImages where none can be."""
        found: Answered[Item] = Answered([], [], [])
        answers = self.predict_many(map(source, items))
        for at, (item, each) in enumerate(zip(items, answers, strict=True), start=1):
            if isinstance(each, Failure):
                found.failures.append((item, each))
            else:
                found.items.append(item)
                found.predictions.append(each)
            if progress:
                progress("answering", at, len(items))
        if not found.items:
            why = f": {found.failures[0][1].message}" if found.failures else "."
            raise TooFewImages(f"None of the {len(items)} images could be answered{why}")
        return found

    def run(self, pixels: NDArray[np.uint8]) -> engines.Outputs:
        """Tensors as ``preprocess`` returns them, uint8 (N, H, W, C) -> the outputs by name.

        ``probability`` float32 (N, C) in [0, 1]; ``heatmap`` float32 (N, h, w, C) in logits;
        ``embedding`` float32 (N, D). Raises ModelOutput, NotFinite.
        """
        return self._engine.run(pixels)

    @cached_property
    def _model(self) -> Model:
        return Model(self.manifest.name, self.manifest.version, self.bundle.hash)

    @cached_property
    def points(self) -> dict[str, OperatingPoint]:
        """Where each label's probability becomes a decision; none for multiclass."""
        if self._risk is not None:
            points = self.manifest.decision[self.artifact]
            return {label: self._risk.point(label, each) for label, each in points.items()}
        if self.profile is None:
            return self.manifest.decision[self.artifact]
        return {label: fitted.point for label, fitted in self.profile.findings.items()}

    def _findings(self, probabilities: NDArray[np.float32]) -> tuple[Finding, ...]:
        multiclass = self.manifest.task == "multiclass"
        best = self._best(probabilities) if multiclass else ""
        if self.profile is not None:
            probabilities = self.profile.calibrated(probabilities)
        return tuple(
            Finding(
                label,
                float(probability),
                best if multiclass else decide(float(probability), self.points[label]),
            )
            for label, probability in zip(self.manifest.findings, probabilities, strict=True)
        )

    def _best(self, probabilities: NDArray[np.float32]) -> str:
        """What is decided of several classes."""
        best = self.manifest.labels[int(probabilities.argmax())]
        is_sure = self._risk is None or self._risk.possible(probabilities) == (best,)
        return best if is_sure else "refer"

    def _answered(self, findings: tuple[Finding, ...]) -> Finding | None:
        if self.manifest.task == "binary":
            return findings[0]
        if self.manifest.task == "multiclass":
            return max(findings, key=lambda finding: finding.probability)
        return None

    def __reduce__(self) -> tuple:
        profile = self.profile, self.profile_hash
        engine = self._runtime, self.threads, self.force, self.screened, self.risk
        return _load, (self.bundle.path.absolute(), self.artifact, *profile, *engine)


def _profile(
    profile: SiteProfile | str | os.PathLike[str] | None, bundle: Bundle
) -> tuple[SiteProfile, str] | tuple[None, None]:
    """The profile, and the hash by which records name it: that of the file where there is one."""
    if profile == "auto":
        profile = site_profile.find(bundle)
    if profile is None:
        return None, None
    if isinstance(profile, SiteProfile):
        return profile, profile.hash
    return site_profile.read(profile)


def _load(
    path: os.PathLike[str],
    artifact: str,
    profile: SiteProfile | None,
    profile_hash: str | None,
    runtime: str,
    threads: int,
    force: bool,
    screened: bool,
    risk: float | None,
) -> Classifier:
    classifier = Classifier(
        path,
        artifact=artifact,
        profile=profile,
        runtime=runtime,
        threads=threads,
        force=force,
        screened=screened,
        risk=risk,
    )
    classifier.profile_hash = profile_hash
    return classifier


def _name(source: Source | Image) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return {bytes: "<bytes>", Image: "<image>"}.get(type(source), "<array>")
