"""The model card says what the manifest and the metrics say, and what the model is not."""

from pathlib import Path

import numpy as np
import pytest

from medimg_edge.bundle import Bundle
from medimg_edge.manifest import Manifest
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
    assert "30 images. Intervals are 95 % bootstrap intervals." in card
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
        (None, None, "unknown: the data set names no patients"),
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


def test_it_travels_with_a_bundle(bundle: Path):
    card = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "For tests." in card
    assert "- Patients kept on one side of the split: yes, by `phantom-" in card
    assert "test: 36 images" in card
