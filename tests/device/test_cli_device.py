"""``medimg-edge`` on a device, as its user runs it: lines, files, exit codes."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from medimg_edge import __version__, manifest
from medimg_edge.bundle import Bundle
from medimg_edge.cli import main, output
from medimg_edge.cli.output import Sink
from medimg_edge.reader import read_image
from medimg_edge.record import schema as record_schema
from tests.device.said import beside_trust

GOLDEN = ("01-gray8.png", "08-monochrome2.dcm")


@pytest.fixture(scope="module")
def three(frozen, tmp_path_factory) -> list[Path]:
    """A PNG, a corrupt file, a DICOM file."""
    folder = tmp_path_factory.mktemp("three")
    png, dicom = (Path(shutil.copy(frozen / "golden" / name, folder)) for name in GOLDEN)
    corrupt = folder / "corrupt.png"
    corrupt.write_bytes(png.read_bytes()[:-40])
    return [png, corrupt, dicom]


def test_a_line_for_each_in_a_pipe(three, frozen, command):
    done = command("infer", *three, "--bundle", frozen)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["input"] for record in records] == [str(path) for path in three]
    assert [record["status"] for record in records] == ["ok", "error", "ok"]
    assert records[0]["model"]["hash"] == Bundle.open(frozen).hash
    assert records[1]["code"] == "input-truncated"
    assert (done.returncode, done.stderr) == (1, "")


def test_json_csv_and_table(three, frozen, called):
    lines = called("infer", *three, "-b", frozen, "--format", "jsonl").stdout.splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        record.pop("elapsed_ms", None)

    found = json.loads(called("infer", *three, "-b", frozen, "--format", "json").stdout)
    for record in found:
        record.pop("elapsed_ms", None)
    assert found == records

    text = called("infer", *three, "-b", frozen, "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["input"] for row in rows] == [record["input"] for record in records]
    for row, record in zip(rows, records, strict=True):
        for column in ("status", "label", "decision", "artifact", "code", "message"):
            assert row[column] == record.get(column, "")
        assert row["probability"] == str(record.get("probability", ""))
    assert rows[0]["model_hash"] == records[0]["model"]["hash"]

    done = called("infer", *three, "-b", frozen, "--format", "table")
    table = done.stdout.splitlines()
    assert len(table) == 3
    assert table[0].endswith(f"opacity {records[0]['probability']:.3f}  {records[0]['decision']}")
    assert table[1].endswith("[input-truncated]")
    assert done.returncode == 1


def test_progress_makes_room_for_the_answers_on_a_terminal(three, frozen):
    ours, theirs = os.openpty()
    words = [sys.executable, "-m", "medimg_edge.cli", "infer", *three, "-b", frozen]
    with os.fdopen(ours, "rb", buffering=0) as screen:
        run = subprocess.Popen(list(map(str, words)), stdout=theirs, stderr=theirs)
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while part := screen.read(4096):
                seen += part
    assert run.wait() == 1
    assert b"answering" in seen
    shown = [line.rsplit("\033[K", 1)[-1] for line in seen.decode().split("\r\n")]
    rows = [line for line in shown if line and "is not signed" not in line]
    assert all(path.name in row for path, row in zip(three, rows, strict=True))
    assert not any("answering" in row for row in rows)


def test_progress_tells_rate_and_time_left(monkeypatch):
    screen, now = io.StringIO(), 100.0
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr("time.monotonic", lambda: now)

    def shown(what: str, done: int, total: int) -> str:
        screen.seek(0)
        screen.truncate()
        output.progress(what, done, total)
        return screen.getvalue().removeprefix("\r\033[K")

    assert shown("reading", 0, 0) == "reading ..."
    assert shown("answering", 0, 10_000) == "answering      0/10000    0%"
    now += 0.05
    assert shown("answering", 1, 10_000) == ""  # drawn a moment ago
    now += 9.95
    assert shown("answering", 400, 10_000) == "answering    400/10000    4%  40.0/s  4:00 left"
    now += 1
    assert shown("answering", 440, 1_000_000).endswith("  40.0/s  6:56:29 left")
    now += 1
    assert shown("answering", 480, 0) == "answering 480  40.0/s"
    assert shown("answering", 0, 5) == "answering      0/5    0%"  # the next one begins
    assert shown("answering", 5, 5) == "answering      5/5  100%"


def test_a_document_of_failures_only(frozen, called, tmp_path):
    arguments = ("infer", tmp_path / "none.png", "-b", frozen, "--format")
    (found,) = json.loads(called(*arguments, "json").stdout)
    (row,) = csv.DictReader(io.StringIO(called(*arguments, "csv").stdout))
    assert found["code"] == row["code"] == "input-missing"
    assert row["probability"] == ""


def test_every_finding_of_a_multilabel_answer(mean_bundle, called, tmp_path):
    folder = mean_bundle([5, -5], [0, 0], labels=("a b", "ü"))
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.arange(256, dtype=np.uint8).reshape(16, 16))
    text = called("infer", image, "-b", folder, "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["label"] for row in rows] == ["a b", "ü"]
    assert [row["decision"] for row in rows] == ["positive", "negative"]
    done = called("infer", image, "-b", folder, "--heatmap", tmp_path / "maps")
    assert done.returncode == 0
    assert sorted(os.listdir(tmp_path / "maps")) == ["image.png.a_b.png", "image.png.ü.png"]


def test_a_label_outside_of_the_terminals_encoding(mean_bundle, command, tmp_path):
    folder = mean_bundle([5, -5], [0, 0], labels=("a", "肺炎"))
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.arange(256, dtype=np.uint8).reshape(16, 16))
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = command("infer", image, "-b", folder, "--format", "table", env=ascii_only)
    assert done.returncode == 0
    assert "\\u80ba\\u708e" in done.stdout
    assert command("info", folder, env=ascii_only).returncode == 0


def test_a_model_that_is_not_finite(bundle, rewrite, called, three):
    """Each input says so; a number would be believed."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle / "model.onnx")
    largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    array = onnx.numpy_helper.to_array(largest)
    largest.CopyFrom(onnx.numpy_helper.from_array(array * np.float32(np.inf), largest.name))
    onnx.save(model, bundle / "model.onnx")
    rewrite(bundle)
    done = called("infer", *three, "-b", bundle, "--artifact", "model.onnx")
    codes = [json.loads(line).get("code") for line in done.stdout.splitlines()]
    assert codes == ["model-not-finite", "input-truncated", "model-not-finite"]
    assert done.returncode == 1


