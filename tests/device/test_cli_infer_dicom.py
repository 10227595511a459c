"""``infer`` on DICOM: frames, series, the wrong kind, names for UIDs, files for an archive."""

import csv
import errno
import json
import os
import stat
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medimg_edge.dicom import file_meta
from medimg_edge.dicom.series import Place, place
from medimg_edge.heatmap import encode_png
from medimg_edge.inputs import Input
from medimg_edge.series import grouped

PATIENT = {"PatientName": "MEYER^ANNA", "PatientID": "4711-X", "PatientBirthDate": "19590102"}
STUDY, SERIES = "1.2.826.0.1.77", "1.2.826.0.1.77.5"
RNG = np.random.default_rng(5)
PNG = encode_png(RNG.integers(0, 256, (32, 32, 3), np.uint8))


def write(path: Path, frames: int = 1, syntax: UID = ExplicitVRLittleEndian, **elements) -> Path:
    """A CT slice of noise, or an object of several frames."""
    dataset = Dataset()
    shape = (frames, 32, 32) if frames > 1 else (32, 32)
    base = {
        **PATIENT,
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{SERIES}.{abs(hash(path.name)) % 10**9}",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "Modality": "DX",
        "BodyPartExamined": "CHEST",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 32,
        "Columns": 32,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": RNG.integers(0, 4096, shape, np.uint16).tobytes(),
    }
    if frames > 1:
        base["NumberOfFrames"] = str(frames)
    for keyword, value in (base | elements).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    path.write_bytes(file.getvalue())
    return path


