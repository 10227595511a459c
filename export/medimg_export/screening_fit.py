"""What a bundle turns away: fitted on training images, with limits by validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medimg_edge.manifest import Novelty, Polarity, Reference, Screening, Task
from medimg_edge.novelty import Arrays
from medimg_edge.preprocess import Area
from medimg_edge.screening import Upright, cells, content, looks
from medimg_export import novelty_fit
from medimg_export.augment import augment, draw
from medimg_export.novelty_fit import Embeddings, Head
from medimg_export.outliers import outliers
from medimg_export.prepared import Prepared

Run = Callable[[Iterable[NDArray[np.uint8]]], Embeddings | None]
"""N tensors (H, W, C) -> embeddings (N, D), by the default artifact; None where it has none."""

FOLDER = "screening"
CELLS = 8
RIDGE = 0.1
"""Of the mean variance of a cell: weights of neighbours then do not cancel each other."""

MOST_TRAINING = 5000
"""Training images that a detector is fitted on, each as it is and as training drew it."""

DRAW = 20_000
"""Of the augmentation: no epoch of a training has this number, and no draw of validation."""

_FEW = 0.001
_HALF = 0.5
_CAUGHT, _MISTAKEN = 0.9, 0.005
_SURE = 0.01


@dataclass(frozen=True)
class Fit:
    """The manifest's part, and what its builder should know. Files lie in the bundle's folder."""

    screening: Screening
    notes: list[str]


def fit(
    folder: Path,
    prepared: Prepared,
    task: Task,
    head: Head,
    run: Run,
    val: Mapping[str, Embeddings | None],
) -> Fit:
    """Fit everything, and write its arrays below ``folder``; val: embeddings by artifact."""
    pixels = prepared.cached.pixels
    train = _spread(prepared.splits.train, MOST_TRAINING)
    seen = [pixels[row] for row in prepared.splits.val]
    whole = Area(0, 0, prepared.preprocessing.height, prepared.preprocessing.width)
    polarity, notes = _polarity(folder, [pixels[row] for row in train], seen)
    novelty, more = _novelty(folder, prepared, train, task, head, run, val)
    return Fit(
        Screening(
            contrast=round(_half_of_least([looks(each).contrast for each in seen]), 2),
            content=round(min(_HALF, _half_of_least([content(each, whole) for each in seen])), 3),
            polarity=polarity,
            novelty=novelty,
        ),
        notes + more,
    )


def told(screening: Screening, reference: Reference) -> str:
    """What the default artifact turns away, for the model's builder."""
    away = sum(reference.codes.values()) / max(1, reference.images)
    codes = ", ".join(f"{code} {count}" for code, count in reference.codes.items()) or "none"
    found = f"of {reference.images} validation images {away:.1%} are turned away ({codes})"
    if (novelty := screening.novelty) is None:
        return found
    chosen, unseen = (novelty.figures.get(f"auroc {name}") for name in (novelty.method, "unseen"))
    how = f"not-like-training by {novelty.method}: AUROC {chosen:.3f} on the kinds that chose it"
    return f"{found}; {how}" + (f", {unseen:.3f} on unseen kinds" if unseen is not None else "")


def _spread(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """At most so many, always the same ones."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).permutation(rows)[:most])


def _half_of_least(values: list[float]) -> float:
    """Half of what one image in a thousand of validation has less than."""
    return _HALF * float(np.quantile(values, _FEW))


def _polarity(
    folder: Path, train: list[NDArray[np.uint8]], val: list[NDArray[np.uint8]]
) -> tuple[Polarity | None, list[str]]:
    """The direction that tells images from their negatives best, Fisher's linear discriminant.

    A negative has the opposite cells, so that the mean of the images is the difference of the
    means, and both have one covariance.
    """
    values = np.stack([cells(each, CELLS) for each in train]).astype(np.float64)
    covariance = np.cov(values.T)
    ridge = RIDGE * max(np.trace(covariance), 1e-9) / len(covariance) * np.eye(len(covariance))
    weights = np.linalg.solve(covariance + ridge, values.mean(axis=0)).astype("<f4")
    of = Upright(weights.reshape(CELLS, CELLS), 0)
    scores = np.array([of.score(each) for each in val])
    limit = -max(0.0, float(np.quantile(scores, _SURE)))
    caught, mistaken = float((-scores < limit).mean()), float((scores < limit).mean())
    if caught < _CAUGHT or mistaken > _MISTAKEN:
        return None, [
            f"negatives are not told from images ({caught:.0%} on validation): not checked"
        ]
    name = _write(folder, "polarity", weights)
    return Polarity(CELLS, name, limit), []


def _novelty(
    folder: Path,
    prepared: Prepared,
    train: NDArray[np.intp],
    task: Task,
    head: Head,
    run: Run,
    val: Mapping[str, Embeddings | None],
) -> tuple[Novelty | None, list[str]]:
    depth = head.kernel.shape[1]
    if len(train) < novelty_fit.LEAST or depth > novelty_fit.MOST_FEATURES:
        return None, [
            f"no detector of unlike images: {len(train)} training images (at least "
            f"{novelty_fit.LEAST}), {depth} features (at most {novelty_fit.MOST_FEATURES})"
        ]
    inside = run(_as_trained(prepared, train))
    seen = {name: each for name, each in val.items() if each is not None}
    if inside is None or not seen:
        return None, ["no detector of unlike images: the network returns no embedding"]
    drawn = outliers(prepared.preprocessing, prepared.recipe.card.modality)
    if not drawn.pixels:
        return None, ["no detector of unlike images: the model sees nothing in any drawn outlier"]
    outside = {
        kind: found for kind, each in drawn.pixels.items() if (found := run(each)) is not None
    }
    fitted = novelty_fit.fit(
        task,
        inside,
        np.concatenate([prepared.y[train]] * 2),
        next(iter(seen.values())),
        head,
        outside,
        drawn.chosen_by,
    )
    return (
        Novelty(
            method=fitted.name,  # pyright: ignore[reportArgumentType]
            arrays=_written(folder, fitted.arrays),
            shapes={name: values.shape for name, values in fitted.arrays.items()},
            limit={
                name: novelty_fit.limit(novelty_fit.distances(fitted.distance, each))
                for name, each in seen.items()
            },
            figures=fitted.figures,
        ),
        [],
    )


def _as_trained(prepared: Prepared, rows: NDArray[np.intp]) -> Iterator[NDArray[np.uint8]]:
    """Each as it is, then each under one draw: what a network was trained to bear is no outlier."""
    training, pixels = prepared.recipe.training, prepared.cached.pixels
    drawn = draw(len(pixels), seed=training.seed, epoch=DRAW)
    yield from (pixels[row] for row in rows)
    yield from (augment(pixels[row], drawn[row], training.augmentation) for row in rows)


def _written(folder: Path, arrays: Arrays) -> dict[str, str]:
    return {name: _write(folder, name, values) for name, values in arrays.items()}


def _write(folder: Path, name: str, values: NDArray) -> str:
    path = f"{FOLDER}/{name}.f32"
    (folder / FOLDER).mkdir(exist_ok=True)
    (folder / path).write_bytes(np.ascontiguousarray(values, "<f4").tobytes())
    return path
