"""What the headers of DICOM files add to a listing: whose an image is, and of which kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from medimg_edge.dicom.acquisition import Acquisition, acquisition, numbered
from medimg_edge.errors import TooFewImages, WrongModality
from medimg_edge.terms import MODALITIES
from medimg_export.listing import Listing, Problem, Row
from medimg_export.npz import ArrayRow


class _Found(NamedTuple):
    row: Row
    acquired: Acquisition


def with_headers(
    path: Path, listing: Listing, *, modality: Sequence[str], patients: bool
) -> Listing:
    """Without images of another modality; grouped by patient, where nothing else tells groups.

    modality: what is kept, in DICOM's words; empty: everything. A header that says nothing, or a
        word that the Standard does not have, is no reason to leave an image out: see ``admission``.
    patients: whether headers may tell groups. An ID becomes a number: it is shown nowhere.

    Raises TooFewImages where every image is of another modality.
    """
    found = [_Found(row, _acquisition(row)) for row in listing.rows]
    kept = [each for each in found if not _is_foreign(each.acquired, modality)]
    if found and not kept:
        raise TooFewImages(
            f"The images of {path} are {_counted(found)}; the recipe is for {', '.join(modality)}. "
            "Give it such images, or say in its card what it is for."
        )
    problems = [
        Problem(
            row.name,
            WrongModality.code,
            f"The header's modality is {said.modality}; the recipe is for {', '.join(modality)}.",
        )
        for row, said in found
        if _is_foreign(said, modality)
    ]
    rows, notes = _grouped(kept) if patients else ([each.row for each in kept], [])
    if len({each.acquired.modality for each in kept} & MODALITIES) > 1:
        notes.append(f"The DICOM headers tell of several modalities: {_counted(kept)}.")
    return replace(
        listing,
        rows=rows,
        notes=(*listing.notes, *notes),
        problems=(*listing.problems, *problems),
    )


def _acquisition(row: Row) -> Acquisition:
    return Acquisition() if isinstance(row.source, ArrayRow) else acquisition(row.source)


def _is_foreign(said: Acquisition, modality: Sequence[str]) -> bool:
    return bool(modality) and said.modality in MODALITIES and said.modality not in modality


def _counted(found: list[_Found]) -> str:
    counts = Counter(
        each.acquired.modality for each in found if each.acquired.modality in MODALITIES
    )
    return ", ".join(f"{counts[modality]} {modality}" for modality in sorted(filter(None, counts)))


def _grouped(found: list[_Found]) -> tuple[list[Row], list[str]]:
    rows = [each.row for each in found]
    if any(row.group is not None for row in rows):
        return rows, []
    groups = numbered(each.acquired.patient for each in found)
    patients = len(set(groups) - {None})
    note = f"The DICOM headers tell {patients} patients apart, who are kept together."
    return (
        [replace(row, group=group) for row, group in zip(rows, groups, strict=True)],
        [note] if patients else [],
    )
