"""Splits: what is never divided, how well classes are spread, and what is said of it."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medimg_edge.errors import TooFewImages
from medimg_edge.manifest import Preprocessing
from medimg_export.content import contents
from medimg_export.dataset import Sample, Split, open_dataset
from medimg_export.pixel_cache import PixelCache
from medimg_export.splits import Splits, describe, make_splits

KERMANY_GROUPS = r"person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+"


@dataclass
class Listed:
    """What make_splits needs, without images."""

    samples: list[Sample]
    digests: list[str]
    labels: Sequence[str] = ("normal", "sick")


def listed(*images: tuple[Any, Any, str | None], labels: Sequence[str] = "ab") -> Listed:
    """Images of (label, split, group), each with a content of its own."""
    samples = [
        Sample(f"{number:05}.png", Path(f"{number:05}.png"), *image)
        for number, image in enumerate(images)
    ]
    return Listed(samples, [f"{number:064x}" for number in range(len(images))], labels)


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.val), len(splits.test)


def sides(splits: Splits, keys: Sequence[object]) -> dict[object, set[str]]:
    """Which splits each key occurs in."""
    found = defaultdict(set)
    for row, split in splits.of_rows().items():
        found[keys[row]].add(split)
    return found


@st.composite
def patients(draw: st.DrawFn) -> Listed:
    """45 patients of three classes with 1 to 6 images; a few images are of another class or copies.

    The few leave every class with patients enough for three splits.
    """
    sizes = draw(st.lists(st.integers(1, 6), min_size=45, max_size=45))
    images = [
        (patient % 3, None, f"p{patient}") for patient in range(45) for _ in range(sizes[patient])
    ]
    made = listed(*images, labels="abc")
    rows = st.integers(0, len(images) - 1)
    for row, label in draw(st.lists(st.tuples(rows, st.integers(0, 2)), max_size=5)):
        made.samples[row] = replace(made.samples[row], label=label)
    for row, original in draw(st.lists(st.tuples(rows, rows), max_size=5)):
        made.digests[row] = made.digests[original]
    return made


@settings(deadline=None, max_examples=60)
@given(patients(), st.integers(0, 3))
def test_nothing_is_lost_and_nothing_that_belongs_together_is_divided(data: Listed, seed: int):
    splits = make_splits(data, seed=seed)
    rows = np.concatenate([splits.train, splits.val, splits.test])
    assert sorted(rows) == list(range(len(data.samples)))
    groups = [sample.group for sample in data.samples]
    assert {len(found) for found in sides(splits, groups).values()} == {1}
    assert {len(found) for found in sides(splits, data.digests).values()} == {1}
    assert splits.made == ("val", "test")
    assert splits.overlaps == {}


@settings(deadline=None, max_examples=60)
@given(patients(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_order_and_the_names_of_files_do_not_matter(data: Listed, seed: int, random):
    order = list(range(len(data.samples)))
    random.shuffle(order)
    shuffled = Listed(
        [replace(data.samples[row], name=f"new/{row}") for row in order],
        [data.digests[row] for row in order],
        data.labels,
    )
    first, second = make_splits(data, seed=seed), make_splits(shuffled, seed=seed)
    names = {order[row]: split for row, split in second.of_rows().items()}
    assert names == first.of_rows()
    again = make_splits(data, seed=seed)
    assert again.of_rows() == first.of_rows()
    assert again.notes == first.notes


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 6), min_size=40, max_size=200),
    st.integers(0, 3),
    st.sampled_from([0.1, 0.15, 0.3]),
)
def test_every_class_is_spread_to_within_a_patient(
    patient_sizes: list[int], seed: int, share: float
):
    images = [
        (patient % 2, None, f"p{patient}")
        for patient, size in enumerate(patient_sizes)
        for _ in range(size)
    ]
    data = listed(*images)
    splits = make_splits(data, seed=seed, val_fraction=share, test_fraction=share)
    labels = np.array([image[0] for image in images])
    for rows in (splits.val, splits.test):
        for label in (0, 1):
            wanted = share * (labels == label).sum()
            assert abs((labels[rows] == label).sum() - wanted) <= max(patient_sizes)


def test_single_images_are_spread_to_within_one():
    data = listed(*[(int(number % 10 == 0), None, None) for number in range(1000)])
    splits = make_splits(data, seed=5)
    labels = np.array([sample.label for sample in data.samples])
    counts = [
        np.bincount(labels[rows]).tolist() for rows in (splits.train, splits.val, splits.test)
    ]
    np.testing.assert_allclose(counts, [[630, 70], [135, 15], [135, 15]], atol=1)
    assert make_splits(data, seed=6).of_rows() != splits.of_rows()
    # which rows are drawn has nothing to do with where they lie
    assert 350 < np.median(splits.val) < 650


def test_several_labels_are_spread_too():
    random = np.random.default_rng(0)
    marks = (random.random((2000, 4)) < [0.5, 0.2, 0.05, 0.02]).astype(int)
    data = listed(*[(tuple(map(int, mark)), None, None) for mark in marks], labels="abcd")
    splits = make_splits(data, seed=1)
    wanted = 0.15 * marks.sum(axis=0)
    for rows in (splits.val, splits.test):
        np.testing.assert_allclose(marks[rows].sum(axis=0), wanted, atol=3)
        empty = (marks.max(axis=1) == 0).sum() * 0.15
        assert abs((marks[rows].max(axis=1) == 0).sum() - empty) <= 3


def given_splits(train: int, val: int, test: int) -> Listed:
    """So many images per class and split, each its own patient."""
    counts: dict[Split, int] = {"train": train, "val": val, "test": test}
    return listed(
        *[
            (label, split, f"{split}{label}{number}")
            for split, count in counts.items()
            for label in (0, 1)
            for number in range(count)
        ]
    )


@pytest.mark.parametrize(
    ("counts", "expected", "made"),
    [
        ((200, 50, 30), (400, 100, 60), ()),
        ((200, 49, 30), (424, 74, 60), ("val",)),
        ((200, 8, 30), (354, 62, 60), ("val",)),
        ((200, 0, 30), (340, 60, 60), ("val",)),
        ((200, 50, 0), (340, 100, 60), ("test",)),
        ((200, 20, 0), (308, 66, 66), ("val", "test")),
    ],
)
def test_given_splits_are_kept_and_missing_ones_made(
    counts: tuple[int, int, int], expected: tuple[int, int, int], made: tuple[Split, ...]
):
    data = given_splits(*counts)
    splits = make_splits(data, seed=0)
    assert sizes(splits) == pytest.approx(expected, abs=2)
    assert sum(sizes(splits)) == 2 * sum(counts)
    assert splits.made == made
    for split in {"val", "test"} - set(made):
        given_rows = [n for n, each in enumerate(data.samples) if each.split == split]
        assert getattr(splits, split).tolist() == given_rows
    merged = [note for note in splits.notes if "merged into train and made anew" in note]
    assert len(merged) == (0 < counts[1] < 50)
    if merged:
        assert f"{counts[1]} images of 'a', fewer than 50" in merged[0]


def test_the_scarcest_class_decides():
    images = [(int(n % 10 == 0), split, None) for split in ("train", "val") for n in range(400)]
    splits = make_splits(listed(*images, *[(0, "test", None)] * 9), seed=0)
    assert "40 images of 'b'" in splits.notes[0]
    assert make_splits(listed(*images), seed=0, min_val_per_class=40).made == ("test",)


def test_overlaps_are_counted_and_dropped_from_train_only():
    data = given_splits(100, 60, 60)
    train = [n for n, each in enumerate(data.samples) if each.split == "train"]
    val = [n for n, each in enumerate(data.samples) if each.split == "val"]
    test = [n for n, each in enumerate(data.samples) if each.split == "test"]
    data.digests[train[0]] = data.digests[test[0]]  # the same image
    data.samples[train[1]] = replace(data.samples[train[1]], group=data.samples[test[1]].group)
    data.samples[train[2]] = replace(data.samples[train[2]], group=data.samples[train[0]].group)
    data.digests[train[3]] = data.digests[val[3]]
    data.digests[val[4]] = data.digests[test[4]]
    kept = make_splits(data, seed=0)
    assert kept.overlaps == {
        "train/val": {"groups": 0, "contents": 1, "images": 1},
        # of train: the copy, another image of the copied patient, and the patient in both
        "train/test": {"groups": 1, "contents": 1, "images": 3},
        "val/test": {"groups": 0, "contents": 1, "images": 1},
    }
    assert sizes(kept) == (200, 120, 120)
    assert sum("--drop-overlap" in note for note in kept.notes) == 3
    dropped = make_splits(data, seed=0, drop_overlap=True)
    assert dropped.dropped.tolist() == train[:4]
    assert sizes(dropped) == (196, 120, 120)
    assert dropped.overlaps == kept.overlaps
    assert any("4 images were left out of train" in note for note in dropped.notes)


def test_a_made_split_shares_nothing_with_a_given_one():
    images: list[tuple[int, Split | None, str | None]] = [
        (number % 2, "test" if number < 100 else "train", f"p{number % 150}")
        for number in range(600)
    ]
    splits = make_splits(listed(*images), seed=0)
    groups = [image[2] for image in images]
    found = sides(splits, groups)
    assert {split for split in map(tuple, map(sorted, found.values())) if "val" in split} == {
        ("val",)
    }
    assert splits.overlaps["train/test"]["groups"] == 100


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([(0, None, None), (1, None, None)], "'a' has 1 usable images, .* left for val"),
        ([(0, None, None)] * 50 + [(1, None, None)], "'b' has 1 usable images"),
        ([(0, None, None)] * 50 + [(1, None, "p")] * 50, r"'b' has 50 .*\(of other patients\)"),
        ([(0, None, None)] * 50, "'b' has 0 usable images"),
        ([(0, "test", None), (1, "test", None)] * 60, "left for train"),
        ([(0, "val", None), (1, "val", None)] * 60, "left for train"),
    ],
)
def test_a_class_without_images_in_train_or_val(images: list, message: str):
    with pytest.raises(TooFewImages, match=message):
        make_splits(listed(*images), seed=0)


def test_description(tmp_path: Path):
    random = np.random.default_rng(0)
    for label in ("normal", "sick"):
        (tmp_path / "a" / label).mkdir(parents=True)
        for number in range(20):
            picture = random.integers(0, 256, (20 + number, 30), np.uint8)
            cv2.imwrite(str(tmp_path / "a" / label / f"p{number // 2}-{number}.png"), picture)
    (tmp_path / "a/sick/p0-copy.png").write_bytes((tmp_path / "a/sick/p0-0.png").read_bytes())
    (tmp_path / "a/sick/empty.png").write_bytes(b"")
    (tmp_path / "a").rename(tmp_path / "data")

    def described(folder: Path, seed: int = 0) -> dict:
        dataset = open_dataset(folder, group_pattern=r"^(normal|sick)/(p\d+)")
        cached = PixelCache(tmp_path / "cache").build(dataset, Preprocessing(height=16, width=16))
        return describe(dataset, cached, make_splits(cached, seed=seed))

    found = described(tmp_path / "data")
    assert json.loads(json.dumps(found)) == found
    assert (found["images"], found["usable"]) == (42, 41)
    assert found["labels"] == ["normal", "sick"]
    total = Counter()
    for split in found["splits"].values():
        assert split["images"] == sum(split["classes"].values())
        assert split["images"] >= 2 * split["groups"] > 0
        total.update(split["classes"])
    assert total == {"normal": 20, "sick": 21}
    assert sum(split["groups"] for split in found["splits"].values()) == 20
    assert found["duplicates"] == {"contents": 1, "images": 2}
    assert found["sizes"] == {"smallest": [20, 30], "largest": [39, 30]}
    assert found["made"] == ["val", "test"]
    assert [(each["name"], each["code"]) for each in found["problems"]] == [
        ("sick/empty.png", "input-empty")
    ]
    assert any("'sick' is the positive label" in note for note in found["notes"])

    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "moved/sick/p0-0.png").rename(tmp_path / "moved/sick/p0-99.png")
    assert described(tmp_path / "moved")["fingerprint"] == found["fingerprint"]
    assert described(tmp_path / "moved", seed=1)["fingerprint"] != found["fingerprint"]
    (tmp_path / "moved/sick/p9-19.png").unlink()
    assert described(tmp_path / "moved")["fingerprint"] != found["fingerprint"]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "pattern", "made", "expected", "overlaps"),
    [
        (
            "kermany-cxr-224",
            KERMANY_GROUPS,
            ("val",),
            (4448, 784, 624),
            {"train/val": (0, 0), "train/test": (0, 0), "val/test": (0, 0)},
        ),
        (
            "pneumoniamnist-28",
            None,
            (),
            (4708, 524, 624),
            {"train/val": (0, 8), "train/test": (0, 0), "val/test": (0, 0)},
        ),
        (
            "breastmnist-28",
            None,
            ("val",),  # 21 malignant ones in the given validation split
            (530, 94, 156),
            {"train/val": (0, 0), "train/test": (0, 1), "val/test": (0, 0)},
        ),
    ],
)
def test_real_data(tmp_path, monkeypatch, name, pattern, made, expected, overlaps):
    folder = os.environ.get("MEDIMG_EDGE_DATA")
    if not folder:
        pytest.skip("MEDIMG_EDGE_DATA does not name a folder of real images")
    monkeypatch.setenv("MEDIMG_EDGE_CACHE", str(tmp_path))
    dataset = open_dataset(Path(folder, name), group_pattern=pattern)
    found = contents(dataset.samples, tmp_path / "memory.json")
    data = Listed([*dataset.samples], [each.digest for each in found if each], dataset.labels)
    splits = make_splits(data, seed=0)
    assert splits.made == made
    assert sizes(splits) == pytest.approx(expected, abs=3)
    assert {
        pair: (shared["groups"], shared["contents"]) for pair, shared in splits.overlaps.items()
    } == overlaps
    if pattern:
        groups = [sample.group for sample in data.samples]
        assert {len(split) for split in sides(splits, groups).values()} == {1}
