"""A clinic's sheet becomes a profile: what is fitted, what is measured, what is refused."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.errors import DataInvalid, DataMissing, RecipeError, TooFewImages
from medimg_edge.site_fit import Fitted, fit_profile
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
        assert any("patients the PPV may be" in each for each in found.warnings) is (n == 400)


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


def test_multilabel_fits_each_label(mean_bundle, tmp_path, called):
    folder = mean_bundle([12, -12], [-6, 6], labels=("bright", "dark"))
    sheet = write_site(tmp_path / "site", 300)
    text = sheet.read_text().replace(",yes,", ",bright,").replace(",no,", ",dark,")
    sheet.write_text(text)
    found = fitted(folder, sheet)
    assert list(found.profile.findings) == ["bright", "dark"]
    bright, dark = found.profile.findings.values()
    assert dark.slope == pytest.approx(bright.slope, rel=1e-3)
    assert dark.intercept == pytest.approx(-bright.intercept, abs=1e-3)
    told = called("calibrate", folder, sheet).stdout
    assert "dark: PPV, referral rate and probabilities hold where" in told
    assert "--prevalence" not in told  # which is refused


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


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--target-sensitivity", (0, 1.5, "nan")),
        ("--refer-band", (0, -1)),
        ("--prevalence", (0, 1, 1.5, "nan")),
    ],
)
def test_a_target_out_of_range_is_usage(answering, tmp_path, called, option, values):
    for value in values:  # nothing else is looked at: there is no such sheet
        done = called("calibrate", answering, tmp_path / "x.csv", option, value)
        assert done.returncode == 2
        assert option in done.stderr


@pytest.mark.parametrize("option", ["sensitivity", "refer_specificity", "prevalence"])
def test_a_target_out_of_range_is_refused_before_an_image_is_answered(answering, tmp_path, option):
    sheet = write_site(tmp_path / "site", 4)
    shown = []
    with pytest.raises(RecipeError, match="is 0; accepted"):
        fitted(answering, sheet, progress=lambda *step: shown.append(step), **{option: 0})
    assert shown == []


@pytest.mark.parametrize("grouped", [True, False])
def test_the_command_says_of_whom_its_numbers_are(answering, tmp_path, called, grouped):
    sheet = write_site(tmp_path / "site", 40, images_of_each=2)
    if not grouped:
        lines = [line.rsplit(",", 1)[0] for line in sheet.read_text().splitlines()]
        sheet.write_text("\n".join(lines))
    ill = sheet.read_text().count(",yes")
    told = called("calibrate", answering, sheet).stdout
    whose = " of 40 patients" if grouped else ""
    assert f"yes: {ill} of 80 images{whose} have it, {ill / 80:.1%}." in told
    assert f"probabilities hold where {ill / 80:.1%} of those" in told
    assert "--prevalence SHARE" in told
    assert "a target was met on them, not that it will be on others" in told
    assert ("of 80 (40 patients)" in told) is grouped
    assert "referred as found" not in told


def test_the_command_takes_a_prevalence(answering, tmp_path, called):
    sheet = write_site(tmp_path / "site", 120)
    options = ("--refer-band", 0.9, "--target-sensitivity", 0.95)
    plain = called("calibrate", answering, sheet, *options, "--out", tmp_path / "plain.json")
    done = called("calibrate", answering, sheet, *options, "--prevalence", 0.02)
    assert done.returncode == 0, done.stderr
    assert "are for where 0.02 of those examined have it (--prevalence)" in done.stdout
    assert "referred as found" in done.stdout
    assert "probabilities hold where" not in done.stdout

    def row(text: str, name: str) -> str:
        return next(line for line in text.splitlines() if f" {name} " in line)

    for name, same in (("sensitivity", True), ("specificity", True), ("ppv", False)):
        assert (row(done.stdout, name) == row(plain.stdout, name)) is same
    there, here = load(beside(Bundle.open(answering))), load(tmp_path / "plain.json")
    assert (there.findings["yes"].prevalence, here.findings["yes"].prevalence) == (0.02, None)
    images = sorted((tmp_path / "site").glob("*.png"))
    one, other = (Classifier(answering, profile=profile) for profile in (there, here))
    for image in images:
        assert one.predict(image).decision == other.predict(image).decision
        assert (one.predict(image).probability or 0) < (other.predict(image).probability or 0)


def test_a_prevalence_is_of_one_finding(mean_bundle, tmp_path):
    folder = mean_bundle([12, -12], [-6, 6], labels=("bright", "dark"))
    with pytest.raises(DataInvalid, match="2: bright, dark"):
        fitted(folder, tmp_path / "none.csv", prevalence=0.1)


def test_a_band_that_is_not_needed_is_said(answering, tmp_path):
    found = fitted(answering, write_site(tmp_path / "site", 120), refer_specificity=0.1)
    assert found.profile.findings["yes"].point.refer is None
    assert any("no image is referred: a specificity of 0.1" in each for each in found.warnings)


def test_a_file_with_two_names_is_one_image(answering, tmp_path, called):
    sheet = write_site(tmp_path / "site", 60)
    first = fitted(answering, sheet).profile
    header, row, *rows = sheet.read_text().splitlines()
    (tmp_path / "site" / "link.png").symlink_to("0000-0.png")
    absolute = row.replace("0000-0.png", str(tmp_path / "site" / "0000-0.png"))
    again = [absolute, row.replace("0000-0", "link"), row]
    sheet.write_text("\n".join([header, row, *rows, *again]))
    assert fitted(answering, sheet).profile.data == first.data
    other = row.replace(",yes,", ",no,") if ",yes," in row else row.replace(",no,", ",yes,")
    sheet.write_text("\n".join([header, row, *rows, other.replace("0000-0", "link")]))
    done = called("calibrate", answering, sheet)
    assert "error [data-invalid]" in done.stderr
    assert "different things about 1 files: link.png (also 0000-0.png)" in done.stderr


@pytest.mark.parametrize("name", ["site/labels.csv", "site/0003-0.png", "notes.txt", "link.csv"])
def test_nothing_but_a_profile_is_written_over(answering, tmp_path, called, name):
    sheet = write_site(tmp_path / "site", 40)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "link.csv").symlink_to(sheet)
    before = (tmp_path / name).read_bytes()
    for image in (tmp_path / "site").glob("*.png"):  # said before an image is read
        if image != tmp_path / name:
            image.write_bytes(b"")
    done = called("calibrate", answering, sheet, "--out", tmp_path / name)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error [write]: ")
    assert "exists and is no site profile" in line
    assert (tmp_path / name).read_bytes() == before


def test_a_profile_is_written_over(answering, tmp_path, called):
    sheet = write_site(tmp_path / "site", 60)
    assert called("calibrate", answering, sheet).returncode == 0
    first = load(beside(Bundle.open(answering)))
    assert called("calibrate", answering, sheet, "--target-sensitivity", 0.9).returncode == 0
    assert load(beside(Bundle.open(answering))) != first


def test_no_special_file_is_replaced(answering, tmp_path, called):
    sheet = write_site(tmp_path / "site", 40)
    os.mkfifo(tmp_path / "pipe")
    done = called("calibrate", answering, sheet, "--out", tmp_path / "pipe")
    assert "is no regular file" in done.stderr
    assert (tmp_path / "pipe").is_fifo()


def test_nothing_is_written_into_the_bundle(answering, tmp_path, called, monkeypatch):
    sheet = write_site(tmp_path / "site", 60)
    for name in ("p.json", "sub/../p.json"):
        done = called("calibrate", answering, sheet, "--out", answering / name)
        assert done.returncode == 1
        assert "error [write]" in done.stderr
        assert "lies in the bundle" in done.stderr
    (answering / "signatures").mkdir()
    monkeypatch.chdir(answering / "signatures")
    assert called("calibrate", "..", sheet).returncode == 0
    Bundle.open(answering)
    assert beside(Bundle.open("..")) == beside(Bundle.open(answering))
    assert beside(Bundle.open(answering)).exists()


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
