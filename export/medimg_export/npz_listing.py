"""MedMNIST-style ``.npz`` -> Listing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import DataInvalid
from medimg_export import npz
from medimg_export.listing import Listing, Row
from medimg_export.medmnist import published


def list_npz(path: Path, labels: Sequence[str] | None) -> Listing:
    """The rows of ``{train,val,test}_images``, named ``val/00012``.

    ``labels`` names the numbers 0, 1, ... of the file; files with a published MedMNIST name bring
    their names, others without ``labels`` get "0", "1", ... Raises DataInvalid.
    """
    shapes = npz.image_shapes(path)
    numbers = {split: npz.label_array(path, split, shape[0]) for split, shape in shapes.items()}
    widths = {array.shape[1] for array in numbers.values()}
    if len(widths) != 1:
        raise DataInvalid(
            f"{path} has {sorted(widths)} labels per image in its splits; make it one."
        )
    several = widths != {1}
    count = widths.pop() if several else 1 + max(array.max(initial=0) for array in numbers.values())
    publication = published(path)
    names = _names(path, labels, publication.labels if publication else None, count)
    rows: list[Row] = []
    for split in npz.SPLITS:
        if split in numbers:
            _check(path, split, numbers[split], 2 if several else len(names))
            rows += _rows(path, split, numbers[split], names, several)
    notes = []
    if several and all((array.sum(axis=1) == 1).all() for array in numbers.values()):
        notes.append(
            "Every image has exactly one label, and the file's layout says that it could have "
            "several; the labels are learned independently of each other."
        )
    positive = publication.positive if publication else None
    return Listing(rows, names, positive, several, tuple(notes))


def _names(
    path: Path, labels: Sequence[str] | None, published_labels: Sequence[str] | None, count: int
) -> tuple[str, ...]:
    """What the numbers 0, 1, ... mean. The order of a published file is its publisher's."""
    if published_labels is None:
        names = labels or [str(number) for number in range(count)]
    elif labels and set(labels) != set(published_labels):
        raise DataInvalid(
            f"{path.name} has the published labels {', '.join(published_labels)}, not "
            f"{', '.join(labels)}. Leave the labels out, or rename the file if it is another one."
        )
    else:
        names = published_labels
    if len(names) < count:
        raise DataInvalid(
            f"{path} has {count} labels, and {len(names)} names were given "
            f"({', '.join(names)}): name all of them, in the order of the file's numbers."
        )
    return tuple(names)


def _check(path: Path, split: str, numbers: NDArray[np.int64], limit: int) -> None:
    outside = np.argwhere((numbers < 0) | (numbers >= limit))
    if len(outside):
        row, column = outside[0]
        raise DataInvalid(
            f"{path} has {len(outside)} {split}_labels outside of 0 to {limit - 1}, the first in "
            f"row {row}: {numbers[row, column]}."
        )


def _rows(
    path: Path, split: npz.Split, numbers: NDArray[np.int64], names: Sequence[str], several: bool
) -> list[Row]:
    marked = [np.flatnonzero(row) for row in numbers] if several else numbers
    return [
        Row(
            f"{split}/{row:05d}",
            npz.ArrayRow(path, f"{split}_images", row),
            tuple(names[int(number)] for number in present),
            split,
        )
        for row, present in enumerate(marked)
    ]
