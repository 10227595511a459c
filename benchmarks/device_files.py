"""The files of `device.py`: the same pictures in each kind of file.

Run by `device.py`: python benchmarks/device_files.py BUNDLE FOLDER IMAGES [ORIGINALS]. A process of
its own, because a child's peak memory is never less than what its parent held. Prints the
megapixels of the full-size pictures as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from device_report import KINDS, SUFFIXES

from medimg_edge.bundle import Bundle
from medimg_edge.reader import find_images, read_image
from medimg_edge.resize import resize

FILES = 20


def main() -> None:
    """Write the files; without originals, the images enlarged are the full-size ones."""
    bundle, folder, images, *originals = sys.argv[1:]
    height, width = Bundle.open(bundle).manifest.input.shape[:2]
    small = [_grey(path) for path in find_images(images)[:FILES]]
    if originals:
        large = [_grey(path) for path in find_images(originals[0])[:FILES]]
    else:
        large = [cv2.resize(each, (2000, 1600), interpolation=cv2.INTER_CUBIC) for each in small]
    for kind in KINDS:
        Path(folder, kind).mkdir(parents=True)

    def path(kind: str, at: int) -> Path:
        return Path(folder, kind, f"{at:02}.{SUFFIXES[kind]}")

    for at, picture in enumerate(small):
        cv2.imwrite(str(path("JPEG", at)), resize(picture, height, width))
    for at, picture in enumerate(large):
        wide = picture.astype(np.uint16)
        cv2.imwrite(str(path("full JPEG", at)), picture)
        cv2.imwrite(str(path("full PNG", at)), wide * 257)
        write_dicom(path("full DICOM", at), wide * 16)
    print(json.dumps([picture.size / 1e6 for picture in large]))


def _grey(path: Path) -> np.ndarray:
    pixels = read_image(path).frames[0]
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.shape[2] == 3 else pixels[..., 0]


def write_dicom(path: Path, stored: np.ndarray) -> None:
    """A radiograph of 12 bits in 16, as a detector sends it: no compression, a window."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation as Radiograph
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = Radiograph
    meta.MediaStorageSOPInstanceUID = generate_uid()
    made = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = Radiograph, meta.MediaStorageSOPInstanceUID
    made.Modality, made.BodyPartExamined, made.ViewPosition = "DX", "CHEST", "PA"
    made.Rows, made.Columns = stored.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.WindowCenter, made.WindowWidth = 2048, 4096
    made.PixelData = stored.tobytes()
    made.save_as(path, enforce_file_format=True)


if __name__ == "__main__":
    main()
