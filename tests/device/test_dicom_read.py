"""DICOM: pydicom's own test files, and objects written here, stage by stage."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medimg_edge.dicom import is_dicom
from medimg_edge.dicom.read import read_dicom
from medimg_edge.errors import (
    DicomInvalid,
    DicomNoPixels,
    DicomTransferSyntax,
    InputError,
    NotAnImage,
    TooLarge,
    Truncated,
    Unsupported,
)
from medimg_edge.image import Header, Image, Range, Table, Window

STORED = np.arange(12, dtype=np.uint16).reshape(3, 4) * 300


def shipped(name: str) -> bytes:
    """One of the files that pydicom's wheel brings; nothing is downloaded."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"this pydicom does not bring {name}")
    return Path(str(path)).read_bytes()


def dicom(pixels: np.ndarray = STORED, syntax=ExplicitVRLittleEndian, **elements) -> bytes:
    """A small secondary capture; ``elements`` adds, replaces, or with None removes."""
    dataset = Dataset()
    dataset.Modality = "DX"
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    little = syntax != ExplicitVRBigEndian
    stored = pixels.astype(pixels.dtype.newbyteorder("<" if little else ">")).tobytes()
    dataset.PixelData = stored + b"\0" * (len(stored) % 2)
    dataset["PixelData"].VR = "OW" if pixels.itemsize == 2 else "OB"
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def meta_end(data: bytes) -> int:
    """Behind the group length (0002,0000) and the group that it measures."""
    return 132 + 12 + int.from_bytes(data[140:144], "little")


def table(entries, start, bits) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if start < 0 else "US", [len(entries), start, bits])
    item.add_new("LUTData", "US", entries)
    return item


def values(image: Image) -> np.ndarray:
    return image.frames[0, ..., 0]


def header(image: Image) -> Header:
    assert image.header is not None
    return image.header


# -- Real files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_padded.dcm",
        "examples_overlay.dcm",
        "SC_rgb_small_odd.dcm",
        "SC_rgb_small_odd_big_endian.dcm",
        "SC_rgb_jpeg_dcmd.dcm",
        "examples_rgb_color.dcm",
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_values_are_those_that_pydicom_reads(name):
    data = shipped(name)
    dataset = dcmread(BytesIO(data), force=True)
    expected = apply_modality_lut(dataset.pixel_array, dataset)
    image = read_dicom(data)
    assert np.array_equal(image.frames[0], expected.reshape(image.frames.shape[1:]))


@pytest.mark.parametrize(
    ("name", "voi", "spacing", "modality"),
    [
        ("MR_small.dcm", Window(600, 1600), (0.3125, 0.3125), "MR"),
        ("CT_small.dcm", Range(-32768 - 1024, 32767 - 1024), (0.661468, 0.661468), "CT"),
        ("SC_rgb_small_odd.dcm", Range(0, 255), (33.333333, 33.333333), "OT"),
    ],
)
def test_what_the_header_says(name, voi, spacing, modality):
    image = read_dicom(shipped(name))
    found = header(image)
    assert (image.voi, found.spacing, found.modality) == (voi, spacing, modality)
    assert (image.source, image.inverted) == ("dicom", False)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("MR_truncated.dcm", Truncated, "8,130 bytes"),
        ("rtplan.dcm", DicomNoPixels, "RTPLAN"),
        ("test-SR.dcm", DicomNoPixels, "SR"),
        ("examples_ybr_color.dcm", Unsupported, "30 frames"),
        ("rtdose_1frame.dcm", Unsupported, "RT Dose Storage"),
        ("liver_1frame.dcm", Unsupported, "Segmentation Storage"),
    ],
)
def test_real_files_that_are_refused(name, error, says):
    with pytest.raises(error) as caught:
        read_dicom(shipped(name))
    assert says in str(caught.value)


# -- Stored values: PS3.5 section 8 ----------------------------------------------------------

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
RGB = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)  # an odd number of bytes


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("pixels", [STORED, STORED.astype(np.uint8), RGB, RGB.astype(np.uint16)])
def test_unsigned_values_keep_their_dtype(syntax, pixels):
    image = read_dicom(dicom(pixels, syntax))
    assert image.frames.dtype == pixels.dtype
    assert np.array_equal(image.frames[0], pixels.reshape(3, pixels.shape[1], -1))
    assert image.voi == Range(0, np.iinfo(pixels.dtype).max)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_signed_values(syntax):
    pixels = STORED.astype(np.int16) - 1500
    image = read_dicom(dicom(pixels, syntax))
    assert image.frames.dtype == np.float32
    assert np.array_equal(values(image), pixels)
    assert image.voi == Range(-32768, 32767)


