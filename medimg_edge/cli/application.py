"""The application: its commands and the options that all of them have."""

from pathlib import Path
from typing import Annotated

import typer

from medimg_edge import __version__
from medimg_edge.cli import (
    audit,
    bundles,
    device,
    drift,
    infer,
    keys,
    kiosk,
    machine,
    node,
    output,
    privacy,
    service,
    site,
    workstation,
)

app = typer.Typer(
    name="medimg-edge",
    help="Train medical image classifiers, export them as bundles, and answer with them on small "
    "offline devices: the same pixels, the same answer, or one line why not.",
    epilog="Decision support, not a diagnosis. First steps: medimg-edge demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medimg-edge {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no notes.")] = False,
    log_file: Annotated[
        Path | None, typer.Option(help="Append what is done, and every error, to this file.")
    ] = None,
) -> None:
    """Read what applies to every command."""
    output.configure(quiet, log_file)


for command in (
    infer.infer,
    drift.drift,
    device.verify,
    keys.sign,
    bundles.pack,
    bundles.install,
    bundles.bundles,
    bundles.rollback,
    site.calibrate,
    device.info,
    machine.tune,
    machine.bench,
    machine.doctor,
    privacy.deidentify,
    device.schema,
    node.listen,
    service.serve,
    workstation.train,
    workstation.export,
    workstation.evaluate,
    workstation.compare,
    workstation.demo,
):
    app.command()(command)
app.add_typer(workstation.data, name="data")
app.add_typer(keys.keys, name="keys")
app.add_typer(kiosk.kiosk, name="kiosk")
app.add_typer(audit.audit, name="audit")
