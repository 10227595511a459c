"""Inputs -> records, and records -> lines: what ``infer`` prints."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medimg_edge.batch import in_order
from medimg_edge.classifier import Classifier, Prediction
from medimg_edge.cli.output import Sink
from medimg_edge.errors import ArtifactUnknown, InputError, MedimgEdgeError, WriteError
from medimg_edge.heatmap import encode_png, overlay
from medimg_edge.inputs import Input
from medimg_edge.record import Record, encode, failure
from medimg_edge.record_lines import CSV_HEADER, csv_lines, json_line

Write = Callable[[Record | None], None]


def answer(
    classifier: Classifier,
    inputs: Iterable[Input],
    *,
    cores: int | None = None,
    heatmaps: Heatmaps | None = None,
    again: Callable[[Path], bool] | None = None,
) -> Iterator[Record]:
    """One record for each input, in order.

    again: whether a file that is no whole image will come once more, and has no record yet.
    """

    def one(each: Input) -> Record | None:
        try:
            if each.error is not None:
                raise each.error
            prediction = classifier.predict(each.path)
        except MedimgEdgeError as error:
            if again and not each.error and isinstance(error, InputError) and again(each.path):
                return None
            return failure(os.fspath(each.path), error)
        if heatmaps is not None:
            heatmaps.write(each.path, prediction)
        return prediction.record

    for record in in_order(one, inputs, classifier.at_once(cores)):
        if record is not None:
            yield record


@dataclass(frozen=True)
class Heatmaps:
    """Where heatmaps go: below ``folder`` as the images lie below ``base``."""

    folder: Path
    base: Path

    def require_of(self, classifier: Classifier) -> None:
        """Raise ArtifactUnknown where the model makes none."""
        if "heatmap" not in classifier.manifest.outputs:
            raise ArtifactUnknown(
                "The bundle's model makes no heatmap (its head is not pooling and one dense "
                "layer). Leave out --heatmap."
            )

    def hold(self, path: Path) -> bool:
        """Whether a picture is one of them, in a folder that is searched for images."""
        return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(self.folder))

    def write(self, image: Path, prediction: Prediction) -> None:
        """One picture for each finding. Raises WriteError."""
        assert prediction.heatmap is not None
        relative = self._relative(image)
        for column, finding in enumerate(prediction.findings):
            label = re.sub(r"[^\w.-]", "_", finding.label)
            path = self.folder / relative.parent / f"{relative.name}.{label}.png"
            picture = encode_png(overlay(prediction.pixels, prediction.heatmap[..., column]))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(picture)
            except OSError as error:
                raise WriteError(
                    f"The heatmap {path} was not written: {error.strerror}."
                ) from error

    def _relative(self, image: Path) -> Path:
        """Below ``base``; of an image elsewhere, the whole path without its root."""
        whole = Path(os.path.abspath(image))
        base = os.path.abspath(self.base)
        return whole.relative_to(base if whole.is_relative_to(base) else whole.anchor)


def writer(shape: str, sink: Sink) -> Write:
    """What takes each record, and None at the end."""
    return {"jsonl": _jsonl, "json": _json, "csv": _csv, "table": _table}[shape](sink)


def _jsonl(sink: Sink) -> Write:
    def write(record: Record | None) -> None:
        if record is not None:
            sink.write(json_line(record))

    return write


def _json(sink: Sink) -> Write:
    separator = "[\n"

    def write(record: Record | None) -> None:
        nonlocal separator
        if record is not None:
            sink.write(separator + encode(record).decode())
            separator = ",\n"
        else:
            sink.write("\n]\n" if separator == ",\n" else "[]\n")

    return write


def _csv(sink: Sink) -> Write:
    header = CSV_HEADER

    def write(record: Record | None) -> None:
        nonlocal header
        sink.write(header + (csv_lines(record) if record is not None else ""))
        header = ""

    return write


def _table(sink: Sink) -> Write:
    """For people: one line an image as it is answered; the reason where there is no answer."""

    def write(record: Record | None) -> None:
        if record is None:
            return
        name = record.input if len(record.input) <= 44 else "..." + record.input[-41:]
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