def test_unused_bits_are_dropped_and_the_sign_extended():
    overlay = np.uint16(0xA000)
    image = read_dicom(dicom(STORED | overlay, BitsStored=12, HighBit=11))
    assert np.array_equal(values(image), STORED)
    assert image.voi == Range(0, 4095)
    signed = np.array([[0x0FFF, 0x0800], [0x07FF, 0xF001]], np.uint16)
    image = read_dicom(dicom(signed, BitsStored=12, HighBit=11, PixelRepresentation=1))
    assert values(image).tolist() == [[-1, -2048], [2047, 1]]
    shifted = read_dicom(dicom(STORED << 2, BitsStored=12, HighBit=13))
    assert np.array_equal(values(shifted), STORED)


def test_planes_and_ybr():
    planes = np.ascontiguousarray(RGB.transpose(2, 0, 1)).tobytes() + b"\0"
    image = read_dicom(dicom(RGB, PlanarConfiguration=1, PixelData=planes))
    assert np.array_equal(image.frames[0], RGB)
    grey = np.full((2, 2, 3), 128, np.uint8)
    grey[0, 0] = (76, 85, 255)  # PS3.3 C.7.6.3.1.2: red
    image = read_dicom(dicom(grey, PhotometricInterpretation="YBR_FULL"))
    assert image.frames[0, 1, 1].tolist() == [128, 128, 128]
    assert np.abs(image.frames[0, 0, 0].astype(int) - (254, 0, 0)).max() <= 1


# -- Modality: PS3.3 C.11.1 ------------------------------------------------------------------


def test_rescale_gives_float32_units():
    image = read_dicom(dicom(RescaleSlope="2", RescaleIntercept="-1024"))
    assert image.frames.dtype == np.float32
    assert np.array_equal(values(image), STORED * 2.0 - 1024)
    assert image.voi == Range(-1024, 65535 * 2 - 1024)


def test_negative_slope_keeps_the_range_ascending():
    assert read_dicom(dicom(RescaleSlope="-1", RescaleIntercept="0")).voi == Range(-65535, 0)


def test_modality_lut():
    item = table([10, 20, 40], 300, 8)
    image = read_dicom(dicom(ModalityLUTSequence=[item], RescaleSlope="5", RescaleIntercept="0"))
    index = np.clip(STORED.astype(int) - 300, 0, 2)
    assert np.array_equal(values(image), np.array([10, 20, 40])[index])
    assert image.voi == Range(0, 255)


# -- Value of interest: PS3.3 C.11.2 ---------------------------------------------------------


@pytest.mark.parametrize(
    ("elements", "voi"),
    [
        ({"WindowCenter": "40", "WindowWidth": "400"}, Window(40, 400)),
        ({"WindowCenter": ["40", "-600"], "WindowWidth": ["400", "1500"]}, Window(40, 400)),
        (
            {"WindowCenter": "40", "WindowWidth": "0.5", "VOILUTFunction": "LINEAR_EXACT"},
            Window(40, 0.5, "LINEAR_EXACT"),
        ),
        (
            {"WindowCenter": "40", "WindowWidth": "400", "VOILUTFunction": "SIGMOID"},
            Window(40, 400, "SIGMOID"),
        ),
        ({"WindowCenter": "40"}, Range(0, 65535)),
        ({"WindowCenter": "", "WindowWidth": ""}, Range(0, 65535)),
    ],
)
def test_windows(elements, voi):
    image = read_dicom(dicom(**elements))
    assert image.voi == voi
    assert image.warnings == ()


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": "40", "WindowWidth": "0"},
        {"WindowCenter": "40", "WindowWidth": "-400"},
        {"WindowCenter": "40", "WindowWidth": "400", "VOILUTFunction": "CUBIC"},
    ],
)
def test_windows_that_the_standard_forbids_are_passed_over(elements):
    image = read_dicom(dicom(**elements))
    assert image.voi == Range(0, 65535)
    assert "not used" in image.warnings[0]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("start", [0, 600, -300])
