"""Pictures that are no images of the model's kind."""

from __future__ import annotations

import numpy as np
import pytest

from medimg_edge.manifest import Preprocessing, Windows, WindowSetting
from medimg_export.outliers import EACH, outliers

SPEC = Preprocessing(32, 32)


def test_they_are_always_the_same_and_differ_from_each_other():
    one, other = outliers(SPEC, ("CR",)), outliers(SPEC, ("CR",))
    assert one.pixels.keys() == other.pixels.keys()
    for kind, pixels in one.pixels.items():
        assert pixels.shape == (EACH, 32, 32, 1)
        assert pixels.dtype == np.uint8
        assert (pixels == other.pixels[kind]).all()
        assert len({each.tobytes() for each in pixels}) > EACH // 2, kind


def test_half_of_the_kinds_choose():
    found = outliers(SPEC, ("CR",))
    assert found.chosen_by < set(found.pixels)
    assert abs(2 * len(found.chosen_by) - len(found.pixels)) <= 1


@pytest.mark.parametrize(
    ("modality", "without"),
    [(("CT",), "ct"), (("MR",), "mri"), (("DX", "CR"), "bone")],
)
def test_what_the_model_is_for_is_no_outlier(modality, without):
    kinds = set(outliers(SPEC, modality).pixels)
    assert f"phantoms of {without}" not in kinds
    assert len([each for each in kinds if each.startswith("phantoms")]) == 2
    assert not [each for each in outliers(SPEC, ()).pixels if each.startswith("phantoms")]


def test_a_model_of_hounsfield_units_sees_values_in_them():
    spec = Preprocessing(32, 32, intensity=Windows((WindowSetting(-600, 1500),)))
    found = outliers(spec, ("CT",))
    assert found.pixels
    assert all(each.std() > 0 for each in found.pixels.values())
