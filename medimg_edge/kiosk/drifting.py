"""Whether what a kiosk sees has drifted: all of its record, and its newest images."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import msgspec

from medimg_edge.bundle import Bundle
from medimg_edge.drift import (
    CODE,
    DECISION,
    PROBABILITY,
    Comparison,
    Kind,
    Shift,
    compare,
    reference_of,
    sentence,
)
from medimg_edge.drift_records import Seen, attributed, of_entry, seen
from medimg_edge.errors import LedgerDamaged, MedimgEdgeError, ReferenceMissing
from medimg_edge.kiosk.ledger_reader import PAGE, Reader, entries
from medimg_edge.manifest import Reference

IMAGES = 300
"""The newest, that are compared: by number, not by time, for a clock may be wrong."""

SECONDS = 60.0
"""Between two looks."""

ALARMS = 0.001
"""As ``drift.ALARMS``; fewer, because the newest images are looked at again and again."""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest images differ in from those that the model was validated on.

    number: such as ``brightness``. label: of a probability or a decision. share: that is turned
    away by the code ``number``. psi: population stability index. message: for a person.
    """

    images: int
    number: str
    kind: Kind
    shift: Shift
    label: str | None
    share: float | None
    psi: float | None
    message: str


class Found(NamedTuple):
    """Of how many images; by number the population stability index; what has drifted, if any."""

    images: int = 0
    psi: dict[str, float] = {}  # noqa: RUF012 - nothing writes to it
    drift: Drift | None = None


class Answering(NamedTuple):
    """What answers: a bundle's folder and hash, and the artifact."""

    folder: Path
    hash: str
    artifact: str

    def reference(self) -> Reference | None:
        """None where the bundle has none. Raises what ``Bundle.open`` does."""
        bundle = Bundle.open(self.folder)
        if bundle.hash != self.hash:
            return None
        try:
            return reference_of(bundle, self.artifact)
        except ReferenceMissing:
            return None


class Drifting:
    """Looks at the newest images of a record when it is asked, at most once a minute.

    May be shared between threads; not for an event loop, as a look reads the record. log: is told
    when the record cannot be read. answering: what answers now, None before it does; images that
    anything else answered are not compared.
    """

    def __init__(
        self,
        ledger: Reader,
        log: Callable[..., None],
        answering: Callable[[], Answering | None],
    ) -> None:
        self._ledger, self._log, self._answering = ledger, log, answering
        self._looking = Lock()
        self._next = 0.0
        self._last: tuple[Answering | None, Found] = None, Found()
        self._reference: tuple[Answering | None, Reference | None] = None, None

    def found(self) -> Found:
        """As it was at most a minute ago; empty where the bundle has no reference."""
        now = self._answering()
        if now is not None and self._looking.acquire(blocking=False):
            try:
                if time.monotonic() >= self._next or self._last[0] != now:
                    self._last = now, self._look(now)
                    self._next = time.monotonic() + SECONDS
            finally:
                self._looking.release()
        of, found = self._last
        return found if of == now else Found()

    def _look(self, now: Answering) -> Found:
        try:
            if self._reference[0] != now:
                self._reference = now, now.reference()
            if (reference := self._reference[1]) is None:
                return Found()
            images = [
                each
                for each in self._newest()
                if (each.model is None or each.model.hash == now.hash)
                and each.artifact in (None, now.artifact)
            ]
        except (MedimgEdgeError, msgspec.DecodeError) as error:
            self._log("drift was not looked at", fault=type(error).__name__, message=str(error))
            return Found()
        return _found(images, reference)

    def _newest(self) -> list[Seen]:
        """Oldest first. Raises LedgerDamaged, WriteError."""
        found: list[Seen | None] = []
        before: int | None = None
        while len(found) < IMAGES:
            limit = min(PAGE, IMAGES - len(found))
            page, before = self._ledger.page(limit=limit, before=before)
            found += [seen(bytes(each.record), each.time) for each in page]
            if before is None:
                break
        return attributed(each for each in reversed(found) if each is not None)


def seen_in(folder: Path) -> list[Seen]:
    """The images of the record in a folder, also while a service writes it.

    Raises LedgerMissing, LedgerUnknown, LedgerDamaged, WriteError.
    """
    found = []
    for each in entries(folder):
        try:
            found.append(of_entry(each.kind, each.time, each.body))
        except msgspec.DecodeError as error:
            raise LedgerDamaged(
                f"Entry {each.sequence} cannot be read: {error}. `audit verify` says more."
            ) from error
    return attributed(each for each in found if each is not None)


def _found(images: list[Seen], reference: Reference) -> Found:
    comparisons = compare(images, reference, ALARMS)
    psi = {each.name: each.psi for each in comparisons if each.psi is not None}
    first = comparisons[0]
    if not first.is_drift:
        return Found(len(images), psi)
    message = sentence(f"The last {len(images)} images", comparisons)
    return Found(len(images), psi, _told(first, message, len(images)))


def _told(found: Comparison, message: str, images: int) -> Drift:
    label = next(
        (
            found.name.removeprefix(each)
            for each in (PROBABILITY, DECISION)
            if found.name.startswith(each)
        ),
        None,
    )
    code = found.name.removeprefix(CODE)
    return Drift(
        images=images,
        number=code,
        kind=found.kind,
        shift=found.shift,
        label=label,
        share=found.shares[code] if found.kind == "code" else None,
        psi=found.psi,
        message=message,
    )
