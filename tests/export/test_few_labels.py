"""Images without labels: what may be learned from, and that it is learned, the same each time."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import keras
import msgspec
import numpy as np
import pytest

from medimg_edge.errors import DataInvalid, DataMissing, RunError, TooFewImages
from medimg_export import backbones, phantoms
from medimg_export.phantom_chest import chest
from medimg_export.phantom_dicom import encode
from medimg_export.prepared import Prepared, prepare, prepare_unlabelled
from medimg_export.pretrain import pretrain
from medimg_export.recipe import Augmentation, Data, Recipe, SemiSupervised, at_least, override
from medimg_export.run import make_run
from medimg_export.semi_supervised import TERMS, Learner, prior
from medimg_export.start import PRETRAINED, Start
from medimg_export.train import batches_beside, schedule_of, train, weighted_loss

PATTERN = phantoms.GROUP_PATTERN


def films(data: Path) -> list[Path]:
    return sorted(path for split in ("train", "test") for path in (data / split).rglob("*.png"))


def write_film(path: Path, seed: int, patient: str) -> None:
    """A phantom of its own, as a DICOM file of a patient."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = chest(seed, positive=seed % 2 == 1, size=64).pixels
    path.write_bytes(encode(pixels, patient, bits=12, inverted=False))


def learner_of(prepared: Prepared) -> Learner:
    """What ``train`` trains, not compiled yet."""
    student = backbones.build("tiny", prepared.preprocessing.shape, 1, seed=0)
    half = np.array([0.5], np.float32)
    return Learner(student, "binary", prepared.recipe.training.semi, half, 20)


class Killed(BaseException):
    """What ends a training in a test, as a signal would."""


