"""A spool: what it says is safe is there after the process ended, once, whole, and private."""

import errno
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from medimg_edge import disk, secret
from medimg_edge.dicom.node.outbox import Outbox
from medimg_edge.dicom.node.pauses import Pauses
from medimg_edge.dicom.node.spool import FAILURE, Spool
from medimg_edge.dicom.pseudonym import Pseudonyms
from medimg_edge.errors import WriteError

UID = "1.2.840.99.7"
MODEL, UPGRADED = "a" * 16, "b" * 16


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "node"


def arrive(spool: Spool, uid: str = UID, data: bytes = b"image") -> str | None:
    file = spool.partial / "arriving"
    file.write_bytes(data)
    return spool.receive(file, uid)


def arrived(spool: Spool, uid: str = UID) -> str:
    name = arrive(spool, uid)
    assert name is not None
    return name


def names(folder: Path) -> list[str]:
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*"))


def of(name: str, model: str = MODEL) -> str:
    """The folder with an instance's results."""
    return f"{name}-{model}"


def contents(name: str, *keys: str) -> list[str]:
    """What ``names`` tells of a folder that holds the results of one instance."""
    return [of(name), *(f"{of(name)}/{name}.{key}" for key in keys)]


def again(spool: Spool, **options) -> Spool:
    """After a kill: nothing was told, and the lock is gone."""
    spool.close()
    return Spool(spool.folder, **{"model": MODEL, "reserve_bytes": 0, **options})


@pytest.fixture
def spool(folder) -> Spool:
    return Spool(folder, model=MODEL, reserve_bytes=0)


@pytest.fixture
def sending(folder) -> Spool:
    return Spool(folder, model=MODEL, reserve_bytes=0, send=True)


def test_an_instance_is_received_answered_and_done(spool, folder):
    name = arrived(spool)
    assert spool.waiting() == [name]
    assert names(folder / "inbox") == [f"{name}.0.dcm"]
    assert names(spool.partial) == []

    with spool.answering(name) as (image, ended):
        assert (image.read_bytes(), ended) == (b"image", 0)
    spool.keep(name, {"sr.dcm": b"report", "json": b"{}"})
    assert spool.waiting() == []
    assert names(folder / "inbox") == names(spool.partial) == names(folder / "outbox") == []
    assert names(folder / "results") == contents(name, "json", "sr.dcm")


def test_ids_tell_nothing_and_stay(spool):
    name = arrived(spool)
    assert len(name) == 32
    assert UID not in name
    assert Pseudonyms(b"1" * secret.BYTES).of(UID) != Pseudonyms(b"2" * secret.BYTES).of(UID)
    later = again(spool)
    assert later.waiting() == [name]
    assert arrive(later) is None


def test_an_instance_that_comes_again_has_one_result(spool, folder):
    name = arrived(spool)
    assert arrive(spool) is None  # while it waits
    with spool.answering(name):
        assert arrive(spool) is None  # while it is answered
    spool.keep(name, {"json": b"first"})
    assert arrive(spool) is None  # and after
    assert spool.waiting() == names(folder / "inbox") == names(spool.partial) == []
    assert (folder / "results" / of(name) / f"{name}.json").read_bytes() == b"first"


def test_what_a_kill_leaves(spool, folder):
    old, new, done = arrived(spool, "1.1"), arrived(spool, "1.2"), arrived(spool, "1.3")
    os.utime(folder / "inbox" / f"{old}.0.dcm", (1, 1))
    (spool.partial / "half").write_bytes(b"ima")
    staged = spool.partial / old
    staged.mkdir()
    (staged / f"{old}.sr.dcm").write_bytes(b"rep")
    (folder / "results" / of(done)).mkdir()  # kept, and then killed
    (folder / "inbox" / "notes.txt").write_text("somebody's")

    later = again(spool)
    assert later.waiting() == [old, new]
    assert names(later.partial) == []
    assert names(folder / "inbox") == sorted([f"{old}.0.dcm", f"{new}.0.dcm", "notes.txt"])


def test_one_that_ends_the_process_is_not_in_the_way(spool, folder):
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from medimg_edge.dicom.node.spool import Spool\n"
        "with Spool(Path(sys.argv[1]), model='a' * 16).answering(sys.argv[2]): os._exit(7)"
    )
    first, second = arrived(spool, "1.1"), arrived(spool, "1.2")
    for times in (1, 2):
        spool.close()
        assert subprocess.run([sys.executable, "-c", program, folder, first]).returncode == 7
        spool = again(spool)
        assert spool.waiting() == [second, first]
        with spool.answering(first) as (_, ended):
            assert ended == times


