"""The ladders of `benchmarks/corruptions.py`: from mild to strong, and always the same."""

import csv
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.corruption_ladder import LADDER, SEVERITIES, corrupted
from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.reader import read_image
from medimg_edge.record import Answer, Failure
from medimg_export.phantom_chest import chest

ROOT = Path(__file__).parents[2]
FROZEN = ROOT / "tests" / "data" / "frozen-bundle"
DRAWN = {
    "gaussian noise",
    "shot noise",
    "speckle noise",
    "impulse noise",
    "movement",
    "rotation",
    "crop",
    "burnt-in text",
    "grid",
    "low dose",
}


def radiograph(seed: int, side: int = 224) -> NDArray[np.uint8]:
    """Grey, uint8 (side, side, 1)."""
    return (chest(seed, positive=bool(seed % 2), size=side).pixels >> 8).astype(np.uint8)[..., None]


def halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = pixels.shape[1] // 2, pixels.shape[0] // 2
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Root of the mean square, in grey levels."""
    return float(np.sqrt(np.mean((one.astype(np.float64) - other) ** 2)))


@pytest.fixture(scope="module")
def benchmark():
    """The script as a module; it imports what lies beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield import_module("corruptions")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """24 phantoms of 8 bits in class folders."""
    folder = tmp_path_factory.mktemp("ladder") / "data"
    for seed in range(700, 724):
        label = "opacity" if seed % 2 else "normal"
        (folder / label).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / label / f"{seed}.png"), radiograph(seed, 64))
    return folder


