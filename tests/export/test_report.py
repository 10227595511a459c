import base64
import re
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from medimg_edge.errors import WriteError
from medimg_edge.manifest import Task
from medimg_export import report_plots, selective, subgroups
from medimg_export.metrics import Estimate, Referral, evaluate, table
from medimg_export.report import Example, pick_examples, write_report
from tests.export.page import HOSTILE, Page


def _example(kind, name="a.png", overlay=True, C=1) -> Example:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 30, C), dtype=np.uint8)
    heat = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8) if overlay else None
    return Example(name, pixels, heat, "normal", "ill", 0.75, kind)


def _decode(source: str) -> np.ndarray:
    data = np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return image


def _write(path: Path, task: Task = "binary", **options) -> Page:
    rng = np.random.default_rng(0)
    labels: tuple[str, ...] = ("normal", "ill") if task == "binary" else ("a", "b", "c")
    if task == "multiclass":
        y = rng.integers(0, 3, 60)
        p = 0.7 * rng.dirichlet(np.ones(3), 60) + 0.3 * np.eye(3)[y]
    else:
        y = rng.integers(0, 2, 60 if task == "binary" else (60, 3))
        p = 0.4 * y + 0.6 * rng.random(y.shape)
    thresholds: dict[str, float] | None
    thresholds = None if task == "multiclass" else dict.fromkeys(labels, 0.45)
    arguments = {
        "title": "Chest",
        "subtitle_facts": [("model", "cxr 0.1.0")],
        "metrics": evaluate(task, labels, y, p, thresholds=thresholds, bootstrap=50),
        "task": task,
        "labels": labels,
        "y": y,
        "p": p,
        "thresholds": thresholds,
        "history": None,
        "examples": None,
        "notes": [],
    }
    write_report(path, **(arguments | options))
    return Page(path.read_text(encoding="utf-8"))


HISTORY = [
    {"epoch": 1, "stage": "head", "loss": 0.7, "val_loss": 0.6, "val_auc": 0.8},
    {"epoch": 2, "stage": "head", "loss": 0.5, "val_loss": None, "val_auc": 0.91},
    {"epoch": 1, "stage": "fine-tune", "loss": "0.4", "val_loss": "0.5", "val_auc": "0.9"},
]


def test_a_full_report_has_every_section(tmp_path):
    examples = [_example(kind) for kind in ("right", "wrong", "least sure")]
    page = _write(tmp_path / "r.html", history=HISTORY, examples=examples, notes=["A note."])
    sections = [of["id"] for tag, of in page.tags if tag == "section"]
    assert sections == [
        "metrics",
        "curves",
        "decisions",
        "coverage",
        "learning",
        "examples",
        "notes",
    ]
    for words in (
        "Decision support, not a diagnosis",
        "cxr 0.1.0",
        "average precision",
        "Confusion matrix",
        "observed rate",  # inside the figures, so their text is text
        "epoch; best 0.9100 after 2",
        "fine-tune",
        "Wrong, the surest first",
        "truth: normal",
        "A note.",
    ):
        assert words in page.words, words
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_the_epoch_that_was_kept_is_marked(tmp_path):
    page = _write(tmp_path / "r.html", history=HISTORY, keep="last")
    assert "epoch; last 0.9000 after 3" in page.words
    page = _write(tmp_path / "r.html", history=[*HISTORY, {"epoch": 2, "loss": 0.3}], keep="last")
    assert "epoch; last 0.9000 after 3" in page.words


def test_what_became_of_images_without_labels_is_drawn(tmp_path):
    terms = {"supervised": 0.3, "unsupervised": 0.1, "confident": 0.25}
    page = _write(tmp_path / "r.html", history=[*HISTORY[:2], HISTORY[2] | terms])
    parts = ("of labelled images", "of the others", "unlabelled images that counted")
    for words in parts:
        assert words in page.words, words
    without = _write(tmp_path / "without.html", history=HISTORY)
    assert not any(words in without.words for words in parts)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_numbers_of_the_page_are_those_of_the_metrics(tmp_path, task):
    page = _write(tmp_path / "r.html", task, groups=["g", "h", "i"] * 20)
    sections = {of["id"] for tag, of in page.tags if tag == "section"}
    assert ("labels" in sections) == (task != "binary")
    assert ("coverage" in sections) == (task != "multilabel")
    assert "learning" not in sections
    told = [label for label in page.values("aria-label") if label.startswith("ROC")]
    shown = re.search(r"\d\.\d{3}", told[0])
    assert shown is not None
    assert page.words.count(shown[0]) >= 2  # in the headline and in the table


