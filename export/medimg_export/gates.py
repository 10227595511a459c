"""The gates: how far an artifact may answer differently than the model that was trained.

Pure functions of answers on the validation split; who computed them is ``export``'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medimg_edge.manifest import Gate, OperatingPoint, Task
from medimg_export.calibration import matching_threshold
from medimg_export.metrics import auc, paired_auc_loss

Answers = NDArray[np.float64]
"""Probabilities, shape (N, C)."""


@dataclass(frozen=True)
class Limits:
    """What an artifact may lose. The manifest records the ones that were used.

    float32: largest |dp| against Keras. int8_auc: loss of AUC. int8_rate: loss of sensitivity or of
    specificity, and never less than ``int8_images`` images. few: with fewer images of a class than
    this the interval of the AUC's loss decides instead of its value.
    """

    float32: float = 1e-4
    int8_auc: float = 0.005
    int8_rate: float = 0.01
    int8_images: int = 2
    few: int = 100


def difference(p: Answers, reference: Answers) -> float:
    """Max |dp|; infinite where an answer is missing."""
    return float(np.abs(p - reference).max()) if p.shape == reference.shape else float("inf")


def float32_gate(artifact: str, split: str, p: Answers, reference: Answers, limits: Limits) -> Gate:
    """The float32 artifact gives Keras' probabilities."""
    measured = difference(p, reference)
    return Gate(
        "probability", artifact, split, limits.float32, measured, measured <= limits.float32
    )


def pixels_gate(artifact: str, split: str, differing: int) -> Gate:
    """The device's decoder and preprocessing give the pixels of training, byte for byte."""
    return Gate("pixels", artifact, split, 0, differing, differing == 0)


def int8_gates(
    artifact: str,
    task: Task,
    labels: Sequence[str],
    y: NDArray[np.int64],
    p: Answers,
    reference: Answers,
    points: dict[str, OperatingPoint],
    groups: Sequence[str] | None,
    limits: Limits,
) -> list[Gate]:
    """The int8 artifact ranks and decides as the float32 one, on validation.

    ``points`` are the float32 artifact's, by label; none for multiclass.
    """
    gates = [_auc_gate(artifact, task, y, p, reference, groups, limits)]
    for label, truth, wanted, got in _decisions(task, labels, y, p, reference, points):
        for name, of in (("sensitivity", truth), ("specificity", ~truth)):
            lost = int(wanted[of].sum() - got[of].sum())
            if name == "specificity":
                lost = -lost
            count = max(1, int(of.sum()))
            limit = max(limits.int8_rate, limits.int8_images / count)
            gates.append(
                Gate(
                    f"{name} of {label}",
                    artifact,
                    "val",
                    round(limit, 6),
                    lost / count,
                    lost / count <= limit + 1e-12,
                    f"{lost:+d} of {count} images",
                )
            )
    return gates


def matched_points(
    labels: Sequence[str], p: Answers, reference: Answers, points: dict[str, OperatingPoint]
) -> dict[str, float]:
    """By label the threshold on ``p`` that makes as many positive calls as the reference's."""
    return {
        label: matching_threshold(reference[:, i], points[label].threshold, p[:, i])
        for i, label in enumerate(labels)
        if label in points
    }


def _auc_gate(
    artifact: str,
    task: Task,
    y: NDArray[np.int64],
    p: Answers,
    reference: Answers,
    groups: Sequence[str] | None,
    limits: Limits,
) -> Gate:
    loss = auc(task, y, reference) - auc(task, y, p)
    if loss <= limits.int8_auc or _smallest_class(task, y) >= limits.few:
        return Gate("auc", artifact, "val", limits.int8_auc, loss, loss <= limits.int8_auc)
    loss, low, high = paired_auc_loss(task, y, reference, p, groups)
    detail = f"few images: the interval of the loss, {low:+.4f} to {high:+.4f}, must contain 0"
    return Gate("auc", artifact, "val", limits.int8_auc, loss, low <= 0 <= high, detail)


def _smallest_class(task: Task, y: NDArray[np.int64]) -> int:
    if task == "multilabel":
        return int(np.minimum(y.sum(axis=0), len(y) - y.sum(axis=0)).min())
    return int(np.bincount(y).min())


def _decisions(
    task: Task,
    labels: Sequence[str],
    y: NDArray[np.int64],
    p: Answers,
    reference: Answers,
    points: dict[str, OperatingPoint],
):
    """(label, truth, reference's calls, artifact's calls) as booleans of N, by label."""
    if task == "multiclass":
        wanted, got = reference.argmax(axis=1), p.argmax(axis=1)
        for i, label in enumerate(labels):
            yield label, y == i, wanted == i, got == i
        return
    thresholds = matched_points(labels, p, reference, points)
    for i, label in enumerate(labels):
        truth = (y if task == "binary" else y[:, i]) == 1
        wanted = reference[:, i] >= points[label].threshold
        yield label, truth, wanted, p[:, i] >= thresholds[label]
