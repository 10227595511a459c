"""Install bundles, go back, and count starts: the only writer of what ``installed`` reads.

A bundle is copied into the state folder, checked there in every way, moved into a slot that nothing
refers to, and brought to the disk. Then the pointer is replaced, in one step. Whenever the power
fails, the name means the old bundle or the new one, and the next install removes what was left.
Nothing depends on the clock.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from medimg_edge import archive, engines, installed, models, state
from medimg_edge.bundle import Bundle, shipped
from medimg_edge.claim import claim
from medimg_edge.disk import written
from medimg_edge.errors import (
    ArtifactUnknown,
    BundleError,
    GoldenMismatch,
    ManifestInvalid,
    StoreDamaged,
    VersionTooLow,
    WriteError,
)
from medimg_edge.golden import Check
from medimg_edge.installed import POINTER, SLOTS, Active, Floor, Kept
from medimg_edge.site_profile import SUFFIX
from medimg_edge.trust import Standing, Trust, require
from medimg_edge.whole_file import sync, sync_folder, write_whole

Progress = archive.Progress

STARTS = 3
"""So many starts in a row that did not end well, and the next one is of the bundle before."""
WAIT_SECONDS = 10.0
"""For another process that changes a pointer, which takes it milliseconds."""

_INSTALLING, _POINTING = ".installing", ".pointing"
"""Folders beside the bundles that are locked: for a whole install, and while a pointer changes."""
_VERSION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9}){0,7})(?:-([0-9A-Za-z.+-]{1,60}))?")


@dataclass(frozen=True)
class Installed:
    """What an install did.

    changed: False where the very bundle was active already. replaced: what was active before.
    uncalibrated: it had a site profile, which is not for the new bundle.
    """

    active: Active
    standing: Standing
    changed: bool
    replaced: Kept | None = None
    uncalibrated: bool = False


@dataclass(frozen=True)
class Listed:
    """An installed name: what it means, or what is wrong with it."""

    name: str
    active: Active | None
    problem: str = ""


def install(
    source: Path,
    *,
    trust: Trust,
    check: Callable[[Path], Sequence[Check]],
    allow_unsigned: bool = False,
    progress: Progress | None = None,
) -> Installed:
    """Make the bundle in a .zip or a folder the one that its name means.

    check: answers the golden set of a bundle's folder on this machine, such as ``golden.verify``.
    Raises what ``archive.unpack`` does, SignatureMissing, SignatureInvalid, SignerUnknown,
    SignerRevoked, ArtifactUnknown (no runtime), VersionTooLow, GoldenMismatch, StoreDamaged,
    WriteError. Then the bundle that was active before still is.
    """
    with _claimed(_INSTALLING) as folder:
        staged = folder / "bundle"
        _clear_all(folder)
        try:
            archive.unpack(source, staged, progress)
            return _checked(staged, trust, check, allow_unsigned)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _checked(
    staged: Path,
    trust: Trust,
    check: Callable[[Path], Sequence[Check]],
    allow_unsigned: bool,
) -> Installed:
    bundle = Bundle.open(staged)
    bundle.check_contents()
    standing = require(bundle, trust, allow_unsigned=allow_unsigned)
    _require_name(bundle)
    _require_runtime(bundle)
    before = installed.find(bundle.manifest.name)
    _require_version(bundle, before)
    if before and before.hash == bundle.hash and _problem(before, before.kept) is None:
        return Installed(before, standing, changed=False)
    for found in check(staged):
        if found.status == "failed":
            raise GoldenMismatch(
                f"{found.artifact}: {found.message}. The bundle does not give the same answer on "
                "this machine, and was not installed."
            )
    return _switch(staged, bundle, standing)


def rollback(name: str) -> Active:
    """Let a name mean the bundle before again; the one after it is kept, and answers no more.

    Goes back only once: there is no older one, and to go on to the newer one is an install. The
    version floor stays. Raises StoreDamaged: there is nothing to go back to, or it is damaged.
    """
    _require_installed(name)
    with _claimed(_POINTING, WAIT_SECONDS):
        active = _require_installed(name)
        if active.previous is None:
            raise StoreDamaged(f"{name} {active.version} stays: {_nothing_before(active)}")
        if problem := _problem(active, active.previous):
            raise StoreDamaged(
                f"{name} {active.version} stays: {active.previous.version}, the one before it, "
                f"cannot be used. {problem}"
            )
        return _point(_gone_back(active, active.previous))


def begin_start(name: str) -> Active:
    """Count a start of what a name means, before it can fail. ``started`` says that it did not.

    After three in a row that never said so, killed ones too, the name means the bundle before
    again, and ``note`` says so. Where there is none, the bundle stays, and ``note`` says that.
    Starts at the same moment count as one after the other. A start that cannot be counted, on a
    full disk, is no reason not to start. Raises StoreDamaged, also where nothing is installed.
    """
    active = _require_installed(name)
    try:
        with _claimed(_POINTING, WAIT_SECONDS):
            return _counted(_require_installed(name))
    except WriteError as error:
        return replace(active, note=f"This start is not counted: {error.message}")


def _counted(active: Active) -> Active:
    if active.starts < STARTS:
        return _point(replace(active, starts=active.starts + 1))
    failed = f"{active.name} {active.version} did not start {active.starts} times in a row"
    if active.previous is None:
        return replace(active, note=f"{failed}. It stays: {_nothing_before(active)}")
    if problem := _problem(active, active.previous):
        note = f"{failed}. It stays: {active.previous.version}, the one before, cannot be used. "
        return replace(active, note=note + problem)
    back = _point(replace(_gone_back(active, active.previous), starts=1))
    return replace(back, note=f"{failed}. {back.version}, the one before it, answers again.")


def started(name: str, hash: str) -> None:  # noqa: A002 - what it is
    """Say that the start of a bundle ended well. Nothing, where the name means another by now."""
    active = installed.find(name)
    if active is None or active.hash != hash or not active.starts:
        return
    with suppress(WriteError), _claimed(_POINTING, WAIT_SECONDS):
        active = installed.find(name)
        if active is not None and active.hash == hash and active.starts:
            _point(replace(active, starts=0))


def newer_shipped(active: Active) -> Bundle | None:
    """What the package brings by the same name, where it is newer than what answers.

    So it is where the package was updated after the install: a name stays what was installed.
    """
    ours = _shipped(active.name)
    if ours and (_order(active.version) or ()) < (_order(ours.manifest.version) or ()):
        return ours
    return None


def listing() -> list[Listed]:
    """Every installed name, and whether it can be used: its files are there, in their sizes."""
    return [_listed(name) for name in installed.names()]


def _listed(name: str) -> Listed:
    active = None
    try:
        active = installed.find(name)
        Bundle.open(name if active is None else active.folder)
    except BundleError as error:
        return Listed(name, active, error.message)
    return Listed(name, active)


def _require_installed(name: str) -> Active:
    active = installed.find(name)
    if active is None:
        there = ", ".join(installed.names()) or "nothing"
        raise StoreDamaged(f"No bundle is installed as {name!r}; installed is {there}.")
    return active


def _require_name(bundle: Bundle) -> None:
    if not installed.is_name(bundle.manifest.name):
        raise ManifestInvalid(f"{bundle.manifest.name!r} is no name that a bundle can have.")


def _require_runtime(bundle: Bundle) -> None:
    artifacts = bundle.manifest.artifacts
    if not any(engines.installed(each.format) for each in artifacts.values()):
        raise ArtifactUnknown(
            f"This machine has no runtime for {', '.join(artifacts)}: install medimg-edge[litert]."
        )


def _require_version(bundle: Bundle, before: Active | None) -> None:
    """No older one than there was, by this name; and no two of one version."""
    name, version = bundle.manifest.name, bundle.manifest.version
    order = _order(version)
    if order is None:
        raise VersionTooLow(
            f"The version {version!r} of {name} has no order, so that an older bundle could not be "
            "told from a newer one. Export it with one such as 1.4.0, or 1.4.0-rc1 before that."
        )
    if before and before.hash == bundle.hash:
        return
    for floor in _floors(name, before):
        lowest = _order(floor.version)
        if lowest is not None and order < lowest:
            raise VersionTooLow(
                f"{name} {version} is older than {floor.version}, which was here before it. "
                f"`medimg-edge rollback {name}` goes back to the bundle before; an older one than "
                "that has to be exported anew, with a higher version."
            )
        if order == lowest and floor.hash != bundle.hash:
            raise VersionTooLow(
                f"{name} {floor.version} was here before, and this is another bundle of the same "
                "version. Export it with a higher one."
            )


def _floors(name: str, before: Active | None) -> list[Floor]:
    floors = [before.floor] if before else []
    if ours := _shipped(name):
        floors.append(Floor(ours.manifest.version, ours.hash))
    return floors


def _shipped(name: str) -> Bundle | None:
    return Bundle.open(models.FOLDER / name) if name in shipped() else None


def _order(version: str) -> tuple | None:
    """A key to sort versions by: dotted numbers, and what has a suffix before what has none."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return None
    numbers = [int(each) for each in found[1].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    words = re.findall("[0-9]+|[^0-9]+", found[2] or "")
    parts = [(0, int(each), "") if each.isdigit() else (1, 0, each) for each in words]
    return tuple(numbers), found[2] is None, tuple(parts)


def _switch(staged: Path, bundle: Bundle, standing: Standing) -> Installed:
    """The step at whose end the name means the new bundle."""
    name = bundle.manifest.name
    home = staged.parent.parent / name
    _bring_to_disk(staged)
    with _claimed(_POINTING, WAIT_SECONDS):
        before = installed.find(name)
        had_profile = before is not None and _profile(home, before.kept.slot).exists()
        taken = before.slots if before else []
        slot = next(each for each in SLOTS if each not in taken)
        active = _after(before, home, _kept(slot, bundle, standing))
        try:
            _make(home)
            _remove(home, slot)
            os.rename(staged, home / slot)
            sync_folder(home)
            _carry_profile(before, active)
            _point(active)
        finally:
            _clear(home)
    replaced = before.kept if before else None
    uncalibrated = had_profile and not _profile(home, slot).exists()
    return Installed(active, standing, True, replaced, uncalibrated)


def _kept(slot: str, bundle: Bundle, standing: Standing) -> Kept:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    signer = standing.name or standing.fingerprint
    return Kept(slot, bundle.hash, bundle.manifest.version, signer, now)


def _after(before: Active | None, home: Path, kept: Kept) -> Active:
    """The pointer to a bundle that takes the place of another, or of itself to repair it."""
    floor = Floor(kept.version, kept.hash)
    if before is None:
        return Active(home.name, home, kept, floor)
    if (_order(kept.version) or ()) < (_order(before.floor.version) or ()):
        floor = before.floor
    previous = before.previous if before.hash == kept.hash else before.kept
    return Active(home.name, home, kept, floor, previous)


def _gone_back(active: Active, previous: Kept) -> Active:
    return replace(active, kept=previous, previous=None, left=active.kept, starts=0)


def _nothing_before(active: Active) -> str:
    if active.left is None:
        return "there is no bundle before it."
    folder = shlex.quote(f"{active.folder_of(active.left)}")
    return (
        f"there is no bundle before it. {active.left.version}, which was gone back from, is kept: "
        f"`medimg-edge install {folder}` goes on to it."
    )


def _problem(active: Active, kept: Kept) -> str | None:
    """What is wrong with a kept bundle; every file is hashed."""
    try:
        bundle = Bundle.open(active.folder_of(kept))
        if bundle.hash != kept.hash:
            return "Its manifest is not the one that was installed."
        bundle.check_contents()
    except BundleError as error:
        return error.message
    return None


def _point(active: Active) -> Active:
    """Let the name mean it, from one step to the next, and for good."""
    _clear_partial(active.home)
    write_whole(active.home / POINTER, installed.encode(active))
    sync_folder(active.home)
    return active


def _profile(home: Path, slot: str) -> Path:
    """Where a site's profile of the bundle in a slot lies; see ``site_profile.beside``."""
    return home / (slot + SUFFIX)


def _carry_profile(before: Active | None, active: Active) -> None:
    """A site's profile is for a bundle, whichever slot it is in."""
    kept = (before.kept, before.previous, before.left) if before else ()
    for each in kept:
        if each and each.hash == active.hash and _profile(active.home, each.slot).is_file():
            data = _profile(active.home, each.slot).read_bytes()
            write_whole(_profile(active.home, active.kept.slot), data)


@contextmanager
def _claimed(which: str, wait: float = 0.0) -> Iterator[Path]:
    """Have one of the two locks, and its folder. Raises WriteError, for an OSError in it too."""
    root = installed.folder()
    if root is None:
        raise WriteError(
            "There is no state folder to install bundles in: this user has no home. Name one in "
            f"the environment: {state.VARIABLE}=FOLDER."
        )
    folder = root.absolute() / which
    with written(folder.parent):
        _make(folder)
        end = time.monotonic() + wait
        while True:
            try:
                lock = claim(folder)
                break
            except WriteError as error:
                if time.monotonic() >= end:
                    raise WriteError(
                        f"{folder.parent} is used by another process, which installs a bundle or "
                        "goes back to one. Try again when it has ended."
                    ) from error
                time.sleep(0.01)
        with lock:
            yield folder


def _make(folder: Path) -> None:
    """Make a folder and those above it, each to last."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def _bring_to_disk(folder: Path) -> None:
    for path, _, files in os.walk(folder):
        for name in files:
            sync(Path(path, name))
        sync_folder(Path(path))


def _clear_all(installing: Path) -> None:
    """Remove what killed installs left: the staged bundle, and slots that no pointer names."""
    shutil.rmtree(installing / "bundle", ignore_errors=True)
    with _claimed(_POINTING, WAIT_SECONDS):
        for home in installing.parent.iterdir():
            if home.is_dir() and not home.name.startswith("."):
                _clear(home)


def _clear(home: Path) -> None:
    try:
        active = installed.find(home.name)
    except StoreDamaged:  # a person may want to look at it
        return
    _clear_partial(home)
    for slot in SLOTS:
        if active is None or slot not in active.slots:
            with suppress(OSError):
                _remove(home, slot)
    with suppress(OSError):  # of a first install that failed
        home.rmdir()


def _clear_partial(home: Path) -> None:
    for each in home.glob(".*.partial"):
        with suppress(OSError):
            each.unlink()


def _remove(home: Path, slot: str) -> None:
    if (home / slot).exists():
        shutil.rmtree(home / slot)
    _profile(home, slot).unlink(missing_ok=True)
