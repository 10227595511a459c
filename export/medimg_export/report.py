"""``report.html``: one file that shows how good a model is, on any machine, without a network.

Everything is inside: style, figures (SVG with real text) and images (data URIs). There is no
script. What comes from outside (names, labels, notes) is escaped.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from medimg_edge.errors import WriteError
from medimg_edge.manifest import Task
from medimg_export import report_plots
from medimg_export.metrics import NAMES, Estimate, Metrics
from medimg_export.scores import answer_scores, checked, label_scores

Kind = Literal["right", "wrong", "least sure"]
KINDS: tuple[Kind, ...] = get_args(Kind)

EXAMPLE_PX = 320  # larger images are shrunk: the report has to stay small enough to mail
HEADLINES: dict[Task, tuple[str, ...]] = {
    "binary": ("auc", "sensitivity", "specificity", "ece"),
    "multiclass": ("auc", "accuracy", "balanced_accuracy", "f1"),
    "multilabel": ("auc", "sensitivity", "specificity", "f1"),
}
MEANINGS = {
    "auc": "chance that a random positive image scores above a random negative one",
    "average_precision": "precision averaged over recall; guessing gives the prevalence",
    "accuracy": "of all images, answered right",
    "balanced_accuracy": "sensitivity, averaged over the labels",
    "sensitivity": "of the positive images, called positive",
    "specificity": "of the negative images, called negative",
    "ppv": "of the positive calls, right; depends on the prevalence",
    "npv": "of the negative calls, right; depends on the prevalence",
    "f1": "harmonic mean of sensitivity and PPV",
    "ece": "mean gap between probability and observed rate; 0 is best",
}
KIND_TEXTS: dict[Kind, str] = {
    "right": "Right, and surest of it",
    "wrong": "Wrong, the surest first",
    "least sure": "Least sure: nearest to the other answer",
}


@dataclass(frozen=True)
class Example:
    """One image with its answer.

    ``pixels`` uint8 (H, W, C), as the network gets them; ``overlay`` uint8 (H, W, 3) RGB, the
    image with its heatmap, or None. ``probability`` is that of ``label``.
    """

    name: str
    pixels: NDArray[np.uint8]
    overlay: NDArray[np.uint8] | None
    truth: str
    label: str
    probability: float
    kind: Kind


def pick_examples(
    y: ArrayLike, p: ArrayLike, threshold: float | None, per_kind: int = 4
) -> dict[Kind, list[int]]:
    """Indices of images worth showing, per kind at most ``per_kind``, none of them twice.

    One label: ``y`` 0/1 and ``p`` of N values, with its threshold. Multiclass: ``y`` int (N,),
    ``p`` (N, C) and no threshold. Sureness is the distance to the threshold as a share of what
    is possible on that side; for multiclass the lead over the second label. ``right`` takes turns
    among the labels, so that each is seen.
    """
    truth = np.ravel(y).astype(int)
    if threshold is None:
        scores = np.asarray(p, np.float64)
        answer = scores.argmax(axis=1)
        second, first = np.sort(scores, axis=1)[:, -2:].T
        sureness = first - second
    else:
        score = np.ravel(p).astype(np.float64)
        answer = (score >= threshold).astype(int)
        room = np.where(answer == 1, 1 - threshold, threshold)
        sureness = np.abs(score - threshold) / np.maximum(room, np.finfo(float).tiny)
    surest = np.argsort(-sureness, kind="stable")
    wrong = [int(i) for i in surest if answer[i] != truth[i]][:per_kind]
    least = [int(i) for i in surest[::-1] if i not in wrong][:per_kind]
    right = [int(i) for i in surest if answer[i] == truth[i] and i not in least]
    turn = {i: [j for j in right if truth[j] == truth[i]].index(i) for i in _head(right, truth)}
    return {
        "right": sorted(turn, key=lambda i: turn[i])[:per_kind],
        "wrong": wrong,
        "least sure": least,
    }
