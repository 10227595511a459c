"""What a reading station is: who runs it, where it listens, and whose images it takes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from medimg_edge.addresses import is_loopback
from medimg_edge.errors import ServiceRefused
from medimg_edge.kiosk.settings import Settings, TlsFiles

DATA = Path("/var/lib/medimg-kiosk")
STATES = Path("/var/lib")
"""Folders below are made for the service by systemd."""

MEMORY_MB = 1024

_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
"""What useradd and systemd both take."""
_BUNDLE = re.compile(r"[A-Za-z0-9._+@-]+")
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
_PATH = re.compile(r"(/[A-Za-z0-9._+@-]+)+")
_UNSEEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))


class Secured(NamedTuple):
    """What a station needs that others reach: PEM files, and a file whose first line is a token.

    ca: the authority that the screen trusts, which is not needed where Chromium knows it.
    """

    token: Path
    cert: Path
    key: Path
    ca: Path | None = None


@dataclass(frozen=True)
class Installation:
    """All that the files of a station are made of.

    program: medimg-edge. bundle: a path, or the name of a shipped one. user: of the service, whose
    record no other may touch; screen_user: of the browser. hosts: names by which others call it.
    data: a folder for the record and tune's choice. watched: folders of images, or of a DICOM
    listener. keep_images, keep_records: days. trusted: a folder of keys, in place of the one beside
    the record; allow_unsigned: see ``trust.require``. memory_mb: of service and model. compiles: a
    runtime that is installed, such as OpenVINO, makes machine code while it runs.

    Nothing in it can be read by systemd as anything but a word. Construction raises ServiceRefused.
    """

    program: Path
    bundle: str
    user: str = "medimg"
    screen_user: str = "medimg-screen"
    host: str = "127.0.0.1"
    port: int = 8080
    hosts: tuple[str, ...] = ()
    secured: Secured | None = None
    data: Path = DATA
    watched: tuple[Path, ...] = ()
    keep_images: float | None = None
    keep_records: float | None = None
    trusted: Path | None = None
    allow_unsigned: bool = False
    memory_mb: int = MEMORY_MB
    compiles: bool = False

    def __post_init__(self) -> None:
        self._require_users()
        self._require_address()
        if not _BUNDLE.fullmatch(self.bundle):
            _require_path("The bundle", Path(self.bundle), seen=True)
        _require_path("The program", self.program, seen=True)
        _require_path("The folder of the record", self.data, seen=True)
        if self.trusted is not None:
            _require_path("The folder of trusted keys", self.trusted, seen=True)
        for each in self.watched:
            _require_path("A watched folder", each, seen=True)
        for each in self.secured or ():
            if each is not None:
                _require_path("A file for TLS", each, seen=False)

    @property
    def url(self) -> str:
        """What the screen shows: always this machine, so that no other can pose as it."""
        if self.secured is None:
            return f"http://{_bracketed(self.host)}:{self.port}/"
        return f"https://localhost:{self.port}/"

    @property
    def state_folder(self) -> str | None:
        """Of the record, as systemd names what it makes below STATES; None where it does not."""
        if self.data == STATES or not self.data.is_relative_to(STATES):
            return None
        return str(self.data.relative_to(STATES))

    def _require_users(self) -> None:
        for each in (self.user, self.screen_user):
            if not _USER.fullmatch(each) or each == "root":
                raise ServiceRefused(
                    f"{each!r} is no user for it. Accepted: up to 31 of a-z, 0-9, _ and -, not "
                    "beginning with a digit or -; and not root."
                )
        if self.user == self.screen_user:
            raise ServiceRefused(
                f"Service and screen are both {self.user}: whoever broke the browser could write "
                "the record. Give them two users."
            )

    def _require_address(self) -> None:
        if self.port == 0:
            raise ServiceRefused("A station needs a port that stays: --port 1 to 65535.")
        for each in (self.host, *self.hosts):
            if not _HOST.fullmatch(each):
                raise ServiceRefused(f"{each!r} is neither an address nor the name of a host.")
        Settings(
            host=self.host,
            port=self.port,
            hosts=self.hosts,
            token="x" * 16 if self.secured else None,  # the file may not be there yet
            tls=TlsFiles(self.secured.cert, self.secured.key) if self.secured else None,
        )
        if self.secured is not None and is_loopback(self.host):
            raise ServiceRefused(
                f"{self.host} is reached from this machine alone, which needs neither token nor "
                "TLS: leave them out, or give --host."
            )


def _require_path(what: str, path: Path, *, seen: bool) -> None:
    """seen: by the service, from which homes and temporary files are hidden."""
    if not _PATH.fullmatch(str(path)) or os.path.normpath(path) != str(path):
        raise ServiceRefused(
            f"{what} is {str(path)!r}. Accepted: a whole path from /, of letters, digits, . _ + @ "
            "and -."
        )
    if seen and any(path.is_relative_to(each) for each in _UNSEEN):
        raise ServiceRefused(
            f"{what} is {path}, and the service sees nothing below "
            f"{', '.join(map(str, _UNSEEN))}. Put it elsewhere, such as below /opt or /srv."
        )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
