"""A healthy machine, and what is wrong with others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medimg_edge import doctor, engines, machine, models
from medimg_edge.doctor import Finding


def named(findings, name: str) -> Finding:
    (found,) = [each for each in findings if each.name == name]
    return found


def test_this_machine_can_answer(command):
    """Else no other test would pass."""
    done = command("doctor")
    assert done.returncode == 0, done.stdout
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert {each["status"] for each in found.values()} <= {"ok", "warning"}
    assert found["an answer"]["found"] == "pneumonia-cxr gives its golden answers"
    assert found["decoders"]["found"].startswith("PNG, JPEG, TIFF, DICOM")
    assert found["onnxruntime"]["found"] == engines.version("onnxruntime")
    assert machine.this_machine().cpu in found["processor"]["found"]
    assert {"python", "memory", "clock", "state folder", "shipped models"} <= set(found)


def test_the_table_gives_advice(called, monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", {})
    monkeypatch.setattr(doctor, "BUILD_YEAR", 2999)
    monkeypatch.setattr(doctor, "_answer", lambda: Finding("an answer", "ok", "not asked"))
    done = called("doctor", "--format", "table")
    assert done.returncode == 0
    assert "warning: clock: this release is of 2999: set the clock." in done.stdout


BROKEN = {
    "raise ImportError('libGL.so.1: cannot open shared object file')": "libGL.so.1",
    "import os, signal; os.kill(os.getpid(), signal.SIGILL)": "ended by signal 4",
}


@pytest.mark.parametrize("package", ["simplejpeg", "numpy"])
@pytest.mark.parametrize(("program", "says"), BROKEN.items())
def test_a_package_that_cannot_be_imported(command, tmp_path, package, program, says):
    """Exit 1, also where a library is not built for this processor and ends its process."""
    (tmp_path / f"{package}.py").write_text(program)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = command("doctor", env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 1
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert found[package]["status"] == "failed"
    assert says in found[package]["found"]
    assert f"pip install '{package}" in found[package]["advice"]
    assert "an answer" not in found  # it would only say the same again


def test_answers_that_differ_here(tmp_path, monkeypatch):
    """The shipped bundle is damaged: nothing answers."""
    shutil.copytree(models.FOLDER / models.DEFAULT, tmp_path / models.DEFAULT)
    model = tmp_path / models.DEFAULT / "model.int8.onnx"
    data = bytearray(model.read_bytes())
    data[1000] ^= 1
    model.write_bytes(data)
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    found = doctor._answer()
    assert found.status == "failed"
    assert "error [bundle-files]: model.int8.onnx is not the file" in found.found


def test_a_decoder_that_is_broken(monkeypatch):
    import cv2

    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: None)
    (found,) = doctor._decoders()
    assert found.status == "failed"
    assert "PNG: " in found.found


@pytest.mark.parametrize(("year", "status"), [(-1, "warning"), (0, "ok"), (21, "warning")])
def test_the_clock(monkeypatch, year, status):
    now = doctor.time.gmtime()
    monkeypatch.setattr(doctor, "BUILD_YEAR", now.tm_year - year)
    (found,) = doctor._clock()
    assert found.status == status


@pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed")
def test_a_clock_that_was_never_set():
    program = "from medimg_edge import doctor; print(*doctor._clock())"
    words = ["faketime", "1999-01-01", sys.executable, "-c", program]
    said = subprocess.run(words, capture_output=True, text=True).stdout
    assert "status='warning', found='1999-01-01" in said


def test_little_memory(monkeypatch):
    little = machine.Memory(2**30, 2**29, 64 * 2**20)
    monkeypatch.setattr(doctor.machine, "memory", lambda: little)
    (found,) = doctor._memory()
    assert found.status == "warning"
    assert found.found == "1,024 MB total, 512 MB available, 64 MB cgroup limit"
    assert found.advice == "an answer needs 160 MB"
    monkeypatch.setattr(doctor.machine, "memory", lambda: machine.Memory(None, None, None))
    assert [each.found for each in doctor._memory()] == ["unknown"]


@pytest.mark.parametrize(
    ("features", "status"),
    [(("AVX", "AVX2"), "warning"), (("NEON",), "warning"), (("NEON", "NEON dot product"), "ok")],
)
def test_processors(monkeypatch, features, status):
    here = machine.Machine("x86_64", "a processor", 2, features)
    monkeypatch.setattr(doctor.machine, "this_machine", lambda: here)
    assert named(doctor._system(), "processor").status == status
    assert named(doctor._system(), "architecture").status == "ok"
    other = machine.Machine("armv7l", "a processor", 1, features)
    monkeypatch.setattr(doctor.machine, "this_machine", lambda: other)
    assert named(doctor._system(), "architecture").status == "warning"


def test_places(monkeypatch, tmp_path):
    def state() -> Finding:
        return named(doctor._places(), "state folder")

    deep = tmp_path / "not" / "yet"
    monkeypatch.setenv("MEDIMG_EDGE_STATE", str(deep))
    assert (state().status, state().found) == ("ok", str(deep))
    assert not deep.parent.exists()  # looking makes nothing
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDIMG_EDGE_STATE", str(tmp_path / "file" / "state"))
    assert state().status == "warning"
    assert "MEDIMG_EDGE_STATE" in state().advice
    monkeypatch.setattr(models, "FOLDER", Path("/nowhere"))
    assert named(doctor._places(), "shipped models").status == "failed"


def test_no_temporary_files(monkeypatch):
    def none():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(doctor.tempfile, "gettempdir", none)
    found = named(doctor._places(), "temporary files")
    assert (found.status, found.advice) == ("warning", "set TMPDIR to a folder that may be written")
    assert "No usable" in found.found


def test_a_runtime_that_is_installed_and_broken(monkeypatch):
    """It is optional, so it is a warning."""
    known = engines.Runtime("onnx", "onnxruntime", lambda: "7", engines.RUNTIMES["litert"].engine)
    monkeypatch.setitem(engines.RUNTIMES, "fake", known)  # which the child process has not
    found = named(doctor._extras(), "fake (optional)")
    assert found.status == "warning"
    assert found.found == "KeyError: 'fake'"


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("1.22.0", "onnxruntime>=1.22", True),
        ("1.9", "onnxruntime>=1.22", False),
        ("0.28.3", "typer<0.29,>=0.26", True),
        ("0.29.0", "typer<0.29,>=0.26", False),
        ("0.25.9", "typer<0.29,>=0.26", False),
        ("5.0.0.93", "opencv-python-headless>=4.14", True),
        ("2.0", "numpy", True),
    ],
)
def test_versions(version, wanted, fits):
    assert doctor._fits(version, wanted) == fits


def test_a_version_that_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["typer<0.2,>=0.1", "x>=1"])
    found = doctor._package("typer", "typer")
    assert (found.status, found.advice) == ("warning", "this release asks for typer<0.2,>=0.1")


def test_two_opencvs(monkeypatch):
    assert [*doctor._opencv()] == []
    monkeypatch.setattr(doctor, "OTHER_OPENCV", ("msgspec",))
    (found,) = doctor._opencv()
    assert found.status == "warning"
    assert found.found == "msgspec beside opencv-python-headless"
