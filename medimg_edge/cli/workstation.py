"""The commands of the workstation: train, export, evaluate, compare, data, demo.

The one module of the device that may import ``medimg_export``, inside of a command only.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medimg_edge.cli import output
from medimg_edge.errors import ExtraMissing

if TYPE_CHECKING:
    from medimg_export.recipe import Recipe

data = typer.Typer(
    name="data",
    help="Look at a data set before training, fetch published ones, make synthetic ones.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Balance(StrEnum):
    """What is done about class imbalance."""

    weights = "weights"
    sampling = "sampling"
    none = "none"


class PhantomKind(StrEnum):
    """What a phantom shows."""

    chest = "chest"
    ct = "ct"
    mri = "mri"
    bone = "bone"


class PhantomFormat(StrEnum):
    """What the class folders of a set of phantoms hold."""

    png = "png"
    dicom = "dicom"


class Geometry(StrEnum):
    """How an image is brought to the input's shape."""

    stretch = "stretch"
    letterbox = "letterbox"
    center_crop = "center-crop"


Data = Annotated[
    Path, typer.Argument(help="Class folders, a CSV (path,label[,split][,group]), or an .npz.")
]
RecipeOption = Annotated[
    str | None, typer.Option(metavar="NAME|FILE", help="A TOML file; options override it.")
]
Positive = Annotated[
    str | None, typer.Option(metavar="LABEL", help="Which of two labels is the positive one.")
]
Labels = Annotated[
    str | None, typer.Option(metavar="A,B,...", help="Names of an .npz file's classes 0, 1, ...")
]
GroupPattern = Annotated[
    str | None,
    typer.Option(metavar="REGEX", help="What of a file's name is the patient: never split apart."),
]
DropOverlap = Annotated[
    bool | None,
    typer.Option("--drop-overlap", help="Take images out of train that other splits have too."),
]
Size = Annotated[int | None, typer.Option(metavar="PX", help="Height and width of the input.")]
GeometryOption = Annotated[Geometry | None, typer.Option(help="Default: stretch.")]
Flip = Annotated[bool | None, typer.Option(help="Mirror half of the images.")]
Seed = Annotated[int | None, typer.Option(help="Decides splits, weights, order, augmentation.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Bootstrap = Annotated[
    int, typer.Option(min=0, help="Resamples for the intervals and the bands; 0: none.")
]


@contextmanager
def _workstation(*, tensorflow: bool = True) -> Iterator[None]:
    """Load what a command needs, and turn a missing extra into the line that installs it."""
    try:
        if tensorflow:
            from medimg_export.chatter import load_tensorflow

            load_tensorflow()
        yield
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            f"This command runs on a workstation and needs {error.name}, which is not installed "
            "here. pip install 'medimg-edge[export]'"
        ) from error


