"""``medimg-edge keys`` and ``sign``, as their user runs them, and ssh-keygen beside them."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from medimg_edge import trust
from medimg_edge.ssh_signature import PrivateKey, PublicKey, signer

with_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="ssh-keygen, of Debian's openssh-client, is missing"
)
with_bcrypt = pytest.mark.usefixtures("bcrypt")


@pytest.fixture
def bcrypt() -> None:
    pytest.importorskip("bcrypt", reason="bcrypt, of the sign extra, encrypts keys")


def ssh_keygen(*words: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", *map(str, words)], capture_output=True, **options)  # type: ignore[call-overload]


@pytest.fixture
def pair(called, tmp_path) -> Path:
    """The private key of a pair that the command made."""
    called("keys", "new", "clinic", "--out", tmp_path)
    return tmp_path / "clinic"


def public(private: Path) -> PublicKey:
    return PublicKey.parse(private.with_name(f"{private.name}.pub").read_text())


def table(said: str) -> list[list[str]]:
    return [line.split() for line in said.splitlines()[2:]]


class TestNew:
    def test_two_files(self, called, tmp_path):
        done = called("keys", "new", "clinic", "--out", tmp_path)
        private, shared = tmp_path / "clinic", tmp_path / "clinic.pub"
        assert sorted(tmp_path.glob("*clinic*")) == [private, shared]
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
        assert stat.S_IMODE(shared.stat().st_mode) == 0o644
        key = PrivateKey.read(private)
        assert shared.read_text() == f"{key.public.line} clinic\n"
        lines = done.stdout.splitlines()
        assert [line.split()[0] for line in lines] == [
            str(private),
            str(shared),
            key.public.fingerprint,
        ]
        assert done.returncode == 0

    def test_every_pair_is_another(self, called, tmp_path):
        for name in ("one", "other"):
            called("keys", "new", name, "--out", tmp_path)
        assert public(tmp_path / "one") != public(tmp_path / "other")

    @pytest.mark.parametrize("there", ["clinic", "clinic.pub"])
    @pytest.mark.parametrize("what", ["a file", "a link to nothing"])
    def test_nothing_is_written_over(self, called, tmp_path, there, what):
        path = tmp_path / there
        if what == "a file":
            path.write_text("kept")
        else:
            path.symlink_to(tmp_path / "none")
        done = called("keys", "new", "clinic", "--out", tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"error [write]: {path} is there already" in done.stderr
        assert list(tmp_path.glob("*clinic*")) == [path]
        assert what != "a file" or path.read_text() == "kept"

    @pytest.mark.parametrize(
        "name", ["../x", "a/b", "", ".hidden", "a b", "\u00e4", "x" * 61, "a\n"]
    )
    def test_a_name_that_is_none(self, called, tmp_path, name):
        folder = tmp_path / "out"
        folder.mkdir()
        done = called("keys", "new", name, "--out", folder)
        assert done.returncode == 1
        assert "error [key]: A key cannot be called" in done.stderr
        assert list(folder.iterdir()) == []
        assert not (tmp_path / "x").exists()

    def test_a_private_key_is_not_called_as_a_public_one(self, called, tmp_path):
        """Else it would be given away."""
        done = called("keys", "new", "clinic.pub", "--out", tmp_path)
        assert (done.returncode, "error [key]" in done.stderr) == (1, True)
        assert not list(tmp_path.glob("*clinic*"))

    def test_no_folder(self, called, tmp_path):
        done = called("keys", "new", "clinic", "--out", tmp_path / "none")
        assert done.returncode == 1
        assert "error [write]" in done.stderr

    @with_ssh_keygen
    def test_ssh_keygen_uses_them(self, pair):
        found = ssh_keygen("-y", "-f", pair)
        assert found.stdout.decode().split()[:2] == public(pair).line.split()
        assert public(pair).fingerprint in ssh_keygen("-lf", f"{pair}.pub").stdout.decode()


class TestPassphrase:
    def write(self, tmp_path: Path, word: bytes) -> Path:
        path = tmp_path / "word"
        path.write_bytes(word)
        return path

    @with_bcrypt
    @pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\nmore\n"])
    def test_of_a_file(self, called, tmp_path, bundle, end):
        word = self.write(tmp_path, b"a w\xc3\xb6rd " + end)
        options = ("--passphrase-file", word)
        assert called("keys", "new", "clinic", "--out", tmp_path, *options).returncode == 0
        key = PrivateKey.read(tmp_path / "clinic", b"a w\xc3\xb6rd ")
        assert key.public == public(tmp_path / "clinic")

        done = called("sign", bundle, "--key", tmp_path / "clinic")
        assert "error [key]" in done.stderr
        assert "--passphrase-file" in done.stderr
        assert not (bundle / "signatures").exists()
        assert called("sign", bundle, "--key", tmp_path / "clinic", *options).returncode == 0

    @pytest.mark.parametrize("word", [b"", b"\n", b"\nword", b"x" * 1024, b"x" * 10_000])
    def test_of_another_length(self, called, tmp_path, word):
        path = self.write(tmp_path, word)
        done = called("keys", "new", "clinic", "--out", tmp_path, "--passphrase-file", path)
        assert "error [key]: The passphrase has" in done.stderr
        assert not list(tmp_path.glob("*clinic*"))

    def test_no_file(self, called, tmp_path):
        done = called("keys", "new", "clinic", "--out", tmp_path, "--passphrase-file", tmp_path)
        assert f"error [key]: {tmp_path} cannot be read" in done.stderr

    def test_one_of_the_two(self, called, tmp_path):
        path = self.write(tmp_path, b"word")
        done = called("keys", "new", "a", "--passphrase", "--passphrase-file", path)
        assert done.returncode == 2
        assert "exclude each other" in done.stderr

    def test_no_terminal(self, command, tmp_path):
        done = command(
            *("keys", "new", "clinic", "--out", tmp_path, "--passphrase"), stdin=subprocess.DEVNULL
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert "error [key]: There is no terminal to ask on" in done.stderr

    @with_bcrypt
    def test_on_a_terminal(self, tmp_path, bundle):
        """Asked for twice where it is made, and once where it is used; never shown."""
        new = ("keys", "new", "clinic", "--out", tmp_path, "--passphrase")
        ended, seen = self.answered(new, ["a word", "another", "a word", "a word"])
        assert ended == 0, seen
        assert PrivateKey.read(tmp_path / "clinic", b"a word").public == public(tmp_path / "clinic")
        assert "a word" not in seen
        use = ("sign", bundle, "--key", tmp_path / "clinic", "--passphrase")
        ended, seen = self.answered(use, ["a wrong one"])
        assert (ended, "error [key]" in seen) == (1, True), seen
        ended, seen = self.answered(use, ["a word"])
        assert ended == 0, seen
        assert (bundle / "signatures" / "clinic.sig").exists()
        assert "a word" not in seen

    def answered(self, words: tuple[object, ...], answers: list[str]) -> tuple[int, str]:
        """Run in a session of its own, whose terminal answers each question in turn."""
        import pty

        child, screen = pty.fork()
        if child == 0:
            os.execv(sys.executable, [sys.executable, "-m", "medimg_edge.cli", *map(str, words)])
        seen, rest = "", list(answers)
        try:
            while part := os.read(screen, 4096).decode():
                seen += part
                if rest and seen.endswith(": "):  # the space comes when nothing is shown any more
                    os.write(screen, f"{rest.pop(0)}\n".encode())
        except OSError:  # how Linux says that the other end is closed
            pass
        finally:
            os.close(screen)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen


class TestSign:
    def test_a_signature_of_the_manifest(self, called, pair, bundle):
        before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
        done = called("sign", bundle, "--key", pair)
        path = bundle / "signatures" / "clinic.sig"
        assert done.stdout == f"{path}  by {public(pair).fingerprint}\n"
        manifest = (bundle / "manifest.json").read_bytes()
        assert signer(manifest, path.read_bytes()) == public(pair)
        after = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
        assert after == before | {path: path.read_bytes()}

    def test_several_names(self, called, pair, bundle, tmp_path):
        called("keys", "new", "maker", "--out", tmp_path)
        called("sign", bundle, "--key", pair, "--name", "radiology")
        called("sign", bundle, "--key", tmp_path / "maker")
        called("sign", bundle, "--key", pair, "--name", "radiology")  # once more: it is the same
        names = sorted(each.name for each in (bundle / "signatures").iterdir())
        assert names == ["maker.sig", "radiology.sig"]
        called("keys", "trust", f"{pair}.pub")
        assert "Signed by clinic" in called("verify", bundle, "--trusted", self.kept()).stdout

    def kept(self) -> Path:
        folder = trust.default_folder()
        assert folder is not None
        return folder

    @with_ssh_keygen
    def test_ssh_keygen_checks_it(self, called, pair, bundle, tmp_path):
        """The command that docs/signing.md shows."""
        called("sign", bundle, "--key", pair)
        signers = tmp_path / "allowed_signers"
        signers.write_text(f"medimg-edge {public(pair).line}\n")
        words = ("-Y", "verify", "-f", signers, "-I", "medimg-edge", "-n", "medimg-edge")
        words = (*words, "-s", bundle / "signatures" / "clinic.sig")
        manifest = (bundle / "manifest.json").read_bytes()
        good = ssh_keygen(*words, input=manifest)
        assert (good.returncode, good.stdout[:4]) == (0, b"Good"), good
        bad = ssh_keygen(*words, input=manifest.replace(b"normal", b"Normal"))
        assert bad.returncode != 0
        assert b"Good" not in bad.stdout

    @with_ssh_keygen
    def test_ssh_keygen_signs_for_us(self, called, bundle, tmp_path):
        """Such as a key of which no program but ssh-keygen knows the passphrase."""
        key = tmp_path / "theirs"
        word = ("-N", "a word", "-C", "")
        assert ssh_keygen("-q", "-t", "ed25519", *word, "-f", key).returncode == 0
        manifest = bundle / "manifest.json"
        ask = tmp_path / "ask"
        ask.write_text("#!/bin/sh\necho a word\n")
        ask.chmod(0o700)
        asked = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        done = ssh_keygen("-Y", "sign", "-f", key, "-n", "medimg-edge", manifest, env=asked)
        assert done.returncode == 0, done
        (bundle / "signatures").mkdir()
        Path(f"{manifest}.sig").rename(bundle / "signatures" / "theirs.sig")
        called("keys", "trust", f"{key}.pub")
        done = called("verify", bundle, "--trusted", self.kept())
        assert "Signed by theirs" in done.stdout
        assert done.returncode == 0

    def test_only_a_whole_bundle(self, called, pair, bundle):
        """Whoever signs vouches for every file."""
        path = bundle / "MODEL_CARD.md"
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"?")
        done = called("sign", bundle, "--key", pair)
        assert (done.returncode, done.stdout) == (1, "")
        assert "error [bundle-files]: MODEL_CARD.md" in done.stderr
        path.write_bytes(whole)
        (bundle / "more").write_text("x")
        assert (
            "error [bundle-files]: more lies in the bundle"
            in called("sign", bundle, "--key", pair).stderr
        )
        assert not (bundle / "signatures").exists()

    def test_what_is_no_bundle_or_no_key(self, called, pair, bundle, tmp_path):
        done = called("sign", tmp_path / "none", "--key", pair)
        assert (done.returncode, "error [bundle-missing]" in done.stderr) == (1, True)
        for key in (tmp_path / "none", f"{pair}.pub", bundle / "manifest.json", tmp_path):
            done = called("sign", bundle, "--key", key)
            assert (done.returncode, "error [key]" in done.stderr) == (1, True), key
        done = called("sign", bundle, "--key", pair, "--name", "../../x")
        assert (done.returncode, "error [key]" in done.stderr) == (1, True)
        assert not list(bundle.rglob("*.sig"))
        assert called("sign", bundle).returncode == 2

    def test_a_signature_of_an_earlier_export_is_told(self, called, pair, bundle, rewrite):
        called("sign", bundle, "--key", pair, "--name", "old")
        rewrite(bundle, lambda raw: raw.update(version="2"))
        done = called("sign", bundle, "--key", pair, "--name", "new")
        assert (done.returncode, "error [signature-invalid]" in done.stderr) == (1, True)
        assert "signatures/old.sig" in done.stderr
        (bundle / "signatures" / "old.sig").unlink()
        assert called("sign", bundle, "--key", pair, "--name", "new").returncode == 0

    def test_what_cannot_be_written(self, called, pair, bundle):
        (bundle / "signatures" / "clinic.sig").mkdir(parents=True)
        done = called("sign", bundle, "--key", pair)
        assert (done.returncode, "error [write]" in done.stderr) == (1, True)


class TestTrustAndRevoke:
    def test_from_a_stick_to_a_verdict(self, called, pair, bundle, state):
        kept = ("--trusted", state / "trusted")
        called("sign", bundle, "--key", pair)
        done = called("keys", "trust", f"{pair}.pub", "--name", "our-clinic")
        assert public(pair).fingerprint in done.stdout
        stored = state / "trusted" / "our-clinic.pub"
        assert stored.read_text() == f"{public(pair).line} our-clinic\n"
        done = called("verify", bundle, *kept)
        assert f"Signed by our-clinic ({public(pair).fingerprint})." in done.stdout.splitlines()
        assert done.returncode == 0

        done = called("keys", "revoke", f"{pair}.pub")
        assert public(pair).fingerprint in done.stdout
        for options in (kept, ()):
            done = called("verify", bundle, *options)
            assert (done.returncode, done.stdout) == (1, "")
            assert "error [signer-revoked]" in done.stderr

        done = called("keys", "trust", f"{pair}.pub", "--name", "again")
        assert "error [key]" in done.stderr
        assert "was withdrawn" in done.stderr
        assert not (state / "trusted" / "again.pub").exists()

    def test_verify_without_a_trusted_key(self, called, pair, bundle, tmp_path):
        empty = tmp_path / "empty"
        empty.mkdir()
        done = called("verify", bundle, "--trusted", empty)
        assert (done.returncode, "error [signature-missing]" in done.stderr) == (1, True)
        called("sign", bundle, "--key", pair)
        done = called("verify", bundle, "--trusted", empty)
        assert (done.returncode, "error [signer-unknown]" in done.stderr) == (1, True)
        done = called("verify", bundle)  # says whose it is, and refuses nothing
        assert "Signed by a key that is not trusted here" in done.stdout
        assert done.returncode == 0

    def test_a_folder_of_ones_own(self, called, pair, tmp_path, state):
        own = tmp_path / "a" / "keys"
        assert called("keys", "trust", f"{pair}.pub", "--trusted", own).returncode == 0
        assert (own / "clinic.pub").exists()
        called("keys", "revoke", public(pair).fingerprint, "--trusted", own)
        assert (own / "revoked").read_text() == f"{public(pair).fingerprint}\n"
        assert not state.exists()

    def test_the_name_of_another_key(self, called, pair, tmp_path, state):
        called("keys", "trust", f"{pair}.pub")
        called("keys", "trust", f"{pair}.pub")  # once more: it is the same key
        called("keys", "new", "other", "--out", tmp_path)
        done = called("keys", "trust", tmp_path / "other.pub", "--name", "clinic")
        assert (done.returncode, "error [write]" in done.stderr) == (1, True)
        stored = (state / "trusted" / "clinic.pub").read_text()
        assert PublicKey.parse(stored) == public(pair)

    def test_what_is_no_public_key(self, called, pair, tmp_path, state):
        two = tmp_path / "two.pub"
        called("keys", "new", "other", "--out", tmp_path)
        two.write_text((tmp_path / "clinic.pub").read_text() + (tmp_path / "other.pub").read_text())
        for file in (pair, two, tmp_path / "none.pub", tmp_path):
            done = called("keys", "trust", file, "--name", "x")
            assert (done.returncode, "error [key]" in done.stderr) == (1, True), file
        for key in (pair, two, "clinic", "SHA256:abc", tmp_path / "none.pub"):
            done = called("keys", "revoke", key)
            assert (done.returncode, "error [key]" in done.stderr) == (1, True), key
        assert not state.exists() or not any((state / "trusted").iterdir())

    def test_the_name_of_releases(self, called, pair, state, tmp_path, monkeypatch):
        done = called("keys", "trust", f"{pair}.pub", "--name", "medimg-edge")
        assert (done.returncode, "error [key]" in done.stderr) == (1, True)
        assert not list((state / "trusted").iterdir())
        monkeypatch.setattr(trust, "RELEASE", tmp_path / "clinic.pub")
        assert called("keys", "trust", f"{pair}.pub", "--name", "medimg-edge").returncode == 0

    def test_notes_among_the_withdrawn_are_kept(self, called, pair, state):
        path = state / "trusted" / "revoked"
        path.parent.mkdir(parents=True)
        path.write_text("# lost in the train")  # without an end of the line
        for _ in range(2):
            assert called("keys", "revoke", public(pair).fingerprint).returncode == 0
        assert path.read_text() == f"# lost in the train\n{public(pair).fingerprint}\n"


class TestList:
    def test_each_key_and_what_it_is(self, called, tmp_path, monkeypatch):
        for name in ("clinic", "maker", "release", "stranger"):
            called("keys", "new", name, "--out", tmp_path)
        found = {
            name: public(tmp_path / name) for name in ("clinic", "maker", "release", "stranger")
        }
        monkeypatch.setattr(trust, "RELEASE", tmp_path / "release.pub")
        for name in ("clinic", "maker"):
            called("keys", "trust", tmp_path / f"{name}.pub")
        for name in ("maker", "stranger"):
            called("keys", "revoke", tmp_path / f"{name}.pub")
        done = called("keys", "list")
        assert done.stdout.split()[:2] == ["name", "fingerprint"]
        assert sorted(table(done.stdout)) == sorted(
            [
                ["medimg-edge", found["release"].fingerprint, "release"],
                ["clinic", found["clinic"].fingerprint, "trusted"],
                ["maker", found["maker"].fingerprint, "revoked"],
                [found["stranger"].fingerprint, "revoked"],
            ]
        )
        called("keys", "revoke", tmp_path / "release.pub")
        row = next(row for row in table(called("keys", "list").stdout) if row[0] == "medimg-edge")
        assert row[-1] == "revoked"

    def test_none(self, called, tmp_path, monkeypatch):
        monkeypatch.setattr(trust, "RELEASE", tmp_path / "none")
        done = called("keys", "list")
        assert done.stdout.startswith("No key is trusted here.")
        assert done.returncode == 0

    def test_a_folder_that_is_none(self, called, tmp_path):
        done = called("keys", "list", "--trusted", tmp_path / "none")
        assert (done.returncode, "error [key]" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    "words",
    [["sign", "--help"], ["keys", "--help"], ["keys", "new", "--help"], ["keys", "list"]],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(words):
    """Before there is something to sign; the list needs keys only."""
    program = (
        "import json, sys\n"
        "from medimg_edge.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & {"cryptography", "numpy", "cv2", "onnxruntime", "pydicom"}
