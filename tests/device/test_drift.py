"""Drift: what is called so, how often by chance, and what is said of it."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from medimg_edge import drift
from medimg_edge.bundle import Bundle
from medimg_edge.errors import ReferenceMissing
from medimg_edge.kiosk import drifting
from medimg_edge.manifest import Histogram, Reference
from medimg_edge.record import Finding, Model
from tests.device.drifting import ARTIFACT, HASH, LABEL, reference, site

NAMES = {"brightness", "contrast", "sharpness", "novelty", f"probability of {LABEL}"}


@pytest.fixture(scope="module")
def validation() -> Reference:
    return reference(site(random.Random(1), 800))


def bundle(found: Reference | msgspec.UnsetType, hash_: str = HASH) -> Bundle:
    """What is read of one."""
    manifest = SimpleNamespace(
        name="phantom",
        version="1",
        reference=found if found is msgspec.UNSET else {ARTIFACT: found},
        default_artifact=ARTIFACT,
    )
    return cast(Bundle, SimpleNamespace(manifest=manifest, hash=hash_))


def drifted(comparisons: Any) -> set[str]:
    return {each.name for each in comparisons if each.is_drift}


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 10])
def test_chi_squared(freedom):
    """Against a million squares of normal numbers, and closed forms."""
    sums = (np.random.default_rng(freedom).normal(size=(10**6 // freedom, freedom)) ** 2).sum(1)
    for value in (0.5 * freedom, freedom, 2 * freedom):
        share = (sums > value).mean()
        assert drift.chi_squared_above(value, freedom) == pytest.approx(share, abs=0.005)
    assert drift.chi_squared_above(0, freedom) == 1
    assert drift.chi_squared_above(1e5, freedom) == 0
    assert drift.chi_squared_above(3.0, 2) == pytest.approx(math.exp(-1.5))
    assert drift.chi_squared_above(3.841459, 1) == pytest.approx(0.05, abs=1e-6)


def test_fishers_exact_test():
    """The lady's cups: all four of four, among eight, by chance in 1 of 70."""
    assert drift.rise(4, 4, 0, 4) == pytest.approx(1 / 70)
    assert drift.rise(3, 4, 1, 4) == pytest.approx(17 / 70)
    assert drift.rise(0, 50, 40, 800) == pytest.approx(1)
    assert drift.rise(5, 100, 0, 10**6) == pytest.approx(
        math.comb(100, 5) / math.comb(1000100, 5), rel=1e-6
    )


def test_psi_is_what_it_is_called():
    """Large samples: chance gives nothing, and smoothing takes nothing."""
    found, p = drift.psi([2_000_000, 8_000_000], [5_000_000, 5_000_000])
    plain = (0.2 - 0.5) * math.log(0.2 / 0.5) + (0.8 - 0.5) * math.log(0.8 / 0.5)
    assert found == pytest.approx(plain, rel=1e-4)
    assert p == 0
    assert drift.psi([50, 50], [500, 500]) == (0, 1)


