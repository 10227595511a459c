"""A run: what a training leaves, and what an export begins with.

A folder: ``model.keras``, ``run.json``, ``metrics.json``, ``answers.csv`` (of validation),
``history.csv``, ``report.html``, and the checkpoint that the training can go on from.
"""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import RunError, WriteError
from medimg_edge.heatmap import overlay
from medimg_edge.manifest import OperatingPoint, Task
from medimg_edge.operating_point import operating_point, reached
from medimg_edge.record import printable
from medimg_edge.whole_file import write_whole
from medimg_export import checkpoint, metrics
from medimg_export.answers import answers_of
from medimg_export.calibration import fit_temperature
from medimg_export.graph import deployable
from medimg_export.keras_file import load_model, save_model
from medimg_export.prepared import Prepared, Progress
from medimg_export.recipe import RECORD, Recipe
from medimg_export.report import Example, pick_examples, write_report
from medimg_export.semi_supervised import TERMS
from medimg_export.start import Start
from medimg_export.train import logits_of, probabilities, train, with_draws

MODEL = "model.keras"
PACKAGES = ("medimg-edge", "tensorflow", "keras", "numpy", "opencv-python-headless")


class Record(msgspec.Struct, frozen=True):
    """``run.json``: how the model came about, and what turns its logits into decisions.

    best_epoch: whose weights were kept, from 1; 0 where nothing was gained on how it began.
    seconds: of all epochs, with their validation, over all sessions of an interrupted training.
    kept_apart: ``unlabelled.kept_apart`` of validation and test, which the weights have not seen;
    None where it began with some that have, or may have.
    """

    recipe: Recipe
    data: str
    dataset: dict[str, Any]
    task: Task
    labels: tuple[str, ...]
    temperature: float
    decision: dict[str, OperatingPoint]
    best_epoch: int
    seconds: float
    versions: dict[str, str]
    kept_apart: str | None = None
    weights: dict[str, str] | None = None
    schema: int = 1


@dataclass(frozen=True)
class Run:
    """A finished run, opened."""

    path: Path
    record: Record

    @classmethod
    def open(cls, path: Path) -> Run:
        """Read ``run.json``. Raises RunError where the folder holds no finished run."""
        try:
            return cls(path, msgspec.json.decode((path / RECORD).read_bytes(), type=Record))
        except FileNotFoundError as error:
            begun = (path / checkpoint.NAME).exists()
            advice = "Finish it with `medimg-edge train ... --resume`." if begun else ""
            raise RunError(f"{path} holds no finished run: no {RECORD}. {advice}") from error
        except (OSError, msgspec.DecodeError) as error:
            raise RunError(f"{path / RECORD} cannot be read: {error}.") from error

    def model(self) -> keras.Model:
        """The trained Keras model: uint8 pixels -> logits. Raises RunError."""
        return load_model(self.path / MODEL)


