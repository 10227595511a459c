"""Weights that a training begins with: of ``pretrain``, or of an earlier training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import msgspec

from medimg_edge.errors import RunError
from medimg_edge.record import printable
from medimg_export.keras_file import load_model

PRETRAINED = "pretrained.keras"
"""What ``pretrain`` leaves: uint8 pixels -> embedding."""
TRAINED = "model.keras"
_RECORDS = {PRETRAINED: "pretrain.json", TRAINED: "run.json"}


class _Record(msgspec.Struct):
    """Of either's record, what a training has to know."""

    kept_apart: str | None = None


@dataclass(frozen=True, eq=False)
class Start:
    """A network that has learned something already.

    sha256: of its file. kept_apart: ``unlabelled.kept_apart`` of the validation and test that it
    has not seen; None where its run does not say.
    """

    path: Path
    sha256: str
    model: keras.Model
    kept_apart: str | None

    @classmethod
    def open(cls, run: Path) -> Start:
        """What a run of ``pretrain`` or ``train`` left. Raises RunError."""
        for name in (PRETRAINED, TRAINED):
            if (run / name).is_file():
                break
        else:
            raise RunError(
                f"{run} holds no weights: a finished run of `medimg-edge pretrain` or "
                "`medimg-edge train` does."
            )
        path = run / name
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}.") from error
        return cls(path, sha256, load_model(path), _kept_apart(run / _RECORDS[name]))

    def note(self, judges: str) -> str | None:
        """What to know before its figures are believed. judges: of this validation and test."""
        if self.kept_apart == judges:
            return None
        return (
            f"The weights of {printable(str(self.path))} were not learned apart from this "
            "validation and test, or do not say so: the figures may flatter. Make them with this "
            "data (pretrain: --beside it) and the same --seed and --group-pattern."
        )

    def put_into(self, model: keras.Model) -> None:
        """All but the logits, layer by layer. Raises RunError where it is another network."""
        known = {layer.name: layer for layer in self.model.layers}
        for layer in model.layers:
            if layer.name == "logits" or not layer.weights:
                continue
            given = known[layer.name].get_weights() if layer.name in known else []
            wanted = [tuple(weight.shape) for weight in layer.weights]
            if [weight.shape for weight in given] != wanted:
                raise RunError(
                    f"{self.path} is of another network: its layer {layer.name!r} does not fit "
                    f"{model.name}. Train with the backbone, the size and the colors of that run."
                )
            layer.set_weights(given)

    def describe(self) -> dict[str, Any]:
        """What ``run.json`` says of it; JSON types only."""
        return {"path": printable(str(self.path)), "sha256": self.sha256}


def _kept_apart(record: Path) -> str | None:
    try:
        return msgspec.json.decode(record.read_bytes(), type=_Record).kept_apart
    except (OSError, msgspec.DecodeError):
        return None
