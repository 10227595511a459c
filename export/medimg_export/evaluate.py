"""A bundle on labelled images: metrics and a report, through the device's own Classifier."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from medimg_edge import site_profile
from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Answered, Classifier
from medimg_edge.errors import (
    DataInvalid,
    PositiveUnknown,
    RunError,
    TooFewImages,
    WriteError,
)
from medimg_edge.heatmap import overlay
from medimg_edge.manifest import Manifest
from medimg_edge.record import Failure, printable
from medimg_edge.screening import FORCED
from medimg_edge.site_profile import SiteProfile
from medimg_edge.whole_file import write_whole
from medimg_export import metrics, referrals, subgroups
from medimg_export import recipe as recipes
from medimg_export.answers import Answers, answers_of
from medimg_export.calibration import untempered
from medimg_export.dataset import Dataset, Problem, Sample, open_dataset
from medimg_export.looks import Look, append, require_list
from medimg_export.prepared import Progress, encoded
from medimg_export.provenance import own_splits, recipe_of, temperature_of
from medimg_export.recipe import Recipe
from medimg_export.report import Example, pick_examples, write_report
from medimg_export.subgroups import subgroups_of

SPLITS = ("auto", "train", "val", "test", "all")
SEEN = "These are images that chose or trained this model: the figures flatter it."
MAYBE_SEEN = (
    "These are not exactly the images of the training (another fingerprint), but some of them may "
    "have chosen or trained this model, which the bundle cannot tell: if so, the figures flatter "
    "it. Give a folder without them, or the training's data unchanged."
)
NAMED = 20
"""So many problems are named; of more, the number is told."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and what is worth telling: images without an answer among it."""

    metrics: metrics.Metrics
    notes: list[str]


