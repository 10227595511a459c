"""Signatures that ssh-keygen makes and checks, and everything that is none."""

import base64
import json
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as of
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from medimg_edge.errors import ExtraMissing, KeyInvalid, SignatureInvalid
from medimg_edge.ssh_signature import MAX_BYTES, NAMESPACE, PrivateKey, PublicKey, sign, signer

BEGIN, END = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the group of Ed25519: s + ORDER is the same s to a careless reader."""

with_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="ssh-keygen, of Debian's openssh-client, is missing"
)


def ssh_keygen(*words: object, message: bytes | None = None) -> str:
    done = subprocess.run(["ssh-keygen", *map(str, words)], input=message, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def made_by_ssh_keygen(folder: Path, kind: str = "ed25519") -> Path:
    ssh_keygen("-q", "-t", kind, "-N", "", "-C", f"a {kind} key", "-f", folder / kind)
    return folder / kind


def signed_by_ssh_keygen(
    key: Path, message: bytes, *options: str, namespace: str = "medimg-edge"
) -> bytes:
    """It takes the message from a file, and writes beside it."""
    path = key.with_name("message")
    path.write_bytes(message)
    path.with_suffix(".sig").unlink(missing_ok=True)
    ssh_keygen("-q", "-Y", "sign", "-f", key, "-n", namespace, *options, path)
    return path.with_suffix(".sig").read_bytes()


def accepted_by_ssh_keygen(folder: Path, key: PublicKey, message: bytes, armored: bytes) -> bool:
    (folder / "allowed_signers").write_text(f"medimg-edge {key.line}\n")
    (folder / "ours.sig").write_bytes(armored)
    words = ("-f", folder / "allowed_signers", "-I", "medimg-edge", "-n", "medimg-edge")
    done = subprocess.run(
        ["ssh-keygen", "-Y", "verify", *map(str, words), "-s", str(folder / "ours.sig")],
        input=message,
        capture_output=True,
    )
    assert (done.returncode == 0) == (b"Good" in done.stdout), done
    return done.returncode == 0


@pytest.fixture(scope="module")
def manifest(frozen: Path) -> bytes:
    return (frozen / "manifest.json").read_bytes()


@pytest.fixture(scope="module")
def key() -> PrivateKey:
    return PrivateKey.new()


@pytest.fixture(scope="module")
def armored(key: PrivateKey, manifest: bytes) -> bytes:
    return sign(manifest, key)


def refused(message: bytes, armored: bytes) -> bool:
    try:
        signer(message, armored)
    except SignatureInvalid:
        return True
    return False


def test_who_signed_is_found(key, manifest, armored):
    assert signer(manifest, armored) == key.public
    assert len(armored) < MAX_BYTES


@with_ssh_keygen
class TestBesideSshKeygen:
    def test_it_accepts_ours_and_refuses_a_changed_manifest(self, key, manifest, armored, tmp_path):
        assert accepted_by_ssh_keygen(tmp_path, key.public, manifest, armored)
        changed = manifest.replace(b'"version"', b'"Version"', 1)
        assert changed != manifest
        assert not accepted_by_ssh_keygen(tmp_path, key.public, changed, armored)
        assert not accepted_by_ssh_keygen(tmp_path, key.public, manifest + b"\n", armored)
        other = PrivateKey.new().public
        assert not accepted_by_ssh_keygen(tmp_path, other, manifest, armored)

    def test_the_two_write_the_same_bytes(self, manifest, tmp_path):
        """By one key, whether it lies in the one's file or in the other's."""
        theirs = made_by_ssh_keygen(tmp_path)
        read = PrivateKey.read(theirs)
        assert read.public == PublicKey.parse(theirs.with_suffix(".pub").read_text())
        found = signed_by_ssh_keygen(theirs, manifest)
        assert found == sign(manifest, read)
        assert signer(manifest, found) == read.public

        ours = tmp_path / "ours"
        ours.write_bytes(read.encode())
        ours.chmod(0o600)
        assert ssh_keygen("-y", "-f", ours).split()[:2] == read.public.line.split()
        assert signed_by_ssh_keygen(ours, manifest) == found

    def test_a_fingerprint_is_what_it_prints(self, tmp_path):
        path = made_by_ssh_keygen(tmp_path).with_suffix(".pub")
        assert PublicKey.parse(path.read_text()).fingerprint in ssh_keygen("-lf", path).split()

    @pytest.mark.parametrize("namespace", ["file", "git", "medimg-edge2", "Medimg-edge", "medimg"])
    def test_another_namespace(self, manifest, tmp_path, namespace):
        theirs = made_by_ssh_keygen(tmp_path)
        with pytest.raises(SignatureInvalid, match="another namespace"):
            signer(manifest, signed_by_ssh_keygen(theirs, manifest, namespace=namespace))

    def test_another_hash(self, manifest, tmp_path):
        theirs = made_by_ssh_keygen(tmp_path)
        found = signed_by_ssh_keygen(theirs, manifest, "-O", "hashalg=sha256")
        with pytest.raises(SignatureInvalid, match=r"another namespace, hash"):
            signer(manifest, found)

    @pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
    def test_another_kind_of_key(self, manifest, tmp_path, kind):
        theirs = made_by_ssh_keygen(tmp_path, kind)
        assert refused(manifest, signed_by_ssh_keygen(theirs, manifest))
        with pytest.raises(KeyInvalid, match="keys of ssh-ed25519 are accepted"):
            PublicKey.parse(theirs.with_suffix(".pub").read_text())
        with pytest.raises(KeyInvalid, match="no Ed25519 key"):
            PrivateKey.read(theirs)

    def test_a_key_with_a_passphrase(self, key, manifest, armored, tmp_path):
        """Each reads what the other encrypted."""
        pytest.importorskip("bcrypt", reason="bcrypt, of the sign extra, encrypts keys")
        theirs = made_by_ssh_keygen(tmp_path)
        ssh_keygen("-q", "-p", "-N", "a word", "-f", theirs)
        signature = sign(manifest, PrivateKey.read(theirs, b"a word"))
        assert signer(manifest, signature).line in theirs.with_suffix(".pub").read_text()

        ours = tmp_path / "ours"
        ours.write_bytes(key.encode(b"a word"))
        ours.chmod(0o600)
        assert key.public.line in ssh_keygen("-y", "-P", "a word", "-f", ours)
        assert sign(manifest, PrivateKey.read(ours, b"a word")) == armored
        for wrong in (None, b"another word", b""):
            with pytest.raises(KeyInvalid, match="--passphrase"):
                PrivateKey.read(ours, wrong)


class TestNoByteMayBeAnother:
    def test_of_the_signature(self, manifest, armored):
        """Every byte, as every other byte."""
        for at, byte in enumerate(armored):
            for other in range(256):
                if other != byte:
                    changed = armored[:at] + bytes([other]) + armored[at + 1 :]
                    assert refused(manifest, changed), (at, other)

    def test_none_is_added_or_left_out(self, manifest, armored):
        for at in range(len(armored) + 1):
            for extra in (b"\n", b"\r", b" ", b"=", b"A", b"\0"):
                changed = armored[:at] + extra + armored[at:]
                assert refused(manifest, changed) or changed == armored, (at, extra)
        for at in range(len(armored)):
            assert refused(manifest, armored[:at]), at
            assert refused(manifest, armored[at + 1 :]), at
            changed = armored[:at] + armored[at + 1 :]
            assert refused(manifest, changed), at

    def test_of_the_manifest(self, manifest, armored):
        """1000 places of it, the first and the last among them, one bit each."""
        drawn = random.Random(7)
        places = {0, len(manifest) - 1, *drawn.sample(range(len(manifest)), 998)}
        for at in places:
            changed = bytearray(manifest)
            changed[at] ^= 1 << drawn.randrange(8)
            assert refused(bytes(changed), armored), at

    def test_ends_of_lines(self, manifest, armored):
        in_lines = json.dumps(json.loads(manifest), indent=1).encode() + b"\n"
        signature = sign(in_lines, PrivateKey.new())
        assert not refused(in_lines, signature)
        for message in (in_lines[:-1], in_lines + b"\n", in_lines.replace(b"\n", b"\r\n")):
            assert refused(message, signature)
        for form in (
            armored.replace(b"\n", b"\r\n"),
            armored.replace(b"\n", b"\r"),
            armored.rstrip(b"\n"),
            armored + b"\n",
            b"\n" + armored,
            b"\xef\xbb\xbf" + armored,
            armored + armored,
            armored.lower(),
            armored.decode().encode("utf-16"),
        ):
            assert refused(manifest, form), form

    @pytest.mark.parametrize("columns", [1, 64, 69, 71, 76, 1000])
    def test_columns(self, manifest, armored, columns):
        text = b"".join(armored.splitlines()[1:-1])
        lines = [text[at : at + columns] + b"\n" for at in range(0, len(text), columns)]
        with pytest.raises(SignatureInvalid, match="form"):
            signer(manifest, BEGIN + b"".join(lines) + END)


def string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def armor(blob: bytes) -> bytes:
    text = base64.b64encode(blob)
    lines = [text[at : at + 70] + b"\n" for at in range(0, len(text), 70)]
    return BEGIN + b"".join(lines) + END


def blob(public: PublicKey, raw: bytes, **parts: bytes) -> bytes:
    """The parts of a signature by their names in OpenSSH's description."""
    given = {
        "magic": b"SSHSIG",
        "version": struct.pack(">I", 1),
        "publickey": string(string(b"ssh-ed25519") + string(public.raw)),
        "namespace": string(NAMESPACE),
        "reserved": string(b""),
        "hash_algorithm": string(b"sha512"),
        "signature": string(string(b"ssh-ed25519") + string(raw)),
        "more": b"",
    }
    return b"".join((given | parts).values())