def test_an_answer_leaves_at_once(monkeypatch):
    """A reader of the pipe does not wait until a buffer is full."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with open(reader, "rb") as pipe, open(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with Sink(None) as sink:
            sink.write("answer\n")
            assert pipe.read() == b"answer\n"


# Files


def test_out_appears_when_it_is_complete(three, frozen, called, tmp_path):
    out = tmp_path / "answers.csv"
    out.write_text("yesterday")
    done = called("infer", *three, "-b", frozen, "--out", out, "--format", "csv")
    assert done.stdout == ""
    assert len(out.read_text().splitlines()) == 4
    assert set(os.listdir(tmp_path)) == {"answers.csv", "state"}

    out.write_text("yesterday")  # then a run that ends before its end: no place for heatmaps
    (tmp_path / "maps").write_text("not a folder")
    done = called("infer", *three, "-b", frozen, "--out", out, "--heatmap", tmp_path / "maps")
    assert done.returncode == 1
    assert re.search(r"error \[write\]: .*maps.* was not written", done.stderr)
    assert out.read_text() == "yesterday"
    assert sorted(os.listdir(tmp_path)) == ["answers.csv", "maps", "state"]


@pytest.mark.parametrize("out", ["none/answers", "folder", ".", "/", "long" * 100])
def test_out_that_cannot_be_written(three, frozen, called, tmp_path, monkeypatch, out):
    (tmp_path / "folder" / "file").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    done = called("infer", three[0], "-b", frozen, "--out", out)
    assert done.returncode == 1
    assert done.stderr.startswith("error [write]: ")
    assert os.listdir(tmp_path) == ["folder"]


def test_heatmaps_of_files_with_one_name(frozen, called, tmp_path):
    for ward in ("a", "b/c"):
        (tmp_path / "in" / ward).mkdir(parents=True)
    shutil.copy(frozen / "golden" / "01-gray8.png", tmp_path / "in" / "a" / "chest.png")
    shutil.copy(frozen / "golden" / "04-wide.png", tmp_path / "in" / "b" / "c" / "chest.png")
    inputs = [
        (tmp_path / "in",),
        (tmp_path / "in" / "a", tmp_path / "in" / "b"),
        (tmp_path / "in" / "a" / "chest.png", tmp_path / "in" / "b" / "c" / "chest.png"),
        (tmp_path / "in" / "a", tmp_path / "in" / "a" / ".." / "b" / "c" / "chest.png"),
    ]
    for at, each in enumerate(inputs):
        maps = tmp_path / f"maps{at}"
        assert called("infer", *each, "-b", frozen, "--heatmap", maps).returncode == 0
        written = sorted(path for path in maps.rglob("*") if path.is_file())
        expected = [maps / "a" / "chest.png.opacity.png", maps / "b/c" / "chest.png.opacity.png"]
        assert written == expected
        pictures = [read_image(path).frames for path in written]
        assert [picture.shape for picture in pictures] == [(1, 512, 512, 3)] * 2
        assert not np.array_equal(pictures[0], pictures[1])


def test_one_heatmap_lies_in_its_folder(frozen, called, tmp_path, monkeypatch):
    shutil.copy(frozen / "golden" / "01-gray8.png", tmp_path / "chest.png")
    monkeypatch.chdir(tmp_path)
    assert called("infer", "chest.png", "-b", frozen, "--heatmap", "maps").returncode == 0
    assert os.listdir("maps") == ["chest.png.opacity.png"]


def test_a_model_without_heatmap(mean_bundle, called, tmp_path):
    folder = mean_bundle(
        [5, 5],
        [0, 0],
        outputs={"probability": manifest.Output((None, 2), "probability")},
    )
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.arange(256, dtype=np.uint8).reshape(16, 16))
    done = called("infer", image, "-b", folder, "--heatmap", tmp_path / "maps")
    assert done.returncode == 1
    assert "makes no heatmap" in done.stderr


# What cannot be done


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["infer", "x.png", "-b", "none"], "bundle-missing"),
        (["infer", "x.png", "-b", "FROZEN", "--artifact", "model.h5"], "bundle-artifact"),
        (["verify", "none"], "bundle-missing"),
        (["info", "FROZEN/manifest.json"], "bundle-missing"),
        (["--log-file", "none/log", "info", "FROZEN"], "write"),
    ],
)
def test_one_line_and_exit_1(frozen, called, arguments, code):
    done = called(*(each.replace("FROZEN", str(frozen)) for each in arguments))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"error [{code}]: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["infer"],
        ["infer", "-b", "bundle"],
        ["infer", "x.png", "-b", "bundle", "--format", "xml"],
        ["schema", "answer"],
        ["diagnose"],
    ],
)
def test_usage_is_exit_2(called, arguments, monkeypatch):
    monkeypatch.delenv("MEDIMG_EDGE_BUNDLE", raising=False)
    done = called(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr


def test_the_bundle_may_be_in_the_environment(three, frozen, called, monkeypatch):
    monkeypatch.setenv("MEDIMG_EDGE_BUNDLE", str(frozen))
    assert called("infer", three[0]).returncode == 0


def test_standard_output_that_was_closed(three, frozen, tmp_path):
    """As a service may be started: the file is written, and the exit code is the answers'."""
    out = tmp_path / "answers.jsonl"
    words = [sys.executable, "-m", "medimg_edge.cli", "infer", three[0], "-b", frozen, "--out", out]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *map(str, words)], capture_output=True, text=True
    )
    assert (done.returncode, beside_trust(done.stderr)) == (0, "")
    assert json.loads(out.read_text())["status"] == "ok"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["infer", "verify", "info", "schema"])
