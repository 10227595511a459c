"""The report of a comparison: one HTML file, as ``report`` writes them, without images."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

from medimg_edge.whole_file import write_whole
from medimg_export import report_plots
from medimg_export.answers import Answers
from medimg_export.comparison import (
    Change,
    Comparison,
    Disagreement,
    Finding,
    interval,
    number,
    p_text,
    p_value,
)
from medimg_export.metrics import NAMES
from medimg_export.paired import McNemar
from medimg_export.report_page import figure, page, pair, section

LISTED = 500
"""So many images are in the page; comparison.json names all of them."""

READING = (
    "A difference is B minus A, its interval of the paired bootstrap: both models are measured "
    "on the same resamples. An interval that contains 0, or a p that is not small, means that "
    "these images do not tell the two apart; it does not mean that they are equal."
)
TESTS = (
    "p: for AUC DeLong's test, for decisions McNemar's exact test, both two-sided and not "
    "corrected for their number."
)
WHOSE = {"a": "A", "b": "B", "neither": "neither"}


def write_comparison_report(path: Path, found: Comparison, a: Answers, b: Answers) -> None:
    """Write the report of ``found``, which ``compare`` made of ``a`` and ``b``.

    Raises WriteError.
    """
    several = len(found.findings) > 1
    sections = [
        section(
            "differences",
            "What differs",
            *(_differences(of, several) for of in found.findings),
            f"<p>{_drawn(found)} {READING} {TESTS}</p>",
            *(f"<p><strong>{escape(note)}</strong></p>" for note in found.notes),
        ),
        section("curves", "Curves and decisions", *_curves(found, a, b)),
        section("images", "Images on which they disagree", *_images(found.disagreements)),
    ]
    body = "\n".join(sections)
    title = f"{found.a.name} and {found.b.name}, compared"
    write_whole(path, page(title, _facts(found), body).encode())


def _facts(found: Comparison) -> list[tuple[str, str]]:
    shares = [f"{label} {share:.1%}" for label, share in found.prevalence.items()]
    return [
        ("A", found.a.name),
        ("B", found.b.name),
        ("Common images", str(found.n)),
        ("Left out", f"{found.a.left_out} of A's, {found.b.left_out} of B's"),
        ("Patients", "unknown" if found.groups is None else str(found.groups)),
        ("Prevalence", ", ".join(shares)),
    ]


def _drawn(found: Comparison) -> str:
    if not found.resamples:
        return "No intervals: nothing could be resampled."
    unit = "images" if found.groups is None else f"groups ({found.groups})"
    return f"95 % intervals, {found.resamples} resamples of {unit}."


def _differences(of: Finding, several: bool) -> str:
    title = f"<h3>{escape(of.label)}</h3>" if several else ""
    scale = _scale(of)
    rows = "".join(
        f'<tr><th scope="row">{NAMES[name]}</th><td class="number">{number(change.a)}</td>'
        f'<td class="number">{number(change.b)}</td>'
        f'<td class="number">{_minus(number(change.difference.value, "+"))}</td>'
        f'<td class="number">{_minus(interval(change.difference))}</td>'
        f"<td>{_bar(change, scale)}</td>"
        f"<td>{escape(p_value(of, name))}</td></tr>"
        for name, change in of.values.items()
    )
    head = "".join(
        f'<th scope="col" class="number">{name}</th>'
        for name in ("A", "B", "B − A", "95 % interval")
    )
    return (
        f'{title}<div class="wide"><table><thead><tr><th scope="col">metric</th>{head}'
        f'<th scope="col" class="scale"><span>−{scale:g}</span><span>+{scale:g}</span></th>'
        f'<th scope="col">p</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _scale(of: Finding) -> float:
    """The end of the bars: the farthest bound, rounded up to a number that reads well."""
    bounds = [
        abs(bound)
        for change in of.values.values()
        for bound in (change.difference.value, change.difference.low, change.difference.high)
        if bound is not None
    ]
    farthest = max(bounds, default=0.0) or 0.01
    place = 10.0 ** math.floor(math.log10(farthest))
    return next(
        step * place for step in (1, 1.5, 2, 3, 5, 10) if step * place >= farthest * (1 - 1e-9)
    )


def _bar(change: Change, scale: float) -> str:
    """The interval about 0, as numbers beside it say it."""
    of = change.difference
    if of.value is None:
        return ""
    low, high = (of.value, of.value) if of.low is None or of.high is None else (of.low, of.high)
    low, at, high = (50 + 50 * bound / scale for bound in (low, of.value, high))
    return (
        '<svg class="range" viewBox="0 0 100 10" aria-hidden="true">'
        '<line x1="0" x2="100" y1="5" y2="5" class="rail"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="5" y2="5" class="span"/>'
        '<line x1="50" x2="50" y1="0" y2="10" class="zero"/>'
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="1" y2="9"/></svg>'
    )


def _curves(found: Comparison, a: Answers, b: Answers) -> list[str]:
    """A ROC figure for each label, beside the decisions where they are about it."""
    columns = list(zip(a.columns, b.columns, strict=True))
    draws = found.resamples if len(columns) == 1 else 0
    plots = [
        figure(
            report_plots.roc_pair(f"roc{i}", x, y, a.groups, draws=draws),
            escape(f"ROC, {x.label}"),
        )
        for i, (x, y) in enumerate(columns)
    ]
    counts = [_decisions(of) for of in found.findings]
    note = "A ring is an operating point."
    if draws > 1:
        note += " The bands are the 95 % intervals of the curves, point by point."
    if found.task == "multiclass":
        return [*counts, f'<div class="pair">{"".join(plots)}</div>', f"<p>{note}</p>"]
    pairs = [pair(plot, told) for plot, told in zip(plots, counts, strict=True)]
    return [*pairs, f"<p>{note}</p>"]


def _decisions(of: Finding) -> str:
    """How many images both, one or neither had right, as McNemar's test sees them."""
    rows = "".join(_decided(name, test) for name, test in of.mcnemar.items())
    head = "".join(
        f'<th scope="col" class="number">{name}</th>'
        for name in ("images", "both right", "only A", "only B", "both wrong", "p")
    )
    return (
        '<div class="wide"><h3>Right decisions</h3><table class="dense"><thead><tr>'
        f'<th scope="col">of</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
        "<p>Exact p: if the two were equally good, those that only one has right would fall to "
        "either like tosses of a coin.</p></div>"
    )


