"""Results on their way to the archive: a storage SCU. PS3.4 Annex B."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from medimg_edge.dicom.node.outbox import Outbox
from medimg_edge.dicom.node.pauses import Pauses
from medimg_edge.dicom.node.settings import ae_title
from medimg_edge.errors import MedimgEdgeError, NodeError

if TYPE_CHECKING:
    from ssl import SSLContext

    from pydicom import Dataset
    from pynetdicom.association import Association
    from pynetdicom.events import Event

AT_ONCE = 100
"""Files that are sent in one association, at most."""

AWAY, REFUSED = Pauses(1, 300), Pauses(1, 3600)
CONNECT_SECONDS = 10
ANSWER_SECONDS = 60
STOP_SECONDS = 3

_PEER = re.compile(r"(.+)@(?:\[([^\]]+)\]|([^:@\[\]]+)):([0-9]{1,5})")
_UNDEFINED = 0xFFFFFFFF
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
"""Little endian, explicit and implicit: an archive has the second at least (PS3.5 section 10.1)."""


@dataclass(frozen=True)
class Peer:
    """An archive: its AE title and where it listens."""

    aet: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Peer:
        """``AET@HOST:PORT``, or ``AET@[IPv6]:PORT``. Raises NodeError."""
        found = _PEER.fullmatch(text)
        if not found or not 1 <= int(found[4]) <= 65535:
            raise NodeError(
                f"{text!r} is no archive; one is AET@HOST:PORT, such as ARCHIVE@10.0.0.5:104."
            )
        return cls(ae_title(found[1]), found[2] or found[3], int(found[4]))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.aet}@{host}:{self.port}"


class _Unsent(Exception):
    """Why a result is not sent yet, for the log."""


class _Away(_Unsent):
    """The archive cannot be reached, or takes nothing for now."""


class _Refused(_Unsent):
    """The archive does not take this result, and may take others."""


class _Lost(_Away):
    """The connection ended with a result that it may be the cause of."""


class _Refusal(NamedTuple):
    """reason: as it was logged. due: when to offer the result again, on the monotonic clock."""

    reason: str
    times: int
    due: float


class Sender:
    """Sends what lies in an outbox, in a thread of its own, until the archive acknowledges it.

    While the archive is away all results wait, for the seconds that ``away`` says. A result that it
    refuses, that breaks its connection, or that is damaged waits alone for those of ``refused``,
    and the others go on. Nothing is given up: what stands in the way can be put right there.

    calling: our AE title. tls: how to connect, if not plainly. log: takes lines without patient
    data.
    """

    def __init__(
        self,
        outbox: Outbox,
        peer: Peer,
        *,
        calling: str,
        log: Callable[[str], None],
        tls: SSLContext | None = None,
        away: Pauses = AWAY,
        refused: Pauses = REFUSED,
    ) -> None:
        self._outbox, self._peer, self._calling = outbox, peer, calling
        self._log, self._tls = log, tls
        self._away, self._refused = away, refused
        self._refusals: dict[Path, _Refusal] = {}
        self._stopping, self._woken = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether it sends, and has not ended by itself."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin with what is there."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there may be more to send."""
        self._woken.set()

    def stop(self) -> None:
        """End after the result that is being sent, or without its acknowledgement."""
        self._stopping.set()
        self._woken.set()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                self._woken.clear()
                if not self._send_due():
                    self._woken.wait(self._seconds_to_refused())
                elif failures:
                    self._log(f"{self._peer} takes results again.")
                failures = 0
            except Exception as error:  # the edge: nothing may end what sends the others
                failures += 1
                pause = self._away.after(failures)
                self._log(f"{_said(error)} Results wait; tried again in {pause:g} s.")
                self._stopping.wait(pause)

    def _send_due(self) -> bool:
        """Send some of what is due; whether there was any. Raises _Away, WriteError."""
        pending = self._outbox.pending()
        self._refusals = {path: self._refusals[path] for path in pending if path in self._refusals}
        now = time.monotonic()
        waiting = {path for path, refusal in self._refusals.items() if refusal.due > now}
        due = [each for each in pending if each not in waiting]
        self._send(due[:AT_ONCE])
        return bool(due)

    def _seconds_to_refused(self) -> float | None:
        if not self._refusals:
            return None
        return max(0, min(each.due for each in self._refusals.values()) - time.monotonic())

    def _send(self, paths: Sequence[Path]) -> None:
        classes: dict[Path, str] = {}
        for path in paths:
            with self._aside(path):
                classes[path] = _sop_class(path)
        if not classes:
            return
        with self._association(sorted(set(classes.values()))) as association:
            for path in classes:
                if self._stopping.is_set():
                    return
                with self._aside(path):
                    self._store(association, path)
                    self._outbox.acknowledged(path)

    @contextmanager
    def _aside(self, path: Path) -> Iterator[None]:
        """Let a result wait alone that the block could not send; raise _Away where all have to."""
        try:
            yield
        except (_Refused, _Lost) as error:
            before = self._refusals.get(path)
            times = before.times + 1 if before else 1
            due = time.monotonic() + self._refused.after(times)
            self._refusals[path] = _Refusal(str(error), times, due)
            if not before or before.reason != str(error):
                self._log(f"{path.name}: {error} It is kept, and offered again.")
            if isinstance(error, _Lost):
                raise

    @contextmanager
    def _association(self, classes: Sequence[str]) -> Iterator[Association]:
        """An association in which each of the SOP classes was proposed. Raises _Away."""
        from pynetdicom import AE, evt

        entity = AE(self._calling)
        entity.connection_timeout = CONNECT_SECONDS
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = ANSWER_SECONDS
        for each in classes:
            entity.add_requested_context(each, _SYNTAXES)
        try:
            association = entity.associate(
                self._peer.host,
                self._peer.port,
                ae_title=self._peer.aet,
                tls_args=(self._tls, self._peer.host) if self._tls else None,
                evt_handlers=[(evt.EVT_CONN_OPEN, _without_delay)],
            )
        except OSError as error:  # such as a host name that is not known
            raise _Away(f"{self._peer} cannot be reached: {error.strerror}.") from error
        if not association.is_established and not association.rejected_contexts:
            raise _Away(f"{self._peer} {_why_not(association, self._tls is not None)}.")
        try:
            yield association
        finally:
            association.release()

    def _store(self, association: Association, path: Path) -> None:
        """Send a result until it is acknowledged: PS3.4 table B.2-1. Raises _Refused, _Away."""
        from pynetdicom.status import code_to_category

        with _undamaged():
            dataset = _read(path)
            name, sop_class = dataset.SOPClassUID.name, dataset.SOPClassUID
        if sop_class not in {each.abstract_syntax for each in association.accepted_contexts}:
            raise _Refused(f"{self._peer} does not take objects of the class {name}.")
        if not association.is_established:
            raise _Away(f"{self._peer} ended the connection.")
        with _undamaged():
            status = association.send_c_store(dataset).get("Status")
        if status is None:
            raise _Lost(f"{self._peer} did not answer, or ended the connection.")
        if status in _OUT_OF_RESOURCES:
            raise _Away(f"{self._peer} is out of resources (status 0x{status:04X}).")
        if code_to_category(status) not in ("Success", "Warning"):
            raise _Refused(f"{self._peer} refused it (status 0x{status:04X}).")


