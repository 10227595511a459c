"""A real bundle to break, a network small enough to answer by hand, and the command line."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest

from medimg_edge import manifest as m
from medimg_edge.bundle import describe_files
from medimg_edge.cli import main
from tests.device.said import beside_trust

SIDE = 16


@pytest.fixture(scope="session")
def frozen() -> Path:
    """The bundle that version 1 wrote. Never write to it."""
    return Path(__file__).parent.parent / "data" / "frozen-bundle"


@pytest.fixture
def bundle(frozen: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(frozen, tmp_path / "bundle"))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch) -> Path:
    """Where device profiles lie: never the user's own."""
    folder = tmp_path / "state"
    monkeypatch.setenv("MEDIMG_EDGE_STATE", str(folder))
    return folder


@pytest.fixture(scope="session")
def rewrite() -> Callable[..., None]:
    """Write a bundle's manifest anew: the sizes and hashes of its files as they are, then changes.

    Files that lie in the folder and are not listed become listed.
    """

    def rewrite(folder: Path, change: Callable[[dict[str, Any]], object] = lambda raw: None):
        path = folder / "manifest.json"
        raw = json.loads(path.read_bytes())
        path.unlink()
        for name, entry in describe_files(folder).items():
            listed = raw["artifacts"] if name in raw["artifacts"] else raw["files"]
            listed.setdefault(name, {}).update(bytes=entry.bytes, sha256=entry.sha256)
        change(raw)
        path.write_text(json.dumps(raw))

    return rewrite


@pytest.fixture
def mean_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write bundles whose network can be computed by hand; needs the package onnx.

    heatmap = pixels / 255 * weight, its mean + bias is the logit, and a sigmoid or softmax of that
    the probability.
    """
    pytest.importorskip("onnx", reason="onnx, of the export extra, builds the network")

    def write(
        weights: list[float],
        biases: list[float],
        *,
        task: m.Task = "multilabel",
        labels: tuple[str, ...] = ("a", "b"),
        precision: Literal["float32", "int8"] = "float32",
        **changes: Any,
    ) -> Path:
        folder = tmp_path / "mean-bundle"
        folder.mkdir()
        data = mean_network(weights, biases, "Softmax" if task == "multiclass" else "Sigmoid")
        (folder / "model.onnx").write_bytes(data)
        count = len(weights)
        point = m.OperatingPoint(threshold=0.5, rule="stated")
        findings = labels[1:] if task == "binary" else labels
        values: dict[str, Any] = {
            "name": "mean",
            "version": "1",
            "task": task,
            "labels": labels,
            "intended_use": "tests",
            "input": m.Input(shape=(SIDE, SIDE, 1)),
            "preprocessing": m.Preprocessing(SIDE, SIDE),
            "outputs": {
                "probability": m.Output((None, count), "probability"),
                "heatmap": m.Output((None, SIDE, SIDE, count), "logit"),
            },
            "decision": {"model.onnx": dict.fromkeys(findings, point)},
            "default_artifact": "model.onnx",
            "artifacts": {
                "model.onnx": m.Artifact(
                    len(data), hashlib.sha256(data).hexdigest(), "onnx", precision
                )
            },
        }
        (folder / "manifest.json").write_bytes(m.encode(m.Manifest(**{**values, **changes})))
        return folder

    return write


def mean_network(weights: list[float], biases: list[float], head: str) -> bytes:
    from onnx import TensorProto, checker, helper, numpy_helper

    count = len(weights)
    initializers = {
        "scale": np.array(1 / 255, np.float32),
        "weight": np.array([weights], np.float32),
        "bias": np.array(biases, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["values", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "weight"], ["heatmap"]),
        helper.make_node("ReduceMean", ["heatmap"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Add", ["mean", "bias"], ["logit"]),
        helper.make_node(head, ["logit"], ["probability"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "mean",
        [value("pixels", TensorProto.UINT8, ["N", SIDE, SIDE, 1])],
        [
            value("probability", TensorProto.FLOAT, ["N", count]),
            value("heatmap", TensorProto.FLOAT, ["N", SIDE, SIDE, count]),
        ],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``medimg-edge`` as its user does, in a process of its own; no traceback, ever."""

    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"stdout": subprocess.PIPE, "timeout": 120, **options}
        done = subprocess.run(
            [sys.executable, "-m", "medimg_edge.cli", *map(str, arguments)],
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "Exception ignored" not in done.stderr, done.stderr
        assert "error [unexpected]" not in done.stderr, done.stderr
        done.stderr = beside_trust(done.stderr)
        return done

    return run


@pytest.fixture
def called(monkeypatch, capsys) -> Callable[..., SimpleNamespace]:
    """Run ``medimg-edge`` in this process, which is quicker."""

    def run(*arguments: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["medimg-edge", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "error [unexpected]" not in err, err
        said = beside_trust(err)
        return SimpleNamespace(returncode=ended.value.code or 0, stdout=out, stderr=said)

    return run
