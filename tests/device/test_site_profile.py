"""A profile changes the answer, says so, and is refused beside any other bundle."""

import csv
import hashlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.errors import ProfileInvalid
from medimg_edge.golden import verify
from medimg_edge.manifest import OperatingPoint
from medimg_edge.site_profile import (
    Calibration,
    SiteData,
    SiteProfile,
    beside,
    calibrated,
    encode,
    find,
    load,
    logit,
)

DATA = SiteData(images=200, patients=150, positives={"opacity": 80}, sha256="0" * 64)


def profile_for(bundle: Path, artifact: str = "model.int8.onnx", **changes) -> SiteProfile:
    opened = Bundle.open(bundle)
    values = {
        "bundle": opened.hash,
        "artifact": artifact,
        "findings": {
            label: Calibration(0.5, 1.0, OperatingPoint(0.4, "sensitivity>=0.95", refer=(0.4, 0.6)))
            for label in opened.manifest.findings
        },
        "data": DATA,
        "created": "2026-01-31",
    }
    return SiteProfile(**values | changes)


@pytest.fixture
def image(frozen) -> Path:
    return frozen / "golden" / "01-gray8.png"


def test_the_profile_beside_the_bundle_answers(bundle, image):
    plain = Classifier(bundle).predict(image)
    profile = profile_for(bundle)
    beside(Bundle.open(bundle)).write_bytes(encode(profile))
    found = Classifier(bundle).predict(image)
    assert plain.probability is not None
    z = 0.5 * np.log(plain.probability / (1 - plain.probability)) + 1
    assert found.probability == pytest.approx(1 / (1 + np.exp(-z)), abs=1e-5)
    assert (plain.record.profile, found.record.profile) == (None, profile.hash)
    assert found.record.model == plain.record.model  # the bundle is what it was
    own = Classifier(bundle, profile=None).predict(image)
    assert own.probability == plain.probability
    assert all(check.status == "ok" for check in verify(Bundle.open(bundle)))


@pytest.mark.parametrize(
    ("intercept", "decision"), [(-30.0, "negative"), (0.0, "refer"), (30.0, "positive")]
)
def test_decisions_are_the_sites(bundle, image, intercept, decision):
    fit = Calibration(1e-6, intercept, OperatingPoint(0.4, "youden", refer=(0.4, 0.6)))
    profile = profile_for(bundle, findings={"opacity": fit})
    assert Classifier(bundle, profile=profile).predict(image).decision == decision


def test_infer_names_the_profile_that_was_used(bundle, image, called, tmp_path, monkeypatch):
    profile = profile_for(bundle)
    other = tmp_path / "elsewhere.json"
    other.write_bytes(encode(profile))

    def answered(*options: object) -> dict:
        done = called("infer", image, "-b", bundle, *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert answered()["profile"] is None
    assert answered("--profile", other)["profile"] == profile.hash
    beside(Bundle.open(bundle)).write_bytes(encode(profile))
    assert answered()["profile"] == profile.hash
    assert answered("--profile", "none")["profile"] is None
    monkeypatch.setenv("MEDIMG_EDGE_PROFILE", "none")
    assert answered()["profile"] is None


def test_another_bundle_or_artifact_is_refused(bundle, image, called, rewrite):
    beside(Bundle.open(bundle)).write_bytes(encode(profile_for(bundle)))
    with pytest.raises(ProfileInvalid, match=r"fitted on model\.int8\.onnx"):
        Classifier(bundle, artifact="model.onnx")
    rewrite(bundle, lambda raw: raw.update(version="9"))
    done = called("infer", image, "-b", bundle)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error [bundle-profile]: The site profile was fitted on the bundle" in done.stderr
    assert called("infer", image, "-b", bundle, "--profile", "none").returncode == 0
    assert called("verify", bundle).returncode == 0


def test_labels_that_are_not_the_bundles_are_refused(bundle):
    fit = Calibration(1.0, 0.0, OperatingPoint(0.5, "youden"))
    with pytest.raises(ProfileInvalid, match="names fracture"):
        Classifier(bundle, profile=profile_for(bundle, findings={"fracture": fit}))


def test_a_multiclass_bundle_takes_none(mean_bundle: Callable[..., Path]):
    folder = mean_bundle([4, -4], [0, 0], task="multiclass")
    with pytest.raises(ProfileInvalid, match="multiclass"):
        Classifier(folder, profile=profile_for(folder, "model.onnx"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no site profile"),
        ("[]", "no site profile"),
        ('{"schema": 1}', "no site profile"),
        ("x" * 2**21, "larger"),
        (None, "No such file"),
    ],
)
def test_what_is_no_profile(bundle, image, called, tmp_path, text, says):
    path = tmp_path / "p.json"
    if text is not None:
        path.write_text(text)
    done = called("infer", image, "-b", bundle, "--profile", path)
    assert done.returncode == 1
    assert done.stderr.startswith("error [bundle-profile]: ")
    assert says in done.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "schema"),
        ({"bundle": "abc"}, "bundle"),
        ({"extra": 1}, "extra"),
        ({"findings": {"opacity": {"slope": 0, "intercept": 0}}}, "slope"),
    ],
)
def test_a_profile_is_strict(bundle, tmp_path, change, says):
    raw = msgspec.to_builtins(profile_for(bundle)) | change
    path = tmp_path / "p.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(ProfileInvalid, match=says):
        load(path)


