import json

import msgspec
import numpy as np
import pytest
from sklearn import metrics as sk

from medimg_edge.errors import DataInvalid, NotFinite, TooFewImages
from medimg_export.calibration import ece
from medimg_export.metrics import (
    NAMES,
    Counts,
    Estimate,
    auc,
    evaluate,
    on_intervals,
    paired_auc_loss,
    table,
)

LABELS = ("normal", "ill")
# Eight images, counted by hand at p >= 0.5: 3 found, 1 missed, 1 false alarm, 3 rightly none.
Y = np.array([0, 0, 0, 0, 1, 1, 1, 1])
P = np.array([0.1, 0.2, 0.4, 0.7, 0.3, 0.5, 0.8, 0.9], dtype=np.float32)


def _table(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(int)
    return y, np.clip(np.round(0.3 * y + rng.random(n) * 0.7, 2), 0, 1)


def _width(of: Estimate) -> float:
    assert of.low is not None
    assert of.high is not None
    return of.high - of.low


def _three(of: Estimate) -> tuple[float | None, float | None, float | None]:
    return of.value, of.low, of.high


def test_hand_counted_binary_table():
    found = evaluate("binary", LABELS, Y, P, bootstrap=0)
    assert found.counts == {"ill": Counts(tp=3, fp=1, fn=1, tn=3)}
    assert found.confusion == ((3, 1), (1, 3))
    assert found.prevalence == {"ill": 0.5}
    assert found.thresholds == {"ill": 0.5}
    values = {name: estimate.value for name, estimate in found.values.items()}
    assert values["auc"] == 13 / 16  # .3 loses to .4 and .7, .5 to .7
    assert values["average_precision"] == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)
    for name in ("accuracy", "sensitivity", "specificity", "ppv", "npv", "f1"):
        assert values[name] == 0.75
    assert values["ece"] == pytest.approx(ece(P, Y))


def test_a_score_on_the_threshold_is_positive():
    at = evaluate("binary", LABELS, Y, P, thresholds={"ill": float(P[5])}, bootstrap=0)
    above = evaluate("binary", LABELS, Y, P, thresholds={"ill": float(P[5]) + 1e-6}, bootstrap=0)
    assert (at.counts["ill"].tp, above.counts["ill"].tp) == (3, 2)


def test_one_column_and_none_are_the_same():
    assert evaluate("binary", LABELS, Y, P[:, None]) == evaluate("binary", LABELS, Y, P)


def test_multiclass_against_scikit_learn():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 4, 200)
    p = rng.dirichlet(np.ones(4), 200) * 0.6 + 0.4 * np.eye(4)[y] * rng.random((200, 1))
    p /= p.sum(axis=1, keepdims=True)
    labels = ("a", "b", "c", "d")
    found = evaluate("multiclass", labels, y, p, bootstrap=20)
    answer = p.argmax(axis=1)
    expected = {
        "auc": sk.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "average_precision": sk.average_precision_score(np.eye(4)[y], p, average="macro"),
        "accuracy": sk.accuracy_score(y, answer),
        "balanced_accuracy": sk.balanced_accuracy_score(y, answer),
        "f1": sk.f1_score(y, answer, average="macro"),
        "ece": ece(p.max(axis=1), answer == y),
    }
    assert {name: of.value for name, of in found.values.items()} == pytest.approx(expected)
    matrix = sk.confusion_matrix(y, answer)
    assert found.confusion == tuple(map(tuple, matrix.tolist()))
    assert found.thresholds is None
    for index, label in enumerate(labels):
        right, of = matrix[index, index], found.per_label[label]
        assert of["sensitivity"].value == right / (y == index).sum()
        assert of["ppv"].value == right / (answer == index).sum()
    assert auc("multiclass", y, p) == found.values["auc"].value


def test_multilabel_is_the_mean_of_its_labels():
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, (150, 3))
    p = np.clip(0.3 * y + 0.7 * rng.random((150, 3)), 0, 1)
    limits = {"a": 0.3, "b": 0.5, "c": 0.7}
    found = evaluate("multilabel", tuple(limits), y, p, thresholds=limits, bootstrap=50)
    assert found.confusion is None
    for index, (label, limit) in enumerate(limits.items()):
        alone = evaluate(
            "binary", ("no", label), y[:, index], p[:, index], thresholds={label: limit},
            bootstrap=50,
        )  # fmt: skip
        assert found.per_label[label] == alone.values
        assert found.counts[label] == alone.counts[label]
    for name, estimate in found.values.items():
        of_labels = [of[name].value or 0 for of in found.per_label.values()]
        assert estimate.value == pytest.approx(np.mean(of_labels))
        assert _width(estimate) > 0
    assert auc("multilabel", y, p) == pytest.approx(sk.roc_auc_score(y, p, average="macro"))


