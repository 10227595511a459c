"""The figures of a report, each as a string of inline SVG.

Text stays text, so that it can be searched, read aloud and printed sharply. Colours are Okabe and
Ito's (Color Universal Design, 2008), told apart by line style as well.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from medimg_export.calibration import BINS, reliability
from medimg_export.metrics import NAMES, Metrics
from medimg_export.recipe import Keep
from medimg_export.scores import Floats, LabelScores, resamples
from medimg_export.selective import COVERAGE, CoverageCurve

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")
INK, FAINT = "#1b2733", "#8896a4"
BAND_RESAMPLES = 300
LOSSES = {
    "loss": "training",
    "val_loss": "validation",
    "supervised": "of labelled images",
    "unsupervised": "of the others",
}
GRID = np.linspace(0, 1, 101)  # where a band is drawn
SETTLED = 0.1  # share of images from which on an error is not that of a handful
IN_AXES = 3  # more legend entries than this would cover the curves
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e9ee",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
}


def roc(metrics: Metrics, columns: list[LabelScores], groups: Sequence[str] | None) -> str:
    """Receiver operating characteristic, one curve per label, operating points marked."""
    with _figure("roc", _told("ROC curve", metrics, "auc")) as figure:
        axes = _square(figure, "1 − specificity", "sensitivity")
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
        for index, column in _drawable(columns):
            x, y, _ = roc_curve(column.truth, column.score)
            axes.plot(x, y, label=_entry(metrics, column, "auc", "AUC"), **_line(index))
            reached = metrics.per_label[column.label]
            if (specificity := reached["specificity"].value) is not None:
                _mark(axes, index, 1 - specificity, reached["sensitivity"].value)
        if len(columns) == 1:
            _band(axes, GRID, _roc_draws(columns[0], groups, GRID, metrics.resampling.resamples))
        _legend(figure, axes, "lower right")
    return figure.svg


def roc_pair(
    name: str, a: LabelScores, b: LabelScores, groups: Sequence[str] | None, *, draws: int
) -> str:
    """The ROC curves of two models on the same images, operating points marked.

    ``name`` tells the figure from others on its page; the bands are of ``draws`` resamples, or of
    ``BAND_RESAMPLES`` where that is fewer.
    """
    ones = np.ones((1, len(a.truth)))
    with _figure(name, f"ROC curves of A and B, {a.label}") as figure:
        axes = _square(figure, "1 − specificity", "sensitivity")
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
        for index, column in _drawable([a, b]):
            x, y, _ = roc_curve(column.truth, column.score)
            values = {name: float(of[0]) for name, of in column.values(ones).items()}
            line = {**_line(index), "linestyle": DASHES[index]}
            axes.plot(x, y, label=f"{'AB'[index]}\u2002AUC {values['auc']:.3f}", **line)
            _mark(axes, index, 1 - values["specificity"], values["sensitivity"])
            _band(axes, GRID, _roc_draws(column, groups, GRID, draws), index)
        _legend(figure, axes, "lower right")
    return figure.svg


def precision_recall(
    metrics: Metrics, columns: list[LabelScores], groups: Sequence[str] | None
) -> str:
    """Precision against recall, one curve per label, operating points marked."""
    told = _told("Precision-recall curve", metrics, "average_precision")
    with _figure("pr", told) as figure:
        axes = _square(figure, "sensitivity (recall)", "PPV (precision)")
        for index, column in _drawable(columns):
            y, x, _ = precision_recall_curve(column.truth, column.score, drop_intermediate=True)
            label = _entry(metrics, column, "average_precision", "AP")
            axes.step(x, y, where="post", label=label, **_line(index))
            reached = metrics.per_label[column.label]
            _mark(axes, index, reached["sensitivity"].value, reached["ppv"].value)
        if len(columns) == 1:
            share = metrics.prevalence[columns[0].label]
            axes.axhline(share, color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
            above = share < 0.9  # else there is no room for the word
            axes.text(
                0.02, share + (0.015 if above else -0.015), f"prevalence {share:.2f}",
                va="bottom" if above else "top", fontsize=9,
            )  # fmt: skip
            _band(axes, GRID, _pr_draws(columns[0], groups, GRID, metrics.resampling.resamples))
        _legend(figure, axes, "lower left")
    return figure.svg


def calibration(metrics: Metrics, columns: list[LabelScores]) -> str:
    """Observed rate against probability per bin, over a histogram of the probabilities.

    ``columns`` as for the curves; for multiclass the one column of the answered label.
    """
    with _figure("calibration", _told("Reliability diagram", metrics, "ece")) as figure:
        upper, lower = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
        upper.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
        upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        for index, column in enumerate(columns):
            bins = reliability(column.score, column.truth)
            filled = bins.count > 0
            upper.plot(
                bins.mean[filled],
                bins.rate[filled],
                marker="o",
                markersize=5,
                label=None if len(columns) == 1 else _plain(column.label),
                **_line(index),
            )
        scores = [column.score for column in columns]
        lower.hist(
            scores,
            bins=np.linspace(0, 1, BINS + 1).tolist(),
            stacked=True,
            color=[_line(index)["color"] for index in range(len(columns))],
            edgecolor="white",
            linewidth=0.5,
        )
        answered = metrics.task == "multiclass"
        upper.set(ylabel="share right" if answered else "observed rate")
        lower.set(xlabel="probability of the answer" if answered else "probability")
        lower.set(ylabel="images")
        _legend(figure, upper, "upper left")
    return figure.svg


def coverage(curve: CoverageCurve) -> str:
    """Error among the images answered against their share, with its band."""
    errors = np.array([(of.value, of.low, of.high) for of in curve.errors], np.float64)
    told = f"Error against coverage, {errors[-1, 0]:.3f} where every image is answered"
    with _figure("coverage", told) as figure:
        axes = figure.subplots()
        axes.fill_between(COVERAGE, *errors[:, 1:].T, color=COLORS[0], alpha=0.16, linewidth=0)
        axes.plot(COVERAGE, errors[:, 0], **_line(0))
        _mark(axes, 0, 1.0, float(errors[-1, 0]))
        axes.set(xlim=(-0.02, 1.02), xlabel="share of images answered")
        top = float(np.nanmax(errors[COVERAGE >= SETTLED]))
        axes.set(ylim=(-0.02 * top, 1.08 * top) if top else (-0.002, 0.1))
        axes.set(ylabel="error among them")
    return figure.svg


def learning(history: list[dict[str, Any]], keep: Keep) -> str:
    """Loss and validation AUC by epoch; stages are told apart, the epoch that is kept is marked.

    With images without labels also the two parts of the loss, and how often the teacher was sure.
    """
    taught = np.isfinite(sure := _series(history, "confident")).any()
    with _figure("learning", "Learning curves by epoch", size=(8.6, 3.2)) as figure:
        left, *middle, right = figure.subplots(1, 3 if taught else 2)
        steps = np.arange(1, len(history) + 1)
        for index, (name, label) in enumerate(LOSSES.items()):
            if np.isfinite(losses := _series(history, name)).any():
                left.plot(steps, losses, marker=".", label=label, **_line(index))
        left.set(xlabel="epoch", ylabel="loss")
        for axes in middle:
            left.set_ylim(top=1.5 * left.get_ylim()[1])  # room for a longer legend
            axes.plot(steps, sure, marker=".", color=COLORS[2])
            axes.set(xlabel="epoch", ylabel="unlabelled images that counted", ylim=(-0.03, 1.03))
        aucs = _series(history, "val_auc")
        right.plot(steps, aucs, marker=".", color=COLORS[1])
        right.set(xlabel="epoch", ylabel="validation AUC")
        if np.isfinite(aucs).any():
            kept = int(
                np.nanargmax(aucs) if keep == "best" else np.flatnonzero(np.isfinite(aucs))[-1]
            )
            _mark(right, 1, float(steps[kept]), float(aucs[kept]))
            right.set_xlabel(f"epoch; {keep} {aucs[kept]:.4f} after {kept + 1}")
        for axes in (left, *middle, right):
            axes.set_xlim(0.5, len(history) + 0.5)
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            _stages(axes, history)
        left.legend(loc="best")
    return figure.svg


class _Drawing(Figure):
    """A figure that becomes ``svg`` when its block ends."""

    svg: str = ""


@contextmanager
def _figure(name: str, told: str, size: tuple[float, float] = (4.2, 4.0)) -> Iterator[_Drawing]:
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = _Drawing(figsize=size, layout="constrained")
        yield figure
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    figure.svg = _inline(buffer.getvalue(), name, told)


def _inline(svg: str, name: str, told: str) -> str:
    """The element alone, with ids that are unique on a page of several, and its name."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'((?:xlink:)?href="|url\()#', rf"\g<1>#{name}-", svg)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", svg, count=1)
    title = f"<title>{html.escape(told)}</title>"
    opening = f'<svg role="img" aria-label="{html.escape(told)}"'
    return re.sub(r"<svg\b([^>]*)>", lambda tag: f"{opening}{tag[1]}>{title}", svg, count=1)


