"""A received image -> the records and files of its frames' answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import msgspec

from medimg_edge.classifier import Classifier, Prediction
from medimg_edge.dicom.answer import results
from medimg_edge.record import Failure, Record, dicom, encode


def answer(
    classifier: Classifier,
    data: bytes,
    *,
    identifier: str,
    kinds: Collection[str],
    name_of: Callable[[str], str],
) -> tuple[list[Record], dict[str, bytes]]:
    """A record for each frame, and files by name: ``sr.dcm``, ``sc.<label>.dcm``, ``json``.

    Of several frames each has a report, ``<frame>.sr.dcm``, and the one whose probability is the
    largest a picture; where a frame has no answer, the records are always among the files.

    identifier: what records call the image. kinds: of ``sr``, ``sc`` and ``json``. name_of: what
    stands for a UID.

    Raises InputError where nothing can be read.
    """
    records: list[Record] = []
    files: dict[str, bytes] = {}
    strongest: Prediction | None = None

    def add(prediction: Prediction, kind: str) -> None:
        if kind in kinds:
            files.update(_named(classifier, data, prediction, identifier, kind))

    for each in classifier.predict_frames(data, name=identifier):
        if isinstance(each, Failure):
            records.append(each)
            continue
        header = dicom(each.header, name_of) if each.header else None
        records.append(msgspec.structs.replace(each.record, dicom=header))
        add(each, "sr")
        if strongest is None or _largest(each) > _largest(strongest):
            strongest = each
    if strongest is not None:
        add(strongest, "sc")
    if "json" in kinds or any(isinstance(each, Failure) for each in records):
        files["json"] = b"".join(encode(each) + b"\n" for each in records)
    return records, files


def _largest(prediction: Prediction) -> float:
    return max(each.probability for each in prediction.findings)


def _named(
    classifier: Classifier, data: bytes, prediction: Prediction, identifier: str, kind: str
) -> Iterator[tuple[str, bytes]]:
    frame = prediction.record.frame
    made = results.make(
        data,
        prediction,
        classifier.manifest,
        classifier.points,
        identifier=identifier,
        kinds=(kind,),
        frame=frame,
    )
    for name, content in made.items():
        yield (name if frame is None else f"{frame}.{name}"), content
