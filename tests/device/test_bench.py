"""What a user measures: real processes, real files."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from medimg_edge import __version__, engines, machine
from medimg_edge.bench import bench
from medimg_edge.bundle import Bundle
from medimg_edge.cores import usable_cores
from medimg_edge.device_profile import DeviceProfile, Pace, Setting, write
from medimg_edge.errors import ExtraMissing, ModelLoad
from medimg_edge.models import DEFAULT
from tests.device.control_c import hear_control_c


@pytest.fixture
def small(bundle, rewrite) -> Path:
    """A bundle with one artifact, so that a bench of it is short."""

    def change(raw: dict) -> None:
        for name in list(raw["artifacts"]):
            if name != "model.int8.onnx":
                del raw["artifacts"][name], raw["decision"][name]

    for name in ("model.onnx", "model.tflite", "model.int8.tflite"):
        (bundle / name).unlink()
    rewrite(bundle, change)
    return bundle


def test_every_artifact(frozen, command):
    done = command("bench", frozen, "--seconds", 0.1)
    assert (done.returncode, done.stderr) == (0, "")
    measured = json.loads(done.stdout)
    manifest = Bundle.open(frozen).manifest
    assert [(each["artifact"], each["runtime"]) for each in measured] == [
        (name, runtime)
        for name, each in manifest.artifacts.items()
        for runtime in engines.runtimes(each.format)
    ]
    for each in measured:
        assert 0 < each["p50"] <= each["p95"] <= each["p99"]
        assert each["images_per_second"] > 0
        assert each["answered"] >= 9  # 3 of each round
        assert (each["failed"], each["threads"]) == (0, 1)
        assert each["peak_memory"] > 20e6
    assert [each["artifact"] for each in measured if each["chosen"]] == ["model.int8.onnx"]


def test_what_would_be_turned_away_is_measured_too():
    """Golden inputs are drawn, and like no radiograph."""
    for each in bench(Bundle.open(DEFAULT), seconds=0.1):
        assert (each.failed, each.answered >= 9) == (0, True)


def test_peak_memory_is_each_settings_own(frozen):
    """What the one who asks holds is not in it."""
    held = bytearray(300 << 20)
    (found,) = [
        each
        for each in bench(Bundle.open(frozen), seconds=0.1)
        if (each.artifact, each.runtime) == ("model.int8.onnx", "onnxruntime")
    ]
    assert found.peak_memory is not None
    assert found.peak_memory < len(held)


def test_the_table_marks_what_auto_is(small, called):
    write(
        DeviceProfile(
            bundle=Bundle.open(small).hash,
            machine=machine.this_machine(),
            artifact="model.int8.onnx",
            runtime="onnxruntime",
            runtime_version=engines.version("onnxruntime") or "",
            release=__version__,
            single=Pace(2, 1.0, 1000.0),
            many=Pace(1, 2.0, 1000.0),
            created="2026-01-31",
        )
    )
    if usable_cores() < 2:
        pytest.skip("this machine has one core")
    done = called("bench", small, "--seconds", 0.1, "--format", "table")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split()[-3:] == ["images/s", "peak", "MB"]
    assert lines[2].split()[:3] == ["model.int8.onnx", "onnxruntime", "2"]
    assert [line.endswith("auto") for line in lines[2:]] == [True] + [False] * (len(lines) - 3)


def test_ones_own_images(small, called, tmp_path):
    """Folders and files; what cannot be answered is said, and not counted."""
    folder = tmp_path / "images"
    folder.mkdir()
    png = Path(shutil.copy(small / "golden" / "01-gray8.png", folder))
    dicom = small / "golden" / "08-monochrome2.dcm"
    (folder / "cut.png").write_bytes(png.read_bytes()[:-40])
    done = called("bench", small, folder, dicom, "--seconds", 0.1)
    assert done.returncode == 0
    measured = json.loads(done.stdout)
    for each in measured:
        assert each["failed"] >= 1
        assert each["answered"] >= each["failed"]
    assert "answers failed and are not counted" in done.stderr


def test_nothing_that_can_be_answered(small, called, tmp_path):
    done = called("bench", small, tmp_path / "none.png", "--seconds", 0.1)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error [data-too-few]: None of the images could be answered: " in done.stderr
    assert str(tmp_path / "none.png") in done.stderr
    (tmp_path / "empty").mkdir()
    assert "error [input-no-images]" in called("bench", small, tmp_path / "empty").stderr


def test_an_error_comes_back_from_the_process(small):
    gone = Setting("model.int8.onnx", "litert", 1)
    with pytest.raises(ModelLoad, match="litert runs no onnx files"):
        bench(Bundle.open(small), chosen=gone, seconds=0.1)
    if engines.version("openvino") is None:
        with pytest.raises(ExtraMissing):
            bench(Bundle.open(small), chosen=Setting("model.int8.onnx", "openvino", 1))


def test_a_process_that_is_killed_is_said(small):
    """As the kernel does where memory is short."""

    def kill() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for each in multiprocessing.active_children():
                each.kill()
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ModelLoad, match="ended with -9"):
        bench(Bundle.open(small), seconds=6)
    killer.join()


@pytest.mark.parametrize("words", [("bench", "--seconds", "60"), ("tune", "--rounds", "100")])
def test_control_c(frozen, words):
    """It ends what it started, without a traceback."""
    run = subprocess.Popen(
        [sys.executable, "-m", "medimg_edge.cli", *words, str(frozen)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=hear_control_c,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(timeout=4)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: all processes of the group
    out, err = run.communicate(timeout=10)
    assert (run.returncode, out, err) == (130, b"", b"")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sigaltstack of Linux")
def test_no_runtime_leaves_this_thread_a_stack_for_signals(frozen):
    """It would be freed with the engine, by another thread, and Ctrl-C then end the process."""

    class Stack(ctypes.Structure):
        _fields_ = (("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    def stack() -> int | None:
        found = Stack()
        assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
        return found.at

    before = stack()
    bundle = Bundle.open(frozen)
    for name, artifact in bundle.manifest.artifacts.items():
        for runtime in engines.runtimes(artifact.format):
            engine = engines.load(
                bundle.read(name), artifact.format, bundle.manifest, runtime=runtime
            )
            assert stack() == before, runtime
            del engine
