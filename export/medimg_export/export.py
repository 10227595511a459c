"""A trained model -> a bundle, or a refusal that names the gate. Nothing half-made is left."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from medimg_edge import golden, risk
from medimg_edge.bundle import MANIFEST, Bundle, describe_files
from medimg_edge.classifier import Classifier
from medimg_edge.errors import ConversionError, GateError, RecipeError
from medimg_edge.manifest import (
    Artifact,
    FileEntry,
    Gate,
    GoldenCase,
    Input,
    Manifest,
    Name,
    OperatingPoint,
    Output,
    Reference,
    Screening,
)
from medimg_edge.manifest import encode as encode_manifest
from medimg_edge.operating_point import reached
from medimg_edge.record import Failure
from medimg_edge.staging import staged
from medimg_export import card_completeness, gates, metrics, screening_fit
from medimg_export.convert_onnx import to_onnx, to_onnx_int8
from medimg_export.convert_tflite import to_tflite, to_tflite_int8
from medimg_export.golden_set import Golden, golden_set
from medimg_export.int8 import VARIANTS, Int8Variant
from medimg_export.model_card import model_card
from medimg_export.novelty_fit import Head
from medimg_export.prepared import Progress, encoded
from medimg_export.reference import reference
from medimg_export.trained_model import TrainedModel

Format = Literal["onnx", "tflite"]
Points = dict[str, OperatingPoint]

FLOAT32: dict[Format, str] = {"onnx": "model.onnx", "tflite": "model.tflite"}
INT8: dict[Format, str] = {"onnx": "model.int8.onnx", "tflite": "model.int8.tflite"}
UNITS: dict[str, Literal["probability", "logit", "feature"]] = {
    "probability": "probability",
    "heatmap": "logit",
    "embedding": "feature",
}
REFERENCE_IMAGES = 2000
"""Validation images, evenly spread, that drift is measured against."""

CALIBRATION_IMAGES = 200
"""Training images whose activations give the int8 ranges, as many of each class as there are."""


@dataclass(frozen=True)
class Row:
    """One line of the export's table, measured on validation through the device's Classifier.

    dp: |p - p of Keras|. ms: one image at one thread, decoding included.
    """

    artifact: str
    variant: str
    bytes: int
    max_dp: float
    median_dp: float
    decisions_differ: int
    auc: float
    sensitivity: float | None
    specificity: float | None
    ms: float


@dataclass(frozen=True)
class Exported:
    """The bundle, its table, and what its builder should know."""

    bundle: Bundle
    rows: list[Row]
    notes: list[str]


@dataclass(frozen=True, eq=False)
class _Answers:
    """What the device answered for a split: p (N, C), images with other pixels, ms an image.

    embeddings: (N, D), where the model returns them.
    """

    p: gates.Answers
    other_pixels: int
    ms: float
    embeddings: NDArray[np.float32] | None


def export(
    model: TrainedModel,
    out: Path,
    *,
    name: str | None = None,
    limits: gates.Limits | None = None,
    int8_only: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Convert, check, write; or refuse and leave ``out`` as it was.

    ``name`` is the bundle's; else the recipe's, else that of the folder. ``int8_only`` leaves the
    float32 artifacts out of the bundle, once they have served as the reference.

    Raises GateError (which gate, and by how much), ConversionError, WriteError, GoldenMismatch,
    RecipeError (a name that no bundle may have).
    """
    called = _called(name or model.recipe.card.name, out)
    with staged(out) as folder:
        work = _Export(model, called, folder, limits or gates.Limits(), progress)
        for kind in ("onnx", "tflite"):
            work.float32(kind)
        for kind in ("onnx", "tflite"):
            work.int8(kind)
        work.seal(left_out=tuple(FLOAT32.values()) if int8_only else ())
        failed = [check for check in golden.verify(Bundle.open(folder)) if check.status == "failed"]
        if failed:
            raise GateError(
                f"{failed[0].artifact} fails the bundle's own golden set: {failed[0].message}. "
                "Nothing was written."
            )
    return Exported(Bundle.open(out), work.rows, [*model.deployable.notes, *work.notes])


def _called(name: str | None, out: Path) -> str:
    """The name as it was said, else the folder's, in the characters that a manifest takes."""
    folder = re.sub(r"[^A-Za-z0-9._-]+", "-", out.resolve().name).lstrip("-._")[:100]
    try:
        return msgspec.convert(name or folder or "bundle", Name)
    except msgspec.ValidationError as error:
        raise RecipeError(
            f"A bundle cannot be called {name!r}: letters, digits, '.', '_' and '-' are accepted, "
            "at most 100, and a letter or digit first."
        ) from error


