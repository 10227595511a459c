"""The command that takes identities out of images: deidentify."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from medimg_edge.cli import output
from medimg_edge.errors import NoImages


def deidentify(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A DICOM file, or a folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder for the copies.")],
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What pseudonyms are made of, made at first use. Keep it here, and secret.",
            show_default="deidentify.key in the user's state folder",
        ),
    ] = None,
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map",
            metavar="FILE",
            help="Write a CSV of what became what. It names patients: keep it here, and secret.",
        ),
    ] = None,
    allow_burned_in: Annotated[
        bool,
        typer.Option(
            "--allow-burned-in",
            help="Copy images whose pixels may show a name: you have looked at them.",
        ),
    ] = False,
) -> None:
    """Copy DICOM images without whose they are, so that they may go to the workstation.

    Applies the Basic Application Level Confidentiality Profile of DICOM PS3.15. The copies lie in a
    folder for each patient, under pseudonyms that are the same in every run with the same key.
    Pixels are not changed: images that often show a name, such as ultrasound, are refused. Nothing
    is overwritten.

    Examples:

    medimg-edge deidentify archive/ for-training/

    medimg-edge deidentify archive/ for-training/ --map stays-here.csv
    """
    from medimg_edge.deidentification import deidentify as copies
    from medimg_edge.deidentification import read_key, secret_map
    from medimg_edge.dicom.deidentify import Deidentifier

    deidentifier = Deidentifier(read_key(key, out), allow_burned_in=allow_burned_in)
    counts, patients = Counter[str](), set[str]()
    with secret_map(map_file, out) as remember:
        for done, outcome in enumerate(copies(source, out, deidentifier), 1):
            remember(outcome)
            if outcome.error is not None:
                counts["refused"] += 1
                output.note(
                    f"refused: {outcome.source}: {outcome.error.message} [{outcome.error.code}]"
                )
            elif outcome.found is None:
                counts["passed over"] += 1
            else:
                counts["known" if outcome.known else "written"] += 1
                patients.add(outcome.found.after.patient)
            output.progress("deidentifying", done, 0)
    if counts.total() == counts["passed over"]:
        raise NoImages(f"{source} holds no DICOM files ({counts['passed over']} others).")
    output.clear()
    typer.echo(
        f"{counts['written']} images written to {out}, {counts['known']} were there; of "
        f"{len(patients)} patients. {counts['refused']} refused, {counts['passed over']} other "
        "files passed over."
    )
    if counts["refused"]:
        raise typer.Exit(1)
