"""A record: what is kept, what lists give, one commit for many, and how a file becomes newer."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

import pytest

from medimg_edge.errors import (
    KeyReused,
    LedgerDamaged,
    LedgerMissing,
    LedgerUnknown,
    NotFound,
    RequestInvalid,
    WriteError,
)
from medimg_edge.kiosk import ledger_reader
from medimg_edge.kiosk.chain import GENESIS
from medimg_edge.kiosk.kept import COMMENT_CHARACTERS, Kept
from medimg_edge.kiosk.ledger import Ledger
from medimg_edge.kiosk.ledger_file import MIGRATIONS, NAME, migrate, open_to_read, version_of
from medimg_edge.kiosk.ledger_reader import PAGE, entries, verify
from medimg_edge.kiosk.ledger_writer import Tail, Writer
from tests.device.ledger_writing import SHA, answer, failure, new

KEY = hashlib.sha256(b"a client's key").hexdigest()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "kiosk"


@pytest.fixture
def ledger(folder) -> Iterator[Ledger]:
    ledger = Ledger(folder)
    yield ledger
    ledger.close()


T = TypeVar("T")


def done(future: Future[T]) -> T:
    return future.result(timeout=60)


def test_an_answer_is_given_as_it_was_kept(ledger):
    given = new(source="dicom")
    kept = done(ledger.append(given))
    assert (kept.id, kept.source, kept.input_sha256) == (given.id, "dicom", SHA)
    assert bytes(kept.record) == given.record
    assert bytes(kept.operating_points) == given.operating_points
    assert kept.timings == given.timings
    assert kept.acknowledged is None
    assert abs(datetime.fromisoformat(kept.time) - datetime.now(UTC)) < timedelta(minutes=5)
    assert kept.time.endswith("Z")
    assert ledger.get(given.id) == kept
    assert ledger.get("0" * 32) is None


def test_it_is_there_after_a_restart(folder):
    with closing(Ledger(folder)) as ledger:
        first = done(ledger.append(new()))
        head = ledger.head
    with closing(Ledger(folder)) as ledger:
        assert ledger.get(first.id) == first
        assert (ledger.entries, ledger.head) == (1, head)
        second = done(ledger.append(new()))
        assert second.sequence == 2
        found = verify(folder, head)
        assert (found.entries, found.head, found.after) == (2, ledger.head, 1)


def test_an_empty_record(ledger, folder):
    assert (ledger.entries, ledger.head) == (0, GENESIS)
    assert ledger.page() == ([], None)
    assert ledger.prune(1) == 0
    assert verify(folder, GENESIS).entries == 0
    assert list(entries(folder)) == []


def test_only_its_owner_reads_it(ledger, folder):
    done(ledger.append(new()))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.glob(f"{NAME}*"))
    assert {each.name for each in files} == {NAME, f"{NAME}-wal", f"{NAME}-shm"}
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}


def test_one_process_at_a_time(ledger, folder):
    program = (
        "import sys; from pathlib import Path; from medimg_edge.kiosk.ledger import Ledger\n"
        "try: Ledger(Path(sys.argv[1]))\n"
        "except Exception as error: print(error.code, error)"
    )
    words = [sys.executable, "-c", program, folder]
    run = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert run.stdout.startswith(f"write {folder} is used by another process")
    ledger.close()
    run = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert run.stdout == ""


def test_nothing_heavy_is_imported():
    program = (
        "import sys, medimg_edge.kiosk.ledger, medimg_edge.kiosk.entry_lines\n"
        "print([name for name in ('numpy', 'fastapi', 'cv2', 'pydicom') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "[]\n"


def test_the_newest_acknowledgement_counts(ledger, folder):
    kept = done(ledger.append(new()))
    other = done(ledger.append(new()))
    first = done(ledger.acknowledge(kept.id, ""))
    assert first.acknowledged is not None
    assert first.acknowledged.comment == ""
    given = "\tseen; \udc80 é\r\n胸 \x00 'x' \u202e\u2066\"y\"\u2069\x1b\x85"
    second = done(ledger.acknowledge(kept.id, given))
    assert second.acknowledged is not None
    assert second.acknowledged.comment == "seen; \\udc80 é 胸 'x' \"y\""
    assert ledger.get(kept.id) == second
    assert ledger.page(acknowledged=True) == ([second], None)
    assert ledger.page(acknowledged=False) == ([other], None)
    assert verify(folder).entries == 4


def test_what_cannot_be_acknowledged(ledger):
    with pytest.raises(NotFound):
        done(ledger.acknowledge("0" * 32, "seen"))
    kept = done(ledger.append(new()))
    with pytest.raises(RequestInvalid, match=f"{COMMENT_CHARACTERS + 1} characters"):
        ledger.acknowledge(kept.id, "é" * (COMMENT_CHARACTERS + 1))
    done(ledger.acknowledge(kept.id, "é" * COMMENT_CHARACTERS))
    assert ledger.entries == 2


def test_a_key_is_used_once(ledger):
    kept = done(ledger.append(new(key=KEY)))
    assert ledger.of_key(KEY) == kept.id
    assert ledger.of_key("0" * 64) is None
    with pytest.raises(KeyReused):
        done(ledger.append(new(key=KEY)))
    assert ledger.entries == 1


@pytest.mark.parametrize(
    "given",
    [
        {"name": "../up"},
        {"name": "A" * 32},
        {"sha256": "5e"},
        {"key": "key"},
        {"record": b"{"},
        {"record": b"{}"},
        {"record": b'{"status": "well"}'},
    ],
)
def test_what_is_no_answer_is_not_kept(ledger, given):
    with pytest.raises(ValueError, match=r"."):
        ledger.append(new(**given))


def test_a_start_is_an_entry(ledger, folder):
    entry = done(ledger.started(b'{"medimg_edge":"1"}'))
    assert list(entries(folder)) == [entry]
    assert (entry.kind, entry.id, entry.body) == ("started", "", '{"medimg_edge":"1"}')
    assert ledger.page() == ([], None)


def test_pages_from_the_newest(ledger):
    kept = [done(each) for each in [ledger.append(new()) for _ in range(7)]]
    done(ledger.acknowledge(kept[3].id, "between them"))
    pages, before = [], None
    while True:
        page, before = ledger.page(limit=3, before=before)
        pages.append([each.id for each in page])
        if before is None:
            break
    ids = [each.id for each in reversed(kept)]
    assert pages == [ids[:3], ids[3:6], ids[6:]]
    assert ledger.page(limit=7)[1] is None


def test_a_page_has_an_end(ledger):
    for each in [ledger.append(new()) for _ in range(PAGE + 1)]:
        done(each)
    page, before = ledger.page(limit=10**6)
    assert len(page) == PAGE
    assert ledger.page(before=before)[0][0].sequence == 1


def test_filters(ledger):
    def add(record: bytes, **more) -> Kept:
        return done(ledger.append(new(record, **more)))

    positive = add(answer("a"))
    negative = add(answer("b", 0.1, "negative"), sha256="0" * 64)
    halved = add(failure("c"))
    blank = add(failure("d", "blank"))
    every = [blank, halved, negative, positive]
    moment, zone = datetime.fromisoformat(halved.time), timezone(timedelta(hours=-5))
    later = [each for each in every if each.time >= halved.time]
    for asked, found in (
        ({}, every),
        ({"status": "ok"}, [negative, positive]),
        ({"status": "error"}, [blank, halved]),
        ({"decision": "positive"}, [positive]),
        ({"code": "blank"}, [blank]),
        ({"code": "blank", "decision": "positive"}, []),
        ({"input_sha256": "0" * 64}, [negative]),
        ({"status": "ok' OR 1 --"}, []),
        ({"since": moment.astimezone(zone)}, later),
        ({"until": moment.replace(tzinfo=None)}, every[len(later) :]),
        ({"since": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9)))}, every),
        ({"until": datetime.max.replace(tzinfo=zone)}, every),
        ({"since": datetime(2999, 1, 1)}, []),
    ):
        assert ledger.page(**asked) == (found, None), asked


class Seen:
    """What the connections that read are asked, and how many steps of SQLite's machine it takes."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.steps = 0

    def open(self, path: Path) -> sqlite3.Connection:
        connection = open_to_read(path)
        connection.set_trace_callback(self.statements.append)
        connection.set_progress_handler(self._step, 1)
        return connection

    def of(self, ledger: Ledger, **asked: Any) -> tuple[list[int], int, list[str]]:
        """The sequences of a page, the steps, and how SQLite says that it looked."""
        self.statements.clear()
        self.steps = 0
        page, _ = ledger.page(limit=3, **asked)
        steps = self.steps
        (statement,) = self.statements
        with closing(open_to_read(ledger.folder / NAME)) as connection:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
        return [each.sequence for each in page], steps, [row[3] for row in plan]

    def _step(self) -> int:
        self.steps += 1
        return 0


