"""What is to be answered: paths, folders, lists of them, and a fixed part of them.

Everything is an iterator, so that an archive of any size is begun at once and never held.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, NamedTuple

from medimg_edge.errors import DataInvalid, DataMissing, InputError
from medimg_edge.reader import search

STANDARD_INPUT = Path("-")


class Input(NamedTuple):
    """A file to be answered, or what is wrong with a folder or a line.

    key: the path below the folder that was given, else as it was given, with forward slashes.
    """

    path: Path
    key: str
    error: InputError | None = None


class Shard(NamedTuple):
    """The ``part``-th of ``of`` parts, from 1."""

    part: int
    of: int


def given(paths: Iterable[Path], folder: Path = Path()) -> Iterator[Input]:
    """The files, and the images in the folders, among ``paths``; see ``reader.search``.

    Paths that are relative are so to ``folder``.
    """
    for path in paths:
        if os.path.isdir(whole := folder / path):
            for found, error in search(whole):
                yield Input(found, found.relative_to(whole).as_posix(), error)
        else:
            yield Input(whole, path.as_posix())


def listed(file: Path) -> Iterator[Input]:
    """What a list names, read a line at a time; ``-`` is standard input.

    A text with one path on each line, or a CSV with the column ``path``. As on a label sheet, paths
    in a CSV are relative to its folder; those in a text, to where the command runs. Bytes that are
    not UTF-8 are those of the file's name. Raises DataMissing, DataInvalid.
    """
    try:
        with _opened(file) as lines:
            first = next(lines, "")
            columns = [cell.strip().lower() for cell in next(csv.reader([first]), [])]
            if "path" in columns:
                yield from given(_cells(file, lines, columns.index("path")), file.parent)
            else:
                every = (line.rstrip("\r\n") for line in chain([first], lines))
                yield from given(Path(line) for line in every if line)
    except OSError as error:
        raise DataMissing(
            f"The list {file} cannot be read: {error.strerror}. Give a text with one path on each "
            "line, a CSV with the column path, or - for standard input."
        ) from error


def in_shard(inputs: Iterable[Input], shard: Shard) -> Iterator[Input]:
    """Those whose key falls into the shard, by its hash: the same on every machine."""
    for each in inputs:
        digest = hashlib.blake2b(os.fsencode(each.key), digest_size=8).digest()
        if int.from_bytes(digest, "big") % shard.of == shard.part - 1:
            yield each


def base_of(paths: Iterable[Path]) -> Path:
    """The folder that holds all of ``paths``: one that was given alone is that folder."""
    folders = [path if os.path.isdir(path) else path.parent for path in paths]
    return Path(os.path.commonpath([os.path.abspath(each) for each in folders]))


def _cells(file: Path, lines: IO[str], column: int) -> Iterator[Path]:
    rows = csv.reader(lines, strict=True)
    try:
        for row in rows:
            cell = row[column].strip() if len(row) > column else ""
            if cell:
                yield Path(cell)
            elif any(each.strip() for each in row):
                raise DataInvalid(f"{file}, line {rows.line_num + 1}: the path is empty.")
    except csv.Error as error:
        raise DataInvalid(
            f"{file}, line {rows.line_num + 1}, cannot be read as a CSV ({error}). Accepted is "
            "UTF-8 text with commas."
        ) from error


def _opened(file: Path) -> IO[str]:
    where = 0 if file == STANDARD_INPUT else file
    return open(where, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
