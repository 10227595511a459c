"""A file of answers that a run goes on with: what is in it stays, whole."""

import os
import subprocess
import sys
from collections import Counter
from contextlib import suppress

import pytest
from msgspec.structs import replace

from medimg_edge.errors import WriteError
from medimg_edge.record import Answer
from medimg_edge.record_lines import CSV_HEADER, Origin, csv_lines, json_line
from medimg_edge.results_file import ResultsFile
from tests.device.records import ORIGIN, answer, failed

ONE, OTHER = answer("1.png"), failed("2.png")
WHOLE = {
    "jsonl": json_line(ONE) + json_line(OTHER),
    "csv": CSV_HEADER + csv_lines(ONE) + csv_lines(OTHER),
}
SHAPES = pytest.mark.parametrize("shape", ["jsonl", "csv"])


@SHAPES
def test_a_run_after_the_other(tmp_path, shape):
    path = tmp_path / "answers"
    with ResultsFile(path, shape, ORIGIN, 2) as file:
        assert (file.inputs, file.failures) == (Counter(), 0)
        file.write(ONE)
    with ResultsFile(path, shape, ORIGIN, 2) as file:
        assert (file.inputs, file.failures) == (Counter({"1.png": 1}), 0)
        file.write(OTHER)
    with ResultsFile(path, shape, ORIGIN, 2) as file:
        assert (file.inputs, file.failures) == (Counter({"1.png": 1, "2.png": 1}), 1)
    assert path.read_text() == WHOLE[shape]


@SHAPES
def test_half_a_record_is_cut_off(tmp_path, shape):
    path = tmp_path / "answers"
    for cut in range(0, len(WHOLE[shape]), 7):
        path.write_text(WHOLE[shape][:cut])
        with ResultsFile(path, shape, ORIGIN, 2) as file:
            for record in (ONE, OTHER):
                if record.input not in file.inputs:
                    file.write(record)
        assert path.read_text() == WHOLE[shape]


def frames(name: str, *numbers: int, of: int = 3) -> list[Answer]:
    return [replace(answer(name), frame=number, frames=of) for number in numbers]


@SHAPES
@pytest.mark.parametrize(
    ("there", "frame", "holds"),
    [
        (frames("a", 3), 4, "frame 3; now frame 4 alone is"),
        (frames("a", 3), None, "frame 3 alone; now all frames are"),
        (frames("a", 1) + frames("b", 1), None, "frame 1 alone; now all frames are"),
        ([*frames("a", 1), ONE], None, "frame 1 alone; now all frames are"),
        ([ONE, *frames("a", 2)], None, "frame 2 alone; now all frames are"),
        ([replace(OTHER, frame=1)], None, "frame 1 alone; now all frames are"),
        (frames("a", 1, 2, 3), 1, "frame 2; now frame 1 alone is"),
        (frames("a", 1, 2, 3), 4, "frame 1; now frame 4 alone is"),
    ],
)
def test_answers_of_another_frame_are_refused_and_stay(tmp_path, shape, there, frame, holds):
    path = tmp_path / "answers"
    write = json_line if shape == "jsonl" else csv_lines
    before = ("" if shape == "jsonl" else CSV_HEADER) + "".join(map(write, there)) + '{"sch'
    path.write_text(before if shape == "jsonl" else before[:-5])
    before = path.read_bytes()
    with pytest.raises(WriteError, match=f"holds answers of {holds} asked for"):
        ResultsFile(path, shape, ORIGIN, 2, frame)
    assert path.read_bytes() == before


@SHAPES
def test_frames_are_counted_as_they_were_asked_for(tmp_path, shape):
    path = tmp_path / "answers"
    alone = [*frames("a", 2), ONE, *frames("b", 2, of=2), replace(OTHER, frame=2)]
    with ResultsFile(path, shape, ORIGIN, 2, 2) as file:
        for each in alone:
            file.write(each)
    with ResultsFile(path, shape, ORIGIN, 2, 2) as file:
        assert file.inputs == Counter(each.input for each in alone)
        assert file.failures == 1
    path.unlink()
    every = [*frames("a", 1, 2, 3), ONE, *frames("b", 1, 2, of=2), *frames("c", 1, 2)]
    with ResultsFile(path, shape, ORIGIN, 2) as file:
        for each in every:
            file.write(each)
    with ResultsFile(path, shape, ORIGIN, 2) as file:
        assert file.inputs == Counter(["a", ONE.input, "b"])  # of c one is still missing


