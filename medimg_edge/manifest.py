"""What a bundle says of itself: ``manifest.json``, schema version 1.

The structs are strict (unknown fields are refused) and frozen. ``decode`` is the only way in,
``encode`` the only way out; the bytes that ``encode`` returned are what is hashed and signed, and
they are never written anew.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from medimg_edge.errors import ManifestInvalid, RevisionUnknown, SchemaUnknown

SCHEMA = 1
PREPROCESSING_REVISION = 1
"""The pixel behaviour of ``preprocess.py``. Any change that alters one pixel raises it."""

MAX_IMAGES = 10**9
"""Of a reference."""

Task = Literal["binary", "multiclass", "multilabel"]
Count = Annotated[int, msgspec.Meta(ge=0)]
Size = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
# In Python `$` alone would also match before a last line break.
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}(?!\n)$")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}(?!\n)$")]


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every part of a manifest."""


class Display(Struct, frozen=True, tag="display", tag_field="kind"):
    """As a viewer shows it: 8-bit unchanged, 16-bit by ``low``..``high``, DICOM by its VOI."""

    low: float = 0.0
    high: float = 65535.0


class WindowSetting(Struct, frozen=True):
    """Center and width of a window, in rescaled units (Hounsfield units for CT)."""

    center: float
    width: Annotated[float, msgspec.Meta(gt=0)]


class Windows(Struct, frozen=True, tag="window", tag_field="kind"):
    """One or more fixed windows, one channel each, such as CT lung, mediastinum and bone."""

    windows: Annotated[tuple[WindowSetting, ...], msgspec.Meta(min_length=1, max_length=4)]


class Percentile(Struct, frozen=True, tag="percentile", tag_field="kind"):
    """Each image by its own percentiles: for modalities without a unit, such as MR."""

    low: Annotated[float, msgspec.Meta(ge=0, lt=100)] = 0.5
    high: Annotated[float, msgspec.Meta(gt=0, le=100)] = 99.5


class Preprocessing(Struct, frozen=True):
    """How an image becomes the uint8 tensor that the graph takes. See ``preprocess.py``."""

    height: Size
    width: Size
    color: Literal["gray", "rgb"] = "gray"
    intensity: Display | Windows | Percentile = Display()
    geometry: Literal["stretch", "letterbox", "center-crop"] = "stretch"
    decode: Literal["scaled"] | msgspec.UnsetType = msgspec.UNSET
    """Absent: whole. Scaled: of a large JPEG no more than is needed; see ``raster.jpeg``."""
    revision: int = PREPROCESSING_REVISION

    @property
    def channels(self) -> int:
        """One per window, else 3 for rgb and 1 for gray."""
        if isinstance(self.intensity, Windows):
            return len(self.intensity.windows)
        return 3 if self.color == "rgb" else 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image's tensor."""
        return self.height, self.width, self.channels

    @property
    def needed(self) -> tuple[int, int, int] | None:
        """(H, W, C) of what is needed of a large JPEG; None: all of it."""
        if self.decode is msgspec.UNSET:
            return None
        return self.height, self.width, 3 if self.color == "rgb" else 1


class Input(Struct, frozen=True):
    """The graph's input: the pixels as ``preprocess`` returns them, scaled inside the graph."""

    shape: Annotated[tuple[Size, ...], msgspec.Meta(min_length=3, max_length=3)]
    name: str = "pixels"
    axes: Literal["NHWC"] = "NHWC"
    dtype: Literal["uint8"] = "uint8"


class Output(Struct, frozen=True):
    """One output of the graph; ``None`` stands for the batch."""

    shape: tuple[int | None, ...]
    unit: Literal["probability", "logit", "feature"]
    dtype: Literal["float32"] = "float32"


class OperatingPoint(Struct, frozen=True):
    """Where a probability becomes a decision, and what it reached on validation."""

    threshold: Fraction
    rule: str
    sensitivity: Fraction | None = None
    specificity: Fraction | None = None
    refer: tuple[Fraction, Fraction] | None = None


class FileEntry(Struct, frozen=True):
    """A file of the bundle, by its path with forward slashes."""

    bytes: Count
    sha256: Sha256


class Artifact(Struct, frozen=True):
    """One model file."""

    bytes: Count
    sha256: Sha256
    format: Literal["onnx", "tflite"]
    precision: Literal["float32", "int8"]
    variant: str = "float32"
    metrics: dict[str, float | None] = {}


class GoldenCase(Struct, frozen=True):
    """An input of the golden set and what must come out of it.

    ``input`` is an encoded image (PNG, DICOM); ``pixels`` holds the expected tensor as raw
    uint8, H x W x C, row by row; ``probability`` the expected values by artifact, one per output.
    """

    input: str
    pixels: str
    probability: dict[str, tuple[float, ...]]


