"""Install, update, roll back, start: what a name means after each, and what it never means."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import pytest

from medimg_edge import installed, models, site_profile, store
from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.errors import (
    ArtifactUnknown,
    BundleError,
    BundleMissing,
    FilesDiffer,
    GoldenMismatch,
    SignatureMissing,
    SignerUnknown,
    StoreDamaged,
    VersionTooLow,
    WriteError,
)
from tests.device import installing
from tests.device.installing import (
    NAME,
    Signer,
    answer,
    changed,
    check,
    copy,
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
def trust(signer):
    return signer.trust


@pytest.fixture
def one(mean_bundle, signer) -> Path:
    return signer.sign(release(mean_bundle, "1.0"))


@pytest.fixture
def two(mean_bundle, signer) -> Path:
    return signer.sign(release(mean_bundle, "2.0", 1.0))


@pytest.fixture
def three(mean_bundle, signer) -> Path:
    return signer.sign(release(mean_bundle, "3.0", 2.0))


def version() -> str:
    active = installed.find(NAME)
    assert active is not None
    return active.version


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_install_and_update(state, trust, one, two, form):
    sources = [one, two] if form == "folder" else [zipped(one), zipped(two)]
    done = install(sources[0], trust)
    assert (done.changed, done.replaced, done.standing.status) == (True, None, "trusted")
    assert (done.active.version, done.active.kept.signer) == ("1.0", "clinic")
    assert answer() == answer(one) == (done.active.hash, answer()[1])
    assert left(state) == kept(state, "a")
    done = install(sources[1], trust)
    assert done.replaced is not None
    assert (done.changed, done.replaced.version, done.active.version) == (True, "1.0", "2.0")
    assert answer() == answer(two) != answer(one)
    assert left(state) == kept(state, "a", "b")


def test_two_are_kept(state, trust, mean_bundle, signer):
    """However many there were; and the one before is never written over."""
    slots = []
    for number in range(1, 7):
        folder = signer.sign(release(mean_bundle, f"{number}", number))
        before = installed.find(NAME)
        done = install(folder, trust)
        slots.append(done.active.kept.slot)
        assert done.active.previous == (before and before.kept)
        assert answer() == answer(folder)
    assert slots == ["a", "b", "c", "a", "b", "c"]
    assert left(state) == kept(state, "b", "c")


def test_the_same_again(state, trust, one, two):
    install(one, trust)
    install(two, trust)
    before = pointer(state).read_bytes()
    done = install(zipped(two), trust)
    assert (done.changed, done.active.version) == (False, "2.0")
    assert pointer(state).read_bytes() == before
    assert left(state) == kept(state, "a", "b")


def test_an_install_repairs(state, trust, one, two):
    """The same bundle, where what was installed is damaged."""
    install(one, trust)
    active = install(two, trust).active
    model = active.folder / "model.onnx"
    model.write_bytes(bytes(model.stat().st_size))
    with pytest.raises(FilesDiffer):
        answer()
    done = install(two, trust)
    assert (done.changed, done.active.version) == (True, "2.0")
    assert done.active.previous is not None
    assert done.active.previous.version == "1.0"
    assert answer() == answer(two)
    assert store.rollback(NAME).version == "1.0"
    assert answer() == answer(one)


def test_one_below_the_floor_is_repaired(trust, one, two):
    """What answers may be written anew, also after a roll-back."""
    install(one, trust)
    install(two, trust)
    active = store.rollback(NAME)
    (active.folder / "model.onnx").unlink()
    with pytest.raises(StoreDamaged, match=r"model\.onnx is missing"):
        answer()
    assert install(one, trust).active.version == "1.0"
    assert answer() == answer(one)
    assert installed.find(NAME).floor.version == "2.0"  # type: ignore[union-attr]


def test_names_are_apart(state, trust, mean_bundle, signer):
    for name in ("lung", "knee"):
        folder = signer.sign(release(mean_bundle, "1", len(name), name=name))
        install(folder, trust)
    assert installed.names() == ["knee", "lung"]
    assert [each.name for each in store.listing()] == ["knee", "lung"]
    assert left(state) == sorted({*kept(state, "a", name="lung"), *kept(state, "a", name="knee")})


@pytest.mark.parametrize("name", ["lock", "active.json", "a", "CON", "x.y-z_", "bundles", "9"])
def test_odd_names(state, trust, mean_bundle, signer, name):
    folder = signer.sign(release(mean_bundle, "1", name=name))
    install(folder, trust)
    assert answer(name) == answer(folder)
    assert installed.names() == [name]


def test_a_name_that_leaves_the_folder(state, trust, mean_bundle, signer, rewrite):
    folder = release(mean_bundle, "1")
    for name in ("../x", ".x", "x/y", "x\n", ""):
        bad = copy(folder, f"bad-{abs(hash(name))}")
        rewrite(bad, lambda raw, name=name: raw.update(name=name))
        with pytest.raises(BundleError):
            install(signer.sign(bad), trust)
    assert left(state) == sorted(installing.LOCKS)


def test_signatures(tmp_path, state, trust, one, mean_bundle):
    unsigned = release(mean_bundle, "2")
    with pytest.raises(SignatureMissing):
        install(unsigned, trust)
    unknown = Signer(tmp_path, "stranger").sign(copy(unsigned, "unknown"))
    with pytest.raises(SignerUnknown):
        install(unknown, trust)
    assert left(state) == sorted(installing.LOCKS)
    assert install(unsigned, trust, allow_unsigned=True).active.kept.signer is None
    assert (state / "bundles" / NAME / "a").is_dir()


def test_allow_unsigned_keeps_the_floor(trust, one, two):
    install(two, trust)
    with pytest.raises(VersionTooLow):
        install(one, trust, allow_unsigned=True)


def test_golden_set_of_this_machine(state, trust, one, mean_bundle, signer, rewrite):
    """A bundle that answers otherwise here than where it was made."""
    install(one, trust)

    def shift(raw) -> None:
        raw["golden"][0]["probability"]["model.onnx"][0] += 0.01

    wrong = release(mean_bundle, "2", 1.0)
    rewrite(wrong, shift)
    signer.sign(wrong)
    with pytest.raises(GoldenMismatch, match=r"model\.onnx: max \|dp\| is 0\.01, .* not installed"):
        install(wrong, trust)
    without = release(mean_bundle, "3", 1.0)
    rewrite(without, lambda raw: raw.update(golden=[]))
    signer.sign(without)
    with pytest.raises(GoldenMismatch, match="no golden set"):
        install(without, trust)
    assert answer() == answer(one)
    assert left(state) == kept(state, "a")


def test_no_runtime(trust, one, monkeypatch):
    monkeypatch.setattr("medimg_edge.engines.installed", lambda kind: kind == "tflite")
    with pytest.raises(ArtifactUnknown, match=r"no runtime for model\.onnx"):
        install(one, trust)


def test_what_the_check_may_raise(state, trust, one, two):
    """Ours or not: the old bundle stays, and nothing is left."""
    install(one, trust)

    def fail(folder: Path):
        raise MemoryError

    with pytest.raises(MemoryError):
        store.install(two, trust=trust, check=fail)
    assert answer() == answer(one)
    assert left(state) == kept(state, "a")


VERSIONS = [
    *("0.9", "0.9.9.9", "0.10-rc1", "0.10-rc2", "0.10-rc10", "0.10", "0.10.0.1", "1-alpha"),
    *("1-alpha.1", "1-beta", "1-rc1", "1", "1.0.1", "1.1", "1.2", "1.10", "2-1", "2-x", "2.0"),
    *("10", "2026.1", "2026.10.31"),
]


def test_the_order_of_versions():
    orders = [store._order(each) for each in VERSIONS]
    assert None not in orders
    assert orders == sorted(orders)  # type: ignore[type-var]
    assert len(set(orders)) == len(orders)
    for one, other in (("1", "1.0.0"), ("1.2", "1.2.0"), ("1-rc1", "1.0-rc01"), ("0", "0.0")):
        assert store._order(one) == store._order(other)


@pytest.mark.parametrize(
    "text",
    ["", "v1", "1.", ".1", "1..2", "latest", "1.0 ", "1.0\n", "1_0", "١.٢", "-1", "1-", "9" * 10],
)
def test_versions_without_an_order(trust, mean_bundle, signer, text):
    folder = signer.sign(release(mean_bundle, text))
    with pytest.raises(VersionTooLow, match=r"has no order.*such as 1\.4\.0"):
        install(folder, trust)


@pytest.mark.parametrize("older", ["0.9", "2.0-rc9", "1.99.99", "2-x"])
def test_an_older_version(state, trust, two, mean_bundle, signer, older):
    install(two, trust)
    folder = signer.sign(release(mean_bundle, older, 5))
    with pytest.raises(VersionTooLow, match=rf"mean {older} is older than 2\.0"):
        install(folder, trust)
    assert answer() == answer(two)
    assert left(state) == kept(state, "a")


@pytest.mark.parametrize("same", ["2.0", "2", "2.0.0.0"])
def test_another_bundle_of_the_same_version(trust, two, mean_bundle, signer, same):
    install(two, trust)
    two.rename(two.with_name("installed"))
    folder = release(mean_bundle, same, 7)
    with pytest.raises(VersionTooLow, match="another bundle of the same version"):
        install(signer.sign(folder), trust)
    assert answer() == answer(two.with_name("installed"))


def test_the_floor_outlives_a_roll_back(trust, one, two, three, mean_bundle, signer):
    install(one, trust)
    install(three, trust)
    store.rollback(NAME)
    assert answer() == answer(one)
    with pytest.raises(VersionTooLow, match=r"2\.0 is older than 3\.0"):
        install(two, trust)
    other = signer.sign(release(mean_bundle, "3.0.0", 9))
    with pytest.raises(VersionTooLow, match="same version"):
        install(other, trust)
    assert not install(one, trust).changed
    assert answer() == answer(one)
    done = install(three, trust)
    assert done.changed
    assert answer() == answer(three)
    store.rollback(NAME)
    assert answer() == answer(one)


def test_the_shipped_version_is_a_floor(trust, mean_bundle, signer):
    """An update of the package's bundle, and not a bundle from before it."""
    shipped = Bundle.open(models.DEFAULT).manifest.version
    older = signer.sign(release(mean_bundle, "0.0.1", name=models.DEFAULT))
    with pytest.raises(VersionTooLow, match=rf"0\.0\.1 is older than {shipped}"):
        install(older, trust)
    same = signer.sign(release(mean_bundle, shipped, name=models.DEFAULT))
    with pytest.raises(VersionTooLow, match="same version"):
        install(same, trust)
    newer = signer.sign(release(mean_bundle, "99", name=models.DEFAULT))
    install(newer, trust)
    assert answer(models.DEFAULT) == answer(newer)


