"""The listening node: receive, answer, keep, send."""

from __future__ import annotations

import heapq
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from medimg_edge.dicom.node.listener import OUT_OF_RESOURCES, SUCCESS, Listener, Received
from medimg_edge.dicom.node.pauses import Pauses
from medimg_edge.dicom.node.sender import Sender
from medimg_edge.dicom.node.settings import Settings
from medimg_edge.dicom.node.spool import FAILURE, Spool
from medimg_edge.errors import MachineFault, MedimgEdgeError, NodeError, Unexpected, WriteError
from medimg_edge.record import Failure, Record, encode, failure

GIVEN_UP = 5
"""After so many tries in vain, in which the process or the machine failed, one is not tried."""

PAUSES = Pauses(1, 60)
LATER = Pauses(60, 3600)
"""After a fault of the machine. The others are answered meanwhile."""

STOP_SECONDS = 3


class Answered(NamedTuple):
    """A record for each frame, and the files to keep: ``sr.dcm``, ``sc.LABEL.dcm``, ``json``.

    Where all records are failures they are kept themselves. is_given_up: together with the image.
    """

    records: Sequence[Record]
    files: Mapping[str, bytes]
    is_given_up: bool = False


Answer = Callable[[Path, str], Answered]
"""An image's file and its id -> its results. Raises our errors for one that has no answer.

MachineFault, MemoryError and OSError say nothing about the image: it is tried again later.

The same file and id have to give the same UIDs: what was interrupted is answered again.
"""


class Service:
    """Answers what a listener receives, one image at a time, in the order of their arrival.

    An image is acknowledged when it is in the spool, and gone from there when its results are: a
    process or a computer that ends at any moment in between goes on at the next start. What has no
    answer has the record of its failure, and is tried anew when it is sent again.

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
        later: Pauses = LATER,
    ) -> None:
        self._spool, self._answer, self._sender = spool, answer, sender
        self._report, self._log = report, log
        self._pauses, self._pauses_for_later = pauses, later
        self._listener = Listener(settings, self._store, spool.partial, log)
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._worker = threading.Thread(target=self._work, name="answers", daemon=True)
        self._later: list[tuple[float, str]] = []
        self._answering: str | None = None
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
        if (name := self._answering) is not None:
            with suppress(WriteError):
                self._spool.forgive(name)
        if self._sender:
            self._sender.stop()

    def require_alive(self) -> None:
        """Raise NodeError where one of the threads has ended by itself, once started."""
        alive = {"listens": self._listener.is_alive, "answers": self._worker.is_alive()}
        if self._sender:
            alive["sends"] = self._sender.is_alive
        if dead := [what for what, is_so in alive.items() if not is_so]:
            raise NodeError(
                f"What {' and what '.join(dead)} has ended by itself. Nothing is lost: start it "
                "again, and report this."
            )

    def _store(self, received: Received) -> int:
        """What the peer is told of an image; only of one that is safe that it succeeded."""
        try:
            name = self._spool.receive(received.path, received.sop_instance)
        except WriteError as error:
            if not self._refusing:
                self._refusing = True
                self._log(f"Images are refused: {error.message}{self._taken()}")
            return OUT_OF_RESOURCES
        if self._refusing:
            self._refusing = False
            self._log("Images are accepted again.")
        if name is not None:
            self._queue.put(name)
        else:
            known = self._spool.pseudonyms.of(received.sop_instance)
            self._log(f"{known}: received before; it is answered once.")
        return SUCCESS

    def _taken(self) -> str:
        """What takes the disk where it is full, as a sentence."""
        try:
            return "" if self._spool.has_room() else f" The node's take: {self._spool.taken()}."
        except WriteError:
            return ""

    def _work(self) -> None:
        while (name := self._next()) is not None and not self._stopping.is_set():
            try:
                self._finish(name)
            except Exception as error:  # the edge: nothing may end what answers the others
                self._log(f"{name}: {_fault(error)} It waits for the next start.")

    def _next(self) -> str | None:
        """What to answer: one whose pause is over, else the oldest; None: it is the end."""
        while True:
            pause = self._later[0][0] - time.monotonic() if self._later else None
            if pause is not None and pause <= 0:
                return heapq.heappop(self._later)[1]
            try:
                return self._queue.get(timeout=pause)
            except Empty:
                continue

    def _finish(self, name: str) -> None:
        """Answer an image and keep its results, as soon as the disk takes them."""
        answered, failures = None, 0
        while True:
            try:
                answered = answered or self._answered(name)
                if answered is None:
                    self._put_off(name)
                    return
                self._keep(name, answered)
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

    def _put_off(self, name: str) -> None:
        """An image that is not at fault, as a try in vain. Raises WriteError."""
        pause = self._pauses_for_later.after(self._spool.tried(name))
        heapq.heappush(self._later, (time.monotonic() + pause, name))
        self._log(f"{name}: It is tried again in {pause:g} s.")

    def _keep(self, name: str, answered: Answered) -> None:
        """Results, or of what has none at all the records. Raises WriteError."""
        records = answered.records
        if not all(isinstance(each, Failure) for each in records):
            self._spool.keep(name, answered.files)
            return
        lines = b"".join(encode(each) + b"\n" for each in records)
        self._spool.keep(name, {FAILURE: lines}, image=answered.is_given_up)

    def _answered(self, name: str) -> Answered | None:
        """The results, or the record of a failure; None where the machine could not do it.

        Raises WriteError of the spool.
        """
        with self._spool.answering(name) as (image, tries):
            if tries >= GIVEN_UP:
                error = Unexpected(
                    f"medimg-edge or this machine failed {tries} times while this image was "
                    "answered, and it is not tried again until it is sent again. It is kept beside "
                    "this record. Report it."
                )
                return Answered([failure(name, error)], {}, is_given_up=True)
            self._answering = name
            try:
                return self._answer(image, name)
            except MachineFault as error:
                self._log(f"{name}: {error.message}")
                return None
            except (MemoryError, OSError) as error:
                self._log(f"{name}: {_what(error)}.")
                return None
            except MedimgEdgeError as error:
                record = failure(name, error)
            except Exception as error:  # the edge: its text may hold the patient's name
                self._log(f"{name}: {_fault(error)}")
                record = failure(name, Unexpected(_fault(error)))
            finally:
                self._answering = None
        return Answered([record], {})


def _fault(error: Exception) -> str:
    return f"A fault of medimg-edge itself ({_what(error)}): report it."


def _what(error: Exception) -> str:
    """What and where, without the error's own words."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}"
