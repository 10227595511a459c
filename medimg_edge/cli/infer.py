"""The command that answers: infer."""

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from medimg_edge.cli import output
from medimg_edge.cli.options import ForceOption, ProfileOption, RiskOption
from medimg_edge.models import DEFAULT

if TYPE_CHECKING:
    from medimg_edge.classifier import Classifier
    from medimg_edge.cli.answers import Keep
    from medimg_edge.inputs import Input, Shard
    from medimg_edge.record import Told
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
            help="The bundle that answers: a folder, or an installed or shipped name.",
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
    out: Annotated[
        Path | None,
        typer.Option(help="Write the answers to this file; with --results, those to this folder."),
    ] = None,
    results: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS",
            help="Write files for an archive into the folder --out: sr, a DICOM report, sc, the "
            "heatmap as a DICOM image, json; such as sr,sc.",
        ),
    ] = None,
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
    frame: Annotated[
        int | None,
        typer.Option(min=1, help="Of DICOM files with several frames only this one."),
    ] = None,
    series: Annotated[
        bool,
        typer.Option(
            "--series", help="DICOM series in their order in the patient, each with a summary."
        ),
    ] = False,
    identify: Annotated[
        bool,
        typer.Option(
            "--identify", help="Tell the UIDs of DICOM images, not salted hashes of them."
        ),
    ] = False,
    force: ForceOption = False,
    risk: RiskOption = None,
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
    profile: ProfileOption = "auto",
) -> None:
    """Answer images. Exit 1 if any of them was rejected or could not be read, 130 after Ctrl-C.

    Examples:

    medimg-edge infer chest.png

    medimg-edge infer incoming/ -b our-bundle --heatmap maps/ --out today.csv

    medimg-edge infer archive/ --out archive.jsonl --resume

    find archive -newer yesterday -name '*.dcm' | medimg-edge infer --from-list -

    medimg-edge infer archive/ --shard 2/8 --out part2.jsonl

    medimg-edge infer --watch incoming/ --out answers.jsonl --resume

    medimg-edge infer incoming/ --risk 0.05 --out today.jsonl

    medimg-edge infer chest.dcm --results sr,sc --out for-the-archive/

    medimg-edge infer ct/ --series -b lung-ct
    """
    paths = inputs or []
    part = _part(shard)
    shape = format or _usual_format(out)
    kinds = _kinds(results)
    _refuse_contradictions(paths, from_list, watch, out, resume, shape)
    _refuse_more(kinds, out, resume, series, watch, part)
    # Before msgspec: typing_extensions, which it takes where there is one, slows this import.
    import numpy.typing  # noqa: F401

    from medimg_edge import device_profile, trust
    from medimg_edge.bundle import Bundle
    from medimg_edge.classifier import Classifier
    from medimg_edge.cli import answers
    from medimg_edge.inputs import base_of

    opened = Bundle.open(bundle or DEFAULT)
    if doubt := trust.doubt(opened):
        output.warn(doubt)
    classifier = Classifier(
        opened,
        artifact=artifact,
        profile=None if profile == "none" else profile,
        device=device_profile.find(opened, output.warn) if artifact == "auto" else None,
        many=from_list is not None or len(paths) > 1 or paths[0].is_dir(),
        threads=1 if threads else None,
        force=force,
        risk=risk,
    )
    if bundle is None:
        manifest = classifier.manifest
        output.note(f"{manifest.name} {manifest.version} answers. {manifest.intended_use}")
    names = answers.Names(plain=identify)
    base = base_of([from_list] if from_list else paths)
    keep: list[Keep] = []
    if heatmap is not None:
        heatmaps = answers.Heatmaps(answers.Beside(heatmap, base))
        heatmaps.require_of(classifier)
        keep.append(heatmaps)
    if kinds and out is not None:
        keep.append(answers.Results(answers.Beside(out, base), kinds, classifier, names))
    written = [Path(folder) for folder in (heatmap, out if kinds else None) if folder]
    watched = _watched(paths) if watch else None
    find = _finder(watched, from_list, paths, part, written)
    file = None if kinds else out
    with _results(classifier, shape, file, resume, frame) as sink:
        missing = _missing(find(), sink.inputs)
        answer = partial(
            answers.answer,
            classifier,
            names=names,
            frame=frame,
            cores=threads,
            keep=keep,
            again=watched.again if watched else None,
        )
        if series:
            from medimg_edge.series import in_series

            answered = in_series(missing, answer, names.of)
        else:
            answered = answer(missing)
        total = 0
        twice = not watch and (from_list is None or from_list.is_file())  # a pipe is read once
        if twice and output.shows_progress():
            output.progress("searching", 0, 0)
            total = max(0, sum(1 for _ in find()) - sink.inputs.total())
        status = _write(answered, sink, total)
    if status:
        raise typer.Exit(status)


