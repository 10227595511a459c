"""One synthetic radiograph in every polarity, sign, depth and lossless encoding: one answer.

There is no encoder for HTJ2K here; its real files are in test_dicom_files.
"""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medimg_edge import Classifier, read_image
from medimg_edge.dicom.read import read_dicom
from medimg_edge.errors import DicomTransferSyntax
from medimg_edge.image import Image

JPEG2000 = "1.2.840.10008.1.2.4.91"
DX_FOR_PRESENTATION = UID("1.2.840.10008.5.1.4.1.1.1.1")

VARIANTS = [
    (bits, signed, photometric)
    for bits in (12, 16)
    for signed in (False, True)
    for photometric in ("MONOCHROME2", "MONOCHROME1")
]
NATIVE = (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
COMPRESSED = (RLELossless, JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless)
BY_DCMTK = {
    "implicit": ("dcmconv", "+ti"),
    "big endian": ("dcmconv", "+tb"),
    "deflated": ("dcmconv", "+td"),
    "RLE": ("dcmcrle",),
    "JPEG lossless": ("dcmcjpeg", "+e1"),
    **{f"JPEG lossless, predictor {each}": ("dcmcjpeg", "+el", "+sv", each) for each in "123457"},
    "JPEG-LS": ("dcmcjpls", "+el"),
    "JPEG-LS, fragments": ("dcmcjpls", "+el", "+fs", "4"),
}


def chest(rows: int = 300, columns: int = 280) -> np.ndarray:
    """Twelve bits as they come from a detector: lungs, spine, ribs, noise. (rows, columns)."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    lungs = sum(np.exp(-(((x - side) / 0.28) ** 2) - (y / 0.6) ** 2) for side in (-0.45, 0.45))
    spine = np.exp(-((x / 0.09) ** 2))
    ribs = 0.06 * np.sin(18 * y + 4 * np.abs(x)) * lungs
    opacity = 0.3 * np.exp(-(((x - 0.5) / 0.12) ** 2) - (((y - 0.3) / 0.15) ** 2))
    noise = np.random.default_rng(7).normal(0, 0.01, (rows, columns))
    grey = 0.62 - 0.5 * lungs + 0.25 * spine + ribs + opacity + noise
    return np.rint(np.clip(grey, 0, 1) * 4095).astype(np.int64)


PHANTOM = chest()


def dataset(bits: int, signed: bool, photometric: str) -> Dataset:
    """Stored so that its window shows every variant in the same grey."""
    step = 2 ** (bits - 12)
    low = -(2 ** (bits - 1)) if signed else 0
    shown = PHANTOM if photometric == "MONOCHROME2" else 4095 - PHANTOM
    stored = shown * step + low
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = DX_FOR_PRESENTATION, UID("1.2.3")
    image.StudyInstanceUID, image.SeriesInstanceUID = UID("1.2.3.1"), UID("1.2.3.2")
    image.Modality, image.BodyPartExamined, image.ViewPosition = "DX", "CHEST", "PA"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, photometric
    image.PresentationLUTShape = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    image.Rows, image.Columns = stored.shape
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, bits, bits - 1
    image.PixelRepresentation = int(signed)
    image.WindowWidth = str(4095 * step + 1)  # PS3.3 C.11.2.1.2.1: from low to low + 4095 step
    image.WindowCenter = str(low + (4095 * step + 1) / 2)
    cells = stored & 2**bits - 1 if bits < 16 and not signed else stored
    image.PixelData = cells.astype("<i2" if signed else "<u2").tobytes()
    image["PixelData"].VR = "OW"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return image


def encoded(image: Dataset) -> bytes:
    file = BytesIO()
    image.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def classifier(frozen) -> Classifier:
    return Classifier(frozen, threads=1)


@pytest.fixture(scope="module")
def expected(classifier) -> float:
    """The answer for the same grey as an array, which no DICOM code touches."""
    array = PHANTOM.astype(np.float32)
    return probability(classifier, read_image(array, value_range=(0, 4095)))


def probability(classifier: Classifier, source: bytes | Image) -> float:
    found = classifier.predict(source).probability
    assert found is not None
    return found


def same(data: bytes, classifier: Classifier, expected: float) -> bool:
    return abs(probability(classifier, data) - expected) <= 1e-6


@pytest.mark.parametrize(("bits", "signed", "photometric"), VARIANTS)
def test_polarity_sign_and_depth(bits, signed, photometric, classifier, expected):
    image = dataset(bits, signed, photometric)
    data = encoded(image)
    read = read_dicom(data)
    assert read.inverted == (photometric == "MONOCHROME1")
    assert read.warnings == ()
    assert same(data, classifier, expected)


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize(("bits", "signed", "photometric"), VARIANTS)
def test_written_plain(syntax, bits, signed, photometric, classifier, expected):
    image = dataset(bits, signed, photometric)
    if syntax == ExplicitVRBigEndian:
        cells = np.frombuffer(image.PixelData, "<u2").astype(">u2")
        image.PixelData = cells.tobytes()
    image.file_meta.TransferSyntaxUID = syntax
    assert same(encoded(image), classifier, expected)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda each: each.name)
@pytest.mark.parametrize(("bits", "signed", "photometric"), VARIANTS)
def test_compressed_by_pydicom(syntax, bits, signed, photometric, classifier, expected):
    image = dataset(bits, signed, photometric)
    near = 0 if syntax == JPEGLSNearLossless else None
    image.compress(syntax, generate_instance_uid=False, jls_error=near)
    data = encoded(image)
    assert same(data, classifier, expected)
    if syntax == JPEG2000Lossless:  # which the other syntax of JPEG 2000 allows: PS3.5 A.4.4
        data = data.replace(JPEG2000Lossless.encode(), JPEG2000.encode(), 1)
        assert same(data, classifier, expected)


@pytest.mark.peers
@pytest.mark.skipif(not Path("/usr/bin/dcmcjpls").exists(), reason="dcmtk is not installed")
@pytest.mark.parametrize("tool", BY_DCMTK)
@pytest.mark.parametrize(("bits", "signed", "photometric"), VARIANTS)
def test_encoded_by_dcmtk(tool, bits, signed, photometric, classifier, expected, tmp_path):
    source, target = tmp_path / "plain.dcm", tmp_path / "encoded.dcm"
    source.write_bytes(encoded(dataset(bits, signed, photometric)))
    program, *options = BY_DCMTK[tool]
    command = [f"/usr/bin/{program}", *options, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    syntax = dcmread(target, stop_before_pixels=True).file_meta.TransferSyntaxUID
    assert syntax != ExplicitVRLittleEndian
    assert same(target.read_bytes(), classifier, expected)


@pytest.mark.peers
@pytest.mark.skipif(not Path("/usr/bin/dcmcjpeg").exists(), reason="dcmtk is not installed")
@pytest.mark.parametrize(("bits", "signed", "photometric"), VARIANTS)
def test_predictor_six_is_right_or_refused(
    bits, signed, photometric, classifier, expected, tmp_path
):
    """Of sixteen bits it is ambiguous where neighbours differ by 32,768 or more; never guessed."""
    source, target = tmp_path / "plain.dcm", tmp_path / "encoded.dcm"
    source.write_bytes(encoded(dataset(bits, signed, photometric)))
    command = ["/usr/bin/dcmcjpeg", "+el", "+sv", "6", str(source), str(target)]
    subprocess.run(command, check=True, timeout=60)
    try:
        found = probability(classifier, target.read_bytes())
    except DicomTransferSyntax:
        assert signed, "neighbours of opposite sign are far apart; others here are not"
        return
    assert abs(found - expected) <= 1e-6
