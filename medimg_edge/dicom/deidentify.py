"""A DICOM image without whose it is: PS3.15 annex E, the Basic Confidentiality Profile.

What becomes of each attribute is Table E.1-1 of the Standard, as the package dicom-anonymizer
generates it. The table is applied here, for three reasons: to every item of every sequence, with
identifiers that are the same in every run, and so that what cannot be judged is removed.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from typing import Any, Literal

from pydicom import DataElement, Dataset, FileDataset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import empty_value_for_VR
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medimg_edge.dicom import implementation
from medimg_edge.dicom.elements import text
from medimg_edge.dicom.needed import is_needed
from medimg_edge.dicom.pseudonym import Pseudonyms
from medimg_edge.dicom.quiet import quiet
from medimg_edge.dicom.read import DicomFile
from medimg_edge.errors import BurnedIn, DicomInvalid, ExtraMissing, InputError

Action = Literal["X", "Z", "D", "U", "K"]
"""Remove, empty, replace by a dummy, replace the UID, keep: PS3.15 E.3, Table E.1-1."""

EDITION = "2026c"
"""Of the Standard whose table is applied."""

_LAST_WORDS: Mapping[str, Action] = {
    "D": "D",
    "Z": "Z",
    "X": "X",
    "U": "U",
    "Z_D": "D",
    "X_Z": "Z",
    "X_D": "D",
    "X_Z_D": "D",
    "X_Z_U_STAR": "K",  # sequences of references: their items hold the UIDs
}
"""Of the actions that the table leaves to choose from, the one that keeps any object valid."""

_SPEAKING = frozenset({"PN", "DA", "DT", "TM", "AS", "AE", "LT", "ST", "UT", "UC", "UR", "UN"})
"""Value representations that name somebody, a time or a place, or may say anything."""

_NO_NUMBER = re.compile(rb"[^-+.0-9eE\\ \0]")
"""In a number that is written as text: PS3.5 6.2, DS and IS."""

_REQUIRED = frozenset({0x00201040})
"""Not needed, but to be there, empty: PositionReferenceIndicator, PS3.3 C.7.4.1."""

_DUMMIES: Mapping[str, Any] = {
    "DA": "19000101",
    "TM": "000000",
    "DT": "19000101000000",
    "AS": "000Y",
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED"),
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"), 0),
}

_OVERLAYS, _OVERLAY_POSITION, _OVERLAY_DATA = 0x6000, 0x0102, 0x3000  # 60xx

_OFTEN_BURNED_IN = frozenset({"US", "IVUS", "ES", "XC", "SC", "OT"})
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class Identity:
    """Who an image is of and which it is: PS3.3 C.7.1.1, C.7.2.1, C.7.3.1, C.12.1."""

    patient: str
    study: str
    series: str
    instance: str


@dataclass(frozen=True)
class Deidentified:
    """A file that may travel.

    data: its bytes. before, after: the identity that it had, which is secret, and its new one.
    after.patient is 32 hexadecimal digits; the other three are UIDs.
    """

    data: bytes
    before: Identity
    after: Identity


class Deidentifier:
    """Applies the profile; equal keys give equal pseudonyms, in this run and in any other."""

    def __init__(self, key: bytes, *, allow_burned_in: bool = False):
        self._names = Pseudonyms(key)
        self._allow_burned_in = allow_burned_in
        self._table = _table()

    def deidentify(self, data: bytes) -> Deidentified:
        """The bytes of a DICOM image -> a file without identity, its pixel data byte for byte.

        Raises what ``DicomFile`` does for an image that cannot be read or is not whole, and
        BurnedIn where the pixels themselves may show who it is: the profile does not clean them.
        """
        file = DicomFile(data)
        file.image(file.frames)
        with quiet():
            try:
                made = self._deidentified(dcmread(BytesIO(data), force=True))
            except InputError:
                raise
            except Exception as error:  # the one edge; what it says may be what the header says
                raise DicomInvalid(
                    f"The DICOM file cannot be taken apart ({type(error).__name__}). It is damaged "
                    "or breaks the Standard: export it again from its source."
                ) from None
        DicomFile(made.data)  # such as one whose pixel items pydicom had to lengthen
        return made

    def _deidentified(self, dataset: FileDataset) -> Deidentified:
        if not self._allow_burned_in:
            _refuse_burned_in(dataset)
        before = _identity(dataset)
        self._clean(dataset)
        dataset.PatientName = dataset.PatientID = self._patient(before)
        _declare(dataset)
        dataset.file_meta = _meta(dataset)
        dataset.preamble = b"\0" * 128
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        return Deidentified(buffer.getvalue(), before, _identity(dataset))

    def _clean(self, dataset: Dataset) -> None:
        """Do with each element what the profile says, and in the items of those that are kept."""
        for tag in list(dataset.keys()):
            vr = _representation(dataset, tag)
            match "X" if _is_no_number(dataset, tag, vr) else self._action(tag, vr):
                case "X":
                    del dataset[tag]
                case "Z":
                    dataset[tag] = DataElement(tag, vr, empty_value_for_VR(vr))
                case "D":
                    self._replace(dataset, tag, vr)
                case "U":
                    dataset[tag] = DataElement(tag, "UI", _each(self._uid, dataset[tag].value))
                case "K" if vr == "SQ":
                    for item in dataset[tag].value:
                        self._clean(item)

    def _action(self, tag: BaseTag, vr: str) -> Action:
        """As the table says; beyond it what an image needs is kept, and nothing else.

        With what nobody has heard of go repeating groups: curves, overlays.
        """
        if tag.is_private or tag.element == 0 or tag.group < 0x0008 or not dictionary_has_tag(tag):
            return "X"  # private, the length of a group, no part of a data set, unheard of
        if (action := self._table.get(tag)) is not None:
            return action if action != "K" or vr == "SQ" else "X"
        if vr == "UI":
            return "K" if _names_a_class(tag) else "U"
        if tag in _REQUIRED:
            return "Z"
        return "K" if vr not in _SPEAKING and is_needed(tag, vr) else "X"

    def _replace(self, dataset: Dataset, tag: BaseTag, vr: str) -> None:
        """By a dummy; what has none is removed.

        The sequences for which the table asks one belong to reports, not to images: they are
        emptied.
        """
        if vr == "SQ":
            dataset[tag] = DataElement(tag, vr, [])
        elif vr in _DUMMIES:
            dataset[tag] = DataElement(tag, vr, _DUMMIES[vr])
        else:
            del dataset[tag]

    def _uid(self, uid: str) -> str:
        """A UID made of a UUID (PS3.5 B.2); one that the Standard lists is nobody's, and stays."""
        if not uid or UID(uid).type:
            return uid
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, self._names.of(uid)).int}"

    def _patient(self, identity: Identity) -> str:
        """A patient without an ID is as many patients as there are studies."""
        if identity.patient:
            return self._names.of(f"patient {identity.patient}")
        return self._names.of(identity.study or identity.series or identity.instance)


