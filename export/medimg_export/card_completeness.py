"""What a model card has to say, and whether it does.

Three lists, as far as they are about a classifier that travels as one folder:

    M   Mitchell et al. 2019, "Model Cards for Model Reporting"
    H   the fields of Hugging Face's model cards
    F   FDA, Health Canada and MHRA 2024, "Transparency for Machine Learning-Enabled Medical
        Devices: Guiding Principles"

What the manifest, the data and the metrics tell is taken from there; the rest is the recipe's. A
point that nobody stated is told as such: an empty line in a card reads as if there was nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from medimg_edge.manifest import Manifest
from medimg_export.metrics import Metrics
from medimg_export.recipe import Card, Recipe

Section = Literal[
    "Model details",
    "Use",
    "Factors",
    "Input and output",
    "Data",
    "Measured",
    "When it does not answer",
    "Ethics",
    "Limits",
    "Monitoring and updates",
]

NOT_STATED = "not stated"


@dataclass(frozen=True)
class Point:
    """One thing that a card has to say.

    said: in words; empty where nobody stated it. how: where it would be stated, ``card`` being that
    of the recipe. asked: the letters of the lists that ask for it.
    """

    section: Section
    name: str
    said: str
    how: str
    asked: str

    @property
    def line(self) -> str:
        """As the card has it."""
        return f"- {self.name}: {self.said or NOT_STATED}"


@dataclass(frozen=True)
class Facts:
    """What a card is made of; ``split`` is that of ``found``, such as ``validation``."""

    manifest: Manifest
    recipe: Recipe
    dataset: dict[str, Any]
    found: Metrics
    split: str


def points(facts: Facts) -> list[Point]:
    """Every point, stated or not, in the order of the card."""
    parts = (_details, _use, _factors, _data, _measured, _unanswered, _afterwards)
    return [point for part in parts for point in part(facts)]


def unstated(facts: Facts) -> list[Point]:
    """Those that nobody stated."""
    return [point for point in points(facts) if not point.said]


def notes(missing: Iterable[Point]) -> list[str]:
    """For whoever exports: one line on what the card does not state, and where to state it."""
    said = [f"{point.name} ({point.how})" for point in missing]
    return [f"the model card does not state {len(said)} points: {', '.join(said)}"] if said else []


def _details(facts: Facts) -> Iterator[Point]:
    manifest, recipe = facts.manifest, facts.recipe
    yield _of_card(recipe, "Made by", "developers", "MH", "Model details")
    yield _of_card(recipe, "Contact", "contact", "MHF", "Model details")
    yield Point("Model details", "Version", manifest.version, "card.version", "MHF")
    yield Point("Model details", "Network", _network(facts), "train it here", "MH")
    yield Point("Model details", "Weights before training", _weights(facts), "train it here", "H")
    yield Point("Model details", "Training", _training(facts), "train it here", "MH")
    yield _of_card(recipe, "License of the model", "model_license", "MH", "Model details")


def _use(facts: Facts) -> Iterator[Point]:
    general = facts.manifest.intended_use == Card().intended_use
    said = "" if general else "as stated above"
    yield Point("Use", "Intended use", said, "card.intended_use", "MHF")
    yield _of_card(facts.recipe, "Intended users", "users", "MF", "Use")
    yield _of_card(facts.recipe, "Place in the work", "environment", "F", "Use")
    yield _of_card(facts.recipe, "Not to be used for", "out_of_scope", "MHF", "Use")


def _factors(facts: Facts) -> Iterator[Point]:
    manifest = facts.manifest
    yield _of_card(facts.recipe, "Patients", "population", "MF", "Factors")
    yield _of_card(facts.recipe, "Sites and machines", "acquisition", "MF", "Factors")
    for name, values, key in (
        ("Modality", manifest.modality, "modality"),
        ("Body part", manifest.body_part, "body_part"),
        ("View", manifest.view, "view"),
    ):
        yield Point("Factors", name, ", ".join(values), f"card.{key}", "MF")


def _data(facts: Facts) -> Iterator[Point]:
    recipe, dataset = facts.recipe, facts.dataset
    yield Point("Data", "Source", recipe.card.data_source, "card.data_source", "MHF")
    yield Point("Data", "License of the data", recipe.card.license, "card.license", "MH")
    yield _of_card(recipe, "How the true label was found", "reference_standard", "MF", "Data")
    yield Point(
        "Data",
        "Patients kept on one side of the split",
        _grouped(recipe, dataset),
        "data.group_pattern",
        "F",
    )
    counts = dataset["splits"].get("train", {}).get("classes", {})
    shares = ", ".join(f"{label} {count}" for label, count in counts.items())
    yield Point("Data", "Training images by class", shares, "train it here", "MHF")


def _measured(facts: Facts) -> Iterator[Point]:
    found, tested = facts.found, facts.split == "test"
    said = f"{found.n} of them, which chose nothing" if tested else ""
    yield Point("Measured", "On test images", said, "medimg-edge evaluate, behind it", "MHF")
    intervals = f"{found.resampling.resamples} resamples by {found.resampling.unit}"
    said = intervals if found.resampling.resamples else ""
    yield Point("Measured", "Intervals", said, "--bootstrap", "M")
    said = ", ".join(f"{name} ({of.n})" for name, of in (found.subgroups or {}).items())
    how = "medimg-edge evaluate --subgroup-pattern"
    yield Point("Measured", "Subgroups", said, how, "MF")


def _unanswered(facts: Facts) -> Iterator[Point]:
    manifest = facts.manifest
    section: Section = "When it does not answer"
    has_screening = manifest.screening is not msgspec.UNSET
    novelty = None if manifest.screening is msgspec.UNSET else manifest.screening.novelty
    said = "by contrast and content; see the table" if has_screening else ""
    yield Point(section, "Images that it turns away by their pixels", said, "export it anew", "F")
    said = f"by {novelty.method}; see the table" if novelty else ""
    how = "more training images, and a network that returns its features"
    yield Point(section, "Images unlike its training that it turns away", said, how, "F")
    said = "`--risk`; see the table" if manifest.risks is not msgspec.UNSET else ""
    yield Point(section, "Answers that it leaves to people", said, "export it anew", "F")


def _afterwards(facts: Facts) -> Iterator[Point]:
    manifest, recipe = facts.manifest, facts.recipe
    yield _of_card(recipe, "Whom it may harm, and how", "ethics", "MHF", "Ethics")
    known = len(recipe.card.limits)
    said = f"the first {known} below" if known else ""
    yield Point("Limits", "Known failures of this model", said, "card.limits", "MHF")
    reference = manifest.reference
    said = "" if reference is msgspec.UNSET else "`medimg-edge drift`, against validation"
    yield Point("Monitoring and updates", "Drift", said, "export it anew", "F")
    said = f"`medimg-edge verify`, {len(manifest.golden)} golden cases" if manifest.golden else ""
    yield Point("Monitoring and updates", "Check on a device", said, "export it anew", "F")
    yield _of_card(recipe, "Updates", "updates", "F", "Monitoring and updates")


def _of_card(recipe: Recipe, name: str, key: str, asked: str, section: Section) -> Point:
    """What only a person can say; a recipe of a release without the key does not say it."""
    return Point(section, name, getattr(recipe.card, key), f"card.{key}", asked)


def _network(facts: Facts) -> str:
    return facts.manifest.training.get("backbone", "")


def _weights(facts: Facts) -> str:
    """Where the network's weights came from; unknown for a model that was trained elsewhere."""
    if not _is_trained_here(facts):
        return ""
    if started := facts.manifest.training.get("weights"):
        return f"an earlier run's, sha256 {started['sha256']}"
    pretrained = facts.recipe.training.pretrained and _network(facts) == "efficientnet-lite0"
    return "ImageNet (efficientnet-lite0, Apache-2.0)" if pretrained else "none, drawn by the seed"


def _training(facts: Facts) -> str:
    if not _is_trained_here(facts):
        return ""
    seed = facts.manifest.training.get("seed", facts.recipe.training.seed)
    beside = facts.manifest.training.get("unlabelled")
    more = f", beside {beside['used']} images without labels" if beside else ""
    return f"as `training` in `manifest.json` says, seed {seed}{more}"


def _is_trained_here(facts: Facts) -> bool:
    return "best_epoch" in facts.manifest.training


def _grouped(recipe: Recipe, dataset: dict[str, Any]) -> str:
    if recipe.data.group_pattern:
        return f"yes, by `{recipe.data.group_pattern}`"
    named = any(split["groups"] for split in dataset["splits"].values())
    return "yes" if named else ""