def _legend(
    figure: Figure, axes: Axes, loc: Literal["upper left", "lower left", "lower right"]
) -> None:
    """Inside the axes where there is room, else below them."""
    entries = axes.get_legend_handles_labels()[0]
    if len(entries) > IN_AXES:
        figure.set_figheight(figure.get_figheight() + 0.11 * (len(entries) + 2))
        figure.legend(handles=entries, loc="outside lower center", ncols=2)
    elif entries:
        axes.legend(loc=loc)


def _square(figure: Figure, x: str, y: str) -> Axes:
    axes = figure.subplots()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, aspect="equal")
    return axes


def _line(index: int) -> dict[str, Any]:
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": DASHES[index // len(COLORS) % len(DASHES)],
    }


def _drawable(columns: list[LabelScores]) -> list[tuple[int, LabelScores]]:
    """The labels that have both classes: the others have no curve."""
    return [
        (index, column)
        for index, column in enumerate(columns)
        if column.truth.any() and not column.truth.all()
    ]


def _entry(metrics: Metrics, column: LabelScores, name: str, short: str) -> str:
    value = metrics.per_label[column.label][name].value
    shown = f"{short} {value:.3f}" if value is not None else short
    return shown if metrics.task == "binary" else f"{_plain(column.label)}\u2002{shown}"


