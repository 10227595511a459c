"""The heatmap over the image."""

import cv2
import numpy as np
import pytest

from medimg_edge.heatmap import SIDE, STRONG, encode_png, overlay

GREY = np.full((64, 64, 1), 100, np.uint8)


def spot(value: float) -> np.ndarray:
    """One cell of an 8 x 8 map, in the top right."""
    heatmap = np.full((8, 8), -3, np.float32)
    heatmap[1, 6] = value
    return heatmap


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((64, 64, 1), (SIDE, SIDE)),
        ((64, 32, 3), (SIDE, SIDE // 2)),
        ((50, 100, 2), (SIDE // 2, SIDE)),
        ((1, 4096, 1), (1, SIDE)),
    ],
)
def test_size(shape, size):
    found = overlay(np.zeros(shape, np.uint8), spot(9))
    assert found.shape == (*size, 3)
    assert found.dtype == np.uint8


def test_what_speaks_against_a_label_is_not_drawn():
    assert (overlay(GREY, spot(0)) == 100).all()


def test_the_spot_is_drawn_in_its_place_in_yellow():
    found = overlay(GREY, spot(9)).astype(int)
    center = found[SIDE * 3 // 16, SIDE * 13 // 16]
    assert center[0] > 170  # inferno ends in yellow
    assert center[1] > 170
    assert center[2] < 140
    changed = np.abs(found - 100).max(axis=2) > 8
    rows, columns = np.nonzero(changed)
    assert rows.max() < SIDE // 2 < columns.min()
    assert (found[-40:, :40] == 100).all()


def test_a_weak_spot_is_drawn_weaker_even_if_it_is_the_strongest():
    strength = [
        np.abs(overlay(GREY, spot(value)).astype(int) - 100).max()
        for value in (STRONG / 8, STRONG / 2, STRONG, 2 * STRONG)
    ]
    assert strength[0] < strength[1] < strength[2] == strength[3]


def test_color_stays_in_rgb_order():
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 200
    found = overlay(red, spot(0))
    assert (found == [200, 0, 0]).all()
    decoded = cv2.imdecode(np.frombuffer(encode_png(found), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert (decoded == [0, 0, 200]).all()  # OpenCV's order is BGR
