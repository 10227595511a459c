"""A record that somebody changed: what is found, and in which entry."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from medimg_edge.errors import LedgerDamaged
from medimg_edge.kiosk.ledger import Ledger
from medimg_edge.kiosk.ledger_file import NAME
from medimg_edge.kiosk.ledger_reader import entries, verify
from tests.device.ledger_writing import answer, failure, new

COUNT = 6


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Four answers, one of them acknowledged, after a start."""
    folder = tmp_path_factory.mktemp("written") / "kiosk"
    with closing(Ledger(folder)) as ledger:
        ledger.started(b"{}").result()
        kept = [
            ledger.append(new(record)).result()
            for record in (answer("a"), answer("b", 0.1, "negative"), failure("c"), answer("d"))
        ]
        ledger.acknowledge(kept[1].id, "seen").result()
    return folder


@pytest.fixture
def folder(written, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(written, tmp_path / "kiosk"))


def digest(connection: sqlite3.Connection, sequence: int) -> str:
    *values, previous = connection.execute(
        "SELECT sequence, time, kind, id, body, previous FROM entries WHERE sequence = ?",
        (sequence,),
    ).fetchone()
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()


def seal(connection: sqlite3.Connection, first: int) -> None:
    """Make the hashes anew from an entry on, as somebody does who knows how."""
    for (sequence,) in connection.execute(
        "SELECT sequence FROM entries WHERE sequence >= ? ORDER BY sequence", (first,)
    ).fetchall():
        connection.execute(
            "UPDATE entries SET previous = hash_before FROM "
            "(SELECT hash AS hash_before FROM entries WHERE sequence < ? "
            "ORDER BY sequence DESC LIMIT 1) WHERE sequence = ?",
            (sequence, sequence),
        )
        connection.execute(
            "UPDATE entries SET hash = ? WHERE sequence = ?",
            (digest(connection, sequence), sequence),
        )


