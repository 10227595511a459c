"""A source of labelled images -> Dataset: class folders, a CSV, or a MedMNIST ``.npz``.

Nothing is decoded here; of DICOM files the header is read. What is left out is listed in
``problems``, what was decided in ``notes``; both go into ``run.json``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medimg_edge.errors import DataInvalid, DataMissing
from medimg_edge.image import Image
from medimg_edge.manifest import Preprocessing, Task
from medimg_edge.reader import read_image
from medimg_edge.record import printable
from medimg_export.class_folders import list_class_folders
from medimg_export.headers import with_headers
from medimg_export.label_csv import has_columns, list_csv
from medimg_export.labelling import in_task_order, names_of, plain_negatives, refuse_outside
from medimg_export.listing import Listing, Problem, Row, Split, compiled, first_few
from medimg_export.npz import ArrayRow
from medimg_export.npz_listing import list_npz
from medimg_export.unlabelled_folder import list_unlabelled

__all__ = ["ArrayRow", "Dataset", "Problem", "Sample", "Split", "open_dataset", "open_unlabelled"]

NOBODY_SAID = -1


@dataclass(frozen=True, slots=True)
class Sample:
    """One image.

    name: path below the data set with forward slashes, or ``val/00012`` for a row of an ``.npz``.
    label: index into ``Dataset.labels``; multilabel: 0 or 1 for each of them; NOBODY_SAID where it
        is one of ``open_unlabelled``.
    split: what the data set says; None where it leaves the choice to ``make_splits``.
    group: what must stay on one side of a split (the patient); None: the image stands alone.
    """

    name: str
    source: Path | ArrayRow
    label: int | tuple[int, ...]
    split: Split | None = None
    group: str | None = None

    def read(self, spec: Preprocessing) -> Image:
        """Decode it, as the device does for this preprocessing. Raises InputError."""
        if isinstance(self.source, ArrayRow):
            return read_image(self.source.pixels())
        return read_image(self.source, needed=spec.needed)


@dataclass(frozen=True)
class Dataset:
    """Labelled images. Binary: ``labels[1]`` is the positive label.

    ``notes`` are decisions worth telling; ``problems`` name what was left out.
    """

    path: Path
    labels: tuple[str, ...]
    task: Task
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def by_split(self) -> dict[Split | None, tuple[Sample, ...]]:
        """The samples of each split that occurs; None: no split was said."""
        found: dict[Split | None, list[Sample]] = defaultdict(list)
        for sample in self.samples:
            found[sample.split].append(sample)
        return {split: tuple(samples) for split, samples in found.items()}

    def names_match(self, group_pattern: str) -> bool:
        """Whether it tells the group of any image; what is no regular expression tells none."""
        try:
            expression = compiled(group_pattern, "group")
        except DataInvalid:
            return False
        whole_path = "/" in group_pattern
        return any(_group(sample, expression, whole_path) is not None for sample in self.samples)

    def in_order(self, labels: Sequence[str]) -> Dataset:
        """The same samples with the labels numbered as a bundle numbers them.

        Raises DataInvalid if the data set has a label that is not among them.
        """
        refuse_outside(self.path, self.labels, labels)
        index = [tuple(labels).index(label) for label in self.labels]
        samples = tuple(
            replace(sample, label=_renumbered(sample.label, index, len(labels)))
            for sample in self.samples
        )
        return replace(self, labels=tuple(labels), samples=samples)


def open_dataset(
    path: str | Path,
    *,
    labels: Sequence[str] | None = None,
    positive: str | None = None,
    group_pattern: str | None = None,
    task: Task | None = None,
    modality: Sequence[str] = (),
) -> Dataset:
    """List the images and labels at ``path``; see the module's docstring.

    labels: for an ``.npz`` what its numbers 0, 1, ... mean; else the labels that are accepted and
        their order.
    positive: which of two labels is positive; see ``NEGATIVE_LABELS`` for the rule without it.
    group_pattern: a regular expression searched in each file's name (in its path, if the pattern
        has a slash). The group is what its parentheses match, else the whole match. Where neither a
        pattern nor the data set tells groups, DICOM headers do.
    task: None: multilabel if an image has several labels, binary for two, else multiclass.
    modality: what the model is for, in DICOM's words; files of another one are left out, because
        a device would refuse them. Empty: any.

    Raises DataMissing, DataInvalid, TooFewImages (one class), PositiveUnknown.
    """
    path = Path(path)
    listing = with_headers(
        path, _listing(path, labels), modality=modality, patients=group_pattern is None
    )
    listing = _printable(listing)
    if listing.several and task not in (None, "multilabel"):
        raise DataInvalid(f"{path} gives an image several labels; a {task} task has one for each.")
    declared = labels or listing.labels
    several = listing.several or task == "multilabel"
    rows, notes = plain_negatives(listing.rows, declared) if several else (listing.rows, [])
    names = names_of(path, rows, declared, several)
    task = task or ("multilabel" if several else "binary" if len(names) == 2 else "multiclass")
    ordered, note = in_task_order(path, names, task, positive, listing.positive)
    rows, group_notes = _grouped(path, rows, group_pattern)
    samples = tuple(_sample(row, {name: i for i, name in enumerate(ordered)}, task) for row in rows)
    return Dataset(
        path,
        ordered,
        task,
        samples,
        (*listing.notes, *notes, *note, *group_notes),
        (*listing.problems, *_unused(ordered, rows)),
    )


def open_unlabelled(
    path: Path, *, group_pattern: str | None = None, modality: Sequence[str] = ()
) -> Dataset:
    """A folder of images that nobody labelled; its task means nothing.

    group_pattern, modality: as for ``open_dataset``; an image that the pattern does not match has
    no group.

    Raises DataMissing, DataInvalid, TooFewImages.
    """
    listing = Listing(list_unlabelled(path))
    listing = _printable(with_headers(path, listing, modality=modality, patients=False))
    rows, notes = listing.rows, []
    if group_pattern is not None:
        expression = compiled(group_pattern, "group")
        groups = [_group(row, expression, "/" in group_pattern) for row in rows]
        rows = [replace(row, group=group) for row, group in zip(rows, groups, strict=True)]
        if unmatched := groups.count(None):
            notes.append(
                f"The group pattern does not match {unmatched} of {len(rows)} names of images "
                "without labels, whose patients are unknown."
            )
    samples = tuple(Sample(row.name, row.source, NOBODY_SAID, None, row.group) for row in rows)
    return Dataset(
        path, (), "multiclass", samples, (*listing.notes, *notes), tuple(listing.problems)
    )


def _listing(path: Path, labels: Sequence[str] | None) -> Listing:
    """By what ``path`` is."""
    if path.is_dir():
        file = _file_for(path)
        return _listing(file, labels) if file else list_class_folders(path)
    if not path.is_file():
        raise DataMissing(
            f"There is nothing at {path}. Give a folder of class folders, a CSV with path,label, "
            "or a MedMNIST .npz; 'medimg-edge data get' fetches published sets."
        )
    if path.suffix.lower() == ".npz":
        return list_npz(path, labels)
    if path.suffix.lower() == ".csv":
        return list_csv(path)
    raise DataInvalid(
        f"{path} is a {path.suffix or 'file without a suffix'}; accepted are a folder of class "
        "folders, a .csv with path,label, or a MedMNIST .npz."
    )


def _printable(listing: Listing) -> Listing:
    """Names as reports and run.json can hold them; the files are still found by their own."""
    return replace(
        listing,
        rows=[
            replace(row, name=printable(row.name), labels=tuple(map(printable, row.labels)))
            for row in listing.rows
        ],
        problems=tuple(
            Problem(printable(each.name), each.code, printable(each.message))
            for each in listing.problems
        ),
    )


def _file_for(folder: Path) -> Path | None:
    """The CSV or .npz that stands for a folder: the only one in it.

    Beside other folders, which may be classes, only a CSV that has the columns says otherwise.
    """
    inside = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    files = [entry for entry in inside if entry.suffix.lower() in (".csv", ".npz")]
    if len(files) != 1:
        return None
    alone = not any(entry.is_dir() for entry in inside)
    return files[0] if alone or has_columns(files[0]) else None


def _grouped(path: Path, rows: list[Row], pattern: str | None) -> tuple[list[Row], list[str]]:
    """Each row with its group, and what to know about the groups."""
    if pattern is None:
        alone = sum(row.group is None for row in rows)
        if alone == len(rows):
            return rows, [
                "Nothing says which images are of one patient, so a patient can be on two sides of "
                "a split, and results may look better than they are. Give --group-pattern, or a "
                "column group in a CSV."
            ]
        note = f"{alone} of {len(rows)} images have no group and stand alone."
        return [replace(row, group=row.group or row.name) for row in rows], [note] if alone else []
    expression = compiled(pattern, "group")
    groups = [_group(row, expression, "/" in pattern) for row in rows]
    unmatched = [row.name for row, group in zip(rows, groups, strict=True) if group is None]
    if len(unmatched) == len(rows):
        raise DataInvalid(
            f"The group pattern {pattern!r} matches none of the {len(rows)} names in {path}, such "
            f"as {first_few(unmatched, 3)}. Correct it or leave it out."
        )
    changed = [
        replace(row, group=group or row.group or row.name)
        for row, group in zip(rows, groups, strict=True)
    ]
    notes, lone = [], "stand alone"
    if any(row.group is not None for row in rows):
        notes.append("The group pattern was given, so the column group counts where it fails only.")
        lone = "have the column's group or stand alone"
    if unmatched:
        notes.append(
            f"The group pattern does not match {len(unmatched)} of {len(rows)} names, which "
            f"{lone}: {first_few(unmatched)}."
        )
    return changed, notes


def _group(row: Row | Sample, pattern: re.Pattern[str], whole_path: bool) -> str | None:
    if isinstance(row.source, ArrayRow):
        return None
    match = pattern.search(row.name if whole_path else printable(row.source.name))
    if match is None:
        return None
    parts = [part for part in match.groups() if part is not None]
    return "/".join(parts) if parts else match[0]


def _sample(row: Row, index: dict[str, int], task: Task) -> Sample:
    if task == "multilabel":
        label = tuple(int(name in row.labels) for name in index)
    else:
        label = index[row.labels[0]]
    return Sample(row.name, row.source, label, row.split, row.group)


def _unused(labels: Sequence[str], rows: list[Row]) -> list[Problem]:
    used = {label for row in rows for label in row.labels}
    return [
        Problem(label, "data-label-unused", f"No image has the label {label!r}.")
        for label in labels
        if label not in used
    ]


def _renumbered(
    label: int | tuple[int, ...], index: Sequence[int], count: int
) -> int | tuple[int, ...]:
    if isinstance(label, int):
        return index[label]
    marked = {index[old] for old, present in enumerate(label) if present}
    return tuple(int(number in marked) for number in range(count))
