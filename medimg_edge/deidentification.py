"""Files or a folder of DICOM images -> a folder without identities, and the secrets beside it.

    OUT/<patient>/<SOP Instance UID>.dcm

Both names are pseudonyms, made of the key: what comes later, or from elsewhere with the same key,
joins the patient that it belongs to. The key, and the map of what became what, never lie in OUT.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from medimg_edge import secret, state
from medimg_edge.dicom import is_dicom
from medimg_edge.dicom.deidentify import Deidentified, Deidentifier
from medimg_edge.errors import DicomInvalid, InputError, InputMissing, TooLarge, WriteError
from medimg_edge.limits import MAX_BYTES
from medimg_edge.reader import files
from medimg_edge.whole_file import SECRET, whole_file, write_whole

KEY = "deidentify.key"
"""In the user's state folder: the key where none is named."""

COLUMNS = (
    "path",
    "group",
    "source",
    "patient_id",
    "study_uid",
    "series_uid",
    "instance_uid",
)
"""Of a map. path, below OUT, and group may travel: with a label beside them they are a label sheet
(see ``label_csv``). The others tell who it is."""

_HEAD = 132
_SUFFIXES = frozenset({".dcm", ".dicom"})


class Outcome(NamedTuple):
    """What became of one file.

    source: below the folder that was searched. path: below OUT; None where nothing was written.
    found: what the file became. known: it was there already. error: why it was refused. Neither
    found nor error: it is not DICOM and was passed over.
    """

    source: str
    path: Path | None = None
    found: Deidentified | None = None
    known: bool = False
    error: InputError | None = None


def read_key(path: Path | None, out: Path) -> bytes:
    """The key in a file, which is made where there is none. None: the user's own.

    Raises WriteError where it cannot be read or made, is no key, or would travel with OUT.
    """
    path = path or _own_key()
    _refuse_inside(path, out, "The key")
    return secret.kept(path)


def deidentify(source: Path, out: Path, deidentifier: Deidentifier) -> Iterator[Outcome]:
    """Deidentify a file, or every DICOM file below a folder, into ``out``, one after the other.

    A file whose copy is there already, the same to the byte, is left alone, so that a run that was
    interrupted can go on. Raises InputMissing where ``source`` does not exist, WriteError where
    one of the folders lies in the other, or a file cannot be written.
    """
    if not source.exists():
        raise InputMissing(f"There is nothing at {source}. Give a DICOM file, or a folder of them.")
    _refuse_inside(out, source, "The copies")
    _refuse_inside(source, out, "The images")
    found = files(source) if source.is_dir() else [(source, None)]
    for path, error in found:
        name = path.name if path == source else path.relative_to(source).as_posix()
        yield Outcome(name, error=error) if error else _one(path, name, out, deidentifier)


@contextmanager
def secret_map(path: Path | None, out: Path) -> Iterator[Callable[[Outcome], None]]:
    """Give what adds an outcome to a new CSV, which appears when the block ends well.

    Only its owner may read it. None: nothing is kept. Raises WriteError.
    """
    if path is None:
        yield lambda outcome: None
        return
    _refuse_inside(path, out, "The map")
    if path.exists():
        raise WriteError(f"{path} exists, and may be the only map of other copies. Name a new one.")
    with whole_file(path, SECRET) as file:

        def remember(outcome: Outcome) -> None:
            if cells := _cells(outcome):
                try:
                    file.write(_line(cells))
                except OSError as error:
                    raise WriteError(f"{path} cannot be written: {error.strerror}.") from error

        file.write(_line(COLUMNS))
        yield remember


def _cells(outcome: Outcome) -> tuple[str, ...]:
    if outcome.path is None or outcome.found is None:
        return ()
    before, after = outcome.found.before, outcome.found.after
    return (
        outcome.path.as_posix(),
        after.patient,
        outcome.source,
        before.patient,
        before.study,
        before.series,
        before.instance,
    )


def _line(cells: Iterable[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode(errors="surrogateescape")


def _one(path: Path, name: str, out: Path, deidentifier: Deidentifier) -> Outcome:
    try:
        data = _content(path)
        if data is None:
            return Outcome(name)
        found = deidentifier.deidentify(data)
    except InputError as error:
        return Outcome(name, error=error)
    below = Path(found.after.patient, f"{found.after.instance}.dcm")
    try:
        there = _written(out / below)
        if there is None:
            (out / below).parent.mkdir(parents=True, exist_ok=True)
            write_whole(out / below, found.data)
    except OSError as error:
        raise WriteError(f"{out / below} cannot be written: {error.strerror}.") from error
    if there in (None, found.data):
        return Outcome(name, below, found, known=there is not None)
    return Outcome(
        name,
        error=DicomInvalid(
            f"{out} holds another copy under this image's name, {below.name}. Either two images "
            "have one SOP Instance UID, which is to be mended where they come from, or the copy is "
            "of another release of medimg-edge: name a new folder."
        ),
    )


def _content(path: Path) -> bytes | None:
    """The bytes of a DICOM file by its content or its name; None of any other file."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            head = file.read(_HEAD)
            if path.name == "DICOMDIR" or not (is_dicom(head) or path.suffix.lower() in _SUFFIXES):
                return None
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise TooLarge(f"The file is larger than {MAX_BYTES:,} bytes, which is not read.")
            return head + file.read()
    except OSError as error:
        raise InputMissing(f"The file cannot be read: {error.strerror}.") from error


def _written(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _own_key() -> Path:
    folder = state.folder()
    if folder is None:
        raise WriteError("This user has no folder to keep a key in. Name a file for it: --key.")
    return folder / KEY


def _refuse_inside(path: Path, folder: Path, what: str) -> None:
    if path.resolve().is_relative_to(folder.resolve()):
        raise WriteError(
            f"{what} would lie in {folder}, and identities have to stay apart from what travels. "
            "Name another place."
        )
