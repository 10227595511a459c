"""The commands about this machine: tune, bench, doctor."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medimg_edge.cli import output

if TYPE_CHECKING:
    from medimg_edge.bench import Measured
    from medimg_edge.tune import Trial, Tuned


class Shape(StrEnum):
    """How a measurement is printed."""

    table = "table"
    json = "json"


ShapeOption = Annotated[
    Shape | None,
    typer.Option(
        "--format", help="Default: table on a terminal, json in a pipe.", show_default=False
    ),
]


def tune(
    bundle: Annotated[Path, typer.Argument(help="The bundle; it is not changed.")],
    rounds: Annotated[
        int, typer.Option(min=1, max=100, help="More of them, and noise matters less.")
    ] = 5,
    shape: ShapeOption = None,
) -> None:
    """Find the fastest setting of a bundle on this machine, and keep it for `infer`.

    Tries every artifact, installed runtime and number of threads, for one image and for many. A
    setting that does not give the golden answers is never chosen. Run it while the machine does
    nothing else, and again after an update. The choice is kept in the user's state folder (or
    MEDIMG_EDGE_STATE).

    Examples:

    medimg-edge tune pneumonia-cxr

    medimg-edge tune our-bundle --rounds 20 --format json > settings.json
    """
    from medimg_edge import device_profile, site_profile
    from medimg_edge.bundle import Bundle
    from medimg_edge.tune import tune as measure

    opened = Bundle.open(bundle)
    tuned = measure(opened, rounds, output.progress)
    path = device_profile.write(tuned.profile)
    output.clear()
    if _is_json(shape):
        _print_json(
            {
                "profile": json.loads(device_profile.encode(tuned.profile)),
                "path": str(path),
                "settings": [_setting(tuned, trial) for trial in tuned.trials],
            }
        )
    else:
        header = ("artifact", "runtime", "threads", "golden set", "max |dp|")
        rows = [_row(tuned, trial) for trial in tuned.trials]
        typer.echo(output.table(rows, (*header, "load ms", "ms", "images/s", "")))
        typer.echo(f"`infer --artifact auto` answers with {tuned.profile.setting}.")
        if tuned.profile.setting_for_many != tuned.profile.setting:
            typer.echo(f"Many images: with {tuned.profile.setting_for_many} each.")
    output.note(f"{path} holds the choice.")
    if (site := site_profile.find(opened)) is not None:
        output.warn(f"{site} is in force: `infer` stays with the artifact that it was fitted on.")


def bench(
    bundle: Annotated[Path, typer.Argument(help="The bundle to measure.")],
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[IMAGES]...", help="Images, or folders; without them the golden inputs."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="For each setting.")] = 6.0,
    shape: ShapeOption = None,
) -> None:
    """Measure what an answer costs here: milliseconds, images per second, memory, by artifact.

    From the file to the answer, one image after the other, each setting in a process of its own.
    `auto` marks what `infer` answers with.

    Examples:

    medimg-edge bench pneumonia-cxr

    medimg-edge bench our-bundle incoming/ --seconds 30
    """
    from medimg_edge import device_profile
    from medimg_edge.bench import bench as measure
    from medimg_edge.bundle import Bundle
    from medimg_edge.reader import find_images

    opened = Bundle.open(bundle)
    files = [
        each for path in images or () for each in (find_images(path) if path.is_dir() else [path])
    ]
    measured = measure(
        opened,
        files,
        chosen=device_profile.choose_here(opened, output.warn).setting,
        seconds=seconds,
        progress=output.progress,
    )
    output.clear()
    if _is_json(shape):
        from msgspec import to_builtins

        _print_json(to_builtins(measured))
    else:
        header = ("artifact", "runtime", "threads", "p50 ms", "p95 ms", "p99 ms", "images/s")
        rows = [_bench_row(each) for each in measured]
        typer.echo(output.table(rows, (*header, "peak MB", "")))
    if failed := sum(each.failed for each in measured):
        output.warn(f"{failed} answers failed and are not counted; `infer` says why.")


def doctor(shape: ShapeOption = None) -> None:
    """Check whether this machine can answer. Exit 1 if something would stop an answer.

    Looks at Python, processor, memory, clock, folders, packages and their versions, and answers
    the shipped bundle's golden set.

    Examples:

    medimg-edge doctor

    medimg-edge doctor --format json > doctor.json
    """
    from medimg_edge.doctor import examine

    findings = examine(output.progress)
    output.clear()
    if _is_json(shape):
        from msgspec import to_builtins

        _print_json(to_builtins(findings))
    else:
        rows = [(each.name, each.status, each.found) for each in findings]
        typer.echo(output.table(rows))
        for each in findings:
            if each.advice:
                typer.echo(f"{each.status}: {each.name}: {each.advice}.")
    if any(each.status == "failed" for each in findings):
        raise typer.Exit(1)


def _is_json(shape: Shape | None) -> bool:
    return shape == Shape.json or (shape is None and not sys.stdout.isatty())


def _print_json(document: object) -> None:
    typer.echo(json.dumps(document, indent=2))


def _setting(tuned: "Tuned", trial: "Trial") -> dict[str, object]:
    artifact, runtime, threads = trial.setting
    return {
        "artifact": artifact,
        "runtime": runtime,
        "threads": threads,
        "golden": trial.check.status,
        "difference": trial.check.difference,
        "message": trial.check.message,
        "load_milliseconds": _milliseconds(tuned.loads.get(trial.setting)),
        "milliseconds": trial.pace and trial.pace.milliseconds,
        "images_per_second": trial.pace and trial.pace.images_per_second,
    }


def _row(tuned: "Tuned", trial: "Trial") -> tuple[str, ...]:
    profile, pace = tuned.profile, trial.pace
    chosen = trial.setting[:2] == (profile.artifact, profile.runtime)
    uses = [
        use
        for use, best in (("one image", profile.single), ("many", profile.many))
        if chosen and pace == best
    ]
    load = _milliseconds(tuned.loads.get(trial.setting))
    return (
        trial.setting.artifact,
        trial.setting.runtime,
        str(trial.setting.threads),
        trial.check.status,
        "" if trial.check.difference is None else f"{trial.check.difference:.1e}",
        "" if load is None else f"{load:.0f}",
        f"{pace.milliseconds:.2f}" if pace else "",
        f"{pace.images_per_second:.1f}" if pace else "",
        f"chosen for {' and '.join(uses)}" if uses else trial.check.message,
    )


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _bench_row(each: "Measured") -> tuple[str, ...]:
    return (
        each.artifact,
        each.runtime,
        str(each.threads),
        *(f"{value:.2f}" for value in (each.p50, each.p95, each.p99)),
        f"{each.images_per_second:.1f}",
        "" if each.peak_memory is None else f"{each.peak_memory / 2**20:.0f}",
        "auto" if each.chosen else "",
    )
