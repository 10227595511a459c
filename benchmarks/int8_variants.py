"""What each int8 variant costs in accuracy, and what it gains in bytes and milliseconds.

Run: python benchmarks/int8_variants.py MODEL IMAGES [--task binary] [--calibrate 128]
         [--evaluate 120]

MODEL is a run folder, a .keras file, or the name of a backbone; IMAGES a folder of images. A
backbone's head is fitted by logistic regression to the names of the images' folders, because the
probabilities of a random head say nothing. Times are of one thread and one image, and the ratio
is the median over images of int8 to float32, one right after the other, so that a busy machine
slows both. "exact" is how far ONNX Runtime's fused kernels are from the same graph computed node
by node: large values mean saturation, and another answer on another processor.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from medimg_edge.manifest import Preprocessing
from medimg_edge.preprocess import preprocess
from medimg_edge.reader import find_images, read_image
from medimg_export.backbones import BACKBONES, build, feature_extractor, find
from medimg_export.convert_onnx import to_onnx, to_onnx_int8
from medimg_export.convert_tflite import SIGNATURE, to_tflite, to_tflite_int8
from medimg_export.graph import deployable
from medimg_export.int8 import VARIANTS

Run = Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]
BATCH = 16


def read_pixels(files: list[Path], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """(M, H, W, C), stretched and as a viewer shows it."""
    height, width, channels = shape
    spec = Preprocessing(height, width, "gray" if channels == 1 else "rgb")
    return np.stack([preprocess(read_image(file), spec) for file in files])


def fitted_backbone(name: str, files: list[Path]) -> tuple[keras.Model, NDArray[np.uint8]]:
    """A binary classifier of the files' folders on pretrained features, and the files' pixels."""
    size = find(name).default_size
    model = build(name, (size, size, 1), 1)
    pixels = read_pixels(files, (size, size, 1))
    features = feature_extractor(model).predict(pixels, batch_size=BATCH, verbose="0")
    head = LogisticRegression(C=0.003, max_iter=2000)  # 1280 features, some hundred images
    head.fit(features, [file.parent.name for file in files])
    model.get_layer("logits").set_weights([head.coef_.T, head.intercept_])
    return model, pixels


def onnx_run(path: Path, fused: bool = True) -> Run:
    """Pixels -> outputs by name, on one thread; not fused: every node computed as it stands."""
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if fused else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        answers: Any = session.run(names, {"pixels": pixels})
        return dict(zip(names, answers, strict=True))

    return run


def tflite_run(path: Path) -> Run:
    """Pixels -> outputs by name, on one thread."""
    runner: Any = Interpreter(str(path), num_threads=1).get_signature_runner(SIGNATURE)
    return lambda pixels: runner(pixels=pixels)


def row(name: str, path: Path, run: Run, base: Path, base_run: Run, pixels: NDArray) -> str:
    """One line of the table: ``path`` against the float32 file of the same format."""
    moved, correlation, ratio = [], [], []
    for start in range(len(pixels)):
        image = pixels[start : start + 1]
        t0 = time.perf_counter()
        expected = base_run(image)
        t1 = time.perf_counter()
        found = run(image)
        ratio.append((time.perf_counter() - t1) / (t1 - t0))
        moved.append(np.abs(found["probability"] - expected["probability"]).max())
        pair = found["embedding"].ravel(), expected["embedding"].ravel()
        correlation.append(np.corrcoef(*pair)[0, 1])
    exact = ""
    if path.suffix == ".onnx":
        plain = onnx_run(path, fused=False)
        few = pixels[:BATCH]
        exact = f"{np.abs(plain(few)['probability'] - run(few)['probability']).max():.4f}"
    return (
        f"| {path.suffix[1:]} {name} | {path.stat().st_size / base.stat().st_size:.2f} "
        f"| {np.max(moved):.4f} | {np.median(moved):.4f} | {np.median(correlation):.4f} "
        f"| {exact} | {np.median(ratio):.2f} |"
    )


def print_table(model: keras.Model, calibration: NDArray, held_out: NDArray) -> None:
    """Every variant in both formats; ``model`` as ``deployable`` makes it."""
    print("| int8 | bytes | max dp | median dp | embedding r | exact | ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        onnx_float, tflite_float = Path(folder, "float.onnx"), Path(folder, "float.tflite")
        onnx_int8, tflite_int8 = Path(folder, "int8.onnx"), Path(folder, "int8.tflite")
        to_onnx(model, onnx_float, {})
        to_tflite(model, tflite_float)
        runs = onnx_run(onnx_float), tflite_run(tflite_float)
        for variant in VARIANTS:
            to_onnx_int8(onnx_float, onnx_int8, calibration, variant, {})
            to_tflite_int8(tflite_float, tflite_int8, calibration, variant)
            run = onnx_run(onnx_int8)
            print(row(variant.name, onnx_int8, run, onnx_float, runs[0], held_out), flush=True)
            run = tflite_run(tflite_int8)
            print(row(variant.name, tflite_int8, run, tflite_float, runs[1], held_out), flush=True)


def main() -> None:
    """Read the arguments, the model and the images, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", help=f"run folder, .keras file, or one of {', '.join(BACKBONES)}")
    parser.add_argument("images", type=Path)
    parser.add_argument("--task", default="binary", choices=["binary", "multiclass", "multilabel"])
    parser.add_argument("--calibrate", type=int, default=128)
    parser.add_argument("--evaluate", type=int, default=120)
    options = parser.parse_args()

    files = find_images(options.images)
    count = min(options.calibrate + options.evaluate, len(files))
    chosen = [files[i] for i in np.random.default_rng(0).permutation(len(files))[:count]]
    if options.model in BACKBONES:
        model, pixels = fitted_backbone(options.model, chosen)
    else:
        path = Path(options.model)
        saved: Any = keras.models.load_model(path / "model.keras" if path.is_dir() else path)
        model, pixels = saved, read_pixels(chosen, saved.input_shape[1:])
    deployed = deployable(model, task=options.task).model
    print_table(deployed, pixels[: options.calibrate], pixels[options.calibrate :])


if __name__ == "__main__":
    main()