@pytest.fixture
def infer(called, frozen):
    def run(*words):
        done = called("infer", "-b", frozen, *words)
        return done, [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{"]

    return run


# Frames


def test_frames_are_answered_one_by_one(infer, tmp_path):
    pixels = RNG.integers(1500, 1600, (3, 32, 32), np.uint16)
    pixels[1, :, 16:] += 300
    pixels[2, 16:] += 800
    file = write(tmp_path / "cine.dcm", frames=3, PixelData=pixels.tobytes())
    done, records = infer(file)
    assert done.returncode == 0
    assert [(each["frame"], each["frames"]) for each in records] == [(1, 3), (2, 3), (3, 3)]
    assert len({each["probability"] for each in records}) == 3
    done, (second,) = infer(file, "--frame", "2")
    assert {**second, "elapsed_ms": 0} == {**records[1], "elapsed_ms": 0}


def test_a_frame_that_is_not_there(infer, tmp_path):
    done, (record,) = infer(write(tmp_path / "cine.dcm", frames=3), "--frame", "4")
    assert (done.returncode, record["code"]) == (1, "input-unsupported")
    assert "1 to 3" in record["message"]


def test_a_frame_that_cannot_be_answered_does_not_stop_the_rest(infer, tmp_path):
    pixels = RNG.integers(0, 4096, (3, 32, 32), np.uint16)
    pixels[1] = 7
    done, records = infer(write(tmp_path / "cine.dcm", frames=3, PixelData=pixels.tobytes()))
    assert [each["status"] for each in records] == ["ok", "rejected", "ok"]
    assert (records[1]["frame"], records[1]["frames"], records[1]["code"]) == (2, 3, "blank")
    assert done.returncode == 1


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("kept", [0, 1, 2, 3, 4, 5])
def test_frames_are_resumed_once_each(infer, tmp_path, form, kept):
    """Whatever of the records a kill left: in the end there is one of every frame."""
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.dcm", frames=3)
    write(folder / "b.dcm", frames=2)
    out = tmp_path / f"answers.{form}"
    infer(folder, "--out", out, "--resume")
    header = 1 if form == "csv" else 0
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[: header + kept]) + lines[-1][:40])
    done, _ = infer(folder, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    if form == "csv":
        rows = list(csv.DictReader(out.read_text().splitlines()))
    else:
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    told = [(Path(each["input"]).name, str(each["frame"])) for each in rows]
    assert told == [("a.dcm", "1"), ("a.dcm", "2"), ("a.dcm", "3"), ("b.dcm", "1"), ("b.dcm", "2")]


def test_one_frame_of_each_is_resumed(infer, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.dcm", frames=3)
    out = tmp_path / "answers.jsonl"
    words = (folder, "--frame", "2", "--out", out, "--resume")
    infer(*words)
    write(folder / "b.dcm", frames=3)
    infer(*words)
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize(
    ("first", "second", "holds"),
    [
        (("--frame", "3"), ("--frame", "2"), "frame 3; now frame 2 alone is asked for"),
        (("--frame", "3"), (), "frame 3 alone; now all frames are asked for"),
        (("--frame", "1"), (), "frame 1 alone; now all frames are asked for"),
        ((), ("--frame", "3"), "frame 1; now frame 3 alone is asked for"),
        (("--frame", "4"), (), "frame 4 alone; now all frames are asked for"),
    ],
)
def test_another_frame_is_not_added_to_the_same_file(infer, tmp_path, form, first, second, holds):
    """It has no answer there, and answers that are there would be taken for its."""
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.dcm", frames=3)
    write(folder / "b.dcm", frames=3)
    write(folder / "c.dcm")
    words = (folder, "--out", tmp_path / f"answers.{form}", "--resume")
    infer(*words, *first)
    before = words[2].read_bytes()
    done, _ = infer(*words, *second)
    assert (done.returncode, words[2].read_bytes()) == (1, before)
    assert "error [write]" in done.stderr
    assert holds in done.stderr
    infer(*words, *first)
    assert words[2].read_bytes() == before


def test_what_is_no_frame_of_an_image_says_which_was_asked_for(infer, tmp_path):
    """Else a run for all frames would take the image for answered."""
    write(tmp_path / "a.dcm")
    (tmp_path / "b.png").write_bytes(b"no image")
    words = (tmp_path, "--out", tmp_path / "answers.jsonl", "--resume")
    infer(*words, "--frame", "2")
    told = [json.loads(line) for line in words[2].read_text().splitlines()]
    assert [(each["status"], each["frame"], each["frames"]) for each in told] == [
        ("error", 2, None),
        ("error", 2, None),
    ]
    done, _ = infer(*words)
    assert "holds answers of frame 2 alone" in done.stderr
    done, _ = infer(tmp_path, "--frame", "2", "--format", "table")
    assert "None" not in done.stdout


def test_heatmaps_of_frames_have_their_number(infer, tmp_path):
    infer(write(tmp_path / "cine.dcm", frames=2), "--heatmap", tmp_path / "maps")
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert [name.split(".")[:3] for name in names] == [["cine", "dcm", "1"], ["cine", "dcm", "2"]]


# Series


def slices(folder: Path, *, turned: bool = False) -> list[Path]:
    """Three slices, whose names say nothing of their places."""
    folder.mkdir(exist_ok=True)
    places = {"a.dcm": 20.0, "b.dcm": -5.0, "c.dcm": 7.5}
    made = []
    for number, (name, along) in enumerate(places.items(), start=1):
        position = [along, 1, 2] if turned else [1, 2, along]
        axes = [0, 1, 0, 0, 0, 1] if turned else [1, 0, 0, 0, 1, 0]
        made.append(
            write(
                folder / name,
                InstanceNumber=number,
                ImagePositionPatient=position,
                ImageOrientationPatient=axes,
            )
        )
    return made


@pytest.mark.parametrize("turned", [False, True])
def test_a_series_is_in_its_order_with_a_summary(infer, tmp_path, turned):
    slices(tmp_path / "ct", turned=turned)
    done, records = infer(tmp_path / "ct", "--series")
    assert done.returncode == 0, done.stderr
    assert [Path(each["input"]).name for each in records[:-1]] == ["b.dcm", "c.dcm", "a.dcm"]
    summary = records[-1]
    assert (summary["status"], summary["images"], summary["answered"]) == ("series", 3, 3)
    probabilities = {each["input"]: each["probability"] for each in records[:-1]}
    (finding,) = summary["findings"]
    assert finding["maximum"] == max(probabilities.values())
    assert finding["mean"] == pytest.approx(sum(probabilities.values()) / 3)
    assert probabilities[finding["input"]] == finding["maximum"]
    assert records[0]["dicom"]["position"][0 if turned else 2] == -5


def test_series_are_kept_apart_and_numbered_where_no_place_is_told(infer, tmp_path):
    for name, series, number in (("a", "1", 2), ("b", "2", 1), ("c", "1", 1), ("d", "1", None)):
        uid = f"{SERIES}.{series}"
        write(tmp_path / f"{name}.dcm", SeriesInstanceUID=uid, InstanceNumber=number)
    (tmp_path / "note.png").write_bytes(b"no image")
    _, records = infer(tmp_path, "--series")
    told = [Path(each["input"]).name if each["status"] != "series" else "=" for each in records]
    assert told == ["c.dcm", "a.dcm", "d.dcm", "=", "b.dcm", "=", "note.png"]


def test_a_series_may_lie_in_several_folders(infer, tmp_path, monkeypatch):
    (tmp_path / "ct" / "more").mkdir(parents=True)
    slices(tmp_path / "ct")
    write(tmp_path / "ct" / "more" / "d.dcm")
    monkeypatch.chdir(tmp_path)
    for given, told in {
        ("ct/a.dcm", tmp_path / "ct" / "b.dcm"): str(tmp_path / "ct"),
        ("ct/a.dcm", "ct/more/d.dcm"): "ct",
        (tmp_path / "ct" / "a.dcm", tmp_path / "ct" / "more"): str(tmp_path / "ct"),
        ("ct/a.dcm",): "ct",
    }.items():
        done, records = infer(*given, "--series")
        assert done.returncode == 0, done.stderr
        assert records[-1]["input"] == told
    monkeypatch.chdir(tmp_path / "ct")
    _, records = infer("a.dcm", "../ct/b.dcm", "--series")
    assert records[-1]["input"] == "."


def test_the_table_tells_the_series(infer, tmp_path):
    slices(tmp_path / "ct")
    done, _ = infer(tmp_path / "ct", "--series", "--format", "table")
    assert "series of 3, 3 answered" in done.stdout
    done, _ = infer(tmp_path / "ct", "--series", "--format", "csv")
    assert list(csv.DictReader(done.stdout.splitlines()))[-1]["status"] == "series"


def test_a_place_is_never_an_error(tmp_path):
    (tmp_path / "x.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    assert place(tmp_path / "x.dcm") == Place()
    assert place(tmp_path / "missing.dcm") == Place()
    file = write(tmp_path / "flat.dcm", ImagePositionPatient=[1, 2, 3])
    assert place(file).along == float("inf")
    assert [each.uid for each in grouped([Input(file, "flat.dcm")])] == [SERIES]


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
@pytest.mark.parametrize("what", ["whole", "cut", "bare"])
def test_a_place_is_told_however_the_file_is_encoded(tmp_path, syntax, what):
    file = write(
        tmp_path / "a.dcm",
        syntax=syntax,
        InstanceNumber=4,
        ImagePositionPatient=[1, 2, 30],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
    )
    data = file.read_bytes()
    if what == "cut":
        file.write_bytes(data[:-1000])
    elif what == "bare":
        if syntax in (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
            pytest.skip("nothing says how it is encoded")
        file.write_bytes(data[file_meta.read(data).end :])
    assert place(file) == Place(SERIES, 30, 4)


# The right image only


def test_another_modality_is_refused_or_forced(infer, tmp_path):
    file = write(tmp_path / "head.dcm", Modality="CT", BodyPartExamined="HEAD")
    done, (record,) = infer(file)
    assert (done.returncode, record["status"]) == (1, "rejected")
    assert record["code"] == "wrong-modality"
    done, (record,) = infer(file, "--force")
    assert (done.returncode, record["status"]) == (0, "ok")
    assert [each[:17] for each in record["warnings"]] == ["Answered by force"] * 2


# Privacy


def test_nothing_of_the_patient_is_told(infer, tmp_path, state):
    good = write(tmp_path / "a.dcm", Modality="MEYER^ANNA", ViewPosition="4711-X")
    bad = write(tmp_path / "b.dcm", Rows=None, Columns=None)
    strange = write(tmp_path / "c.dcm", PatientComments="4711-X", Modality="CT")
    log = tmp_path / "log"
    for form in ("jsonl", "csv", "table"):
        done, _ = infer(good, bad, strange, "--format", form)
        said = done.stdout + done.stderr
        assert not [word for word in (*PATIENT.values(), SERIES, STUDY) if word in said]
    assert not log.exists()
    _, records = infer(good)
    assert len(records[0]["dicom"]["instance"]) == 32
    secret = state / "uids.secret"
    assert stat.S_IMODE(os.stat(secret).st_mode) == 0o600
    _, again = infer(good)
    assert again[0]["dicom"] == records[0]["dicom"]
    secret.unlink()
    _, other = infer(good)
    assert other[0]["dicom"]["instance"] != records[0]["dicom"]["instance"]


def test_uids_are_told_on_demand(infer, tmp_path, state):
    file = write(tmp_path / "a.dcm")
    _, (record,) = infer(file, "--identify")
    assert record["dicom"]["instance"] == dcmread(file).SOPInstanceUID
    assert record["dicom"]["series"] == SERIES
    assert not state.exists()


@pytest.mark.parametrize("state_is", ["a file", "a folder with another secret", "nowhere"])
def test_without_a_secret_uids_are_left_out(infer, tmp_path, state, state_is, monkeypatch):
    """Answering needs none: images of any kind are answered, and one warning says what is not."""
    if state_is == "a file":
        state.touch()
    elif state_is == "nowhere":
        monkeypatch.setattr("medimg_edge.state.folder", lambda: None)
    else:
        state.mkdir()
        (state / "uids.secret").write_text("guess")
    for name in "abcdefgh":
        write(tmp_path / f"{name}.dcm")
    (tmp_path / "p.png").write_bytes(PNG)
    done, records = infer(tmp_path, "--series", "--threads", "4")
    assert done.returncode == 0, done.stderr
    assert [each["status"] for each in records] == ["ok"] * 8 + ["series", "ok"]
    assert not [each for each in records[:8] if {"instance", "series"} & set(each["dicom"])]
    assert records[8]["series"] is None
    assert done.stderr.count("warning: ") == 1
    assert "Records do not tell DICOM UIDs" in done.stderr
    assert ("MEDIMG_EDGE_STATE" if state_is == "nowhere" else str(state)) in done.stderr
    if state_is == "a folder with another secret":
        assert (state / "uids.secret").read_text() == "guess"


# Files for an archive


def test_results_lie_as_the_images_do(infer, tmp_path):
    pytest.importorskip("highdicom")
    (tmp_path / "in" / "ward").mkdir(parents=True)
    write(tmp_path / "in" / "ward" / "a.dcm")
    done, records = infer(tmp_path / "in", "--results", "sr,sc,json", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = sorted((tmp_path / "out" / "ward").iterdir())
    assert [path.name.removeprefix("a.dcm.") for path in found] == [
        "json",
        "sc.opacity.dcm",
        "sr.dcm",
    ]
    assert json.loads(found[0].read_text()) == records[0]
    for path in found[1:]:
        made = dcmread(path)
        assert (made.StudyInstanceUID, str(made.PatientName)) == (STUDY, "MEYER^ANNA")
        assert made.SeriesInstanceUID != SERIES


def test_results_are_their_owners_alone_and_whole(infer, tmp_path, monkeypatch):
    pytest.importorskip("highdicom")
    image, out = write(tmp_path / "a.dcm"), tmp_path / "out"
    words = (image, "--results", "sr,sc,json", "--out", out)
    infer(*words)
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in out.iterdir()} == {0o600}
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    done, _ = infer(*words)
    assert done.returncode == 1
    assert "was not written: No space left on device" in done.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_results_are_the_same_objects_for_every_user(infer, tmp_path, state):
    """Their UIDs are those of image and model: a secret that is lost, or none, changes none."""
    pytest.importorskip("highdicom")
    image, found = write(tmp_path / "a.dcm"), set()
    for name, more in (("x", ()), ("y", ()), ("z", ("--identify",))):
        infer(image, "--results", "sr", "--out", tmp_path / name, *more)
        found.add(dcmread(tmp_path / name / "a.dcm.sr.dcm").SOPInstanceUID)
        (state / "uids.secret").unlink(missing_ok=True)
    assert len(found) == 1


def test_reports_of_what_is_no_dicom_are_missed_aloud(infer, tmp_path):
    for name in ("p.png", "q.png"):
        (tmp_path / name).write_bytes(PNG)
    done, records = infer(tmp_path, "--results", "sr,sc", "--out", tmp_path / "out")
    assert (done.returncode, [each["status"] for each in records]) == (0, ["ok", "ok"])
    assert done.stderr.count("warning: ") == 1
    assert "is no DICOM image" in done.stderr
    assert not (tmp_path / "out").exists()
    done, _ = infer(tmp_path, "--results", "json", "--out", tmp_path / "out")
    assert "warning: " not in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--results", "sr"), "--out"),
        (("--results", "pdf", "--out", "x"), "none of sr, sc, json"),
        (("--series", "--out", "x.jsonl", "--resume"), "--series"),
        (("--frame", "0"), "--frame"),
    ],
)
def test_words_that_contradict_each_other(infer, tmp_path, words, says):
    done, _ = infer(write(tmp_path / "a.dcm"), *words)
    assert done.returncode == 2
    assert says in done.stderr


def test_our_own_pictures_are_not_answered(infer, tmp_path):
    pytest.importorskip("highdicom")
    infer(write(tmp_path / "a.dcm"), "--results", "sc", "--out", tmp_path / "out")
    done, (record,) = infer(tmp_path / "out", "--force")
    assert (done.returncode, record["code"]) == (1, "own-result")
