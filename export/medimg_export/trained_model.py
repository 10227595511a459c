"""A trained model with everything that its export needs: from a run, or from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import msgspec
import numpy as np

from medimg_edge.errors import DataInvalid, RecipeError, RunError
from medimg_edge.manifest import OperatingPoint, Task
from medimg_export import recipe as recipes
from medimg_export.gates import Answers
from medimg_export.graph import Deployable, deployable
from medimg_export.keras_file import load_model
from medimg_export.prepared import Prepared, Progress, prepare
from medimg_export.recipe import RECORD, Recipe
from medimg_export.run import Record, Run, operating_points, versions
from medimg_export.train import predict


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """The graph for devices, the data that it is checked on, and where it came from.

    decision: by label the operating point on validation; empty for multiclass.
    training: the manifest's provenance.
    """

    deployable: Deployable
    prepared: Prepared
    decision: dict[str, OperatingPoint]
    training: dict[str, Any]

    @property
    def recipe(self) -> Recipe:
        """The recipe, with its size and backbone filled in."""
        return self.prepared.recipe

    @property
    def task(self) -> Task:
        """As the manifest will say it."""
        return self.prepared.dataset.task

    @property
    def labels(self) -> tuple[str, ...]:
        """As the manifest will say them."""
        return self.prepared.dataset.labels

    @property
    def findings(self) -> tuple[str, ...]:
        """The labels that have a probability."""
        return self.labels[1:] if self.task == "binary" else self.labels

    def answers(self, split: Literal["val", "test"], progress: Progress | None = None) -> Answers:
        """Keras' probabilities, float64 (N, findings), for the cached pixels of a split."""
        rows = self.prepared.rows(split)
        if not len(rows):
            return np.empty((0, len(self.findings)))
        found = predict(
            self.deployable.model, self.prepared.cached.pixels, rows, progress, f"Keras on {split}"
        )
        return np.concatenate([batch["probability"] for batch in found]).astype(np.float64)  # pyright: ignore[reportArgumentType, reportCallIssue]


def trained_model(
    source: Path,
    *,
    data: Path | None = None,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> TrainedModel:
    """Open a run, or a ``.keras`` file with its recipe and data.

    recipe: of a run, only its card is taken: the words for people may change after training.

    Raises RunError, RecipeError, ModelUnsupported, DataError.
    """
    if source.is_dir():
        return _of_run(Run.open(source), data, recipe, progress)
    if source.suffix != ".keras":
        raise RunError(
            f"{source} is neither a run nor a .keras file. Give the folder that "
            f"`medimg-edge train` wrote (it holds {RECORD}), or a Keras model saved as .keras."
        )
    if recipe is None or data is None:
        raise RecipeError(
            "A model that was trained elsewhere needs --recipe (labels, preprocessing, and what "
            "its float input expects) and --data (images to check the export on)."
        )
    return _of_elsewhere(source, recipe, data, progress)


def _of_run(
    run: Run, data: Path | None, recipe: Recipe | None, progress: Progress | None
) -> TrainedModel:
    record = run.record
    if recipe is not None:
        trained_by = msgspec.structs.replace(record.recipe, card=recipe.card)
        record = msgspec.structs.replace(record, recipe=trained_by)
    prepared = prepare(data or Path(record.data), record.recipe, progress)
    found = prepared.describe()["fingerprint"]
    if found != record.dataset["fingerprint"]:
        raise DataInvalid(
            f"The images at {prepared.dataset.path} are not those of the training (fingerprint "
            f"{found[:12]}, not {record.dataset['fingerprint'][:12]}), so the validation split is "
            "another one. Give the training's data with --data, or train anew."
        )
    return TrainedModel(
        deployable=deployable(run.model(), task=record.task, temperature=record.temperature),
        prepared=prepared,
        decision=record.decision,
        training={
            "backbone": record.recipe.training.backbone,
            "recipe": msgspec.to_builtins(record.recipe),
            "temperature": record.temperature,
            "best_epoch": record.best_epoch,
            "data_fingerprint": found,
            "versions": record.versions,
            **_beside_labels(record),
        },
    )


def _beside_labels(record: Record) -> dict[str, Any]:
    """What else the network has learned from, without the places where it lay."""
    found: dict[str, Any] = {}
    if record.weights:
        found["weights"] = {"sha256": record.weights["sha256"]}
    if unlabelled := record.dataset.get("unlabelled"):
        found["unlabelled"] = {key: unlabelled[key] for key in ("used", "left_out", "fingerprint")}
    return found


def _of_elsewhere(
    path: Path, recipe: Recipe, data: Path, progress: Progress | None
) -> TrainedModel:
    recipe = recipes.override(recipe, pixels={"decode": "full"})  # as it saw its images
    spec = recipe.model
    model = load_model(path)
    prepared = prepare(data, _sized(recipe, model), progress, order=spec.outputs)
    task, labels = prepared.dataset.task, prepared.dataset.labels
    outputs = spec.outputs or recipe.data.labels or labels
    if sorted(outputs) != sorted(labels):
        raise RecipeError(
            f"The recipe's outputs are {', '.join(outputs)}; the data's labels are "
            f"{', '.join(labels)}. Name the labels in the order of the model's outputs."
        )
    graph = deployable(
        model,
        task=task,
        positive_first=task == "binary" and outputs[0] == labels[1],
        temperature=spec.temperature,
        input_scale=None if spec.scale is None else (spec.scale, spec.offset or 0.0),
    )
    expected = tuple(graph.model.inputs[0].shape[1:])
    if expected != prepared.preprocessing.shape:
        raise RecipeError(
            f"The model takes {expected}; the recipe's [pixels] make "
            f"{prepared.preprocessing.shape}. Set size and color (or the windows) to fit."
        )
    bare = TrainedModel(graph, prepared, {}, {})
    rows = prepared.splits.val
    return TrainedModel(
        deployable=graph,
        prepared=prepared,
        decision=operating_points(prepared, prepared.y[rows], bare.answers("val", progress)),
        training={
            "backbone": f"trained elsewhere: {path.name}",
            "recipe": msgspec.to_builtins(prepared.recipe),
            "temperature": spec.temperature,
            "data_fingerprint": prepared.describe()["fingerprint"],
            "versions": versions(),
        },
    )


def _sized(recipe: Recipe, model: keras.Model) -> Recipe:
    """The recipe with the size of the model's input, where it says none."""
    inputs = getattr(model, "inputs", None)
    shape = inputs[0].shape if inputs else ()
    if recipe.pixels.size is not None or len(shape) != 4:  # not images: refused as a graph
        return recipe
    _, height, width, _ = shape
    if height != width:
        raise RecipeError(f"The model's input is {width} x {height}; square inputs are read.")
    return recipes.override(recipe, pixels={"size": height})
