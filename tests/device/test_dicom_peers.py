"""Against dcmtk's own rendering: what we show is what dcmj2pnm writes, within one grey level.

dcmtk cuts off where we round, so most differences are of one level. Its window is that of PS3.3
C.11.2.1.2.1, and without a window (-W) it shows the range of the stored bits, as we do.
"""

import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from medimg_edge.dicom.read import DicomFile, read_dicom
from medimg_edge.image import Image, Range, Table, Window
from tests.device.dicom_collection import marks, path, rows, shown

DCMJ2PNM, DCML2PNM = "/usr/bin/dcmj2pnm", "/usr/bin/dcml2pnm"  # the second one reads JPEG-LS

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(not Path(DCMJ2PNM).exists(), reason="dcmtk is not installed"),
    pytest.mark.filterwarnings("ignore"),
]

JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{each}" for each in (90, 91, 201, 202, 203))
UNREAD = {
    "SC_rgb_jpeg.dcm": "dcmtk takes its header for explicit VR",
    "other/pydicom-data__JLSL_08_07_0_1F.dcm": "dcmtk's JPEG-LS refuses seven bits",
}


def rendered(file: Path, image: Image, frame: int, program: str = DCMJ2PNM) -> np.ndarray:
    """uint8 (H, W, C) by dcmtk. -O: without overlays, which are none of the image's pixels."""
    window = {Window: ["+Wi", "1"], Table: ["+Wl", "1"], Range: ["-W"]}[type(image.voi)]
    command = [program, "-q", "-O", "+F", str(frame), *window, str(file)]
    done = subprocess.run([*command, "+op"], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    picture = cv2.imdecode(np.frombuffer(done.stdout, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return picture[..., None] if picture.ndim == 2 else picture[..., ::-1]


def plain(source: Path, folder: Path) -> Path:
    """Decoded by OpenJPEG through pylibjpeg: dcmtk has no JPEG 2000. So the window is compared.

    We decode by GDCM, except HTJ2K; that the values are right is what test_dicom_files shows.
    """
    dataset = dcmread(source)
    dataset.decompress(decoding_plugin="pylibjpeg")
    dataset.save_as(folder / "plain.dcm")
    return folder / "plain.dcm"


def flat(source: Path, frame: int, folder: Path) -> Path:
    """dcmtk 3.6.7 does not look into functional groups (PS3.3 C.7.6.16): copied to the top."""
    dataset = dcmread(source)
    shared, own = (
        dataset.SharedFunctionalGroupsSequence[0],
        dataset.PerFrameFunctionalGroupsSequence,
    )
    for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
        for group in (shared, own[frame - 1]):
            for item in group.get(macro, ()):
                dataset.update({element.tag: element for element in item})
    dataset.save_as(folder / "flat.dcm")
    return folder / "flat.dcm"


def within(ours: np.ndarray, theirs: np.ndarray, levels: int = 1) -> float:
    assert ours.shape == theirs.shape
    return float((np.abs(ours.astype(int) - theirs) <= levels).mean())


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row["file"], marks=marks(row["file"])) for row in rows()]
)
def test_real_files(row, tmp_path):
    name, syntax, frame = row["file"], row["transfer_syntax"], int(row["frame"] or 1)
    if name in UNREAD:
        pytest.skip(UNREAD[name])
    source = path(name)
    image = DicomFile(source.read_bytes()).image(frame)
    if syntax in JPEG_2000:
        source = plain(source, tmp_path)
        if name.endswith("SIZ1_PixRep0.dcm"):  # the header says unsigned, the codestream signed
            dataset = dcmread(source)
            dataset.PixelRepresentation = 1
            dataset.save_as(source)
    if "eCT" in name:
        source = flat(source, frame, tmp_path)
    theirs = rendered(source, image, frame, DCML2PNM if syntax in JPEG_LS else DCMJ2PNM)
    # dcmtk turns plain YBR into RGB by whole numbers; ours is that of PS3.3 C.7.6.3.1.2, rounded.
    levels = 2 if "ybr_full_uncompressed" in name else 1
    assert within(shown(image), theirs, levels) >= 0.995


def write(folder: Path, pixels: np.ndarray, **elements) -> Path:
    """A secondary capture of 16 bits allocated, for the rules that no real file here uses."""
    dataset = Dataset()
    dataset.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    dataset.SOPInstanceUID = UID("1.2.3")
    dataset.Modality, dataset.SamplesPerPixel = "OT", 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(folder / "written.dcm", enforce_file_format=True)
    return folder / "written.dcm"


