"""Run a batch of pixels through a model file: ONNX Runtime; LiteRT and OpenVINO where installed.

The one place that knows the runtimes. Their exceptions become ours here. No runtime sees a file
before its guard has, and what takes longer than an answer may is stopped: by ONNX Runtime and
OpenVINO between two operators. LiteRT has no way to be stopped; its files can hold no control flow,
and the guard bounds their work.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import isfinite
from types import ModuleType
from typing import Literal, NamedTuple, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from medimg_edge import native_stderr
from medimg_edge.batch import in_order
from medimg_edge.cores import images_at_once
from medimg_edge.errors import ExtraMissing, ModelDeadline, ModelLoad, ModelOutput, NotFinite
from medimg_edge.manifest import Input, Manifest
from medimg_edge.watchdog import Watched

Format = Literal["onnx", "tflite"]
Outputs = dict[str, NDArray[np.float32]]
T = TypeVar("T")

DEADLINE_SECONDS = 20.0
"""For the answer to one image, and to load a model; ``deadline`` sets another."""

ROUNDING = 1e-6
"""How far above 1 a softmax may come in float32."""


class Engine(Protocol):
    """A loaded model. May be shared between threads."""

    runtime: str

    def run(self, pixels: NDArray[np.uint8]) -> Outputs:
        """uint8 (N, H, W, C) -> the outputs by name, float32, first axis N."""
        ...


class Runtime(NamedTuple):
    """A program that runs model files of one format."""

    format: Format
    package: str
    version: Callable[[], str]
    engine: Callable[[bytes, Manifest, int], Engine]


def load(
    model: bytes, kind: Format, manifest: Manifest, *, threads: int = 1, runtime: str | None = None
) -> Engine:
    """Load a model from the bytes that were hashed, by default into its format's reference runtime.

    Raises ModelLoad (it is damaged, or the runtime refuses it), ModelRefused (it holds what must
    not be run, or does not fit the manifest), ModelDeadline, ExtraMissing.
    """
    name = runtime or reference(kind)
    if name not in RUNTIMES or RUNTIMES[name].format != kind:
        fitting = [each for each, known in RUNTIMES.items() if known.format == kind]
        raise ModelLoad(f"{name} runs no {kind} files; these do: {', '.join(fitting)}.")
    _GUARDS[kind](model, manifest)
    return RUNTIMES[name].engine(model, manifest, threads)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """In this block and thread each image has so many seconds, not ``DEADLINE_SECONDS``."""
    token = _seconds.set(seconds)
    try:
        yield
    finally:
        _seconds.reset(token)


def reference(kind: Format) -> str:
    """The runtime that an export's gates ran through, and that answers if nothing else is said."""
    return next(name for name, each in RUNTIMES.items() if each.format == kind)


def runtimes(kind: Format) -> list[str]:
    """The installed runtimes for artifacts of a format, the reference first."""
    return [name for name, each in RUNTIMES.items() if each.format == kind and _found(each)]


def installed(kind: Format) -> bool:
    """Whether this machine has the reference runtime for artifacts of a format."""
    return _found(RUNTIMES[reference(kind)])


def version(runtime: str) -> str | None:
    """The version of a runtime; None where it is not installed, or cannot be imported."""
    known = RUNTIMES.get(runtime)
    if known is None or not _found(known):
        return None
    try:
        return known.version()
    except (ImportError, OSError):
        return None


def _require_onnx(model: bytes, manifest: Manifest) -> None:
    from medimg_edge.onnx_guard import require

    require(model, manifest)


def _require_tflite(model: bytes, manifest: Manifest) -> None:
    from medimg_edge.tflite_guard import require

    require(model, manifest)


_GUARDS: dict[Format, Callable[[bytes, Manifest], None]] = {
    "onnx": _require_onnx,
    "tflite": _require_tflite,
}
"""Each imported when a file of its format comes: a cold start needs one of them."""

_seconds: ContextVar[float | None] = ContextVar("seconds", default=None)


def _watched(stop: Callable[[], object] | None, images: int = 1) -> Watched:
    return Watched((_seconds.get() or DEADLINE_SECONDS) * max(1, images), stop)


