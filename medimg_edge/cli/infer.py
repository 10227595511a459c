"""The command that answers: infer."""

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from medimg_edge.cli import output
from medimg_edge.models import DEFAULT

if TYPE_CHECKING:
    from medimg_edge.classifier import Classifier
    from medimg_edge.cli.answers import Heatmaps
    from medimg_edge.inputs import Input, Shard
    from medimg_edge.record import Record
    from medimg_edge.watch import Watch

INTERRUPTED = 130


class Format(StrEnum):
    """How answers are printed."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


def infer(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="INPUT...", help="Images, or folders of images."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            "-b",
            envvar="MEDIMG_EDGE_BUNDLE",
            help="The bundle that answers: a folder, or a shipped name.",
            show_default=DEFAULT,
        ),
    ] = None,
    artifact: Annotated[
        str,
        typer.Option(help="A model file of the bundle; auto is what tune chose, else its default."),
    ] = "auto",
    format: Annotated[  # noqa: A002 - the option's name
        Format | None,
        typer.Option(
            help="Default: that of --out by its ending, else table on a terminal and jsonl in a "
            "pipe.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the answers to this file.")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Add to --out what is not yet in it: jsonl or csv, after every answer."
        ),
    ] = False,
    from_list: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Instead of INPUT: a text with a path on each line, or a CSV with the column "
            "path; - is standard input.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="The I-th of N fixed parts of the inputs, by a hash of their paths."
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Go on with images that arrive in the folders, until Ctrl-C."),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images to answer at a time, with a thread each.",
            show_default="as many as there are cores, or what tune chose",
        ),
    ] = None,
    heatmap: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write heatmaps over the images here.")
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            envvar="MEDIMG_EDGE_PROFILE",
            help="A site profile; auto is the one beside the bundle, none is none.",
        ),
    ] = "auto",
) -> None:
    """Answer images. Exit 1 if any of them was rejected or could not be read, 130 after Ctrl-C.

    Examples:

    medimg-edge infer chest.png

    medimg-edge infer incoming/ -b our-bundle --heatmap maps/ --out today.csv

    medimg-edge infer archive/ --out archive.jsonl --resume

    find archive -newer yesterday -name '*.dcm' | medimg-edge infer --from-list -

    medimg-edge infer archive/ --shard 2/8 --out part2.jsonl

    medimg-edge infer --watch incoming/ --out answers.jsonl --resume
    """
    paths = inputs or []
    part = _part(shard)
    shape = format or _usual_format(out)
    _refuse_contradictions(paths, from_list, watch, out, resume, shape)
    # Before msgspec: typing_extensions, which it takes where there is one, slows this import.
    import numpy.typing  # noqa: F401

    from medimg_edge import device_profile
    from medimg_edge.bundle import Bundle
    from medimg_edge.classifier import Classifier
    from medimg_edge.cli import answers
    from medimg_edge.inputs import base_of

    opened = Bundle.open(bundle or DEFAULT)
    classifier = Classifier(
        opened,
        artifact=artifact,
        profile=None if profile == "none" else profile,
        device=device_profile.find(opened, output.warn) if artifact == "auto" else None,
        many=from_list is not None or len(paths) > 1 or paths[0].is_dir(),
        threads=1 if threads else None,
    )
    if bundle is None:
        manifest = classifier.manifest
        output.note(f"{manifest.name} {manifest.version} answers. {manifest.intended_use}")
    heatmaps = None
    if heatmap is not None:
        heatmaps = answers.Heatmaps(heatmap, base_of([from_list] if from_list else paths))
        heatmaps.require_of(classifier)
    watched = _watched(paths) if watch else None
    find = _finder(watched, from_list, paths, part, heatmaps)
    with _results(classifier, shape, out, resume) as results:
        answered = answers.answer(
            classifier,
            _missing(find(), results.inputs),
            cores=threads,
            heatmaps=heatmaps,
            again=watched.again if watched else None,
        )
        total = 0
        twice = not watch and (from_list is None or from_list.is_file())  # a pipe is read once
        if twice and output.shows_progress():
            output.progress("searching", 0, 0)
            total = max(0, sum(1 for _ in find()) - results.inputs.total())
        status = _write(answered, results, total)
    if status:
        raise typer.Exit(status)


class _Results(NamedTuple):
    """Where records go; what is there already: the printed names, and how many had no answer."""

    write: "Callable[[Record], None]"
    inputs: Counter[str]
    failures: int


@contextmanager
def _results(
    classifier: "Classifier", shape: Format, out: Path | None, resume: bool
) -> Iterator[_Results]:
    if resume and out:
        from medimg_edge.record_lines import Origin
        from medimg_edge.results_file import ResultsFile

        bundle, profile = classifier.bundle, classifier.profile_hash
        origin = Origin(bundle.hash, classifier.artifact, profile)
        with ResultsFile(out, shape.value, origin, len(bundle.manifest.findings)) as file:
            yield _Results(file.write, file.inputs, file.failures)
    else:
        from medimg_edge.cli import answers

        with output.Sink(out) as sink:
            write = answers.writer(shape.value, sink)
            yield _Results(write, Counter(), 0)
            write(None)


def _write(records: "Iterable[Record]", results: _Results, total: int) -> int:
    """Write the records as they come; what the exit status is to be."""
    done, failures = 0, results.failures
    output.progress("answering", done, total)
    try:
        for record in records:
            results.write(record)
            done += 1
            if record.status != "ok":
                failures += 1
                output.log(f"{record.input}: {record.status} [{record.code}] {record.message}")
            output.progress("answering", done, total)
    except KeyboardInterrupt:
        output.note(f"Interrupted: {done} answered; they are written.")
        return INTERRUPTED
    output.clear()
    return 1 if failures else 0


def _watched(folders: list[Path]) -> "Watch":
    from medimg_edge.watch import Watch

    return Watch(folders)


def _finder(
    watched: "Watch | None",
    from_list: Path | None,
    paths: list[Path],
    part: "Shard | None",
    heatmaps: "Heatmaps | None",
) -> "Callable[[], Iterator[Input]]":
    """What goes through the inputs, each time from the start."""
    from medimg_edge.inputs import given, in_shard, listed

    def find() -> "Iterator[Input]":
        found = iter(watched) if watched else listed(from_list) if from_list else given(paths)
        if part:
            found = in_shard(found, part)
        return (each for each in found if not (heatmaps and heatmaps.hold(each.path)))

    return find


def _missing(inputs: "Iterable[Input]", there: Counter[str]) -> "Iterator[Input]":
    """Those that have no record yet; one that is given twice has two."""
    from medimg_edge.record import printable

    for each in inputs:
        name = printable(os.fspath(each.path))
        if there.get(name):
            there[name] -= 1
        else:
            yield each


def _usual_format(out: Path | None) -> Format:
    if out is None:
        return Format.table if sys.stdout.isatty() else Format.jsonl
    ending = out.suffix.lower().removeprefix(".")
    return Format(ending) if ending in ("json", "csv") else Format.jsonl


def _part(shard: str | None) -> "Shard | None":
    if shard is None:
        return None
    from medimg_edge.inputs import Shard

    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise typer.BadParameter(
            f"{shard!r} is no part of the inputs; the second of eight parts is 2/8.",
            param_hint="--shard",
        )
    return Shard(int(found[1]), int(found[2]))


def _refuse_contradictions(
    paths: list[Path],
    from_list: Path | None,
    watch: bool,
    out: Path | None,
    resume: bool,
    shape: Format,
) -> None:
    rules = [
        (bool(paths) != bool(from_list), "Give either INPUT... or --from-list."),
        (not (watch and from_list), "--watch is for folders, and not for --from-list."),
        (not (watch and out and not resume), "--watch never ends; add --resume to --out."),
        (not (resume and not out), "--resume needs the file to go on with: --out."),
        (
            not (resume and shape.value not in ("jsonl", "csv")),
            f"--resume adds to jsonl or csv, not {shape.value}: choose another --format.",
        ),
    ]
    for holds, problem in rules:
        if not holds:
            raise typer.BadParameter(problem)