def raw_signature(armored: bytes) -> bytes:
    return base64.b64decode(b"".join(armored.splitlines()[1:-1]))[-64:]


def test_the_blob_is_as_described(key, manifest, armored):
    """So that what the next tests change is what they say."""
    assert armor(blob(key.public, raw_signature(armored))) == armored


@pytest.mark.parametrize(
    "parts",
    [
        {"magic": b"SSHSIH"},
        {"magic": b""},
        {"version": struct.pack(">I", 0)},
        {"version": struct.pack(">I", 2)},
        {"version": struct.pack(">I", 2**32 - 1)},
        {"reserved": string(b"x")},
        {"namespace": string(b"")},
        {"namespace": string(NAMESPACE + b"\0")},
        {"namespace": struct.pack(">I", 2**32 - 1) + NAMESPACE},
        {"hash_algorithm": string(b"sha256")},
        {"hash_algorithm": string(b"md5")},
        {"signature": string(string(b"ssh-ed25519"))},
        {"signature": string(string(b"ssh-ed25519") + string(bytes(63)))},
        {"signature": string(string(b"ssh-ed25519") + string(bytes(65)))},
        {"publickey": string(string(b"ssh-ed25519") + string(b""))},
        {"publickey": string(string(b"ssh-ed25519") + string(bytes(31)))},
        {"publickey": string(b"")},
        {"more": string(b"")},
        {"more": b"\0"},
        {"more": b"\0" * 3000},
    ],
    ids=str,
)
def test_another_part(key, manifest, armored, parts):
    with pytest.raises(SignatureInvalid, match="no signature of a bundle"):
        signer(manifest, armor(blob(key.public, raw_signature(armored), **parts)))


