"""MODEL_CARD.md: what a person should know before trusting a bundle."""

from __future__ import annotations

from typing import Any

import msgspec

from medimg_edge.manifest import Manifest, Novelty, Reference
from medimg_edge.screening import MAX_ASPECT, MIN_LEVELS
from medimg_export.card_completeness import Facts, Point, Section, points
from medimg_export.metrics import Metrics, of_whom, on_intervals, table
from medimg_export.recipe import Recipe

LIMITS = (
    "It answers one question about one kind of image. Of another body part, age group, view or "
    "modality it may still give a number, and that number means nothing: what it turns away is "
    "said above, and that is not everything.",
    "The figures hold for images like those it was validated on. Another hospital, machine or "
    "patient group can lower them: measure on your own labelled images before relying on it.",
    "A heatmap shows where the network found evidence, on a coarse grid. It is not a segmentation.",
    "It is not a medical device, and no authority has cleared it.",
)
ETHICS = (
    "A person decides. An answer that sounds sure can be wrong, and people follow it the more the "
    "better it usually is.",
    "The golden set is synthetic: no image of a patient is in the bundle. The weights, and what "
    "tells images apart that are unlike the training, were computed from the training's images.",
)


def model_card(
    manifest: Manifest, recipe: Recipe, dataset: dict[str, Any], found: Metrics, split: str
) -> str:
    """Markdown, from what the manifest records and the metrics of the default artifact.

    What nobody stated is said at its place, and listed at the end; see ``card_completeness``.
    """
    facts = Facts(manifest, recipe, dataset, found, split)
    every = points(facts)
    lines = [f"# {manifest.name} {manifest.version}", ""]
    lines += [f"**Intended use.** {manifest.intended_use}", ""]
    for heading, section, more in _sections(facts):
        stated = [point.line for point in every if point.section == section]
        lines += [f"## {heading}", "", *stated, *more, ""]
    return "\n".join([*lines, "## Not stated", "", *_not_stated(every), ""])


def _sections(facts: Facts) -> tuple[tuple[str, Section, list[str]], ...]:
    """Heading, the points under it, and what else is told there: more of the list, or behind it."""
    manifest, found = facts.manifest, facts.found
    measured = f"How good it is ({facts.split}, {manifest.default_artifact})"
    return (
        ("What it is", "Model details", _files(manifest)),
        ("Whom it is for", "Use", []),
        ("What it depends on", "Factors", []),
        ("What goes in and comes out", "Input and output", _interface(manifest)),
        ("Data", "Data", _splits(facts.dataset)),
        (measured, "Measured", [*_metrics(found), *_flattered(facts.split), *_decisions(manifest)]),
        ("When it does not answer", "When it does not answer", _refusals(manifest)),
        ("Whom it may harm", "Ethics", [f"- {each}" for each in ETHICS]),
        ("Limits", "Limits", [f"- {limit}" for limit in (*facts.recipe.card.limits, *LIMITS)]),
        ("Monitoring and updates", "Monitoring and updates", _references(manifest)),
    )


def _files(manifest: Manifest) -> list[str]:
    return [
        f"- `{name}`: {artifact.format}, {artifact.precision}, {artifact.bytes:,} bytes"
        for name, artifact in manifest.artifacts.items()
    ]


def _interface(manifest: Manifest) -> list[str]:
    size = manifest.preprocessing
    outputs = [
        f"- Output `{name}`: {output.unit}, {' x '.join(str(n or 'N') for n in output.shape)}"
        for name, output in manifest.outputs.items()
    ]
    return [
        f"- Task: {manifest.task}; labels: {', '.join(manifest.labels)}",
        f"- Input: {size.width} x {size.height} pixels, {size.color}, {size.geometry}, one "
        f"{manifest.sample} at a time",
        *outputs,
    ]


def _splits(dataset: dict[str, Any]) -> list[str]:
    return [_split(name, of) for name, of in dataset["splits"].items()]


def _split(name: str, found: dict[str, Any]) -> str:
    classes = ", ".join(f"{label} {count}" for label, count in found["classes"].items())
    patients = f"; {found['groups']} patients" if found["groups"] else ""
    return f"- {name}: {found['images']} images ({classes}{patients})"


def _metrics(found: Metrics) -> list[str]:
    rows = [f"| {name} | {value} | {interval} |" for name, value, interval in table(found)]
    whom = of_whom(found.n, found.groups, found.prevalence)
    said = [whom, "Intervals are 95 % bootstrap intervals.", *on_intervals(found)]
    return ["", " ".join(said), "", "| | value | interval |", "| --- | --- | --- |", *rows]


def _flattered(split: str) -> list[str]:
    if split == "test":
        return []
    return [
        "",
        "Validation chose the epoch, the temperature and the operating point, so these figures "
        "flatter the model. `medimg-edge evaluate BUNDLE DATA` measures it on a test set.",
    ]