FAR = datetime(2999, 1, 1)
ACKNOWLEDGED, TIMES = "a USING INDEX acknowledgements", "USING COVERING INDEX times"


@pytest.mark.parametrize(
    ("asked", "index", "found"),
    [
        ({"acknowledged": True}, f"SCAN {ACKNOWLEDGED}", [3, 2, 1]),
        ({"acknowledged": True, "before": 3}, f"SEARCH {ACKNOWLEDGED}", [2, 1]),
        ({"acknowledged": True, "since": FAR}, f"SEARCH {ACKNOWLEDGED}", []),
        ({"acknowledged": False, "since": FAR}, TIMES, []),
        ({"since": FAR}, TIMES, []),
        ({"until": datetime(1999, 1, 1)}, TIMES, []),
        ({"since": FAR, "status": "ok"}, TIMES, []),
    ],
)
def test_a_list_reads_no_more_than_it_gives(folder, monkeypatch, asked, index, found):
    seen = Seen()
    monkeypatch.setattr(ledger_reader, "open_to_read", seen.open)
    with closing(Ledger(folder)) as ledger:
        kept = [done(ledger.append(new())) for _ in range(3)]
        for each in (kept[0], kept[2], kept[1], kept[2]):
            done(ledger.acknowledge(each.id, "seen"))
        few = seen.of(ledger, **asked)
        for each in [ledger.append(new()) for _ in range(500)]:
            done(each)
        sequences, steps, plan = seen.of(ledger, **asked)
    assert few[0] == sequences == found
    assert steps <= few[1] + 20, plan  # by one for each entry it would be 500
    assert any(index in each for each in plan), plan
    assert not [each for each in plan if "TEMP B-TREE" in each or each in ("SCAN e", "SCAN a")]


