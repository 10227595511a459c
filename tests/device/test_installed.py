"""What a name means: a folder, else what is installed by it, else what is shipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medimg_edge import installed, models, store
from medimg_edge.bundle import MANIFEST, Bundle, find
from medimg_edge.errors import BundleMissing, StoreDamaged
from tests.device.installing import NAME, Signer, answer, changed, install, pointer, release


@pytest.fixture
def signer(tmp_path) -> Signer:
    return Signer(tmp_path)


@pytest.fixture
def one(mean_bundle, signer) -> Path:
    folder = signer.sign(release(mean_bundle, "1.0"))
    install(folder, signer.trust)
    return folder


@pytest.fixture
def two(one, mean_bundle, signer) -> Path:
    folder = signer.sign(release(mean_bundle, "2.0", 1.0))
    install(folder, signer.trust)
    return folder


def test_nothing_is_installed(state):
    assert installed.find(NAME) is None
    assert installed.names() == []
    with pytest.raises(BundleMissing, match=f"a shipped name: {models.DEFAULT}"):
        Bundle.open(NAME)
    state.mkdir()
    assert installed.find(NAME) is None
    (state / "bundles").write_text("a file")
    assert installed.find(NAME) is None
    assert installed.names() == []


def test_find(state, two):
    active = installed.find(NAME)
    assert active is not None
    assert active.folder == state / "bundles" / NAME / "b"
    assert active.hash == Bundle.open(two).hash
    assert (active.version, active.kept.signer, active.starts) == ("2.0", "clinic", 0)
    assert active.previous is not None
    assert active.folder_of(active.previous) == state / "bundles" / NAME / "a"
    assert active.slots == ["b", "a"]
    assert find(NAME) == active.folder
    assert installed.names() == [NAME]
    assert Bundle.open(NAME).path == active.folder
    with pytest.raises(BundleMissing, match=f"a shipped name: {NAME}, {models.DEFAULT}"):
        Bundle.open("other")


def test_what_is_written_is_read(state, two):
    active = store.rollback(NAME)
    assert active.left is not None
    assert installed.find(NAME) == active
    pointer(state).write_bytes(installed.encode(active))
    assert installed.find(NAME) == active


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../mean",
        "mean/",
        "mean/a",
        "/mean",
        ".mean",
        "mean\n",
        "mean\0",
        "m" * 300,
        "Mean",
    ],
)
def test_what_is_no_name(one, name):
    assert installed.find(name) is None


def test_a_folder_goes_first(one, tmp_path, mean_bundle, monkeypatch):
    """Of the name, where the command runs."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert answer(NAME) == answer(one)
    other = release(mean_bundle, "0.1", 5.0)
    other.rename(tmp_path / "here" / NAME)
    assert Bundle.open(NAME).path == Path(NAME)
    assert answer(NAME) != answer(one)


def test_installed_goes_before_shipped(mean_bundle, signer):
    shipped = Bundle.open(models.DEFAULT)
    assert shipped.path == models.FOLDER / models.DEFAULT
    folder = signer.sign(release(mean_bundle, "99", name=models.DEFAULT))
    install(folder, signer.trust)
    assert Bundle.open(models.DEFAULT).hash == Bundle.open(folder).hash
    assert find(models.DEFAULT) != shipped.path
    assert installed.names() == [models.DEFAULT]


def test_a_changed_manifest(two):
    """A whole bundle in the slot is not enough: it has to be the one that was installed."""
    active = installed.find(NAME)
    assert active is not None
    path = active.folder / MANIFEST
    path.write_bytes(path.read_bytes() + b"\n")
    Bundle.open(active.folder)  # as a folder it is one
    with pytest.raises(StoreDamaged, match=r"mean 2\.0 .*not the one that was installed\. Install"):
        Bundle.open(NAME)
    path.write_text("{")
    with pytest.raises(StoreDamaged, match=r"`medimg-edge rollback mean`"):
        Bundle.open(NAME)
    assert store.rollback(NAME).version == "1.0"
    Bundle.open(NAME).check_contents()


@pytest.mark.parametrize("damage", ["slot", "model.onnx", MANIFEST, "more"])
def test_a_damaged_slot(one, damage):
    active = installed.find(NAME)
    assert active is not None
    if damage == "slot":
        active.folder.rename(active.home / "away")
    elif damage == "more":
        (active.folder / "more").write_text("x")
    else:
        (active.folder / damage).unlink()
    with pytest.raises(StoreDamaged, match=r"is installed in .* and cannot be used: "):
        Bundle.open(NAME)


DAMAGE = {
    "no JSON": "{",
    "no object": "[]",
    "a number": "1",
    "binary": "\0\1\2",
    "nested": "[" * 20000,
    "large": " " * (installed.MAX_BYTES + 1),
    "empty": "",
}
VALUES = {
    "schema": [2, None, "1"],
    "name": ["../x", 1, None],
    "slot": ["d", "../a", "", None, ["a"]],
    "hash": ["", "x" * 64, "A" * 64, None, "0" * 63],
    "version": [1, None],
    "signer": [1, []],
    "installed": [0, None],
    "previous": [1, "a", {}, {"slot": "b"}],
    "left": [1, {"slot": "a"}],
    "floor": [None, "1.0", {"version": "1.0"}, {"version": 1, "hash": "0" * 64}],
    "starts": [-1, 1.5, None, "0", True],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_pointer(state, one, kind):
    pointer(state).write_text(DAMAGE[kind])
    for act in (installed.find, Bundle.open, find):
        with pytest.raises(StoreDamaged, match=r"active\.json says .* Move the folder"):
            act(NAME)


@pytest.mark.parametrize("field", VALUES)
def test_a_pointer_of_other_values(state, one, field):
    good = pointer(state).read_bytes()
    for value in VALUES[field]:
        changed(pointer(state), **{field: value})
        with pytest.raises(StoreDamaged):
            installed.find(NAME)
        raw = json.loads(good)
        del raw[field]
        pointer(state).write_text(json.dumps(raw))
        with pytest.raises(StoreDamaged):
            installed.find(NAME)
        pointer(state).write_bytes(good)
    assert installed.find(NAME) is not None


def test_two_bundles_in_one_slot(state, two):
    raw = json.loads(pointer(state).read_bytes())
    changed(pointer(state), previous={**raw["previous"], "slot": "b"})
    with pytest.raises(StoreDamaged, match="two bundles are in one slot"):
        installed.find(NAME)


def test_a_pointer_of_another_name(state, one):
    """Where letters' case makes no difference to the disk, it does to a bundle's name."""
    os.rename(state / "bundles" / NAME, state / "bundles" / "MEAN")
    assert installed.find("MEAN") is None


def test_a_pointer_that_is_a_folder(state, one):
    pointer(state).unlink()
    pointer(state).mkdir()
    with pytest.raises(StoreDamaged, match="Is a directory"):
        installed.find(NAME)


def test_no_home(monkeypatch):
    monkeypatch.setattr(installed.state, "folder", lambda: None)
    assert installed.folder() is None
    assert installed.find(NAME) is None
    assert installed.names() == []
    assert Bundle.open(models.DEFAULT).path == models.FOLDER / models.DEFAULT


def test_it_is_light():
    """Every start looks a name up."""
    program = (
        "import sys; import medimg_edge.installed as i; i.find('x')\n"
        "print(*({'numpy', 'msgspec', 'cv2', 'onnxruntime', 'cryptography', 'medimg_edge.store'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")
