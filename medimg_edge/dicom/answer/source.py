"""The image that was answered: whose it is, in which study, and how a result refers to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag, Tag

from medimg_edge.dicom.elements import integer, text
from medimg_edge.dicom.excerpt import excerpt
from medimg_edge.errors import DicomInvalid, DicomUnreferable

PATIENT = (  # PS3.3 C.7.1.1, whole
    "SpecificCharacterSet",
    "ReferencedPatientSequence",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "SourcePatientGroupIdentificationSequence",
    "GroupOfPatientsIdentificationSequence",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientBirthDateInAlternativeCalendar",
    "PatientDeathDateInAlternativeCalendar",
    "PatientAlternativeCalendar",
    "PatientSex",
    "QualityControlSubject",
    "StrainDescription",
    "StrainNomenclature",
    "StrainStockSequence",
    "StrainAdditionalInformation",
    "StrainCodeSequence",
    "GeneticModificationsSequence",
    "OtherPatientIDs",
    "OtherPatientNames",
    "OtherPatientIDsSequence",
    "ReferencedPatientPhotoSequence",
    "EthnicGroup",
    "EthnicGroupCodeSequence",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "PatientComments",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
)
STUDY = (  # PS3.3 C.7.2.1, by which an archive files an object
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
)
TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)
IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
IMAGE = ("Laterality", "ImageLaterality", "PatientOrientation", "BurnedInAnnotation")
"""What a picture of the image has in common with it."""

_WANTED = (*PATIENT, *STUDY, *IDENTITY, *IMAGE, "NumberOfFrames")


@dataclass(frozen=True, eq=False)
class Source:
    """The header of an image, which names its study, its series and itself.

    frame: the one that was answered, from 1; None for the whole image.
    """

    header: Dataset
    sop_class: str
    sop_instance: str
    study: str
    series: str
    frame: int | None

    def taken_over(self) -> Iterator[DataElement | RawDataElement]:
        """What a result shares with the image, byte by byte: its patient and its study.

        The bytes hold for a data set in explicit VR little endian. An element of type 2 that the
        image lacks is there, and empty.
        """
        for keyword in (*PATIENT, *STUDY):
            tag = Tag(keyword)
            if tag in self.header:
                yield self._exactly(tag)
            elif keyword in TYPE_2:
                yield DataElement(tag, dictionary_VR(tag), None)

    def element(self, keyword: str) -> DataElement | RawDataElement | None:
        """One other element, in the same way."""
        tag = Tag(keyword)
        return self._exactly(tag) if tag in self.header else None

    def reference(self) -> Dataset:
        """Image SOP Instance Reference Macro, PS3.3 10.3: to the frame where there are several."""
        item = Dataset()
        item.ReferencedSOPClassUID = self.sop_class
        item.ReferencedSOPInstanceUID = self.sop_instance
        if self.frame is not None:
            item.ReferencedFrameNumber = self.frame
        return item

    def words(self, text: str) -> str:
        """Text of our own, as a UT or ST of the image's character set holds it.

        Without a character set that is ASCII; pydicom writes "?" for what a set does not have.
        """
        if "SpecificCharacterSet" in self.header:
            return text
        return text.encode("ascii", "replace").decode()

    def line(self, text: str) -> str:
        """The same as an LO, PS3.5 6.2: one value of at most 64 characters.

        Of 64 bytes in UTF-8, to be exact, for some readers count those.
        """
        plain = "".join(each if each.isprintable() else " " for each in self.words(text))
        return plain.replace("\\", "/").encode()[:64].decode(errors="ignore").strip()

    def _exactly(self, tag: BaseTag) -> DataElement | RawDataElement:
        """Text as its bytes, whatever they are; a sequence is decoded, for its encoding changes."""
        element = self.header.get_item(tag)
        vr = dictionary_VR(tag)
        if isinstance(element, RawDataElement) and vr != "SQ":
            value = element.value or b""
            value += b" " * (len(value) % 2)
            return RawDataElement(tag, vr, len(value), value, 0, False, True)
        return self.header[tag]


def read(source: bytes | Dataset, frame: int | None = None) -> Source:
    """An image's file, or its header -> Source; of a file no more than the header is read.

    frame: from 1; an image of one frame is referred to as a whole.
    Raises DicomUnreferable where an image does not say which it is, DicomInvalid.
    """
    header = source if isinstance(source, Dataset) else excerpt(source, _WANTED)
    found = {keyword: text(header, keyword) for keyword in IDENTITY}
    missing = [keyword for keyword, value in found.items() if not value]
    if missing:
        raise DicomUnreferable(
            f"The DICOM file has no {' and no '.join(missing)}, without which no result can refer "
            "to it. Export the image again from the archive that holds it."
        )
    frames = integer(header, "NumberOfFrames", 1)
    if frame is not None and not 1 <= frame <= frames:
        raise DicomInvalid(f"Frame {frame} was answered, and the DICOM file has {frames}.")
    sop_class, sop_instance, study, series = map(str, found.values())
    return Source(header, sop_class, sop_instance, study, series, frame if frames > 1 else None)
