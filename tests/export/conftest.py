"""What the tests of the workstation share: small networks, synthetic data, one run, one bundle.

TensorFlow takes seconds to load, so it is imported by the fixtures that need it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import medimg_export  # noqa: F401 - before TensorFlow, so that it is quiet
from medimg_edge.cli import main
from medimg_export import phantoms
from medimg_export.recipe import Recipe, override

if TYPE_CHECKING:
    import keras

    from medimg_export.export import Exported
    from medimg_export.graph import Deployable
    from medimg_export.prepared import Prepared
    from medimg_export.run import Run
    from medimg_export.trained_model import TrainedModel

SIZE = 28


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pixel cache of the tests' own, for processes that they start too."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("MEDIMG_EDGE_CACHE", str(folder))
        yield folder


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable:
    """Run ``medimg-edge`` in this process, which is quicker."""

    def run(*words: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["medimg-edge", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert "error [unexpected]" not in err, err
        return SimpleNamespace(returncode=ended.value.code or 0, stdout=out, stderr=err)

    return run


# --- the whole way, once ---


@pytest.fixture(scope="session")
def phantom_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 phantoms of 64 px: 204 to train and validate on, 36 to test."""
    out = tmp_path_factory.mktemp("phantoms") / "data"
    phantoms.write(out, 240, size=64)
    return out


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Small and short: ``tiny`` at 32 pixels for four epochs."""
    return override(
        Recipe(),
        card={"intended_use": "For tests.", "modality": ("DX",)},
        data={"group_pattern": phantoms.GROUP_PATTERN},
        pixels={"size": 32},
        training={"epochs": 4},
    )


@pytest.fixture(scope="session")
def prepared(phantom_data: Path, recipe: Recipe) -> Prepared:
    from medimg_export.prepared import prepare

    return prepare(phantom_data, recipe)


@pytest.fixture(scope="session")
def run(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Never written to again: its weights are what other trainings are compared with."""
    from medimg_export.run import make_run

    return make_run(prepared, tmp_path_factory.mktemp("runs") / "run")[0]


