"""Where things are kept for the user."""

from pathlib import Path

from medimg_edge import state


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    monkeypatch.setenv("MEDIMG_EDGE_STATE", str(tmp_path))
    assert state.folder() == tmp_path
    monkeypatch.setenv("MEDIMG_EDGE_STATE", "")
    assert state.folder() == Path("/var/state/medimg-edge")
    for relative in ("state", ""):
        monkeypatch.setenv("XDG_STATE_HOME", relative)
        assert state.folder() == Path("/home/someone/.local/state/medimg-edge")


def test_without_a_home(monkeypatch):
    monkeypatch.delenv("MEDIMG_EDGE_STATE")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert state.folder() is None
