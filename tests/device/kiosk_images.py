"""Images for the kiosk's tests, and a bundle that gives no number for some of them."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from medimg_edge import manifest as m
from medimg_edge.preprocess import preprocess
from medimg_edge.reader import read_image

SIDE = 16
_RNG = np.random.default_rng(6)


def png(pixels: np.ndarray | None = None) -> bytes:
    """Of grey levels, or of noise that no other has."""
    shown = _RNG.integers(0, 256, (64, 64), np.uint8) if pixels is None else pixels
    return cv2.imencode(".png", shown)[1].tobytes()


def dicom(pixels: np.ndarray | None = None, **elements: Any) -> bytes:
    """A chest radiograph of noise, of 12 bits; an element that is None is left out."""
    values = _RNG.integers(0, 4096, (64, 64), np.uint16) if pixels is None else pixels
    dataset = Dataset()
    uid = f"1.2.826.0.1.{_RNG.integers(10**9)}"
    plain = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": uid,
        "StudyInstanceUID": f"{uid}.1",
        "SeriesInstanceUID": f"{uid}.2",
        "PatientName": "MEYER^ANNA",
        "PatientID": "4711-X",
        "Modality": "DX",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "AP",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": values.shape[-2],
        "Columns": values.shape[-1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": values.tobytes(),
    }
    if values.ndim == 3:
        plain["NumberOfFrames"] = str(len(values))
    for keyword, value in (plain | elements).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def window_bundle(folder: Path) -> Path:
    """A bundle for values with a unit: the probability of "high" is sqrt(2 mean - 1).

    So it is no number where the mean grey, of a window from 0 to 4095, is below a half.
    """
    golden = folder / "golden"
    golden.mkdir(parents=True)
    (golden / "01.dcm").write_bytes(dicom(_RNG.integers(3000, 4096, (SIDE, SIDE), np.uint16)))
    (folder / "model.onnx").write_bytes(_network())
    spec = m.Preprocessing(
        SIDE, SIDE, intensity=m.Windows((m.WindowSetting(center=2048, width=4096),))
    )
    pixels = preprocess(read_image(golden / "01.dcm"), spec)
    (golden / "01.pixels").write_bytes(pixels.tobytes())
    expected = float(np.sqrt(2 * (pixels / np.float32(255)).mean() - 1))
    case = m.GoldenCase("golden/01.dcm", "golden/01.pixels", {"model.onnx": (expected,)})
    point = m.OperatingPoint(threshold=0.5, rule="stated")
    manifest = m.Manifest(
        name="window",
        version="1",
        task="binary",
        labels=("normal", "high"),
        intended_use="tests",
        input=m.Input(shape=spec.shape),
        preprocessing=spec,
        outputs={"probability": m.Output((None, 1), "probability")},
        decision={"model.onnx": {"high": point}},
        default_artifact="model.onnx",
        artifacts={
            "model.onnx": m.Artifact(
                *_size_and_hash(folder / "model.onnx"), format="onnx", precision="float32"
            )
        },
        golden=(case,),
        files={
            name: m.FileEntry(*_size_and_hash(folder / name)) for name in (case.input, case.pixels)
        },
    )
    (folder / "manifest.json").write_bytes(m.encode(manifest))
    return folder


def _size_and_hash(path: Path) -> tuple[int, str]:
    data = path.read_bytes()
    return len(data), hashlib.sha256(data).hexdigest()


def _network() -> bytes:
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["doubled"]),
        helper.make_node("Add", ["doubled", "offset"], ["moved"]),
        helper.make_node("Sqrt", ["moved"], ["probability"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "window",
        [value("pixels", TensorProto.UINT8, ["N", SIDE, SIDE, 1])],
        [value("probability", TensorProto.FLOAT, ["N", 1])],
        [
            numpy_helper.from_array(np.array(number, np.float32), name)
            for name, number in (("scale", 2 / 255), ("offset", -1))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return model.SerializeToString()
