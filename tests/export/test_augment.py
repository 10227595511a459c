"""Augmentation: nothing, one kind at a time, and always the same for (seed, epoch, index)."""

import numpy as np
import pytest

from medimg_export.augment import augment, draw
from medimg_export.recipe import Augmentation

OFF = Augmentation(rotation=0, shift=0, zoom=0, contrast=0, brightness=0, flip=False)
RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (24, 31, 1), np.uint8)
RGB = RANDOM.integers(0, 256, (25, 20, 3), np.uint8)

FILED = Augmentation(aspect=1, blur=2, noise=0.1, jpeg=True)
MISHAPS = Augmentation(crop=0.9, movement=100, grid=1)

MOVEMENT = ("angle", "across", "down", "zoom", "contrast", "brightness", "mirror", "aspect")
NAMES = (*MOVEMENT, "blur", "noise", "jpeg", "movement", "grid", "crop")


def row(**drawn: float) -> np.ndarray:
    return np.array([drawn.get(name, 0.0) for name in NAMES], np.float32)


def only(**kind) -> Augmentation:
    values = {"rotation": 0, "shift": 0, "zoom": 0, "contrast": 0, "brightness": 0, "flip": False}
    return Augmentation(**values | kind)


@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "rgb"])
def test_nothing_happens_where_every_magnitude_is_zero(pixels: np.ndarray):
    for drawn in draw(50, seed=1, epoch=2):
        assert np.array_equal(augment(pixels, drawn, OFF), pixels)


@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "rgb"])
def test_a_flip_is_the_exact_mirror_image(pixels: np.ndarray):
    flipped = [augment(pixels, drawn, only(flip=True)) for drawn in draw(200, seed=0, epoch=0)]
    mirrored = sum(np.array_equal(each, pixels[:, ::-1]) for each in flipped)
    assert mirrored + sum(np.array_equal(each, pixels) for each in flipped) == 200
    assert 70 < mirrored < 130


@pytest.mark.parametrize(
    ("spec", "drawn", "expected"),
    [
        (only(shift=0.25), row(across=1.0), "right"),
        (only(shift=0.25), row(down=1.0), "down"),
        (only(shift=0.25), row(across=-1.0), "left"),
    ],
    ids=["right", "down", "left"],
)
def test_a_shift_moves_by_its_share_and_repeats_the_border(spec, drawn, expected):
    pixels = RANDOM.integers(0, 256, (24, 32, 1), np.uint8)
    moved = augment(pixels, drawn, spec)
    edge = {
        "right": (moved[:, 8:], pixels[:, :-8], moved[:, :8], pixels[:, :1]),
        "down": (moved[6:], pixels[:-6], moved[:6], pixels[:1]),
        "left": (moved[:, :-8], pixels[:, 8:], moved[:, -8:], pixels[:, -1:]),
    }[expected]
    assert np.array_equal(edge[0], edge[1])
    assert np.array_equal(edge[2], np.broadcast_to(edge[3], edge[2].shape))


def test_a_quarter_turn_and_a_zoom_are_about_the_centre():
    square = RANDOM.integers(0, 256, (21, 21, 1), np.uint8)
    turned = augment(square, row(angle=1.0), only(rotation=90))
    assert np.abs(turned[..., 0].astype(int) - np.rot90(square[..., 0])).max() <= 1
    disc = np.zeros((41, 41, 1), np.uint8)
    disc[16:25, 16:25] = 255
    larger = augment(disc, row(zoom=1.0), only(zoom=0.5))
    assert larger[20, 20] == 255
    assert 1.9 < larger.sum(dtype=float) / disc.sum(dtype=float) < 2.6
    assert np.array_equal(larger, larger[::-1, ::-1])


