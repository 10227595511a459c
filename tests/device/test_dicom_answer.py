"""The results of an answer as DICOM: what they share with the image, what they say, who reads it.

Sources are pydicom's own files and objects written here; the peers are dcmtk and dicom3tools.
"""

import os
import re
import shutil
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator
from datetime import datetime
from io import BytesIO
from pathlib import Path
from unittest.mock import Mock

import msgspec
import numpy as np
import pytest
from highdicom.sr import CodedConcept, ComprehensiveSR, MeasurementReport
from pydicom import Dataset, config, dcmread
from pydicom.data import get_charset_files, get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medimg_edge import Classifier
from medimg_edge.classifier import Prediction
from medimg_edge.dicom import implementation
from medimg_edge.dicom.answer import KINDS, received, results
from medimg_edge.dicom.answer.capture import BAND, captioned
from medimg_edge.dicom.answer.source import PATIENT, STUDY, TYPE_2
from medimg_edge.errors import DicomInvalid, DicomUnreferable, MachineFault
from medimg_edge.heatmap import SIDE, overlay
from medimg_edge.manifest import Manifest, OperatingPoint, decode
from medimg_edge.record import Answer, Finding, Model, failure

MADE = datetime(2024, 2, 29, 13, 5, 9, 250000)
POINT = OperatingPoint(0.5, "youden", sensitivity=0.9, specificity=0.8, refer=(0.4, 0.6))
TYPE_1 = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
SHIPPED = ["CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm"]
CHARSETS = [
    *("chrFren.dcm", "chrGreek.dcm", "chrH31.dcm", "chrH32.dcm", "chrHbrw.dcm", "chrI2.dcm"),
    *("chrJapMulti.dcm", "chrKoreanMulti.dcm", "chrRuss.dcm", "chrX1.dcm", "chrX2.dcm"),
]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def shipped(name: str) -> bytes:
    """One of the files that pydicom's wheel brings; nothing is downloaded."""
    charset = name.startswith("chr")
    found = get_charset_files(name)[:1] if charset else [get_testdata_file(name, download=False)]
    if not found or found[0] is None:
        pytest.skip(f"this pydicom does not bring {name}")
    return Path(str(found[0])).read_bytes()


def written(syntax: UID = ExplicitVRLittleEndian, **elements: object) -> bytes:
    """An image's file without its pixels; ``elements`` adds, replaces, or with None removes."""
    dataset = Dataset()
    values = {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
        "SOPInstanceUID": "1.2.3.4",
        "StudyDate": "20240102",
        "StudyTime": "101112",
        "AccessionNumber": "A17",
        "ReferringPhysicianName": "Müller^Ruth",
        "PatientName": "Doe^Jane",
        "PatientID": "17",
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.1",
        "StudyID": "S1",
        **elements,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1")
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def predicted(
    *findings: tuple[str, float, str], model: str = "a" * 64, **changes: object
) -> Prediction:
    """An answer about a 64 x 64 image; its heatmap speaks for every finding somewhere else."""
    findings = findings or (("PNEUMONIA", 0.87, "positive"),)
    first = Finding(*findings[0])
    single = len(findings) == 1
    record = Answer(
        input="x.dcm",
        findings=tuple(Finding(*each) for each in findings),
        label=first.label if single else None,
        probability=first.probability if single else None,
        decision=first.decision if single else None,
        artifact="model.int8.onnx",
        runtime="onnxruntime 1.2.3",
        model=Model("chest-model", "1.2.3", model),
        elapsed_ms=1.0,
    )
    heatmap = np.full((8, 8, len(findings)), -2, np.float32)
    for column in range(len(findings)):
        heatmap[2, column % 8, column] = 6
    pixels = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (64, 1, 1))
    return Prediction(
        msgspec.structs.replace(record, **changes), pixels, heatmap=heatmap, embedding=None
    )


@pytest.fixture(scope="module")
def manifest(frozen: Path) -> Manifest:
    return decode((frozen / "manifest.json").read_bytes())


@pytest.fixture
def make(manifest):
    """Results of a source: as bytes by name."""

    def make(source: bytes | Dataset, prediction: Prediction | None = None, **options):
        prediction = prediction or predicted()
        points = {each.label: POINT for each in prediction.findings}
        options = {"identifier": "17", "made": MADE, "points": points, **options}
        points = options.pop("points")
        return results.make(source, prediction, manifest, points, **options)

    return make


