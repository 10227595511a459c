"""The golden set: twelve synthetic inputs of every kind, and a model that is unsure of them."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from medimg_edge.errors import GateError
from medimg_edge.manifest import Percentile, Preprocessing, Windows, WindowSetting
from medimg_edge.preprocess import preprocess
from medimg_edge.raster import jpeg
from medimg_edge.reader import read_image
from medimg_export.golden_set import CASES, MIN_UNSURE, UNSURE, Golden, golden_set

SPEC = Preprocessing(height=40, width=40)
RGB = Preprocessing(height=40, width=40, color="rgb", geometry="letterbox")
CT = Preprocessing(
    height=40,
    width=40,
    intensity=Windows((WindowSetting(-600, 1500), WindowSetting(40, 400))),
    geometry="center-crop",
)
MR = Preprocessing(height=40, width=40, intensity=Percentile())
SCALED = Preprocessing(height=40, width=40, decode="scaled")


def brightness(threshold: float, slope: float) -> Callable[[np.ndarray], np.ndarray]:
    """The probability that a picture is brighter than the threshold."""

    def answer(pixels: np.ndarray) -> np.ndarray:
        z = slope * (pixels.reshape(len(pixels), -1).mean(axis=1) - threshold)
        return (0.5 * (1 + np.tanh(z / 2))).astype(np.float32)[:, None]

    return answer


def sure_of(cases: list[Golden], answer: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    p = answer(np.stack([case.tensor for case in cases]))
    return np.all((p < UNSURE[0]) | (p > UNSURE[1]), axis=1)


@pytest.mark.parametrize(
    "spec",
    [SPEC, RGB, CT, MR, SCALED],
    ids=["gray", "rgb", "windows", "percentile", "scaled"],
)
def test_each_input_gives_its_tensor_through_the_devices_code(spec: Preprocessing):
    answer = brightness(110, 0.05)
    cases = golden_set(spec, answer)
    assert len(cases) == CASES
    assert len({case.input for case in cases}) == CASES
    for case in cases:
        assert case.tensor.shape == spec.shape
        assert np.array_equal(
            preprocess(read_image(case.encoded, needed=spec.needed), spec), case.tensor
        )
    assert (~sure_of(cases, answer)).sum() >= MIN_UNSURE
    assert len({case.tensor.tobytes() for case in cases}) > CASES / 2


def test_every_kind_of_file_and_shape_is_among_them():
    images = [read_image(case.encoded) for case in golden_set(SPEC, brightness(110, 0.05))]
    dicom = [image for image in images if image.source == "dicom"]
    assert any(image.inverted for image in dicom)
    assert any(not image.inverted for image in dicom)
    png = [image for image in images if image.source == "png"]
    assert any(image.frames.dtype == np.uint16 for image in png)
    assert any(image.frames.shape[-1] == 3 for image in png)
    sizes = np.array([image.size for image in images])
    assert (sizes[:, 0] > 1.5 * sizes[:, 1]).any()
    assert (sizes[:, 1] > 1.5 * sizes[:, 0]).any()
    assert (sizes < 40).all(axis=1).any()
    assert (sizes > 80).all(axis=1).any()
    assert (sizes == 40).all(axis=1).any()


def test_a_decoder_that_does_not_scale_is_seen(monkeypatch: pytest.MonkeyPatch):
    cases = golden_set(SCALED, brightness(110, 0.05))
    whole = jpeg._form
    monkeypatch.setattr(jpeg, "_form", lambda frame, turned, needed: whole(frame, turned, None))
    for name in ("wide-quarter.jpg", "larger-half.jpg"):
        case = next(case for case in cases if case.input.endswith(name))
        found = preprocess(read_image(case.encoded, needed=SCALED.needed), SCALED)
        assert not np.array_equal(found, case.tensor)


def test_colors_differ_so_that_swapped_channels_are_seen():
    color = [case for case in golden_set(RGB, brightness(110, 0.05)) if "rgb" in case.input]
    assert color
    for case in color:
        assert not np.array_equal(case.tensor, case.tensor[..., ::-1])


def test_another_interpolation_is_seen():
    cases = golden_set(SPEC, brightness(110, 0.05))
    larger = next(case for case in cases if case.input.endswith("larger.png"))
    gray = read_image(larger.encoded).frames[0]
    for interpolation in (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST):
        other = cv2.resize(gray, (40, 40), interpolation=interpolation)
        assert (other != larger.tensor[..., 0]).mean() > 0.2


def test_windows_get_dicom_files_that_span_them():
    """A PNG holds no Hounsfield units."""
    for case in golden_set(CT, brightness(110, 0.05)):
        assert case.input.endswith(".dcm")
        dataset = pydicom.dcmread(io.BytesIO(case.encoded))
        assert float(dataset.RescaleIntercept) == -1350
        assert len(np.unique(case.tensor[..., 0])) > 10


def test_it_is_always_the_same():
    one, other = (golden_set(SPEC, brightness(110, 0.05)) for _ in range(2))
    assert [case.encoded for case in one] == [case.encoded for case in other]


@pytest.mark.parametrize(
    ("threshold", "slope"),
    [(110, 0.5), (30, 0.3), (210, 0.3), (128, 5.0)],
    ids=["sure", "of dark pictures only", "of bright pictures only", "very sure"],
)
def test_unsure_pictures_are_found_for_sure_models(threshold: float, slope: float):
    answer = brightness(threshold, slope)
    assert (~sure_of(golden_set(SPEC, answer), answer)).sum() >= MIN_UNSURE


def test_several_findings():
    one, other = brightness(90, 0.2), brightness(150, 0.2)

    def answer(pixels: np.ndarray) -> np.ndarray:
        return np.concatenate([one(pixels), other(pixels)], axis=1)

    assert (~sure_of(golden_set(SPEC, answer), answer)).sum() >= MIN_UNSURE


def test_a_model_that_is_sure_of_everything_is_refused():
    with pytest.raises(GateError, match="sure of almost every synthetic picture: 0 of 12"):
        golden_set(SPEC, lambda pixels: np.full((len(pixels), 1), 0.999, np.float32))


def test_files_are_written_as_the_manifest_names_them(tmp_path: Path):
    for case in golden_set(SPEC, brightness(110, 0.05)):
        case.write(tmp_path)
        assert (tmp_path / case.input).read_bytes() == case.encoded
        stored = np.frombuffer((tmp_path / case.pixels).read_bytes(), np.uint8)
        assert np.array_equal(stored.reshape(SPEC.shape), case.tensor)
    assert len(list((tmp_path / "golden").iterdir())) == 2 * CASES
