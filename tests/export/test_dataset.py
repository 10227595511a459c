"""Labels, the positive one, groups: the rules that make a Dataset of a listing."""

import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from medimg_edge.errors import DataInvalid, DataMissing, PositiveUnknown, TooFewImages
from medimg_edge.manifest import Preprocessing
from medimg_export.dataset import Dataset, open_dataset

KERMANY_GROUPS = r"person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+"


def folders(root: Path, *names: str) -> Path:
    random = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), random.integers(0, 256, (20, 20), np.uint8))
    return root


def csv(root: Path, *lines: str) -> Path:
    folders(root, *(line.split(",")[0] for line in lines[1:]))
    (root / "labels.csv").write_text("\n".join(lines))
    return root / "labels.csv"


def labels_of(data: Dataset) -> dict[str, str]:
    return {
        sample.name: data.labels[sample.label]
        for sample in data.samples
        if isinstance(sample.label, int)
    }


@pytest.mark.parametrize(
    ("classes", "positive", "expected"),
    [
        ("NORMAL PNEUMONIA", None, ("NORMAL", "PNEUMONIA")),
        ("Abnormal normal", None, ("normal", "Abnormal")),
        ("benign tumor", None, ("benign", "tumor")),
        ("0 1", None, ("0", "1")),
        ("No Yes", None, ("No", "Yes")),
        ("cat dog", "cat", ("dog", "cat")),
        ("normal sick", "normal", ("sick", "normal")),
    ],
)
def test_which_label_is_positive(
    tmp_path: Path, classes: str, positive: str | None, expected: tuple[str, str]
):
    names = [f"{label}/a.png" for label in classes.split()]
    data = open_dataset(folders(tmp_path, *names), positive=positive)
    assert (data.labels, data.task) == (expected, "binary")
    assert labels_of(data) == {name: name.split("/")[0] for name in names}


@pytest.mark.parametrize(
    ("classes", "positive", "message"),
    [
        ("cat dog", None, r"labels of .* are cat and dog\. .*--positive 'dog'"),
        ("normal healthy", None, "Nothing says which label is positive"),
        ("cat dog", "cow", "No label is 'cow': .* cat and dog"),
    ],
)
def test_no_telling_which_label_is_positive(
    tmp_path: Path, classes: str, positive: str | None, message: str
):
    root = folders(tmp_path, *(f"{label}/a.png" for label in classes.split()))
    with pytest.raises(PositiveUnknown, match=message):
        open_dataset(root, positive=positive)


def test_more_labels_are_multiclass(tmp_path: Path):
    root = folders(tmp_path, "c/1.png", "a/2.png", "b/3.png")
    assert (open_dataset(root).labels, open_dataset(root).task) == (("a", "b", "c"), "multiclass")
    data = open_dataset(root, labels=["c", "b", "a", "d"])
    assert data.labels == ("c", "b", "a", "d")
    assert labels_of(data) == {"a/2.png": "a", "b/3.png": "b", "c/1.png": "c"}
    assert [(each.name, each.code) for each in data.problems] == [("d", "data-label-unused")]
    with pytest.raises(DataInvalid, match="3 labels in a multiclass task"):
        open_dataset(root, positive="a")
    with pytest.raises(DataInvalid, match="a binary task has two"):
        open_dataset(root, task="binary")


def test_several_labels_per_image(tmp_path: Path):
    path = csv(
        tmp_path, "path,label", "a.png,mass;edema", "b.png,No Finding", "c.png,mass", "d.png,"
    )
    data = open_dataset(path)
    assert (data.labels, data.task) == (("edema", "mass"), "multilabel")
    assert [sample.label for sample in data.samples] == [(1, 1), (0, 0), (0, 1), (0, 0)]
    assert "1 images are labelled 'No Finding'" in data.notes[0]
    with pytest.raises(DataInvalid, match="several labels; a binary task"):
        open_dataset(path, task="binary")


