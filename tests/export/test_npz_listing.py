"""MedMNIST-style files: rows, label names, and files that are not what they should be."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from medimg_edge.errors import DataInvalid
from medimg_export.npz import ArrayRow
from medimg_export.npz_listing import list_npz

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (6, 20, 20), np.uint8)
BREAST = ("malignant", "normal or benign")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MEDIMG_EDGE_CACHE", str(tmp_path / "cache"))


def write(path: Path, arrays: dict[str, np.ndarray], compressed: bool = True) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, allow_pickle=True, **arrays)
    return path


def train(labels: object, images: np.ndarray = IMAGES) -> dict[str, np.ndarray]:
    return {"train_images": images, "train_labels": np.array(labels)}


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    "images", [IMAGES, np.asfortranarray(IMAGES), np.stack([IMAGES, IMAGES + 1, IMAGES], -1)]
)
def test_rows_are_the_arrays_rows(tmp_path: Path, compressed: bool, images: np.ndarray):
    path = write(tmp_path / "x.npz", train([[0], [1], [0], [1], [1], [0]], images), compressed)
    rows = list_npz(path, None).rows
    assert [row.name for row in rows] == [f"train/{i:05d}" for i in range(6)]
    assert [row.labels for row in rows] == [("0",), ("1",), ("0",), ("1",), ("1",), ("0",)]
    for number, row in enumerate(rows):
        assert isinstance(row.source, ArrayRow)
        assert row.source.shape == images.shape[1:]
        np.testing.assert_array_equal(row.source.pixels(), images[number])
    assert not list((tmp_path / "cache").iterdir()), "the unpacked file has no name"


def test_a_changed_file_gives_its_new_pixels(tmp_path: Path):
    path = write(tmp_path / "x.npz", train([0, 1, 0, 1, 0, 1]))
    source = list_npz(path, None).rows[0].source
    assert isinstance(source, ArrayRow)
    np.testing.assert_array_equal(source.pixels(), IMAGES[0])
    write(path, train([0, 1, 0, 1, 0, 1], 255 - IMAGES), compressed=False)
    np.testing.assert_array_equal(source.pixels(), 255 - IMAGES[0])


@pytest.mark.parametrize(
    ("name", "given", "names", "positive"),
    [
        ("own.npz", None, ("0", "1"), None),
        ("own.npz", ["well", "sick"], ("well", "sick"), None),
        ("breastmnist.npz", None, BREAST, "malignant"),
        ("breastmnist_224.npz", None, BREAST, "malignant"),
        # the publisher's order stays, whatever order is asked for
        (
            "breastmnist.npz",
            ["normal or benign", "malignant"],
            ("malignant", "normal or benign"),
            "malignant",
        ),
        ("pneumoniamnist_64.npz", None, ("normal", "pneumonia"), "pneumonia"),
        ("my_breastmnist.npz", None, ("0", "1"), None),
    ],
)
def test_what_the_numbers_mean(
    tmp_path: Path,
    name: str,
    given: Sequence[str] | None,
    names: tuple[str, ...],
    positive: str | None,
):
    found = list_npz(write(tmp_path / name, train([0, 1, 1, 1, 1, 0])), given)
    assert (found.labels, found.positive, found.several) == (names, positive, False)
    assert [row.labels for row in found.rows[:2]] == [(names[0],), (names[1],)]


def test_splits_and_several_labels(tmp_path: Path):
    labels = np.zeros((6, 14), np.uint8)
    labels[0, [1, 13]] = 1
    arrays = {"test_images": IMAGES, "test_labels": labels}
    path = write(tmp_path / "chestmnist.npz", train(labels) | arrays)
    found = list_npz(path, None)
    assert found.several
    assert found.rows[0].labels == ("cardiomegaly", "hernia")
    assert found.rows[1].labels == ()
    assert [row.split for row in found.rows] == ["train"] * 6 + ["test"] * 6
    assert found.notes == ()


def test_one_of_several_is_noted(tmp_path: Path):
    found = list_npz(write(tmp_path / "x.npz", train(np.eye(6, dtype=int))), None)
    assert found.several
    assert "exactly one label" in found.notes[0]


VOLUME = np.zeros((6, 28, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "labels", "message"),
    [
        ({"images": IMAGES}, None, r"holds images\.npy; expected train_images"),
        ({"train_images": IMAGES}, None, "no train_labels"),
        (train([0, 1]), None, r"train_labels of int64 \(2, 1\); accepted .* \(6, 1\)"),
        (train([0.5] * 6), None, "float64"),
        (train([0, 1] * 3, VOLUME), None, "Volumes are not read"),
        (train([0, 1] * 3, IMAGES.astype(float)), None, "float64"),
        (train([0, 1, 2] * 2), ["a", "b"], r"3 labels, and 2 names were given \(a, b\)"),
        (train([-1, 1, 0] * 2), None, "2 train_labels outside of 0 to 1, the first in row 0: -1"),
        (train([[0, 2]] * 6), None, "outside of 0 to 1"),
        (
            train([0] * 6) | {"val_images": IMAGES, "val_labels": np.zeros((6, 3), int)},
            None,
            r"\[1, 3\] labels per image",
        ),
        (train(np.array([None] * 6)), None, "not a whole"),
    ],
)
def test_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], labels: list[str] | None, message: str
):
    with pytest.raises(DataInvalid, match=message):
        list_npz(write(tmp_path / "x.npz", arrays), labels)


def test_other_names_for_a_published_set_are_refused(tmp_path: Path):
    path = write(tmp_path / "breastmnist.npz", train([0, 1] * 3))
    with pytest.raises(DataInvalid, match="has the published labels malignant, normal or benign"):
        list_npz(path, ["healthy", "sick"])


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_broken_file_is_refused(tmp_path: Path, keep: float):
    path = write(tmp_path / "x.npz", train([0, 1] * 3))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data) if keep < 1 else keep)])
    with pytest.raises(DataInvalid, match=r"not a whole \.npz"):
        list_npz(path, None)


def test_damaged_pixels_are_refused(tmp_path: Path):
    path = write(tmp_path / "x.npz", train([0, 1] * 3), compressed=False)
    source = list_npz(path, None).rows[0].source
    assert isinstance(source, ArrayRow)
    data = bytearray(path.read_bytes())
    place = data.index(IMAGES.tobytes())
    data[place] ^= 255
    path.write_bytes(data)
    with pytest.raises(DataInvalid, match=r"not a whole \.npz"):
        source.pixels()