def train(
    data: Data,
    out: Annotated[Path, typer.Option(metavar="RUN", help="The folder for the run.")],
    recipe: RecipeOption = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="baseline, tiny, efficientnet-lite0, or auto: by the input's size."),
    ] = None,
    size: Size = None,
    geometry: GeometryOption = None,
    epochs: Annotated[int | None, typer.Option(help="Default: the backbone's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="The largest of the schedule.")
    ] = None,
    seed: Seed = None,
    positive: Positive = None,
    labels: Labels = None,
    group_pattern: GroupPattern = None,
    drop_overlap: DropOverlap = None,
    balance: Annotated[Balance | None, typer.Option(help="For classes of unequal size.")] = None,
    flip: Flip = None,
    sensitivity: Annotated[
        float | None,
        typer.Option(help="Choose the most specific point that reaches it, not Youden's."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the bundle will be called.")] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="More images, which nobody labelled, to learn from."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Begin with what pretrain or an earlier train learned."),
    ] = None,
    resume: Resume = False,
) -> None:
    """Train a classifier and write a run: model, metrics, learning curves, report.

    Examples:

    medimg-edge train chest/ --out runs/chest --group-pattern 'patient[0-9]+'

    medimg-edge train pneumoniamnist.npz --out runs/tiny --backbone tiny --seed 1

    medimg-edge train hundred.csv --recipe few-labels --out run1

    medimg-edge train hundred.csv --recipe few-labels --weights run1 --unlabelled more/ --out run2
    """
    with _workstation():
        from medimg_export.metrics import table
        from medimg_export.prepared import prepare
        from medimg_export.run import make_run, require_free
        from medimg_export.start import Start

        require_free(out, resume)
        start = Start.open(weights) if weights else None
        chosen = _recipe(
            recipe,
            card={"name": name},
            data={
                "positive": positive,
                "labels": labels.split(",") if labels else None,
                "group_pattern": group_pattern,
                "drop_overlap": drop_overlap,
            },
            pixels={"size": size, "geometry": geometry},
            training={
                "backbone": backbone,
                "epochs": epochs,
                "batch": batch,
                "learning_rate": learning_rate,
                "seed": seed,
                "balance": balance,
                "augmentation": {"flip": flip},
                "semi": {"epochs": epochs if unlabelled else None},
            },
            decision={"sensitivity": sensitivity},
        )
        prepared = prepare(data, chosen, output.progress, unlabelled=unlabelled)
        _say_data(prepared.describe())
        if start and (note := start.note(prepared.kept_apart)):
            output.note(f"note: {note}")
        run, found = make_run(
            prepared, out, start=start, resume=resume, progress=output.progress, report=_say_epoch
        )
        output.clear()
        typer.echo(output.table(table(found), ("validation", "value", "95 % interval")))
        typer.echo(
            f"\n{run.record.seconds / 60:.1f} minutes. Look at {out / 'report.html'}\n"
            f"Next: medimg-edge export {out} --out bundle"
        )


def pretrain(
    images: Annotated[
        Path, typer.Argument(metavar="DIR", help="Images; no label is read, of no folder's name.")
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="The folder for the weights.")],
    beside: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="The labelled set that will be trained on: images and patients of its validation "
            "and test are left out.",
        ),
    ] = None,
    recipe: RecipeOption = None,
    backbone: Annotated[
        str | None, typer.Option(help="tiny, efficientnet-lite0, or auto: by the input's size.")
    ] = None,
    size: Size = None,
    geometry: GeometryOption = None,
    flip: Flip = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images. Default: 50.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Images a step; each is told from all others. Default: 128.")
    ] = None,
    seed: Seed = None,
    positive: Positive = None,
    group_pattern: GroupPattern = None,
    resume: Resume = False,
) -> None:
    """Learn from images without labels; `train --weights RUN` begins with what was learned.

    Examples:

    medimg-edge pretrain archive/ --beside hundred.csv --recipe few-labels --out runs/archive

    medimg-edge train hundred.csv --recipe few-labels --weights runs/archive --out runs/chest

    Give --beside, --seed, --size and --group-pattern as they will be given to train: the split
    follows from them, and nothing that will be measured may be learned from.
    """
    with _workstation():
        from medimg_export.prepared import prepare_unlabelled
        from medimg_export.pretrain import RECORD
        from medimg_export.pretrain import pretrain as learn
        from medimg_export.run import require_free

        require_free(out, resume, RECORD)
        chosen = _recipe(
            recipe,
            data={"positive": positive, "group_pattern": group_pattern},
            pixels={"size": size, "geometry": geometry},
            training={"backbone": backbone, "seed": seed, "augmentation": {"flip": flip}},
            pretraining={"epochs": epochs, "batch": batch},
        )
        found, chosen, preprocessing = prepare_unlabelled(images, chosen, beside, output.progress)
        output.clear()
        for line in found.notes:
            output.note(f"note: {line}")
        done = learn(
            found,
            chosen,
            preprocessing,
            out,
            resume=resume,
            progress=output.progress,
            report=_say_pretraining,
        )
        output.clear()
        typer.echo(
            f"{done.record.seconds / 60:.1f} minutes.\n"
            f"Next: medimg-edge train DATA --weights {out} --out RUN"
        )


