r"""Entries of a record that each carry the hash of the one before, so that a change shows.

Anybody can check a record without medimg-edge. The hash of an entry is the SHA-256, in lower-case
hexadecimal, of the previous entry's hash, a newline, and the entry as a JSON list in UTF-8 without
spaces, in which only ``"``, ``\`` and control characters are escaped:

    text = json.dumps([sequence, time, kind, id, body], ensure_ascii=False, separators=(",", ":"))
    hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()

``body`` is the text of the column, not what it says once it is parsed. The first entry follows
``GENESIS``, 64 zeros.

The hash has no key: somebody who may write the file can change an entry and make every hash after
it anew, or remove the last entries. Only a hash that was noted elsewhere shows that.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from medimg_edge.errors import LedgerDamaged

GENESIS = "0" * 64
"""What the first entry names as the hash before it."""

Kind = Literal["answer", "acknowledgement", "pruned", "started"]

_DAMAGED = "Leave the record as it is, and compare it with a copy."


class Entry(msgspec.Struct, frozen=True):
    """One line of the record.

    sequence: from 1, without gaps. time: when it was written by this machine's clock, in UTC, as
    RFC 3339 with milliseconds and Z. id: of the answer it is or belongs to, 32 hexadecimal
    characters, else "". body: JSON. previous, hash: SHA-256 in hexadecimal.
    """

    sequence: int
    time: str
    kind: Kind
    id: str
    body: str
    previous: str
    hash: str


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What an entry says of those that are not kept any more: all up to ``through``.

    hash: of the entry ``through``, which the first that is kept follows. days: how long entries are
    kept. through 0 says that none were removed.
    """

    through: int
    hash: str
    days: float


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """A record without a flaw. first, last: None where it has no entries.

    head: the hash of the last entry; who notes it elsewhere can ask for it later. after: how many
    entries follow the one that was asked for.
    """

    entries: int
    first: Entry | None
    last: Entry | None
    head: str
    after: int | None = None


def sealed(sequence: int, time: str, kind: Kind, name: str, body: str, previous: str) -> Entry:
    """The entry that follows ``previous``, with its hash."""
    return Entry(
        sequence,
        time,
        kind,
        name,
        body,
        previous,
        _hash(sequence, time, kind, name, body, previous),
    )


class Chain:
    """Follows entries from the first that is kept to the last.

    head: a hash that was noted; it must be of one of them, or of the one before the first.
    """

    def __init__(self, head: str | None = None) -> None:
        self._asked, self._after = head, None
        self._first: Entry | None = None
        self._last: Entry | None = None
        self._pruned = Pruned(through=0, hash=GENESIS, days=0)

    def add(self, entry: Entry) -> None:
        """The next one. Raises LedgerDamaged, which names it."""
        if self._last is None:
            self._first = entry
            self._look_for(entry.previous)
        else:
            _require_next(self._last, entry)
        if entry.hash != _hash_of(entry):
            raise LedgerDamaged(f"Entry {entry.sequence} is not as it was written. {_DAMAGED}")
        if entry.kind == "pruned":
            self._pruned = _decoded(entry)
        if self._after is not None:
            self._after += 1
        self._look_for(entry.hash)
        self._last = entry

    def end(self) -> Verified:
        """There are no more. Raises LedgerDamaged."""
        first, last = self._first, self._last
        if first is None or last is None:
            self._look_for(GENESIS)
        else:
            self._require_start(first)
        if self._asked is not None and self._after is None:
            raise LedgerDamaged(
                f"No entry has the hash {self._asked}: it, or one before it, was changed or "
                f"removed since that was noted, or it is older than what is kept. {_DAMAGED}"
            )
        return Verified(
            entries=0 if first is None or last is None else last.sequence - first.sequence + 1,
            first=first,
            last=last,
            head=last.hash if last else GENESIS,
            after=self._after,
        )

    def _look_for(self, found: str) -> None:
        if found == self._asked:
            self._after = 0

    def _require_start(self, first: Entry) -> None:
        """Where entries were removed, the last entry that says so names the one before."""
        through, before = self._pruned.through, self._pruned.hash
        if first.sequence != through + 1:
            raise LedgerDamaged(
                f"The first entry is {first.sequence}, and the record says that "
                + (f"all up to {through} were removed" if through else "none were removed")
                + f": {_missing(through, first.sequence)}. {_DAMAGED}"
            )
        if first.previous != before:
            raise LedgerDamaged(
                f"Entry {first.sequence}, the first, does not follow the one before it: they were "
                f"changed. {_DAMAGED}"
            )


def _require_next(last: Entry, entry: Entry) -> None:
    if entry.sequence != last.sequence + 1:
        raise LedgerDamaged(
            f"Entry {last.sequence} is followed by {entry.sequence}: "
            f"{_missing(last.sequence, entry.sequence)}. {_DAMAGED}"
        )
    if entry.previous != last.hash:
        raise LedgerDamaged(
            f"Entry {entry.sequence} does not follow entry {last.sequence}: one of them was "
            f"changed. {_DAMAGED}"
        )


def _missing(before: int, after: int) -> str:
    missing = after - before - 1
    return f"{missing} are missing" if missing > 0 else "there are some that should not be there"


def _decoded(entry: Entry) -> Pruned:
    try:
        return msgspec.json.decode(entry.body, type=Pruned)
    except msgspec.DecodeError as error:
        raise LedgerDamaged(
            f"Entry {entry.sequence} does not say what was removed: {error}. {_DAMAGED}"
        ) from error


def _hash_of(entry: Entry) -> str:
    return _hash(entry.sequence, entry.time, entry.kind, entry.id, entry.body, entry.previous)


def _hash(sequence: int, time: str, kind: str, name: str, body: str, previous: str) -> str:
    text = msgspec.json.encode([sequence, time, kind, name, body])
    return hashlib.sha256(f"{previous}\n".encode() + text).hexdigest()
