"""Who signed a bundle, who is trusted, and what lies among signatures that is none."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from medimg_edge import models, trust
from medimg_edge.bundle import Bundle, walk
from medimg_edge.errors import (
    BundleError,
    FilesDiffer,
    KeyInvalid,
    SignatureInvalid,
    SignatureMissing,
    SignerRevoked,
    SignerUnknown,
)
from medimg_edge.ssh_signature import PrivateKey, sign
from medimg_edge.trust import Standing, Trust, doubt, require

CLINIC, MAKER, STRANGER = PrivateKey.new(), PrivateKey.new(), PrivateKey.new()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder in which two keys are trusted."""
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "clinic.pub").write_text(f"{CLINIC.public.line} the clinic's\n")
    (folder / "maker.pub").write_text(f"{MAKER.public.line}\n")
    return folder


@pytest.fixture
def release(tmp_path: Path, monkeypatch) -> PrivateKey:
    """The key of releases, as if the package had come with its public half."""
    key, path = PrivateKey.new(), tmp_path / "release.pub"
    path.write_text(f"{key.public.line}\n")
    monkeypatch.setattr(trust, "RELEASE", path)
    return key


def signed(bundle: Path, **keys: PrivateKey) -> Path:
    (bundle / "signatures").mkdir(exist_ok=True)
    for name, key in keys.items():
        signature = sign((bundle / "manifest.json").read_bytes(), key)
        (bundle / "signatures" / f"{name}.sig").write_bytes(signature)
    return bundle


def revoke(keys: Path, *withdrawn: PrivateKey) -> None:
    lines = [f"{key.public.fingerprint}  # lost\n" for key in withdrawn]
    (keys / "revoked").write_text("# withdrawn keys\n\n" + "".join(lines))


def standing(bundle: Path, keys: Path) -> Standing:
    return Trust.load(keys).standing(bundle, (bundle / "manifest.json").read_bytes())


class TestStanding:
    def test_nobody(self, bundle, keys):
        assert standing(bundle, keys) == Standing("unsigned")
        (bundle / "signatures").mkdir()
        assert standing(bundle, keys) == Standing("unsigned")
        assert Standing("unsigned").sentence == "Not signed: nobody vouches for it."

    def test_a_trusted_key(self, bundle, keys):
        found = standing(signed(bundle, someone=MAKER), keys)
        assert found == Standing("trusted", "maker", MAKER.public.fingerprint)
        assert found.sentence == f"Signed by maker ({MAKER.public.fingerprint})."

    def test_an_unknown_key(self, bundle, keys):
        """Whatever the file is called: a name is the clinic's word for a key, not the stick's."""
        found = standing(signed(bundle, clinic=STRANGER), keys)
        assert found == Standing("unknown", None, STRANGER.public.fingerprint)
        assert STRANGER.public.fingerprint in found.sentence

    def test_one_that_is_trusted_is_enough(self, bundle, keys):
        found = standing(signed(bundle, a=STRANGER, b=CLINIC), keys)
        assert found == Standing("trusted", "clinic", CLINIC.public.fingerprint)

    @pytest.mark.parametrize("names", ["ab", "ba"])
    def test_one_that_is_withdrawn_is_too_many(self, bundle, keys, names):
        revoke(keys, MAKER)
        found = standing(signed(bundle, **dict(zip(names, (CLINIC, MAKER), strict=True))), keys)
        assert found == Standing("revoked", None, MAKER.public.fingerprint)
        assert "withdrawn" in found.sentence

    def test_one_that_was_never_trusted_can_be_withdrawn(self, bundle, keys):
        revoke(keys, STRANGER)
        assert standing(signed(bundle, a=STRANGER), keys).status == "revoked"

    def test_one_that_is_wrong_is_too_many(self, bundle, keys):
        signed(bundle, a=CLINIC)
        wrong = sign(b"another manifest", MAKER)
        (bundle / "signatures" / "b.sig").write_bytes(wrong)
        with pytest.raises(SignatureInvalid, match=r"^signatures/b\.sig: .* not of this bundle"):
            standing(bundle, keys)

    def test_sixteen_are_the_most(self, bundle, keys):
        signed(bundle, **{f"a{number}": STRANGER for number in range(15)}, z=CLINIC)
        assert standing(bundle, keys).status == "trusted"
        signed(bundle, y=CLINIC)
        with pytest.raises(SignatureInvalid, match="more than 16"):
            standing(bundle, keys)


