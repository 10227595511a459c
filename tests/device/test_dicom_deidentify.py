"""Identifiers are planted wherever a DICOM file can hold one, and none is in the copy."""

from __future__ import annotations

import csv
import itertools
import os
import shutil
import stat
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom import DataElement, Dataset, FileDataset, config, dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag
from pydicom.uid import UID

from medimg_edge.cli import main
from medimg_edge.dicom.deidentify import EDITION, Deidentifier
from medimg_edge.dicom.needed import is_needed
from medimg_edge.dicom.read import read_dicom
from medimg_edge.errors import BurnedIn, DicomInvalid, DicomNoPixels, InputError
from medimg_edge.label_csv import read_labels

KEY = bytes(range(32))
MARK = b"QX"  # begins everything that is planted, but for dates and numbers
DATE, TIME, NUMBER, AGE = "19630417", "235943.0417", "83.41729", "083Y"
PLANTED = (MARK, DATE.encode(), TIME.encode(), NUMBER.encode(), AGE.encode())
OUR_ROOT = "1.2.276.0.999."  # of the UIDs that are planted

ENCODINGS = {
    "explicit": "CT_small.dcm",
    "implicit": "MR_small_implicit.dcm",
    "big endian": "MR_small_bigendian.dcm",
    "deflated": "image_dfl.dcm",
    "RLE, two frames": "SC_rgb_rle_2frame.dcm",
    "JPEG": "SC_rgb_jpeg_gdcm.dcm",
    "JPEG 2000": "JPEG2000.dcm",
    "JPEG-LS": "MR_small_jpeg_ls_lossless.dcm",
    "palette": "examples_palette.dcm",
}


def original(name: str) -> FileDataset:
    return dcmread(file(name))


def file(name: str) -> str:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return path


