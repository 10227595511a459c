"""A network that learns from images without labels, by a teacher that is its own moving average."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from medimg_edge.manifest import Task
from medimg_export.recipe import SemiSupervised

MEMORY = 0.99
"""Of the mean of the teacher's answers, at each step."""

TERMS = ("supervised", "unsupervised", "confident")
"""What an epoch tells beside its loss: its two parts and, of fixmatch, the share of images that the
teacher was sure of. Means over the steps."""


class Learner(keras.Model):
    """Trained on steps of ((labelled, y), (weak, strong)); ``teacher`` is what answers.

    labelled, weak, strong: uint8 (n, H, W, C), weak and strong of the same images. Its weights are
    those of both networks and of what was seen, so a checkpoint of it holds all that goes on.
    """

    def __init__(
        self,
        student: keras.Model,
        task: Task,
        spec: SemiSupervised,
        prior: NDArray[np.float32],
        steps: int,
    ) -> None:
        """prior: (K,), how often each output is true of the labelled images. steps: of all."""
        super().__init__(name="semi_supervised")
        self.student = student
        self.teacher = keras.models.clone_model(student)
        self.teacher.trainable = False
        self._task, self._spec = task, spec
        self._prior = tf.constant(prior, tf.float32)
        self._warmup = max(1.0, spec.warmup * steps)
        told = TERMS if spec.method == "fixmatch" else TERMS[:2]
        self._told = {name: keras.metrics.Mean(name) for name in ("loss", *told)}
        self.seen: Any = self.add_weight(
            name="seen", shape=prior.shape, initializer="zeros", trainable=False
        )
        self.done: Any = self.add_weight(name="done", initializer="zeros", trainable=False)
        self.begin()
        self.built = True

    def begin(self) -> None:
        """Make the teacher what the student is now."""
        self.teacher.set_weights(self.student.get_weights())
        self.seen.assign(self._prior)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """What an epoch begins anew."""
        return [*self._told.values()]

    def call(self, pixels: Any, training: bool = False) -> Any:
        """The teacher's logits."""
        return self.teacher(pixels, training=False)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step; what it tells is ``loss`` and TERMS."""
        (labelled, y), (weak, strong) = data
        target, counted = self._target(self.teacher(weak, training=False))
        count = tf.shape(labelled)[0]
        with tf.GradientTape() as tape:
            logits = self.student(tf.concat([labelled, strong], axis=0), training=True)
            supervised = self.loss(y, logits[:count])  # pyright: ignore[reportCallIssue]
            each = self._distance(target, logits[count:])
            unsupervised = tf.reduce_mean(each * counted)
            weight = self._spec.weight * tf.minimum(1.0, self.done / self._warmup)
            loss = supervised + weight * unsupervised
        variables = self.student.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)  # pyright: ignore
        self.done.assign_add(1.0)
        decay = tf.minimum(self._spec.decay, (1 + self.done) / (10 + self.done))
        for mean, value in zip(self.teacher.weights, self.student.weights, strict=True):
            mean.assign(decay * mean + (1 - decay) * value)
        terms = (loss, supervised, unsupervised, tf.reduce_mean(counted))
        for mean, value in zip(self._told.values(), terms, strict=False):
            mean.update_state(value)
        return {name: mean.result() for name, mean in self._told.items()}

    def _target(self, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What the student is to answer, and which of it counts: (n, K) and (n,) or (n, K)."""
        exclusive = self._task == "multiclass"
        p = tf.nn.softmax(logits) if exclusive else tf.sigmoid(logits)
        self.seen.assign(MEMORY * self.seen + (1 - MEMORY) * tf.reduce_mean(p, axis=0))
        if self._spec.align:
            p = self._aligned(p, exclusive)
        if self._spec.method == "mean-teacher":
            return p, tf.ones_like(p[:, 0] if exclusive else p)
        if exclusive:
            sure = tf.reduce_max(p, axis=1)
            return tf.one_hot(tf.argmax(p, axis=1), p.shape[1]), self._sure(sure)
        return tf.round(p), self._sure(tf.maximum(p, 1 - p))

    def _aligned(self, p: tf.Tensor, exclusive: bool) -> tf.Tensor:
        yes = p * self._prior / tf.maximum(self.seen, 1e-3)
        if exclusive:
            return yes / tf.reduce_sum(yes, axis=1, keepdims=True)
        no = (1 - p) * (1 - self._prior) / tf.maximum(1 - self.seen, 1e-3)
        return yes / (yes + no)

    def _sure(self, largest: tf.Tensor) -> tf.Tensor:
        return tf.cast(largest >= self._spec.confidence, tf.float32)

    def _distance(self, target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Cross-entropy of hard targets; of soft ones the squared difference of probabilities."""
        exclusive = self._task == "multiclass"
        if self._spec.method == "mean-teacher":
            p = tf.nn.softmax(logits) if exclusive else tf.sigmoid(logits)
            squared = tf.square(p - target)
            return tf.reduce_sum(squared, axis=1) if exclusive else squared
        if exclusive:
            return tf.nn.softmax_cross_entropy_with_logits(target, logits)
        return tf.nn.sigmoid_cross_entropy_with_logits(target, logits)


def prior(task: Task, y: NDArray[np.int64], outputs: int) -> NDArray[np.float32]:
    """How often each output is true of labels as ``Prepared.y`` has them: (outputs,)."""
    if task == "multilabel":
        return y.mean(axis=0).astype(np.float32)
    if task == "binary":
        return np.array([y.mean()], np.float32)
    return (np.bincount(y, minlength=outputs) / len(y)).astype(np.float32)