def test_an_orderly_end_is_not_an_images_fault(spool, folder):
    name = arrived(spool)
    for _ in range(5):
        with spool.answering(name) as (image, tries):
            spool.forgive(name)
            assert (image.read_bytes(), tries) == (b"image", 0), "it is still being answered"
            assert names(folder / "inbox") == [f"{name}.0.dcm"]
            spool = again(spool)
            assert spool.waiting() == [name]


def test_tries_in_vain_are_counted(spool):
    name = arrived(spool)
    assert [spool.tried(name) for _ in range(2)] == [1, 2]
    with again(spool).answering(name) as (image, tries):
        assert (image.read_bytes(), tries) == (b"image", 2)


def test_an_end_between_two_answers_is_not_an_images_fault(spool):
    name = arrived(spool)
    with pytest.raises(ZeroDivisionError), spool.answering(name):
        raise ZeroDivisionError
    with again(spool).answering(name) as (_, ended):
        assert ended == 0


def test_images_can_be_kept(folder):
    spool = Spool(folder, model=MODEL, reserve_bytes=0, keep_images=True, send=True)
    name = arrived(spool)
    spool.keep(name, {"sr.dcm": b"report"})
    source = folder / "results" / of(name) / f"{name}.source.dcm"
    assert source.read_bytes() == b"image"
    assert [path.name for path in spool.outbox.pending()] == [f"{name}.sr.dcm"]  # that alone


def test_the_queue_has_an_end(folder):
    spool = Spool(folder, model=MODEL, queue=2, reserve_bytes=0)
    first = arrived(spool, "1.1")
    assert arrive(spool, "1.2")
    with pytest.raises(WriteError, match="2 instances wait for their answers"):
        arrive(spool, "1.3")
    assert arrive(spool, "1.2") is None  # safe already, so it may be acknowledged
    spool.keep(first, {"json": b"{}"})
    assert arrive(spool, "1.3")


def test_some_disk_stays_free(folder):
    spool = Spool(folder, model=MODEL, reserve_bytes=2**60)
    with pytest.raises(WriteError, match="MB are kept for results: make room"):
        arrive(spool)
    assert spool.waiting() == []


@pytest.fixture
def steps(folder, monkeypatch) -> list[str]:
    """What reaches the disk, in order: a kill cannot tell, a power cut would."""
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        steps.append(f"sync {told(os.readlink(f'/proc/self/fd/{descriptor}'))}")
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        steps.append(f"rename {told(source)} {told(target)}")
        rename(source, target)

    def told(path: object) -> str:
        plain = os.path.relpath(str(path), folder)
        return re.sub("[0-9a-f]{32}", "ID", plain).replace(MODEL, "MODEL")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    return steps


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="asks Linux what is synced")
def test_a_name_is_given_to_what_is_on_the_disk(sending, steps):
    name = arrived(sending)
    assert steps == [
        "sync partial/arriving",
        "rename partial/arriving inbox/ID.0.dcm",
        "sync inbox",
    ]
    steps.clear()
    sending.keep(name, {"sr.dcm": b"report", "json": b"{}"})
    assert steps == [
        "sync partial/ID/ID.sr.dcm",
        "sync partial/ID/ID.json",
        "sync partial/ID",
        "rename partial/ID outbox/ID-MODEL",
        "sync outbox",
    ]
    steps.clear()
    sending.outbox.acknowledged(sending.outbox.pending()[0])
    assert steps[:3] == [
        "sync results",
        "sync outbox/ID-MODEL",
        "rename outbox/ID-MODEL/ID.json results/ID-MODEL/ID.json",
    ]


