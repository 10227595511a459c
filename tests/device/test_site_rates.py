"""Decisions become rates, with intervals and at another prevalence."""

import numpy as np
import pytest

from medimg_edge.site_rates import Rate, rates, wilson

Y = np.arange(200) < 100
ALONE = [str(number) for number in range(200)]


def decided(ill: tuple[int, int], well: tuple[int, int]) -> list[str]:
    """(positive, refer) of 100 with the finding and of 100 without; the rest is negative."""
    return [
        decision
        for positive, refer in (ill, well)
        for decision in ["positive"] * positive
        + ["refer"] * refer
        + ["negative"] * (100 - positive - refer)
    ]


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # tables of Wilson's interval, as in Newcombe 1998
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson(count, n, low, high):
    rate = wilson(count, n, n)
    assert (rate.value, rate.n) == (count / n, n)
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=1e-4)


def test_rates_as_counted():
    found = rates(Y, decided((80, 10), (20, 30)), ALONE)
    assert found.sensitivity.value == 0.9
    assert found.specificity.value == 0.5
    assert found.ppv == wilson(80, 100, 100)
    assert found.referred == wilson(40, 200, 200)


def test_rates_where_fewer_are_ill():
    decisions = decided((80, 10), (20, 30))
    sheet, found = rates(Y, decisions, ALONE), rates(Y, decisions, ALONE, 0.1)
    assert (found.sensitivity, found.specificity) == (sheet.sensitivity, sheet.specificity)
    assert found.ppv.value == pytest.approx(0.08 / (0.08 + 0.18))
    assert found.referred.value == pytest.approx(0.01 + 0.27)
    # Mercaldo, Lau and Zhou 2007: logit PPV with variance (1 - a) / (a n) of both classes
    half = 1.96 * np.sqrt(0.2 / 80 + 0.8 / 20)
    limits = [1 / (1 + 9 * 0.25 * np.exp(side * half)) for side in (1, -1)]
    assert (found.ppv.low, found.ppv.high) == pytest.approx(limits, abs=0.02)
    # of the sum: the variances of both, each by its share
    half = 1.96 * np.sqrt(0.01 * 0.1 * 0.9 / 100 + 0.81 * 0.3 * 0.7 / 100)
    assert found.referred.high - found.referred.low == pytest.approx(2 * half, abs=0.01)


def test_at_the_sheets_own_prevalence_nothing_changes():
    decisions = decided((80, 10), (20, 30))
    sheet, found = rates(Y, decisions, ALONE), rates(Y, decisions, ALONE, 0.5)
    assert found.ppv.value == pytest.approx(sheet.ppv.value)
    assert found.referred.value == pytest.approx(sheet.referred.value)
    assert (found.ppv.low, found.ppv.high) == pytest.approx(
        (sheet.ppv.low, sheet.ppv.high),
        abs=0.03,  # Wilson's reaches out further
    )


@pytest.mark.parametrize("share", [None, 0.1])
def test_nothing_called_positive(share):
    found = rates(Y, decided((0, 50), (0, 0)), ALONE, share)
    assert found.ppv == Rate(None, 0.0, 1.0, 0, 0)


def test_images_and_patients_are_both_told():
    pairs = [str(number // 2) for number in range(200)]
    found = rates(Y, decided((80, 0), (20, 0)), pairs)
    assert (found.sensitivity.n, found.sensitivity.patients) == (100, 50)
    alone = rates(Y, decided((80, 0), (20, 0)), ALONE)
    assert found.sensitivity.low < alone.sensitivity.low


def test_a_widened_interval_holds_both():
    one, other = wilson(8, 10, 10), wilson(9, 10, 10)
    both = one.widened(other)
    assert (both.value, both.low, both.high) == (0.8, one.low, other.high)
