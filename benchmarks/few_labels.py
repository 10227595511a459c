"""What images without labels are worth to a hundred that have one: the table of docs/results.md.

Run: python benchmarks/few_labels.py DATA --out RUNS [--judge dev] [--labels 100] [--seeds 0 1 2]

DATA is the folder of the Kermany set. For each seed, patients of its training images are drawn
until there are LABELS labelled images, of which `train` keeps 15 % to choose temperature and
threshold by; all others are links in a folder of their own, of which no name is read but for the
patient's number. Each arm is the commands of docs/few-labels.md, all with the recipe few-labels and
all but the brief one meant for the same time, by their epochs: one core, and another seed on the
other (`taskset -c 0`, `-c 1`), which may get more of the processor. The minutes of its epochs stand
in the table. The int8 ONNX file is judged through the device's Classifier.

--judge dev is for choosing: 15 % of the training images' patients, drawn once, are what judges, and
the official test images are not read. Every arm that is finished is a row of docs/few-labels.csv
(dev: of RUNS/dev.csv) and is not done again; a training that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import table

from medimg_edge.bundle import Bundle
from medimg_export.answers import read_answers
from medimg_export.recipe import load

DOCS = table.ROOT / "docs"
TABLE, LOOKS = DOCS / "few-labels.csv", DOCS / "test-looks.csv"
PATIENT = str(load("pneumonia-cxr").data.group_pattern)
ARTIFACT = "model.int8.onnx"
DEV_SHARE = 0.15
VALUES = ("auc", "accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class Arm:
    """Epochs of each command in turn, which begins with the weights of the one before; 0: none."""

    pretrain: int = 0
    train: int = 0
    train_unlabelled: int = 0

    def __str__(self) -> str:
        kinds = ("passes of SimCLR", "epochs", "passes of FixMatch")
        stages = zip(dataclasses.astuple(self), kinds, strict=True)
        return ", ".join(f"{count} {kind}" for count, kind in stages if count)

    @property
    def is_supervised(self) -> bool:
        """Of labels only."""
        return not (self.pretrain or self.train_unlabelled)


ARMS = {
    "supervised": Arm(train=860),
    "brief": Arm(train=150),  # all of the time may be more than is good for it
    "semi": Arm(train=150, train_unlabelled=12),
    "self": Arm(pretrain=11, train=120),
    "both": Arm(pretrain=5, train=120, train_unlabelled=7),
}


def main() -> None:
    """Measure what is not measured yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--judge", choices=["test", "dev"], default="test")
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", choices=list(ARMS), nargs="+", default=list(ARMS))
    arguments = parser.parse_args()
    rows = TABLE if arguments.judge == "test" else arguments.out / "dev.csv"
    for seed in arguments.seeds:
        drawn = Drawn.make(arguments.data, arguments.out, arguments.judge, arguments.labels, seed)
        for name in arguments.arms:
            known = {"labels": arguments.labels, "seed": seed, "arm": name}
            done = [{key: each[key] for key in known} for each in table.stored(rows)]
            if {key: str(value) for key, value in known.items()} not in done:
                table.append(rows, [known | _measure(drawn, name, seed, rows == TABLE)])
    print("\n".join(tables(table.stored(rows))))


@dataclass(frozen=True)
class Drawn:
    """One draw: labels.csv has what is labelled and what judges; archive has the rest."""

    folder: Path

    @property
    def labels(self) -> Path:
        """path, label, split, group: train, of which `train` takes its validation, and test."""
        return self.folder / "labelled" / "labels.csv"

    @property
    def archive(self) -> Path:
        """Links to all other training images."""
        return self.folder / "archive"

    def words(self, stage: str) -> tuple[object, ...]:
        """The command of one of Arm's stages, and what it reads."""
        if stage == "pretrain":
            return "pretrain", self.archive, "--beside", self.labels
        unlabelled = ("--unlabelled", self.archive) if stage == "train_unlabelled" else ()
        return "train", self.labels, "--positive", "PNEUMONIA", *unlabelled

    @classmethod
    def make(cls, data: Path, out: Path, judge: str, labels: int, seed: int) -> Drawn:
        """Draw patients, and write links and labels where they are not yet."""
        drawn = cls(out / f"{judge}-{labels}-{seed}")
        if drawn.labels.exists():
            return drawn
        images = _by_patient(data / "train")
        patients = sorted(images)
        fixed = np.random.default_rng(0xDE7).permutation(len(patients))
        kept = fixed[: int(DEV_SHARE * len(patients))] if judge == "dev" else fixed[:0]
        order = np.random.default_rng([seed, labels]).permutation(len(patients))
        of: dict[str, list[Path]] = {"train": [], "archive": []}
        for patient in [patients[each] for each in order if each not in kept]:
            of["train" if len(of["train"]) < labels else "archive"] += images[patient]
        del of["train"][labels:]  # of the last patient, who is in no archive either
        judges = [images[patients[each]] for each in kept] or _by_patient(data / "test").values()
        of["test"] = [path for each in judges for path in each]
        for number, path in enumerate(of.pop("archive")):
            _link(drawn.archive / f"{number // 1000}" / path.name, path)
        lines = []
        for split, paths in of.items():
            for path in paths:
                _link(drawn.labels.parent / split / path.name, path)
                lines.append((f"{split}/{path.name}", path.parent.name, split, _patient(path)))
        partial = drawn.labels.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "split", "group"), *lines])
        partial.rename(drawn.labels)
        return drawn


