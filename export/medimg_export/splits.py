"""Who is trained on, who is validated on, who is tested on; and what a run says of its data.

Splits that the data set brings are kept; missing ones are made. What must stay together is a unit:
images of one group (patient) and images of one content, and whatever these connect. A unit is never
divided by a split that is made here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import TooFewImages
from medimg_edge.record import printable
from medimg_export.dataset import Dataset, Sample, Split
from medimg_export.pixel_cache import CachedPixels
from medimg_export.stratify import Rows, assign, units_of

SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Contents(Protocol):
    """What ``make_splits`` needs of ``CachedPixels``: row i is a sample and its digest."""

    @property
    def samples(self) -> Sequence[Sample]:
        """One sample per row."""
        ...

    @property
    def digests(self) -> Sequence[str]:
        """The sha256 of each row's encoded content."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """What the samples' labels mean."""
        ...


@dataclass(frozen=True, eq=False)
class Splits:
    """Rows of each split, ascending.

    made: the splits that were made here: not brought by the data set, or made anew.
    overlaps: between splits that it did bring, such as ``{"train/test": {"groups": 0,
        "contents": 1, "images": 1}}``: shared groups and contents, and the images of the first
        split that have a unit in common with the second.
    dropped: rows of train that were left out for such an overlap.
    """

    train: Rows
    val: Rows
    test: Rows
    notes: tuple[str, ...]
    overlaps: dict[str, dict[str, int]]
    made: tuple[Split, ...]
    dropped: Rows

    def of_rows(self) -> dict[int, Split]:
        """The split of each row that is in one."""
        return {int(row): split for split in SPLITS for row in getattr(self, split)}


def make_splits(
    cached: Contents,
    *,
    seed: int,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    min_val_per_class: int = 50,
    drop_overlap: bool = False,
) -> Splits:
    """Keep the splits that the data set brings and make the missing ones from the rest.

    The fractions are of the images that a split is made from: train, what has no split, and a
    validation split with fewer than ``min_val_per_class`` images of any class, which is made anew.
    Made splits are stratified by label and depend on seed, contents and groups, not on order or
    names. ``drop_overlap`` takes images out of train that share a unit with another split.

    Raises TooFewImages if a class has no image in train or in validation.
    """
    samples, digests = cached.samples, cached.digests
    marks = label_marks(samples, len(cached.labels))
    units = units_of(samples, digests)
    given: dict[Split, Rows] = {split: _rows(samples, split) for split in SPLITS}
    overlaps = _overlaps(given, samples, digests, units)
    kept, merge_note = _kept(given, marks, cached.labels, min_val_per_class)

    held = np.concatenate([np.empty(0, np.intp), *kept.values()])
    pool = np.setdiff1d(np.arange(len(samples)), held)
    overlapping = np.isin(units[pool], units[held])
    dropped = pool[overlapping] if drop_overlap else pool[:0]
    fixed = np.setdiff1d(pool[overlapping], dropped)  # a made split must not share a unit either
    free = pool[~overlapping]
    shares: dict[Split, float] = {"val": val_fraction, "test": test_fraction}
    for split in kept:
        del shares[split]
    side = assign(free, units, marks, digests, shares, seed)
    made: dict[Split, Rows] = {split: np.sort(free[side == split]) for split in shares}
    train: dict[Split, Rows] = {"train": np.union1d(free[side == "train"], fixed)}

    splits = train | kept | made
    _refuse_empty(splits, marks, cached.labels)
    return Splits(
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        notes=(
            *_overlap_notes(overlaps),
            *merge_note,
            *_drop_note(dropped),
            *_made_note(made, seed),
        ),
        overlaps=overlaps,
        made=tuple(made),
        dropped=dropped,
    )


def describe(dataset: Dataset, cached: CachedPixels, splits: Splits) -> dict[str, Any]:
    """What ``run.json`` and ``data check`` say of the data; JSON types only.

    fingerprint: sha256 over the sorted (digest, label names, split) of all usable images, so equal
    for equal data, wherever it lies and in whatever order.
    """
    marks = label_marks(cached.samples, len(cached.labels))
    split_of = splits.of_rows()
    copies = [count for count in Counter(cached.digests).values() if count > 1]
    lines = sorted(
        f"{digest} {_label_names(mark, cached.labels)} {split_of.get(row, 'dropped')}\n"
        for row, (digest, mark) in enumerate(zip(cached.digests, marks, strict=True))
    )
    return {
        "path": printable(str(dataset.path)),
        "task": dataset.task,
        "labels": list(dataset.labels),
        "images": len(dataset.samples),
        "usable": len(cached.samples),
        "splits": {
            split: _describe_rows(getattr(splits, split), cached, marks) for split in SPLITS
        },
        "made": list(splits.made),
        "dropped": len(splits.dropped),
        "overlaps": splits.overlaps,
        "duplicates": {"contents": len(copies), "images": sum(copies)},
        "sizes": {"smallest": list(cached.smallest), "largest": list(cached.largest)},
        "notes": [*dataset.notes, *splits.notes],
        "problems": [
            {"name": each.name, "code": each.code, "message": each.message}
            for each in (*dataset.problems, *cached.problems)
        ],
        "fingerprint": hashlib.sha256("".join(lines).encode()).hexdigest(),
    }


def _describe_rows(rows: Rows, cached: CachedPixels, marks: NDArray[np.int64]) -> dict[str, Any]:
    groups = {cached.samples[row].group for row in rows.tolist()} - {None}
    counts = marks[rows].sum(axis=0).tolist()
    return {
        "images": len(rows),
        "groups": len(groups) or None,
        "classes": dict(zip(cached.labels, counts, strict=True)),
    }


def _label_names(mark: NDArray[np.int64], labels: Sequence[str]) -> str:
    return ";".join(sorted(label for label, marked in zip(labels, mark, strict=True) if marked))


def label_marks(samples: Sequence[Sample], count: int) -> NDArray[np.int64]:
    """(N, count) of 0 and 1: which labels each sample has."""
    marks = np.zeros((len(samples), count), np.int64)
    for row, sample in enumerate(samples):
        if isinstance(sample.label, int):
            marks[row, sample.label] = 1
        else:
            marks[row] = sample.label
    return marks


def _rows(samples: Sequence[Sample], split: Split) -> Rows:
    return np.array([row for row, each in enumerate(samples) if each.split == split], np.intp)


def _overlaps(
    given: Mapping[Split, Rows], samples: Sequence[Sample], digests: Sequence[str], units: Rows
) -> dict[str, dict[str, int]]:
    overlaps = {}
    for one, other in combinations(SPLITS, 2):
        if not (len(given[one]) and len(given[other])):
            continue
        groups = [{samples[row].group for row in given[split]} - {None} for split in (one, other)]
        contents = [{digests[row] for row in given[split]} for split in (one, other)]
        overlaps[f"{one}/{other}"] = {
            "groups": len(groups[0] & groups[1]),
            "contents": len(contents[0] & contents[1]),
            "images": int(np.isin(units[given[one]], units[given[other]]).sum()),
        }
    return overlaps


def _overlap_notes(overlaps: Mapping[str, Mapping[str, int]]) -> list[str]:
    return [
        f"{pair}: {found['groups']} groups and {found['contents']} contents are in both of these "
        f"given splits ({found['images']} images of the first one). --drop-overlap takes such "
        "images out of train."
        for pair, found in overlaps.items()
        if found["images"]
    ]


def _kept(
    given: Mapping[Split, Rows], marks: NDArray[np.int64], labels: Sequence[str], limit: int
) -> tuple[dict[Split, Rows], list[str]]:
    """The given val and test, and a note if val is not kept for a class with too few images."""
    kept: dict[Split, Rows] = {"val": given["val"], "test": given["test"]}
    kept = {split: rows for split, rows in kept.items() if len(rows)}
    if "val" not in kept:
        return kept, []
    counts = marks[kept["val"]].sum(axis=0)
    scarce = int(counts.argmin())
    if counts[scarce] >= limit:
        return kept, []
    del kept["val"]
    return kept, [
        f"The given validation split has {counts[scarce]} images of {labels[scarce]!r}, fewer than "
        f"{limit}: it was merged into train and made anew."
    ]


def _drop_note(dropped: Rows) -> list[str]:
    note = f"{len(dropped)} images were left out of train, because they overlap other splits."
    return [note] if len(dropped) else []


def _made_note(made: Mapping[Split, Rows], seed: int) -> list[str]:
    sizes = ", ".join(f"{split} ({len(rows)} images)" for split, rows in made.items())
    note = f"Made with seed {seed}, stratified by label, no group or content divided: {sizes}."
    return [note] if made else []


def _refuse_empty(
    splits: Mapping[Split, Rows], marks: NDArray[np.int64], labels: Sequence[str]
) -> None:
    checked: tuple[Split, ...] = ("train", "val")
    for split in checked:
        counts = marks[splits[split]].sum(axis=0)
        for label, count, images in zip(labels, counts, marks.sum(axis=0), strict=True):
            if count == 0:
                raise TooFewImages(
                    f"{label!r} has {images} usable images, and none of them is left for {split}: "
                    "train and validation need images of every class. Add images (of other "
                    "patients), or leave the class out."
                )
