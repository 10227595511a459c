"""The images of a series in their order in the patient, and what their answers say together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from medimg_edge.dicom.series import place
from medimg_edge.inputs import Input
from medimg_edge.record import Answer, Extreme, Record, Series, Told, printable


class Slices(NamedTuple):
    """The inputs of one series, in order. uid: None for those of no series."""

    uid: str | None
    inputs: list[Input]


def in_series(
    inputs: Iterable[Input],
    answer: Callable[[Iterable[Input]], Iterator[list[Record]]],
    name_of: Callable[[str], str | None],
) -> Iterator[Sequence[Told]]:
    """The records of every input, series by series, and behind each what they say together.

    answer: gives the records of inputs, in their order. name_of: what stands for a UID.
    """
    series = grouped(inputs)
    answered = answer(each for slices in series for each in slices.inputs)
    for slices in series:
        records: list[Record] = []
        for _ in slices.inputs:
            found = next(answered)
            records += found
            yield found
        if slices.uid is not None:
            yield [_summary(slices, records, name_of(slices.uid))]


def grouped(inputs: Iterable[Input]) -> list[Slices]:
    """By series, in the order in which these first appear; within one by place, number, path."""
    found: dict[str | None, list] = {}
    for each in inputs:
        where = place(each.path)
        found.setdefault(where.series, []).append((where.along, where.number, each.path, each))
    return [
        Slices(uid, [at[-1] for at in sorted(each, key=itemgetter(0, 1, 2))])
        for uid, each in found.items()
    ]


def _summary(series: Slices, records: list[Record], name: str | None) -> Series:
    answers = [each for each in records if isinstance(each, Answer)]
    return Series(
        input=printable(_folder([each.path.parent for each in series.inputs])),
        series=name,
        images=len(records),
        answered=len(answers),
        findings=tuple(_extremes(answers)),
    )


def _folder(folders: list[Path]) -> str:
    """What holds them all: from here where each was given from here, else from the root."""
    try:
        common = os.path.commonpath([os.path.abspath(each) for each in folders])
    except ValueError:  # on Windows, of several drives
        return ""
    given_from_here = not any(each.is_absolute() for each in folders)
    return os.path.relpath(common) if given_from_here else common


def _extremes(answers: list[Answer]) -> Iterator[Extreme]:
    for column, finding in enumerate(answers[0].findings if answers else ()):
        probabilities = [each.findings[column].probability for each in answers]
        most = max(probabilities)
        at = answers[probabilities.index(most)]
        mean = sum(probabilities) / len(probabilities)
        yield Extreme(finding.label, most, mean, at.input, at.frame)
