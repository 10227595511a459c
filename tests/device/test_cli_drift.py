"""``medimg-edge drift``, of what ``infer`` wrote and of a kiosk's record."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from medimg_edge.drift_records import read
from medimg_edge.kiosk import ledger_writer
from medimg_edge.kiosk.ledger import Ledger
from medimg_edge.record_lines import CSV_HEADER, csv_lines, json_line
from tests.device.drifting import put_reference, reference, write_images
from tests.device.ledger_writing import new
from tests.device.records import answer

DARK, LIKE, BRIGHT = 85, 120, 150
COUNTS = {"validation": 240, "like": 70, "dark": 70, "bright": 70}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    levels = {"validation": LIKE, "like": LIKE, "dark": DARK, "bright": BRIGHT}
    for seed, (name, level) in enumerate(levels.items()):
        write_images(folder / name, COUNTS[name], level, seed)
    return folder


@pytest.fixture
def bundle(mean_bundle, images, called) -> Path:
    """A network whose probability rises with brightness, and how validation looked to it."""
    folder = mean_bundle([40.0], [-18.8], task="binary", labels=("normal", "opacity"))
    called("infer", images / "validation", "-b", folder, "--out", folder.parent / "v.jsonl")
    put_reference(folder, "model.onnx", reference(read(folder.parent / "v.jsonl")))
    return folder


@pytest.fixture
def answers(bundle, images, called, tmp_path) -> Path:
    """The folder of what ``infer`` wrote, as jsonl, json and csv."""
    for name in ("like", "dark", "bright"):
        for ending in ("jsonl", "json", "csv"):
            out = tmp_path / f"{name}.{ending}"
            done = called("infer", images / name, "-b", bundle, "--out", out)
            assert done.returncode == 0, done.stderr
    return tmp_path


@pytest.fixture
def record(answers, monkeypatch) -> Path:
    """A kiosk's: three weeks of what was answered, the last one dark; and some rejections."""
    now = datetime(2026, 11, 2, 8, tzinfo=UTC)

    moment = now

    def clock() -> datetime:
        nonlocal moment
        moment += timedelta(minutes=1)
        return moment

    monkeypatch.setattr(ledger_writer, "now", clock)
    folder = answers / "kiosk"
    with closing(Ledger(folder)) as ledger:
        for week, name in enumerate(("like", "like", "dark")):
            moment = now + timedelta(weeks=week)
            lines = (answers / f"{name}.jsonl").read_bytes().splitlines()
            for line in lines:
                ledger.append(new(line)).result()
            failed = {"input": "a", "status": "rejected", "code": "blank", "message": "Blank."}
            for _ in range(20 if week == 1 else 0):
                ledger.append(new(msgspec.json.encode(failed))).result()
    return folder


