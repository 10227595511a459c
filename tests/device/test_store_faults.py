"""What was tampered with is not installed, and an install that ends badly changes nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medimg_edge import installed
from medimg_edge.bundle import MANIFEST, Bundle
from medimg_edge.errors import BundleError
from tests.device.installing import (
    NAME,
    Signer,
    answer,
    copy,
    install,
    kept,
    left,
    pointer,
    release,
    zipped,
)

FLIPS = 500


class Clinic:
    """A store in which 2.0 answers and 1.0 is kept, and 3.0, signed, which is to be installed."""

    def __init__(self, state: Path, tmp_path: Path, signer: Signer, build: Callable) -> None:
        self.state, self.tmp_path, self.signer = state, tmp_path, signer
        self.one, self.two, self.three = (
            signer.sign(release(build, version, bias))
            for version, bias in (("1.0", 0.0), ("2.0", 1.0), ("3.0", 2.0))
        )
        install(self.one, signer.trust)
        install(self.two, signer.trust)
        self._pointer, self._answer = pointer(state).read_bytes(), answer()
        assert self._answer == answer(self.two)

    def refuses(self, source: Path, *, answers: bool = True) -> BundleError:
        """Whatever is wrong with it, and nothing is another afterwards."""
        with pytest.raises(BundleError) as raised:
            install(source, self.signer.trust)
        assert pointer(self.state).read_bytes() == self._pointer
        assert left(self.state) == kept(self.state, "a", "b")
        if answers:
            assert answer() == self._answer
        return raised.value

    def takes(self, source: Path) -> None:
        """The same way takes what is right, so that it is the fault that is refused."""
        assert install(source, self.signer.trust).active.version == "3.0"
        assert answer() == answer(self.three) != self._answer


@pytest.fixture
def clinic(state, tmp_path, mean_bundle) -> Clinic:
    return Clinic(state, tmp_path, Signer(tmp_path), mean_bundle)


def flips(sizes: dict[str, int]) -> Iterator[tuple[str, int, int]]:
    """Positions, evenly over all bytes of all files, each with a mask: one bit, or several."""
    rng = random.Random(20)
    where = [(name, at) for name, size in sorted(sizes.items()) for at in range(size)]
    for name, at in rng.sample(where, FLIPS):
        yield name, at, 1 << rng.randrange(8) if rng.random() < 0.5 else rng.randrange(1, 256)


def flip(path: Path, at: int, mask: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= mask
    path.write_bytes(data)


def files(folder: Path) -> list[str]:
    found = (each for each in folder.rglob("*") if each.is_file())
    return sorted(each.relative_to(folder).as_posix() for each in found)


def test_flips_in_the_folder(clinic):
    source, codes = clinic.three, Counter()
    sizes = {name: (source / name).stat().st_size for name in files(source)}
    assert "signatures/clinic.sig" in sizes
    touched = set()
    for number, (name, at, mask) in enumerate(flips(sizes)):
        flip(source / name, at, mask)
        codes[clinic.refuses(source, answers=number % 50 == 0).code] += 1
        flip(source / name, at, mask)
        touched.add(name)
    assert touched == set(sizes)
    assert sum(codes.values()) == FLIPS
    clinic.takes(source)


def test_flips_in_the_signature(clinic):
    """Every byte of it, so that not even its line ends are anybody's to choose."""
    path = clinic.three / "signatures" / "clinic.sig"
    for at in range(path.stat().st_size):
        flip(path, at, 1 << at % 8)
        assert clinic.refuses(clinic.three, answers=False).code == "signature-invalid"
        flip(path, at, 1 << at % 8)
    clinic.takes(clinic.three)


def test_flips_in_the_zip(clinic):
    path = zipped(clinic.three)
    for number, (_, at, mask) in enumerate(flips({"": path.stat().st_size})):
        flip(path, at, mask)
        clinic.refuses(path, answers=number % 50 == 0)
        flip(path, at, mask)
    clinic.takes(path)


