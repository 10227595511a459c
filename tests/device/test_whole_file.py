"""A file is whole under its name, or what was there before is."""

import os
from pathlib import Path

import pytest

from medimg_edge.errors import WriteError
from medimg_edge.whole_file import whole_file, write_whole


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path):
    path = tmp_path / "a.txt"
    for data in (b"first", b"second"):
        write_whole(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_it_can_be_read_by_others_whatever_the_mask(tmp_path: Path):
    before = os.umask(0o077)
    try:
        write_whole(tmp_path / "a.txt", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_it_appears_when_the_block_ends(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with whole_file(path) as file:
        file.write(b"after")
        file.flush()
        assert path.read_text() == "before"
    assert path.read_text() == "after"


def test_an_error_in_the_block_is_its_own_and_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(FileNotFoundError), whole_file(path):
        (tmp_path / "an input").read_bytes()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_said_at_once_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "a.txt", tmp_path / "folder", Path("/")):
        with pytest.raises(WriteError, match="name a"), whole_file(path):
            pytest.fail("the work began")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"data")

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(WriteError, match="No space left"):
        write_whole(tmp_path / "a.txt", b"after")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["before"]
