"""Where a training stands, in one file that is replaced in one step."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np

from medimg_edge.errors import RecipeError, RunError, WriteError
from medimg_export.recipe import Recipe, recall

NAME, PARTIAL = "checkpoint.npz", "checkpoint.partial"


@dataclass
class State:
    """How far a training came.

    epoch: epochs that are finished. best: the weights of the one that the recipe keeps so far, by
        the best validation AUC or as the last.
    """

    epoch: int = 0
    best_epoch: int = -1
    best_auc: float = float("-inf")
    best: list[np.ndarray] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)


def identity_of(recipe: Recipe, data: str, **more: str) -> dict[str, Any]:
    """What a training goes on with: the parts of its recipe that weights follow from, its images.

    data: the fingerprint of the data set. more: what else it began with.
    """
    parts = msgspec.to_builtins(recipe)
    kept = {part: parts[part] for part in ("data", "pixels", "training")}
    return {"recipe": kept, "data": data, **more}


def save(path: Path, model: keras.Model, state: State, identity: dict[str, Any]) -> None:
    """Write weights, optimizer and state. Raises WriteError; an older checkpoint stays then."""
    arrays = {f"model/{i}": value for i, value in enumerate(model.get_weights())}
    arrays |= {f"best/{i}": value for i, value in enumerate(state.best)}
    variables = model.optimizer.variables  # pyright: ignore[reportAttributeAccessIssue]
    arrays |= {f"optimizer/{i}": each.numpy() for i, each in enumerate(variables)}
    facts = {
        "epoch": state.epoch,
        "best_epoch": state.best_epoch,
        "best_auc": state.best_auc,
        "history": state.history,
        "identity": identity,
    }
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    partial = path.with_name(PARTIAL)
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise WriteError(f"The checkpoint {path} was not written: {error.strerror}.") from error


def load(path: Path, model: keras.Model, identity: dict[str, Any]) -> State | None:
    """Put a compiled model back to where it was; None where there is no checkpoint.

    A checkpoint of a release without some of today's options is taken as one that left them out.

    Raises RunError where the checkpoint is of another recipe or other data, or damaged.
    """
    if not path.exists():
        return None
    try:
        with np.load(path) as stored:
            facts = json.loads(stored["facts"].tobytes())
            values = {name: stored[name] for name in stored.files}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(f"The checkpoint {path} cannot be read: {error}. Train anew.") from error
    if _stored_identity(facts.pop("identity")) != identity:
        raise RunError(
            f"{path} is of another recipe or of other data; a training goes on only as it began. "
            "Give the same options, or name a new run."
        )

    def arrays(kind: str) -> list[np.ndarray]:
        count = sum(name.startswith(f"{kind}/") for name in values)
        return [values[f"{kind}/{i}"] for i in range(count)]

    model.set_weights(arrays("model"))
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)  # pyright: ignore[reportAttributeAccessIssue]
    for variable, value in zip(optimizer.variables, arrays("optimizer"), strict=True):  # pyright: ignore[reportAttributeAccessIssue]
        variable.assign(value)
    return State(best=arrays("best"), **facts)


def _stored_identity(stored: dict[str, Any]) -> dict[str, Any] | None:
    try:
        more = {name: value for name, value in stored.items() if name not in ("recipe", "data")}
        return identity_of(recall(stored["recipe"]), stored["data"], **more)
    except (RecipeError, KeyError, TypeError):
        return None