def _plain(label: str) -> str:
    """For a legend: there a leading underscore hides an entry and $ begins a formula."""
    return label.lstrip("_").replace("$", r"\$")


def _told(title: str, metrics: Metrics, name: str) -> str:
    value = metrics.values[name].value
    shown = "undefined" if value is None else f"{value:.3f}"
    return f"{title}, {NAMES[name]} {shown}"


def _mark(axes: Axes, index: int, x: float | None, y: float | None) -> None:
    """The operating point, where it is defined."""
    if x is not None and y is not None:
        color = COLORS[index % len(COLORS)]
        axes.plot(
            [x], [y], "o", markersize=9, markerfacecolor="white", markeredgecolor=color,
            markeredgewidth=2.2, zorder=5,
        )  # fmt: skip


def _series(history: list[dict[str, Any]], key: str) -> Floats:
    values = [row.get(key) for row in history]
    return np.array([np.nan if value in (None, "") else float(value) for value in values])


def _stages(axes: Axes, history: list[dict[str, Any]]) -> None:
    """A line where a new stage begins, with its name."""
    names = [str(row.get("stage") or "") for row in history]
    for index, name in enumerate(names):
        if name and (index == 0 or names[index - 1] != name):
            if index:
                axes.axvline(index + 0.5, color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
            where = axes.get_xaxis_transform()
            axes.text(index + 0.6, 1.02, name, transform=where, fontsize=9, parse_math=False)


def _band(axes: Axes, x: Floats, curves: list[Floats], index: int = 0) -> None:
    """The pointwise 2.5th to 97.5th percentile of the resampled curves."""
    if len(curves) > 1:
        low, high = np.percentile(curves, [2.5, 97.5], axis=0)
        axes.fill_between(x, low, high, color=COLORS[index], alpha=0.16, linewidth=0)


def _called(
    column: LabelScores, groups: Sequence[str] | None, count: int
) -> Iterator[tuple[Floats, Floats]]:
    """Per resample: positives and negatives called as the threshold falls, where both exist."""
    for weights in resamples(len(column.truth), groups, min(count, BAND_RESAMPLES), 0):
        by_score = column.by_score(weights)
        for tp, fp in zip(*(np.cumsum(part[:, ::-1], axis=1) for part in by_score), strict=True):
            if tp[-1] and fp[-1]:
                yield tp[tp + fp > 0], fp[tp + fp > 0]


def _roc_draws(
    column: LabelScores, groups: Sequence[str] | None, x: Floats, count: int
) -> list[Floats]:
    return [
        np.interp(x, np.append(0, fp / fp[-1]), np.append(0, tp / tp[-1]))
        for tp, fp in _called(column, groups, count)
    ]


def _pr_draws(
    column: LabelScores, groups: Sequence[str] | None, x: Floats, count: int
) -> list[Floats]:
    return [np.interp(x, tp / tp[-1], tp / (tp + fp)) for tp, fp in _called(column, groups, count)]