def test_psi_of_small_samples_is_not_chance():
    """Less what chance gives it is about 0 in the mean, where 0.2 would stand."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(500):
        here, there = rng.multinomial(50, [0.1] * 10), rng.multinomial(500, [0.1] * 10)
        found.append(drift.psi(here.tolist(), there.tolist())[0])
    assert np.mean(found) < 0.05
    assert drift.psi([0] * 9 + [50], [50] * 10)[0] > 2  # an empty bin has a logarithm


@pytest.mark.parametrize(("images", "of"), [(55, 200), (55, 1000), (120, 500)])
def test_false_alarms(images, of):
    """Nothing has changed: all numbers together raise an alarm in at most 1 % of the periods.

    Where 20 % are allowed, some are raised: the rate is one, and not that nothing is ever found.
    """
    rng = random.Random(images + of)
    strict = loose = periods = 0
    for _ in range(40):
        there = reference(site(rng, of))
        for _ in range(50):
            seen = site(rng, images)
            strict += bool(drifted(drift.compare(seen, there)))
            loose += bool(drifted(drift.compare(seen, there, 0.2)))
            periods += 1
    chance = 3 * math.sqrt(0.01 * 0.99 / periods)
    assert strict / periods <= 0.01 + chance
    assert 0.01 < loose / periods <= 0.2


def test_false_alarms_of_a_station_that_looks_again_and_again():
    """Of the newest images, every twenty: spells of alarm in 30 000 images without a change."""
    spells = 0
    for seed in range(3):
        rng = random.Random(seed)
        there, seen, before = reference(site(rng, 800)), site(rng, 10_000), False
        for end in range(60, len(seen), 20):
            newest = seen[max(0, end - drifting.IMAGES) : end]
            now = bool(drifted(drift.compare(newest, there, drifting.ALARMS)))
            spells += now and not before
            before = now
    assert spells <= 4


@pytest.mark.parametrize(("darker", "images", "found"), [(1.0, 100, 0.95), (0.75, 200, 0.9)])
def test_what_is_found(validation, darker, images, found):
    rng = random.Random(9)
    hits = sum(
        "brightness" in drifted(drift.compare(site(rng, images, darker=darker), validation))
        for _ in range(100)
    )
    assert hits / 100 >= found


def test_images_that_are_darker(validation):
    found = drift.compare(site(random.Random(2), 212, darker=1.2), validation)
    assert drifted(found) == {"brightness"}
    first = found[0]
    assert (first.name, first.shift, first.is_large, first.images) == (
        "brightness",
        "lower",
        True,
        212,
    )
    assert first.quantiles[2] == pytest.approx(120 - 13 * 1.2, abs=4)
    said = drift.sentence("Week 46 of 2026", found)
    assert said == (
        "Week 46 of 2026: images are darker than those that the model was validated on "
        f"(brightness, PSI {first.psi:.2f} of 212 images): have the machine's exposure checked "
        "before relying on answers."
    )
    brighter = drift.compare(site(random.Random(2), 212, darker=-1.2), validation)
    assert "images are brighter than" in drift.sentence("x", brighter)


def test_patients_who_are_more_often_ill(validation):
    found = drift.compare(site(random.Random(4), 300, ill=0.7), validation)
    assert drifted(found) == {f"probability of {LABEL}", f"decision on {LABEL}"}
    said = drift.sentence("x", found)
    assert f"the model gives a higher probability of {LABEL} than" in said
    assert f"also decision on {LABEL}" in said
    decision = next(each for each in found if each.kind == "decision")
    assert decision.shares["positive"] > decision.expected["positive"]
    assert sum(decision.shares.values()) == pytest.approx(1)


def test_what_is_turned_away(validation):
    found = drift.compare(site(random.Random(5), 120, rejected=0.25), validation)
    assert drifted(found) == {"turned away: not-like-training"}
    said = drift.sentence("x", found)
    assert "more images are turned away as not-like-training than of those" in said
    assert "look at what is sent" in said
    other = drift.compare(site(random.Random(5), 120, code="inverted", rejected=0.1), validation)
    assert drifted(other) == {"turned away: inverted"}
    fewer = drift.compare(site(random.Random(5), 500, rejected=0.0), validation)
    assert drifted(fewer) == set()


def test_files_that_are_not_whole(validation):
    seen = site(random.Random(6), 100)
    broken = [
        msgspec.structs.replace(each, status="error", code="input-truncated") for each in seen
    ]
    found = drift.compare(seen + broken[:20], validation)
    assert drifted(found) == {"turned away: error"}
    assert "more images cannot be read as whole images" in drift.sentence("x", found)


def test_a_few_in_a_hundred_are_no_alarm(validation):
    """A share that is surely larger, and hardly: 3 % of 4000 instead of 0."""
    seen = site(random.Random(7), 4000, rejected=0.03, code="inverted")
    assert "turned away: inverted" not in drifted(drift.compare(seen, validation))


def test_a_small_shift_of_many_images_is_no_alarm(validation):
    found = drift.compare(site(random.Random(8), 5000, darker=0.15), validation)
    brightness = next(each for each in found if each.name == "brightness")
    assert brightness.p is not None
    assert brightness.p < 1e-4
    assert not brightness.is_drift


def test_too_few(validation):
    (period,) = drift.report(
        {"a.jsonl": site(random.Random(1), drift.FEWEST - 1, darker=9)}, bundle(validation)
    ).periods
    assert period.status == "too few"
    assert period.sentence == ("a.jsonl: too few images to say anything (49, and 50 are needed).")
    assert {each.psi for each in period.comparisons} == {None}
    (period,) = drift.report(
        {"a.jsonl": site(random.Random(1), drift.FEWEST, darker=9)}, bundle(validation)
    ).periods
    assert period.status == "drift"


def test_no_drift_names_what_was_compared(validation):
    seen = [msgspec.structs.replace(each, measured={}) for each in site(random.Random(1), 90)]
    (period,) = drift.report({"a.csv": seen}, bundle(validation)).periods
    assert period.sentence == (
        f"a.csv: 90 images, no drift found in probability of {LABEL}, decision on {LABEL}, or in "
        "what is turned away."
    )


def test_periods(validation):
    rng = random.Random(1)
    times = ("2026-01-01T10:00:00Z", "2025-12-29T23:59:59.999Z", "2026-01-05T00:00:00Z")
    seen = [each for time in times for each in site(rng, 60, time=time)]
    by_week = drift.report({"x": seen}, bundle(validation))
    assert [(each.name, each.images) for each in by_week.periods] == [
        ("Week 1 of 2026", 120),
        ("Week 2 of 2026", 60),
    ]
    by_day = drift.report({"x": seen}, bundle(validation), by="day")
    assert [each.name for each in by_day.periods] == ["2025-12-29", "2026-01-01", "2026-01-05"]
    of_files = drift.report({"b": site(rng, 60), "a": site(rng, 60)}, bundle(validation))
    assert [each.name for each in of_files.periods] == ["b", "a"]


def test_what_is_left_out(validation):
    rng = random.Random(1)
    seen = site(rng, 60)
    other = Model("phantom", "0.9", "cd" * 32)
    old = [msgspec.structs.replace(each, model=other) for each in site(rng, 70, rejected=0)]
    int8 = [
        msgspec.structs.replace(each, artifact="model.int8.onnx")
        for each in site(rng, 20, rejected=0)
    ]
    found = drift.report({"x": [*old, *seen, *int8]}, bundle(validation))
    assert found.left_out == {
        f"answered by another bundle, phantom 0.9 ({'cd' * 8})": 70,
        "answered by model.int8.onnx, not by model.onnx": 20,
    }
    assert [each.images for each in found.periods] == [60]


def test_a_site_profiles_probabilities_are_not_the_bundles(validation):
    seen = [
        msgspec.structs.replace(each, adapted=True)
        for each in site(random.Random(1), 200, ill=0.9, darker=1.5)
    ]
    (period,) = drift.report({"x": seen}, bundle(validation)).periods
    assert period.adapted == 200
    assert drifted(period.comparisons) == {"brightness"}


def test_decisions_under_a_risk_are_not_the_bundles(validation):
    """Their probabilities are, which tell that twice as many are ill."""
    plain = site(random.Random(1), 200, ill=0.9)
    both = {f"probability of {LABEL}", f"decision on {LABEL}"}
    assert drifted(drift.compare(plain, validation)) == both
    seen = [msgspec.structs.replace(each, at_risk=True) for each in plain]
    (period,) = drift.report({"x": seen}, bundle(validation)).periods
    assert period.at_risk == 200
    assert period.adapted == 0
    assert drifted(period.comparisons) == {f"probability of {LABEL}"}


def test_no_reference(validation):
    with pytest.raises(ReferenceMissing, match="phantom does not say how the images"):
        drift.report({}, bundle(msgspec.UNSET))
    seen = [
        msgspec.structs.replace(each, artifact="other.onnx")
        for each in site(random.Random(1), 60, rejected=0)
    ]
    with pytest.raises(ReferenceMissing, match=r"looked to other\.onnx"):
        drift.report({"x": seen}, bundle(validation))


def test_equal_values_and_fine_bins():
    """A number that is nearly always the same has one bin; a hundred bins are joined to ten."""
    seen = site(random.Random(1), 200)
    same = Reference(200, {"brightness": Histogram((0.0, 255.0), (200,))}, {})
    (found, *_) = [each for each in drift.compare(seen, same) if each.kind == "looks"]
    assert (found.psi, found.is_drift) == (None, False)
    edges = tuple(float(each) for each in range(60, 181))
    values = [each.measured["brightness"] or 0.0 for each in site(random.Random(2), 900)]
    counts = np.histogram(values, edges)
    fine = Reference(900, {"brightness": Histogram(edges, tuple(counts[0].tolist()))}, {})
    (found, *_) = [each for each in drift.compare(seen, fine) if each.kind == "looks"]
    assert found.psi is not None
    assert found.psi < 0.1
    assert found.p is not None
    assert found.p > 1e-3
    dark = drift.compare(site(random.Random(3), 200, darker=12), fine)
    assert "brightness" in drifted(dark)  # beyond every edge


def test_several_classes():
    """A multiclass model: the answered label is the decision of each finding."""
    rng = random.Random(1)

    def classes(weights: list[float], count: int) -> list:
        chosen = rng.choices(["a", "b", "c"], weights, k=count)
        return [
            msgspec.structs.replace(
                each, findings=tuple(Finding(name, 0.3, label) for name in ("a", "b", "c"))
            )
            for each, label in zip(site(rng, count, rejected=0), chosen, strict=True)
        ]

    there = reference(classes([0.6, 0.395, 0.005], 800))
    assert drifted(drift.compare(classes([0.6, 0.395, 0.005], 200), there)) == set()
    found = drift.compare(classes([0.2, 0.5, 0.3], 200), there)
    assert {f"decision on {each}" for each in "abc"} == drifted(found)


def test_many_records_are_quick(validation):
    import time

    seen = site(random.Random(1), 20_000)
    began = time.process_time()
    assert {each.name for each in drift.compare(seen, validation)} >= NAMES
    assert time.process_time() - began < 5