def test_voi_lut_wins_over_a_window(syntax, start):
    entries = [int(value) for value in np.linspace(0, 4095, 2000)]
    pixels = STORED.astype(np.int16) - 500 if start < 0 else STORED
    elements = {"VOILUTSequence": [table(entries, start, 12)], "WindowCenter": "1"}
    data = dicom(pixels, syntax, WindowWidth="2", **elements)
    image = read_dicom(data)
    assert isinstance(image.voi, Table)
    assert (image.voi.first, image.voi.bits, len(image.voi.entries)) == (start, 12, 2000)
    dataset = dcmread(BytesIO(data))
    expected = apply_voi_lut(dataset.pixel_array, dataset) / 4095 * 255
    assert np.allclose(image.voi.grey(values(image)), expected, atol=1e-3)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_voi_lut_as_words(syntax):
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    entries = np.array([1, 258, 4000], order)
    item = table([0] * len(entries), 0, 12)
    item.add_new("LUTData", "OW", entries.tobytes())
    image = read_dicom(dicom(syntax=syntax, VOILUTSequence=[item]))
    assert isinstance(image.voi, Table)
    assert image.voi.entries.tolist() == [1, 258, 4000]


@pytest.mark.parametrize(
    "item",
    [
        table([1, 2, 300], 0, 8),
        table([1, 2, 3], 0, 0),
        table([1, 2, 3], 0, 99),
        Dataset(),
    ],
)
def test_luts_that_contradict_themselves(item):
    with pytest.raises(DicomInvalid, match="LUT"):
        read_dicom(dicom(VOILUTSequence=[item]))


# -- Polarity --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted", "warned"),
    [
        ("MONOCHROME2", None, False, False),
        ("MONOCHROME1", None, True, False),
        ("MONOCHROME2", "IDENTITY", False, False),
        ("MONOCHROME1", "INVERSE", True, False),  # once, not twice
        ("MONOCHROME2", "INVERSE", True, True),
        ("MONOCHROME1", "IDENTITY", True, True),
    ],
)
def test_polarity(photometric, shape, inverted, warned):
    elements = {"PhotometricInterpretation": photometric}
    if shape:
        elements["PresentationLUTShape"] = shape
    image = read_dicom(dicom(**elements))
    assert (image.inverted, bool(image.warnings)) == (inverted, warned)
    assert np.array_equal(values(image), STORED)


# -- Header ----------------------------------------------------------------------------------


def test_words_of_the_header():
    elements = {"BodyPartExamined": "CHEST ", "ViewPosition": "PA", "PixelPaddingValue": 0}
    image = read_dicom(dicom(ImagerPixelSpacing=["0.15", "0.2"], **elements))
    found = header(image)
    assert (found.modality, found.body_part, found.view) == ("DX", "CHEST", "PA")
    assert found.spacing == (0.15, 0.2)
    assert "padding" in image.warnings[0]
    assert header(read_dicom(dicom(PixelSpacing=["0", "1"]))).spacing is None


@pytest.mark.parametrize(
    ("elements", "error", "says"),
    [
        ({"PixelData": None}, Truncated, "no pixel data"),
        ({"PixelData": None, "Rows": None}, DicomNoPixels, "DX"),
        ({"PixelData": bytes(22)}, Truncated, "22 bytes"),
        ({"PixelData": bytes(24) + b"\1" * 8}, DicomInvalid, "do not fit"),
        ({"Rows": 50000, "Columns": 50000}, TooLarge, "50000 x 50000"),
        ({"Rows": 0}, DicomInvalid, "4 x 0"),
        ({"Rows": None}, DicomInvalid, "Rows (0028,0010)"),
        ({"BitsAllocated": 12}, Unsupported, "12"),
        ({"BitsAllocated": 1}, Unsupported, "is 1;"),
        ({"NumberOfFrames": "0"}, DicomInvalid, "0 frames"),
        ({"BitsStored": 17}, DicomInvalid, "17 bits"),
        ({"HighBit": 3}, DicomInvalid, "bit 3"),
        ({"SamplesPerPixel": 3}, DicomInvalid, "3 samples"),
        ({"PhotometricInterpretation": None}, Unsupported, "none of MONOCHROME1"),
        ({"NumberOfFrames": "2"}, Unsupported, "2 frames"),
        ({"RescaleSlope": "0", "RescaleIntercept": "0"}, DicomInvalid, "is 0"),
        ({"RescaleSlope": "1e300", "RescaleIntercept": "0"}, DicomInvalid, "exceeds"),
        ({"FloatPixelData": bytes(48), "PixelData": None}, Unsupported, "floating point"),
    ],
)
def test_refused(elements, error, says):
    data = dicom(**elements)
    with pytest.raises(error) as caught:
        read_dicom(data)
    assert says in str(caught.value)