def _decided(name: str, test: McNemar) -> str:
    of = {"accuracy": "all", "sensitivity": "positives", "specificity": "negatives"}[name]
    counts = (test.n, test.both, test.only_a, test.only_b, test.neither)
    cells = "".join(f'<td class="number">{count}</td>' for count in counts)
    return (
        f'<tr><th scope="row">{of}</th>{cells}<td class="number">{escape(p_text(test.p))}</td></tr>'
    )


def _images(disagreements: tuple[Disagreement, ...]) -> list[str]:
    if not disagreements:
        return ["<p>They decide alike on every image.</p>"]
    several = len({each.label for each in disagreements}) > 1
    ordered = sorted(disagreements, key=lambda each: (each.right, each.label, each.name))
    rows = "".join(_image(each, several) for each in ordered[:LISTED])
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("right", "image", *(["label"] if several else []), "truth", "A", "B")
    )
    more = len(ordered) - LISTED
    rest = f" {more} more are in comparison.json." if more > 0 else ""
    return [
        f'<div class="wide"><table class="dense"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>",
        f"<p>{len(ordered)} decisions differ.{rest}</p>",
    ]


def _image(each: Disagreement, several: bool) -> str:
    label = f"<td>{escape(each.label)}</td>" if several else ""
    return (
        f"<tr><td>{WHOSE[each.right]}</td><td><code>{escape(each.name)}</code></td>{label}"
        f"<td>{escape(each.truth)}</td><td>{escape(each.a)} {each.p_a:.3f}</td>"
        f"<td>{escape(each.b)} {each.p_b:.3f}</td></tr>"
    )
