"""The service: its parts, put together and run until a signal ends them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from os import PathLike
from pathlib import Path

from medimg_edge import installed
from medimg_edge.bundle import Bundle
from medimg_edge.errors import InputMissing, WriteError
from medimg_edge.kiosk import server
from medimg_edge.kiosk.answers import Answers
from medimg_edge.kiosk.app import create_app
from medimg_edge.kiosk.inbox import Inbox
from medimg_edge.kiosk.ledger import Ledger
from medimg_edge.kiosk.log import Log
from medimg_edge.kiosk.pictures import Pictures
from medimg_edge.kiosk.settings import Settings
from medimg_edge.kiosk.station import Station
from medimg_edge.kiosk.wire import Retention
from medimg_edge.trust import Trust

LEAST_BYTES = 10**6
"""Of free disk, for SQLite to open the record."""


def run(
    bundle: str | PathLike[str],
    settings: Settings,
    *,
    folder: Path,
    watched: tuple[Path, ...] = (),
    retention: Retention,
    artifact: str = "auto",
    profile: str | None = "auto",
    force: bool = False,
    risk: float | None = None,
    trusted: Path | None = None,
    allow_unsigned: bool = False,
    started: Callable[[str], None],
) -> int:
    """Serve until a signal ends it, and return its number.

    bundle: a folder, or a name, by which another one may be installed meanwhile. folder: of the
    record and the pictures; one process may use it. watched: folders whose images are offered.
    artifact, profile, force, risk, trusted, allow_unsigned: see ``Answers``. started: called with
    the URL.

    Raises what ``Bundle.open`` does, KeyInvalid, ServiceRefused, WriteError, LedgerError,
    InputMissing.
    """
    place, name = _found(bundle, artifact)
    Trust.load(trusted)
    _require_folders(watched)
    log = Log(as_json=settings.log_json)
    pictures = Pictures(folder / "pictures", keep_days=retention.images_days)
    pictures.prune()  # first: what is old may be what fills the disk
    ledger = _ledger(folder)
    station = Station(
        answers=Answers(
            bundle=place,
            name=name,
            artifact=artifact,
            profile=profile,
            force=force,
            risk=risk,
            trusted=trusted,
            allow_unsigned=allow_unsigned,
            limits=settings.limits,
            log=log,
            ready=lambda facts: station.started(facts),
        ),
        ledger=ledger,
        pictures=pictures,
        inbox=Inbox(watched),
        folder=folder,
        limits=settings.limits,
        retention=retention,
        log=log,
    )
    return server.serve(create_app(station, settings, log), settings, log=log, started=started)


def _found(bundle: str | PathLike[str], artifact: str) -> tuple[Path, str | None]:
    """A bundle's folder, and the name that it is given by, if it is.

    What is installed is opened by what answers, so that one that is damaged counts as a start.
    """
    name = None if os.path.exists(bundle) else os.fspath(bundle)
    if name is not None and (active := installed.find(name)) is not None:
        return active.folder, name
    opened = Bundle.open(bundle)
    opened.artifact(artifact)
    return opened.path, name


def _ledger(folder: Path) -> Ledger:
    try:
        return Ledger(folder)
    except WriteError as error:
        with suppress(OSError):
            if shutil.disk_usage(folder).free < LEAST_BYTES:
                raise WriteError(
                    f"The disk of {folder} is full: the record cannot be opened. Make room on it, "
                    "and start again."
                ) from error
        raise


def _require_folders(folders: tuple[Path, ...]) -> None:
    for each in folders:
        if not each.is_dir():
            raise InputMissing(f"{each} is no folder. To be watched, it has to be there.")
