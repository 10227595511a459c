"""The pixel cache: the device's pixels, found again, and everything that must not be in it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from medimg_edge import read_image
from medimg_edge.errors import DataInvalid, TooFewImages, WriteError
from medimg_edge.manifest import Percentile, Preprocessing
from medimg_edge.preprocess import preprocess
from medimg_export.dataset import open_dataset
from medimg_export.pixel_cache import CachedPixels, PixelCache

SPEC = Preprocessing(height=24, width=32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """3 + 3 noise images of different sizes in two classes: PNG of 8 and 16 bits, and JPEG."""
    random = np.random.default_rng(0)
    for label in ("normal", "sick"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number, (kind, dtype) in enumerate(
            [("png", "uint8"), ("png", "uint16"), ("jpg", "uint8")]
        ):
            pixels = random.integers(0, np.iinfo(dtype).max, (40 + number, 50), dtype)
            cv2.imwrite(str(tmp_path / "data" / label / f"{number}.{kind}"), pixels)
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> PixelCache:
    return PixelCache(tmp_path / "cache")


def build(cache: PixelCache, data: Path, spec: Preprocessing = SPEC) -> tuple[CachedPixels, bool]:
    """What was cached, and whether anything had to be decoded for it."""
    steps = []
    cached = cache.build(open_dataset(data), spec, lambda *step: steps.append(step))
    return cached, any(what == "preprocessing" for what, _, _ in steps)


def names(cached: CachedPixels) -> list[str]:
    return [sample.name for sample in cached.samples]


def problems(cached: CachedPixels) -> dict[str, str]:
    return {problem.name: problem.code for problem in cached.problems}


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        Preprocessing(height=24, width=32, color="rgb", geometry="letterbox"),
        Preprocessing(height=60, width=60, intensity=Percentile(), geometry="center-crop"),
        Preprocessing(height=20, width=24, decode="scaled"),
    ],
)
def test_the_pixels_are_the_devices(cache: PixelCache, data: Path, spec: Preprocessing):
    cached, _ = build(cache, data, spec)
    assert isinstance(cached.pixels, np.memmap)
    assert (cached.pixels.dtype, cached.pixels.shape) == (np.uint8, (6, *spec.shape))
    assert cached.labels == ("normal", "sick")
    assert cached.largest == (41 if spec.needed else 42, 50)
    for row, sample in enumerate(cached.samples):
        expected = preprocess(read_image(data / sample.name, needed=spec.needed), spec)
        np.testing.assert_array_equal(cached.pixels[row], expected)


def test_what_was_built_is_found_again(cache: PixelCache, data: Path, tmp_path: Path):
    first, decoded = build(cache, data)
    assert decoded
    again, decoded = build(cache, data)
    assert not decoded
    np.testing.assert_array_equal(again.pixels, first.pixels)
    assert (again.samples, again.digests) == (first.samples, first.digests)
    shutil.copytree(data, tmp_path / "moved")
    assert not build(cache, tmp_path / "moved")[1], "it is the content that counts"
    with pytest.raises(ValueError, match="read-only"):
        first.pixels[0] = 0


def test_what_changed_is_built_again(cache: PixelCache, data: Path):
    before, _ = build(cache, data)
    boxed, decoded = build(cache, data, Preprocessing(height=24, width=32, geometry="letterbox"))
    assert decoded
    assert (boxed.pixels != before.pixels).any()
    assert build(cache, data, Preprocessing(height=24, width=31))[1]
    assert not build(cache, data)[1]
    cv2.imwrite(str(data / "sick" / "0.png"), np.eye(40, 50, dtype=np.uint8) * 255)
    after, decoded = build(cache, data)
    assert decoded
    assert [bool((a == b).all()) for a, b in zip(before.pixels, after.pixels, strict=True)] == [
        True, True, True, False, True, True,
    ]  # fmt: skip
    assert after.digests[3] != before.digests[3]
    (data / "sick" / "1.png").unlink()
    assert names(build(cache, data)[0]) == [name for name in names(after) if name != "sick/1.png"]


@pytest.mark.parametrize("again", [False, True])
def test_what_cannot_be_used_is_listed(cache: PixelCache, data: Path, again: bool):
    good = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.*"))
    sick = data / "sick"
    (sick / "empty.png").write_bytes(b"")
    (data / "normal" / "empty.png").write_bytes(b"")
    (sick / "text.png").write_text("not an image")
    cut = (sick / "2.jpg").read_bytes()
    (sick / "half.jpg").write_bytes(cut[: len(cut) // 2])
    (sick / "half-with-end.jpg").write_bytes(cut[: len(cut) // 2] + b"\xff\xd9")
    cv2.imwrite(str(sick / "blank.png"), np.full((40, 40), 7, np.uint8))
    cv2.imwrite(str(sick / "tiny.png"), np.eye(3, dtype=np.uint8))
    (sick / "gone.png").symlink_to(sick / "nowhere.png")
    if again:
        build(cache, data)
    cached, decoded = build(cache, data)
    assert decoded is not again
    assert names(cached) == good
    assert len(cached.pixels) == len(cached.digests) == 6
    assert problems(cached) == {
        "normal/empty.png": "input-empty",
        "sick/blank.png": "blank",
        "sick/empty.png": "input-empty",
        "sick/gone.png": "input-missing",
        "sick/half-with-end.jpg": "input-truncated",
        "sick/half.jpg": "input-truncated",
        "sick/text.png": "input-not-an-image",
        "sick/tiny.png": "too-small",
    }
    for row, name in enumerate(names(cached)):
        np.testing.assert_array_equal(cached.pixels[row], preprocess(read_image(data / name), SPEC))


def test_contradictions_are_left_out_and_copies_are_not(cache: PixelCache, data: Path):
    shutil.copy(data / "sick" / "0.png", data / "sick" / "copy.png")
    shutil.copy(data / "sick" / "1.png", data / "normal" / "other.png")
    cached, _ = build(cache, data)
    assert problems(cached) == {
        "normal/other.png": "data-contradictory",
        "sick/1.png": "data-contradictory",
    }
    assert "normal/other.png, sick/1.png" in cached.problems[0].message
    assert names(cached).count("sick/copy.png") == 1
    assert cached.digests.count(cached.digests[names(cached).index("sick/0.png")]) == 2
    (data / "normal" / "other.png").unlink()
    assert "sick/1.png" in names(build(cache, data)[0])


def test_nothing_usable(cache: PixelCache, tmp_path: Path):
    for label in "01":
        (tmp_path / "bad" / label).mkdir(parents=True)
        (tmp_path / "bad" / label / "x.png").write_text(label)
    with pytest.raises(TooFewImages, match=r"None of the 2 images .* 0/x\.png: "):
        build(cache, tmp_path / "bad")


@pytest.mark.parametrize("damage", ["pixels.raw", "entry.json", "entry.json removed"])
def test_a_damaged_entry_is_made_again(cache: PixelCache, data: Path, damage: str):
    before = np.array(build(cache, data)[0].pixels)
    (folder,) = (cache.root / "pixels").iterdir()
    file = folder / damage.split()[0]
    if damage.endswith("removed"):
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    cached, decoded = build(cache, data)
    assert decoded
    np.testing.assert_array_equal(cached.pixels, before)
    assert not build(cache, data)[1]


def test_an_npz_that_breaks_off_is_an_error(
    cache: PixelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MEDIMG_EDGE_CACHE", str(cache.root))
    images = np.random.default_rng(0).integers(0, 256, (9, 20, 20), np.uint8)
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=np.arange(9) % 2)
    dataset = open_dataset(tmp_path / "x.npz")
    assert len(cache.build(dataset, SPEC).pixels) == 9
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[content.index(images.tobytes()) + 99] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataInvalid, match=r"not a whole \.npz"):
        cache.build(dataset, SPEC)


def test_a_root_that_is_a_file(data: Path, tmp_path: Path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(WriteError, match="MEDIMG_EDGE_CACHE"):
        build(PixelCache(tmp_path / "cache"), data)


BUILD = """
import resource, signal, sys
from pathlib import Path
from medimg_edge.errors import WriteError
from medimg_edge.manifest import Preprocessing
from medimg_export.dataset import open_dataset
from medimg_export.pixel_cache import PixelCache

