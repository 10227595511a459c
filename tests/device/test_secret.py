"""A secret is made once, and is its owner's alone."""

import os
import stat
from pathlib import Path

import pytest

from medimg_edge import secret
from medimg_edge.errors import WriteError


def test_it_is_made_once(tmp_path: Path):
    path = tmp_path / "state" / "x.secret"
    made = secret.kept(path)
    assert len(made) == secret.BYTES
    assert secret.kept(path) == made
    assert secret.kept(tmp_path / "other") != made
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "00", "zz" * 32, "ä" * 64])
def test_what_is_no_secret_is_neither_used_nor_replaced(tmp_path: Path, content: str):
    path = tmp_path / "x.secret"
    path.write_text(content, "utf-8")
    with pytest.raises(WriteError, match="no secret"):
        secret.kept(path)
    assert path.read_text("utf-8") == content


def test_a_folder_in_its_place(tmp_path: Path):
    with pytest.raises(WriteError, match="neither read nor made"):
        secret.kept(tmp_path)
