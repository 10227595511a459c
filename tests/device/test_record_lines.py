"""Records as JSON lines and CSV, and back: whole ones only."""

import csv
import io

import pytest
from msgspec.structs import replace

from medimg_edge.record import Record
from medimg_edge.record_lines import (
    CSV_HEADER,
    MAX_HALF,
    Origin,
    csv_lines,
    json_line,
    read_csv,
    read_json,
)
from tests.device.records import ORIGIN, answer, failed

NAMES = (
    "a.png",
    "caf\\xe9.png",
    'quo"te, comma.png',
    "new\nline.png",
    "return\r.png",
    "肺.png",
    "",
)
RECORDS: list[Record] = [make(name) for name in NAMES for make in (answer, failed)]


def shapes():
    def as_json(data: bytes):
        return read_json(io.BytesIO(data))

    def as_csv(data: bytes):
        return read_csv(io.BytesIO(data), 2)

    return [
        pytest.param(as_json, b"", [json_line(each).encode() for each in RECORDS], id="jsonl"),
        pytest.param(
            as_csv, CSV_HEADER.encode(), [csv_lines(each).encode() for each in RECORDS], id="csv"
        ),
    ]


@pytest.mark.parametrize(("read", "header", "written"), shapes())
def test_cut_at_any_byte_the_whole_ones_are_read(read, header, written):
    data = header + b"".join(written)
    ends, end = [], len(header)
    for each in written:
        end += len(each)
        ends.append(end)
    found = list(read(data))
    assert [each.input for each in found] == [each.input for each in RECORDS]
    assert [each.origin for each in found] == [ORIGIN, None] * len(NAMES)
    assert [each.end for each in found] == ends
    for cut in range(len(data)):
        whole = sum(end <= cut for end in ends)
        assert [each.end for each in read(data[:cut])] == ends[:whole], cut
    zeros = data[: ends[2] + 30] + bytes(500)  # what a power cut leaves of a block
    assert [each.end for each in read(zeros)] == ends[:3]


@pytest.mark.parametrize(("read", "header", "written"), shapes())
def test_what_is_no_end_of_a_run_is_refused(read, header, written):
    good = header + b"".join(written[:4])
    foreign = [
        b"Dear colleague",
        b"Dear colleague,\nthe image is attached.\n",
        b"{}\n",
        b"path,label\na.png,no\n",
        good + b"notes\n" + written[4],
        good + b"\xff\xff\n",
        good + bytes(100) + b"\n" + written[4],
        good + written[0][:40] + b"x" * MAX_HALF,
        good + b'"' + b"".join(written * 200),
    ]
    for data in foreign:
        with pytest.raises(ValueError):  # noqa: PT011 - the file's own error names what was found
            list(read(data))


def test_csv_is_read_by_others_as_it_was_written():
    text = CSV_HEADER + "".join(map(csv_lines, RECORDS))
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["input"] for row in rows if row["label"] != "b"] == [each.input for each in RECORDS]
    assert text.count("\r") == 3  # only within names: lines end as they always have


@pytest.mark.parametrize(("frame", "frames"), [(None, None), (2, 3), (4, None)])
def test_frames_are_read_as_they_were_written(frame, frames):
    for record in (answer("a.png"), failed("b.png")):
        made = replace(record, frame=frame, frames=frames)
        (of_json,) = read_json(io.BytesIO(json_line(made).encode()))
        (of_csv,) = read_csv(io.BytesIO((CSV_HEADER + csv_lines(made)).encode()), 2)
        for each in (of_json, of_csv):
            assert (each.frame, each.frames) == (frame, frames)


def test_profile_and_risk_are_parts_of_the_origin():
    record = answer("a.png", profile="d" * 64, risk=0.05)
    wanted = [Origin("c" * 64, "model.onnx", "d" * 64, 0.05)]
    line = io.BytesIO(json_line(record).encode())
    assert [each.origin for each in read_json(line)] == wanted
    rows = io.BytesIO((CSV_HEADER + csv_lines(record)).encode())
    assert [each.origin for each in read_csv(rows, 2)] == wanted