def encoded(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    with config.disable_value_validation():
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def deidentified(data: bytes, key: bytes = KEY) -> bytes:
    return Deidentifier(key, allow_burned_in=True).deidentify(data).data


# --- what is planted ---


KINDS = ("ClassUID", "SyntaxUID", "SchemeUID")
"""The ends of keywords whose UIDs say what something is, not which."""


def telling() -> list[int]:
    """The attributes of Table E.1-1, and all others of the patient or of names, dates and text."""
    lists = dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    listed = {tag[0] << 16 | tag[1] for tag in lists["ALL_TAGS"] if len(tag) == 2}
    speaking = {"PN", "DA", "DT", "TM", "AS", "AE", "LT", "ST", "UT", "UC", "UR"}
    others = {
        tag
        for tag, (vr, *_) in DicomDictionary.items()
        if vr in speaking or tag >> 16 == 0x0010 or (vr == "UI" and not _[3].endswith(KINDS))
    }
    return sorted(tag for tag in listed | others if tag >> 16 > 0x0004)


class Seeds:
    """Values that occur nowhere else."""

    def __init__(self) -> None:
        self._number = itertools.count()

    def word(self) -> str:
        return f"{MARK.decode()}{next(self._number):05}"

    def value(self, vr: str) -> object:
        word = self.word()
        known = {"DA": DATE, "TM": TIME, "DT": DATE + TIME[:6], "AS": AGE, "DS": NUMBER, "IS": "7"}
        if vr == "UI":
            return f"{OUR_ROOT}{next(self._number)}"
        if vr in ("OB", "OW", "UN"):
            return word.encode() + b"\0"
        if vr == "SQ":
            return [self.item()]
        if vr in ("US", "UL", "SS", "SL", "FL", "FD", "US or SS", "OB or OW", "AT"):
            return None
        return known.get(vr, word)

    def item(self) -> Dataset:
        """With a name, a date, a UID and a private element."""
        item = Dataset()
        for keyword in ("PatientName", "PatientID", "StudyDate", "ImageComments", "SOPInstanceUID"):
            tag = Tag(keyword)
            item[tag] = DataElement(tag, dictionary_VR(tag), self.value(dictionary_VR(tag)))
        item.private_block(0x0033, self.word(), create=True).add_new(1, "LT", self.value("LT"))
        return item

    def sow(self, dataset: Dataset) -> None:
        """Every telling attribute that has room for a value."""
        for number in telling():
            tag, vr = Tag(number), DicomDictionary.get(number, ("UN",))[0]
            if tag not in KEPT and (value := self.value(vr)) is not None:
                dataset[tag] = DataElement(tag, vr, value)


KEPT = {Tag(word) for word in ("SOPClassUID", "PixelData", "ExtendedOffsetTable")}


def plant(dataset: FileDataset) -> bytes:
    """Identifiers in the data set, in its sequences, its private parts, its margins."""
    seeds = Seeds()
    with config.disable_value_validation():
        seeds.sow(dataset)
        inner, outer = Dataset(), Dataset()
        seeds.sow(inner)
        outer.ViewModifierCodeSequence = [inner]
        outer.CodeMeaning = "kept"
        dataset.ViewCodeSequence = [outer]
        dataset.DerivationCodeSequence = [seeds.item(), seeds.item()]
        for group in (0x0009, 0x0029, 0x6001):
            block = dataset.private_block(group, seeds.word(), create=True)
            for offset, vr in enumerate(("LO", "UN", "OB", "SQ", "PN", "UT"), 1):
                block.add_new(offset, vr, seeds.value(vr))
        for tag, vr in (
            (0x60000022, "LO"),
            (0x60001500, "LO"),
            (0x60003000, "OB"),
            (0x60004000, "LT"),
            (0x60020022, "LO"),
            (0x60023000, "OB"),
            (0x50000010, "US"),
            (0x50002500, "LO"),
            (0x50003000, "OB"),
            (0x00081F97, "UN"),  # a tag that nobody has heard of
            (0x00189FF8, "LO"),
            (0xFFFCFFFC, "OB"),
        ):
            dataset[tag] = DataElement(tag, vr, seeds.value(vr) if vr != "US" else 1)
        dataset.preamble = MARK * 64
        meta = dataset.file_meta
        meta.SourceApplicationEntityTitle = meta.SendingApplicationEntityTitle = "QXSTATION"
        meta.SourcePresentationAddress = "QXhost.hospital.example"
        meta.ImplementationVersionName = "QXWRITER"
        meta.PrivateInformationCreatorUID = UID(f"{OUR_ROOT}77")
        meta.PrivateInformation = b"QXprivate\0"
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return encoded(dataset)


def spread(data: bytes) -> bytes:
    """All bytes of a file but its pixels', inflated where it was deflated."""
    dataset = dcmread(BytesIO(data))
    if dataset.file_meta.TransferSyntaxUID.is_deflated:
        end = 132 + 12 + dataset.file_meta.FileMetaInformationGroupLength
        data = data[:end] + zlib.decompress(data[end:], -zlib.MAX_WBITS)
    assert data.count(dataset.PixelData) == 1
    return data.replace(dataset.PixelData, b"")


def uids(dataset: Dataset) -> Iterator[str]:
    """Of whatever is an instance: those that no standard lists, and no kind of anything."""
    for element in dataset.iterall():
        if element.VR == "UI" and element.value and not element.keyword.endswith(KINDS):
            several = [element.value] if isinstance(element.value, str) else element.value
            yield from (str(each) for each in several if not UID(str(each)).type)


@pytest.fixture(params=ENCODINGS.values(), ids=list(ENCODINGS))
def planted(request) -> bytes:
    return plant(original(request.param))


def test_nothing_that_was_planted_is_left(planted):
    before = spread(planted)
    assert [each for each in PLANTED if each not in before] == []
    after = spread(deidentified(planted))
    assert [each for each in PLANTED if each in after] == []
    assert OUR_ROOT.encode() in before
    assert OUR_ROOT.encode() not in after


@pytest.mark.parametrize("name", ENCODINGS.values(), ids=list(ENCODINGS))
def test_no_uid_is_left(name):
    data = encoded(original(name))
    found = set(uids(dcmread(BytesIO(data))))
    assert len(found) >= 3
    after = spread(deidentified(data))
    assert [uid for uid in found if uid.encode() in after] == []


def test_the_image_is_the_same(planted):
    """Pixel data byte for byte, and what the reader makes of them."""
    copy = deidentified(planted)
    source, result = dcmread(BytesIO(planted)), dcmread(BytesIO(copy))
    assert result.PixelData == source.PixelData
    assert result.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID
    for frame in range(1, int(source.get("NumberOfFrames", 1)) + 1):
        before, after = read_dicom(planted, frame), read_dicom(copy, frame)
        assert before.header is not None
        assert after.header is not None
        assert np.array_equal(before.frames, after.frames)
        assert (before.voi, before.inverted) == (after.voi, after.inverted)
        assert after.header == replace(
            before.header, instance=after.header.instance, series=after.header.series
        )


def test_what_is_done_is_said():
    result = dcmread(BytesIO(deidentified(plant(original("CT_small.dcm")))))
    assert result.PatientIdentityRemoved == "YES"
    (code,) = result.DeidentificationMethodCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("113100", "DCM")
    assert result.DeidentificationMethod[1] == "DICOM PS3.15 2026c Basic Profile"
    assert result.LongitudinalTemporalInformationModified == "REMOVED"
    assert result.PatientID == result.PatientName
    assert len(result.PatientID) == 32
    assert result.PatientBirthDate == result.StudyDate == result.AccessionNumber == ""
    assert result.DeviceSerialNumber == "REMOVED"
    assert result.ContentDate == "19000101"
    assert "InstanceCreatorUID" in result
    assert result.ViewCodeSequence[0].CodeMeaning == "kept"
    meta = result.file_meta
    assert meta.MediaStorageSOPInstanceUID == result.SOPInstanceUID
    assert meta.MediaStorageSOPClassUID == result.SOPClassUID
    assert "SourceApplicationEntityTitle" not in meta


def element(tag: int, value: bytes, vr: bytes = b"") -> bytes:
    """Encoded as Implicit VR Little Endian, or with a VR of long values."""
    value += b" " * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + (vr + b"\0\0" if vr else b"")
    return head + struct.pack("<I", len(value)) + value


def test_known_attributes_that_a_file_calls_unknown():
    """A name, a UID and a sequence with the VR UN, as gateways write them: PS3.5 section 6.2.2."""
    dataset = original("CT_small.dcm")
    del dataset.PatientName, dataset.FrameOfReferenceUID
    uid = OUR_ROOT.encode() + b"5"
    item = element(0x00100010, b"QX^UN") + element(0x00081155, uid)
    data = (
        encoded(dataset)
        + element(0x00081140, element(0xFFFEE000, item), b"UN")
        + element(0x00082112, b"QX no sequence at all", b"UN")
        + element(0x00100010, b"QX^UN", b"UN")
        + element(0x00200052, uid, b"UN")
    )
    copy = deidentified(data)
    assert MARK not in spread(copy)
    assert OUR_ROOT.encode() not in spread(copy)
    result = dcmread(BytesIO(copy))
    (reference,) = result.ReferencedImageSequence
    assert reference.ReferencedSOPInstanceUID == result.FrameOfReferenceUID


def test_what_is_not_needed_is_removed():
    """A word in every attribute of the Standard that has room for one: few are left, by name."""
    dataset = original("CT_small.dcm")
    word = MARK.decode() + "FILLED"
    with config.disable_value_validation():
        for number, (vr, *_, keyword) in DicomDictionary.items():
            tag, vr = Tag(number), vr.split(" or ")[0]
            if tag.group < 0x0008 or tag.group in (0x0028, 0x7FE0) or keyword in KEPT_KEYWORDS:
                continue
            if vr in ("CS", "SH", "LO", "ST", "LT", "UT", "UC", "PN", "AE", "UR", "DS", "IS"):
                dataset[tag] = DataElement(tag, "LO" if vr in ("DS", "IS") else vr, word)
            elif vr in ("OB", "OW", "UN", "OF", "OD", "OL", "OV"):
                dataset[tag] = DataElement(tag, vr, f"{word}padding.".encode())
            elif vr == "SQ" and tag not in dataset:
                item = Dataset()
                item.ImageID = item.TextValue = item.OwnerID = word
                dataset[tag] = DataElement(tag, vr, [item])
        data = encoded(dataset)
    copy = dcmread(BytesIO(deidentified(data)))
    left = {each.keyword: each.VR for each in copy.iterall() if word in str(each.value)}
    left = {keyword: vr for keyword, vr in left.items() if vr != "SQ"}
    assert set(left.values()) <= {"CS", "SH", "LO"}
    assert all(is_needed(Tag(keyword), vr) for keyword, vr in left.items())
    assert not set(left) & {
        *("FillerOrderNumberProcedure", "PlacerOrderNumberProcedure", "OwnerID", "BoardingPassID"),
        *("FillerOrderNumberImagingServiceRequestRetired", "ImageID", "EncryptedContent"),
        *("PlacerOrderNumberImagingServiceRequestRetired", "SubstanceAdministrationNotes"),
        *("WaveformData", "ImageComments", "ContrastBolusRoute", "RequestingService"),
    }
    assert len(left) < 250


KEPT_KEYWORDS = {"SpecificCharacterSet", "Modality", "BurnedInAnnotation"}


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("ExposureTime", "IS", "QX MUELLER"),  # no number
        ("KVP", "DS", "QX"),
        ("ExposureTime", "LO", "QX"),
        ("ViewCodeSequence", "OB", b"QX MUELLER"),  # no sequence
        ("ReferencedImageSequence", "OB", b"QX MUELLER"),  # which the table keeps
        ("OtherStudyNumbers", "IS", "4711"),  # retired
    ],
)
def test_what_is_not_what_it_should_be(keyword, vr, value):
    dataset = original("CT_small.dcm")
    with config.disable_value_validation():
        dataset[keyword] = DataElement(Tag(keyword), "LO" if vr in ("IS", "DS") else vr, value)
        dataset = dcmread(BytesIO(as_told(encoded(dataset), keyword, vr)))
    assert keyword not in dcmread(BytesIO(deidentified(encoded(dataset))))


