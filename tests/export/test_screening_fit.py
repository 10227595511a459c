"""What an export fits to turn images away, on phantoms and a network that was trained on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.errors import Inverted, Rejected
from medimg_edge.manifest import Screening, Windows, WindowSetting
from medimg_edge.record import Failure
from medimg_export import screening_fit
from medimg_export.novelty_fit import Head
from medimg_export.outliers import outliers
from medimg_export.phantom_chest import chest

TESTS = 60


def phantoms(count: int, start: int = 5000) -> list[np.ndarray]:
    return [
        np.ascontiguousarray(chest(seed, positive=seed % 2 == 1, size=64).pixels)
        for seed in range(start, start + count)
    ]


def screening(bundle: Path) -> Screening:
    found = Bundle.open(bundle).manifest.screening
    assert isinstance(found, Screening)
    return found


def test_every_artifact_has_a_limit_and_a_reference(bundle):
    manifest = Bundle.open(bundle).manifest
    novelty = screening(bundle).novelty
    assert novelty is not None
    assert set(novelty.limit) == set(manifest.artifacts) == set(manifest.reference)  # type: ignore[arg-type]
    assert set(manifest.artifacts) == set(manifest.risks)  # type: ignore[arg-type]
    assert {f"auroc {name}" for name in ("mahalanobis", "knn", "energy", "vim")} <= set(
        novelty.figures
    )


def test_new_images_of_the_kind_are_answered(bundle):
    answers = [*Classifier(bundle, profile=None).predict_many(phantoms(TESTS))]
    rejected = [each for each in answers if isinstance(each, Failure)]
    assert len(rejected) <= 0.2 * TESTS, [each.code for each in rejected]


def test_negatives_are_turned_away(bundle):
    classifier = Classifier(bundle, profile=None)
    if screening(bundle).polarity is None:
        pytest.fail("chest phantoms have a polarity")
    caught = 0
    for each in phantoms(TESTS):
        try:
            classifier.predict(65535 - each)
        except Inverted:
            caught += 1
        except Rejected:
            continue
    assert caught >= 0.8 * TESTS


def test_pictures_of_other_things_are_turned_away(bundle):
    """Of each kind, those that chose the detector and those that did not."""
    classifier = Classifier(bundle, profile=None)
    spec = classifier.manifest.preprocessing
    shares = {}
    for kind, pixels in outliers(spec, ("CR",), seed=9).pixels.items():
        answers = [*classifier.predict_many(each[..., 0] for each in pixels)]
        shares[kind] = np.mean([isinstance(each, Failure) for each in answers])
    assert np.mean([*shares.values()]) > 0.8, shares


def test_validation_is_turned_away_as_often_as_said(bundle):
    for found in Bundle.open(bundle).manifest.reference.values():  # type: ignore[union-attr]
        assert found.codes.get("not-like-training", 0) <= 0.05 * found.images
        assert sum(found.codes.values()) <= 0.1 * found.images


def test_the_export_tells_what_it_turns_away(exported):
    manifest = exported.bundle.manifest
    (told,) = [each for each in exported.notes if "turned away" in each]
    found = manifest.reference[manifest.default_artifact]
    share = sum(found.codes.values()) / found.images
    assert f"of {found.images} validation images {share:.1%}" in told
    assert f"by {screening(exported.bundle.path).novelty.method}" in told  # type: ignore[union-attr]


def test_the_detector_knows_images_as_training_saw_them(prepared, tmp_path):
    """Each as it is, then each once more under a draw of the augmentation."""
    head = Head(np.ones((1, 64), np.float32), np.zeros(1, np.float32))
    seen: list[list[np.ndarray]] = []

    def run(pixels: Iterable[np.ndarray]) -> np.ndarray:
        seen.append([*pixels])
        return np.stack([each[::4, ::4].reshape(-1)[:64].astype(np.float32) for each in seen[-1]])

    val = run(prepared.cached.pixels[row] for row in prepared.splits.val)
    screening_fit.fit(tmp_path, prepared, "binary", head, run, {"model.onnx": val})
    trained = prepared.cached.pixels[prepared.splits.train]
    plain, drawn = np.split(np.stack(seen[1]), 2)
    assert np.array_equal(plain, trained)
    for each, other in zip(plain, drawn, strict=True):
        assert not np.array_equal(each, other)


def test_a_model_that_sees_no_outlier_has_no_detector(prepared, tmp_path):
    """Its window lies beyond what is drawn: each is blank to it."""
    spec = msgspec.structs.replace(
        prepared.preprocessing, intensity=Windows((WindowSetting(3000, 10),))
    )
    head = Head(np.ones((1, 4), np.float32), np.zeros(1, np.float32))

    def run(pixels: Iterable[np.ndarray]) -> np.ndarray:
        return np.stack([each.reshape(-1)[:4].astype(np.float32) for each in pixels])

    val = run(prepared.cached.pixels[row] for row in prepared.splits.val)
    found = screening_fit.fit(
        tmp_path, replace(prepared, preprocessing=spec), "binary", head, run, {"model.onnx": val}
    )
    assert found.screening.novelty is None
    assert any("sees nothing in any drawn outlier" in each for each in found.notes)
