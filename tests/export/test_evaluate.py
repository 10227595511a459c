"""A bundle measured on labelled images: every number found otherwise, and what is left out."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medimg_edge import site_profile
from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.errors import (
    ArtifactUnknown,
    DataInvalid,
    ProfileInvalid,
    RunError,
    TooFewImages,
    WriteError,
)
from medimg_edge.manifest import OperatingPoint
from medimg_edge.site_profile import Calibration, SiteData, SiteProfile
from medimg_export import metrics, phantoms
from medimg_export.answers import read_answers
from medimg_export.calibration import ece
from medimg_export.evaluate import evaluate
from medimg_export.metrics import Metrics
from medimg_export.run import Run

Arrays = Callable[..., Path]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 phantoms as two class folders, without splits."""
    root = tmp_path_factory.mktemp("held-out")
    phantoms.write(root / "all", 24, size=64, seed=9, splits={"test": 1.0}, formats=("png",))
    return (root / "all" / "test").rename(root / "data")


def directly(bundle: Path, data: Path, artifact: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    classifier = Classifier(bundle, artifact=artifact, screened=False)
    paths = sorted(data.glob("*/*.png"))
    p = [classifier.predict(path).probability for path in paths]
    return np.array([path.parent.name == "opacity" for path in paths]), np.array(p, float)


@pytest.mark.parametrize("artifact", ["auto", "model.onnx", "model.tflite"])
def test_metrics_are_those_of_the_devices_answers(
    bundle: Path, held_out: Path, tmp_path: Path, artifact: str
):
    found = evaluate(bundle, held_out, tmp_path, artifact=artifact, bootstrap=50).metrics
    y, p = directly(bundle, held_out, artifact)
    name = "model.int8.onnx" if artifact == "auto" else artifact
    threshold = Bundle.open(bundle).manifest.decision[name]["opacity"].threshold
    called = p >= threshold
    assert found.n == 24
    assert found.thresholds == {"opacity": threshold}
    assert found.values["auc"].value == pytest.approx(roc_auc_score(y, p))
    assert found.values["accuracy"].value == pytest.approx((called == y).mean())
    assert found.values["sensitivity"].value == pytest.approx(called[y].mean())
    assert found.values["specificity"].value == pytest.approx((~called[~y]).mean())
    counts = found.counts["opacity"]
    assert (counts.tp, counts.fp) == ((called & y).sum(), (called & ~y).sum())
    stored = msgspec.json.decode((tmp_path / "metrics.json").read_bytes(), type=Metrics)
    assert stored == found
    answers = read_answers(tmp_path)
    assert answers.names == sorted(
        each.relative_to(held_out).as_posix() for each in held_out.glob("*/*.png")
    )
    assert answers.groups == [re.findall(r"\d+", name)[0] for name in answers.names]
    assert answers.p[:, 0].tolist() == p.tolist()
    assert answers.y.astype(bool).tolist() == y.tolist()
    assert answers.called[:, 0].tolist() == called.tolist()


def test_the_report_is_one_file_with_everything(bundle: Path, held_out: Path, tmp_path: Path):
    out = tmp_path / "deep" / "out"
    evaluate(bundle, held_out, out, bootstrap=50)
    assert sorted(each.name for each in out.iterdir()) == [
        "answers.csv",
        "metrics.json",
        "report.html",
    ]
    page = (out / "report.html").read_text()
    manifest = Bundle.open(bundle).manifest
    assert f"{manifest.name} {manifest.version}: all images" in page
    assert "model.int8.onnx on onnxruntime" in page
    assert page.count("<svg") >= 4
    assert page.count("data:image/") > 16
    assert "http" not in page.replace("http://www.w3.org", "")


def test_patients_are_drawn_together(bundle: Path, held_out: Path, tmp_path: Path):
    pattern = r"phantom-000(\d)"  # three patients
    found = evaluate(bundle, held_out, tmp_path, group_pattern=pattern, bootstrap=50).metrics
    assert (found.groups, found.resampling.unit) == (3, "group")


def test_patients_are_those_of_the_training_where_none_are_told(
    bundle: Path, phantom_data: Path, tmp_path: Path
):
    found = evaluate(bundle, phantom_data, tmp_path, bootstrap=10)
    assert (found.metrics.groups, found.metrics.resampling.unit) == (36, "group")
    assert not any("Nothing says which images are of one patient" in note for note in found.notes)
    assert any(repr(phantoms.GROUP_PATTERN) in note for note in found.notes)


def test_a_group_pattern_of_the_training_that_matches_nothing_is_told(
    bundle: Path, held_out: Path, tmp_path: Path
):
    data = shutil.copytree(held_out, tmp_path / "data")
    for number, path in enumerate(sorted(data.glob("*/*.png"))):
        path.rename(path.with_name(f"{number}.png"))
    found = evaluate(bundle, data, tmp_path / "out", bootstrap=10)
    assert (found.metrics.groups, found.metrics.resampling.unit) == (None, "image")
    assert any("matches no name here, so the intervals are by image" in n for n in found.notes)
    assert any("Nothing says which images are of one patient" in note for note in found.notes)


def test_other_data_that_name_their_patients_keep_them(
    bundle: Path, held_out: Path, tmp_path: Path
):
    paths = sorted(held_out.glob("*/*.png"))
    lines = [f"{path},{path.parent.name},{i % 5}" for i, path in enumerate(paths)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,group", *lines]))
    found = evaluate(bundle, tmp_path / "labels.csv", tmp_path / "out", bootstrap=10)
    assert found.metrics.groups == 5
    assert not any("group pattern" in note for note in found.notes)


@pytest.mark.parametrize("stored", [None, 3, {"data": {"group_pattern": "("}}])
def test_a_training_that_says_nothing_of_use_groups_nothing(
    bundle: Path, held_out: Path, tmp_path: Path, stored: object
):
    """A manifest's training is of any shape."""
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    manifest = json.loads((copy / "manifest.json").read_bytes())
    manifest["training"] = {} if stored is None else {"recipe": stored}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    found = evaluate(copy, held_out, tmp_path / "out", bootstrap=10)
    assert found.metrics.groups is None
    assert any("flatter" in note for note in found.notes) is (stored is not None)


def test_subgroups_are_told_by_the_names(bundle: Path, held_out: Path, tmp_path: Path):
    pattern = r"(normal|opacity)/phantom-\d+[02468]\."
    found = evaluate(bundle, held_out, tmp_path, subgroup_pattern=pattern, bootstrap=50)
    subgroups = found.metrics.subgroups
    assert subgroups is not None
    even = sorted(held_out.glob("opacity/*[02468].png"))
    normal, opacity = subgroups["normal"], subgroups["opacity"]
    assert (opacity.n, opacity.against, opacity.prevalence) == (len(even), 12, {"opacity": 1})
    assert set(opacity.values) == {"auc", "sensitivity"}
    assert set(normal.values) == {"auc", "specificity"}
    p = [Classifier(bundle, screened=False).predict(path).probability for path in even]
    threshold = (found.metrics.thresholds or {})["opacity"]
    assert opacity.values["sensitivity"].value == np.mean(np.array(p, float) >= threshold)
    stored = msgspec.json.decode((tmp_path / "metrics.json").read_bytes(), type=Metrics)
    assert stored.subgroups == subgroups
    assert "By subgroup" in (tmp_path / "report.html").read_text()


def test_a_subgroup_pattern_that_tells_nothing_is_refused_before_the_work(
    bundle: Path, held_out: Path, tmp_path: Path
):
    with pytest.raises(DataInvalid, match="for none of 24 names"):
        evaluate(bundle, held_out, tmp_path, subgroup_pattern="_(bacteria|virus)_")
    assert list(tmp_path.iterdir()) == []


# --- splits ---


@pytest.mark.parametrize(
    ("split", "n", "seen"),
    [
        ("auto", 36, False),
        ("test", 36, False),
        ("val", 30, True),  # made anew in training, because the given one was too small
        ("train", 174, True),
        ("all", 240, True),
    ],
)
def test_the_trainings_own_data_are_split_as_in_training(
    bundle: Path, phantom_data: Path, tmp_path: Path, split: str, n: int, seen: bool
):
    found = evaluate(bundle, phantom_data, tmp_path, split=split, bootstrap=10)
    assert found.metrics.n == n
    assert any("flatter" in note for note in found.notes) is seen


def test_looks_at_test_images_are_listed(bundle: Path, phantom_data: Path, tmp_path: Path):
    """Of the training's own data by their fingerprint, of others by their name; validation not."""
    looks = tmp_path / "looks.csv"
    own = [
        evaluate(bundle, phantom_data, tmp_path, split=split, looks=looks, bootstrap=10).metrics
        for split in ("auto", "val", "train", "all")
    ]
    other = shutil.copytree(phantom_data / "test", tmp_path / "other")
    evaluate(bundle, other, tmp_path, looks=looks, bootstrap=10)
    rows = list(csv.DictReader(looks.open()))
    opened = Bundle.open(bundle)
    data = opened.manifest.training["data_fingerprint"]
    assert [(row["data"], row["split"], row["n"]) for row in rows] == [
        (data, "test", "36"),
        (data, "all", "240"),
        ("other", "all", "36"),
    ]
    assert {row["manifest"] for row in rows} == {opened.hash}
    assert {row["artifact"] for row in rows} == {"model.int8.onnx"}
    assert rows[0]["auc"] == f"{own[0].values['auc'].value:.4f}"


def test_what_is_no_list_of_looks_is_refused_before_the_look(
    bundle: Path, held_out: Path, tmp_path: Path
):
    (tmp_path / "letter.txt").write_text("Dear colleague,\n")
    with pytest.raises(WriteError, match="no list of looks"):
        evaluate(bundle, held_out, tmp_path / "out", looks=tmp_path / "letter.txt")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "letter.txt").read_text() == "Dear colleague,\n"


def test_the_test_split_that_other_data_bring(bundle: Path, held_out: Path, tmp_path: Path):
    for split, count in (("test", 8), ("val", 3)):
        for label in ("normal", "opacity"):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for path in sorted((held_out / label).iterdir())[:count]:
                shutil.copy(path, tmp_path / "data" / split / label)
    for split, n in (("auto", 16), ("val", 6), ("all", 22)):
        found = evaluate(bundle, tmp_path / "data", tmp_path, split=split, bootstrap=10)
        assert found.metrics.n == n
        assert any("may have chosen or trained" in note for note in found.notes) is (n != 16)


def test_training_images_among_others_are_warned_of(
    bundle: Path, phantom_data: Path, held_out: Path, tmp_path: Path
):
    """One image more, and the fingerprint is another one: nothing tells which were trained on."""
    data = tmp_path / "data"
    for path in (phantom_data / "train").glob("*/*"):
        (data / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, data / path.parent.name)
    shutil.copy(next(held_out.glob("normal/*.png")), data / "normal" / "phantom-9999.png")
    found = evaluate(bundle, data, tmp_path / "out", bootstrap=10)
    assert found.metrics.n == len(list(data.glob("*/*")))
    assert any(note.startswith("These are not exactly the images") for note in found.notes)
    assert "may have chosen or trained" in (tmp_path / "out" / "report.html").read_text()


def test_a_split_that_is_not_there_is_refused(bundle: Path, held_out: Path, tmp_path: Path):
    with pytest.raises(TooFewImages, match=r"no split 'val'.*Add --split all"):
        evaluate(bundle, held_out, tmp_path, split="val")
    with pytest.raises(DataInvalid, match="no split 'tset'"):
        evaluate(bundle, held_out, tmp_path, split="tset")
    assert list(tmp_path.iterdir()) == []


# --- what is left out ---


def test_images_without_an_answer_are_counted_and_named(
    bundle: Path, held_out: Path, tmp_path: Path
):
    data = shutil.copytree(held_out, tmp_path / "data")
    whole = next(data.glob("opacity/*.png")).read_bytes()
    (data / "opacity" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (data / "normal" / "text.png").write_text("not an image")
    (data / "normal" / "notes.txt").write_text("read me")
    cv2.imwrite(str(data / "normal" / "black.png"), np.zeros((64, 64), np.uint8))
    found = evaluate(bundle, data, tmp_path / "out", bootstrap=50)
    assert found.metrics.n == 24
    note = next(note for note in found.notes if "have no answer" in note)
    assert note.startswith("3 images have no answer and are not in the metrics: ")
    for name, code in (
        ("opacity/cut.png", "input-truncated"),
        ("normal/text.png", "input-not-an-image"),
        ("normal/black.png", "blank"),
    ):
        assert f"{name}: {code}" in note
    assert any("notes.txt" in note for note in found.notes)
    assert "3 images have no answer" in (tmp_path / "out" / "report.html").read_text()
    clean = evaluate(bundle, held_out, tmp_path / "clean", bootstrap=50)
    assert found.metrics.values == clean.metrics.values


def test_no_answer_at_all_is_an_error(bundle: Path, tmp_path: Path):
    for label in ("normal", "opacity"):
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "1.png").write_text("not an image")
    with pytest.raises(TooFewImages, match="None of the 2 images could be answered"):
        evaluate(bundle, tmp_path / "data", tmp_path / "out")


def test_an_output_that_cannot_be_written_is_a_write_error(
    bundle: Path, held_out: Path, tmp_path: Path
):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot be written"):
        evaluate(bundle, held_out, tmp_path / "file", bootstrap=10)


def test_a_run_keeps_its_own_metrics(bundle: Path, held_out: Path, tmp_path: Path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError, match="another folder"):
        evaluate(bundle, held_out, tmp_path, bootstrap=10)
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]


