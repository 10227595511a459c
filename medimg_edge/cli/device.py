"""The commands about a bundle on a device: verify, info, schema."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medimg_edge.cli import output

if TYPE_CHECKING:
    from medimg_edge.bundle import Bundle
    from medimg_edge.manifest import Preprocessing


class Document(StrEnum):
    """What has a JSON Schema."""

    record = "record"
    manifest = "manifest"
    profile = "profile"
    device = "device"


def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle to check.")],
    trusted: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Refuse it unless a key in this folder, or that of releases, signed it.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check a bundle on this machine: signature, files, pixels, its answers to the golden set.

    Exit 1 if anything differs; then the bundle must not answer here. Without --trusted it is said
    who signed it, and only a wrong or withdrawn signature is refused.

    Examples:

    medimg-edge verify pneumonia-cxr

    medimg-edge verify our-bundle --trusted /etc/medimg-edge/trusted
    """
    from medimg_edge import device_profile, trust
    from medimg_edge.bundle import Bundle
    from medimg_edge.golden import ENOUGH_CASES
    from medimg_edge.golden_apart import verify_apart as check

    opened = Bundle.open(bundle)
    found = trust.require(opened, trust.Trust.load(trusted), allow_unsigned=trusted is None)
    device = device_profile.find(opened, output.warn)
    checks = check(
        opened,
        lambda name: output.progress(f"golden set through {name}", 0, 0),
        device.setting if device else None,
    )
    rows = [
        (
            each.artifact,
            each.status,
            str(each.cases or ""),
            "" if each.difference is None else f"{each.difference:.1e}",
            each.message,
        )
        for each in checks
    ]
    output.clear()
    typer.echo(output.table(rows, ("artifact", "golden set", "cases", "max |dp|", "")))
    failed = [each for each in checks if each.status == "failed"]
    if failed:
        from medimg_edge.errors import GoldenMismatch

        raise GoldenMismatch(
            f"{failed[0].artifact}: {failed[0].message}. The bundle does not give the same answer "
            "on this machine: do not use it here."
        )
    manifest = opened.manifest
    if len(manifest.golden) < ENOUGH_CASES:
        output.warn(
            f"the golden set has {len(manifest.golden)} cases, fewer than {ENOUGH_CASES}: "
            "a small difference may go unseen. An export by this release writes more."
        )
    typer.echo(f"{manifest.name} {manifest.version} gives the same answers here as in training.")
    typer.echo(found.sentence)
    if untested := [each.artifact for each in checks if each.status == "not run"]:
        typer.echo(f"Not checked here: {', '.join(untested)}.")


def info(
    bundle: Annotated[Path, typer.Argument(help="The bundle to describe.")],
) -> None:
    """Say what a bundle is for, what it reads, what answers here, and how good it was.

    Example: medimg-edge info pneumonia
    """
    from medimg_edge.bundle import Bundle

    manifest = (opened := Bundle.open(bundle)).manifest
    spec = manifest.preprocessing
    facts = [
        ("name", f"{manifest.name} {manifest.version}"),
        ("intended use", manifest.intended_use),
        ("task", f"{manifest.task}: {', '.join(manifest.labels)}"),
        ("input", _input(spec)),
        ("default artifact", manifest.default_artifact),
        ("answers here", _answers_here(opened)),
        ("golden cases", str(len(manifest.golden))),
        ("hash", opened.hash),
    ]
    for label, point in manifest.decision[manifest.default_artifact].items():
        facts.append((f"{label} from", f"p = {point.threshold:.4f} ({point.rule})"))
    typer.echo(output.table(facts))
    rows = [
        (
            name,
            f"{each.bytes:,}",
            *(_figure(each.metrics.get(key)) for key in ("auc", "sensitivity", "specificity")),
            _figure(each.metrics.get("max_dp"), ".1e"),
        )
        for name, each in manifest.artifacts.items()
    ]
    header = ("artifact", "bytes", "val AUC", "sensitivity", "specificity", "max |dp|")
    typer.echo("\n" + output.table(rows, header))


def schema(
    document: Annotated[Document, typer.Argument(help="record, manifest, profile or device.")],
) -> None:
    """Print the JSON Schema of a record, a manifest, a site profile or a device profile.

    Example: medimg-edge schema record > record.schema.json
    """
    import json

    from medimg_edge import device_profile, manifest, record, site_profile

    documents = {
        "record": record,
        "manifest": manifest,
        "profile": site_profile,
        "device": device_profile,
    }
    typer.echo(json.dumps(documents[document.value].schema(), indent=2))


def _answers_here(bundle: "Bundle") -> str:
    from medimg_edge import device_profile
    from medimg_edge.errors import MedimgEdgeError

    try:
        setting, by = device_profile.choose_here(bundle, output.warn)
    except MedimgEdgeError as error:
        return f"nothing: {error}"
    return f"{setting} (chosen by the {by})"


def _input(spec: "Preprocessing") -> str:
    large = "" if spec.needed is None else ", large JPEGs decoded smaller"
    return f"{spec.width} x {spec.height} pixels, {spec.color}, {spec.geometry}{large}"


def _figure(value: float | None, form: str = ".3f") -> str:
    return "" if value is None else format(value, form)
