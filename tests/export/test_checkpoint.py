"""A checkpoint: written whole or not at all, read back exactly, and only by its own training."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import keras
import numpy as np
import pytest

from medimg_edge.errors import RunError, WriteError
from medimg_export import checkpoint
from medimg_export.checkpoint import State, identity_of
from medimg_export.recipe import Recipe, override

RECIPE = override(Recipe(), data={"labels": ["a", "b"]}, training={"seed": 1})
IDENTITY = identity_of(RECIPE, "abc")
RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(64, 5)), RANDOM.integers(0, 2, (64, 1))


def network() -> keras.Model:
    layers = [keras.Input((5,)), keras.layers.Dense(300), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    rate = keras.optimizers.schedules.CosineDecay(0.1, 20)
    model.compile(keras.optimizers.AdamW(rate), "mse")  # pyright: ignore[reportArgumentType]
    model.optimizer.build(model.trainable_variables)  # pyright: ignore[reportAttributeAccessIssue]
    return model


def step(model: keras.Model, count: int) -> None:
    for _ in range(count):
        model.train_on_batch(X, Y)


def weights(model: keras.Model) -> list[bytes]:
    return [value.tobytes() for value in model.get_weights()]


def state_of(model: keras.Model) -> State:
    history = [{"stage": "train", "epoch": 0, "loss": 0.5, "val_auc": 0.75, "seconds": 1.5}]
    return State(1, 1, 0.75, model.get_weights(), history)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of training; ``after.npz`` holds the weights after four more."""
    folder = tmp_path_factory.mktemp("checkpoint")
    keras.utils.set_random_seed(0)
    model = network()
    step(model, 3)
    checkpoint.save(folder / checkpoint.NAME, model, state_of(model), IDENTITY)
    step(model, 4)
    np.savez(folder / "after.npz", *model.get_weights())
    return folder / checkpoint.NAME


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk does: writes beyond it fail with an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_training_goes_on_as_if_it_had_not_stopped(written: Path):
    keras.utils.set_random_seed(99)
    model = network()
    state = checkpoint.load(written, model, IDENTITY)
    assert state is not None
    assert weights(model) == [value.tobytes() for value in state.best]
    assert state.history == state_of(model).history
    assert (state.epoch, state.best_epoch, state.best_auc) == (1, 1, 0.75)
    step(model, 4)
    with np.load(written.with_name("after.npz")) as after:
        assert weights(model) == [after[name].tobytes() for name in after.files]


def test_none_where_there_is_none(tmp_path: Path):
    assert checkpoint.load(tmp_path / checkpoint.NAME, network(), IDENTITY) is None


def test_a_checkpoint_of_a_release_without_an_option_left_it_out(tmp_path: Path):
    before = deepcopy(IDENTITY)
    del before["recipe"]["training"]["validation_draws"]
    for option in ("aspect", "blur", "noise", "jpeg"):
        del before["recipe"]["training"]["augmentation"][option]
    path = tmp_path / checkpoint.NAME
    model = network()
    checkpoint.save(path, model, state_of(model), before)
    assert checkpoint.load(path, network(), IDENTITY) is not None
    drawn = identity_of(override(RECIPE, training={"validation_draws": 2}), "abc")
    with pytest.raises(RunError, match="another recipe"):
        checkpoint.load(path, network(), drawn)


@pytest.mark.parametrize(
    "identity",
    [identity_of(RECIPE, "abd"), identity_of(override(RECIPE, training={"seed": 2}), "abc")],
    ids=["data", "recipe"],
)
def test_another_training_is_refused(written: Path, identity: dict):
    model = network()
    before = weights(model)
    with pytest.raises(RunError, match="another recipe or of other data") as refused:
        checkpoint.load(written, model, identity)
    assert refused.value.code == "run"
    assert weights(model) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"not a checkpoint",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-30],
        lambda data: data[:2000] + bytes(100) + data[2100:],
        lambda data: b"\x80\x04N.",  # a pickle
    ],
    ids=["empty", "text", "half", "no end", "zeros inside", "pickle"],
)
def test_a_damaged_file_is_refused(written: Path, tmp_path: Path, damage):
    path = tmp_path / checkpoint.NAME
    path.write_bytes(damage(written.read_bytes()))
    with pytest.raises(RunError, match="cannot be read"):
        checkpoint.load(path, network(), IDENTITY)


def test_a_folder_that_is_gone_is_a_write_error(tmp_path: Path):
    (tmp_path / "file").touch()
    model = network()
    for folder in ("gone", "file"):
        with pytest.raises(WriteError, match="was not written"):
            checkpoint.save(tmp_path / folder / "x.npz", model, state_of(model), IDENTITY)


def test_a_full_disk_leaves_the_old_one(written: Path, tmp_path: Path):
    path = tmp_path / checkpoint.NAME
    path.write_bytes(written.read_bytes())
    model = network()
    with files_of_at_most(4096), pytest.raises(WriteError, match="was not written"):
        checkpoint.save(path, model, state_of(model), IDENTITY)
    assert path.read_bytes() == written.read_bytes()
    assert [each.name for each in tmp_path.iterdir()] == [checkpoint.NAME]
