"""One CT slice: Hounsfield units, and nodules that only the label brings."""

import cv2
import numpy as np
import pytest

from medimg_export.phantom_ct import HIGHEST, LOWEST, ct

SEEDS = range(8)


@pytest.mark.parametrize("size", [32, 129, 512])
def test_arrays_are_what_the_docstring_says(size: int):
    for positive in (False, True):
        found = ct(5, positive, size)
        assert found.hu.dtype == np.int16
        assert found.pixels.dtype == np.uint16
        assert found.mask.dtype == found.lungs.dtype == np.uint8
        shapes = {each.shape for each in (found.hu, found.pixels, found.mask, found.lungs)}
        assert shapes == {(size, size)}
        assert found.hu.min() >= LOWEST
        assert found.hu.max() <= HIGHEST
        assert (found.positive, found.seed) == (positive, 5)


def test_tissues_have_their_hounsfield_units():
    for seed in SEEDS:
        found = ct(seed, False)
        assert np.median(found.hu[:20]) == pytest.approx(-1000, abs=15)  # air above the chest
        assert -910 < np.median(found.hu[found.lungs > 0]) < -780
        body = found.hu[found.hu > -300]
        assert (np.abs(body - 50) < 40).mean() > 0.3  # muscle and blood
        assert (np.abs(body + 100) < 40).mean() > 0.1  # fat
        assert 0.01 < (body > 300).mean() < 0.2  # bone
        assert 0.08 < (found.lungs > 0).mean() < 0.3


def test_a_nodule_is_tissue_in_the_place_of_air():
    change = []
    for seed in SEEDS:
        assert not ct(seed, False).mask.any()
        found = ct(seed, True)
        inside = found.mask > 0
        assert set(np.unique(found.mask)) == {0, 255}
        assert 7**2 / 380**2 / 2 < inside.mean() < 0.012  # 7 mm to two of 30 mm
        assert (found.lungs[inside] == 255).mean() > 0.95
        change.append((found.hu[inside] - ct(seed, False).hu[inside].astype(int)).mean())
    assert min(change) > 200  # ground glass
    assert np.median(change) > 600  # most are solid


def test_the_label_changes_the_nodule_and_nothing_else():
    for seed in SEEDS:
        found, without = ct(seed, True), ct(seed, False)
        assert np.array_equal(found.lungs, without.lungs)
        near = cv2.dilate(found.mask, np.ones((9, 9), np.uint8)) > 0
        assert np.array_equal(found.hu[~near], without.hu[~near])


def test_a_seed_shows_the_same_slice_at_every_size():
    for seed in range(4):
        large, small = ct(seed, True, 512), ct(seed, True, 128)
        reduced = cv2.resize(large.hu, (128, 128), interpolation=cv2.INTER_AREA)
        assert np.corrcoef(reduced.ravel(), small.hu.ravel())[0, 1] > 0.99


def test_the_picture_is_the_lung_window():
    found = ct(2, True, 64)
    black, white = found.hu <= -1350, found.hu >= 150
    assert not found.pixels[black].any()
    assert (found.pixels[white] == 65535).all()
    middle = np.abs(found.hu + 600) < 3
    assert np.abs(found.pixels[middle] / 65535 - 0.5).max() < 0.005