def test_types_inside_are_read(key, manifest, armored):
    """A key or a signature that says it is of another type, with the right bytes in it."""
    raw = raw_signature(armored)
    for kind in (b"ssh-rsa", b"sk-ssh-ed25519@openssh.com", b"ssh-ed25519-cert-v01@openssh.com"):
        for parts in (
            {"publickey": string(string(kind) + string(key.public.raw))},
            {"signature": string(string(kind) + string(raw))},
        ):
            assert refused(manifest, armor(blob(key.public, raw, **parts)))


def test_one_signature_has_one_form(key, manifest, armored):
    """s + the group's order solves the same equation; RFC 8032 has only the smaller one."""
    raw = raw_signature(armored)
    s = int.from_bytes(raw[32:], "little") + ORDER
    twin = raw[:32] + s.to_bytes(32, "little")
    with pytest.raises(SignatureInvalid, match="not of this bundle"):
        signer(manifest, armor(blob(key.public, twin)))


def test_a_signature_beside_another_key(key, manifest, armored):
    other = PrivateKey.new().public
    with pytest.raises(SignatureInvalid, match="not of this bundle"):
        signer(manifest, armor(blob(other, raw_signature(armored))))
    no_point = PublicKey(b"\xff" * 32)
    assert refused(manifest, armor(blob(no_point, raw_signature(armored))))


def test_the_bare_message_is_not_what_is_signed(key, manifest):
    """A signature that the key made of the bytes themselves, for another purpose."""
    assert refused(manifest, armor(blob(key.public, key.sign(manifest))))