def renumber(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE entries SET sequence = sequence - 1 WHERE sequence > 3")


def changed(folder: Path, *changes: str | Callable[[sqlite3.Connection], object]) -> None:
    with closing(sqlite3.connect(folder / NAME, isolation_level=None)) as connection:
        for each in changes:
            if isinstance(each, str):
                connection.executescript(each)
            else:
                each(connection)


def test_unchanged(folder):
    found = verify(folder)
    assert found.first
    assert found.last
    assert (found.entries, found.first.sequence, found.last.sequence) == (COUNT, 1, COUNT)
    assert found.head == found.last.hash
    every = list(entries(folder))
    for number, each in enumerate(every):
        assert verify(folder, each.hash).after == COUNT - 1 - number
    assert verify(folder, every[0].previous).after == COUNT


FLIPPED = (
    "UPDATE entries SET body = replace(body, '\"negative\"', '\"positive\"') WHERE sequence = 3"
)
REMOVED = "DELETE FROM entries WHERE sequence {};"
SWAPPED = (
    "UPDATE entries SET sequence = 99 WHERE sequence = 3;"
    "UPDATE entries SET sequence = 3 WHERE sequence = 4;"
    "UPDATE entries SET sequence = 4 WHERE sequence = 99;"
)
ADDED = (
    "INSERT INTO entries (sequence, time, kind, id, body, previous, hash) "
    "SELECT 7, time, 'started', '', '{{}}', {}, hash FROM entries WHERE sequence = 6;"
)
PRUNED = (
    "INSERT INTO entries (sequence, time, kind, id, body, previous, hash) "
    "SELECT 7, time, 'pruned', '', '{}', hash, '' FROM entries WHERE sequence = 6;"
)

TAMPERED = {
    "the time": (
        ["UPDATE entries SET time = '1999' || substr(time, 5) WHERE sequence = 3"],
        "Entry 3 is not as it was written",
    ),
    "the kind": (
        ["UPDATE entries SET kind = 'acknowledgement' WHERE sequence = 3"],
        "Entry 3 is not",
    ),
    "the id": (["UPDATE entries SET id = lower(hex(zeroblob(16))) WHERE sequence = 3"], "Entry 3"),
    "the decision": ([FLIPPED], "Entry 3 is not as it was written"),
    "a comment": (['UPDATE entries SET body = \'{"comment":""}\' WHERE sequence = 6'], "Entry 6"),
    "a space": (["UPDATE entries SET body = body || ' ' WHERE sequence = 3"], "Entry 3 is not"),
    "the hash": (
        ["UPDATE entries SET hash = replace(hash, 'a', 'b') || 'a' WHERE sequence = 3"],
        "Entry 3 is not as it was written",
    ),
    "the hash before": (
        ["UPDATE entries SET previous = lower(hex(zeroblob(32))) WHERE sequence = 3"],
        "Entry 3 does not follow entry 2",
    ),
    "the hash before the first": (
        ["UPDATE entries SET previous = hash WHERE sequence = 1"],
        "Entry 1 is not as it was written",
    ),
    "the number": (["UPDATE entries SET sequence = 30 WHERE sequence = 6"], "24 are missing"),
    "all numbers": (["UPDATE entries SET sequence = -sequence"], "Entry -6|does not follow"),
    "one, with its hash": (
        [
            FLIPPED,
            lambda c: c.execute("UPDATE entries SET hash = ? WHERE sequence = 3", (digest(c, 3),)),
        ],
        "Entry 4 does not follow entry 3",
    ),
    "the first, removed": ([REMOVED.format("= 1")], "1 are missing"),
    "the first three, removed": ([REMOVED.format("<= 3")], "first entry is 4.*3 are missing"),
    "one, removed": ([REMOVED.format("= 3")], "Entry 2 is followed by 4: 1 are missing"),
    "one, removed, and the rest renumbered": (
        [REMOVED.format("= 3"), renumber],
        "Entry 3 does not follow entry 2",
    ),
    "two, swapped": ([SWAPPED], "Entry 3 does not follow entry 2"),
    "one, added": ([ADDED.format("hash")], "Entry 7 is not as it was written"),
    "one, added, with its hash": (
        [
            ADDED.format("previous"),
            lambda c: c.execute("UPDATE entries SET hash = ? WHERE sequence = 7", (digest(c, 7),)),
        ],
        "Entry 7 does not follow entry 6",
    ),
    "removed, as if too old": (
        [
            REMOVED.format("<= 3"),
            PRUNED.replace("{}", '{"through":2,"hash":"","days":1}'),
            lambda c: seal(c, 7),
        ],
        "says that all up to 2 were removed: 1 are missing",
    ),
    "removed, as if another were the last": (
        [
            REMOVED.format("<= 3"),
            PRUNED.replace("{}", '{"through":3,"hash":"","days":1}'),
            lambda c: seal(c, 7),
        ],
        "Entry 4, the first, does not follow the one before it",
    ),
    "a removal that says nothing": (
        [PRUNED.replace("{}", '{"through":"all"}'), lambda c: seal(c, 7)],
        "Entry 7 does not say what was removed",
    ),
    "no text": (
        ["UPDATE entries SET time = CAST(x'ff' AS TEXT) WHERE sequence = 3"],
        "UTF-8|Entry",
    ),
    "an index": (["DROP INDEX codes"], "schema was changed: codes"),
    "a trigger": (
        ["CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END"],
        "schema was changed: t",
    ),
    "what lists read": (
        [
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = "
            "replace(sql, '$.record.decision', '$.record.status') WHERE name = 'entries'"
        ],
        "schema was changed: entries|decisions",
    ),
    "the table": (["DROP TABLE entries"], "schema was changed"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_change_is_found(folder, name):
    changes, message = TAMPERED[name]
    changed(folder, *changes)
    with pytest.raises(LedgerDamaged, match=message):
        verify(folder)


HIDDEN = {
    "the last, removed": [REMOVED.format("= 6")],
    "all, removed": [REMOVED.format("> 0")],
    "all hashes anew": [FLIPPED, lambda c: seal(c, 3)],
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_noted_hash_finds_the_rest(folder, name):
    noted = verify(folder).head
    changed(folder, *HIDDEN[name])
    verify(folder)
    with pytest.raises(LedgerDamaged, match=f"No entry has the hash {noted}"):
        verify(folder, noted)


def test_damage_to_the_file_is_found(folder):
    """Any block of it: a record of several, of which one is lost."""
    with closing(Ledger(folder)) as ledger:
        for each in [ledger.append(new()) for _ in range(50)]:
            each.result()
    path = folder / NAME
    whole = path.read_bytes()
    blocks = len(whole) // 4096
    assert blocks > 20
    for block in range(blocks):
        path.write_bytes(whole[: block * 4096] + bytes(4096) + whole[(block + 1) * 4096 :])
        with pytest.raises(LedgerDamaged):
            verify(folder)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LedgerDamaged):
        verify(folder)
    path.write_bytes(whole)
    assert verify(folder).entries == COUNT + 50


def test_beside_the_one_that_writes(folder):
    with closing(Ledger(folder)) as ledger:
        futures = [ledger.append(new()) for _ in range(500)]
        futures[0].result()
        found = [verify(folder).entries for _ in range(3)]
        assert COUNT < found[0] <= found[1] <= found[2]
        for each in futures:
            each.result()
        exported = entries(folder)
        first = next(exported)
        ledger.append(new()).result()
        assert 1 + sum(1 for _ in exported) == COUNT + 500, "as they were at one moment"
        assert first.sequence == 1
        assert verify(folder).entries == COUNT + 501


def copy_of_a_live_one(folder: Path, copy: Path) -> int:
    """The files as they are while a process has written what is not in the main one yet."""
    with closing(Ledger(folder)) as ledger:
        ledger.append(new()).result()
        copy.mkdir()
        for each in (NAME, f"{NAME}-wal"):
            subprocess.run(["cp", folder / each, copy], check=True)
        return ledger.entries


def test_a_copy_of_a_live_one(folder, tmp_path):
    copy = tmp_path / "copy"
    count = copy_of_a_live_one(folder, copy)
    assert (copy / f"{NAME}-wal").stat().st_size > 0
    assert verify(copy).entries == count == COUNT + 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("live", [True, False])
def test_a_copy_on_a_disk_that_is_read_only(folder, tmp_path, live):
    copy = tmp_path / "copy"
    count = copy_of_a_live_one(folder, copy) if live else COUNT
    if not live:
        shutil.copytree(folder, copy)
    before = {each.name for each in copy.iterdir()}
    subprocess.run(["mount", "--bind", copy, copy], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", copy], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (copy / "file").touch()
        assert verify(copy).entries == count
        assert len(list(entries(copy))) == count
    finally:
        subprocess.run(["umount", copy], check=True)
    assert {each.name for each in copy.iterdir()} == before


def test_checking_changes_nothing(folder):
    before = (folder / NAME).read_bytes()
    mode = stat.S_IMODE((folder / NAME).stat().st_mode)
    verify(folder)
    list(entries(folder))
    assert (folder / NAME).read_bytes() == before
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == mode == 0o600
