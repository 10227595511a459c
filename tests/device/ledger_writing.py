"""A process that adds answers to a record, as fast as it can, and notes those that are safe."""

from __future__ import annotations

import os
import secrets
import sys
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from medimg_edge.errors import WriteError
from medimg_edge.kiosk.kept import Kept, New, Source, Timings
from medimg_edge.kiosk.ledger import Ledger
from medimg_edge.kiosk.ledger_file import Synchronous
from medimg_edge.kiosk.ledger_reader import verify
from medimg_edge.record import Answer, Failure, Finding, Model, encode

SHA = "5e" * 32
WINDOW = 8
"""Answers that wait at a time, as those of several clients do."""

WARNINGS = tuple(f"a warning that takes room, {number}" for number in range(30))


def answer(name: str, probability: float = 0.75, decision: str = "positive", **more: Any) -> bytes:
    record = Answer(
        input=name,
        findings=(Finding("pneumonia", probability, decision),),
        label="pneumonia",
        probability=probability,
        decision=decision,
        artifact="model.onnx",
        runtime="onnxruntime 1",
        model=Model("phantom", "1", "ab" * 32),
        elapsed_ms=2.5,
        **more,
    )
    return encode(record)


def failure(name: str, code: str = "input-truncated") -> bytes:
    return encode(Failure(input=name, status="error", code=code, message="Half an image."))


def new(
    record: bytes | None = None,
    *,
    name: str | None = None,
    source: Source = "upload",
    sha256: str = SHA,
    key: str | None = None,
) -> New:
    name = name or secrets.token_hex(16)
    return New(
        id=name,
        source=source,
        input_sha256=sha256,
        record=answer(name) if record is None else record,
        timings=Timings(waited_ms=0.5, answer_ms=3.25),
        operating_points=b'{"pneumonia":{"threshold":0.5}}',
        key=key,
    )


class Adding:
    """Adds answers to a record; the ids of those that it says are safe go to a file, at once."""

    def __init__(self, ledger: Ledger, acknowledged: Path) -> None:
        self._ledger, self.failed = ledger, []
        self._file = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._waiting: deque[tuple[str, Future[Kept]]] = deque()

    def add(self, count: int = sys.maxsize, failures: int = sys.maxsize) -> None:
        """So many, or until so many of them could not be written."""
        while count and len(self.failed) < failures:
            count -= 1
            name = secrets.token_hex(16)
            given = new(answer(name, warnings=WARNINGS), name=name)
            self._waiting.append((name, self._ledger.append(given)))
            if len(self._waiting) == WINDOW:
                self._finish()
        while self._waiting:
            self._finish()

    def _finish(self) -> None:
        name, future = self._waiting.popleft()
        try:
            future.result()
        except WriteError:
            self.failed.append(name)
        else:
            os.write(self._file, f"{name}\n".encode())


def read_ids(acknowledged: Path) -> set[str]:
    """Those that were safe; a line that is half there was not told to anybody."""
    text = acknowledged.read_text() if acknowledged.exists() else ""
    return {line.strip() for line in text.splitlines(keepends=True) if line.endswith("\n")}


def main(
    folder: str, acknowledged: str, count: str, synchronous: Synchronous | None = None
) -> None:
    path = Path(folder)
    ledger = Ledger(path, synchronous=synchronous) if synchronous else Ledger(path)
    adding = Adding(ledger, Path(acknowledged))
    adding.add(int(count))
    ledger.close()
    print(len(adding.failed))


def fill(folder: str, acknowledged: str) -> None:
    """Add until the disk is full, then make room, and add again."""
    ballast = Path(folder, "ballast")
    ballast.write_bytes(bytes(300_000))
    record = Path(folder, "kiosk")
    ledger = Ledger(record)
    adding = Adding(ledger, Path(acknowledged))
    adding.add(failures=1)
    full = read_ids(Path(acknowledged))
    assert full, "some were written before the disk was full"
    assert ledger.get(next(iter(full))) is not None, "they can be read while it is"
    adding.add(20)
    ballast.unlink()
    before = len(adding.failed)
    adding.add(20)
    assert len(adding.failed) == before, "there is room again"
    safe = read_ids(Path(acknowledged))
    assert len(safe) >= len(full) + 20
    assert all(ledger.get(each) for each in safe)
    assert not any(ledger.get(each) for each in adding.failed)
    assert verify(record).entries == len(safe)
    ledger.close()
    print(len(safe), len(adding.failed))


if __name__ == "__main__":
    {"add": main, "fill": fill}[sys.argv[1]](*sys.argv[2:])
