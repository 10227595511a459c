"""Whether an ONNX file may be given to a runtime: a model is code, and a bundle may be anybody's.

Everything that a runtime would do is known before it sees the file: standard operators that end,
constants that are whole and in the file, the manifest's inputs and outputs, and no more memory or
work for one image than ``network_size`` accepts.
"""

from __future__ import annotations

from medimg_edge import onnx_sizes
from medimg_edge.errors import ModelRefused
from medimg_edge.manifest import Manifest
from medimg_edge.network_size import Shape
from medimg_edge.onnx_file import FLOAT, UINT8, OnnxFile, Port, read

MAX_BYTES = 512 * 2**20
"""Of a file: what a bundle may have in all."""


def require(model: bytes, manifest: Manifest) -> None:
    """Raise ModelRefused unless the bytes of a file may be run; ModelLoad where they are no ONNX.

    Takes about 5 ms for 300 operators.
    """
    if len(model) > MAX_BYTES:
        raise ModelRefused(
            f"The ONNX file has {len(model)} bytes; at most {MAX_BYTES} are accepted."
        )
    file = read(model)
    given = _given(file, manifest)
    _require_outputs(file, manifest)
    onnx_sizes.require(file, {manifest.input.name: given})


def _given(file: OnnxFile, manifest: Manifest) -> Shape:
    """The shape of one image, (1, H, W, C), where the file takes what the manifest says."""
    constants = {each.name for each in file.tensors}
    inputs = [each for each in file.inputs if each.name not in constants]
    expected = manifest.input
    wanted: Shape = (1, *expected.shape)
    if [each.name for each in inputs] != [expected.name] or inputs[0].kind != UINT8:
        found = ", ".join(_said(each) for each in inputs) or "nothing"
        raise ModelRefused(
            f"The model takes {found}; the manifest says one input {expected.name!r} of uint8."
        )
    if not _agree(inputs[0].shape, wanted, batch=1):
        raise ModelRefused(
            f"The model takes {_said(inputs[0])}; the manifest says {expected.shape} by image."
        )
    return wanted


def _require_outputs(file: OnnxFile, manifest: Manifest) -> None:
    outputs = {each.name: each for each in file.outputs}
    for name, expected in manifest.outputs.items():
        if name not in outputs:
            raise ModelRefused(f"The model has no output {name!r}; it has {sorted(outputs)}.")
        found = outputs[name]
        if found.kind != FLOAT or not _agree(found.shape, expected.shape, batch=None):
            raise ModelRefused(
                f"The model returns {_said(found)}; the manifest says float32 of shape "
                f"{expected.shape}."
            )


def _agree(
    found: tuple[int | None, ...] | None, wanted: tuple[int | None, ...], batch: int | None
) -> bool:
    """Whether no side is another; what a file leaves open, a run will show."""
    if found is None:
        return True
    return len(found) == len(wanted) and all(
        None in (side, expected) or side == expected
        for side, expected in zip(found, (batch, *wanted[1:]), strict=True)
    )


def _said(port: Port) -> str:
    if port.kind is None:
        return f"{port.name!r}, which is no tensor"
    kind = {FLOAT: "float32", UINT8: "uint8"}.get(port.kind, f"type {port.kind}")
    return f"{port.name!r} of {kind} and shape {port.shape}"