AMONG_SIGNATURES: dict[str, Callable[[Path], object]] = {
    "a text": lambda place: (place / "README.txt").write_text("x"),
    "a hidden file": lambda place: (place / ".DS_Store").write_bytes(b"x"),
    "a partial file": lambda place: (place / ".a.sig.x.partial").write_bytes(b"x"),
    "no ending": lambda place: (place / "a.sig").rename(place / "a"),
    "capitals": lambda place: (place / "a.sig").rename(place / "a.SIG"),
    "an ending alone": lambda place: (place / "a.sig").rename(place / ".sig"),
    "a space": lambda place: (place / "a.sig").rename(place / "a b.sig"),
    "a line's end": lambda place: (place / "a.sig").rename(place / "a\n.sig"),
    "a letter beyond ASCII": lambda place: (place / "a.sig").rename(place / "\u00e4.sig"),
    "a name of 61": lambda place: (place / "a.sig").rename(place / f"{'a' * 61}.sig"),
    "no content": lambda place: (place / "b.sig").write_bytes(b""),
    "4097 bytes": lambda place: (place / "b.sig").write_bytes(b"\n" * 4097),
    "a public key": lambda place: (place / "b.sig").write_text(CLINIC.public.line),
    "a folder": lambda place: (place / "b.sig").mkdir(),
    "a link": lambda place: (place / "b.sig").symlink_to(place / "a.sig"),
    "a link to nothing": lambda place: (place / "b.sig").symlink_to(place / "none"),
    "a pipe": lambda place: os.mkfifo(place / "b.sig"),
    "many": lambda place: [(place / f"{n}.sig").write_bytes(b"") for n in range(200)],
}


class TestAmongSignatures:
    @pytest.mark.parametrize("what", AMONG_SIGNATURES)
    def test_refused(self, bundle, keys, what):
        """Beside, or instead of, a signature that is trusted; and whatever else is allowed."""
        signed(bundle, a=CLINIC)
        assert standing(bundle, keys).status == "trusted"
        AMONG_SIGNATURES[what](bundle / "signatures")
        with pytest.raises(SignatureInvalid):
            require(Bundle.open(bundle), Trust.load(keys), allow_unsigned=True)

    def test_a_name_of_60(self, bundle, keys):
        signed(bundle, a=CLINIC)
        place = bundle / "signatures"
        (place / "a.sig").rename(place / f"{'A-z_0.9' * 8}1234.sig")
        assert standing(bundle, keys).status == "trusted"

    @pytest.mark.parametrize("what", ["a file", "a link", "a link to nothing", "a pipe"])
    def test_no_folder(self, bundle, keys, tmp_path, what):
        place = signed(bundle, a=CLINIC) / "signatures"
        elsewhere = Path(shutil.move(place, tmp_path / "elsewhere"))
        if what == "a file":
            shutil.copy(elsewhere / "a.sig", place)
        elif what == "a pipe":
            os.mkfifo(place)
        else:
            place.symlink_to(elsewhere if what == "a link" else tmp_path / "none")
        with pytest.raises(SignatureInvalid, match="is no folder"):
            standing(bundle, keys)
        with pytest.raises(FilesDiffer):
            Bundle.open(bundle)


