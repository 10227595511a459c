"""What a listening node is told: where it listens, whom it hears, and how much it bears."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path

from medimg_edge.errors import NodeError

# PS3.5 table 6.2-1, VR AE: the default repertoire without backslash and control characters.
_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}", re.ASCII)


def ae_title(value: str) -> str:
    """An application entity title without its insignificant spaces: 1 to 16 characters of VR AE.

    Raises NodeError.
    """
    title = value.strip(" ")
    if not _AE_TITLE.fullmatch(title):
        raise NodeError(
            f"{value[:40]!r} is no AE title. One has 1 to 16 characters of ASCII, "
            "none of them a backslash or a control character."
        )
    return title


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: our certificate, its key, and the authorities whose peers are accepted."""

    cert: Path
    key: Path
    ca: Path


@dataclass(frozen=True)
class Limits:
    """How much peers may take: bytes, connections and seconds, all positive.

    Each association costs two threads that look a thousand times a second (pynetdicom's), idle or
    not.
    A connection has ``handshake_seconds`` for TLS, ``association_seconds`` until its association
    request is whole, ``pdu_seconds`` from the first to the last byte of each PDU, and
    ``idle_seconds`` between two of them.
    """

    request_bytes: int = 64 * 1024
    pdu_bytes: int = 128 * 1024
    object_bytes: int = 1024**3
    connections: int = 16
    connections_per_address: int = 8
    handshake_seconds: float = 10.0
    association_seconds: float = 10.0
    pdu_seconds: float = 30.0
    idle_seconds: float = 60.0

    def __post_init__(self) -> None:
        for each in fields(self):
            if not getattr(self, each.name) > 0:
                raise NodeError(f"{each.name} is {getattr(self, each.name)}; it has to be above 0.")


@dataclass(frozen=True)
class Settings:
    """Where to listen and to whom.

    ``port`` 0 is any free one. ``allow`` are the calling AE titles that are accepted; none: all.
    Without ``tls`` the connections are plain.

    Construction raises NodeError.
    """

    port: int = 11112
    host: str = "127.0.0.1"
    aet: str = "MEDIMG"
    allow: tuple[str, ...] = ()
    tls: TlsFiles | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise NodeError(f"{self.port} is no port. One is 1 to 65535, or 0 for any free one.")
        object.__setattr__(self, "aet", ae_title(self.aet))
        object.__setattr__(self, "allow", tuple(ae_title(each) for each in self.allow))
