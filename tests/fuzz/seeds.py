"""What the harnesses begin with: small files of every kind, made here; nothing is anybody's."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

FROZEN = Path(__file__).parent.parent / "data" / "frozen-bundle"
_RANDOM = np.random.default_rng(9)
GREY = cv2.GaussianBlur(_RANDOM.integers(0, 256, (40, 48), np.uint8), (5, 5), 0)
COLOR = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])
DEEP = GREY.astype(np.uint16) * 200


def _encoded(suffix: str, pixels: np.ndarray, *options: int) -> bytes:
    written, data = cv2.imencode(suffix, pixels, list(options))
    assert written
    return data.tobytes()


def pngs() -> Iterator[bytes]:
    """Grey, color, 16 bits, with alpha, of one bit, of a palette, interlaced."""
    for pixels in (GREY, COLOR, DEEP, np.dstack([COLOR, GREY])):
        yield _encoded(".png", pixels)
    yield _encoded(".png", GREY, cv2.IMWRITE_PNG_BILEVEL, 1)
    pixels = b"".join(b"\0" + bytes(row % 4 for row in range(8)) for _ in range(8))
    palette = bytes(range(12))
    for kind, interlaced, more in ((3, 0, [(b"PLTE", palette)]), (0, 1, [])):
        header = struct.pack(">IIBBBBB", 8, 8, 8, kind, 0, 0, interlaced)
        chunks = [
            (b"IHDR", header),
            *more,
            (b"IDAT", zlib.compress(pixels + bytes(60))),
            (b"IEND", b""),
        ]
        yield b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )


def jpegs() -> Iterator[bytes]:
    """Baseline, progressive, with restarts, in color, with an orientation."""
    for pixels in (GREY, COLOR):
        yield _encoded(".jpg", pixels)
        yield _encoded(".jpg", pixels, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
        yield _encoded(".jpg", pixels, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    plain = _encoded(".jpg", COLOR)
    orientation = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    yield (
        plain[:2] + b"\xff\xe1" + struct.pack(">H", len(orientation) + 2) + orientation + plain[2:]
    )


def tiffs() -> Iterator[bytes]:
    """As libtiff writes them: without compression, LZW, Deflate, PackBits."""
    for pixels in (GREY, COLOR, DEEP):
        for compression in (1, 5, 8, 32773):
            yield _encoded(".tiff", pixels, cv2.IMWRITE_TIFF_COMPRESSION, compression)


def dicoms() -> Iterator[bytes]:
    """Every syntax that is decoded in this process, 8 and 16 bits, several frames, windows."""
    for syntax in (
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
    ):
        for pixels in (GREY, DEEP):
            yield _dicom(pixels, syntax)
    yield _dicom(np.stack([GREY, GREY[::-1]]), ExplicitVRLittleEndian, NumberOfFrames="2")
    yield _dicom(
        DEEP,
        ExplicitVRLittleEndian,
        WindowCenter=["2000", "3000"],
        WindowWidth=["4000", "100"],
        RescaleSlope="1.5",
        RescaleIntercept="-1024",
        PhotometricInterpretation="MONOCHROME1",
    )


def _dicom(pixels: np.ndarray, syntax: str, **elements: object) -> bytes:
    dataset = Dataset()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.826.0.1.1"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "AP"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    bits = 8 * pixels.itemsize
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    if syntax == RLELossless:
        dataset.PixelData = encapsulate([_rle(pixels)])
        dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB" if bits == 8 or syntax == RLELossless else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.826.0.1.1")
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _rle(pixels: np.ndarray) -> bytes:
    """PS3.5 G: a segment for each byte of a cell, of literal runs."""
    planes = pixels.astype(pixels.dtype.newbyteorder(">")).view(np.uint8)
    segments = []
    for index in range(pixels.itemsize):
        plane = planes[:, index :: pixels.itemsize].tobytes()
        runs = [plane[at : at + 128] for at in range(0, len(plane), 128)]
        segment = b"".join(bytes([len(run) - 1]) + run for run in runs)
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets = [64 + sum(map(len, segments[:index])) for index in range(len(segments))]
    header = struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(segments)))
    return header + b"".join(segments)


def manifests() -> Iterator[bytes]:
    """That of the frozen bundle, and one with everything that a manifest may have."""
    yield (FROZEN / "manifest.json").read_bytes()
    for folder in sorted(Path("medimg_edge/models").glob("*/manifest.json")):
        yield folder.read_bytes()


def archives() -> Iterator[bytes]:
    """The frozen bundle's card, as a bundle of its own: sealed, by Python's packer, in a folder."""
    from medimg_edge.archive import pack
    from medimg_edge.bundle import Bundle
    from tests.fuzz.small_bundle import small_bundle

    with TemporaryDirectory() as folder:
        bundle = small_bundle(Path(folder, "bundle"))
        pack(Bundle.open(bundle), Path(folder, "bundle.zip"))
        sealed = Path(folder, "bundle.zip").read_bytes()
        yield sealed
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            for top in ("", "bundle/"):
                file = io.BytesIO()
                with zipfile.ZipFile(file, "w", method) as packed:
                    for path in sorted(bundle.rglob("*")):
                        if path.is_file():
                            packed.write(path, top + path.relative_to(bundle).as_posix())
                yield file.getvalue()


def onnx_files() -> Iterator[bytes]:
    """Exported networks, and small ones with computed shapes where the package onnx is there."""
    yield (FROZEN / "model.int8.onnx").read_bytes()
    yield (FROZEN / "model.onnx").read_bytes()
    try:
        from tests.device import hostile_models as hostile

        yield hostile.changed(lambda model: None)
        for change in (hostile.large, hostile.heavy, hostile.loop, *_refused(hostile)):
            data = hostile.changed(change)
            if len(data) < 2**18:
                yield data
    except ImportError:
        return


def _refused(hostile) -> list:
    return [change for change, _ in hostile.REFUSED_ONNX.values()]


def tflite_files() -> Iterator[bytes]:
    """Exported networks."""
    yield (FROZEN / "model.int8.tflite").read_bytes()
    yield (FROZEN / "model.tflite").read_bytes()
