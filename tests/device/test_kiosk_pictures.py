"""Views of answers: the newest in memory, and on the disk for some days."""

from __future__ import annotations

import os
import stat
import sys
import threading
import time

import pytest

from medimg_edge.errors import WriteError
from medimg_edge.kiosk.pictures import Pictures

A, B, C = (letter * 32 for letter in "abc")
DAY = 86_400


def test_the_newest_are_kept_in_memory(tmp_path):
    pictures = Pictures(tmp_path / "pictures", keep_days=None, memory_bytes=100)
    for name in (A, B, C):
        pictures.put(name, name[:1].encode() * 40, b"image")
    assert [pictures.get(name) for name in (A, B, C)] == [None, b"b" * 40, b"c" * 40]
    assert [pictures.has(name) for name in (A, B, C)] == [False, True, True]
    assert not pictures.on_disk
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_put_again_counts_once_and_is_the_newest(tmp_path):
    pictures = Pictures(tmp_path / "pictures", keep_days=None, memory_bytes=100)
    for name in (A, B, A, A):
        pictures.put(name, bytes(45), b"")
    pictures.put(C, bytes(45), b"")
    assert [pictures.has(name) for name in (A, B, C)] == [True, False, True]


def test_one_that_is_larger_than_the_memory_is_not_kept(tmp_path):
    pictures = Pictures(tmp_path / "pictures", keep_days=None, memory_bytes=100)
    pictures.put(A, bytes(101), b"")
    assert pictures.get(A) is None
    pictures.put(B, bytes(100), b"")
    assert pictures.get(B) == bytes(100)


def test_on_the_disk_they_outlive_the_service(tmp_path):
    folder = tmp_path / "pictures"
    Pictures(folder, keep_days=7, memory_bytes=1).put(A, b"view", b"image")
    again = Pictures(folder, keep_days=7)
    assert (again.get(A), again.has(A)) == (b"view", True)
    assert (again.get(B), again.has(B)) == (None, False)
    assert (folder / f"{A}.source").read_bytes() == b"image"
    assert sorted(each.name for each in folder.iterdir()) == [f"{A}.source", f"{A}.view"]
    for each in folder.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "a" * 31,
        "a" * 33,
        "A" * 32,
        "a" * 32 + "\n",
        "../" + "a" * 29,
        "a" * 31 + "/",
        "é" * 32,
    ],
)
def test_other_names_lead_nowhere(tmp_path, name):
    folder = tmp_path / "pictures"
    pictures = Pictures(folder, keep_days=7)
    pictures.put(A, b"view", b"image")
    (tmp_path / ("a" * 29 + ".view")).write_bytes(b"not ours")
    assert (pictures.get(name), pictures.has(name)) == (None, False)
    with pytest.raises(WriteError):
        pictures.put(name, b"view", b"image")
    assert len(list(folder.iterdir())) == 2


def test_the_old_are_removed_and_other_files_left(tmp_path):
    folder = tmp_path / "pictures"
    pictures = Pictures(folder, keep_days=2, memory_bytes=1)
    for name in (A, B):
        pictures.put(name, b"view", b"image")
    half = folder / f".{C}.view.x.partial"  # a power cut left it
    half.write_bytes(b"vi")
    (folder / "notes.txt").write_bytes(b"not ours")
    now = time.time()
    for each in (folder / f"{A}.view", folder / f"{A}.source", half, folder / "notes.txt"):
        os.utime(each, (now, now - 2 * DAY - 60))
    assert pictures.prune(now - DAY) == 0
    assert pictures.prune() == 3
    left = sorted(each.name for each in folder.iterdir())
    assert left == [f"{B}.source", f"{B}.view", "notes.txt"]
    assert pictures.get(A) is None
    assert pictures.prune(now + 3 * DAY) == 2


@pytest.mark.parametrize("keep_days", [None, 0])
def test_a_station_that_keeps_none_removes_what_it_kept_before(tmp_path, keep_days):
    folder = tmp_path / "pictures"
    Pictures(folder, keep_days=7).put(A, b"view", b"image")
    pictures = Pictures(folder, keep_days=keep_days)
    assert (pictures.get(A), pictures.has(A)) == (None, False)
    assert pictures.prune() == 2
    assert list(folder.iterdir()) == []
    assert pictures.prune() == 0


def test_a_disk_that_does_not_take_it_is_told_and_memory_serves(tmp_path):
    folder = tmp_path / "pictures"
    folder.write_bytes(b"a file is in the way")
    pictures = Pictures(folder, keep_days=7)
    with pytest.raises(WriteError):
        pictures.put(A, b"view", b"image")
    assert pictures.get(A) == b"view"
    assert pictures.prune() == 0


def test_threads_share_it(tmp_path):
    pictures = Pictures(tmp_path / "pictures", keep_days=None, memory_bytes=1000)
    names = [f"{number:032x}" for number in range(4000)]

    def put_and_get(part: int) -> None:
        for name in names[part::4]:
            pictures.put(name, name.encode(), b"")
            pictures.get(names[0])

    threads = [threading.Thread(target=put_and_get, args=(part,)) for part in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    finally:
        sys.setswitchinterval(before)
    found = [name for name in names if pictures.get(name) is not None]
    assert len(found) == 1000 // 32
    assert all(pictures.get(name) == name.encode() for name in found)


def test_one_that_is_removed_leaves_nothing(tmp_path):
    folder = tmp_path / "pictures"
    pictures = Pictures(folder, keep_days=7)
    pictures.put(A, b"view", b"image")
    pictures.put(B, b"view", b"image")
    pictures.remove(A)
    assert (pictures.has(A), pictures.has(B)) == (False, True)
    assert sorted(each.name for each in folder.iterdir()) == [f"{B}.source", f"{B}.view"]


def test_a_file_of_the_future_ages_from_now_on(tmp_path):
    """A clock that was wrong once keeps no image for ever."""
    folder = tmp_path / "pictures"
    pictures = Pictures(folder, keep_days=7)
    pictures.put(A, b"view", b"image")
    now = time.time()
    for each in folder.iterdir():
        os.utime(each, (now + 7000 * DAY, now + 7000 * DAY))
    assert pictures.prune(now) == 0
    assert pictures.prune(now + 6 * DAY) == 0
    assert pictures.prune(now + 8 * DAY) == 2
