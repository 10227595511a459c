from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers

from medimg_edge.errors import ModelUnsupported
from medimg_edge.manifest import Task
from medimg_export.backbones import build
from medimg_export.convert_onnx import to_onnx
from medimg_export.graph import Deployable, deployable, logits_model


def images(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def answers(model: keras.Model, pixels: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in model(pixels).items()}


def unsettled(model: keras.Model) -> keras.Model:
    """Random biases and statistics at the outer level: zeros and ones would hide mistakes."""
    random = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        elif isinstance(layer, layers.Dense):
            layer.set_weights([random.normal(0, 0.3, w.shape) for w in layer.get_weights()])
    return model


def conv() -> list[layers.Layer]:
    return [layers.Conv2D(6, 3, strides=2, activation="relu"), layers.BatchNormalization()]


def sequential(*head: layers.Layer) -> keras.Model:
    shape = keras.Input((17, 20, 3))
    return unsettled(keras.Sequential([shape, layers.Rescaling(1 / 255), *conv(), *head]))


def gap_dense(units: int, activation: str | None) -> keras.Model:
    return sequential(layers.GlobalAveragePooling2D(), layers.Dense(units, activation))


def with_separate_activations() -> keras.Model:
    return sequential(
        layers.GlobalAveragePooling2D(),
        layers.Dropout(0.5),
        layers.Dense(1, use_bias=False),
        layers.Activation("linear"),
        layers.Activation("sigmoid"),
    )


def with_augmentation() -> keras.Model:
    augmentation = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])
    inputs = keras.Input((16, 16, 1))
    x = augmentation(inputs)
    x = layers.Rescaling(1 / 127.5, offset=-1)(x)
    for layer in (*conv(), layers.Flatten(), layers.Dropout(0.3), layers.Dense(3)):
        x = layer(x)
    return unsettled(keras.Model(inputs, layers.Softmax()(x)))


def with_nested_mobilenet(pooling: str | None) -> keras.Model:
    """As transfer learning is taught; alpha 0.35 keeps it quick."""
    untrained: Any = None
    base = keras.applications.MobileNetV2(
        (64, 64, 3), alpha=0.35, include_top=False, weights=untrained, pooling=pooling
    )
    for layer in base.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0  # so that one batch settles it, and images get answers of their own
    base(images((8, 64, 64, 3), seed=1) / 127.5 - 1, training=True)
    inputs = keras.Input((64, 64, 3))
    x = base(layers.Rescaling(1 / 127.5, offset=-1)(inputs), training=False)
    x = x if pooling else layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return unsettled(keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x)))


def with_nested_scaling() -> keras.Model:
    """As EfficientNet, whose application scales by itself."""
    shape = keras.Input((16, 16, 3))
    base = keras.Sequential([shape, layers.Rescaling(1 / 255), *conv()])
    return unsettled(
        keras.Sequential([base, layers.GlobalAveragePooling2D(), layers.Dense(2, "softmax")])
    )


def with_operations() -> keras.Model:
    inputs = keras.Input((16, 16, 1), dtype="uint8")
    x: Any = keras.ops.cast(inputs, "float32")
    x = layers.Conv2D(4, 3)(x / 255)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Dense(2)(layers.Reshape((-1,))(x))
    return unsettled(keras.Model(inputs, keras.ops.softmax(x)))


def with_normalization() -> keras.Model:
    normalization = layers.Normalization(mean=[118.0, 100.0, 90.0], variance=[50.0**2] * 3)
    inputs = keras.Input((16, 18, 3))
    features = layers.Conv2D(5, 3, activation="relu")(normalization(inputs))
    return unsettled(
        keras.Model(inputs, layers.Dense(4, "sigmoid")(layers.GlobalAveragePooling2D()(features)))
    )


