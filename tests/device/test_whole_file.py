from pathlib import Path

import pytest

from medimg_edge.errors import WriteError
from medimg_edge.whole_file import write_whole


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path):
    path = tmp_path / "a.txt"
    for data in (b"first", b"second"):
        write_whole(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "a.txt", tmp_path / "folder"):
        with pytest.raises(WriteError, match=path.name):
            write_whole(path, b"data")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]
