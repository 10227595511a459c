"""A few elements of a DICOM header, without the rest: whose an image is, where it lies."""

from __future__ import annotations

import os
from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING

from medimg_edge.dicom import file_meta
from medimg_edge.dicom.read import is_dicom

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_INFLATED = 2**24
"""Bytes of a deflated file that may lie before its pixels."""

_PIXELS = 0x7FE00000
_PREFIX = 132
_HEAD = 2**20
"""Bytes of a file in which elements are looked for."""


def excerpt(data: bytes, keywords: Iterable[str], end: int = _PIXELS) -> Dataset:
    """Those elements of a file, or of a bare data set, that are there; not yet decoded.

    end: the tag at which reading ends.
    Raises what pydicom does where the data are damaged.
    """
    from pydicom.filereader import read_dataset, read_partial
    from pydicom.tag import BaseTag, Tag

    def ends(tag: BaseTag, vr: str | None, length: int) -> bool:
        return tag >= end

    tags: list[BaseTag | int] = [Tag(each) for each in keywords]
    meta = file_meta.read(data)
    if meta.syntax != file_meta.DEFLATED:
        return read_partial(BytesIO(data), ends, force=True, specific_tags=tags)
    inflated = BytesIO(file_meta.inflate(data[meta.end :], MAX_INFLATED).data)
    return read_dataset(inflated, False, True, stop_when=ends, specific_tags=tags)


def excerpt_of(path: os.PathLike[str], keywords: Iterable[str]) -> Dataset | None:
    """The same of the first megabyte of a file, up to the last of them; None if it is not DICOM.

    Raises OSError, and what ``excerpt`` does.
    """
    from pydicom.tag import Tag

    with open(path, "rb") as file:
        head = file.read(_PREFIX)
        if not is_dicom(head):
            return None
        head += file.read(_HEAD - _PREFIX)
    wanted = list(keywords)
    return excerpt(head, wanted, max(map(Tag, wanted)) + 1)