@cache
def _table() -> Mapping[int, Action]:
    """Table E.1-1 by tag. Raises ExtraMissing."""
    try:
        from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            f"Deidentifying needs {error.name}, which is not installed here. "
            "pip install 'medimg-edge[dicom]'"
        ) from error
    lists = dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    return {
        tag[0] << 16 | tag[1]: action
        for name, action in _LAST_WORDS.items()
        for tag in lists[f"{name}_TAGS"]
        if len(tag) == 2  # the others are masks, for curves and overlays
    }


def _refuse_burned_in(dataset: Dataset) -> None:
    """Raise BurnedIn where the pixels may show a name or a face. PS3.3 C.7.6.1.1.5, C.9.2."""
    burned_in = text(dataset, "BurnedInAnnotation")
    modality = text(dataset, "Modality")
    sop_class = text(dataset, "SOPClassUID") or ""
    captured = sop_class == _SECONDARY_CAPTURE or sop_class.startswith(f"{_SECONDARY_CAPTURE}.")
    reasons = (
        (burned_in == "YES", "BurnedInAnnotation (0028,0301) is YES"),
        (
            text(dataset, "RecognizableVisualFeatures") == "YES",
            "RecognizableVisualFeatures (0028,0302) is YES",
        ),
        (_has_embedded_overlay(dataset), "An overlay lies within the pixel data"),
        (
            burned_in != "NO" and (modality in _OFTEN_BURNED_IN or captured),
            "Images of this kind (ultrasound, endoscopy, photograph, screen capture) often show a "
            "name, and BurnedInAnnotation (0028,0301) is not NO",
        ),
    )
    for holds, found in reasons:
        if holds:
            raise BurnedIn(
                f"{found}: the pixels may tell who it is, and they are not cleaned here. Look at "
                "the image; if it shows nobody's name and no face, give --allow-burned-in."
            )


