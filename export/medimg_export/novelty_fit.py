"""Fit each method of ``medimg_edge.novelty``, and keep the one that tells outliers apart best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from medimg_edge.manifest import Task
from medimg_edge.novelty import Arrays, Method, method, scaled

Embeddings = NDArray[np.float32]
"""(N, D)."""

AXES = 256
"""Of the covariance that are kept at most: 1.3 MB for 1280 features, and 30 us an image."""

BANK = 512
"""Training images that the nearest neighbours are searched among."""

LEAST = 50
"""Training images, below which nothing is fitted."""

LEAST_VARIANCE = 1e-12
"""Of embeddings of length 1: where a network returns one and the same for every image."""

MOST_FEATURES = 4096
"""Above, a detector would be larger than the network."""

REJECTED = 0.05
"""Of the validation images: where the limit lies."""


@dataclass(frozen=True)
class Head:
    """The dense layer behind the embedding: kernel (C, D), bias (C,)."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Fitted:
    """The method that was kept, and how each did: the mean AUROC over kinds of outliers.

    figures: ``auroc <method>``, on the kinds that chose; ``auroc unseen``, of the one kept, on the
    others; and ``auroc <kind>``, of the one kept.
    """

    name: str
    arrays: Arrays
    distance: Method
    figures: dict[str, float | None]


def fit(
    task: Task,
    train: Embeddings,
    y: NDArray[np.int64],
    val: Embeddings,
    head: Head,
    outliers: Mapping[str, Embeddings],
    chosen_by: frozenset[str],
) -> Fitted:
    """Choose by the outliers of ``chosen_by``, against validation; y: the classes of ``train``."""
    best: Fitted | None = None
    figures: dict[str, float | None] = {}
    for name, arrays in _all(task, train, y, head).items():
        distance = method(name, arrays, task, train.shape[1])
        aurocs = auroc(distance, val, outliers)
        score = float(np.mean([aurocs[kind] for kind in chosen_by]))
        figures[f"auroc {name}"] = round(score, 4)
        if best is None or score > (best.figures[f"auroc {best.name}"] or 0):
            unseen = [aurocs[kind] for kind in outliers if kind not in chosen_by]
            of_kinds: dict[str, float | None] = {
                f"auroc {kind}": round(value, 4) for kind, value in aurocs.items()
            }
            told = {"auroc unseen": round(float(np.mean(unseen)), 4) if unseen else None}
            best = Fitted(name, arrays, distance, {f"auroc {name}": score} | told | of_kinds)
    assert best is not None
    return Fitted(best.name, best.arrays, best.distance, {**best.figures, **figures})


def auroc(
    distance: Method, inside: Embeddings, outliers: Mapping[str, Embeddings]
) -> dict[str, float]:
    """By kind: how often an outlier is farther than an image, both drawn at random."""
    near = distances(distance, inside)
    found = {}
    for kind, embeddings in outliers.items():
        far = distances(distance, embeddings)
        truth = np.concatenate([np.zeros(len(near)), np.ones(len(far))])
        found[kind] = float(roc_auc_score(truth, np.concatenate([near, far])))
    return found


def distances(distance: Method, embeddings: Embeddings) -> NDArray[np.float64]:
    """(N, D) -> (N,)."""
    return np.array([distance(each) for each in embeddings])


def limit(values: NDArray[np.float64], rejected: float = REJECTED) -> float:
    """From validation's distances: what that share of them is beyond."""
    return float(np.quantile(values, 1 - rejected, method="higher"))


def _all(
    task: Task, train: Embeddings, y: NDArray[np.int64], head: Head
) -> dict[str, dict[str, NDArray[np.float32]]]:
    fits: dict[str, Callable[[], dict[str, NDArray]]] = {
        "mahalanobis": lambda: _mahalanobis(train, y),
        "knn": lambda: _knn(train),
        "energy": lambda: {"kernel": head.kernel, "bias": head.bias},
        "vim": lambda: _vim(train, head, task),
    }
    return {
        name: {array: np.ascontiguousarray(values, "<f4") for array, values in fitted().items()}
        for name, fitted in fits.items()
    }


def _mahalanobis(train: Embeddings, y: NDArray[np.int64]) -> dict[str, NDArray]:
    values = scaled(train).astype(np.float64)
    classes = y if y.ndim == 1 else np.zeros(len(y), np.int64)
    names, of = np.unique(classes, return_inverse=True)
    means = np.stack([values[of == at].mean(axis=0) for at in range(len(names))])
    covariance = ledoit_wolf(values - means[of], assume_centered=True)[0]
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = np.maximum(variances[::-1], LEAST_VARIANCE), axes.T[::-1]
    kept = min(AXES, len(variances) - 1)
    rest = variances[kept:].mean()
    return {"means": means, "basis": axes[:kept], "variances": np.append(variances[:kept], rest)}


def _knn(train: Embeddings) -> dict[str, NDArray]:
    rows = np.random.default_rng(0).permutation(len(train))[:BANK]
    return {"bank": scaled(train[np.sort(rows)])}


def _vim(train: Embeddings, head: Head, task: Task) -> dict[str, NDArray]:
    values = train.astype(np.float64)
    origin = -np.linalg.pinv(head.kernel.astype(np.float64)) @ head.bias
    away = values - origin
    axes = np.linalg.eigh(away.T @ away / len(away))[1].T[::-1]
    basis = axes[: min(AXES, len(axes) - 1)]
    outside = np.sqrt(np.maximum(0, (away**2).sum(axis=1) - ((away @ basis.T) ** 2).sum(axis=1)))
    logits = values @ head.kernel.T + head.bias
    largest = (np.abs(logits) / 2 if task == "binary" else logits).max(axis=1)
    weight = np.array([largest.mean() / max(outside.mean(), 1e-12)])
    arrays = {"kernel": head.kernel, "bias": head.bias}
    return {**arrays, "origin": origin, "basis": basis, "weight": weight}