def test_roll_back_once(state, trust, one, two):
    """A second time does not bring back what was gone back from; an install does."""
    install(one, trust)
    install(two, trust)
    active = store.rollback(NAME)
    assert (active.version, active.previous, active.left and active.left.version) == (
        *("1.0", None),
        "2.0",
    )
    assert answer() == answer(one)
    with pytest.raises(StoreDamaged, match=r"mean 1\.0 stays: .*2\.0, .* is kept: `medimg-edge"):
        store.rollback(NAME)
    assert answer() == answer(one)
    assert left(state) == kept(state, "a", "b")
    assert active.left is not None
    install(active.folder_of(active.left), trust)
    assert answer() == answer(two)
    assert store.rollback(NAME).version == "1.0"


def test_nothing_to_go_back_to(trust, one):
    with pytest.raises(StoreDamaged, match=r"No bundle is installed as 'mean'; installed is noth"):
        store.rollback(NAME)
    install(one, trust)
    with pytest.raises(StoreDamaged, match=r"1\.0 stays: there is no bundle before it"):
        store.rollback(NAME)
    with pytest.raises(StoreDamaged, match=r"'none'; installed is mean"):
        store.rollback("none")
    assert answer() == answer(one)


@pytest.mark.parametrize("damage", ["manifest.json", "model.onnx", "golden/01.png", None])
def test_a_damaged_bundle_is_not_gone_back_to(trust, one, two, damage):
    before = install(one, trust).active
    install(two, trust)
    if damage:
        path = before.folder / damage
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        shutil.rmtree(before.folder)
    with pytest.raises(StoreDamaged, match=r"2\.0 stays: 1\.0, .* cannot be used"):
        store.rollback(NAME)
    assert answer() == answer(two)


