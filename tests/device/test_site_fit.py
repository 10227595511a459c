"""A clinic's sheet becomes a profile: what is fitted, what is measured, what is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.optimize import minimize

from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.errors import DataInvalid, DataMissing, TooFewImages
from medimg_edge.site_fit import Fitted, fit_profile, fit_sigmoid, wilson
from medimg_edge.site_profile import beside, load

SLOPE, INTERCEPT = 0.6, -1.2
"""The clinic's images: the probability of the finding is sigmoid(SLOPE * logit(p) + INTERCEPT)."""


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


@pytest.fixture
def answering(mean_bundle: Callable[..., Path]) -> Path:
    """A bundle with logit(p) = 12 * mean - 6."""
    return mean_bundle([12], [-6], task="binary", labels=("no", "yes"))


def write_site(root: Path, count: int, *, images_of_each: int = 1, seed: int = 0) -> Path:
    """Noise of any brightness, labelled as that clinic finds it."""
    rng = np.random.default_rng(seed)
    root.mkdir()
    with (root / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "group"))
        for number in range(count):
            mean = rng.uniform(0.05, 0.95)
            ill = rng.random() < sigmoid(SLOPE * (12 * mean - 6) + INTERCEPT)
            for image in range(images_of_each):
                pixels = np.clip(mean * 255 + rng.normal(0, 8, (16, 16)), 0, 255)
                name = f"{number:04}-{image}.png"
                cv2.imwrite(str(root / name), pixels.astype(np.uint8))
                rows.writerow((name, "yes" if ill else "no", f"patient {number}"))
    return root / "labels.csv"


def fitted(bundle: Path, sheet: Path, **options) -> Fitted:
    return fit_profile(Classifier(bundle, profile=None), sheet, **options)


def test_the_sites_own_curve_is_found(answering, tmp_path):
    found = fitted(answering, write_site(tmp_path / "site", 1500))
    fit = found.profile.findings["yes"]
    assert fit.slope == pytest.approx(SLOPE, abs=0.1)  # 2.5 standard errors
    assert fit.intercept == pytest.approx(INTERCEPT, abs=0.25)
    assert found.profile.bundle == Bundle.open(answering).hash
    assert found.profile.artifact == "model.onnx"
    assert (found.profile.data.images, found.profile.data.patients) == (1500, 1500)
    assert found.failures == found.warnings == ()


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


@pytest.mark.parametrize("target", [0.8, 0.95, 1.0])
def test_a_target_sensitivity_is_reached(answering, tmp_path, target):
    sheet = write_site(tmp_path / "site", 400)
    found = fitted(answering, sheet, sensitivity=target)
    point = found.profile.findings["yes"].point
    assert point.sensitivity is not None
    assert point.sensitivity >= target
    classifier = Classifier(answering, profile=found.profile)
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    called = [classifier.predict(sheet.parent / row["path"]).decision for row in rows]
    ill = [decision for row, decision in zip(rows, called, strict=True) if row["label"] == "yes"]
    assert ill.count("positive") / len(ill) == pytest.approx(point.sensitivity)
    measured = found.measured["yes"].profile
    assert measured is not None
    assert measured.sensitivity.value == pytest.approx(target, abs=0.06)  # on unseen patients


def test_a_refer_band_leaves_the_unsure_to_people(answering, tmp_path):
    sheet = write_site(tmp_path / "site", 400)
    found = fitted(answering, sheet, sensitivity=0.95, refer_specificity=0.95)
    point = found.profile.findings["yes"].point
    assert point.refer is not None
    low, high = point.refer
    assert low == point.threshold < high
    assert "specificity>=0.95" in point.rule
    rates = found.measured["yes"].profile
    plain = fitted(answering, sheet, sensitivity=0.95).measured["yes"].profile
    assert rates is not None
    assert plain is not None
    assert rates.referred.value is not None
    assert 0.1 < rates.referred.value < 0.9
    assert plain.referred.value == 0
    assert (rates.ppv.value or 0) > (plain.ppv.value or 0)
    assert rates.sensitivity.value == plain.sensitivity.value  # who is referred is not missed


def test_patients_are_not_divided(answering, tmp_path):
    """Ten images of each of 40 patients tell no more than 40 images do."""
    many = fitted(answering, write_site(tmp_path / "many", 40, images_of_each=10))
    few = fitted(answering, write_site(tmp_path / "few", 40))
    assert (many.profile.data.images, many.profile.data.patients) == (400, 40)
    for found, n in ((many, 400), (few, 40)):
        rates = found.measured["yes"].bundle
        assert rates.referred.n == n
        assert rates.referred.high == pytest.approx(0.0876, abs=1e-3)  # Wilson: 0 of 40
        assert any("may be anywhere from" in each for each in found.warnings)


def test_a_hopeless_number_is_said(answering, tmp_path):
    sheet = write_site(tmp_path / "site", 40)
    rows = sheet.read_text().splitlines()
    ill = [row for row in rows[1:] if ",yes," in row][:1]
    well = [row for row in rows[1:] if ",no," in row][:9]
    sheet.write_text("\n".join([rows[0], *ill, *well]))
    found = fitted(answering, sheet)
    assert found.measured["yes"].profile is None
    assert "too few patients" in found.warnings[0]


