"""A file of answers that a run which was ended goes on with."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from medimg_edge.errors import WriteError
from medimg_edge.record import Told
from medimg_edge.record_lines import (
    CSV_HEADER,
    Origin,
    Recorded,
    csv_lines,
    json_line,
    read_csv,
    read_json,
)
from medimg_edge.whole_file import sync_folder

STEP_SECONDS = 1.0
"""Between two confirmations by the disk: for power cuts. A kill takes nothing that was written."""


class ResultsFile(AbstractContextManager):
    """A file that is added to: what is in it stays, and ends with a whole record.

    Half a record at its end, of a run that was killed, is cut off first.

    path: of a regular file, or of none yet. shape: ``jsonl`` or ``csv``.
    findings: how many each answer has. frame: the only one that is answered of an input with
    several; else an input is in it once the last of its frames is.

    Construction raises WriteError where the file cannot be written, is being written by another
    run, is damaged, or holds anything else than answers of ``origin`` and of the same ``frame``; it
    is then unchanged.
    """

    def __init__(
        self, path: Path, shape: str, origin: Origin, findings: int, frame: int | None = None
    ) -> None:
        self.inputs: Counter[str] = Counter()
        self.failures = 0
        self._path, self._shape, self._end = path, shape, 0
        self._frame = frame
        if path.exists() and not path.is_file():
            raise WriteError(f"{path} is no regular file; name one, or leave out --resume.")
        try:
            self._file = path.open("ab", buffering=0)
            self._lock()
            self._read(origin, findings)
            self._cut()
            if shape == "csv" and not self._end:
                self._append(CSV_HEADER)
            self._synced = time.monotonic()
            sync_folder(path.parent)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, record: Told) -> None:
        """Add a record, whole or not at all. Raises WriteError."""
        try:
            self._append(json_line(record) if self._shape == "jsonl" else csv_lines(record))
        except OSError as error:
            raise self._failed(error) from error

    def settle(self) -> None:
        """Have the disk confirm what was written, where it has not for a while. Raises WriteError.

        It may take long, so it is no part of ``write``: what is written counts, if this is ended.
        """
        try:
            if time.monotonic() - self._synced >= STEP_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise self._failed(error) from error

    def __exit__(self, *_: Any) -> None:
        try:
            self._cut()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise self._failed(error) from error

    def _append(self, text: str) -> None:
        data = memoryview(text.encode())
        written = 0
        while written < len(data):
            written += self._file.write(data[written:])
        self._end += written

    def _cut(self) -> None:
        """Take away what was written of a record when the disk was full, or the run was ended."""
        if os.fstat(self._file.fileno()).st_size > self._end:
            self._file.truncate(self._end)

    def _read(self, origin: Origin, findings: int) -> None:
        failures, before = 0, None
        try:
            with self._path.open("rb") as lines:
                for each in self._recorded(lines, findings):
                    if each.origin not in (None, origin):
                        raise WriteError(
                            f"{self._path} holds answers of {_told(each.origin)}; now "
                            f"{_told(origin)} is to answer. Name another file: this one is "
                            "unchanged."
                        )
                    self._refuse_other_frame(each, before)
                    failures, before = failures + (each.origin is None), each
                    if self._frame is not None or each.frame == each.frames:
                        self.inputs[each.input] += 1
                        self.failures, self._end = failures, each.end
        except ValueError as error:
            raise WriteError(
                f"{self._path} cannot be gone on with: what follows its byte {self._end:,} is no "
                f"record as {self._shape} ({error}). It is unchanged; name another file, or repair "
                "this one."
            ) from error

    def _refuse_other_frame(self, each: Recorded, before: Recorded | None) -> None:
        """Raise WriteError where what is there was made under another ``frame``, or without one."""
        if self._frame is not None:
            other = each.frame if each.frame not in (None, self._frame) else None
            asked = f"frame {self._frame} alone is"
        else:
            other, asked = _alone(each, before), "all frames are"
        if other is not None:
            alone = " alone" if self._frame is None else ""
            raise WriteError(
                f"{self._path} holds answers of frame {other}{alone}; now {asked} asked for. Name "
                "another file: this one is unchanged."
            )

    def _recorded(self, lines: IO[bytes], findings: int) -> Iterator[Recorded]:
        return read_json(lines) if self._shape == "jsonl" else read_csv(lines, findings)

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # not on Windows
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WriteError(
                f"{self._path} is being written by another run. Wait for its end, or name another "
                "file."
            ) from error
        except OSError:  # a file system without locks
            return

    def _failed(self, error: OSError) -> WriteError:
        return WriteError(
            f"{self._path} cannot be written: {error.strerror}. What is in it stays, in whole "
            "records: run the same command again with --resume when it can be."
        )


def _alone(each: Recorded, before: Recorded | None) -> int | None:
    """A frame that does not stand among all of its input, which come from the first to the last."""
    if before is not None and before.frame != before.frames:
        if (each.input, each.frame) == (before.input, (before.frame or 0) + 1):
            return None
        return before.frame
    follows = each.frame is None or (each.frame == 1 and each.frames is not None)
    return None if follows else each.frame


def _told(origin: Origin | None) -> str:
    assert origin is not None
    profile = f" with the profile {origin.profile[:16]}" if origin.profile else ""
    risk = f" at a risk of {origin.risk:g}" if origin.risk is not None else ""
    return f"{origin.artifact} of the bundle {origin.model[:16]}{profile}{risk}"
