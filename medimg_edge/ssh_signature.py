"""Signatures as OpenSSH makes them, by Ed25519: ``ssh-keygen -Y verify`` checks them, too.

OpenSSH, PROTOCOL.sshsig: the namespace keeps a signature from meaning something elsewhere; what is
signed is the SHA-512 of the message. Of the many ways to write one signature down, the one that
ssh-keygen writes is accepted, so that no byte of a signature file may be another.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from medimg_edge.errors import ExtraMissing, KeyInvalid, SignatureInvalid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAMESPACE = b"medimg-edge"
MAX_BYTES = 4096
"""Of a signature or a key: an Ed25519 one has some hundred."""
MAX_PASSPHRASE_BYTES = 1023
"""What the library takes."""

_TYPE, _HASH, _MAGIC, _VERSION = b"ssh-ed25519", b"sha512", b"SSHSIG", 1
_BEGIN, _END = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
_COLUMNS = 70
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64

_P = 2**255 - 19
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset({0, 1, _P - 1, _P, _P + 1, _ORDER_8, _P - _ORDER_8})
"""y of the points of order 1, 2, 4 and 8 of edwards25519, in every form that 255 bits have."""


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 key: who may sign. ``raw`` are its 32 bytes."""

    raw: bytes

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """The one line of a .pub file: ``ssh-ed25519 AAAA... comment``. Raises KeyInvalid."""
        try:
            (line,) = text.strip().splitlines()
            said, encoded = line.split()[:2]
            kind, *values = _read_strings(base64.b64decode(encoded, validate=True))
            if said.encode() != kind:
                raise ValueError("two types")
        except ValueError as error:  # binascii.Error and UnicodeError are some
            raise KeyInvalid(
                "This is not one public key of OpenSSH: a single line `ssh-ed25519 AAAA...` is "
                "accepted, as in the .pub file that `medimg-edge keys new` writes."
            ) from error
        if kind != _TYPE or len(values) != 1 or len(values[0]) != _KEY_BYTES:
            raise KeyInvalid(
                f"The key is of the type {said[:30]!r}; whole keys of ssh-ed25519 are accepted. "
                "Make one with `medimg-edge keys new` or `ssh-keygen -t ed25519`."
            )
        key = cls(values[0])
        if key.is_weak:
            raise KeyInvalid("Anybody can sign by this key: it is no key that a program has made.")
        return key

    @property
    def is_weak(self) -> bool:
        """Whether it is a point of small order, for which signatures are found by guessing."""
        return int.from_bytes(self.raw, "little") & (2**255 - 1) in _SMALL_ORDER

    @property
    def line(self) -> str:
        """As a .pub file has it, without a comment."""
        return f"{_TYPE.decode()} {base64.b64encode(self._blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -lf`` prints it."""
        digest = base64.b64encode(hashlib.sha256(self._blob).digest()).decode()
        return f"SHA256:{digest.rstrip('=')}"

    @property
    def _blob(self) -> bytes:
        return _string(_TYPE) + _string(self.raw)


