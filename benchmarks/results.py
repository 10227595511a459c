"""The figures of docs/results.md: every public set, three seeds, through the device's Classifier.

Run: python benchmarks/results.py DATA --out RUNS [--only RECIPE] [--seeds 0 1 2]

DATA is the folder of the public sets. For each recipe and seed it trains, exports, verifies and
evaluates float32 and int8 ONNX on the official test split, with the commands that a user types.
What is finished is not done again, and a training that was interrupted goes on: each test split is
looked at once for each bundle and artifact, and every look is in docs/test-looks.csv. Each finished
seed's rows are added to docs/results.csv; the tables are printed from there.

For each seed on two quiet cores: 35 minutes for pneumonia-cxr, 7 for pneumoniamnist, 2 for
breastmnist.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import table

from medimg_edge.bundle import Bundle
from medimg_export.answers import Answers, read_answers
from medimg_export.run import Run

DOCS = table.ROOT / "docs"
TABLE, LOOKS = DOCS / "results.csv", DOCS / "test-looks.csv"
ARTIFACTS = ("model.onnx", "model.int8.onnx")
SUBGROUPS, SUBGROUP_VALUES = ("bacteria", "virus"), ("auc", "sensitivity")
VALUES = ("auc", "accuracy", "sensitivity", "specificity", "ece")


@dataclass(frozen=True)
class Row:
    """A recipe and the data that its figures are of. options: what ``evaluate`` needs to know."""

    recipe: str
    data: str
    options: tuple[str, ...] = ()


ROWS = (
    Row(
        "pneumonia-cxr",
        "kermany-cxr-224",
        (
            r"--group-pattern=person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+",
            r"--subgroup-pattern=person\d+_(bacteria|virus)",
        ),
    ),
    Row("pneumoniamnist", "pneumoniamnist-28/pneumoniamnist.npz"),
    Row("breastmnist", "breastmnist-28/breastmnist.npz"),
)


def main() -> None:
    """Measure what is not measured yet, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=[row.recipe for row in ROWS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    chosen = [row for row in ROWS if arguments.only in (None, row.recipe)]
    for row in chosen:
        for seed in arguments.seeds:
            _measure(row, arguments.data / row.data, arguments.out, seed)
    print("\n".join(tables(table.stored(TABLE))))


def tables(stored: list[dict[str, str]]) -> Iterator[str]:
    """Markdown: mean and standard deviation over seeds, then every seed."""
    yield from _header(
        "recipe, artifact, bytes, n (positive), seeds, AUC, accuracy, sensitivity, specificity, "
        "ECE before, ECE, other"
    )
    for (recipe, artifact), of in _by(stored, "recipe", "artifact"):
        first = of[0]
        sizes = f"{int(first['bytes']):,}", f"{first['n']} ({first['positives']})", str(len(of))
        values = [_spread(of, value) for value in (*VALUES[:-1], "ece_before", "ece")]
        yield _line(recipe, artifact, *sizes, *values, _spread(of, "other", 1))
    yield ""
    yield from _header("subgroup, artifact, AUC, sensitivity")
    for (artifact,), of in _by([each for each in stored if each["virus_auc"]], "artifact"):
        for name in SUBGROUPS:
            yield _line(
                name, artifact, *(_spread(of, f"{name}_{value}") for value in SUBGROUP_VALUES)
            )
    yield ""
    yield from _header(
        "recipe, seed, commit, minutes, artifact, AUC, accuracy, sensitivity, specificity, other"
    )
    for each in stored:
        values = [
            f"{table.short(each[value])} ({table.short(each[f'{value}_low'])} to "
            f"{table.short(each[f'{value}_high'])})"
            for value in VALUES[:-1]
        ]
        words = [each[key] for key in ("recipe", "seed", "commit", "minutes", "artifact")]
        yield _line(*words, *values, each["other"])


def _by(
    stored: list[dict[str, str]], *keys: str
) -> Iterator[tuple[tuple[str, ...], list[dict[str, str]]]]:
    of: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for each in stored:
        of.setdefault(tuple(each[key] for key in keys), []).append(each)
    yield from of.items()


def _header(columns: str) -> Iterator[str]:
    names = columns.split(", ")
    yield _line(*names)
    yield _line(*["---"] * len(names))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(of: list[dict[str, str]], value: str, digits: int = 3) -> str:
    return table.spread([float(each[value]) for each in of], digits)


def _measure(row: Row, data: Path, out: Path, seed: int) -> None:
    run, bundle = out / f"{row.recipe}-{seed}", out / f"{row.recipe}-{seed}-bundle"
    done = {(each["recipe"], each["seed"]) for each in table.stored(TABLE)}
    if (row.recipe, str(seed)) in done:
        return
    if not (run / "run.json").exists():
        out.mkdir(parents=True, exist_ok=True)
        _beside(run, "commit").write_text(table.commit())
        recipe = ("--recipe", row.recipe, "--seed", str(seed))
        table.call("train", data, "--out", run, "--resume", *recipe)
    if not bundle.exists():
        table.call("export", run, "--out", bundle)
    table.call("verify", bundle)
    for artifact in ARTIFACTS:
        seen = _evaluation(out, row, seed, artifact)
        if not (seen / "metrics.json").exists():
            options = ("--artifact", artifact, "--looks", LOOKS, *row.options)
            table.call("evaluate", bundle, data, "--out", seen, *options)
    minutes = Run.open(run).record.seconds / 60
    float32 = read_answers(_evaluation(out, row, seed, ARTIFACTS[0]))
    commit = _beside(run, "commit").read_text()
    known = {"recipe": row.recipe, "seed": seed, "commit": commit, "minutes": f"{minutes:.1f}"}
    table.append(
        TABLE,
        [
            known | _figures(_evaluation(out, row, seed, artifact), bundle, artifact, float32)
            for artifact in ARTIFACTS
        ],
    )


def _beside(run: Path, what: str) -> Path:
    """What the run itself does not say: a file beside its folder."""
    return run.with_name(f"{run.name}.{what}")


def _figures(seen: Path, bundle: Path, artifact: str, float32: Answers) -> dict[str, Any]:
    metrics = json.loads((seen / "metrics.json").read_bytes())
    answers = read_answers(seen)
    manifest = Bundle.open(bundle).manifest
    row: dict[str, Any] = {
        "artifact": artifact,
        "bytes": manifest.artifacts[artifact].bytes,
        "n": metrics["n"],
        "positives": int(answers.y.sum()),
    }
    for value in VALUES:
        found = metrics["values"][value]
        row |= {value: f"{found['value']:.6f}"}
        row |= {f"{value}_{end}": f"{found[end]:.6f}" for end in ("low", "high")}
    row["ece_before"] = f"{metrics['ece_before']['value']:.6f}"
    row["other"] = int((answers.called != float32.called).sum())
    for name in SUBGROUPS:
        group = (metrics.get("subgroups") or {}).get(name)
        for value in SUBGROUP_VALUES:
            row[f"{name}_{value}"] = f"{group['values'][value]['value']:.6f}" if group else ""
    return row


def _evaluation(out: Path, row: Row, seed: int, artifact: str) -> Path:
    return out / f"{row.recipe}-{seed}-{artifact}"


if __name__ == "__main__":
    main()