class TestRequire:
    def refusal(self, bundle: Path, keys: Path, allow_unsigned: bool) -> type[BundleError] | None:
        try:
            found = require(Bundle.open(bundle), Trust.load(keys), allow_unsigned=allow_unsigned)
        except BundleError as error:
            return type(error)
        assert found == standing(bundle, keys)
        return None

    @pytest.mark.parametrize("allow_unsigned", [False, True])
    def test_what_is_allowed(self, bundle, keys, allow_unsigned):
        """Unsigned and unknown ones, if it is said so; withdrawn and wrong ones never."""
        allowed = allow_unsigned
        assert self.refusal(bundle, keys, allowed) == (None if allowed else SignatureMissing)
        signed(bundle, a=STRANGER)
        assert self.refusal(bundle, keys, allowed) == (None if allowed else SignerUnknown)
        signed(bundle, b=CLINIC)
        assert self.refusal(bundle, keys, allowed) is None
        revoke(keys, STRANGER)
        assert self.refusal(bundle, keys, allowed) == SignerRevoked
        (bundle / "signatures" / "a.sig").write_bytes(sign(b"", STRANGER))
        assert self.refusal(bundle, keys, allowed) == SignatureInvalid

    def test_messages_say_what_to_do(self, bundle, keys):
        trusted = Trust.load(keys)
        with pytest.raises(SignatureMissing, match=r"medimg-edge sign.*--allow-unsigned"):
            require(Bundle.open(bundle), trusted)
        fingerprint = STRANGER.public.fingerprint.replace("+", r"\+")
        with pytest.raises(SignerUnknown, match=f"{fingerprint}.*keys trust"):
            require(Bundle.open(signed(bundle, a=STRANGER)), trusted)
        revoke(keys, STRANGER)
        with pytest.raises(SignerRevoked, match=f"{fingerprint}.*signed anew"):
            require(Bundle.open(bundle), Trust.load(keys))

    def test_the_manifest_is_the_one_that_was_opened(self, bundle, keys):
        """Of two that are each signed, the second does not vouch for the first."""
        opened = Bundle.open(signed(bundle, a=CLINIC))
        path = bundle / "manifest.json"
        path.write_bytes(path.read_bytes() + b"\n")
        signed(bundle, a=CLINIC)
        with pytest.raises(FilesDiffer, match="changed since the bundle was opened"):
            require(opened, Trust.load(keys))
        assert require(Bundle.open(bundle), Trust.load(keys)).status == "trusted"
        path.unlink()
        with pytest.raises(FilesDiffer, match="cannot be read"):
            require(opened, Trust.load(keys))

    def test_a_bit_of_any_file(self, bundle, keys):
        """200 places of all files, those of the signature among them."""
        signed(bundle, a=CLINIC)
        trusted, drawn = Trust.load(keys), random.Random(11)
        names = [*walk(bundle), "signatures/a.sig"]
        for name in [*names, *drawn.choices(names, k=200 - len(names))]:
            path = bundle / name
            whole = path.read_bytes()
            changed = bytearray(whole)
            changed[drawn.randrange(len(whole))] ^= 1 << drawn.randrange(8)
            path.write_bytes(changed)
            with pytest.raises(BundleError):  # noqa: PT012 - whichever of them finds it
                opened = Bundle.open(bundle)
                require(opened, trusted)
                opened.check_contents()
            path.write_bytes(whole)
        assert require(Bundle.open(bundle), trusted).status == "trusted"