def test_an_unknown_artifact_is_refused(bundle: Path, held_out: Path, tmp_path: Path):
    with pytest.raises(ArtifactUnknown, match=r"model\.int4\.onnx"):
        evaluate(bundle, held_out, tmp_path, artifact="model.int4.onnx")


# --- with a site profile ---


@pytest.fixture
def site(bundle: Path, held_out: Path, tmp_path: Path) -> tuple[Path, SiteProfile]:
    """A copy of the bundle, with a profile beside it that refers about a third of the images."""
    p = site_profile.calibrated(directly(bundle, held_out)[1], 0.5, 0.2)
    low, high = np.quantile(p, [0.3, 0.6]).tolist()
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    opened = Bundle.open(copy)
    point = OperatingPoint(threshold=low, rule="youden", refer=(low, high))
    profile = SiteProfile(
        bundle=opened.hash,
        artifact="model.int8.onnx",
        findings={"opacity": Calibration(slope=0.5, intercept=0.2, point=point)},
        data=SiteData(images=80, patients=70, positives={"opacity": 40}, sha256="0" * 64),
        created="2026-01-31",
    )
    site_profile.beside(opened).write_bytes(site_profile.encode(profile))
    return copy, profile


def test_a_profile_is_measured_as_it_answers(
    site: tuple[Path, SiteProfile], held_out: Path, tmp_path: Path
):
    copy, profile = site
    found = evaluate(copy, held_out, tmp_path / "out", profile="auto", bootstrap=50)
    classifier = Classifier(copy, screened=False)  # which takes the profile beside it
    paths = sorted(held_out.glob("*/*.png"))
    y = np.array([path.parent.name == "opacity" for path in paths])
    answers = [classifier.predict(path) for path in paths]
    p = np.array([each.probability for each in answers], float)
    decisions = np.array([each.decision for each in answers])
    of, threshold = found.metrics, profile.findings["opacity"].point.threshold
    assert (of.profile, of.thresholds) == (profile.hash, {"opacity": threshold})
    assert of.ece_before is None
    assert of.values["ece"].value == pytest.approx(ece(p, y))
    assert of.values["sensitivity"].value == pytest.approx((p >= threshold)[y].mean())
    assert of.referrals is not None
    referral = of.referrals["opacity"]
    answered = decisions != "refer"
    assert 0 < answered.sum() < 24
    assert referral.referred.value == pytest.approx((~answered).mean())
    wrong = (decisions == "positive") != y
    assert referral.error.value == pytest.approx(wrong[answered].mean())
    assert read_answers(tmp_path / "out").p[:, 0].tolist() == p.tolist()
    assert any("fitted on 80 images" in note for note in found.notes)
    stored = msgspec.json.decode((tmp_path / "out" / "metrics.json").read_bytes(), type=Metrics)
    assert stored == of
    page = (tmp_path / "out" / "report.html").read_text()
    assert profile.hash[:16] in page
    assert "What is referred" in page
    rows = {name: value for name, value, _ in metrics.table(of)}
    assert rows["referred"] == f"{referral.referred.value:.3f}"