def opened(files: dict[str, bytes]) -> list[Dataset]:
    return [dcmread(BytesIO(data)) for data in files.values()]


def raw(dataset: Dataset, keyword: str) -> object:
    """The bytes of an element as they lie in the file, but for padding."""
    element = dataset.get_item(keyword)
    if isinstance(element, RawDataElement):
        return (element.value or b"").rstrip(b" \0")
    assert element.is_empty or keyword == "SpecificCharacterSet"  # which are converted at once
    return element.value or b""


def items(dataset: Dataset) -> Iterator[Dataset]:
    """All of a report's content items, depth first."""
    for item in dataset.get("ContentSequence", []):
        yield item
        yield from items(item)


def said(dataset: Dataset) -> list[tuple[str, object]]:
    """Name and value of the content items that hold one."""

    def value(item: Dataset) -> object:
        if item.ValueType == "NUM":
            return item.MeasuredValueSequence[0].FloatingPointValue
        if item.ValueType == "CODE":
            return item.ConceptCodeSequence[0].CodeMeaning
        return item.get("TextValue")

    return [(item.ConceptNameCodeSequence[0].CodeMeaning, value(item)) for item in items(dataset)]


# -- What an answer becomes -------------------------------------------------------------------


def test_one_report_and_a_picture_of_each_finding(make):
    findings = (("edema", 0.2, "negative"), ("effusion", 0.9, "positive"), ("mass", 0.5, "refer"))
    files = make(written(), predicted(*findings))
    assert list(files) == ["sr.dcm", "sc.edema.dcm", "sc.effusion.dcm", "sc.mass.dcm"]
    report, *pictures = opened(files)
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.33"
    assert {each.SOPClassUID for each in pictures} == {"1.2.840.10008.5.1.4.1.1.7"}
    assert [each.InstanceNumber for each in pictures] == [1, 2, 3]


@pytest.mark.parametrize(
    ("kinds", "names"),
    [
        (("sr",), ["sr.dcm"]),
        ({"sc"}, ["sc.PNEUMONIA.dcm"]),
        (KINDS, ["sr.dcm", "sc.PNEUMONIA.dcm"]),
        ((), []),
    ],
)
def test_what_is_asked_for(make, kinds, names):
    assert list(make(written(), kinds=kinds)) == names


def test_a_model_without_a_heatmap_has_a_report_alone(make):
    prediction = predicted()
    bare = Prediction(prediction.record, prediction.pixels, heatmap=None, embedding=None)
    assert list(make(written(), bare)) == ["sr.dcm"]


def test_a_label_makes_no_path(make):
    findings = (("../../a b", 0.2, "negative"), ("../../a/b", 0.9, "positive"), ("ü" * 300, 0, "x"))
    _, *pictures = make(written(), predicted(*findings))
    assert pictures[:2] == ["sc..._.._a_b.dcm", "sc..._.._a_b.1.dcm"]
    assert len(pictures[2].encode()) < 255


def test_a_whole_file(make):
    for data in make(written()).values():
        dataset = dcmread(BytesIO(data))
        meta = dataset.file_meta
        assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert meta.MediaStorageSOPClassUID == dataset.SOPClassUID
        assert meta.ImplementationClassUID == implementation.CLASS_UID
        assert meta.ImplementationVersionName == implementation.VERSION_NAME


def test_when_it_was_made(make):
    for each in opened(make(written())):
        assert (each.ContentDate, each.ContentTime) == ("20240229", "130509.250000")
        assert (each.InstanceCreationDate, each.InstanceCreationTime) == (
            each.ContentDate,
            each.ContentTime,
        )
    before = datetime.now().replace(microsecond=0)
    report = opened(make(written(), made=None))[0]
    now = datetime.strptime(report.ContentDate + report.ContentTime, "%Y%m%d%H%M%S.%f")
    assert before <= now <= datetime.now()


# -- What is taken over from the image --------------------------------------------------------


def test_the_elements_are_those_of_the_standards_patient_module():
    standard = pytest.importorskip("highdicom._standard_utils", reason="highdicom's own tables")
    module = standard.get_module_attribute_map()["patient"]
    keywords = {each["keyword"] for each in module if not each["path"]}
    retired = {"OtherPatientIDs", "EthnicGroup"}
    assert keywords - set(PATIENT) == set()
    assert set(PATIENT) - keywords <= {"SpecificCharacterSet"} | retired