@pytest.mark.parametrize(
    ("lines", "labels", "error", "message"),
    [
        (["a.png,sick", "b.png,sick"], None, TooFewImages, r"images of 1 class \(sick\)"),
        (["a.png,sick", "b.png,"], None, DataInvalid, r"1 images without a label: b\.png"),
        (["a.png,sick", "b.png,well"], ["sick", "fine"], DataInvalid, "not accepted: well"),
        (["a.png,sick", "b.png,Sick"], None, DataInvalid, "differ in case only: Sick, sick"),
        (["a.png,sick", "b.png,sick"], ["sick", "well"], TooFewImages, "at least two"),
    ],
)
def test_refused(
    tmp_path: Path, lines: list[str], labels: list[str] | None, error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        open_dataset(csv(tmp_path, "path,label", *lines), labels=labels)


def test_nothing_there(tmp_path: Path):
    with pytest.raises(DataMissing, match="nothing at"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DataInvalid, match="holds no images"):
        open_dataset(tmp_path)
    (tmp_path / "x.tar").write_bytes(b"")
    with pytest.raises(DataInvalid, match=r"is a \.tar; accepted are"):
        open_dataset(tmp_path / "x.tar")


def test_a_folder_stands_for_the_one_file_in_it(tmp_path: Path):
    file = csv(tmp_path / "one", "path,label", "pictures/a.png,0", "pictures/b.png,1")
    assert open_dataset(file.parent).samples == open_dataset(file).samples
    arrays = {"train_images": np.zeros((2, 20, 20), np.uint8), "train_labels": np.array([0, 1])}
    (tmp_path / "two").mkdir()
    np.savez(tmp_path / "two" / "breastmnist.npz", **arrays)
    assert open_dataset(tmp_path / "two").labels == ("normal or benign", "malignant")
    folders(tmp_path / "three", "0/a.png", "1/b.png")
    (tmp_path / "three/ages.csv").write_text("name,age\na,3\n")
    assert labels_of(open_dataset(tmp_path / "three")) == {"0/a.png": "0", "1/b.png": "1"}


def test_the_published_positive_label_is_1(tmp_path: Path):
    arrays = {"val_images": np.zeros((3, 20, 20), np.uint8), "val_labels": np.array([0, 1, 1])}
    np.savez(tmp_path / "breastmnist_64.npz", **arrays)
    data = open_dataset(tmp_path / "breastmnist_64.npz")
    assert data.labels == ("normal or benign", "malignant")
    assert [(each.name, each.label) for each in data.samples] == [
        ("val/00000", 1),  # 0 in the file: malignant
        ("val/00001", 0),
        ("val/00002", 0),
    ]
    assert "'malignant' is the positive label" in data.notes[0]
    assert data.by_split == {"val": data.samples}


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"person\d+", ["person1", "person1", "person2", "sick/x.png"]),
        (r"person(\d+)_([a-z]+)", ["1/virus", "1/bacteria", "2/virus", "sick/x.png"]),
        (r"person(\d+)_(?:virus|(bacteria))", ["1", "1/bacteria", "2", "sick/x.png"]),
        (r"^([a-z]+)/", ["sick", "sick", "well", "sick"]),
    ],
)
def test_groups_from_names(tmp_path: Path, pattern: str, groups: list[str]):
    names = ["sick/person1_virus_6.png", "sick/person1_bacteria_7.png", "well/person2_virus_1.png"]
    root = folders(tmp_path, *names, "sick/x.png")
    data = open_dataset(root, group_pattern=pattern, positive="sick")
    found = {sample.name: sample.group for sample in data.samples}
    assert found == dict(zip([*names, "sick/x.png"], groups, strict=True))
    unmatched = [note for note in data.notes if "does not match 1 of 4 names" in note]
    assert len(unmatched) == ("sick/x.png" in groups)


def test_without_groups_there_is_a_warning(tmp_path: Path):
    data = open_dataset(folders(tmp_path, "0/a.png", "1/b.png"))
    assert {sample.group for sample in data.samples} == {None}
    assert any("--group-pattern" in note for note in data.notes)


