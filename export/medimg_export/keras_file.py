"""A Keras model in a file."""

from __future__ import annotations

import contextlib
from pathlib import Path

import keras

from medimg_edge.errors import RunError, WriteError


def load_model(path: Path) -> keras.Model:
    """A ``.keras`` file. Raises RunError."""
    try:
        return keras.saving.load_model(path, compile=False)  # pyright: ignore[reportReturnType]
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunError(f"{path} cannot be read as a Keras model: {reason}") from error


def save_model(model: keras.Model, path: Path) -> None:
    """In one step, so that a file there is always whole. Raises WriteError."""
    partial = path.with_name("model.partial.keras")
    try:
        model.save(partial)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise WriteError(f"{path} was not written: {error}.") from error