def evaluate(
    path: Path,
    data: Path,
    out: Path,
    *,
    artifact: str = "auto",
    split: str = "auto",
    group_pattern: str | None = None,
    subgroup_pattern: str | None = None,
    labels: Sequence[str] | None = None,
    profile: SiteProfile | str | os.PathLike[str] | None = None,
    bootstrap: int = 1000,
    looks: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Answer the images of a split as the device does, and write what came of it into ``out``.

    That is ``metrics.json``, ``answers.csv`` and ``report.html``.

    split: ``auto`` is the test split that the data set brings, or that the training of this bundle
        made of the same data; else every image.
    group_pattern: what of a name is the patient; without it, the pattern of the training where the
        names match it, and these data do not name their patients otherwise.
    subgroup_pattern: its first parenthesis tells an image's subgroup; see ``subgroups``.
    labels: what the numbers of an ``.npz`` mean, as for training.
    profile: a site profile, whose probabilities, thresholds and refer band are then measured; as
        for ``Classifier``.
    looks: a list to which a look at test images is added; see the module ``looks``.
    Thresholds are the artifact's own, fixed at export, or the profile's. Images that cannot be
    read, or whose header says that they are of another kind, are counted and named, and are not in
    the metrics. Those that a device would turn away by their looks are in them, and counted.

    Raises DataError, BundleError, ProfileInvalid, WriteError, RunError where ``out`` is a run.
    """
    if looks is not None:
        require_list(looks)
    if (out / recipes.RECORD).exists():
        raise RunError(f"{out} is a run, whose own metrics would be lost; name another folder.")
    classifier = Classifier(Bundle.open(path), artifact=artifact, profile=profile, screened=False)
    manifest = classifier.manifest
    dataset = _opened(manifest, data, labels, group_pattern)
    own, stored = own_splits(manifest, data, progress), recipe_of(manifest)
    group_pattern, told = _grouped(dataset, group_pattern, stored, own is not None)
    dataset = _opened(manifest, data, labels, group_pattern)
    chosen = _chosen(dataset, split, own)
    if subgroup_pattern is not None:  # before the images are answered, which takes long
        subgroups_of([sample.name for sample in chosen.samples], subgroup_pattern)
    answered = classifier.answer(chosen.samples, encoded, progress)

    thresholds = {label: point.threshold for label, point in classifier.points.items()} or None
    answers = _table(manifest, thresholds, answered)
    found = _measured(answers, thresholds, subgroup_pattern, bootstrap)
    found = msgspec.structs.replace(found, **_of_model(classifier, answers, bootstrap))
    if looks is not None and chosen.split in ("test", "all"):
        append(looks, _look(classifier, data, own is not None, chosen.split, found))
    notes = [
        *_seen(manifest, chosen.split, own is not None),
        *told,
        *_of_profile(classifier, profile),
        *dataset.notes,
        *_listed(dataset.problems),
        *_turned_away(answered, answers),
        *_notes(answered.failures),
    ]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{out} cannot be written: {error.strerror}.") from error
    write_whole(out / "metrics.json", msgspec.json.format(msgspec.json.encode(found)))
    answers.write(out)
    write_report(
        out / "report.html",
        title=f"{manifest.name} {manifest.version}: {chosen.told}",
        subtitle_facts=[
            ("Data", f"{printable(data.name)}, {chosen.told}"),
            ("Artifact", f"{classifier.artifact} on {classifier.runtime}"),
            ("Bundle", classifier.bundle.hash[:16]),
            *([("Site profile", found.profile[:16])] if found.profile else []),
            ("Intended use", manifest.intended_use),
        ],
        metrics=found,
        task=manifest.task,
        labels=manifest.labels,
        y=answers.y,
        p=answers.p,
        thresholds=thresholds,
        history=None,
        examples=_examples(manifest, answered, answers, thresholds),
        notes=notes,
        groups=answers.groups,
    )
    return Evaluation(found, notes)


def _table(
    manifest: Manifest,
    thresholds: dict[str, float] | None,
    answered: Answered[Sample],
) -> Answers:
    samples = answered.items
    groups = [sample.group for sample in samples]
    return answers_of(
        manifest.task,
        manifest.labels,
        [sample.name for sample in samples],
        None if None in groups else [str(group) for group in groups],
        [sample.label for sample in samples],
        [[each.probability for each in found.findings] for found in answered.predictions],
        thresholds,
    )


def _measured(
    of: Answers,
    thresholds: dict[str, float] | None,
    subgroup_pattern: str | None,
    bootstrap: int,
) -> metrics.Metrics:
    table = (of.task, of.labels, of.y, of.p)
    found = metrics.evaluate(*table, thresholds=thresholds, groups=of.groups, bootstrap=bootstrap)
    if subgroup_pattern is None:
        return found
    of_subgroups = subgroups.evaluate(
        *table,
        subgroups_of(of.names, subgroup_pattern),
        thresholds=thresholds,
        groups=of.groups,
        bootstrap=bootstrap,
    )
    return msgspec.structs.replace(found, subgroups=of_subgroups)


def _of_model(classifier: Classifier, of: Answers, bootstrap: int) -> dict[str, Any]:
    """What the answers alone do not tell: the profile, the refer bands, the ECE before."""
    profile, temperature = classifier.profile, temperature_of(classifier.manifest)
    known = {"groups": of.groups, "bootstrap": bootstrap}
    before = None
    if profile is None and temperature not in (None, 1.0):
        p = untempered(of.task, of.p, temperature)
        before = metrics.evaluate(of.task, of.labels, of.y, p, **known).values["ece"]
    return {
        "profile": classifier.profile_hash,
        "referrals": referrals.evaluate(of.columns, classifier.points, **known),
        "ece_before": before,
    }


def _of_profile(
    classifier: Classifier, wanted: SiteProfile | str | os.PathLike[str] | None
) -> list[str]:
    if classifier.profile is not None:
        return [
            f"The site profile was fitted on {classifier.profile.data.images} images: if some of "
            "them are among these, the figures flatter it."
        ]
    if wanted is None:
        return []
    path = site_profile.beside(classifier.bundle)
    return [f"There is no site profile at {printable(str(path))}: measured without one."]


def _look(
    classifier: Classifier, data: Path, own: bool, split: str, found: metrics.Metrics
) -> Look:
    manifest = classifier.manifest
    return Look(
        bundle=manifest.name,
        version=manifest.version,
        manifest=classifier.bundle.hash,
        artifact=classifier.artifact,
        data=manifest.training["data_fingerprint"] if own else printable(data.resolve().name),
        split=split,
        n=found.n,
        auc=found.values["auc"].value,
    )


def _opened(
    manifest: Manifest, data: Path, labels: Sequence[str] | None, group_pattern: str | None
) -> Dataset:
    """The data set with its labels numbered as the bundle numbers them."""
    positive = manifest.labels[1] if manifest.task == "binary" else None
    try:
        return open_dataset(
            data, labels=labels, positive=positive, group_pattern=group_pattern, task=manifest.task
        ).in_order(manifest.labels)
    except PositiveUnknown as error:
        raise DataInvalid(
            f"The labels of {data} are not those of the bundle: {' and '.join(manifest.labels)}. "
            "Rename its classes, or say what the numbers of an .npz mean, such as --labels "
            f"{','.join(manifest.labels)}."
        ) from error


def _grouped(
    dataset: Dataset, group_pattern: str | None, stored: Recipe | None, own: bool
) -> tuple[str | None, list[str]]:
    """The group pattern to use, and what to tell of it; without one given, the training's.

    Other data that name their patients themselves keep them.
    """
    pattern = stored.data.group_pattern if stored else None
    named = any(sample.group is not None for sample in dataset.samples)
    if group_pattern is not None or pattern is None or (named and not own):
        return group_pattern, []
    if not dataset.names_match(pattern):
        by_image = "" if named else ", so the intervals are by image"
        return None, [
            f"The training's group pattern {pattern!r} matches no name here{by_image}. "
            "--group-pattern tells the patients of these images."
        ]
    return pattern, [
        f"Patients are told by the training's group pattern {pattern!r}. If it means something "
        "else in these names, give --group-pattern."
    ]


@dataclass(frozen=True)
class _Chosen:
    """The samples of a split (``all`` is every one), and what to call it."""

    samples: list[Sample]
    split: str
    told: str


def _chosen(dataset: Dataset, split: str, own: dict[str, set[str]] | None) -> _Chosen:
    if split not in SPLITS:
        raise DataInvalid(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
    if own is not None and split != "all":
        wanted = "test" if split == "auto" else split
        samples = [sample for sample in dataset.samples if sample.name in own[wanted]]
        return _Chosen(samples, wanted, f"split {wanted}, as in training")
    brought = dataset.by_split
    if split == "auto":
        split = "test" if "test" in brought else "all"
    if split == "all":
        return _Chosen(list(dataset.samples), split, "all images")
    samples = [sample for sample in dataset.samples if sample.split == split]
    if not samples:
        raise TooFewImages(
            f"{dataset.path} has no split {split!r}; it brings "
            f"{', '.join(str(each) for each in brought if each) or 'none'}. Add --split all."
        )
    return _Chosen(samples, split, f"split {split}")


def _seen(manifest: Manifest, split: str, own: bool) -> list[str]:
    """What to know where the images chose or trained the model, or may have."""
    if split == "test" or "recipe" not in manifest.training:
        return []
    return [f"{SEEN} Add --split test."] if own else [MAYBE_SEEN]


def _listed(problems: Sequence[Problem]) -> list[str]:
    """What the data set left out, in its own words."""
    more = [f"{len(problems) - NAMED} more problems of this kind."] if len(problems) > NAMED else []
    return [*(problem.message for problem in problems[:NAMED]), *more]


def _turned_away(answered: Answered[Sample], of: Answers) -> list[str]:
    """How many a device would not answer, and how often the others are decided right."""
    away = np.array(
        [
            any(each.startswith(FORCED) for each in found.record.warnings)
            for found in answered.predictions
        ]
    )
    if not away.any():
        return []
    truth = np.stack([column.truth for column in of.columns], axis=1)
    right = (of.called == truth).all(axis=1)
    others = f"; of the {(~away).sum()} others {right[~away].mean():.1%} are decided right"
    return [
        f"A device would turn {away.sum()} of these {len(away)} images away ({away.mean():.1%}). "
        f"They are in the metrics: {right.mean():.1%} of all are decided right"
        f"{'' if away.all() else others}."
    ]


def _notes(failures: list[tuple[Sample, Failure]]) -> list[str]:
    if not failures:
        return []
    named = "; ".join(f"{sample.name}: {each.code}" for sample, each in failures[:NAMED])
    more = f" and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
    return [f"{len(failures)} images have no answer and are not in the metrics: {named}{more}."]


def _examples(
    manifest: Manifest,
    answered: Answered[Sample],
    answers: Answers,
    thresholds: dict[str, float] | None,
) -> list[Example]:
    y, p = answers.y, answers.p
    if manifest.task == "multilabel":
        return []
    binary = manifest.task == "binary"
    threshold = thresholds[manifest.labels[1]] if thresholds and binary else None
    examples = []
    for kind, indices in pick_examples(y, p[:, 0] if binary else p, threshold).items():
        for i in indices:
            column = int(p[i].argmax())
            heatmap = answered.predictions[i].heatmap
            pixels = answered.predictions[i].pixels
            examples.append(
                Example(
                    name=answered.items[i].name,
                    pixels=pixels,
                    overlay=None if heatmap is None else overlay(pixels, heatmap[..., column]),
                    truth=manifest.labels[int(y[i])],
                    label=manifest.findings[column],
                    probability=float(p[i, column]),
                    kind=kind,
                )
            )
    return examples