def tables(stored: list[dict[str, str]]) -> Iterator[str]:
    """Markdown: mean and standard deviation over seeds, and what an arm gains, seed by seed.

    Gains are on the better of the supervised arms, by their means.
    """
    header = ["labelled", "arm", "seeds", "minutes of each", "AUC", "gain", "of each seed"]
    lines = []
    for labels in sorted({each["labels"] for each in stored}, key=int):
        of = {
            arm: {
                each["seed"]: each
                for each in sorted(stored, key=lambda each: int(each["seed"]))
                if (each["labels"], each["arm"]) == (labels, arm)
            }
            for arm in ARMS
        }
        known = [rows for arm, rows in of.items() if rows and ARMS[arm].is_supervised]
        best = max(known, key=lambda rows: np.mean([*map(_auc, rows.values())]), default={})
        for arm, rows in of.items():
            if not rows:
                continue
            shared = () if ARMS[arm].is_supervised else rows.keys() & best.keys()
            gains = [_auc(rows[seed]) - _auc(best[seed]) for seed in rows if seed in shared]
            minutes = " ".join(each["minutes"] for each in rows.values())
            auc = table.spread([_auc(each) for each in rows.values()], 4)
            gain = f"{np.mean(gains):+.4f}" if gains else ""
            each_gain = " ".join(f"{gain:+.4f}" for gain in gains)
            lines.append(
                (labels, f"{arm}: {ARMS[arm]}", str(len(rows)), minutes, auc, gain, each_gain)
            )
    yield table.markdown(header, lines)


def _auc(row: dict[str, str]) -> float:
    return float(row["auc"])


def _measure(drawn: Drawn, name: str, seed: int, official: bool) -> dict[str, Any]:
    stages = {stage: epochs for stage, epochs in dataclasses.asdict(ARMS[name]).items() if epochs}
    out = drawn.folder / "-".join([name, *map(str, stages.values())])
    bundle, seen = out / "bundle", out / "report"
    commit = table.commit()
    runs: list[Path] = []
    for stage, epochs in stages.items():
        run = out / stage
        if not _finished(run):
            words = ("--recipe", "few-labels", "--group-pattern", PATIENT, "--seed", seed)
            words += ("--epochs", epochs, "--resume")
            before = ("--weights", runs[-1]) if runs else ()
            table.call(*drawn.words(stage), *words, *before, "--out", run)
        runs.append(run)
    if not bundle.exists():
        table.call("export", runs[-1], "--int8-only", "--out", bundle)
    if not (seen / "report.html").exists():
        words = ("--looks", LOOKS) if official else ()
        table.call("evaluate", bundle, drawn.labels, "--artifact", ARTIFACT, *words, "--out", seen)
    records = [json.loads(record.read_bytes()) for run in runs for record in _finished(run)]
    metrics = json.loads((seen / "metrics.json").read_bytes())
    row: dict[str, Any] = {
        "commit": commit,
        "minutes": f"{sum(record['seconds'] for record in records) / 60:.1f}",
        "bytes": Bundle.open(bundle).manifest.artifacts[ARTIFACT].bytes,
        "n": metrics["n"],
        "positives": int(read_answers(seen).y.sum()),
    }
    for value in VALUES:
        found = metrics["values"][value]
        row |= {value: f"{found['value']:.6f}"}
        row |= {f"{value}_{end}": f"{found[end]:.6f}" for end in ("low", "high")}
    return row


def _finished(run: Path) -> list[Path]:
    """Its record, where it has come to its end."""
    return [path for name in ("pretrain.json", "run.json") if (path := run / name).exists()]


def _by_patient(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.jpeg")) or sorted(folder.rglob("*.jpg")):
        found.setdefault(_patient(path), []).append(path.resolve())
    return found


def _patient(path: Path) -> str:
    found = re.search(PATIENT, path.name)
    assert found, path
    return found.group()


def _link(link: Path, path: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(path)


if __name__ == "__main__":
    main()
