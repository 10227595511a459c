"""The heatmap points at the opacity; `benchmarks/heatmap_localisation.py` measures 200."""

from pathlib import Path

from benchmarks.heatmap_localisation import measure
from medimg_edge import Classifier

FROZEN = Path(__file__).parents[1] / "data" / "frozen-bundle"


def test_the_strongest_cell_lies_on_an_opacity():
    found = measure(Classifier(FROZEN), count=40, first_seed=200_000)
    assert min(found.grid) >= 7
    assert found.found >= 30
    assert found.passes, found