def _decisions(manifest: Manifest) -> list[str]:
    said = [
        f"- `{artifact}`, {label}: positive from p = {point.threshold:.4f} ({point.rule})"
        for artifact, labels in manifest.decision.items()
        for label, point in labels.items()
    ]
    said = said or ["- The label with the largest probability is answered."]
    return ["", "### Operating points", "", *said]


def _refusals(manifest: Manifest) -> list[str]:
    """What is turned away, by how much, and how well that was measured."""
    stated = {
        "wrong-modality": manifest.modality,
        "wrong-body-part": manifest.body_part,
        "wrong-view": manifest.view,
    }
    by_header = ", ".join(code for code, values in stated.items() if values)
    return [
        "- Whatever the model: files that are damaged or no images, `blank`, `too-small`",
        f"- By what a DICOM header says: {by_header or 'nothing'}; a PNG or JPEG file says nothing",
        *_turned_away(manifest),
        *_novelty_figures(manifest),
        *_risks(manifest),
    ]


def _turned_away(manifest: Manifest) -> list[str]:
    screening = manifest.screening
    if screening is msgspec.UNSET:
        return []
    rows = [
        (
            "low-contrast",
            f"the tensor's standard deviation is below {screening.contrast:g} of 255, or the file "
            f"has fewer than {MIN_LEVELS} grey levels",
        ),
        (
            "cropped",
            f"less than {screening.content:.0%} of the frame is within a flat border, or one side "
            f"is more than {MAX_ASPECT:g} times the other",
        ),
    ]
    if screening.polarity is not None:
        cells = f"{screening.polarity.side} x {screening.polarity.side} cells"
        rows.append(("inverted", f"a score of {cells} is below {screening.polarity.limit:.3g}"))
    if screening.novelty is not None:
        limits = ", ".join(f"`{name}` {of:.4g}" for name, of in screening.novelty.limit.items())
        rows.append(
            ("not-like-training", f"the distance by {screening.novelty.method} is above {limits}")
        )
    return [
        "",
        "| code | turned away, with no answer, where |",
        "| --- | --- |",
        *(f"| {code} | {where} |" for code, where in rows),
    ]


def _novelty_figures(manifest: Manifest) -> list[str]:
    novelty: Novelty | None = None
    if manifest.screening is not msgspec.UNSET:
        novelty = manifest.screening.novelty
    if novelty is None or not novelty.figures:
        return []
    rows = [
        f"| {name} | {'undefined' if value is None else f'{value:.4g}'} |"
        for name, value in novelty.figures.items()
    ]
    return [
        "",
        "How well images unlike the training are told apart, as the export measured it on images "
        "that are no radiographs of this kind; `unseen`: kinds that chose nothing.",
        "",
        "| | |",
        "| --- | --- |",
        *rows,
    ]


def _risks(manifest: Manifest) -> list[str]:
    if manifest.risks is msgspec.UNSET:
        return []
    found = manifest.risks.get(manifest.default_artifact, {})
    rows = [
        f"| {risk} | {label} | {present:.4f} | {absent:.4f} |"
        for label, bounds in found.items()
        for risk, (present, absent) in bounds.items()
    ]
    return [
        "",
        f"`--risk R` (`{manifest.default_artifact}`): a label is possible from the first "
        "probability on, its absence up to the second, and an answer is given where one is "
        "possible. Of images like those of validation, the true one is among the possible ones in "
        "at least 1 - R of each class; of others nothing is promised.",
        "",
        "| R | label | possible from | absence possible up to |",
        "| --- | --- | --- | --- |",
        *rows,
    ]


def _references(manifest: Manifest) -> list[str]:
    if manifest.reference is msgspec.UNSET:
        return []
    return [
        "",
        "| artifact | reference images | turned away among them | compared |",
        "| --- | --- | --- | --- |",
        *(
            f"| `{name}` | {of.images} | {_codes(of)} | {', '.join(of.numbers) or 'nothing'} |"
            for name, of in manifest.reference.items()
        ),
    ]


def _codes(of: Reference) -> str:
    total = sum(of.codes.values())
    share = total / max(1, of.images)
    by_code = ", ".join(f"{code} {count}" for code, count in sorted(of.codes.items()))
    return f"{total} ({share:.1%}: {by_code})" if total else "none"


def _not_stated(every: list[Point]) -> list[str]:
    said = [
        f"- {point.name}: {point.how} (asked for by {_askers(point)})"
        for point in every
        if not point.said
    ]
    return said or ["Nothing that a card is asked for is missing."]


def _askers(point: Point) -> str:
    names = {"M": "Model Cards 2019", "H": "Hugging Face", "F": "FDA 2024"}
    return ", ".join(names[letter] for letter in point.asked)