def report(done: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def drifted(period: dict[str, Any]) -> set[str]:
    return {each["name"] for each in period["comparisons"] if each["is_drift"]}


def test_answers_of_infer(answers, bundle, called):
    names = [answers / f"{each}.jsonl" for each in ("like", "dark", "bright")]
    done = called("drift", *names, "-b", bundle)
    found = report(done)
    assert (found["bundle"], found["artifact"], found["left_out"]) == ("mean", "model.onnx", {})
    like, dark, bright = found["periods"]
    assert [each["images"] for each in found["periods"]] == [70, 70, 70]
    assert (like["status"], drifted(like)) == ("no drift", set())
    expected = {"brightness", "probability of opacity", "decision on opacity"}
    assert drifted(dark) == expected
    assert drifted(bright) == expected
    assert dark["sentence"].startswith(
        f"{names[1]}: images are darker than those that the model was validated on (brightness"
    )
    assert "images are brighter than" in bright["sentence"]
    assert done.stderr == ""


@pytest.mark.parametrize("ending", ["json", "csv"])
def test_other_formats(answers, bundle, called, ending):
    """CSV has no numbers of the images; what it has is the same."""
    found = report(called("drift", answers / f"dark.{ending}", "-b", bundle))
    lines = report(called("drift", answers / "dark.jsonl", "-b", bundle))
    (period,), (other,) = found["periods"], lines["periods"]

    def told(period: dict[str, Any]) -> dict[str, Any]:
        return {
            each["name"]: each
            for each in period["comparisons"]
            if ending == "json" or each["kind"] not in ("looks", "novelty")
        }

    assert period["images"] == 70
    assert told(period) == told(other)


def test_what_is_not_compared_is_told(answers, bundle, called):
    records = [json.loads(line) for line in (answers / "like.jsonl").read_text().splitlines()]
    records[0]["risk"] = records[1]["risk"] = 0.05
    records[2]["profile"] = "d" * 64
    path = answers / "mixed.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    done = called("drift", path, "-b", bundle)
    (period,) = report(done)["periods"]
    assert (period["at_risk"], period["adapted"]) == (2, 1)
    assert "2 images were answered under --risk" in done.stderr
    assert "1 images were answered under a site profile" in done.stderr


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_decisions_under_a_risk_are_not_the_bundles_own(tmp_path, ending):
    path = tmp_path / f"answers.{ending}"
    write = json_line if ending == "jsonl" else csv_lines
    records = [answer("a.png"), answer("b.png", risk=0.05), answer("c.png", profile="d" * 64)]
    header = CSV_HEADER if ending == "csv" else ""
    path.write_text(header + "".join(map(write, records)))
    assert [(each.at_risk, each.adapted) for each in read(path)] == [
        (False, False),
        (True, False),
        (False, True),
    ]


def test_a_record_by_week(record, bundle, called):
    found = report(called("drift", record, "-b", bundle))
    assert [(each["name"], each["images"]) for each in found["periods"]] == [
        ("Week 45 of 2026", 70),
        ("Week 46 of 2026", 90),
        ("Week 47 of 2026", 70),
    ]
    first, second, third = found["periods"]
    assert drifted(first) == set()
    assert drifted(second) == {"turned away: blank"}
    assert "more images are turned away as blank" in second["sentence"]
    assert "brightness" in drifted(third)
    by_day = report(called("drift", record, "-b", bundle, "--by", "day"))
    assert [each["name"] for each in by_day["periods"]] == [
        "2026-11-02",
        "2026-11-09",
        "2026-11-16",
    ]


def test_an_export_says_the_same_as_the_record(record, bundle, called, tmp_path):
    of_record = report(called("drift", record, "-b", bundle))
    out = tmp_path / "export.jsonl"
    called("audit", "export", "--data", record, "--format", "jsonl", "--out", out)
    assert report(called("drift", out, "-b", bundle)) == of_record
    called("audit", "export", "--data", record, "--out", tmp_path / "export.csv")
    of_csv = report(called("drift", tmp_path / "export.csv", "-b", bundle))
    for period, other in zip(of_csv["periods"], of_record["periods"], strict=True):
        assert (period["name"], period["images"]) == (other["name"], other["images"])
        assert drifted(period) == drifted(other) - {"brightness"}


def test_a_service_that_writes_its_record(record, bundle, command):
    """Also while it is being written, by a process of its own."""
    with closing(Ledger(record)) as ledger:
        ledger.append(new((record.parent / "like.jsonl").read_bytes().splitlines()[0])).result()
        done = command("drift", record, "-b", bundle)
    assert sum(each["images"] for each in report(done)["periods"]) == 231


def test_the_table(answers, bundle, called):
    done = called("drift", answers / "dark.jsonl", "-b", bundle, "--format", "table")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["period", "number", "images", "PSI", "here", "validation"]
    (brightness,) = [line for line in lines if " brightness " in line]
    assert brightness.endswith("LARGE DRIFT")
    cells = brightness.split()
    assert float(cells[4]) == pytest.approx(DARK, abs=6)
    assert float(cells[5]) == pytest.approx(LIKE, abs=6)
    assert lines[-1].startswith(f"{answers / 'dark.jsonl'}: images are darker than")


@pytest.mark.parametrize(("name", "code"), [("like", 0), ("dark", 1)])
def test_fail(answers, bundle, called, name, code):
    path = answers / f"{name}.jsonl"
    assert called("drift", path, "-b", bundle, "--fail").returncode == code
    assert called("drift", path, "-b", bundle).returncode == 0


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_picture(record, bundle, called, tmp_path, ending):
    out = tmp_path / f"drift.{ending}"
    report(called("drift", record, "-b", bundle, "--out", out))
    assert out.read_bytes().startswith(b"<svg" if ending == "svg" else b"\x89PNG")
    done = called("drift", record, "-b", bundle, "--out", tmp_path / "no" / out.name)
    assert done.returncode == 1
    assert done.stderr.startswith("error [write]: ")


def test_a_picture_of_another_kind(record, bundle, called, tmp_path):
    done = called("drift", record, "-b", bundle, "--out", tmp_path / "drift.pdf")
    assert done.returncode == 2
    assert "neither in .svg nor in .png" in done.stderr


def test_answers_of_another_bundle(answers, bundle, called, rewrite):
    old = (answers / "dark.jsonl").read_bytes().splitlines()
    rewrite(bundle, lambda raw: raw.update(version="2"))
    done = called("drift", answers / "dark.jsonl", "-b", bundle)
    hash_ = json.loads(old[0])["model"]["hash"][:16]
    assert report(done)["periods"] == []
    assert f"70 images are left out: answered by another bundle, mean 1 ({hash_})." in done.stderr
    assert "No image was answered by mean 2 (" in done.stderr


def test_a_bundle_without_a_reference(answers, frozen, called):
    done = called("drift", answers / "dark.jsonl", "-b", frozen)
    assert done.returncode == 1
    assert done.stderr.startswith("error [bundle-reference]: The bundle ")
    assert "Export it again, or install a newer version" in done.stderr
    assert done.stdout == ""


def test_half_a_line_at_the_end(answers, bundle, called):
    """Of a run that writes, or was killed."""
    path = answers / "dark.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert report(called("drift", path, "-b", bundle))["periods"][0]["images"] == 69
    path.write_bytes(whole[:-40] + b"\n" + whole)
    done = called("drift", path, "-b", bundle)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error [data-invalid]: {path}, line 70: no record (")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"path,label\na,b\n", "data-invalid"),
        (
            b"status,label,probability,model_hash,model,code,artifact,profile\nok,a,b\n",
            "data-invalid",
        ),
        (b'{"status": "ok", "findings": [{"label": 1}]}\n', "data-invalid"),
        (b'{"status": "fine"}\n', "data-invalid"),
        (b'{"time": "noon", "status": "error"}\n', "data-invalid"),
        (b"[1]", "data-invalid"),
        (b"[{]", "data-invalid"),
        (b"\xff\xfe\x00", "data-invalid"),
        (b"\x89PNG\r\n", "data-invalid"),
        (None, "input-missing"),
    ],
)
def test_what_holds_no_answers(bundle, called, tmp_path, data, code):
    path = tmp_path / "file"
    if data is not None:
        path.write_bytes(data)
    done = called("drift", path, "-b", bundle)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error [{code}]: {path}"), done.stderr
    assert "Accepted are the answers of `infer`" in done.stderr


