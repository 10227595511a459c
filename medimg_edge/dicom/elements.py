"""Values of DICOM elements as Python's, with an error that names the element."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from medimg_edge.errors import DicomInvalid

if TYPE_CHECKING:
    from pydicom import Dataset


def integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """One integer; the default where it is absent or empty, DicomInvalid without one."""
    value = dataset.get(keyword)
    if value is None or value == "":
        if default is None:
            raise DicomInvalid(f"The DICOM file has no {keyword} {_tag(keyword)}, which it needs.")
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        raise DicomInvalid(
            f"{keyword} {_tag(keyword)} of the DICOM file is not one integer."
        ) from None


def number(dataset: Dataset, keyword: str) -> float | None:
    """One finite number, the first of several; None where it is absent or empty."""
    value = first(dataset.get(keyword))
    if value is None or value == "":
        return None
    if not isfinite(float(value)):
        raise DicomInvalid(
            f"{keyword} {_tag(keyword)} of the DICOM file is {value}; a finite number is accepted."
        )
    return float(value)


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """All numbers of an element; none where it is absent, empty, or holds anything else."""
    value = dataset.get(keyword)
    if value is None or isinstance(value, str | bytes):
        return ()
    try:
        return tuple(float(each) for each in ([value] if first(value) is value else value))
    except (TypeError, ValueError):
        return ()


def text(dataset: Dataset, keyword: str) -> str | None:
    """One string without its padding, the first of several; None where it is absent or empty."""
    value = first(dataset.get(keyword))
    return (str(value).strip(" \0") or None) if value is not None else None


def first(value: Any) -> Any:
    """The first value of an element that may have several."""
    if isinstance(value, str | bytes | int | float) or value is None:
        return value
    try:
        return value[0] if len(value) else None
    except TypeError:
        return value


def _tag(keyword: str) -> str:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword) or 0
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
