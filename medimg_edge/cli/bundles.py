"""The commands about installed bundles: install, bundles, rollback, pack."""

import json
import shlex
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medimg_edge.cli import output
from medimg_edge.cli.options import AllowUnsignedOption, TrustedOption

if TYPE_CHECKING:
    from medimg_edge.golden import Check
    from medimg_edge.installed import Kept
    from medimg_edge.store import Installed, Listed


class Form(StrEnum):
    """How the list is printed."""

    table = "table"
    json = "json"


def install(
    source: Annotated[
        Path, typer.Argument(metavar="FILE.zip|FOLDER", help="What `pack` or `export` wrote.")
    ],
    allow_unsigned: AllowUnsignedOption = False,
    trusted: TrustedOption = None,
) -> None:
    """Install a bundle, or an update of one, so that its name means it. Needs no network.

    It is installed if a trusted key signed it, it is whole, it is not older than what was
    installed before, and it gives the golden set's answers on this machine. Else exit 1, and the
    bundle that answered before still answers. The one before is kept: see rollback.

    Examples:

    medimg-edge install /media/stick/pneumonia-cxr.zip

    medimg-edge install our-bundle/ --trusted keys/

    medimg-edge install trial.zip --allow-unsigned
    """
    from medimg_edge import store
    from medimg_edge.trust import Trust

    done = store.install(
        source,
        trust=Trust.load(trusted),
        check=_golden,
        allow_unsigned=allow_unsigned,
        progress=output.progress,
    )
    output.clear()
    _tell(done)


def bundles(
    shape: Annotated[
        Form | None,
        typer.Option(
            "--format", help="Default: table on a terminal, json in a pipe.", show_default=False
        ),
    ] = None,
) -> None:
    """List the bundles that can be named: installed ones, and those that the package brings.

    Exit 1 if an installed one cannot be used.

    Examples:

    medimg-edge bundles

    medimg-edge bundles --format json
    """
    from medimg_edge import store

    listed = store.listing()
    entries = [_installed(each) for each in listed] + _shipped({each.name for each in listed})
    if shape == Form.json or (shape is None and not sys.stdout.isatty()):
        typer.echo(json.dumps(entries, indent=2))
    else:
        header = ("name", "version", "signed by", "installed", "the one before", "hash")
        typer.echo(output.table([_row(each) for each in entries], header))
    for each in listed:
        if each.active and each.active.left:
            output.note(
                f"{each.name} went back from {each.active.left.version} to {each.active.version}."
            )
        if each.active and (newer := store.newer_shipped(each.active)):
            output.warn(
                f"{each.active.version} answers, and medimg-edge brings {each.name} "
                f"{newer.manifest.version}, which is newer. To install that: `medimg-edge install "
                f"{shlex.quote(str(newer.path))}`"
            )
        if each.problem:
            output.warn(f"{each.name}: {each.problem}")
    if any(each.problem for each in listed):
        raise typer.Exit(1)


def rollback(
    name: Annotated[str, typer.Argument(help="The name of an installed bundle.")],
) -> None:
    """Go back to the bundle that answered before the last install. Once: there is no older one.

    What is gone back from is kept, and can be installed again; what is older than it cannot.

    Example: medimg-edge rollback pneumonia-cxr
    """
    from medimg_edge import store

    active = store.rollback(name)
    typer.echo(f"{name} is {active.version} again.")
    output.note("A service that runs takes it up by itself, or when it is started again.")


def pack(
    bundle: Annotated[Path, typer.Argument(help="The bundle: a folder, or a name.")],
    out: Annotated[Path, typer.Option(metavar="FILE.zip", help="The file to write.")],
) -> None:
    """Write a bundle and its signatures as one file, for a USB stick.

    The file is the same on every machine, and a changed byte in it is found.

    Example: medimg-edge pack our-bundle/ --out our-bundle.zip
    """
    from medimg_edge.archive import pack as write
    from medimg_edge.bundle import Bundle

    opened = Bundle.open(bundle)
    write(opened, out, output.progress)
    output.clear()
    manifest = opened.manifest
    typer.echo(f"{out} holds {manifest.name} {manifest.version}, {out.stat().st_size:,} bytes.")
    if not any((opened.path / "signatures").glob("*.sig")):
        output.warn("nobody has signed it: `medimg-edge sign` before it is packed.")


def _golden(folder: Path) -> "Sequence[Check]":
    from medimg_edge.golden_apart import verify_apart

    output.progress("golden set", 0, 0)
    return verify_apart(folder)


def _tell(done: "Installed") -> None:
    active = done.active
    if done.standing.status != "trusted":
        output.warn(done.standing.sentence)
    signed = f", signed by {active.kept.signer}," if active.kept.signer else ""
    if not done.changed:
        typer.echo(f"{active.name} {active.version}{signed} is installed already.")
        return
    before = f" in place of {done.replaced.version}" if done.replaced else ""
    typer.echo(f"{active.name} {active.version}{signed} is installed{before}.")
    if active.previous:
        output.note(f"`medimg-edge rollback {active.name}` goes back to {active.previous.version}.")
    if done.uncalibrated:
        output.warn(
            "the site profile is of the bundle before, and is not used for this one: `medimg-edge "
            f"calibrate {active.name}` makes one."
        )


def _installed(listed: "Listed") -> dict[str, object]:
    active = listed.active
    found: dict[str, object] = {"name": listed.name, "source": "installed"}
    if active:
        found |= _kept(active.kept)
        found |= {
            "folder": str(active.folder),
            "previous": active.previous and _kept(active.previous),
            "left": active.left and _kept(active.left),
            "floor": active.floor.version,
            "starts": active.starts,
        }
    return found | {"problem": listed.problem or None}


def _kept(kept: "Kept") -> dict[str, object]:
    return {
        "version": kept.version,
        "hash": kept.hash,
        "signer": kept.signer,
        "installed": kept.installed,
    }


def _shipped(hidden: set[str]) -> list[dict[str, object]]:
    """Those that the package brings and no installed one takes the place of."""
    from medimg_edge import models
    from medimg_edge.bundle import Bundle, shipped

    opened = [Bundle.open(models.FOLDER / name) for name in shipped() if name not in hidden]
    return [
        {
            "name": each.manifest.name,
            "source": "shipped",
            "version": each.manifest.version,
            "hash": each.hash,
            "folder": str(each.path),
            "problem": None,
        }
        for each in opened
    ]


def _row(entry: dict[str, object]) -> tuple[str, ...]:
    previous = entry.get("previous")
    return (
        str(entry["name"]),
        str(entry.get("version", "?")),
        str(entry.get("signer") or ("" if entry["source"] == "shipped" else "nobody")),
        str(entry.get("installed") or "with medimg-edge"),
        str(previous["version"]) if isinstance(previous, dict) else "",
        str(entry.get("hash", ""))[:12],
    )
