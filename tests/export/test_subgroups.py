"""Subgroups by name: who is in one, and what is measured of it against whom."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medimg_edge.errors import DataInvalid
from medimg_export import metrics
from medimg_export.subgroups import evaluate, subgroups_of

NAMES = ["test/P/person1_bacteria_1.jpeg", "test/P/person1_virus_2.jpeg", "test/N/IM-0001.jpeg"]
LABELS = ("normal", "ill")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (r"person\d+_(bacteria|virus)", ["bacteria", "virus", None]),
        (r"/([NP])/.*(1)", ["P", "P", "N"]),  # the first parenthesis
        (r"(?:person|IM-)(\d+)", ["1", "1", "0001"]),
        (r"_(virus)?", [None, "virus", None]),  # one that takes no part tells nothing
    ],
)
def test_the_first_parenthesis_tells_the_subgroup(pattern: str, found: list[str | None]):
    assert subgroups_of(NAMES, pattern) == found


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(bacteria", "is not a regular expression"),
        ("bacteria|virus", "has no parenthesis"),
        ("_(x)?", "for none of 3 names"),
        ("(fungus)", r"for none of 3 names, such as test/P/person1_bacteria_1\.jpeg"),
    ],
)
def test_a_pattern_that_tells_nothing_is_refused_in_words(pattern: str, message: str):
    with pytest.raises(DataInvalid, match=message):
        subgroups_of(NAMES, pattern)


def binary() -> tuple[np.ndarray, np.ndarray, list[str | None]]:
    """60 images: the ill ones of two germs, the healthy ones of no subgroup."""
    y = np.arange(60) % 2
    p = np.clip(0.3 * y + 0.7 * np.random.default_rng(0).random(60), 0, 1)
    germs = [("virus" if i % 6 == 1 else "bacteria") if y[i] else None for i in range(60)]
    return y, p, germs


def test_positives_alone_are_measured_against_all_negatives():
    y, p, germs = binary()
    groups = [str(i // 3) for i in range(60)]
    found = evaluate(
        "binary", LABELS, y, p, germs, thresholds={"ill": 0.4}, groups=groups, bootstrap=200
    )
    assert list(found) == ["bacteria", "virus"]
    for name, of in found.items():
        own = np.array([germ == name for germ in germs])
        assert (of.n, of.against) == (own.sum(), 30)
        assert of.groups == len({groups[i] for i in np.flatnonzero(own)})
        assert of.prevalence == {"ill": 1.0}
        assert set(of.values) == {"auc", "sensitivity"}
        rows = own | (y == 0)
        auc, sensitivity = of.values["auc"], of.values["sensitivity"]
        assert auc.value == pytest.approx(roc_auc_score(y[rows], p[rows]))
        assert sensitivity.value == np.mean(p[own] >= 0.4)
        for estimate in (auc, sensitivity):
            assert None not in (estimate.low, estimate.high)
            assert estimate.low <= estimate.value <= estimate.high  # pyright: ignore
    assert {of.n for of in found.values()} == {10, 20}


def test_negatives_alone_are_measured_against_all_positives():
    y, p, germs = binary()
    found = evaluate("binary", LABELS, 1 - y, 1 - p, germs, thresholds={"ill": 0.6}, bootstrap=50)
    virus = found["virus"]
    own = np.array([germ == "virus" for germ in germs])
    assert set(virus.values) == {"auc", "specificity"}
    assert virus.values["specificity"].value == np.mean(1 - p[own] < 0.6)
    assert virus.groups is None


def test_a_subgroup_of_both_classes_has_the_usual_values():
    y, p, _ = binary()
    sites = ["east" if i < 20 else "west" for i in range(60)]
    found = evaluate("binary", LABELS, y, p, sites, thresholds={"ill": 0.4}, bootstrap=50)
    alone = metrics.evaluate(
        "binary", LABELS, y[:20], p[:20], thresholds={"ill": 0.4}, bootstrap=50
    )
    assert found["east"].values == alone.values
    assert (found["east"].n, found["east"].against, found["west"].n) == (20, 0, 40)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_other_tasks_have_the_usual_values(task):
    random = np.random.default_rng(1)
    y = random.integers(0, 3, 60) if task == "multiclass" else random.integers(0, 2, (60, 3))
    p = random.dirichlet(np.ones(3), 60)
    sites = ["east", "west", None] * 20
    found = evaluate(task, ("a", "b", "c"), y, p, sites, bootstrap=20)
    alone = metrics.evaluate(task, ("a", "b", "c"), y[1::3], p[1::3], bootstrap=20)
    assert found["west"].values == alone.values
    assert found["west"].prevalence == alone.prevalence
    rows = metrics.table(metrics.evaluate(task, ("a", "b", "c"), y, p, bootstrap=20))
    assert all("west" not in name for name, *_ in rows)