def make_run(
    prepared: Prepared,
    folder: Path,
    *,
    start: Start | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[Run, metrics.Metrics]:
    """Train, calibrate, choose the operating points, and write the run with its validation metrics.

    Raises RunError where ``folder`` holds something else, WriteError, DataError.
    """
    require_free(folder, resume)
    make_folder(folder)
    trained = train(prepared, folder, start=start, resume=resume, progress=progress, report=report)
    save_model(trained.model, folder / MODEL)

    task, labels = prepared.dataset.task, prepared.dataset.labels
    rows = prepared.splits.val
    described = prepared.describe()
    note = start.note(prepared.kept_apart) if start else None
    if note:
        described["notes"].append(note)
    y, groups = prepared.y[rows], prepared.groups(rows)
    draws = prepared.recipe.training.validation_draws
    logits = logits_of(trained.model, prepared, rows, progress)
    seen_y, seen = with_draws(prepared, trained.model, logits, progress)
    temperature = fit_temperature(task, seen, seen_y)
    decision = operating_points(prepared, seen_y, probabilities(task, seen, temperature))
    p = probabilities(task, logits, temperature)
    if draws:
        decision = _of_draws(decision, draws, y, p)
    record = Record(
        recipe=prepared.recipe,
        data=printable(str(prepared.dataset.path.resolve())),
        dataset=described,
        task=task,
        labels=labels,
        temperature=temperature,
        decision=decision,
        best_epoch=trained.best_epoch,
        seconds=round(sum(row.get("seconds", 0.0) for row in trained.history), 1),
        versions=versions(),
        kept_apart=prepared.kept_apart if note is None else None,
        weights=start.describe() if start else None,
    )
    thresholds = {label: point.threshold for label, point in decision.items()} or None
    found = metrics.evaluate(task, labels, y, p, thresholds=thresholds, groups=groups)
    before = metrics.evaluate(task, labels, y, probabilities(task, logits, 1.0), groups=groups)
    found = msgspec.structs.replace(found, ece_before=before.values["ece"])
    terms = [each for each in TERMS if any(each in row for row in trained.history)]
    write_whole(folder / "history.csv", history_csv(trained.history, *terms, "val_auc"))
    write_whole(folder / "metrics.json", msgspec.json.format(msgspec.json.encode(found)))
    names = [sample.name for sample in prepared.samples(rows)]
    answers_of(task, labels, names, groups, y, p, thresholds).write(folder)
    write_report(
        folder / "report.html",
        title=f"{prepared.recipe.card.name or printable(folder.resolve().name)}: validation",
        subtitle_facts=_facts(record),
        metrics=found,
        task=task,
        labels=labels,
        y=y,
        p=p,
        thresholds=thresholds,
        history=trained.history,
        examples=_examples(prepared, trained.model, y, p, thresholds),
        notes=described["notes"],
        groups=groups,
        keep=prepared.recipe.training.keep,
    )
    write_whole(folder / RECORD, msgspec.json.format(msgspec.json.encode(record)))
    return Run(folder, record), found


def make_folder(folder: Path) -> None:
    """Raises WriteError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder} cannot be made: {error.strerror}.") from error


def operating_points(
    prepared: Prepared, y: NDArray, p: NDArray[np.float64]
) -> dict[str, OperatingPoint]:
    """One for each label that has a probability; none for multiclass, which takes the largest."""
    task, labels = prepared.dataset.task, prepared.dataset.labels
    wanted = prepared.recipe.decision.sensitivity
    if task == "multiclass":
        return {}
    if task == "binary":
        return {labels[1]: operating_point(y, p[:, 0], sensitivity=wanted)}
    return {
        label: operating_point(y[:, i], p[:, i], sensitivity=wanted)
        for i, label in enumerate(labels)
    }


def _of_draws(
    points: dict[str, OperatingPoint], draws: int, y: NDArray, p: NDArray[np.float64]
) -> dict[str, OperatingPoint]:
    """Points that were chosen on images and draws of them, with what they reach on the images."""
    truth = y.reshape(len(y), -1)
    return {
        label: reached(
            msgspec.structs.replace(
                point, rule=f"{point.rule} on images and {draws} draws of them"
            ),
            truth[:, column],
            p[:, column],
        )
        for column, (label, point) in enumerate(points.items())
    }


def require_free(folder: Path, resume: bool, record: str = RECORD) -> None:
    """Refuse to mix two trainings in a folder. record: what a finished one leaves. RunError."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; a run is a folder. Name another.")
    found = {each.name for each in folder.iterdir()} if folder.exists() else set()
    if not found - {checkpoint.PARTIAL}:  # killed before its first checkpoint was whole
        return
    if not found & {record, checkpoint.NAME}:
        raise RunError(f"{folder} holds other files. Name a new folder for the run.")
    if not resume:
        raise RunError(f"{folder} holds a run. Add --resume to go on with it, or name a new one.")


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _facts(record: Record) -> list[tuple[str, str]]:
    training = record.recipe.training
    splits = record.dataset["splits"]
    images = ", ".join(f"{name} {found['images']}" for name, found in splits.items())
    beside = record.dataset.get("unlabelled")
    if beside:
        images += f", without labels {beside['used']}"
    return [
        ("Backbone", training.backbone),
        ("Input", f"{record.recipe.pixels.size} pixels, {record.recipe.pixels.geometry}"),
        ("Images", images),
        ("Seed", str(training.seed)),
        ("Temperature", f"{record.temperature:.3f}"),
        (
            "Training",
            f"{record.seconds / 60:.1f} minutes, {training.keep} epoch {record.best_epoch}",
        ),
    ]


def _examples(
    prepared: Prepared,
    model: keras.Model,
    y: NDArray,
    p: NDArray[np.float64],
    thresholds: dict[str, float] | None,
) -> list[Example]:
    """Validation images worth showing, with the heatmap of the label that was answered."""
    task, labels = prepared.dataset.task, prepared.dataset.labels
    if task == "multilabel":
        return []
    explained = deployable(model, task=task).model
    threshold = None if thresholds is None else thresholds[labels[1]]
    chosen = pick_examples(y, p if task == "multiclass" else p[:, 0], threshold)
    examples = []
    for kind, indices in chosen.items():
        for i in indices:
            row = prepared.splits.val[i]
            pixels = np.asarray(prepared.cached.pixels[row])
            column = int(p[i].argmax())
            heatmap = explained.predict_on_batch(pixels[None])["heatmap"][0, ..., column]
            examples.append(
                Example(
                    name=prepared.cached.samples[row].name,
                    pixels=pixels,
                    overlay=overlay(pixels, heatmap),
                    truth=labels[int(y[i])],
                    label=labels[1] if task == "binary" else labels[column],
                    probability=float(p[i, column]),
                    kind=kind,
                )
            )
    return examples


def history_csv(history: list[dict[str, Any]], *told: str) -> bytes:
    """``history.csv``: a row an epoch; ``told`` are its columns beside the usual ones."""
    text = io.StringIO()
    columns = ["stage", "epoch", "loss", *told, "seconds"]
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()
