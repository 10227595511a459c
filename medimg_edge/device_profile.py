"""A device profile: the setting that ``tune`` found best for one bundle on one machine.

It lies in the user's state folder, never beside the bundle: a shipped bundle is read-only, and a
copied folder must not carry one machine's measurement to another. It is bound to the bundle's
hash, to the machine, to the version of the runtime and to this release; for any other it is
ignored with a warning, and the bundle's default answers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from medimg_edge import __version__, engines, site_profile, state
from medimg_edge.bundle import Bundle
from medimg_edge.errors import WriteError
from medimg_edge.machine import Machine, this_machine
from medimg_edge.manifest import Sha256
from medimg_edge.site_profile import SiteProfile
from medimg_edge.whole_file import write_whole

SCHEMA = 1
SUFFIX = ".device.json"
MAX_BYTES = 2**16

Warn = Callable[[str], object]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every part of a profile."""


class Setting(NamedTuple):
    """What an engine is loaded with."""

    artifact: str
    runtime: str
    threads: int

    def __str__(self) -> str:
        return f"{self.artifact} by {self.runtime}, {self.threads} thread{'s'[: self.threads > 1]}"


class Pace(Struct, frozen=True):
    """How fast the network of one setting is.

    ``milliseconds`` for one image; ``images_per_second`` with as many images at a time as there are
    cores for so many threads each.
    """

    threads: Annotated[int, msgspec.Meta(ge=1)]
    milliseconds: Positive
    images_per_second: Positive


class DeviceProfile(Struct, frozen=True):
    """What ``<bundle hash>.device.json`` holds.

    One artifact and one runtime, so that an image gets the same answer alone and in a folder;
    ``single`` is how they answer one image soonest, ``many`` how they answer most images a second.
    """

    bundle: Sha256
    machine: Machine
    artifact: str
    runtime: str
    runtime_version: str
    release: str
    single: Pace
    many: Pace
    created: str
    schema: Literal[1] = SCHEMA

    @property
    def setting(self) -> Setting:
        """How it answers one image."""
        return Setting(self.artifact, self.runtime, self.single.threads)

    @property
    def setting_for_many(self) -> Setting:
        """How it answers each of many images."""
        return Setting(self.artifact, self.runtime, self.many.threads)

    def refusal(self, bundle: Bundle) -> str | None:
        """Why it says nothing about this bundle on this machine; None where it does."""
        if self.bundle != bundle.hash:
            return "was made for another bundle"
        here = this_machine()
        if self.machine != here:
            return f"was made on another machine ({_described(self.machine)}; {_described(here)})"
        if self.release != __version__:
            return f"was made by medimg-edge {self.release}; this is {__version__}"
        known = bundle.manifest.artifacts.get(self.artifact)
        fits = known is not None and self.runtime in engines.runtimes(known.format)
        installed = engines.version(self.runtime) if fits else None
        if installed is None:
            return f"names {self.artifact} by {self.runtime}, which cannot be run here"
        if self.runtime_version != installed:
            return f"was made with {self.runtime} {self.runtime_version}; {installed} is installed"
        if max(self.single.threads, self.many.threads) > here.cores:
            return f"asks for more threads than there are cores ({here.cores})"
        return None


class Choice(NamedTuple):
    """What answers, and who says so."""

    setting: Setting
    chosen_by: Literal["site profile", "device profile", "bundle", "user"]


def choose(
    bundle: Bundle,
    artifact: str,
    site: SiteProfile | None,
    device: DeviceProfile | None,
    *,
    many: bool = False,
) -> Choice:
    """The setting to answer with. Raises ArtifactUnknown.

    A named artifact runs by its format's reference runtime. ``auto`` is, where there is a site
    profile, the artifact that its thresholds were fitted on, by the reference runtime that it was
    fitted with: another runtime may move int8 probabilities by as much as ``golden`` allows, and
    across a site's own threshold. Else it is the device profile's setting, else the bundle's
    default artifact. ``many``: the threads are those for many images.
    """
    tuned = device and (device.setting_for_many if many else device.setting)
    if artifact != "auto":
        return Choice(_by_reference(bundle, artifact, tuned), "user")
    if site is not None:
        return Choice(_by_reference(bundle, site.artifact, tuned), "site profile")
    if tuned is not None:
        return Choice(tuned, "device profile")
    return Choice(_by_reference(bundle, "auto", None), "bundle")


def _by_reference(bundle: Bundle, artifact: str, tuned: Setting | None) -> Setting:
    """An artifact by its reference runtime; the threads as tuned, if that was."""
    name = bundle.artifact(artifact)
    runtime = engines.reference(bundle.manifest.artifacts[name].format)
    return tuned if tuned and tuned[:2] == (name, runtime) else Setting(name, runtime, 1)


def choose_here(bundle: Bundle, warn: Warn) -> Choice:
    """What ``auto`` is on this machine, by the profiles that lie here.

    Raises ProfileInvalid where the site profile beside the bundle may not be used.
    """
    beside = site_profile.find(bundle)
    site = site_profile.load(beside) if beside else None
    if site is not None:
        site.require_for(bundle, "auto")
    return choose(bundle, "auto", site, find(bundle, warn))


def find(bundle: Bundle, warn: Warn) -> DeviceProfile | None:
    """The profile of this bundle on this machine, if there is one that may be trusted.

    One that is damaged, or says nothing about this machine, is ignored; ``warn`` is told why.
    """
    where = state.folder()
    path = where / (bundle.hash + SUFFIX) if where else None
    if path is None or not os.path.lexists(path):
        return None
    found = _read(path)
    refusal = found if isinstance(found, str) else found.refusal(bundle)
    if refusal is None and isinstance(found, DeviceProfile):
        return found
    warn(
        f"the device profile {path} {refusal}. It is ignored; run `medimg-edge tune` on the "
        "bundle anew."
    )
    return None


def write(profile: DeviceProfile) -> Path:
    """Keep a profile where ``find`` looks for it. Raises WriteError."""
    where = state.folder()
    if where is None:
        raise WriteError(
            "There is no state folder to keep the device profile in: this user has no home. Name "
            f"one in the environment: {state.VARIABLE}=FOLDER."
        )
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            f"{where} cannot be made: {error.strerror}. Name another folder for device profiles "
            f"in the environment: {state.VARIABLE}=FOLDER."
        ) from error
    path = where / (profile.bundle + SUFFIX)
    write_whole(path, encode(profile))
    return path


def encode(profile: DeviceProfile) -> bytes:
    """UTF-8 JSON, indented for people."""
    return msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of a profile."""
    return msgspec.json.schema(DeviceProfile)


def _read(path: Path) -> DeviceProfile | str:
    """A profile, or what is wrong with the file."""
    try:
        if not path.is_file():
            return "is no regular file"
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            return "is larger than a device profile can be"
        return msgspec.json.decode(data, type=DeviceProfile)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"is damaged ({error})"


def _described(machine: Machine) -> str:
    return f"{machine.cpu}, {machine.cores} cores"
