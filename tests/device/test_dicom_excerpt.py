"""A few elements of a header: however the file is encoded, and never more of it than is needed."""

import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medimg_edge.dicom import excerpt, file_meta
from medimg_edge.dicom.acquisition import Acquisition, acquisition

SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


def written(syntax: UID, pixels: bytes = b"") -> bytes:
    dataset = Dataset()
    dataset.SOPClassUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Modality, dataset.PatientID = "CT", "4711"
    if pixels:
        dataset.add_new("PixelData", "OW", pixels)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    file = BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_meta_information_and_what_follows(syntax: UID):
    data = written(syntax)
    found = file_meta.read(data)
    assert found.syntax == syntax
    begin = data[found.end :]
    if syntax == DeflatedExplicitVRLittleEndian:
        begin = bytes(file_meta.inflate(begin, 10**6).data)
    assert begin[:4] == (b"\0\x08\0\x16" if syntax == ExplicitVRBigEndian else b"\x08\0\x16\0")
    bare = data[found.end :] if syntax != DeflatedExplicitVRLittleEndian else begin
    assert file_meta.read(bare) == (None, 0)


def test_it_is_inflated_so_far_and_says_whether_that_is_all():
    packed = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = packed.compress(bytes(range(100)) * 10) + packed.flush()
    whole = bytes(range(100)) * 10
    assert file_meta.inflate(data, 2000) == (whole, True)
    assert file_meta.inflate(data, 1001) == (whole, True)
    assert file_meta.inflate(data, 999) == (whole[:999], False)
    assert not file_meta.inflate(data[:-2], 2000).whole
    assert file_meta.inflate(data + b"\0", 2000) == (whole, True)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_of_whom_and_with_which_modality(tmp_path: Path, syntax: UID):
    path = tmp_path / "a.dcm"
    path.write_bytes(written(syntax, bytes(range(256)) * 8))
    assert acquisition(path) == Acquisition("4711", "CT")
    path.write_bytes(b"\x89PNG" + bytes(400))
    assert acquisition(path) == acquisition(tmp_path / "none.dcm") == Acquisition()


def test_of_a_huge_deflated_file_little_is_inflated(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(excerpt, "MAX_INFLATED", 2**16)
    path = tmp_path / "bomb.dcm"
    path.write_bytes(written(DeflatedExplicitVRLittleEndian, bytes(2**26)))
    acquisition(path)
    tracemalloc.start()
    found = acquisition(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == Acquisition("4711", "CT")
    assert peak < 2**22
