"""What every result is: an object in the study of its image, in a series of our own."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

from pydicom import Dataset, dcmwrite
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from medimg_edge import __version__
from medimg_edge.dicom import implementation
from medimg_edge.dicom.answer.source import Source
from medimg_edge.record import Answer

NOT_FOR_DIAGNOSIS = "Not for diagnosis"
_NAMESPACE = uuid.UUID("6187b2d4-da90-4dca-8ec1-dc5055f085c2")


@dataclass(frozen=True, eq=False)
class Provenance:
    """Of what, by whom and when a result is made.

    identifier: of the answered image; the same one gives the same UIDs.
    intended_use: as the bundle states it.
    made: local time.
    """

    source: Source
    record: Answer
    identifier: str
    intended_use: str
    made: datetime

    def uid(self, kind: str) -> UID:
        """The same for the same image, frame, model and kind: whoever sends twice, sends once."""
        return _uid(*self._model, self.identifier, self.source.frame, kind)

    def series_uid(self, kind: str) -> UID:
        """The same for all frames of an image."""
        return _uid(*self._model, self.identifier, kind)

    @property
    def model_uid(self) -> UID:
        """Of what answers: the bundle, its artifact, and the site profile that calibrates it."""
        return _uid(*self._model)

    @property
    def _model(self) -> tuple[str, str, str | None]:
        return self.record.model.hash, self.record.artifact, self.record.profile

    def instance(self, sop_class: str, kind: str, *, series: str, number: int) -> Dataset:
        """The modules that all results have; what is special is added to it.

        Patient, General Study and parts of General Series, General Equipment and SOP Common:
        PS3.3 C.7.1.1, C.7.2.1, C.7.3.1, C.7.5.1, C.12.1. ``encode`` writes it.
        """
        model, line = self.record.model, self.source.line
        dataset = Dataset()
        dataset.SOPClassUID = sop_class
        dataset.SOPInstanceUID = self.uid(kind)
        dataset.InstanceNumber = number
        dataset.SeriesInstanceUID = self.series_uid(series)
        dataset.SeriesDescription = line(f"{NOT_FOR_DIAGNOSIS}: {model.name}")
        dataset.Manufacturer = implementation.MANUFACTURER
        dataset.ManufacturerModelName = line(model.name)
        dataset.SoftwareVersions = [
            line(model.version),
            f"{implementation.MANUFACTURER} {__version__}",
        ]
        for event in ("InstanceCreation", "Content"):
            setattr(dataset, f"{event}Date", self.made.strftime("%Y%m%d"))
            setattr(dataset, f"{event}Time", self.made.strftime("%H%M%S.%f"))
        for element in self.source.taken_over():
            dataset[element.tag] = element
        return dataset


def _uid(*parts: object) -> UID:
    """PS3.5 B.2, of a UUID that is a digest of the parts (RFC 9562, version 5)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(parts)).int}")


def encode(dataset: Dataset) -> bytes:
    """A Part 10 file in explicit VR little endian."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.ImplementationClassUID = UID(implementation.CLASS_UID)
    dataset.file_meta.ImplementationVersionName = implementation.VERSION_NAME
    dataset.set_original_encoding(False, True, _encodings(dataset))  # bytes are written as bytes
    file = BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def _encodings(dataset: Dataset) -> str | list[str]:
    """As pydicom has it of a data set that was read: then it takes bytes for encoded already."""
    if "SpecificCharacterSet" not in dataset:
        return default_encoding
    return convert_encodings(dataset.SpecificCharacterSet)
