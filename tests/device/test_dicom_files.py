"""Real files: what each shows at three points, computed without this package.

The levels in tests/data/dicom-points.csv were made once. Stored values by dcmtk 3.6.7 (dcmconv,
dcmdrle, dcmdjpeg, dcmdjpls) and, for JPEG 2000, HTJ2K and seven bits of JPEG-LS, by FFmpeg 9, whose
decoders are its own; from them in float64 by the formulas of PS3.3: C.11.1.1.2 the rescale,
C.11.2.1.2.1 the window, else the range of the stored bits, 255 minus that for MONOCHROME1,
C.7.6.3.1.2 and C.7.6.3.1.5 colours. Points lie where no rounding is near.
"""

import os
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import UID

from medimg_edge.dicom.read import DicomFile, read_dicom
from medimg_edge.errors import (
    DicomInvalid,
    DicomNoPixels,
    DicomTransferSyntax,
    InputError,
    NotAnImage,
    Truncated,
    Unsupported,
)
from tests.device.dicom_collection import marks, path, rows, shown

ROWS = rows()
SYNTAXES = {
    "1.2.840.10008.1.2": "implicit little endian",
    "1.2.840.10008.1.2.1": "explicit little endian",
    "1.2.840.10008.1.2.2": "explicit big endian",
    "1.2.840.10008.1.2.1.99": "deflated",
    "1.2.840.10008.1.2.5": "RLE",
    "1.2.840.10008.1.2.4.50": "JPEG baseline",
    "1.2.840.10008.1.2.4.51": "JPEG extended, of 8 and 12 bits",
    "1.2.840.10008.1.2.4.70": "JPEG lossless",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K lossless",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
}


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row["file"], marks=marks(row["file"])) for row in ROWS]
)
def test_what_a_file_shows(row):
    data = path(row["file"]).read_bytes()
    file = DicomFile(data)
    assert file.frames == int(row["frames"])
    image = file.image(int(row["frame"]) if row["frame"] else None)
    levels = shown(image)
    for at in ("1", "2", "3"):
        line, column = map(int, row[f"at_{at}"].split())
        expected = list(map(int, row[f"level_{at}"].split()))
        assert levels[line, column].tolist() == expected, (line, column)
    assert image.inverted == (row["photometric"] == "MONOCHROME1")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row["file"], marks=marks(row["file"])) for row in ROWS]
)
def test_the_table_says_what_the_files_say(row):
    """By pydicom, so that counting the table's rows counts files."""
    dataset = dcmread(path(row["file"]), stop_before_pixels=True, force=True)
    assert dataset.file_meta.TransferSyntaxUID == row["transfer_syntax"]
    assert dataset.PhotometricInterpretation == row["photometric"]
    assert int(dataset.get("NumberOfFrames") or 1) == int(row["frames"])


@pytest.mark.data
@pytest.mark.skipif("MEDIMG_EDGE_DATA" not in os.environ, reason="MEDIMG_EDGE_DATA is unset")
@pytest.mark.filterwarnings("ignore")
def test_the_table_covers_what_there_is():
    syntaxes = Counter(row["transfer_syntax"] for row in ROWS)
    assert set(syntaxes) == set(SYNTAXES)
    assert len(ROWS) >= 100
    assert sum(row["photometric"] == "MONOCHROME1" for row in ROWS) >= 5
    assert sum(int(row["frames"]) > 1 for row in ROWS) >= 10
    headers = [dcmread(path(row["file"]), stop_before_pixels=True, force=True) for row in ROWS]
    rescaled = [
        each
        for each in headers
        if each.get("Modality") == "CT" and float(each.get("RescaleIntercept") or 0) != 0
    ]
    assert len(rescaled) >= 5
    twelve = [
        each
        for each in headers
        if each.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.51" and each.BitsStored == 12
    ]
    assert twelve