@pytest.fixture(scope="module")
def archive(phantom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All images of the labelled set, in folders whose names lie, and none of its labels."""
    folder = tmp_path_factory.mktemp("archive") / "archive"
    for number, path in enumerate(films(phantom_data)):
        place = folder / ("normal", "opacity", "2019")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place / f"{number:04}-{path.name}")
    return folder


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return override(
        Recipe(),
        data={"group_pattern": PATTERN},
        pixels={"size": 32},
        training={"backbone": "tiny", "epochs": 2, "batch": 16},
        pretraining={"epochs": 2, "batch": 32, "width": 16},
    )


@pytest.fixture(scope="module")
def prepared(phantom_data: Path, archive: Path, recipe: Recipe) -> Prepared:
    return prepare(phantom_data, recipe, unlabelled=archive)


def weights(model: Any) -> list[bytes]:
    return [value.tobytes() for value in model.get_weights()]


# --- what may be learned from ---


def test_what_judges_is_left_out_and_counted(prepared: Prepared, archive: Path):
    found = prepared.unlabelled
    assert found is not None
    held = [*prepared.splits.val, *prepared.splits.test]
    digests = {prepared.cached.digests[row] for row in held}
    used = {found.cached.digests[row] for row in found.rows}
    assert not used & digests
    known = [hashlib.sha256(path.read_bytes()).hexdigest() for path in archive.rglob("*.png")]
    assert found.contents == sum(each in digests for each in known) > 50
    assert len(found.rows) == len(known) - found.contents
    said = prepared.describe()
    assert said["unlabelled"]["left_out"] == {"contents": found.contents, "patients": 0}
    assert any(f"{found.contents} were left out" in each for each in said["notes"])


def test_the_same_pixels_in_another_file_are_the_same_image(
    phantom_data: Path, prepared: Prepared, recipe: Recipe, tmp_path: Path
):
    """And so is its patient, whatever the file is called."""
    for number, path in enumerate(films(phantom_data)):
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert pixels is not None
        assert cv2.imwrite(str(tmp_path / f"{number:04}.tiff"), pixels)
    found = prepare(phantom_data, recipe, unlabelled=tmp_path).unlabelled
    assert found is not None
    assert prepared.unlabelled is not None
    assert found.contents == prepared.unlabelled.contents
    assert any("does not match" in each for each in found.notes)


def test_patients_are_known_by_headers_beside_a_column_group(tmp_path: Path, recipe: Recipe):
    """The CSV numbers them in its own way, and its images have no line in the archive's folder."""
    rows = ["path,label,split,group"]
    for number in range(160):
        split = "train" if number < 60 else "val"
        label = ("normal", "opacity")[number % 2]
        name = f"{number}.dcm"
        write_film(tmp_path / "labelled" / name, number, patient=f"p{number}")
        rows.append(f"{name},{label},{split},{number + 1000}")
    (tmp_path / "labelled" / "labels.csv").write_text("\n".join(rows))
    for number in range(50, 80):
        write_film(tmp_path / "archive" / f"{number}.dcm", 500 + number, patient=f"p{number}")
    own = msgspec.structs.replace(recipe, data=Data())
    labelled = tmp_path / "labelled" / "labels.csv"
    found = prepare(labelled, own, unlabelled=tmp_path / "archive").unlabelled
    assert found is not None
    assert (found.contents, found.patients) == (0, 20)


def test_labelled_images_may_lie_in_the_archive(
    phantom_data: Path, archive: Path, recipe: Recipe, tmp_path: Path
):
    """They are learned from with their label, and beside it as all others are."""
    images = sorted(archive.rglob("*.png"))
    rows = ["path,label,split"]
    rows += [
        f"{os.path.relpath(path, tmp_path)},{('normal', 'opacity')[number % 2]},"
        f"{'val' if number < 100 else 'train'}"
        for number, path in enumerate(images[:200])
    ]
    (tmp_path / "hundred.csv").write_text("\n".join(rows))
    own = msgspec.structs.replace(recipe, data=Data())
    both = prepare(tmp_path / "hundred.csv", own, unlabelled=archive)
    alone = prepare(tmp_path / "hundred.csv", own)
    assert both.cached.digests == alone.cached.digests
    assert both.dataset == alone.dataset
    assert both.unlabelled is not None
    assert both.unlabelled.contents >= 100
    assert len(both.unlabelled.rows) == len(images) - both.unlabelled.contents
    assert both.unlabelled.strangers == len(both.unlabelled.rows)
    assert any("no patient is known" in each for each in both.unlabelled.notes)
    told = prepare(tmp_path / "hundred.csv", recipe, unlabelled=archive)
    assert told.unlabelled is not None
    assert told.unlabelled.strangers == 0
    assert (told.splits.val == both.splits.val).all()
    assert told.kept_apart != both.kept_apart  # the same images judge, and of whom is known now


def test_patients_of_validation_and_test_are_left_out_by_any_image(
    phantom_data: Path, prepared: Prepared, recipe: Recipe, tmp_path: Path
):
    """The same patients, other films: every one is seen in a mirror."""
    for path in films(phantom_data):
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert pixels is not None
        assert cv2.imwrite(str(tmp_path / path.name), cv2.flip(pixels, 1))
    found = prepare(phantom_data, recipe, unlabelled=tmp_path).unlabelled
    assert found is not None
    held = {
        prepared.cached.samples[row].group for row in [*prepared.splits.val, *prepared.splits.test]
    }
    groups = {found.cached.samples[row].group for row in found.rows}
    assert not groups & held
    assert found.contents == 0
    assert found.patients == len(found.cached.samples) - len(found.rows) > 0


def test_no_label_is_read_from_a_folders_name(prepared: Prepared):
    assert prepared.unlabelled is not None
    assert {each.label for each in prepared.unlabelled.cached.samples} == {-1}
    assert {each.split for each in prepared.unlabelled.cached.samples} == {None}
    assert prepared.dataset.labels == ("normal", "opacity")


def test_a_folder_with_nothing_to_learn_from_is_refused(
    phantom_data: Path, recipe: Recipe, tmp_path: Path
):
    with pytest.raises(DataMissing, match="There is no folder"):
        prepare(phantom_data, recipe, unlabelled=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataInvalid, match="holds no images"):
        prepare(phantom_data, recipe, unlabelled=tmp_path / "empty")
    (tmp_path / "tested").mkdir()
    for path in films(phantom_data):
        if "test" in path.relative_to(phantom_data).parts:
            shutil.copy(path, tmp_path / "tested" / path.name)
    with pytest.raises(TooFewImages, match="may be learned from"):
        prepare(phantom_data, recipe, unlabelled=tmp_path / "tested")


# --- semi-supervised ---


def test_a_step_has_labelled_images_and_twice_the_same_others(prepared: Prepared):
    training = prepared.recipe.training
    steps = list(batches_beside(prepared, 0))
    assert prepared.unlabelled is not None
    many = training.batch * training.semi.ratio
    assert len(steps) == max(
        -(-len(prepared.unlabelled.rows) // many),
        -(-len(prepared.splits.train) // training.batch),
    )
    for (known, y), (weak, strong) in steps:
        assert known.shape == (training.batch, 32, 32, 1)
        assert y.shape == (training.batch,)
        assert weak.shape == strong.shape == (many, 32, 32, 1)
        near = np.corrcoef(weak.numpy().ravel(), strong.numpy().ravel())[0, 1]
        far = np.corrcoef(weak.numpy().ravel(), np.roll(strong.numpy(), 1, 0).ravel())[0, 1]
        assert far < near < 0.999
    again = [each.numpy().tobytes() for (_, _), (each, _) in batches_beside(prepared, 0)]
    assert again == [each.numpy().tobytes() for (_, _), (each, _) in steps]
    other = [each.numpy().tobytes() for (_, _), (each, _) in batches_beside(prepared, 1)]
    assert not set(again) & set(other)


@pytest.mark.parametrize("method", ["fixmatch", "mean-teacher"])
def test_an_interrupted_training_ends_the_same(prepared: Prepared, tmp_path: Path, method: str):
    recipe = override(prepared.recipe, training={"semi": {"method": method, "confidence": 0.6}})
    prepared = replace(prepared, recipe=recipe)
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = train(prepared, tmp_path / "whole")
    told = TERMS if method == "fixmatch" else TERMS[:2]
    for row in whole.history:
        assert set(TERMS) & set(row) == set(told)
        assert np.isfinite([row[each] for each in told]).all()
    assert any(row["unsupervised"] > 0 for row in whole.history)

    def kill(row: dict) -> None:
        raise Killed

    with pytest.raises(Killed):
        train(prepared, tmp_path / "broken", report=kill)
    resumed = train(prepared, tmp_path / "broken", resume=True)
    assert weights(resumed.model) == weights(whole.model)
    with pytest.raises(RunError, match="of another recipe or of other data"):
        train(replace(prepared, unlabelled=None), tmp_path / "broken", resume=True)


def test_few_images_without_labels_do_not_shorten_the_training(prepared: Prepared):
    assert prepared.unlabelled is not None
    few = replace(prepared.unlabelled, rows=prepared.unlabelled.rows[:10])
    steps = list(batches_beside(replace(prepared, unlabelled=few), 0))
    assert len(steps) == -(-len(prepared.splits.train) // prepared.recipe.training.batch)


def test_an_epoch_tells_the_mean_of_its_steps(prepared: Prepared):
    """And not the last step's, which Keras passes on where a model says nothing else."""
    learner, losses = learner_of(prepared), []
    of_step = weighted_loss("binary", np.ones(2, np.float32))

    def loss(y: Any, logits: Any) -> Any:
        value = of_step(y, logits)
        losses.append(float(value))
        return value

    learner.compile(keras.optimizers.SGD(0.01), loss, run_eagerly=True)
    told = learner.fit(batches_beside(prepared, 0), shuffle=False, verbose=0).history  # pyright: ignore[reportArgumentType]
    assert len(losses) > 2
    assert told["supervised"][0] == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_teacher_does_not_remember_how_it_began(prepared: Prepared):
    """After a few steps it is near the student, and not still what was drawn by the seed."""
    learner = learner_of(prepared)
    learner.compile(keras.optimizers.SGD(0.1), weighted_loss("binary", np.ones(2, np.float32)))
    first = [value.copy() for value in learner.teacher.get_weights()]
    for number, step in enumerate(batches_beside(prepared, 0)):
        if number == 5:
            break
        learner.train_step(step)
    moved = [
        np.linalg.norm(mean - began) / max(np.linalg.norm(now - began), 1e-12)
        for mean, now, began in zip(
            learner.teacher.get_weights(), learner.student.get_weights(), first, strict=True
        )
        if np.linalg.norm(now - began) > 0
    ]
    assert np.median(moved) > 0.5


@pytest.mark.parametrize("flip", [True, False])
def test_what_is_strong_is_nowhere_weaker(flip: bool):
    weak = Augmentation(aspect=0.5, rotation=40, flip=flip)
    found = at_least(SemiSupervised().strong, weak)
    assert (found.aspect, found.rotation, found.flip) == (0.5, 40, flip)
    assert found.crop == SemiSupervised().strong.crop


@pytest.mark.parametrize(
    ("task", "y", "expected"),
    [
        pytest.param("binary", [0, 1, 1, 1], [0.75], id="binary"),
        pytest.param("multiclass", [0, 2, 2, 1], [0.25, 0.25, 0.5, 0], id="multiclass"),
        pytest.param("multilabel", [[0, 1], [1, 1]], [0.5, 1], id="multilabel"),
    ],
)
def test_the_prior_is_that_of_the_labels(task, y, expected):
    assert prior(task, np.array(y), len(expected)).tolist() == pytest.approx(expected)


# --- self-supervised ---


def test_pretraining_is_resumed_and_begins_a_training(
    phantom_data: Path, archive: Path, recipe: Recipe, tmp_path: Path
):
    images, filled, preprocessing = prepare_unlabelled(archive, recipe, phantom_data)
    whole = pretrain(images, filled, preprocessing, tmp_path / "whole")
    assert [row["epoch"] for row in whole.history] == [0, 1]

    def kill(row: dict) -> None:
        raise Killed

    with pytest.raises(Killed):
        pretrain(images, filled, preprocessing, tmp_path / "broken", report=kill)
    with pytest.raises(RunError, match="--resume"):
        pretrain(images, filled, preprocessing, tmp_path / "broken")
    pretrain(images, filled, preprocessing, tmp_path / "broken", resume=True)
    first, second = (Start.open(tmp_path / name) for name in ("whole", "broken"))
    assert weights(first.model) == weights(second.model)

    labelled = prepare(phantom_data, override(recipe, training={"head_epochs": 1, "epochs": 0}))
    begun = train(labelled, tmp_path, start=first)
    for layer in first.model.layers:
        kept = begun.model.get_layer(layer.name).get_weights() if layer.weights else []
        for value, given in zip(kept, layer.get_weights(), strict=True):
            assert np.array_equal(value, given), layer.name
    other = prepare(phantom_data, override(recipe, training={"backbone": "baseline"}))
    with pytest.raises(RunError, match="another network"):
        train(other, tmp_path / "whole", start=first)


def test_weights_that_have_seen_what_judges_are_told(
    phantom_data: Path, archive: Path, recipe: Recipe, tmp_path: Path
):
    labelled = prepare(phantom_data, recipe)
    images, filled, preprocessing = prepare_unlabelled(archive, recipe)
    assert any("none was compared" in each for each in images.notes)
    pretrain(images, filled, preprocessing, tmp_path / "alone")
    note = Start.open(tmp_path / "alone").note(labelled.kept_apart)
    assert note is not None
    assert "may flatter" in note
    images, filled, preprocessing = prepare_unlabelled(archive, recipe, phantom_data)
    pretrain(images, filled, preprocessing, tmp_path / "beside")
    assert Start.open(tmp_path / "beside").note(labelled.kept_apart) is None
    for name, clean in (("alone", False), ("beside", True)):  # a run that began so is no cleaner
        start = Start.open(tmp_path / name)
        make_run(labelled, tmp_path / f"{name}-run", start=start)
        found = Start.open(tmp_path / f"{name}-run").note(labelled.kept_apart)
        assert (found is None) == clean, name


def test_head_epochs_that_were_said_are_kept(recipe: Recipe):
    said = override(recipe, training={"head_epochs": 0})
    assert schedule_of(said, given=True).head_epochs == 0
    assert schedule_of(recipe, given=True).head_epochs > 0


def test_passes_through_images_without_labels_are_counted_apart(recipe: Recipe):
    said = override(recipe, training={"epochs": 150, "semi": {"epochs": 10}})
    assert schedule_of(said).epochs == 150
    assert schedule_of(said, unlabelled=True).epochs == 10
    assert schedule_of(recipe, unlabelled=True).epochs == schedule_of(recipe).epochs


def test_memory_does_not_grow_with_the_images(prepared: Prepared):
    """What an epoch reads is a map of a file, and what it holds a step."""
    assert prepared.unlabelled is not None
    assert isinstance(prepared.unlabelled.cached.pixels, np.memmap)


def test_the_commands(called: Callable, phantom_data: Path, archive: Path, tmp_path: Path):
    common = ("--size", 32, "--backbone", "tiny", "--group-pattern", PATTERN, "--batch", 32)
    learned = tmp_path / "learned"
    done = called(
        "pretrain", archive, "--beside", phantom_data, *common, "--epochs", 2, "--out", learned
    )
    assert done.returncode == 0, done.stderr
    assert "were left out" in done.stderr
    assert json.loads((learned / "pretrain.json").read_text())["kept_apart"]
    assert (learned / PRETRAINED).is_file()
    done = called(
        *("train", phantom_data, *common, "--epochs", 2, "--out", tmp_path / "run"),
        *("--unlabelled", archive, "--weights", learned),
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").open()))
    assert {row["stage"] for row in rows} == {"head", "fine-tune"}
    assert float(rows[-1]["confident"]) >= 0
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    spent = [float(row["seconds"] or 0) for row in rows]
    assert told["seconds"] == pytest.approx(sum(spent), abs=0.1)
    assert min(spent[-2:]) > 0
    assert told["dataset"]["unlabelled"]["used"] > 0
    assert told["weights"]["sha256"] == Start.open(learned).sha256
    assert not any("may flatter" in each for each in told["dataset"]["notes"])
    assert "were left out" in (tmp_path / "run" / "report.html").read_text()
    done = called("train", phantom_data, "--weights", archive, "--out", tmp_path / "other")
    assert done.returncode == 1
    assert "holds no weights" in done.stderr
