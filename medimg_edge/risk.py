"""Answers that are wrong no more often than somebody accepts; all others are referred.

Split conformal prediction by class (Vovk 2012, "Conditional Validity of Inductive Conformal
Predictors"): of images like those of validation, the true label is among the possible ones in all
but a share ``risk`` of the images of each class. An answer is given where one label is possible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from medimg_edge.errors import ReferenceMissing, RiskUnknown
from medimg_edge.manifest import Manifest, OperatingPoint

RISKS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Those that an export fits."""

Bounds = tuple[float, float]
"""A label is possible from the first probability on, its absence up to the second."""


class Risk:
    """What is possible under one risk. ``bounds`` by label, of every finding."""

    def __init__(self, risk: float, manifest: Manifest, bounds: Mapping[str, Bounds]) -> None:
        self.risk = risk
        self.bounds = {label: _single(bounds[label]) for label in manifest.findings}
        self._labels, self._task = manifest.labels, manifest.task

    @classmethod
    def of(cls, manifest: Manifest, artifact: str, risk: float) -> Risk:
        """Raises ReferenceMissing where the bundle has no bounds, RiskUnknown for another risk."""
        by_label = {} if manifest.risks is msgspec.UNSET else manifest.risks.get(artifact, {})
        if not by_label:
            raise ReferenceMissing(
                f"{manifest.name} holds no bounds of a risk for {artifact}: export it anew, or "
                "answer without --risk."
            )
        known = sorted({float(each) for bounds in by_label.values() for each in bounds})
        if risk not in known:
            raise RiskUnknown(
                f"{manifest.name} has no bounds for a risk of {risk:g}; it has them for "
                f"{', '.join(f'{each:g}' for each in known)}."
            )
        return cls(risk, manifest, {label: found[key(risk)] for label, found in by_label.items()})

    def point(self, label: str, point: OperatingPoint) -> OperatingPoint:
        """Where a label's probability becomes a decision: in between it is referred."""
        present, absent = self.bounds[label]
        low, high = min(present, _above(absent)), max(present, _above(absent))
        return msgspec.structs.replace(
            point,
            threshold=min(max(point.threshold, low), high),
            rule=f"{point.rule}, risk {self.risk:g}",
            sensitivity=None,
            specificity=None,
            refer=(low, high) if low < high else None,
        )

    def possible(self, probabilities: NDArray[np.float32]) -> tuple[str, ...] | None:
        """The labels that cannot be ruled out; all where every one can. None for multilabel."""
        if self._task == "multilabel":
            return None
        if self._task == "binary":
            ((present, absent),) = self.bounds.values()
            p = float(probabilities[0])
            kept = [p <= absent, p >= present]
        else:
            pairs = zip(probabilities.tolist(), self.bounds.values(), strict=True)
            kept = [p >= present for p, (present, _) in pairs]
        found = tuple(label for label, is_kept in zip(self._labels, kept, strict=True) if is_kept)
        return found or self._labels


def key(risk: float) -> str:
    """As a manifest writes it."""
    return f"{risk:g}"


def bounds(scores: Sequence[NDArray[np.float64]], risk: float) -> Bounds:
    """From the probabilities of images with the label, and of images without it.

    The k-th smallest with it, and largest without it, where k = floor((n + 1) risk): then a new
    image of n alike is beyond in at most that share. 0 or 1, which rules nothing out, for k = 0.
    """
    positive, negative = (np.sort(np.asarray(each, np.float64)) for each in scores)
    k, m = (math.floor((len(each) + 1) * risk) for each in (positive, negative))
    return (float(positive[k - 1]) if k else 0.0, float(negative[-m]) if m else 1.0)


def fit(manifest: Manifest, y: ArrayLike, p: ArrayLike) -> dict[str, dict[str, Bounds]]:
    """The bounds of every risk, by label; y: int (N,), multilabel (N, C); p: (N, C)."""
    truth, probability = np.asarray(y), np.asarray(p, np.float64)
    found: dict[str, dict[str, Bounds]] = {}
    for column, label in enumerate(manifest.findings):
        has = _has(manifest, truth, column)
        with_it, without = probability[has, column], probability[~has, column]
        found[label] = {key(risk): bounds((with_it, without), risk) for risk in RISKS}
    return found


def _has(manifest: Manifest, truth: NDArray, column: int) -> NDArray[np.bool_]:
    if manifest.task == "binary":
        return truth == 1
    return truth == column if manifest.task == "multiclass" else truth[:, column] == 1


def _single(found: Bounds) -> Bounds:
    present, absent = found
    return float(np.float32(present)), float(np.float32(absent))


def _above(p: float) -> float:
    """The next larger number in single precision, in which probabilities are told; at most 1."""
    return min(1.0, float(np.nextafter(np.float32(p), np.float32(2))))
