"""A received image -> the records and files of its frames' answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import msgspec

from medimg_edge.classifier import Classifier, Prediction
from medimg_edge.dicom.answer import results
from medimg_edge.errors import MachineFault
from medimg_edge.record import Answer, Failure, Record, dicom, encode


def answer(
    classifier: Classifier,
    data: bytes,
    *,
    identifier: str,
    kinds: Collection[str],
    name_of: Callable[[str], str],
) -> tuple[list[Record], dict[str, bytes]]:
    """A record for each frame, and files by name: ``sr.dcm``, ``sc.<label>.dcm``, ``json``.

    Of several frames all answers are in one report, and the one whose probability is the largest
    has a picture, ``<frame>.sc.<label>.dcm``; where a frame has no answer, the records are always
    among the files.

    identifier: what records call the image. kinds: of ``sr``, ``sc`` and ``json``. name_of: what
    stands for a UID.

    Raises InputError where nothing can be read, MachineFault where a frame cannot be now.
    """
    records: list[Record] = []
    strongest: Prediction | None = None
    for each in classifier.predict_frames(data, name=identifier):
        if isinstance(each, Failure):
            if each.code == MachineFault.code:
                raise MachineFault(each.message)
            records.append(each)
            continue
        header = dicom(each.header, name_of) if each.header else None
        records.append(msgspec.structs.replace(each.record, dicom=header))
        if strongest is None or _largest(each) > _largest(strongest):
            strongest = each
    answers = [each for each in records if isinstance(each, Answer)]
    files: dict[str, bytes] = {}
    if answers and "sr" in kinds:
        files["sr.dcm"] = results.make_report(
            data, answers, classifier.manifest, classifier.points, identifier=identifier
        )
    if strongest is not None and "sc" in kinds:
        files.update(_pictures(classifier, data, strongest, identifier))
    if "json" in kinds or len(answers) < len(records):
        files["json"] = b"".join(encode(each) + b"\n" for each in records)
    return records, files


def _largest(prediction: Prediction) -> float:
    return max(each.probability for each in prediction.findings)


def _pictures(
    classifier: Classifier, data: bytes, prediction: Prediction, identifier: str
) -> Iterator[tuple[str, bytes]]:
    frame = prediction.record.frame
    made = results.make(
        data,
        prediction,
        classifier.manifest,
        classifier.points,
        identifier=identifier,
        kinds=("sc",),
        frame=frame,
    )
    for name, content in made.items():
        yield (name if frame is None else f"{frame}.{name}"), content
