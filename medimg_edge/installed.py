"""Which bundles are installed here: by name, the one that answers and the one before it.

``bundles/NAME/`` in the state folder holds them in slots, and ``active.json``, the pointer. The
pointer is replaced in one step, so that a name means the old bundle or the new one at any time.
Only ``store`` writes.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medimg_edge import state
from medimg_edge.errors import StoreDamaged

SCHEMA = 1
POINTER = "active.json"
SLOTS = ("a", "b", "c")
"""Two are kept. The third is where the next bundle goes, so that no kept one is written over."""
MAX_BYTES = 2**16

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Kept:
    """A bundle in a slot.

    hash: of its manifest. signer: the trusted key's name, else its fingerprint, None where unsigned
    ones were allowed. installed: when, in UTC by this machine's clock, for people only.
    """

    slot: str
    hash: str
    version: str
    signer: str | None
    installed: str


@dataclass(frozen=True)
class Floor:
    """The highest version that was ever installed by a name, and that bundle's hash."""

    version: str
    hash: str


@dataclass(frozen=True)
class Active:
    """What a name means now.

    home: the folder of the slots. previous: what ``rollback`` goes to. left: what was gone back
    from; it is kept, and answers no more. starts: how many in a row have not ended well yet. note:
    what a person should know about how it came to be active, from ``store.begin_start``.
    """

    name: str
    home: Path
    kept: Kept
    floor: Floor
    previous: Kept | None = None
    left: Kept | None = None
    starts: int = 0
    note: str = ""

    @property
    def folder(self) -> Path:
        """Where the bundle lies."""
        return self.folder_of(self.kept)

    @property
    def hash(self) -> str:
        """SHA-256 of the manifest of what was installed."""
        return self.kept.hash

    @property
    def version(self) -> str:
        """Its version, as its builder wrote it."""
        return self.kept.version

    def folder_of(self, kept: Kept) -> Path:
        """Where one of the kept bundles lies."""
        return self.home / kept.slot

    @property
    def slots(self) -> list[str]:
        """The slots that hold something."""
        return [each.slot for each in (self.kept, self.previous, self.left) if each]


def folder() -> Path | None:
    """Where installed bundles lie. It need not exist; None for a user who has no home."""
    where = state.folder()
    return None if where is None else where / "bundles"


def is_name(name: str) -> bool:
    """Whether a bundle can be installed by it: a folder's name on every system."""
    return _NAME.fullmatch(name) is not None


def find(name: str | os.PathLike[str]) -> Active | None:
    """What is installed by a name; None where nothing is. Raises StoreDamaged."""
    where, name = folder(), os.fspath(name)
    if where is None or not is_name(name):
        return None
    home = where / name
    try:
        with open(home / POINTER, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if isinstance(error, PermissionError) and not os.access(where, os.X_OK):
            return None  # another user's state
        raise _damaged(home, f"cannot be read: {error.strerror}") from error
    active = _decode(home, data)
    return active if active.name == name else None  # not where NAME and name are one file


def names() -> list[str]:
    """The names by which bundles are installed."""
    where = folder()
    if where is None:
        return []
    try:
        found = os.listdir(where)
    except OSError:
        return []
    return sorted(each for each in found if is_name(each) and (where / each / POINTER).is_file())


def encode(active: Active) -> bytes:
    """The pointer's bytes: UTF-8 JSON, indented for people."""
    kept = {each: value and asdict(value) for each, value in _others(active).items()}
    document = {
        "schema": SCHEMA,
        "name": active.name,
        **asdict(active.kept),
        **kept,
        "floor": asdict(active.floor),
        "starts": active.starts,
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def _others(active: Active) -> dict[str, Kept | None]:
    return {"previous": active.previous, "left": active.left}


def _decode(home: Path, data: bytes) -> Active:
    try:
        if len(data) > MAX_BYTES:
            raise ValueError("it is too large")
        raw = json.loads(data)
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
            raise ValueError(f"it is not of schema {SCHEMA}")
        active = Active(
            name=_text(raw["name"], _NAME),
            home=home,
            kept=_kept(raw),
            floor=Floor(_text(raw["floor"]["version"]), _text(raw["floor"]["hash"], _HASH)),
            previous=None if raw["previous"] is None else _kept(raw["previous"]),
            left=None if raw["left"] is None else _kept(raw["left"]),
            starts=_count(raw["starts"]),
        )
        if len(set(active.slots)) != len(active.slots):
            raise ValueError("two bundles are in one slot")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(home, f"is damaged ({error})") from error
    return active


def _kept(raw: dict[str, Any]) -> Kept:
    signer = raw["signer"]
    if raw["slot"] not in SLOTS:
        raise ValueError("there is no such slot")
    return Kept(
        slot=raw["slot"],
        hash=_text(raw["hash"], _HASH),
        version=_text(raw["version"]),
        signer=None if signer is None else _text(signer),
        installed=_text(raw["installed"]),
    )


def _text(value: object, pattern: re.Pattern[str] | None = None) -> str:
    if not isinstance(value, str) or not (pattern is None or pattern.fullmatch(value)):
        raise ValueError(f"{value!r} is not what it should be")
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _damaged(home: Path, problem: str) -> StoreDamaged:
    return StoreDamaged(
        f"{home / POINTER} says which bundle {home.name} is, and {problem}. Move the folder {home} "
        "away, and install the bundle anew."
    )