def start(name: str = NAME) -> installed.Active:
    """A start that fails, unless ``started`` is called."""
    return store.begin_start(name)


def test_starts_that_end_well(state, trust, one, two):
    install(one, trust)
    install(two, trust)
    for _ in range(7):
        active = start()
        assert (active.version, active.note, active.starts) == ("2.0", "", 1)
        store.started(NAME, active.hash)
    assert installed.find(NAME).starts == 0  # type: ignore[union-attr]


def test_three_failed_starts_go_back(trust, one, two):
    install(one, trust)
    install(two, trust)
    assert [start().version for _ in range(3)] == ["2.0"] * 3
    active = start()
    assert active.version == "1.0"
    assert active.note == (
        "mean 2.0 did not start 3 times in a row. 1.0, the one before it, answers again."
    )
    assert answer() == answer(one)
    store.started(NAME, active.hash)
    assert [start().version for _ in range(5)] == ["1.0"] * 5
    assert "did not start 3 times in a row. It stays: there is no bundle before it" in start().note
    with pytest.raises(StoreDamaged, match=r"1\.0 stays"):
        store.rollback(NAME)
    install(two, trust)
    assert (start().version, start().starts) == ("2.0", 2)


def test_failed_starts_of_the_only_bundle(trust, one):
    install(one, trust)
    assert [start().note for _ in range(3)] == [""] * 3
    for active in [start(), start(), start()]:
        assert (active.version, active.starts) == ("1.0", 3)
        assert "It stays: there is no bundle before it." in active.note
    store.started(NAME, Bundle.open(NAME).hash)
    assert start().note == ""


