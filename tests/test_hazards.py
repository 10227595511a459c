"""The safety file: each hazard has a control, and each control a test that is there."""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SAFETY = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
COLUMNS = ["id", "hazard", "severity", "cause", "control", "test", "residual"]
LISTED = re.compile(r"^\| (H\d+) \| (.+) \| (\w+) \|$", re.MULTILINE)
WITH_TEXT = ("hazard", "cause", "control", "test", "residual")

with (ROOT / "docs" / "hazards.csv").open(encoding="utf-8", newline="") as file:
    READER = csv.DictReader(file)
    HAZARDS = list(READER)

each_hazard = pytest.mark.parametrize("row", HAZARDS, ids=[row["id"] for row in HAZARDS])


def ids_in(source: str) -> Iterator[str]:
    """The ids behind the file's name, of functions and of classes, as pytest collects them."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from (f"{node.name}::{name}" for each in node.body for name in _test(each))
        yield from _test(node)


def _test(node: ast.stmt) -> Iterator[str]:
    """The name of a test; nothing of anything else."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
        yield node.name


@cache
def known(file: str) -> frozenset[str]:
    """The ids of a file below the project; none where there is no such file."""
    path = ROOT / file
    if not re.fullmatch(r"tests/(device|export)/test_\w+\.py", file) or not path.is_file():
        return frozenset()
    return frozenset(ids_in(path.read_text(encoding="utf-8")))


def unknown(tests: str) -> list[str]:
    """Of ids with spaces between them those that nobody wrote."""
    parts = [(name, *name.partition("::")) for name in tests.split()]
    return [name for name, file, _, test in parts if test not in known(file)]


def test_columns_and_number():
    assert READER.fieldnames == COLUMNS
    assert len(HAZARDS) >= 35
    assert all(None not in row and None not in row.values() for row in HAZARDS)


def test_ids_are_unique_and_hazards_differ():
    assert [row["id"] for row in HAZARDS] == [f"H{n:02}" for n in range(1, len(HAZARDS) + 1)]
    assert len({row["hazard"] for row in HAZARDS}) == len(HAZARDS)


@each_hazard
def test_the_tests_that_show_a_control_exist(row):
    assert row["test"].split(), "no test shows the control"
    assert unknown(row["test"]) == []
    assert len(set(row["test"].split())) == len(row["test"].split())


@each_hazard
def test_a_row_says_everything(row):
    assert [name for name in WITH_TEXT if len(row[name].strip()) < 10] == []
    assert f"| {row['severity']} |" in SAFETY, "the severity is not explained"


def test_the_file_lists_the_same_hazards():
    listed = [tuple(found) for found in LISTED.findall(SAFETY)]
    assert listed == [(row["id"], row["hazard"], row["severity"]) for row in HAZARDS]
    told = set(re.findall(r"\bH\d+\b", SAFETY))
    assert told == {row["id"] for row in HAZARDS}


def test_the_file_claims_nothing_and_its_links_lead_somewhere():
    assert "It is not a medical device" in SAFETY
    assert "claims no conformity" in SAFETY
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", SAFETY)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_a_test_that_is_gone_would_be_found():
    here = "tests/device/test_golden.py"
    assert unknown(f"{here}::test_no_golden_set") == []
    gone = [
        f"{here}::test_that_nobody_wrote",
        f"{here}::TestNothing::test_no_golden_set",
        here,
        "tests/device/test_nothing.py::test_no_golden_set",
        "medimg_edge/golden.py::test_no_golden_set",
    ]
    assert unknown(" ".join(gone)) == gone
    source = (
        "def test_one(): ...\n# def test_two(): ...\n'def test_three(): ...'\ndef helper(): ...\n"
        "class TestFour:\n    async def test_five(self): ...\n"
        "class Six:\n    def test_six(self): ...\n"
        "def outer():\n    def test_seven(): ...\n"
    )
    assert list(ids_in(source)) == ["test_one", "TestFour::test_five"]
