"""What a service is told: where it listens, whom it hears, and how much it bears."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from medimg_edge.addresses import is_loopback
from medimg_edge.errors import ServiceRefused

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

TOKEN_CHARACTERS = 16
"""The fewest that a token has."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: our certificate, with those that lead to its authority, and its key."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Limits:
    """How much requests may take; all above 0.

    body_bytes: of one image. receive_seconds: from a request's first byte to its last.
    answer_seconds: for one image, until what answers it is ended. waiting: images that may wait for
    their answers. connections: at a time. memory_bytes: what answers may take beyond the loaded
    model. reserve_bytes: free disk below which no image is taken.
    """

    body_bytes: int = 20 * 10**6
    receive_seconds: float = 15.0
    answer_seconds: float = 20.0
    waiting: int = 32
    connections: int = 512
    memory_bytes: int = 1024 * 2**20
    reserve_bytes: int = 100 * 10**6

    def __post_init__(self) -> None:
        for each in fields(self):
            if not getattr(self, each.name) > 0:
                raise ServiceRefused(
                    f"{each.name} is {getattr(self, each.name)}; it has to be above 0."
                )


@dataclass(frozen=True)
class Settings:
    """Where to listen, and to whom.

    port: 0 is any free one. hosts: names by which it is called besides ``host`` and those of this
    machine alone. token: what every request has to show. log_json: log lines are JSON.

    Construction raises ServiceRefused, also for an address that others reach without token and TLS.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    hosts: tuple[str, ...] = ()
    token: str | None = None
    tls: TlsFiles | None = None
    limits: Limits = field(default_factory=Limits)
    log_json: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ServiceRefused(f"{self.port} is no port. One is 1 to 65535, or 0 for any free.")
        if self.token is not None and not _is_token(self.token):
            raise ServiceRefused(
                f"A token has at least {TOKEN_CHARACTERS} visible characters of ASCII and no "
                "spaces. Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        missing = [
            what for what, given in (("a token", self.token), ("TLS", self.tls)) if given is None
        ]
        if missing and not is_loopback(self.host):
            raise ServiceRefused(
                f"{self.host} is reached from other machines, and {' and '.join(missing)} is "
                "missing: give --token-file, --tls-cert and --tls-key, or listen on 127.0.0.1."
            )

    @property
    def names(self) -> frozenset[str]:
        """The names of hosts, in lower case, by which requests may call it."""
        return LOOPBACK | {each.lower() for each in (self.host, *self.hosts)}


def _is_token(text: str) -> bool:
    return len(text) >= TOKEN_CHARACTERS and all("!" <= each <= "~" for each in text)
