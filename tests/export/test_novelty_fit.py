"""Detectors fitted on embeddings whose distances are known."""

from __future__ import annotations

import numpy as np
import pytest

from medimg_edge.novelty import method
from medimg_export import novelty_fit
from medimg_export.novelty_fit import Head, distances, fit, limit

D = 24
RNG = np.random.default_rng(5)
CENTERS = RNG.normal(size=(2, D)) * 3
SPREAD = np.exp(-np.arange(D) / 4)


def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes that share a long and a short axis; and their labels."""
    y = RNG.integers(0, 2, count)
    return (CENTERS[y] + RNG.normal(size=(count, D)) * SPREAD).astype(np.float32), y


@pytest.fixture(scope="module")
def fitted():
    train, y = drawn(600)
    val, _ = drawn(300)
    along = np.zeros(D)
    along[-1] = 1
    outliers = {
        "far": (RNG.normal(size=(60, D)) * 3).astype(np.float32),
        "off the axes": (drawn(60)[0] + 0.5 * along).astype(np.float32),
        "other": (drawn(60)[0][:, ::-1]).astype(np.float32),
    }
    head = Head(RNG.normal(size=(1, D)).astype(np.float32), np.zeros(1, np.float32))
    chosen_by = frozenset({"far", "off the axes"})
    return fit("binary", train, y, val, head, outliers, chosen_by), val, outliers


def test_the_best_on_the_kinds_that_choose_is_kept(fitted):
    found, _, _ = fitted
    scores = {
        name: found.figures[f"auroc {name}"] for name in ("mahalanobis", "knn", "energy", "vim")
    }
    assert found.name == "mahalanobis"
    assert scores[found.name] == max(scores.values())
    assert scores["energy"] < 0.9


def test_its_figures_are_of_the_kinds(fitted):
    found, val, outliers = fitted
    near = distances(found.distance, val)
    far = distances(found.distance, outliers["other"])
    expected = (far[:, None] > near).mean() + 0.5 * (far[:, None] == near).mean()
    assert found.figures["auroc other"] == pytest.approx(expected, abs=1e-4)
    assert found.figures["auroc unseen"] == found.figures["auroc other"]


def test_the_arrays_are_those_of_the_device(fitted):
    found, val, _ = fitted
    again = method(found.name, found.arrays, "binary", D)
    assert distances(again, val).tolist() == distances(found.distance, val).tolist()
    assert all(values.dtype == np.dtype("<f4") for values in found.arrays.values())


@pytest.mark.parametrize("count", [20, 100, 784])
def test_the_limit_rejects_no_more_than_it_says(count):
    values = RNG.gamma(2, size=count)
    assert (values > limit(values)).mean() <= 0.05
    assert (values > limit(values)).mean() > 0.05 - 1.01 / count - 0.0001


def test_several_labels_have_one_mean():
    train, y = drawn(200)
    head = Head(RNG.normal(size=(2, D)).astype(np.float32), np.zeros(2, np.float32))
    outliers = {"far": (RNG.normal(size=(30, D)) * 9).astype(np.float32)}
    found = fit(
        "multilabel",
        train,
        np.stack([y, 1 - y], 1),
        drawn(90)[0],
        head,
        outliers,
        frozenset(outliers),
    )
    assert found.figures["auroc unseen"] is None
    assert novelty_fit.auroc(found.distance, drawn(90)[0], outliers)["far"] > 0.9


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_network_that_finds_every_image_alike(value):
    """Its covariance is zero: nothing that is not finite comes of it."""
    train = np.full((60, D), value, np.float32)
    head = Head(RNG.normal(size=(1, D)).astype(np.float32), np.zeros(1, np.float32))
    outliers = {"far": (RNG.normal(size=(30, D)) * 9).astype(np.float32)}
    y = np.arange(60) % 2
    found = fit("binary", train, y, train[:20], head, outliers, frozenset(outliers))
    assert np.isfinite(distances(found.distance, outliers["far"])).all()
    assert np.isfinite(limit(distances(found.distance, train)))