def test_a_large_one_is_refused(manifest, armored):
    assert refused(manifest, armored + b"\n" * MAX_BYTES)
    assert refused(manifest, armor(blob(PublicKey(bytes(32)), bytes(2**20))))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=5000))
def test_arbitrary_bytes(data):
    with pytest.raises(SignatureInvalid):
        signer(b"message", data)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 4), st.booleans())
def test_arbitrary_bytes_in_the_armour(data, start, counted):
    """After the magic, the version, and so on; as one string, or as they are."""
    head = (b"", b"SSHSIG", b"SSHSIG\0\0\0\1", b"SSHSIG\0\0\0\1\0\0\0\x33", b"SSHSIG\0\0\0\2")[
        start
    ]
    with pytest.raises(SignatureInvalid):
        signer(b"message", armor(head + (string(data) if counted else data)))


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("publickey", "namespace", "reserved", "hash_algorithm", "signature"),
            st.binary(max_size=80).map(string),
        ),
    )
)
def test_arbitrary_parts(parts):
    whole = blob(PublicKey(bytes(32)), bytes(64), **parts)
    with pytest.raises(SignatureInvalid):
        signer(b"message", armor(whole))


def small_order() -> list[bytes]:
    """Every encoding of the points of edwards25519 that 8 times themselves are nothing.

    By the curve's equation, -x^2 + y^2 = 1 + d x^2 y^2, and its doubling, in RFC 8032.
    """
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p

    def root(square: int) -> int | None:
        x = pow(square, (p + 3) // 8, p)
        x = x if x * x % p == square % p else x * pow(2, (p - 1) // 4, p) % p
        return x if x * x % p == square % p else None

    def doubled(x: int, y: int) -> tuple[int, int]:
        both = d * x * x * y * y
        return (
            2 * x * y * pow(1 + both, -1, p) % p,
            (y * y + x * x) * pow(1 - both, -1, p) % p,
        )

    # of doubled(x, y) y is 0, as of every point of order 4, for x^2 = -y^2: d y^4 + 2 y^2 = 1
    inner = root(1 + d)
    assert inner is not None
    squares = [(sign * inner - 1) * pow(d, -1, p) % p for sign in (1, -1)]
    eighth = next(y for y in map(root, squares) if y is not None)
    found = []
    for y in (0, 1, p - 1, eighth, p - eighth):
        x = root((y * y - 1) * pow(d * y * y + 1, -1, p) % p)
        assert x is not None
        assert doubled(*doubled(*doubled(x, y))) == (0, 1)
        forms = [form for form in (y, y + p) if form < 2**255]
        found += [(form | side << 255).to_bytes(32, "little") for form in forms for side in (0, 1)]
    return found


@pytest.mark.parametrize("raw", small_order(), ids=bytes.hex)
def test_keys_by_which_anybody_signs(raw):
    """Of some of these messages each of them has a signature of zeros, if it is let through."""
    weak = PublicKey(raw)
    with pytest.raises(KeyInvalid, match="Anybody can sign"):
        PublicKey.parse(weak.line)
    for nonce in (raw, (1).to_bytes(32, "little")):
        armored = armor(blob(weak, nonce + bytes(32)))
        assert all(refused(bytes([number]), armored) for number in range(64))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_a_signature_is_of_one_message(one, other):
    key = PrivateKey.new()
    assert signer(one, sign(one, key)) == key.public
    assert refused(other, sign(one, key)) == (one != other)


class TestPublicKey:
    def test_a_line_is_read_as_it_is_written(self, key):
        for line in (
            key.public.line,
            f"{key.public.line} a comment of several words\n",
            f"  {key.public.line}\r\n",
            f"\n{key.public.line}\n\n",
        ):
            assert PublicKey.parse(line) == key.public

    def test_two_keys_are_not_taken_for_one(self, key):
        """Else the second would be neither trusted nor withdrawn, and nobody told."""
        two = f"{key.public.line}\n{PrivateKey.new().public.line}\n"
        with pytest.raises(KeyInvalid, match="single line"):
            PublicKey.parse(two)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "ssh-ed25519",
            "ssh-ed25519 ",
            "ssh-ed25519 AAAA",
            "ssh-ed25519 ????",
            "ssh-ed25519 \u00e4\u00f6",
            "AAAAC3NzaC1lZDI1NTE5AAAAILun1GUYeVX27a1EyHIPqjkZsDwskhsyWFzlM+iP9JfU",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAILun1GUYeVX27a1EyHIPqjkZsDwskhsyWFzlM+iP9JfU",
            'from="*" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILun1GUYeVX27a1EyHIPqjkZsDwskhsyWFzlM',
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        ],
    )
    def test_what_is_none(self, text):
        with pytest.raises(KeyInvalid, match="ssh-ed25519"):
            PublicKey.parse(text)

    @settings(max_examples=300, deadline=None)
    @given(st.one_of(st.text(), st.binary().map(lambda data: base64.b64encode(data).decode())))
    def test_arbitrary_text(self, text):
        for line in (text, f"ssh-ed25519 {text}", f"ssh-ed25519 {text} x"):
            with pytest.raises(KeyInvalid):
                PublicKey.parse(line)


