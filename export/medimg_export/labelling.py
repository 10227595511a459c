"""Which labels a data set has, in which order, and which of two is the positive one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from medimg_edge.errors import DataInvalid, PositiveUnknown, TooFewImages
from medimg_edge.manifest import Task
from medimg_export.listing import Row, first_few

NEGATIVE_LABELS = frozenset({"normal", "negative", "benign", "healthy", "no", "0"})
"""Of two labels the one that is not among these is the positive one, if only one is not."""

NO_LABEL = NEGATIVE_LABELS | {"no finding", "none"}
"""Where an image may have several labels, these say that it has none of them."""


def plain_negatives(rows: list[Row], labels: Sequence[str] | None) -> tuple[list[Row], list[str]]:
    """Where several labels may be given, "No Finding" as the only one means none of them."""

    def is_none(row: Row) -> bool:
        only = row.labels[0] if len(row.labels) == 1 else ""
        return only.casefold() in NO_LABEL and only not in (labels or ())

    words = Counter(row.labels[0] for row in rows if is_none(row))
    changed = [replace(row, labels=()) if is_none(row) else row for row in rows]
    notes = [
        f"{count} images are labelled {word!r}, which is taken as none of the labels."
        for word, count in sorted(words.items())
    ]
    return changed, notes


def names_of(
    path: Path, rows: list[Row], declared: Sequence[str] | None, several: bool
) -> tuple[str, ...]:
    """The labels, in the declared order, else in that of the alphabet."""
    used = sorted({label for row in rows for label in row.labels})
    names = tuple(declared) if declared else tuple(used)
    if len({name.casefold() for name in names}) < len(names):
        raise DataInvalid(
            f"Labels of {path} are equal or differ in case only: {', '.join(sorted(names))}. "
            "Rename them so that each class has one name."
        )
    refuse_outside(path, used, names)
    unlabelled = [row.name for row in rows if not row.labels]
    if unlabelled and not several:
        raise DataInvalid(
            f"{path} has {len(unlabelled)} images without a label: {first_few(unlabelled)}. Label "
            "them or remove them."
        )
    if len(used) < 2 and not (several and len(names) > 1):
        raise TooFewImages(
            f"{path} has images of {len(used)} class ({', '.join(used) or 'none'}); at least two "
            "are needed to tell them apart."
        )
    return names


def refuse_outside(path: Path, used: Iterable[str], accepted: Sequence[str]) -> None:
    """Raise DataInvalid if a label occurs that is not accepted."""
    outside = sorted(set(used) - set(accepted))
    if outside:
        raise DataInvalid(
            f"{path} has labels that are not accepted: {first_few(outside)}. Accepted are "
            f"{', '.join(accepted)}; rename the classes, or give --labels."
        )


def in_task_order(
    path: Path, names: tuple[str, ...], task: Task, positive: str | None, published: str | None
) -> tuple[tuple[str, ...], list[str]]:
    """Binary: (negative, positive), and a note where it was not the user who said it."""
    if task != "binary":
        if positive is not None:
            raise DataInvalid(
                f"{path} has {len(names)} labels in a {task} task, where none is the positive one: "
                "leave --positive out."
            )
        return names, []
    if len(names) != 2:
        raise DataInvalid(
            f"{path} has {len(names)} labels ({', '.join(names)}); a binary task has two."
        )
    candidates = [name for name in names if name.casefold() not in NEGATIVE_LABELS]
    chosen = positive or published or (candidates[0] if len(candidates) == 1 else None)
    if chosen not in names:
        found = (
            "Nothing says which label is positive" if chosen is None else f"No label is {chosen!r}"
        )
        raise PositiveUnknown(
            f"{found}: the labels of {path} are {' and '.join(names)}. Say which one is the "
            f"finding, such as --positive {names[1]!r}."
        )
    negative = names[0] if chosen == names[1] else names[1]
    notes = (
        [] if positive else [f"{chosen!r} is the positive label, {negative!r} the negative one."]
    )
    return (negative, chosen), notes
