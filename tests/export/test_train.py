"""Training: the same weights from the same seed, whatever happens in between."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from medimg_edge.errors import RunError
from medimg_export import checkpoint
from medimg_export.augment import augment, draw
from medimg_export.metrics import auc
from medimg_export.prepared import Prepared, prepare
from medimg_export.recipe import Recipe, override
from medimg_export.train import (
    SCHEDULES,
    Trained,
    batches,
    class_weights,
    probabilities,
    schedule_of,
    train,
    validation_auc,
    weighted_loss,
)

Arrays = Callable[..., Path]


class Killed(BaseException):
    """What ends a training in a test, as a signal would."""


Small = Callable[..., Prepared]


@pytest.fixture(scope="module")
def small(arrays: Arrays) -> Small:
    """70 images of 28 pixels, two thirds of them negative, ready for three epochs."""

    def make(**training) -> Prepared:
        chosen = {"epochs": 3, "batch": 16} | training
        recipe = override(Recipe(), data={"labels": ["no", "yes"]}, training=chosen)
        return prepare(arrays([0, 0, 1] * 23 + [0]), recipe)

    return make


@pytest.fixture(scope="module")
def whole(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    """A training that nothing interrupted, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return train(small(), folder), folder


def weights(model: keras.Model) -> list[bytes]:
    return [value.tobytes() for value in model.get_weights()]


# --- determinism ---


def test_the_seed_decides_the_weights(small: Small, whole, tmp_path: Path):
    assert weights(train(small(), tmp_path).model) == weights(whole[0].model)
    begun = [train(small(seed=seed, epochs=0), tmp_path).model for seed in (0, 0, 1)]
    assert weights(begun[0]) == weights(begun[1])
    assert weights(begun[0]) != weights(begun[2])


