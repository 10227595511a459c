"""Every published recipe from the command line, on a few images of its own kind."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from medimg_edge.manifest import Windows
from medimg_export import recipe
from medimg_export.phantoms import chest
from medimg_export.recipe import Pixels, Training, load
from medimg_export.run import Run
from medimg_export.train import SCHEDULES, schedule_of

COUNT = 40


def kermany(root: Path, called: Callable) -> Path:
    """Names as in the published set: the kind and the patient are in them."""
    for number in range(COUNT):
        sick = number % 2 == 1
        name = f"person{number}_bacteria_1.jpeg" if sick else f"IM-{number:04}-0001.jpeg"
        path = root / ("PNEUMONIA" if sick else "NORMAL") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), (chest(number, sick, 64).pixels >> 8).astype(np.uint8))
    return root


def medmnist(name: str, positive: int) -> Callable[[Path, Callable], Path]:
    """The published file's name and form; its labels' names come with the name."""

    def write(root: Path, called: Callable) -> Path:
        root.mkdir()
        arrays: dict[str, np.ndarray] = {}
        for at, split in enumerate(("train", "val", "test")):
            labels = np.arange(COUNT) % 2
            seeds = range(at * COUNT, (at + 1) * COUNT)
            found = [chest(s, y == positive, 32) for s, y in zip(seeds, labels, strict=True)]
            images = [(each.pixels[2:30, 2:30] >> 8).astype(np.uint8) for each in found]
            arrays[f"{split}_images"] = np.stack(images)
            arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
        np.savez(root / f"{name}.npz", allow_pickle=False, **arrays)
        return root / f"{name}.npz"

    return write


def phantoms(kind: str, *options: str) -> Callable[[Path, Callable], Path]:
    def write(root: Path, called: Callable) -> Path:
        words = ["data", "phantom", root, "--kind", kind, "--count", COUNT, "--size", 64]
        done = called(*words, *options)
        assert done.returncode == 0, done.stderr
        return root

    return write


DATA: dict[str, Callable[[Path, Callable], Path]] = {
    "pneumonia-cxr": kermany,
    "pneumoniamnist": medmnist("pneumoniamnist", positive=1),
    "breastmnist": medmnist("breastmnist", positive=0),
    "ct-lung": phantoms("ct"),
    "ct-lung-png": phantoms("ct", "--format", "png"),
    "brain-mri": phantoms("mri"),
    "bone-fracture": phantoms("bone"),
    "few-labels": phantoms("chest"),
}
REDUCED: dict[str, list[object]] = {
    "pneumoniamnist": [],
    "breastmnist": [],
    # The large network costs half a minute of compiling: once, where its stem gets three windows.
    "ct-lung": ["--size", 48],
}
PUBLISHED = sorted({path.stem for folder in recipe.RECIPES for path in folder.glob("*.toml")})


def test_every_published_recipe_is_run_here():
    assert set(DATA) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_runs_from_the_command_line(name: str, called: Callable, tmp_path: Path):
    data = DATA[name](tmp_path / "data", called)
    words = ["train", data, "--recipe", name, "--out", tmp_path / "run", "--epochs", 1]
    done = called(*words, *REDUCED.get(name, ["--size", 48, "--backbone", "tiny"]))
    assert done.returncode == 0, done.stderr
    assert "AUC" in done.stdout

    run, published = Run.open(tmp_path / "run"), load(name)
    used = run.record.recipe
    assert used.card == published.card
    assert used.data == published.data
    assert used.pixels.intensity == published.pixels.intensity
    assert used.training.backbone == (published.training.backbone if name in REDUCED else "tiny")
    assert used.training.augmentation == published.training.augmentation
    positive = published.data.positive
    assert positive is None or run.record.labels[1] == positive
    windows = used.pixels.intensity
    channels = len(windows.windows) if isinstance(windows, Windows) else 1
    assert run.model().input_shape[-1] == channels


@pytest.mark.parametrize("name", ["pneumoniamnist", "breastmnist"])
def test_the_medmnist_recipes_are_what_train_does_by_itself(name: str):
    found = load(name)
    tiny = SCHEDULES["tiny"]
    assert schedule_of(found) == tiny
    assert found.pixels == Pixels(size=28)
    assert found.training == Training(
        backbone="tiny",
        epochs=tiny.epochs,
        learning_rate=tiny.learning_rate,
        patience=tiny.patience,
    )
    assert "CC BY 4.0" in found.card.license
    assert "Yang" in found.card.data_source


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_says_why(name: str):
    """Every value of data, pixels and training has a reason beside or above it."""
    found = [path for folder in recipe.RECIPES for path in folder.glob(f"{name}.toml")]
    lines = found[0].read_text().split("[data]")[1].splitlines()
    bare = [
        line
        for above, line in pairwise(lines)
        if "=" in line and "#" not in line and "#" not in above
    ]
    assert [line for line in bare if not line.startswith(("kind =", "windows ="))] == []


def test_a_png_has_no_hounsfield_units(called: Callable, tmp_path: Path):
    """Refused in words, and the words lead to the recipe that reads it."""
    data = phantoms("ct", "--format", "png")(tmp_path / "data", called)
    done = called("train", data, "--recipe", "ct-lung", "--out", tmp_path / "run", "--size", 48)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error [data-too-few]: None of the 40 images")
    assert "without a unit" in line
    assert "intensity 'display'" in line
    assert not (tmp_path / "run" / "run.json").exists()
