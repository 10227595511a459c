"""One answer -> the DICOM files that an archive keeps of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from pydicom import Dataset

from medimg_edge.dicom.answer import KINDS
from medimg_edge.dicom.answer.instance import Provenance, encode
from medimg_edge.dicom.answer.source import read
from medimg_edge.dicom.quiet import quiet
from medimg_edge.errors import DicomInvalid, ExtraMissing, MedimgEdgeError
from medimg_edge.manifest import Manifest, OperatingPoint
from medimg_edge.record import Answer

if TYPE_CHECKING:
    from medimg_edge.classifier import Prediction


def make(
    source: bytes | Dataset,
    prediction: Prediction,
    manifest: Manifest,
    points: Mapping[str, OperatingPoint],
    *,
    identifier: str,
    kinds: Collection[str] = KINDS,
    frame: int | None = None,
    made: datetime | None = None,
) -> dict[str, bytes]:
    """Part 10 files by name: ``sr.dcm``, and ``sc.<label>.dcm`` for each finding with a heatmap.

    source: the image's file, of which the header is read, or that header.
    manifest: states the intended use, which the results repeat.
    points: as ``Classifier.points``, none for multiclass.
    identifier: stands for the image in the UIDs of the results, which are the same whenever image,
        frame, bundle, artifact and site profile are.
    frame: the one that was answered, from 1.
    made: local time; by default now.

    Raises DicomUnreferable, DicomInvalid; ExtraMissing where there is no highdicom for a report.
    """
    with _made():
        origin = Provenance(
            source=read(source, frame),
            record=prediction.record,
            identifier=identifier,
            intended_use=manifest.intended_use,
            made=made or datetime.now(),
        )
        return _files(origin, prediction, points, kinds)


def make_report(
    source: bytes | Dataset,
    answers: Sequence[Answer],
    manifest: Manifest,
    points: Mapping[str, OperatingPoint],
    *,
    identifier: str,
    made: datetime | None = None,
) -> bytes:
    """One report about an image: the answers of all its frames, or the one where it has one.

    The rest is as of ``make``.
    """
    with _made():
        from medimg_edge.dicom.answer.report import report

        image = Provenance(
            source=read(source),
            record=answers[0],
            identifier=identifier,
            intended_use=manifest.intended_use,
            made=made or datetime.now(),
        )
        frames = [
            replace(image, record=each, source=replace(image.source, frame=each.frame))
            for each in answers
        ]
        return encode(report(image, frames, points))


@contextmanager
def _made() -> Iterator[None]:
    """The edge, and quiet: what goes wrong in the block is one of our errors, or MemoryError."""
    with quiet():
        try:
            yield
        except (MedimgEdgeError, MemoryError):
            raise
        except ImportError as error:
            raise ExtraMissing(
                f"A DICOM report needs {error.name}, which is not installed: "
                "pip install 'medimg-edge[dicom]'"
            ) from error
        except Exception as error:  # the one edge: its text may hold the patient's name
            raise DicomInvalid(
                f"No result can be made of the DICOM file's header ({type(error).__name__}). It is "
                "damaged or breaks the Standard: export it again from its source."
            ) from error


def _files(
    origin: Provenance,
    prediction: Prediction,
    points: Mapping[str, OperatingPoint],
    kinds: Collection[str],
) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    if "sr" in kinds:
        from medimg_edge.dicom.answer.report import report

        files["sr.dcm"] = encode(report(origin, [origin], points))
    if "sc" in kinds and prediction.heatmap is not None:
        from medimg_edge.dicom.answer.capture import capture

        for column, finding in enumerate(prediction.findings):
            picture = capture(origin, prediction, column, points.get(finding.label))
            files[_name(finding.label, column, files)] = encode(picture)
    return files


def _name(label: str, column: int, taken: Collection[str]) -> str:
    """A file name for any label; where two labels make the same, the later one has its number."""
    plain = re.sub(r"[^\w.-]", "_", label)[:100]
    name = f"sc.{plain}.dcm"
    return f"sc.{plain}.{column}.dcm" if name in taken else name
