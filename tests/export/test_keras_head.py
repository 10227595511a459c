import keras
import numpy as np
import pytest
from keras import layers

from medimg_edge.errors import ModelUnsupported
from medimg_export.keras_head import read_head


def classifier(*head: layers.Layer) -> keras.Model:
    return keras.Sequential(
        [keras.Input((12, 16, 1)), layers.Conv2D(5, 3, strides=2, name="last"), *head]
    )


def pooled(units: int, activation: str | None = None) -> keras.Model:
    return classifier(layers.GlobalAveragePooling2D(), layers.Dense(units, activation))


@pytest.mark.parametrize(
    ("head", "source", "reduction"),
    [
        ([layers.GlobalAveragePooling2D()], (None, 5, 7, 5), "mean"),
        ([layers.GlobalAveragePooling2D(keepdims=True), layers.Flatten()], (None, 5, 7, 5), "mean"),
        ([layers.GlobalAveragePooling2D(), layers.Dropout(0.5)], (None, 5, 7, 5), "mean"),
        ([layers.Flatten()], (None, 5, 7, 5), "sum"),
        ([layers.MaxPooling2D(), layers.Reshape((-1,))], (None, 2, 3, 5), "sum"),
        ([layers.GlobalMaxPooling2D()], (None, 5), None),
        ([layers.GlobalAveragePooling2D(), layers.BatchNormalization()], (None, 5), None),
        ([layers.AveragePooling2D((5, 7)), layers.Flatten()], (None, 5), None),
    ],
)
def test_what_lies_before_the_dense_layer(head, source, reduction):
    read = read_head(classifier(*head, layers.Dense(1)), "binary")
    assert (read.source.shape, read.reduction) == (source, reduction)
    assert (read.notes == ()) == (reduction is not None)


@pytest.mark.parametrize(
    ("units", "positive_first", "weights"),
    [(1, False, [[1]]), (1, True, [[-1]]), (2, False, [[-1], [1]]), (2, True, [[1], [-1]])],
)
def test_a_binary_head_becomes_one_logit_of_the_positive_label(units, positive_first, weights):
    model = pooled(units)
    kernel, bias = np.random.default_rng(1).normal(size=(5, units)), np.arange(1.0, units + 1)
    model.layers[-1].set_weights([kernel, bias])
    read = read_head(model, "binary", positive_first=positive_first)
    np.testing.assert_allclose(read.kernel, kernel @ weights, rtol=1e-6)
    np.testing.assert_allclose(read.bias, bias @ weights, rtol=1e-6)
    assert read.kernel.dtype == read.bias.dtype == np.float32


@pytest.mark.parametrize(
    ("units", "activation", "task"),
    [
        (3, "softmax", "binary"),
        (3, None, "binary"),
        (2, "sigmoid", "binary"),
        (1, "softmax", "binary"),
        (1, "softmax", "multiclass"),
        (4, "sigmoid", "multiclass"),
        (4, "softmax", "multilabel"),
        (1, "tanh", "binary"),
        (1, "hard_sigmoid", "binary"),
        (1, layers.LeakyReLU(), "binary"),
    ],
)
def test_a_head_of_another_task_is_refused(units, activation, task):
    with pytest.raises(ModelUnsupported, match=f"Dense of {units} .*not a {task} task"):
        read_head(pooled(units, activation), task)


def nested_head() -> keras.Model:
    inputs = keras.Input((12, 16, 1))
    return keras.Model(inputs, pooled(1)(inputs))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nested_head, "ends in Sequential .*at the outer level"),
        (
            lambda: classifier(layers.Conv2D(1, 1), layers.GlobalAveragePooling2D(name="pool")),
            "ends in GlobalAveragePooling2D 'pool'",
        ),
        (lambda: classifier(layers.Dense(1)), r"shape \(None, 5, 7, 5\)"),
        (
            lambda: classifier(
                layers.Flatten(), layers.Dense(1, "sigmoid"), layers.Activation("sigmoid")
            ),
            "sigmoid after sigmoid",
        ),
    ],
)
def test_another_end_than_dense_is_refused(model, words):
    with pytest.raises(ModelUnsupported, match=words):
        read_head(model(), "binary")


def test_positive_first_makes_no_sense_for_three_classes():
    with pytest.raises(ModelUnsupported, match="positive_first is for a binary task"):
        read_head(pooled(3), "multiclass", positive_first=True)