def _late(runtime: str) -> ModelDeadline:
    seconds = _seconds.get() or DEADLINE_SECONDS
    return ModelDeadline(
        f"{runtime} was stopped: the network took longer than the {seconds:g} seconds that an "
        "image may. The machine has too much to do, or is too small for the model."
    )


def _found(runtime: Runtime) -> bool:
    return importlib.util.find_spec(runtime.package) is not None


def _onnxruntime_version() -> str:
    import onnxruntime

    return onnxruntime.__version__


class _OnnxEngine:
    def __init__(self, model: bytes, manifest: Manifest, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Spinning threads cost a waiting kiosk a core.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        watched = _watched(lambda: options.set_load_cancellation_flag(True))
        try:
            with watched:
                self._session = onnxruntime.InferenceSession(
                    model, options, providers=["CPUExecutionProvider"]
                )
        except Exception as error:
            if watched.expired:
                raise _late("ONNX Runtime") from error
            raise ModelLoad(f"ONNX Runtime does not load the model: {_line(error)}") from error
        self._session._model_bytes = None  # ONNX Runtime has its own copy
        self._options = onnxruntime.RunOptions
        self.runtime = f"onnxruntime {_onnxruntime_version()}"
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
        options = self._options()
        watched = _watched(lambda: setattr(options, "terminate", True), len(pixels))
        try:
            with watched:
                values = self._session.run(self._names, {self._input.name: pixels}, options)
        except Exception as error:
            if watched.expired:
                raise _late("ONNX Runtime") from error
            raise ModelOutput(f"ONNX Runtime stopped: {_line(error)}") from error
        outputs = cast(Outputs, dict(zip(self._names, values, strict=True)))
        return _checked(outputs, len(pixels), self._manifest)


def _litert_version() -> str:
    from importlib.metadata import version

    return version("ai-edge-litert")


class _LiteRtEngine:
    def __init__(self, model: bytes, manifest: Manifest, threads: int) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ExtraMissing(
                "TFLite artifacts need LiteRT, which is not installed: "
                "pip install 'medimg-edge[litert]'"
            ) from error

        def interpreter() -> Interpreter:
            with native_stderr.turned_away():  # it announces its delegate there
                made = Interpreter(model_content=model, num_threads=threads)
                made.allocate_tensors()
            return made

        try:
            first = interpreter().get_signature_runner()
        except Exception as error:
            raise ModelLoad(f"LiteRT does not load the model: {_line(error)}") from error
        self.runtime = f"litert {_litert_version()}"
        self._manifest = manifest
        # An interpreter holds the tensors of one call: each call takes an idle one.
        self._make = lambda: interpreter().get_signature_runner()
        self._idle = [first]
        _check_names(
            {
                name: np.dtype(each["dtype"]).name
                for name, each in first.get_input_details().items()
            },
            set(first.get_output_details()),
            manifest,
            "uint8",
        )
        shape = tuple(first.get_input_details()[manifest.input.name]["shape"][1:])
        if shape != manifest.input.shape:  # LiteRT would resize the network to it
            raise ModelLoad(f"The model takes {shape}; the manifest says {manifest.input.shape}.")

    def run(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Run one batch; see ``Engine``."""
        _check_shape("LiteRT", pixels, self._manifest)
        try:
            runner = _idle_or(self._idle, self._make)
            with _watched(None, len(pixels)):
                outputs = runner(**{self._manifest.input.name: pixels})
        except Exception as error:
            raise ModelOutput(f"LiteRT stopped: {_line(error)}") from error
        outputs = {name: np.array(outputs[name]) for name in self._manifest.outputs}
        self._idle.append(runner)
        return _checked(outputs, len(pixels), self._manifest)


def _import_openvino() -> ModuleType:
    """OpenVINO without its telemetry, which reports every import of it to its maker.

    It takes a silent stand-in where ``openvino_telemetry`` cannot be imported.
    """
    telemetry = "openvino_telemetry"
    hidden = telemetry not in sys.modules
    if hidden:
        sys.modules[telemetry] = cast(ModuleType, None)
    try:
        return importlib.import_module("openvino")
    finally:
        if hidden:
            del sys.modules[telemetry]


def _openvino_version() -> str:
    return _import_openvino().__version__.partition("-")[0]


class _OpenVinoEngine:
    def __init__(self, model: bytes, manifest: Manifest, threads: int) -> None:
        try:
            openvino = _import_openvino()
        except ImportError as error:
            raise ExtraMissing(
                "OpenVINO is not installed: pip install 'medimg-edge[openvino]'"
            ) from error
        at_once = images_at_once(threads)
        settings = {
            "NUM_STREAMS": at_once,
            "INFERENCE_NUM_THREADS": threads * at_once,
            # Else float32 becomes bfloat16 where the processor has it, and answers differ.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            core = openvino.Core()
            network = core.read_model(io.BytesIO(model))
            inputs = {each.get_any_name(): each.get_element_type() for each in network.inputs}
            outputs = {name for each in network.outputs for name in each.get_names()}
        except Exception as error:
            raise ModelLoad(f"OpenVINO does not load the model: {_line(error)}") from error
        types = {name: each.to_dtype().name for name, each in inputs.items()}
        _check_names(types, outputs, manifest, "uint8")
        try:
            network.reshape({manifest.input.name: [1, *manifest.input.shape]})  # quicker than N
            compiled = _in_a_thread(lambda: core.compile_model(network, "CPU", settings))
            # A request holds the tensors of one call: each call takes an idle one.
            self._make = compiled.create_infer_request
            self._idle = [self._make()]
        except Exception as error:
            raise ModelLoad(f"OpenVINO does not load the model: {_line(error)}") from error
        self._outputs = {name: each for each in compiled.outputs for name in each.get_names()}
        self.runtime = f"openvino {_openvino_version()}"
        self._manifest = manifest

    def run(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Run one batch; see ``Engine``."""
        _check_shape("OpenVINO", pixels, self._manifest)
        outputs: dict[str, list[NDArray]] = {name: [] for name in self._manifest.outputs}
        request = _idle_or(self._idle, self._make)
        watched = _watched(request.cancel, len(pixels))
        try:
            with watched:
                for each in pixels:
                    request.infer({self._manifest.input.name: each[None]})
                    for name, values in outputs.items():
                        values.append(np.array(request.get_tensor(self._outputs[name]).data))
            whole = {name: np.concatenate(values) for name, values in outputs.items()}
        except Exception as error:
            if watched.expired:
                raise _late("OpenVINO") from error
            raise ModelOutput(f"OpenVINO stopped: {_line(error)}") from error
        self._idle.append(request)
        return _checked(whole, len(pixels), self._manifest)


RUNTIMES: dict[str, Runtime] = {
    "onnxruntime": Runtime("onnx", "onnxruntime", _onnxruntime_version, _OnnxEngine),
    "litert": Runtime("tflite", "ai_edge_litert", _litert_version, _LiteRtEngine),
    "openvino": Runtime("onnx", "openvino", _openvino_version, _OpenVinoEngine),
}
"""By the name that records give; the first of a format is its reference."""


def _in_a_thread(load: Callable[[], T]) -> T:
    """The result of a call in a thread that then ends.

    OpenVINO gives the thread that compiles a stack for signals, and frees it with the engine, in
    whatever thread drops that: Ctrl-C would then find none, and the system ends the process.
    """
    (loaded,) = in_order(lambda call: call(), [load], 1)
    return loaded


def _idle_or(idle: list[T], make: Callable[[], T]) -> T:
    try:
        return idle.pop()
    except IndexError:
        return make()


def _check_shape(runtime: str, pixels: NDArray[np.uint8], manifest: Manifest) -> None:
    """Before runtimes that would resize the network, or say nothing and return nothing."""
    if pixels.shape[1:] != manifest.input.shape:
        raise ModelOutput(
            f"{runtime} was given pixels of shape {pixels.shape[1:]}; "
            f"the model takes {manifest.input.shape}."
        )


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
        if values.shape != (count, *shape[1:]) and not _fits(values.shape, count, shape):
            raise ModelOutput(
                f"The output {name!r} has shape {values.shape}; the manifest says {shape}."
            )
        # A sum of float32 in float64 is finite where every one of them is.
        if not isfinite(np.add.reduce(values, axis=None, dtype=np.float64)):
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


def _fits(found: tuple[int, ...], count: int, shape: tuple[int | None, ...]) -> bool:
    """Whether an output has the shape that the manifest says, whose None is any size."""
    return len(found) == len(shape) and all(
        wanted in (None, got) for wanted, got in zip((count, *shape[1:]), found, strict=True)
    )


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