def test_unknown_transfer_syntax_is_named():
    data = dicom().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.1.2.1\0")
    with pytest.raises(DicomTransferSyntax, match=r"1\.2\.840\.99999\.1\.2\.1.*RLE"):
        read_dicom(data)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "elements",
    [
        {"Modality": "DOE^JANE", "PixelData": None, "Rows": None},
        {"PhotometricInterpretation": "DOE^JANE"},
        {"WindowCenter": "40", "WindowWidth": "400", "VOILUTFunction": "DOE^JANE"},
        {"PresentationLUTShape": "DOE^JANE"},
        {"SpecificCharacterSet": "DOE^JANE", "PixelData": None},
    ],
)
def test_no_word_of_the_file_is_repeated(elements):
    """Text of a patient is at times where it does not belong."""
    try:
        said = read_dicom(dicom(**elements)).warnings
    except InputError as error:
        said = [str(error)]
    assert "DOE" not in " ".join(said)


def test_no_word_instead_of_a_transfer_syntax_is_repeated():
    data = dicom().replace(b"1.2.840.10008.1.2.1\0", b"DOE^JANE 19700101 F\0")
    with pytest.raises(InputError) as caught:
        read_dicom(data)
    assert "DOE" not in str(caught.value)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_bare_data_set_of_an_old_archive(syntax):
    data = dicom(syntax=syntax, ImageType=["ORIGINAL"])
    bare = data[meta_end(data) :]
    assert is_dicom(bare)
    assert np.array_equal(values(read_dicom(bare)), STORED)
    assert np.array_equal(values(read_dicom(data[132:])), STORED)


def test_not_dicom():
    for data in (
        b"",
        b"text",
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        bytes(200),
        b"II*\0" + bytes(200),
    ):
        assert not is_dicom(data)
    with pytest.raises(NotAnImage):
        read_dicom(b"text")


def test_quiet_and_light():
    """No warning of pydicom reaches the terminal, and importing the package does not import it."""
    program = (
        "import sys, medimg_edge.dicom.read\n"
        "assert 'pydicom' not in sys.modules\n"
        "data = sys.stdin.buffer.read()\n"
        "medimg_edge.dicom.read.read_dicom(data)\n"
    )
    data = dicom(SpecificCharacterSet="ISO_IR 100", BodyPartExamined="CHEST")
    data = data.replace(b"ISO_IR 100", b"ISO_IR 999")  # pydicom warns three times
    run = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


# -- Truncated, mutated ----------------------------------------------------------------------


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_answer_from_a_truncated_file(syntax):
    data = dicom(syntax=syntax, WindowCenter="40", WindowWidth="400")
    assert isinstance(read_dicom(data), Image)
    for cut in range(1, len(data)):
        with pytest.raises(InputError):
            read_dicom(data[:cut])


SEEDS = [dicom(syntax=syntax, WindowCenter="4", WindowWidth="9") for syntax in SYNTAXES]
SEEDS.append(dicom(RGB, VOILUTSequence=[table([1, 2], 0, 8)], RescaleSlope="2"))
SEEDS.append(dicom(ModalityLUTSequence=[table([1, 2], 0, 8)], PixelSpacing=["1", "1"]))


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6)), max_size=5),
)
def test_mutations_give_an_image_or_our_error(data, edits):
    changed = bytearray(data)
    for place, replacement in edits:
        start = 128 + int(place * (len(data) - 128))
        changed[start : start + len(replacement)] = replacement
    try:
        image = read_dicom(bytes(changed))
    except InputError:
        return
    assert image.frames.dtype in (np.uint8, np.uint16, np.float32)
    assert np.isfinite(image.voi.grey(image.frames)).all()
