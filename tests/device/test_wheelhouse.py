"""What `make wheelhouse` collected, installed without a network where there was nothing before."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medimg_edge.bundle import find

WHEELHOUSE = os.environ.get("MEDIMG_EDGE_WHEELHOUSE")

pytestmark = pytest.mark.skipif(
    WHEELHOUSE is None, reason="MEDIMG_EDGE_WHEELHOUSE names no result of `make wheelhouse`"
)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a program of a new virtual environment that holds the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("device")
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [folder / "bin" / program, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=folder,
            env=environment,
            check=False,
        )

    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    options = ("install", "--no-index", "--find-links", Path(WHEELHOUSE or "").resolve())
    installed = run("pip", *options, "medimg-edge")
    assert installed.returncode == 0, installed.stderr
    return run


def test_there_is_no_training_framework(device: Run):
    listed = {
        each["name"].lower() for each in json.loads(device("pip", "list", "--format=json").stdout)
    }
    assert {"medimg-edge", "onnxruntime", "numpy"} <= listed
    assert not listed & {"tensorflow", "keras", "tf2onnx", "onnx", "scikit-learn", "matplotlib"}


def test_a_bundle_is_verified_described_and_answers(device: Run, frozen: Path):
    verified = device("medimg-edge", "verify", frozen)
    assert verified.returncode == 0, verified.stderr
    assert "gives the same answers here" in verified.stdout
    assert "Not checked here: model.tflite, model.int8.tflite" in verified.stdout
    assert "binary: normal, opacity" in device("medimg-edge", "info", frozen).stdout
    answered = device("medimg-edge", "infer", frozen / "golden", "-b", frozen, "--heatmap", "maps")
    assert answered.returncode == 0, answered.stderr
    records = {
        Path(each["input"]).name: each for each in map(json.loads, answered.stdout.splitlines())
    }
    golden = json.loads((frozen / "manifest.json").read_bytes())["golden"]
    assert records.keys() == {Path(case["input"]).name for case in golden}
    for case in golden:
        found = records[Path(case["input"]).name]["probability"]
        assert found == pytest.approx(case["probability"]["model.int8.onnx"][0], abs=0.02)


def test_the_shipped_bundle_answers(device: Run, tmp_path: Path):
    verified = device("medimg-edge", "verify", "pneumonia-cxr")
    assert verified.returncode == 0, verified.stderr
    image = find("pneumonia-cxr") / "golden" / "11-narrow.png"
    answered = device("medimg-edge", "infer", image, "--heatmap", tmp_path)
    assert answered.returncode == 0, answered.stderr
    record = json.loads(answered.stdout)
    assert record["label"] == "PNEUMONIA"
    assert record["decision"] in ("positive", "negative")
    assert 0 <= record["probability"] <= 1
    assert "not for adults" in answered.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["11-narrow.png.PNEUMONIA.png"]


@pytest.mark.parametrize("words", [["export", "run", "--out", "bundle"], ["demo"]])
def test_the_workstations_commands_say_what_to_install(device: Run, words: list[str]):
    done = device("medimg-edge", *words)
    assert done.returncode == 1
    assert done.stderr.startswith("error [extra-missing]: ")
    assert done.stderr.rstrip().endswith("pip install 'medimg-edge[export]'")