@SHAPES
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("yesterday", "is no record"),
        ("path,label\na.png,no\n", "is no record"),
        (None, "holds answers of model.onnx of the bundle cccccccccccccccc"),
    ],
)
def test_another_file_is_refused_and_stays(tmp_path, shape, text, says):
    path = tmp_path / "answers"
    path.write_text(text or WHOLE[shape])
    before = path.read_bytes()
    for origin in (
        Origin("e" * 64, "model.onnx", None),
        Origin("c" * 64, "model.int8.onnx", None),
        Origin("c" * 64, "model.onnx", "d" * 64),
        Origin("c" * 64, "model.onnx", None, 0.05),
    ):
        with pytest.raises(WriteError, match=says):
            ResultsFile(path, shape, origin, 2)
    assert path.read_bytes() == before


def test_another_shape_is_refused(tmp_path):
    path = tmp_path / "answers"
    for shape, other in (("jsonl", "csv"), ("csv", "jsonl")):
        path.write_text(WHOLE[shape])
        with pytest.raises(WriteError, match=f"no record as {other}"):
            ResultsFile(path, other, ORIGIN, 2)
        assert path.read_text() == WHOLE[shape]


def test_where_no_file_can_be(tmp_path):
    for path in (tmp_path, tmp_path / "none" / "answers"):
        with pytest.raises(WriteError):
            ResultsFile(path, "jsonl", ORIGIN, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_two_runs_do_not_write_one_file(tmp_path):
    path = tmp_path / "answers"
    with ResultsFile(path, "jsonl", ORIGIN, 2) as file:
        file.write(ONE)
        with pytest.raises(WriteError, match="by another run"):
            ResultsFile(path, "jsonl", ORIGIN, 2)
    ResultsFile(path, "jsonl", ORIGIN, 2).__exit__()


def test_an_end_within_a_record_leaves_none_of_it(tmp_path):
    """As with Ctrl-C between two writes of the system."""
    path = tmp_path / "answers"
    with suppress(KeyboardInterrupt), ResultsFile(path, "jsonl", ORIGIN, 2) as file:
        file.write(ONE)
        with path.open("a") as half:
            half.write(json_line(OTHER)[:20])
        raise KeyboardInterrupt
    assert path.read_text() == json_line(ONE)


@pytest.mark.skipif(not hasattr(os, "setsid"), reason="needs a limit on the size of files")
@SHAPES
def test_a_disk_that_is_full(tmp_path, shape):
    """The records that had room stay, and the file can be gone on with."""
    path = tmp_path / "answers"
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from medimg_edge.errors import WriteError\n"
        "from medimg_edge.results_file import ResultsFile\n"
        "from tests.device.records import ORIGIN, answer\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try:\n"
        "    with ResultsFile(Path(sys.argv[1]), sys.argv[2], ORIGIN, 2) as f:\n"
        "        for i in range(100): f.write(answer(f'{i}.png'))\n"
        "except WriteError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path, shape], capture_output=True, text=True
    )
    assert "cannot be written: File too large. What is in it stays" in done.stdout, done.stderr
    assert 1000 < path.stat().st_size <= 2000
    kept = path.read_text()
    with ResultsFile(path, shape, ORIGIN, 2) as file:
        count = file.inputs.total()
        assert count >= 2
    assert path.read_text() == kept
    written = [answer(f"{i}.png") for i in range(count)]
    lines = map(json_line if shape == "jsonl" else csv_lines, written)
    assert kept == (CSV_HEADER if shape == "csv" else "") + "".join(lines)


def test_it_reaches_the_disk_in_steps(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", synced.append)
    monkeypatch.setattr("medimg_edge.results_file.STEP_SECONDS", 0)
    with ResultsFile(tmp_path / "answers", "jsonl", ORIGIN, 2) as file:
        synced.clear()
        file.write(ONE)
        assert synced == []
        file.settle()
        assert len(synced) == 1
        monkeypatch.setattr("medimg_edge.results_file.STEP_SECONDS", 3600)
        file.write(ONE)
        file.settle()
        assert len(synced) == 1
    assert len(synced) == 2
