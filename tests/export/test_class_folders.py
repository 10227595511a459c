"""Class folders, with and without splits, and what lies beside them."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from medimg_edge.errors import DataInvalid, InputMissing
from medimg_export.class_folders import list_class_folders


def draw(root: Path, *names: str) -> Path:
    random = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), random.integers(0, 256, (20, 20), np.uint8))
    return root


def found(root: Path) -> list[tuple[str, tuple[str, ...], str | None]]:
    return [(row.name, row.labels, row.split) for row in list_class_folders(root).rows]


def codes(root: Path) -> dict[str, str]:
    return {problem.code: problem.message for problem in list_class_folders(root).problems}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["sick/b.png", "well/deep/er/a.png", "sick/a.jpg"],
            [
                ("sick/a.jpg", ("sick",), None),
                ("sick/b.png", ("sick",), None),
                ("well/deep/er/a.png", ("well",), None),
            ],
        ),
        (
            ["Train/sick/a.png", "VALID/sick/b.png", "Validation/sick/c.png", "test/well/d.png"],
            [
                ("Train/sick/a.png", ("sick",), "train"),
                ("VALID/sick/b.png", ("sick",), "val"),
                ("Validation/sick/c.png", ("sick",), "val"),
                ("test/well/d.png", ("well",), "test"),
            ],
        ),
        (["test/sick/a.png"], [("test/sick/a.png", ("sick",), "test")]),
        (
            ["test/a.png", "control/b.png"],  # classes that happen to be called like a split
            [("control/b.png", ("control",), None), ("test/a.png", ("test",), None)],
        ),
    ],
)
def test_layouts(tmp_path: Path, names: list[str], expected: list[object]):
    assert found(draw(tmp_path, *names)) == expected
    assert codes(tmp_path) == {}


def test_litter_is_no_class(tmp_path: Path):
    draw(tmp_path, "sick/a.png", "well/b.png", "__MACOSX/well/._b.png", "__MACOSX/c.png")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "sick" / ".DS_Store").write_bytes(b"\0")
    assert [name for name, _, _ in found(tmp_path)] == ["sick/a.png", "well/b.png"]
    assert codes(tmp_path) == {}


def test_what_is_left_out_is_said(tmp_path: Path):
    draw(tmp_path, "train/sick/a.png", "train/b.png", "c.png", "masks/sick/d.png")
    (tmp_path / "train/sick/notes.txt").write_text("x")
    (tmp_path / "train/sick/old.bmp").write_bytes(b"BM")
    (tmp_path / "train/well").mkdir()
    assert [name for name, _, _ in found(tmp_path)] == ["train/sick/a.png"]
    messages = codes(tmp_path)
    assert "3 images lie in no class folder" in messages["data-outside-class"]
    assert "c.png, masks/sick/d.png, train/b.png" in messages["data-outside-class"]
    assert "1 .bmp, 1 .txt" in messages["data-not-an-image"]
    assert "train/well holds no images" in messages["data-label-unused"]


def test_images_without_class_folders_are_refused(tmp_path: Path):
    with pytest.raises(DataInvalid, match=r"1 images, but none in a class folder \(a\.png\)"):
        list_class_folders(draw(tmp_path, "a.png"))


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(DataInvalid, match=r"holds no images.*laid out as"):
        list_class_folders(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path):
    with pytest.raises(InputMissing):
        list_class_folders(tmp_path / "nowhere")