class TestPrivateKey:
    def test_of_pkcs8(self, manifest, tmp_path):
        """As openssl writes it, encrypted or not."""
        made = Ed25519PrivateKey.generate()
        for word in (None, b"a word"):
            encryption = of.BestAvailableEncryption(word) if word else of.NoEncryption()
            path = tmp_path / "key.pem"
            path.write_bytes(
                made.private_bytes(of.Encoding.PEM, of.PrivateFormat.PKCS8, encryption)
            )
            public = signer(manifest, sign(manifest, PrivateKey.read(path, word)))
            assert public.raw == made.public_key().public_bytes_raw()

    def test_it_is_not_shown(self, key):
        secret = key._key.private_bytes_raw()
        assert secret.hex() not in repr(key)
        assert str(secret) not in repr(key)

    def test_what_is_none(self, key, tmp_path):
        path = tmp_path / "key"
        with pytest.raises(KeyInvalid, match="cannot be read: No such file"):
            PrivateKey.read(path)
        with pytest.raises(KeyInvalid, match="cannot be read: Is a directory"):
            PrivateKey.read(tmp_path)
        whole = key.encode()
        for data in (
            b"",
            b"text",
            f"{key.public.line}\n".encode(),
            whole[:200],
            whole.replace(b"A", b"B", 1),
            whole.replace(b"OPENSSH PRIVATE", b"RSA PRIVATE"),
            b"-----BEGIN OPENSSH PRIVATE KEY-----\n" * 100_000,
        ):
            path.write_bytes(data)
            with pytest.raises(KeyInvalid, match="no private key that can be used here"):
                PrivateKey.read(path)

    @pytest.mark.parametrize("length", [0, 1024])
    def test_a_passphrase_of_another_length(self, key, length):
        with pytest.raises(KeyInvalid, match=f"has {length} bytes; 1 to 1023 are accepted"):
            key.encode(b"x" * length)


class TestWithoutThePackages:
    """In a process where the import of a package fails."""

    def run(self, absent: str, program: str, *arguments: object) -> str:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"import sys; sys.modules[{absent!r}] = None\n"
                "from pathlib import Path\n"
                "from medimg_edge.errors import *\n"
                "from medimg_edge.ssh_signature import *\n"
                f"try: {program}\n"
                "except MedimgEdgeError as error: print(type(error).__name__, error)",
                *map(str, arguments),
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def test_no_cryptography(self, manifest, armored, tmp_path):
        path = tmp_path / "a.sig"
        path.write_bytes(armored)
        check = "signer(b'x', Path(sys.argv[1]).read_bytes())"
        said = self.run("cryptography", check, path)
        assert said.startswith(f"{ExtraMissing.__name__} Signatures need the package cryptography")
        assert "pip install cryptography" in said
        assert self.run("cryptography", "PrivateKey.new()").startswith(ExtraMissing.__name__)
        said = self.run("cryptography", "PrivateKey.read(Path(sys.argv[1]))", path)
        assert said.startswith(ExtraMissing.__name__)

    def test_no_bcrypt(self, tmp_path):
        said = self.run("bcrypt", "PrivateKey.new().encode(b'a word')")
        assert said.startswith(ExtraMissing.__name__)
        assert "pip install bcrypt" in said
        assert self.run("bcrypt", "PrivateKey.new().encode()") == ""
        pytest.importorskip("bcrypt", reason="bcrypt, of the sign extra, encrypts keys")
        path = tmp_path / "key"
        path.write_bytes(PrivateKey.new().encode(b"a word"))
        said = self.run("bcrypt", "PrivateKey.read(Path(sys.argv[1]), b'a word')", path)
        assert said.startswith(KeyInvalid.__name__)
        assert "the package bcrypt" in said
