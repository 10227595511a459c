"""Small networks that really run, shared by the tests of the converters."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray

from medimg_export.backbones import build
from medimg_export.graph import Deployable, deployable

SIZE = 28


@pytest.fixture(scope="session")
def blobs() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """400 images of noise, uint8 (400, 28, 28, 1), and 1 for every second, which has a blob."""
    random = np.random.default_rng(1)
    labels = np.arange(400) % 2
    y, x = np.mgrid[:SIZE, :SIZE]
    centers = random.uniform(6, SIZE - 6, (400, 2))
    distance = np.hypot(y - centers[:, :1, None], x - centers[:, 1:, None])
    contrast = labels * random.uniform(10, 90, 400)
    images = 140 + random.normal(0, 20, (400, SIZE, SIZE))
    images += contrast[:, None, None] * np.exp(-((distance / 4) ** 2))
    return images.clip(0, 255).astype(np.uint8)[..., None], labels


@pytest.fixture(scope="session")
def trained(blobs: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> Deployable:
    """Depthwise, residual, with batch normalization and ReLU6; trained to tell blobs from noise."""
    keras.utils.set_random_seed(3)
    model = _separable(outputs=1)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss)
    model.fit(*blobs, batch_size=20, epochs=10, verbose=0)  # pyright: ignore[reportArgumentType]
    return deployable(model, task="binary", temperature=1.7)


@pytest.fixture(scope="session")
def deployables(trained: Deployable) -> dict[str, Deployable]:
    """One network for every kind of head."""
    keras.utils.set_random_seed(4)
    shape = (SIZE, SIZE, 1)
    color = (SIZE, SIZE + 4, 3)
    return {
        "binary": trained,
        "multiclass": deployable(_random_statistics(_separable(3)), task="multiclass"),
        "multilabel, color, not square": deployable(
            build("tiny", color, 2), task="multilabel", temperature=0.8
        ),
        "flatten": deployable(build("baseline", shape, 1), task="binary"),
        "no heatmap": deployable(
            _random_statistics(_separable(1, pool=layers.GlobalMaxPooling2D)), task="binary"
        ),
    }


def _separable(
    outputs: int, pool: Callable[[], layers.Layer] = layers.GlobalAveragePooling2D
) -> keras.Model:
    pixels = keras.Input((SIZE, SIZE, 1), dtype="uint8")
    x = layers.Rescaling(1 / 128, offset=-127 / 128)(pixels)
    x = _normalized(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False), x)
    for width in (16, 24):
        x = layers.ReLU(6.0)(x)
        x = _normalized(layers.DepthwiseConv2D(3, padding="same", use_bias=False), x)
        x = layers.ReLU(6.0)(x)
        x = _normalized(layers.Conv2D(width, 1, use_bias=False), x)
    x = layers.Add()([x, _normalized(layers.Conv2D(24, 3, padding="same", use_bias=False), x)])
    x = layers.ReLU(6.0)(x)
    return keras.Model(pixels, layers.Dense(outputs)(pool()(x)))


def _normalized(convolution: layers.Layer, x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=0.9)(convolution(x))


def _random_statistics(model: keras.Model) -> keras.Model:
    """Batch normalizations as after training: fresh ones are the identity and fold to nothing."""
    random = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model