def test_without_patients_it_says_so(answering, tmp_path):
    sheet = write_site(tmp_path / "site", 60)
    lines = [line.rsplit(",", 1)[0] for line in sheet.read_text().splitlines()]
    sheet.write_text("\n".join(lines))
    found = fitted(answering, sheet)
    assert found.profile.data.patients is None
    assert "column group" in found.warnings[-1]


def test_the_fingerprint_is_of_contents_and_labels(answering, tmp_path):
    sheet = write_site(tmp_path / "site", 60)
    first = fitted(answering, sheet).profile
    header, *rows = sheet.read_text().splitlines()
    sheet.write_text("\n".join([header, *reversed(rows)]))
    assert fitted(answering, sheet).profile.data == first.data
    sheet.write_text("\n".join([header, *rows[1:]]))
    assert fitted(answering, sheet).profile.data.sha256 != first.data.sha256


def test_what_cannot_be_answered_is_left_out_and_named(answering, tmp_path):
    sheet = write_site(tmp_path / "site", 60)
    (tmp_path / "site" / "0003-0.png").write_bytes(b"text")
    cv2.imwrite(str(tmp_path / "site" / "0004-0.png"), np.zeros((16, 16), np.uint8))
    found = fitted(answering, sheet)
    assert found.profile.data.images == 58
    assert [each.code for each in found.failures] == ["input-not-an-image", "blank"]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda text: text.replace(",yes,", ",no,"), TooFewImages, "0 have 'yes'"),
        (lambda text: text.replace(",no,", ",yes,"), TooFewImages, "40 have 'yes'"),
        (lambda text: text.replace(",yes,", ",maybe,"), DataInvalid, "'maybe', which the bundle"),
        (lambda text: text.replace(",yes,", ",yes;no,"), DataInvalid, "one of no and yes"),
        (lambda text: text.replace(",yes,", ",,"), DataInvalid, "one of no and yes"),
        (lambda text: text.replace("0007-0", "none"), DataInvalid, "do not exist"),
        (lambda text: "path,label\n", TooFewImages, "no rows"),
        (lambda text: "a,b\n1,2\n", DataInvalid, "columns path and label"),
    ],
)
def test_a_sheet_that_cannot_be_used(answering, tmp_path, change, error, says):
    sheet = write_site(tmp_path / "site", 40)
    sheet.write_text(change(sheet.read_text()))
    with pytest.raises(error, match=says):
        fitted(answering, sheet)


def test_no_sheet(answering, tmp_path):
    with pytest.raises(DataMissing):
        fitted(answering, tmp_path / "none.csv")


def test_a_multiclass_bundle_has_no_threshold(mean_bundle, tmp_path):
    folder = mean_bundle([4, -4], [0, 0], task="multiclass", labels=("no", "yes"))
    with pytest.raises(DataInvalid, match="thresholds"):
        fitted(folder, write_site(tmp_path / "site", 40))


def test_multilabel_fits_each_label(mean_bundle, tmp_path):
    folder = mean_bundle([12, -12], [-6, 6], labels=("bright", "dark"))
    sheet = write_site(tmp_path / "site", 300)
    text = sheet.read_text().replace(",yes,", ",bright,").replace(",no,", ",dark,")
    sheet.write_text(text)
    found = fitted(folder, sheet)
    assert list(found.profile.findings) == ["bright", "dark"]
    bright, dark = found.profile.findings.values()
    assert dark.slope == pytest.approx(bright.slope, rel=1e-3)
    assert dark.intercept == pytest.approx(-bright.intercept, abs=1e-3)


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


def test_the_command_writes_tells_and_is_used(answering, tmp_path, called):
    sheet = write_site(tmp_path / "site", 120)
    done = called("calibrate", answering, sheet, "--target-sensitivity", 0.95, "--refer-band", 0.9)
    assert done.returncode == 0, done.stderr
    path = beside(Bundle.open(answering))
    profile = load(path)
    assert str(path) in done.stdout
    assert profile.hash[:16] in done.stdout
    for words in ("as the bundle decides", "unseen patients", "sensitivity>=0.95", "refer below"):
        assert words in done.stdout
    assert "warning: yes: with" in done.stderr
    image = tmp_path / "site" / "0000-0.png"
    answer = json.loads(called("infer", image, "-b", answering).stdout)
    assert answer["profile"] == profile.hash
    again = called("calibrate", answering, sheet, "--out", tmp_path / "other.json")
    assert again.returncode == 0
    assert load(path) == profile
    assert load(tmp_path / "other.json") != profile


@pytest.mark.parametrize("options", [("--target-sensitivity", 1.5), ("--refer-band", -1)])
def test_a_target_out_of_range_is_usage(answering, tmp_path, called, options):
    assert called("calibrate", answering, tmp_path / "x.csv", *options).returncode == 2


def test_a_bad_sheet_is_one_line(answering, tmp_path, called):
    sheet = write_site(tmp_path / "site", 40)
    sheet.write_text(sheet.read_text().replace(",yes,", ",no,"))
    done = called("calibrate", answering, sheet)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error [data-too-few]: ")
    assert not beside(Bundle.open(answering)).exists()


def test_a_profile_that_could_not_be_written_is_said_before_the_images_are_read(
    answering, tmp_path, called
):
    sheet = write_site(tmp_path / "site", 40)
    for image in (tmp_path / "site").glob("*.png"):
        image.write_bytes(b"")
    done = called("calibrate", answering, sheet, "--out", tmp_path / "missing" / "p.json")
    assert done.returncode == 1
    assert "error [write]" in done.stderr
