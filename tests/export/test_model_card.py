"""The model card says what the manifest and the metrics say, and what the model is not."""

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from medimg_edge.bundle import Bundle
from medimg_edge.manifest import Histogram, Manifest, Novelty, Polarity, Reference, Screening
from medimg_export.metrics import Metrics, evaluate
from medimg_export.model_card import LIMITS, model_card
from medimg_export.recipe import Recipe, override

DATASET = {
    "splits": {
        "train": {"images": 70, "groups": None, "classes": {"normal": 40, "opacity": 30}},
        "val": {"images": 30, "groups": None, "classes": {"normal": 15, "opacity": 15}},
    }
}


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return Bundle.open(Path(__file__).parents[1] / "data" / "frozen-bundle").manifest


@pytest.fixture(scope="module")
def found(manifest: Manifest) -> Metrics:
    y = np.arange(30) % 2
    p = np.clip(0.3 + 0.4 * y + np.random.default_rng(0).normal(0, 0.2, 30), 0, 1)
    return evaluate("binary", manifest.labels, y, p, bootstrap=100)


def test_it_says_what_the_manifest_and_the_metrics_say(manifest: Manifest, found: Metrics):
    recipe = override(
        Recipe(),
        card={"data_source": "A hospital", "license": "CC BY 4.0", "limits": ["Not for cats."]},
    )
    card = model_card(manifest, recipe, DATASET, found, "validation")
    assert card.startswith(f"# {manifest.name} {manifest.version}\n")
    assert f"**Intended use.** {manifest.intended_use}" in card
    assert f"labels: {', '.join(manifest.labels)}" in card
    assert "- Not for cats.\n" in card
    assert f"{manifest.preprocessing.width} x {manifest.preprocessing.height} pixels" in card
    assert "- Source: A hospital" in card
    assert "- License of the data: CC BY 4.0" in card
    assert "- train: 70 images (normal 40, opacity 30)" in card
    assert f"## How good it is (validation, {manifest.default_artifact})" in card
    assert "30 images, patients unknown. Prevalence: opacity 50.0%. Intervals are 95 %" in card
    auc = found.values["auc"]
    assert f"| AUC | {auc.value:.3f} | {auc.low:.3f} to {auc.high:.3f} |" in card
    for artifact, points in manifest.decision.items():
        for label, point in points.items():
            assert f"`{artifact}`, {label}: positive from p = {point.threshold:.4f}" in card
    assert all(limit in card for limit in LIMITS)
    assert "None" not in card


@pytest.mark.parametrize(
    ("pattern", "groups", "said"),
    [
        ("p([0-9]+)", None, "yes, by `p([0-9]+)`"),
        (None, 25, "side of the split: yes"),
        (None, None, "side of the split: not stated"),
    ],
)
def test_it_says_whether_patients_were_kept_together(manifest, found, pattern, groups, said):
    recipe = override(Recipe(), data={"group_pattern": pattern})
    splits = {name: of | {"groups": groups} for name, of in DATASET["splits"].items()}
    card = model_card(manifest, recipe, {"splits": splits}, found, "validation")
    assert said in card
    assert ("25 patients" in card) is (groups == 25)


def test_what_is_not_known_is_not_stated(manifest: Manifest, found: Metrics):
    card = model_card(manifest, Recipe(), DATASET, found, "validation")
    assert "- Source: not stated" in card
    assert "- License of the data: not stated" in card
    listed = card.split("## Not stated\n")[1].splitlines()
    told = [line for line in card.splitlines() if line.endswith(": not stated")]
    assert len(told) == len([line for line in listed if line]) > 10
    for line in told:
        name = line.removesuffix(": not stated")
        assert any(each.startswith(f"{name}: ") for each in listed), name


def test_of_what_an_older_bundle_has_not_there_is_no_table(manifest: Manifest, found: Metrics):
    card = model_card(manifest, Recipe(), DATASET, found, "validation")
    assert "- Answers that it leaves to people: not stated" in card
    assert "| code |" not in card
    assert "| R | label |" not in card
    assert "| artifact | reference images |" not in card


def test_what_is_turned_away_referred_and_compared_is_in_tables(manifest: Manifest, found: Metrics):
    screening = Screening(
        contrast=5.25,
        content=0.31,
        polarity=Polarity(8, "screening/polarity.f32", -0.25),
        novelty=Novelty(
            "vim", {}, {}, {"model.onnx": 12.5}, {"auroc vim": 0.9981, "auroc unseen": None}
        ),
    )
    brightness = Histogram((0.0, 255.0), (200,))
    stated = msgspec.structs.replace(
        manifest,
        modality=("DX",),
        body_part=(),
        view=(),
        screening=screening,
        risks={manifest.default_artifact: {"opacity": {"0.05": (0.31, 0.62)}}},
        reference={
            "model.onnx": Reference(
                200, {"brightness": brightness}, {}, {"inverted": 4, "not-like-training": 10}
            )
        },
    )
    card = model_card(stated, Recipe(), DATASET, found, "validation")
    told = card.split("## When it does not answer\n")[1].split("\n## ")[0]
    assert "DICOM header says: wrong-modality; a PNG" in told
    assert "| low-contrast | the tensor's standard deviation is below 5.25 of 255" in told
    assert "| cropped | less than 31%" in told
    assert "| inverted | a score of 8 x 8 cells is below -0.25 |" in told
    assert "| not-like-training | the distance by vim is above `model.onnx` 12.5 |" in told
    assert "| auroc vim | 0.9981 |" in told
    assert "| auroc unseen | undefined |" in told
    assert "| 0.05 | opacity | 0.3100 | 0.6200 |" in told
    assert "`model.onnx` | 200 | 14 (7.0%: inverted 4, not-like-training 10) | brightness |" in card
    assert "None" not in card


def test_every_section_is_there_and_tables_stand_alone(manifest: Manifest, found: Metrics):
    lines = model_card(manifest, Recipe(), DATASET, found, "validation").splitlines()
    headings = [line for line in lines if line.startswith("## ")]
    assert len(headings) == len(set(headings)) == 11
    assert not any(a == b == "" for a, b in pairwise(lines)), "two empty lines"
    for before, line in pairwise(lines):
        if line.startswith(("#", "|")) and not before.startswith("|"):
            assert before == "", line


def test_it_travels_with_a_bundle(bundle: Path):
    card = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "For tests." in card
    assert "- Patients kept on one side of the split: yes, by `phantom-" in card
    assert "test: 36 images" in card
    assert "## Not stated" in card
