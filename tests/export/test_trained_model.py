"""A run or somebody's Keras model, opened with everything that an export needs."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from medimg_edge.errors import DataInvalid, ModelUnsupported, RecipeError, RunError
from medimg_export.prepared import Prepared
from medimg_export.recipe import Recipe, override
from medimg_export.run import Run
from medimg_export.train import probabilities
from medimg_export.trained_model import TrainedModel, trained_model

Arrays = Callable[..., Path]
TWO, THREE = ["normal", "sick"], ["a", "b", "c"]


def network(units: int, activation: str, *, shape=(28, 28, 1), scale: bool = False) -> keras.Model:
    """A first tutorial's network with float input and weights that nobody trained."""
    pixels = keras.Input(shape)
    x = layers.Rescaling(1 / 255)(pixels) if scale else pixels
    x = layers.Conv2D(8, 3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(units, activation=activation, kernel_initializer="normal")(x)
    return keras.Model(pixels, x)


@pytest.fixture
def theirs(tmp_path: Path) -> Callable[[keras.Model], Path]:
    def save(model: keras.Model) -> Path:
        model.save(tmp_path / "theirs.keras")
        return tmp_path / "theirs.keras"

    return save


@pytest.fixture(autouse=True)
def seed() -> None:
    keras.utils.set_random_seed(1)


def pixels_of(model: TrainedModel) -> np.ndarray:
    prepared = model.prepared
    return np.asarray(prepared.cached.pixels[prepared.rows("val")]).astype(np.float32)


# --- a run ---


def test_a_run_is_opened_with_its_data(run: Run, model: TrainedModel, prepared: Prepared):
    assert (model.task, model.labels, model.findings) == (
        "binary",
        ("normal", "opacity"),
        ("opacity",),
    )
    assert model.recipe == run.record.recipe
    assert model.decision == run.record.decision
    assert model.training["data_fingerprint"] == run.record.dataset["fingerprint"]
    for split in ("val", "test"):
        pixels = np.asarray(prepared.cached.pixels[prepared.rows(split)])
        logits = np.asarray(run.model().predict_on_batch(pixels))
        expected = probabilities("binary", logits, run.record.temperature)
        found = model.answers(split)
        assert found.shape == expected.shape == (len(pixels), 1)
        assert np.abs(found - expected).max() < 1e-6


def test_of_a_recipe_a_run_takes_the_card_alone(run: Run):
    said = {"intended_use": "For nobody.", "limits": ["It cannot read."]}
    changed = override(Recipe(), card=said, training={"epochs": 99}, pixels={"size": 77})
    found = trained_model(run.path, recipe=changed)
    assert found.recipe.card == changed.card
    assert found.recipe.training == run.record.recipe.training
    assert found.recipe.pixels == run.record.recipe.pixels
    assert found.decision == run.record.decision


def test_other_data_than_the_trainings_is_refused(run: Run, tmp_path: Path):
    moved = shutil.copytree(run.record.data, tmp_path / "moved")
    assert trained_model(run.path, data=moved).decision == run.record.decision
    next(moved.glob("train/*/*.png")).unlink()
    with pytest.raises(DataInvalid, match="are not those of the training"):
        trained_model(run.path, data=moved)


# --- a model from elsewhere ---


@pytest.mark.parametrize(
    ("units", "activation", "scale", "spec", "expected"),
    [
        (1, "sigmoid", True, {}, lambda net, x: net(x)),
        (
            1,
            "sigmoid",
            False,
            {"scale": 1 / 127.5, "offset": -1},
            lambda net, x: net(x / 127.5 - 1),
        ),
        (1, "sigmoid", False, {"scale": 1 / 255}, lambda net, x: net(x / 255)),
        (2, "softmax", True, {}, lambda net, x: net(x)[:, 1:]),
        (2, "softmax", True, {"outputs": ["sick", "normal"]}, lambda net, x: net(x)[:, :1]),
        (1, "sigmoid", True, {"outputs": ["sick", "normal"]}, lambda net, x: 1 - net(x)),
        (
            1,
            "linear",
            True,
            {"temperature": 2.0},
            lambda net, x: keras.ops.sigmoid(net(x) / 2),
        ),
    ],
    ids=[
        "own rescaling",
        "scale and offset",
        "scale",
        "two units",
        "two units, positive first",
        "one unit, positive first",
        "logits",
    ],
)
def test_binary(arrays: Arrays, theirs, units, activation, scale, spec, expected):
    net = network(units, activation, scale=scale)
    labels = {"labels": TWO, "positive": "sick"}
    recipe = override(Recipe(), data=labels, model=spec, pixels={"decode": "scaled"})
    found = trained_model(theirs(net), data=arrays([0, 1] * 40), recipe=recipe)
    assert found.prepared.preprocessing.needed is None  # it has seen no scaled JPEG
    wanted = np.asarray(expected(net, pixels_of(found)))
    assert np.abs(found.answers("val") - wanted).max() < 1e-5
    assert set(found.decision) == {"sick"}
    assert found.recipe.pixels.size == 28
    assert found.training["backbone"] == "trained elsewhere: theirs.keras"
    assert {"pixels", "probability", "heatmap", "embedding"} == {
        found.deployable.model.inputs[0].name,
        *found.deployable.model.output,
    }


def test_multiclass_in_the_order_of_the_models_outputs(arrays: Arrays, theirs):
    net = network(3, "softmax", scale=True)
    recipe = override(Recipe(), data={"labels": THREE}, model={"outputs": ["c", "a", "b"]})
    found = trained_model(theirs(net), data=arrays([0, 1, 2] * 30), recipe=recipe)
    assert found.labels == found.findings == ("c", "a", "b")
    assert found.decision == {}
    assert np.abs(found.answers("val") - np.asarray(net(pixels_of(found)))).max() < 1e-5
    names = {"a": 60, "b": 100, "c": 140}  # the brightness that each label was drawn with
    for pixels, y in zip(
        pixels_of(found), found.prepared.y[found.prepared.rows("val")], strict=True
    ):
        assert abs(pixels.mean() - names[found.labels[y]]) < 10


def test_multilabel(arrays: Arrays, theirs):
    net = network(2, "sigmoid", scale=True)
    marks = [[0, 0], [0, 1], [1, 0], [1, 1]] * 20
    recipe = override(Recipe(), data={"labels": ["x", "y"]}, decision={"sensitivity": 0.8})
    found = trained_model(theirs(net), data=arrays(marks), recipe=recipe)
    assert found.task == "multilabel"
    assert np.abs(found.answers("val") - np.asarray(net(pixels_of(found)))).max() < 1e-5
    assert {point.rule for point in found.decision.values()} == {"sensitivity>=0.8"}


def test_a_model_without_a_heatmap_says_so(arrays: Arrays, theirs):
    pixels = keras.Input((28, 28, 1))
    x = layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(pixels))
    net = keras.Model(pixels, layers.Dense(1)(layers.GlobalMaxPooling2D()(x)))
    recipe = override(Recipe(), data={"labels": TWO, "positive": "sick"})
    found = trained_model(theirs(net), data=arrays([0, 1] * 40), recipe=recipe)
    assert "heatmap" not in found.deployable.model.output
    assert any("No heatmap" in note for note in found.deployable.notes)