@pytest.mark.parametrize("step", ["sync", "rename"])
def test_nothing_is_said_to_be_safe_that_is_not(spool, step, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(disk, step, fail)
        with pytest.raises(WriteError, match="Input/output error"):
            arrive(spool)
    assert spool.waiting() == []
    assert arrive(spool)  # sent again


@pytest.mark.parametrize("fails_at", [1, 2])  # of the results themselves, and of their name
def test_results_are_kept_at_the_second_try(fails_at, spool, folder, monkeypatch):
    name = arrived(spool)
    calls, whole = [], disk.sync

    def full(path: Path) -> None:
        calls.append(path)
        if len(calls) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path)

    with monkeypatch.context() as broken:
        broken.setattr(disk, "sync", full)
        with pytest.raises(WriteError, match="No space left"):
            spool.keep(name, {"json": b"{}"})
    assert spool.waiting() == [name]
    assert names(spool.partial) == []
    spool.keep(name, {"json": b"{}"})
    assert names(folder / "results") == contents(name, "json")
    assert names(folder / "inbox") == names(spool.partial) == []


@pytest.mark.parametrize("stays", [False, True], ids=["staged folder gone", "and it stays"])
def test_results_are_kept_when_a_rename_failed(stays, spool, folder, monkeypatch):
    name = arrived(spool)
    rename = os.rename

    def full(source: Path, target: Path) -> None:
        if target.parent.name == "results":
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", full)
        if stays:
            broken.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(WriteError, match="No space left"):
            spool.keep(name, {"json": b"{}"})
    assert names(spool.partial) == ([name, f"{name}/{name}.json"] if stays else [])
    spool.keep(name, {"json": b"{}"})
    assert names(folder / "results") == contents(name, "json")
    assert names(folder / "inbox") == names(spool.partial) == []


def test_a_failure_is_tried_anew_when_the_instance_is_sent_again(sending, folder):
    name = arrived(sending)
    sending.keep(name, {FAILURE: b"first"})
    assert names(folder / "results") == contents(name, FAILURE)
    spool = again(sending, send=True)
    assert spool.waiting() == [], "not by itself"
    assert arrive(spool) == name
    spool.keep(name, {FAILURE: b"second"})
    assert (folder / "results" / of(name) / f"{name}.{FAILURE}").read_bytes() == b"second"
    assert arrive(spool) == name
    spool.keep(name, {"sr.dcm": b"report", "json": b"{}"})
    assert names(folder / "results") == names(spool.partial) == []
    assert arrive(spool) is None, "its results wait for the archive"
    spool.outbox.acknowledged(spool.outbox.pending()[0])
    assert names(folder / "results") == contents(name, "json")


def test_a_kill_while_a_failure_makes_way(spool, folder, monkeypatch):
    name = arrived(spool)
    spool.keep(name, {FAILURE: b"first"}, image=True)
    assert names(folder / "results") == contents(name, FAILURE, "source.dcm")
    assert arrive(spool) == name

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(spool, "_put", killed)
    with pytest.raises(KeyboardInterrupt):
        spool.keep(name, {"json": b"{}"})
    assert again(spool).waiting() == [name]


def test_another_model_answers_anew(sending, folder):
    name = kept(sending, UID, "sr.dcm", "json")
    waits = arrived(sending, "1.1")
    upgraded = again(sending, send=True, model=UPGRADED)
    assert upgraded.waiting() == [waits]
    assert arrive(upgraded) == name
    upgraded.keep(name, {"sr.dcm": b"better", "json": b"{}"})
    assert arrive(upgraded) is None
    pending = upgraded.outbox.pending()
    assert {each.parent.name for each in pending} == {of(name), of(name, UPGRADED)}
    for each in pending:
        upgraded.outbox.acknowledged(each)
    assert sorted(os.listdir(folder / "results")) == [of(name), of(name, UPGRADED)]
    assert arrive(again(upgraded, send=True)) is None


def test_what_takes_the_room_is_told(spool):
    kept(spool, UID, "json")
    assert spool.taken() == "inbox 0 MB, outbox 0 MB, results 0 MB"
    name = arrived(spool, "1.1")
    spool.keep(name, {"json": bytes(3_000_000)})
    assert spool.taken() == "inbox 0 MB, outbox 0 MB, results 3 MB"
    assert disk.taken(spool.folder, seconds=-1) == (0, False)


def test_a_folder_has_one_user(spool, folder):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from medimg_edge.dicom.node.spool import Spool\n"
        "from medimg_edge.errors import WriteError\n"
        "try: Spool(Path(sys.argv[1]), model='a' * 16)\n"
        "except WriteError as error: print(error)"
    )
    (spool.partial / "arriving").write_bytes(b"ima")
    done = subprocess.run(
        [sys.executable, "-c", program, folder], capture_output=True, text=True, timeout=60
    )
    assert "is used by another process" in done.stdout
    assert names(spool.partial) == ["arriving"]