class _Sink(NamedTuple):
    """Where records go; what is there already: the printed names, and how many had no answer.

    settle: to be called once the records of an input are written and counted.
    """

    write: "Callable[[Told], None]"
    settle: "Callable[[], None]"
    inputs: Counter[str]
    failures: int


@contextmanager
def _results(
    classifier: "Classifier", shape: Format, out: Path | None, resume: bool, frame: int | None
) -> Iterator[_Sink]:
    if resume and out:
        from medimg_edge.record_lines import Origin
        from medimg_edge.results_file import ResultsFile

        bundle, profile = classifier.bundle, classifier.profile_hash
        origin = Origin(bundle.hash, classifier.artifact, profile, classifier.risk)
        findings = len(bundle.manifest.findings)
        with ResultsFile(out, shape.value, origin, findings, frame) as file:
            yield _Sink(file.write, file.settle, file.inputs, file.failures)
    else:
        from medimg_edge.cli import answers

        with output.Sink(out) as sink:
            write = answers.writer(shape.value, sink)
            yield _Sink(write, lambda: None, Counter(), 0)
            write(None)


def _write(answered: "Iterable[Sequence[Told]]", sink: _Sink, total: int) -> int:
    """Write the records as they come; what the exit status is to be."""
    done, failures = 0, sink.failures
    output.progress("answering", done, total)
    try:
        for records in answered:
            for record in records:
                sink.write(record)
                if record.status == "error" or record.status == "rejected":
                    failures += 1
                    output.log(f"{record.input}: {record.status} [{record.code}] {record.message}")
            done += 1
            sink.settle()
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
    written: list[Path],
) -> "Callable[[], Iterator[Input]]":
    """What goes through the inputs, each time from the start; not through what is written."""
    from medimg_edge.cli.answers import Beside
    from medimg_edge.inputs import given, in_shard, listed

    beside = [Beside(folder, folder) for folder in written]

    def find() -> "Iterator[Input]":
        found = iter(watched) if watched else listed(from_list) if from_list else given(paths)
        if part:
            found = in_shard(found, part)
        return (each for each in found if not any(own.hold(each.path) for own in beside))

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


def _kinds(results: str | None) -> list[str]:
    kinds = [each.strip() for each in results.split(",")] if results else []
    if unknown := set(kinds) - {"sr", "sc", "json"}:
        raise typer.BadParameter(
            f"{sorted(unknown)[0]!r} is none of sr, sc, json.", param_hint="--results"
        )
    return kinds


def _refuse_more(
    kinds: list[str],
    out: Path | None,
    resume: bool,
    series: bool,
    watch: bool,
    part: "Shard | None",
) -> None:
    rules = [
        (not kinds or out is not None, "--results needs the folder to write into: --out."),
        (
            not kinds or out is None or not out.is_file(),
            f"{out} is a file; --results needs a folder.",
        ),
        (not (kinds and resume), "--results writes anew what is there; leave out --resume."),
        (
            not (series and (resume or watch or part)),
            "--series needs all of a series at once: without --resume, --watch and --shard.",
        ),
    ]
    for holds, problem in rules:
        if not holds:
            raise typer.BadParameter(problem)


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
