"""Whether an image is of the kind that a model reads."""

from io import BytesIO

import msgspec
import numpy as np
import pytest
from highdicom._standard_utils import get_anatomic_region_map
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from medimg_edge.admission import admit
from medimg_edge.bundle import Bundle
from medimg_edge.dicom.functional_groups import of_frame
from medimg_edge.dicom.header import describe
from medimg_edge.dicom.read import read_dicom
from medimg_edge.errors import OwnResult, Unsupported, WrongBodyPart, WrongModality, WrongView
from medimg_edge.image import Header, Image, Range
from medimg_edge.manifest import Manifest
from medimg_edge.terms import MODALITIES, OBJECTS, VIEWS, regions


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
        ({"modality": "RG"}, WrongModality, "wrong-modality"),  # of film
        ({"modality": "SEG"}, WrongModality, "wrong-modality"),
        ({"body_part": "LOWERLIMB"}, WrongBodyPart, "wrong-body-part"),
        ({"body_part": "TIBIAFIBULA"}, WrongBodyPart, "wrong-body-part"),
        ({"body_part": "TSPINE"}, WrongBodyPart, "wrong-body-part"),  # beside the chest, not it
        ({"body_part": "SHOULDER"}, WrongBodyPart, "wrong-body-part"),
        ({"body_part": "BREAST"}, WrongBodyPart, "wrong-body-part"),
        ({"body_part": "WHOLEBODY"}, WrongBodyPart, "wrong-body-part"),
        ({"view": "LL"}, WrongView, "wrong-view"),
        ({"view": "MLO"}, WrongView, "wrong-view"),
        ({"view": "OBL"}, WrongView, "wrong-view"),
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
    ("change", "error"),
    [
        ({"body_part": "hand"}, WrongBodyPart),
        ({"body_part": "Lower Limb"}, WrongBodyPart),
        ({"body_part": "C-Spine"}, WrongBodyPart),
        ({"view": "lateral"}, WrongView),
        ({"view": "Lat"}, WrongView),
        ({"modality": "ct"}, WrongModality),
    ],
)
def test_letters_and_fillers_do_not_matter(chest, change, error):
    with pytest.raises(error):
        admit(image(**FITTING | change), chest)
    assert admit(image(modality="dx", body_part="Chest ", view="pa"), chest) == ()
    told = msgspec.structs.replace(chest, body_part=("chest",), view=("pa",))
    assert admit(image(**FITTING), told) == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"modality": None}, "does not say the modality"),
        ({"modality": "OT"}, "modality is OT, which means other"),
        ({"body_part": None}, "does not say the body part"),
        ({"body_part": "MEYER^ANNA"}, "body part is said in a word that is not known"),
        ({"body_part": "CHEST_TO_HIP"}, "body part is said in a word that is not known"),
        ({"body_part": "OT"}, "body part is said in a word that is not known"),
        ({"body_part": "THORAX"}, "body part is THORAX"),
        ({"body_part": "CLAVICLE"}, "body part is CLAVICLE"),
        ({"body_part": "RIB"}, "body part is RIB"),  # of the same region
        ({"body_part": "CHESTABDOMEN"}, "body part is CHESTABDOMEN"),
        ({"view": None}, "does not say the view"),
        ({"view": "erect"}, "view is said in a word that is not known"),
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


def test_every_term_has_its_place():
    assert {"CR", "DX", "CT", "MR", "US", "MG"} <= MODALITIES
    assert not {"OT", "SR", "SEG", "RTDOSE", ""} & MODALITIES
    assert not MODALITIES & OBJECTS
    assert regions("UPPER_LIMB") == {"arm"}
    assert regions("TOTAL B") == frozenset()
    assert [each for each in get_anatomic_region_map() if not regions(each)] == []  # annex L


# --- what a file says ---


def said(**words: object) -> Header:
    """The header of a data set with these attributes."""
    dataset = Dataset()
    for keyword, value in words.items():
        setattr(dataset, keyword, value)
    return describe(dataset, None, 1, 1)


