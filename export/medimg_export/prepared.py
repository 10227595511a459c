"""A data set made ready: read once, cached as the device's pixels, and split.

Training, export and evaluation begin here, so that they mean the same images by the same split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from medimg_edge.classifier import Progress
from medimg_edge.manifest import Preprocessing
from medimg_export import splits
from medimg_export.chatter import load_tensorflow
from medimg_export.dataset import Dataset, Sample, open_dataset, open_unlabelled
from medimg_export.npz import ArrayRow
from medimg_export.pixel_cache import CachedPixels, PixelCache
from medimg_export.recipe import Recipe, override
from medimg_export.unlabelled import Unlabelled, alone, beside, kept_apart

SMALL = 96
"""Below this many pixels ``auto`` takes the small backbone."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Images, labels and splits by row.

    cached.pixels: uint8 (N, H, W, C), on disk. y: int64 (N,) or, multilabel, (N, K). unlabelled:
    what is learned from beside them.
    """

    recipe: Recipe
    preprocessing: Preprocessing
    dataset: Dataset
    cached: CachedPixels
    splits: splits.Splits
    y: NDArray[np.int64]
    unlabelled: Unlabelled | None = None

    def rows(self, split: Literal["train", "val", "test"]) -> NDArray[np.intp]:
        """The rows of one split."""
        return getattr(self.splits, split)

    def groups(self, rows: NDArray[np.intp]) -> list[str] | None:
        """The patient of each row; None where the data set does not tell."""
        groups = [self.cached.samples[row].group for row in rows]
        return None if None in groups else [str(group) for group in groups]

    def samples(self, rows: NDArray[np.intp]) -> list[Sample]:
        """The encoded images behind rows."""
        return [self.cached.samples[row] for row in rows]

    @property
    def kept_apart(self) -> str:
        """Which images judge, whatever else they are called: see ``unlabelled``."""
        return kept_apart(self.cached, self.splits)

    def describe(self) -> dict[str, Any]:
        """What ``run.json`` says of the data."""
        found = splits.describe(self.dataset, self.cached, self.splits)
        if self.unlabelled:
            found["unlabelled"] = self.unlabelled.describe()
            found["notes"] += self.unlabelled.notes
        return found


def prepare(
    data: Path,
    recipe: Recipe,
    progress: Progress | None = None,
    *,
    order: Sequence[str] | None = None,
    unlabelled: Path | None = None,
) -> Prepared:
    """Read, cache and split. The returned recipe has its size and backbone filled in.

    order: number the labels so, where a model has its outputs in this order.
    unlabelled: a folder of more images, which nobody labelled.

    Raises DataError where the data set cannot be used, RecipeError.
    """
    spec = recipe.data
    dataset = open_dataset(
        data,
        labels=spec.labels,
        positive=spec.positive,
        group_pattern=spec.group_pattern,
        task=spec.task,
        modality=recipe.card.modality,
    )
    if order is not None and dataset.task != "binary":
        dataset = dataset.in_order(order)
    recipe = _filled(recipe, dataset)
    preprocessing = preprocessing_of(recipe)
    cached = PixelCache().build(dataset, preprocessing, progress)
    divided = splits.make_splits(cached, seed=recipe.training.seed, drop_overlap=spec.drop_overlap)
    return Prepared(
        recipe=recipe,
        preprocessing=preprocessing,
        dataset=dataset,
        cached=cached,
        splits=divided,
        y=np.array([sample.label for sample in cached.samples], np.int64),
        unlabelled=None
        if unlabelled is None
        else beside(_unlabelled(unlabelled, recipe), cached, divided, preprocessing, progress),
    )


def prepare_unlabelled(
    images: Path, recipe: Recipe, labelled: Path | None = None, progress: Progress | None = None
) -> tuple[Unlabelled, Recipe, Preprocessing]:
    """A folder of images without labels; the recipe with its size and backbone filled in.

    labelled: a data set of whose validation and test nothing may be learned.

    Raises as ``prepare``.
    """
    if labelled is not None:
        prepared = prepare(labelled, recipe, progress, unlabelled=images)
        assert prepared.unlabelled is not None
        return prepared.unlabelled, prepared.recipe, prepared.preprocessing
    dataset = _unlabelled(images, recipe)
    recipe = _filled(recipe, dataset)
    preprocessing = preprocessing_of(recipe)
    return alone(dataset, preprocessing, progress), recipe, preprocessing


def _unlabelled(path: Path, recipe: Recipe) -> Dataset:
    return open_unlabelled(
        path, group_pattern=recipe.data.group_pattern, modality=recipe.card.modality
    )


def encoded(sample: Sample) -> Path | NDArray[np.uint8]:
    """What the device is given: the file, or the array of a row."""
    return sample.source.pixels() if isinstance(sample.source, ArrayRow) else sample.source


def preprocessing_of(recipe: Recipe) -> Preprocessing:
    """The manifest's preprocessing of a recipe whose size is filled in."""
    pixels = recipe.pixels
    assert pixels.size is not None
    return Preprocessing(
        height=pixels.size,
        width=pixels.size,
        color=pixels.color,
        intensity=pixels.intensity,
        geometry=pixels.geometry,
        decode="scaled" if pixels.decode == "scaled" else msgspec.UNSET,
    )


def _filled(recipe: Recipe, dataset: Dataset) -> Recipe:
    size, backbone = recipe.pixels.size, recipe.training.backbone
    first = dataset.samples[0].source
    if size is None and isinstance(first, ArrayRow):
        size = first.shape[0]
    if backbone == "auto":
        backbone = "tiny" if size is not None and size < SMALL else "efficientnet-lite0"
    if size is None:
        load_tensorflow()  # seconds, which most data errors and every evaluation can spare
        from medimg_export import backbones

        size = backbones.find(backbone).default_size
    return override(recipe, pixels={"size": size}, training={"backbone": backbone})
