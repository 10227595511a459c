"""Sets of each kind on disk: layout, headers, and PNG and DICOM files that show the same."""

from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from medimg_edge.errors import DataInvalid
from medimg_edge.manifest import Preprocessing
from medimg_edge.preprocess import preprocess
from medimg_edge.reader import read_image
from medimg_export.dataset import open_dataset
from medimg_export.phantoms import GROUP_PATTERN, KINDS, write

NEW = ("ct", "mri", "bone")
SIZE = 72
COUNT = 24


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """24 phantoms of each kind, 8 of them to test."""
    root = tmp_path_factory.mktemp("kinds")
    splits = {"train": 1 / 3, "val": 1 / 3, "test": 1 / 3}
    for kind in KINDS:
        write(root / kind, COUNT, kind=kind, size=SIZE, seed=2, splits=splits)
    return {kind: root / kind for kind in KINDS}


def dicom_files(sets: dict[str, Path], kind: str) -> list[pydicom.FileDataset]:
    found = sorted(sets[kind].rglob("*.dcm"))
    assert len(found) == (COUNT if kind == "ct" else COUNT // 3)
    return [pydicom.dcmread(path) for path in found]


@pytest.mark.parametrize("kind", NEW)
def test_equal_arguments_write_equal_bytes(sets, kind: str, tmp_path: Path):
    splits = {"train": 1 / 3, "val": 1 / 3, "test": 1 / 3}
    write(tmp_path / "again", COUNT, kind=kind, size=SIZE, seed=2, splits=splits)
    assert contents(tmp_path / "again") == contents(sets[kind])
    write(tmp_path / "other", COUNT, kind=kind, size=SIZE, seed=3, splits=splits)
    images = [
        {data for name, data in contents(root).items() if not name.startswith("masks")}
        for root in (sets[kind], tmp_path / "other")
    ]
    assert not images[0] & images[1]


@pytest.mark.parametrize("kind", NEW)
def test_training_finds_classes_splits_and_patients(sets, kind: str):
    found = open_dataset(sets[kind], group_pattern=GROUP_PATTERN)
    assert set(found.labels) == set(KINDS[kind].classes)
    assert found.task == ("multiclass" if kind == "mri" else "binary")
    assert len(found.samples) == COUNT
    assert len({sample.group for sample in found.samples}) == COUNT
    assert {split: len(samples) for split, samples in found.by_split.items()} == {
        "train": 8,
        "val": 8,
        "test": 8,
    }
    counts = np.bincount([int(np.sum(sample.label)) for sample in found.samples])
    assert sorted(counts) == ([6, 6, 12] if kind == "mri" else [12, 12])


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_has_a_finding_or_nothing(sets, kind: str):
    masks = sorted((sets[kind] / "masks").rglob("*.png"))
    assert len(masks) == COUNT
    for path in masks:
        (picture,) = (sets[kind] / path.parent.name).rglob(f"{path.stem}.*")
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert mask is not None
        assert mask.shape == read_image(picture).size
        assert mask.any() == (picture.parent.name != "normal")


def as_the_device_sees(path: Path) -> NDArray[np.uint8]:
    return preprocess(read_image(path), Preprocessing(SIZE, SIZE))


@pytest.mark.parametrize("kind", KINDS)
def test_png_and_dicom_show_the_same(sets, kind: str):
    other = "test-png" if kind == "ct" else "test-dicom"
    tested = [path for path in sorted((sets[kind] / "test").rglob("*")) if path.is_file()]
    assert len(tested) == 8
    for path in tested:
        (copy,) = (sets[kind] / other / path.parent.name).glob(f"{path.stem}.*")
        assert {path.suffix, copy.suffix} == {".png", ".dcm"}
        shown, again = (as_the_device_sees(each).astype(int) for each in (path, copy))
        assert np.abs(shown - again).max() <= 1
        assert shown.std() > 20


@pytest.mark.parametrize("kind", NEW)
def test_headers_are_nobodys_and_each_file_is_of_its_own(sets, kind: str):
    datasets = dicom_files(sets, kind)
    for dataset in datasets:
        assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert dataset.PatientName == "PHANTOM"
        assert dataset.PatientBirthDate == dataset.PatientSex == ""
        assert len(dataset.PixelData) == dataset.Rows * dataset.Columns * 2
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"):
        assert len({dataset[keyword].value for dataset in datasets}) == len(datasets)


def test_ct_is_stored_signed_and_rescaled_to_hounsfield_units(sets):
    datasets = dicom_files(sets, "ct")
    for dataset in datasets:
        assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
        assert (dataset.Modality, dataset.BodyPartExamined) == ("CT", "CHEST")
        assert (dataset.PixelRepresentation, dataset.BitsStored) == (1, 16)
        assert (dataset.RescaleSlope, dataset.RescaleType) == (1, "HU")
        hu = np.frombuffer(dataset.PixelData, "<i2").reshape(dataset.Rows, dataset.Columns)
        hu = hu + int(dataset.RescaleIntercept)
        assert np.median(hu[:4]) == pytest.approx(-1000, abs=20)
        assert hu.max() > 500
        assert list(dataset.WindowCenter) == [-600, 40]
        assert dataset.PixelSpacing[0] == pytest.approx(380 / SIZE, abs=1e-5)
        assert list(dataset.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    assert {int(dataset.RescaleIntercept) for dataset in datasets} == {-1024, 0}


def test_mr_has_12_bits_and_a_window_of_its_own(sets):
    datasets = dicom_files(sets, "mri")
    for dataset in datasets:
        assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.4"
        assert (dataset.Modality, dataset.BodyPartExamined) == ("MR", "HEAD")
        assert (dataset.PixelRepresentation, dataset.BitsStored) == (0, 12)
        assert dataset.pixel_array.max() < 4096
        assert (dataset.ScanningSequence, dataset.MRAcquisitionType) == ("SE", "2D")
        assert "RescaleIntercept" not in dataset
    assert len({dataset.WindowWidth for dataset in datasets}) > 4


def test_bone_is_a_dx_image_of_a_leg_with_its_side(sets):
    datasets = dicom_files(sets, "bone")
    for dataset in datasets:
        assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
        assert (dataset.Modality, dataset.BodyPartExamined) == ("DX", "LEG")
        assert dataset.ViewPosition == "AP"
        assert dataset.Rows > dataset.Columns
    assert {dataset.ImageLaterality for dataset in datasets} == {"L", "R"}
    kinds = {(dataset.PhotometricInterpretation, dataset.BitsStored) for dataset in datasets}
    assert kinds == {(f"MONOCHROME{n}", bits) for n in (1, 2) for bits in (12, 16)}


@pytest.mark.parametrize(("first", "second"), [("png", "dicom"), ("dicom", "png")])
def test_either_format_can_be_that_of_the_class_folders(tmp_path: Path, first: str, second: str):
    write(tmp_path, 8, kind="ct", size=32, formats=[first, second], splits={"test": 1})
    suffix = {"png": ".png", "dicom": ".dcm"}
    folders = {"test": suffix[first], f"test-{second}": suffix[second], "masks": ".png"}
    assert {path.name for path in tmp_path.iterdir()} == set(folders)
    for folder, ending in folders.items():
        files = [path for path in (tmp_path / folder).rglob("*") if path.is_file()]
        assert len(files) == 8
        assert {path.suffix for path in files} == {ending}


def test_an_unknown_kind_is_named_with_those_there_are(tmp_path: Path):
    with pytest.raises(DataInvalid, match="'pet'; chest, ct, mri, bone"):
        write(tmp_path / "set", kind="pet")
    assert not (tmp_path / "set").exists()
