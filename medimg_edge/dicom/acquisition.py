"""Of whom and with which modality a DICOM image was acquired, from its header alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from medimg_edge.dicom.elements import text
from medimg_edge.dicom.excerpt import excerpt_of


class Acquisition(NamedTuple):
    """PatientID (0010,0020), which is secret, and Modality (0008,0060)."""

    patient: str | None = None
    modality: str | None = None


def acquisition(path: Path) -> Acquisition:
    """What the header says; nothing of a file that is not DICOM or cannot be read."""
    try:
        from medimg_edge.dicom.quiet import quiet

        with quiet():
            header = excerpt_of(path, ("PatientID", "Modality"))
            if header is None:
                return Acquisition()
            return Acquisition(text(header, "PatientID"), text(header, "Modality"))
    except Exception:  # whoever reads the image says what is wrong with it
        return Acquisition()


def numbered(patients: Iterable[str | None]) -> list[str | None]:
    """Each patient's number in place of the ID, in the order in which they come."""
    numbers: dict[str, str] = {}
    return [
        None if patient is None else numbers.setdefault(patient, f"patient {len(numbers) + 1}")
        for patient in patients
    ]
