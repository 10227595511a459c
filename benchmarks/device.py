"""The yardstick of the device: the floor, medimg-edge and its peers on the same bundle and files.

Run: python benchmarks/device.py --bundle B --images DIR [--full DIR] [--keras FILE] [--out FOLDER]
     [--quick]

DIR holds images, of which the first twenty are taken, brought to the input's size where they are
of another; --full holds originals, without it the same images enlarged. Every number is a ratio,
or stands beside one: contestants take turns, round by round, and a ratio is the median of those
within the rounds. A contestant that is not installed is named. FOLDER gets device.json with every
round, and device.md, which is what docs/performance.md shows.

--keras is the network before export, for TensorFlow. Four to five minutes on two cores; --quick
takes about one and is for trying the script.

contestants.py loads one contestant, floor.py is the floor, stages.py a cold start in stages,
processes.py what a process costs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import installation
import table
from device_report import KINDS, median, report, targets
from processes import (
    HERE,
    Cost,
    Worker,
    by_turns,
    cost,
    growth,
    medimg_edge,
    python,
    small_device,
)

from medimg_edge.bundle import Bundle

MB = 2**20
IMPORTED = {"numpy", "cv2", "onnxruntime", "typer", "msgspec", "simplejpeg", "medimg_edge"}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    cold: int
    warm: int
    runs: int
    folders: int
    folder: int
    full_folder: int
    growth: int
    small: int


FULL = Size(15, 15, 20, 3, 2000, 240, 10_000, 1000)
QUICK = Size(3, 3, 5, 1, 60, 20, 600, 40)


@dataclass
class Yard:
    """What is measured, and with what."""

    bundle: Bundle
    artifact: str
    files: dict[str, list[str]]
    megapixels: list[float]
    folder: Path
    keras: Path | None
    size: Size
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The ONNX file of the floor: the one that medimg-edge answers with."""
        return str(self.bundle.path / self.artifact)

    @property
    def state(self) -> Path:
        """Where ``tune`` leaves its choice."""
        return self.folder / "state"

    def infer(self, *words: object) -> list[str]:
        """``infer`` with that artifact, and nothing of a site."""
        fixed = ("--bundle", self.bundle.path, "--artifact", self.artifact)
        return medimg_edge("--quiet", "infer", *words, *fixed, "--profile", "none", "--force")

    def infer_as_tuned(self, *words: object) -> list[str]:
        """``infer`` by what ``tune`` has chosen, where it has."""
        fixed = ("--bundle", self.bundle.path, "--profile", "none", "--force")
        state = f"MEDIMG_EDGE_STATE={self.state}"
        return ["env", state, *medimg_edge("--quiet", "infer", *words, *fixed)]

    def many(self, kind: str, count: int) -> Path:
        """A folder of so many files of a kind, which are the few under many names."""
        folder = self.folder / f"{count} {kind}"
        folder.mkdir(exist_ok=True)
        for at in range(count):
            source = Path(self.files[kind][at % len(self.files[kind])])
            path = folder / f"{at:06}{source.suffix}"
            if not path.exists():
                os.link(source, path)
        return folder

    def by_hand(self, *files: str) -> list[str]:
        """The floor on files."""
        return python(HERE / "floor.py", self.model, *files)


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--full", type=Path)
    parser.add_argument("--keras", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/device"))
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        yard = Yard(
            bundle,
            onnx_of(bundle),
            *make_files(arguments, folder / "files"),
            folder,
            arguments.keras,
            QUICK if arguments.quick else FULL,
        )
        for measure in (machine, cold, stages, imports, sizes, warm, folders, memory, small):
            started = time.perf_counter()
            yard.found[measure.__name__] = measure(yard)
            print(f"{measure.__name__}: {time.perf_counter() - started:.0f} s", flush=True)
    yard.found["targets"] = targets(yard.found)
    (arguments.out / "device.json").write_text(json.dumps(yard.found, indent=1) + "\n")
    (arguments.out / "device.md").write_text(report(yard.found))
    print((arguments.out / "device.md").read_text())


def make_files(
    arguments: argparse.Namespace, folder: Path
) -> tuple[dict[str, list[str]], list[float]]:
    """The files by kind, and the megapixels of the full-size ones; see ``device_files.py``."""
    originals = [arguments.full] if arguments.full else []
    script = HERE / "device_files.py"
    words = python(script, arguments.bundle, folder, arguments.images, *originals)
    said = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    return {kind: sorted(map(str, (folder / kind).iterdir())) for kind in KINDS}, json.loads(said)


def onnx_of(bundle: Bundle) -> str:
    """What the floor can run: the default artifact where it is ONNX, else the first that is."""
    names = [bundle.manifest.default_artifact, *bundle.manifest.artifacts]
    return next(name for name in names if bundle.manifest.artifacts[name].format == "onnx")


def machine(yard: Yard) -> dict[str, Any]:
    """What it ran on, and what was measured."""
    manifest = yard.bundle.manifest
    full = yard.megapixels
    return installation.facts() | {
        "commit": table.commit(),
        "bundle": f"{manifest.name} {manifest.version}",
        "artifact": yard.artifact,
        "input": " x ".join(map(str, manifest.input.shape)),
        "artifacts": {name: each.precision for name, each in manifest.artifacts.items()},
        "full-size": [min(full), median(full), max(full)],
        "quick": yard.size is QUICK,
    }


def cold(yard: Yard) -> dict[str, Any]:
    """A new process for one image; and what it takes to say --help."""
    found = {}
    for kind, files in yard.files.items():
        rounds = yard.size.cold if kind == "JPEG" else max(3, yard.size.cold // 2)
        words = {"floor": yard.by_hand(files[0]), "medimg-edge": yard.infer(files[0])}
        found[kind] = _costs(words, rounds)
    words = {"floor": python("-c", "import typer"), "medimg-edge": medimg_edge("--help")}
    found["--help"] = _costs(words, yard.size.cold)
    return found


def _costs(words: dict[str, list[str]], rounds: int) -> dict[str, Any]:
    measured = by_turns(
        {name: lambda each=each: cost(each) for name, each in words.items()}, rounds
    )
    return {name: [each._asdict() for each in costs] for name, costs in measured.items()}


def stages(yard: Yard) -> list[list[Any]]:
    """Name, milliseconds, megabytes held: medians over processes."""
    rows: list[list[list[Any]]] = []
    for _ in range(yard.size.cold // 2 + 1):
        arguments = (yard.bundle.path, yard.files["JPEG"][0], time.monotonic())
        words = python(HERE / "stages.py", *arguments)
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        rows.append([json.loads(line) for line in said.splitlines()])
    return [
        [each[0][0], median([one[1] for one in each]), median([one[2] for one in each])]
        for each in zip(*rows, strict=True)
    ]


def imports(yard: Yard) -> dict[str, dict[str, float]]:
    """Milliseconds in the imports of each package, by -X importtime; the least of three."""
    file = yard.files["JPEG"][0]
    words = {"floor": yard.by_hand(file), "medimg-edge": yard.infer(file)}
    measured = by_turns({name: lambda each=each: _imports(each) for name, each in words.items()}, 3)
    return {
        name: {package: min(each.get(package, 0) for each in rounds) for package in rounds[0]}
        for name, rounds in measured.items()
    }


def _imports(words: list[str]) -> dict[str, float]:
    said = subprocess.run(
        [words[0], "-X", "importtime", *words[1:]], capture_output=True, text=True, check=True
    ).stderr
    found: dict[str, float] = {}
    for self_time, module in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \| +(\S+)$", said, re.M):
        package = module.partition(".")[0]
        name = package if package in IMPORTED else "standard library and others"
        found[name] = found.get(name, 0) + int(self_time) / 1000
    return found


def sizes(yard: Yard) -> dict[str, dict[str, int]]:
    """Bytes on the disk: the device's packages with all that they require, and the models."""
    installed = {name: installation.size(name) for name in installation.required()}
    artifacts = {name: each.bytes for name, each in yard.bundle.manifest.artifacts.items()}
    return {"packages": installed, "models": artifacts}


def warm(yard: Yard) -> dict[str, Any]:
    """Every contestant loaded once, taking turns; then all of them idle."""
    specifications = _contestants(yard)
    workers = {name: Worker(each) for name, each in specifications.items()}
    for worker in workers.values():
        worker.wait()
    there = {name: worker for name, worker in workers.items() if worker.missing is None}
    slow = {name for name, each in specifications.items() if each["kind"] == "TensorFlow"}
    answers, networks = {}, {}
    for name, worker in there.items():
        count = 2 if name in slow else yard.size.runs
        if specifications[name]["files"]:
            files = yard.files["JPEG"][:count]
            answers[name] = lambda worker=worker, files=files: worker.perform(files=files)
        if worker.has_network:
            networks[name] = lambda worker=worker, count=count: worker.perform(runs=count)
    found: dict[str, Any] = {
        "missing": {name: each.missing for name, each in workers.items() if each.missing},
        "runtimes": {name: worker.runtime for name, worker in there.items()},
        "file to answer": {"JPEG": by_turns(answers, yard.size.warm)},
        "network": by_turns(networks, yard.size.warm),
    }
    pair = {name: there[name] for name in ("floor", "medimg-edge")}
    for kind in list(KINDS)[1:]:
        loops = {
            name: lambda worker=worker, kind=kind: worker.perform(files=yard.files[kind])
            for name, worker in pair.items()
        }
        found["file to answer"][kind] = by_turns(loops, max(3, yard.size.warm // 3))
    found["idle"] = _idle(there)
    found["peak"] = {name: worker.close().peak for name, worker in there.items()}
    return found


def _idle(workers: dict[str, Worker]) -> dict[str, float]:
    """The share of a core that each takes while it waits."""
    time.sleep(1)
    before = {name: worker.cpu() for name, worker in workers.items()}
    started = time.perf_counter()
    time.sleep(4)
    waited = time.perf_counter() - started
    return {name: (worker.cpu() - before[name]) / waited for name, worker in workers.items()}


def _contestants(yard: Yard) -> dict[str, dict[str, Any]]:
    """By name, what ``contestants.py`` is told; ``files``: whether it also answers files."""
    bundle = yard.bundle
    common = {
        "shape": list(bundle.manifest.input.shape),
        "first": yard.files["JPEG"][0],
        "bundle": str(bundle.path),
        "keras": str(yard.keras),
    }
    ours = {"artifact": yard.artifact, "threads": 1}
    found: dict[str, dict[str, Any]] = {
        "floor": {"kind": "floor", "model": yard.model, "threads": 1, "files": True},
        "medimg-edge": {"kind": "medimg-edge", "setting": ours, "files": True},
    }
    if setting := tuned(yard):
        found["medimg-edge as tuned"] = {"kind": "medimg-edge", "setting": setting, "files": True}
    for name, artifact in bundle.manifest.artifacts.items():
        model = str(bundle.path / name)
        by = {"onnx": ("ONNX Runtime", "OpenVINO"), "tflite": ("LiteRT",)}[artifact.format]
        for runtime in by:
            kind = "floor" if runtime == "ONNX Runtime" else runtime
            for threads in sorted({1, os.cpu_count() or 1}):
                label = f"{runtime}, {name}, {threads} thread{'s'[: threads > 1]}"
                found[label] = {"kind": kind, "model": model, "threads": threads}
                found[label]["files"] = kind != "floor" and threads == 1
        if artifact.format == "tflite" and artifact.precision == "int8":
            found[f"MediaPipe, {name}"] = {"kind": "MediaPipe", "model": model, "files": True}
    for call in ("model(x)", "model.predict"):
        if yard.keras:
            threads = os.cpu_count() or 1
            found[f"TensorFlow {call}"] = {"kind": "TensorFlow", "call": call, "files": True}
            found[f"TensorFlow {call}"]["threads"] = threads
    return {name: common | each for name, each in found.items()}


def tuned(yard: Yard) -> dict[str, Any] | None:
    """What ``medimg-edge tune`` chooses here for one image; None where there is no such command."""
    environment = os.environ | {"MEDIMG_EDGE_STATE": str(yard.state)}
    words = medimg_edge("tune", yard.bundle.path)
    done = subprocess.run(words, capture_output=True, env=environment, check=False)
    if done.returncode:
        return None
    (profile,) = (json.loads(each.read_text()) for each in yard.state.glob("*.json"))
    names = ("artifact", "runtime")
    return {name: profile[name] for name in names} | {"threads": profile["single"]["threads"]}


def folders(yard: Yard) -> dict[str, Any]:
    """Whole processes, start-up included: ``infer FOLDER`` against the floor on the same files."""
    found = {}
    for kind, count in (("JPEG", yard.size.folder), ("full JPEG", yard.size.full_folder)):
        folder = yard.many(kind, count)
        files = sorted(map(str, folder.iterdir()))
        out = ("--out", yard.folder / "answers.jsonl")
        words = {
            "floor": yard.by_hand(*files),
            "medimg-edge": yard.infer(folder, *out),
        }
        if yard.state.exists():
            words["medimg-edge as tuned"] = yard.infer_as_tuned(folder, *out)
        found[kind] = {"images": count} | _costs(words, yard.size.folders)
    return found


def memory(yard: Yard) -> dict[str, int]:
    """How much ``infer`` has grown between an early answer and the last one."""
    count = yard.size.growth
    early = min(500, count // 2)
    words = yard.infer(yard.many("JPEG", count), "--format", "jsonl")
    return {"images": count, "since": early, "bytes": growth(words, early)}


def small(yard: Yard) -> dict[str, Any]:
    """A quarter of one core and 512 MB."""
    folder = yard.many("JPEG", yard.size.small)
    words = yard.infer(folder, "--out", yard.folder / "answers.jsonl")
    try:
        with small_device(512 * MB, 0.25) as join:
            used: Cost = cost(words, join)
    except OSError as error:
        return {"missing": f"needs root and cgroup version 1 ({error.strerror})"}
    return {"images": yard.size.small, **used._asdict()}


if __name__ == "__main__":
    main()