def export(
    model: Annotated[Path, typer.Argument(metavar="RUN|MODEL.keras", help="What to export.")],
    out: Annotated[Path, typer.Option(metavar="BUNDLE", help="The folder for the bundle.")],
    recipe: RecipeOption = None,
    data: Annotated[
        Path | None, typer.Option(help="The images to check it on; a run knows its own.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the bundle is called.")] = None,
    float32_dp: Annotated[
        float, typer.Option(help="float32: the largest difference to Keras.")
    ] = 1e-4,
    int8_auc: Annotated[float, typer.Option(help="int8: the largest loss of AUC.")] = 0.005,
    int8_rate: Annotated[
        float, typer.Option(help="int8: the largest loss of sensitivity or specificity.")
    ] = 0.01,
    int8_only: Annotated[
        bool, typer.Option("--int8-only", help="Leave the float32 files out: a quarter the size.")
    ] = False,
) -> None:
    """Convert a model to ONNX and TFLite, float32 and int8, and write a bundle that passed.

    Past a limit nothing is written, an existing bundle stays, and the exit code is 1.

    Examples:

    medimg-edge export runs/chest --out chest-bundle

    medimg-edge export theirs.keras --recipe theirs.toml --data images/ --out theirs-bundle

    Of a run, --recipe brings the card alone: intended use, source, known failures.
    """
    with _workstation():
        from medimg_export.export import export as write_bundle
        from medimg_export.gates import Limits
        from medimg_export.trained_model import trained_model

        trained = trained_model(
            model,
            data=data,
            recipe=_recipe(recipe) if recipe else None,
            progress=output.progress,
        )
        limits = Limits(float32=float32_dp, int8_auc=int8_auc, int8_rate=int8_rate)
        done = write_bundle(
            trained, out, name=name, limits=limits, int8_only=int8_only, progress=output.progress
        )
        for line in done.notes:
            output.note(line)
        output.clear()
        typer.echo(_export_table(done.rows))
        typer.echo(f"\nEvery gate passed. Next: medimg-edge infer IMAGE --bundle {out}")


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="The bundle to measure.")],
    data: Data,
    out: Annotated[Path, typer.Option(metavar="DIR", help="For metrics, answers, and the report.")],
    artifact: Annotated[str, typer.Option(help="A model file; auto is the default.")] = "auto",
    split: Annotated[
        str,
        typer.Option(help="train, val, test, or all. Default: test if the data set has one."),
    ] = "auto",
    group_pattern: GroupPattern = None,
    subgroup_pattern: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Its first parenthesis tells an image's subgroup."),
    ] = None,
    labels: Labels = None,
    profile: Annotated[
        str,
        typer.Option(
            metavar="auto|none|FILE",
            help="Measure it with a site profile; auto is the one beside the bundle.",
        ),
    ] = "none",
    bootstrap: Bootstrap = 1000,
    looks: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Add a line to this CSV for a look at test images."),
    ] = None,
) -> None:
    """Measure a bundle on labelled images, through the device's own Classifier.

    Examples:

    medimg-edge evaluate chest-bundle chest/ --out evaluation

    medimg-edge evaluate chest-bundle chest/ --out by-germ --subgroup-pattern '_(bacteria|virus)_'
    """
    with _workstation(tensorflow=False):
        from medimg_export.evaluate import evaluate as measure
        from medimg_export.metrics import of_whom, on_intervals, table

        done = measure(
            bundle,
            data,
            out,
            artifact=artifact,
            split=split,
            group_pattern=group_pattern,
            subgroup_pattern=subgroup_pattern,
            labels=labels.split(",") if labels else None,
            profile=None if profile == "none" else profile,
            bootstrap=bootstrap,
            looks=looks,
            progress=output.progress,
        )
        for line in done.notes:
            output.note(line)
        output.clear()
        found = done.metrics
        header = (f"on {found.n} images", "value", "95 % interval")
        typer.echo(output.table(table(found), header))
        typer.echo(f"\n{of_whom(found.n, found.groups, found.prevalence)}")
        for line in on_intervals(found):
            typer.echo(line)
        typer.echo(f"Look at {out / 'report.html'}")


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A run, or what evaluate wrote.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another, of the same images.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="For comparison.json and the report.")],
    bootstrap: Bootstrap = 1000,
) -> None:
    """Compare two models on the images that both answered: differences, tests, and a report.

    Example: medimg-edge compare evaluation-old evaluation-new --out comparison
    """
    with _workstation(tensorflow=False):
        from medimg_export.compare import compare as measure
        from medimg_export.comparison import table
        from medimg_export.metrics import of_whom

        found = measure(a, b, out, bootstrap=bootstrap)
        for line in found.notes:
            output.note(line)
        header = (f"on {found.n} images", "A", "B", "B - A", "95 % interval", "p")
        typer.echo(output.table(table(found), header))
        typer.echo(f"\n{of_whom(found.n, found.groups, found.prevalence)}")
        typer.echo(f"A is {found.a.name}, B is {found.b.name}.")
        if left_out := found.a.left_out + found.b.left_out:
            typer.echo(
                f"{left_out} images that only one has are left out: {found.a.left_out} of A's, "
                f"{found.b.left_out} of B's."
            )
        typer.echo(f"They decide {len(found.disagreements)} times differently.")
        typer.echo(f"Look at {out / 'report.html'}")


