"""Thresholds: the best, with room on both sides, and the same in both precisions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medimg_edge.errors import RecipeError, TooFewImages
from medimg_edge.manifest import OperatingPoint
from medimg_edge.operating_point import decide, operating_point

# Scores as networks give them: single precision, many ties, both ends included.
score = st.sampled_from([0.0, 1e-6, 0.1, 0.1001, 0.25, 0.5, 0.75, 0.999999, 1.0]).map(
    lambda value: float(np.float32(value))
)
tables = (
    st.lists(st.tuples(st.booleans(), score), min_size=2, max_size=30)
    .map(lambda rows: tuple(np.array(part) for part in zip(*rows, strict=True)))
    .filter(lambda table: 0 < table[0].sum() < len(table[0]))
)
POINT = OperatingPoint(0.5, "stated")
BAND = OperatingPoint(0.5, "stated", refer=(0.375, 0.75))


@pytest.mark.parametrize(
    ("probability", "point", "decision"),
    [
        (0.4999, POINT, "negative"),
        (0.5, POINT, "positive"),
        (0.0, OperatingPoint(0.0, "all"), "positive"),
        (1.0, OperatingPoint(1.0, "sure"), "positive"),
        (0.3749, BAND, "negative"),
        (0.375, BAND, "refer"),
        (0.5, BAND, "refer"),
        (0.7499, BAND, "refer"),
        (0.75, BAND, "positive"),
    ],
)
def test_decide(probability, point, decision):
    assert decide(probability, point) == decision


def _rates(y: np.ndarray, p: np.ndarray, threshold: float) -> tuple[float, float]:
    return float((p[y] >= threshold).mean()), float((p[~y] < threshold).mean())


@settings(deadline=None)
@given(tables)
def test_youden_is_not_beaten_by_any_threshold(table):
    y, p = table
    found = operating_point(y, p)
    assert (found.sensitivity, found.specificity) == _rates(y, p, found.threshold)
    best = max(sum(_rates(y, p, t)) for t in np.linspace(0, 1, 301).tolist() + p.tolist())
    assert sum(_rates(y, p, found.threshold)) >= best - 1e-12


@settings(deadline=None)
@given(tables, st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0]))
def test_the_target_is_reached_as_specifically_as_possible(table, target):
    y, p = table
    found = operating_point(y, p, sensitivity=target)
    sensitivity, specificity = _rates(y, p, found.threshold)
    assert (found.sensitivity, found.specificity) == (sensitivity, specificity)
    assert sensitivity >= target
    for t in p:
        other = _rates(y, p, t)
        assert other[0] < target or (specificity, sensitivity) >= other[::-1]


@settings(deadline=None)
@given(tables)
def test_a_threshold_has_room_on_both_sides_and_is_single_precision(table):
    y, p = table
    threshold = operating_point(y, p).threshold
    assert 0 <= threshold <= 1
    assert threshold == np.float32(threshold)
    below, above = p[p < threshold], p[p >= threshold]
    lower = below.max() if len(below) else 0.0
    middle = (lower + above.min()) / 2
    assert threshold == pytest.approx(middle, rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(tables)
def test_both_precisions_decide_alike(table):
    y, p = table
    threshold = operating_point(y, p).threshold
    single = p.astype(np.float32) >= np.float32(threshold)
    assert np.array_equal(single, p >= threshold)


def test_neighbours_in_single_precision_are_still_told_apart():
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    found = operating_point([0, 1], [low, high])
    assert (found.threshold, found.sensitivity, found.specificity) == (float(high), 1, 1)


def test_rounding_noise_flips_nothing():
    rng = np.random.default_rng(3)
    p = rng.permutation(np.arange(1, 400)) / 400
    y = rng.random(len(p)) < p
    threshold = operating_point(y, p).threshold
    noise = rng.uniform(-1e-4, 1e-4, len(p))
    assert np.array_equal(p >= threshold, p + noise >= threshold)


def test_of_equal_youden_points_the_roomiest_is_taken():
    # Both cuts miss one image; the gap from .4 to .8 is wider than the one from .1 to .2.
    found = operating_point([0, 1, 0, 1], [0.1, 0.2, 0.4, 0.8])
    assert found.threshold == pytest.approx(0.6)
    assert found.rule == "youden"


@pytest.mark.parametrize("y", [[0, 0], [1, 1]])
def test_one_class_has_no_operating_point(y):
    with pytest.raises(TooFewImages):
        operating_point(y, [0.1, 0.9])


@pytest.mark.parametrize("target", [0.0, 1.5, -1.0, math.nan])
def test_an_impossible_target_is_refused(target):
    with pytest.raises(RecipeError):
        operating_point([0, 1], [0.1, 0.9], sensitivity=target)
