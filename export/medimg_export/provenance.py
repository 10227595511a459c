"""What a bundle tells of its training: the recipe, the temperature, and which images it had.

A manifest keeps this for people; it may be of another release, or say nothing.
"""

from __future__ import annotations

import math
from pathlib import Path

from medimg_edge.errors import DataError, RecipeError
from medimg_edge.manifest import Manifest
from medimg_export import recipe as recipes
from medimg_export.prepared import Progress, prepare
from medimg_export.recipe import Recipe


def recipe_of(manifest: Manifest) -> Recipe | None:
    """The recipe of the training; None where there is none, or none that can be read."""
    stored = manifest.training.get("recipe")
    try:
        return None if stored is None else recipes.recall(stored)
    except RecipeError:
        return None


def temperature_of(manifest: Manifest) -> float | None:
    """What the logits are divided by in the graph; None where the manifest does not say."""
    stored = manifest.training.get("temperature")
    if isinstance(stored, bool) or not isinstance(stored, int | float):
        return None
    return float(stored) if 0 < stored < math.inf else None


def own_splits(
    manifest: Manifest, data: Path, progress: Progress | None
) -> dict[str, set[str]] | None:
    """By split the names that training had in it, where these are the training's own images.

    A split that training made is in no folder's name: without this, images that the network has
    learned by heart would count as new ones.
    """
    recipe = recipe_of(manifest)
    if recipe is None:
        return None
    try:
        prepared = prepare(data, recipe, progress)
    except (DataError, RecipeError):  # images that were not trained on so, or nobody knows how
        return None
    if prepared.describe()["fingerprint"] != manifest.training.get("data_fingerprint"):
        return None
    return {
        split: {sample.name for sample in prepared.samples(prepared.rows(split))}
        for split in ("train", "val", "test")
    }