def test_a_label_without_positives_does_not_spoil_the_mean():
    y = np.stack([Y, np.zeros_like(Y)], axis=1)
    p = np.stack([P, P], axis=1)
    found = evaluate("multilabel", ("a", "b"), y, p, bootstrap=2000)
    assert found.per_label["b"]["auc"] == Estimate(None)
    assert found.values["auc"].value == found.per_label["a"]["auc"].value == 13 / 16
    assert 4 < found.resampling.one_class < 35  # 2 * (1/2)^8 of 2000 is 16
    assert auc("multilabel", y, p) == 13 / 16


def test_what_is_undefined_is_none_and_never_nan():
    found = evaluate("binary", LABELS, np.zeros(5, int), np.full(5, 0.1), bootstrap=50)
    for name in ("auc", "average_precision", "sensitivity", "ppv", "f1"):
        assert found.values[name] == Estimate(None)
    assert found.values["specificity"].value == 1
    assert ("AUC", "undefined", "") in table(found)
    text = msgspec.json.encode(found).decode()
    assert "NaN" not in text
    assert json.loads(text)["values"]["ppv"] == {"value": None, "low": None, "high": None}


def test_rates_of_0_and_1_have_wilsons_interval_for_their_patients():
    """10 of 10 patients: 10 / (10 + 1.96²) = .722 to 1 (Wilson 1927); two images of each."""
    y = np.repeat([0, 1], 20)
    p = np.repeat([0.9, 0.8], 20)  # every image is called: nothing is rightly none
    groups = [str(i // 2) for i in range(40)]
    found = evaluate("binary", LABELS, y, p, groups=groups, bootstrap=100).values
    assert _three(found["sensitivity"]) == pytest.approx((1, 0.7225, 1), abs=1e-4)
    assert _three(found["specificity"]) == pytest.approx((0, 0, 0.2775), abs=1e-4)
    assert found["npv"] == Estimate(None)
    by_image = evaluate("binary", LABELS, y, p, bootstrap=100).values
    assert by_image["sensitivity"].low == pytest.approx(0.8389, abs=1e-4)  # 20 of 20
    without = evaluate("binary", LABELS, y, p, bootstrap=0).values
    assert without["sensitivity"] == Estimate(1.0)


def test_rates_between_0_and_1_keep_the_bootstraps_interval():
    found = evaluate("binary", LABELS, Y, P).values
    assert [(of.low, of.high) for of in map(found.get, ("sensitivity", "npv")) if of] == [
        (0.25, 1.0),
        (0.25, 1.0),
    ]


def test_what_no_resample_changes_has_no_interval_and_says_why():
    y = np.repeat([0, 1], 20)
    found = evaluate("binary", LABELS, y, 0.2 + 0.6 * y, bootstrap=100)
    assert found.values["auc"] == found.values["average_precision"] == Estimate(1.0)
    assert found.values["f1"] == Estimate(1.0)
    assert ("AUC", "1.000", "") in table(found)
    wilson, fixed = on_intervals(found)
    assert wilson.startswith("Rates of 0 or 1")
    assert fixed.startswith("No interval (AUC, average precision, F1")
    assert on_intervals(evaluate("binary", LABELS, Y, P, bootstrap=100)) == []
    assert on_intervals(evaluate("binary", LABELS, y, 0.2 + 0.6 * y, bootstrap=0)) == []


def test_rates_of_multiclass_are_those_of_the_answer_and_means_have_none():
    y = np.arange(30) % 3
    found = evaluate("multiclass", "abc", y, 0.1 + 0.7 * np.eye(3)[y], bootstrap=100)
    assert _three(found.values["accuracy"]) == pytest.approx((1, 0.8865, 1), abs=1e-4)
    assert found.values["balanced_accuracy"] == Estimate(1.0)
    assert found.per_label["b"]["sensitivity"].low == pytest.approx(0.7225, abs=1e-4)


def test_metrics_survive_json():
    found = evaluate("binary", LABELS, *_table(), bootstrap=20, groups=["g"] * 150 + ["h"] * 150)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found
    assert found.groups == 2
    assert set(found.values) == set(NAMES) - {"balanced_accuracy"}


def test_intervals_are_reproducible_and_follow_the_seed():
    y, p = _table()
    first = evaluate("binary", LABELS, y, p, seed=3)
    assert first == evaluate("binary", LABELS, y, p, seed=3)
    assert first.values["auc"].low != evaluate("binary", LABELS, y, p, seed=4).values["auc"].low


def test_the_auc_interval_covers_the_truth_about_as_often_as_it_says():
    """Scores N(1, 1) against N(0, 1): the AUC is Phi(1 / sqrt 2) = .7602."""
    rng = np.random.default_rng(5)
    y = np.repeat([0, 1], 60)
    inside = 0
    for seed in range(100):
        p = 1 / (1 + np.exp(-(y + rng.normal(size=120))))
        found = evaluate("binary", LABELS, y, p, bootstrap=200, seed=seed).values["auc"]
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.7602 <= found.high
    assert 88 <= inside <= 99


def test_duplicated_patients_do_not_narrow_the_interval():
    y, p = _table(80)
    many_y, many_p = np.tile(y, 9), np.tile(p, 9)
    patients = [str(i) for i in np.tile(np.arange(80), 9)]

    def width(y, p, groups=None) -> float:
        return _width(evaluate("binary", LABELS, y, p, groups=groups).values["auc"])

    assert width(many_y, many_p, patients) == pytest.approx(width(y, p), rel=0.15)
    assert width(many_y, many_p) < 0.45 * width(y, p)  # 1/3 in theory


def test_one_group_gives_values_without_intervals():
    found = evaluate("binary", LABELS, *_table(20), groups=["all"] * 20)
    assert found.resampling.resamples == 0
    assert all(of.low is None for of in found.values.values())


def test_table_rows():
    rows = table(evaluate("binary", LABELS, Y, P, bootstrap=100))
    assert rows[0][:2] == ("AUC", "0.812")
    assert all(" to " in interval for _, _, interval in rows)
    p = np.eye(3)[[0, 1, 2]]
    names = [name for name, _, _ in table(evaluate("multiclass", "abc", [0, 1, 2], p))]
    assert names[0] == "AUC"
    assert "b: sensitivity" in names


@pytest.mark.parametrize(
    ("task", "y", "p", "error"),
    [
        ("binary", [], [], TooFewImages),
        ("binary", [0, 2], [0.1, 0.2], DataInvalid),
        ("binary", [0, 1], [0.1, np.nan], NotFinite),
        ("binary", [0, 1, 1], [0.1, 0.2], DataInvalid),
        ("multiclass", [0, 3], np.eye(2), DataInvalid),
        ("multilabel", [0, 1], np.eye(2), DataInvalid),
    ],
)
def test_tables_that_do_not_fit_are_refused(task, y, p, error):
    with pytest.raises(error):
        evaluate(task, LABELS, y, p)


@pytest.mark.parametrize("y", [[0, 0], [1, 1]])
def test_auc_of_one_class_is_refused(y):
    with pytest.raises(TooFewImages):
        auc("binary", y, [0.2, 0.3])


def test_paired_loss_sees_only_the_difference():
    y, p = _table()
    noise = np.random.default_rng(9).normal(size=len(y))
    assert paired_auc_loss("binary", y, p, p / 2) == (0.0, 0.0, 0.0)  # the same ranks
    loss, low, high = paired_auc_loss("binary", y, p, p + 0.01 * noise)
    assert low < 0 < high
    assert high - low < 0.02  # an unpaired interval would be about 0.1 wide
    loss, low, high = paired_auc_loss("binary", y, p, p + noise)
    assert 0 < low < loss < high
    assert loss == pytest.approx(sk.roc_auc_score(y, p) - sk.roc_auc_score(y, p + noise))


def test_paired_loss_knows_when_it_knows_nothing():
    y, p = _table(30)
    assert paired_auc_loss("binary", y, p, p, groups=["one"] * 30)[1:] == (-1.0, 1.0)


def test_what_most_resamples_lack_has_no_interval():
    """Three labels with one positive each: a resample has all of them in a quarter of cases."""
    y = np.vstack([np.eye(3, dtype=int), np.zeros((20, 3), int)])
    p = np.random.default_rng(0).random(y.shape)
    found = evaluate("multilabel", ("a", "b", "c"), y, p)
    assert all(of["auc"].low is not None for of in found.per_label.values())
    assert found.values["auc"].value == pytest.approx(auc("multilabel", y, p))
    assert found.values["auc"].low is None
    assert paired_auc_loss("multilabel", y, p, p) == (0.0, -1.0, 1.0)
