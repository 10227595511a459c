"""Whose bundles may answer here: a folder of public keys with names, and what was withdrawn.

A folder holds ``NAME.pub`` files, one key of OpenSSH each, and ``revoked``, a text with one
fingerprint on a line. The key that releases of medimg-edge are signed with is always trusted,
unless it is revoked; no other key may have its name.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medimg_edge import models, state
from medimg_edge.bundle import MANIFEST, MAX_MANIFEST_BYTES, SIGNATURES, Bundle
from medimg_edge.errors import (
    FilesDiffer,
    KeyInvalid,
    SignatureInvalid,
    SignatureMissing,
    SignerRevoked,
    SignerUnknown,
)

if TYPE_CHECKING:
    from medimg_edge.ssh_signature import PublicKey

RELEASE = models.FOLDER / "release.pub"
RELEASE_NAME = "medimg-edge"
REVOKED = "revoked"
SUFFIX = ".sig"
MAX_SIGNATURES = 16
MAX_REVOKED_BYTES = 2**20

_NAME = re.compile(r"[A-Za-z0-9._-]{1,60}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@dataclass(frozen=True)
class Standing:
    """Who signed a bundle, as far as it matters here. name: of a trusted key."""

    status: Literal["trusted", "unknown", "revoked", "unsigned"]
    name: str | None = None
    fingerprint: str | None = None

    @property
    def sentence(self) -> str:
        """For a person."""
        return {
            "trusted": f"Signed by {self.name} ({self.fingerprint}).",
            "unknown": f"Signed by a key that is not trusted here ({self.fingerprint}).",
            "revoked": f"Signed by a key that was withdrawn ({self.fingerprint}).",
            "unsigned": "Not signed: nobody vouches for it.",
        }[self.status]


@dataclass(frozen=True)
class Trust:
    """The keys that are trusted, by name, and the fingerprints of those that are not any more."""

    keys: dict[str, PublicKey]
    revoked: frozenset[str]

    @classmethod
    def load(cls, folder: Path | None = None) -> Trust:
        """The keys of a folder, by default ``default_folder``; and that of releases.

        The default folder need not exist. Raises KeyInvalid.
        """
        named = folder or default_folder()
        release = {RELEASE_NAME: read_key(RELEASE)} if RELEASE.exists() else {}
        if named is None:
            return cls(release, frozenset())
        try:
            every = sorted(named.iterdir())
        except OSError as error:
            if folder is None and _is_absent(named, error):
                return cls(release, frozenset())
            raise KeyInvalid(
                f"{named} is no folder of keys that can be read: {error.strerror}. Make it, and "
                "put NAME.pub files in."
            ) from error
        _require_no_other_list(every)
        keys = {each.stem: read_key(each) for each in every if each.suffix == ".pub"}
        if keys.get(RELEASE_NAME) not in (None, release.get(RELEASE_NAME)):
            raise KeyInvalid(
                f"{named / RELEASE_NAME}.pub has the name of the key of releases, and is another "
                "key. Rename the file to what its owner is called, or remove it."
            )
        return cls(release | keys, frozenset(_revoked(named / REVOKED)))

    def standing(self, folder: Path, manifest: bytes) -> Standing:
        """What the signatures in a bundle's folder say of the bytes of its manifest.

        Raises SignatureInvalid where one is not of these bytes, or something else lies among them.
        """
        names = {key: name for name, key in self.keys.items()}
        signers = [_signer(manifest, *each) for each in signatures(folder)]
        for key in signers:
            if key.fingerprint in self.revoked:
                return Standing("revoked", None, key.fingerprint)
        for key in signers:
            if key in names:
                return Standing("trusted", names[key], key.fingerprint)
        if signers:
            return Standing("unknown", None, signers[0].fingerprint)
        return Standing("unsigned")


def default_folder() -> Path | None:
    """Where this user's trusted keys lie; None for a user without a home."""
    kept = state.folder()
    return None if kept is None else kept / "trusted"


def require(bundle: Bundle, trust: Trust, *, allow_unsigned: bool = False) -> Standing:
    """Refuse a bundle that nobody vouches for who is trusted here.

    allow_unsigned: take one without a signature, or by an unknown key; never one whose signature
        is wrong or withdrawn.

    Raises SignatureMissing, SignerUnknown, SignerRevoked, SignatureInvalid, FilesDiffer.
    """
    found = trust.standing(bundle.path, manifest_bytes(bundle))
    if found.status == "revoked":
        raise SignerRevoked(
            f"{bundle.manifest.name} is signed by {found.fingerprint}, a key that was withdrawn. "
            "Do not use the bundle; ask its maker for one that is signed anew."
        )
    if allow_unsigned or found.status == "trusted":
        return found
    if found.status == "unknown":
        raise SignerUnknown(
            f"{bundle.manifest.name} is signed by {found.fingerprint}, which is not trusted here. "
            "Compare that with what its maker tells, then `medimg-edge keys trust FILE.pub`; or "
            "say --allow-unsigned."
        )
    raise SignatureMissing(
        f"{bundle.manifest.name} is not signed. `medimg-edge sign` signs it where it is made; or "
        "say --allow-unsigned, and vouch for it yourself."
    )


