"""One radiograph of a leg: not square, and a thin fracture that only the label brings."""

import cv2
import numpy as np
import pytest

from medimg_export.phantom_bone import bone

SEEDS = range(16)


@pytest.mark.parametrize("size", [32, 129, 512])
def test_arrays_are_what_the_docstring_says(size: int):
    for positive in (False, True):
        found = bone(5, positive, size)
        assert found.pixels.dtype == np.uint16
        assert found.mask.dtype == found.bones.dtype == np.uint8
        rows, columns = found.pixels.shape
        assert rows == size
        assert 0.4 < columns / rows < 0.62
        assert found.mask.shape == found.bones.shape == found.pixels.shape
        assert found.pixels.max() > 40_000
        assert (found.positive, found.seed) == (positive, 5)


def test_widths_and_sides_differ():
    found = [bone(seed, False, 64) for seed in SEEDS]
    assert len({each.pixels.shape for each in found}) > 5
    assert {each.side for each in found} == {"L", "R"}


def test_the_fibula_is_on_the_outer_side():
    """The picture faces the patient: of a right leg the outer side is on the left."""
    for seed in SEEDS:
        found = bone(seed, False, 256)
        middle = found.bones[128] > 0
        starts = np.flatnonzero(np.diff(middle.astype(int)) == 1)
        ends = np.flatnonzero(np.diff(middle.astype(int)) == -1)
        widths = ends - starts
        assert len(widths) == 2
        thinner = int(widths.argmin())
        assert thinner == (0 if found.side == "R" else 1)


def test_bone_is_brighter_than_flesh():
    for seed in SEEDS:
        found = bone(seed, False, 256)
        inside = found.bones > 0
        assert found.pixels[inside].mean() > 1.2 * found.pixels[~inside].mean()


def test_a_fracture_is_small_thin_and_dark():
    for seed in SEEDS:
        assert not bone(seed, False).mask.any()
        found, without = bone(seed, True), bone(seed, False)
        inside = found.mask > 0
        assert 0.0001 < inside.mean() < 0.01
        assert (found.bones[inside] == 255).all()
        assert found.pixels[inside].mean() < without.pixels[inside].mean() - 200


def test_the_label_changes_the_fracture_and_nothing_else():
    for seed in SEEDS:
        found, without = bone(seed, True), bone(seed, False)
        assert np.array_equal(found.bones, without.bones)
        near = cv2.dilate(found.mask, np.ones((25, 25), np.uint8)) > 0
        assert np.array_equal(found.pixels[~near], without.pixels[~near])


def test_a_seed_shows_the_same_leg_at_every_size():
    for seed in range(6):
        large, small = bone(seed, True, 512), bone(seed, True, 128)
        shape = small.pixels.shape[::-1]
        reduced = cv2.resize(large.pixels, shape, interpolation=cv2.INTER_AREA)
        assert np.corrcoef(reduced.ravel(), small.pixels.ravel())[0, 1] > 0.97
