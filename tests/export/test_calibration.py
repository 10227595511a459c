import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from medimg_edge.errors import NotFinite
from medimg_export.calibration import (
    ece,
    fit_temperature,
    matching_threshold,
    reliability,
    untempered,
)

# Scores as networks give them: single precision, many ties, both ends included.
score = st.sampled_from([0.0, 1e-6, 0.1, 0.1001, 0.25, 0.5, 0.75, 0.999999, 1.0]).map(
    lambda value: float(np.float32(value))
)
scores = st.lists(score, min_size=1, max_size=30).map(np.array)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_a_known_temperature_is_found(task, temperature):
    rng = np.random.default_rng(0)
    C = {"binary": 1, "multiclass": 4, "multilabel": 3}[task]
    z = rng.normal(size=(6000, C)) * 2
    if task == "multiclass":
        y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)  # softmax, by the Gumbel trick
    else:
        y = (rng.random(z.shape) < _sigmoid(z)).astype(int)
    y = y.ravel() if task == "binary" else y
    logits = (z * temperature).astype(np.float32)
    assert fit_temperature(task, logits, y) == pytest.approx(temperature, rel=0.06)


def test_scaling_by_the_temperature_lowers_the_calibration_error():
    rng = np.random.default_rng(1)
    z = rng.normal(size=4000) * 2
    y = rng.random(4000) < _sigmoid(z)
    logits = z[:, None] * 4
    T = fit_temperature("binary", logits, y)
    assert ece(_sigmoid(logits[:, 0] / T), y) < 0.03 < 0.1 < ece(_sigmoid(logits[:, 0]), y)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_separable_logits_do_not_run_away(task):
    y = np.repeat([0, 1], 100)
    sign = np.where(y == 1, 1.0, -1.0)[:, None]
    logits = {"binary": sign, "multiclass": np.hstack([-sign, sign]) / 2}[task]
    sure = fit_temperature(task, 8 * logits, y)
    assert 0.8 < sure <= 1.0  # nothing to gain, so T stays
    unsure = fit_temperature(task, logits, y)
    assert 0.1 < unsure < 0.4
    assert _sigmoid(np.array(1 / unsure)) < 0.9999  # 200 right of 200, and not certain


def test_always_wrong_logits_stop_at_the_bound():
    y = np.repeat([0, 1], 100)
    assert fit_temperature("binary", np.where(y, -50.0, 50.0)[:, None], y) == pytest.approx(20)


@pytest.mark.parametrize("y", [np.zeros(50, int), np.ones(50, int)])
def test_one_class_leaves_the_temperature_alone(y):
    z = np.random.default_rng(0).normal(size=(50, 1)) * 9
    assert fit_temperature("binary", z, y) == 1.0
    assert fit_temperature("multiclass", np.hstack([z, -z]), y) == 1.0


def test_a_label_with_one_class_has_no_say():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(500, 2)) * 3
    y = np.stack([rng.random(500) < _sigmoid(z[:, 0] / 2), np.zeros(500)], axis=1)
    assert fit_temperature("multilabel", z, y) == fit_temperature("binary", z[:, :1], y[:, 0])


def test_diverged_logits_are_refused():
    with pytest.raises(NotFinite):
        fit_temperature("binary", [[0.0], [math.inf]], [0, 1])


def test_ece_by_hand():
    # Two bins: [0, .5] holds .2, .5 with rate 1/2, (.5, 1] holds .6, .9, .9 with rate 1.
    p, y = [0.2, 0.5, 0.6, 0.9, 0.9], [0, 1, 1, 1, 1]
    assert ece(p, y, bins=2) == pytest.approx(2 / 5 * 0.15 + 3 / 5 * 0.2)
    assert ece([0.0, 1.0], [0, 1]) == 0.0
    assert ece([0.0, 1.0], [1, 0]) == 1.0


def test_every_probability_is_in_one_bin():
    found = reliability([0.0, 0.05, 0.1, 0.95, 1.0], [0, 0, 1, 1, 1], bins=10)
    assert found.count.tolist() == [3, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert found.rate[0] == pytest.approx(1 / 3)
    assert np.isnan(found.mean[1])


@settings(deadline=None)
@given(scores, st.floats(0, 1), st.randoms(use_true_random=False))
def test_matching_threshold_makes_the_nearest_number_of_calls(p_ref, threshold, random):
    p_new = np.array([random.choice([0.0, 0.3, 0.31, 0.9, 1.0]) for _ in p_ref])
    wanted = int((p_ref >= threshold).sum())
    found = matching_threshold(p_ref, threshold, p_new)
    assert 0 <= found <= 1
    calls = int((p_new >= found).sum())
    possible = {int((p_new >= t).sum()) for t in np.linspace(0, 1, 1001)}
    nearest = min(abs(wanted - other) for other in possible)
    assert calls == max(other for other in possible if abs(wanted - other) == nearest)


def test_matching_threshold_is_midway_where_the_old_one_makes_another_number_of_calls():
    found = matching_threshold([0.1, 0.6, 0.7], 0.5, [0.2, 0.4, 0.8])
    assert found == pytest.approx(0.3)
    assert matching_threshold([0.1, 0.2], 0.3, [0.2, 0.4]) == pytest.approx(0.7)


def test_matching_threshold_is_the_old_one_where_that_makes_as_many_calls():
    for threshold in (0.21, 0.5, 0.79, 0.8):
        assert matching_threshold([0.1, 0.9], threshold, [0.2, 0.8]) == threshold
    assert matching_threshold([0.1, 0.9], 0.2, [0.2, 0.8]) == pytest.approx(0.5)


@pytest.mark.parametrize("task", ["binary", "multilabel", "multiclass"])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_can_be_taken_out_again(task, temperature):
    z = np.random.default_rng(0).normal(0, 2, (50, 1 if task == "binary" else 3))
    of_logits = (lambda z: softmax(z, axis=1)) if task == "multiclass" else _sigmoid
    p = of_logits(z / temperature).astype(np.float32).astype(np.float64)
    assert untempered(task, p, temperature) == pytest.approx(of_logits(z), abs=1e-3)


def test_probabilities_of_0_and_1_have_a_temperature_too():
    assert untempered("binary", np.array([[0.0], [1.0]]), 2.0) == pytest.approx(
        np.array([[0], [1]])
    )
    assert untempered("multiclass", np.eye(3), 2.0) == pytest.approx(np.eye(3))
