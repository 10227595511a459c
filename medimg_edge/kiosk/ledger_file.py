"""The record's file: SQLite, its schema and how that came about, and how it is opened."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from medimg_edge.errors import LedgerDamaged, LedgerMissing, LedgerUnknown, WriteError

NAME = "record.sqlite3"

Synchronous = Literal["FULL", "NORMAL"]
"""FULL: a commit outlives a power cut. NORMAL loses the last ones, and is there to show that."""

MIGRATIONS = (
    # Version 1. What lists ask for is read out of the body, so that it cannot say anything else.
    """
    CREATE TABLE entries (
        sequence INTEGER PRIMARY KEY,
        time TEXT NOT NULL,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        body TEXT NOT NULL,
        previous TEXT NOT NULL,
        hash TEXT NOT NULL,
        status TEXT AS (json_extract(body, '$.record.status')),
        decision TEXT AS (json_extract(body, '$.record.decision')),
        code TEXT AS (json_extract(body, '$.record.code')),
        input_sha256 TEXT AS (json_extract(body, '$.input_sha256')),
        key TEXT AS (json_extract(body, '$.key')),
        answer INTEGER AS (json_extract(body, '$.answer'))
    ) STRICT;
    CREATE UNIQUE INDEX answers ON entries (id) WHERE kind = 'answer';
    CREATE INDEX acknowledgements ON entries (answer) WHERE kind = 'acknowledgement';
    CREATE UNIQUE INDEX keys ON entries (key) WHERE kind = 'answer' AND key IS NOT NULL;
    CREATE INDEX times ON entries (time);
    CREATE INDEX statuses ON entries (status) WHERE kind = 'answer';
    CREATE INDEX decisions ON entries (decision) WHERE kind = 'answer';
    CREATE INDEX codes ON entries (code) WHERE kind = 'answer';
    CREATE INDEX inputs ON entries (input_sha256) WHERE kind = 'answer';
    """,
)
"""What makes version n + 1 of the schema of version n. A release adds to them and changes none."""

_APPLICATION = 0x4D454C47
_BUSY_SECONDS = 10
_CACHE_KIB = 1024
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """The edge: what SQLite raises becomes LedgerDamaged, or WriteError where the disk is why."""
    try:
        yield
    except sqlite3.Error as error:
        # What it reads, such as text that is no UTF-8, may have no code.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in _DAMAGED:
            raise LedgerDamaged(
                f"The record {path} is damaged: {error}. Leave it as it is, and restore a copy."
            ) from error
        raise WriteError(
            f"The record {path} cannot be used: {error}. Check that its folder may be written, "
            "that its disk has room, and that the disk is well."
        ) from error


def open_to_write(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    """A connection for one who writes: a commit is on the disk when it returns.

    The file exists, and may be empty. Raises LedgerUnknown, LedgerDamaged, WriteError.
    """
    with sqlite_errors(path):
        connection = _connect(path, "rw")
        try:
            _prepare(connection, path)
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise WriteError(
                    f"{path} lies where SQLite cannot write ahead ({mode}), such as on a network "
                    "drive: name a folder on a disk of this machine."
                )
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute("PRAGMA secure_delete = ON")  # what is removed is overwritten
            migrate(connection, MIGRATIONS)
        except BaseException:
            connection.close()
            raise
        return connection


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection beside the one that writes. Raises as ``open_to_write``, and LedgerMissing."""
    with sqlite_errors(path):
        connection = _connect(path, "ro")
        try:
            _prepare(connection, path)
            if not version_of(connection):
                raise LedgerMissing(
                    f"The record {path} is empty: no service has written to it yet."
                )
        except BaseException:
            connection.close()
            raise
        return connection


def overwrite_removed(path: Path) -> None:
    """Bring what was written ahead into the file, and empty it: until then either holds what was.

    Where somebody reads for long it stays so. Raises LedgerDamaged, WriteError.
    """
    with sqlite_errors(path), closing(_connect(path, "rw")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def opened_anywhere(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to read by, also where nothing may be written, such as to a copy on a disc.

    Raises as ``open_to_write``, and LedgerMissing where there is no file.
    """
    if not path.is_file():
        raise LedgerMissing(
            f"{path.parent} holds no record: {path.name} is not there. Name the folder that was "
            "given to `serve`."
        )
    try:
        connection = open_to_read(path)
    except WriteError:
        if os.access(path.parent, os.W_OK):
            raise
    else:
        with closing(connection):
            yield connection
        return
    # SQLite reads what was written ahead only beside a file that it may write.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, NAME)
        try:
            for end in ("", "-wal"):
                if (each := path.with_name(path.name + end)).exists():
                    shutil.copyfile(each, copy.with_name(NAME + end))
        except OSError as error:
            raise WriteError(f"{path} cannot be copied to be read: {error.strerror}.") from error
        with closing(open_to_read(copy)) as connection:
            yield connection


def migrate(connection: sqlite3.Connection, migrations: tuple[str, ...]) -> None:
    """Bring a file to the newest version: each step whole, or not at all. Raises sqlite3.Error."""
    for version in range(version_of(connection) + 1, len(migrations) + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {migrations[version - 1]}; "
                f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {version}; COMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise


def version_of(connection: sqlite3.Connection) -> int:
    """Of the schema; 0 for an empty file."""
    return connection.execute("PRAGMA user_version").fetchone()[0]


def require_whole(connection: sqlite3.Connection) -> None:
    """Raise LedgerDamaged where the file, or its schema, is not as a release left it."""
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise LedgerDamaged(
            f"The record's file is damaged: {found}. Leave it as it is, and restore a copy."
        )
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        migrate(fresh, MIGRATIONS[: version_of(connection)])
        differs = _schema(connection) ^ _schema(fresh)
    if differs:
        raise LedgerDamaged(
            f"The record's schema was changed: {', '.join(sorted(each[1] for each in differs))}. "
            "Leave it as it is, and restore a copy."
        )


def _connect(path: Path, mode: Literal["rw", "ro"]) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Raises LedgerUnknown where this release must not use the file."""
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    version = version_of(connection)
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if version > len(MIGRATIONS) and application == _APPLICATION:
        raise LedgerUnknown(
            f"The record {path} is of version {version}, and this release knows those up to "
            f"{len(MIGRATIONS)}: install the release that wrote it, or a later one."
        )
    if application != _APPLICATION and (version or application or _schema(connection)):
        raise LedgerUnknown(
            f"{path} is an SQLite file of another program. Move it away, or name another folder."
        )


def _schema(connection: sqlite3.Connection) -> set[tuple[str, str, str | None]]:
    return set(connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall())
