"""A bundle: a folder that holds ``manifest.json`` and exactly the files that it lists.

``Bundle.open`` trusts nothing in the folder; ``Bundle.read`` returns bytes only if they are the
bytes that the manifest promises.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medimg_edge import installed, models
from medimg_edge.errors import ArtifactUnknown, BundleMissing, FilesDiffer, StoreDamaged
from medimg_edge.manifest import FileEntry, Manifest, decode

MANIFEST = "manifest.json"
SIGNATURES = "signatures"
"""The one folder that the manifest does not list: signatures are made after it."""

MAX_MANIFEST_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its manifest fits its schema, and the folder holds what it lists.

    hash: SHA-256 of the manifest's bytes, which by the hashes inside stands for all of the bundle.
    """

    path: Path
    manifest: Manifest
    hash: str

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open the bundle in a folder, or an installed or a shipped one by its name.

        Raises BundleMissing, ManifestInvalid, SchemaUnknown, RevisionUnknown, or FilesDiffer: a
        file is missing, added, of another size, a link, or has a path that leaves the folder.
        Contents are hashed when they are read, and all of them by ``verify``.

        An installed one is the very bundle that was installed (else StoreDamaged), also while an
        update replaces it. What was opened stays readable until the second update after it; from
        then on ``read`` raises FilesDiffer, and never gives another bundle's bytes.
        """
        active = None if os.path.exists(path) else installed.find(path)
        return cls._in_folder(find(path)) if active is None else cls._installed(active)

    @classmethod
    def _installed(cls, active: installed.Active) -> Bundle:
        while True:
            try:
                return cls._in_folder(active.folder, active.hash)
            except (BundleMissing, FilesDiffer) as error:
                now = installed.find(active.name)
                if now is None or now.kept == active.kept:
                    raise StoreDamaged(
                        f"{active.name} {active.version} is installed in {active.folder} and "
                        f"cannot be used: {error} Install it anew, or go back with `medimg-edge "
                        f"rollback {active.name}`."
                    ) from error
                active = now

    @classmethod
    def _in_folder(cls, folder: Path, expected: str | None = None) -> Bundle:
        data = _manifest_bytes(folder)
        found = hashlib.sha256(data).hexdigest()
        if found != (expected or found):
            raise FilesDiffer("Its manifest is not the one that was installed.")
        bundle = cls(folder, decode(data), found)
        bundle._check_folder()
        return bundle

    @property
    def entries(self) -> dict[str, FileEntry]:
        """Every file that the manifest lists, artifacts included, by path."""
        artifacts = {
            name: FileEntry(bytes=each.bytes, sha256=each.sha256)
            for name, each in self.manifest.artifacts.items()
        }
        return {**self.manifest.files, **artifacts}

    def artifact(self, name: str = "auto") -> str:
        """The file name of an artifact: ``auto`` is the manifest's ``default_artifact``."""
        chosen = self.manifest.default_artifact if name == "auto" else name
        if chosen not in self.manifest.artifacts:
            raise ArtifactUnknown(
                f"The bundle {self.manifest.name} has no artifact {chosen!r}; "
                f"it has {', '.join(self.manifest.artifacts)}."
            )
        return chosen

    def read(self, name: str) -> bytes:
        """The bytes of a listed file, checked against the manifest. Raises FilesDiffer."""
        entry = self.entries.get(name)
        if entry is None:
            raise FilesDiffer(f"The manifest lists no file {name!r}.")
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            raise FilesDiffer(f"{name} cannot be read: {error.strerror}.") from error
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise FilesDiffer(
                f"{name} is not the file that the manifest lists: it was changed or damaged. "
                "Copy the bundle anew from where it came."
            )
        return data

    def check_contents(self) -> None:
        """Hash every listed file. Raises FilesDiffer."""
        for name in self.entries:
            self.read(name)

    def _check_folder(self) -> None:
        entries = self.entries
        for name in entries:
            if not is_safe(name):
                raise FilesDiffer(f"The manifest lists {name!r}, a path that leaves the bundle.")
        found = walk(self.path)
        found.pop(MANIFEST, None)
        missing = sorted(set(entries) - set(found))
        if missing:
            raise FilesDiffer(f"{missing[0]} is missing from the bundle. Copy the bundle anew.")
        added = sorted(set(found) - set(entries))
        if added:
            raise FilesDiffer(
                f"{added[0]} lies in the bundle, and the manifest does not list it. "
                "A bundle holds nothing else: move your own files out of it."
            )
        for name, entry in entries.items():
            if found[name] != entry.bytes:
                raise FilesDiffer(
                    f"{name} has {found[name]} bytes; the manifest lists {entry.bytes}. "
                    "Copy the bundle anew."
                )


def find(path: str | os.PathLike[str]) -> Path:
    """Where a bundle lies: at the path, if there is anything, else the one of that name.

    An installed one goes before a shipped one: it is an update of it. Raises StoreDamaged.
    """
    folder = Path(path)
    if os.path.exists(folder):
        return folder
    if active := installed.find(path):
        return active.folder
    return models.FOLDER / folder if os.fspath(path) in shipped() else folder


def shipped() -> list[str]:
    """The names of the bundles that the package brings."""
    return sorted(each.parent.name for each in models.FOLDER.glob(f"*/{MANIFEST}"))


def is_safe(name: str) -> bool:
    """Whether a path stays inside of its folder on every system."""
    path = PurePosixPath(name)
    return (
        str(path) == name
        and not path.is_absolute()
        and ".." not in path.parts
        and not set(name) & set('\\:*?"<>|\0')
        and name not in (MANIFEST, ".")
        and path.parts[0] != SIGNATURES
    )


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Size and hash of every file below a folder, by path; for the export side."""
    return {
        name: FileEntry(bytes=size, sha256=hashlib.sha256((folder / name).read_bytes()).hexdigest())
        for name, size in sorted(walk(folder).items())
    }


def _manifest_bytes(folder: Path) -> bytes:
    path = folder / MANIFEST
    try:
        information = path.lstat()
    except OSError as error:
        names = sorted({*installed.names(), *shipped()})
        what = "not a folder" if os.path.isfile(folder) else "no bundle: it has no manifest.json"
        raise BundleMissing(
            f"{folder} is {what}. Give the folder that `medimg-edge export` wrote, or an installed "
            f"or a shipped name: {', '.join(names) or 'there is none'}."
        ) from error
    if not stat.S_ISREG(information.st_mode):
        raise FilesDiffer("manifest.json is not a regular file.")
    if information.st_size > MAX_MANIFEST_BYTES:
        raise FilesDiffer(
            f"manifest.json has {information.st_size} bytes; at most {MAX_MANIFEST_BYTES} are read."
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleMissing(f"{path} cannot be read: {error.strerror}.") from error


def walk(folder: Path) -> dict[str, int]:
    """The bytes of every regular file but the signatures, by path.

    Raises FilesDiffer for anything else, such as a link.
    """
    found: dict[str, int] = {}
    pending = [""]
    try:
        while pending:
            prefix = pending.pop()
            with os.scandir(folder / prefix) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    information = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(information.st_mode):
                        found[name] = information.st_size
                    elif not stat.S_ISDIR(information.st_mode):
                        raise FilesDiffer(
                            f"{name} is a link or a device; a bundle holds only files and folders."
                        )
                    elif name != SIGNATURES:
                        pending.append(f"{name}/")
    except OSError as error:
        raise FilesDiffer(f"The bundle cannot be searched: {error.strerror}.") from error
    return found
