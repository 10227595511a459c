"""Conformal bounds: what they promise, by simulation, and what a decision becomes under them."""

from __future__ import annotations

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from medimg_edge import risk
from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.errors import ReferenceMissing, RiskUnknown
from medimg_edge.operating_point import decide
from medimg_edge.risk import Risk, bounds

DATA = Path(__file__).parent.parent / "data" / "frozen-bundle"


def manifest(**changes):
    return msgspec.structs.replace(Bundle.open(DATA).manifest, **changes)


def drawn(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities that overlap."""
    y = generator.random(count) < 0.4
    logits = generator.normal(np.where(y, 1.0, -1.0), 1.0)
    return y.astype(int), 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("wanted", [0.02, 0.05, 0.2])
def test_the_true_label_is_possible_as_often_as_promised(wanted):
    """Of 300 fits: the mean coverage of each class is at least 1 - risk, and not much more."""
    generator = np.random.default_rng(0)
    kept: list[tuple[float, float]] = []
    for _ in range(300):
        y, p = drawn(generator, 400)
        present, absent = bounds((p[y == 1], p[y == 0]), wanted)
        y, p = drawn(generator, 2000)
        kept.append(((p[y == 1] >= present).mean(), (p[y == 0] <= absent).mean()))
    for coverage in np.mean(kept, axis=0):
        assert 1 - wanted - 0.003 <= coverage <= 1 - wanted + 0.012


def test_too_few_images_rule_nothing_out():
    assert bounds((np.array([0.9] * 18), np.array([0.1] * 18)), 0.05) == (0.0, 1.0)
    assert bounds((np.array([0.9] * 19), np.array([0.1] * 19)), 0.05) == (0.9, 0.1)


def test_decisions_and_possible_labels_agree():
    found = manifest()
    for present, absent in ((0.3, 0.6), (0.6, 0.3), (0.0, 1.0), (0.5, 0.5)):
        of = Risk(0.05, found, {"opacity": (present, absent)})
        for threshold in (0.1, 0.45, 0.9):
            point = of.point(
                "opacity",
                msgspec.structs.replace(
                    found.decision["model.onnx"]["opacity"], threshold=threshold
                ),
            )
            for p in np.linspace(0, 1, 101, dtype=np.float32):
                possible = of.possible(np.array([p], np.float32))
                decision = decide(float(p), point)
                assert possible
                assert (
                    decision
                    == {
                        ("normal",): "negative",
                        ("opacity",): "positive",
                        ("normal", "opacity"): "refer",
                    }[possible]
                ), (p, present, absent, threshold)


def test_several_classes():
    found = manifest(task="multiclass", labels=("a", "b", "c"))
    of = Risk(0.1, found, {"a": (0.5, 1.0), "b": (0.2, 1.0), "c": (0.4, 1.0)})
    assert of.possible(np.array([0.6, 0.1, 0.3], np.float32)) == ("a",)
    assert of.possible(np.array([0.5, 0.3, 0.2], np.float32)) == ("a", "b")
    assert of.possible(np.array([0.45, 0.15, 0.39], np.float32)) == ("a", "b", "c")
    shuffled = Risk(0.1, found, {"c": (0.4, 1.0), "a": (0.5, 1.0), "b": (0.2, 1.0)})
    assert shuffled.possible(np.array([0.5, 0.3, 0.2], np.float32)) == ("a", "b")
    labels = manifest(task="multilabel", labels=("a", "b"))
    assert (
        Risk(0.1, labels, {"a": (0.5, 0.2), "b": (0.5, 0.2)}).possible(np.ones(2, np.float32))
        is None
    )


def test_fit_knows_each_task():
    generator = np.random.default_rng(1)
    y, p = drawn(generator, 500)
    found = risk.fit(manifest(), y, p[:, None])
    assert set(found) == {"opacity"}
    assert set(found["opacity"]) == {"0.01", "0.02", "0.05", "0.1", "0.2"}
    assert found["opacity"]["0.05"] == bounds((p[y == 1], p[y == 0]), 0.05)
    several = risk.fit(
        manifest(task="multilabel", labels=("a", "b")),
        np.stack([y, 1 - y], axis=1),
        np.stack([p, 1 - p], axis=1),
    )
    assert several["a"]["0.1"] == bounds((p[y == 1], p[y == 0]), 0.1)
    classes = risk.fit(
        manifest(task="multiclass", labels=("a", "b")), y, np.stack([1 - p, p], axis=1)
    )
    assert classes["b"]["0.1"][0] == several["a"]["0.1"][0]


@pytest.fixture
def bounded(bundle: Path, rewrite) -> Path:
    """A bundle with bounds of one risk."""
    names = Bundle.open(bundle).manifest.artifacts
    wanted = {name: {"opacity": {"0.05": [0.9999, 0.0001]}} for name in names}
    rewrite(bundle, lambda raw: raw.update(risks=wanted))
    return bundle


def test_the_command_refers_what_is_not_sure(bounded, tmp_path, command):
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    plain = command("infer", image, "-b", bounded)
    told = msgspec.json.decode(plain.stdout)
    assert (told["risk"], told["possible"]) == (None, None)
    assert told["decision"] in ("positive", "negative")
    done = command("infer", image, "-b", bounded, "--risk", "0.05")
    assert done.returncode == 0, done.stderr
    told = msgspec.json.decode(done.stdout)
    assert told["decision"] == "refer"
    assert told["risk"] == 0.05
    assert told["possible"] == ["normal", "opacity"]
    for wanted, code in ((("--risk", "0.03"), "risk"),):
        refused = command("infer", image, "-b", bounded, *wanted)
        assert refused.returncode == 1
        assert f"[{code}]" in refused.stderr
        assert "0.05" in refused.stderr


def test_a_bundle_without_bounds(frozen):
    with pytest.raises(ReferenceMissing, match="--risk"):
        Classifier(frozen, risk=0.05)


def test_not_under_a_site_profile(bounded, command, tmp_path):
    """Its probabilities are others."""
    found = Classifier(bounded, profile=None, risk=0.05)
    assert found.points["opacity"].refer is not None
    from medimg_edge.site_profile import Calibration, SiteData, SiteProfile

    profile = SiteProfile(
        bundle=found.bundle.hash,
        artifact=found.artifact,
        findings={
            "opacity": Calibration(1.0, 0.0, found.manifest.decision[found.artifact]["opacity"])
        },
        data=SiteData(images=1, patients=None, positives={"opacity": 1}, sha256="0" * 64),
        created="2026-01-01",
    )
    with pytest.raises(RiskUnknown, match="profile"):
        Classifier(bounded, profile=profile, risk=0.05)