def test_written_and_read_back(bundle, tmp_path):
    profile = profile_for(bundle)
    path = tmp_path / "p.json"
    path.write_bytes(encode(profile))
    again = load(path)
    assert again == profile
    assert again.hash == profile.hash
    assert encode(again) == path.read_bytes()
    assert profile_for(bundle, created="2026-02-01").hash != profile.hash


def test_what_the_first_release_wrote_opens_and_is_written_the_same(frozen, bundle, image):
    """The hash that its records name stays."""
    path = frozen.parent / "profile-0.1.0.json"
    classifier = Classifier(bundle, profile=path)
    assert classifier.profile is not None
    assert classifier.profile.findings["opacity"].prevalence is None
    assert encode(classifier.profile) == path.read_bytes()
    name = "4a07f0c847ab8dbb"
    assert classifier.profile.hash[:16] == name
    assert (classifier.predict(image).record.profile or "")[:16] == name


def test_a_prevalence_is_kept(bundle, tmp_path):
    fit = Calibration(0.5, 1.0, OperatingPoint(0.4, "youden"), prevalence=0.1)
    path = tmp_path / "p.json"
    path.write_bytes(encode(profile_for(bundle, findings={"opacity": fit})))
    assert load(path).findings["opacity"].prevalence == 0.1
    path.write_bytes(path.read_bytes().replace(b'"prevalence": 0.1', b'"prevalence": 1.0'))
    with pytest.raises(ProfileInvalid, match="prevalence"):
        load(path)


def test_records_name_the_file_that_was_read(bundle, image, tmp_path):
    """Its bytes, which any host can hash, not how this release would write them."""
    profile = profile_for(bundle)
    path = tmp_path / "p.json"
    path.write_bytes(encode(profile))
    assert Classifier(bundle, profile=path).predict(image).record.profile == profile.hash
    path.write_text(json.dumps(json.loads(path.read_bytes())))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    classifier = Classifier(bundle, profile=path)
    assert classifier.predict(image).record.profile == expected != profile.hash
    again = pickle.loads(pickle.dumps(classifier))
    assert again.predict(image).record.profile == expected


def test_csv_names_the_profile(bundle, image, called, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"")
    path = tmp_path / "p.json"
    path.write_bytes(encode(profile := profile_for(bundle)))

    def rows(which: object) -> list[dict[str, str]]:
        words = ("infer", image, damaged, "-b", bundle, "--profile", which, "--format", "csv")
        return list(csv.DictReader(io.StringIO(called(*words).stdout)))

    answer, failed = rows(path)
    assert (answer["profile"], failed["profile"]) == (profile.hash, "")
    assert rows("none")[0]["profile"] == ""


def test_a_link_to_the_bundle_finds_the_profile_of_the_bundle(bundle, tmp_path):
    link = tmp_path / "current"
    link.symlink_to("bundle")
    opened, linked = Bundle.open(bundle), Bundle.open(link)
    assert beside(linked) == beside(opened)
    earlier = tmp_path / "current.profile.json"  # where 0.1.0 wrote it
    earlier.write_bytes(encode(profile_for(bundle, created="2020-01-01")))
    assert find(opened) is None
    assert find(linked) == earlier
    beside(linked).write_bytes(encode(profile_for(bundle)))
    for each in (bundle, link):
        assert Classifier(each).profile == profile_for(bundle)


def test_certain_probabilities_stay_finite():
    ends = np.array([0.0, 1e-30, 0.5, 1.0], np.float32)
    assert logit(ends).tolist() == [-16, -16, 0, 16]
    assert np.isfinite(calibrated(ends, 2.0, 1.0)).all()
    assert calibrated(ends, 1.0, 0.0) == pytest.approx(ends, abs=1e-6)


def test_ranks_stay():
    p = np.sort(np.random.default_rng(0).random(100).astype(np.float32))
    changed = calibrated(p, 0.7, -1.0)
    assert (np.diff(changed) >= 0).all()