def test_a_folder_without_a_record(bundle, called, tmp_path):
    done = called("drift", tmp_path, "-b", bundle)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error [ledger-missing]: {tmp_path} holds no record")


def test_an_empty_file(bundle, called, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    done = called("drift", tmp_path / "empty.jsonl", "-b", bundle)
    assert report(done)["periods"] == []


def test_predictions_as_the_kiosk_tells_them(answers, bundle, called, tmp_path):
    records = (answers / "dark.jsonl").read_text().splitlines()
    told = [
        json.dumps({"id": "0", "time": "2026-11-16T10:00:00.000Z", "record": json.loads(each)})
        for each in records
    ]
    path = tmp_path / "told.jsonl"
    path.write_text("\n".join(told))
    (period,) = report(called("drift", path, "-b", bundle))["periods"]
    assert (period["name"], period["images"]) == ("Week 47 of 2026", 70)


def test_images_before_and_behind_another_bundle(answers, bundle, called, tmp_path):
    """What nothing answered belongs to what answered the image before; the first to the next."""
    mine = (answers / "like.jsonl").read_text().splitlines()
    other = [line.replace(json.loads(line)["model"]["hash"], "cd" * 32) for line in mine]
    failed = '{"input": "x", "status": "rejected", "code": "blank", "message": "Blank."}'
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join([failed, *mine[:60], failed, *other[:5], failed, failed, ""]))
    found = report(called("drift", path, "-b", bundle))
    assert [each["images"] for each in found["periods"]] == [62]
    assert list(found["left_out"].values()) == [7]


def test_no_numpy_for_numbers(answers, bundle):
    """Json and table need no image library: what runs beside a service stays small."""
    program = (
        "import sys\n"
        "from medimg_edge.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print('imported:', [name for name in ('numpy', 'cv2') if name in sys.modules])"
    )
    words = ("drift", answers / "dark.jsonl", "-b", bundle, "--out", answers / "drift.svg")
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "imported: []", done.stderr


def test_a_record_on_a_read_only_disc(record, bundle, called, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(record, copy)
    for each in copy.iterdir():
        each.chmod(0o400)
    copy.chmod(0o500)
    try:
        found = report(called("drift", copy, "-b", bundle))
    finally:
        copy.chmod(0o700)
    assert len(found["periods"]) == 3
