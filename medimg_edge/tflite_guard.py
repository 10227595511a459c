"""Whether a TFLite file may be given to a runtime: a model is code, and a bundle may be anybody's.

LiteRT cannot be stopped while it runs, and does not look where the offsets in a file lead. So all
that it would do is known before: one graph without loops or branches, builtin operators that end,
buffers in the file, the manifest's inputs and outputs, and no more memory or work for one image
than ``network_size`` accepts.
"""

from __future__ import annotations

from medimg_edge import tflite_sizes
from medimg_edge.errors import ModelRefused
from medimg_edge.manifest import Manifest
from medimg_edge.tflite_file import FLOAT32, UINT8, Tensor, TfliteFile, read

MAX_BYTES = 512 * 2**20
"""Of a file: what a bundle may have in all."""


def require(model: bytes, manifest: Manifest) -> None:
    """Raise ModelRefused unless the bytes of a file may be run; ModelLoad where they are no TFLite.

    Takes about 5 ms for 300 operators.
    """
    if len(model) > MAX_BYTES:
        raise ModelRefused(
            f"The TFLite file has {len(model)} bytes; at most {MAX_BYTES} are accepted."
        )
    file = read(model)
    _require_input(file, manifest)
    _require_outputs(file, manifest)
    tflite_sizes.require(file)


def _require_input(file: TfliteFile, manifest: Manifest) -> None:
    expected = manifest.input
    tensors = {name: file.tensors[number] for name, number in file.inputs.items()}
    found = tensors.get(expected.name)
    if len(tensors) != 1 or found is None or found.kind != UINT8:
        said = ", ".join(_said(name, each) for name, each in tensors.items()) or "nothing"
        raise ModelRefused(
            f"The model takes {said}; the manifest says one input {expected.name!r} of uint8."
        )
    if found.shape != (1, *expected.shape):
        raise ModelRefused(
            f"The model takes {_said(expected.name, found)}; the manifest says {expected.shape} by "
            "image."
        )


def _require_outputs(file: TfliteFile, manifest: Manifest) -> None:
    for name, expected in manifest.outputs.items():
        if name not in file.outputs:
            raise ModelRefused(f"The model has no output {name!r}; it has {sorted(file.outputs)}.")
        found = file.tensors[file.outputs[name]]
        wanted = (1, *expected.shape[1:])
        fits = len(found.shape) == len(wanted) and all(
            side in (None, got) for side, got in zip(wanted, found.shape, strict=True)
        )
        if found.kind != FLOAT32 or not fits:
            raise ModelRefused(
                f"The model returns {_said(name, found)}; the manifest says float32 of shape "
                f"{expected.shape}."
            )


def _said(name: str, tensor: Tensor) -> str:
    kind = {FLOAT32: "float32", UINT8: "uint8"}.get(tensor.kind, f"type {tensor.kind}")
    return f"{name!r} of {kind} and shape {tensor.shape}"