REFUSED = [
    ("JPEG2000-embedded-sequence-delimiter.dcm", DicomInvalid, "3722445056 x 1024"),  # FFFE,E0DD
    ("MR_truncated.dcm", Truncated, "8,130 bytes"),
    ("badVR.dcm", Unsupported, "RT Dose Storage"),
    ("meta_missing_tsyntax.dcm", DicomInvalid, "BitsAllocated"),
    ("nested_priv_SQ.dcm", DicomInvalid, "BitsAllocated"),
    ("no_meta.dcm", NotAnImage, "DICM"),  # its first group is 0010
    ("ExplVR_BigEndNoMeta.dcm", NotAnImage, "DICM"),
    ("ExplVR_LitEndNoMeta.dcm", DicomNoPixels, "no pixel data"),
    ("UN_sequence.dcm", Truncated, "no pixel data"),  # its transfer syntax is of pixels
    ("empty_charset_LEI.dcm", DicomNoPixels, "no pixel data"),
    ("no_meta_group_length.dcm", DicomNoPixels, "no pixel data"),
    ("priv_SQ.dcm", DicomNoPixels, "no pixel data"),
    ("reportsi.dcm", DicomNoPixels, "modality SR"),
    ("reportsi_with_empty_number_tags.dcm", DicomNoPixels, "modality SR"),
    ("rtplan.dcm", DicomNoPixels, "modality RTPLAN"),
    ("rtplan_truncated.dcm", DicomNoPixels, "modality RTPLAN"),
    ("rtstruct.dcm", DicomNoPixels, "modality RTSTRUCT"),
    ("test-SR.dcm", DicomNoPixels, "modality SR"),
    ("waveform_ecg.dcm", DicomNoPixels, "modality ECG"),
    ("liver_1frame.dcm", Unsupported, "Segmentation Storage"),
    ("liver_expb_1frame.dcm", Unsupported, "Segmentation Storage"),
    ("SC_rgb_rle_32bit.dcm", Unsupported, "is 32;"),
    ("SC_rgb_rle_32bit_2frame.dcm", Unsupported, "is 32;"),
    ("rtdose.dcm", Unsupported, "RT Dose Storage"),
    ("rtdose_1frame.dcm", Unsupported, "RT Dose Storage"),
    ("rtdose_expb.dcm", Unsupported, "RT Dose Storage"),
    ("rtdose_expb_1frame.dcm", Unsupported, "RT Dose Storage"),
    ("rtdose_rle.dcm", Unsupported, "RT Dose Storage"),
    ("rtdose_rle_1frame.dcm", Unsupported, "RT Dose Storage"),
    ("OT/pydicom-data__SC_rgb_32bit.dcm", Unsupported, "is 32;"),
    ("OT/pydicom-data__SC_rgb_32bit_2frame.dcm", Unsupported, "is 32;"),
    ("OT/pydicom-data__SC_rgb_expb_32bit.dcm", Unsupported, "is 32;"),
    ("OT/pydicom-data__SC_rgb_expb_32bit_2frame.dcm", Unsupported, "is 32;"),
    ("OT/pydicom-data__parametric_map_float.dcm", Unsupported, "floating point"),
    # Its encoder overflowed in predictor 6; dcmtk and GDCM show noise (dcmtk's +w6 is right).
    (
        "malformed/pylibjpeg-data__JPEGLossless_1s_1f_i_16_16_bad.dcm",
        DicomTransferSyntax,
        "predictor 6",
    ),
]


@pytest.mark.parametrize(
    ("name", "error", "says"), [pytest.param(*each, marks=marks(each[0])) for each in REFUSED]
)
def test_real_files_that_are_refused(name, error, says):
    with pytest.raises(error) as caught:
        DicomFile(path(name).read_bytes()).image(1)
    assert says in str(caught.value)