def test_without_being_asked_no_profile_is_taken(
    site: tuple[Path, SiteProfile], bundle: Path, held_out: Path, tmp_path: Path
):
    copy, profile = site
    plain = evaluate(bundle, held_out, tmp_path / "plain", bootstrap=10)
    found = evaluate(copy, held_out, tmp_path / "out", bootstrap=10)
    assert found.metrics == plain.metrics
    assert (found.metrics.profile, found.metrics.referrals) == (None, None)
    given = evaluate(copy, held_out, tmp_path / "given", profile=profile, bootstrap=10)
    assert given.metrics.profile == profile.hash


def test_a_profile_that_is_not_there_is_said_or_refused(
    bundle: Path, held_out: Path, tmp_path: Path
):
    found = evaluate(bundle, held_out, tmp_path / "out", profile="auto", bootstrap=10)
    assert any("no site profile at" in note for note in found.notes)
    with pytest.raises(ProfileInvalid, match="cannot be read"):
        evaluate(bundle, held_out, tmp_path / "other", profile=tmp_path / "none.json")
    assert not (tmp_path / "other").exists()


# --- before the temperature ---


def test_ece_before_the_temperature_is_of_the_same_answers(
    bundle: Path, held_out: Path, tmp_path: Path
):
    found = evaluate(bundle, held_out, tmp_path, bootstrap=10).metrics
    temperature = Bundle.open(bundle).manifest.training["temperature"]
    answers = read_answers(tmp_path)
    before = 0.5 * (1 + np.tanh(site_profile.logit(answers.p[:, 0]) * temperature / 2))
    assert temperature != 1
    assert found.ece_before is not None
    assert f"{found.ece_before.value:.6f}" == f"{ece(before, answers.y):.6f}"
    assert found.ece_before.low is not None
    assert "ECE at temperature 1" in (tmp_path / "report.html").read_text()


