"""The tables of a report, each as a string of HTML."""

from __future__ import annotations

from html import escape

import numpy as np

from medimg_edge.manifest import Task
from medimg_export.metrics import NAMES, Estimate, Metrics, Subgroup, on_intervals
from medimg_export.selective import COVERAGE, CoverageCurve

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
    "ece": "mean gap between probability and observed rate; 0 is best; the interval leans high",
}
REFERRED = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
BEFORE = (
    "before temperature scaling; on validation images, which the temperature was fitted on, the "
    "gain looks larger than it is"
)


def _value(of: Estimate) -> str:
    return "–" if of.value is None else f"{of.value:.3f}"


def _interval(of: Estimate) -> str:
    return "" if of.low is None else f"{of.low:.3f} – {of.high:.3f}"


def headline(metrics: Metrics) -> str:
    """Four numbers that people ask for first."""
    cards = "".join(
        f"<div><span>{NAMES[name]}</span><strong>{_value(of)}</strong>"
        f"<small>{_interval(of)}</small></div>"
        for name, of in ((name, metrics.values[name]) for name in HEADLINES[metrics.task])
    )
    return f'<div class="cards">{cards}</div>'


def metric_table(metrics: Metrics) -> str:
    """Every value with its interval, as numbers and as a bar, and what it means."""
    rows = "".join(_row(NAMES[name], of, MEANINGS[name]) for name, of in metrics.values.items())
    if metrics.ece_before is not None:
        rows += _row("ECE at temperature 1", metrics.ece_before, BEFORE)
    made = metrics.resampling
    drawn = f"groups ({metrics.groups})" if made.unit == "group" else "images"
    how = (
        f"95 % intervals: percentile bootstrap, {made.resamples} resamples of {drawn}."
        if made.resamples
        else "No intervals: nothing could be resampled."
    )
    mean = "" if metrics.task == "binary" else " Values of labels are averaged without weights."
    shares = ", ".join(f"{escape(k)} {share:.1%}" for k, share in metrics.prevalence.items())
    return (
        '<table><thead><tr><th scope="col">metric</th><th scope="col" class="number">value</th>'
        '<th scope="col" class="number">95 % interval</th><th scope="col" class="scale">'
        '<span>0</span><span>1</span></th><th scope="col">meaning</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        f"<p>{metrics.n} images. Prevalence: {shares}. {' '.join([how, *on_intervals(metrics)])}"
        f"{mean}</p>"
    )


def _row(name: str, of: Estimate, meaning: str) -> str:
    return (
        f'<tr><th scope="row">{name}</th><td class="number">{_value(of)}</td>'
        f'<td class="number">{_interval(of)}</td><td>{_range(of)}</td><td>{meaning}</td></tr>'
    )


def _range(of: Estimate) -> str:
    """The interval as a bar on a scale from 0 to 1; the numbers beside it say the same."""
    if of.value is None:
        return ""
    low, high = (of.value, of.value) if of.low is None or of.high is None else (of.low, of.high)
    return (
        '<svg class="range" viewBox="0 0 100 10" aria-hidden="true">'
        '<line x1="0" x2="100" y1="5" y2="5" class="rail"/>'
        f'<line x1="{100 * low:.1f}" x2="{100 * high:.1f}" y1="5" y2="5" class="span"/>'
        f'<line x1="{100 * of.value:.1f}" x2="{100 * of.value:.1f}" y1="1" y2="9"/></svg>'
    )


