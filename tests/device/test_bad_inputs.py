"""Every bad input that we know, in one call beside good images: one record each, nothing lost."""

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def vast(side: int = 50_000) -> bytes:
    """A PNG of 100 KB that would be 2.5 GB of pixels."""
    rows = zlib.compress(bytes(80 * 2**20), 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def dicom(path: Path, syntax: str = ExplicitVRLittleEndian, pixels: bool = True) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID("1.2.3")
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.Modality = "DX"
    if pixels:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.Rows = dataset.Columns = 64
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation = 0
        dataset.PixelData = np.arange(64 * 64, dtype=np.uint16).tobytes()
    dataset.save_as(path, enforce_file_format=True)
    # pydicom refuses to write what is refused here: the syntax is exchanged in the bytes.
    written = ExplicitVRLittleEndian.encode().ljust(20, b"\0")
    data = path.read_bytes()
    assert data.count(written) == 1
    path.write_bytes(data.replace(written, syntax.encode().ljust(20, b"\0")))


@pytest.fixture(scope="module")
def inbox(frozen, tmp_path_factory) -> dict[Path, str]:
    """Inputs in the order of the call, and the code of each, or "ok"."""
    root: Path = tmp_path_factory.mktemp("inbox")
    picture = cv2.imread(str(frozen / "golden" / "07-larger.png"), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    shades = picture if picture.dtype == np.uint8 else (picture // 257).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", shades, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    png = cv2.imencode(".png", shades)[1].tobytes()
    contents = {
        "empty.png": (b"", "input-empty"),
        "good.png": (png, "ok"),
        "text.png": (b"Dear colleague, the image is attached.\n", "input-not-an-image"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "input-truncated"),
        "truncated.png": (png[: len(png) // 2], "input-truncated"),
        "half-and-end.jpg": (jpeg[: len(jpeg) // 2] + b"\xff\xd9", "input-truncated"),
        "good.jpg": (jpeg, "ok"),
        "dot.png": (cv2.imencode(".png", shades[:1, :1])[1].tobytes(), "too-small"),
        "constant.png": (cv2.imencode(".png", shades * 0 + 128)[1].tobytes(), "blank"),
        "vast.png": (vast(), "input-too-large"),
        "named.txt": (png, "ok"),
    }
    wanted = {root / "none.png": "input-missing"}
    for name, (data, code) in contents.items():
        (root / name).write_bytes(data)
        wanted[root / name] = code
    (root / "nothing").mkdir()
    (root / "nothing" / "notes.txt").write_text("none")
    dicom(root / "other.dcm", syntax="1.2.840.10008.1.2.99")
    dicom(root / "report.dcm", pixels=False)
    dicom(root / "good.dcm")
    return {
        **wanted,
        root / "nothing": "input-no-images",
        root / "other.dcm": "dicom-transfer-syntax",
        root / "report.dcm": "dicom-no-pixels",
        root / "long" / ("name" * 100): "input-missing",
        root / "good.dcm": "ok",
    }


def test_one_record_for_each(inbox, frozen, command):
    done = command("infer", "--bundle", frozen, *inbox)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["input"] for record in records] == [str(path) for path in inbox]
    for record, wanted in zip(records, inbox.values(), strict=True):
        assert record.get("code", record["status"]) == wanted, record
        if wanted == "ok":
            assert 0 <= record["probability"] <= 1
            continue
        assert record["status"] == ("rejected" if wanted in ("too-small", "blank") else "error")
        assert "probability" not in record
        assert len(record["message"]) > 40
    assert done.returncode == 1
    assert done.stderr == ""


def test_a_good_one_is_answered_as_if_it_were_alone(inbox, frozen, command):
    good = [path for path, code in inbox.items() if code == "ok"]
    found = []
    for inputs, code in ((inbox, 1), (good, 0)):
        done = command("infer", "-b", frozen, *inputs)
        assert done.returncode == code
        records = [json.loads(line) for line in done.stdout.splitlines()]
        found.append([each["probability"] for each in records if each["status"] == "ok"])
    among, alone = found
    assert among == alone


def test_a_folder_of_them(inbox, frozen, command, tmp_path):
    """Found by their suffixes, sorted; a file that is no image by its name is passed over."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    for path in inbox:
        if path.is_file():
            shutil.copy(path, folder)
    done = command("infer", "-b", frozen, folder)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = sorted(path for path in inbox if path.is_file() and path.suffix != ".txt")
    assert [Path(record["input"]).name for record in records] == [path.name for path in wanted]
    assert done.returncode == 1


def test_a_name_that_is_not_utf_8(inbox, frozen, command, tmp_path):
    good = next(path for path, code in inbox.items() if code == "ok")
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        shutil.copy(good, name)
    except OSError:
        pytest.skip("this file system has no such names")
    paths = [os.fsdecode(name), os.fsdecode(name + b".none")]
    for form in ("jsonl", "json", "csv", "table"):
        done = command("infer", "-b", frozen, "--format", form, *paths)
        assert done.returncode == 1
        assert "caf\\" in done.stdout or form == "table"
        assert "input-missing" in done.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_vast_image_takes_no_memory(inbox, frozen):
    """50,000 x 50,000 pixels in 100 KB, with the runtime loaded: below 300 MB."""
    (path,) = [path for path, code in inbox.items() if code == "input-too-large"]
    assert path.stat().st_size < 110_000
    program = (
        "import sys; from medimg_edge.cli import main\n"
        "try: main()\n"
        "finally: print(open('/proc/self/status').read(), file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, "infer", "-b", frozen, path],
        capture_output=True,
        text=True,
    )
    assert json.loads(run.stdout)["code"] == "input-too-large"
    (peak,) = [line for line in run.stderr.splitlines() if line.startswith("VmHWM:")]
    assert int(peak.split()[1]) < 300 * 1024
    assert run.returncode == 1
