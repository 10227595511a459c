"""The command that compares what was answered with what the model was validated on: drift."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medimg_edge.cli import output
from medimg_edge.cli.machine import Shape, ShapeOption
from medimg_edge.models import DEFAULT

if TYPE_CHECKING:
    from medimg_edge.drift import Comparison, Report
    from medimg_edge.drift_records import Seen


class By(StrEnum):
    """What a period is."""

    day = "day"
    week = "week"


def _picture(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in (".svg", ".png"):
        raise typer.BadParameter(f"{path} ends neither in .svg nor in .png.")
    return path


def drift(
    records: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS|RECORD...",
            help="Files of answers (jsonl, json, csv) or exports of a record, or the folder that "
            "`serve` was given. Files without times are a period each.",
        ),
    ],
    bundle: Annotated[
        Path,
        typer.Option(
            "--bundle",
            "-b",
            envvar="MEDIMG_EDGE_BUNDLE",
            help="The bundle that answered: a folder, or a name.",
        ),
    ] = Path(DEFAULT),
    by: Annotated[By, typer.Option(help="What a period is; in UTC.")] = By.week,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=_picture, help="Draw it, too: FILE.svg or FILE.png."),
    ] = None,
    shape: ShapeOption = None,
    fail: Annotated[bool, typer.Option("--fail", help="Exit 1 where there is drift.")] = False,
) -> None:
    """Compare images and answers with those that the model was validated on, by day or week.

    Looks at brightness, contrast, sharpness, novelty, probabilities, decisions and at what is
    turned away; no image is needed. Where nothing has changed, one period in a hundred raises a
    false alarm, at most. Periods of fewer than 50 images are not judged.

    Examples:

    medimg-edge drift answers.jsonl -b our-bundle

    medimg-edge drift /var/lib/medimg --by day --out drift.svg

    medimg-edge drift october.jsonl november.jsonl --format json

    medimg-edge --quiet drift /var/lib/medimg --fail || mail -s drift physicist@clinic
    """
    from medimg_edge.bundle import Bundle
    from medimg_edge.drift import report

    found = report(_read(records), Bundle.open(bundle), by=by.value)
    if out is not None:
        from medimg_edge.drift_plot import draw
        from medimg_edge.whole_file import write_whole

        write_whole(out, draw(found, out.suffix.lower()))
    if shape == Shape.json or (shape is None and not sys.stdout.isatty()):
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        typer.echo(_table(found))
    for why, count in found.left_out.items():
        output.warn(f"{count} images are left out: {why}.")
    if not found.periods:
        output.warn(f"No image was answered by {found.bundle} {found.version} ({found.hash[:16]}).")
    if adapted := sum(each.adapted for each in found.periods):
        output.warn(
            f"{adapted} images were answered under a site profile: their probabilities and "
            "decisions are not the bundle's own, and are not compared."
        )
    if at_risk := sum(each.at_risk for each in found.periods):
        output.warn(
            f"{at_risk} images were answered under --risk: their decisions are not those of the "
            "bundle's thresholds, and are not compared. Their probabilities are."
        )
    if fail and found.is_drift:
        raise typer.Exit(1)


def _read(paths: list[Path]) -> dict[str, list[Seen]]:
    from medimg_edge.drift_records import read

    found = {}
    for path in paths:
        if path.is_dir():
            from medimg_edge.kiosk.drifting import seen_in

            found[str(path)] = seen_in(path)
        else:
            found[str(path)] = read(path)
    return found


def _table(found: Report) -> str:
    rows = [
        (
            period.name,
            each.name,
            str(each.images),
            "" if each.psi is None else f"{each.psi:.2f}",
            *_beside(each, found),
            _judged(each, found.fewest),
        )
        for period in found.periods
        for each in sorted(period.comparisons, key=lambda each: (each.kind == "code", each.name))
        if each.kind != "code" or each.is_drift or any(each.shares.values())
    ]
    header = ("period", "number", "images", "PSI", "here", "validation", "")
    sentences = [each.sentence for each in found.periods]
    return "\n".join([*([output.table(rows, header), ""] if rows else []), *sentences])


def _beside(each: Comparison, found: Report) -> tuple[str, str]:
    """The middle value, or the shares; of the period and of the reference."""
    if each.kind in ("code", "decision"):
        return _shares(each.shares, each), _shares(each.expected, each)
    band = found.reference[each.name]
    return _middle(each.quantiles), _middle(band.quantiles)


def _middle(quantiles: tuple[float, ...]) -> str:
    return f"{quantiles[len(quantiles) // 2]:.3g}" if quantiles else ""


def _shares(shares: dict[str, float], each: Comparison) -> str:
    if each.kind == "code":
        return " ".join(f"{share:.1%}" for share in shares.values())
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


def _judged(each: Comparison, fewest: int) -> str:
    if each.is_drift:
        return "LARGE DRIFT" if each.is_large else "DRIFT"
    return "too few" if each.images < fewest else ""