@pytest.mark.data
@pytest.mark.skipif("MEDIMG_EDGE_DATA" not in os.environ, reason="MEDIMG_EDGE_DATA is unset")
def test_no_file_is_left_out():
    """A file that is in neither list would be one that nobody looked at."""
    folder = Path(os.environ["MEDIMG_EDGE_DATA"], "dicom")
    known = {row["file"] for row in ROWS} | {name for name, *_ in REFUSED}
    assert {str(each.relative_to(folder)) for each in folder.rglob("*.dcm")} <= known
    wheel = path("MR_small.dcm").parent
    left = [each for each in wheel.glob("*.dcm") if each.name not in known]
    for each in left:  # of another release of pydicom
        try:
            DicomFile(each.read_bytes()).image(1)
        except InputError:
            continue


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("MR_small.dcm", "MR_small_implicit.dcm"),
        ("MR_small.dcm", "MR_small_bigendian.dcm"),
        ("MR_small.dcm", "MR_small_RLE.dcm"),
        ("MR_small.dcm", "MR_small_jp2klossless.dcm"),
        ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm"),
        ("MR/pydicom-data__emri_small.dcm", "MR/pydicom-data__emri_small_RLE.dcm"),
        ("MR/pydicom-data__emri_small.dcm", "MR/pydicom-data__emri_small_big_endian.dcm"),
        ("MR/pydicom-data__emri_small.dcm", "MR/pydicom-data__emri_small_jpeg_ls_lossless.dcm"),
        ("MR/pydicom-data__emri_small.dcm", "MR/pydicom-data__emri_small_jpeg_2k_lossless.dcm"),
        ("MR/pydicom-data__MR2_UNCR.dcm", "MR/pydicom-data__MR2_J2KR.dcm"),
        ("CT/pydicom-data__693_UNCR.dcm", "CT/pydicom-data__693_J2KR.dcm"),
        ("NM/pydicom-data__JPEG2000_UNC.dcm", "JPEG2000.dcm"),
        ("US/pydicom-data__OBXXXX1A.dcm", "US/pydicom-data__OBXXXX1A_expb.dcm"),
        ("US/pydicom-data__OBXXXX1A.dcm", "US/pydicom-data__OBXXXX1A_rle.dcm"),
        # PS3.5 section 8.2.4: SIZ and PixelRepresentation contradict each other, the bits agree.
        (
            "CT/pylibjpeg-data__TOSHIBA_J2K_SIZ0_PixRep1.dcm",
            "CT/pylibjpeg-data__TOSHIBA_J2K_SIZ1_PixRep0.dcm",
        ),
    ],
)
def test_one_image_in_two_encodings(one, other):
    if "/" in one and "MEDIMG_EDGE_DATA" not in os.environ:
        pytest.skip("MEDIMG_EDGE_DATA is unset")
    files = [DicomFile(path(each).read_bytes()) for each in (one, other)]
    assert files[0].frames == files[1].frames
    for number in range(1, files[0].frames + 1):
        first, second = (each.image(number) for each in files)
        assert np.array_equal(first.frames, second.frames)
        assert (first.voi, first.inverted) == (second.voi, second.inverted) or one[:2] != "MR"


def test_each_frame_is_its_own():
    file = DicomFile(path("examples_ybr_color.dcm").read_bytes())
    frames = [file.image(number).frames for number in range(1, file.frames + 1)]
    assert len({each.tobytes() for each in frames}) == 28  # as many as differ as they are stored
    for number in (0, 31, -1):
        with pytest.raises(Unsupported, match=f"no frame {number}; there are 1 to 30"):
            file.image(number)


@pytest.mark.parametrize(
    ("syntax", "instead"),
    [
        ("1.2.840.10008.1.2.4.202", "other/pydicom-data__HTJ2KLossless_08_RGB.dcm"),
        ("1.2.840.10008.1.2.4.57", "NM/pydicom-data__JPEG-LL.dcm"),
    ],
)
@pytest.mark.data
@pytest.mark.skipif("MEDIMG_EDGE_DATA" not in os.environ, reason="MEDIMG_EDGE_DATA is unset")
def test_syntaxes_without_a_real_file(syntax, instead):
    """Both are wider than the syntax that the file has, so the same data are right in them."""
    data = path(instead).read_bytes()
    old = UID(dcmread(path(instead), stop_before_pixels=True).file_meta.TransferSyntaxUID)
    new = data.replace(old.encode(), syntax.encode(), 1)
    assert np.array_equal(read_dicom(new).frames, read_dicom(data).frames)


@pytest.mark.parametrize("name", ["examples_jpeg2k.dcm", "SC_rgb_gdcm_KY.dcm", "SC_rgb_rle.dcm"])
@pytest.mark.parametrize("planar", [0, 1])
def test_encoded_frames_say_themselves_how_colours_lie(name, planar):
    """PlanarConfiguration is irrelevant: PS3.5 section 8.2.4 for JPEG 2000, 8.2.2 for RLE."""
    dataset = dcmread(path(name))
    dataset.PlanarConfiguration = planar
    changed = BytesIO()
    dataset.save_as(changed)
    expected = read_dicom(path(name).read_bytes())
    assert np.array_equal(read_dicom(changed.getvalue()).frames, expected.frames)
