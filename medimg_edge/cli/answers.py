"""Inputs -> records, files of them, and lines: what ``infer`` prints and writes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import msgspec

from medimg_edge.batch import in_order
from medimg_edge.classifier import Classifier, Prediction
from medimg_edge.cli.output import Sink, warn
from medimg_edge.errors import ArtifactUnknown, InputError, MedimgEdgeError, WriteError
from medimg_edge.heatmap import encode_png, overlay
from medimg_edge.inputs import Input
from medimg_edge.record import Answer, Failure, Record, Told, dicom, encode, failure
from medimg_edge.record_lines import CSV_HEADER, csv_lines, json_line
from medimg_edge.whole_file import SECRET, write_whole

if TYPE_CHECKING:
    from medimg_edge.dicom.pseudonym import Pseudonyms

Write = Callable[[Told | None], None]
Keep = Callable[[Path, Prediction], None]
"""What is kept of an answer beside its record, such as heatmaps. Raises MedimgEdgeError."""


def answer(
    classifier: Classifier,
    inputs: Iterable[Input],
    *,
    names: Names,
    frame: int | None = None,
    cores: int | None = None,
    keep: Collection[Keep] = (),
    again: Callable[[Path], bool] | None = None,
) -> Iterator[list[Record]]:
    """The records of each input, in order: one, or one for each of its frames.

    frame: the only one that is answered of an input with several.
    again: whether a file that is no whole image will come once more, and has no record yet.
    """

    def one(each: Input) -> list[Record]:
        try:
            if each.error is not None:
                raise each.error
            answered = classifier.predict_frames(each.path, frame=frame)
            return [told(each.path, prediction) for prediction in answered]
        except WriteError:
            raise
        except MedimgEdgeError as error:
            if again and not each.error and isinstance(error, InputError) and again(each.path):
                return []
            return [failure(os.fspath(each.path), error, frame)]

    def told(path: Path, prediction: Prediction | Failure) -> Record:
        if isinstance(prediction, Failure):
            return msgspec.structs.replace(prediction, frame=prediction.frame or frame)
        for each in keep:
            each(path, prediction)
        return names.told(prediction)

    return (records for records in in_order(one, inputs, classifier.at_once(cores)) if records)


class Names:
    """What stands for DICOM UIDs in records: by default what only this user's secret makes of them.

    plain: the UIDs themselves. Where there is no secret nothing does, and a warning says so.
    """

    def __init__(self, plain: bool = False) -> None:
        self._plain, self._asked, self._lock = plain, False, Lock()
        self._pseudonyms: Pseudonyms | None = None

    def of(self, uid: str) -> str | None:
        """From any thread."""
        if self._plain:
            return uid
        with self._lock:
            if not self._asked:
                self._asked, self._pseudonyms = True, _pseudonyms()
        return self._pseudonyms.of(uid) if self._pseudonyms else None

    def told(self, prediction: Prediction) -> Answer:
        """The record with them."""
        if prediction.header is None:
            return prediction.record
        header = dicom(prediction.header, self.of)
        return msgspec.structs.replace(prediction.record, dicom=header)


def _pseudonyms() -> Pseudonyms | None:
    from medimg_edge import secret, state
    from medimg_edge.dicom.pseudonym import Pseudonyms

    try:
        if folder := state.folder():
            return Pseudonyms(secret.kept(folder / "uids.secret"))
        problem = f"There is no folder for the secret that hides them; {state.VARIABLE} names one."
    except WriteError as error:
        problem = error.message
    warn(f"Records do not tell DICOM UIDs. {problem} --identify tells the UIDs themselves.")
    return None


@dataclass(frozen=True)
class Beside:
    """Where what belongs to an answer goes: below ``folder`` as the images lie below ``base``."""

    folder: Path
    base: Path

    def hold(self, path: Path) -> bool:
        """Whether a file is one of them, in a folder that is searched for images."""
        return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(self.folder))

    def write(
        self, image: Path, frame: int | None, ending: str, data: bytes, mode: int | None = None
    ) -> None:
        """Write ``<image>[.<frame>].<ending>``; of a ``mode``, whole or not at all.

        Raises WriteError.
        """
        relative = self._relative(image)
        numbered = relative.name if frame is None else f"{relative.name}.{frame}"
        path = self.folder / relative.parent / f"{numbered}.{ending}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if mode is not None:
                write_whole(path, data, mode)
            else:
                path.write_bytes(data)
        except OSError as error:
            raise WriteError(f"{path} was not written: {error.strerror}.") from error

    def _relative(self, image: Path) -> Path:
        """Below ``base``; of an image elsewhere, the whole path without its root."""
        whole = Path(os.path.abspath(image))
        base = os.path.abspath(self.base)
        return whole.relative_to(base if whole.is_relative_to(base) else whole.anchor)


@dataclass(frozen=True)
class Heatmaps:
    """One picture for each finding."""

    where: Beside

    def require_of(self, classifier: Classifier) -> None:
        """Raise ArtifactUnknown where the model makes none."""
        if "heatmap" not in classifier.manifest.outputs:
            raise ArtifactUnknown(
                "The bundle's model makes no heatmap (its head is not pooling and one dense "
                "layer). Leave out --heatmap."
            )

    def __call__(self, image: Path, prediction: Prediction) -> None:
        """Write them. Raises WriteError."""
        assert prediction.heatmap is not None
        for column, finding in enumerate(prediction.findings):
            picture = encode_png(overlay(prediction.pixels, prediction.heatmap[..., column]))
            label = re.sub(r"[^\w.-]", "_", finding.label)
            self.where.write(image, prediction.record.frame, f"{label}.png", picture)


@dataclass(frozen=True)
class Results:
    """What an archive keeps of an answer: a DICOM report and captures, and the record.

    kinds: of ``sr``, ``sc`` and ``json``; the first two of DICOM inputs alone, and a warning says
    so once. They name the patient, so the files are their owner's alone.
    """

    where: Beside
    kinds: Collection[str]
    classifier: Classifier
    names: Names = field(default_factory=Names)
    _first: Lock = field(default_factory=Lock)

    def __call__(self, image: Path, prediction: Prediction) -> None:
        """Write them. Raises MedimgEdgeError."""
        frame, header = prediction.record.frame, prediction.header
        if "json" in self.kinds:
            line = encode(self.names.told(prediction)) + b"\n"
            self.where.write(image, frame, "json", line, SECRET)
        kinds = set(self.kinds) - {"json"}
        if not kinds:
            return
        if header is None:
            if self._first.acquire(blocking=False):  # and never again
                warn(
                    f"{image} is no DICOM image, and may not be the only one: reports and pictures "
                    "(sr, sc) are made of DICOM images alone."
                )
            return
        from medimg_edge.dicom.answer import results

        made = results.make(
            image.read_bytes(),
            prediction,
            self.classifier.manifest,
            self.classifier.points,
            identifier=header.instance or "",
            kinds=kinds,
            frame=frame,
        )
        for name, data in made.items():
            self.where.write(image, frame, name, data, SECRET)


def writer(shape: str, sink: Sink) -> Write:
    """What takes each record, and None at the end."""
    return {"jsonl": _jsonl, "json": _json, "csv": _csv, "table": _table}[shape](sink)


def _jsonl(sink: Sink) -> Write:
    def write(record: Told | None) -> None:
        if record is not None:
            sink.write(json_line(record))

    return write


def _json(sink: Sink) -> Write:
    separator = "[\n"

    def write(record: Told | None) -> None:
        nonlocal separator
        if record is not None:
            sink.write(separator + encode(record).decode())
            separator = ",\n"
        else:
            sink.write("\n]\n" if separator == ",\n" else "[]\n")

    return write


def _csv(sink: Sink) -> Write:
    header = CSV_HEADER

    def write(record: Told | None) -> None:
        nonlocal header
        sink.write(header + (csv_lines(record) if record is not None else ""))
        header = ""

    return write


def _table(sink: Sink) -> Write:
    """For people: one line an image as it is answered; the reason where there is no answer."""

    def write(record: Told | None) -> None:
        if record is None:
            return
        if record.status == "series":
            for each in record.findings:
                at = f"{each.input}{f' {each.frame}' if each.frame else ''}"
                sink.write(
                    f"{f'series of {record.images}, {record.answered} answered':<44}  {each.label} "
                    f"at most {each.maximum:.3f} ({at}), mean {each.mean:.3f}\n"
                )
            return
        numbered = f" {record.frame}/{record.frames}" if record.frames else ""
        room = 44 - len(numbered)
        name = record.input if len(record.input) <= room else "..." + record.input[3 - room :]
        name += numbered
        if record.status != "ok":
            sink.write(f"{name:<44}  {record.status}: {record.message} [{record.code}]\n")
            return
        for finding in record.findings:
            sink.write(
                f"{name:<44}  {finding.label} {finding.probability:.3f}  {finding.decision}\n"
            )
        for warning in record.warnings:
            sink.write(f"{'':<44}  warning: {warning}\n")

    return write