def test_a_full_disk_behind_stdout(three, frozen, command, name):
    arguments = {"infer": ["infer", three[0], "-b", frozen], "schema": ["schema", "record"]}
    with open("/dev/full", "w") as full:
        done = command(*arguments.get(name, [name, frozen]), stdout=full)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO:")]
    assert len(lines) == 1
    assert lines[0].startswith("error [write]: ")
    assert "No space left on device" in lines[0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_the_log(three, frozen, command):
    done = command("--log-file", "/dev/full", "infer", three[0], "-b", frozen)
    assert done.returncode == 1
    assert done.stderr.startswith("error [write]: /dev/full cannot be written")


def test_a_reader_that_has_seen_enough(three, frozen):
    """As with ``| head -1``: the rest of many answers meets a closed pipe."""
    run = subprocess.Popen(
        [sys.executable, "-m", "medimg_edge.cli", "infer", *[three[0]] * 200, "-b", frozen],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stderr is not None
    assert json.loads(run.stdout.readline())["status"] == "ok"
    run.stdout.close()
    assert beside_trust(run.stderr.read()) == ""
    run.stderr.close()
    assert run.wait() == 1


def test_the_log(three, frozen, called, tmp_path):
    log = tmp_path / "log"
    for _ in range(2):
        called("--quiet", "--log-file", log, "infer", *three, "-b", frozen)
    lines = log.read_text().splitlines()
    assert len(lines) == 6
    assert "started: --quiet" in lines[0]
    assert "is not signed" in lines[1]
    assert "error [input-truncated]" in lines[2]


def test_a_fault_of_our_own_is_one_line_too(frozen, three, monkeypatch, capsys, tmp_path):
    def fault(*_):
        raise KeyError("of a\nprogrammer")

    monkeypatch.setattr("medimg_edge.classifier.Classifier.run", fault)
    log = tmp_path / "log"
    words = ["--log-file", log, "infer", three[0], "-b", frozen]
    monkeypatch.setattr(sys, "argv", ["medimg-edge", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    (line,) = beside_trust(capsys.readouterr().err).splitlines()
    assert line.startswith("error [unexpected]: A fault of medimg-edge itself: KeyError: ")
    assert "--log-file" in line
    assert "Traceback" in log.read_text()
    assert "in fault" in log.read_text()


# Real radiographs


@pytest.mark.data
@pytest.mark.skipif("MEDIMG_EDGE_DATA" not in os.environ, reason="MEDIMG_EDGE_DATA is unset")
def test_full_resolution_radiographs_in_a_pipe(frozen, command, tmp_path):
    sample = Path(os.environ["MEDIMG_EDGE_DATA"], "kermany-cxr-fullres-sample")
    done = command("infer", sample, "-b", frozen)
    assert done.returncode == 0
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["status"] for each in answers] == ["ok"] * 24
    whole = Path(answers[7]["input"])
    corrupt = tmp_path / f"corrupt{whole.suffix}"
    corrupt.write_bytes(whole.read_bytes()[:-5000])
    inputs = [each["input"] for each in answers]
    done = command("infer", *inputs[:7], corrupt, *inputs[7:], "-b", frozen)
    assert done.returncode == 1
    again = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(again) == 25
    assert (again[7]["status"], again[7]["code"]) == ("error", "input-truncated")
    del again[7]
    assert [each["probability"] for each in again] == [each["probability"] for each in answers]


# What is said


def test_version(command):
    assert command("--version").stdout == f"medimg-edge {__version__}\n"


def test_info(frozen, called):
    done = called("info", frozen)
    assert done.returncode == 0
    for said in (
        "binary: normal, opacity",
        "64 x 64 pixels, gray, stretch",
        Bundle.open(frozen).hash,
        "model.int8.tflite",
        "youden",
    ):
        assert said in done.stdout


def test_verify(frozen, called):
    done = called("verify", frozen)
    assert done.returncode == 0
    assert "gives the same answers here as in training" in done.stdout
    assert "model.int8.onnx" in done.stdout


def test_the_schema_of_records(called):
    assert json.loads(called("schema", "record").stdout) == json.loads(json.dumps(record_schema()))


@pytest.mark.parametrize("name", ["manifest", "profile", "device"])
def test_schema(called, name):
    published = Path(__file__).parent.parent / "data" / f"schema-{name}.json"
    assert json.loads(called("schema", name).stdout) == json.loads(published.read_text())


COMMANDS = [
    *(["infer"], ["verify"], ["calibrate"], ["info"], ["schema"]),
    *(["tune"], ["bench"], ["doctor"], ["listen"], ["deidentify"]),
    *(["train"], ["export"], ["evaluate"], ["compare"], ["demo"]),
    *(["data", "check"], ["data", "get"], ["data", "phantom"]),
]


def test_every_command_is_listed(called):
    listed = called("--help").stdout
    for name, *_ in COMMANDS:
        assert f"\n  {name} " in listed
    listed = called("data", "--help").stdout
    for name in ("check", "get", "phantom"):
        assert f"\n  {name} " in listed


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(called, words):
    done = called(*words, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert f"medimg-edge {' '.join(words)}" in done.stdout.split("Example")[1]


def test_help_as_a_process(command):
    done = command("--help")
    assert done.returncode == 0
    assert "Decision support, not a diagnosis" in done.stdout
