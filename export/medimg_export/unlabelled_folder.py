"""A folder of images that nobody labelled -> rows without labels."""

from __future__ import annotations

from pathlib import Path

from medimg_edge.errors import DataInvalid, DataMissing, NoImages
from medimg_edge.reader import find_images
from medimg_export.listing import Row


def list_unlabelled(folder: Path) -> list[Row]:
    """Every image at any depth, in the order of its path; what its folders are called is not read.

    Raises DataMissing (no folder), DataInvalid (no image in it).
    """
    if not folder.is_dir():
        raise DataMissing(f"There is no folder {folder}. Give one of images without labels.")
    try:
        found = find_images(folder)
    except NoImages as error:
        raise DataInvalid(str(error)) from error
    return [Row(path.relative_to(folder).as_posix(), path, (), None) for path in found]
