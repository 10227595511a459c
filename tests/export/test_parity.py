"""The one idea: the pixels of training are the device's, and every runtime gives Keras' answer."""

import io
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow

from medimg_edge import engines
from medimg_edge.bundle import Bundle
from medimg_edge.manifest import Display, Percentile, Preprocessing, Windows, WindowSetting
from medimg_export import phantom_dicom
from medimg_export.dataset import open_dataset
from medimg_export.pixel_cache import PixelCache
from medimg_export.trained_model import trained_model

# --- pixels ---

ABSENT = ("tensorflow", "keras", "tf2onnx", "onnx", "sklearn", "matplotlib", "medimg_export")

DEVICE = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT!r}))  # importing one of them is an error now
import msgspec, numpy as np
from pathlib import Path
from typing import Any
from medimg_edge import read_image
from medimg_edge.errors import UnitUnknown
from medimg_edge.manifest import Preprocessing
from medimg_edge.preprocess import preprocess

def tensor(path, spec):
    try:
        return preprocess(read_image(path, needed=spec.needed), spec)
    except UnitUnknown:
        return np.empty(0)

folder, specs, out = map(Path, sys.argv[1:])
specs = msgspec.json.decode(specs.read_bytes(), type=list[Preprocessing])
tensors = {{
    f"{{number}} {{path.relative_to(folder).as_posix()}}": tensor(path, spec)
    for number, spec in enumerate(specs)
    for path in folder.glob("*/*.*")
}}
np.savez(out, **tensors)
"""

INTENSITIES = {
    "display": Display(),
    "16 bits by 1000..50000": Display(low=1000, high=50000),
    "one window": Windows((WindowSetting(20000, 40000),)),
    "three windows": Windows(
        (WindowSetting(2000, 3000), WindowSetting(20000, 30000), WindowSetting(-600, 1500))
    ),
    "percentile": Percentile(2, 98),
}
GEOMETRIES = ("stretch", "letterbox", "center-crop")
SPECS = [
    Preprocessing(40, 48, color, intensity, geometry)
    for color, intensity, geometry in product(("gray", "rgb"), INTENSITIES.values(), GEOMETRIES)
    if color == "gray" or not isinstance(intensity, Windows)
] + [Preprocessing(20, 24, color, Percentile(2, 98), decode="scaled") for color in ("gray", "rgb")]

RANDOM = np.random.default_rng(0)


def picture(rows: int, columns: int, channels: int = 1, bits: int = 8) -> np.ndarray:
    """Smooth noise over the whole range; (rows, columns) or, with 3 channels, RGB."""
    values = RANDOM.uniform(0, 1, (rows, columns, channels)).astype(np.float32)
    smooth = cv2.GaussianBlur(values, (0, 0), 1.5).reshape(values.shape)
    low, high = smooth.min(), smooth.max()
    scaled = np.rint((smooth - low) / (high - low) * (2**bits - 1))
    return scaled.astype(np.uint8 if bits == 8 else np.uint16).squeeze()


def pillow(pixels: np.ndarray, kind: str, mode: str | None = None, **options) -> bytes:
    file = io.BytesIO()
    image = Pillow.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def opencv(suffix: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def dicom(rows: int, columns: int, bits: int, inverted: bool) -> bytes:
    pixels = picture(rows, columns, bits=16)
    return phantom_dicom.encode(pixels, f"{bits} {inverted}", bits=bits, inverted=inverted)


def ct(rows: int, columns: int) -> bytes:
    """Signed values, a slope and an intercept: Hounsfield units from -1524 on."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(rows, columns, 12, False)))
    stored = picture(rows, columns, bits=16).astype(np.int32) // 32 - 500
    dataset.PixelRepresentation = 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1.5, -774
    dataset.PixelData = stored.astype("<i2").tobytes()
    del dataset.WindowCenter, dataset.WindowWidth
    dataset.BitsStored, dataset.HighBit = 16, 15
    dataset.WindowCenter, dataset.WindowWidth = 40, 400
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()


def turned() -> Pillow.Exif:
    exif = Pillow.Exif()
    exif[274] = 6  # a quarter turn
    return exif


