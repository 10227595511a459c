"""Run a batch of pixels through a model file: ONNX Runtime, and LiteRT where it is installed.

The one place that knows the runtimes. Their exceptions become ours here.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import ExtraMissing, ModelLoad, ModelOutput, NotFinite
from medimg_edge.manifest import Input, Manifest

Format = Literal["onnx", "tflite"]
Outputs = dict[str, NDArray[np.float32]]

ROUNDING = 1e-6
"""How far above 1 a softmax may come in float32."""


class Engine(Protocol):
    """A loaded model. May be shared between threads."""

    runtime: str

    def run(self, pixels: NDArray[np.uint8]) -> Outputs:
        """uint8 (N, H, W, C) -> the outputs by name, float32, first axis N."""
        ...


def load(model: bytes, kind: Format, manifest: Manifest, *, threads: int = 1) -> Engine:
    """Load a model from the bytes that were hashed.

    Raises ModelLoad (the runtime refuses it, or it does not fit the manifest), ExtraMissing.
    """
    if kind == "onnx":
        return _OnnxEngine(model, manifest, threads)
    return _LiteRtEngine(model, manifest, threads)


def installed(kind: Format) -> bool:
    """Whether this machine has the runtime for artifacts of a format."""
    import importlib.util

    package = "onnxruntime" if kind == "onnx" else "ai_edge_litert"
    return importlib.util.find_spec(package) is not None


class _OnnxEngine:
    def __init__(self, model: bytes, manifest: Manifest, threads: int) -> None:
        import onnxruntime

        if has_external_data(model):
            raise ModelLoad("The ONNX file keeps weights in other files; a bundle's must not.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Spinning threads cost a waiting kiosk a core.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelLoad(f"ONNX Runtime does not load the model: {_line(error)}") from error
        self._session._model_bytes = None  # ONNX Runtime has its own copy
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        self._names = list(manifest.outputs)
        self._input = manifest.input
        self._manifest = manifest
        _check_names(
            {each.name: each.type for each in self._session.get_inputs()},
            {each.name for each in self._session.get_outputs()},
            manifest,
            "tensor(uint8)",
        )

    def run(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Run one batch; see ``Engine``."""
        try:
            values = self._session.run(self._names, {self._input.name: pixels})
        except Exception as error:
            raise ModelOutput(f"ONNX Runtime stopped: {_line(error)}") from error
        outputs = cast(Outputs, dict(zip(self._names, values, strict=True)))
        return _checked(outputs, len(pixels), self._manifest)