def test_failed_starts_before_a_damaged_bundle(trust, one, two):
    before = install(one, trust).active
    install(two, trust)
    (before.folder / "model.onnx").unlink()
    for _ in range(3):
        start()
    active = start()
    assert active.version == "2.0"
    assert "It stays: 1.0, the one before, cannot be used. model.onnx is missing" in active.note


def test_an_update_starts_from_zero(trust, one, two, three):
    install(one, trust)
    install(two, trust)
    for _ in range(3):
        start()
    install(three, trust)
    assert [start().version for _ in range(3)] == ["3.0"] * 3
    assert start().version == "2.0"


def test_another_bundle_started(trust, one, two):
    """What was started before an update says nothing of the one after it."""
    old = install(one, trust).active
    start()
    install(two, trust)
    start()
    store.started(NAME, old.hash)
    assert installed.find(NAME).starts == 1  # type: ignore[union-attr]
    store.started("none", old.hash)
    with pytest.raises(StoreDamaged):
        store.begin_start("none")


def test_killed_starts_count(state, trust, one, two):
    """A process that dies at once after it began, as by a fault of a library."""
    install(one, trust)
    install(two, trust)
    program = (
        "import os, signal; from medimg_edge.store import begin_start\n"
        "print(begin_start('mean').version, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    said = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        for _ in range(4)
    ]
    assert [each.returncode for each in said] == [-9] * 4
    assert [each.stdout for each in said] == ["2.0\n"] * 3 + ["1.0\n"]
    assert answer() == answer(one)


@pytest.mark.parametrize("now", [0, 1, -1e9, 2**31, 4e9])
def test_the_clock(state, trust, one, two, three, monkeypatch, now):
    """A device without one wakes up in 1970: nothing is refused, and nothing is lost."""
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(time, "gmtime", lambda *given, real=time.gmtime: real(*(given or [now])))
    install(zipped(one), trust)
    install(two, trust)
    assert start().version == "2.0"
    assert store.rollback(NAME).version == "1.0"
    install(three, trust)
    assert answer() == answer(three)
    assert [each.problem for each in store.listing()] == [""]
    monkeypatch.setattr(time, "gmtime", lambda *given, real=time.strptime: real("1970", "%Y"))
    with pytest.raises(VersionTooLow):
        install(two, trust)
    assert left(state) == kept(state, "a", "c")