def test_only_the_owner_sees_patients(spool, folder):
    name = arrived(spool)
    spool.keep(name, {"sr.dcm": b"report"})
    modes = {each: stat.S_IMODE((folder / each).stat().st_mode) for each in os.listdir(folder)}
    assert {modes[each] for each in ("partial", "inbox", "outbox", "results")} == {0o700}
    assert modes["salt"] == 0o600


def test_a_damaged_salt(spool, folder):
    (folder / "salt").write_bytes(b"short")
    spool.close()
    with pytest.raises(WriteError, match="salt is no secret of 32 bytes in hexadecimal"):
        Spool(folder, model=MODEL)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match="cannot be used: Not a directory"):
        Spool(tmp_path / "file" / "node", model=MODEL)


def kept(spool: Spool, uid: str, *files: str) -> str:
    name = arrived(spool, uid)
    spool.keep(name, dict.fromkeys(files, b"data"))
    return name


def test_results_are_sent_one_by_one(sending, folder):
    name = kept(sending, UID, "sr.dcm", "sc.a.dcm", "json")
    outbox = sending.outbox
    capture, report = outbox.pending()
    assert report == folder / "outbox" / of(name) / f"{name}.sr.dcm"
    outbox.acknowledged(report)
    assert outbox.pending() == [capture]
    assert names(folder / "results") == contents(name)
    assert arrive(sending) is None

    outbox.acknowledged(capture)
    assert names(folder / "outbox") == outbox.pending() == []
    assert names(folder / "results") == contents(name, "json"), "what tells that it is known"
    assert arrive(again(sending, send=True)) is None


def test_results_that_the_archive_has_can_be_kept(folder):
    spool = Spool(folder, model=MODEL, reserve_bytes=0, send=True, keep_results=True)
    name = kept(spool, UID, "sr.dcm", "sc.a.dcm", "json")
    for each in spool.outbox.pending():
        spool.outbox.acknowledged(each)
    assert names(folder / "results") == contents(name, "json", "sc.a.dcm", "sr.dcm")


def test_an_instance_without_a_record_is_known_too(sending, folder):
    name = kept(sending, UID, "sr.dcm")
    sending.outbox.acknowledged(sending.outbox.pending()[0])
    assert names(folder / "results") == contents(name)
    assert arrive(again(sending, send=True)) is None


def test_results_wait_in_the_order_of_their_answers(sending, folder):
    first, second = kept(sending, "1.1", "sr.dcm"), kept(sending, "1.2", "sr.dcm")
    os.utime(folder / "outbox" / of(first), (2, 2))
    os.utime(folder / "outbox" / of(second), (1, 1))
    assert [each.parent.name for each in sending.outbox.pending()] == [of(second), of(first)]


def test_what_is_not_for_an_archive_does_not_wait_for_one(sending, folder):
    name = kept(sending, UID, "json")
    assert sending.outbox.pending() == []
    assert names(folder / "results") == contents(name, "json")


def test_a_kill_between_the_last_acknowledgement_and_the_rest(sending, folder):
    name = kept(sending, UID, "sr.dcm", "json")
    (folder / "results" / of(name)).mkdir()
    os.rename(sending.outbox.pending()[0], folder / "results" / of(name) / f"{name}.sr.dcm")
    later = again(sending, send=True)
    assert later.waiting() == later.outbox.pending() == names(folder / "outbox") == []
    assert len(names(folder / "results" / of(name))) == 2


def test_results_wait_while_there_is_no_archive(sending, folder):
    name = kept(sending, UID, "sr.dcm")
    later = again(sending)
    assert arrive(later) is None
    assert [each.parent.name for each in later.outbox.pending()] == [of(name)]


def test_foreign_files_in_the_outbox(folder):
    outbox = folder / "outbox"
    (outbox / "theirs").mkdir(parents=True)
    (outbox / "theirs" / "x.dcm").write_bytes(b"")
    (outbox / ("0" * 32)).write_bytes(b"no folder")
    assert Outbox(outbox, folder / "results").pending() == []


def test_pauses_grow_to_an_end():
    pauses = Pauses(1, 300)
    assert [pauses.after(each) for each in (1, 2, 3, 9, 10, 10_000)] == [1, 2, 4, 256, 300, 300]
