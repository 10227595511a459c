"""A secret is made once, and is its owner's alone."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from threading import Barrier, Thread

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


def test_an_end_in_the_midst_leaves_none(tmp_path: Path, monkeypatch):
    """A kill, a full disk: the next run makes the secret."""
    path = tmp_path / "x.secret"

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match="No space left"):
            secret.kept(path)
    assert list(tmp_path.iterdir()) == []
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from medimg_edge import secret\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "secret.kept(Path(sys.argv[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", program, path], check=False).returncode == -9
    assert not path.exists()
    assert len(secret.kept(path)) == secret.BYTES


@pytest.mark.parametrize("links", [True, False])
def test_those_that_make_it_at_once_agree(tmp_path: Path, monkeypatch, links: bool):
    """Where there are links; without them it is made at least."""
    if not links:

        def refused(source: str, target: Path) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refused)
    path, start = tmp_path / "x.secret", Barrier(8)
    exists, found = Path.exists, []

    def not_there(self: Path) -> bool:
        start.wait(10)
        return exists(self)

    def make() -> None:
        found.append(secret.kept(path))

    monkeypatch.setattr(Path, "exists", not_there)
    threads = [Thread(target=make) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    monkeypatch.undo()
    assert len(found) == 8
    assert secret.kept(path) in found
    if links:
        assert len(set(found)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_one_that_is_there_needs_no_writing(tmp_path: Path, monkeypatch):
    made = secret.kept(tmp_path / "x.secret")
    monkeypatch.setattr(Path, "mkdir", None)
    assert secret.kept(tmp_path / "x.secret") == made


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