@dataclass(eq=False)
class _Export:
    """One export under way: artifacts enter it one by one, each by its gates."""

    model: TrainedModel
    name: str
    folder: Path
    limits: gates.Limits
    progress: Progress | None
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    decision: dict[str, Points] = field(default_factory=dict)
    answers: dict[str, gates.Answers] = field(default_factory=dict)
    embeddings: dict[str, NDArray[np.float32] | None] = field(default_factory=dict)
    gates: list[Gate] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        prepared = self.model.prepared
        self.y = prepared.y[prepared.splits.val]
        self.groups = prepared.groups(prepared.splits.val)
        self.reference = {
            split: self.model.answers(split, self.progress) for split in ("val", "test")
        }

    def float32(self, kind: Format) -> None:
        """Convert; the device must give Keras' pixels and probabilities."""
        name = FLOAT32[kind]
        self._say(f"converting {name}")
        if kind == "onnx":
            to_onnx(self.model.deployable.model, self.folder / name, self._metadata())
        else:
            to_tflite(self.model.deployable.model, self.folder / name)
        artifact = self._artifact(name, kind, "float32", "float32")
        for split in ("test", "val"):
            if not len(self.reference[split]):
                continue
            found = self._answer(name, artifact, self.model.decision, split)
            self._require(gates.pixels_gate(name, split, found.other_pixels))
            self._require(
                gates.float32_gate(name, split, found.p, self.reference[split], self.limits)
            )
        self._keep(name, artifact, found, self.model.decision)

    def int8(self, kind: Format) -> None:
        """Quantize by the first variant that passes; a refusal says why each did not."""
        name, base = INT8[kind], FLOAT32[kind]
        points = self.decision[base]
        refused = []
        for variant in VARIANTS:
            self._say(f"quantizing {name}, {variant.name}")
            try:
                self._quantize(kind, variant)
            except ConversionError as error:
                refused.append(f"{variant.name}: {error.message.rstrip('.')}")
                continue
            artifact = self._artifact(name, kind, "int8", variant.name)
            found = self._answer(name, artifact, points, "val")
            checks = gates.int8_gates(
                name,
                self.model.task,
                self.model.findings,
                self.y,
                found.p,
                self.answers[base],
                points,
                self.groups,
                self.limits,
            )
            failed = [gate for gate in checks if not gate.passed]
            if not failed:
                self.gates += checks
                self._keep(name, artifact, found, self._matched(points, base, found.p))
                self.notes += [f"{name}: {each}" for each in refused]
                return
            refused.append(f"{variant.name}: {'; '.join(describe(gate) for gate in failed)}")
        raise GateError(
            f"No int8 variant of {name} answers like the float32 model. {' | '.join(refused)}. "
            "Train longer or with more images, or change the limits. Nothing was written."
        )

    def seal(self, left_out: tuple[str, ...]) -> None:
        """Make the golden set, the model card and the manifest, without the artifacts left out."""
        default = INT8["onnx"]
        classifiers = {
            name: self._classifier(name, artifact, self.decision[name])
            for name, artifact in self.artifacts.items()
        }
        self._say("making the golden set")
        spec = self.model.prepared.preprocessing
        cases = golden_set(
            spec, lambda pixels: classifiers[FLOAT32["onnx"]].run(pixels)["probability"]
        )
        for case in cases:
            case.write(self.folder)
        for name in left_out:
            (self.folder / name).unlink()
            del self.artifacts[name], self.decision[name], classifiers[name]
        manifest = msgspec.structs.replace(
            self._manifest(self.artifacts, default, self.decision),
            gates=tuple(self.gates),
            golden=tuple(_golden_case(case, classifiers) for case in cases),
            screening=self._screening(classifiers[default]),
        )
        manifest = msgspec.structs.replace(manifest, files=self._files())
        manifest = msgspec.structs.replace(
            manifest,
            risks={name: risk.fit(manifest, self.y, self.answers[name]) for name in self.artifacts},
            reference={name: self._reference(manifest, name) for name in self.artifacts},
        )
        assert isinstance(manifest.screening, Screening)
        assert isinstance(manifest.reference, dict)
        self.notes.append(screening_fit.told(manifest.screening, manifest.reference[default]))
        found = metrics.evaluate(
            self.model.task,
            self.model.labels,
            self.y,
            self.answers[default],
            thresholds={k: v.threshold for k, v in self.decision[default].items()} or None,
            groups=self.groups,
        )
        facts = (
            manifest,
            self.model.recipe,
            self.model.prepared.describe(),
            found,
            "validation",
        )
        card = model_card(*facts)
        missing = card_completeness.unstated(card_completeness.Facts(*facts))
        self.notes += card_completeness.notes(missing)
        (self.folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
        manifest = msgspec.structs.replace(manifest, files=self._files())
        (self.folder / MANIFEST).write_bytes(encode_manifest(manifest))

    def _files(self) -> dict[str, FileEntry]:
        """Everything in the folder but the artifacts."""
        files = describe_files(self.folder)
        return {name: entry for name, entry in files.items() if name not in self.artifacts}

    def _screening(self, classifier: Classifier) -> Screening:
        """What is turned away, fitted by the default artifact's eyes."""
        self._say("fitting what is turned away")
        deployable = self.model.deployable

        def run(pixels: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32] | None:
            found = [classifier.run(each[None]).get("embedding") for each in pixels]
            seen = [each[0] for each in found if each is not None]
            return np.stack(seen) if seen else None

        default = classifier.artifact
        fitted = screening_fit.fit(
            self.folder,
            self.model.prepared,
            self.model.task,
            Head(deployable.kernel.T, deployable.bias),
            run,
            {name: self.embeddings[name] for name in (default, *self.artifacts)},
        )
        self.notes += fitted.notes
        return fitted.screening

    def _reference(self, manifest: Manifest, name: str) -> Reference:
        """How validation looks to the device, by one artifact, turned away or not."""
        prepared = self.model.prepared
        rows = prepared.splits.val
        rows = rows[:: -(-len(rows) // REFERENCE_IMAGES)]
        classifier = Classifier(Bundle(self.folder, manifest, hash=""), artifact=name, profile=None)
        records = []
        sources = [encoded(sample) for sample in prepared.samples(rows)]
        for at, each in enumerate(classifier.predict_many(sources), start=1):
            records.append(each if isinstance(each, Failure) else each.record)
            if self.progress:
                self.progress(f"{name} as on a device", at, len(rows))
        return reference(manifest, records)

    def _quantize(self, kind: Format, variant: Int8Variant) -> None:
        source, path = self.folder / FLOAT32[kind], self.folder / INT8[kind]
        if kind == "onnx":
            to_onnx_int8(source, path, self._calibration(), variant, self._metadata())
        else:
            to_tflite_int8(source, path, self._calibration(), variant)

    def _calibration(self) -> NDArray[np.uint8]:
        """Training images through the one preprocessing, evenly of all classes, always the same."""
        prepared = self.model.prepared
        rows = prepared.splits.train
        y = prepared.y[rows] if prepared.y.ndim == 1 else prepared.y[rows].argmax(axis=1)
        generator = np.random.default_rng(0)
        each = -(-CALIBRATION_IMAGES // len(np.unique(y)))
        chosen = [generator.permutation(rows[y == value])[:each] for value in np.unique(y)]
        return prepared.cached.pixels[np.sort(np.concatenate(chosen))]

    def _answer(
        self, name: str, artifact: Artifact, points: Points, split: Literal["val", "test"]
    ) -> _Answers:
        """Through the device's Classifier, from the encoded images."""
        prepared = self.model.prepared
        rows = prepared.rows(split)
        classifier = self._classifier(name, artifact, points)
        p, embeddings, other_pixels = [], [], 0
        started = time.perf_counter()
        for at, (row, sample) in enumerate(zip(rows, prepared.samples(rows), strict=True), start=1):
            prediction = classifier.predict(encoded(sample))
            other_pixels += not np.array_equal(prediction.pixels, prepared.cached.pixels[row])
            p.append([finding.probability for finding in prediction.findings])
            if split == "val" and prediction.embedding is not None:
                embeddings.append(prediction.embedding)
            if self.progress:
                self.progress(f"{name} on {split}", at, len(rows))
        ms = 1000 * (time.perf_counter() - started) / len(rows)
        seen = np.stack(embeddings) if embeddings else None
        return _Answers(np.array(p, np.float64), other_pixels, ms, seen)

    def _matched(self, points: Points, base: str, p: gates.Answers) -> Points:
        """The operating points of an int8 artifact: as many positive calls as float32 makes."""
        matched = gates.matched_points(self.model.findings, p, self.answers[base], points)
        return {
            label: msgspec.structs.replace(points[label], threshold=threshold)
            for label, threshold in matched.items()
        }

    def _keep(self, name: str, artifact: Artifact, found: _Answers, points: Points) -> None:
        dp = np.abs(found.p - self.reference["val"])
        truth = self.y.reshape(len(self.y), -1)
        points = {
            label: reached(points[label], truth[:, column], found.p[:, column])
            for column, label in enumerate(self.model.findings)
            if label in points
        }
        row = Row(
            artifact=name,
            variant=artifact.variant,
            bytes=artifact.bytes,
            max_dp=float(dp.max()),
            median_dp=float(np.median(dp)),
            decisions_differ=self._differing(found.p, points),
            auc=metrics.auc(self.model.task, self.y, found.p),
            sensitivity=_mean([point.sensitivity for point in points.values()]),
            specificity=_mean([point.specificity for point in points.values()]),
            ms=found.ms,
        )
        measured = {
            key: value
            for key, value in vars(row).items()
            if key not in ("artifact", "variant", "bytes", "ms")
        }
        self.rows.append(row)
        self.answers[name], self.decision[name] = found.p, points
        self.embeddings[name] = found.embeddings
        self.artifacts[name] = msgspec.structs.replace(artifact, metrics=measured)

    def _differing(self, p: gates.Answers, points: Points) -> int:
        """Images whose decision is not Keras' own."""
        reference = self.reference["val"]
        if self.model.task == "multiclass":
            return int((p.argmax(axis=1) != reference.argmax(axis=1)).sum())
        own = np.array([points[label].threshold for label in self.model.findings])
        theirs = np.array([self.model.decision[label].threshold for label in self.model.findings])
        return int(((p >= own) != (reference >= theirs)).any(axis=1).sum())

    def _artifact(
        self, name: str, kind: Format, precision: Literal["float32", "int8"], variant: str
    ) -> Artifact:
        entry = describe_files(self.folder)[name]
        return Artifact(entry.bytes, entry.sha256, kind, precision, variant)

    def _classifier(self, name: str, artifact: Artifact, points: Points) -> Classifier:
        """The device's, on a candidate: a manifest that is in memory only."""
        manifest = self._manifest({name: artifact}, name, {name: points})
        return Classifier(Bundle(self.folder, manifest, hash=""), artifact=name, profile=None)

    def _manifest(
        self, artifacts: dict[str, Artifact], default: str, decision: dict[str, Points]
    ) -> Manifest:
        card, spec = self.model.recipe.card, self.model.prepared.preprocessing
        return Manifest(
            name=self.name,
            version=card.version,
            task=self.model.task,
            labels=self.model.labels,
            intended_use=card.intended_use,
            input=Input(spec.shape),
            preprocessing=spec,
            outputs={
                name: Output(tuple(tensor.shape), UNITS[name])
                for name, tensor in self.model.deployable.model.output.items()
            },
            decision=decision,
            default_artifact=default,
            artifacts=artifacts,
            modality=card.modality,
            body_part=card.body_part,
            view=card.view,
            training=self.model.training,
        )

    def _metadata(self) -> dict[str, str]:
        """What a lone ONNX file says of itself."""
        recipe = self.model.recipe
        spec = msgspec.json.encode(self.model.prepared.preprocessing).decode()
        points = {label: point.threshold for label, point in self.model.decision.items()}
        return {
            "name": self.name,
            "version": recipe.card.version,
            "task": self.model.task,
            "labels": msgspec.json.encode(self.model.labels).decode(),
            "preprocessing": spec,
            "float32_thresholds": msgspec.json.encode(points).decode(),
            "intended_use": recipe.card.intended_use,
        }

    def _require(self, gate: Gate) -> None:
        if not gate.passed:
            raise GateError(
                f"{gate.artifact} is refused by the gate {describe(gate)}. Nothing was written."
            )
        self.gates.append(gate)

    def _say(self, what: str) -> None:
        if self.progress:
            self.progress(what, 0, 0)


def _mean(rates: list[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return float(np.mean(known)) if known else None


def describe(gate: Gate) -> str:
    """One gate in words: what was measured, and what is accepted."""
    measured = "nothing" if gate.measured is None else f"{gate.measured:.3g}"
    detail = f" ({gate.detail})" if gate.detail else ""
    return f"{gate.name} on {gate.split}: {measured}, at most {gate.limit:g}{detail}"


def _golden_case(case: Golden, classifiers: dict[str, Classifier]) -> GoldenCase:
    return GoldenCase(
        input=case.input,
        pixels=case.pixels,
        probability={
            name: tuple(float(p) for p in classifier.run(case.tensor[None])["probability"][0])
            for name, classifier in classifiers.items()
        },
    )