# --- refused in words ---


def test_a_foreign_model_needs_a_recipe_and_data(theirs, arrays: Arrays):
    path = theirs(network(1, "sigmoid"))
    cases: list[dict[str, Any]] = [{}, {"recipe": Recipe()}, {"data": arrays([0, 1] * 20)}]
    for given in cases:
        with pytest.raises(RecipeError, match=r"needs --recipe .* and --data"):
            trained_model(path, **given)


def test_what_is_neither_run_nor_model_is_refused(tmp_path: Path):
    (tmp_path / "model.h5").write_bytes(b"x")
    for path in (tmp_path / "model.h5", tmp_path / "missing"):
        with pytest.raises(RunError, match=r"neither a run nor a \.keras file"):
            trained_model(path)
    with pytest.raises(RunError, match=r"no run\.json"):
        trained_model(tmp_path)
    with pytest.raises(RunError, match="cannot be read as a Keras model"):
        trained_model(tmp_path / "no.keras", data=tmp_path, recipe=Recipe())


def wide() -> keras.Model:
    return network(1, "sigmoid", shape=(28, 40, 1), scale=True)


def flat() -> keras.Model:
    pixels = keras.Input((784,))
    return keras.Model(pixels, layers.Dense(1)(pixels))


def two_inputs() -> keras.Model:
    one, other = keras.Input((28, 28, 1)), keras.Input((28, 28, 1))
    x = layers.GlobalAveragePooling2D()(layers.Add()([one, other]))
    return keras.Model([one, other], layers.Dense(1)(x))


@pytest.mark.parametrize(
    ("net", "changes", "error", "message"),
    [
        (lambda: network(1, "sigmoid"), {}, ModelUnsupported, "scale and offset"),
        (wide, {}, RecipeError, "40 x 28"),
        (flat, {"pixels": {"size": 28}}, ModelUnsupported, "height, width and channels"),
        (two_inputs, {}, ModelUnsupported, "2 inputs"),
        (lambda: network(3, "softmax", scale=True), {}, ModelUnsupported, "not a binary task"),
        (
            lambda: network(1, "sigmoid", shape=(28, 28, 3), scale=True),
            {},
            RecipeError,
            r"takes \(28, 28, 3\).*\(28, 28, 1\)",
        ),
        (
            lambda: network(1, "sigmoid", scale=True),
            {"pixels": {"size": 32}},
            RecipeError,
            r"\(32, 32, 1\)",
        ),
        (
            lambda: network(1, "sigmoid", scale=True),
            {"model": {"outputs": ["ill", "well"]}},
            RecipeError,
            "ill, well; the data's labels are normal, sick",
        ),
    ],
    ids=["no scale", "not square", "flat", "two inputs", "units", "color", "size", "labels"],
)
def test_what_does_not_fit_is_refused(arrays: Arrays, theirs, net, changes, error, message):
    recipe = override(Recipe(), **{"data": {"labels": TWO, "positive": "sick"}} | changes)
    with pytest.raises(error, match=message):
        trained_model(theirs(net()), data=arrays([0, 1] * 20), recipe=recipe)
