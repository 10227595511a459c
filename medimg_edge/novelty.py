"""How unlike the training images the network finds an image: a distance, by its embedding.

The export fits the methods below and keeps the one that tells outliers apart best. All arrays are
float32; D is the length of the embedding, C the number of logits.

    mahalanobis  min over classes of (x - mean)' inverse covariance (x - mean), of embeddings scaled
                 to length 1; the covariance is kept as its k largest axes and one variance for all
                 others. Lee et al. 2018, "A Simple Unified Framework for Detecting
                 Out-of-Distribution Samples"; Mueller and Hein 2025, "Mahalanobis++", who scale
    knn          the distance to the 10th nearest of a sample of training embeddings, scaled to
                 length 1. Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest
                 Neighbors"
    energy       minus the log of the sum of exponential logits. Liu et al. 2020, "Energy-based
                 Out-of-distribution Detection"
    vim          a multiple of what lies outside of the k largest axes, plus the energy. Wang et al.
                 2022, "ViM: Out-of-Distribution with Virtual-logit Matching"
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medimg_edge.bundle import Bundle
from medimg_edge.errors import ManifestInvalid
from medimg_edge.manifest import Novelty, Task

NEIGHBOURS = 10
MOST_AXES = 2

Arrays = Mapping[str, NDArray[np.float32]]

AXES: dict[str, dict[str, str]] = {
    "mahalanobis": {"means": "MD", "basis": "KD", "variances": "V"},
    "knn": {"bank": "ND"},
    "energy": {"kernel": "CD", "bias": "C"},
    "vim": {"kernel": "CD", "bias": "C", "origin": "D", "basis": "KD", "weight": "1"},
}
"""By method the arrays, and their axes: the same letter is the same length; V is K + 1."""


class Method(Protocol):
    """A method with its arrays."""

    def __call__(self, embedding: NDArray[np.float32]) -> float:
        """float32 (D,) -> the distance; larger is less like the training images."""
        ...


class Detector:
    """The method that a bundle's manifest names, and from where on nothing is answered.

    Raises FilesDiffer, ManifestInvalid.
    """

    def __init__(self, bundle: Bundle, spec: Novelty, artifact: str) -> None:
        arrays = {
            name: numbers(bundle, file, spec.shapes.get(name, ()), "screening.novelty")
            for name, file in spec.arrays.items()
        }
        depth = bundle.manifest.outputs["embedding"].shape[1]
        self._distance = method(spec.method, arrays, bundle.manifest.task, depth)
        self._limit = spec.limit[artifact]

    def novelty(self, embedding: NDArray[np.float32]) -> float:
        """float32 (D,) -> how far beyond the limit it is, whose value is 1; see ``relative``."""
        return relative(self._distance(embedding), self._limit)


def numbers(bundle: Bundle, file: str, shape: tuple[int, ...], part: str) -> NDArray[np.float32]:
    """An array that a part of the manifest names. Raises FilesDiffer, ManifestInvalid."""
    data = bundle.read(file)
    fits = 1 <= len(shape) <= MOST_AXES and 0 < len(data) == 4 * math.prod(shape)
    values = np.frombuffer(data, "<f4").astype(np.float32) if fits else None
    if values is None or not np.isfinite(values).all():
        raise ManifestInvalid(
            f"{part}: {file} does not hold finite numbers of the shape {shape}. Export the bundle "
            "anew."
        )
    return values.reshape(shape)


def relative(distance: float, limit: float) -> float:
    """A distance as people can read it: 1 is the limit, more is unlike the training images.

    Distances of energy may be negative; then the difference is told, and not the quotient.
    """
    return distance / limit if limit > 0 else 1 + distance - limit


def method(name: str, arrays: Arrays, task: Task, depth: int | None) -> Method:
    """The method of a name. Raises ManifestInvalid where arrays do not fit it."""
    sizes: dict[str, int] = {"1": 1} | ({} if depth is None else {"D": depth})
    for array, axes in AXES[name].items():
        shape = arrays[array].shape if array in arrays else ()
        if len(shape) != len(axes):
            raise ManifestInvalid(f"screening.novelty: {name} needs the array {array} ({axes}).")
        for axis, size in zip(axes, shape, strict=True):
            if sizes.setdefault(axis, size) != size or size == 0:
                raise ManifestInvalid(f"screening.novelty: {array} does not fit the other arrays.")
    if "V" in sizes and sizes["V"] != sizes["K"] + 1:
        raise ManifestInvalid("screening.novelty: variances does not fit basis.")
    if "V" in sizes and not (arrays["variances"] > 0).all():
        raise ManifestInvalid("screening.novelty: not all variances are above 0.")
    if name == "mahalanobis":
        return _Mahalanobis(arrays)
    if name == "knn":
        return _Knn(arrays)
    energy = _Energy(arrays, task)
    return energy if name == "energy" else _Vim(arrays, energy)


def scaled(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """(D,) or (N, D) -> the same, each of length 1; one of zeros stays."""
    length = np.sqrt(np.einsum("...i,...i->...", embeddings, embeddings))
    return embeddings / np.maximum(length, np.finfo(np.float32).tiny)[..., None]


def _product(rows: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) times (D,) -> (N,), in this thread: BLAS would wait for cores that others use."""
    return np.einsum("ij,j->i", rows, values)


