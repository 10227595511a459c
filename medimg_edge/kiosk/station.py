"""The station: takes an image, has it answered, keeps the answer, and only then tells it."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from medimg_edge import __version__
from medimg_edge.errors import (
    DiskLow,
    KeyInUse,
    KeyReused,
    MachineFault,
    MedimgEdgeError,
    NotFound,
    PictureGone,
)
from medimg_edge.kiosk.answers import Answered, Answers, Facts
from medimg_edge.kiosk.body import Room
from medimg_edge.kiosk.drifting import Answering, Drifting
from medimg_edge.kiosk.guard import place
from medimg_edge.kiosk.inbox import Inbox
from medimg_edge.kiosk.kept import Kept, New, Source, Timings
from medimg_edge.kiosk.ledger import Ledger
from medimg_edge.kiosk.log import Log
from medimg_edge.kiosk.metrics import Metrics
from medimg_edge.kiosk.pictures import Pictures
from medimg_edge.kiosk.problems import error_of
from medimg_edge.kiosk.settings import Limits
from medimg_edge.kiosk.wire import Prediction, Retention, prediction

BODIES = 3
"""Of the largest size, that memory holds at a time."""

SWEEP_SECONDS = 3600.0
"""How often it is looked for what is older than is kept."""


class Told(NamedTuple):
    """An image's entry in the record. error: what it ended in where it has no answer."""

    kept: Kept
    error: MedimgEdgeError | None
    is_replayed: bool = False