def _has_embedded_overlay(dataset: Dataset) -> bool:
    """An overlay in bits of the pixel cells that the image does not use: retired in PS3.3-2004."""
    return any(
        tag.group & 0xFF00 == _OVERLAYS
        and tag.element == _OVERLAY_POSITION
        and BaseTag(tag.group << 16 | _OVERLAY_DATA) not in dataset
        for tag in dataset.keys()  # noqa: SIM118 - iterating the data set decodes every element
    )


def _representation(dataset: Dataset, tag: BaseTag) -> str:
    """The VR of an element without decoding it; the dictionary's where the file says none."""
    vr = dataset.get_item(tag).VR
    if vr in (None, "UN") and dictionary_has_tag(tag):
        vr = dictionary_VR(tag)
        if vr == "SQ" and dataset[tag].VR != "SQ":  # said to be unknown, and cannot be parsed
            return "UN"
    return vr or "UN"


def _is_no_number(dataset: Dataset, tag: BaseTag, vr: str) -> bool:
    """Whether words stand where a number is told."""
    value = dataset.get_item(tag).value
    return vr in ("DS", "IS") and isinstance(value, bytes) and bool(_NO_NUMBER.search(value))


def _names_a_class(tag: BaseTag) -> bool:
    """Whether its UIDs say what kind something is, which a maker may have registered itself."""
    return keyword_for_tag(tag).endswith(("SOPClassUID", "TransferSyntaxUID", "CodingSchemeUID"))


def _each(function: Callable[[str], str], value: Any) -> Any:
    """Of one value or of several."""
    if isinstance(value, str) or value is None:
        return function(value or "")
    return [function(str(each)) for each in value]


def _identity(dataset: Dataset) -> Identity:
    said = partial(text, dataset)
    instance = said("SOPInstanceUID")
    if instance is None or said("SOPClassUID") is None:
        raise DicomInvalid(
            "The DICOM file has no SOPClassUID (0008,0016) or no SOPInstanceUID (0008,0018), which "
            "every image has. Export it again from its source."
        )
    return Identity(
        said("PatientID") or "",
        said("StudyInstanceUID") or "",
        said("SeriesInstanceUID") or "",
        instance,
    )


def _declare(dataset: Dataset) -> None:
    """Say in the file what was done to it: PS3.15 E.1.1, PS3.3 C.12.1.1.1, PS3.16 CID 7050."""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = [
        implementation.VERSION_NAME,
        f"DICOM PS3.15 {EDITION} Basic Profile",
    ]
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    dataset.DeidentificationMethodCodeSequence = [code]
    dataset.LongitudinalTemporalInformationModified = "REMOVED"


def _meta(dataset: FileDataset) -> FileMetaDataset:
    """New file meta information (PS3.10 section 7.1): the old one names the sender."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = _transfer_syntax(dataset)
    meta.ImplementationClassUID = UID(implementation.CLASS_UID)
    meta.ImplementationVersionName = implementation.VERSION_NAME
    return meta


def _transfer_syntax(dataset: FileDataset) -> UID:
    """As it was; of a bare data set, as it is encoded."""
    if (stated := text(dataset.file_meta, "TransferSyntaxUID")) is not None:
        return UID(stated)
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian
