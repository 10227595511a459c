"""Training, top to bottom: the head on cached features, then all of the network.

Two trainings with one seed end with identical weights on CPU, and so does one that was interrupted:
op determinism is on; the order of the images, their augmentation and the dropout follow from
(seed, epoch); and a checkpoint holds the optimizer.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from medimg_edge.errors import WriteError
from medimg_edge.manifest import Task
from medimg_export import backbones, checkpoint
from medimg_export.augment import augment, draw
from medimg_export.metrics import auc
from medimg_export.prepared import Prepared, Progress
from medimg_export.recipe import Keep, Recipe, at_least
from medimg_export.semi_supervised import Learner, prior
from medimg_export.start import Start

PREDICT_BATCH = 64
BEYOND_TRAINING = 10_000
"""The draws that validation sees: no epoch of a training has this number."""
PASSES_AT_ONCE = 4
"""Over the labelled images, whose draws are held: steps are made ready side by side."""
WEAK, STRONG = 1_000_000, 2_000_000
"""Where the draws of unlabelled images begin: others than those of labelled ones."""

HEAD_RATE = 3e-3
"""For the head alone, on features that do not change: a convex problem takes a large rate."""
HEAD_EPOCHS = 15


@dataclass(frozen=True)
class Schedule:
    """Epochs and rates of the two stages; no head stage where nothing is pretrained.

    learning_rate is the peak: a linear warm-up over the first tenth of all steps, then a cosine to
    zero (Loshchilov and Hutter 2017), so that training ends at its best without a plateau rule.
    clip: the largest norm of a gradient, if any.
    """

    head_epochs: int
    epochs: int
    learning_rate: float
    patience: int
    clip: float | None = None


SCHEDULES = {
    "baseline": Schedule(0, 20, 1e-3, patience=6),
    "tiny": Schedule(0, 40, 3e-3, patience=12),
    # Few epochs: at 224 pixels each takes minutes on two cores, and the weights know edges already.
    "efficientnet-lite0": Schedule(HEAD_EPOCHS, 4, 5e-4, patience=3),
}


@dataclass(frozen=True, eq=False)
class Trained:
    """The weights of the epoch that the recipe keeps, and how training went.

    history: one row an epoch: stage, epoch, loss, val_auc, seconds, and with unlabelled images the
        terms of ``semi_supervised``.
    """

    model: keras.Model
    history: list[dict[str, Any]]
    best_epoch: int


def schedule_of(recipe: Recipe, *, given: bool = False, unlabelled: bool = False) -> Schedule:
    """The backbone's schedule, with what the recipe says instead.

    given: it starts with weights that were learned before, whatever the backbone. unlabelled: an
    epoch is a pass through images without labels.
    """
    training = recipe.training
    own = msgspec.structs.asdict(training)
    values = {
        name: default if own[name] is None else own[name]
        for name, default in vars(SCHEDULES[training.backbone]).items()
    }
    if unlabelled and training.semi.epochs is not None:
        values["epochs"] = training.semi.epochs
    if given and training.head_epochs is None:
        values["head_epochs"] = HEAD_EPOCHS
    elif not given and not (training.pretrained and backbones.find(training.backbone).pretrained):
        values["head_epochs"] = 0
    return Schedule(**values)


def train(
    prepared: Prepared,
    folder: Path,
    *,
    start: Start | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> Trained:
    """Train as the recipe says; ``folder`` keeps the checkpoint, ``report`` gets each epoch's row.

    start: weights to begin with. Raises RunError where they are of another network, and where
    ``resume`` finds a checkpoint of another recipe, start or data.
    """
    training = prepared.recipe.training
    schedule = schedule_of(
        prepared.recipe, given=start is not None, unlabelled=prepared.unlabelled is not None
    )
    keras.utils.set_random_seed(training.seed)
    tf.config.experimental.enable_op_determinism()
    model = backbones.build(
        training.backbone,
        prepared.preprocessing.shape,
        1 if prepared.dataset.task == "binary" else len(prepared.dataset.labels),
        seed=training.seed,
        pretrained=training.pretrained and start is None,
    )
    if start:
        start.put_into(model)
    loss = weighted_loss(prepared.dataset.task, class_weights(prepared))
    learner = _learner(prepared, model, schedule)
    _compile(learner, model, loss, schedule, steps=schedule.epochs * _steps(prepared))

    identity = _identity(prepared, start)
    path = folder / checkpoint.NAME
    state = checkpoint.load(path, learner, identity) if resume else None
    if state is None:
        state = checkpoint.State()
        if schedule.head_epochs:
            state.history += _train_head(prepared, model, schedule, loss, folder, progress)
        if isinstance(learner, Learner):
            learner.begin()
        reached = validation_auc(prepared, model, progress)
        _keep(state, model, reached, training.keep)
        if schedule.head_epochs:  # minutes of work; without a head stage nothing is learned yet
            state.history[-1]["val_auc"] = reached
            checkpoint.save(path, learner, state, identity)
    answers = learner.teacher if isinstance(learner, Learner) else model
    report = report or (lambda row: None)
    for row in state.history:
        report(row)

    while state.epoch < schedule.epochs and state.epoch - state.best_epoch < schedule.patience:
        started = time.perf_counter()
        row = _train_epoch(prepared, learner, model, state.epoch, progress)
        row = {"stage": "fine-tune" if schedule.head_epochs else "train"} | row
        state.epoch += 1
        row["val_auc"] = validation_auc(prepared, answers, progress)
        row["seconds"] = round(time.perf_counter() - started, 2)
        state.history.append(row)
        _keep(state, answers, row["val_auc"], training.keep)
        checkpoint.save(path, learner, state, identity)
        report(row)
    model.set_weights(state.best)
    return Trained(keras.Model(model.inputs, model.outputs), state.history, state.best_epoch)


def predict(
    model: keras.Model,
    pixels: NDArray[np.uint8] | _Augmented,
    rows: NDArray[np.intp],
    progress: Progress | None = None,
    what: str = "predicting",
) -> Iterator[NDArray[np.float32]]:
    """The model's output for rows of the pixel cache, batch by batch: float32 (n, ...)."""
    for start in range(0, len(rows), PREDICT_BATCH):
        yield model.predict_on_batch(pixels[rows[start : start + PREDICT_BATCH]])
        if progress:
            progress(what, min(start + PREDICT_BATCH, len(rows)), len(rows))


def logits_of(
    model: keras.Model, prepared: Prepared, rows: NDArray[np.intp], progress: Progress | None = None
) -> NDArray[np.float32]:
    """float32 (N, C): the logits of rows, in their order."""
    return np.concatenate(
        list(predict(model, prepared.cached.pixels, rows, progress, "validating"))
    )


def probabilities(task: Task, logits: NDArray, temperature: float = 1.0) -> NDArray[np.float64]:
    """Logits (N, C) -> probabilities (N, C): softmax for multiclass, else sigmoids."""
    scaled = logits.astype(np.float64) / temperature
    if task == "multiclass":
        raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)
    return 0.5 * (1 + np.tanh(scaled / 2))


def validate(
    prepared: Prepared, model: keras.Model, progress: Progress | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """What the epoch is chosen by: y and logits (N, C) of the validation images.

    Each as it is or, where the recipe asks for it, under several draws of the augmentation, which
    are the same for every epoch. N is then so many times larger.
    """
    training, rows = prepared.recipe.training, prepared.splits.val
    if not training.validation_draws:
        return prepared.y[rows], logits_of(model, prepared, rows, progress)
    draws, logits = training.validation_draws, []
    for each in range(draws):
        changed = _Augmented(prepared, BEYOND_TRAINING + each)
        logits += predict(model, changed, rows, progress, f"validating, {each + 1} of {draws}")
    return np.concatenate([prepared.y[rows]] * draws), np.concatenate(logits)


def with_draws(
    prepared: Prepared,
    model: keras.Model,
    logits: NDArray[np.float32],
    progress: Progress | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """What temperature and points are chosen by: y and logits of the validation images and draws.

    logits: of the images as they are, (N, C); first in what is returned, then ``validate``'s.
    """
    y = prepared.y[prepared.splits.val]
    if not prepared.recipe.training.validation_draws:
        return y, logits
    drawn_y, drawn = validate(prepared, model, progress)
    return np.concatenate([y, drawn_y]), np.concatenate([logits, drawn])


def validation_auc(
    prepared: Prepared, model: keras.Model, progress: Progress | None = None
) -> float:
    """What decides which epoch is kept."""
    y, logits = validate(prepared, model, progress)
    return auc(prepared.dataset.task, y, probabilities(prepared.dataset.task, logits))


def class_weights(prepared: Prepared) -> NDArray[np.float32]:
    """The weight of each class in the loss, n / (classes * n of the class): all count alike.

    float32 (classes,), or (labels, 2) for multilabel; ones unless the recipe balances by weights.
    """
    y = prepared.y[prepared.splits.train]
    if prepared.dataset.task == "multilabel":
        counts = np.stack([len(y) - y.sum(axis=0), y.sum(axis=0)], axis=1)
    else:
        counts = np.bincount(y, minlength=len(prepared.dataset.labels))
    if prepared.recipe.training.balance != "weights":
        return np.ones_like(counts, np.float32)
    return (len(y) / (counts.shape[-1] * np.maximum(counts, 1))).astype(np.float32)


def weighted_loss(task: Task, weights: NDArray[np.float32]) -> Callable:
    """Cross-entropy of logits with a weight for each class; see ``class_weights``."""

    def multiclass(y, logits):
        y = tf.cast(tf.reshape(y, [-1]), tf.int32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        return tf.reduce_mean(losses * tf.gather(weights, y))

    def sigmoids(y, logits):
        y = tf.reshape(tf.cast(y, tf.float32), tf.shape(logits))
        weight = weights[..., 1] * y + weights[..., 0] * (1 - y)
        return tf.reduce_mean(weight * tf.nn.sigmoid_cross_entropy_with_logits(y, logits))

    return multiclass if task == "multiclass" else sigmoids


def _learner(prepared: Prepared, model: keras.Model, schedule: Schedule) -> keras.Model:
    """What is trained: the network itself or, with unlabelled images, it and its teacher."""
    if prepared.unlabelled is None:
        return model
    task = prepared.dataset.task
    shares = prior(task, prepared.y[prepared.splits.train], model.output_shape[-1])
    steps = schedule.epochs * _steps(prepared)
    return Learner(model, task, prepared.recipe.training.semi, shares, steps)


def _identity(prepared: Prepared, start: Start | None) -> dict[str, Any]:
    more = {}
    if prepared.unlabelled:
        more["unlabelled"] = prepared.unlabelled.fingerprint
    if start:
        more["weights"] = start.sha256
    return checkpoint.identity_of(prepared.recipe, prepared.describe()["fingerprint"], **more)


def _compile(
    learner: keras.Model, model: keras.Model, loss: Callable, schedule: Schedule, steps: int
) -> None:
    # Pretrained statistics stay: a few hundred steps on one kind of image only spoil them.
    if schedule.head_epochs:
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
    rate = warmup_cosine(schedule.learning_rate, steps)
    # XLA would compile every convolution for one core.
    optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=schedule.clip)  # pyright: ignore[reportArgumentType]
    learner.compile(optimizer, loss, jit_compile=False)  # pyright: ignore[reportArgumentType]
    learner.optimizer.build(learner.trainable_variables)  # pyright: ignore[reportAttributeAccessIssue]


def warmup_cosine(peak: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear over the first tenth of the steps, then a cosine to zero."""
    warmup = max(1, steps // 10)
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), warmup_target=peak, warmup_steps=warmup
    )


def _train_head(
    prepared: Prepared,
    model: keras.Model,
    schedule: Schedule,
    loss: Callable,
    folder: Path,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """Fit the logits on the features of the unchanged images; the network before them is kept."""
    started = time.perf_counter()
    rows = prepared.splits.train
    extractor = backbones.feature_extractor(model)
    shape = (len(rows), extractor.output_shape[-1])
    try:
        # Without a name, so that a killed training leaves nothing; plain writes, because a full
        # disk is an error there and a signal in a map.
        with tempfile.TemporaryFile(dir=folder) as file:
            for batch in predict(extractor, prepared.cached.pixels, rows, progress, "features"):
                file.write(batch.tobytes())
            file.flush()
            features = np.memmap(file, np.float32, "r", shape=shape)
    except OSError as error:
        raise WriteError(f"{folder} cannot hold the features: {error.strerror}.") from error
    head = keras.Sequential([keras.Input(shape[1:]), model.get_layer("logits")])
    head.compile(keras.optimizers.Adam(HEAD_RATE), loss, jit_compile=False)  # pyright: ignore[reportArgumentType]
    history = []
    for epoch in range(schedule.head_epochs):
        order = _generator(prepared, epoch, "head").permutation(len(rows))
        batches = np.array_split(order, max(1, len(order) // prepared.recipe.training.batch))
        losses = [
            float(head.train_on_batch(features[each], prepared.y[rows[each]])) for each in batches
        ]
        history.append({"stage": "head", "epoch": epoch, "loss": float(np.mean(losses))})
    history[-1]["seconds"] = round(time.perf_counter() - started, 2)
    return history


def _train_epoch(
    prepared: Prepared,
    learner: keras.Model,
    model: keras.Model,
    epoch: int,
    progress: Progress | None,
) -> dict[str, Any]:
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.seed_generator.state.assign([prepared.recipe.training.seed, epoch + 1])
    data = batches_beside(prepared, epoch) if prepared.unlabelled else batches(prepared, epoch)
    return fit_epoch(learner, data, epoch, _steps(prepared), progress)


def fit_epoch(
    model: keras.Model, data: tf.data.Dataset, epoch: int, steps: int, progress: Progress | None
) -> dict[str, Any]:
    """One pass over data: a row of the history, with what the model tells of itself."""
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs: (
            progress(f"epoch {epoch + 1}", step + 1, steps) if progress else None
        )
    )
    done = model.fit(data, shuffle=False, verbose=0, callbacks=[callback])  # pyright: ignore[reportArgumentType]
    told = {name: float(value[0]) for name, value in done.history.items()}
    return {"epoch": epoch, **told}


def batches(prepared: Prepared, epoch: int) -> tf.data.Dataset:
    """One epoch of the training split: (uint8 (n, H, W, C), labels), augmented, in its own order.

    Read from the pixel cache on disk, so that memory does not grow with the number of images.
    """
    training = prepared.recipe.training
    order = _order(prepared, epoch)
    shape = prepared.preprocessing.shape

    changed = _Augmented(prepared, epoch)

    def load(rows, y):
        pixels = tf.numpy_function(changed.__getitem__, [rows], tf.uint8, stateful=False)
        return tf.ensure_shape(pixels, (None, *shape)), y

    dataset = tf.data.Dataset.from_tensor_slices((order, prepared.y[order]))
    dataset = dataset.batch(training.batch).map(load, num_parallel_calls=2, deterministic=True)
    return dataset.prefetch(2)


def batches_beside(prepared: Prepared, epoch: int) -> tf.data.Dataset:
    """One epoch beside unlabelled images: ((labelled, y), (weak, strong)), all uint8 but y.

    A pass over whichever takes longer; the others are repeated as often as that takes, labelled
    ones under another draw each time.
    """
    assert prepared.unlabelled is not None
    training = prepared.recipe.training
    batch, steps, shape = training.batch, _steps(prepared), prepared.preprocessing.shape
    many = batch * training.semi.ratio
    rows = prepared.unlabelled.rows
    order = _generator(prepared, epoch, "unlabelled").permutation(rows)
    order = np.resize(order, steps * many)  # the last step is whole
    known = len(prepared.splits.train)
    passes = -(-steps * batch // known)
    numbers = range(epoch * passes, (epoch + 1) * passes)
    labelled = np.concatenate([_order(prepared, each) for each in numbers])[: steps * batch]
    passes_of = np.repeat(numbers, known)[: steps * batch]
    pixels = prepared.unlabelled.cached.pixels
    spec = at_least(training.semi.strong, training.augmentation)
    pass_of = functools.lru_cache(PASSES_AT_ONCE)(lambda each: _Augmented(prepared, each))
    count = len(pixels)
    weak = draw(count, seed=training.seed, epoch=WEAK + epoch)
    strong = draw(count, seed=training.seed, epoch=STRONG + epoch)

    def of_step(step: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        here = slice(int(step) * batch, (int(step) + 1) * batch)
        among = zip(passes_of[here].tolist(), labelled[here], strict=True)
        chosen = order[int(step) * many : (int(step) + 1) * many]
        return [
            np.concatenate([pass_of(number)[np.array([row])] for number, row in among]),
            np.stack([augment(pixels[row], weak[row], training.augmentation) for row in chosen]),
            np.stack([augment(pixels[row], strong[row], spec) for row in chosen]),
        ]

    def load(step, y):
        found = tf.numpy_function(of_step, [step], [tf.uint8] * 3, stateful=False)
        known, *others = (tf.ensure_shape(each, (None, *shape)) for each in found)
        return (known, y), tuple(others)

    truth = prepared.y[labelled].reshape(steps, batch, *prepared.y.shape[1:])
    dataset = tf.data.Dataset.from_tensor_slices((np.arange(steps), truth))
    return dataset.map(load, num_parallel_calls=2, deterministic=True).prefetch(2)


class _Augmented:
    """The pixel cache under one draw of the augmentation, indexed by rows as the cache is."""

    def __init__(self, prepared: Prepared, epoch: int) -> None:
        training = prepared.recipe.training
        self._pixels = prepared.cached.pixels
        self._spec = training.augmentation
        self._drawn = draw(len(prepared.y), seed=training.seed, epoch=epoch)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([augment(self._pixels[row], self._drawn[row], self._spec) for row in rows])


def _order(prepared: Prepared, epoch: int) -> NDArray[np.int64]:
    """Rows of the training split for one epoch: shuffled, or drawn so that classes are even."""
    rows = prepared.splits.train.astype(np.int64)
    generator = _generator(prepared, epoch, "order")
    if prepared.recipe.training.balance != "sampling" or prepared.dataset.task == "multilabel":
        return generator.permutation(rows)
    y = prepared.y[rows]
    share = 1 / np.bincount(y)[y]
    return generator.choice(rows, size=len(rows), p=share / share.sum())


def _steps(prepared: Prepared) -> int:
    """Of an epoch: a pass over train or over the unlabelled images, whichever takes longer."""
    training = prepared.recipe.training
    steps = -(-len(prepared.splits.train) // training.batch)
    if prepared.unlabelled is None:
        return steps
    return max(steps, -(-len(prepared.unlabelled.rows) // (training.batch * training.semi.ratio)))


def _generator(prepared: Prepared, epoch: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([prepared.recipe.training.seed, epoch, *purpose.encode()])


def _keep(state: checkpoint.State, model: keras.Model, val_auc: float, keep: Keep) -> None:
    if val_auc > state.best_auc or keep == "last":
        state.best_auc, state.best_epoch, state.best = val_auc, state.epoch, model.get_weights()