class TestFolder:
    def test_names_are_those_of_the_files(self, keys):
        found = Trust.load(keys)
        assert {name: found.keys[name] for name in ("clinic", "maker")} == {
            "clinic": CLINIC.public,
            "maker": MAKER.public,
        }
        assert found.revoked == frozenset()

    def test_the_usual_one(self, state, keys):
        """It need not exist; one that is named must."""
        assert trust.default_folder() == state / "trusted"
        assert "clinic" not in Trust.load().keys
        shutil.copytree(keys, state / "trusted")
        assert Trust.load().keys["clinic"] == CLINIC.public

    def test_a_user_without_a_home(self, monkeypatch):
        monkeypatch.delenv("MEDIMG_EDGE_STATE")
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
        assert trust.default_folder() is None
        assert Trust.load().revoked == frozenset()

    @pytest.mark.parametrize("what", ["nothing", "a file", "a link to nothing"])
    def test_no_folder(self, tmp_path, state, what):
        path = tmp_path / "named"
        if what == "a file":
            path.write_text("x")
        elif what == "a link to nothing":
            path.symlink_to(tmp_path / "none")
        with pytest.raises(KeyInvalid, match="no folder of keys"):
            Trust.load(path)
        if what == "a file":  # also where it is not named: withdrawn keys may have been in it
            state.mkdir()
            path.rename(state / "trusted")
            with pytest.raises(KeyInvalid, match="Not a directory"):
                Trust.load()

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\xff\xfe",
            b"no key",
            CLINIC.encode(),
            f"{CLINIC.public.line}\n{MAKER.public.line}\n".encode(),
            CLINIC.public.line.encode() + b" " * 5000 + MAKER.public.line.encode(),
            None,
        ],
        ids=["empty", "binary", "text", "private", "two", "large", "folder"],
    )
    def test_a_damaged_key_is_told(self, keys, content):
        """By its file's name; that it is left out in silence would be a riddle."""
        path = keys / "damaged.pub"
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
        with pytest.raises(KeyInvalid, match=r"damaged\.pub"):
            Trust.load(keys)

    def test_other_files_may_lie_in_it(self, keys):
        (keys / "README").write_text("whose keys these are")
        (keys / ".clinic.pub.x.partial").write_bytes(b"")
        assert {"clinic", "maker"} <= Trust.load(keys).keys.keys()

    def test_withdrawn_ones(self, keys):
        lines = f"\r\n# one\r\n  {CLINIC.public.fingerprint}\t# lost\r\n{MAKER.public.fingerprint}"
        (keys / "revoked").write_bytes(lines.encode())
        expected = {CLINIC.public.fingerprint, MAKER.public.fingerprint}
        assert Trust.load(keys).revoked == expected

    @pytest.mark.parametrize(
        "line",
        [
            CLINIC.public.line,
            CLINIC.public.fingerprint[:-1],
            CLINIC.public.fingerprint + "=",
            CLINIC.public.fingerprint.lower(),
            CLINIC.public.fingerprint.removeprefix("SHA256:"),
            f"{CLINIC.public.fingerprint} {MAKER.public.fingerprint}",
            "clinic",
        ],
        ids=("a key", "cut", "padded", "lower", "bare", "two", "a name"),  # keys differ each time
    )
    def test_a_line_that_withdraws_nothing_is_told(self, keys, line):
        """Whoever wrote it meant a key, which must not stay trusted."""
        (keys / "revoked").write_text(f"{MAKER.public.fingerprint}\n{line}\n")
        with pytest.raises(KeyInvalid, match="is no fingerprint"):
            Trust.load(keys)

    @pytest.mark.parametrize("name", ["revoked.txt", "REVOKED", "Revoked.TXT"])
    def test_a_list_by_another_name_is_told(self, keys, name):
        (keys / name).write_text(f"{CLINIC.public.fingerprint}\n")
        with pytest.raises(KeyInvalid, match="without an ending"):
            Trust.load(keys)

    def test_all_of_it_is_read(self, keys):
        """Or none, and it is said: the end of it must not be lost."""
        end = f"\n{CLINIC.public.fingerprint}\n"
        path = keys / "revoked"
        path.write_text("#" * (trust.MAX_REVOKED_BYTES - len(end)) + end)
        assert Trust.load(keys).revoked == {CLINIC.public.fingerprint}
        path.write_text("#" * trust.MAX_REVOKED_BYTES + end)
        with pytest.raises(KeyInvalid, match="not read"):
            Trust.load(keys)
        path.write_bytes(b"\xff\xfe")
        with pytest.raises(KeyInvalid, match="cannot be read"):
            Trust.load(keys)
        path.unlink()
        path.mkdir()
        with pytest.raises(KeyInvalid, match="cannot be read"):
            Trust.load(keys)


class TestReleases:
    def test_they_are_trusted_everywhere(self, bundle, keys, release):
        signed(bundle, a=release)
        expected = Standing("trusted", "medimg-edge", release.public.fingerprint)
        assert standing(bundle, keys) == expected
        assert require(Bundle.open(bundle), Trust.load()) == expected

    def test_they_can_be_withdrawn(self, bundle, keys, release):
        revoke(keys, release)
        assert standing(signed(bundle, a=release), keys).status == "revoked"

    def test_a_package_without_the_key(self, tmp_path, monkeypatch):
        monkeypatch.setattr(trust, "RELEASE", tmp_path / "none")
        assert Trust.load().keys == {}

    @pytest.mark.parametrize("ships", [True, False])
    def test_no_other_key_takes_their_name(self, keys, release, ships, monkeypatch, tmp_path):
        if not ships:
            monkeypatch.setattr(trust, "RELEASE", tmp_path / "none")
        (keys / "medimg-edge.pub").write_text(f"{STRANGER.public.line}\n")
        with pytest.raises(KeyInvalid, match=r"medimg-edge\.pub has the name of the key of releas"):
            Trust.load(keys)

    def test_a_copy_of_theirs(self, keys, release):
        (keys / "medimg-edge.pub").write_text(f"{release.public.line}\n")
        assert Trust.load(keys).keys["medimg-edge"] == release.public


