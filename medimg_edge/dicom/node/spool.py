"""Instances on the disk, from the moment that they are received until their results are kept."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from medimg_edge import disk, secret
from medimg_edge.claim import claim
from medimg_edge.dicom.node.outbox import ID, MODEL, Outbox, is_sent
from medimg_edge.dicom.pseudonym import Pseudonyms
from medimg_edge.errors import WriteError

QUEUE = 1000
RESERVE_BYTES = 256 * 10**6

FAILURE = "failure.json"
"""The key of the record of an image that has no answer."""

_IMAGE = re.compile(rf"({ID.pattern})\.([0-9]{{1,6}})\.dcm")
_COUNTING_SECONDS = 1


class Spool:
    """A folder in which nothing is lost and nothing is half, whenever the process or power ends.

    partial/           files that are being written; emptied at the start
    inbox/ID.N.dcm     received, not answered; tried N times in vain
    inbox/ID.trying    it is being answered: where this outlives the process, that was in vain
    outbox/ID-MODEL/   its results by a model, to be sent
    results/ID-MODEL/  the same: sent, or not to be sent
    salt               what IDs are made of, and the SOP Instance UID
    lock               held by the one process that uses the folder

    An ID is ``Pseudonyms(salt).of(uid)``: an instance that is received again is the same one. It is
    known, and has its results, from its folder in outbox/ or results/ on, which takes its name in
    one step; an image in inbox/ that has such a folder was answered just before a kill. A failure
    is no result: an instance that ended in one is taken again. Nor are another model's results.

    model: what answers, as up to 32 hexadecimal characters.
    queue: how many instances may wait for their answers.
    reserve_bytes: of the disk, that stay free for the results of what was accepted.
    send: whether there is an archive; without, results are kept at once.
    keep_images: as results/ID-MODEL/ID.source.dcm, instead of removing them once answered.
    keep_results: also those that the archive has.

    May be shared between threads. Construction and methods raise WriteError. ``partial`` is for
    files that are being received, ``outbox`` for who sends, ``pseudonyms`` for whoever names UIDs.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        queue: int = QUEUE,
        reserve_bytes: int = RESERVE_BYTES,
        send: bool = False,
        keep_images: bool = False,
        keep_results: bool = False,
    ) -> None:
        assert MODEL.fullmatch(model)
        self.folder, self.partial = folder, folder / "partial"
        self._inbox, self._results = folder / "inbox", folder / "results"
        self._model, self._queue, self._reserve = model, queue, reserve_bytes
        self._send, self._keep_images = send, keep_images
        self._lock = threading.Lock()
        with disk.written(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._claim = claim(folder)
            for each in ("partial", "inbox", "outbox", "results"):
                disk.make_folder(folder / each)
            _empty(self.partial)
            self.pseudonyms = Pseudonyms(secret.kept(folder / "salt"))
            disk.sync(folder)
            self.outbox = Outbox(folder / "outbox", self._results, keep=keep_results)
            self._tries = self._recovered()

    def close(self) -> None:
        """Let another process use the folder."""
        self._claim.close()

    def waiting(self) -> list[str]:
        """The ids of the instances that have no results, in the order to answer them."""
        with self._lock:
            return list(self._tries)

    def receive(self, file: Path, uid: str) -> str | None:
        """Take a file in ``partial``, the instance ``uid``: when this returns, it is safe.

        Returns its id, or None where it was received before: its results are there or will be.
        """
        name = self.pseudonyms.of(uid)
        with disk.written(self.folder):
            disk.sync(file)
            with self._lock:
                if name in self._tries or self._is_known(name):
                    file.unlink()
                    return None
                self._require_room()
                disk.rename(file, self._image(name, 0))
                self._tries[name] = 0
        return name

    @contextmanager
    def answering(self, name: str) -> Iterator[tuple[Path, int]]:
        """Give the image to the block that answers it, and how often that was tried in vain."""
        with disk.written(self.folder):
            self._trying(name).touch(0o600)
        try:
            yield self._image(name), self._tries[name]
        finally:
            self.forgive(name)

    def forgive(self, name: str) -> None:
        """That the process ends now, while it answers an instance, does not count as a try."""
        with disk.written(self.folder):
            self._trying(name).unlink(missing_ok=True)

    def tried(self, name: str) -> int:
        """Count a try that was in vain; how many there were."""
        with self._lock, disk.written(self.folder):
            before = self._image(name)
            with suppress(FileNotFoundError):  # taken away by somebody: its reader will say it
                os.rename(before, self._image(name, self._tries[name] + 1))
            self._tries[name] += 1
            return self._tries[name]

    def keep(self, name: str, files: Mapping[str, bytes], *, image: bool = False) -> None:
        """Keep an instance's results, all of them or none, and let go of its image.

        They become ID.<key>, such as ID.sr.dcm, and those that end in .dcm are for the archive;
        or they are its failure, ID.failure.json. When this failed it can be called again.

        image: keep it beside them, whatever is done with others.
        """
        sent = self._send and any(map(is_sent, files))
        target = self.outbox.folder if sent else self._results
        with disk.written(self.folder):
            if not self._is_known(name):
                self._remove_failure(name)
                self._put(name, files, target)
            disk.sync(target)
            self._let_go(name, self._tries[name], kept=image or self._keep_images)
        with self._lock:
            del self._tries[name]

    def has_room(self) -> bool:
        """Whether as much of the disk is free as is to be."""
        with disk.written(self.folder):
            return self._free() >= self._reserve

    def taken(self) -> str:
        """What takes the room, for a person; counting it ends after a while."""
        found = []
        for each in ("inbox", "outbox", "results"):
            size, whole = disk.taken(self.folder / each, _COUNTING_SECONDS)
            found.append(f"{each} {'' if whole else 'more than '}{size / 1e6:.0f} MB")
        return ", ".join(found)

    def _put(self, name: str, files: Mapping[str, bytes], target: Path) -> None:
        """Give the files their place in one step, all on the disk, or leave nothing of them."""
        staged = self.partial / name
        shutil.rmtree(staged, ignore_errors=True)  # where an earlier try could not even do this
        try:
            staged.mkdir(mode=disk.PRIVATE)
            for key, data in files.items():
                disk.write(staged / f"{name}.{key}", data)
            disk.sync(staged)
            os.rename(staged, target / self._folder(name))
        except OSError:
            shutil.rmtree(staged, ignore_errors=True)
            raise

    def _remove_failure(self, name: str) -> None:
        """Of an earlier time, if there was one; in one step, for half of it would be a result."""
        done, aside = self._results / self._folder(name), self.partial / f"{name}.failure"
        if done.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(done, aside)
            disk.sync(self._results)
            shutil.rmtree(aside, ignore_errors=True)

    def _recovered(self) -> dict[str, int]:
        """What a process before this one received and did not answer, the oldest first.

        Those that were tried in vain come last, such as one that was being answered when a process
        ended: should it have been the reason, it is not in the way of the others.
        """
        found = []
        with os.scandir(self._inbox) as entries:
            names = {entry.name: entry for entry in entries}
        for each, entry in names.items():
            if match := _IMAGE.fullmatch(each):
                name, tries = match[1], int(match[2])
                if self._is_known(name):
                    self._let_go(name, tries, kept=self._keep_images)
                    continue
                arrived = entry.stat().st_mtime_ns
                if self._trying(name).name in names:
                    tries += 1
                    os.rename(entry.path, self._image(name, tries))
                found.append((tries, arrived, name))
        for each in self._inbox.glob("*.trying"):
            each.unlink()
        return {name: tries for tries, _, name in sorted(found)}

    def _let_go(self, name: str, tries: int, *, kept: bool) -> None:
        """Of the image of an instance that has its results."""
        image = self._image(name, tries)
        with suppress(FileNotFoundError):
            if kept:
                done = self._results / self._folder(name)
                disk.make_folder(done)
                os.rename(image, done / f"{name}.source.dcm")
            else:
                os.unlink(image)

    def _require_room(self) -> None:
        if len(self._tries) >= self._queue:
            raise WriteError(
                f"{len(self._tries)} instances wait for their answers, as many as may: it is to be "
                "sent again later."
            )
        free = self._free()
        if free < self._reserve:
            raise WriteError(
                f"{self.folder} has {free / 1e6:.0f} MB of free disk, and "
                f"{self._reserve / 1e6:.0f} MB are kept for results: make room."
            )

    def _free(self) -> int:
        return shutil.disk_usage(self._inbox).free

    def _is_known(self, name: str) -> bool:
        # In this order: that is how results move.
        folder = self._folder(name)
        done = self._results / folder
        return (self.outbox.folder / folder).exists() or (
            done.exists() and not (done / f"{name}.{FAILURE}").exists()
        )

    def _folder(self, name: str) -> str:
        return f"{name}-{self._model}"

    def _image(self, name: str, tries: int | None = None) -> Path:
        return self._inbox / f"{name}.{self._tries[name] if tries is None else tries}.dcm"

    def _trying(self, name: str) -> Path:
        return self._inbox / f"{name}.trying"


def _empty(folder: Path) -> None:
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()
