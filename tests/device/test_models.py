"""The bundle that the package brings: found by name, whole, small, honest about itself."""

import json
import os
from pathlib import Path

import pytest

from medimg_edge import golden, models
from medimg_edge.bundle import Bundle, find, shipped
from medimg_edge.errors import BundleMissing

MAX_BYTES = 10_500_000


@pytest.fixture(scope="module")
def default() -> Bundle:
    return Bundle.open(models.DEFAULT)


def test_it_is_found_by_its_name(default):
    assert models.DEFAULT in shipped()
    assert default.path == models.FOLDER / models.DEFAULT
    assert default.manifest.name == models.DEFAULT


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    (tmp_path / models.DEFAULT).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleMissing, match=f"a shipped name: {models.DEFAULT}"):
        Bundle.open(models.DEFAULT)
    assert find("other") == Path("other")


def test_it_is_int8_and_small(default):
    kinds = {name: each.precision for name, each in default.manifest.artifacts.items()}
    assert kinds == {"model.int8.onnx": "int8", "model.int8.tflite": "int8"}
    assert sum(entry.bytes for entry in default.entries.values()) <= MAX_BYTES


def test_it_verifies(default):
    assert {check.status for check in golden.verify(default)} <= {"ok", "warning", "not run"}


def test_its_card_says_whose_it_is_and_where_it_fails(default):
    card = (default.path / "MODEL_CARD.md").read_text()
    for words in ("CC BY 4.0", "Kermany", "Not for adults", "not a medical device", "specificity"):
        assert words in card
    assert "not for adults" in default.manifest.intended_use


def test_it_answers_where_no_bundle_is_named(default, called, monkeypatch, tmp_path):
    monkeypatch.delenv("MEDIMG_EDGE_BUNDLE", raising=False)
    image = default.path / default.manifest.golden[0].input
    done = called("infer", image, "--heatmap", tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["model"]["hash"] == default.hash
    assert answer["label"] == "PNEUMONIA"
    assert default.manifest.intended_use in done.stderr
    assert os.listdir(tmp_path) == [f"{image.name}.PNEUMONIA.png"]
    named = called("infer", image, "-b", models.DEFAULT)
    assert named.stderr == ""
    assert called("verify", models.DEFAULT).returncode == 0


@pytest.mark.data
@pytest.mark.skipif("MEDIMG_EDGE_DATA" not in os.environ, reason="MEDIMG_EDGE_DATA is unset")
def test_real_radiographs_are_told_apart(called):
    """Of the training's own images: whether the file is the right one, not how good it is."""
    sample = Path(os.environ["MEDIMG_EDGE_DATA"], "kermany-cxr-fullres-sample")
    statuses = [json.loads(line)["status"] for line in called("infer", sample).stdout.splitlines()]
    assert (
        statuses.count("rejected") <= 2
    )  # of originals, ten times as wide as the copy it learned on
    forced = called("infer", sample, "--force").stdout.splitlines()
    answers = [json.loads(line) for line in forced]
    right = [(each["decision"] == "positive") == ("PNEUMONIA" in each["input"]) for each in answers]
    assert len(right) == 24
    assert sum(right) >= 22