def test_a_list_by_a_clock_that_was_wrong(folder):
    """What was written between two entries may be of another time."""
    with closing(Ledger(folder)) as ledger:
        kept = [done(ledger.append(new())) for _ in range(5)]
        with closing(sqlite3.connect(folder / NAME, isolation_level=None)) as other:
            for sequence, year in ((1, 2001), (2, 2099), (3, 2002), (4, 1970), (5, 2003)):
                time = f"{year}-01-01T00:00:00.000Z"
                other.execute("UPDATE entries SET time = ? WHERE sequence = ?", (time, sequence))
        for sequence in (1, 2, 3, 5):
            done(ledger.acknowledge(kept[sequence - 1].id, ""))
        period: dict[str, Any] = {"since": datetime(2001, 1, 1), "until": datetime(2004, 1, 1)}
        cases: tuple[tuple[dict[str, Any], list[int]], ...] = (
            ({}, [5, 3, 1]),
            ({"acknowledged": True}, [5, 3, 1]),
            ({"acknowledged": False}, []),
            ({"before": 5, "status": "ok"}, [3, 1]),
        )
        for asked, expected in cases:
            page, _ = ledger.page(**period, **asked)
            assert [each.sequence for each in page] == expected, asked


def test_an_answer_does_not_wait_for_a_list(folder, monkeypatch):
    """One that is in the middle of reading, for as long as it takes."""
    reading, go_on = threading.Event(), threading.Event()

    def step() -> int:
        if threading.current_thread().name == "list":
            reading.set()
            go_on.wait(60)
        return 0

    def opened(path: Path) -> sqlite3.Connection:
        connection = open_to_read(path)
        connection.set_progress_handler(step, 1)
        return connection

    monkeypatch.setattr(ledger_reader, "open_to_read", opened)
    with closing(Ledger(folder)) as ledger:
        kept = done(ledger.append(new(key=KEY)))
        lists = threading.Thread(target=ledger.page, name="list")
        lists.start()
        try:
            assert reading.wait(60)
            found = []
            other = threading.Thread(
                target=lambda: found.extend((ledger.get(kept.id), ledger.of_key(KEY))), daemon=True
            )
            other.start()
            other.join(20)
            assert found == [kept, kept.id]
        finally:
            go_on.set()
            lists.join()


