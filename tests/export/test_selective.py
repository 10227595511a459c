"""Error against coverage: by hand, by sorting in random order, and by drawn tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medimg_export.selective import COVERAGE, Selective, coverage_curve, selective_of

answer = st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3))


def at_all(of: Selective, weights: np.ndarray | None = None) -> np.ndarray:
    """The error after each image, the surest first."""
    n = len(of.wrong)
    drawn = np.ones(n) if weights is None else weights
    total = int(drawn.sum())
    return of.errors(drawn[None], np.arange(1, total + 1) / total)[0]


def test_counted_by_hand():
    """The surest is right, the second wrong, two are equally sure, the last is right."""
    of = Selective(np.array([0.2, 3.0, 1.0, 2.0, 1.0]), np.array([0, 0, 1, 1, 0], bool))
    assert at_all(of) == pytest.approx([0, 1 / 2, 1.5 / 3, 2 / 4, 2 / 5])
    assert of.errors(np.ones((1, 5)), np.array([0.1, 1.0]))[0] == pytest.approx([0, 2 / 5])


@settings(deadline=None)
@given(st.lists(answer, min_size=1, max_size=30))
def test_ties_are_the_mean_of_every_order_and_weights_are_repetitions(rows):
    sureness, wrong, weights = (np.array(part) for part in zip(*rows, strict=True))
    of = Selective(sureness.astype(float), wrong.astype(bool))
    mean = {each: wrong[sureness == each].mean() for each in sureness}
    ordered = sorted(sureness, reverse=True)
    expected = np.cumsum([mean[each] for each in ordered]) / np.arange(1, len(rows) + 1)
    assert at_all(of) == pytest.approx(expected)
    if weights.any():
        drawn = np.repeat(np.arange(len(rows)), weights)
        again = Selective(of.sureness[drawn], of.wrong[drawn])
        assert at_all(of, weights.astype(float)) == pytest.approx(at_all(again))


def test_a_model_that_knows_what_it_does_not_know():
    wrong = np.arange(200) < 40
    knowing = coverage_curve(Selective((~wrong).astype(float), wrong), None, bootstrap=0)
    guessing = coverage_curve(Selective(np.ones(200), wrong), None, bootstrap=0)
    errors = {share: of.value for share, of in zip(COVERAGE, knowing.errors, strict=True)}
    assert errors[COVERAGE[79]] == pytest.approx(0)  # 80 % are right
    assert errors[COVERAGE[99]] == pytest.approx(0.2)
    assert [of.value for of in guessing.errors] == pytest.approx([0.2] * 100)
    assert all(of.low is None for of in knowing.errors)


def test_intervals_are_by_group_and_narrow_with_the_coverage():
    random = np.random.default_rng(0)
    sureness, wrong = np.tile(random.random(60), 5), np.tile(random.random(60) < 0.3, 5)
    patients = [str(i % 60) for i in range(300)]
    of = Selective(sureness, wrong)
    alone = coverage_curve(of, None, bootstrap=400)
    grouped = coverage_curve(of, patients, bootstrap=400)
    assert alone.n == 300

    def width(curve, at: int) -> float:
        return curve.errors[at].high - curve.errors[at].low

    assert width(grouped, 99) > 1.7 * width(alone, 99)  # sqrt 5 in theory
    assert width(grouped, 20) > width(grouped, 99)
    assert all(of.low <= of.value <= of.high for of in grouped.errors[9:])  # pyright: ignore


def test_sureness_of_a_binary_answer_is_the_distance_in_logits():
    p = np.array([[0.2], [0.5], [0.8], [0.0], [1.0]])
    of = selective_of("binary", np.array([1, 0, 1, 0, 1]), p, {"ill": 0.2})
    assert of is not None
    assert of.wrong.tolist() == [False, True, False, False, False]
    assert of.sureness[:3] == pytest.approx([0, np.log(4), 2 * np.log(4)])
    assert np.isfinite(of.sureness).all()
    assert of.sureness[3:].min() > of.sureness[:3].max()
    without = selective_of("binary", np.array([1, 0]), p[:2], None)
    assert without is not None
    assert without.sureness == pytest.approx([np.log(4), 0])


def test_sureness_of_several_labels_is_the_highest_probability():
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    of = selective_of("multiclass", np.array([1, 2]), p, None)
    assert of is not None
    assert (of.sureness.tolist(), of.wrong.tolist()) == ([0.5, 0.8], [True, False])
    assert selective_of("multilabel", np.eye(3, dtype=int), np.eye(3), None) is None
