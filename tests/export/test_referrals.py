"""What a refer band leaves to a person, counted by hand."""

import numpy as np
import pytest

from medimg_edge.manifest import OperatingPoint
from medimg_export.metrics import Estimate
from medimg_export.referrals import evaluate
from medimg_export.scores import checked, label_scores

Y = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
P = np.array([0.1, 0.2, 0.4, 0.59, 0.7, 0.3, 0.5, 0.6, 0.8, 0.9])
BAND = OperatingPoint(threshold=0.4, rule="youden", refer=(0.4, 0.6))


def _columns(y=Y, p=P):
    return label_scores("binary", ("normal", "ill"), *checked("binary", y, p, 2), {"ill": 0.4})


def test_counted_by_hand():
    """.4, .59 and .5 are referred, .6 is not; of the other seven .7 and .3 are wrong."""
    found = evaluate(_columns(), {"ill": BAND}, bootstrap=200)
    assert found is not None
    of = found["ill"]
    assert (of.band, of.answered) == ((0.4, 0.6), 7)
    assert of.referred.value == 0.3
    assert of.error.value == pytest.approx(2 / 7)
    for rate in (of.referred, of.error):
        assert rate.value is not None
        assert rate.low is not None
        assert rate.high is not None
        assert rate.low < rate.value < rate.high
    assert found == evaluate(_columns(), {"ill": BAND}, bootstrap=200)


def test_patients_are_drawn_together():
    y, p = np.tile(Y, 6), np.tile(P, 6)
    patients = [str(i % 10) for i in range(60)]

    def width(groups) -> float:
        found = evaluate(_columns(y, p), {"ill": BAND}, groups=groups, bootstrap=400)
        assert found is not None
        referred = found["ill"].referred
        return (referred.high or 0) - (referred.low or 0)

    assert width(patients) > 1.8 * width(None)  # sqrt 6 in theory


def test_without_an_error_the_interval_is_wilsons():
    found = evaluate(_columns(Y, 0.1 + 0.8 * Y), {"ill": BAND}, bootstrap=50)
    assert found is not None
    error = found["ill"].error
    assert (error.value, error.low, error.high) == pytest.approx((0, 0, 0.2775), abs=1e-4)


def test_everything_is_referred():
    found = evaluate(_columns(Y, np.full(10, 0.5)), {"ill": BAND}, bootstrap=50)
    assert found is not None
    assert (found["ill"].referred.value, found["ill"].answered) == (1, 0)
    assert found["ill"].error == Estimate(None)


def test_without_a_band_there_is_nothing_to_tell():
    assert evaluate(_columns(), {"ill": OperatingPoint(threshold=0.4, rule="youden")}) is None
    assert evaluate(_columns(), {}) is None
