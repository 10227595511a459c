"""Recipes: read, refused, overridden, and the same again from run.json."""

from pathlib import Path

import msgspec
import pytest

from medimg_edge.bundle import Bundle
from medimg_edge.errors import RecipeError
from medimg_edge.manifest import Windows, WindowSetting
from medimg_edge.models import DEFAULT
from medimg_export import recipe
from medimg_export.recipe import Augmentation, Recipe, convert, load, override, recall

FULL = """
[card]
name = "ct-lung"
version = "1.2.0"
modality = ["CT"]

[data]
labels = ["clear", "nodule"]
positive = "nodule"
group_pattern = 'patient(\\d+)'

[pixels]
size = 128
intensity = { kind = "window", windows = [{ center = -600, width = 1500 }] }
geometry = "letterbox"

[training]
backbone = "tiny"
epochs = 7
balance = "sampling"
augmentation = { flip = false, rotation = 3.0 }

[decision]
sensitivity = 0.95
"""


def test_a_full_recipe_is_read(tmp_path: Path):
    (tmp_path / "ct.toml").write_text(FULL)
    found = load(tmp_path / "ct.toml")
    assert (found.card.name, found.card.modality) == ("ct-lung", ("CT",))
    assert found.data.labels == ("clear", "nodule")
    assert found.pixels.intensity == Windows((WindowSetting(-600, 1500),))
    assert (found.training.epochs, found.training.balance) == (7, "sampling")
    assert not found.training.augmentation.flip
    assert found.training.augmentation.zoom == Recipe().training.augmentation.zoom
    assert found.decision.sensitivity == 0.95


def test_what_run_json_stores_is_the_same_recipe(tmp_path: Path):
    (tmp_path / "ct.toml").write_text(FULL)
    found = load(tmp_path / "ct.toml")
    assert msgspec.json.decode(msgspec.json.encode(found), type=Recipe) == found
    assert convert(msgspec.to_builtins(found)) == found


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        ("[training]\nepoch = 3", "epoch"),
        ("[trainings]\nepochs = 3", "trainings"),
        ("[training]\nepochs = 'three'", "epochs"),
        ("[training]\nepochs = -1", "epochs"),
        ("[training]\nbatch = 0", "batch"),
        ("[training]\nseed = -1", "seed"),
        ("[training]\nlearning_rate = 0", "learning_rate"),
        ("[training]\nbackbone = 'vgg'", "backbone"),
        ("[training]\nbalance = 'yes'", "balance"),
        ("[training.augmentation]\nzoom = 1.0", "zoom"),
        ("[training.augmentation]\nrotation = -5", "rotation"),
        ("[pixels]\nsize = 8", "size"),
        ("[pixels]\ngeometry = 'tile'", "geometry"),
        ("[pixels.intensity]\nkind = 'window'\nwindows = []", "windows"),
        ("[decision]\nsensitivity = 1.5", "sensitivity"),
        ("[card]\nname = 'my model'", "name"),
        ("[model]\ntemperature = 0", "temperature"),
        ("[training\nepochs = 3", "line 1"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_by_name(tmp_path: Path, toml: str, named: str):
    (tmp_path / "bad.toml").write_text(toml)
    with pytest.raises(RecipeError, match=named) as refused:
        load(tmp_path / "bad.toml")
    assert refused.value.code == "recipe"


def test_files_that_are_no_recipes_are_refused(tmp_path: Path):
    (tmp_path / "latin.toml").write_bytes(b"[card]\nlicense = '\xe9'")
    (tmp_path / "folder.toml").mkdir()
    for name in ("latin.toml", "folder.toml", "missing.toml"):
        with pytest.raises(RecipeError, match=name):
            load(tmp_path / name)
    with pytest.raises(RecipeError, match="no recipe 'pneumonai'"):
        load("pneumonai")


def test_options_override_and_leave_the_rest():
    start = override(Recipe(), training={"seed": 3, "augmentation": {"zoom": 0.2}})
    found = override(
        start,
        training={"seed": None, "epochs": 2, "augmentation": {"flip": False}},
        pixels={"size": None},
    )
    assert found.training.seed == 3
    assert found.training.epochs == 2
    assert found.training.augmentation.zoom == 0.2
    assert not found.training.augmentation.flip
    assert found.pixels == Recipe().pixels
    with pytest.raises(RecipeError, match="epochs"):
        override(start, training={"epochs": -2})


PUBLISHED = sorted(path for folder in recipe.RECIPES for path in folder.glob("*.toml"))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_recipe_is_found_by_its_name(path: Path):
    assert load(path.stem) == load(path)


def test_what_another_release_stored_is_read_without_what_it_had_of_its_own():
    values = msgspec.to_builtins(Recipe())
    values["training"]["augmentation"] |= {"elastic": 0.0, "rotation": 3.0}
    values["training"]["label_smoothing"] = 0.0
    values["later"] = {"anything": 1}
    assert recall(values).training.augmentation == Augmentation(rotation=3.0)
    with pytest.raises(RecipeError, match=r"unknown key later"):
        convert(values)
    del values["later"]
    with pytest.raises(RecipeError, match=r"unknown key training\.label_smoothing"):
        convert(values)
    del values["training"]["label_smoothing"]
    with pytest.raises(RecipeError, match=r"unknown key training\.augmentation\.elastic"):
        convert(values)
    with pytest.raises(RecipeError, match="does not fit"):
        recall({"training": {"seed": "one"}})


def test_the_shipped_bundles_recipe_is_read():
    stored = Bundle.open(DEFAULT).manifest.training["recipe"]
    assert recall(stored).card.name == DEFAULT


def test_only_what_says_so_is_decoded_smaller():
    """A model of another release, or trained elsewhere, has not seen scaled JPEGs."""
    assert convert({}).pixels.decode == "full"
    assert recipe.DEFAULT.pixels.decode == load("pneumonia-cxr").pixels.decode == "scaled"
