"""What the service and the process that answers say to each other.

A message is two lengths, of 4 and 8 bytes, little endian, a JSON object of the first and a payload
of the second: an image, a view, or a picture.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

from medimg_edge.errors import MedimgEdgeError
from medimg_edge.manifest import OperatingPoint

HEAD = struct.Struct("<IQ")

STEP_SECONDS = 8.0
"""To load a model, or to answer one image of its golden set: a small device needs less than two."""

Status = Literal["ok", "rejected", "error"]
Layer = Literal["image", "heat", "overlay"]


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """The first message: what is to answer. profile: a site profile, ``auto``, or none.

    bundle: its folder. hash: of the one that it has to be, where that is known. name: whatever is
    installed by it answers, and the folder only where nothing is; the start is counted.
    risk: see ``Classifier``. trusted: the folder of the keys that may have signed it, by default
    that of ``trust``. memory_bytes: that answers may take beyond what is loaded.
    """

    bundle: str
    artifact: str
    profile: str | None
    force: bool
    memory_bytes: int
    hash: str | None = None
    name: str | None = None
    risk: float | None = None
    trusted: str | None = None
    allow_unsigned: bool = False


class Golden(msgspec.Struct, frozen=True):
    """That the golden set has passed. max_difference: the largest |dp|; passed_at: RFC 3339.

    note: what is to be said of it, where a difference is unusual.
    """

    cases: int
    max_difference: float
    passed_at: str
    note: str | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What answers, for whom it is, and how good it was.

    hash: of the bundle; profile: of the site profile. operating_points: by label; none for
    multiclass. metrics: of the artifact, on the test images of its training. risk: beyond which is
    referred, null where none was stated. signer: the name of the trusted key that signed it, null
    where unsigned bundles are allowed.
    """

    name: str
    version: str
    hash: str
    task: Literal["binary", "multiclass", "multilabel"]
    labels: tuple[str, ...]
    findings: tuple[str, ...]
    intended_use: str
    modality: tuple[str, ...]
    body_part: tuple[str, ...]
    view: tuple[str, ...]
    artifact: str
    runtime: str
    threads: int
    profile: str | None
    operating_points: dict[str, OperatingPoint]
    metrics: dict[str, float | None]
    has_heatmap: bool
    golden: Golden
    risk: float | None = None
    signer: str | None = None


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The answer to ``Setup``: images may come. notes: what the operator should read.

    folder: where the bundle lies that ``Setup`` meant.
    """

    facts: Facts
    folder: str
    notes: tuple[str, ...] = ()


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """The answer to ``Setup``: this bundle must not answer here.

    passing: it may be otherwise when it is tried again, such as with more memory, or since the name
    then means the bundle before. folder, hash: of the bundle, where it was come so far.
    """

    code: str
    message: str
    passing: bool = False
    folder: str | None = None
    hash: str | None = None


class AskAnswer(msgspec.Struct, frozen=True, tag="answer"):
    """Answer the image that is the payload; see ``Classifier.predict``."""

    name: str
    frame: int | None


class AskPicture(msgspec.Struct, frozen=True, tag="picture"):
    """Draw the view that is the payload. label: of the heatmap."""

    layer: Layer
    label: str | None


class Answer(msgspec.Struct, frozen=True, tag="answered"):
    """An image's record; the payload is its view, or nothing.

    fault: where in medimg-edge something went wrong that nobody expected.
    """

    status: Status
    code: str | None
    decision: str | None
    record: msgspec.Raw
    fault: str | None = None


class Picture(msgspec.Struct, frozen=True, tag="pictured"):
    """The payload is a PNG, unless there is a code, and a message for a person."""

    code: str | None = None
    message: str = ""
    fault: str | None = None


Ask = AskAnswer | AskPicture
Told = Ready | Refusal | Answer | Picture


def packed(message: Setup | Ask | Told, payload_bytes: int) -> bytes:
    """A message, up to its payload."""
    encoded = msgspec.json.encode(message)
    return HEAD.pack(len(encoded), payload_bytes) + encoded


def error_of(code: str, message: str) -> MedimgEdgeError:
    """The error of a code; one of medimg-edge's own faults where there is none."""
    kinds = [MedimgEdgeError]
    for kind in kinds:
        if kind.code == code:
            return kind(message)
        kinds.extend(kind.__subclasses__())
    return MedimgEdgeError(message)
