"""One contestant of `device.py`, loaded once, in a process of its own.

Run by `device.py`: python benchmarks/contestants.py '{"kind": ..., "model": ..., ...}'. It says on
a line that it is loaded, or why it cannot be, and then answers each line of JSON on standard
input: {"files": [...]} from the file to the probability, {"runs": N} through the network alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import floor
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
NOISY = {"TF_CPP_MIN_LOG_LEVEL": "3", "GLOG_minloglevel": "3", "CUDA_VISIBLE_DEVICES": "-1"}


class Loaded(NamedTuple):
    """What a contestant can do.

    answer: a file -> the probability of the first finding.
    network: uint8 (1, H, W, C) -> the same; None where it takes files only.
    """

    runtime: str
    answer: Callable[[str], float]
    network: Callable[[Pixels], float] | None


class NotTaken(Exception):
    """The runtime does not load this model."""


def by_hand(runtime: str, network: Callable[[Pixels], float], shape: list[int]) -> Loaded:
    """What reads as the floor does, and differs from it in the runtime alone."""

    def answer(path: str) -> float:
        return network(floor.read(path, *shape)[None])

    return Loaded(runtime, answer, network)


def load_floor(model: str, threads: int, shape: list[int], **_: Any) -> Loaded:
    """ONNX Runtime by hand."""
    session = floor.load(model, threads)

    def network(pixels: Pixels) -> float:
        found: Any = session.run(["probability"], {"pixels": pixels})
        return float(found[0][0, 0])

    return by_hand(f"onnxruntime {version('onnxruntime')}", network, shape)


def load_ours(bundle: str, shape: list[int], setting: dict[str, Any], **_: Any) -> Loaded:
    """medimg-edge itself."""
    from medimg_edge import Classifier

    classifier = Classifier(bundle, profile=None, force=True, **setting)

    def answer(path: str) -> float:
        return classifier.predict(path).findings[0].probability

    def network(pixels: Pixels) -> float:
        return float(classifier.run(pixels)["probability"][0, 0])

    return Loaded(classifier.runtime, answer, network)


def load_litert(model: str, threads: int, shape: list[int], **_: Any) -> Loaded:
    """LiteRT by hand."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=model, num_threads=threads)
    runner = interpreter.get_signature_runner()

    def network(pixels: Pixels) -> float:
        return float(runner(pixels=pixels)["probability"][0, 0])

    return by_hand(f"litert {version('ai-edge-litert')}", network, shape)


def load_openvino(model: str, threads: int, shape: list[int], **_: Any) -> Loaded:
    """OpenVINO by hand, asked for the soonest answer, in the precision of the file.

    By itself it computes float32 networks in bfloat16 where the processor can, and moves
    probabilities by as much as .01.
    """
    sys.modules["openvino_telemetry"] = None  # pyright: ignore  # it reports each import
    openvino: Any = import_module("openvino")
    core = openvino.Core()
    read = core.read_model(model)
    read.reshape([1, *shape])
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(read, "CPU", hints)
    request, output = compiled.create_infer_request(), compiled.output("probability")

    def network(pixels: Pixels) -> float:
        return float(request.infer([pixels], share_inputs=True)[output][0, 0])

    return by_hand(f"openvino {version('openvino')}", network, shape)


def load_tensorflow(keras: str, threads: int, shape: list[int], call: str, **_: Any) -> Loaded:
    """The trained model as it lies in the run; before export, so its logit and no heatmap."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from medimg_export.keras_file import load_model

    model = load_model(Path(keras))

    def network(pixels: Pixels) -> float:
        given = model(pixels, training=False) if call == "model(x)" else None
        found = model.predict(pixels, verbose=0) if given is None else given  # pyright: ignore
        return float(np.ravel(found)[0])

    return by_hand(f"tensorflow {version('tensorflow')}", network, shape)


def load_mediapipe(model: str, **_: Any) -> Loaded:
    """MediaPipe's task for pictures, which reads what the model's metadata say."""
    mediapipe: Any = import_module("mediapipe")
    tasks: Any = import_module("mediapipe.tasks.python")
    vision: Any = import_module("mediapipe.tasks.python.vision")
    options = vision.ImageClassifierOptions(tasks.BaseOptions(model_asset_path=model))
    classifier = vision.ImageClassifier.create_from_options(options)

    def answer(path: str) -> float:
        found = classifier.classify(mediapipe.Image.create_from_file(path))
        return float(found.classifications[0].categories[0].score or 0)

    return Loaded(f"mediapipe {version('mediapipe')}", answer, None)


LOADERS: dict[str, Callable[..., Loaded]] = {
    "floor": load_floor,
    "medimg-edge": load_ours,
    "LiteRT": load_litert,
    "OpenVINO": load_openvino,
    "TensorFlow": load_tensorflow,
    "MediaPipe": load_mediapipe,
}


def load(what: dict[str, Any]) -> Loaded:
    """Load it and let it answer once. Raises NotTaken."""
    try:
        loaded = LOADERS[what["kind"]](**what)
        loaded.answer(what["first"])
        if loaded.network is not None:
            loaded.network(np.zeros((1, *what["shape"]), np.uint8))
    except ImportError as error:
        raise NotTaken(f"not installed ({error.name})") from error
    except Exception as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise NotTaken(f"does not take the model: {line[:160]}") from error
    return loaded


def perform(loaded: Loaded, task: dict[str, Any], shape: list[int]) -> dict[str, Any]:
    """One round: its wall time, its CPU time, and what was answered."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, *shape), np.uint8)
    wall, cpu = time.perf_counter(), time.process_time()
    if "files" in task:
        answers = [loaded.answer(path) for path in task["files"]]
    else:
        assert loaded.network is not None
        answers = [loaded.network(pixels) for _ in range(task["runs"])]
    count = len(answers)
    took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return {name: seconds / count for name, seconds in took.items()} | {"answers": answers[:20]}


def main() -> None:
    """Load, say so, and perform what is asked until standard input ends."""
    what = json.loads(sys.argv[1])
    os.environ.update(NOISY)
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # runtimes chat on standard output
    try:
        loaded = load(what)
    except NotTaken as reason:
        replies.write(json.dumps({"missing": str(reason)}) + "\n")
        return
    replies.write(
        json.dumps({"runtime": loaded.runtime, "network": loaded.network is not None}) + "\n"
    )
    for line in sys.stdin:
        replies.write(json.dumps(perform(loaded, json.loads(line), what["shape"])) + "\n")
    replies.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
