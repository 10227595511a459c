"""The folder for what medimg-edge keeps for this user."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "MEDIMG_EDGE_STATE"


def folder() -> Path | None:
    """$MEDIMG_EDGE_STATE, else medimg-edge in the user's state folder. It need not exist.

    None for a user who has no home, such as a service's. XDG Base Directory Specification:
    $XDG_STATE_HOME, by default ~/.local/state; a relative path in it is not used.
    """
    if stated := os.environ.get(VARIABLE):
        return Path(stated)
    if Path(state := os.environ.get("XDG_STATE_HOME", "")).is_absolute():
        return Path(state, "medimg-edge")
    try:
        return Path.home() / ".local" / "state" / "medimg-edge"
    except RuntimeError:
        return None