def commits(wal: Path) -> int:
    """How many a file that is written ahead holds: https://sqlite.org/fileformat2.html#walformat."""
    data = wal.read_bytes()
    frame = 24 + int.from_bytes(data[8:12], "big")
    starts = range(32, len(data) - frame + 1, frame)
    return sum(data[start + 4 : start + 8] != bytes(4) for start in starts)


def test_many_in_one_commit(ledger, folder):
    """What comes while another is brought to the disk; what is refused does not hinder the rest."""
    kept = done(ledger.append(new(key=KEY)))
    before = commits(folder / f"{NAME}-wal")
    with closing(sqlite3.connect(folder / NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        futures = [ledger.append(new()) for _ in range(100)]
        reused, unknown = ledger.append(new(key=KEY)), ledger.acknowledge("0" * 32, "")
        twice = ledger.append(new(name=kept.id))
        last = ledger.acknowledge(kept.id, "")
        assert not futures[0].done()
        other.execute("ROLLBACK")
        assert len({done(each).sequence for each in futures}) == 100
    for future, error in ((reused, KeyReused), (unknown, NotFound), (twice, ValueError)):
        with pytest.raises(error):
            done(future)
    assert done(last).acknowledged
    assert commits(folder / f"{NAME}-wal") - before <= 2
    assert verify(folder).entries == 102


def test_a_commit_that_fails_keeps_nothing(folder):
    """Of all that it was to hold; the next one finds the record as it was before."""
    Ledger(folder).close()

    def add(tail: Tail) -> int:
        return tail.add("started", "", "{}").sequence

    def fail(tail: Tail) -> None:
        tail.connection.execute("no statement")

    with closing(Writer(folder / NAME, "FULL")) as writer:
        assert done(writer.submit(add)) == 1
        with closing(sqlite3.connect(folder / NAME, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            futures = [writer.submit(each) for each in (add, add, add, fail, add)]
            other.execute("ROLLBACK")
            found = [each.exception(timeout=60) for each in futures]
        assert found[0] is None or isinstance(
            found[0], LedgerDamaged
        )  # a commit of its own, or not
        assert all(isinstance(each, LedgerDamaged) for each in found[1:])
        kept = 1 + (found[0] is None)
        assert done(writer.submit(add)) == kept + 1
    assert verify(folder).entries == kept + 1


def test_from_many_threads(ledger, folder):
    kept: list[Kept] = []

    def add() -> None:
        for _ in range(25):
            each = done(ledger.append(new()))
            assert ledger.get(each.id) == each
            kept.append(each)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(each.sequence for each in kept) == list(range(1, 201))
    assert verify(folder).entries == 200


def test_what_is_cancelled_before_its_turn_is_not_written(ledger, folder):
    with closing(sqlite3.connect(folder / NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        first = ledger.append(new())
        end = time.monotonic() + 60
        while not first.running() and time.monotonic() < end:
            time.sleep(0.001)
        second, third = ledger.append(new()), ledger.append(new())
        assert second.cancel()
        assert not first.cancel()
        other.execute("ROLLBACK")
        done(first)
    assert done(third).sequence == 2


def test_closing_finishes_what_was_given(folder):
    ledger = Ledger(folder)
    futures = [ledger.append(new()) for _ in range(300)]
    ledger.close()
    assert all(each.done() for each in futures)
    assert verify(folder).entries == 300
    with pytest.raises(WriteError, match="closed"):
        done(ledger.append(new()))


def test_anybody_can_check_it(ledger, folder):
    """By what the docstring of ``chain`` says, and nothing of medimg-edge."""
    kept = done(ledger.append(new()))
    done(ledger.acknowledge(kept.id, 'é 胸 / \\ " 🫁'))
    done(ledger.started('{\r\n\t"a": "é 胸 \x7f \\u001f / \\\\ \\" \u2028 🫁"}'.encode()))
    previous = "0" * 64
    for each in entries(folder):
        values = [each.sequence, each.time, each.kind, each.id, each.body]
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        assert each.previous == previous
        previous = hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()
        assert each.hash == previous
    assert ledger.head == previous


class TestMigrations:
    later = (
        *MIGRATIONS,
        "ALTER TABLE entries ADD COLUMN site TEXT; CREATE INDEX s ON entries(site)",
    )

    def test_one_step_after_the_other(self, folder):
        with closing(Ledger(folder)) as ledger:
            done(ledger.append(new()))
        with closing(sqlite3.connect(folder / NAME, isolation_level=None)) as connection:
            assert version_of(connection) == len(MIGRATIONS)
            migrate(connection, self.later)
            assert version_of(connection) == len(self.later)
            assert connection.execute("SELECT sequence, site FROM entries").fetchall() == [
                (1, None)
            ]
            migrate(connection, self.later)

    @pytest.mark.parametrize("statement", ["CREATE TABLE entries (a)", "not SQL"])
    def test_a_step_is_whole_or_not_at_all(self, folder, statement):
        Ledger(folder).close()
        with closing(sqlite3.connect(folder / NAME, isolation_level=None)) as connection:
            before = connection.execute("SELECT * FROM sqlite_schema").fetchall()
            with pytest.raises(sqlite3.Error):
                migrate(connection, (*MIGRATIONS, f"CREATE TABLE more (a); {statement};"))
            assert version_of(connection) == len(MIGRATIONS)
            assert connection.execute("SELECT * FROM sqlite_schema").fetchall() == before

    def test_a_later_release_wrote_it(self, folder):
        Ledger(folder).close()
        with closing(sqlite3.connect(folder / NAME, isolation_level=None)) as connection:
            migrate(connection, self.later)
        for use in (Ledger, verify):
            with pytest.raises(LedgerUnknown, match=f"version {len(self.later)}.*up to"):
                use(folder)

    def test_another_program_wrote_it(self, folder):
        folder.mkdir()
        with closing(sqlite3.connect(folder / NAME)) as connection:
            connection.execute("CREATE TABLE history (url TEXT)")
        for use in (Ledger, verify):
            with pytest.raises(LedgerUnknown, match="another program"):
                use(folder)

    def test_no_database(self, folder):
        folder.mkdir()
        (folder / NAME).write_bytes(b"no database at all" * 100)
        for use in (Ledger, verify):
            with pytest.raises(LedgerDamaged, match="not a database"):
                use(folder)

    def test_none(self, folder):
        with pytest.raises(LedgerMissing, match="holds no record"):
            verify(folder)
        folder.mkdir()
        (folder / NAME).touch()
        with pytest.raises(LedgerMissing, match="is empty"):
            verify(folder)
        Ledger(folder).close()
        assert verify(folder).entries == 0


def test_what_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError):
        Ledger(tmp_path / "file")
