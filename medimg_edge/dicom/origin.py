"""Whose a DICOM image is and of which kind, from its header alone: what a data set has to know."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from medimg_edge.dicom.elements import text
from medimg_edge.dicom.read import is_dicom

_PREFIX = 132
_HEAD = 2**18
"""Bytes in which a header is looked for; a deflated file is read only if it is no longer."""

_PATIENT_ID = 0x00100020


class Origin(NamedTuple):
    """PatientID (0010,0020), which is secret, and Modality (0008,0060)."""

    patient: str | None = None
    modality: str | None = None


def origin(path: Path) -> Origin:
    """What the header says; nothing of a file that is not DICOM or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_PREFIX)
            if not is_dicom(head):
                return Origin()
            head += file.read(_HEAD - _PREFIX)
        from pydicom.filereader import read_partial

        from medimg_edge.dicom.quiet import quiet

        with quiet():
            header = read_partial(
                BytesIO(head), lambda tag, vr, length: tag > _PATIENT_ID, force=True
            )
            return Origin(text(header, "PatientID"), text(header, "Modality"))
    except Exception:  # whoever reads the image says what is wrong with it
        return Origin()


def numbered(patients: Iterable[str | None]) -> list[str | None]:
    """Each patient's number in place of the ID, in the order in which they come."""
    numbers: dict[str, str] = {}
    return [
        None if patient is None else numbers.setdefault(patient, f"patient {len(numbers) + 1}")
        for patient in patients
    ]
