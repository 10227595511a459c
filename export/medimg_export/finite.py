"""Numbers that a converted network must never carry: NaN and infinity run silently everywhere."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from medimg_edge.errors import ConversionError

_ADVICE = "Train again with a lower learning rate, or export an earlier checkpoint."


def require_finite_weights(model: keras.Model) -> None:
    """Refuse a model with a NaN or an infinity among its weights.

    The weights are checked and not only the outputs, because a clipped activation turns NaN into
    a plain number.

    Raises:
        ConversionError: naming the first of the weights.
    """
    broken = [w.path for w in model.weights if not np.isfinite(np.asarray(w)).all()]
    if broken:
        raise ConversionError(
            f"{len(broken)} of the model's {len(model.weights)} weights hold NaN or infinite "
            f"values, the first is {broken[0]}. {_ADVICE}"
        )


def probe_images(shape: Sequence[int]) -> NDArray[np.uint8]:
    """A black, a white and a noise image, uint8 (3, H, W, C), for ``shape`` (H, W, C)."""
    noise = np.random.default_rng(0).integers(0, 256, size=tuple(shape), dtype=np.uint8)
    return np.stack([np.zeros_like(noise), np.full_like(noise, 255), noise])


def require_finite_outputs(outputs: Mapping[str, ArrayLike], artifact: str) -> None:
    """Refuse an artifact that answers with NaN or an infinity.

    Args:
        outputs: name -> values.
        artifact: the subject of the message.

    Raises:
        ConversionError: naming the outputs.
    """
    broken = sorted(name for name, values in outputs.items() if not np.isfinite(values).all())
    if broken:
        raise ConversionError(
            f"{artifact} answers NaN or infinity as {', '.join(broken)}. {_ADVICE}"
        )