def test_aspect_widens_and_flattens_about_the_centre_and_keeps_the_area():
    square = np.zeros((81, 81, 1), np.uint8)
    square[29:52, 29:52] = 255
    for aspect, ratio in ((1.0, 1.5), (-1.0, 1 / 1.5)):
        found = augment(square, row(aspect=aspect), only(aspect=0.5))[..., 0]
        width, height = (found > 127).any(axis=0).sum(), (found > 127).any(axis=1).sum()
        assert width / height == pytest.approx(ratio, abs=0.1)
        assert found.sum(dtype=float) / square.sum(dtype=float) == pytest.approx(1, abs=0.05)
        assert np.array_equal(found, found[::-1, ::-1])


def test_blur_takes_the_finest_texture_from_half_of_the_images_and_nothing_else():
    ripple = np.tile(np.array([[96, 160], [160, 96]], np.uint8), (16, 16))[..., None]
    ramp = np.tile(np.linspace(60, 200, 32).astype(np.uint8), (32, 1))[..., None]
    spec = only(blur=1.6)
    left = [np.ptp(augment(ripple, row(blur=blur), spec)) for blur in (0.0, 0.2, 0.35, 1.0)]
    assert left[0] == 64 > left[1] > left[2] > left[3]
    assert np.array_equal(augment(ripple, row(blur=-1.0), spec), ripple)
    same = augment(ramp, row(blur=1.0), spec)[:, 5:-5].astype(int)
    assert np.abs(same - ramp[:, 5:-5]).max() <= 1


def test_noise_has_its_deviation_at_most_and_no_mean():
    flat = np.full((96, 96, 1), 128, np.uint8)
    spec = only(noise=0.1)
    for drawn in (0.25, 0.5, 1.0):
        found = augment(flat, row(noise=drawn), spec).astype(float)
        assert 0.3 * drawn * 25.5 < found.std() < 1.05 * drawn * 25.5
        assert found.mean() == pytest.approx(128, abs=0.7)
    assert np.array_equal(augment(flat, row(noise=-1.0), spec), flat)
    first, again = (augment(flat, row(noise=0.7), spec) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, augment(flat, row(noise=0.700001), spec))


@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "rgb"])
def test_half_of_the_images_have_been_jpeg_files_of_any_quality(pixels: np.ndarray):
    changed = [augment(pixels, drawn, only(jpeg=True)) for drawn in draw(400, seed=0, epoch=0)]
    was_file = [not np.array_equal(each, pixels) for each in changed]
    assert 150 < sum(was_file) < 250
    lost = [
        np.abs(augment(pixels, row(jpeg=jpeg), only(jpeg=True)).astype(int) - pixels).mean()
        for jpeg in (0.001, 0.5, 0.999)
    ]
    assert lost[0] > lost[1] > lost[2] > 0


@pytest.mark.parametrize("kind", ["movement", "grid", "crop"])
def test_mishaps_happen_to_a_quarter_of_the_images(kind: str):
    spec = only(**{kind: 0.5 if kind != "movement" else 9.0})
    found = [augment(GRAY, drawn, spec) for drawn in draw(400, seed=0, epoch=0)]
    assert 70 < sum(not np.array_equal(each, GRAY) for each in found) < 130
    assert np.array_equal(augment(GRAY, row(**{kind: 0.5}), spec), GRAY)
    first, again, other = (augment(GRAY, row(**{kind: each}), spec) for each in (0.9, 0.9, 0.91))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_crop_loses_its_share_and_lies_anywhere_within():
    down, across = np.mgrid[:96, :128]
    pixels = np.stack([2 * down, across, across], axis=2).astype(np.uint8)
    corners = []
    for drawn in np.linspace(0.98, 1, 60, endpoint=False):
        found = augment(pixels, row(crop=drawn), only(crop=0.4)).astype(float)
        lost = 0.4 * (2 * drawn - 1)
        assert np.ptp(found[..., 0]) / 2 == pytest.approx(95 * (1 - lost), abs=2)
        assert np.ptp(found[..., 1]) == pytest.approx(127 * (1 - lost), abs=2)
        corners.append(found[0, 0, :2] / (2, 1))
    assert np.min(corners, axis=0) == pytest.approx([0, 0], abs=6)
    assert np.max(corners, axis=0) == pytest.approx([0.4 * 95, 0.4 * 127], abs=6)


