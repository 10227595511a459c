"""What is measured on patients that a fit has not seen, and what is warned of."""

import numpy as np
import pytest

from medimg_edge.manifest import OperatingPoint
from medimg_edge.site_calibration import Targets, fit_calibration
from medimg_edge.site_check import Measured, cross_validated, decisions, divide, measure, warnings
from medimg_edge.site_rates import Rates, rates, wilson

POINT = OperatingPoint(threshold=0.5, rule="stated")


def site(count: int, apart: float, spread: float = 1.0, seed: int = 0):
    """(p, y, a patient each): half with the finding."""
    y = np.arange(count) < count // 2
    z = np.random.default_rng(seed).normal(np.where(y, apart / 2, -apart / 2), spread)
    return 1 / (1 + np.exp(-z)), y, [str(number) for number in range(count)]


@pytest.mark.parametrize(
    ("without", "both", "with_it"),
    [(0, 12, 0), (1, 1, 10), (10, 1, 1), (0, 2, 9), (9, 2, 0), (30, 0, 7), (2, 0, 2)],
)
def test_folds_keep_patients_whole_and_leave_both_classes(without, both, with_it):
    kinds = [(False,)] * without + [(False, True)] * both + [(True,)] * with_it
    groups = [f"patient {at}" for at, kind in enumerate(kinds) for _ in kind]
    y = np.array([has for kind in kinds for has in kind])
    folds = divide(y, groups)
    assert folds is not None
    assert len({*zip(groups, folds.tolist(), strict=True)}) == len(kinds)
    assert folds.max() + 1 == min(5, without + both, with_it + both)
    for fold in range(folds.max() + 1):
        assert (folds == fold).any()
        assert set(y[folds != fold].tolist()) == {False, True}


def test_one_patient_of_a_class_is_not_enough():
    assert divide(np.array([True, False, True]), ["a", "b", "c"]) is None
    assert divide(np.array([True, False, True]), ["a", "a", "c"]) is None


def test_a_part_that_cannot_be_fitted_is_a_reason_not_a_refusal():
    p, y, groups = site(20, 0.2, 2.0, seed=3)
    fit = fit_calibration(p, y, Targets())  # all of them together can be
    found = measure(p, y, groups, POINT, fit, Targets())
    assert found.profile is None
    assert "without 1/5 of the patients, the finding is the rarer" in found.why
    assert warnings(found, y, groups, True, fit, Targets())[0] == found.why


@pytest.mark.parametrize("targets", [Targets(), Targets(0.95, 0.95), Targets(0.9, None, 0.1)])
def test_intervals_take_in_the_sheet_that_the_threshold_was_chosen_on(targets):
    p, y, groups = site(100, 1.5)
    fit = fit_calibration(p, y, targets)
    unseen = cross_validated(p, y, groups, targets)
    assert isinstance(unseen, Rates)
    sheet = rates(y, decisions(fit.calibrated(p), fit.point), groups, targets.prevalence)
    found = measure(p, y, groups, POINT, fit, targets).profile
    assert found is not None
    for name in ("sensitivity", "specificity", "ppv", "referred"):
        rate = getattr(found, name)
        parts = [getattr(each, name) for each in (unseen, sheet)]
        assert rate.value == parts[0].value
        assert rate.low == min(each.low for each in parts)
        assert rate.high == max(each.high for each in parts)


def test_the_intervals_hold_the_truth():
    """19 of 20 in the long run (simulated); Wilson's alone 17 of 20."""
    p, y, _ = site(40_000, 1.47, seed=1000)
    ill = p[y]
    held = {"printed": 0, "unseen only": 0}
    for seed in range(100):
        p, y, groups = site(100, 1.47, seed=seed)
        fit = fit_calibration(p, y, Targets())
        sensitivity = float(np.mean(fit.calibrated(ill) >= fit.point.threshold))
        unseen = cross_validated(p, y, groups, Targets())
        found = measure(p, y, groups, POINT, fit, Targets()).profile
        assert found is not None
        assert isinstance(unseen, Rates)
        for name, rate in (("printed", found.sensitivity), ("unseen only", unseen.sensitivity)):
            held[name] += rate.low <= sensitivity <= rate.high
    assert held["printed"] >= 93 > held["unseen only"]


def said(measured: Measured, with_it: int = 200, without: int = 200, grouped: bool = False):
    y = np.arange(with_it + without) < with_it
    fit = fit_calibration(np.where(y, 0.9, 0.1), y, Targets())
    names = [str(number) for number in range(len(y))]
    return warnings(measured, y, names, grouped, fit, Targets())


def measured(sensitivity: int, specificity: int, ppv: int, n: int = 200) -> Measured:
    """Rates in percent."""
    percent = (sensitivity, specificity, ppv, 0)
    found = Rates(*(wilson(n * each // 100, n, n) for each in percent))
    return Measured(found, found)


def test_enough_and_good_is_not_warned_of():
    assert said(measured(95, 90, 90)) == []


@pytest.mark.parametrize(("with_it", "without"), [(49, 200), (200, 49)])
@pytest.mark.parametrize(("grouped", "what"), [(True, "patients"), (False, "images")])
def test_few_of_either_class(with_it, without, grouped, what):
    (warning,) = said(measured(95, 90, 90), with_it, without, grouped)
    assert warning.startswith(f"{with_it} {what} with it and {without} without are few")


def test_a_wide_ppv():
    (warning,) = said(Measured(measured(95, 90, 90).bundle, mixed_n()))
    assert warning.startswith("with 20 images the PPV may be anywhere from")


def mixed_n() -> Rates:
    good = measured(95, 90, 90).bundle
    return Rates(good.sensitivity, good.specificity, wilson(15, 20, 20), good.referred)


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "chance"),
    [(95, 5, True), (50, 55, True), (50, 40, True), (95, 20, False), (50, 65, False)],
)
def test_no_better_than_chance(sensitivity, specificity, chance):
    """Where a coin that calls as many of the ill positive calls as many of the well negative."""
    found = said(measured(sensitivity, specificity, 90))
    assert any("no better than chance" in each for each in found) is chance
