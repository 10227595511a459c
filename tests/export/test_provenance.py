"""What a manifest says of its training is of any shape."""

import math

import msgspec
import pytest

from medimg_edge.bundle import Bundle
from medimg_export.provenance import recipe_of, temperature_of
from medimg_export.recipe import Recipe


@pytest.mark.parametrize(
    ("stored", "found"),
    [(1.5, 1.5), (2, 2.0), ("hot", None), (-2.0, None), (0, None), (math.inf, None), (True, None)],
)
def test_a_temperature_is_a_number_above_0(bundle, stored, found):
    manifest = Bundle.open(bundle).manifest
    changed = msgspec.structs.replace(manifest, training={"temperature": stored})
    assert temperature_of(changed) == found
    assert temperature_of(msgspec.structs.replace(manifest, training={})) is None


def test_a_recipe_that_does_not_fit_is_none(bundle):
    manifest = Bundle.open(bundle).manifest
    assert isinstance(recipe_of(manifest), Recipe)
    for training in ({}, {"recipe": 3}, {"recipe": {"data": {"group_pattern": 7}}}):
        assert recipe_of(msgspec.structs.replace(manifest, training=training)) is None
