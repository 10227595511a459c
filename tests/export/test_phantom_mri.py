"""One MR slice of a head: the order of signals, and tumours that only the class brings."""

import cv2
import numpy as np
import pytest

from medimg_export.phantom_mri import FULL, Finding, mri

SEEDS = range(12)
TUMOURS: tuple[Finding, ...] = ("glioma", "meningioma")


@pytest.mark.parametrize("size", [32, 129, 512])
@pytest.mark.parametrize("finding", ["normal", *TUMOURS])
def test_arrays_are_what_the_docstring_says(finding: Finding, size: int):
    found = mri(5, finding, size)
    assert found.signal.dtype == found.pixels.dtype == np.uint16
    assert found.mask.dtype == found.brain.dtype == np.uint8
    shapes = {each.shape for each in (found.signal, found.pixels, found.mask, found.brain)}
    assert shapes == {(size, size)}
    assert 0 < found.signal.max() <= FULL
    assert found.pixels.max() > 50_000
    assert (found.finding, found.seed) == (finding, 5)
    assert found.mask.any() == (finding != "normal")


def test_the_brain_lies_inside_of_the_head():
    for seed in SEEDS:
        found = mri(seed, "normal", 256)
        assert 0.25 < (found.brain > 0).mean() < 0.6
        head = found.signal > 0.2 * found.window.width
        assert not head[:24, :24].any()  # air around it
        rows, columns = np.nonzero(head)
        inside = np.argwhere(found.brain > 0)
        assert rows.min() < inside[:, 0].min() < inside[:, 0].max() < rows.max()
        assert columns.min() < inside[:, 1].min() < inside[:, 1].max() < columns.max()


@pytest.mark.parametrize("finding", TUMOURS)
def test_a_tumour_lies_in_the_brain(finding: Finding):
    for seed in SEEDS:
        found = mri(seed, finding, 256)
        inside = found.mask > 0
        assert (found.brain[inside] == 255).mean() > 0.97
        assert 0.003 < inside.mean() < 0.04


def test_a_glioma_is_a_bright_rim_about_a_dark_core_away_from_the_surface():
    for seed in SEEDS:
        found = mri(seed, "glioma", 256)
        depth = cv2.distanceTransform(found.mask, cv2.DIST_L2, 5)
        rim, core = (depth > 0) & (depth < 4), depth > 0.75 * depth.max()
        assert found.signal[core].mean() < 0.5 * found.signal[rim].mean()
        surface = cv2.distanceTransform(found.brain, cv2.DIST_L2, 5)
        assert surface[depth == depth.max()].min() > 0.08 * 256


def test_a_meningioma_is_evenly_bright_and_touches_the_surface():
    for seed in SEEDS:
        found, without = mri(seed, "meningioma", 256), mri(seed, "normal", 256)
        inside = cv2.erode(found.mask, np.ones((7, 7), np.uint8)) > 0
        values = found.signal[inside]
        assert values.std() / values.mean() < 0.15
        assert values.mean() > 1.25 * without.signal[without.brain > 0].mean()
        surface = cv2.distanceTransform(found.brain, cv2.DIST_L2, 5)
        assert surface[found.mask > 0].min() < 3


@pytest.mark.parametrize("finding", TUMOURS)
def test_the_class_changes_the_tumour_and_its_surroundings_alone(finding: Finding):
    for seed in SEEDS:
        found, without = mri(seed, finding, 256), mri(seed, "normal", 256)
        assert np.array_equal(found.brain, without.brain)
        near = cv2.dilate(found.mask, np.ones((81, 81), np.uint8)) > 0  # a glioma's oedema
        assert np.array_equal(found.signal[~near], without.signal[~near])


@pytest.mark.parametrize("finding", ["normal", *TUMOURS])
def test_a_seed_shows_the_same_head_at_every_size(finding: Finding):
    for seed in range(4):
        large, small = mri(seed, finding, 512), mri(seed, finding, 128)
        reduced = cv2.resize(large.signal, (128, 128), interpolation=cv2.INTER_AREA)
        assert np.corrcoef(reduced.ravel(), small.signal.ravel())[0, 1] > 0.98


def test_gain_differs_from_head_to_head():
    widths = {mri(seed, "normal", 32).window.width for seed in SEEDS}
    assert max(widths) > 1.2 * min(widths)  # so that one fixed window cannot serve all
