"""MODEL_CARD.md: what a person should know before trusting a bundle."""

from __future__ import annotations

from typing import Any

from medimg_edge.manifest import Manifest
from medimg_export.metrics import Metrics, on_intervals, table
from medimg_export.recipe import Recipe

LIMITS = (
    "It answers one question about one kind of image. Of another body part, age group, view or "
    "modality it still gives a number, and that number means nothing.",
    "The figures hold for images like those it was validated on. Another hospital, machine or "
    "patient group can lower them: measure on your own labelled images before relying on it.",
    "A heatmap shows where the network found evidence, on a coarse grid. It is not a segmentation.",
    "It is not a medical device, and no authority has cleared it.",
)


def model_card(
    manifest: Manifest, recipe: Recipe, dataset: dict[str, Any], found: Metrics, split: str
) -> str:
    """Markdown, from what the manifest records and the metrics of the default artifact."""
    card = recipe.card
    size = manifest.preprocessing
    rows = [f"| {name} | {value} | {interval} |" for name, value, interval in table(found)]
    points = [
        f"- `{artifact}`, {label}: positive from p = {point.threshold:.4f} ({point.rule})"
        for artifact, labels in manifest.decision.items()
        for label, point in labels.items()
    ]
    return "\n".join(
        [
            f"# {manifest.name} {manifest.version}",
            "",
            f"**Intended use.** {manifest.intended_use}",
            "",
            "## What it does",
            "",
            f"- Task: {manifest.task}; labels: {', '.join(manifest.labels)}",
            f"- Input: {size.width} x {size.height} pixels, {size.color}, {size.geometry}",
            f"- Network: {manifest.training.get('backbone', 'trained elsewhere')}",
            f"- Modality: {', '.join(manifest.modality) or 'not stated'}; "
            f"body part: {', '.join(manifest.body_part) or 'not stated'}; "
            f"view: {', '.join(manifest.view) or 'not stated'}",
            "",
            "## Data",
            "",
            f"- Source: {card.data_source or 'not stated'}",
            f"- License of the data: {card.license or 'not stated'}",
            *(_split(name, of) for name, of in dataset["splits"].items()),
            f"- Patients kept on one side of the split: {_grouped(recipe, dataset)}",
            "",
            f"## How good it is ({split}, {manifest.default_artifact})",
            "",
            " ".join(
                [
                    f"{found.n} images. Intervals are 95 % bootstrap intervals.",
                    *on_intervals(found),
                ]
            ),
            "",
            "| | value | interval |",
            "| --- | --- | --- |",
            *rows,
            "",
            "Validation chose the epoch, the temperature and the operating point, so these figures "
            "flatter the model. `medimg-edge evaluate BUNDLE DATA` measures it on a test set.",
            "",
            "## Operating points",
            "",
            *(points or ["- The label with the largest probability is answered."]),
            "",
            "## Limits",
            "",
            *(f"- {limit}" for limit in (*card.limits, *LIMITS)),
            "",
        ]
    )


def _grouped(recipe: Recipe, dataset: dict[str, Any]) -> str:
    if recipe.data.group_pattern:
        return f"yes, by `{recipe.data.group_pattern}`"
    named = any(split["groups"] for split in dataset["splits"].values())
    return "yes" if named else "unknown: the data set names no patients"


def _split(name: str, found: dict[str, Any]) -> str:
    classes = ", ".join(f"{label} {count}" for label, count in found["classes"].items())
    patients = f"; {found['groups']} patients" if found["groups"] else ""
    return f"- {name}: {found['images']} images ({classes}{patients})"