FOREIGN: dict[str, tuple[Callable[[], keras.Model], Task, str]] = {
    "sigmoid": (lambda: gap_dense(1, "sigmoid"), "binary", "mean"),
    "two softmax units": (lambda: gap_dense(2, "softmax"), "binary", "mean"),
    "softmax of 4": (lambda: gap_dense(4, "softmax"), "multiclass", "mean"),
    "softmax of 2 as two classes": (lambda: gap_dense(2, "softmax"), "multiclass", "mean"),
    "multilabel": (lambda: gap_dense(3, "sigmoid"), "multilabel", "mean"),
    "activations apart, no bias": (with_separate_activations, "binary", "mean"),
    "augmentation, flatten": (with_augmentation, "multiclass", "sum"),
    "nested MobileNetV2": (lambda: with_nested_mobilenet(None), "binary", "mean"),
    "nested with its pooling": (lambda: with_nested_mobilenet("avg"), "binary", "mean"),
    "nested with its scaling": (with_nested_scaling, "binary", "mean"),
    "operations, keepdims, uint8": (with_operations, "binary", "mean"),
    "normalization": (with_normalization, "multilabel", "mean"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_model_answers_as_before_and_explains_itself(case):
    make, task, reduction = FOREIGN[case]
    keras.utils.set_random_seed(0)  # weights on which float32 does not saturate
    model = make()
    pixels = images((3, *model.inputs[0].shape[1:]))
    expected = np.asarray(model(pixels.astype(model.inputs[0].dtype), training=False))
    if task == "binary":
        expected = expected[:, -1:]  # the second of two, or the only one

    deployed = deployable(model, task=task)
    found = answers(deployed.model, pixels)
    assert 0.0 < expected.min() < expected.max() < 1.0
    np.testing.assert_allclose(found["probability"], expected, atol=1e-5)
    assert deployed.reduction == reduction
    assert_heatmap_explains(deployed, found, np.asarray(logits_model(model, task=task)(pixels)))


def assert_heatmap_explains(
    deployed: Deployable, found: dict[str, np.ndarray], logits: np.ndarray
) -> None:
    assert deployed.reduction is not None
    assert found["heatmap"].shape[0] == len(logits)
    assert found["heatmap"].shape[3:] == logits.shape[1:]
    reduced = getattr(found["heatmap"], deployed.reduction)(axis=(1, 2))
    np.testing.assert_allclose(reduced + deployed.bias, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["normalization", "augmentation, flatten"])
def test_layers_that_hold_tensors_or_draw_numbers_convert(case, tmp_path: Path):
    make, task, _ = FOREIGN[case]
    model = deployable(make(), task=task).model
    to_onnx(model, tmp_path / "model.onnx", {})
    pixels = images((3, *model.inputs[0].shape[1:]))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    probability: Any = session.run(["probability"], {"pixels": pixels})[0]
    np.testing.assert_allclose(probability, answers(model, pixels)["probability"], atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.5, 0.4])
@pytest.mark.parametrize(
    ("backbone", "size", "outputs", "task"),
    [
        ("tiny", 28, 1, "binary"),
        ("tiny", 32, 2, "binary"),
        ("baseline", 20, 1, "binary"),
        ("baseline", 20, 3, "multilabel"),
        ("tiny", 28, 4, "multiclass"),
    ],
)
def test_the_temperature_divides_the_logits_and_the_heatmap_does_not_know_it(
    backbone, size, outputs, task, temperature
):
    model = unsettled(build(backbone, (size, size, 1), outputs))
    pixels = images((5, size, size, 1))
    logits = np.asarray(logits_model(model, task=task)(pixels))
    deployed = deployable(model, task=task, temperature=temperature)
    found = answers(deployed.model, pixels)
    if task == "multiclass":
        raised = np.exp(logits / temperature)
        expected = raised / raised.sum(axis=1, keepdims=True)
    else:
        expected = 1 / (1 + np.exp(-logits / temperature))
    np.testing.assert_allclose(found["probability"], expected, atol=1e-5)
    assert_heatmap_explains(deployed, found, logits)
    own = np.asarray(model(pixels))
    np.testing.assert_allclose(
        logits, own[:, 1:] - own[:, :1] if (task, outputs) == ("binary", 2) else own, atol=1e-4
    )


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_positive_first_is_the_other_probability(activation):
    model = gap_dense({"sigmoid": 1, "softmax": 2}[activation], activation)
    pixels = images((4, 17, 20, 3))
    usual = answers(deployable(model, task="binary").model, pixels)
    flipped = answers(deployable(model, task="binary", positive_first=True).model, pixels)
    np.testing.assert_allclose(flipped["probability"], 1 - usual["probability"], atol=1e-6)
    np.testing.assert_allclose(flipped["heatmap"], -usual["heatmap"], atol=1e-6)


def test_of_two_softmax_units_the_positive_one_is_the_second_or_says_so():
    model = gap_dense(2, "softmax")
    pixels = images((4, 17, 20, 3))
    first, second = np.asarray(model(pixels.astype(np.float32))).T
    for positive_first, expected in ((False, second), (True, first)):
        deployed = deployable(model, task="binary", positive_first=positive_first)
        found = answers(deployed.model, pixels)["probability"][:, 0]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_outputs_are_what_the_bundle_says():
    deployed = deployable(build("tiny", (30, 41, 3), 2), task="multilabel")
    assert deployed.notes == ()
    (pixels,) = deployed.model.inputs
    assert (pixels.name, pixels.dtype, pixels.shape) == ("pixels", "uint8", (None, 30, 41, 3))
    found = {name: (out.shape, out.dtype) for name, out in deployed.model.output.items()}
    assert found == {
        "probability": ((None, 2), "float32"),
        "heatmap": ((None, 8, 11, 2), "float32"),
        "embedding": ((None, 128), "float32"),
    }


def test_a_trained_model_is_not_changed_by_deploying_it():
    model = gap_dense(2, "softmax")
    pixels = images((4, 17, 20, 3)).astype(np.float32)
    before = np.asarray(model(pixels))
    deployable(model, task="binary", positive_first=True, temperature=3)
    np.testing.assert_array_equal(model(pixels), before)
    deployable(model, task="multiclass")  # and can be deployed again


def test_a_model_in_mixed_precision_gives_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = gap_dense(1, "sigmoid")
    finally:
        keras.config.set_dtype_policy("float32")
    found = answers(deployable(model, task="binary").model, images((2, 17, 20, 3)))
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
    expected = np.asarray(model(images((2, 17, 20, 3)).astype(np.float32)))
    np.testing.assert_allclose(found["probability"], expected, atol=5e-3)  # float16 has 3 digits


def test_a_head_of_two_dense_layers_answers_without_heatmap_and_says_why():
    model = sequential(
        layers.GlobalAveragePooling2D(), layers.Dense(8, "relu", name="hidden"), layers.Dense(1)
    )
    deployed = deployable(model, task="binary")
    found = answers(deployed.model, images((2, 17, 20, 3)))
    assert set(found) == {"probability", "embedding"}
    assert found["embedding"].shape == (2, 8)
    assert deployed.reduction is None
    assert any(note.startswith("No heatmap") and "hidden" in note for note in deployed.notes)


def test_a_stated_scale_feeds_a_model_without_scaling():
    inputs = keras.Input((16, 16, 1))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(inputs))
    model = unsettled(keras.Model(inputs, layers.Dense(1, "sigmoid")(x)))
    pixels = images((3, 16, 16, 1))
    deployed = deployable(model, task="binary", input_scale=(1 / 127.5, -1.0))
    np.testing.assert_allclose(
        answers(deployed.model, pixels)["probability"],
        model((pixels / 127.5 - 1).astype(np.float32)),
        atol=1e-5,
    )