def test_a_movement_smears_along_one_line_and_adds_nothing():
    pixels = np.zeros((65, 65, 1), np.uint8)
    pixels[32, 32] = 255
    for drawn in np.linspace(0.6, 1, 20, endpoint=False):
        found = augment(pixels, row(movement=drawn), only(movement=21)).astype(float)[..., 0]
        rows, columns = np.nonzero(found)
        length = np.hypot(np.ptp(rows), np.ptp(columns))
        assert length == pytest.approx(21 * (2 * drawn - 1), abs=3.5)
        assert np.ptp(rows) <= np.ptp(columns) + 3, "within 45 degrees of the horizontal"
        assert found.sum() == pytest.approx(255, abs=30)
        assert (rows.mean(), columns.mean()) == pytest.approx((32, 32), abs=0.6)


def test_a_grid_is_whiter_in_lines_and_to_one_side():
    flat = np.full((20, 240, 1), 40, np.uint8)
    sides = []
    for drawn in np.linspace(0.9, 1, 20, endpoint=False):
        found = augment(flat, row(grid=drawn), only(grid=0.1)).astype(float)[..., 0]
        assert (found == found[:1]).all(), "the lines stand upright"
        depth = 25.5 * (2 * drawn - 1)
        assert found.min() >= 40
        assert found.max() <= 40 + 4 * depth + 1
        assert np.ptp(found[0, :12]) == pytest.approx(depth, rel=0.4)
        strengths = np.abs(np.fft.rfft(found[0] - found[0].mean()))
        assert 240 / 6.2 < 20 + strengths[20:].argmax() < 240 / 2.9, "3 to 6 pixels from each other"
        sides.append(np.sign(found[0, :24].mean() - found[0, -24:].mean()))
    assert set(sides) == {-1, 1}


def test_contrast_and_brightness_are_lines_about_the_mean():
    pixels = np.array([[100, 120], [140, 160]], np.uint8)[..., None]  # mean 130
    stretched = augment(pixels, row(contrast=1.0), only(contrast=0.5))
    assert stretched[..., 0].tolist() == [[85, 115], [145, 175]]
    brighter = augment(pixels, row(brightness=-1.0), only(brightness=0.2))
    assert brighter[..., 0].tolist() == [[49, 69], [89, 109]]
    clipped = augment(pixels, row(brightness=1.0), only(brightness=0.5))
    assert clipped[..., 0].tolist() == [[228, 248], [255, 255]]


def test_shape_and_type_stay():
    for pixels in (GRAY, RGB):
        for drawn in draw(50, seed=5, epoch=1):
            for spec in (Augmentation(), FILED, MISHAPS):
                found = augment(pixels, drawn, spec)
                assert (found.shape, found.dtype) == (pixels.shape, np.uint8)


BEFORE = [0.459241, -0.808262, -0.063317, -0.175554, -0.799583, 0.508758, 0.979562]


def test_what_is_drawn_follows_from_seed_epoch_and_index():
    first = draw(100, seed=7, epoch=3)
    assert first.shape == (100, 14)
    assert first.dtype == np.float32
    assert -1 <= first.min() < -0.9
    assert 0.9 < first.max() < 1
    assert np.array_equal(draw(100, seed=7, epoch=3), first)
    assert np.array_equal(draw(60, seed=7, epoch=3), first[:60])
    # What releases drew before there was more to draw: their trainings can be made again.
    assert first[0, :7].tolist() == pytest.approx(BEFORE, abs=1e-6)
    for other in (draw(100, seed=8, epoch=3), draw(100, seed=7, epoch=4)):
        assert not (other == first).any()