def test_flips_in_what_a_zip_unpacks_to(clinic):
    """Each packed anew: the archive is well, and its content is not."""
    sizes = {name: (clinic.three / name).stat().st_size for name in files(clinic.three)}
    for number, (name, at, mask) in enumerate(flips(sizes)):
        if number % 5 == 0:
            flip(clinic.three / name, at, mask)
            clinic.refuses(rezipped(clinic.three), answers=False)
            flip(clinic.three / name, at, mask)
    clinic.takes(rezipped(clinic.three))


def rezipped(folder: Path) -> Path:
    """By another packer, which checks nothing."""
    path = folder.with_name("rezipped.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in files(folder):
            packed.write(folder / name, name)
    return path


def signed_by_a_stranger(clinic: Clinic, folder: Path) -> Path:
    shutil.rmtree(folder / "signatures")
    return Signer(clinic.tmp_path, "stranger").sign(folder)


def signed_by_a_revoked_key(clinic: Clinic, folder: Path) -> Path:
    """By the clinic, too: whoever signed once and was withdrawn is no company."""
    bad = Signer(clinic.tmp_path, "former")
    for each in bad.trusted.iterdir():
        shutil.copy(each, clinic.signer.trusted)
    bad.sign(folder)
    revoked = f"# left in May\n{bad.key.public.fingerprint}  # the laptop\n"
    (clinic.signer.trusted / "revoked").write_text(revoked)
    return folder


def signed_for_another(clinic: Clinic, folder: Path) -> Path:
    shutil.copy(clinic.two / "signatures" / "clinic.sig", folder / "signatures" / "clinic.sig")
    return folder


def unsigned(clinic: Clinic, folder: Path) -> Path:
    shutil.rmtree(folder / "signatures")
    return folder


def no_signature_in_the_folder(clinic: Clinic, folder: Path) -> Path:
    (folder / "signatures" / "clinic.sig").unlink()
    return folder


def older(clinic: Clinic, folder: Path) -> Path:
    """A real one, of the clinic, that was active once."""
    return copy(clinic.one, "older")


def changed_and_listed(clinic: Clinic, folder: Path) -> Path:
    """By somebody who has no key: the manifest lists what is there, and nobody signed that."""
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"tests"', '"every"'))
    return folder


def links(folder: Path, name: str) -> None:
    """A symbolic link in the place of a file, to the same bytes."""
    (folder / name).rename(folder.parent / "aside")
    (folder / name).symlink_to(folder.parent / "aside")


def hard_links(folder: Path, name: str) -> None:
    os.link(folder / name, folder.parent / "another-name")


SIGNED: dict[str, tuple[Callable[[Clinic, Path], Path], str]] = {
    "by a stranger": (signed_by_a_stranger, "signer-unknown"),
    "by a revoked key": (signed_by_a_revoked_key, "signer-revoked"),
    "for another bundle": (signed_for_another, "signature-invalid"),
    "by nobody": (unsigned, "signature-missing"),
    "with a changed manifest": (changed_and_listed, "signature-invalid"),
    "older": (older, "bundle-version"),
}


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("kind", SIGNED)
def test_signatures_and_versions(clinic, kind, form):
    change, code = SIGNED[kind]
    source = change(clinic, copy(clinic.three, "changed"))
    assert clinic.refuses(source if form == "folder" else rezipped(source)).code == code


def test_a_revoked_key_alone(clinic):
    clinic.signer.revoke()
    assert clinic.refuses(clinic.three).code == "signer-revoked"
    assert clinic.refuses(zipped(clinic.three)).code == "signer-revoked"


ADDED = [
    *("more.onnx", "golden/more", ".hidden", "more/deep/er", "signatures/note.txt", "signatures.x"),
    *("MODEL.onnx", "Manifest.json", "Golden/01.png", "signatures/more/a.sig", "model.onnx~"),
    *("mode\u0131.onnx", "model.onnx\u0301", "\uff4dodel.onnx", "manifest.json.sig"),
]


def entries(folder: Path) -> list[tuple[str, Callable[[Path], object]]]:
    """Every way to add, remove, rename or link one of its entries, by name."""
    found: list[tuple[str, Callable[[Path], object]]] = [
        (f"add {name}", lambda to, name=name: add(to / name)) for name in ADDED
    ]
    for name in files(folder):
        found += [
            (f"remove {name}", lambda to, name=name: (to / name).unlink()),
            (f"rename {name}", lambda to, name=name: (to / name).rename(to / f"{name}.x")),
            (f"case {name}", lambda to, name=name: (to / name).rename(to / swapped(name))),
            (f"empty {name}", lambda to, name=name: (to / name).write_bytes(b"")),
            (f"lengthen {name}", lambda to, name=name: (to / name).open("ab").write(b"\0")),
            (f"duplicate {name}", lambda to, name=name: shutil.copy(to / name, to / f"{name}.y")),
            (f"link {name}", lambda to, name=name: links(to, name)),
            (f"hard link {name}", lambda to, name=name: hard_links(to, name)),
        ]
    found += [
        ("link a folder", lambda to: (to / "more").symlink_to(to / "golden")),
        ("add a folder", lambda to: (to / "more").mkdir()),
        ("add a device", lambda to: os.mkfifo(to / "more")),
        ("folder as a file", lambda to: as_a_folder(to / "model.onnx")),
    ]
    return found


def add(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"more")


def swapped(name: str) -> str:
    """With another case of its last letters; of a signature, the folder's."""
    if name.startswith("signatures/"):
        return f"{name}".replace(".sig", ".SIG")
    return name[:-3] + name[-3:].swapcase() if not name[-1].isdigit() else name.upper()


def as_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").write_text("x")


def test_every_entry_of_the_folder(clinic):
    changes = entries(clinic.three)
    assert len(changes) > 50
    for what, change in changes:
        source = copy(clinic.three, "changed")
        change(source)
        assert clinic.refuses(source, answers=False), what
        for each in (source, *(source.with_name(name) for name in ("aside", "another-name"))):
            shutil.rmtree(each) if each.is_dir() else each.unlink(missing_ok=True)
    clinic.takes(clinic.three)


class Packed:
    """The entries of a zip, to be changed one way or another before it is written."""

    def __init__(self, folder: Path) -> None:
        self.entries = [
            (zipfile.ZipInfo(name), (folder / name).read_bytes()) for name in files(folder)
        ]

    def write(self, path: Path) -> Path:
        with zipfile.ZipFile(path, "w") as packed:
            for described, data in self.entries:
                packed.writestr(described, data)
        return path

    def add(self, name: str, data: bytes = b"more", mode: int = 0o100644) -> Packed:
        described = zipfile.ZipInfo(name)
        described.external_attr = mode << 16
        self.entries.append((described, data))
        return self

    def of(self, name: str) -> tuple[zipfile.ZipInfo, bytes]:
        return next(each for each in self.entries if each[0].filename == name)

    def remove(self, name: str) -> Packed:
        self.entries.remove(self.of(name))
        return self

    def rename(self, name: str, other: str) -> Packed:
        return self.add(other, self.of(name)[1]).remove(name)

    def link(self, name: str) -> Packed:
        """As Info-ZIP packs a symbolic link: its content is where it leads."""
        return self.remove(name).add(name, b"/etc/passwd", 0o120777)


def zips(folder: Path) -> list[tuple[str, Callable[[Packed], Packed]]]:
    names = (*ADDED, "../more", "/more", "more\\x", "C:more", "more/", "golden/../model.onnx")
    found: list[tuple[str, Callable[[Packed], Packed]]] = [
        (f"add {name}", lambda to, name=name: to.add(name)) for name in names
    ]
    for name in files(folder):
        found += [
            (f"remove {name}", lambda to, name=name: to.remove(name)),
            (f"rename {name}", lambda to, name=name: to.rename(name, f"{name}.x")),
            (f"case {name}", lambda to, name=name: to.rename(name, swapped(name))),
            (f"duplicate {name}", lambda to, name=name: to.add(name, to.of(name)[1])),
            (f"other duplicate {name}", lambda to, name=name: to.add(name, b"other")),
            (f"case twin {name}", lambda to, name=name: to.add(name.upper(), to.of(name)[1])),
            (f"link {name}", lambda to, name=name: to.link(name)),
            (f"link as {name}.l", lambda to, name=name: to.add(f"{name}.l", b"/", 0o120777)),
            (f"device {name}", lambda to, name=name: to.remove(name).add(name, b"", 0o020644)),
        ]
    return found


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_every_entry_of_the_zip(clinic, tmp_path):
    path = tmp_path / "changed.zip"
    changes = zips(clinic.three)
    assert len(changes) > 50
    for what, change in changes:
        change(Packed(clinic.three)).write(path)
        assert clinic.refuses(path, answers=False), what
    clinic.takes(Packed(clinic.three).write(path))


CLI = {
    "flip in the zip": lambda clinic, folder: flipped(zipped(folder)),
    "flip in the folder": lambda clinic, folder: flipped(folder / "model.onnx").parent,
    "flip in the signature": lambda clinic, folder: (
        flipped(folder / "signatures" / "clinic.sig").parent.parent
    ),
    "added": lambda clinic, folder: Packed(folder).add("more.onnx").write(folder / "../x.zip"),
    "removed": lambda clinic, folder: (
        Packed(folder).remove("model.onnx").write(folder / "../x.zip")
    ),
    "renamed": lambda clinic, folder: (
        Packed(folder).rename("model.onnx", "m.onnx").write(folder / "../x.zip")
    ),
    "duplicated": lambda clinic, folder: (
        Packed(folder).add("model.onnx").write(folder / "../x.zip")
    ),
    "linked": lambda clinic, folder: Packed(folder).link("model.onnx").write(folder / "../x.zip"),
    "hard link": lambda clinic, folder: hard_links(folder, "model.onnx") or folder,
    "case twin": lambda clinic, folder: Packed(folder).add("MODEL.onnx").write(folder / "../x.zip"),
    "Unicode twin": lambda clinic, folder: (
        Packed(folder).add("\uff4dodel.onnx").write(folder / "../x.zip")
    ),
    **{kind: change for kind, (change, _) in SIGNED.items()},
}


def flipped(path: Path) -> Path:
    flip(path, path.stat().st_size // 2, 1)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", CLI)
def test_by_the_command_line(clinic, command, state, kind):
    source = CLI[kind](clinic, copy(clinic.three, "changed"))
    before = pointer(state).read_bytes()
    done = command("install", source, "--trusted", clinic.signer.trusted)
    assert done.returncode == 1, done
    assert done.stderr.startswith("error ["), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert pointer(state).read_bytes() == before
    assert answer() == answer(clinic.two)


# What a power cut, a full disk and one that cannot be written leave.


class Faults:
    """Runs ``install_faults`` on a store, and gives what it told."""

    def __init__(self, clinic: Clinic) -> None:
        self._clinic = clinic
        self.answers = {
            each.name.partition("-")[2]: answer(each)
            for each in (clinic.one, clinic.two, clinic.three)
        }

    def describe(self, **options: object) -> str:
        clinic = self._clinic
        sources = (clinic.one, clinic.two, clinic.three)
        described = {
            "state": str(clinic.tmp_path / "tried"),
            "prepared": str(clinic.state),
            "trusted": str(clinic.signer.trusted),
            "sources": {each.name.partition("-")[2]: str(zipped(each)) for each in sources},
        }
        return json.dumps(described | options)

    def run(self, kind: str, *shell: str, **options: object) -> list[dict[str, Any]]:
        words = [*shell, sys.executable, "-m", "tests.device.install_faults", kind]
        done = subprocess.run(
            [*words, self.describe(**options)], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def assert_one_answers(self, told: list[dict[str, Any]], *versions: str | None) -> None:
        """Each time one of these, whole, and it is what the name means; and all of them once."""
        for each in told:
            assert each["version"] in versions
            expected = self.answers[each["version"]] if each["version"] else None
            assert each["answer"] == (expected and [expected[0], [*expected[1]]])
        assert {each["version"] for each in told} == set(versions)


@pytest.fixture
def faults(clinic) -> Faults:
    return Faults(clinic)


def prepared(clinic: Clinic, act: str) -> list[str | None]:
    """The store before it; which version is active before, and which after."""
    if act == "install 1.0":
        shutil.rmtree(clinic.state)
        clinic.state.mkdir()
        return [None, "1.0"]
    if act == "start":
        raw = json.loads(pointer(clinic.state).read_bytes())
        pointer(clinic.state).write_text(json.dumps({**raw, "starts": 3}))
    return ["2.0", "3.0" if act == "install 3.0" else "1.0"]


@pytest.mark.parametrize("act", ["install 1.0", "install 3.0", "rollback", "start"])
def test_killed_at_every_step(clinic, faults, act):
    """SIGKILL before every call that changes the disk, until one run comes through."""
    versions = prepared(clinic, act)
    again = act if act.startswith("install") else "install 2.0"
    told = faults.run("kill", act=act, again=again)
    faults.assert_one_answers(told, *versions)
    assert [each["killed"] for each in told] == [True] * (len(told) - 1) + [False]
    steps = Counter(told[-1]["steps"])
    assert len(told) == sum(steps.values()) + 1
    assert steps["fsync"] >= (2 if again != act else 10)
    assert steps["os.rename"] == (1 if again != act else 2)  # the pointer; and the slot
    assert len(told) > (6 if again != act else 40)
    expected = faults.answers["2.0" if again != act else act.removeprefix("install ")]
    assert all(each["then"] == [expected[0], [*expected[1]]] for each in told)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_killed_in_system_calls(clinic, faults):
    """The same from outside, at what Python does not tell of, such as each write of a file."""
    probe = subprocess.run(["strace", "-e", "trace=none", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("this system lets nobody trace")
    told = faults.run("strace", act="install 3.0", again="install 3.0", most=80)
    faults.assert_one_answers(told, "2.0", "3.0")
    assert len(told) >= 30
    assert all(each["killed"] for each in told)
    assert sum(each["call"].startswith("write") for each in told) >= 5


MOUNTED = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]


def mounted(clinic: Clinic, options: str, then: str = "") -> list[str]:
    """A file system of its own, with the store in it, for a program of its own."""
    state = clinic.tmp_path / "tried"
    state.mkdir()
    script = f'mount -t tmpfs -o {options} tmpfs "$0"; cp -r "$1/." "$0"; {then} shift; exec "$@"'
    probe = subprocess.run(
        [*MOUNTED, f'mount -t tmpfs tmpfs "{state}"'], capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip("this system lets no user mount a file system of their own")
    return [*MOUNTED, script, str(state), str(clinic.state)]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
@pytest.mark.parametrize("how", ["bytes", "names"])
def test_a_full_disk(clinic, faults, how):
    """Full at first, and with ever more room, so that every write is the one that fails once."""
    shell = mounted(clinic, "size=1m,nr_inodes=300")
    told = faults.run(how, *shell, act="install 3.0")
    *failed, done = told
    faults.assert_one_answers(failed, "2.0")
    faults.assert_one_answers([done], "3.0")
    assert len(failed) > 5
    for each in failed:
        assert "No space left on device" in each["error"]
        assert each["left"] == kept(clinic.state, "a", "b")
    assert done["left"] == kept(clinic.state, "b", "c")


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
@pytest.mark.parametrize("full", [True, False])
def test_small_things_where_nothing_can_be_written(clinic, faults, full):
    """A service starts, whatever the disk; to go back is refused, and 2.0 stays."""
    fill = 'dd if=/dev/zero of="$0/ballast" bs=4096 2>/dev/null || true;'
    shell = mounted(clinic, "size=1m", fill if full else 'mount -o remount,ro "$0";')
    *starts, back, listed = faults.run("small", *shell)
    faults.assert_one_answers([*starts, back], "2.0")
    reason = "No space left on device" if full else "Read-only file system"
    for each in starts:
        assert each["note"].startswith("This start is not counted: ")
        assert reason in each["note"]
    assert reason in back["error"]
    assert listed == {"problems": [""]}


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_disk_that_cannot_be_written(clinic, faults):
    shell = mounted(clinic, "size=1m", 'mount -o remount,ro "$0";')
    told = faults.run("try", *shell, act="install 3.0")
    faults.assert_one_answers(told, "2.0")
    assert "Read-only file system" in told[0]["error"]
    assert "Check that it may be written" in told[0]["error"]


def test_the_store_as_it_was_prepared(clinic):
    """What the faults begin with."""
    active = installed.find(NAME)
    assert active is not None
    assert active.previous is not None
    assert (active.version, active.previous.version) == ("2.0", "1.0")
    assert Bundle.open(NAME).hash == Bundle.open(clinic.two).hash
