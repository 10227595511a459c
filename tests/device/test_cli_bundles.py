"""medimg-edge install, bundles, rollback, pack: as a technician with a stick uses them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from medimg_edge import models, store
from medimg_edge.bundle import Bundle
from tests.device.installing import (
    IMAGE,
    NAME,
    Signer,
    answer,
    check,
    install,
    kept,
    left,
    pointer,
    release,
    zipped,
)


@pytest.fixture
def signer(tmp_path) -> Signer:
    return Signer(tmp_path)


@pytest.fixture
def one(mean_bundle, signer) -> Path:
    return signer.sign(release(mean_bundle, "1.0"))


@pytest.fixture
def two(mean_bundle, signer) -> Path:
    return signer.sign(release(mean_bundle, "2.0", 1.0))


@pytest.fixture
def trusted(state, signer) -> Path:
    """The keys where they are looked for."""
    state.mkdir()
    return signer.trusted.rename(state / "trusted")


def test_the_whole_way(state, trusted, one, two, command, tmp_path):
    """Pack on the workstation, carry, install, answer, update, go back."""
    packed = command("pack", one, "--out", tmp_path / "stick.zip")
    assert packed.stdout.endswith(f"{(tmp_path / 'stick.zip').stat().st_size:,} bytes.\n")
    assert packed.stderr == ""
    first = command("install", tmp_path / "stick.zip")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == "mean 1.0, signed by clinic, is installed.\n"
    assert answered(command, tmp_path) == "1.0"
    second = command("install", two)
    assert second.stdout == "mean 2.0, signed by clinic, is installed in place of 1.0.\n"
    assert second.stderr == "`medimg-edge rollback mean` goes back to 1.0.\n"
    assert answered(command, tmp_path) == "2.0"
    again = command("install", two)
    assert (again.returncode, again.stdout) == (
        0,
        "mean 2.0, signed by clinic, is installed already.\n",
    )
    back = command("rollback", NAME)
    assert (back.returncode, back.stdout) == (0, "mean is 1.0 again.\n")
    assert answered(command, tmp_path) == "1.0"
    for words in (("rollback", NAME), ("rollback", "none"), ("rollback", "../mean")):
        refused = command(*words)
        assert refused.returncode == 1
        assert refused.stderr.startswith("error [bundle-store]: ")
    assert left(state) == kept(state, "a", "b")


def answered(command, folder: Path) -> str:
    """Which version answers an image by its name."""
    (folder / "image.png").write_bytes(IMAGE)
    done = command("infer", folder / "image.png", "-b", NAME)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["model"]["version"]


def test_by_name(trusted, one, called, signer):
    install(one, signer_trust(trusted))
    verified = called("verify", NAME)
    assert verified.returncode == 0
    assert "mean 1.0 gives the same answers here" in verified.stdout
    assert Bundle.open(one).hash in called("info", NAME).stdout
    assert called("verify", "other").returncode == 1


def signer_trust(folder: Path):
    from medimg_edge.trust import Trust

    return Trust.load(folder)


def test_keys_elsewhere(one, signer, command):
    nobody = command("install", one)
    assert nobody.returncode == 1
    assert nobody.stderr.startswith("error [signer-unknown]: ")
    done = command("install", one, "--trusted", signer.trusted)
    assert (done.returncode, done.stderr) == (0, "")
    none = command("install", one, "--trusted", signer.trusted / "none")
    assert none.returncode == 1
    assert none.stderr.startswith("error [key]: ")


def test_allow_unsigned(state, mean_bundle, command):
    folder = release(mean_bundle, "1.0")
    refused = command("install", folder)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error [signature-missing]: ")
    assert left(state) == [".installing/lock", ".pointing/lock"]
    done = command("install", folder, "--allow-unsigned")
    assert (done.returncode, done.stdout) == (0, "mean 1.0 is installed.\n")
    assert done.stderr == "warning: Not signed: nobody vouches for it.\n"
    quiet = command("--quiet", "install", folder, "--allow-unsigned")
    assert (quiet.stdout, quiet.stderr) == ("mean 1.0 is installed already.\n", "")


def test_the_golden_set_stops_it(state, trusted, one, mean_bundle, signer, rewrite, called):
    install(one, signer_trust(trusted))
    wrong = release(mean_bundle, "2.0", 1.0)

    def shift(raw) -> None:
        raw["golden"][0]["probability"]["model.onnx"][0] += 0.01

    rewrite(wrong, shift)
    done = called("install", signer.sign(wrong))
    assert done.returncode == 1
    assert done.stderr.startswith("error [bundle-golden]: model.onnx: max |dp| is 0.01")
    assert answer() == answer(one)
    assert left(state) == kept(state, "a")


def test_a_site_profile_of_the_bundle_before(trusted, one, two, called):
    active = install(one, signer_trust(trusted)).active
    (active.home / "a.profile.json").write_text("{}")
    done = called("install", two)
    assert done.returncode == 0
    assert "warning: the site profile is of the bundle before" in done.stderr


def test_bundles(state, trusted, one, two, called):
    shipped = Bundle.open(models.DEFAULT)
    (alone,) = json.loads(called("bundles").stdout)
    assert alone == {
        "name": models.DEFAULT,
        "source": "shipped",
        "version": shipped.manifest.version,
        "hash": shipped.hash,
        "folder": str(shipped.path),
        "problem": None,
    }
    install(one, signer_trust(trusted))
    install(two, signer_trust(trusted))
    found, _ = json.loads(called("bundles", "--format", "json").stdout)
    assert found["hash"] == Bundle.open(two).hash
    assert found["folder"] == str(Bundle.open(NAME).path)
    assert {key: found[key] for key in ("name", "source", "version", "signer", "problem")} == {
        "name": NAME,
        "source": "installed",
        "version": "2.0",
        "signer": "clinic",
        "problem": None,
    }
    assert found["previous"]["version"] == "1.0"
    assert (found["left"], found["floor"], found["starts"]) == (None, "2.0", 0)
    table = called("bundles", "--format", "table")
    header, _, line, other = table.stdout.splitlines()
    assert header.split()[:2] == ["name", "version"]
    assert line.split()[:3] == ["mean", "2.0", "clinic"]
    assert found["installed"] in line
    assert found["hash"][:12] in line
    assert other.startswith(models.DEFAULT)
    called("rollback", NAME)
    assert called("bundles").stderr == "mean went back from 2.0 to 1.0.\n"


def test_damaged_bundles_are_listed(state, trusted, one, called):
    active = install(one, signer_trust(trusted)).active
    (active.folder / "model.onnx").unlink()
    done = called("bundles", "--format", "table")
    assert done.returncode == 1
    assert done.stderr.startswith("warning: mean: model.onnx is missing")
    pointer(state).write_text("{")
    done = called("bundles", "--format", "json")
    assert done.returncode == 1
    found = json.loads(done.stdout)[0]
    assert "is damaged" in found["problem"]
    assert found["name"] == NAME
    assert called("bundles", "--format", "table").stdout.splitlines()[2].startswith("mean")


def test_an_update_of_the_shipped_bundle(trusted, mean_bundle, signer, called):
    folder = signer.sign(release(mean_bundle, "99", name=models.DEFAULT))
    install(folder, signer_trust(trusted))
    (found,) = json.loads(called("bundles").stdout)
    assert (found["source"], found["version"]) == ("installed", "99")


def test_the_package_brings_a_newer_one(trusted, mean_bundle, signer, called, monkeypatch):
    """Installed beside an older package: it answers still, and the user is told of the other."""
    with monkeypatch.context() as then:
        then.setattr(store, "shipped", list)
        install(
            signer.sign(release(mean_bundle, "0.0.1", name=models.DEFAULT)), signer_trust(trusted)
        )
    shipped = Bundle.open(models.FOLDER / models.DEFAULT)
    done = called("bundles")
    assert done.returncode == 0
    assert json.loads(done.stdout)[0]["version"] == "0.0.1"
    words = f"brings {models.DEFAULT} {shipped.manifest.version}, which is newer. To install that"
    assert words in done.stderr
    assert f"`medimg-edge install {shipped.path}`" in done.stderr
    assert called("install", shipped.path).returncode == 0
    done = called("bundles")
    assert json.loads(done.stdout)[0]["version"] == shipped.manifest.version
    assert done.stderr == ""


def test_pack(one, tmp_path, called):
    out = tmp_path / "one.zip"
    assert called("pack", one, "--out", out).returncode == 0
    assert out.read_bytes() == zipped(one).read_bytes()
    with zipfile.ZipFile(out) as opened:
        assert "signatures/clinic.sig" in opened.namelist()
    (one / "signatures" / "clinic.sig").unlink()
    (one / "signatures").rmdir()
    unsigned = called("pack", one, "--out", out)
    assert unsigned.returncode == 0
    assert "warning: nobody has signed it" in unsigned.stderr
    for words in (
        ("pack", one, "--out", one / "x.zip"),
        ("pack", one, "--out", tmp_path / "none" / "x.zip"),
        ("pack", one, "--out", tmp_path),
    ):
        refused = called(*words)
        assert refused.returncode == 1
        assert refused.stderr.startswith("error [write]: ")
    assert called("pack", tmp_path / "none", "--out", out).stderr.startswith("error [bundle-miss")
    assert called("pack", one).returncode == 2


def test_a_shipped_bundle_can_be_packed(tmp_path, called):
    assert called("pack", models.DEFAULT, "--out", tmp_path / "shipped.zip").returncode == 0
    with zipfile.ZipFile(tmp_path / "shipped.zip") as opened:
        assert opened.testzip() is None


@pytest.mark.parametrize("what", ["none.zip", "text.zip", ""])
def test_what_is_no_bundle(tmp_path, called, what):
    (tmp_path / "text.zip").write_text("no zip")
    done = called("install", tmp_path / what)
    assert done.returncode == 1
    assert done.stderr.startswith("error [bundle-")


def test_no_place_for_it(one, signer, command):
    environment = {**os.environ, "MEDIMG_EDGE_STATE": "/dev/null/state"}
    done = command("install", one, "--trusted", signer.trusted, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("error [write]: /dev/null/state/bundles cannot be used: ")


def test_progress_on_a_terminal(trusted, two):
    """What is done is drawn over, and is gone at the end."""
    leader, follower = pty.openpty()
    words = [sys.executable, "-m", "medimg_edge.cli", "install", str(two)]
    running = subprocess.Popen(words, stderr=follower, stdout=subprocess.PIPE, text=True)
    os.close(follower)
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: drain(leader, seen))
    reader.start()
    out, _ = running.communicate(timeout=120)
    reader.join()
    drawn = b"".join(seen).decode()
    assert out == "mean 2.0, signed by clinic, is installed.\n"
    assert "copying" in drawn
    assert "golden set" in drawn
    assert drawn.endswith("\r\033[K")


def drain(descriptor: int, seen: list[bytes]) -> None:
    while True:
        try:
            data = os.read(descriptor, 4096)
        except OSError:  # how a terminal on Linux ends
            return
        if not data:
            return
        seen.append(data)


def test_the_check_is_the_golden_set(one):
    """What these tests install with in this process is what the command checks apart."""
    from medimg_edge.golden_apart import verify_apart

    assert [each.status for each in verify_apart(one)] == [each.status for each in check(one)]