class Station:
    """What the routes speak to. All of its folder is its own; one process may use it."""

    def __init__(
        self,
        *,
        answers: Answers,
        ledger: Ledger,
        pictures: Pictures,
        inbox: Inbox,
        folder: Path,
        limits: Limits,
        retention: Retention,
        log: Log,
    ) -> None:
        self.answers, self.ledger, self.pictures, self.inbox = answers, ledger, pictures, inbox
        self.limits, self.retention = limits, retention
        self._folder, self._log = folder, log
        self.room = Room(BODIES * limits.body_bytes)
        self.drifting = Drifting(ledger, log, self._answering)
        self._keys: set[str] = set()
        self.metrics = Metrics(
            waiting=lambda: answers.waiting,
            is_ready=lambda: answers.state == "ready",
            entries=lambda: ledger.entries,
            free_bytes=self._free,
            drift=self.drifting.found,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer while the block runs, and let go of what is older than is kept."""
        await self.answers.start()
        sweeping = asyncio.create_task(self._sweep_again_and_again())
        try:
            yield
        finally:
            sweeping.cancel()
            await self.answers.stop()
            self.ledger.close()

    async def predict(
        self, data: bytes, *, source: Source, frame: int | None = None, key: str | None = None
    ) -> Told:
        """Answer an image, keep the answer, tell it: an image has an entry before it has a result.

        key: an Idempotency-Key, of this image and frame. With one that came before, what was told
        then is told again.
        Raises NotReady, Busy, DiskLow, WriteError, MachineFault, KeyReused, KeyInUse.
        """
        content = (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
        if key is None:
            return await self._answered(data, source, frame, content, None)
        hashed = hashlib.sha256(f"{key} {frame}".encode()).hexdigest()
        if hashed in self._keys:
            raise KeyInUse("The first request with this Idempotency-Key is still being answered.")
        self._keys.add(hashed)
        try:
            return await asyncio.to_thread(self._replayed, hashed, content) or (
                await self._answered(data, source, frame, content, hashed)
            )
        finally:
            self._keys.discard(hashed)

    def started(self, facts: Facts) -> None:
        """Keep in the record what answers from now on."""
        told = {
            "medimg_edge": __version__,
            "model": {"name": facts.name, "version": facts.version, "hash": facts.hash},
            "artifact": facts.artifact,
            "runtime": facts.runtime,
            "profile": facts.profile,
            "risk": facts.risk,
            "signer": facts.signer,
        }
        self.metrics.model(
            name=facts.name,
            version=facts.version,
            hash=facts.hash,
            artifact=facts.artifact,
            runtime=facts.runtime,
        )
        self.ledger.started(msgspec.json.encode(told)).add_done_callback(self._tell_failure)

    async def predict_item(
        self, name: str, *, frame: int | None = None, key: str | None = None
    ) -> Told:
        """Answer an image of the inbox, which stays there.

        Raises as ``predict``, and NotFound, BodyTooLarge, InputMissing.
        """
        limit = self.limits.body_bytes
        with self.room.held(limit):
            data, kind = await asyncio.to_thread(self.inbox.read, name, limit)
            return await self.predict(data, source=kind, frame=frame, key=key)

    def kept(self, name: str) -> Kept:
        """An answer by its id. Raises NotFound."""
        found = self.ledger.get(name)
        if found is None:
            raise NotFound("There is no prediction with that id; it may be older than is kept.")
        return found

    def shown(self, kept: Kept) -> Prediction:
        """An answer as it is told, with whether it can be drawn now."""
        return prediction(kept, picture=self.pictures.has(kept.id))

    def view(self, name: str) -> bytes:
        """What an answer is drawn from. Raises NotFound, PictureGone."""
        view = self.pictures.get(name)
        if view is None:
            self.kept(name)
            days = self.retention.images_days
            kept = f"for {days:g} days" if days else "not kept; `serve --keep-images DAYS` does"
            raise PictureGone(f"The picture is not there any more. Pictures are {kept}.")
        return view

    async def _answered(
        self, data: bytes, source: Source, frame: int | None, content: str, key: str | None
    ) -> Told:
        self.answers.require_ready()
        self._require_room()
        name = secrets.token_hex(16)
        answered = await self.answers.answer(data, name=name, frame=frame)
        if answered.code == MachineFault.code:
            raise MachineFault(_message(answered))
        new = New(
            id=name,
            source=source,
            input_sha256=content,
            record=answered.record,
            timings=Timings(waited_ms=answered.waited_ms, answer_ms=answered.answer_ms),
            operating_points=msgspec.json.encode(answered.points),
            key=key,
        )
        return await asyncio.shield(self._keep(new, answered, data))

    async def _keep(self, new: New, answered: Answered, data: bytes) -> Told:
        """Not to be cancelled: a client that went away has been answered."""
        if answered.view is not None:
            if self.pictures.on_disk:
                await asyncio.to_thread(self.pictures.put, new.id, answered.view, data)
            else:
                self.pictures.put(new.id, answered.view, data)
        try:
            kept = await asyncio.wrap_future(self.ledger.append(new))
        except BaseException:
            self.pictures.remove(new.id)
            raise
        self._count(answered)
        error = error_of(answered.code, _message(answered)) if answered.code else None
        return Told(kept, error)

    def _replayed(self, key: str, content: str) -> Told | None:
        found = self.ledger.of_key(key)
        if found is None:
            return None
        kept = self.kept(found)
        if kept.input_sha256 != content:
            raise KeyReused(
                "This Idempotency-Key came with another image before. Give each image its own."
            )
        record: dict[str, Any] = msgspec.json.decode(kept.record)
        code = record.get("code")
        return Told(kept, error_of(code, record["message"]) if code else None, is_replayed=True)

    def _count(self, answered: Answered) -> None:
        self.metrics.image(answered.status, answered.code, answered.waited_ms, answered.answer_ms)
        for each in msgspec.json.decode(answered.record).get("findings", ()):
            self.metrics.decision(each["label"], each["decision"])

    def _answering(self) -> Answering | None:
        facts, folder = self.answers.facts, self.answers.folder
        if facts is None or folder is None:
            return None
        return Answering(Path(folder), facts.hash, facts.artifact)

    def _tell_failure(self, done: Future) -> None:
        if (error := done.exception()) is not None:
            self._log("the start is not in the record", message=str(error))

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free

    def _require_room(self) -> None:
        free = self._free()
        if free < self.limits.reserve_bytes:
            raise DiskLow(
                f"The disk of the record has {free / 1e6:.0f} MB free, and "
                f"{self.limits.reserve_bytes / 1e6:.0f} MB are needed: new images are not "
                "answered. Make room on the disk, or keep pictures and records for fewer days."
            )

    async def _sweep_again_and_again(self) -> None:
        while True:
            for sweep in (self._sweep_pictures, self._sweep_records):
                try:
                    await asyncio.to_thread(sweep)
                except MedimgEdgeError as error:
                    self._log("retention failed", code=error.code, message=error.message)
                except Exception as error:  # the edge: a fault must not end what keeps removing
                    self._log("retention failed", fault=type(error).__name__, place=place(error))
            await asyncio.sleep(SWEEP_SECONDS)

    def _sweep_pictures(self) -> None:
        if removed := self.pictures.prune():
            self._log("old pictures removed", files=removed)

    def _sweep_records(self) -> None:
        days = self.retention.records_days
        if days and (removed := self.ledger.prune(days)):
            self._log("old entries removed", entries=removed)


def _message(answered: Answered) -> str:
    return msgspec.json.decode(answered.record).get("message", "")
