"""The record of one answer, version 1: as printed, stored and served.

An input ends in one ``Answer`` or one ``Failure``; a Failure carries no probability.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from medimg_edge.errors import MedimgEdgeError, Rejected
from medimg_edge.terms import MODALITIES, RELATIONSHIPS, VIEWS, regions

if TYPE_CHECKING:
    from medimg_edge.image import Header

SCHEMA = 1


class Finding(msgspec.Struct, frozen=True):
    """One label that was asked for. ``probability`` in [0, 1], calibrated on validation."""

    label: str
    probability: float
    decision: str


class Model(msgspec.Struct, frozen=True):
    """Which bundle answered; ``hash`` is the SHA-256 of its manifest."""

    name: str
    version: str
    hash: str


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of an image's looks, so that drift is seen without the image.

    Of the tensor that the network sees: brightness, the mean grey level, and contrast, its standard
    deviation, in 0..255; sharpness, the mean difference of each row to the next. novelty: how
    unlike the training images it is; above 1 it is turned away. Null where the bundle does not say.
    """

    brightness: float
    contrast: float
    sharpness: float
    novelty: float | None = None


class Dicom(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the header of a DICOM input said; see ``image.Header``. No word of a patient.

    modality, body_part, view: terms of the Standard. instance, series: what stands for their UIDs,
    by default salted hashes.
    """

    instance: str | None = None
    series: str | None = None
    modality: str | None = None
    body_part: str | None = None
    view: str | None = None
    spacing: tuple[float, float] | None = None
    orientation: tuple[float, ...] | None = None
    position: tuple[float, ...] | None = None
    burned_in: bool | None = None
    lossy: bool = False
    relationship: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An input that was read and answered.

    ``frame``, from 1, is one of ``frames``; both are null where the input has one.

    ``label``, ``probability`` and ``decision`` repeat the finding of a binary task, or the answered
    label of a multiclass one; they are null for multilabel. ``decision`` is ``positive``,
    ``negative`` or ``refer``; for multiclass the label, or ``refer`` under a risk.

    risk: how often the true label may be missing in ``possible``, the labels that cannot be ruled
    out; both null unless that was asked for, and ``possible`` for multilabel.
    """

    schema: int = SCHEMA
    input: str
    frame: int | None = None
    frames: int | None = None
    status: Literal["ok"] = "ok"
    findings: tuple[Finding, ...]
    label: str | None
    probability: float | None
    decision: str | None
    warnings: tuple[str, ...] = ()
    artifact: str
    runtime: str
    model: Model
    profile: str | None = None
    elapsed_ms: float
    dicom: Dicom | None = None
    measured: Measured | None = None
    risk: float | None = None
    possible: tuple[str, ...] | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An input that was not answered: ``error`` (not a whole image) or ``rejected``.

    ``frame`` is that of an Answer, or the one that was asked for where ``frames`` is not known.
    """

    schema: int = SCHEMA
    input: str
    frame: int | None = None
    frames: int | None = None
    status: Literal["error", "rejected"]
    code: str
    message: str
    measured: Measured | None = None


class Extreme(msgspec.Struct, frozen=True):
    """One label over a series: the largest and the mean probability, and the largest's image."""

    label: str
    maximum: float
    mean: float
    input: str
    frame: int | None = None


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers of a series say together, behind them.

    ``input`` is the folder that holds them, ``series`` what stands for its UID; null where that is
    not told.
    """

    schema: int = SCHEMA
    input: str
    status: Literal["series"] = "series"
    series: str | None
    images: int
    answered: int
    findings: tuple[Extreme, ...]


Record = Answer | Failure
"""Of an input, or of one of its frames."""

Told = Record | Series
"""What is printed."""


def failure(
    name: str, error: MedimgEdgeError, frame: int | None = None, frames: int | None = None
) -> Failure:
    """The record of an input, or one of its frames, that ended in one of our errors."""
    status = "rejected" if isinstance(error, Rejected) else "error"
    return Failure(
        input=printable(name),
        frame=frame,
        frames=frames,
        status=status,
        code=error.code,
        message=printable(error.message),
        measured=_measured(error),
    )


def _measured(error: MedimgEdgeError) -> Measured | None:
    found = error.measured if isinstance(error, Rejected) else None
    return found if isinstance(found, Measured) else None


def dicom(header: "Header", name_of: Callable[[str], str | None] | None = None) -> Dicom:
    """What a record tells of a header. name_of: what stands for a UID; without it none is told."""

    def named(uid: str | None) -> str | None:
        return name_of(uid) if uid and name_of else None

    return Dicom(
        instance=named(header.instance),
        series=named(header.series),
        modality=header.modality if header.modality in MODALITIES else None,
        body_part=header.body_part if header.body_part and regions(header.body_part) else None,
        view=header.view if header.view in VIEWS else None,
        spacing=header.spacing,
        orientation=header.orientation,
        position=header.position,
        burned_in=header.burned_in,
        lossy=header.lossy,
        relationship=header.relationship if header.relationship in RELATIONSHIPS else None,
    )


def printable(text: str) -> str:
    """Text that JSON can hold: bytes of a path that are not UTF-8 become escapes."""
    return text.encode(errors="backslashreplace").decode()


def encode(record: Told) -> bytes:
    """One line of JSON, without the newline."""
    return msgspec.json.encode(record)


def schema() -> dict[str, Any]:
    """The JSON Schema of a record."""
    either, components = msgspec.json.schema_components(
        [Answer, Failure, Series], ref_template="#/$defs/{name}"
    )
    return {"anyOf": list(either), "$defs": components}
