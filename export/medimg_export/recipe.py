"""A recipe: everything that decides a training, as one TOML file.

Options of the command line override a recipe; what a recipe leaves out is the backbone's default.
The recipe that was used, defaults filled in, is stored in ``run.json``.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from medimg_edge.errors import RecipeError
from medimg_edge.manifest import Display, Name, Percentile, Task, Windows

RECIPES = (Path(__file__).parents[1] / "recipes", Path(__file__).parent / "recipes")
"""Where named recipes lie: in the source tree, and in an installed package."""

RECORD = "run.json"
"""Where a run keeps the recipe that made it."""

Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Epochs = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
Keep = Literal["best", "last"]


class Struct(msgspec.Struct, frozen=True):
    """The base of every part of a recipe.

    What a person writes is refused where it has an unknown key (``convert``); what a run or a
    bundle has stored may be of another release, whose options this one does not have.
    """


class Data(Struct, frozen=True):
    """How a data set is read: see ``dataset.open_dataset`` and ``splits.make_splits``."""

    labels: tuple[str, ...] | None = None
    positive: str | None = None
    task: Task | None = None
    group_pattern: str | None = None
    drop_overlap: bool = False


class Pixels(Struct, frozen=True):
    """Preprocessing. Without a ``size``: the data's own for arrays, else the backbone's."""

    size: Annotated[int, msgspec.Meta(ge=16, le=4096)] | None = None
    color: Literal["gray", "rgb"] = "gray"
    intensity: Display | Windows | Percentile = Display()
    geometry: Literal["stretch", "letterbox", "center-crop"] = "stretch"
    decode: Literal["full", "scaled"] = "full"
    """Scaled: of a JPEG at least twice as large as the input, only what is needed is decoded."""


class Augmentation(Struct, frozen=True):
    """Largest change of each kind, drawn evenly for each image and epoch."""

    rotation: Annotated[float, msgspec.Meta(ge=0, le=180)] = 8.0
    """Degrees: patients stand a little askew."""
    shift: Share = 0.06
    """Share of the side: collimation and positioning."""
    zoom: Share = 0.10
    """Share: distance and patient size."""
    contrast: Share = 0.25
    """Share, about the image's mean: tube voltage and display curve."""
    brightness: Share = 0.10
    """Share of the full scale: exposure."""
    flip: bool = True
    """Mirror half of the images. Off where the side matters to the finding."""
    aspect: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.0
    """Share: width against height, from 1 / (1 + aspect) to 1 + aspect times the image's own. For
    sets whose films were wider for one class, and are stretched to one shape."""
    blur: Annotated[float, msgspec.Meta(ge=0, le=20)] = 0.0
    """Pixels, for half of the images: a Gaussian's standard deviation. Scaled, moved films."""
    noise: Share = 0.0
    """Share of the full scale, for half of the images: its standard deviation. Few photons, and
    with ``blur`` for sets of which one class has more of fine texture."""
    jpeg: bool = False
    """Write half of the images as JPEG files of any quality, and read them again. For sets whose
    files are such, where a clinic's are not, and the other way round."""
    crop: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.0
    """Share of the height and of the width that is lost, for a quarter of the images; where the
    rest lies is drawn. Films of a part of the chest."""
    movement: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    """Pixels that a patient moved along while the beam was on, for a quarter of the images."""
    grid: Share = 0.0
    """Share of the full scale that the lines of an anti-scatter grid add, for a quarter of the
    images; one that stands askew adds up to three times as much to one side."""


def at_least(spec: Augmentation, least: Augmentation) -> Augmentation:
    """``spec``, with of every kind as much as ``least`` has; mirrored only where ``least`` is."""
    larger = {
        name: max(value, getattr(least, name))
        for name, value in msgspec.structs.asdict(spec).items()
    }
    return Augmentation(**larger | {"flip": least.flip})