def test_ece_before_on_validation_is_that_of_the_run(
    run: Run, bundle: Path, phantom_data: Path, tmp_path: Path
):
    options = {"artifact": "model.onnx", "split": "val", "bootstrap": 10}
    found = evaluate(bundle, phantom_data, tmp_path, **options).metrics
    stored = msgspec.json.decode((run.path / "metrics.json").read_bytes(), type=Metrics)
    assert found.ece_before is not None
    assert stored.ece_before is not None
    assert found.ece_before.value == pytest.approx(stored.ece_before.value, abs=1e-4)


@pytest.mark.parametrize("training", [{}, {"temperature": 1.0}])
def test_without_a_temperature_nothing_is_before(
    bundle: Path, held_out: Path, tmp_path: Path, training: dict
):
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    manifest = json.loads((copy / "manifest.json").read_bytes()) | {"training": training}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert evaluate(copy, held_out, tmp_path / "out", bootstrap=10).metrics.ece_before is None


# --- labels ---


def test_labels_of_an_unpublished_npz_are_given_in_any_order(
    bundle: Path, held_out: Path, tmp_path: Path
):
    """1 is normal here: the numbers of a file follow no rule, so the user says them."""
    paths = sorted(held_out.glob("*/*.png"))
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    y, _ = directly(bundle, held_out)
    np.savez(
        tmp_path / "own.npz",
        test_images=np.array(images),
        test_labels=(~y).astype(np.uint8)[:, None],
    )
    found = evaluate(
        bundle, tmp_path / "own.npz", tmp_path, labels=["opacity", "normal"], bootstrap=10
    ).metrics
    classifier = Classifier(bundle, screened=False)
    p = [classifier.predict(image).probability for image in images if image is not None]
    assert found.values["auc"].value == pytest.approx(roc_auc_score(y, np.array(p, float)))
    assert found.prevalence == {"opacity": 0.5}
    with pytest.raises(DataInvalid, match=r"normal and opacity.*--labels normal,opacity"):
        evaluate(bundle, tmp_path / "own.npz", tmp_path)