def taken_over_exactly(source: bytes, files: dict[str, bytes]) -> None:
    for data in files.values():
        expected, found = dcmread(BytesIO(source), force=True), dcmread(BytesIO(data))
        for keyword in (*PATIENT, *STUDY):
            if keyword not in expected:
                assert keyword not in found or (keyword in TYPE_2 and not found[keyword].value)
            elif keyword.endswith("Sequence"):
                assert found[keyword] == expected[keyword]
            else:
                assert raw(found, keyword) == raw(expected, keyword), keyword


@pytest.mark.parametrize("name", [*SHIPPED, *CHARSETS])
def test_patient_and_study_are_the_sources_byte_by_byte(make, name):
    source = shipped(name)
    files = make(source)
    taken_over_exactly(source, files)
    for each in opened(files):
        expected = dcmread(BytesIO(source), force=True)
        assert each.PatientName == expected.PatientName
        assert each.get("SpecificCharacterSet") == expected.get("SpecificCharacterSet")


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
@pytest.mark.parametrize("charset", [["", "ISO 2022 IR 87"], "ISO_IR 192"])
def test_japanese_in_every_encoding(make, syntax, charset):
    other = Dataset()
    other.PatientID, other.TypeOfPatientID = "大阪17", "TEXT"
    source = written(
        syntax,
        SpecificCharacterSet=charset,
        PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
        ReferringPhysicianName="=鈴木^花子",
        PatientComments="一行目\r\n二行目",
        OtherPatientIDsSequence=[other],
        StudyDescription="胸部",
    )
    files = make(source, predicted(("肺炎", 0.9, "positive")))
    taken_over_exactly(source, files)
    report, picture = opened(files)
    assert report.PatientName.ideographic == "山田^太郎"
    assert report.OtherPatientIDsSequence[0].PatientID == "大阪17"
    assert ("Finding", "肺炎") in said(report)
    assert "肺炎" in picture.DerivationDescription


def test_what_breaks_the_rules_is_taken_over_as_it_is(make):
    values = {
        "PatientName": b"N" * 300,
        "PatientID": b"\xff\xfe17\x1b$B;3",
        "PatientBirthDate": b"about 1970",
        "PatientSex": b"unknown!",
        "StudyDate": b"2024.01.02",
        "StudyTime": b"noon",
        "AccessionNumber": b"d14a028c2a3a2bc9476102bb288234c4",
        "PatientComments": b"\xe9" * 70_000,
        "SpecificCharacterSet": b"ISO_IR 999",
    }
    dataset = dcmread(BytesIO(written()))
    for keyword, value in values.items():
        tag = Tag(keyword)
        vr = "UT" if len(value) > 65535 else "LO"
        dataset._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    file = BytesIO()
    dataset.save_as(file)
    source = file.getvalue()
    taken_over_exactly(source, make(source))
    for each in opened(make(source)):
        assert raw(each, "PatientSex") == b"unknown!"
        assert raw(each, "PatientComments") == b"\xe9" * 70_000


def test_what_the_image_lacks_is_there_and_empty(make):
    for each in opened(make(written(**dict.fromkeys((*TYPE_2, "SpecificCharacterSet"))))):
        assert [each[keyword].value or "" for keyword in TYPE_2] == [""] * len(TYPE_2)
        assert "SpecificCharacterSet" not in each
        assert "OtherPatientNames" not in each


def test_a_header_does_as_well_as_a_file(make):
    data = shipped("chrH31.dcm")
    assert make(dcmread(BytesIO(data))) == make(data)


def test_nothing_else_of_the_image_is_taken_over(make):
    source = written(InstitutionName="St. Elsewhere", OperatorsName="Roe^R", ProtocolName="chest")
    for each in opened(make(source)):
        assert not {"InstitutionName", "OperatorsName", "ProtocolName"} & set(each.dir())


# -- UIDs and references ----------------------------------------------------------------------


def test_uids_are_our_own_and_the_same_again(make):
    files = make(written())
    assert make(written()) == files
    report, picture = opened(files)
    for each in (report, picture):
        assert each.StudyInstanceUID == "1.2.3"
        assert each.SOPInstanceUID.startswith("2.25.")
        assert each.SOPInstanceUID.is_valid
        assert each.SeriesInstanceUID.startswith("2.25.")
    uids = {
        each[keyword].value
        for each in (report, picture)
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID")
    }
    assert len(uids) == 4


