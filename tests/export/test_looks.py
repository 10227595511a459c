import csv
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medimg_edge.errors import WriteError
from medimg_export.looks import HEADER, Look, append, require_list

LOOK = Look("chest", "0.1.0", "ab" * 32, "model.onnx", "chest, all", "test", 624, 0.97912)


def test_a_list_begins_with_its_header_and_grows(tmp_path: Path):
    path = tmp_path / "looks.csv"
    require_list(path)
    append(path, LOOK)
    append(path, Look("chest", "0.1.0", "cd" * 32, "model.onnx", "a\nb", "all", 2, None))
    assert path.read_text().startswith(",".join(HEADER) + "\n")
    first, second = csv.DictReader(path.open())
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["time"])
    assert (first["data"], first["n"], first["auc"]) == ("chest, all", "624", "0.9791")
    assert (second["data"], second["auc"]) == ("a b", "")
    require_list(path)


def test_a_line_that_an_editor_left_open_is_ended(tmp_path: Path):
    path = tmp_path / "looks.csv"
    append(path, LOOK)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append(path, LOOK)
    assert len(list(csv.DictReader(path.open()))) == 2


def test_looks_at_the_same_time_are_whole_lines(tmp_path: Path):
    path = tmp_path / "looks.csv"
    append(path, LOOK)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: append(path, LOOK), range(200)))
    rows = list(csv.DictReader(path.open()))
    assert len(rows) == 201
    assert {tuple(row.values())[1:] for row in rows} == {tuple(rows[0].values())[1:]}


@pytest.mark.parametrize(
    ("content", "accepted"),
    [
        ("", True),
        (",".join(HEADER) + "\r\n", True),
        ("time,bundle\n", False),
        ("\n", False),
        ("\x00\xff", False),
    ],
)
def test_another_file_is_no_list(tmp_path: Path, content: str, accepted: bool):
    path = tmp_path / "looks.csv"
    path.write_text(content)
    if accepted:
        require_list(path)
        return
    with pytest.raises(WriteError, match="is no list of looks: it does not begin with time,bundle"):
        require_list(path)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path):
    for path, message in (
        (tmp_path / "missing" / "looks.csv", "there is no folder"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(WriteError, match=message):
            require_list(path)
        with pytest.raises(WriteError, match="cannot be written"):
            append(path, LOOK)


def test_this_projects_list_is_one():
    require_list(Path(__file__).parents[2] / "docs" / "test-looks.csv")