FILES = {
    "png-8.png": opencv(".png", picture(60, 70)),
    "png-8-small.png": opencv(".png", picture(20, 30)),
    "png-16.png": opencv(".png", picture(90, 50, bits=16)),
    "png-16-rgb.png": opencv(".png", picture(50, 90, 3, 16)),
    "png-rgb.png": opencv(".png", picture(64, 64, 3)),
    "png-palette.png": pillow(picture(64, 50, 3), "PNG", "P"),
    "png-alpha.png": pillow(picture(64, 50, 4), "PNG"),
    "png-gray-alpha.png": pillow(picture(64, 50), "PNG", "LA"),
    "png-1-bit.png": pillow(picture(64, 50), "PNG", "1"),
    "jpeg-gray.jpg": pillow(picture(70, 60), "JPEG"),
    "jpeg-large.jpg": pillow(picture(170, 103, 3), "JPEG"),
    "jpeg-rgb.jpg": pillow(picture(70, 61, 3), "JPEG", quality=80),
    "jpeg-turned.jpg": pillow(picture(50, 80, 3), "JPEG", exif=turned()),
    "jpeg-progressive.jpg": pillow(picture(80, 80, 3), "JPEG", progressive=True),
    "tiff-8.tif": opencv(".tiff", picture(60, 70)),
    "tiff-16.tif": opencv(".tiff", picture(45, 70, bits=16)),
    "tiff-rgb.tif": opencv(".tiff", picture(60, 33, 3)),
    "tiff-16-rgb.tif": opencv(".tiff", picture(60, 90, 3, 16)),
    "monochrome2-12.dcm": dicom(100, 80, 12, False),
    "monochrome1-12.dcm": dicom(80, 100, 12, True),
    "monochrome2-16.dcm": dicom(30, 40, 16, False),
    "monochrome1-16.dcm": dicom(99, 99, 16, True),
    "ct.dcm": ct(64, 64),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds") / "data"
    for number, (name, data) in enumerate(FILES.items()):
        path = folder / ("no", "yes")[number % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def on_the_device(files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Tensors by number of the spec and name, made where nothing of the workstation exists."""
    folder = tmp_path_factory.mktemp("device")
    (folder / "specs.json").write_bytes(msgspec.json.encode(SPECS))
    arguments = [files, folder / "specs.json", folder / "tensors.npz"]
    subprocess.run([sys.executable, "-c", DEVICE, *map(str, arguments)], check=True, timeout=120)
    with np.load(folder / "tensors.npz") as stored:
        return {name: stored[name] for name in stored.files}


@pytest.mark.parametrize("number", range(len(SPECS)))
def test_the_pixels_of_training_are_the_devices(
    files: Path, on_the_device: dict[str, np.ndarray], tmp_path: Path, number: int
):
    """A picture without a unit has no pixels in a window: on neither side."""
    cached = PixelCache(tmp_path).build(open_dataset(files), SPECS[number])
    windows = isinstance(SPECS[number].intensity, Windows)
    read = {name for name in FILES if name.endswith(".dcm") or not windows}
    assert {sample.name.partition("/")[2] for sample in cached.samples} == read
    refused = {each.name for each in cached.problems if each.code == "unit-unknown"}
    assert {name.partition("/")[2] for name in refused} == set(FILES) - read
    assert all(on_the_device[f"{number} {name}"].size == 0 for name in refused)
    for pixels, sample in zip(cached.pixels, cached.samples, strict=True):
        theirs = on_the_device[f"{number} {sample.name}"]
        assert theirs.dtype == np.uint8
        assert pixels.tobytes() == theirs.tobytes(), sample.name
        assert pixels.shape == theirs.shape == SPECS[number].shape


def test_every_intensity_geometry_and_color_shows_another_picture(
    on_the_device: dict[str, np.ndarray],
):
    """Or the test above would prove little."""
    windows = {number for number, spec in enumerate(SPECS) if isinstance(spec.intensity, Windows)}
    numbers = {"png-16-rgb.png": set(range(len(SPECS))) - windows, "monochrome2-16.dcm": windows}
    for name, those in numbers.items():
        path = next(each for each in on_the_device if each.endswith(name))[2:]
        shown = {on_the_device[f"{number} {path}"].tobytes() for number in those}
        assert len(shown) == len(those)


# --- probabilities ---


@pytest.fixture(scope="module", params=["binary", "multiclass", "multilabel"])
def exported_pair(request: pytest.FixtureRequest) -> tuple[Bundle, Any, np.ndarray]:
    """A bundle, the Keras model that it was made of, and 7 images."""
    names = (
        ("run", "bundle")
        if request.param == "binary"
        else (
            f"{request.param}_run",
            f"{request.param}_bundle",
        )
    )
    run, bundle = (request.getfixturevalue(name) for name in names)
    model = trained_model(run.path)
    pixels = np.asarray(model.prepared.cached.pixels[model.prepared.rows("test")[:7]])
    return Bundle.open(bundle), model.deployable.model, pixels


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("artifact", ["model.onnx", "model.tflite"])
def test_float32_gives_keras_answer(exported_pair, artifact: str, count: int):
    bundle, keras_model, pixels = exported_pair
    manifest = bundle.manifest
    engine = engines.load(bundle.read(artifact), manifest.artifacts[artifact].format, manifest)
    expected = keras_model.predict_on_batch(pixels[:count])
    found = engine.run(pixels[:count])
    assert set(found) == set(expected) == {"probability", "heatmap", "embedding"}
    for name, values in found.items():
        assert values.shape == expected[name].shape
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("artifact", ["model.int8.onnx", "model.int8.tflite"])
def test_int8_answers_a_batch_as_it_answers_one(exported_pair, artifact: str):
    bundle, _, pixels = exported_pair
    manifest = bundle.manifest
    engine = engines.load(bundle.read(artifact), manifest.artifacts[artifact].format, manifest)
    batch = engine.run(pixels)["probability"]
    single = np.concatenate([engine.run(pixels[i : i + 1])["probability"] for i in range(7)])
    np.testing.assert_allclose(batch, single, atol=1e-6)