def label_table(metrics: Metrics) -> str:
    """The values of each label, for tasks with several."""
    names = list(next(iter(metrics.per_label.values())))
    head = "".join(f'<th scope="col" class="number">{NAMES[name]}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th>'
        + "".join(_cell(of[name]) for name in names)
        + "</tr>"
        for label, of in metrics.per_label.items()
    )
    return (
        f'<div class="wide"><table class="dense"><thead><tr><th scope="col">label</th>{head}'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def subgroup_table(metrics: Metrics, subgroups: dict[str, Subgroup]) -> str:
    """The headline values of each subgroup, with its size and prevalence beside them."""
    names = HEADLINES[metrics.task]
    head = "".join(
        f'<th scope="col" class="number">{name}</th>'
        for name in ("images", "prevalence", *(NAMES[name] for name in names))
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{of.n}{_patients(of)}</td>'
        f'<td class="number">{"<br>".join(_shares(of))}</td>'
        + "".join(_cell(of.values.get(name)) for name in names)
        + "</tr>"
        for name, of in subgroups.items()
    )
    told = [
        f"{', '.join(escape(name) for name, of in subgroups.items() if of.against == count)}: one "
        f"class only, so the AUC is against the {count} images of the other class."
        for count in sorted({of.against for of in subgroups.values()} - {0})
    ]
    outside = metrics.n - sum(of.n for of in subgroups.values())
    if outside:
        told.append(f"{outside} images are in no subgroup.")
    return (
        f'<div class="wide"><table class="dense"><thead><tr><th scope="col">subgroup</th>{head}'
        f"</tr></thead><tbody>{rows}</tbody></table></div><p>{' '.join(told)}</p>"
    )


def _patients(of: Subgroup) -> str:
    return "" if of.groups is None else f"<small>{of.groups} patients</small>"


def _shares(of: Subgroup) -> list[str]:
    return [f"{escape(label)} {share:.1%}" for label, share in of.prevalence.items()]


def _cell(of: Estimate | None) -> str:
    shown = "–" if of is None else f"{_value(of)}<small>{_interval(of)}</small>"
    return f'<td class="number">{shown}</td>'


def coverage_table(curve: CoverageCurve) -> str:
    """What referring the least sure images would leave of the error, at a few shares."""
    rows = ""
    for share in REFERRED:
        of = curve.errors[int(np.argmin(np.abs(COVERAGE - (1 - share))))]
        rows += (
            f'<tr><th scope="row">{share:.0%}</th>'
            f'<td class="number">{curve.n - round(share * curve.n)}</td>'
            f'<td class="number">{_value(of)}</td><td class="number">{_interval(of)}</td></tr>'
        )
    head = "".join(
        f'<th scope="col" class="number">{name}</th>'
        for name in ("answered", "error", "95 % interval")
    )
    return (
        '<div class="wide"><h3>What is left of the error</h3><table><thead><tr>'
        f'<th scope="col">referred</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"<p>Area under the generalized risk coverage curve (AUGRC): {_fine(curve.augrc)}. That is "
        "the share of images that are answered and wrong, averaged over every share that could be "
        "answered; 0 is best.</p></div>"
    )


def _fine(of: Estimate) -> str:
    if of.value is None:
        return "–"
    interval = "" if of.low is None else f" ({of.low:.4f} – {of.high:.4f})"
    return f"{of.value:.4f}{interval}"


def referral_table(metrics: Metrics) -> str:
    """By label how many images its refer band leaves to a person, and the error of the others."""
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th>'
        f'<td class="number">{of.band[0]:.4g} – {of.band[1]:.4g}</td>'
        f'{_cell(of.referred)}<td class="number">{of.answered}</td>{_cell(of.error)}</tr>'
        for label, of in (metrics.referrals or {}).items()
    )
    head = "".join(
        f'<th scope="col" class="number">{name}</th>'
        for name in ("refer band", "referred", "answered", "error of the answered")
    )
    return (
        f'<div class="wide"><table><thead><tr><th scope="col">label</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div><p>A probability in the band is left to a person. All "
        "other figures of this report decide these images too, by the threshold.</p>"
    )


def confusion(metrics: Metrics) -> str:
    """The confusion matrix; for multilabel the four counts of each label."""
    if metrics.confusion is None:
        return _counts(metrics)
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in metrics.labels)
    rows = ""
    for label, row in zip(metrics.labels, metrics.confusion, strict=True):
        total = sum(row)
        cells = "".join(
            f'<td style="--share:{count / max(total, 1):.3f}">{count}'
            f"<small>{count / total:.1%}</small></td>"
            if total
            else "<td>0</td>"
            for count in row
        )
        rows += f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>'
    return (
        '<div class="wide"><h3>Confusion matrix</h3><table class="confusion"><thead>'
        f'<tr><td></td><th scope="colgroup" colspan="{len(metrics.labels)}">answered</th></tr>'
        f'<tr><th scope="col">truth</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"<p>{_rule(metrics)} Shares are of the images of that row.</p></div>"
    )


def _counts(metrics: Metrics) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th>'
        + "".join(f'<td class="number">{n}</td>' for n in (of.tp, of.fn, of.fp, of.tn))
        + f'<td class="number">{(metrics.thresholds or {})[label]:.4g}</td>'
        + "</tr>"
        for label, of in metrics.counts.items()
    )
    head = "".join(
        f'<th scope="col" class="number">{name}</th>'
        for name in ("found", "missed", "false alarm", "rightly none", "threshold")
    )
    return (
        '<div class="wide"><h3>Confusion by label</h3><table class="dense"><thead><tr>'
        f'<th scope="col">label</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
        "<p>Positive where the probability reaches the threshold.</p></div>"
    )


def _rule(metrics: Metrics) -> str:
    if metrics.thresholds is None:
        return "The most probable label is the answer."
    limits = ", ".join(f"{escape(k)} ≥ {limit:.4g}" for k, limit in metrics.thresholds.items())
    return f"Positive where the probability of {limits}."