def test_uids_are_others_for_another_image_model_artifact_profile_and_label(make):
    made = [
        make(written()),
        make(written(), identifier="18"),
        make(written(), predicted(model="b" * 64)),
        make(written(), predicted(artifact="model.onnx")),
        make(written(), predicted(profile="c" * 64)),
    ]
    uids = [each.SOPInstanceUID for files in made for each in opened(files)]
    assert len(set(uids)) == len(uids)
    series = [each.SeriesInstanceUID for files in made for each in opened(files)]
    assert len(set(series)) == len(series)
    two = opened(make(written(), predicted(("a", 0.1, "negative"), ("b", 0.9, "positive"))))
    assert len({each.SOPInstanceUID for each in two}) == 3
    assert len({each.SeriesInstanceUID for each in two}) == 2


def references(report: Dataset, picture: Dataset) -> list[Dataset]:
    """Where the image is referred to: from the content, from the evidence, from the picture."""
    study = report.CurrentRequestedProcedureEvidenceSequence[0]
    series = study.ReferencedSeriesSequence[0]
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == ("1.2.3", "1.2.3.1")
    images = [each for each in items(report) if each.ValueType == "IMAGE"]
    return [
        *(each.ReferencedSOPSequence[0] for each in images),
        series.ReferencedSOPSequence[0],
        picture.SourceImageSequence[0],
    ]


def test_the_image_is_referred_to(make):
    found = references(*opened(make(written())))
    assert [each.ReferencedSOPInstanceUID for each in found] == ["1.2.3.4"] * 3
    assert [each.ReferencedSOPClassUID for each in found] == ["1.2.840.10008.5.1.4.1.1.1"] * 3
    assert not any("ReferencedFrameNumber" in each for each in found)


def test_a_frame_is_referred_to_by_its_number(make):
    source = written(NumberOfFrames=12)
    seventh, eighth = opened(make(source, frame=7)), opened(make(source, frame=8))
    in_content, in_evidence, of_picture = references(*seventh)
    assert in_content.ReferencedFrameNumber == of_picture.ReferencedFrameNumber == 7
    assert "ReferencedFrameNumber" not in in_evidence
    for one, other in zip(seventh, eighth, strict=True):
        assert one.SeriesInstanceUID == other.SeriesInstanceUID
        assert one.SOPInstanceUID != other.SOPInstanceUID
        assert (one.InstanceNumber, other.InstanceNumber) == (7, 8)


def test_the_one_frame_of_an_image_is_the_image(make):
    found = references(*opened(make(written(), frame=1)))
    assert not any("ReferencedFrameNumber" in each for each in found)
    assert make(written(), frame=1) == make(written())


@pytest.mark.parametrize(("frames", "frame"), [(12, 13), (12, 0), (None, 2), ("x", 1)])
def test_a_frame_that_is_not_there(make, frames, frame):
    with pytest.raises(DicomInvalid):
        make(written(NumberOfFrames=frames) if frames != "x" else bad_count(), frame=frame)


def bad_count() -> bytes:
    source = written(NumberOfFrames=12)
    return source.replace(b"IS\x02\x0012", b"IS\x02\x00xx")


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize("keyword", TYPE_1)
def test_an_image_that_does_not_say_which_it_is(make, keyword, value):
    with pytest.raises(DicomUnreferable, match=f"has no {keyword}, without which"):
        make(written(**{keyword: value}))


# -- What the report says ---------------------------------------------------------------------


def test_a_report_is_preliminary_and_unverified(make):
    report = opened(make(written()))[0]
    assert report.Modality == "SR"
    assert report.PreliminaryFlag == "PRELIMINARY"
    assert report.VerificationFlag == "UNVERIFIED"
    assert report.CompletionFlag == "COMPLETE"
    assert "VerifyingObserverSequence" not in report
    comment = dict(said(report))["Comment"]
    assert str(comment).startswith("Not for diagnosis.")
    assert report.SeriesDescription == "Not for diagnosis: chest-model"


