"""A site profile: what a clinic measured on its own labelled images, beside a bundle, never in it.

The bundle's probability p becomes sigmoid(slope * logit(p) + intercept) (Platt 1999), and decisions
are taken at the site's own operating points. A profile is bound to the hash of its bundle and to
one artifact, and refused beside any other.
"""

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from medimg_edge.bundle import Bundle
from medimg_edge.errors import ProfileInvalid, WriteError
from medimg_edge.manifest import Count, OperatingPoint, Sha256

SCHEMA = 1
SUFFIX = ".profile.json"
MAX_BYTES = 2**20

LARGEST_LOGIT = 16.0
"""Beyond it a probability is 0 or 1 in single precision."""


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every part of a profile."""


class Calibration(Struct, frozen=True, omit_defaults=True):
    """For one label: how its probability is changed, and where it becomes a decision.

    ``prevalence``: the share of those examined for whom its probabilities hold, where one was
    stated; else that of the images it was fitted on.
    """

    slope: Annotated[float, msgspec.Meta(gt=0)]
    intercept: float
    point: OperatingPoint
    prevalence: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None

    def calibrated(self, p: NDArray[np.floating]) -> NDArray[np.float32]:
        """The site's probabilities of this label, float32, in [0, 1]."""
        return calibrated(p, self.slope, self.intercept)


class SiteData(Struct, frozen=True):
    """The images that it was fitted on. ``sha256`` stands for their contents and labels."""

    images: Count
    patients: Count | None
    positives: dict[str, Count]
    sha256: Sha256


class SiteProfile(Struct, frozen=True):
    """What ``<bundle>.profile.json`` holds; ``bundle`` is the hash of the bundle's manifest."""

    bundle: Sha256
    artifact: str
    findings: dict[str, Calibration]
    data: SiteData
    created: str
    schema: Literal[1] = SCHEMA

    @property
    def hash(self) -> str:
        """SHA-256 of the profile as ``encode`` writes it; of one that was read, see ``read``."""
        return hashlib.sha256(encode(self)).hexdigest()

    def calibrated(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """The site's probabilities: float32 (C,) in the order of ``findings``, in [0, 1]."""
        fitted = self.findings.values()
        slopes = np.array([each.slope for each in fitted])
        intercepts = np.array([each.intercept for each in fitted])
        return calibrated(probabilities, slopes, intercepts)

    def require_for(self, bundle: Bundle, artifact: str) -> None:
        """Refuse to answer with another bundle or artifact than it was fitted on.

        Raises ProfileInvalid.
        """
        if self.bundle != bundle.hash:
            raise ProfileInvalid(
                f"The site profile was fitted on the bundle {self.bundle[:16]}, this one is "
                f"{bundle.hash[:16]}: its thresholds mean nothing here. Run `medimg-edge "
                "calibrate` on this bundle, or answer without a profile: --profile none."
            )
        if self.artifact != artifact:
            raise ProfileInvalid(
                f"The site profile was fitted on {self.artifact}, and {artifact} is to answer. "
                "Answer with the former, calibrate the latter, or take --profile none."
            )
        if bundle.manifest.task == "multiclass":
            raise ProfileInvalid("A multiclass bundle has no thresholds that a site could move.")
        if tuple(self.findings) != bundle.manifest.findings:
            raise ProfileInvalid(
                f"The site profile names {', '.join(self.findings)}; the bundle's labels are "
                f"{', '.join(bundle.manifest.findings)}. Calibrate anew."
            )


def calibrated(
    p: NDArray[np.floating], slope: float | NDArray, intercept: float | NDArray
) -> NDArray[np.float32]:
    """sigmoid(slope * logit(p) + intercept), in single precision, where probabilities live."""
    changed = slope * logit(p) + intercept
    return (0.5 * (1 + np.tanh(changed / 2))).astype(np.float32)


def logit(p: NDArray[np.floating]) -> NDArray[np.float64]:
    """log(p / (1 - p)), within +-16."""
    values = np.asarray(p, np.float64)
    with np.errstate(divide="ignore"):
        return np.clip(np.log(values) - np.log1p(-values), -LARGEST_LOGIT, LARGEST_LOGIT)


def beside(bundle: Bundle) -> Path:
    """Where a bundle's profile lies."""
    path = bundle.path.resolve()
    return path.with_name(path.name + SUFFIX)


def find(bundle: Bundle) -> Path | None:
    """The profile that lies beside a bundle.

    Else the one beside the link that the bundle was opened by, where release 0.1.0 wrote it.
    """
    for path in (beside(bundle), Path(os.path.abspath(bundle.path) + SUFFIX)):
        if path.exists():
            return path
    return None


def refuse_to_replace(path: Path, bundle: Bundle) -> None:
    """Refuse to write a profile into its bundle, which then would not open, or over anything else.

    Raises WriteError.
    """
    if (path.parent.resolve() / path.name).is_relative_to(bundle.path.resolve()):
        raise WriteError(
            f"{path} lies in the bundle {bundle.path}, which must stay as it is. Name a file "
            "elsewhere, or leave out --out."
        )
    if not path.exists() or path.is_dir():  # a folder is refused by whoever writes
        return
    try:
        if not path.is_file():
            raise ProfileInvalid(f"{path} is no regular file.")
        load(path)
    except ProfileInvalid as error:
        raise WriteError(
            f"{path} exists and is no site profile, which is all that is written over: {error} "
            "It is unchanged. Name another file, or move this one away."
        ) from error


def encode(profile: SiteProfile) -> bytes:
    """UTF-8 JSON, indented for people."""
    return msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n"


def load(path: str | os.PathLike[str]) -> SiteProfile:
    """Read a profile. Raises ProfileInvalid."""
    return read(path)[0]


def read(path: str | os.PathLike[str]) -> tuple[SiteProfile, str]:
    """Read a profile; and the SHA-256 of its file, by which records name it.

    Raises ProfileInvalid.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ProfileInvalid(f"{os.fspath(path)} is larger than a site profile can be.")
        return msgspec.json.decode(data, type=SiteProfile), hashlib.sha256(data).hexdigest()
    except OSError as error:
        raise ProfileInvalid(
            f"The site profile {os.fspath(path)} cannot be read: {error.strerror}."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProfileInvalid(
            f"{os.fspath(path)} is no site profile of this release: {error}. "
            "`medimg-edge calibrate` writes one."
        ) from error


def schema() -> dict[str, Any]:
    """The JSON Schema of a profile."""
    return msgspec.json.schema(SiteProfile)
