"""Paths, folders, lists and shards -> inputs."""

import os
from pathlib import Path

import pytest

from medimg_edge.errors import DataInvalid, DataMissing, InputMissing, NoImages
from medimg_edge.inputs import Input, Shard, base_of, given, in_shard, listed

FILES = ("b.png", "a/c.png", "a/b/d.png", "a.png", "ab/e.png")


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "in"
    for name in FILES:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def test_a_folder_in_the_order_of_its_paths(folder):
    found = list(given([folder]))
    assert [each.path for each in found] == sorted(folder / name for name in FILES)
    assert [each.key for each in found] == ["a/b/d.png", "a/c.png", "a.png", "ab/e.png", "b.png"]


def test_files_and_folders_that_are_none(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    paths = [folder / "b.png", tmp_path / "none.png", tmp_path / "empty"]
    one, other, empty = given(paths)
    assert (one, other) == (Input(paths[0], str(paths[0])), Input(paths[1], str(paths[1])))
    assert (empty.path, empty.key) == (paths[2], ".")
    assert isinstance(empty.error, NoImages)


def test_a_text_with_a_path_on_each_line(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    text = tmp_path / "list.txt"
    for data in (
        b"b.png\n\nnone, or so.png\na/b\n",
        b"b.png\r\nnone, or so.png\r\na/b",
        b"\xef\xbb\xbfb.png\nnone, or so.png\na/b\n",
    ):
        text.write_bytes(data)
        assert [str(each.path) for each in listed(text)] == [
            "b.png",
            "none, or so.png",
            "a/b/d.png",
        ]
    text.write_bytes(b"")
    assert list(listed(text)) == []


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_names_that_are_not_utf_8(tmp_path):
    for data in (b"caf\xe9.png\n", b"label,path\nno,caf\xe9.png\n"):
        (tmp_path / "list").write_bytes(data)
        (found,) = listed(tmp_path / "list")
        assert os.fsencode(found.path.name) == b"caf\xe9.png"
        assert list(in_shard([found], Shard(1, 1))) == [found]


def test_a_csv_with_paths_relative_to_it(folder):
    sheet = folder / "labels.csv"
    sheet.write_text('Label, Path ,group\nno,b.png,1\n\nyes,"a/b\n.png",2\nno,/x.png,3\n')
    found = list(listed(sheet))
    assert [each.path for each in found] == [folder / "b.png", folder / "a/b\n.png", Path("/x.png")]
    assert [each.key for each in found] == ["b.png", "a/b\n.png", "/x.png"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,label\n,no\n", "line 2: the path is empty"),
        ("label,path\na\n", "line 2: the path is empty"),
        ('path,label\na.png,no\n"b.png,no\n', "cannot be read as a CSV"),
    ],
)
def test_a_csv_that_is_none(tmp_path, text, says):
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(text)
    with pytest.raises(DataInvalid, match=says):
        list(listed(sheet))


def test_a_list_that_is_not_there(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(DataMissing, match="cannot be read"):
            list(listed(path))


def test_shards_are_the_whole_in_parts(tmp_path):
    inputs = [Input(tmp_path / f"{at}.png", f"{at}.png") for at in range(1000)]
    for count in (1, 3, 8):
        parts = [list(in_shard(inputs, Shard(part, count))) for part in range(1, count + 1)]
        assert sorted(each for part in parts for each in part) == sorted(inputs)
        assert min(map(len, parts)) > 700 / count
    moved = [Input(Path("/elsewhere", each.key), each.key) for each in inputs]
    here, there = (list(in_shard(found, Shard(2, 3))) for found in (inputs, moved))
    assert [each.key for each in here] == [each.key for each in there]
    # Fixed for ever: other machines, and other releases, take the other parts.
    fixed = [each.key for each in in_shard(inputs[:20], Shard(1, 3))]
    assert fixed == ["1.png", "4.png", "11.png"]


def test_where_heatmaps_are_relative_to(folder, tmp_path):
    assert base_of([folder]) == folder
    assert base_of([folder / "b.png"]) == folder
    assert base_of([folder / "a", folder / "ab"]) == folder
    assert base_of([folder / "a", folder / "ab" / ".." / "b.png"]) == folder
    assert base_of([Path("-")]) == Path.cwd()


def test_a_folder_that_vanishes(folder):
    found = given([folder])
    assert next(found).key == "a/b/d.png"
    (folder / "ab" / "e.png").unlink()
    (folder / "ab").rmdir()
    rest = list(found)
    assert [each.key for each in rest] == ["a/c.png", "a.png", "ab", "b.png"]
    assert isinstance(rest[2].error, InputMissing)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_folder_that_may_not_be_searched(folder):
    (folder / "a").chmod(0)
    found = list(given([folder]))
    (folder / "a").chmod(0o755)
    assert [each.key for each in found] == ["a", "a.png", "ab/e.png", "b.png"]
    assert isinstance(found[0].error, InputMissing)
