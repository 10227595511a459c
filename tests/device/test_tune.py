"""What ``tune`` tries, what it refuses, and what it chooses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medimg_edge import engines
from medimg_edge import tune as module
from medimg_edge.bundle import Bundle
from medimg_edge.device_profile import Setting
from medimg_edge.errors import FilesDiffer, GoldenMismatch, ModelLoad
from medimg_edge.tune import Tuned, tune

ONNX = ("model.int8.onnx", "model.onnx")
Seconds = Callable[[Any], float]
Rate = Callable[[Any, int], float]


@pytest.fixture
def onnx_only(bundle, rewrite) -> Path:
    """A bundle that every machine can run all of."""
    for name in ("model.tflite", "model.int8.tflite"):
        (bundle / name).unlink()

    def change(raw: dict) -> None:
        for name in ("model.tflite", "model.int8.tflite"):
            del raw["artifacts"][name], raw["decision"][name]

    rewrite(bundle, change)
    return bundle


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    monkeypatch.setattr(module, "images_at_once", lambda threads: 2 // threads)


@pytest.fixture
def clock(monkeypatch) -> Callable[..., None]:
    """Say how long an image takes, and how many a second so many at once are.

    So no test hangs on a timing.
    """

    def use(seconds: Seconds, rate: Rate | None = None) -> None:
        def timed(run, **limits) -> list[float]:
            run()
            return [seconds(run.func.__self__)]

        def rated(run, at_once, **limits) -> float:
            engine = run.func.__self__
            return rate(engine, at_once) if rate else at_once / seconds(engine)

        monkeypatch.setattr(module, "timed", timed)
        monkeypatch.setattr(module, "rate", rated)

    return use


@pytest.fixture
def fake(monkeypatch) -> Callable[..., None]:
    """Add a runtime that answers as ONNX Runtime does, then changes the probabilities."""

    def add(change: Callable[[np.ndarray], np.ndarray], package: str = "onnxruntime") -> None:
        class Fake:
            runtime = "fake 7"

            def __init__(self, model, manifest, threads) -> None:
                self._engine = engines.RUNTIMES["onnxruntime"].engine(model, manifest, threads)
                self.threads = threads

            def run(self, pixels):
                outputs = self._engine.run(pixels)
                return {**outputs, "probability": change(outputs["probability"])}

        known = engines.Runtime("onnx", package, lambda: "7", Fake)
        monkeypatch.setitem(engines.RUNTIMES, "fake", known)

    return add


def only(*names: str):
    """The runtimes that are looked at, whatever this machine has."""
    return {name: each for name, each in engines.RUNTIMES.items() if name in names}


def run(folder: Path, rounds: int = 1) -> Tuned:
    return tune(Bundle.open(folder), rounds)


def fakes_are_quick(engine: engines.Engine) -> float:
    return 0.001 if engine.runtime == "fake 7" else 0.01


def test_every_setting_is_tried(frozen, clock):
    clock(lambda engine: 1.0)
    tuned = run(frozen)
    manifest = Bundle.open(frozen).manifest
    expected = {
        (name, runtime, threads)
        for name, each in manifest.artifacts.items()
        for runtime in engines.runtimes(each.format)
        for threads in (1, 2)
    }
    tried = [each.setting for each in tuned.trials]
    assert len(tried) == len(set(tried))
    assert set(tried) == expected
    assert {each.check.cases for each in tuned.trials} == {12}
    # All are as fast as each other, so the plainest answers.
    assert tuned.profile.setting == Setting("model.int8.onnx", "onnxruntime", 1)
    assert tuned.profile.setting_for_many == tuned.profile.setting


@pytest.mark.parametrize(
    ("cores", "threads"),
    [(1, [1]), (3, [1, 2, 3]), (6, [1, 2, 3, 4, 6]), (64, [1, 2, 3, 4, 8, 16, 32, 64])],
)
def test_threads_up_to_the_cores(frozen, monkeypatch, cores, threads):
    monkeypatch.setattr(module, "usable_cores", lambda: cores)
    settings = list(module._settings(Bundle.open(frozen)))
    assert settings[0] == Setting("model.int8.onnx", "onnxruntime", 1)
    reference = [each for each in settings if each[:2] == ("model.onnx", "onnxruntime")]
    assert [each.threads for each in reference] == threads


def test_the_fastest_is_chosen(onnx_only, fake, clock):
    """For one image by the time of one; for many by images per second, of the same engine."""
    fake(lambda p: p)

    def seconds(engine) -> float:
        if engine.runtime != "fake 7":
            return 0.004
        return {1: 0.002, 2: 0.0015}[engine.threads]

    def rate(engine, at_once) -> float:
        if engine.runtime != "fake 7":
            return 10_000  # but not for one image
        assert at_once == {1: 2, 2: 1}[engine.threads]
        return at_once / seconds(engine)

    clock(seconds, rate)
    profile = run(onnx_only).profile
    assert (profile.runtime, profile.runtime_version) == ("fake", "7")
    assert (profile.artifact, profile.single.threads) == ("model.int8.onnx", 2)
    assert profile.single.milliseconds == pytest.approx(1.5)
    assert profile.many.threads == 1
    assert profile.many.images_per_second == pytest.approx(1000)


@pytest.mark.parametrize(("faster", "chosen"), [(0.97, "onnxruntime"), (0.9, "fake")])
def test_little_is_not_worth_another_setting(onnx_only, fake, clock, faster, chosen):
    fake(lambda p: p)
    clock(lambda engine: 0.001 * (faster if engine.runtime == "fake 7" else 1))
    assert run(onnx_only).profile.runtime == chosen


@pytest.mark.parametrize(
    ("shift", "status"), [(0.06, "failed"), (0.03, "warning"), (np.nan, "failed")]
)
def test_a_runtime_that_answers_otherwise_is_never_chosen(
    onnx_only, fake, clock, monkeypatch, shift, status
):
    """However quick; and it is not even timed."""
    monkeypatch.setattr(engines, "RUNTIMES", only("onnxruntime"))
    fake(lambda p: p - np.float32(shift) * np.sign(p - 0.5))
    clock(fakes_are_quick)
    tuned = run(onnx_only)
    wrong = [each for each in tuned.trials if each.setting.runtime == "fake"]
    int8 = [each for each in wrong if each.setting.artifact == "model.int8.onnx"]
    assert {each.check.status for each in int8} == {status}
    assert {each.check.status for each in wrong} <= {status, "failed"}
    assert {each.pace for each in wrong} == {None}
    assert tuned.profile.runtime == "onnxruntime"


def test_an_artifact_with_other_weights_is_never_chosen(onnx_only, rewrite, clock):
    """Its hashes fit, so only its answers tell."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(onnx_only / "model.int8.onnx")
    largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    array = onnx.numpy_helper.to_array(largest)
    largest.CopyFrom(onnx.numpy_helper.from_array(array // 2, largest.name))
    onnx.save(model, onnx_only / "model.int8.onnx")
    rewrite(onnx_only)
    clock(lambda engine: 1.0)
    tuned = run(onnx_only)
    statuses = {each.setting.artifact: each.check.status for each in tuned.trials}
    assert statuses == {"model.int8.onnx": "failed", "model.onnx": "ok"}
    assert tuned.profile.artifact == "model.onnx"


def test_a_runtime_that_does_not_load(onnx_only, monkeypatch, clock):
    def broken(model, manifest, threads):
        raise ModelLoad("It does not load the model.")

    known = engines.Runtime("onnx", "onnxruntime", lambda: "7", broken)
    monkeypatch.setitem(engines.RUNTIMES, "fake", known)
    clock(fakes_are_quick)
    tuned = run(onnx_only)
    failed = {each.check.message for each in tuned.trials if each.setting.runtime == "fake"}
    assert failed == {"It does not load the model."}
    assert tuned.profile.runtime != "fake"


def test_a_processor_that_rounds_otherwise(onnx_only, rewrite, fake, clock):
    """What answers with a warning untuned may do so tuned; what fails may not."""

    def change(raw: dict) -> None:
        expected = raw["golden"][0]["probability"]
        expected["model.int8.onnx"][0] += 0.03
        expected["model.onnx"][0] += 0.03

    rewrite(onnx_only, change)
    fake(lambda p: p)
    clock(fakes_are_quick)
    profile = run(onnx_only).profile
    assert (profile.artifact, profile.runtime) == ("model.int8.onnx", "fake")


def test_where_nothing_answers_right_nothing_is_kept(onnx_only, rewrite, called, state):
    def change(raw: dict) -> None:
        for case in raw["golden"]:
            case["probability"] = {name: [0.123] for name in ONNX}

    rewrite(onnx_only, change)
    with pytest.raises(GoldenMismatch, match="No setting gives the golden answers"):
        run(onnx_only)
    done = called("tune", onnx_only)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error [bundle-golden]: No setting gives" in done.stderr
    assert not state.exists()


def test_a_damaged_bundle_is_not_tuned(bundle):
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[1000] ^= 1
    (bundle / "model.onnx").write_bytes(data)
    with pytest.raises(FilesDiffer):
        run(bundle)


def test_rounds_meet_all_alike(onnx_only, monkeypatch):
    """Round for round each setting is loaded anew and timed, and the order turns."""
    seen: list[Setting] = []
    load = module._load

    def watched(bundle, setting):
        seen.append(setting)
        return load(bundle, setting)

    monkeypatch.setattr(module, "_load", watched)
    monkeypatch.setattr(module, "SECONDS", 0.0)
    tuned = run(onnx_only, rounds=3)
    settings = list(dict.fromkeys(each.setting for each in tuned.trials))
    assert seen == [*settings, *settings, *settings[::-1], *settings]
    assert {len(each.seconds) for each in tuned.trials} == {3 * module.CALLS}
    assert {len(each.rates) for each in tuned.trials} == {3}


def test_the_command_keeps_and_tells(frozen, command, state):
    """A real process, real engines, a real clock; then ``infer`` answers with the choice."""
    done = command("tune", frozen, "--rounds", 1)
    assert done.returncode == 0
    told = json.loads(done.stdout)
    path = state / f"{Bundle.open(frozen).hash}.device.json"
    assert done.stderr == f"{path} holds the choice.\n"
    assert told["path"] == str(path)
    kept = json.loads(path.read_bytes())
    assert told["profile"] == kept
    timed = [each for each in told["settings"] if each["milliseconds"]]
    assert all(each["golden"] in ("ok", "warning") for each in timed)
    same = [each for each in timed if each["runtime"] == kept["runtime"]]
    assert any(each["milliseconds"] == kept["single"]["milliseconds"] for each in same)
    image = frozen / "golden" / "01-gray8.png"
    done = command("infer", image, "-b", frozen)
    record = json.loads(done.stdout)
    assert done.stderr == ""
    assert record["artifact"] == kept["artifact"]
    assert record["runtime"] == f"{kept['runtime']} {kept['runtime_version']}"


def test_the_table(frozen, called, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.0)
    done = called("tune", frozen, "--rounds", 1, "--format", "table")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        *("artifact", "runtime", "threads", "golden", "set", "max", "|dp|"),
        *("load", "ms", "ms", "images/s"),
    ]
    assert sum("chosen for one image" in line for line in lines) == 1
    assert sum("chosen for" in line and "many" in line for line in lines) == 1
    assert any(line.startswith("`infer --artifact auto` answers with model.") for line in lines)


def test_usage(frozen, called):
    assert called("tune", frozen, "--rounds", 0).returncode == 2
    assert "error [bundle-missing]" in called("tune", frozen / "none").stderr