def test_an_interrupted_training_ends_the_same(small: Small, whole, tmp_path: Path):
    def kill(what: str, done: int, total: int) -> None:
        if (what, done) == ("epoch 2", 2):
            raise Killed

    with pytest.raises(Killed):
        train(small(), tmp_path, progress=kill)
    seen = []
    resumed = train(
        small(), tmp_path, resume=True, progress=lambda what, done, total: seen.append(what)
    )
    assert "epoch 1" not in seen
    assert weights(resumed.model) == weights(whole[0].model)
    assert resumed.best_epoch == whole[0].best_epoch
    for one, other in zip(resumed.history, whole[0].history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.slow
def test_a_pretrained_network_keeps_its_head_when_it_is_interrupted(small: Small, tmp_path: Path):
    prepared = small(backbone="efficientnet-lite0", head_epochs=2, epochs=1)
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = train(prepared, tmp_path / "whole")
    assert [row["stage"] for row in whole.history] == ["head", "head", "fine-tune"]

    def kill(row: dict) -> None:
        raise Killed

    with pytest.raises(Killed):
        train(prepared, tmp_path / "broken", report=kill)
    assert [each.name for each in (tmp_path / "broken").iterdir()] == [checkpoint.NAME]
    seen = []
    resumed = train(
        prepared,
        tmp_path / "broken",
        resume=True,
        progress=lambda what, done, total: seen.append(what),
    )
    assert "features" not in seen
    assert weights(resumed.model) == weights(whole.model)


def test_nothing_is_left_of_a_head_stage_that_was_killed(small: Small, tmp_path: Path):
    prepared = small(backbone="efficientnet-lite0", head_epochs=1, epochs=0)

    def kill(what: str, done: int, total: int) -> None:
        if what == "features":
            raise Killed

    with pytest.raises(Killed):
        train(prepared, tmp_path, progress=kill)
    assert list(tmp_path.iterdir()) == []


def test_another_recipe_or_other_data_is_refused(small: Small, arrays: Arrays, whole):
    recipe = small().recipe
    with pytest.raises(RunError, match="another recipe or of other data"):
        train(small(batch=17), whole[1], resume=True)
    with pytest.raises(RunError, match="another recipe or of other data"):
        train(prepare(arrays([0, 1, 1] * 23), recipe), whole[1], resume=True)


def test_other_words_or_another_operating_point_go_on(small: Small, whole):
    prepared = small()
    recipe = override(prepared.recipe, card={"name": "other"}, decision={"sensitivity": 0.9})
    resumed = train(replace(prepared, recipe=recipe), whole[1], resume=True)
    assert weights(resumed.model) == weights(whole[0].model)


# --- which weights are kept ---


def test_the_best_epoch_is_kept_and_patience_ends_the_training(arrays: Arrays, tmp_path: Path):
    """Brightness says nothing of these labels, so the validation AUC goes up and down."""
    recipe = override(
        Recipe(),
        data={"labels": ["a", "b"]},
        training={"epochs": 30, "batch": 16, "patience": 4, "seed": 2},
    )
    prepared = prepare(arrays([[0, 1], [1, 0]] * 40), recipe)
    trained = train(prepared, tmp_path)
    aucs = [row["val_auc"] for row in trained.history]
    assert trained.best_epoch > 0
    assert len(aucs) == trained.best_epoch + 4 < 30
    assert aucs.index(max(aucs)) == trained.best_epoch - 1
    assert aucs[-1] < max(aucs)
    assert validation_auc(prepared, trained.model) == max(aucs)
    rows = prepared.rows("val")
    logits = trained.model.predict_on_batch(prepared.cached.pixels[rows])
    p = probabilities("multilabel", np.asarray(logits))
    assert auc("multilabel", prepared.y[rows], p) == pytest.approx(max(aucs))


def test_the_last_epoch_is_kept_where_the_recipe_says_so(arrays: Arrays, tmp_path: Path):
    """Whatever validation says, and however long nothing is gained."""
    recipe = override(
        Recipe(),
        data={"labels": ["a", "b"]},
        training={"epochs": 8, "batch": 16, "patience": 1, "seed": 2, "keep": "last"},
    )
    prepared = prepare(arrays([[0, 1], [1, 0]] * 40), recipe)
    trained = train(prepared, tmp_path)
    aucs = [row["val_auc"] for row in trained.history]
    assert (len(aucs), trained.best_epoch) == (8, 8)
    assert aucs[-1] < max(aucs)
    assert validation_auc(prepared, trained.model) == aucs[-1]


def test_gradients_are_shortened_before_adam_scales_them(small: Small, tmp_path: Path):
    """It scales steps to one length, but for gradients that are small beside its epsilon."""

    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    start = train(small(epochs=0), folder("start")).model.get_weights()

    def moved(name: str, **training: float) -> float:
        end = train(small(epochs=1, **training), folder(name)).model.get_weights()
        return max(float(np.abs(one - other).max()) for one, other in zip(start, end, strict=True))

    assert moved("clipped", clip=1e-12) < moved("free") / 10


def test_without_epochs_the_first_weights_are_kept(small: Small, tmp_path: Path):
    trained = train(small(epochs=0), tmp_path)
    assert (trained.history, trained.best_epoch) == ([], 0)


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"backbone": "tiny"}, SCHEDULES["tiny"]),
        ({"backbone": "efficientnet-lite0"}, SCHEDULES["efficientnet-lite0"]),
        ({"backbone": "efficientnet-lite0", "pretrained": False}, {"head_epochs": 0}),
        ({"backbone": "tiny", "head_epochs": 3}, {"head_epochs": 0}),
        ({"backbone": "efficientnet-lite0", "head_epochs": 0}, {"head_epochs": 0}),
        (
            {"backbone": "baseline", "epochs": 2, "learning_rate": 0.5},
            {"epochs": 2, "learning_rate": 0.5},
        ),
    ],
)
def test_the_schedule_is_the_backbones_but_for_what_the_recipe_says(training, expected):
    found = schedule_of(override(Recipe(), training=training))
    if isinstance(expected, dict):
        expected = type(found)(**vars(SCHEDULES[training["backbone"]]) | expected)
    assert found == expected


# --- imbalance ---


def labelled(arrays: Arrays, labels, balance: str, names: list[str]) -> Prepared:
    """``labels`` three times over; the split keeps their shares."""
    recipe = override(Recipe(), data={"labels": names}, training={"balance": balance})
    return prepare(arrays(labels), recipe)


@pytest.mark.parametrize("balance", ["weights", "sampling", "none"])
def test_weights_make_every_class_count_alike(arrays: Arrays, balance: str):
    prepared = labelled(arrays, [0] * 60 + [1] * 20, balance, ["no", "yes"])
    y = prepared.y[prepared.rows("train")]
    found = class_weights(prepared)
    if balance != "weights":
        assert found.tolist() == [1, 1]
        return
    assert found == pytest.approx([len(y) / 2 / (y == 0).sum(), len(y) / 2 / (y == 1).sum()])
    assert found[0] == pytest.approx(2 / 3, abs=0.02)
    assert found[1] == pytest.approx(2, abs=0.1)
    assert found[y].sum() == pytest.approx(len(y))


