"""Inputs -> records, and records -> lines: what ``infer`` prints."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from medimg_edge.classifier import Classifier, Prediction
from medimg_edge.cli.output import Sink
from medimg_edge.errors import ArtifactUnknown, MedimgEdgeError, WriteError
from medimg_edge.heatmap import encode_png, overlay
from medimg_edge.reader import find_images
from medimg_edge.record import Record, encode, failure

CSV_COLUMNS = (
    *("input", "status", "label", "probability", "decision", "artifact", "elapsed_ms"),
    *("model", "model_hash", "code", "message", "warnings", "profile"),
)

Write = Callable[[Record | None], None]


def answer(
    classifier: Classifier,
    inputs: Iterable[Path],
    heatmaps: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[Record]:
    """One record for each image; a folder is searched, and is one record if it has none."""
    if heatmaps is not None and "heatmap" not in classifier.manifest.outputs:
        raise ArtifactUnknown(
            "The bundle's model makes no heatmap (its head is not pooling and one dense layer). "
            "Leave out --heatmap."
        )
    inputs = list(inputs)
    found = list(_images(inputs))
    names = [path for path, _ in found]
    base = _base(inputs, names)
    for at, (path, error) in enumerate(found, start=1):
        if progress:
            progress("answering", at, len(found))
        try:
            if error is not None:
                raise error
            prediction = classifier.predict(path)
        except MedimgEdgeError as failed:
            yield failure(os.fspath(path), failed)
            continue
        yield prediction.record
        if heatmaps is not None:
            _write_heatmaps(heatmaps, _relative(path, base), prediction)


def writer(shape: str, sink: Sink) -> Write:
    """What takes each record, and None at the end."""
    return {"jsonl": _jsonl, "json": _json, "csv": _csv, "table": _table}[shape](sink)


def _images(inputs: Iterable[Path]) -> Iterator[tuple[Path, MedimgEdgeError | None]]:
    for path in inputs:
        if not os.path.isdir(path):
            yield path, None
            continue
        try:
            for image in find_images(path):
                yield image, None
        except MedimgEdgeError as error:
            yield path, error


def _base(inputs: list[Path], images: list[Path]) -> Path:
    """What heatmap paths are relative to: the one folder that was given, else what all share."""
    folders = [os.path.abspath(path) for path in inputs if os.path.isdir(path)]
    parents = [os.path.abspath(image.parent) for image in images]
    if len(folders) == 1 and all(Path(each).is_relative_to(folders[0]) for each in parents):
        return Path(folders[0])
    return Path(os.path.commonpath(parents))


def _relative(path: Path, base: Path) -> Path:
    return Path(os.path.relpath(path, base))


def _write_heatmaps(folder: Path, relative: Path, prediction: Prediction) -> None:
    assert prediction.heatmap is not None
    for column, finding in enumerate(prediction.findings):
        label = re.sub(r"[^\w.-]", "_", finding.label)
        path = folder / relative.parent / f"{relative.name}.{label}.png"
        picture = encode_png(overlay(prediction.pixels, prediction.heatmap[..., column]))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
        except OSError as error:
            raise WriteError(f"The heatmap {path} was not written: {error.strerror}.") from error


def _jsonl(sink: Sink) -> Write:
    def write(record: Record | None) -> None:
        if record is not None:
            sink.write(encode(record).decode() + "\n")

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
    """One row for each finding, so that a multilabel answer loses nothing."""
    text = io.StringIO()
    rows = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\n")
    rows.writeheader()

    def write(record: Record | None) -> None:
        if record is not None:
            rows.writerows(_csv_rows(record))
        sink.write(text.getvalue())
        text.seek(0)
        text.truncate()

    return write


def _csv_rows(record: Record) -> list[dict[str, object]]:
    common = {"input": record.input, "status": record.status}
    if record.status != "ok":
        return [{**common, "code": record.code, "message": record.message}]
    common |= {
        "artifact": record.artifact,
        "elapsed_ms": record.elapsed_ms,
        "model": f"{record.model.name} {record.model.version}",
        "model_hash": record.model.hash,
        "warnings": "; ".join(record.warnings),
        "profile": record.profile or "",
    }
    return [
        {
            **common,
            "label": finding.label,
            "probability": finding.probability,
            "decision": finding.decision,
        }
        for finding in record.findings
    ]


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
