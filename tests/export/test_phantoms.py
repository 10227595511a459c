import resource
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_modality_lut, apply_windowing
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from medimg_edge.errors import DataInvalid, WriteError
from medimg_export.class_folders import list_class_folders
from medimg_export.phantoms import chest, write

HALVES = {"train": 0.25, "val": 0.25, "test": 0.5}


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def eight_bits(pixels: NDArray) -> NDArray[np.int64]:
    scale = 255 / np.iinfo(pixels.dtype).max
    return np.rint(pixels * scale).astype(np.int64)


def read_png(path: Path) -> NDArray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 phantoms of 64 px, half of them for testing."""
    out = tmp_path_factory.mktemp("phantoms") / "set"
    write(out, 40, size=64, seed=3, splits=HALVES)
    return out


# --- one chest ---


@pytest.mark.parametrize("size", [32, 64, 257, 512])
def test_arrays_are_what_the_docstring_says(size: int):
    for positive in (False, True):
        phantom = chest(5, positive, size)
        assert phantom.pixels.dtype == np.uint16
        assert phantom.mask.dtype == phantom.lungs.dtype == np.uint8
        assert phantom.pixels.shape == phantom.mask.shape == phantom.lungs.shape == (size, size)
        assert phantom.pixels.min() < 10_000
        assert phantom.pixels.max() > 50_000
        assert (phantom.positive, phantom.seed) == (positive, 5)


def test_opacities_lie_in_the_lungs_of_positives_only():
    for seed in range(25):
        assert not chest(seed, False, 96).mask.any()
        phantom = chest(seed, True, 96)
        assert set(np.unique(phantom.mask)) == {0, 255}
        assert (phantom.lungs[phantom.mask > 0] == 255).all()
        assert 0.003 < (phantom.mask > 0).mean() < 0.15
        assert 0.1 < (phantom.lungs > 0).mean() < 0.5


def test_the_label_changes_the_opacity_and_nothing_else():
    visible = []
    for seed in range(25):
        with_it, without = chest(seed, True, 96), chest(seed, False, 96)
        change = with_it.pixels.astype(np.int64) - without.pixels
        assert np.array_equal(with_it.lungs, without.lungs)
        assert change.min() == 0
        assert not change[with_it.lungs == 0].any()
        visible.append(change[with_it.mask > 0].mean() / 65535)
    assert np.percentile(visible, 10) > 0.08  # plain to see in nine of ten, and there in all
    assert min(visible) > 0.03


def test_opacities_lie_anywhere():
    union = np.sum([chest(seed, True, 64).mask > 0 for seed in range(100)], axis=0)
    halves = union[:, :32].sum() / union.sum(), union[:32].sum() / union.sum()
    assert 0.35 < halves[0] < 0.65
    assert 0.35 < halves[1] < 0.75
    assert union.max() / 100 < 0.3


def test_severity_scales_the_opacity():
    none, full = chest(1, False, 64).pixels, chest(1, True, 64)
    half = chest(1, True, 64, severity=0.5).pixels
    assert np.array_equal(chest(1, True, 64, severity=0).pixels, none)
    inside = full.mask > 0
    assert none[inside].mean() < half[inside].mean() < full.pixels[inside].mean()


@pytest.mark.parametrize("positive", [False, True])
def test_a_seed_shows_the_same_chest_at_every_size(positive: bool):
    for seed in range(8):
        large, small = chest(seed, positive, 512), chest(seed, positive, 128)
        for a, b, least in [(large.pixels, small.pixels, 0.98), (large.lungs, small.lungs, 0.97)]:
            reduced = cv2.resize(a, (128, 128), interpolation=cv2.INTER_AREA)
            assert np.corrcoef(reduced.ravel(), b.ravel())[0, 1] > least


def test_logistic_regression_fails():
    thumbnails = [
        cv2.resize(chest(i, i % 2 == 1, 64).pixels, (32, 32), interpolation=cv2.INTER_AREA)
        for i in range(400)
    ]
    rows, labels = np.reshape(thumbnails, (400, -1)) / 65535, np.arange(400) % 2
    model = LogisticRegression(C=0.01, max_iter=300).fit(rows[:240], labels[:240])
    # benchmarks/phantom_difficulty.py tries more penalties on more phantoms
    assert roc_auc_score(labels[240:], model.decision_function(rows[240:])) < 0.85


# --- the data set on disk ---


def test_equal_arguments_write_equal_bytes(written: Path, tmp_path: Path):
    write(tmp_path / "again", 40, size=64, seed=3, splits=HALVES)
    assert contents(tmp_path / "again") == contents(written)


def test_another_seed_shares_no_phantom(written: Path, tmp_path: Path):
    write(tmp_path / "other", 40, size=64, seed=4, splits=HALVES)
    images = [
        {data for name, data in contents(root).items() if not name.startswith("masks")}
        for root in (written, tmp_path / "other")
    ]
    assert not images[0] & images[1]


def test_the_layout_is_class_folders_with_splits(written: Path):
    rows = list_class_folders(written).rows
    found = [(row.split, *row.labels) for row in rows]
    assert {key: found.count(key) for key in found} == {
        (split, label): count
        for split, count in [("train", 5), ("val", 5), ("test", 10)]
        for label in ("normal", "opacity")
    }
    assert [path.name for path in written.iterdir() if path.name.startswith(".")] == []


def test_every_phantom_has_its_mask(written: Path):
    pictures = [path for split in HALVES for path in (written / split).rglob("*.png")]
    assert len(pictures) == len(list((written / "masks").rglob("*.png"))) == 40
    for path in pictures:
        split, label = path.relative_to(written).parts[:2]
        mask = read_png(written / "masks" / split / path.name)
        assert mask.dtype == np.uint8
        assert mask.any() == (label == "opacity")


def test_every_fourth_png_has_16_bits(written: Path):
    for path in (path for split in HALVES for path in (written / split).rglob("*.png")):
        number = int(path.stem.removeprefix("phantom-"))
        expected = np.uint16 if number % 4 == 0 else np.uint8
        assert read_png(path).dtype == expected


def displayed(dataset: pydicom.Dataset) -> NDArray[np.int64]:
    """Grey 0..255 by PS3.3: modality LUT, window, then polarity (pydicom leaves that out)."""
    window = apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    grey = window * (255 / (2**dataset.BitsStored - 1))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    return np.rint(grey).astype(np.int64)


def test_dicom_displays_what_the_png_displays(written: Path):
    files = sorted((written / "test-dicom").rglob("*.dcm"))
    assert len(files) == 20
    kinds = set()
    for path in files:
        dataset = pydicom.dcmread(path)
        png = written / "test" / path.parent.name / f"{path.stem}.png"
        expected = eight_bits(read_png(png))
        assert np.abs(displayed(dataset) - expected).max() <= 1
        full = eight_bits(dataset.pixel_array.astype(np.uint16))
        assert np.abs(full - expected).max() > 5  # so that a forgotten window does show
        kinds.add((dataset.PhotometricInterpretation, dataset.BitsStored))
    assert kinds == {(f"MONOCHROME{n}", bits) for n in (1, 2) for bits in (12, 16)}


def test_dicom_headers_are_valid_and_nobodys(written: Path):
    datasets = [pydicom.dcmread(path) for path in (written / "test-dicom").rglob("*.dcm")]
    for dataset in datasets:
        assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert (dataset.Modality, dataset.BodyPartExamined) == ("DX", "CHEST")
        assert (dataset.ViewPosition, dataset.PatientName) == ("PA", "PHANTOM")
        assert not dataset.PatientBirthDate
        assert not dataset.PatientSex
        assert dataset.pixel_array.max() < 2**dataset.BitsStored
        for uid in (dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID):
            assert uid.is_valid
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"):
        assert len({dataset[keyword].value for dataset in datasets}) == 20


def test_prevalence_formats_and_progress(tmp_path: Path):
    calls: list[tuple[int, int]] = []
    progress = lambda done, count: calls.append((done, count))  # noqa: E731
    write(tmp_path, 20, size=32, prevalence=0.2, formats=["png"], progress=progress)
    assert len(list(tmp_path.glob("*/opacity/*.png"))) == 4
    assert len(list(tmp_path.glob("*/normal/*.png"))) == 16
    assert not (tmp_path / "test-dicom").exists()
    assert calls == [(done, 20) for done in range(1, 21)]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"count": 0}, "count is 0"),
        ({"size": 8}, "size is 8"),
        ({"seed": -1}, "seed is -1"),
        ({"prevalence": 1.5}, "prevalence is 1.5"),
        ({"splits": {"train": 0.7}}, "splits are"),
        ({"splits": {"train": 1.5, "test": -0.5}}, "splits are"),
        ({"splits": {"train": 0.5, "holdout": 0.5}}, "splits are"),
        ({"splits": {}}, "splits are"),
        ({"formats": ["jpeg"]}, "formats are"),
        ({"formats": []}, "formats are"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(tmp_path: Path, wrong: dict, named: str):
    with pytest.raises(DataInvalid, match=named):
        write(tmp_path / "set", **wrong)
    assert not (tmp_path / "set").exists()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataInvalid, match="not empty"):
        write(tmp_path, 2, size=32)
    with pytest.raises(DataInvalid, match="is a file"):
        write(tmp_path / "thesis.txt", 2, size=32)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize("existed", [False, True])
def test_an_interruption_leaves_nothing(tmp_path: Path, existed: bool):
    out = tmp_path / "set"
    if existed:
        out.mkdir()

    def interrupt(done: int, _count: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(out, 10, size=32, progress=interrupt)
    assert out.exists() == existed
    assert not contents(tmp_path)
    write(out, 4, size=32)


def test_a_write_that_fails_is_a_write_error_and_leaves_nothing(tmp_path: Path):
    """A limit on file size stands in for a full disk: the same call fails, with another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(WriteError, match="could not be written"):
            write(tmp_path / "set", 4, size=128)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "set").exists()
