"""Instances on the disk, from the moment that they are received until their results are kept."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from medimg_edge.dicom.node import disk
from medimg_edge.dicom.node.outbox import ID, Outbox, is_sent
from medimg_edge.dicom.pseudonym import SALT_BYTES, Pseudonyms
from medimg_edge.errors import WriteError

QUEUE = 1000
RESERVE_BYTES = 256 * 10**6

_IMAGE = re.compile(rf"({ID.pattern})\.([0-9]{{1,6}})\.dcm")


class Spool:
    """A folder in which nothing is lost and nothing is half, whenever the process or power ends.

    partial/          files that are being written; emptied at the start
    inbox/ID.N.dcm    received, not answered; N times a process ended while it answered it
    outbox/ID/        its results, to be sent
    results/ID/       its results: sent, or not to be sent
    salt              what IDs are made of, and the SOP Instance UID
    lock              held by the one process that uses the folder

    An ID is ``Pseudonyms(salt).of(uid)``: an instance that is received again is the same one. It is
    known, and has its results, from its folder in outbox/ or results/ on, which takes its name in
    one step; an image in inbox/ that has such a folder was answered just before a kill.

    queue: how many instances may wait for their answers.
    reserve_bytes: of the disk, that stay free for the results of what was accepted.
    send: whether there is an archive; without, results are kept at once.
    keep_images: as results/ID/ID.source.dcm, instead of removing them once answered.

    May be shared between threads. Construction and methods raise WriteError. ``partial`` is for
    files that are being received, ``outbox`` for who sends, ``pseudonyms`` for whoever names UIDs.
    """

    def __init__(
        self,
        folder: Path,
        *,
        queue: int = QUEUE,
        reserve_bytes: int = RESERVE_BYTES,
        send: bool = False,
        keep_images: bool = False,
    ) -> None:
        self.folder, self.partial = folder, folder / "partial"
        self._inbox, self._results = folder / "inbox", folder / "results"
        self._queue, self._reserve = queue, reserve_bytes
        self._send, self._keep_images = send, keep_images
        self._lock = threading.Lock()
        with disk.written(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._claim = _claim(folder)
            for each in ("partial", "inbox", "outbox", "results"):
                disk.make_folder(folder / each)
            _empty(self.partial)
            self.pseudonyms = Pseudonyms(_salt(folder / "salt", self.partial))
            self.outbox = Outbox(folder / "outbox", self._results)
            self._ended = self._recovered()

    def close(self) -> None:
        """Let another process use the folder."""
        self._claim.close()

    def waiting(self) -> list[str]:
        """The ids of the instances that have no results, in the order to answer them."""
        with self._lock:
            return list(self._ended)

    def receive(self, file: Path, uid: str) -> str | None:
        """Take a file in ``partial``, the instance ``uid``: when this returns, it is safe.

        Returns its id, or None where it was received before: its results are there or will be.
        """
        name = self.pseudonyms.of(uid)
        with disk.written(self.folder):
            disk.sync(file)
            with self._lock:
                if name in self._ended or self._is_known(name):
                    file.unlink()
                    return None
                self._require_room()
                disk.rename(file, self._image(name, 0))
                self._ended[name] = 0
        return name

    @contextmanager
    def answering(self, name: str) -> Iterator[tuple[Path, int]]:
        """Give the image to the block that answers it, and how often a process ended in one."""
        ended = self._ended[name]
        self._count(name, ended + 1)
        try:
            yield self._image(name, ended + 1), ended
        finally:
            self._count(name, ended)

    def keep(self, name: str, files: Mapping[str, bytes]) -> None:
        """Keep an instance's results, all of them or none, and let go of its image.

        They become ID.<key>, such as ID.sr.dcm, and those that end in .dcm are for the archive.
        When this failed it can be called again.
        """
        sent = self._send and any(map(is_sent, files))
        target = self.outbox.folder if sent else self._results
        with disk.written(self.folder):
            if not self._is_known(name):
                os.rename(self._staged(name, files), target / name)
            disk.sync(target)
            self._let_go(name, self._ended[name])
        with self._lock:
            del self._ended[name]

    def _count(self, name: str, ended: int) -> None:
        with self._lock, disk.written(self.folder):
            with suppress(FileNotFoundError):  # taken away by somebody: its reader will say it
                os.rename(self._image(name, self._ended[name]), self._image(name, ended))
            self._ended[name] = ended

    def _staged(self, name: str, files: Mapping[str, bytes]) -> Path:
        """A new folder with the files, all on the disk, or nothing."""
        staged = self.partial / name
        staged.mkdir(mode=disk.PRIVATE)
        try:
            for key, data in files.items():
                disk.write(staged / f"{name}.{key}", data)
            disk.sync(staged)
        except OSError:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        return staged

    def _recovered(self) -> dict[str, int]:
        """What a process before this one received and did not answer, the oldest first.

        Those that were being answered when a process ended come last: should one of them have been
        the reason, it is not in the way of the others.
        """
        found = []
        with os.scandir(self._inbox) as entries:
            for entry in entries:
                if match := _IMAGE.fullmatch(entry.name):
                    name, ended = match[1], int(match[2])
                    if self._is_known(name):
                        self._let_go(name, ended)
                    else:
                        found.append((ended, entry.stat().st_mtime_ns, name))
        return {name: ended for ended, _, name in sorted(found)}

    def _let_go(self, name: str, ended: int) -> None:
        """Of the image of an instance that has its results."""
        image = self._image(name, ended)
        with suppress(FileNotFoundError):
            if self._keep_images:
                done = self._results / name
                disk.make_folder(done)
                os.rename(image, done / f"{name}.source.dcm")
            else:
                os.unlink(image)

    def _require_room(self) -> None:
        if len(self._ended) >= self._queue:
            raise WriteError(
                f"{len(self._ended)} instances wait for their answers, as many as may: it is to be "
                "sent again later."
            )
        free = shutil.disk_usage(self._inbox).free
        if free < self._reserve:
            raise WriteError(
                f"{self.folder} has {free / 1e6:.0f} MB of free disk, and "
                f"{self._reserve / 1e6:.0f} MB are kept for results: make room."
            )

    def _is_known(self, name: str) -> bool:
        # In this order: that is how results move.
        return (self.outbox.folder / name).exists() or (self._results / name).exists()

    def _image(self, name: str, ended: int) -> Path:
        return self._inbox / f"{name}.{ended}.dcm"


def _claim(folder: Path) -> IO[bytes]:
    """The lock, which ends with the process. Raises WriteError, OSError."""
    file = (folder / "lock").open("ab")
    try:
        import fcntl
    except ImportError:  # not on Windows
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise WriteError(
            f"{folder} is used by another process that listens. Stop that one, or name another "
            "folder."
        ) from error
    return file


def _salt(path: Path, partial: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        salt = secrets.token_bytes(SALT_BYTES)
        disk.write(partial / path.name, salt)
        disk.rename(partial / path.name, path)
        return salt


def _empty(folder: Path) -> None:
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()
