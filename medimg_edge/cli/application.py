"""The application: where its commands are, and the options that all of them have."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, cast

import typer
import typer.core
import typer.main

from medimg_edge import __version__
from medimg_edge.cli import output

COMMANDS = {
    "infer": "infer",
    "drift": "drift",
    "verify": "device",
    "sign": "keys",
    "pack": "bundles",
    "install": "bundles",
    "bundles": "bundles",
    "rollback": "bundles",
    "calibrate": "site",
    "info": "device",
    "tune": "machine",
    "bench": "machine",
    "doctor": "machine",
    "deidentify": "privacy",
    "schema": "device",
    "listen": "node",
    "serve": "service",
    "pretrain": "workstation",
    "train": "workstation",
    "export": "workstation",
    "evaluate": "workstation",
    "compare": "workstation",
    "demo": "workstation",
    "data": "workstation",
    "keys": "keys",
    "kiosk": "kiosk",
    "audit": "audit",
}
"""The module beside this one that has a command, or a group of them, by that name. A cold start
imports what is asked for, and no other."""


class _Commands(Mapping[str, Any]):
    """Makes the command of a name when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        found = getattr(import_module(f"medimg_edge.cli.{COMMANDS[name]}"), name)
        if isinstance(found, typer.Typer):
            return typer.main.get_group(found)
        alone = typer.Typer(
            add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
        )
        alone.command(name)(found)
        return typer.main.get_command(alone)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(typer.core.TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = cast(dict, _Commands())


app = typer.Typer(
    name="medimg-edge",
    cls=_Group,
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
