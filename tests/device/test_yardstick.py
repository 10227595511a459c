"""The measuring itself: what `benchmarks/device.py` says of processes, contestants and targets."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
LARGE = "held = b'x' * 200_000_000; sum(range(3_000_000))"


@pytest.fixture
def yardstick(monkeypatch):
    """A module of the benchmarks, by its name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module


def test_what_a_process_costs(yardstick):
    """Measured from a small process: a child's peak is never less than its parent's."""
    program = (
        "from processes import cost, python\n"
        f"small, large = cost(python('-c', '')), cost(python('-c', {LARGE!r}))\n"
        "assert large.peak > 200_000_000, large\n"
        "assert large.cpu > small.cpu > 0 and large.wall > large.cpu / 2, (small, large)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT / "benchmarks", check=True)


def test_a_process_that_fails_is_no_measurement(yardstick):
    processes = yardstick("processes")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        processes.cost(processes.python("-c", "raise SystemExit('out of paper')"))
    assert "out of paper" in failed.value.stderr


def test_growth_is_seen():
    """Measured from a small process, too; the lines are long, for a pipe holds a thousand short."""
    grows = (
        "held = []\nfor i in range(1000): held.append(bytes(40_000)); print('.' * 4000, flush=True)"
    )
    program = (
        "from processes import growth, python\n"
        f"grown = growth(python('-c', {grows!r}), 500)\n"
        "assert 10_000_000 < grown < 30_000_000, grown\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT / "benchmarks", check=True)


def test_contestants_take_turns(yardstick):
    order = []
    contestants = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    found = yardstick("processes").by_turns(contestants, 2)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert found == {"a": [3, 6], "b": [4, 5]}


def test_floor_and_medimg_edge_answer_alike(yardstick, frozen):
    """On the same pixels, through the same file: the floor is no other model."""
    worker = yardstick("processes").Worker
    file = str(frozen / "golden" / "01-gray8.png")
    common = {"shape": [64, 64, 1], "first": file, "threads": 1, "bundle": str(frozen)}
    setting = {"artifact": "model.onnx", "threads": 1}
    loaded = [
        worker(common | {"kind": "floor", "model": str(frozen / "model.onnx")}),
        worker(common | {"kind": "medimg-edge", "setting": setting}),
    ]
    for each in loaded:
        each.wait()
        assert each.missing is None
    answers = [each.perform(runs=3)["answers"] for each in loaded]
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)
    assert len(set(answers[0])) == 1
    assert all(each.close().cpu > 0 for each in loaded)


@pytest.mark.parametrize(
    ("kind", "model", "why"),
    [
        ("floor", "MODEL_CARD.md", "does not take the model"),
        ("no such runtime", "model.onnx", "does not take the model"),
    ],
)
def test_a_contestant_that_cannot_run_says_so(yardstick, frozen, kind, model, why):
    what = {"kind": kind, "model": str(frozen / model), "threads": 1, "shape": [64, 64, 1]}
    worker = yardstick("processes").Worker(what | {"first": "none.png"})
    worker.wait()
    assert worker.missing.startswith(why)
    worker.close()


def test_targets_are_judged_by_their_direction(yardstick):
    report = yardstick("device_report")
    assert report.at_most("a", 1.1, 1.35, 1.15)["met"] == "yes, the aim too"
    assert report.at_most("a", 1.2, 1.35, 1.15)["met"] == "yes"
    assert report.at_most("a", 1.4, 1.35, 1.15)["met"] == "no"
    assert report.at_most("a", None, 1.35, 1.15, "no root")["met"] == "not measured: no root"
    assert report.at_least("a", 1.8, 1.7, 1.9)["met"] == "yes"
    assert report.at_least("a", 1.6, 1.7, 1.9)["met"] == "no"


def test_int8_against_float32_takes_the_fastest_of_each(yardstick):
    network = {
        "floor": [{"wall": 1.0}],
        "LiteRT, a.tflite, 1 thread": [{"wall": 9.0}],
        "OpenVINO, a.onnx, 2 threads": [{"wall": 6.0}],
        "LiteRT, b.tflite, 1 thread": [{"wall": 3.0}],
        "ONNX Runtime, b.onnx, 1 thread": [{"wall": 5.0}],
    }
    precisions = {"a.onnx": "float32", "a.tflite": "float32", "b.onnx": "int8", "b.tflite": "int8"}
    found = {"warm": {"network": network}, "machine": {"artifacts": precisions}}
    ratio = yardstick("device_report").int8_against_float32
    assert ratio(found) == 0.5
    assert ratio({**found, "machine": {"artifacts": {"b.onnx": "int8"}}}) is None


def test_the_devices_packages_are_the_devices(yardstick):
    required = yardstick("installation").required()
    assert {"medimg-edge", "numpy", "onnxruntime", "pydicom", "typer"} <= set(required)
    assert not {"tensorflow", "keras", "pytest"} & set(required)
