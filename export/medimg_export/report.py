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
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from medimg_edge.manifest import Task
from medimg_edge.whole_file import write_whole
from medimg_export import report_plots
from medimg_export.metrics import Metrics
from medimg_export.recipe import Keep
from medimg_export.report_page import bullets, figure, page, pair, section
from medimg_export.report_tables import (
    confusion,
    coverage_table,
    headline,
    label_table,
    metric_table,
    referral_table,
    subgroup_table,
)
from medimg_export.scores import answer_scores, checked, label_scores
from medimg_export.selective import Selective, coverage_curve, selective_of

Kind = Literal["right", "wrong", "least sure"]
KINDS: tuple[Kind, ...] = get_args(Kind)

EXAMPLE_PX = 320  # larger images are shrunk: the report has to stay small enough to mail
RING_NOTE = "A ring is an operating point: where the decisions of this report are taken."
BAND_NOTE = " The band is the 95 % interval of the curve, point by point."
RELIABILITY_NOTE = (
    "On the dotted line a probability means what it says. Bins with few images scatter; the "
    "histogram says how many there are."
)
COVERAGE_NOTE = (
    "The surest images are answered, the others referred to a reader; the error is the share of "
    "wrong answers among those given. A curve that falls to the left says that the model knows "
    "what it does not know."
)
COVERAGE_BAND_NOTE = " The band is the 95 % interval, point by point."
COVERAGE_RESAMPLES = 1000
SURENESS: dict[Task, str] = {
    "binary": "Sure is what is far from the threshold, in logits.",
    "multiclass": "Sure is what has a high probability of the answered label.",
}
NARROW = 5  # a table of more labels than this takes the whole width
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
    by_label = [[i for i in right if truth[i] == label] for label in np.unique(truth)]
    turns = [i for turn in zip_longest(*by_label) for i in turn if i is not None]
    return {"right": turns[:per_kind], "wrong": wrong, "least sure": least}


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    subtitle_facts: list[tuple[str, str]],
    metrics: Metrics,
    task: Task,
    labels: Sequence[str],
    y: ArrayLike,
    p: ArrayLike,
    thresholds: dict[str, float] | None,
    history: list[dict[str, Any]] | None,
    examples: list[Example] | None,
    notes: list[str],
    groups: Sequence[str] | None = None,
    keep: Keep = "best",
) -> None:
    """Write the report of ``metrics``, which ``evaluate`` made of the same arrays.

    ``history`` has a row per epoch with any of stage, loss, val_loss, val_auc; ``keep`` says which
    of them the weights are of. ``groups`` makes
    the bands of the curves from whole groups, as in ``evaluate``. A report that was there before
    is replaced only by a finished one.

    Raises WriteError, and what ``evaluate`` raises for arrays that do not fit.
    """
    truth, probability = checked(task, y, p, len(labels))
    columns = label_scores(task, labels, truth, probability, thresholds)
    calibrated = [answer_scores(truth, probability)] if task == "multiclass" else columns
    sections = [
        section("metrics", "How good it is", headline(metrics), metric_table(metrics)),
        section("labels", "By label", label_table(metrics)) if task != "binary" else "",
        section("subgroups", "By subgroup", subgroup_table(metrics, metrics.subgroups))
        if metrics.subgroups
        else "",
        section(
            "curves",
            "Curves",
            pair(
                figure(report_plots.roc(metrics, columns, groups), "ROC"),
                figure(
                    report_plots.precision_recall(metrics, columns, groups),
                    "Precision and recall",
                ),
            ),
            f"<p>{RING_NOTE}{BAND_NOTE if len(columns) == 1 and _banded(metrics) else ''}</p>",
        ),
        section(
            "decisions",
            "Decisions and probabilities",
            pair(
                confusion(metrics),
                figure(
                    report_plots.calibration(metrics, calibrated), "Reliability", RELIABILITY_NOTE
                ),
                stacked=len(labels) > NARROW,
            ),
        ),
        section("referred", "What is referred", referral_table(metrics))
        if metrics.referrals
        else "",
        _coverage(selective_of(task, truth, probability, thresholds), groups, metrics),
        section("learning", "Learning curves", figure(report_plots.learning(history, keep)))
        if history
        else "",
        section("examples", "Examples", *_examples(examples, thresholds)) if examples else "",
        section("notes", "Notes", bullets(notes)) if notes else "",
    ]
    body = "\n".join(filter(None, sections))
    write_whole(Path(path), page(title, subtitle_facts, body).encode())


def _banded(metrics: Metrics) -> bool:
    """Whether curves have bands: they are of as many resamples as the intervals, or fewer."""
    return metrics.resampling.resamples > 1


def _coverage(of: Selective | None, groups: Sequence[str] | None, metrics: Metrics) -> str:
    if of is None:
        return ""
    curve = coverage_curve(of, groups, min(COVERAGE_RESAMPLES, metrics.resampling.resamples))
    band = COVERAGE_BAND_NOTE if _banded(metrics) else ""
    plot = figure(report_plots.coverage(curve), "Error against coverage")
    return section(
        "coverage",
        "If the least sure are referred",
        pair(plot, coverage_table(curve)),
        f"<p>{COVERAGE_NOTE}{band} {SURENESS[metrics.task]}</p>",
    )


def _examples(examples: list[Example], thresholds: dict[str, float] | None) -> list[str]:
    parts = ["<p>These are images of the data set: treat this file as you treat them.</p>"]
    for kind in KINDS:
        of_kind = [example for example in examples if example.kind == kind]
        if of_kind:
            cards = "".join(_example(example, thresholds or {}) for example in of_kind)
            parts.append(f'<h3>{KIND_TEXTS[kind]}</h3><div class="examples">{cards}</div>')
    return parts


def _example(of: Example, thresholds: dict[str, float]) -> str:
    images = _image(of.pixels, f"{of.name}, the image")
    if of.overlay is not None:
        images += _image(of.overlay, f"{of.name}, what speaks for {of.label}")
    limit = thresholds.get(of.label)
    tick = "" if limit is None else f'<i style="left:{100 * limit:.1f}%"></i>'
    return (
        f'<figure class="example"><div>{images}</div><figcaption>'
        f'<div class="bar" aria-hidden="true"><b style="width:{100 * of.probability:.1f}%"></b>'
        f"{tick}</div><p><strong>{escape(of.label)} {of.probability:.3f}</strong></p>"
        f"<p>truth: {escape(of.truth)}</p><p><code>{escape(of.name)}</code></p>"
        "</figcaption></figure>"
    )


def _image(pixels: NDArray[np.uint8], told: str) -> str:
    H, W, C = pixels.shape
    shown = np.ascontiguousarray(pixels[:, :, ::-1] if C == 3 else pixels[:, :, :1])
    if max(H, W) > EXAMPLE_PX:
        scale = EXAMPLE_PX / max(H, W)
        size = max(1, round(W * scale)), max(1, round(H * scale))
        shown = cv2.resize(shown, size, interpolation=cv2.INTER_AREA)
    data = base64.b64encode(cv2.imencode(".png", shown)[1].tobytes()).decode()
    small = ' class="small"' if max(H, W) < 128 else ""
    return f'<img{small} alt="{escape(told)}" src="data:image/png;base64,{data}">'