def as_told(data: bytes, keyword: str, vr: str) -> bytes:
    """An explicit file whose element has another VR of short values than it was written with."""
    if vr not in ("IS", "DS"):
        return data
    tag = struct.pack("<HH", Tag(keyword).group, Tag(keyword).element)
    assert data.count(tag + b"LO") == 1
    return data.replace(tag + b"LO", tag + vr.encode())


def test_what_an_image_needs_is_kept():
    dataset = original("CT_small.dcm")
    kept = {
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "Laterality": "L",
        "KVP": "120",
        "ConvolutionKernel": "B30",
        "ImagerPixelSpacing": [0.1, 0.1],
        "PixelIntensityRelationship": "LOG",
        "PresentationLUTShape": "IDENTITY",
        "LossyImageCompression": "01",
        "ManufacturerModelName": "X",
    }
    for keyword, value in kept.items():
        setattr(dataset, keyword, value)
    copy = dcmread(BytesIO(deidentified(encoded(dataset))))
    assert {each: str(copy[each].value) for each in kept} == {
        each: str(dataset[each].value) for each in kept
    }
    assert copy.PositionReferenceIndicator == ""  # of type 2: there, and empty


@pytest.mark.peers
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "examples_overlay.dcm"])
def test_a_copy_is_as_valid_as_its_original(name, tmp_path):
    """By dciodvfy, which knows each kind of object: what was required is still there."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dicom3tools is not installed")

    def errors(data: bytes) -> set[str]:
        (tmp_path / "one.dcm").write_bytes(data)
        done = subprocess.run(
            ["dciodvfy", tmp_path / "one.dcm"], capture_output=True, text=True, errors="replace"
        )
        return {line for line in done.stderr.splitlines() if line.startswith("Error")}

    data = encoded(original(name))
    assert errors(deidentified(data)) <= errors(data)


def test_uids_stay_consistent():
    first, second = original("CT_small.dcm"), original("CT_small.dcm")
    second.SOPInstanceUID = f"{OUR_ROOT}2"
    reference = Dataset()
    reference.ReferencedSOPClassUID = first.SOPClassUID
    reference.ReferencedSOPInstanceUID = first.SOPInstanceUID
    second.SourceImageSequence = [reference]
    one, two = (dcmread(BytesIO(deidentified(encoded(each)))) for each in (first, second))
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert getattr(one, keyword) == getattr(two, keyword) != getattr(first, keyword)
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert two.SourceImageSequence[0].ReferencedSOPInstanceUID == one.SOPInstanceUID
    assert two.SourceImageSequence[0].ReferencedSOPClassUID == first.SOPClassUID
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids(two))


def test_the_key_makes_the_pseudonyms():
    data = encoded(original("CT_small.dcm"))
    assert deidentified(data) == deidentified(data)
    other = bytes(32)
    mine, theirs = (dcmread(BytesIO(deidentified(data, key))) for key in (KEY, other))
    assert mine.PatientID != theirs.PatientID
    assert mine.SOPInstanceUID != theirs.SOPInstanceUID


def test_a_patient_is_told_by_the_id():
    """Padding aside; without an ID, studies are apart, because nothing says they are one's."""

    def pseudonym(**changes: str) -> str:
        dataset = original("CT_small.dcm")
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        return Deidentifier(KEY).deidentify(encoded(dataset)).after.patient

    assert pseudonym(PatientID="7") == pseudonym(PatientID="7 ", StudyInstanceUID="1.2.3")
    assert pseudonym(PatientID="7") != pseudonym(PatientID="8")
    assert pseudonym(PatientID="") == pseudonym(PatientID="", SeriesInstanceUID="1.2.3")
    assert pseudonym(PatientID="") != pseudonym(PatientID="", StudyInstanceUID="1.2.3")


