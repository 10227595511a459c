"""What a person or a pipe sees: tables, progress, notes, errors."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

from medimg_edge.errors import MedimgEdgeError, WriteError

_quiet = False
_log: IO[str] | None = None


def configure(quiet: bool, log_file: Path | None) -> None:
    """Set what the options before the command say. Raises WriteError."""
    global _quiet, _log
    _quiet = quiet
    if log_file is not None:
        try:
            _log = log_file.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
        except OSError as error:
            raise WriteError(f"{log_file} cannot be written: {error.strerror}.") from error
        log(f"started: {' '.join(sys.argv[1:])}")


def log(line: str) -> None:
    """Append a line with its time to the log file, if there is one. Raises WriteError."""
    if _log is not None:
        try:
            _log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}\n")
        except OSError as error:
            raise WriteError(f"{_log.name} cannot be written: {error.strerror}.") from error


def note(line: str) -> None:
    """Tell a person something on stderr, beside the result."""
    log(line)
    if not _quiet:
        clear()
        print(line, file=sys.stderr, flush=True)


def warn(line: str) -> None:
    """Tell a person what is not as it should be, and does not stop the work."""
    note(f"warning: {line}")


def fail(error: MedimgEdgeError, details: str = "") -> NoReturn:
    """Say an error in one line with its code, and exit 1; ``details`` are for the log file."""
    clear()
    line = f"error [{error.code}]: {error.message}"
    with suppress(WriteError):  # of the log file: said already, or less than this one
        log(f"{line}\n{details}".rstrip())
    print(line, file=sys.stderr)
    sys.exit(1)


def shows_progress() -> bool:
    """Whether somebody would see it."""
    return not _quiet and sys.stderr.isatty()


def progress(what: str, done: int, total: int) -> None:
    """One line that is drawn over, on a terminal only: the share, the rate, the time left.

    ``total`` 0 is work without a measure.
    """
    global _task, _drawn
    if not shows_progress():
        return
    now = time.monotonic()
    before, _task = _task, _task._replace(done=done)
    if what != before.what or done < before.done:
        _task = _Task(what, done, done, now)
    elif now - _drawn < _DRAW_SECONDS and done != total:
        return
    _drawn = now
    share = f" {done:>6}/{total}  {100 * done // total:3}%" if total else f" {done or '...'}"
    line = f"{what}{share}{_task.pace(total, now)}"
    print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


class _Task(NamedTuple):
    what: str = ""
    first: int = 0
    done: int = 0
    started: float = 0.0

    def pace(self, total: int, now: float) -> str:
        """How many a second and, where there is a total, the minutes and seconds left."""
        seconds, steps = now - self.started, self.done - self.first
        if seconds < 1 or not steps:
            return ""
        rate = f"  {steps / seconds:.1f}/s"
        if not total:
            return rate
        minutes, seconds = divmod(round((total - self.done) * seconds / steps), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
        return f"{rate}  {clock} left"


_task = _Task()
_drawn = 0.0
_DRAW_SECONDS = 0.1


def clear() -> None:
    """Take the progress line away."""
    global _drawn
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
        _drawn = 0.0


def table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Columns as wide as their widest cell; below a header, numbers to the right."""
    every = [list(header), *map(list, rows)] if header else [list(row) for row in rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(every[0]))] if every else []
    lines = [
        "  ".join(
            cell.rjust(width) if header and _is_number(cell) else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in every
    ]
    if header:
        lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or (cell[:1] in "+-." and cell[1:2].isdigit())


class Sink(AbstractContextManager):
    """Where results go: stdout, or a file that appears when it is complete."""

    def __init__(self, out: Path | None) -> None:
        if out is not None and out.exists() and not out.is_file():
            raise WriteError(f"{out} is no regular file; name a file, or write to a pipe.")
        out = out.resolve() if out else None
        self._out = out
        self._partial = Path(out.parent, f".{out.name}.partial") if out else None
        try:
            self._file: IO[str] = (
                self._partial.open("w", encoding="utf-8", newline="")
                if self._partial
                else sys.stdout
            )
        except OSError as error:
            raise WriteError(f"{out} cannot be written: {error.strerror}.") from error

    def write(self, text: str) -> None:
        """Write and hand on at once, so that a pipe sees each answer as it comes."""
        if self._out is None:
            clear()
        try:
            self._file.write(text)
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            where = self._out or "standard output"
            raise WriteError(f"{where} cannot be written: {error.strerror}.") from error

    def __exit__(self, kind: type | None, *rest: Any) -> None:
        if self._partial is None or self._out is None:
            return
        try:
            self._file.close()
            if kind is None:
                self._partial.replace(self._out)
        except OSError as error:
            raise WriteError(f"{self._out} cannot be written: {error.strerror}.") from error
        finally:
            self._partial.unlink(missing_ok=True)
