"""Self-supervised pretraining: a network learns what images have in common, from no labels.

SimCLR (Chen et al. 2020): two views of each image, drawn by the augmentation, are to be nearer to
each other than to all other views of the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from medimg_edge.manifest import Preprocessing
from medimg_edge.whole_file import write_whole
from medimg_export import backbones, checkpoint
from medimg_export.augment import augment, draw
from medimg_export.keras_file import save_model
from medimg_export.prepared import Progress
from medimg_export.recipe import Recipe, at_least
from medimg_export.run import history_csv, make_folder, require_free, versions
from medimg_export.start import PRETRAINED
from medimg_export.train import fit_epoch, warmup_cosine
from medimg_export.unlabelled import Unlabelled

RECORD = "pretrain.json"
HISTORY = "history.csv"


class Record(msgspec.Struct, frozen=True):
    """``pretrain.json``: how the weights came about."""

    recipe: Recipe
    images: dict[str, Any]
    kept_apart: str | None
    seconds: float
    versions: dict[str, str]
    schema: int = 1


class Contrastive(keras.Model):
    """Trained on pairs of views, uint8 (n, H, W, C) each; ``embedder`` is what is kept."""

    def __init__(self, embedder: keras.Model, width: int, temperature: float, seed: int) -> None:
        super().__init__(name="contrastive")
        self.embedder = embedder
        dense = keras.layers.Dense
        first, second = (keras.initializers.GlorotUniform(seed + each) for each in range(2))
        self.projector = keras.Sequential(
            [
                keras.Input(embedder.output_shape[1:]),
                dense(2 * width, activation="relu", kernel_initializer=first),  # pyright: ignore
                dense(width, kernel_initializer=second),  # pyright: ignore[reportArgumentType]
            ]
        )
        self._temperature = temperature
        self._told = {name: keras.metrics.Mean(name) for name in ("loss", "found")}
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """What an epoch begins anew."""
        return [*self._told.values()]

    def call(self, pixels: Any, training: bool = False) -> Any:
        """uint8 pixels -> float32 (n, width), of length 1."""
        projected = self.projector(self.embedder(pixels, training=training), training=training)
        return tf.math.l2_normalize(projected, axis=1)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step. It tells ``loss``, and ``found``: the share of views whose twin is nearest.

        Means over the steps of an epoch.
        """
        one, other = data
        count = tf.shape(one)[0]
        with tf.GradientTape() as tape:
            views = self(tf.concat([one, other], axis=0), training=True)
            alike = tf.matmul(views, views, transpose_b=True) / self._temperature
            alike -= 1e9 * tf.eye(2 * count)  # a view is not its own twin
            twin = tf.concat([tf.range(count) + count, tf.range(count)], axis=0)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(twin, alike)
            loss = tf.reduce_mean(losses)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)  # pyright: ignore
        nearest = tf.argmax(alike, axis=1, output_type=tf.int32)
        self._told["loss"].update_state(loss)
        self._told["found"].update_state(tf.cast(nearest == twin, tf.float32))
        return {name: mean.result() for name, mean in self._told.items()}


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A finished run."""

    path: Path
    record: Record
    history: list[dict[str, Any]]


def pretrain(
    images: Unlabelled,
    recipe: Recipe,
    preprocessing: Preprocessing,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> Pretrained:
    """Learn from images, and write PRETRAINED, HISTORY and RECORD; each epoch leaves a checkpoint.

    Memory does not grow with the images. Raises RunError where the folder holds something else, or
    a checkpoint of another recipe or other images; WriteError.
    """
    require_free(folder, resume, RECORD)
    make_folder(folder)
    spec, seed = recipe.pretraining, recipe.training.seed
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    network = backbones.build(
        recipe.training.backbone,
        preprocessing.shape,
        1,
        seed=seed,
        pretrained=recipe.training.pretrained,
    )
    model = Contrastive(backbones.feature_extractor(network), spec.width, spec.temperature, seed)
    steps = max(1, len(images.rows) // spec.batch)
    rate = warmup_cosine(spec.learning_rate, spec.epochs * steps)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4), jit_compile=False)  # pyright: ignore[reportArgumentType]
    model.optimizer.build(model.trainable_variables)  # pyright: ignore[reportAttributeAccessIssue]

    identity = checkpoint.identity_of(
        recipe, images.fingerprint, pretraining=msgspec.json.encode(spec).decode()
    )
    path = folder / checkpoint.NAME
    state = (checkpoint.load(path, model, identity) if resume else None) or checkpoint.State()
    report = report or (lambda row: None)
    for row in state.history:
        report(row)
    while state.epoch < spec.epochs:
        started = time.perf_counter()
        pairs = views(images, recipe, state.epoch, steps)
        row = {"stage": "pretrain"} | fit_epoch(model, pairs, state.epoch, steps, progress)
        row["seconds"] = round(time.perf_counter() - started, 2)
        state.epoch += 1
        state.history.append(row)
        checkpoint.save(path, model, state, identity)
        report(row)
    save_model(model.embedder, folder / PRETRAINED)
    write_whole(folder / HISTORY, history_csv(state.history, "found"))
    seconds = round(sum(row["seconds"] for row in state.history), 1)
    record = Record(recipe, images.describe(), images.kept_apart, seconds, versions())
    write_whole(folder / RECORD, msgspec.json.format(msgspec.json.encode(record)))
    return Pretrained(folder, record, state.history)


def views(images: Unlabelled, recipe: Recipe, epoch: int, steps: int) -> tf.data.Dataset:
    """One epoch: ``steps`` pairs of views, uint8 (n, H, W, C), read from the cache on disk."""
    pixels, seed = images.cached.pixels, recipe.training.seed
    spec = at_least(recipe.pretraining.augmentation, recipe.training.augmentation)
    order = np.random.default_rng([seed, epoch, *b"views"]).permutation(images.rows)
    drawn = [draw(len(pixels), seed=seed, epoch=2 * epoch + each) for each in range(2)]

    def pair(rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        return [np.stack([augment(pixels[row], each[row], spec) for row in rows]) for each in drawn]

    def load(rows):
        found = tf.numpy_function(pair, [rows], [tf.uint8] * 2, stateful=False)
        return tuple(tf.ensure_shape(each, (None, *pixels.shape[1:])) for each in found)

    dataset = tf.data.Dataset.from_tensor_slices(order.astype(np.int64))
    dataset = dataset.batch(recipe.pretraining.batch)
    dataset = dataset.take(steps)  # of the rest, a few have too few others to be told from
    return dataset.map(load, num_parallel_calls=2, deterministic=True).prefetch(2)
