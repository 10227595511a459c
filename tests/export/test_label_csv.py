"""CSV files: what is read from them, and every way in which they can be wrong."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from medimg_edge.errors import DataInvalid, TooFewImages
from medimg_export.label_csv import has_columns, list_csv
from medimg_export.listing import Listing


def listing(folder: Path, text: str, images: str = "a.png b.png sub/c.png") -> Listing:
    for name in images.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.eye(20, dtype=np.uint8))
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return list_csv(folder / "labels.csv")


def test_all_columns_in_any_order_and_case(tmp_path: Path):
    found = listing(
        tmp_path,
        "\ufeffGroup,Path,LABEL,Split\np1,a.png,sick,Train\n\n,./b.png, well ,VALIDATION\n"
        '"p,2",sub/../sub/c.png,sick,\n',
    )
    assert [(row.name, row.labels, row.split, row.group) for row in found.rows] == [
        ("a.png", ("sick",), "train", "p1"),
        ("b.png", ("well",), "val", None),
        ("sub/c.png", ("sick",), None, "p,2"),
    ]
    assert found.rows[2].source == tmp_path / "sub/c.png"
    assert (found.several, found.notes, found.problems) == (False, (), ())


@pytest.mark.parametrize("separator", [";", "|"])
def test_several_labels(tmp_path: Path, separator: str):
    found = listing(tmp_path, f"path,label\na.png,mass{separator} edema\nb.png,mass\nsub/c.png,\n")
    assert [row.labels for row in found.rows] == [("edema", "mass"), ("mass",), ()]
    assert found.several


def test_unknown_columns_and_images_without_a_row_are_said(tmp_path: Path):
    found = listing(tmp_path, "path,label,age,view\na.png,sick,7,PA\n")
    assert found.notes == ("Columns of labels.csv that were not used: age, view.",)
    assert [problem.code for problem in found.problems] == ["data-no-row"]
    assert "2 images" in found.problems[0].message
    assert "b.png, sub/c.png" in found.problems[0].message


def test_a_repeated_row_is_kept_once(tmp_path: Path):
    found = listing(tmp_path, "path,label\na.png,sick\nb.png,well\n./a.png,sick\n", "a.png b.png")
    assert [row.name for row in found.rows] == ["a.png", "b.png"]
    assert [(each.name, each.code) for each in found.problems] == [("a.png", "data-duplicate-row")]


def test_a_file_with_two_names_is_kept_once(tmp_path: Path):
    (tmp_path / "link.png").symlink_to("a.png")
    text = f"path,label\na.png,sick\nb.png,well\n{tmp_path / 'a.png'},sick\nlink.png,sick\n"
    found = listing(tmp_path, text, "a.png b.png")
    assert [row.name for row in found.rows] == ["a.png", "b.png"]
    assert [each.code for each in found.problems] == ["data-duplicate-row"] * 2
    with pytest.raises(DataInvalid, match=r"1 files: link\.png \(also a\.png\)"):
        listing(tmp_path, text.replace("link.png,sick", "link.png,well"), "a.png b.png")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", DataInvalid, "begins with nothing; the first line has to name"),
        ("a.png,sick\nb.png,well\n", DataInvalid, r"begins with a\.png, sick"),
        ("path,label,label\na.png,x,y\n", DataInvalid, "each once"),
        ("path,label\n", TooFewImages, "header and no rows"),
        ("path,label\na.png\n", DataInvalid, "line 2: 1 cells under 2 columns"),
        ("path,label\na.png,x,y\n", DataInvalid, "line 2: 3 cells under 2 columns"),
        ("path,label\n,x\n", DataInvalid, "line 2: the path is empty"),
        ("path,label,split\na.png,x,holdout\n", DataInvalid, "a.png: the split is 'holdout'"),
        (
            "path,label\nno.png,x\na.png,x\n" + "".join(f"n{i}.png,x\n" for i in range(6)),
            DataInvalid,
            r"names 7 files that do not exist: no\.png, n0\.png.* and 2 more",
        ),
        (
            "path,label\na.png,x\na.png,y\nb.png,x\n",
            DataInvalid,
            r"different things about 1 files: a\.png",
        ),
        ("path,label,split\na.png,x,train\na.png,x,test\n", DataInvalid, "different things"),
        ('path,label\n"a.png,x\n', DataInvalid, "cannot be read as a CSV"),
    ],
)
def test_refused(tmp_path: Path, text: str, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        listing(tmp_path, text)


def test_not_text(tmp_path: Path):
    (tmp_path / "labels.csv").write_bytes(b"path,label\n\xff\xfe\xff,x\n")
    with pytest.raises(DataInvalid, match="UTF-8"):
        list_csv(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"Label, path ,x\n", True),
        ("a.csv", b"name,label\n", False),
        ("a.csv", b"", False),
        ("a.csv", b"\xff\xff\n", False),
        ("a.txt", b"path,label\n", False),
    ],
)
def test_has_columns(tmp_path: Path, name: str, content: bytes, expected: bool):
    (tmp_path / name).write_bytes(content)
    assert has_columns(tmp_path / name) is expected