@pytest.mark.parametrize("shape", [(224, 168), (224, 168, 1), (180, 224, 3)])
@pytest.mark.parametrize("name", LADDER)
def test_shape_and_type_stay_and_the_image_is_not_touched(name, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    before = pixels.copy()
    for severity in SEVERITIES:
        changed = corrupted(pixels, name, severity)
        assert changed.shape == shape
        assert changed.dtype == np.uint8
        assert not np.array_equal(changed, pixels)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("name", LADDER)
def test_what_is_drawn_follows_from_the_seed(name):
    pixels = radiograph(3)
    once, again, other = (corrupted(pixels, name, 5, seed) for seed in (7, 7, 8))
    assert np.array_equal(once, again)
    assert np.array_equal(once, other) is (name not in DRAWN)


@pytest.mark.parametrize("name", LADDER)
def test_each_severity_is_farther_from_the_image(name):
    for seed in range(4):
        pixels = radiograph(seed)
        away = [
            distance(corrupted(pixels, name, severity, seed), pixels) for severity in SEVERITIES
        ]
        assert away == sorted(set(away)), f"seed {seed}: {away}"
        assert away[0] > 0.3


@pytest.mark.parametrize("name", LADDER)
def test_a_grey_image_in_three_channels_stays_grey(name):
    pixels = radiograph(1)
    changed = corrupted(np.repeat(pixels, 3, axis=2), name, 4)
    assert np.array_equal(changed[..., 0], changed[..., 1])
    assert np.array_equal(changed[..., 1], changed[..., 2])


@pytest.mark.parametrize("name", ["gaussian blur", "defocus", "movement"])
def test_a_blur_is_as_wide_on_a_larger_image(name):
    large = radiograph(2, 448)
    small, of_large = (halved(each) for each in (large, corrupted(large, name, 5)))
    of_small = corrupted(small, name, 5)
    assert distance(of_large, of_small) < 0.25 * distance(of_small, small)


def test_values_that_can_be_told():
    pixels = radiograph(5)
    assert np.array_equal(corrupted(pixels, "inverted", 5), 255 - pixels)
    darker = corrupted(pixels, "brightness down", 5)
    assert np.array_equal(darker, np.rint(pixels / np.float32(255) * np.float32(0.5) * 255))
    changed = corrupted(np.full((400, 400, 1), 128, np.uint8), "impulse noise", 5)
    assert 0.018 < np.mean(changed != 128) < 0.022
    assert 0.4 < np.mean(changed[changed != 128] == 255) < 0.6
    deviation = corrupted(np.full((400, 400, 1), 128, np.uint8), "gaussian noise", 5).std() / 255
    assert deviation == pytest.approx(0.08, rel=0.02)


def test_a_low_dose_is_grain_where_few_photons_come_and_no_other_brightness():
    grey = np.repeat(np.array([[30], [220]], np.uint8), 200, axis=0) * np.ones((1, 400), np.uint8)
    changed = corrupted(grey, "low dose", 3).astype(np.float64)
    dark, bright = changed[:200], changed[200:]
    assert dark.mean() == pytest.approx(30, abs=1)
    assert bright.mean() == pytest.approx(220, abs=1)
    assert bright.std() > 2 * dark.std()


def test_figures_are_those_of_the_answers(benchmark, data, tmp_path):
    """The script as it is run: images as they are give what the files themselves give."""
    rows_of, table, sheet = tmp_path / "rows.csv", tmp_path / "table.md", tmp_path / "sheet.png"
    table.write_text(f"before\n{benchmark.BEGIN}\nold\n{benchmark.END}\nafter\n")
    words = [
        ROOT / "benchmarks" / "corruptions.py",
        FROZEN,
        data,
        "--csv",
        rows_of,
        "--sheet",
        sheet,
    ]
    words += ["--only", "inverted", "low dose", "--markdown", table]
    subprocess.run([sys.executable, *map(str, words)], check=True, capture_output=True)
    rows = list(csv.DictReader(rows_of.read_text().splitlines()))
    ladder = [(name, str(severity)) for name in ("inverted", "low dose") for severity in SEVERITIES]
    assert [(row["corruption"], row["severity"]) for row in rows] == [
        (benchmark.CLEAN, "0"),
        *ladder,
    ]

    classifier = Classifier(Bundle.open(FROZEN), profile=None)
    files = sorted(data.rglob("*.png"))
    y = [int(file.parent.name == "opacity") for file in files]
    found = [
        each if isinstance(each, Failure) else each.record
        for each in classifier.predict_many(files)
    ]
    clean = benchmark.counted(y, found).row()
    assert {name: str(value) for name, value in clean.items()}.items() <= rows[0].items()
    assert float(clean["balanced_accuracy"]) > 0.8
    worst = rows[5]
    flagged = float(worst["rejected"]) + float(worst["referred"]) + float(worst["wrong_unflagged"])
    assert flagged > 0.2, "a negative is read as well as the image"

    text = table.read_text()
    assert text.startswith(f"before\n{benchmark.BEGIN}\nphantom-opacity 0.1.0")
    assert text.endswith(f"{benchmark.END}\nafter\n")
    assert "old" not in text
    assert text.count("| inverted |") == text.count("| low dose |") == 1
    assert read_image(sheet).frames.shape == (1, len(LADDER) * 178, 960, 3)


def test_counted_by_hand(benchmark):
    """Two of each class decided, one wrongly; one referred; one rejected."""
    classifier = Classifier(Bundle.open(FROZEN), profile=None)
    answer = classifier.predict(radiograph(1, 64)[..., 0]).record

    def said(p: float, decision: str) -> Answer:
        return msgspec.structs.replace(answer, probability=p, decision=decision)

    turned_away = Failure(input="x", status="rejected", code="inverted", message="A negative.")
    records = [
        said(0.1, "negative"),
        said(0.9, "positive"),
        said(0.8, "positive"),
        said(0.6, "positive"),
        said(0.5, "refer"),
        turned_away,
    ]
    row = benchmark.counted([0, 0, 1, 1, 1, 0], records).row()
    assert row == {
        "n": 6,
        "rejected": "0.1667",
        "referred": "0.1667",
        "wrong_unflagged": "0.1667",
        "decided_negative": 2,
        "decided_positive": 2,
        "balanced_accuracy": "0.7500",
        "ece": row["ece"],
        "codes": "inverted 1",
    }
    nobody = benchmark.counted([0, 1], [turned_away, turned_away]).row()
    assert (nobody["balanced_accuracy"], nobody["ece"], nobody["rejected"]) == ("", "", "1.0000")


def test_a_file_without_the_markers_is_left_alone(benchmark, tmp_path):
    page = tmp_path / "results.md"
    page.write_text("# Results\n")
    with pytest.raises(SystemExit, match="has no lines"):
        benchmark.write_between(page, "table")
    assert page.read_text() == "# Results\n"