def test_two_installs_at_once(state, trust, one, two):
    """One wins; the other says why not, at once, and nothing of either is lost."""
    install(one, trust)
    inside, go_on, done = Event(), Event(), []

    def slow(folder: Path):
        inside.set()
        assert go_on.wait(60)
        return check(folder)

    def first() -> None:
        done.append(store.install(two, trust=trust, check=slow))

    thread = Thread(target=first)
    thread.start()
    assert inside.wait(60)
    program = (
        "import sys; from pathlib import Path; from medimg_edge import store\n"
        "from medimg_edge.errors import WriteError\n"
        "try: store.install(Path(sys.argv[1]), trust=None, check=lambda folder: [])\n"
        "except WriteError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", program, two], capture_output=True, text=True)
    assert "is used by another process, which installs a bundle" in said.stdout
    assert answer() == answer(one)
    assert start().version == "1.0"  # a service starts meanwhile
    go_on.set()
    thread.join()
    assert done[0].changed
    assert answer() == answer(two)
    assert left(state) == kept(state, "a", "b")


def test_a_start_that_waits(state, trust, one):
    """Another process that changes the pointer takes a moment."""
    import fcntl

    install(one, trust)
    with (state / "bundles" / ".pointing" / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Thread(target=lambda: (time.sleep(0.3), fcntl.flock(lock, fcntl.LOCK_UN))).start()
        began = time.monotonic()
        assert start().note == ""
        assert time.monotonic() - began > 0.2


def test_a_start_that_cannot_be_counted(state, trust, one, monkeypatch):
    import fcntl

    monkeypatch.setattr(store, "WAIT_SECONDS", 0.1)
    install(one, trust)
    with (state / "bundles" / ".pointing" / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        active = start()
    assert active.version == "1.0"
    assert active.note.startswith("This start is not counted: ")


def test_a_reader_never_sees_two_bundles(state, trust, mean_bundle, signer):
    """Open and read, over and over, while bundles take each other's place.

    What is read is of the bundle that was opened. That opening fails, never; that a file is gone
    needs two updates between opening and reading.
    """
    folders = [signer.sign(release(mean_bundle, f"{n}", n)) for n in range(12)]
    told = {Bundle.open(each).hash: each for each in folders}
    install(folders[0], trust)
    ended, opened, faults, seen = Event(), [], [], set()

    def read() -> None:
        while not ended.is_set():
            bundle = Bundle.open(NAME)
            opened.append(bundle.hash)
            try:
                data = {name: bundle.read(name) for name in bundle.entries}
            except FilesDiffer as error:
                faults.append(str(error))
                continue
            source = told[bundle.hash]
            if all((source / name).read_bytes() == each for name, each in data.items()):
                seen.add(bundle.hash)
            else:
                faults.append("mixed")

    def keep_reading() -> None:
        try:
            read()
        except BaseException as error:
            faults.append(repr(error))
            raise

    readers = [Thread(target=keep_reading) for _ in range(2)]
    for each in readers:
        each.start()
    for folder in folders[1:]:
        install(folder, trust)
    ended.set()
    for each in readers:
        each.join()
    assert all("cannot be read: No such file" in each for each in faults), faults
    assert len(faults) < len(opened) / 10
    assert len(seen) > 3


def test_what_a_slow_reader_may_meet(trust, one, two, three):
    """Guaranteed is until the second update; then it is an error, and never the other bundle."""
    install(one, trust)
    opened = Bundle.open(NAME)
    expected = (one / "model.onnx").read_bytes()
    assert opened.read("model.onnx") == expected
    install(two, trust)
    assert opened.read("model.onnx") == expected
    install(three, trust)
    with pytest.raises(FilesDiffer, match=r"model\.onnx cannot be read: No such file"):
        opened.read("model.onnx")


def test_a_site_profile_stays_with_its_bundle(state, trust, one, two, three):
    """Beside the slot; it goes with the bundle, and never to the next one in the slot."""
    active = install(one, trust).active
    beside = site_profile.beside(Bundle.open(NAME))
    assert beside == active.home / "a.profile.json"
    profile = b'{"of": "one"}'
    beside.write_bytes(profile)
    done = install(two, trust)
    assert done.uncalibrated
    assert site_profile.find(Bundle.open(NAME)) is None
    store.rollback(NAME)
    assert site_profile.find(Bundle.open(NAME)) == beside
    (active.folder / "model.onnx").write_bytes(b"damaged")
    assert not install(one, trust).uncalibrated  # repaired, in another slot
    found = site_profile.find(Bundle.open(NAME))
    assert found is not None
    assert found != beside
    assert found.read_bytes() == profile
    assert not beside.exists()
    install(two, trust)
    install(three, trust)
    assert sorted(each.name for each in active.home.glob("*.profile.json")) == []


def test_listing(state, trust, one, two):
    assert store.listing() == []
    install(one, trust)
    install(two, trust)
    (found,) = store.listing()
    assert found.active == installed.find(NAME)
    assert (found.name, found.problem) == (NAME, "")
    assert found.active is not None
    (found.active.folder / "model.onnx").unlink()
    (found,) = store.listing()
    assert found.problem.startswith("model.onnx is missing")
    pointer(state).write_text("{")
    (found,) = store.listing()
    assert found.active is None
    assert "is damaged" in found.problem


def test_a_damaged_pointer_is_not_written_over(state, trust, one, two):
    """It held the version floor: a person has to see it."""
    install(one, trust)
    pointer(state).write_text("{}")
    for act in (
        lambda: install(two, trust),
        lambda: store.rollback(NAME),
        lambda: store.begin_start(NAME),
        lambda: answer(),
    ):
        with pytest.raises(StoreDamaged, match=r"Move the folder .* away, and install"):
            act()
    assert pointer(state).read_text() == "{}"
    assert left(state) == kept(state, "a")
    shutil.move(pointer(state).parent, state / "away")
    install(two, trust)
    assert answer() == answer(two)


def test_what_others_left_is_cleared(state, trust, one, two):
    """Of killed installs, whatever their name was. What is no slot is not touched."""
    install(one, trust)
    folder = state / "bundles"
    for name in ("b", "c"):
        shutil.copytree(one, folder / NAME / name)
    (folder / NAME / ".active.json.x1.partial").write_text("half")
    shutil.copytree(one, folder / "first" / "a")
    shutil.copytree(one, folder / ".installing" / "bundle")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("somebody's")
    install(two, trust)
    assert left(state) == sorted([*kept(state, "a", "b"), "notes/a.txt"])


def test_no_home(trust, one, monkeypatch):
    monkeypatch.setattr(installed, "folder", lambda: None)
    with pytest.raises(WriteError, match="MEDIMG_EDGE_STATE=FOLDER"):
        install(one, trust)
    assert store.listing() == []


def test_a_state_folder_that_is_a_file(tmp_path, trust, one, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDIMG_EDGE_STATE", str(tmp_path / "file"))
    with pytest.raises(WriteError, match="Check that it may be written"):
        install(one, trust)
    with pytest.raises(BundleMissing):
        answer()


def test_a_relative_state_folder(tmp_path, trust, one, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDIMG_EDGE_STATE", "kept here")
    active = install(one, trust).active
    assert (tmp_path / "kept here" / "bundles" / NAME / "a" / "model.onnx").is_file()
    assert active.folder.is_absolute()
    assert answer() == answer(one)


def test_a_source_of_its_own(trust, one, two):
    """The kept slots are bundles as any other."""
    first = install(one, trust).active
    assert not install(first.folder, trust).changed
    install(two, trust)
    with pytest.raises(VersionTooLow):
        install(first.folder, trust)


def test_by_name_everywhere(trust, mean_bundle, signer):
    folder = signer.sign(release(mean_bundle, "99", name=models.DEFAULT))
    shipped = Bundle.open(models.DEFAULT).hash
    install(folder, trust)
    assert Bundle.open(models.DEFAULT).hash == Bundle.open(folder).hash != shipped
    assert Classifier(models.DEFAULT).bundle.hash != shipped


def test_the_pointer_is_for_people_too(state, trust, one, two):
    install(one, trust)
    install(two, trust)
    raw = json.loads(pointer(state).read_bytes())
    assert (raw["schema"], raw["name"], raw["slot"], raw["version"]) == (1, NAME, "b", "2.0")
    assert raw["previous"]["version"] == "1.0"
    assert raw["floor"] == {"version": "2.0", "hash": Bundle.open(two).hash}
    assert (raw["starts"], raw["left"], raw["signer"]) == (0, None, "clinic")
    changed(pointer(state), version="x")
    assert version() == "x"
    assert os.stat(pointer(state)).st_mode & 0o777 == 0o644