def test_a_report_says_what_was_found_and_by_whom(make, manifest):
    report = opened(make(written(), predicted(profile="c" * 64)))[0]
    found = said(report)
    assert ("Finding", "PNEUMONIA") in found
    assert ("Probability", 0.87) in found
    assert ("Decision threshold", 0.5) in found
    assert ("Decision", "Positive") in found
    assert ("Observer Type", "Device") in found
    assert ("Device Observer Serial Number", "a" * 64) in found
    assert ("Algorithm Name", "chest-model") in found
    assert ("Algorithm Version", "1.2.3") in found
    assert manifest.intended_use in str(dict(found)["Comment"])
    assert [value for name, value in found if name == "Algorithm Parameters"] == [
        "bundle SHA-256: " + "a" * 64,
        "artifact: model.int8.onnx",
        "runtime: onnxruntime 1.2.3",
        "site profile SHA-256: " + "c" * 64,
        "operating point: positive from 0.5 on (rule: youden); refer from 0.4 to 0.6; "
        "on validation sensitivity 0.900, specificity 0.800",
    ]


@pytest.mark.parametrize(
    ("decision", "code"),
    [
        ("positive", ("10828004", "SCT")),
        ("negative", ("260385009", "SCT")),
        ("refer", ("refer", "99MEDIMGEDGE")),
    ],
)
def test_a_decision_is_coded(make, decision, code):
    report = opened(make(written(), predicted(("PNEUMONIA", 0.5, decision))))[0]
    concepts = {
        each.ConceptNameCodeSequence[0].CodeMeaning: each.ConceptCodeSequence[0]
        for each in items(report)
        if each.ValueType == "CODE"
    }
    assert (concepts["Decision"].CodeValue, concepts["Decision"].CodingSchemeDesignator) == code
    scheme = report.CodingSchemeIdentificationSequence[0]
    assert scheme.CodingSchemeDesignator == concepts["Finding"].CodingSchemeDesignator


def groups(data: bytes) -> list[tuple[str, list[float], str]]:
    """Label, numbers and decision of each group, as highdicom reads TID 1500."""
    report = ComprehensiveSR.from_dataset(dcmread(BytesIO(data)))
    assert isinstance(report, ComprehensiveSR)
    assert isinstance(report.content, MeasurementReport)
    found = []
    for group in report.content.get_image_measurement_groups():
        numbers = [each.value for each in group.get_measurements()]
        decision = group.get_qualitative_evaluations()[-1].value
        assert group.finding_type is not None
        assert isinstance(decision, CodedConcept)
        found.append((group.finding_type.meaning, numbers, decision.meaning))
        assert group.source_images[0].referenced_sop_instance_uid == "1.2.3.4"
    return found


def test_several_findings_are_groups_of_one_report(make):
    findings = (("edema", 0.25, "negative"), ("effusion", 0.75, "positive"), ("mass", 0.5, "refer"))
    assert groups(make(written(), predicted(*findings))["sr.dcm"]) == [
        ("edema", [0.25, 0.5], "Negative"),
        ("effusion", [0.75, 0.5], "Positive"),
        ("mass", [0.5, 0.5], "Refer to a reader"),
    ]


def test_a_multiclass_decision_is_a_label_and_has_no_threshold(make):
    findings = (("benign", 0.25, "malignant"), ("malignant", 0.75, "malignant"))
    assert groups(make(written(), predicted(*findings), points={})["sr.dcm"]) == [
        ("benign", [0.25], "malignant"),
        ("malignant", [0.75], "malignant"),
    ]


@pytest.mark.parametrize(
    ("label", "charset", "meaning"),
    [
        ("Pneumonie à droite", "ISO_IR 100", "Pneumonie à droite"),
        ("Pneumonie à droite", None, "Pneumonie ? droite"),
        ("肺炎", "ISO_IR 100", "??"),
        ("肺炎", "ISO_IR 192", "肺炎"),
        ("a\\b\nc", "ISO_IR 192", "a/b c"),
        ("x" * 100, "ISO_IR 192", "x" * 64),
    ],
)
def test_any_label_is_a_coded_concept(make, label, charset, meaning):
    source = written(SpecificCharacterSet=charset, ReferringPhysicianName="Roe^R")
    report = opened(make(source, predicted((label, 0.5, "refer"))))[0]
    finding = next(
        each.ConceptCodeSequence[0]
        for each in items(report)
        if each.ConceptNameCodeSequence[0].CodeMeaning == "Finding"
    )
    assert finding.CodeMeaning == meaning
    assert re.fullmatch(r"[0-9a-f]{16}", finding.CodeValue)


# -- What the picture shows -------------------------------------------------------------------