class _Mahalanobis:
    def __init__(self, arrays: Arrays) -> None:
        means, basis, variances = arrays["means"], arrays["basis"], arrays["variances"]
        self._means, self._basis = means, np.ascontiguousarray(basis)
        self._centers = (means @ basis.T).astype(np.float64)
        self._weights = 1 / variances[:-1].astype(np.float64) - 1 / float(variances[-1])
        self._rest = 1 / float(variances[-1])

    def __call__(self, embedding: NDArray[np.float32]) -> float:
        values = scaled(embedding)
        along = (_product(self._basis, values) - self._centers) ** 2
        away = (values - self._means).astype(np.float64)
        every = np.einsum("ij,ij->i", away, away)
        return float((every * self._rest + along @ self._weights).min())


class _Knn:
    def __init__(self, arrays: Arrays) -> None:
        self._bank = np.ascontiguousarray(arrays["bank"])
        self._kth = min(NEIGHBOURS, len(self._bank)) - 1

    def __call__(self, embedding: NDArray[np.float32]) -> float:
        closeness = _product(self._bank, scaled(embedding))
        nearest = -np.partition(-closeness, self._kth)[self._kth]
        return float(np.sqrt(max(0.0, 2 - 2 * float(nearest))))


class _Energy:
    def __init__(self, arrays: Arrays, task: Task) -> None:
        self._kernel, self._bias, self._task = arrays["kernel"], arrays["bias"], task

    def __call__(self, embedding: NDArray[np.float32]) -> float:
        logits = (self._kernel @ embedding + self._bias).astype(np.float64)
        if self._task == "multilabel":  # Wang et al. 2021: the sum over labels
            return -float(np.logaddexp(0, logits).sum())
        if self._task == "binary":  # one logit is the difference of two
            logits = np.concatenate((logits / 2, -logits / 2))
        return -float(np.logaddexp.reduce(logits))


class _Vim:
    def __init__(self, arrays: Arrays, energy: _Energy) -> None:
        self._origin, self._basis = arrays["origin"], np.ascontiguousarray(arrays["basis"])
        self._weight, self._energy = float(arrays["weight"][0]), energy

    def __call__(self, embedding: NDArray[np.float32]) -> float:
        away = embedding - self._origin
        along = _product(self._basis, away).astype(np.float64)
        outside = float(away.astype(np.float64) @ away) - float(along @ along)
        return self._weight * float(np.sqrt(max(0.0, outside))) + self._energy(embedding)