@dataclass(frozen=True)
class PrivateKey:
    """Who signs. Never written to a log, a bundle or the repository."""

    _key: Ed25519PrivateKey

    @classmethod
    def new(cls) -> PrivateKey:
        """Raises ExtraMissing."""
        return cls(_ed25519().Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path, passphrase: bytes | None = None) -> PrivateKey:
        """From a file of OpenSSH or PKCS #8; the former, encrypted, needs the package bcrypt.

        Raises KeyInvalid, ExtraMissing.
        """
        ed25519, serialization = _ed25519(), _serialization()
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            is_pem = b"OPENSSH" not in data
            load = (
                serialization.load_pem_private_key if is_pem else serialization.load_ssh_private_key
            )
            key = load(data, passphrase)
        except OSError as error:
            raise KeyInvalid(f"{path} cannot be read: {error.strerror}.") from error
        except Exception as error:  # ValueError, TypeError, UnsupportedAlgorithm
            raise KeyInvalid(
                f"{path} is no private key that can be used here: "
                f"{(str(error) or type(error).__name__).splitlines()[0].rstrip('.')}. Keys of "
                "`medimg-edge keys new` and Ed25519 keys of ssh-keygen are accepted; one with a "
                "passphrase needs --passphrase or --passphrase-file, and the package bcrypt."
            ) from error
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise KeyInvalid(f"{path} is no Ed25519 key. `medimg-edge keys new` makes one.")
        return cls(key)

    @property
    def public(self) -> PublicKey:
        """What others check by."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    def encode(self, passphrase: bytes | None = None) -> bytes:
        """As OpenSSH writes a key; with a passphrase, encrypted, which needs the package bcrypt.

        Not as PKCS #8: the library derives that one's key so quickly that guessing a passphrase is
        cheap, and older releases of ssh-keygen do not read it. passphrase: 1 to 1023 bytes.

        Raises KeyInvalid, ExtraMissing.
        """
        of = _serialization()
        encryption = of.NoEncryption()
        if passphrase is not None:
            _require_passphrase(passphrase)
            encryption = of.BestAvailableEncryption(passphrase)
        return self._key.private_bytes(of.Encoding.PEM, of.PrivateFormat.OpenSSH, encryption)

    def sign(self, message: bytes) -> bytes:
        """Any bytes -> their 64 bytes of Ed25519."""
        return self._key.sign(message)


def sign(message: bytes, key: PrivateKey) -> bytes:
    """Any bytes -> the text of a signature file, about 300 bytes."""
    return _armored(key.public, key.sign(_signed(message)))


def signer(message: bytes, armored: bytes) -> PublicKey:
    """Who signed exactly this message. Raises SignatureInvalid, ExtraMissing."""
    key, signature = _parsed(armored)
    from_raw = _ed25519().Ed25519PublicKey.from_public_bytes
    try:
        from_raw(key.raw).verify(signature, _signed(message))
    except Exception as error:  # InvalidSignature, and ValueError for what is no key
        raise SignatureInvalid(
            "The signature is not of this bundle: it, or the bundle's manifest, was changed. Copy "
            "the bundle anew from where it came."
        ) from error
    return key


def _parsed(armored: bytes) -> tuple[PublicKey, bytes]:
    """The key and the signature of a file; only of one that is written as ssh-keygen does."""
    try:
        if len(armored) > MAX_BYTES:
            raise ValueError("too long")
        body = armored.removeprefix(_BEGIN).removesuffix(_END).replace(b"\n", b"")
        blob = base64.b64decode(body, validate=True)
        version = struct.pack(">I", _VERSION)
        if not blob.startswith(_MAGIC + version):
            raise ValueError("no signature of OpenSSH")
        found = _strings(blob[len(_MAGIC + version) :], 5)
        key = PublicKey(_strings(found[0], 2)[1])
        signature = _strings(found[4], 2)[1]
        if len(key.raw) != _KEY_BYTES or len(signature) != _SIGNATURE_BYTES or key.is_weak:
            raise ValueError("no Ed25519")
        if _armored(key, signature) != armored:
            raise ValueError("another namespace, hash, type or form")
    except ValueError as error:  # binascii.Error is one
        raise SignatureInvalid(
            f"This is no signature of a bundle ({error}): one by Ed25519 in the namespace "
            f"{NAMESPACE.decode()} is accepted, as `medimg-edge sign` writes it."
        ) from error
    return key, signature


def _signed(message: bytes) -> bytes:
    digest = hashlib.sha512(message).digest()
    return _MAGIC + b"".join(map(_string, (NAMESPACE, b"", _HASH, digest)))


def _armored(key: PublicKey, signature: bytes) -> bytes:
    parts = (
        *(_string(_TYPE) + _string(key.raw), NAMESPACE, b"", _HASH),
        _string(_TYPE) + _string(signature),
    )
    blob = _MAGIC + struct.pack(">I", _VERSION) + b"".join(map(_string, parts))
    text = base64.b64encode(blob)
    lines = [text[at : at + _COLUMNS] + b"\n" for at in range(0, len(text), _COLUMNS)]
    return _BEGIN + b"".join(lines) + _END


def _string(value: bytes) -> bytes:
    """RFC 4251, section 5."""
    return struct.pack(">I", len(value)) + value


def _strings(data: bytes, count: int) -> list[bytes]:
    """All of ``data`` as so many strings. Raises ValueError."""
    found = [*_read_strings(data)]
    if len(found) != count:
        raise ValueError("another number of fields")
    return found


def _read_strings(data: bytes) -> Iterator[bytes]:
    while data:
        if len(data) < 4:
            raise ValueError("it ends inside of a field")
        length = struct.unpack(">I", data[:4])[0]
        if length > len(data) - 4:
            raise ValueError("it ends inside of a field")
        yield data[4 : 4 + length]
        data = data[4 + length :]


def _ed25519():
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise _missing(error) from error
    return ed25519


def _serialization():
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise _missing(error) from error
    return serialization


def _require_passphrase(passphrase: bytes) -> None:
    if not 0 < len(passphrase) <= MAX_PASSPHRASE_BYTES:
        raise KeyInvalid(
            f"The passphrase has {len(passphrase)} bytes; 1 to {MAX_PASSPHRASE_BYTES} are "
            "accepted. Leave it out for a key that is not encrypted."
        )
    if find_spec("bcrypt") is None:
        raise ExtraMissing("A key with a passphrase needs the package bcrypt: pip install bcrypt")


def _missing(error: ImportError) -> ExtraMissing:
    return ExtraMissing(
        f"Signatures need the package cryptography, which cannot be loaded ({error}): "
        "pip install cryptography"
    )