def test_weights_of_three_classes_and_of_several_labels(arrays: Arrays):
    three = labelled(arrays, [0] * 40 + [1] * 20 + [2] * 20, "weights", ["a", "b", "c"])
    y = three.y[three.rows("train")]
    assert class_weights(three) == pytest.approx(len(y) / 3 / np.bincount(y))
    marks = [[1, 0], [0, 1], [0, 0], [0, 1]] * 15
    several = labelled(arrays, marks, "weights", ["a", "b"])
    y = several.y[several.rows("train")]
    found = class_weights(several)
    assert found.shape == (2, 2)
    for label in range(2):
        counts = np.bincount(y[:, label])
        assert found[label] == pytest.approx(len(y) / 2 / counts)


def test_sampling_draws_classes_evenly_from_train_alone(arrays: Arrays):
    prepared = labelled(arrays, [0] * 180 + [1] * 20, "sampling", ["no", "yes"])
    train_rows = prepared.rows("train")
    drawn = [y for epoch in range(4) for _, y in batches(prepared, epoch).as_numpy_iterator()]
    labels = np.concatenate(drawn)
    assert len(labels) == 4 * len(train_rows)
    assert 0.4 < labels.mean() < 0.6


# --- losses, by hand ---


def test_the_binary_loss():
    """ln(1 + e^-z) for positives, ln(1 + e^z) for negatives, each with its class's weight."""
    loss = weighted_loss("binary", np.array([0.5, 2.0], np.float32))
    logits = np.array([[0.0], [2.0], [-1.0]], np.float32)
    expected = (0.5 * np.log(2) + 2 * np.log1p(np.exp(-2)) + 2 * np.log1p(np.exp(1))) / 3
    assert float(loss(np.array([0, 1, 1]), logits)) == pytest.approx(expected, rel=1e-6)
    assert float(loss(np.array([[0], [1], [1]]), logits)) == pytest.approx(expected, rel=1e-6)


def test_the_multiclass_loss():
    loss = weighted_loss("multiclass", np.array([1.0, 3.0, 0.5], np.float32))
    logits = np.log(np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], np.float32))
    expected = (-3 * np.log(0.3) - 0.5 * np.log(0.1)) / 2
    assert float(loss(np.array([1, 2]), logits)) == pytest.approx(expected, rel=1e-5)


def test_the_multilabel_loss():
    weights = np.array([[1.0, 2.0], [0.5, 4.0]], np.float32)
    loss = weighted_loss("multilabel", weights)
    logits = np.array([[0.0, 1.0], [-2.0, 0.0]], np.float32)
    y = np.array([[1, 0], [0, 1]])
    each = [2 * np.log(2), 0.5 * np.log1p(np.e), 1 * np.log1p(np.exp(-2)), 4 * np.log(2)]
    assert float(loss(y, logits)) == pytest.approx(np.mean(each), rel=1e-6)


def test_logits_become_probabilities():
    logits = np.array([[0.0, np.log(3), -800]])
    assert probabilities("multilabel", logits)[0] == pytest.approx([0.5, 0.75, 0])
    assert probabilities("multiclass", logits)[0] == pytest.approx([0.25, 0.75, 0])
    assert probabilities("binary", np.array([[4.0]]), 2.0)[0, 0] == pytest.approx(
        1 / (1 + np.exp(-2))
    )


# --- batches ---


def test_every_training_image_comes_once_an_epoch_augmented_by_its_row(small: Small):
    prepared = small(seed=4)
    rows = prepared.rows("train")
    orders = []
    for epoch in (0, 1):
        drawn = draw(len(prepared.y), seed=4, epoch=epoch)
        expected = {
            augment(
                prepared.cached.pixels[row], drawn[row], prepared.recipe.training.augmentation
            ).tobytes(): int(prepared.y[row])
            for row in rows
        }
        images, labels = [], []
        for pixels, y in batches(prepared, epoch).as_numpy_iterator():
            assert pixels.dtype == np.uint8
            assert pixels.shape[1:] == prepared.preprocessing.shape
            assert len(pixels) <= 16
            images += [each.tobytes() for each in pixels]
            labels += y.tolist()
        assert len(images) == len(rows)
        assert dict(zip(images, labels, strict=True)) == expected
        orders.append([list(expected).index(each) for each in images])
    assert orders[0] != orders[1]
    again = [each.tobytes() for pixels, _ in batches(prepared, 1) for each in pixels.numpy()]
    assert again == images


def test_pixels_are_streamed_from_disk(small: Small, arrays: Arrays):
    """A map of a file is paged in and out; an array in memory would grow with the images."""
    recipe = override(small().recipe, pixels={"size": 128})
    prepared = prepare(arrays([0, 1] * 150, size=128), recipe)
    assert isinstance(prepared.cached.pixels, np.memmap)
    size = prepared.cached.pixels.nbytes
    tracemalloc.start()
    try:
        for _ in batches(prepared, 0):
            pass
        assert tracemalloc.get_traced_memory()[1] < size / 3
    finally:
        tracemalloc.stop()