class _LiteRtEngine:
    def __init__(self, model: bytes, manifest: Manifest, threads: int) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ExtraMissing(
                "TFLite artifacts need LiteRT, which is not installed: "
                "pip install 'medimg-edge[litert]'"
            ) from error
        from importlib.metadata import version

        try:
            self._interpreter = Interpreter(model_content=model, num_threads=threads)
            self._runner = self._interpreter.get_signature_runner()
        except Exception as error:
            raise ModelLoad(f"LiteRT does not load the model: {_line(error)}") from error
        self.runtime = f"litert {version('ai-edge-litert')}"
        self._manifest = manifest
        self._lock = Lock()  # an interpreter holds the tensors of one call
        _check_names(
            {
                name: np.dtype(each["dtype"]).name
                for name, each in self._runner.get_input_details().items()
            },
            set(self._runner.get_output_details()),
            manifest,
            "uint8",
        )
        shape = tuple(self._runner.get_input_details()[manifest.input.name]["shape"][1:])
        if shape != manifest.input.shape:  # LiteRT would resize the network to it
            raise ModelLoad(f"The model takes {shape}; the manifest says {manifest.input.shape}.")

    def run(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Run one batch; see ``Engine``."""
        if pixels.shape[1:] != self._manifest.input.shape:
            raise ModelOutput(
                f"LiteRT was given pixels of shape {pixels.shape[1:]}; "
                f"the model takes {self._manifest.input.shape}."
            )
        with self._lock:
            try:
                outputs = self._runner(**{self._manifest.input.name: pixels})
            except Exception as error:
                raise ModelOutput(f"LiteRT stopped: {_line(error)}") from error
            outputs = {name: np.array(outputs[name]) for name in self._manifest.outputs}
        return _checked(outputs, len(pixels), self._manifest)


def has_external_data(model: bytes) -> bool:
    """Whether any tensor of an ONNX file keeps its values in another file.

    Walks the protobuf of onnx.proto down to every TensorProto, whose field 14 (data_location) is
    then not 0 (DEFAULT). Graphs hold tensors themselves and in the attributes of their nodes.
    """
    children = {
        "model": {7: "graph", 25: "function"},
        "graph": {1: "node", 5: "tensor", 15: "sparse"},
        "function": {7: "node", 11: "attribute"},
        "node": {5: "attribute"},
        "attribute": {
            5: "tensor",
            6: "graph",
            10: "tensor",
            11: "graph",
            22: "sparse",
            23: "sparse",
        },
        "sparse": {1: "tensor", 2: "tensor"},
    }
    pending: list[tuple[str, memoryview]] = [("model", memoryview(model))]
    while pending:
        kind, message = pending.pop()
        for field, value in _fields(message):
            if kind == "tensor":
                if field == 14 and value != 0:
                    return True
            elif isinstance(value, memoryview) and field in children[kind]:
                pending.append((children[kind][field], value))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of one protobuf message; ModelLoad where it is not one."""
    at = 0

    def varint() -> int:
        nonlocal at
        result = shift = 0
        while True:
            byte = message[at]
            at += 1
            result |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return result
            if shift > 63:  # ten bytes hold 64 bits
                raise ModelLoad("The model file is not ONNX: its protobuf is damaged.")

    try:
        while at < len(message):
            key = varint()
            wire = key & 7
            if wire == 0:
                yield key >> 3, varint()
                continue
            length = {1: 8, 5: 4}.get(wire)
            if length is None and wire == 2:
                length = varint()
            if length is None or at + length > len(message):
                raise ModelLoad("The model file is not ONNX: its protobuf is damaged.")
            yield key >> 3, message[at : at + length]
            at += length
    except IndexError as error:
        raise ModelLoad("The model file is not ONNX: it ends inside of a field.") from error


def _check_names(inputs: dict[str, str], outputs: set[str], manifest: Manifest, dtype: str) -> None:
    expected: Input = manifest.input
    if inputs != {expected.name: dtype}:
        raise ModelLoad(
            f"The model takes {inputs}; the manifest says one input {expected.name!r} of {dtype}."
        )
    missing = sorted(set(manifest.outputs) - outputs)
    if missing:
        raise ModelLoad(f"The model has no output {missing[0]!r}; it has {sorted(outputs)}.")


def _checked(outputs: Outputs, count: int, manifest: Manifest) -> Outputs:
    """Float32, shapes as the manifest says, every number finite, probabilities in [0, 1]."""
    for name, values in outputs.items():
        if not isinstance(values, np.ndarray) or values.dtype != np.float32:
            kind = getattr(values, "dtype", type(values).__name__)
            raise ModelOutput(f"The output {name!r} is of {kind}; float32 is accepted.")
        shape = manifest.outputs[name].shape
        fits = values.ndim == len(shape) and all(
            wanted is None or wanted == got
            for wanted, got in zip(shape[1:], values.shape[1:], strict=True)
        )
        if not fits or len(values) != count:
            raise ModelOutput(
                f"The output {name!r} has shape {values.shape}; the manifest says {shape}."
            )
        if not np.isfinite(values).all():
            raise NotFinite(
                f"The output {name!r} is not finite: the model file or this machine's runtime "
                "is broken. Run `medimg-edge verify` on the bundle."
            )
        if manifest.outputs[name].unit != "probability":
            continue
        outside = [p for p in values.ravel().tolist() if not -ROUNDING <= p <= 1 + ROUNDING]
        if outside:
            raise ModelOutput(
                f"The output {name!r} holds {outside[0]:.3g}; a probability is in [0, 1]. "
                "The model's head is not what the manifest says: export the bundle anew."
            )
    return outputs


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
