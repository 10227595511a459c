"""Keys and signatures as files: make a key, sign a bundle, trust a key, withdraw one."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from medimg_edge import trust
from medimg_edge.bundle import SIGNATURES, Bundle
from medimg_edge.errors import KeyInvalid, SignatureInvalid, WriteError
from medimg_edge.ssh_signature import PrivateKey, PublicKey, sign
from medimg_edge.trust import Trust, manifest_bytes, read_key
from medimg_edge.whole_file import SECRET, sync_folder, write_whole

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


@dataclass(frozen=True)
class Listed:
    """A key that is known here. status: ``trusted``, ``release`` or ``revoked``."""

    name: str
    fingerprint: str
    status: str


def new(name: str, folder: Path, passphrase: bytes | None = None) -> tuple[Path, PublicKey]:
    """Make ``NAME``, the private key, for its owner alone, and ``NAME.pub``.

    Raises WriteError where one is there already, KeyInvalid for a name that no file may have.
    """
    if name.endswith(".pub"):
        raise KeyInvalid(f"{name} is what a public key is called: leave out .pub.")
    private, public = folder / named(name), folder / f"{name}.pub"
    for each in (private, public):
        if os.path.lexists(each):
            raise WriteError(f"{each} is there already, and is kept. Name another key.")
    key = PrivateKey.new()
    write_whole(private, key.encode(passphrase), SECRET)
    write_whole(public, f"{key.public.line} {name}\n".encode())
    return private, key.public


def sign_bundle(
    folder: Path, private: Path, name: str | None = None, passphrase: bytes | None = None
) -> tuple[Path, PublicKey]:
    """Write ``signatures/NAME.sig`` into a bundle whose every file is as its manifest says.

    name: by default the key's file name. Raises what ``Bundle.open`` does, KeyInvalid, WriteError;
    SignatureInvalid where another signature there is of another manifest.
    """
    bundle = Bundle.open(folder)
    bundle.check_contents()
    key = PrivateKey.read(private, passphrase)
    place = bundle.path / SIGNATURES
    path = place / f"{named(name or private.stem)}{trust.SUFFIX}"
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise WriteError(f"{place} cannot be written: {error.strerror}.") from error
    manifest = manifest_bytes(bundle)
    write_whole(path, sign(manifest, key))
    _sync(place)
    try:
        Trust({}, frozenset()).standing(bundle.path, manifest)
    except SignatureInvalid as error:
        raise SignatureInvalid(
            f"{path} is written, and the bundle is refused all the same: {error} Or remove that "
            "file, if it is of an earlier export."
        ) from error
    return path, key.public


def trust_key(file: Path, name: str | None, folder: Path | None) -> tuple[Path, PublicKey]:
    """Put a public key into the folder of trusted ones, by its own name or another.

    Raises KeyInvalid (no key, or one that was withdrawn), WriteError.
    """
    key = read_key(file)
    place = _made(folder)
    if key.fingerprint in Trust.load(place).revoked:
        raise KeyInvalid(
            f"{key.fingerprint} was withdrawn. Take its line out of {place / trust.REVOKED} if it "
            "is to be trusted again."
        )
    called = named(name or file.stem)
    if called == trust.RELEASE_NAME and Trust.load(place).keys.get(called) != key:
        raise KeyInvalid(f"{called} is the name of the key of releases. Give another --name.")
    path = place / f"{called}.pub"
    if path.exists() and read_key(path) != key:
        raise WriteError(f"{path} is another key. Give --name, or remove that file.")
    write_whole(path, f"{key.line} {path.stem}\n".encode())
    _sync(place)
    return path, key


def revoke(key: str, folder: Path | None) -> str:
    """Withdraw a key, by its .pub file or its fingerprint; the fingerprint.

    Raises KeyInvalid, WriteError.
    """
    found = read_key(Path(key)).fingerprint if os.path.isfile(key) else trust.fingerprint(key)
    place = _made(folder)
    known = Trust.load(place).revoked
    if found not in known:
        path = place / trust.REVOKED
        try:
            before = path.read_text("utf-8") if path.exists() else ""
        except OSError as error:
            raise WriteError(f"{path} cannot be read: {error.strerror}.") from error
        ends = "" if not before or before.endswith("\n") else "\n"
        write_whole(path, f"{before}{ends}{found}\n".encode())
        _sync(place)
    return found


def listed(folder: Path | None) -> list[Listed]:
    """Every key that is known here, and those that are only known to be withdrawn."""
    found = Trust.load(folder)
    keys = {name: PublicKey(key.raw) for name, key in found.keys.items()}
    rows = [Listed(name, key.fingerprint, _status(name, key, found)) for name, key in keys.items()]
    named_ones = {each.fingerprint for each in rows}
    return rows + [Listed("", each, "revoked") for each in sorted(found.revoked - named_ones)]


def named(name: str) -> str:
    """A name that a file can have. Raises KeyInvalid."""
    if not _NAME.fullmatch(name):
        raise KeyInvalid(
            f"A key cannot be called {name[:80]!r}: letters, digits, '.', '_' and '-' are "
            "accepted, at most 60."
        )
    return name


def _status(name: str, key: PublicKey, found: Trust) -> str:
    if key.fingerprint in found.revoked:
        return "revoked"
    return "release" if name == trust.RELEASE_NAME else "trusted"


def _made(folder: Path | None) -> Path:
    place = folder or trust.default_folder()
    if place is None:
        raise WriteError("This user has no home for trusted keys: say where with --trusted DIR.")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{place} cannot be written: {error.strerror}.") from error
    return place


def _sync(folder: Path) -> None:
    try:
        sync_folder(folder)
    except OSError as error:
        raise WriteError(
            f"{folder} was written, but the disk does not confirm it: {error.strerror}."
        ) from error
