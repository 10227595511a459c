"""Paths, bytes, arrays and folders."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from medimg_edge import reader
from medimg_edge.errors import (
    InputEmpty,
    InputMissing,
    NoImages,
    NotAnImage,
    TooLarge,
    Truncated,
    Unsupported,
)
from medimg_edge.image import Range
from medimg_edge.reader import find_images, read_image

GREY = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30)
PNG = cv2.imencode(".png", GREY)[1].tobytes()
DICOM = Path(str(get_testdata_file("MR_small.dcm", download=False))).read_bytes()


@pytest.mark.parametrize("name", ["a.png", "a.dcm", "a.txt", "a"])
@pytest.mark.parametrize("as_text", [True, False])
def test_the_name_does_not_matter(tmp_path, name, as_text):
    path = tmp_path / name
    path.write_bytes(PNG)
    image = read_image(str(path) if as_text else path)
    assert image.source == "png"
    assert np.array_equal(image.frames[0, ..., 0], GREY)


def test_bytes_are_read_as_a_file_is():
    assert read_image(PNG).source == "png"
    assert read_image(DICOM).source == "dicom"


def test_what_is_no_file(tmp_path):
    with pytest.raises(InputMissing, match="No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputMissing, match="folder"):
        read_image(tmp_path)
    with pytest.raises(InputMissing):
        read_image("nul\0in.png")
    with pytest.raises(InputMissing, match="device"):
        read_image(os.devnull)
    with pytest.raises(InputMissing):
        read_image(tmp_path / ("long" * 1000))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_no_permission(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    path.chmod(0)
    with pytest.raises(InputMissing, match="Permission"):
        read_image(path)


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"", InputEmpty), (b"hello, this is text", NotAnImage), (PNG[:-20], Truncated)],
)
def test_bad_content(tmp_path, data, error):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(error):
            read_image(source)


def test_size_is_checked_before_reading(tmp_path):
    path = tmp_path / "a.dcm"
    with path.open("wb") as file:
        file.truncate(reader.MAX_BYTES + 1)  # sparse
    with pytest.raises(TooLarge, match="536,870,913 bytes"):
        read_image(path)


@pytest.mark.parametrize(
    ("array", "options", "dtype", "voi"),
    [
        (np.ones((4, 5), np.uint8), {}, np.uint8, Range(0, 255)),
        (np.ones((4, 5, 1), np.uint16), {}, np.uint16, Range(0, 65535)),
        (np.ones((4, 5, 3), np.uint8), {"photometric": "RGB"}, np.uint8, Range(0, 255)),
        (np.ones((4, 5), np.uint16), {"value_range": (0, 4095)}, np.uint16, Range(0, 4095)),
        (np.ones((4, 5), np.int16), {"value_range": (-160, 240)}, np.float32, Range(-160, 240)),
        (np.ones((4, 5), np.float32), {"value_range": (0, 1)}, np.float32, Range(0, 1)),
        (np.ones((4, 5), ">u2"), {}, np.uint16, Range(0, 65535)),
        (np.ones((8, 10), np.uint8)[::2, ::2], {}, np.uint8, Range(0, 255)),
    ],
)
def test_arrays(array, options, dtype, voi):
    image = read_image(array, **options)
    assert image.frames.dtype == dtype
    assert image.frames.dtype.isnative
    assert image.frames.shape == (1, 4, 5, 3 if array.ndim == 3 and array.shape[2] == 3 else 1)
    assert (image.frames == 1).all()
    assert image.frames.flags.c_contiguous
    assert (image.voi, image.source, image.inverted) == (voi, "array", False)


def test_an_array_says_its_polarity():
    assert read_image(np.ones((4, 5), np.uint8), photometric="MONOCHROME1").inverted


NAN = np.array([[0, np.nan]], np.float32)


@pytest.mark.parametrize(
    ("source", "options", "error", "says"),
    [
        (np.ones((4, 5), np.int16), {}, Unsupported, "value_range"),
        (np.ones((4, 5), np.float32), {}, Unsupported, "value_range"),
        (np.ones((4, 5), np.float32), {"value_range": (1, 1)}, Unsupported, "low < high"),
        (np.ones((4, 5), np.float32), {"value_range": (0, np.inf)}, Unsupported, "finite"),
        (NAN, {"value_range": (0, 1)}, Unsupported, "NaN"),
        (np.ones((4, 5), np.float64), {}, Unsupported, "float64"),
        (np.ones((4, 5), bool), {}, Unsupported, "bool"),
        (np.ones((4, 5), object), {}, Unsupported, "object"),
        (np.ones((4, 5, 4), np.uint8), {}, Unsupported, "(4, 5, 4)"),
        (np.ones((2, 4, 5, 1), np.uint8), {}, Unsupported, "(2, 4, 5, 1)"),
        (np.ones(4, np.uint8), {}, Unsupported, "(4,)"),
        (np.ones((0, 5), np.uint8), {}, Unsupported, "(0, 5)"),
        (np.ones((4, 5), np.uint8), {"photometric": "RGB"}, Unsupported, "MONOCHROME2"),
        (np.ones((4, 5, 3), np.uint8), {"photometric": "MONOCHROME1"}, Unsupported, "RGB"),
        (np.broadcast_to(np.uint8(1), (9000, 9000)), {}, TooLarge, "9000 x 9000"),
        (PNG, {"value_range": (0, 1)}, Unsupported, "describe an array"),
        (PNG, {"photometric": "RGB"}, Unsupported, "describe an array"),
    ],
)
def test_refused(source, options, error, says):
    with pytest.raises(error) as caught:
        read_image(source, **options)
    assert says in str(caught.value)


def test_folder(tmp_path):
    wanted = ["a.PNG", "b.jpeg", "c/d.tif", "c/e.dcm", "c/without", "z.jpg"]
    others = [".hidden.png", ".cache/a.png", "notes.txt", "c/text", "DICOMDIR", "short"]
    for name in [*wanted, *others]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(DICOM if name in ("c/without", "DICOMDIR") else b"text")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert find_images(tmp_path) == [tmp_path / name for name in wanted]
    assert find_images(str(tmp_path)) == [tmp_path / name for name in wanted]


def test_links_that_lead_nowhere_and_in_circles(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("none.png")
    (tmp_path / "c.png").symlink_to(tmp_path)  # a link to a folder, whatever its name says
    (tmp_path / "d").symlink_to(tmp_path / "d")
    assert find_images(tmp_path) == [tmp_path / "a.png", tmp_path / "b.png"]
    for path in find_images(tmp_path):
        with pytest.raises(InputMissing):
            read_image(path)


def test_folders_within_folders(tmp_path):
    """Deeper than Python recurses, and within the 4,096 bytes that a path may have."""
    levels = 1200
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("a.png", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    found = find_images(tmp_path)
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # shutil.rmtree does recurse
    assert found == [tmp_path.joinpath(*["d"] * levels, "a.png")]


def test_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(NoImages, match=r"\.tiff"):
        find_images(tmp_path)
    with pytest.raises(InputMissing, match="No such file"):
        find_images(tmp_path / "none")
    with pytest.raises(InputMissing, match="Not a directory"):
        find_images(tmp_path / "notes.txt")


def test_importing_it_is_light():
    program = (
        "import sys, medimg_edge.reader as r; "
        "print(sorted({'pydicom', 'tensorflow', 'onnxruntime'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.data
@pytest.mark.skipif("MEDIMG_EDGE_DATA" not in os.environ, reason="MEDIMG_EDGE_DATA is unset")
def test_full_resolution_radiographs_equal_opencv():
    paths = find_images(Path(os.environ["MEDIMG_EDGE_DATA"], "kermany-cxr-fullres-sample"))
    assert len(paths) == 24
    for path in paths:
        expected = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert expected is not None
        image = read_image(path)
        channels = 1 if expected.ndim == 2 else 3
        assert np.array_equal(
            image.frames[0], expected.reshape(*image.size, channels)[..., ::-1]
        ), path
        data = path.read_bytes()
        with pytest.raises(Truncated):
            read_image(data[: len(data) // 2] + b"\xff\xd9")
