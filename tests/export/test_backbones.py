import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from medimg_edge.errors import RecipeError
from medimg_export.backbones import BACKBONES, build, feature_extractor

PARTS = ["pixels", "rescale", "features", "embedding", "dropout", "logits"]


def images(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(("size", "channels", "outputs"), [(64, 1, 1), (37, 2, 3)])
def test_every_backbone_has_the_parts_that_others_look_for(name, size, channels, outputs):
    model = build(name, (size, size, channels), outputs, pretrained=False)
    assert [layer.name for layer in model.layers if layer.name in PARTS] == PARTS
    assert model.inputs[0].dtype == "uint8"
    others = [layer.name for layer in model.layers if layer.name not in PARTS]
    assert all(other.startswith(("stem_", "block", "head_")) for other in others)
    logits = model(images((2, size, size, channels)))
    assert logits.shape == (2, outputs)
    assert model.get_layer("logits").activation is keras.activations.linear


@pytest.mark.parametrize(
    ("size", "grid"),
    [(28, 7), (32, 8), (48, 12), (56, 7), (64, 8), (96, 12), (128, 8), (224, 7), (14, 7), (8, 8)],
)
def test_tiny_keeps_a_grid_of_7_to_13_and_stays_small(size, grid):
    model = build("tiny", (size, size, 1), 1)
    assert model.get_layer("features").output.shape == (None, grid, grid, 128)
    assert model.count_params() < 400_000


def test_tiny_goes_by_the_shorter_side():
    assert build("tiny", (28, 60, 1), 1).get_layer("features").output.shape[1:3] == (7, 15)


@pytest.mark.parametrize(("size", "grid"), [(64, 2), (100, 4), (128, 4), (224, 7)])
def test_lite0_divides_any_size_by_32(size, grid):
    model = build("efficientnet-lite0", (size, size, 3), 1, pretrained=False)
    assert model.get_layer("features").output.shape == (None, grid, grid, 1280)


def test_lite0_has_the_published_number_of_weights():
    model = build("efficientnet-lite0", (224, 224, 3), 1000, pretrained=False)
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trained == 4_652_008  # Lite0 as published: 4.7 million


def test_pixels_are_scaled_once_as_the_pretrained_weights_expect():
    model = build("tiny", (28, 28, 1), 1)
    scaled = keras.Model(model.input, model.get_layer("rescale").output)
    gray = np.array([0, 127, 255], np.uint8)
    np.testing.assert_array_equal(
        scaled(np.broadcast_to(gray[:, None, None, None], (3, 28, 28, 1)))[:, 0, 0, 0],
        np.array([-127 / 128, 0, 1], np.float32),
    )


def test_one_seed_gives_one_network_whatever_was_drawn_before():
    first = build("tiny", (28, 28, 1), 1, seed=7).get_weights()
    keras.utils.set_random_seed(123)
    again = build("tiny", (28, 28, 1), 1, seed=7).get_weights()
    other = build("tiny", (28, 28, 1), 1, seed=8).get_weights()
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


def test_layers_of_one_network_do_not_start_equal():
    model = build("tiny", (64, 64, 1), 1)
    kernels = [
        model.get_layer(f"block{n}_second_conv").get_weights()[0].ravel()[:1000] for n in (1, 2)
    ]
    assert abs(np.corrcoef(*kernels)[0, 1]) < 0.2


def test_the_head_on_cached_features_is_the_model():
    model = build("tiny", (28, 28, 1), 2)
    pixels = images((3, 28, 28, 1))
    kernel, bias = model.get_layer("logits").get_weights()
    cached = np.asarray(feature_extractor(model)(pixels))
    np.testing.assert_allclose(cached @ kernel + bias, model(pixels), atol=1e-5)


@pytest.mark.parametrize("name", ["baseline", "tiny"])
def test_a_model_is_the_same_after_saving(name, tmp_path: Path):
    model = build(name, (28, 28, 1), 1, dropout=0.4)
    model.save(tmp_path / "model.keras")
    loaded: Any = keras.saving.load_model(tmp_path / "model.keras")
    pixels = images((2, 28, 28, 1))
    np.testing.assert_array_equal(loaded(pixels), model(pixels))
    assert loaded.get_layer("dropout").rate == 0.4


def test_an_unknown_backbone_is_answered_with_those_that_exist():
    with pytest.raises(RecipeError, match=r"'resnet50'.*baseline, efficientnet-lite0, tiny"):
        build("resnet50", (28, 28, 1), 1)


@pytest.mark.parametrize(("shape", "outputs"), [((0, 28, 1), 1), ((28, 28, 1), 0)])
def test_a_shape_without_pixels_or_outputs_is_refused(shape, outputs):
    with pytest.raises(RecipeError, match="must be 1 or more"):
        build("tiny", shape, outputs)


@pytest.mark.data
@pytest.mark.skipif("MEDIMG_EDGE_DATA" not in os.environ, reason="MEDIMG_EDGE_DATA is unset")
def test_tiny_learns_in_64_steps_and_infers_as_it_trained():
    from sklearn.metrics import roc_auc_score

    path = Path(os.environ["MEDIMG_EDGE_DATA"], "pneumoniamnist-28", "pneumoniamnist.npz")
    data = np.load(path)
    model = build("tiny", (28, 28, 1), 1)
    keras.utils.set_random_seed(0)
    model.compile(keras.optimizers.Adam(2e-3), keras.losses.BinaryCrossentropy(from_logits=True))
    pixels, labels = data["train_images"][:2048, ..., None], data["train_labels"][:2048]
    model.fit(pixels, labels.astype(np.float32), batch_size=32, verbose="0")
    answers = model.predict(data["val_images"][..., None], verbose="0")
    # Twelve passes over all of train reach .997. Keras' default momentum of batch normalization
    # would leave statistics that have not settled, and an answer by chance.
    assert roc_auc_score(data["val_labels"].ravel(), answers.ravel()) > 0.9
