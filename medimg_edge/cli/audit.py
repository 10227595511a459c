"""The commands about what a kiosk kept: audit verify, audit export."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medimg_edge.cli import output

audit = typer.Typer(
    name="audit",
    help="Check the record of a kiosk, and export it; also while `serve` is running.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]

Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The folder that `serve` was given, or a copy of it.",
        show_default="kiosk in the user's state folder",
    ),
]


class Form(StrEnum):
    """What lines an export has."""

    csv = "csv"
    jsonl = "jsonl"


@audit.command("verify")
def verify(
    data: Data = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="A head that was noted earlier: it must be in there."),
    ] = None,
) -> None:
    """Check that every entry of the record is as it was written, and that none is missing.

    Each entry carries the hash of the one before; the hash of the last is the head. Note it
    elsewhere from time to time: without --head, entries that are missing at the end, or a record
    that was written anew as a whole, are not seen. Exit 1 if anything is not as it was.

    Examples:

    medimg-edge audit verify

    medimg-edge audit verify --data /var/lib/medimg --head 5f1c...
    """
    from medimg_edge.kiosk.ledger_reader import verify as check

    found = check(_folder(data), _hash(head))
    if found.first is None or found.last is None:
        typer.echo("The record has no entries.")
        return
    rows = [
        ("entries", f"{found.entries}, from {found.first.sequence} to {found.last.sequence}"),
        ("first", found.first.time),
        ("last", found.last.time),
        ("head", found.head),
    ]
    if found.after is not None:
        rows.append(("since --head", f"{found.after} entries"))
    typer.echo(output.table(rows))
    typer.echo("Every entry is as it was written, and none is missing between them.")


@audit.command("export")
def export(
    data: Data = None,
    form: Annotated[
        Form, typer.Option("--format", help="csv to look at; jsonl has all of it.")
    ] = Form.csv,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: standard output.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            metavar="TIME",
            formats=_TIMES,
            help="Not before this day, or time as in 2026-05-01T13:30; in UTC.",
        ),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(metavar="TIME", formats=_TIMES, help="Before this day or time, in UTC."),
    ] = None,
) -> None:
    """Write the entries of the record, the oldest first: CSV, or JSON lines.

    CSV has a row for each finding of an answer. In JSON lines, `body` is the text that the hash is
    of. Export checks nothing: `audit verify` does.

    Examples:

    medimg-edge audit export --out record.csv

    medimg-edge audit export --format jsonl --since 2026-05-01 --until 2026-06-01 --out may.jsonl
    """
    from medimg_edge.kiosk import entry_lines
    from medimg_edge.kiosk.ledger_reader import entries

    found = entries(_folder(data), since=since, until=until)
    with output.Sink(out) as sink:
        if form is Form.csv:
            sink.write(entry_lines.CSV_HEADER)
        line = entry_lines.csv_lines if form is Form.csv else entry_lines.json_line
        for each in found:
            sink.write(line(each))


def _folder(data: Path | None) -> Path:
    from medimg_edge import state
    from medimg_edge.errors import LedgerMissing

    if data is not None:
        return data
    if (kept := state.folder()) is None:
        raise LedgerMissing("This user has no home with a record: say where it is with --data DIR.")
    return kept / "kiosk"


def _hash(head: str | None) -> str | None:
    if head is None:
        return None
    found = head.strip().lower()
    if len(found) != 64 or not set(found) <= set("0123456789abcdef"):
        raise typer.BadParameter(
            "a head is 64 hexadecimal characters, as `audit verify` prints it.", param_hint="--head"
        )
    return found