class SemiSupervised(Struct, frozen=True):
    """What is learned from images without labels, where ``train`` is given some."""

    method: Literal["fixmatch", "mean-teacher"] = "fixmatch"
    """fixmatch: the teacher's answer on a weakly changed image, where it is sure, is the label of
    the strongly changed one (Sohn et al. 2020). mean-teacher: its probability always is (Tarvainen
    and Valpola 2017). The teacher is the moving average of the network in both."""
    epochs: Epochs | None = None
    """Passes through them, in place of ``training.epochs``, which may count a hundred images."""
    weight: Positive = 1.0
    """Of their loss, against that of the labelled images."""
    warmup: Share = 0.2
    """Share of all steps until the weight is whole."""
    ratio: Annotated[int, msgspec.Meta(ge=1, le=64)] = 3
    """Images without a label for each with one, in a step."""
    confidence: Annotated[float, msgspec.Meta(ge=0.5, lt=1)] = 0.95
    """fixmatch: how sure the teacher has to be."""
    decay: Share = 0.99
    """Of the moving average, at each step; less at the first, which are few to remember."""
    align: bool = True
    """Keep the prevalence of the labelled images as they are, whatever ``balance`` makes of their
    loss: the teacher's answers are corrected by what it has answered on the whole (Berthelot et al.
    2020), so that it cannot drift to one class."""
    strong: Augmentation = Augmentation(
        rotation=15.0,
        shift=0.10,
        zoom=0.30,
        contrast=0.50,
        brightness=0.20,
        blur=1.5,
        noise=0.05,
        jpeg=True,
        crop=0.4,
    )
    """What the network has to see through, and of every kind at least as much as the weak one has,
    which is ``training.augmentation``. A table here replaces all of this."""


class Training(Struct, frozen=True):
    """The schedule. ``None`` is the backbone's default."""

    backbone: Literal["auto", "baseline", "tiny", "efficientnet-lite0"] = "auto"
    """``auto``: tiny below 96 pixels, efficientnet-lite0 from there on."""
    pretrained: bool = True
    head_epochs: Epochs | None = None
    epochs: Epochs | None = None
    batch: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 32
    learning_rate: Positive | None = None
    clip: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    """The largest norm of a step's gradient, but for the head alone: longer ones are shortened
    (Pascanu et al. 2013). A few images make steep ones, after which a network may answer all
    images alike."""
    patience: Epochs | None = None
    """Epochs without a better validation AUC until training stops, where the best one is kept."""
    keep: Keep = "best"
    """The weights of the epoch with the best validation AUC; or of the last one, at the end of the
    cosine, where so few images validate that they would choose by chance."""
    balance: Literal["weights", "sampling", "none"] = "weights"
    """Class imbalance: weigh the loss, draw classes evenly, or leave it."""
    validation_draws: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    """Validation images choose the epoch under so many draws of the augmentation, all of its kinds,
    and temperature and operating point as they are and under the draws; 0: as they are. For sets
    whose images differ from a clinic's in ways that the augmentation has: the threshold then lies
    where these do not cross it."""
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    augmentation: Augmentation = Augmentation()
    semi: SemiSupervised = SemiSupervised()


class Pretraining(Struct, frozen=True):
    """``pretrain``: two views of an image are to be known as one among all others of a step.

    SimCLR (Chen et al. 2020): the normalised temperature-scaled cross-entropy of a projection.
    """

    epochs: Epochs = 50
    batch: Annotated[int, msgspec.Meta(ge=2, le=4096)] = 128
    learning_rate: Positive = 1e-3
    temperature: Positive = 0.2
    width: Annotated[int, msgspec.Meta(ge=8, le=4096)] = 128
    """Of the projection; its hidden layer is twice as wide."""
    augmentation: Augmentation = Augmentation(
        rotation=15.0,
        shift=0.15,
        zoom=0.45,
        contrast=0.60,
        brightness=0.25,
        aspect=0.3,
        blur=2.0,
        noise=0.05,
        crop=0.5,
    )
    """What two views may differ in: this, and at least ``training.augmentation``."""


class Decision(Struct, frozen=True):
    """The operating point: Youden's, or the most specific that reaches a sensitivity."""

    sensitivity: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None