def test_the_coverage_curve_ends_at_the_error_of_all(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    p = 0.4 * y + 0.6 * rng.random(60)
    page = _write(tmp_path / "r.html", y=y, p=p)
    error = f"{np.mean((p >= 0.45) != y):.3f}"
    (told,) = (label for label in page.values("aria-label") if "coverage" in label)
    assert told == f"Error against coverage, {error} where every image is answered"
    assert f"0%60{error}" in page.words  # the first row of the table
    assert "in logits" in page.words


@pytest.mark.filterwarnings("error")
def test_a_model_without_an_error_has_a_coverage_curve(tmp_path):
    y = np.arange(20) % 2
    metrics = evaluate("binary", ("normal", "ill"), y, 0.1 + 0.8 * y, bootstrap=20)
    page = _write(tmp_path / "r.html", y=y, p=0.1 + 0.8 * y, metrics=metrics, thresholds=None)
    assert "Error against coverage, 0.000 where every image is answered" in page.values(
        "aria-label"
    )


def test_ece_before_the_temperature_is_shown_where_it_is_known(tmp_path):
    assert "temperature 1" not in _write(tmp_path / "r.html").words
    metrics = evaluate("binary", ("normal", "ill"), [0, 1], [0.2, 0.7])
    metrics = msgspec.structs.replace(metrics, ece_before=Estimate(0.1234, 0.1, 0.2))
    page = _write(tmp_path / "r.html", metrics=metrics)
    assert "ECE at temperature 10.1230.100 – 0.200before temperature scaling" in page.words
    assert ("ECE at temperature 1", "0.123", "0.100 to 0.200") in table(metrics)


def test_bands_are_of_as_many_resamples_as_the_intervals(tmp_path, monkeypatch):
    """Or fewer; of none where no intervals were asked for."""
    asked = []
    drawn = report_plots.resamples

    def counted(n, groups, count, seed):
        asked.append(count)
        return drawn(n, groups, count, seed)

    monkeypatch.setattr(report_plots, "resamples", counted)
    monkeypatch.setattr(selective, "resamples", counted)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    p = 0.4 * y + 0.6 * rng.random(60)
    for bootstrap, expected in ((50, {50}), (2000, {300, 1000}), (0, {0})):
        asked.clear()
        metrics = evaluate("binary", ("normal", "ill"), y, p, bootstrap=bootstrap)
        page = _write(tmp_path / "r.html", y=y, p=p, metrics=metrics, thresholds=None)
        assert set(asked) == expected
        assert ("95 % interval of the curve" in page.words) is (bootstrap > 0)
        assert ("The band is the 95 % interval, point" in page.words) is (bootstrap > 0)


def test_what_is_referred_is_shown(tmp_path):
    assert "referred" not in _write(tmp_path / "r.html").values("id")
    metrics = evaluate("binary", ("normal", "ill"), [0, 1], [0.2, 0.7])
    of = Referral((0.25, 0.75), Estimate(0.123, 0.1, 0.2), 42, Estimate(0.045, 0.01, 0.09))
    metrics = msgspec.structs.replace(metrics, referrals={HOSTILE: of})
    page = _write(tmp_path / "r.html", metrics=metrics)
    assert "referred" in page.values("id")
    assert f"{HOSTILE}0.25 – 0.750.1230.100 – 0.200420.0450.010 – 0.090" in page.words
    assert ("referred", "0.123", "0.100 to 0.200") in table(metrics)
    assert ("error of the answered", "0.045", "0.010 to 0.090") in table(metrics)


def test_why_there_is_no_interval_is_said(tmp_path):
    y = np.arange(20) % 2
    metrics = evaluate("binary", ("normal", "ill"), y, 0.1 + 0.8 * y, bootstrap=20)
    page = _write(tmp_path / "r.html", y=y, p=0.1 + 0.8 * y, metrics=metrics, thresholds=None)
    assert "Rates of 0 or 1 have Wilson's interval (1927), by images." in page.words
    assert "No interval (AUC, average precision, F1" in page.words


def test_subgroups_are_shown_with_their_sizes(tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 30)
    p = 0.4 * y + 0.6 * rng.random(60)
    named = [None] * 30 + [HOSTILE] * 10 + ["virus"] * 20
    metrics = evaluate("binary", ("normal", "ill"), y, p, bootstrap=50)
    of = subgroups.evaluate("binary", ("normal", "ill"), y, p, named, bootstrap=50)
    metrics = msgspec.structs.replace(metrics, subgroups=of)
    page = _write(tmp_path / "r.html", y=y, p=p, metrics=metrics, thresholds=None)
    assert "subgroups" in page.values("id")
    assert f"{HOSTILE}, virus: one class only, so the AUC is against the 30 images" in page.words
    assert "30 images are in no subgroup." in page.words
    assert f"{of['virus'].values['auc'].value:.3f}" in page.words
    assert "script" not in {tag for tag, _ in page.tags}


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_nothing_is_fetched_and_every_reference_is_inside(tmp_path, task):
    page = _write(tmp_path / "r.html", task, history=HISTORY, examples=[_example("right")])
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "http:" not in text
    assert "https:" not in text
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert all(source.startswith("data:image/png;base64,") for source in page.values("src"))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    references = page.values("href") + re.findall(r"url\((#[^)]*)\)", text)
    assert references
    assert {reference.removeprefix("#") for reference in references} <= set(ids)


def test_what_comes_from_outside_is_escaped(tmp_path):
    page = _write(
        tmp_path / "r.html",
        title=HOSTILE,
        subtitle_facts=[(HOSTILE, HOSTILE)],
        examples=[_example("wrong", name=HOSTILE)],
        notes=[HOSTILE],
    )
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.words.count(HOSTILE) >= 5
    assert f"{HOSTILE}, the image" in page.values("alt")


def test_hostile_labels_are_escaped_and_drawn_as_they_are(tmp_path):
    labels = ("_under", "$a$ & <b>", '"')
    y = np.arange(30) % 3
    p = np.random.default_rng(0).dirichlet(np.ones(3), 30)
    page = _write(
        tmp_path / "r.html", task="multiclass", labels=labels, y=y, p=p,
        metrics=evaluate("multiclass", labels, y, p, bootstrap=0), thresholds=None,
    )  # fmt: skip
    assert "b" not in {tag for tag, _ in page.tags}
    assert page.words.count("$a$ & <b>") >= 5  # tables and both legends


@pytest.mark.parametrize("C", [1, 2, 3])
def test_images_are_inside_as_they_were(tmp_path, C):
    example = _example("right", C=C)
    page = _write(tmp_path / "r.html", examples=[example])
    pixels, overlay = map(_decode, page.values("src"))
    shown = example.pixels if C == 3 else example.pixels[:, :, :1].repeat(3, axis=2)
    assert np.array_equal(pixels, shown)
    assert example.overlay is not None
    assert np.array_equal(overlay, example.overlay)


def test_large_images_are_shrunk_in_proportion(tmp_path):
    big = Example("b", np.zeros((1000, 500, 1), np.uint8), None, "normal", "ill", 0.1, "right")
    (source,) = _write(tmp_path / "r.html", examples=[big]).values("src")
    assert _decode(source).shape[:2] == (320, 160)


@pytest.mark.filterwarnings("error")
def test_one_class_only_still_gives_a_report(tmp_path):
    y, p = np.zeros(9, int), np.linspace(0, 0.4, 9)
    metrics = evaluate("binary", ("normal", "ill"), y, p)
    page = _write(tmp_path / "r.html", y=y, p=p, metrics=metrics, thresholds={"ill": 0.3})
    assert "ROC curve, AUC undefined" in page.values("aria-label")
    assert "nan" not in page.words.lower()


def test_the_same_report_twice_is_the_same_file(tmp_path):
    for name in ("a.html", "b.html"):
        _write(tmp_path / name, history=HISTORY, examples=[_example("right")])
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(WriteError, match="missing"):
        _write(tmp_path / "missing" / "r.html")
    (tmp_path / "r.html").mkdir()
    with pytest.raises(WriteError):
        _write(tmp_path / "r.html")
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_picked_examples_of_one_label():
    #             0     1     2     3     4     5     6     7
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    p = np.array([0.01, 0.10, 0.97, 0.29, 0.31, 0.99, 0.02, 0.90])
    found = pick_examples(y, p, 0.3, per_kind=2)
    assert found == {"right": [0, 5], "wrong": [2, 6], "least sure": [4, 3]}
    assert pick_examples(y, p[:, None], 0.3, per_kind=2) == found


def test_picked_examples_are_never_shown_twice():
    rng = np.random.default_rng(0)
    for n in (1, 3, 8, 50):
        y, p = rng.integers(0, 2, n), rng.random(n)
        found = pick_examples(y, p, 0.5)
        shown = [index for of in found.values() for index in of]
        assert len(shown) == len(set(shown)) >= min(n, 4)
        assert all(y[i] == (p[i] >= 0.5) for i in found["right"])
        assert all(y[i] != (p[i] >= 0.5) for i in found["wrong"])


def test_picked_examples_of_several_labels():
    p = np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.1, 0.9, 0], [0.4, 0.35, 0.25], [0, 0.1, 0.9]])
    found = pick_examples([0, 0, 1, 0, 1], p, None, per_kind=2)
    assert found["wrong"] == [4]
    assert found["least sure"] == [3, 1]
    assert sorted(found["right"]) == [0, 2]


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_at_the_end_of_the_scale(threshold):
    found = pick_examples([0, 1, 1], [0.0, 0.5, 1.0], threshold)
    assert sum(map(len, found.values())) == 3