def test_labels_that_the_bundle_does_not_know_are_refused(
    bundle: Path, arrays: Arrays, tmp_path: Path
):
    with pytest.raises(DataInvalid, match="accepted"):
        evaluate(bundle, arrays([0, 1] * 4), tmp_path, labels=["well", "opacity"])


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_other_tasks(kind: str, request: pytest.FixtureRequest, tmp_path: Path):
    run = request.getfixturevalue(f"{kind}_run")
    bundle = request.getfixturevalue(f"{kind}_bundle")
    data = Path(run.record.data)
    found = evaluate(bundle, data, tmp_path / "out", bootstrap=20).metrics
    assert (found.task, found.labels) == (kind, run.record.labels)
    assert found.n == run.record.dataset["splits"]["test"]["images"]
    auc = found.values["auc"].value
    assert auc is not None
    assert auc > 0.8
    assert (tmp_path / "out" / "report.html").exists()
    answers = read_answers(tmp_path / "out")
    assert answers.task == kind
    assert metrics.auc(answers.task, answers.y, answers.p) == auc
    of_run = msgspec.json.decode((run.path / "metrics.json").read_bytes(), type=Metrics)
    val = evaluate(
        bundle, data, tmp_path / "val", artifact="model.onnx", split="val", bootstrap=10
    ).metrics
    assert of_run.ece_before is not None
    assert val.ece_before is not None
    # A temperature far below 1 makes probabilities of 1 in float32: their logits are lost.
    assert val.ece_before.value == pytest.approx(of_run.ece_before.value, abs=5e-3)
    after = val.values["ece"].value
    assert val.ece_before.value != pytest.approx(after, abs=5e-3)