def code(value: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "MEYER^ANNA"
    return item


@pytest.mark.parametrize(
    ("value", "scheme", "word"),
    [
        ("72696002", "SCT", "KNEE"),
        ("T-D9200", "SRT", "KNEE"),
        ("T-D3000", "SNM3", "CHEST"),
        ("51185008", "SCT", "CHEST"),
        ("43799004", "SCT", "CHEST"),
    ],
)
def test_anatomy_by_code(value, scheme, word):
    assert said(AnatomicRegionSequence=[code(value, scheme)]).body_part == word


@pytest.mark.parametrize(
    ("value", "scheme", "word"),
    [
        ("272479007", "SCT", "PA"),
        ("R-10214", "SRT", "PA"),
        ("399348003", "SCT", "AP"),
        ("R-10206", "SRT", "AP"),
        ("399198007", "SCT", "RL"),
        ("R-102CD", "SRT", "LATERAL"),
        ("399162004", "SCT", "CC"),
    ],
)
def test_view_by_code(value, scheme, word):
    assert said(ViewCodeSequence=[code(value, scheme)]).view == word
    assert word in VIEWS


def test_the_codes_are_those_of_annex_l():
    """Where both this list and highdicom's have a word, they are of one region."""
    for word, concept in get_anatomic_region_map().items():
        told = said(AnatomicRegionSequence=[code(concept[0].value)]).body_part
        if told != "UNLISTED CODE":
            assert regions(told or "") == regions(word), word


def test_every_view_of_the_standard_is_known():
    """CID 4010 and 4014, but for what says only that it is from before or from behind."""
    for group in (codes.cid4010, codes.cid4014):
        for name in group.dir():
            concept = getattr(group, name)
            if isinstance(concept, Code) and concept.meaning != "frontal":
                assert said(ViewCodeSequence=[code(concept.value)]).view in VIEWS, concept


def test_a_word_goes_before_a_code_and_a_code_before_an_unknown_word():
    knee, chest = [code("72696002")], [code("51185008")]
    assert said(BodyPartExamined="chest", AnatomicRegionSequence=knee).body_part == "CHEST"
    assert said(BodyPartExamined="", AnatomicRegionSequence=knee).body_part == "KNEE"
    assert said(BodyPartExamined="THX_2", AnatomicRegionSequence=chest).body_part == "CHEST"
    assert said(AnatomicRegionSequence=[]).body_part is None
    assert said(ViewPosition="").view is None


@pytest.mark.parametrize("unlisted", [code("1"), code("PA", "99SITE"), Dataset()])
def test_a_code_that_is_not_listed_is_not_nothing(chest, unlisted):
    header = said(Modality="DX", BodyPartExamined="CHEST", ViewCodeSequence=[unlisted])
    (warning,) = admit(Image(np.zeros((1, 20, 20, 1)), Range(0, 1), "dicom", header=header), chest)
    assert "view is said in a word that is not known" in warning


def test_the_anatomy_of_a_frame():
    groups = []
    for value in ("51185008", "72696002"):
        anatomy, group = Dataset(), Dataset()
        anatomy.AnatomicRegionSequence = [code(value)]
        group.FrameAnatomySequence = [anatomy]
        groups.append(group)
    dataset = Dataset()
    dataset.PerFrameFunctionalGroupsSequence = groups
    told = [describe(of_frame(dataset, at, 2), None, at + 1, 2).body_part for at in (0, 1)]
    assert told == ["CHEST", "KNEE"]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"Modality": "SEG"}, "modality SEG"),
        ({"Modality": "pr"}, "modality PR"),
        ({"Modality": "RTDOSE"}, "modality RTDOSE"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "Segmentation Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.7"}, "Label Map"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.30"}, "Parametric Map Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2"}, "RT Dose Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "Presentation State"),
    ],
)
def test_pixels_that_are_no_image(change, names):
    dataset = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    for keyword, value in change.items():
        setattr(dataset, keyword, value)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    with pytest.raises(Unsupported, match="is no image") as caught:
        read_dicom(buffer.getvalue())
    if "Label" not in names:  # which pydicom may not know by name
        assert names in caught.value.message
