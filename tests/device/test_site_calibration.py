"""One finding's probabilities and labels become a curve and thresholds, at any prevalence."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from medimg_edge.errors import DataInvalid, RecipeError
from medimg_edge.manifest import OperatingPoint
from medimg_edge.operating_point import decide
from medimg_edge.site_calibration import (
    Targets,
    at_prevalence,
    choose_point,
    fit_calibration,
    fit_sigmoid,
)
from medimg_edge.site_profile import Calibration, calibrated


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def site(count: int = 400, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Half of the images with the finding, and what a bundle says of them."""
    y = np.arange(count) % 2 == 0
    return sigmoid(np.random.default_rng(seed).normal(np.where(y, 1.5, -1.5), 2)), y


def test_the_fit_is_the_best_there_is():
    rng = np.random.default_rng(5)
    z = rng.normal(0, 3, 300)
    y = rng.random(300) < sigmoid(0.4 * z - 0.7)

    def loss(at):
        margin = np.where(y, 1, -1) * (at[0] * z + at[1])
        return np.logaddexp(0, -margin).sum() + (at[0] - 1) ** 2 / 2 + at[1] ** 2 / 18

    best = minimize(loss, [1, 0], method="BFGS", options={"gtol": 1e-8})
    assert fit_sigmoid(z, y) == pytest.approx(tuple(best.x), abs=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 16.0])
def test_separable_images_stay_finite(scale):
    z = scale * np.repeat([-1.0, 1.0], 40)
    slope, intercept = fit_sigmoid(z, z > 0)
    assert 0 < slope < 100
    assert intercept == pytest.approx(0, abs=1e-6)


def test_answers_the_wrong_way_round_are_refused():
    z = np.linspace(-4, 4, 200)
    with pytest.raises(DataInvalid, match="swapped"):
        fit_sigmoid(z, z < 0)


@pytest.mark.parametrize("share", [1e-4, 0.02, 0.5, 0.9])
@pytest.mark.parametrize("band", [None, 0.95])
def test_another_prevalence_moves_probabilities_and_no_decision(share, band):
    p, y = site()
    here = fit_calibration(p, y, Targets(0.9, band))
    there = fit_calibration(p, y, Targets(0.9, band, share))
    assert there.slope == here.slope
    assert there.intercept - here.intercept == pytest.approx(np.log(share / (1 - share)))
    assert (here.prevalence, there.prevalence) == (None, share)
    assert (there.point.rule, there.point.sensitivity) == (here.point.rule, here.point.sensitivity)
    for probabilities in (p, site(seed=4)[0]):
        decisions = [
            [decide(value, fit.point) for value in fit.calibrated(probabilities).tolist()]
            for fit in (here, there)
        ]
        assert decisions[0] == decisions[1]
        assert len(set(decisions[0])) == (3 if band else 2)


def test_at_another_prevalence_so_many_are_expected():
    """Where 5 % are ill and look like the sheet's ill, 5 % is what the probabilities say."""
    p, y = site(20_000)
    fit = fit_calibration(p, y, Targets(prevalence=0.05))
    q = fit.calibrated(p)
    assert 0.05 * q[y].mean() + 0.95 * q[~y].mean() == pytest.approx(0.05, abs=0.003)


def test_the_sheets_own_prevalence_changes_nothing():
    p, y = site()
    here, there = (fit_calibration(p, y, Targets(0.9, 0.95, share)) for share in (None, 0.5))
    assert there.intercept == pytest.approx(here.intercept)
    assert there.point.threshold == pytest.approx(here.point.threshold, abs=1e-6)


def test_a_band_is_left_out_where_nothing_is_left_to_it():
    p, y = site()
    assert choose_point(y, p, Targets(0.9, 0.99)).refer is not None
    assert choose_point(y, p, Targets(0.5, 0.6)) == choose_point(y, p, Targets(0.5))


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        ((0.0, None, None), "sensitivity to reach is 0.0"),
        ((float("nan"), None, None), "sensitivity to reach is nan"),
        ((None, 0.0, None), "refer band to reach is 0.0"),
        ((None, 1.1, None), "refer band to reach is 1.1"),
        ((None, None, 0.0), "prevalence is 0.0"),
        ((None, None, 1.0), "prevalence is 1.0"),
    ],
)
def test_targets_out_of_range(targets, says):
    with pytest.raises(RecipeError, match=says):
        Targets(*targets)


@pytest.mark.parametrize("share", [0.02, 0.9, 0.98])
def test_rounding_takes_no_image_to_the_other_side(share):
    """Probabilities so near to each other that single precision hardly tells them apart."""
    p = (0.5 + np.arange(40) * 4e-7).astype(np.float32).astype(np.float64)
    for count in range(1, 40):
        y = np.arange(40) >= count
        lowest = float(calibrated(p, 0.37, -0.2)[count])  # as ``between`` takes it at need
        here = Calibration(0.37, -0.2, OperatingPoint(threshold=lowest, rule="stated"))
        there = at_prevalence(here, p, share, float(y.mean()))
        decisions = [
            [decide(value, fit.point) for value in fit.calibrated(p).tolist()]
            for fit in (here, there)
        ]
        told_apart = len(np.unique(there.calibrated(p)[count - 1 : count + 1])) == 2
        assert decisions[0] == decisions[1] or not told_apart
