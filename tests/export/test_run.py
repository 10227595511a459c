"""A run: what it holds, what it refuses, and every kind of task."""

import csv
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import keras
import msgspec
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medimg_edge.errors import RunError, WriteError
from medimg_edge.operating_point import operating_point
from medimg_export.answers import read_answers
from medimg_export.augment import augment, draw
from medimg_export.calibration import ece, fit_temperature
from medimg_export.keras_file import load_model
from medimg_export.metrics import Metrics
from medimg_export.prepared import Prepared, prepare
from medimg_export.recipe import override
from medimg_export.run import Record, Run, make_run, require_free
from medimg_export.train import BEYOND_TRAINING, probabilities, validate

FILES = {
    "model.keras",
    "run.json",
    "metrics.json",
    "answers.csv",
    "history.csv",
    "report.html",
    "checkpoint.npz",
}


def logits(run: Run, prepared: Prepared) -> np.ndarray:
    pixels = np.asarray(prepared.cached.pixels[prepared.rows("val")])
    return np.asarray(run.model().predict_on_batch(pixels))


def test_a_run_holds_what_it_should(run: Run):
    assert {each.name for each in run.path.iterdir()} == FILES
    rows = list(csv.DictReader((run.path / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert {row["stage"] for row in rows} == {"train"}
    assert all(0 <= float(row["val_auc"]) <= 1 and float(row["loss"]) > 0 for row in rows)
    page = (run.path / "report.html").read_text()
    assert "run: validation" in page
    assert page.count("data:image/") > 16  # pictures with their heatmaps


def test_the_record_says_how_it_came_about(run: Run, prepared: Prepared):
    record = Run.open(run.path).record
    assert record == run.record
    assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record
    assert record.recipe == prepared.recipe
    assert record.recipe.training.backbone == "tiny"
    assert record.labels == ("normal", "opacity")
    assert record.dataset["fingerprint"] == prepared.describe()["fingerprint"]
    assert set(record.dataset["splits"]) == {"train", "val", "test"}
    assert record.versions["keras"] == keras.__version__
    assert 1 <= record.best_epoch <= 4


def test_temperature_operating_point_and_metrics_are_of_validation(run: Run, prepared: Prepared):
    y = prepared.y[prepared.rows("val")]
    p = probabilities("binary", logits(run, prepared), run.record.temperature)[:, 0]
    found = run.record.decision["opacity"]
    expected = operating_point(y, p)
    assert found.threshold == pytest.approx(expected.threshold, abs=1e-6)
    called = p >= found.threshold
    metrics = msgspec.json.decode((run.path / "metrics.json").read_bytes(), type=Metrics)
    assert metrics.n == len(y)
    assert metrics.values["auc"].value == pytest.approx(roc_auc_score(y, p))
    assert metrics.values["sensitivity"].value == pytest.approx(called[y == 1].mean())
    assert metrics.values["specificity"].value == pytest.approx((~called[y == 0]).mean())
    assert found.sensitivity == pytest.approx(called[y == 1].mean())
    assert metrics.thresholds == {"opacity": found.threshold}
    assert metrics.groups == len(y)  # every phantom is a patient
    before = probabilities("binary", logits(run, prepared), 1.0)[:, 0]
    assert metrics.ece_before is not None
    assert metrics.ece_before.value == pytest.approx(ece(before, y), abs=1e-5)
    assert metrics.values["ece"].value == pytest.approx(ece(p, y), abs=1e-5)
    assert "ECE at temperature 1" in (run.path / "report.html").read_text()
    answers = read_answers(run.path)
    assert answers.names == [each.name for each in prepared.samples(prepared.rows("val"))]
    assert answers.groups == prepared.groups(prepared.rows("val"))
    assert answers.y.tolist() == y.tolist()
    assert answers.p[:, 0] == pytest.approx(p, abs=1e-6)
    assert answers.called[:, 0].tolist() == called.tolist()


def test_what_is_chosen_can_be_chosen_on_draws_of_the_augmentation(
    prepared: Prepared, tmp_path: Path
):
    """The epoch is of 3 draws, temperature and threshold of images too; these alone are told."""
    recipe = override(prepared.recipe, training={"validation_draws": 3, "epochs": 2})
    drawn = replace(prepared, recipe=recipe)
    found, metrics = make_run(drawn, tmp_path / "drawn")
    y, changed = validate(drawn, found.model())
    rows = prepared.rows("val")
    assert y.tolist() == prepared.y[rows].tolist() * 3
    spec = recipe.training.augmentation
    for each, part in enumerate(np.split(changed, 3)):
        drawn_as = draw(len(prepared.y), seed=recipe.training.seed, epoch=BEYOND_TRAINING + each)
        pixels = [augment(prepared.cached.pixels[row], drawn_as[row], spec) for row in rows]
        assert part == pytest.approx(found.model().predict_on_batch(np.stack(pixels)), abs=1e-5)

    history = list(csv.DictReader((found.path / "history.csv").open()))
    best = max(float(row["val_auc"]) for row in history)
    assert best == pytest.approx(roc_auc_score(y, changed[:, 0]))
    assert best != pytest.approx(roc_auc_score(prepared.y[rows], logits(found, prepared)[:, 0]))
    y = np.concatenate([prepared.y[rows], y])
    seen = np.concatenate([logits(found, prepared), changed])
    temperature = fit_temperature("binary", seen, y)
    assert found.record.temperature == pytest.approx(temperature)
    expected = operating_point(y, probabilities("binary", seen, temperature)[:, 0])
    point = found.record.decision["opacity"]
    assert point.threshold == pytest.approx(expected.threshold, abs=1e-6)
    assert point.rule == "youden on images and 3 draws of them"
    assert metrics.n == len(rows)
    assert point.sensitivity == pytest.approx(metrics.values["sensitivity"].value)
    assert point.specificity == pytest.approx(metrics.values["specificity"].value)


def test_a_finished_run_can_be_resumed_and_stays_the_same(
    run: Run, prepared: Prepared, tmp_path: Path
):
    copy = tmp_path / "run"
    copy.mkdir()
    (copy / "checkpoint.npz").write_bytes((run.path / "checkpoint.npz").read_bytes())
    again, _ = make_run(prepared, copy, resume=True)
    assert {each.name for each in copy.iterdir()} == FILES
    one, other = (each.model().get_weights() for each in (again, run))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert again.record.decision == run.record.decision
    assert (copy / "metrics.json").read_bytes() == (run.path / "metrics.json").read_bytes()


# --- folders ---


@pytest.mark.parametrize(
    ("found", "resume", "refusal"),
    [
        (None, False, None),
        (None, True, None),
        ([], False, None),
        (["checkpoint.partial"], False, None),
        (["checkpoint.npz"], True, None),
        (["run.json", "model.keras"], True, None),
        (["checkpoint.npz"], False, "holds a run. Add --resume"),
        (["run.json", "model.keras"], False, "holds a run. Add --resume"),
        (["thesis.docx"], False, "holds other files"),
        (["thesis.docx"], True, "holds other files"),
    ],
)
def test_two_trainings_never_share_a_folder(tmp_path: Path, found, resume, refusal):
    folder = tmp_path / "run"
    if found is not None:
        folder.mkdir()
        for name in found:
            (folder / name).touch()
    if refusal is None:
        require_free(folder, resume)
        return
    with pytest.raises(RunError, match=refusal):
        require_free(folder, resume)


def test_a_file_is_no_run(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file"):
        require_free(tmp_path / "file", resume=False)
    with pytest.raises(RunError, match=r"run\.json"):
        Run.open(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no run.json"),
        (b"", "cannot be read"),
        (b"{}", "recipe"),
        (b'{"recipe": ', "cannot be read"),
    ],
)
def test_what_is_no_run_is_said(tmp_path: Path, content, message):
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=message) as refused:
        Run.open(tmp_path)
    assert "--resume" not in str(refused.value)


def test_an_unfinished_run_says_how_to_finish_it(tmp_path: Path):
    (tmp_path / "checkpoint.npz").touch()
    with pytest.raises(RunError, match="--resume"):
        Run.open(tmp_path)


def test_a_model_that_cannot_be_read_is_a_run_error(tmp_path: Path, run: Run):
    whole = (run.path / "model.keras").read_bytes()
    for name, data in (("half", whole[: len(whole) // 2]), ("text", b"model"), ("none", None)):
        path = tmp_path / f"{name}.keras"
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(RunError, match=f"{name}.keras cannot be read"):
            load_model(path)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_no_half_run(run: Run, prepared: Prepared, tmp_path: Path):
    """The training is over, and the model does not fit."""
    (tmp_path / "checkpoint.npz").write_bytes((run.path / "checkpoint.npz").read_bytes())
    model = (run.path / "model.keras").stat().st_size
    with files_of_at_most(model - 1000), pytest.raises(WriteError, match=r"model\.keras"):
        make_run(prepared, tmp_path, resume=True)
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.npz"]
    with files_of_at_most(model + 1000), pytest.raises(WriteError, match=r"report\.html"):
        make_run(prepared, tmp_path, resume=True)
    left = {each.name for each in tmp_path.iterdir()}
    assert left == FILES - {"report.html", "run.json"}
    with pytest.raises(RunError, match="--resume"):
        Run.open(tmp_path)


def test_what_version_0_1_0_wrote_is_still_a_run(run: Run, tmp_path: Path):
    """Without answers.csv, and without what metrics.json has gained since."""
    for name in ("run.json", "model.keras"):
        shutil.copy(run.path / name, tmp_path)
    metrics = msgspec.json.decode((run.path / "metrics.json").read_bytes())
    for name in ("subgroups", "ece_before"):
        del metrics[name]
    (tmp_path / "metrics.json").write_bytes(msgspec.json.encode(metrics))
    assert Run.open(tmp_path).record == run.record
    old = msgspec.json.decode((tmp_path / "metrics.json").read_bytes(), type=Metrics)
    assert (old.subgroups, old.ece_before) == (None, None)
    with pytest.raises(RunError, match="an older medimg-edge wrote it"):
        read_answers(tmp_path)


# --- other tasks ---


def answered(run: Run) -> tuple[np.ndarray, np.ndarray, Metrics]:
    """Labels and probabilities of validation, and the metrics that the run wrote."""
    prepared = prepare(Path(run.record.data), run.record.recipe)
    p = probabilities(run.record.task, logits(run, prepared), run.record.temperature)
    found = msgspec.json.decode((run.path / "metrics.json").read_bytes(), type=Metrics)
    return prepared.y[prepared.rows("val")], p, found


def test_multiclass(multiclass_run: Run):
    record = multiclass_run.record
    assert (record.task, record.labels) == ("multiclass", ("top", "left", "right"))
    assert record.decision == {}
    y, p, found = answered(multiclass_run)
    assert found.thresholds is None
    assert found.values["accuracy"].value == pytest.approx((p.argmax(axis=1) == y).mean())
    auc = roc_auc_score(y, p, multi_class="ovr")
    assert found.values["auc"].value == pytest.approx(auc)
    assert auc > 0.8


def test_multilabel(multilabel_run: Run):
    record = multilabel_run.record
    assert (record.task, record.labels) == ("multilabel", ("left", "top"))
    y, p, found = answered(multilabel_run)
    prepared = prepare(Path(record.data), record.recipe)
    drawn_y, drawn = validate(prepared, multilabel_run.model())
    drawn = probabilities("multilabel", drawn, record.temperature)
    for column, label in enumerate(record.labels):
        point = record.decision[label]
        truth = y[:, column] == 1
        called = p[:, column] >= point.threshold
        assert point.sensitivity == pytest.approx(called[truth].mean())
        assert point.specificity == pytest.approx((~called[~truth]).mean())
        called = np.concatenate([called, drawn[:, column] >= point.threshold])
        assert called[np.concatenate([y, drawn_y])[:, column] == 1].mean() >= 0.9
        assert point.rule == "sensitivity>=0.9 on images and 2 draws of them"
        auc = found.per_label[label]["auc"].value
        assert auc == pytest.approx(roc_auc_score(truth, p[:, column]))
