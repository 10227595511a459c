"""NaN and infinity in weights and answers."""

import keras
import numpy as np
import pytest

from medimg_edge.errors import ConversionError
from medimg_export.finite import probe_images, require_finite_outputs, require_finite_weights


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_bad_weight_is_found_and_named(value: float) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="logits")])
    require_finite_weights(model)
    kernel, bias = model.get_layer("logits").get_weights()
    bias[1] = value
    model.get_layer("logits").set_weights([kernel, bias])
    with pytest.raises(ConversionError, match="logits/bias"):
        require_finite_weights(model)


def test_a_bad_answer_is_found_and_named() -> None:
    outputs = {"probability": np.array([[0.5]]), "heatmap": np.array([[[[np.nan]]]])}
    with pytest.raises(ConversionError, match="The file answers NaN or infinity as heatmap"):
        require_finite_outputs(outputs, "The file")
    require_finite_outputs({"probability": outputs["probability"]}, "The file")


def test_probe_images_are_black_white_and_noise() -> None:
    black, white, noise = probe_images((8, 9, 3))
    assert (black.shape, black.dtype) == ((8, 9, 3), np.uint8)
    assert black.max() == 0
    assert white.min() == 255
    assert noise.std() > 60
