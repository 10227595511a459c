"""The command of a site: calibrate."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medimg_edge.cli import output

if TYPE_CHECKING:
    from medimg_edge.site_fit import Fitted
    from medimg_edge.site_rates import Rate


OTHERWISE = "; if yours are more or fewer, say how many: --prevalence SHARE"


def _target(value: float | None) -> float | None:
    """Refuse a rate that nothing could reach or everything does; NaN, too."""
    if value is not None and not 0 < value <= 1:
        raise typer.BadParameter(f"{value} is not a rate above 0 and up to 1, such as 0.95.")
    return value


def _share(value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value} is not a share between 0 and 1, such as 0.1.")
    return value


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="The bundle; it is not changed.")],
    labelled: Annotated[Path, typer.Argument(help="A CSV of your own images: path,label[,group].")],
    target_sensitivity: Annotated[
        float | None,
        typer.Option(
            callback=_target,
            help="Take the most specific threshold that reaches it on these images.",
            show_default="Youden's",
        ),
    ] = None,
    refer_band: Annotated[
        float | None,
        typer.Option(
            metavar="SPECIFICITY",
            callback=_target,
            help="Positive only from this specificity on; between it and the threshold: refer.",
        ),
    ] = None,
    prevalence: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            callback=_share,
            help="The share of those examined who have the finding, where the sheet's is another.",
            show_default="the sheet's",
        ),
    ] = None,
    artifact: Annotated[
        str,
        typer.Option(help="A model file of the bundle; auto is what tune chose, else its default."),
    ] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="The site profile.", show_default="BUNDLE.profile.json")
    ] = None,
) -> None:
    """Fit a bundle's probabilities and thresholds to your own labelled images.

    Writes a site profile beside the bundle, which `infer` then uses and names in every answer. The
    rates are measured on patients that the fit has not seen.

    Example: medimg-edge calibrate pneumonia ours/labels.csv --target-sensitivity 0.95
    """
    from medimg_edge import device_profile, site_profile
    from medimg_edge.bundle import Bundle
    from medimg_edge.classifier import Classifier
    from medimg_edge.site_fit import fit_profile
    from medimg_edge.whole_file import whole_file

    opened = Bundle.open(bundle)
    if artifact == "auto" and (device := device_profile.find(opened, output.warn)) is not None:
        artifact = device.artifact
    classifier = Classifier(opened, artifact=artifact, profile=None)
    path = out or site_profile.beside(classifier.bundle)
    site_profile.refuse_to_replace(path, classifier.bundle)
    with whole_file(path) as file:
        fitted = fit_profile(
            classifier,
            labelled,
            sensitivity=target_sensitivity,
            refer_specificity=refer_band,
            prevalence=prevalence,
            progress=output.progress,
        )
        file.write(site_profile.encode(fitted.profile))
    for failure in fitted.failures:
        output.note(f"left out: {failure.input}: {failure.message} [{failure.code}]")
    output.clear()
    typer.echo(_table(fitted))
    for line in _explained(fitted):
        typer.echo(line)
    for warning in fitted.warnings:
        output.warn(warning)
    typer.echo(f"{path} holds the profile {fitted.profile.hash[:16]}.")


def _table(fitted: "Fitted") -> str:
    from medimg_edge.site_rates import NAMES

    grouped = fitted.profile.data.patients is not None
    rows = [
        (
            label,
            name,
            _rate(getattr(found.bundle, name), grouped),
            _rate(getattr(found.profile, name, None), grouped),
        )
        for label, found in fitted.measured.items()
        for name in NAMES
    ]
    header = ("finding", "", "as the bundle decides", "with the profile, on unseen patients")
    return output.table(rows, header)


def _rate(rate: "Rate | None", grouped: bool) -> str:
    if rate is None or rate.value is None:
        return "unknown"
    patients = f" ({rate.patients} patients)" if grouped else ""
    return f"{rate.value:.3f}  {rate.low:.3f} to {rate.high:.3f}  of {rate.n}{patients}"


def _explained(fitted: "Fitted") -> Iterator[str]:
    """What the numbers are of, and where they hold."""
    data, several = fitted.profile.data, len(fitted.profile.findings) > 1
    whose = f" of {data.patients} patients" if data.patients is not None else ""
    for label, fit in fitted.profile.findings.items():
        share = data.positives[label] / data.images
        yield (
            f"{label}: {data.positives[label]} of {data.images} images{whose} have it, {share:.1%}."
        )
        if fit.prevalence is None:
            yield (
                f"{label}: PPV, referral rate and probabilities hold where {share:.1%} of those "
                f"examined have it{'' if several else OTHERWISE}."
            )
        else:
            yield (
                f"{label}: PPV, referral rate and probabilities are for where {fit.prevalence:.3g} "
                "of those examined have it (--prevalence), and both kinds look like these."
            )
        band = f"; refer below {fit.point.refer[1]:.4f}" if fit.point.refer else ""
        yield f"{label} from p = {fit.point.threshold:.4f} ({fit.point.rule}){band}"
        if fit.point.refer:
            yield f"{label}: the sensitivity counts the ill who are referred as found."
    yield (
        "The thresholds were chosen on these very images: a target was met on them, not that it "
        "will be on others. The intervals (95 %) allow for that choice, not for other patients or "
        "another device."
    )
