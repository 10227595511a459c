"""The commands: each is found by its name, and a start imports that one alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer.main

from medimg_edge.cli.application import COMMANDS, app

MODULES = "import sys; print(*sorted(m for m in sys.modules if m.startswith('medimg_edge.cli.')))"
ALWAYS = {"application", "output"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_where_it_is_said_to_be(name: str):
    found = typer.main.get_command(app).commands[name]  # pyright: ignore[reportAttributeAccessIssue]
    assert found.name == name
    assert found.help


@pytest.mark.parametrize(
    ("words", "imported"),
    [
        pytest.param(["--version"], set(), id="version"),
        pytest.param(["info", "--help"], {"device"}, id="a command"),
        pytest.param(["keys", "list", "--help"], {"keys", "options"}, id="of a group"),
        pytest.param(["infer", "--help"], {"infer", "options"}, id="infer"),
    ],
)
def test_a_start_imports_what_is_asked_for(words: list[str], imported: set[str]):
    program = (
        f"import sys; sys.argv[1:] = {words}\n"
        "from medimg_edge.cli import main\n"
        f"try: main()\nfinally:\n    sys.stdout = sys.stderr\n    {MODULES}\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = {each.rpartition(".")[2] for each in run.stderr.split()}
    assert found == ALWAYS | imported


def test_what_is_misspelt_is_guessed():
    run = subprocess.run(
        [sys.executable, "-m", "medimg_edge.cli", "infr"], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "'infer'" in run.stderr