def test_a_picture_is_the_overlay_and_a_band_below_it(make):
    prediction = predicted()
    assert prediction.heatmap is not None
    picture = opened(make(written(), prediction))[1]
    pixels = picture.pixel_array
    assert pixels.shape == (SIDE + BAND, SIDE, 3)
    shown = overlay(prediction.pixels, prediction.heatmap[..., 0])
    assert np.array_equal(pixels[:SIDE], shown)
    band = pixels[SIDE:].max(axis=2)
    assert (band[:6] < 40).all()
    assert (band > 200).sum() > 500
    assert picture.ImageType == ["DERIVED", "SECONDARY"]
    assert (picture.Modality, picture.ConversionType) == ("OT", "WSD")
    assert "PNEUMONIA" in picture.DerivationDescription
    assert "positive" in picture.DerivationDescription
    assert picture.ImageComments.startswith("Not for diagnosis.")


def test_what_does_not_fit_the_band_is_cut_and_a_narrow_picture_is_centred():
    white = np.full((SIDE, 40, 3), 255, np.uint8)
    whole = captioned(white, (("long " * 40, "0.500  refer"), "model " * 40, "warning " * 40))
    assert whole.shape == (SIDE + BAND, SIDE, 3)
    columns = np.flatnonzero(whole[:SIDE].any(axis=(0, 2)))
    assert (columns.min(), columns.max()) == ((SIDE - 40) // 2, (SIDE + 40) // 2 - 1)
    band = whole[SIDE:]
    assert (band[:, -10:] == band[0, 0]).all()
    assert (band[:, :10] == band[0, 0]).all()


@pytest.mark.parametrize("said_of_it", ["YES", "NO", None])
def test_whether_a_picture_names_the_patient_is_as_the_image_says(make, said_of_it):
    picture = opened(make(written(BurnedInAnnotation=said_of_it)))[1]
    assert picture.get("BurnedInAnnotation") == said_of_it


def test_which_side_is_which_is_as_the_image_says(make):
    picture = opened(make(written(PatientOrientation=["L", "F"], ImageLaterality="U")))[1]
    assert (picture.PatientOrientation, picture.ImageLaterality) == (["L", "F"], "U")
    assert "Laterality" not in picture
    bare = opened(make(written()))[1]
    assert (bare.PatientOrientation, bare.Laterality) == (None, None) or not bare.Laterality


# -- Real models ------------------------------------------------------------------------------


def test_a_real_answer_about_a_real_file(frozen, monkeypatch):
    data = (frozen / "golden" / "08-monochrome2.dcm").read_bytes()
    classifier = Classifier(frozen)
    prediction = classifier.predict(data)
    files = results.make(
        data, prediction, classifier.manifest, classifier.points, identifier="1", made=MADE
    )
    report, picture = opened(files)
    found = dict(said(report))
    assert found["Finding"] == "opacity"
    assert found["Probability"] == prediction.probability
    assert found["Decision threshold"] == classifier.points["opacity"].threshold
    assert str(found["Decision"]).lower() == prediction.decision
    assert found["Device Observer Serial Number"] == classifier.bundle.hash
    assert picture.pixel_array.shape == (SIDE + BAND, SIDE, 3)


def cine(frames: int, side: int = 32) -> bytes:
    """Frames of noise, but for the second, which is blank."""
    pixels = np.random.default_rng(0).integers(0, 256, (frames, side, side), np.uint8)
    pixels[1] = 0
    return written(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1",
        Modality="US",
        NumberOfFrames=frames,
        Rows=side,
        Columns=side,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        PixelData=pixels.tobytes(),
    )


def answered(classifier: Classifier, data: bytes, *kinds: str):
    return received.answer(
        classifier, data, identifier="17", kinds=kinds, name_of=lambda uid: "name"
    )


def test_the_frames_of_an_image_are_groups_of_one_report(frozen):
    classifier = Classifier(frozen, force=True)
    records, files = answered(classifier, cine(6), "sr", "sc")
    assert [each.status for each in records] == ["ok", "rejected", *["ok"] * 4]
    answers = [each for each in records if isinstance(each, Answer)]
    strongest = max(answers, key=lambda each: each.probability or 0)
    assert list(files) == ["sr.dcm", f"{strongest.frame}.sc.opacity.dcm", "json"]
    report = dcmread(BytesIO(files["sr.dcm"]))
    images = [each.ReferencedSOPSequence[0] for each in items(report) if each.ValueType == "IMAGE"]
    assert [each.ReferencedFrameNumber for each in images] == [1, 3, 4, 5, 6]
    assert {each.ReferencedSOPInstanceUID for each in images} == {"1.2.3.4"}
    found = said(report)
    assert [value for name, value in found if name == "Probability"] == [
        each.probability for each in answers
    ]
    decisions = [str(value).lower() for name, value in found if name == "Decision"]
    assert [each.split()[0] for each in decisions] == [each.decision for each in answers]
    uids = [each.UID for each in items(report) if each.ValueType == "UIDREF"]
    assert len(set(uids)) == len(uids) == 6
    assert len(groups(files["sr.dcm"])) == 5
    again = dcmread(BytesIO(answered(classifier, cine(6), "sr")[1]["sr.dcm"]))
    assert again.SOPInstanceUID == report.SOPInstanceUID


def test_a_fault_of_the_machine_at_a_frame_is_no_answer(frozen, monkeypatch):
    failed = failure("17", MachineFault("No memory."), 2, 6)
    monkeypatch.setattr(Classifier, "predict_frames", lambda *_, **__: iter([failed]))
    with pytest.raises(MachineFault, match=r"^No memory\.$"):
        answered(Classifier(frozen), b"", "sr")


def test_no_memory_is_not_the_headers_fault(make, monkeypatch):
    monkeypatch.setattr(results, "read", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        make(written())


@pytest.mark.peers
@pytest.mark.parametrize("frames", [6, 200])
def test_dciodvfy_finds_no_error_in_a_report_of_frames(frozen, tmp_path, frames):
    _, files = answered(Classifier(frozen, force=True), cine(frames), "sr")
    path = tmp_path / "sr.dcm"
    path.write_bytes(files["sr.dcm"])
    assert judged(path) == []
    dump = subprocess.run([peer("dsrdump"), path], capture_output=True, timeout=60)
    assert (dump.returncode, dump.stderr) == (0, b"")
    assert dump.stdout.count(b'"Probability")=') == frames - 1


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_bundles_of_several_findings(mean_bundle, frozen, task):
    data = (frozen / "golden" / "08-monochrome2.dcm").read_bytes()
    classifier = Classifier(mean_bundle([1.0, -1.0], [0.1, 0.2], task=task))
    prediction = classifier.predict(data)
    files = results.make(
        data, prediction, classifier.manifest, classifier.points, identifier="1", made=MADE
    )
    assert list(files) == ["sr.dcm", "sc.a.dcm", "sc.b.dcm"]
    found = said(opened(files)[0])
    decisions = [str(value).lower() for name, value in found if name == "Decision"]
    assert decisions == [each.decision for each in prediction.findings]
    probabilities = [value for name, value in found if name == "Probability"]
    assert probabilities == [each.probability for each in prediction.findings]


# -- Hostile and broken sources ---------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\0" * 200, b"DICM", bytes(128) + b"DICM" + b"\xff" * 99])
def test_bytes_that_are_no_dicom(make, data):
    with pytest.raises((DicomInvalid, DicomUnreferable)):
        make(data)


def test_lengths_are_not_believed(make):
    whole = written()
    for at in range(whole.index(b"\x20\0\x0e\0UI")):  # the series is the last that is needed
        with pytest.raises((DicomInvalid, DicomUnreferable)):
            make(whole[:at])
    name = b"\x10\0\x10\0PN\x08\0"
    assert name in whole
    with pytest.raises(DicomUnreferable):  # the patient's name takes all that is left
        make(whole.replace(name, b"\x10\0\x10\0UT\0\0\xf0\xff\xff\xff"))


def test_no_more_is_inflated_than_a_header_needs(make):
    meta = written(DeflatedExplicitVRLittleEndian)
    bomb = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    group = bytes.fromhex("08000500") + b"UT\0\0" + (2**31 - 2).to_bytes(4, "little")
    data = bomb.compress(group) + bomb.compress(bytes(2**26)) + bomb.flush()
    end = 132 + 12 + int.from_bytes(meta[140:144], "little")
    with pytest.raises(DicomUnreferable):
        make(meta[:end] + data)


def test_an_error_does_not_name_the_patient(make):
    item = Dataset()
    item.PatientID = "SECRET"
    data = written(ExplicitVRBigEndian, OtherPatientIDsSequence=[item], PatientName="SECRET^S")
    unknown = data.replace(b"LO\0\x06SECRET", b"ZZ\0\x06SECRET")
    assert unknown != data
    with pytest.raises(DicomInvalid, match="No result can be made") as raised:
        make(unknown)
    assert "SECRET" not in str(raised.value)


def test_pydicom_is_left_as_it_was(make):
    modes = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(written())
        with pytest.raises(DicomUnreferable):
            make(written(StudyInstanceUID=None))
    assert modes == (
        config.settings.reading_validation_mode,
        config.settings.writing_validation_mode,
    )


def test_the_package_is_cheap_and_pictures_need_no_highdicom():
    program = (
        "import sys, medimg_edge.dicom.answer as a\n"
        "print(a.KINDS, [x for x in ('pydicom', 'highdicom', 'cv2') if x in sys.modules])\n"
        "from medimg_edge.dicom.answer import results, capture\n"
        "print([x for x in ('highdicom', 'onnxruntime') if x in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["('sr', 'sc') []", "[]"]


# -- Peers ------------------------------------------------------------------------------------


def peer(name: str) -> str:
    """Debian's own program: pynetdicom brings namesakes of some."""
    path = f"/usr/bin/{name}"
    if not shutil.which(path):
        pytest.skip(f"{name} is not installed: apt-get install dcmtk dicom3tools")
    return path


def judged(file: Path, program: str = "dciodvfy") -> list[str]:
    """The errors that dciodvfy finds; it writes in the file's own character set."""
    done = subprocess.run([peer(program), file], capture_output=True, timeout=60)
    lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    assert any("ComprehensiveSR" in each or "SCImage" in each for each in lines)
    return [each for each in lines if each.startswith("Error")]


@pytest.mark.peers
@pytest.mark.parametrize("name", [*SHIPPED, *CHARSETS, "golden"])
def test_dciodvfy_finds_no_error(make, frozen, tmp_path, name):
    golden = (frozen / "golden" / "08-monochrome2.dcm").read_bytes()
    source = golden if name == "golden" else shipped(name)
    findings = (("opacity", 0.87, "positive"), ("mass", 0.2, "negative"), ("ü" * 80, 0.5, "refer"))
    for file, data in make(source, predicted(*findings)).items():
        path = tmp_path / file
        path.write_bytes(data)
        assert judged(path) == []


@pytest.mark.peers
def test_dciodvfy_finds_no_error_in_results_of_a_frame(make, tmp_path):
    source = written(NumberOfFrames=12, SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1")
    for file, data in make(source, frame=7).items():
        path = tmp_path / file
        path.write_bytes(data)
        assert judged(path) == []


@pytest.mark.peers
def test_dsrdump_prints_the_answer(make, tmp_path):
    findings = (("opacity", 0.875, "positive"), ("mass", 0.25, "negative"), ("edema", 0.5, "refer"))
    plain = written(ReferringPhysicianName="Roe^R")
    path = tmp_path / "sr.dcm"
    path.write_bytes(make(plain, predicted(*findings))["sr.dcm"])
    dump = [peer("dsrdump"), path]
    done = subprocess.run(dump, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for label, probability, decision in findings:
        group = done.stdout.split(f'"Finding")=({label}')[1].split("Measurement Group")[0]
        assert f'"Probability")="{probability:g}" (1,UCUM' in group
        assert re.search(rf'"Decision"\)=\(.*"{decision}', group, re.IGNORECASE)
        assert '"Source of Measurement")=(CR image' in group
    assert "PRELIMINARY" in done.stdout
    assert "Not for diagnosis" in done.stdout


@pytest.mark.peers
@pytest.mark.data
@pytest.mark.parametrize("modality", ["CR", "DX"])
def test_real_radiographs(make, tmp_path, modality):
    folder = os.environ.get("MEDIMG_EDGE_DATA")
    if not folder:
        pytest.skip("MEDIMG_EDGE_DATA does not name the folder of real images")
    sources = sorted((Path(folder) / "dicom" / modality).glob("*.dcm"))
    assert sources
    for source in sources:
        files = make(source.read_bytes())
        taken_over_exactly(source.read_bytes(), files)
        done = subprocess.run([peer("dciodvfy"), source], capture_output=True, timeout=60)
        own = (done.stdout + done.stderr).decode(errors="replace").splitlines()
        for file, data in files.items():
            path = tmp_path / file
            path.write_bytes(data)
            assert set(judged(path)) <= set(own), source.name