data, root, limit = sys.argv[1:]
if limit != "none":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    spec = Preprocessing(height=240, width=320)
    print(PixelCache(Path(root)).build(open_dataset(data), spec).pixels.sum())
except WriteError as error:
    print("WriteError", error)
"""


def start(data: Path, root: Path, limit: str = "none") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(data), str(root), limit],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_file_that_cannot_grow_is_an_error_and_leaves_nothing(data: Path, tmp_path: Path):
    process = start(data, tmp_path / "cache", "200000")
    assert process.communicate()[0].startswith("WriteError The pixel cache")
    assert list((tmp_path / "cache" / "pixels").iterdir()) == []


def test_processes_at_the_same_time(data: Path, tmp_path: Path):
    started = [start(data, tmp_path / "cache") for _ in range(3)]
    printed = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(printed) == 1
    assert int(printed.pop()) > 0
    assert len(list((tmp_path / "cache" / "pixels").iterdir())) == 1


def test_threads_at_the_same_time(cache: PixelCache, data: Path):
    with ThreadPoolExecutor(4) as pool:
        sums = set(pool.map(lambda _: int(build(cache, data)[0].pixels.sum()), range(4)))
    assert len(sums) == 1
    assert len(list((cache.root / "pixels").iterdir())) == 1


def test_what_a_killed_process_left_is_not_found_and_is_removed(data: Path, tmp_path: Path):
    pixels = tmp_path / "cache" / "pixels"
    process = start(data, tmp_path / "cache")
    while process.poll() is None and not list(pixels.glob(".partial-*")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = list(pixels.glob(".partial-*"))
    spec = Preprocessing(height=240, width=320)
    assert len(build(PixelCache(tmp_path / "cache"), data, spec)[0].pixels) == 6
    for folder in left:
        os.utime(folder, (0, 0))
    build(PixelCache(tmp_path / "cache"), data)
    assert not list(pixels.glob(".partial-*"))


def test_memory_does_not_grow_with_the_images(tmp_path: Path):
    """400 images make 120 MB of pixels; the process may take a quarter of it above its start."""
    random = np.random.default_rng(0)
    for number in range(400):
        folder = tmp_path / "data" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        small = random.integers(0, 256, (20, 20), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), small)
    script = """