@pytest.fixture(scope="session")
def multiclass_run(
    blob_csv: Callable[[list[set[str]]], Path], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Three labels, one for each image, not in the order of the alphabet; easy."""
    names = ["top", "left", "right"]
    data = blob_csv([{names[i % 3]} for i in range(120)])
    return _easy_run(data, tmp_path_factory.mktemp("runs") / "multiclass", names)


@pytest.fixture(scope="session")
def multilabel_run(
    blob_csv: Callable[[list[set[str]]], Path], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Two labels, each in half of the images; chosen for a sensitivity of 0.9 on two draws."""
    kinds: list[set[str]] = [set(), {"left"}, {"top"}, {"left", "top"}]
    labels = [kinds[i % 4] for i in range(120)]
    return _easy_run(blob_csv(labels), tmp_path_factory.mktemp("runs") / "multilabel", draws=2)


@pytest.fixture(scope="session")
def multiclass_bundle(multiclass_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _exported(multiclass_run, tmp_path_factory.mktemp("bundles") / "multiclass")


@pytest.fixture(scope="session")
def multilabel_bundle(multilabel_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _exported(multilabel_run, tmp_path_factory.mktemp("bundles") / "multilabel")


def _exported(run: Run, out: Path) -> Path:
    from medimg_export.export import export
    from medimg_export.trained_model import trained_model

    return export(trained_model(run.path), out).bundle.path


def _easy_run(data: Path, folder: Path, labels: list[str] | None = None, draws: int = 0) -> Run:
    from medimg_export.prepared import prepare
    from medimg_export.run import make_run

    recipe = override(
        Recipe(),
        data={"labels": labels},
        pixels={"size": 32},
        training={
            "epochs": 6,
            "batch": 16,
            "learning_rate": 0.01,
            "validation_draws": draws,
            "augmentation": {"flip": False},
        },
        decision={"sensitivity": 0.9},
    )
    return make_run(prepare(data, recipe), folder)[0]


@pytest.fixture(scope="session")
def model(run: Run) -> TrainedModel:
    from medimg_export.trained_model import trained_model

    return trained_model(run.path)


@pytest.fixture(scope="session")
def exported(model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    from medimg_export.export import export

    return export(model, tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture(scope="session")
def bundle(exported: Exported) -> Path:
    """Never written to: copy it to change it."""
    return exported.bundle.path


# --- data sets of a few small images ---


@pytest.fixture(scope="session")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a MedMNIST-style ``.npz``: ``arrays([0, 1, ...])``, an image of noise for each label.

    An image's brightness follows its label; ``color`` makes it RGB. With ``splits``, a name for
    each image; else all of them are train.
    """

    def write(
        labels: Any, *, size: int = SIZE, color: bool = False, splits: list[str] | None = None
    ) -> Path:
        y = np.asarray(labels)
        random = np.random.default_rng(0)
        level = 60 + 40 * y.reshape(len(y), -1).sum(axis=1)
        images = random.normal(level[:, None, None], 30, (len(y), size, size))
        if color:
            images = images[..., None] * [1.0, 0.7, 0.4]
        images = images.clip(0, 255).astype(np.uint8)
        of = np.array(splits or ["train"] * len(y))
        path = tmp_path_factory.mktemp("arrays") / "images.npz"
        stored: dict[str, Any] = {}
        for split in np.unique(of):
            stored[f"{split}_images"] = images[of == split]
            stored[f"{split}_labels"] = y[of == split]
        np.savez(path, **stored)
        return path

    return write


@pytest.fixture(scope="session")
def blob_csv(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[set[str]]], Path]:
    """Write PNG files and a CSV: a bright blob for each of an image's labels, at its own place."""
    places = {"left": (16, 7), "right": (16, 25), "top": (6, 16)}

    def write(labels: list[set[str]]) -> Path:
        folder = tmp_path_factory.mktemp("blobs")
        random = np.random.default_rng(2)
        y, x = np.mgrid[:32, :32]
        lines = ["path,label"]
        for number, found in enumerate(labels):
            image = random.normal(90, 12, (32, 32))
            for name in found & set(places):
                row, column = places[name]
                image += 120 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 18)
            cv2.imwrite(str(folder / f"{number:03}.png"), image.clip(0, 255).astype(np.uint8))
            lines.append(f"{number:03}.png,{';'.join(sorted(found))}")
        path = folder / "labels.csv"
        path.write_text("\n".join(lines))
        return path

    return write


# --- small networks that really run, for the converters ---


@pytest.fixture(scope="session")
def blobs() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """400 images of noise, uint8 (400, 28, 28, 1), and 1 for every second, which has a blob."""
    random = np.random.default_rng(1)
    labels = np.arange(400) % 2
    y, x = np.mgrid[:SIZE, :SIZE]
    centers = random.uniform(6, SIZE - 6, (400, 2))
    distance = np.hypot(y - centers[:, :1, None], x - centers[:, 1:, None])
    contrast = labels * random.uniform(10, 90, 400)
    images = 140 + random.normal(0, 20, (400, SIZE, SIZE))
    images += contrast[:, None, None] * np.exp(-((distance / 4) ** 2))
    return images.clip(0, 255).astype(np.uint8)[..., None], labels


@pytest.fixture(scope="session")
def trained(blobs: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> Deployable:
    """Depthwise, residual, with batch normalization and ReLU6; trained to tell blobs from noise."""
    import keras

    from medimg_export.graph import deployable

    keras.utils.set_random_seed(3)
    model = _separable(outputs=1)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss)
    model.fit(*blobs, batch_size=20, epochs=10, verbose=0)  # pyright: ignore[reportArgumentType]
    return deployable(model, task="binary", temperature=1.7)


@pytest.fixture(scope="session")
def deployables(trained: Deployable) -> dict[str, Deployable]:
    """One network for every kind of head."""
    import keras

    from medimg_export.backbones import build
    from medimg_export.graph import deployable

    keras.utils.set_random_seed(4)
    shape = (SIZE, SIZE, 1)
    color = (SIZE, SIZE + 4, 3)
    return {
        "binary": trained,
        "multiclass": deployable(_random_statistics(_separable(3)), task="multiclass"),
        "multilabel, color, not square": deployable(
            build("tiny", color, 2), task="multilabel", temperature=0.8
        ),
        "flatten": deployable(build("baseline", shape, 1), task="binary"),
        "no heatmap": deployable(
            _random_statistics(_separable(1, pool="GlobalMaxPooling2D")), task="binary"
        ),
    }


def _separable(outputs: int, pool: str = "GlobalAveragePooling2D") -> keras.Model:
    import keras
    from keras import layers

    def normalized(convolution: layers.Layer, x: keras.KerasTensor) -> keras.KerasTensor:
        return layers.BatchNormalization(momentum=0.9)(convolution(x))

    pixels = keras.Input((SIZE, SIZE, 1), dtype="uint8")
    x = layers.Rescaling(1 / 128, offset=-127 / 128)(pixels)
    x = normalized(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False), x)
    for width in (16, 24):
        x = layers.ReLU(6.0)(x)
        x = normalized(layers.DepthwiseConv2D(3, padding="same", use_bias=False), x)
        x = layers.ReLU(6.0)(x)
        x = normalized(layers.Conv2D(width, 1, use_bias=False), x)
    x = layers.Add()([x, normalized(layers.Conv2D(24, 3, padding="same", use_bias=False), x)])
    x = layers.ReLU(6.0)(x)
    return keras.Model(pixels, layers.Dense(outputs)(getattr(layers, pool)()(x)))


def _random_statistics(model: keras.Model) -> keras.Model:
    """Batch normalizations as after training: fresh ones are the identity and fold to nothing."""
    from keras import layers

    random = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model