class Card(Struct, frozen=True):
    """What the bundle says to people."""

    name: Name | None = None
    """Where left out: the name of the bundle's folder."""
    version: str = "0.1.0"
    intended_use: str = (
        "Decision support for trained staff; not a diagnosis. Not validated for clinical use."
    )
    modality: tuple[str, ...] = ()
    body_part: tuple[str, ...] = ()
    view: tuple[str, ...] = ()
    license: str = ""
    data_source: str = ""
    limits: tuple[str, ...] = ()
    """Known failures, each a sentence or two, beside those that every model has."""
    developers: str = ""
    contact: str = ""
    """Whom to tell that it fails."""
    model_license: str = ""
    users: str = ""
    environment: str = ""
    """Where it is to be used, and between what other steps."""
    out_of_scope: str = ""
    population: str = ""
    """Whose images it was trained on."""
    acquisition: str = ""
    """By what machines, where and when they were made."""
    reference_standard: str = ""
    """How the labels came about."""
    ethics: str = ""
    updates: str = ""
    """How it is watched, and when there is a new one."""


class Foreign(Struct, frozen=True):
    """A Keras model that was trained elsewhere: what its file does not say."""

    outputs: tuple[str, ...] | None = None
    """The labels in the order of the model's outputs; the recipe's ``labels`` where left out."""
    scale: float | None = None
    offset: float | None = None
    """The model expects pixel * scale + offset, for pixels 0..255."""
    temperature: Positive = 1.0


class Recipe(Struct, frozen=True):
    """All of it."""

    card: Card = Card()
    data: Data = Data()
    pixels: Pixels = Pixels()
    training: Training = Training()
    pretraining: Pretraining = Pretraining()
    decision: Decision = Decision()
    model: Foreign = Foreign()


DEFAULT = Recipe(pixels=Pixels(decode="scaled"))
"""What ``train`` does unasked; a model that was trained elsewhere has not seen scaled JPEGs."""


def load(name: str | os.PathLike[str]) -> Recipe:
    """Read a recipe by its path, or by the name of one that the package brings.

    Raises RecipeError: no such recipe, not TOML, an unknown key, a value out of range.
    """
    path = _find(name)
    try:
        return convert(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"The recipe {path} cannot be read: {error}") from error


def convert(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values, as TOML holds them. Raises RecipeError."""
    recipe = recall(values)
    _refuse_unknown(values, Recipe, "")
    intensity = recipe.pixels.intensity
    if not isinstance(intensity, Windows) and intensity.low >= intensity.high:
        raise RecipeError(
            f"The recipe's intensity runs from {intensity.low:g} to {intensity.high:g}; "
            "low must be below high."
        )
    return recipe


def recall(values: dict[str, Any]) -> Recipe:
    """A recipe that a run or a bundle has stored; keys of other releases are passed over.

    Raises RecipeError.
    """
    try:
        return msgspec.convert(values, Recipe)
    except msgspec.ValidationError as error:
        raise RecipeError(f"The recipe does not fit: {error}") from error


def override(recipe: Recipe, **options: dict[str, Any]) -> Recipe:
    """A recipe with values replaced by section: ``override(r, training={"seed": 1})``.

    Values that are None are left as the recipe has them. Raises RecipeError.
    """
    return convert(_merged(msgspec.to_builtins(recipe), options))


def _refuse_unknown(values: dict[str, Any], kind: type[Struct], within: str) -> None:
    known = {each.name: each.type for each in msgspec.structs.fields(kind)}
    for key in values:
        if key not in known:
            raise RecipeError(
                f"The recipe has the unknown key {within}{key}; accepted here: {', '.join(known)}."
            )
    for key, value in values.items():
        part = known[key]
        if isinstance(part, type) and issubclass(part, Struct):
            _refuse_unknown(value, part, f"{within}{key}.")


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in changes.items():
        if isinstance(value, dict):
            merged[key] = _merged(values[key], value)
        elif value is not None:
            merged[key] = value
    return merged


def _find(name: str | os.PathLike[str]) -> Path:
    path = Path(name)
    if path.suffix == ".toml" or path.exists():
        return path
    for folder in RECIPES:
        if (folder / f"{path.name}.toml").is_file():
            return folder / f"{path.name}.toml"
    known = sorted(each.stem for folder in RECIPES for each in folder.glob("*.toml"))
    raise RecipeError(
        f"There is no recipe {os.fspath(name)!r}: give a .toml file"
        + (f" or one of {', '.join(known)}." if known else ".")
    )
