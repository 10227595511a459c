"""Weighted statistics against scikit-learn, on tables full of ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from medimg_export.calibration import ece
from medimg_export.scores import LabelScores, resamples

image = st.tuples(st.booleans(), st.integers(0, 8), st.integers(0, 3))


def _column(rows: list[tuple[bool, int, int]]) -> tuple[LabelScores, np.ndarray]:
    truth, score, weight = (np.array(part) for part in zip(*rows, strict=True))
    score = score / 8
    return LabelScores("x", truth.astype(bool), score, score >= 0.5), weight.astype(float)


@settings(deadline=None)
@given(st.lists(image, min_size=2, max_size=40))
def test_every_statistic_is_that_of_the_drawn_table(rows):
    """Weights must mean the same as repeating an image that often."""
    column, weight = _column(rows)
    drawn = np.repeat(np.arange(len(rows)), weight.astype(int))
    truth, score, called = column.truth[drawn], column.score[drawn], column.called[drawn]
    found = {name: value[0] for name, value in column.values(weight[None]).items()}
    if 0 < truth.sum() < len(truth):
        assert found["auc"] == pytest.approx(sk.roc_auc_score(truth, score))
        assert found["average_precision"] == pytest.approx(sk.average_precision_score(truth, score))
        assert found["sensitivity"] == pytest.approx(sk.recall_score(truth, called))
        assert found["specificity"] == pytest.approx(sk.recall_score(~truth, ~called))
    else:
        assert np.isnan(found["auc"])
    if called.any():
        assert found["ppv"] == pytest.approx(sk.precision_score(truth, called))
    else:
        assert np.isnan(found["ppv"])
    if called.any() or truth.any():
        assert found["f1"] == pytest.approx(sk.f1_score(truth, called))
    if len(drawn):
        assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, called))
        assert found["ece"] == pytest.approx(ece(score, truth))


def test_rows_of_weights_do_not_mix():
    rng = np.random.default_rng(0)
    score = rng.integers(0, 20, 50) / 20
    column = LabelScores("x", rng.random(50) < score, score, score >= 0.4)
    weights = np.concatenate(list(resamples(50, None, 30, 1)))
    together = column.values(weights)
    for row, weight in enumerate(weights):
        alone = column.values(weight[None])
        for name, value in together.items():
            np.testing.assert_allclose(value[row], alone[name][0])


@pytest.mark.parametrize("n", [1, 7, 90_000])  # the last has more than one block
def test_resamples_draw_as_many_images_as_there_are(n):
    blocks = list(resamples(n, None, 5, 0))
    assert sum(len(block) for block in blocks) == 5
    assert all((block.sum(axis=1) == n).all() for block in blocks)


def test_groups_are_drawn_whole():
    groups = ["b", "a", "a", "c", "b", "b"]
    (weights,) = resamples(6, groups, 200, 0)
    assert (weights[:, 1] == weights[:, 2]).all()
    assert (weights[:, [0, 0]] == weights[:, [4, 5]]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights[:, 3].std() > 0