def table(entries: np.ndarray, first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", [int(each) for each in entries])
    item.ModalityLUTType = "US"
    return item


RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
SIGNED = (RAMP.astype(np.int16) - 2048) & 0x0FFF  # as cells of twelve bits
CURVE = (np.linspace(0, 1, 2000) ** 2 * 1023).astype(int)
WINDOW = {"WindowCenter": "1500", "WindowWidth": "1800"}


@pytest.mark.parametrize(
    ("pixels", "elements"),
    [
        (RAMP, {}),
        (RAMP, WINDOW),
        (RAMP, WINDOW | {"PhotometricInterpretation": "MONOCHROME1"}),
        (RAMP, {"PhotometricInterpretation": "MONOCHROME1"}),
        (RAMP, {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}),
        (RAMP, WINDOW | {"PresentationLUTShape": "IDENTITY"}),
        (RAMP, WINDOW | {"VOILUTFunction": "LINEAR"}),
        (RAMP, WINDOW | {"VOILUTFunction": "SIGMOID"}),
        (RAMP, {"WindowCenter": ["1500", "10"], "WindowWidth": ["1800", "20"]}),
        (RAMP, {"WindowCenter": "1500", "WindowWidth": "1"}),
        (RAMP, {"WindowCenter": "1500", "WindowWidth": "2"}),
        (RAMP, {"WindowCenter": "-300", "WindowWidth": "9000"}),
        (RAMP | 0xA000, WINDOW),  # an overlay in the unused bits
        (RAMP << 2, WINDOW | {"HighBit": 13}),
        (SIGNED, {}),
        (SIGNED, {"PhotometricInterpretation": "MONOCHROME1"}),
        (SIGNED, {"WindowCenter": "40", "WindowWidth": "400"}),
        (SIGNED | 0x3000, {"WindowCenter": "40", "WindowWidth": "400"}),
        (RAMP, WINDOW | {"RescaleSlope": "1.5", "RescaleIntercept": "-1024"}),
        (RAMP, {"RescaleSlope": "0.25", "RescaleIntercept": "-7.5"}),
        (RAMP, WINDOW | {"RescaleSlope": "-1", "RescaleIntercept": "4095"}),
        (RAMP, {"RescaleSlope": "-1", "RescaleIntercept": "0"}),
        (SIGNED, {"RescaleSlope": "2", "RescaleIntercept": "-10"}),
        (RAMP, {"VOILUTSequence": [table(CURVE, 1000, 10)]}),
        (RAMP, {"VOILUTSequence": [table(CURVE, 0, 16)]}),  # dark: bits are those of the descriptor
        (SIGNED, {"VOILUTSequence": [table(CURVE, -900, 10)]}),
        (RAMP, {"VOILUTSequence": [table(CURVE, 1000, 10)], **WINDOW}),
        (
            RAMP,
            {
                "VOILUTSequence": [table(CURVE, 1000, 10)],
                "PhotometricInterpretation": "MONOCHROME1",
            },
        ),
        (RAMP, {"ModalityLUTSequence": [table(CURVE, 1000, 10)]}),
        (
            RAMP,
            {
                "ModalityLUTSequence": [table(CURVE, 1000, 10)],
                "WindowCenter": "500",
                "WindowWidth": "300",
            },
        ),
    ],
)
def test_rules_that_no_real_file_uses(pixels, elements, tmp_path):
    file = write(tmp_path, pixels, **elements)
    image = read_dicom(file.read_bytes())
    assert within(shown(image), rendered(file, image, 1)) >= 0.995


def test_what_dcmtk_shows_otherwise(tmp_path):
    """LINEAR_EXACT (PS3.3 C.11.2.1.3.2), which dcmtk 3.6.7 takes for LINEAR."""
    elements = {"WindowCenter": "1500", "WindowWidth": "20"}
    exact = write(tmp_path, RAMP, **elements, VOILUTFunction="LINEAR_EXACT")
    image = read_dicom(exact.read_bytes())
    expected = np.clip((RAMP.astype(float) - 1490) / 20, 0, 1) * 255
    assert np.abs(shown(image)[..., 0] - expected).max() <= 0.5
    theirs = rendered(exact, image, 1)
    linear = read_dicom(write(tmp_path, RAMP, **elements).read_bytes())
    assert within(shown(linear), theirs) == 1
    assert np.abs(shown(image).astype(int) - theirs).max() > 1


def test_inverse_shape_of_monochrome2(tmp_path):
    """They contradict each other (PS3.3 C.8.11.3.1.2): inverted by both, and we warn."""
    file = write(tmp_path, RAMP, PresentationLUTShape="INVERSE")
    image = read_dicom(file.read_bytes())
    assert image.inverted
    assert image.warnings
    assert within(shown(image), rendered(file, image, 1)) >= 0.995