import resource, sys
from pathlib import Path
from medimg_edge.manifest import Preprocessing
from medimg_export.dataset import open_dataset
from medimg_export.pixel_cache import PixelCache
dataset = open_dataset(sys.argv[1])
PixelCache(Path(sys.argv[2]) / "warm").build(dataset, Preprocessing(height=8, width=8))
def peak():  # of this program alone: ru_maxrss keeps that of the process before exec
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
before = peak()
cached = PixelCache(Path(sys.argv[2])).build(dataset, Preprocessing(height=550, width=550))
print(cached.pixels.nbytes // 1024, peak() - before)
"""
    output = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "data"), str(tmp_path / "cache")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout
    pixels, grown = map(int, output.split())
    assert pixels > 115_000
    assert grown < pixels / 4


@pytest.mark.data
def test_a_contradiction_in_real_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = os.environ.get("MEDIMG_EDGE_DATA")
    if not folder:
        pytest.skip("MEDIMG_EDGE_DATA does not name a folder of real images")
    monkeypatch.setenv("MEDIMG_EDGE_CACHE", str(tmp_path))
    cached, _ = build(PixelCache(), Path(folder, "breastmnist-28"))
    assert len(cached.pixels) == 780 - 1  # the test set keeps its copy
    assert problems(cached) == {"train/00115": "data-contradictory"}