class Polarity(Struct, frozen=True):
    """Whether black and white are exchanged; see ``screening``.

    weights: a file of float32, little endian, side x side. limit: scores below are inverted.
    """

    side: Annotated[int, msgspec.Meta(ge=2, le=64)]
    weights: str
    limit: float


class Novelty(Struct, frozen=True):
    """How unlike the training images the network finds an image; see ``novelty``.

    arrays: by name the file, float32, little endian, row by row; shapes: of each. limit: by
    artifact the distance beyond which nothing is answered. figures: what the export measured.
    """

    method: Literal["mahalanobis", "knn", "energy", "vim"]
    arrays: dict[str, str]
    shapes: dict[str, tuple[Count, ...]]
    limit: dict[str, float]
    figures: dict[str, float | None] = {}


class Screening(Struct, frozen=True):
    """Which images are turned away unanswered; see ``screening``.

    contrast: the least standard deviation of the tensor's grey levels. content: the least share of
    the tensor that is not a flat border.
    """

    contrast: Annotated[float, msgspec.Meta(ge=0)]
    content: Fraction
    polarity: Polarity | None = None
    novelty: Novelty | None = None


class Histogram(Struct, frozen=True):
    """How a number was distributed on validation: ``counts[i]`` lie in edges[i]..edges[i + 1]."""

    edges: tuple[float, ...]
    counts: tuple[Count, ...]


class Reference(Struct, frozen=True):
    """What a site's images are compared with, by one artifact; see ``drift``.

    numbers: by name, such as ``probability of PNEUMONIA``, ``brightness``, ``novelty``. decisions:
    by label how many of each. codes: how many were turned away, by code; ``images`` in all.
    """

    images: Count
    numbers: dict[str, Histogram]
    decisions: dict[str, dict[str, Count]]
    codes: dict[str, Count] = {}


class Gate(Struct, frozen=True):
    """One check that the export made, its limit, and what was measured."""

    name: str
    artifact: str
    split: str
    limit: float
    measured: float | None
    passed: bool
    detail: str = ""


class Manifest(Struct, frozen=True):
    """Everything that a device or a host in another language needs to know."""

    name: Name
    version: str
    task: Task
    labels: Annotated[tuple[str, ...], msgspec.Meta(min_length=2)]
    intended_use: str
    input: Input
    preprocessing: Preprocessing
    outputs: dict[str, Output]
    decision: dict[str, dict[str, OperatingPoint]]
    default_artifact: str
    artifacts: Annotated[dict[str, Artifact], msgspec.Meta(min_length=1)]
    sample: Literal["image"] = "image"
    modality: tuple[str, ...] = ()
    body_part: tuple[str, ...] = ()
    view: tuple[str, ...] = ()
    golden: tuple[GoldenCase, ...] = ()
    files: dict[str, FileEntry] = {}
    gates: tuple[Gate, ...] = ()
    training: dict[str, Any] = {}
    screening: Screening | msgspec.UnsetType = msgspec.UNSET
    risks: dict[str, dict[str, dict[str, tuple[Fraction, Fraction]]]] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    """By artifact, label and risk: from where the label, and up to where its absence, is kept."""
    reference: dict[str, Reference] | msgspec.UnsetType = msgspec.UNSET
    """By artifact."""
    schema: int = SCHEMA

    @property
    def findings(self) -> tuple[str, ...]:
        """The labels that have a probability: binary the positive one, else all of them."""
        return self.labels[1:] if self.task == "binary" else self.labels


def encode(manifest: Manifest) -> bytes:
    """The bytes to write: UTF-8 JSON, indented for people."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes) -> Manifest:
    """Bytes of ``manifest.json`` -> Manifest.

    Raises ManifestInvalid (not JSON, two equal keys, not the schema, parts that contradict each
    other), SchemaUnknown, RevisionUnknown.
    """
    raw = _plain_json(data)
    schema = raw.get("schema")
    if schema != SCHEMA:
        raise SchemaUnknown(
            f"The manifest has schema {schema!r}; this release reads schema {SCHEMA}. "
            "Install a newer medimg-edge, or export the bundle again."
        )
    preprocessing = raw.get("preprocessing")
    revision = preprocessing.get("revision") if isinstance(preprocessing, dict) else None
    if revision != PREPROCESSING_REVISION:
        raise RevisionUnknown(
            f"The bundle wants preprocessing revision {revision!r}; this release has revision "
            f"{PREPROCESSING_REVISION}. Another revision makes other pixels: install the "
            "medimg-edge that the bundle was made with, or export it again."
        )
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ManifestInvalid(f"manifest.json does not fit its schema: {error}.") from error
    _check(manifest)
    return manifest


def schema() -> dict[str, Any]:
    """The JSON Schema of ``manifest.json``."""
    return msgspec.json.schema(Manifest)


def _plain_json(data: bytes) -> dict[str, Any]:
    """Parse, refusing what parsers disagree on: two equal keys (msgspec takes the last), NaN."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ManifestInvalid(f"manifest.json has the key {key!r} twice in one object.")
            found[key] = value
        return found

    def no_constant(text: str) -> None:
        raise ManifestInvalid(f"manifest.json holds {text}, which is not JSON.")

    try:
        raw = json.loads(data.decode(), object_pairs_hook=unique, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"manifest.json is not JSON in UTF-8: {error}.") from error
    if not isinstance(raw, dict):
        raise ManifestInvalid("manifest.json is not a JSON object.")
    return raw


