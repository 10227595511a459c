"""The listening node: receive, answer, keep, send."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from medimg_edge.dicom.node.listener import OUT_OF_RESOURCES, SUCCESS, Listener, Received
from medimg_edge.dicom.node.pauses import Pauses
from medimg_edge.dicom.node.sender import Sender
from medimg_edge.dicom.node.settings import Settings
from medimg_edge.dicom.node.spool import Spool
from medimg_edge.errors import MedimgEdgeError, Unexpected, WriteError
from medimg_edge.record import Record, encode, failure

GIVEN_UP = 5
"""After so many processes that ended while they answered an image, it is no longer tried."""

PAUSES = Pauses(1, 60)
STOP_SECONDS = 3


class Answered(NamedTuple):
    """A record for each frame, and the files to keep: ``sr.dcm``, ``sc.LABEL.dcm``, ``json``."""

    records: Sequence[Record]
    files: Mapping[str, bytes]


Answer = Callable[[Path, str], Answered]
"""An image's file and its id -> its results. Raises our errors for one that has no answer.

The same file and id have to give the same UIDs: what was interrupted is answered again.
"""


class Service:
    """Answers what a listener receives, one image at a time, in the order of their arrival.

    An image is acknowledged when it is in the spool, and gone from there when its results are: a
    process or a computer that ends at any moment in between goes on at the next start.

    report: takes the records of each image once its results are kept; ``input`` is its id.
    log: takes lines about everything else, without patient data.
    sender: for the spool's outbox, if there is an archive.
    """

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        answer: Answer,
        *,
        report: Callable[[Record], None],
        log: Callable[[str], None],
        sender: Sender | None = None,
        pauses: Pauses = PAUSES,
    ) -> None:
        self._spool, self._answer, self._sender = spool, answer, sender
        self._report, self._log, self._pauses = report, log, pauses
        self._listener = Listener(settings, self._store, spool.partial, log)
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._worker = threading.Thread(target=self._work, name="answers", daemon=True)
        self._refusing = False

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, once started."""
        return self._listener.address

    def start(self) -> None:
        """Go on with what the spool holds, and listen. Raises NodeError."""
        for name in self._spool.waiting():
            self._queue.put(name)
        self._listener.start()
        self._worker.start()
        if self._sender:
            self._sender.start()

    def stop(self) -> None:
        """Accept nothing any more and return within seconds; what is not done stays spooled."""
        self._stopping.set()
        self._queue.put(None)
        self._listener.stop()
        self._worker.join(STOP_SECONDS)
        if self._sender:
            self._sender.stop()

    def _store(self, received: Received) -> int:
        """What the peer is told of an image; only of one that is safe that it succeeded."""
        try:
            name = self._spool.receive(received.path, received.sop_instance)
        except WriteError as error:
            if not self._refusing:
                self._log(f"Images are refused: {error.message}")
            self._refusing = True
            return OUT_OF_RESOURCES
        if self._refusing:
            self._refusing = False
            self._log("Images are accepted again.")
        if name is not None:
            self._queue.put(name)
        return SUCCESS

    def _work(self) -> None:
        while (name := self._queue.get()) is not None and not self._stopping.is_set():
            try:
                self._finish(name)
            except Exception as error:  # the edge: nothing may end what answers the others
                self._log(f"{name}: {_fault(error)} It waits for the next start.")

    def _finish(self, name: str) -> None:
        """Answer an image and keep its results, as soon as the disk takes them."""
        answered, failures = None, 0
        while True:
            try:
                answered = answered or self._answered(name)
                self._spool.keep(name, answered.files)
                break
            except WriteError as error:
                failures += 1
                pause = self._pauses.after(failures)
                self._log(f"{name}: {error.message} Tried again in {pause:g} s.")
                if self._stopping.wait(pause):
                    return
        for each in answered.records:
            self._report(each)
        if self._sender:
            self._sender.wake()

    def _answered(self, name: str) -> Answered:
        """The results, or the record of a failure. Raises WriteError of the spool."""
        with self._spool.answering(name) as (image, ended):
            try:
                if ended >= GIVEN_UP:
                    raise Unexpected(
                        f"medimg-edge ended {ended} times while it answered this image, and does "
                        "not try it again. Report it."
                    )
                return self._answer(image, name)
            except MedimgEdgeError as error:
                record = failure(name, error)
            except Exception as error:  # the edge: its text may hold the patient's name
                self._log(f"{name}: {_fault(error)}")
                record = failure(name, Unexpected(_fault(error)))
        return Answered([record], {"json": encode(record) + b"\n"})


def _fault(error: Exception) -> str:
    """What and where, without the error's own words."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}"
    return f"A fault of medimg-edge itself ({what}): report it."