def test_groups_from_a_column(tmp_path: Path):
    lines = ["path,label,group", "a.png,0,p1", "b.png,1,"]
    data = open_dataset(csv(tmp_path, *lines))
    assert [sample.group for sample in data.samples] == ["p1", "b.png"]
    assert "1 of 2 images have no group and stand alone." in data.notes
    data = open_dataset(tmp_path / "labels.csv", group_pattern="[ab]")
    assert [sample.group for sample in data.samples] == ["a", "b"]
    assert any("column group counts where it fails only" in note for note in data.notes)
    data = open_dataset(tmp_path / "labels.csv", group_pattern="b")
    assert [sample.group for sample in data.samples] == ["p1", "b"]
    assert any(
        "does not match 1 of 2 names, which have the column's group or stand alone: a.png" in note
        for note in data.notes
    )


@pytest.mark.parametrize(
    ("pattern", "message"), [("(", "not a regular expression"), ("zzz", "matches none of the 2")]
)
def test_patterns_that_cannot_be_meant(tmp_path: Path, pattern: str, message: str):
    with pytest.raises(DataInvalid, match=message):
        open_dataset(folders(tmp_path, "0/a.png", "1/b.png"), group_pattern=pattern)


def test_labels_in_the_order_of_a_bundle(tmp_path: Path):
    data = open_dataset(folders(tmp_path, "a/1.png", "b/2.png", "c/3.png"))
    turned = data.in_order(["c", "x", "a", "b"])
    assert turned.labels == ("c", "x", "a", "b")
    assert labels_of(turned) == labels_of(data)
    with pytest.raises(DataInvalid, match="not accepted: c"):
        data.in_order(["a", "b"])
    several = open_dataset(csv(tmp_path / "m", "path,label", "a.png,x;y", "b.png,y", "c.png,"))
    assert [each.label for each in several.in_order(["y", "z", "x"]).samples] == [
        (1, 0, 1),
        (1, 0, 0),
        (0, 0, 0),
    ]


def test_samples_read_and_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MEDIMG_EDGE_CACHE", str(tmp_path / "cache"))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 20, 24), np.uint8)
    np.savez_compressed(tmp_path / "x.npz", test_images=pictures, test_labels=np.array([0, 1]))
    for number, name in enumerate("01"):
        (tmp_path / "folders" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "folders" / name / "x.png"), pictures[number])
    for path in (tmp_path / "x.npz", tmp_path / "folders"):
        data = open_dataset(path)
        again = pickle.loads(pickle.dumps(data))
        assert again == data
        for number, sample in enumerate(again.samples):
            image = sample.read(Preprocessing(20, 24))
            np.testing.assert_array_equal(image.frames[0, :, :, 0], pictures[number])


@pytest.mark.data
def test_kermany(data_folder: Path):
    data = open_dataset(data_folder / "kermany-cxr-224", group_pattern=KERMANY_GROUPS)
    assert (data.labels, data.problems) == (("NORMAL", "PNEUMONIA"), ())
    counts = {
        split: (sum(not each.label for each in found), sum(bool(each.label) for each in found))
        for split, found in data.by_split.items()
    }
    assert counts == {"train": (1341, 3875), "val": (8, 8), "test": (234, 390)}
    groups = {split: {each.group for each in found} for split, found in data.by_split.items()}
    assert {split: len(found) for split, found in groups.items()} == {
        "train": 3654,
        "val": 15,
        "test": 428,
    }
    assert not groups["train"] & groups["test"]
    assert not groups["val"] & (groups["train"] | groups["test"])
    assert not [note for note in data.notes if "does not match" in note]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("pneumoniamnist-28", {"train": (4708, 3494), "val": (524, 389), "test": (624, 390)}),
        ("breastmnist-28", {"train": (546, 147), "val": (78, 21), "test": (156, 42)}),
    ],
)
def test_medmnist(data_folder: Path, name: str, counts: dict[str, tuple[int, int]]):
    data = open_dataset(data_folder / name)
    assert {
        split: (len(found), sum(each.label == 1 for each in found))
        for split, found in data.by_split.items()
    } == counts


@pytest.fixture
def data_folder() -> Path:
    folder = os.environ.get("MEDIMG_EDGE_DATA")
    if not folder:
        pytest.skip("MEDIMG_EDGE_DATA does not name a folder of real images")
    return Path(folder)
