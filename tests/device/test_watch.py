"""Folders that are watched: each image once, when it is complete."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, Queue

import pytest

from medimg_edge import watch
from medimg_edge.errors import ExtraMissing, InputMissing
from medimg_edge.inputs import Input
from medimg_edge.watch import Watch

pytest.importorskip("watchfiles", reason="watchfiles, of the watch extra, tells of changes")

Arrivals = Callable[..., Input | None]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def quick(monkeypatch):
    """A whole file comes after 0.2 s of rest, one that is none after 1.5 s."""
    monkeypatch.setattr(watch, "SETTLED_SECONDS", 0.2)
    monkeypatch.setattr(watch, "GIVEN_UP_SECONDS", 1.5)
    monkeypatch.setattr(watch, "WAKE_MILLISECONDS", 50)


@pytest.fixture
def arrivals(quick) -> Callable[[Watch], Arrivals]:
    """Watch in a thread; give what waits for the next input, or None after so many seconds."""

    def start(watched: Watch) -> Arrivals:
        found: Queue[Input] = Queue()

        def follow() -> None:
            for each in watched:
                found.put(each)

        threading.Thread(target=follow, daemon=True).start()

        def following(seconds: float = 20) -> Input | None:
            try:
                return found.get(timeout=seconds)
            except Empty:
                return None

        return following

    return start


def test_what_is_there_and_what_arrives(folder, frozen, arrivals):
    png, dicom = frozen / "golden" / "01-gray8.png", frozen / "golden" / "08-monochrome2.dcm"
    shutil.copy(png, folder / "a.png")
    (folder / "notes.txt").write_text("no image")
    following = arrivals(Watch([folder]))
    assert following() == Input(folder / "a.png", "a.png")

    shutil.copy(png, folder / "b.png")
    assert following() == Input(folder / "b.png", "b.png")

    (folder / "new").mkdir()  # what lies in a folder that appears
    shutil.copy(dicom, folder / "new" / "1.2.840")
    assert following() == Input(folder / "new" / "1.2.840", "new/1.2.840")

    shutil.copy(png, folder.parent / "c.png")  # and what gets its name when it is complete
    os.rename(folder.parent / "c.png", folder / "c.png")
    assert following() == Input(folder / "c.png", "c.png")

    (folder / "notes.txt").write_text("still none")
    shutil.copy(png, folder / "a.png")  # answered already
    assert following(1) is None


def test_not_before_it_is_complete(folder, frozen, arrivals):
    data = (frozen / "golden" / "01-gray8.png").read_bytes()
    following = arrivals(Watch([folder]))
    path = folder / "slow.png"
    with path.open("wb", buffering=0) as file:
        for at in range(0, len(data), len(data) // 15):
            file.write(data[at : at + len(data) // 15])
            assert following(0.1) is None
    assert following() == Input(path, "slow.png")


def test_one_that_stopped_halfway_and_grew_on(folder, frozen, arrivals):
    """A stalled network: it came, it was no whole image, and it comes again."""
    data = (frozen / "golden" / "01-gray8.png").read_bytes()
    path = folder / "stalled.png"
    path.write_bytes(data[:1000])
    watched = Watch([folder])
    following = arrivals(watched)
    assert following() == Input(path, "stalled.png")
    assert watched.again(path)
    time.sleep(0.3)
    path.write_bytes(data)
    assert following() == Input(path, "stalled.png")
    assert path.read_bytes() == data


def test_one_that_stays_half(folder, arrivals):
    path = folder / "half.png"
    path.write_bytes(b"\x89PNG")
    watched = Watch([folder])
    following = arrivals(watched)
    assert following() == Input(path, "half.png")
    came = time.monotonic()
    assert watched.again(path)
    assert following() == Input(path, "half.png")
    assert time.monotonic() - came >= 1.5
    assert not watched.again(path)  # believed


def test_one_that_is_taken_away_may_come_back(folder, frozen, arrivals):
    png = frozen / "golden" / "01-gray8.png"
    path = folder / "part.png"
    path.write_bytes(b"\x89PNG")
    watched = Watch([folder])
    following = arrivals(watched)
    assert following() == Input(path, "part.png")
    assert watched.again(path)
    time.sleep(0.2)
    path.unlink()
    assert following(2) is None
    shutil.copy(png, path)
    assert following() == Input(path, "part.png")


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_a_name_that_is_not_utf_8(folder, frozen, arrivals):
    following = arrivals(Watch([folder]))
    name = os.fsencode(folder) + b"/caf\xe9.png"
    try:
        shutil.copy(frozen / "golden" / "01-gray8.png", name)
    except OSError:
        pytest.skip("this file system has no such names")
    found = following()
    assert found is not None
    assert os.fsencode(found.path) == name


def test_what_cannot_be_watched(folder, monkeypatch):
    (folder / "a.png").write_bytes(b"")
    for path in (folder / "none", folder / "a.png"):
        with pytest.raises(InputMissing, match="is no folder"):
            Watch([folder, path])
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ExtraMissing, match=r"medimg-edge\[watch\]"):
        Watch([folder])