def doubt(bundle: Bundle) -> str | None:
    """What is to be said before a bundle answers on a workstation; None where it is trusted.

    What came with this program, and what was installed, was checked then, and is checked again only
    where keys were withdrawn.
    Raises SignerRevoked, SignatureInvalid, KeyInvalid.
    """
    home = state.folder()
    known = (models.FOLDER, *((home / "bundles",) if home else ()))
    if any(bundle.path.resolve().is_relative_to(each.resolve()) for each in known):
        keys = default_folder()
        if keys is not None and any(_revoked(keys / REVOKED)):
            require(bundle, Trust.load(), allow_unsigned=True)
        return None
    name = bundle.manifest.name
    if not (bundle.path / SIGNATURES).exists():
        return f"{name} is not signed: nobody vouches for it."
    if require(bundle, Trust.load(), allow_unsigned=True).status == "unknown":
        return f"{name} is signed by a key that is not trusted here; see `medimg-edge keys`."
    return None


def manifest_bytes(bundle: Bundle) -> bytes:
    """The very bytes that a bundle was opened by. Raises FilesDiffer."""
    try:
        with (bundle.path / MANIFEST).open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise FilesDiffer(f"{MANIFEST} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(data).hexdigest() != bundle.hash:
        raise FilesDiffer(f"{MANIFEST} was changed since the bundle was opened. Start again.")
    return data


def signatures(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a bundle's signature files, by name. Raises SignatureInvalid."""
    place = folder / SIGNATURES
    try:
        if not stat.S_ISDIR(place.lstat().st_mode):
            raise SignatureInvalid(f"{SIGNATURES} is no folder; only signatures may lie there.")
        files = sorted(islice(place.iterdir(), MAX_SIGNATURES + 1))
    except FileNotFoundError:
        return
    except OSError as error:
        raise SignatureInvalid(f"{SIGNATURES} cannot be read: {error.strerror}.") from error
    if len(files) > MAX_SIGNATURES:
        raise SignatureInvalid(
            f"There are more than {MAX_SIGNATURES} files in {SIGNATURES}, which is the most that "
            "is accepted. Keep those of the keys that matter."
        )
    for file in files:
        yield file.name, _signature(file)


def _signer(manifest: bytes, name: str, armored: bytes) -> PublicKey:
    from medimg_edge.ssh_signature import signer

    try:
        return signer(manifest, armored)
    except SignatureInvalid as error:
        raise SignatureInvalid(f"{SIGNATURES}/{name}: {error}") from error


def _signature(file: Path) -> bytes:
    from medimg_edge.ssh_signature import MAX_BYTES

    if file.suffix != SUFFIX or not _NAME.fullmatch(file.stem):
        raise SignatureInvalid(
            f"{SIGNATURES}/{file.name[:80]} is no signature: NAME.sig files are accepted."
        )
    try:
        if not stat.S_ISREG(file.lstat().st_mode):
            raise SignatureInvalid(f"{SIGNATURES}/{file.name} is a link or a device.")
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise SignatureInvalid(
            f"{SIGNATURES}/{file.name} cannot be read: {error.strerror}."
        ) from error


def read_key(path: Path) -> PublicKey:
    """A .pub file. Raises KeyInvalid."""
    from medimg_edge.ssh_signature import MAX_BYTES, PublicKey

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise KeyInvalid(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise KeyInvalid(f"{path} is no public key: it has more than {MAX_BYTES} bytes.")
    try:
        return PublicKey.parse(data.decode(errors="replace"))
    except KeyInvalid as error:
        raise KeyInvalid(f"{path}: {error}") from error


def fingerprint(text: str) -> str:
    """A fingerprint as it is written in ``revoked``. Raises KeyInvalid."""
    if not _FINGERPRINT.fullmatch(text):
        raise KeyInvalid(
            f"{text[:80]!r} is no fingerprint: SHA256: and 43 letters are accepted, as "
            "`medimg-edge keys list` and `ssh-keygen -lf` print them."
        )
    return text


def _require_no_other_list(files: list[Path]) -> None:
    """Some editors add an ending, and a key that was withdrawn in such a file must not be used."""
    for each in files:
        if each.name != REVOKED and each.name.casefold() in (REVOKED, f"{REVOKED}.txt"):
            raise KeyInvalid(f"{each} is not read: call it {REVOKED}, without an ending.")


def _revoked(path: Path) -> Iterator[str]:
    """A line that is none is refused: a key that was meant must not stay trusted."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_REVOKED_BYTES + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        if _is_absent(path, error):
            return
        raise KeyInvalid(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}. Until it can be, "
            "nobody knows which keys were withdrawn."
        ) from error
    if len(data) > MAX_REVOKED_BYTES:
        raise KeyInvalid(f"{path} has more than {MAX_REVOKED_BYTES} bytes, which are not read.")
    for line in text.splitlines():
        if told := line.partition("#")[0].strip():
            yield fingerprint(told)


def _is_absent(path: Path, error: Exception) -> bool:
    """Whether there is nothing; a link that leads nowhere, as to a stick, is not that."""
    return isinstance(error, FileNotFoundError) and not path.is_symlink()