def _sop_class(path: Path) -> str:
    """The SOP class of a file, from its file meta information alone. Raises _Refused."""
    from pydicom.filereader import read_file_meta_info

    with _undamaged():
        return str(read_file_meta_info(path).MediaStorageSOPClassUID)


def _read(path: Path) -> Dataset:
    """The whole data set of a file; pydicom by itself takes one whose end is missing."""
    from pydicom import dcmread
    from pydicom.dataelem import RawDataElement

    dataset = dcmread(path)
    raw = (each for each in dataset.values() if isinstance(each, RawDataElement))
    if any(each.length not in (len(each.value or b""), _UNDEFINED) for each in raw):
        raise EOFError
    return dataset


@contextmanager
def _undamaged() -> Iterator[None]:
    """The edge: whatever pydicom says of a file that it cannot read or encode. Raises _Refused."""
    try:
        yield
    except Exception as error:
        raise _Refused(
            f"The file is damaged or cannot be read ({type(error).__name__})."
        ) from error


def _said(error: Exception) -> str:
    if isinstance(error, MedimgEdgeError | _Unsent):
        return str(error)
    return f"A fault of medimg-edge itself ({type(error).__name__})."


def _why_not(association: Association, secure: bool) -> str:
    if association.is_rejected:
        reason = getattr(association.acceptor.primitive, "reason_str", "")
        return f"rejected the association ({reason})"
    either = ", or its certificate is not accepted here, or ours there" if secure else ""
    return f"does not accept the connection{either}"


def _without_delay(event: Event) -> None:
    """Send small messages at once: waiting for more (RFC 896) costs 40 ms for each of them."""
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
