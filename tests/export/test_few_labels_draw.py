"""Who is labelled and who judges in `benchmarks/few_labels.py`, and what its table says."""

import csv
import re
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LABELS = 20


@pytest.fixture
def few_labels(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module("few_labels")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The set's folders: 60 patients of train, each with up to three images, and 10 of test."""
    for split, first, last in (("train", 1, 61), ("test", 61, 71)):
        for patient in range(first, last):
            for image in range(1 + patient % 3):
                names = (
                    f"NORMAL/IM-{patient:04}-{image:04}.jpeg",
                    f"PNEUMONIA/person{patient}_virus_{image}.jpeg",
                )
                path = tmp_path / "data" / split / names[patient % 4 > 0]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    return tmp_path / "data"


def patients(paths: list[str]) -> set[str]:
    return {re.findall(r"person\d+|IM-\d+", path)[0] for path in paths}


def sides(drawn: Any) -> dict[str, list[str]]:
    """The names of train, test and archive; every link leads to an image."""
    found = defaultdict(list)
    with drawn.labels.open(newline="") as file:
        for line in csv.DictReader(file):
            assert (drawn.labels.parent / line["path"]).resolve().parent.name == line["label"]
            assert patients([line["group"]]) == patients([line["path"]])
            found[line["split"]].append(Path(line["path"]).name)
    found["archive"] = [path.name for path in drawn.archive.rglob("*.jpeg") if path.exists()]
    return found


def test_no_patient_is_on_two_sides(few_labels: Any, data: Path, tmp_path: Path):
    found = sides(few_labels.Drawn.make(data, tmp_path / "out", "test", LABELS, 0))
    assert len(found["train"]) == LABELS
    who = {side: patients(names) for side, names in found.items()}
    assert not who["train"] & who["archive"]
    assert len(who["train"] | who["archive"]) == 60
    assert len(who["test"]) == 10
    assert not (who["train"] | who["archive"]) & who["test"]


def test_a_seed_is_a_draw(few_labels: Any, data: Path, tmp_path: Path):
    def trained(out: str, seed: int) -> list[str]:
        return sides(few_labels.Drawn.make(data, tmp_path / out, "test", LABELS, seed))["train"]

    assert trained("one", 3) == trained("two", 3) == trained("two", 3)
    assert trained("one", 4) != trained("one", 3)


def test_choosing_does_not_read_the_test_images(few_labels: Any, data: Path, tmp_path: Path):
    for path in sorted((data / "test").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    who = [
        {
            side: patients(names)
            for side, names in sides(
                few_labels.Drawn.make(data, tmp_path / "out", "dev", LABELS, seed)
            ).items()
        }
        for seed in (0, 1)
    ]
    assert who[0]["test"] == who[1]["test"]
    assert len(who[0]["test"]) == 9
    for each in who:
        assert not each["test"] & (each["train"] | each["archive"])


def test_gains_are_on_the_better_supervised_arm(few_labels: Any):
    aucs = {"supervised": (0.80, 0.82), "brief": (0.85, 0.83), "semi": (0.86, 0.88)}
    stored = [
        {"labels": "100", "seed": str(seed), "arm": arm, "minutes": "9.9", "auc": str(auc)}
        for arm, each in aucs.items()
        for seed, auc in enumerate(each)
    ]
    (text,) = few_labels.tables(stored)
    *_, worse, better, semi = text.splitlines()
    assert worse.endswith("|  |  |")
    assert better.endswith("|  |  |")
    assert semi.endswith("| +0.0300 | +0.0100 +0.0500 |")