# --- what is refused ---


@pytest.mark.parametrize(
    "change",
    [
        {"BurnedInAnnotation": "YES"},
        {"RecognizableVisualFeatures": "YES"},
        {"Modality": "US"},
        {"Modality": "OT"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"},
        {"OverlayBitPosition": 12},
    ],
    ids=str,
)
def test_pixels_that_may_show_who_it_is(change):
    dataset = original("CT_small.dcm")
    for keyword, value in change.items():
        if keyword == "OverlayBitPosition":
            dataset.add_new(0x60000102, "US", value)
        else:
            setattr(dataset, keyword, value)
    data = encoded(dataset)
    with pytest.raises(BurnedIn, match="--allow-burned-in"):
        Deidentifier(KEY).deidentify(data)
    assert dcmread(BytesIO(deidentified(data))).PixelData == dataset.PixelData


def test_a_maker_may_say_that_nothing_is_burned_in():
    dataset = original("examples_palette.dcm")
    assert dataset.Modality == "US"
    dataset.BurnedInAnnotation = "NO"
    assert Deidentifier(KEY).deidentify(encoded(dataset)).after.patient


@pytest.mark.parametrize("name", ["MR_small.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm"])
def test_a_file_that_was_cut(name):
    data = encoded(original(name))
    for share in (0.98, 0.7, 0.5):
        with pytest.raises(InputError):
            deidentified(data[: int(len(data) * share)])


def test_what_is_no_image():
    with pytest.raises(DicomNoPixels):
        deidentified(encoded(original("test-SR.dcm")))


def test_an_image_without_a_name():
    dataset = original("CT_small.dcm")
    data = encoded(dataset)
    tag = b"\x08\x00\x18\x00UI"
    at = data.index(tag) + 6
    length = int.from_bytes(data[at : at + 2], "little")
    nameless = data[:at] + b"\0\0" + data[at + 2 + length :]
    with pytest.raises(DicomInvalid, match="SOPInstanceUID"):
        deidentified(nameless)


# --- the command ---


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two patients, three images, a report, a cut image, an ultrasound, and what is not DICOM."""
    folder = tmp_path / "archive"
    (folder / "MUELLER^ANNA").mkdir(parents=True)
    for number, (patient, name) in enumerate(
        [("QX-1", "MUELLER^ANNA/1.dcm"), ("QX-1", "MUELLER^ANNA/2"), ("QX-2", "3.dcm")]
    ):
        dataset = original("CT_small.dcm")
        dataset.PatientID = patient
        dataset.SOPInstanceUID = f"{OUR_ROOT}{number}"
        (folder / name).write_bytes(encoded(dataset))
    for name in ("test-SR.dcm", "MR_truncated.dcm", "examples_palette.dcm"):
        shutil.copy(file(name), folder)
    (folder / "DICOMDIR").write_bytes((folder / "3.dcm").read_bytes())
    (folder / "notes.txt").write_text("QX")
    return folder


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., SimpleNamespace]:
    def run(*words: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["medimg-edge", "deidentify", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code or 0, out=out, err=err)

    return run


def names(folder: Path) -> list[str]:
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*.dcm"))


def test_a_folder(archive, tmp_path, called, state):
    out = tmp_path / "out"
    done = called(archive, out)
    assert done.code == 1
    assert done.out.startswith(f"3 images written to {out}, 0 were there; of 2 patients. 3 refused")
    assert "2 other files passed over" in done.out
    for line in ("MR_truncated.dcm", "test-SR.dcm", "examples_palette.dcm"):
        assert f"refused: {line}: " in done.err
    copies = names(out)
    assert len(copies) == 3
    assert len({each.split("/")[0] for each in copies}) == 2
    for each in copies:
        dataset = dcmread(out / each)
        assert each == f"{dataset.PatientID}/{dataset.SOPInstanceUID}.dcm"
    assert {path.suffix for path in out.rglob("*") if path.is_file()} == {".dcm"}
    assert stat.S_IMODE((state / "deidentify.key").stat().st_mode) == 0o600


def test_a_second_run(archive, tmp_path, called):
    out, again = tmp_path / "out", tmp_path / "again"
    called(archive, out)
    first = {name: (out / name).stat().st_mtime_ns for name in names(out)}
    assert "0 images written" in called(archive, out).out
    assert {name: (out / name).stat().st_mtime_ns for name in names(out)} == first
    called(archive, again)
    assert names(again) == names(out)
    called(archive, tmp_path / "third", "--key", tmp_path / "third.key")
    assert not set(names(tmp_path / "third")) & set(names(out))


def test_nothing_is_overwritten(archive, tmp_path, called):
    """Two images under one SOP Instance UID: the second is refused, not lost in silence."""
    dataset = dcmread(archive / "3.dcm")
    dataset.InstanceNumber = 4711
    (archive / "4.dcm").write_bytes(encoded(dataset))
    out = tmp_path / "out"
    done = called(archive, out)
    assert done.code == 1
    assert "refused: 4.dcm: " in done.err
    assert "[dicom-invalid]" in done.err
    kept = [dcmread(out / each).InstanceNumber for each in names(out)]
    assert 4711 not in kept


def test_the_map_is_secret_and_makes_a_label_sheet(archive, tmp_path, called):
    """The clinic adds a label to path and group: that is a sheet to train on."""
    out, secret = tmp_path / "out", tmp_path / "map.csv"
    called(archive, out, "--map", secret)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    rows = list(csv.DictReader(secret.open(newline="")))
    assert sorted(row["path"] for row in rows) == names(out)
    assert {row["source"] for row in rows} == {"MUELLER^ANNA/1.dcm", "MUELLER^ANNA/2", "3.dcm"}
    assert {row["patient_id"] for row in rows} == {"QX-1", "QX-2"}
    assert {row["instance_uid"] for row in rows} == {f"{OUR_ROOT}{each}" for each in range(3)}
    sheet = out / "labels.csv"
    lines = [f"{row['path']},{row['group']},normal" for row in rows]
    sheet.write_text("\n".join(["path,group,label", *lines]))
    assert len({each.group for each in read_labels(sheet).rows}) == 2

    refused = called(archive, out, "--map", secret)
    assert "error [write]" in refused.err
    assert list(csv.DictReader(secret.open(newline=""))) == rows


@pytest.mark.parametrize(
    "words",
    [
        ("archive", "archive/out"),
        ("archive/in", "archive"),
        ("archive", "out", "--key", "out/key"),
        ("archive", "out", "--map", "out/below/map.csv"),
        ("archive", "out", "--key", "archive/3.dcm"),
        ("archive/3.dcm", "archive"),
        ("nothing", "out"),
    ],
    ids=" ".join,
)
def test_secrets_stay_apart(archive, tmp_path, called, words):
    (archive / "in").mkdir()
    before = sorted(archive.rglob("*"))
    arguments = [word if word.startswith("-") else tmp_path / word for word in words]
    done = called(*arguments)
    assert done.code == 1
    assert done.err.startswith("error [")
    assert sorted(archive.rglob("*")) == before
    assert not (tmp_path / "out").exists()


def test_a_folder_without_dicom(tmp_path, called):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("hello")
    assert "error [input-no-images]" in called(tmp_path / "in", tmp_path / "out").err


def test_one_file(tmp_path, called, archive):
    done = called(archive / "3.dcm", tmp_path / "out")
    assert done.code == 0
    assert len(names(tmp_path / "out")) == 1


def test_without_the_package(archive, tmp_path):
    """The extra is named; no copy, no traceback."""
    program = (
        "import sys; sys.modules['dicomanonymizer'] = None\n"
        "from medimg_edge.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "deidentify", str(archive), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=os.environ | {"MEDIMG_EDGE_STATE": str(tmp_path / "state")},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error [extra-missing]: ")
    assert "medimg-edge[dicom]" in done.stderr
    assert not (tmp_path / "out").exists()
