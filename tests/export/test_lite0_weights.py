import io
import pickle
from collections import OrderedDict
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from medimg_export.backbones import build, feature_extractor, imagenet_classifier
from medimg_export.lite0_weights import imagenet_tensors, load_head, load_trunk, read_state_dict

PALACE, DAISY, RUGBY_BALL = 698, 985, 768  # ILSVRC 2012 class indices


class Global:
    """Pickled as a call of a global, with what it is called with."""

    def __init__(self, name: str, *arguments: Any) -> None:
        self.name, self.arguments = name, arguments


class Storage:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values


PurePython: Any = vars(pickle)["_Pickler"]
"""The pickler in C looks a global up before it writes it, and torch is not here."""


class TorchPickler(PurePython):
    dispatch: ClassVar[dict[type, Any]] = dict(PurePython.dispatch)

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Storage):
            return (
                "storage",
                Global("torch FloatStorage"),
                str(id(obj)),
                "cpu",
                len(obj.values),
                None,
            )
        return None

    def save_call(self, obj: Global) -> None:
        self.write(b"c" + obj.name.replace(" ", "\n").encode() + b"\n")
        if obj.arguments:
            self.save(obj.arguments)
            self.write(pickle.REDUCE)

    dispatch[Global] = save_call


def torch_file(tensors: dict[str, Any], storages: list[Storage]) -> bytes:
    file = io.BytesIO()
    keys = [str(id(storage)) for storage in storages]
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, OrderedDict(tensors), keys):
        TorchPickler(file, protocol=2).dump(part)
    for storage in storages:
        file.write(np.int64(len(storage.values)).tobytes() + storage.values.tobytes())
    return file.getvalue()


def tensor(storage: Storage, offset: int, shape: tuple, strides: tuple) -> Global:
    name = "torch._utils _rebuild_tensor_v2"
    return Global(name, storage, offset, shape, strides, False, OrderedDict())


def test_tensors_are_read_with_their_strides_and_offsets():
    storage, other = Storage(np.arange(24, dtype="<f4")), Storage(np.arange(3, dtype="<f4"))
    data = torch_file(
        {
            "rows": tensor(storage, 0, (4, 6), (6, 1)),
            "columns": tensor(storage, 0, (6, 4), (1, 6)),
            "part": tensor(storage, 5, (2, 2), (6, 2)),
            "scalar": tensor(other, 1, (), ()),
        },
        [storage, other],
    )
    read = read_state_dict(data)
    rows = np.arange(24).reshape(4, 6)
    np.testing.assert_array_equal(read["rows"], rows)
    np.testing.assert_array_equal(read["columns"], rows.T)
    np.testing.assert_array_equal(read["part"], [[5, 7], [11, 13]])
    assert read["scalar"] == 1
    assert all(array.flags.c_contiguous for array in read.values())


@pytest.mark.parametrize(
    "name", ["os system", "builtins eval", "builtins getattr", "torch load", "numpy load"]
)
def test_a_pickle_that_names_another_global_is_refused_before_it_runs(name, tmp_path):
    target = tmp_path / "made-by-the-pickle"
    data = torch_file({"weight": Global(name, f"touch {target}")}, [])
    with pytest.raises(ValueError, match=rf"asks for {name.replace(' ', '.')}"):
        read_state_dict(data)
    assert not target.exists()


ONE = Storage(np.zeros(4, "<f4"))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"PK\x03\x04 a zip", id="another format"),
        pytest.param(pickle.dumps(5), id="another pickle"),
        pytest.param(torch_file({"w": tensor(ONE, 0, (4,), (1,))}, [ONE])[:-1], id="cut"),
        pytest.param(torch_file({"w": tensor(ONE, 1, (4,), (1,))}, [ONE]), id="behind its end"),
        pytest.param(torch_file({"w": tensor(ONE, 0, (2, 2), (4, 1))}, [ONE]), id="long stride"),
        pytest.param(torch_file({"w": tensor(ONE, 3, (2,), (-1,))}, [ONE]), id="backwards"),
        pytest.param(torch_file({"w": tensor(ONE, -1, (2,), (1,))}, [ONE]), id="before its start"),
        pytest.param(torch_file({"w": tensor(ONE, 0, (2**50,), (0,))}, [ONE]), id="bomb"),
        pytest.param(torch_file({"w": tensor(ONE, 0, (4,), (1,))}, []), id="no storage"),
        pytest.param(torch_file({"w": 1}, []), id="not a tensor"),
    ],
)
def test_what_is_not_a_whole_state_dict_is_refused(data):
    with pytest.raises(ValueError, match=":"):
        read_state_dict(data)


def photographs() -> np.ndarray:
    """uint8 (2, 224, 224, 3): a Chinese palace and a flower, their central squares."""
    squares = [photo[:, 106:533] for photo in load_sample_images().images]
    return np.stack([cv2.resize(s, (224, 224), interpolation=cv2.INTER_AREA) for s in squares])


def test_the_ported_network_knows_what_is_on_photographs():
    logits = np.asarray(imagenet_classifier(224)(photographs()))
    assert logits.argmax(1).tolist() == [PALACE, DAISY]


def test_without_strides_the_network_says_rugby_ball():
    """The file's bytes in their order, as a plain reshape would give them."""

    def reshaped(values: np.ndarray) -> np.ndarray:
        order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(values.ndim, range(values.ndim))
        return values.transpose(*order).reshape(values.shape)

    model = imagenet_classifier(224)
    tensors = {name: reshaped(values) for name, values in imagenet_tensors().items()}
    load_trunk(model, tensors)
    load_head(model, tensors)
    assert np.asarray(model(photographs())).argmax(1).tolist() == [RUGBY_BALL, RUGBY_BALL]


@pytest.mark.parametrize("channels", [1, 4])
def test_equal_channels_give_what_the_gray_rgb_image_gives(channels):
    gray = photographs().mean(axis=-1, keepdims=True).astype(np.uint8)[:, :64, :64]

    def embedding(count: int) -> np.ndarray:
        model = build("efficientnet-lite0", (64, 64, count), 1)
        return np.asarray(feature_extractor(model)(np.repeat(gray, count, axis=-1)))

    np.testing.assert_allclose(embedding(channels), embedding(3), atol=1e-4)


def test_only_the_new_head_is_left_to_its_initial_values():
    pretrained = build("efficientnet-lite0", (64, 64, 3), 1, seed=3)
    fresh = build("efficientnet-lite0", (64, 64, 3), 1, seed=3, pretrained=False)
    same = {
        layer.name
        for layer, other in zip(pretrained.layers, fresh.layers, strict=True)
        if layer.weights and all(map(np.array_equal, layer.get_weights(), other.get_weights()))
    }
    assert same == {"logits"}