def demo(
    out: Annotated[Path, typer.Option(help="The folder for everything that it makes.")] = Path(
        "demo"
    ),
    count: Annotated[int, typer.Option(help="How many phantoms.")] = 1200,
    seed: Annotated[int, typer.Option(help="Another one makes other phantoms.")] = 0,
) -> None:
    """Go the whole way on synthetic radiographs: train, export, verify, infer. No download.

    Example: medimg-edge demo --out demo
    """
    with _workstation():
        from medimg_export.demo import demo as run

        run(out, count=count, seed=seed, say=typer.echo, progress=output.progress)


@data.command("check")
def check(
    data: Data,
    recipe: RecipeOption = None,
    positive: Positive = None,
    labels: Labels = None,
    group_pattern: GroupPattern = None,
    drop_overlap: DropOverlap = None,
    size: Size = None,
    seed: Seed = None,
) -> None:
    """Read a whole data set as training would, and say what is in it and what is wrong.

    Example: medimg-edge data check chest/ --group-pattern 'patient[0-9]+'
    """
    with _workstation(tensorflow=False):
        from medimg_export.prepared import prepare

        chosen = _recipe(
            recipe,
            data={
                "positive": positive,
                "labels": labels.split(",") if labels else None,
                "group_pattern": group_pattern,
                "drop_overlap": drop_overlap,
            },
            pixels={"size": size},
            training={"seed": seed},
        )
        facts = prepare(data, chosen, output.progress).describe()
        output.clear()
        typer.echo(_data_table(facts))
        typer.echo(f"\n{facts['usable']} of {facts['images']} images can be used.")
        for each in facts["problems"]:
            typer.echo(f"{each['name']}: {each['message']} [{each['code']}]")
        for line in facts["notes"]:
            typer.echo(f"note: {line}")


@data.command("get")
def get(
    name: Annotated[str, typer.Argument(help="A 2-D MedMNIST set, such as pneumoniamnist.")],
    size: Annotated[int, typer.Option(help="28, 64, 128 or 224 pixels.")] = 28,
    out: Annotated[Path | None, typer.Option(help="Default: the cache folder.")] = None,
) -> None:
    """Download a published data set and check it; without a network, say what to fetch.

    Example: medimg-edge data get pneumoniamnist --size 28
    """
    with _workstation(tensorflow=False):
        from medimg_export import medmnist

        typer.echo(str(medmnist.get(name, size, out, _counted("downloading"))))


