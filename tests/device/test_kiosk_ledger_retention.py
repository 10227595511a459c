"""How long entries are kept, also by a clock that was wrong."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from medimg_edge.errors import LedgerDamaged, NotFound
from medimg_edge.kiosk import ledger as ledgers
from medimg_edge.kiosk import ledger_file
from medimg_edge.kiosk.chain import GENESIS, Pruned, sealed
from medimg_edge.kiosk.kept import body_of
from medimg_edge.kiosk.ledger import Ledger
from medimg_edge.kiosk.ledger_file import NAME, open_to_write
from medimg_edge.kiosk.ledger_reader import COLUMNS, entries, stamp, verify
from medimg_edge.kiosk.retention import through
from tests.device.ledger_writing import new

TODAY = date(2026, 5, 31)


def days(*ago: int) -> list[date]:
    return [TODAY - timedelta(each) for each in ago]


def kept_of(written: list[date], keep: float, today: date = TODAY) -> list[date]:
    """The days of the entries that are kept, of one entry for each day in the order of writing."""
    last_of_day = {day: sequence for sequence, day in enumerate(written, 1)}
    return written[through(last_of_day.items(), today, keep) :]


DAILY = days(*range(100, -1, -1))
WEEKLY = days(*range(98, -1, -7))


@pytest.mark.parametrize(
    ("written", "keep", "kept"),
    [
        pytest.param([], 30, [], id="nothing"),
        pytest.param(DAILY, 30, DAILY[-31:], id="daily"),
        pytest.param(DAILY, 1, DAILY[-2:], id="a day"),
        pytest.param(DAILY, 0.5, DAILY[-1:], id="half a day"),
        pytest.param(DAILY, 1000, DAILY, id="nothing is as old"),
        pytest.param(WEEKLY, 30, WEEKLY[-5:], id="weekly"),
        pytest.param(days(*range(100, 20, -1)), 30, days(*range(43, 20, -1)), id="a long rest"),
    ],
)
def test_by_a_clock_that_is_right(written, keep, kept):
    assert kept_of(written, keep) == kept


PAST, FUTURE = date(1970, 1, 1), date(2099, 1, 1)


@pytest.mark.parametrize("wrong", [PAST, FUTURE])
@pytest.mark.parametrize("count", [1, 5])
def test_a_clock_that_is_wrong_now(wrong, count):
    """It takes no more than a quarter of what is kept, whether or not it has written already."""
    for written in (DAILY, DAILY + [wrong + timedelta(each) for each in range(count)]):
        kept = kept_of(written, 30, wrong + timedelta(count))
        assert kept[0] <= TODAY - timedelta(30 * 0.75 - count - 1)
        assert len(kept) < 40


@pytest.mark.parametrize("wrong", [PAST, FUTURE])
def test_a_clock_that_was_wrong_once(wrong):
    written = [*DAILY[:80], wrong, *DAILY[80:]]
    kept = kept_of(written, 30)
    assert set(DAILY[-22:]) <= set(kept)
    assert len(kept) <= 32
    assert wrong not in kept_of([wrong, *DAILY], 30)


def test_a_clock_that_starts_in_the_past_every_morning():
    """Without a battery, until somebody sets it: entries of both clocks follow each other."""
    written = [each for day in DAILY for each in (PAST, day)]
    last_of_day = {day: sequence for sequence, day in enumerate(written, 1)}
    kept = set(written[through(last_of_day.items(), TODAY, 30) :])
    assert set(DAILY[-22:]) <= kept
    assert not set(DAILY[:60]) & kept


def record(folder: Path, times: Iterable[datetime]) -> list[str]:
    """A record whose answers were written at these times; their ids."""
    Ledger(folder).close()
    previous, ids = GENESIS, []
    with closing(open_to_write(folder / NAME, "FULL")) as connection:
        for sequence, time in enumerate(times, 1):
            given = new()
            entry = sealed(sequence, stamp(time), "answer", given.id, body_of(given), previous)
            connection.execute(
                f"INSERT INTO entries ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                msgspec.structs.astuple(entry),
            )
            previous = entry.hash
            ids.append(given.id)
    return ids


def ago(*days: float) -> list[datetime]:
    now = datetime.now(UTC)
    return [now - timedelta(each) for each in days]


def test_what_is_older_is_removed(tmp_path):
    folder = tmp_path / "kiosk"
    ids = record(folder, ago(9, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0))
    hashes = [each.hash for each in entries(folder)]
    with closing(Ledger(folder)) as ledger:
        assert ledger.prune(5) == 5
        assert [ledger.get(each) is not None for each in ids] == [False] * 5 + [True] * 6
        with pytest.raises(NotFound):
            ledger.acknowledge(ids[0], "").result()
        assert ledger.entries == 7
        assert ledger.prune(5) == 0
        found = verify(folder, hashes[4])
        assert (found.entries, found.after) == (7, 7)
        *kept, last = entries(folder)
        assert [each.hash for each in kept] == hashes[5:]
        assert msgspec.json.decode(last.body, type=Pruned) == Pruned(
            through=5, hash=hashes[4], days=5
        )
        later = ledger.append(new()).result()
        assert ledger.prune(3) == 2
        assert verify(folder).entries == 7
        assert ledger.get(later.id) == later
    assert verify(folder).entries == 7


def test_removed_in_parts(tmp_path, monkeypatch):
    """So that answers are kept in between; each part is a record without a flaw."""
    monkeypatch.setattr(ledgers, "REMOVED_AT_ONCE", 3)
    record(tmp_path, ago(*[5] * 7, 4, 3, 2, 1, 0))
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.prune(4) == 7
        assert [each.kind for each in entries(tmp_path)] == ["answer"] * 5 + ["pruned"] * 3
        assert verify(tmp_path).entries == 8


def test_a_day_without_an_answer_is_kept(tmp_path):
    """A station that runs and is not used grows older, too."""
    record(tmp_path, ago(3, 2))
    with closing(Ledger(tmp_path)) as ledger:
        for _ in range(2):
            assert ledger.prune(30) == 0
            assert ledger.entries == 3
        *_, last = entries(tmp_path)
        assert msgspec.json.decode(last.body, type=Pruned) == Pruned(
            through=0, hash=GENESIS, days=30
        )
        assert verify(tmp_path).entries == 3


def held(folder: Path, ids: list[str]) -> list[bool]:
    """Whether any file in a folder holds them."""
    content = b"".join(each.read_bytes() for each in sorted(folder.iterdir()))
    return [each.encode() in content for each in ids]


def test_what_is_removed_is_overwritten(tmp_path):
    """At once, and not when the service ends, which a kiosk does not for months."""
    ids = record(tmp_path / "kiosk", ago(4, 4, 3, 2, 1, 0))
    assert all(held(tmp_path / "kiosk", ids))
    with closing(Ledger(tmp_path / "kiosk")) as ledger:
        ids.append(ledger.append(new()).result().id)
        assert ledger.prune(3) == 2
        shutil.copytree(tmp_path / "kiosk", tmp_path / "copy")  # a lock ends where its file closes
    assert held(tmp_path / "copy", ids) == [False] * 2 + [True] * 5


def test_somebody_who_reads_keeps_what_is_removed_until_the_next_day(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_file, "_BUSY_SECONDS", 0.1)
    ids = record(tmp_path / "kiosk", ago(4, 4, 3, 2, 1, 0))
    with closing(Ledger(tmp_path / "kiosk")) as ledger:
        ledger.append(new()).result()
        reading = entries(tmp_path / "kiosk")
        next(reading)
        assert ledger.prune(3) == 2
        assert [each.id for each in reading][:5] == ids[1:]
        assert ledger.prune(3) == 0
        shutil.copytree(tmp_path / "kiosk", tmp_path / "copy")
    assert held(tmp_path / "copy", ids) == [False] * 2 + [True] * 4


def test_a_time_that_is_none_is_named_and_removes_nothing(tmp_path: Path):
    with closing(Ledger(tmp_path)) as ledger:
        ledger.append(new()).result()
        with closing(sqlite3.connect(tmp_path / NAME)) as connection:
            connection.execute("UPDATE entries SET time = 'yesterday, I believe'")
            connection.commit()
        with pytest.raises(LedgerDamaged, match="Entry 1 has no time"):
            ledger.prune(1)
        assert ledger.entries == 1
