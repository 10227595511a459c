"""Data made ready: sizes filled in, labels in order, the rows of each split."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from medimg_edge.errors import DataInvalid, TooFewImages
from medimg_edge.preprocess import preprocess
from medimg_edge.reader import read_image
from medimg_export.prepared import encoded, prepare
from medimg_export.recipe import Recipe, override

Arrays = Callable[..., Path]
LABELS = [0, 1] * 20


def folders(root: Path, classes: dict[str, int], size: int = 40) -> Path:
    random = np.random.default_rng(0)
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (size, size), np.uint8)
            cv2.imwrite(str(root / name / f"patient{number // 2}-{number}.png"), pixels)
    return root


BINARY = {"normal": 10, "sick": 10}


@pytest.mark.parametrize(
    ("size", "backbone", "expected"),
    [
        (None, "auto", (224, "efficientnet-lite0")),
        (None, "tiny", (64, "tiny")),
        (None, "baseline", (64, "baseline")),
        (95, "auto", (95, "tiny")),
        (96, "auto", (96, "efficientnet-lite0")),
        (32, "efficientnet-lite0", (32, "efficientnet-lite0")),
    ],
)
def test_files_get_the_size_of_the_backbone(tmp_path: Path, size, backbone, expected):
    recipe = override(Recipe(), pixels={"size": size}, training={"backbone": backbone})
    found = prepare(folders(tmp_path / "data", BINARY), recipe)
    assert (found.recipe.pixels.size, found.recipe.training.backbone) == expected
    assert found.preprocessing.shape == (expected[0], expected[0], 1)
    assert found.cached.pixels.shape == (20, expected[0], expected[0], 1)


def test_arrays_keep_their_own_size(arrays: Arrays):
    found = prepare(arrays(LABELS, size=28), override(Recipe(), data={"labels": ["no", "yes"]}))
    assert (found.recipe.pixels.size, found.recipe.training.backbone) == (28, "tiny")
    larger = prepare(
        arrays(LABELS, size=28),
        override(Recipe(), data={"labels": ["no", "yes"]}, pixels={"size": 40, "color": "rgb"}),
    )
    assert larger.cached.pixels.shape == (40, 40, 40, 3)


def test_rows_are_the_devices_pixels_and_stay_on_disk(tmp_path: Path):
    data = folders(tmp_path / "data", BINARY)
    found = prepare(data, override(Recipe(), pixels={"size": 24, "geometry": "letterbox"}))
    assert isinstance(found.cached.pixels, np.memmap)
    rows = np.concatenate([found.rows(split) for split in ("train", "val", "test")])
    assert sorted(rows) == list(range(20))
    for row, sample in zip(rows, found.samples(rows), strict=True):
        source = encoded(sample)
        assert source == sample.source
        expected = preprocess(read_image(source), found.preprocessing)
        assert np.array_equal(found.cached.pixels[row], expected)
        assert found.y[row] == sample.name.startswith("sick/")


def test_the_device_is_given_the_array_of_a_row(arrays: Arrays):
    path = arrays(LABELS)
    found = prepare(path, override(Recipe(), data={"labels": ["no", "yes"]}))
    stored = np.load(path)["train_images"]
    for row, sample in enumerate(found.samples(np.arange(len(LABELS)))):
        assert np.array_equal(np.asarray(encoded(sample)), stored[row])


def test_groups_are_known_or_not(tmp_path: Path):
    data = folders(tmp_path / "data", {"normal": 24, "sick": 24})
    recipe = override(Recipe(), pixels={"size": 24})
    assert prepare(data, recipe).groups(np.arange(4)) is None
    found = prepare(data, override(recipe, data={"group_pattern": r"patient(\d+)"}))
    assert found.groups(np.arange(4)) == ["0", "0", "1", "1"]
    of = {split: set(found.groups(found.rows(split)) or []) for split in ("train", "val", "test")}
    assert not of["train"] & of["val"] | of["train"] & of["test"] | of["val"] & of["test"]


def test_labels_can_follow_a_models_outputs(tmp_path: Path):
    recipe = override(Recipe(), pixels={"size": 24})
    data = folders(tmp_path / "three", {"a": 8, "b": 8, "c": 8})
    order = ("c", "a", "b")
    found = prepare(data, recipe, order=order)
    assert found.dataset.labels == order
    for row, sample in enumerate(found.samples(np.arange(24))):
        assert order[found.y[row]] == Path(sample.name).parts[0]
    binary = prepare(folders(tmp_path / "two", BINARY), recipe, order=("sick", "normal"))
    assert binary.dataset.labels == ("normal", "sick")
    with pytest.raises(DataInvalid, match="c"):
        prepare(data, recipe, order=("a", "b"))


def test_the_fingerprint_follows_contents_and_labels_not_places(tmp_path: Path):
    recipe = override(Recipe(), pixels={"size": 24})
    data = folders(tmp_path / "data", BINARY)
    first = prepare(data, recipe).describe()["fingerprint"]
    moved = data.rename(tmp_path / "moved")
    assert prepare(moved, recipe).describe()["fingerprint"] == first
    (moved / "normal" / "patient0-0.png").rename(moved / "sick" / "new.png")
    assert prepare(moved, recipe).describe()["fingerprint"] != first


def test_one_image_of_a_class_cannot_be_split(tmp_path: Path):
    data = folders(tmp_path / "data", {"normal": 12, "sick": 1})
    with pytest.raises(TooFewImages, match="'sick' has 1 usable images"):
        prepare(data, override(Recipe(), pixels={"size": 24}))
