"""What a card does not state is found, named, and said; and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from medimg_edge.bundle import Bundle
from medimg_edge.manifest import Histogram, Manifest, Novelty, Polarity, Reference, Screening
from medimg_export import recipe as recipes
from medimg_export.card_completeness import Facts, Point, notes, points, unstated
from medimg_export.metrics import Metrics, Subgroup, evaluate
from medimg_export.recipe import Card, Recipe, override

FROZEN = Path(__file__).parents[1] / "data" / "frozen-bundle"
DATASET = {
    "splits": {
        "train": {"images": 70, "groups": None, "classes": {"normal": 40, "opacity": 30}},
        "val": {"images": 30, "groups": None, "classes": {"normal": 15, "opacity": 15}},
    }
}
BY_A_PERSON = {
    "card.developers",
    "card.contact",
    "card.model_license",
    "card.users",
    "card.environment",
    "card.out_of_scope",
    "card.population",
    "card.acquisition",
    "card.reference_standard",
    "card.ethics",
    "card.updates",
}
SCREENING = Screening(
    contrast=5.0,
    content=0.3,
    polarity=Polarity(8, "screening/polarity.f32", -0.2),
    novelty=Novelty("mahalanobis", {}, {}, {"model.int8.onnx": 9.5}, {"auroc unseen": 0.99}),
)
REFERENCE = Reference(30, {"brightness": Histogram((0.0, 9.0), (30,))}, {}, {"inverted": 3})


class FullCard(Card, frozen=True):
    """Everything that a person can say."""

    intended_use: str = "A second look at frontal chest radiographs."
    modality: tuple[str, ...] = ("DX",)
    body_part: tuple[str, ...] = ("CHEST",)
    view: tuple[str, ...] = ("PA",)
    license: str = "CC BY 4.0"
    data_source: str = "A hospital"
    limits: tuple[str, ...] = ("Not for cats.",)
    developers: str = "A clinic's own people"
    contact: str = "physics@clinic.example"
    model_license: str = "Apache-2.0"
    users: str = "Radiographers who were shown it"
    environment: str = "Beside the viewer, before the report"
    out_of_scope: str = "Screening of the healthy"
    population: str = "Adults, 18 to 90 years, half of them women"
    acquisition: str = "Two rooms of one hospital"
    reference_standard: str = "Two readers, a third where they differed"
    ethics: str = "A miss delays a treatment"
    updates: str = "By a new version, told by letter"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return Bundle.open(FROZEN).manifest


@pytest.fixture(scope="module")
def found(manifest: Manifest) -> Metrics:
    y = np.arange(30) % 2
    p = np.clip(0.3 + 0.4 * y + np.random.default_rng(0).normal(0, 0.2, 30), 0, 1)
    return evaluate("binary", manifest.labels, y, p, bootstrap=50)


def complete(manifest: Manifest, found: Metrics) -> Facts:
    """All that anybody could state."""
    card = FullCard()
    stated = msgspec.structs.replace(
        manifest,
        intended_use=card.intended_use,
        modality=card.modality,
        body_part=card.body_part,
        view=card.view,
        screening=SCREENING,
        risks={"model.int8.onnx": {"opacity": {"0.05": (0.3, 0.6)}}},
        reference={"model.int8.onnx": REFERENCE},
    )
    recipe = msgspec.structs.replace(
        override(Recipe(), data={"group_pattern": "p([0-9]+)"}), card=card
    )
    subgroups = {"women": Subgroup(15, None, {"opacity": 0.5}, 0, found.values)}
    tested = msgspec.structs.replace(found, subgroups=subgroups)
    return Facts(stated, recipe, DATASET, tested, "test")


def test_a_card_that_states_everything_lacks_nothing(manifest, found):
    facts = complete(manifest, found)
    assert unstated(facts) == []
    assert notes(unstated(facts)) == []
    said = {point.name: point.said for point in points(facts)}
    assert said["Contact"] == "physics@clinic.example"
    assert said["Subgroups"] == "women (15)"


def test_of_a_bare_recipe_all_that_only_a_person_knows_is_missing(manifest, found):
    facts = Facts(manifest, Recipe(), DATASET, found, "validation")
    missing = {point.how for point in unstated(facts)}
    assert missing >= BY_A_PERSON
    assert {"card.data_source", "card.license", "card.limits", "data.group_pattern"} <= missing
    assert {point.section for point in unstated(facts)} >= {"When it does not answer", "Measured"}


@pytest.mark.parametrize("key", sorted(BY_A_PERSON | {"card.license", "card.limits"}))
def test_each_word_that_is_left_out_is_the_one_that_is_missed(manifest, found, key):
    facts = complete(manifest, found)
    name = key.removeprefix("card.")
    empty: Any = () if name == "limits" else ""
    card = msgspec.structs.replace(facts.recipe.card, **{name: empty})
    recipe = msgspec.structs.replace(facts.recipe, card=card)
    lacking = Facts(facts.manifest, recipe, facts.dataset, facts.found, facts.split)
    assert [point.how for point in unstated(lacking)] == [key]


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({"modality": ()}, {"Modality"}),
        ({"view": ()}, {"View"}),
        ({"golden": ()}, {"Check on a device"}),
        ({"risks": msgspec.UNSET}, {"Answers that it leaves to people"}),
        ({"reference": msgspec.UNSET}, {"Drift"}),
        (
            {"screening": Screening(contrast=5.0, content=0.3)},
            {"Images unlike its training that it turns away"},
        ),
        (
            {"screening": msgspec.UNSET},
            {
                "Images that it turns away by their pixels",
                "Images unlike its training that it turns away",
            },
        ),
        ({"intended_use": Card().intended_use}, {"Intended use"}),
    ],
)
def test_what_the_manifest_does_not_tell_is_missed(manifest, found, changed, missed):
    facts = complete(manifest, found)
    told = msgspec.structs.replace(facts.manifest, **changed)
    lacking = Facts(told, facts.recipe, facts.dataset, facts.found, facts.split)
    assert {point.name for point in unstated(lacking)} == missed


def test_validation_is_no_test_set_and_no_resample_no_interval(manifest, found):
    facts = complete(manifest, found)
    bare = evaluate("binary", manifest.labels, np.arange(30) % 2, np.full(30, 0.5), bootstrap=0)
    lacking = Facts(facts.manifest, facts.recipe, facts.dataset, bare, "validation")
    missed = {point.name for point in unstated(lacking)}
    assert missed == {"On test images", "Intervals", "Subgroups"}


def test_of_a_model_from_elsewhere_the_training_is_unknown(manifest, found):
    facts = complete(manifest, found)
    foreign = msgspec.structs.replace(
        facts.manifest, training={"backbone": "trained elsewhere: theirs.keras"}
    )
    lacking = Facts(foreign, facts.recipe, facts.dataset, facts.found, facts.split)
    assert {point.name for point in unstated(lacking)} == {"Weights before training", "Training"}


def test_the_note_names_each_point_and_where_to_state_it():
    missing = [
        Point("Use", "Intended users", "", "card.users", "F"),
        Point("Model details", "Contact", "", "card.contact", "MHF"),
    ]
    assert notes(missing) == [
        "the model card does not state 2 points: Intended users (card.users), Contact "
        "(card.contact)"
    ]


def test_the_shipped_recipe_states_its_use_its_data_and_its_failures(manifest, found):
    recipe = recipes.load("pneumonia-cxr")
    facts = Facts(
        msgspec.structs.replace(manifest, intended_use=recipe.card.intended_use),
        recipe,
        DATASET,
        found,
        "validation",
    )
    missing = {point.how for point in unstated(facts)}
    stated = {"card.intended_use", "card.data_source", "card.license", "card.limits"}
    assert not missing & (stated | {"data.group_pattern"})


def test_every_point_says_who_asks_for_it_and_where_to_state_it(manifest, found):
    every = points(Facts(manifest, Recipe(), DATASET, found, "validation"))
    assert len({point.name for point in every}) == len(every) >= 30
    assert all(set(point.asked) <= set("MHF") and point.asked for point in every)
    assert all(point.how for point in every)
    for letter in "MHF":
        assert sum(letter in point.asked for point in every) >= 10
