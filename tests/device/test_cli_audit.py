"""``medimg-edge audit``: what it prints and writes, and how it ends."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from medimg_edge.kiosk.chain import GENESIS, sealed
from medimg_edge.kiosk.entry_lines import CSV_COLUMNS, csv_lines
from medimg_edge.kiosk.kept import Kept
from medimg_edge.kiosk.ledger import Ledger
from medimg_edge.kiosk.ledger_reader import entries
from medimg_edge.record import Answer, Finding, Model, encode
from tests.device.ledger_writing import SHA, answer, failure, new

MULTILABEL = encode(
    Answer(
        input="m",
        frame=2,
        frames=3,
        findings=(Finding("edema", 0.125, "negative"), Finding("=effusion", 0.75, "refer")),
        label=None,
        probability=None,
        decision=None,
        artifact="model.onnx",
        runtime="onnxruntime 1",
        model=Model("phantom", "1", "ab" * 32),
        warnings=("one", "two"),
        elapsed_ms=2.5,
    )
)


@pytest.fixture
def folder(state) -> Path:
    """Where it is looked for when nothing is said."""
    return state / "kiosk"


@pytest.fixture
def kept(folder) -> list[Kept]:
    with closing(Ledger(folder)) as ledger:
        ledger.started(b'{"medimg_edge":"1"}').result()
        given = (
            new(answer("a")),
            new(MULTILABEL, source="dicom"),
            new(failure("c"), source="folder"),
        )
        found = [ledger.append(each).result() for each in given]
        for comment in ("=HYPERLINK(1)", "+1", "-1", "@a", "\t=1", 'fine, "quoted"\rli\nne'):
            ledger.acknowledge(found[0].id, comment).result()
    return found


def test_verify(kept, folder, called):
    done = called("audit", "verify")
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()[:4]]
    *_, last = first, *_ = list(entries(folder))
    assert lines == [
        ["entries", "10, from 1 to 10"],
        ["first", first.time],
        ["last", last.time],
        ["head", last.hash],
    ]
    assert (done.returncode, done.stderr) == (0, "")
    done = called("audit", "verify", "--data", folder, "--head", f" {first.hash.upper()}")
    assert "since --head  9 entries" in done.stdout


def test_verify_beside_a_service(kept, folder, command):
    with closing(Ledger(folder)) as ledger:
        ledger.append(new()).result()
        done = command("audit", "verify")
        assert "11, from 1 to 11" in done.stdout
        assert len(command("audit", "export", "--format", "jsonl").stdout.splitlines()) == 11


def test_what_is_damaged(kept, folder, called):
    import sqlite3

    with closing(sqlite3.connect(folder / "record.sqlite3")) as connection, connection:
        connection.execute("UPDATE entries SET body = replace(body, '0.75', '0.25')")
    done = called("audit", "verify")
    assert done.returncode == 1
    assert done.stderr.startswith("error [ledger-damaged]: Entry 2 is not as it was written.")
    assert done.stdout == ""


def test_a_head_that_is_not_there(kept, called):
    done = called("audit", "verify", "--head", "0f" * 32)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error [ledger-damaged]: No entry has the hash {'0f' * 32}")


@pytest.mark.parametrize("head", ["abc", "g" * 64, ""])
def test_what_is_no_head(kept, called, head):
    done = called("audit", "verify", "--head", head)
    assert done.returncode == 2
    assert "64 hexadecimal characters" in done.stderr


@pytest.mark.parametrize("words", [("verify",), ("export",), ("export", "--format", "jsonl")])
def test_none(folder, called, words):
    done = called("audit", *words)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error [ledger-missing]: {folder} holds no record")
    Ledger(folder).close()
    done = called("audit", *words)
    assert (done.returncode, done.stderr) == (0, "")


def test_json_lines(kept, folder, called, tmp_path):
    out = tmp_path / "record.jsonl"
    done = called("audit", "export", "--format", "jsonl", "--out", out)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = [json.loads(line) for line in out.read_text().splitlines()]
    for line, entry in zip(found, entries(folder), strict=True):
        assert line == {
            each: getattr(entry, each)
            for each in ("sequence", "time", "kind", "id", "body", "previous", "hash")
        }
    assert json.loads(found[2]["body"])["record"] == json.loads(bytes(kept[1].record))


def test_csv(kept, folder, called):
    done = called("audit", "export")
    assert (done.returncode, done.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    kinds = ["started", *["answer"] * 4, *["acknowledgement"] * 6]
    assert [row["kind"] for row in rows] == kinds
    first, one, edema, effusion, half, *_ = rows
    assert first["body"] == '{"medimg_edge":"1"}'
    assert (one["label"], one["probability"], one["decision"]) == ("pneumonia", "0.75", "positive")
    assert (one["source"], one["input_sha256"], one["status"]) == ("upload", SHA, "ok")
    assert (one["model"], one["model_hash"], one["runtime"]) == (
        "phantom 1",
        "ab" * 32,
        "onnxruntime 1",
    )
    assert (one["waited_ms"], one["answer_ms"]) == ("0.5", "3.25")
    assert (edema["id"], edema["sequence"], edema["hash"]) == (
        effusion["id"],
        effusion["sequence"],
        effusion["hash"],
    )
    assert (edema["label"], effusion["label"]) == ("edema", "'=effusion")
    assert (edema["frame"], edema["frames"], edema["warnings"]) == ("2", "3", "one; two")
    assert (half["status"], half["code"], half["message"], half["label"], half["probability"]) == (
        "error",
        "input-truncated",
        "Half an image.",
        "",
        "",
    )
    assert {row["id"] for row in rows[5:]} == {kept[0].id}


def test_a_spreadsheet_calculates_nothing(kept, called):
    rows = list(csv.DictReader(io.StringIO(called("audit", "export").stdout, newline="")))
    comments = [row["comment"] for row in rows if row["kind"] == "acknowledgement"]
    assert comments == [
        *("'=HYPERLINK(1)", "'+1", "'-1", "'@a", "'=1"),
        'fine, "quoted" li ne',
    ]
    assert not [cell for row in rows for cell in row.values() if cell[:1] in set("=+-@\t\r")]


@pytest.mark.parametrize("begin", ["", " ", "\t", "\r", "\n ", "\u00a0", "\u3000"])
def test_a_formula_after_white_space(begin):
    """As another program may have written it."""
    body = msgspec.json.encode({"comment": f"{begin}=1", "answer": 1}).decode()
    text = csv_lines(sealed(2, "", "acknowledgement", "", body, GENESIS))
    (row,) = csv.DictReader(io.StringIO(text, newline=""), CSV_COLUMNS)
    assert row["comment"] == f"'{begin}=1"


def test_of_a_time(kept, called):
    def count(*words: str) -> int:
        done = called("audit", "export", "--format", "jsonl", *words)
        assert done.returncode == 0, done.stderr
        return len(done.stdout.splitlines())

    assert count("--since", "2020-01-01", "--until", "2999-01-01T00:00") == 10
    assert count("--since", "2999-01-01") == 0
    assert count("--until", "2020-01-01T10:00:00") == 0
    assert called("audit", "export", "--since", "yesterday").returncode == 2


def test_an_export_appears_whole(kept, folder, called, tmp_path):
    """Where an entry cannot be read, what was there before is unchanged."""
    import sqlite3

    out = tmp_path / "record.csv"
    out.write_text("before")
    with closing(sqlite3.connect(folder / "record.sqlite3")) as connection, connection:
        connection.execute("UPDATE entries SET body = '{}' WHERE sequence = 4")
    done = called("audit", "export", "--out", out)
    assert done.returncode == 1
    assert done.stderr.startswith("error [ledger-damaged]: ")
    assert out.read_text() == "before"
    assert list(tmp_path.glob(".record*")) == []


@pytest.mark.parametrize("words", [(), ("verify",), ("export",)])
def test_help(called, words):
    done = called("audit", *words, "--help")
    assert done.returncode == 0
    assert not words or "medimg-edge audit" in done.stdout
