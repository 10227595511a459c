"""Two tables of answers: which images count, and every difference found otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from medimg_edge.errors import DataInvalid, TooFewImages
from medimg_edge.manifest import Task
from medimg_export import metrics
from medimg_export.answers import answers_of
from medimg_export.comparison import ANSWER, common, p_value, table
from medimg_export.paired import delong
from tests.export.answered import answers, compared

# --- which images ---


def test_images_are_paired_by_name_and_others_left_out():
    a, b = answers(), answers(seed=1)
    shuffled = np.random.default_rng(3).permutation(90)
    found = compared(a.rows(np.arange(80)), b.rows(shuffled[shuffled >= 10]))
    assert (found.n, found.a.left_out, found.b.left_out) == (70, 10, 10)
    whole = compared(a.rows(np.arange(10, 80)), b.rows(np.arange(10, 80)))
    assert found.findings == whole.findings
    assert found.disagreements == whole.disagreements


def test_groups_are_those_of_whichever_has_them():
    plain, grouped = answers(), answers(seed=1, groups=9)
    for a, b in ((plain, grouped), (grouped, plain)):
        found = compared(a, b)
        assert found.groups == 9
        assert "independent" in found.notes[0]
    assert compared(plain, plain).groups is None
    assert compared(plain, plain).notes == ()
    assert compared(answers(groups=90), plain).notes == ()  # a patient has one image each


def test_patients_that_are_told_otherwise_are_those_of_a_and_it_is_said():
    a, b = answers(groups=30), answers(seed=1, groups=9)
    found = compared(a, b)
    assert found.groups == 30
    assert found.notes[1].startswith("A and B tell other images to be of one patient")
    assert found.findings == compared(a, answers(seed=1)).findings
    b = answers(seed=1, groups=30)
    renamed = replace(b, groups=[f"person {group}" for group in b.groups or []])
    assert len(compared(a, renamed).notes) == 1  # the same patients under other names


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_the_prevalence_of_every_label_is_told(task: Task):
    found = compared(answers(task), answers(task, seed=1))
    expected = [float(column.truth.mean()) for column in answers(task).columns]
    assert list(found.prevalence.values()) == expected
    assert list(found.prevalence) == list(found.labels[-len(expected) :])


def test_what_cannot_be_compared_is_refused_in_words():
    a = answers()
    with pytest.raises(DataInvalid, match=r"A is binary \(normal, ill\), B is multiclass"):
        common(a, answers("multiclass"))
    swapped = answers_of("binary", ("ill", "normal"), a.names, None, a.y, a.p, None)
    with pytest.raises(DataInvalid, match=r"B is binary \(ill, normal\)"):
        common(a, swapped)
    other = answers_of("binary", a.labels, [f"x{name}" for name in a.names], None, a.y, a.p, None)
    with pytest.raises(TooFewImages, match=r"A has 0\.png, 1\.png and 88 more, B has x0\.png"):
        common(a, other)
    y = a.y.copy()
    y[[4, 7]] = 1 - y[[4, 7]]
    changed = answers_of("binary", a.labels, a.names, None, y, a.p, None)
    with pytest.raises(DataInvalid, match=r"for 2 of 90 common images: 4\.png \('ill' and 'norma"):
        common(a, changed)


# --- what differs ---


def test_binary_differences_are_those_of_the_metrics():
    a, b = answers(groups=30), answers(seed=1, groups=30)
    found = compared(a, b)
    (finding,) = found.findings
    of = [
        metrics.evaluate("binary", a.labels, x.y, x.p, thresholds={"ill": limit}, bootstrap=0)
        for x, limit in ((a, 0.4), (b, 0.5))
    ]
    for name, change in finding.values.items():
        one, other = (each.values[name].value for each in of)
        assert one is not None
        assert other is not None
        assert (change.a, change.b) == (one, other)
        assert change.difference.value == pytest.approx(other - one)
    gain = metrics.paired_auc_loss("binary", a.y, b.p, a.p, a.groups, bootstrap=200)
    auc = finding.values["auc"].difference
    assert (auc.value, auc.low, auc.high) == pytest.approx(gain)
    assert finding.delong == delong(a.y == 1, a.p[:, 0], b.p[:, 0])
    assert finding.prevalence == np.mean(a.y)


def test_mcnemar_is_of_all_of_positives_and_of_negatives():
    a, b = answers(), answers(seed=1)
    tests = compared(a, b).findings[0].mcnemar
    has = a.y == 1
    right_a, right_b = a.called[:, 0] == has, b.called[:, 0] == has
    for name, rows in (("accuracy", has | ~has), ("sensitivity", has), ("specificity", ~has)):
        assert tests[name].n == rows.sum()
        assert tests[name].only_a == (right_a & ~right_b)[rows].sum()
        assert tests[name].only_b == (right_b & ~right_a)[rows].sum()


def test_multilabel_is_each_label_for_itself():
    a, b = answers("multilabel"), answers("multilabel", seed=1)
    found = compared(a, b)
    assert [of.label for of in found.findings] == ["a", "b", "c"]
    for i, of in enumerate(found.findings):
        one, other = (
            answers_of("binary", ("no", "yes"), x.names, None, x.y[:, i], x.p[:, i], {"yes": limit})
            for x, limit in ((a, 0.4), (b, 0.5))
        )
        (expected,) = compared(one, other).findings
        assert (of.values, of.delong, of.mcnemar) == (
            expected.values,
            expected.delong,
            expected.mcnemar,
        )


def test_multiclass_is_the_answer_right_or_wrong():
    a, b = answers("multiclass"), answers("multiclass", seed=1)
    found = compared(a, b)
    (finding,) = found.findings
    right_a, right_b = (x.p.argmax(axis=1) == x.y for x in (a, b))
    assert finding.label == ANSWER
    assert finding.delong is None
    assert list(finding.mcnemar) == ["accuracy"]
    assert finding.mcnemar["accuracy"].only_a == (right_a & ~right_b).sum()
    assert finding.values["accuracy"].difference.value == pytest.approx(
        right_b.mean() - right_a.mean()
    )
    gain = metrics.paired_auc_loss("multiclass", a.y, b.p, a.p, bootstrap=200)
    auc = finding.values["auc"].difference
    assert (auc.value, auc.low, auc.high) == pytest.approx(gain)
    for each in found.disagreements:
        row = a.names.index(each.name)
        assert each.a == a.labels[a.p[row].argmax()] != each.b == b.labels[b.p[row].argmax()]
        assert each.right == ("a" if right_a[row] else "b" if right_b[row] else "neither")
    assert {each.right for each in found.disagreements} == {"a", "b", "neither"}


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_a_model_does_not_differ_from_itself(task: Task):
    found = compared(answers(task), answers(task))
    assert found.disagreements == ()
    for of in found.findings:
        assert all(change.difference.value == 0 for change in of.values.values())
        assert all(
            change.difference.low == change.difference.high == 0 for change in of.values.values()
        )
        assert all(test.p == 1 for test in of.mcnemar.values())


def test_disagreements_are_named():
    a, b = answers(), answers(seed=1)
    found = compared(a, b)
    apart = np.flatnonzero(a.called[:, 0] != b.called[:, 0])
    assert [each.name for each in found.disagreements] == [a.names[row] for row in apart]
    for each, row in zip(found.disagreements, apart, strict=True):
        assert (each.p_a, each.p_b) == (a.p[row, 0], b.p[row, 0])
        assert each.truth == ("positive" if a.y[row] else "negative")
        assert each.right == ("a" if each.a == each.truth else "b")


# --- for people ---


def test_the_table_has_differences_with_their_signs():
    rows = table(compared(answers(), answers(seed=1)))
    auc = rows[0]
    assert auc[0] == "AUC"
    assert float(auc[2]) - float(auc[1]) == pytest.approx(float(auc[3]), abs=2e-4)
    assert auc[3][0] in "+-"
    assert auc[4].count(" to ") == 1
    assert auc[5].endswith("DeLong")
    assert [row[0] for row in rows if row[5].endswith("McNemar")] == [
        "accuracy",
        "sensitivity",
        "specificity",
    ]
    several = [row[0] for row in table(compared(answers("multilabel"), answers("multilabel")))]
    assert {"a: AUC", "c: ECE"} <= set(several)


def test_one_class_alone_has_no_auc_and_no_delong():
    rows = np.flatnonzero(answers().y == 0)
    found = compared(answers().rows(rows), answers(seed=1).rows(rows))
    (finding,) = found.findings
    assert finding.delong is None
    assert finding.values["auc"].difference.value is None
    assert p_value(finding, "auc") == ""
    assert (finding.mcnemar["sensitivity"].n, finding.mcnemar["sensitivity"].p) == (0, None)
    assert p_value(finding, "sensitivity") == "undefined"
    assert p_value(finding, "specificity").endswith(" McNemar")
    assert table(found)[0][1:5] == ("undefined", "undefined", "undefined", "")