def unscaled(*first: layers.Layer) -> keras.Model:
    head = (layers.GlobalAveragePooling2D(), layers.Dense(1))
    return keras.Sequential([keras.Input((16, 16, 3)), *first, layers.Conv2D(4, 3), *head])


def preprocessed_by_arithmetic() -> keras.Model:
    """x * 255 for a trunk that divides by 255: the model as a whole takes 0..1."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255)(inputs * 255)
    return keras.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(unscaled, id="nothing"),
        pytest.param(lambda: unscaled(layers.Rescaling(2, -1)), id="0..1 to -1..1"),
        pytest.param(
            lambda: unscaled(layers.Normalization(mean=[0.5] * 3, variance=[0.06] * 3)),
            id="normalization of 0..1",
        ),
        pytest.param(preprocessed_by_arithmetic, id="arithmetic first"),
    ],
)
def test_a_float_input_of_unknown_range_is_asked_about(model):
    with pytest.raises(ModelUnsupported, match=r"Which range.*scale and offset in the recipe"):
        deployable(model(), task="binary")


def test_a_scale_for_a_uint8_model_would_scale_twice():
    with pytest.raises(ModelUnsupported, match="scale twice"):
        deployable(build("tiny", (28, 28, 1), 1), task="binary", input_scale=(1 / 255, 0))


def two_inputs() -> keras.Model:
    first, second = keras.Input((8, 8, 1)), keras.Input((3,))
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(first), second])
    return keras.Model([first, second], layers.Dense(1)(x))


def two_outputs() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    x = layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, [layers.Dense(1)(x), layers.Dense(2)(x)])


def unknown_size() -> keras.Model:
    inputs = keras.Input((None, None, 1))
    return keras.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling2D()(inputs)))


def channels_first() -> keras.Model:
    inputs = keras.Input((1, 28, 28))
    x = layers.GlobalAveragePooling2D(data_format="channels_first", name="pool_first")(inputs)
    return keras.Model(inputs, layers.Dense(1)(x))


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def of_vectors() -> keras.Model:
    return keras.Sequential([keras.Input((5,)), layers.Dense(1)])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (two_inputs, "2 inputs and 1 outputs"),
        (two_outputs, "1 inputs and 2 outputs"),
        (unknown_size, r"\(None, None, None, 1\).*must be known"),
        (of_vectors, r"\(None, 5\)"),
        (channels_first, "'pool_first' is channels-first"),
        (Subclassed, "Subclassed whose graph cannot be read"),
        (lambda: keras.Sequential([layers.Dense(1)]), "Sequential whose graph cannot be read"),
    ],
)
def test_what_cannot_be_deployed_is_refused_in_words(make, words):
    with pytest.raises(ModelUnsupported, match=words):
        deployable(make(), task="binary")


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_cannot_divide_is_refused(temperature):
    with pytest.raises(ModelUnsupported, match="above 0 and finite"):
        deployable(build("tiny", (28, 28, 1), 1), task="binary", temperature=temperature)