def _check(manifest: Manifest) -> None:
    """What a schema cannot say: that the parts fit each other."""
    findings = manifest.findings
    shape = manifest.preprocessing.shape
    rules = [
        (len(set(manifest.labels)) == len(manifest.labels), "two labels are equal"),
        (
            manifest.task != "binary" or len(manifest.labels) == 2,
            f"a binary task has 2 labels, not {len(manifest.labels)}",
        ),
        (
            tuple(manifest.input.shape) == shape,
            f"input.shape {manifest.input.shape} is not what preprocessing makes, {shape}",
        ),
        (
            "probability" in manifest.outputs
            and manifest.outputs["probability"].unit == "probability",
            "outputs has no 'probability' in the unit probability",
        ),
        (
            all(_fits(name, each, len(findings)) for name, each in manifest.outputs.items()),
            f"outputs do not fit the {len(findings)} labels that have a probability",
        ),
        (
            isinstance(manifest.preprocessing.intensity, Windows)
            or manifest.preprocessing.intensity.low < manifest.preprocessing.intensity.high,
            "preprocessing.intensity.low is not below high",
        ),
        (
            manifest.default_artifact in manifest.artifacts,
            f"default_artifact {manifest.default_artifact!r} is not among the artifacts",
        ),
        (
            set(manifest.decision) == set(manifest.artifacts),
            "decision does not name exactly the artifacts",
        ),
        (
            manifest.task == "multiclass"
            or all(set(points) == set(findings) for points in manifest.decision.values()),
            f"decision does not name exactly the labels {', '.join(findings)}",
        ),
        *_rules_of_screening(manifest),
        *_rules_of_risks(manifest),
        *_rules_of_reference(manifest),
    ]
    for holds, problem in rules:
        if not holds:
            raise ManifestInvalid(f"manifest.json contradicts itself: {problem}.")


def _rules_of_screening(manifest: Manifest) -> Iterator[tuple[bool, str]]:
    if manifest.screening is msgspec.UNSET or manifest.screening.novelty is None:
        return
    output = manifest.outputs.get("embedding")
    yield (
        output is not None and output.shape[-1:] not in ((), (None,)),
        "screening.novelty needs an output 'embedding' of a known length",
    )


def _rules_of_risks(manifest: Manifest) -> Iterator[tuple[bool, str]]:
    found = {} if manifest.risks is msgspec.UNSET else manifest.risks
    for artifact, by_label in found.items():
        yield (
            set(by_label) == set(manifest.findings),
            f"risks of {artifact} does not name exactly the labels {', '.join(manifest.findings)}",
        )
        risks = {tuple(sorted(each)) for each in by_label.values()}
        yield (
            len(risks) == 1 and risks != {()},
            f"risks of {artifact} are none, or not the same for every label",
        )
        yield (
            all(_is_share(each) for of in risks for each in of),
            f"risks of {artifact} are not numbers between 0 and 1, in their shortest form",
        )


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) < 1 and f"{float(text):g}" == text
    except ValueError:
        return False


def _rules_of_reference(manifest: Manifest) -> Iterator[tuple[bool, str]]:
    found = {} if manifest.reference is msgspec.UNSET else manifest.reference
    for artifact, each in found.items():
        counts = [
            *(of.counts for of in each.numbers.values()),
            *(tuple(of.values()) for of in each.decisions.values()),
            tuple(each.codes.values()),
        ]
        yield (
            each.images <= MAX_IMAGES and all(sum(of) <= each.images for of in counts),
            f"reference of {artifact} counts more images than there are",
        )
        yield (
            set(each.decisions) <= set(manifest.findings),
            f"reference of {artifact} has decisions on labels that have no probability",
        )
        yield (
            all(map(_is_histogram, each.numbers.values())),
            f"reference of {artifact} has numbers whose edges are not in order around the counts",
        )


def _is_histogram(found: Histogram) -> bool:
    edges = found.edges
    return len(edges) == len(found.counts) + 1 > 1 and list(edges) == sorted(edges)


def _fits(name: str, output: Output, findings: int) -> bool:
    """``probability`` is (N, C), ``heatmap`` (N, h, w, C), ``embedding`` (N, D)."""
    if output.shape[:1] != (None,):
        return False
    if name in ("probability", "heatmap"):
        return len(output.shape) == (2 if name == "probability" else 4) and (
            output.shape[-1] == findings
        )
    return name != "embedding" or len(output.shape) == 2
