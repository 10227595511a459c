"""How validation looked, as bins that a site's numbers are put into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medimg_edge.bundle import Bundle
from medimg_edge.errors import NotLikeTraining
from medimg_edge.record import Answer, Finding, Measured, Model, failure
from medimg_export.reference import histogram, reference

FROZEN = Path(__file__).parent.parent / "data" / "frozen-bundle"


def answer(p: float, brightness: float) -> Answer:
    return Answer(
        input="a",
        findings=(Finding("opacity", p, "positive" if p > 0.5 else "negative"),),
        label="opacity",
        probability=p,
        decision="positive" if p > 0.5 else "negative",
        artifact="model.onnx",
        runtime="r",
        model=Model("n", "1", "0" * 64),
        elapsed_ms=1.0,
        measured=Measured(brightness=brightness, contrast=2.0, sharpness=3.0),
    )


def test_it_counts_what_the_records_say():
    rejected = NotLikeTraining("It is another thing.")
    rejected.measured = Measured(brightness=250.0, contrast=2.0, sharpness=3.0, novelty=3.0)
    records = [answer(p, 100 + p) for p in np.linspace(0, 1, 40)] + [failure("b", rejected)]
    found = reference(Bundle.open(FROZEN).manifest, records)
    assert found.images == 41
    assert found.decisions == {"opacity": {"negative": 20, "positive": 20}}
    assert found.codes == {"not-like-training": 1}
    assert sum(found.numbers["probability of opacity"].counts) == 40
    assert sum(found.numbers["brightness"].counts) == 41
    assert found.numbers["brightness"].edges[-1] == 250
    assert sum(found.numbers["novelty"].counts) == 1


@pytest.mark.parametrize("count", [1, 2, 10, 784])
def test_bins_hold_about_as_many_each(count):
    values = np.random.default_rng(0).normal(size=count).tolist()
    found = histogram(values)
    assert sum(found.counts) == count
    assert len(found.edges) == len(found.counts) + 1
    assert [*found.edges] == sorted(found.edges)
    if count > 100:
        assert max(found.counts) - min(found.counts) <= 2


def test_equal_numbers_have_fewer_bins():
    found = histogram([0.0] * 90 + [1.0] * 10)
    assert sum(found.counts) == 100
    assert len(found.counts) < 10
