"""DeLong's test against its definition and a bootstrap, McNemar's against counted tosses."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from medimg_export.metrics import paired_auc_loss
from medimg_export.paired import delong, mcnemar

image = st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 6))


def by_definition(truth: np.ndarray, scores: list[np.ndarray]) -> tuple[float, float]:
    """(difference, variance) as DeLong et al. 1988 write them: every pair, covariance matrices."""
    kernels = []
    for score in scores:
        x, y = score[truth][:, None], score[~truth][None, :]
        kernels.append((x > y) + 0.5 * (x == y))
    v10 = np.array([kernel.mean(axis=1) for kernel in kernels])
    v01 = np.array([kernel.mean(axis=0) for kernel in kernels])
    S = np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]
    L = np.array([-1.0, 1.0])
    return float(kernels[1].mean() - kernels[0].mean()), float(L @ S @ L)


@settings(deadline=None)
@given(st.lists(image, min_size=4, max_size=40))
def test_delong_is_its_definition_on_tables_full_of_ties(rows):
    truth, a, b = (np.array(part) for part in zip(*rows, strict=True))
    a, b = a / 6, b / 6
    found = delong(truth, a, b)
    if min(truth.sum(), (~truth).sum()) < 2:
        assert found is None
        return
    difference, variance = by_definition(truth, [a, b])
    assert difference == pytest.approx(roc_auc_score(truth, b) - roc_auc_score(truth, a))
    if found is None:
        assert variance == pytest.approx(0, abs=1e-12)
        assert difference != 0
    else:
        assert found.difference == pytest.approx(difference, abs=1e-12)
        assert found.error**2 == pytest.approx(variance, abs=1e-12)


def correlated(n: int, gain: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.4
    shared = truth + random.normal(size=n)
    return truth, shared + random.normal(size=n), shared + gain * truth + random.normal(size=n)


def test_delong_agrees_with_the_bootstrap_where_images_are_independent():
    truth, a, b = correlated(500, 0.4, seed=1)
    found = delong(truth, a, b)
    assert found is not None
    gain, low, high = paired_auc_loss("binary", truth.astype(int), b, a, bootstrap=4000)
    assert found.difference == pytest.approx(gain)
    assert found.low == pytest.approx(low, abs=0.003)
    assert found.high == pytest.approx(high, abs=0.003)
    assert 0 < found.low < found.high
    assert found.p < 0.01


def test_delong_finds_a_difference_by_chance_as_often_as_it_says():
    tests = [delong(*correlated(120, 0.0, seed)) for seed in range(400)]
    small = np.mean([test.p < 0.05 for test in tests if test is not None])
    assert 0.03 < small < 0.075


def test_delong_where_there_is_nothing_to_find():
    truth, a, b = correlated(50, 0.0, seed=2)
    same = delong(truth, a, 3 * a + 1)
    assert same is not None
    assert (same.difference, same.error, same.p) == (0, 0, 1)
    assert delong(truth, 1.0 * truth, -1.0 * truth) is None  # wholly apart, without variance
    assert delong(np.ones(50, bool), a, b) is None
    assert delong(np.arange(50) < 1, a, b) is None


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (3, 3), (1, 8), (12, 2), (0, 5)])
def test_mcnemar_is_a_count_of_tosses(only_a: int, only_b: int):
    right_a = np.array([True] * only_a + [False] * only_b + [True] * 4 + [False] * 2)
    right_b = np.array([False] * only_a + [True] * only_b + [True] * 4 + [False] * 2)
    found = mcnemar(right_a, right_b)
    assert (found.n, found.both, found.neither) == (only_a + only_b + 6, 4, 2)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    n = only_a + only_b
    tail = sum(comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    assert found.p == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_of_no_image_is_undefined():
    assert mcnemar(np.zeros(0, bool), np.zeros(0, bool)).p is None