@data.command("phantom")
def phantom(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    kind: Annotated[
        PhantomKind,
        typer.Option(help="Chest radiographs, CT slices of lungs, MR slices of heads, legs."),
    ] = PhantomKind.chest,
    count: Annotated[int, typer.Option(help="How many images.")] = 400,
    size: Annotated[int, typer.Option(metavar="PX", help="Height in pixels.")] = 512,
    seed: Annotated[int, typer.Option(help="Equal seeds write equal files.")] = 0,
    file_format: Annotated[
        PhantomFormat | None,
        typer.Option("--format", help="Of the class folders; default: png, for ct dicom."),
    ] = None,
) -> None:
    """Write synthetic images with findings, their masks, and the test split in the other format.

    Examples:

    medimg-edge data phantom phantoms/ --count 1000

    medimg-edge data phantom slices/ --kind ct
    """
    with _workstation(tensorflow=False):
        from medimg_export import phantoms

        first = file_format or phantoms.KINDS[kind].format
        phantoms.write(
            out,
            count,
            kind=kind,
            size=size,
            seed=seed,
            formats=sorted(phantoms.FORMATS, key=lambda each: each != first),
            progress=_counted("phantoms"),
        )
        output.clear()
        typer.echo(f"{count} phantoms in {out}. Next: medimg-edge train {out} --out runs/phantoms")


def _counted(what: str) -> Callable[[int, int], None]:
    return lambda done, total: output.progress(what, done, total)


def _recipe(name: str | None, **options: dict[str, Any]) -> "Recipe":
    from medimg_export import recipe

    return recipe.override(recipe.load(name) if name else recipe.DEFAULT, **options)


def _say_data(facts: dict[str, Any]) -> None:
    output.clear()
    for line in _data_table(facts).splitlines():
        output.note(line)
    if facts["problems"]:
        output.note(f"problems: {len(facts['problems'])}, listed in run.json")
    for line in facts["notes"]:
        output.note(f"note: {line}")


def _data_table(facts: dict[str, Any]) -> str:
    labels = facts["labels"]
    rows = [
        (
            split,
            str(found["images"]),
            *(str(found["classes"][label]) for label in labels),
            str(found["groups"] or "unknown"),
        )
        for split, found in facts["splits"].items()
    ]
    return output.table(rows, ("split", "images", *labels, "patients"))


def _say_epoch(row: dict[str, Any]) -> None:
    if "val_auc" in row:
        sure = f"  sure of {row['confident']:.0%}" if "confident" in row else ""
        output.note(
            f"{row['stage']:>9} {row['epoch'] + 1:>3}  loss {row['loss']:.4f}{sure}  "
            f"validation AUC {row['val_auc']:.4f}  {row['seconds']:.0f} s"
        )


def _say_pretraining(row: dict[str, Any]) -> None:
    output.note(
        f"{row['stage']:>9} {row['epoch'] + 1:>3}  loss {row['loss']:.4f}  "
        f"twins found {row['found']:.0%}  {row['seconds']:.0f} s"
    )


def _export_table(rows: list[Any]) -> str:
    header = ("artifact", "variant", "bytes", "max |dp|", "median |dp|", "other decisions")
    header = (*header, "AUC", "sensitivity", "specificity", "ms")
    return output.table(
        [
            (
                row.artifact,
                row.variant,
                f"{row.bytes:,}",
                f"{row.max_dp:.1e}",
                f"{row.median_dp:.1e}",
                str(row.decisions_differ),
                f"{row.auc:.4f}",
                "" if row.sensitivity is None else f"{row.sensitivity:.3f}",
                "" if row.specificity is None else f"{row.specificity:.3f}",
                f"{row.ms:.1f}",
            )
            for row in rows
        ],
        header,
    )
