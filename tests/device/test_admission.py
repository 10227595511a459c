"""Whether an image is of the kind that a model reads."""

import msgspec
import numpy as np
import pytest

from medimg_edge.admission import admit
from medimg_edge.bundle import Bundle
from medimg_edge.errors import OwnResult, WrongBodyPart, WrongModality, WrongView
from medimg_edge.image import Header, Image, Range
from medimg_edge.manifest import Manifest
from medimg_edge.terms import MODALITIES, regions


@pytest.fixture
def chest(mean_bundle) -> Manifest:
    return Bundle.open(mean_bundle([1.0, 1.0], [0.0, 0.0], **KIND)).manifest


KIND = {"modality": ("CR", "DX"), "body_part": ("CHEST",), "view": ("PA", "AP")}
FITTING = {"modality": "DX", "body_part": "CHEST", "view": "PA"}


def image(**words) -> Image:
    return Image(np.zeros((1, 20, 20, 1)), Range(0, 1), "dicom", header=Header(**words))


def test_a_fitting_image_is_answered_without_a_word(chest):
    assert admit(image(**FITTING), chest) == ()


def test_what_is_no_dicom_says_nothing(chest):
    assert admit(Image(np.zeros((1, 20, 20, 1)), Range(0, 1), "png"), chest) == ()


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"modality": "CT"}, WrongModality, "wrong-modality"),
        ({"modality": "MG"}, WrongModality, "wrong-modality"),
        ({"body_part": "HAND"}, WrongBodyPart, "wrong-body-part"),
        ({"body_part": "LOWER LIMB"}, WrongBodyPart, "wrong-body-part"),
        ({"view": "LL"}, WrongView, "wrong-view"),
    ],
)
def test_another_kind_is_refused_and_forced(chest, change, error, code):
    wrong = image(**FITTING | change)
    with pytest.raises(error, match="--force") as caught:
        admit(wrong, chest)
    assert caught.value.code == code
    (warning,) = admit(wrong, chest, force=True)
    assert warning.startswith("Answered by force")
    assert next(iter(change.values())) in warning


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"modality": None}, "does not say the modality"),
        ({"modality": "OT"}, "modality is no term"),
        ({"body_part": None}, "does not say the body part"),
        ({"body_part": "MEYER^ANNA"}, "body part is no term"),
        ({"body_part": "RIB"}, "body part is RIB"),  # of the same region
        ({"body_part": "CHESTABDOMEN"}, "body part is CHESTABDOMEN"),
        ({"view": None}, "does not say the view"),
        ({"view": "oblique"}, "view is no term"),
    ],
)
def test_what_is_missing_or_unknown_is_said(chest, change, says):
    (warning,) = admit(image(**FITTING | change), chest)
    assert says in warning
    assert "MEYER" not in warning


def test_the_history_is_told(chest):
    told = admit(image(**FITTING, burned_in=True, lossy=True, relationship="LIN"), chest)
    assert [each.split()[2] for each in told] == ["says", "has", "are"]
    assert admit(image(**FITTING, burned_in=False, relationship="LOG"), chest) == ()


def test_a_picture_of_our_own_is_never_answered(chest):
    with pytest.raises(OwnResult):
        admit(image(**FITTING, ours=True), chest, force=True)


def test_a_model_that_states_nothing_reads_everything(chest):
    free = msgspec.structs.replace(chest, modality=(), body_part=(), view=())
    assert admit(image(modality="CT", body_part="HAND", view="LL"), free) == ()


def test_every_term_is_one_of_the_standard():
    assert {"CR", "DX", "CT", "MR", "US", "MG"} <= MODALITIES
    assert not {"OT", "SR", "SEG", ""} & MODALITIES
    assert regions("WHOLEBODY") == {"head", "chest", "abdomen", "spine", "arm", "leg"}
    assert regions("UPPER_LIMB") == {"arm"}
    assert regions("TOTAL B") == frozenset()