class TestDoubt:
    """What is said before a bundle answers on a workstation."""

    def test_it_is_said_of_those_that_nobody_vouches_for(self, bundle, keys, state):
        assert doubt(Bundle.open(bundle)) == "phantom-opacity is not signed: nobody vouches for it."
        signed(bundle, a=CLINIC)
        assert "a key that is not trusted here" in (doubt(Bundle.open(bundle)) or "")
        shutil.copytree(keys, state / "trusted")
        assert doubt(Bundle.open(bundle)) is None

    def test_wrong_and_withdrawn_ones_do_not_answer(self, bundle, keys, state):
        signed(bundle, a=CLINIC)
        shutil.copytree(keys, state / "trusted")
        revoke(state / "trusted", CLINIC)
        with pytest.raises(SignerRevoked):
            doubt(Bundle.open(bundle))
        (bundle / "signatures" / "a.sig").write_bytes(b"x")
        with pytest.raises(SignatureInvalid):
            doubt(Bundle.open(bundle))

    def test_it_is_said_by_infer(self, frozen, keys, bundle, command):
        """In a process of its own, before the answer, which is given; a wrong one ends it."""
        image = frozen / "golden" / "01-gray8.png"
        words = [sys.executable, "-m", "medimg_edge.cli", "infer", image, "-b", bundle]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
        expected = "warning: phantom-opacity is not signed: nobody vouches for it.\n"
        assert (done.returncode, done.stderr) == (0, expected)
        assert '"status":"ok"' in done.stdout
        signed(bundle, a=CLINIC)
        (bundle / "signatures" / "a.sig").write_bytes(sign(b"", CLINIC))
        done = command("infer", image, "-b", bundle)
        assert (done.returncode, done.stdout) == (1, "")
        assert "error [signature-invalid]" in done.stderr


def test_a_list_that_is_elsewhere_and_not_there_is_no_empty_one(bundle, keys, state, tmp_path):
    """Such as a link to a stick that was pulled out: who was withdrawn stays so."""
    withdrawn = tmp_path / "stick"
    revoke(keys, MAKER)
    (keys / "revoked").rename(withdrawn)
    (keys / "revoked").symlink_to(withdrawn)
    assert standing(signed(bundle, a=MAKER), keys).status == "revoked"
    withdrawn.rename(tmp_path / "elsewhere")
    with pytest.raises(KeyInvalid, match="nobody knows which keys were withdrawn"):
        Trust.load(keys)


def test_a_default_folder_that_is_elsewhere_and_not_there(state, tmp_path):
    state.mkdir()
    Trust.load()
    (state / "trusted").symlink_to(tmp_path / "nowhere")
    with pytest.raises(KeyInvalid, match="no folder of keys"):
        Trust.load()


def test_a_list_that_cannot_be_read_is_doubted(state):
    """Also of what came with the package, of which only that list is read."""
    shipped = Bundle.open(models.FOLDER / "pneumonia-cxr")
    assert doubt(shipped) is None
    (state / "trusted" / "revoked").mkdir(parents=True)
    with pytest.raises(KeyInvalid, match="revoked cannot be read"):
        doubt(shipped)


def test_what_is_not_signed_costs_no_import(bundle, keys):
    """The library is loaded when a signature is checked, and only then."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from medimg_edge.bundle import Bundle\n"
        "from medimg_edge.trust import Trust, doubt, require\n"
        "opened = Bundle.open(sys.argv[1])\n"
        "doubt(opened)\n"
        "found = require(opened, Trust.load(Path(sys.argv[2])), allow_unsigned=True)\n"
        "print(found.status, 'cryptography' in sys.modules)\n"
    )

    def said() -> str:
        words = [sys.executable, "-c", program, bundle, keys]
        return subprocess.run(list(map(str, words)), capture_output=True, text=True).stdout

    assert said() == "unsigned False\n"
    signed(bundle, a=CLINIC)
    assert said() == "trusted True\n"


@pytest.mark.alone
def test_five_megabytes_are_checked_within_60_ms(bundle, keys, rewrite):
    """Opened, signature and all, and every byte hashed."""
    size = sum(walk(bundle).values())
    (bundle / "more.bin").write_bytes(random.Random(3).randbytes(5_000_000 - size))
    rewrite(bundle)
    assert sum(walk(bundle).values()) == pytest.approx(5_000_000, rel=0.01)
    signed(bundle, a=CLINIC)

    def seconds() -> float:
        began = time.perf_counter()
        opened = Bundle.open(bundle)
        found = require(opened, Trust.load(keys))
        opened.check_contents()
        assert found.status == "trusted"
        return time.perf_counter() - began

    seconds()  # the first one imports
    assert median(seconds() for _ in range(9)) < 0.060
