"""Where preprocessed pixels and downloads are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$MEDIMG_EDGE_CACHE``, else ``medimg-edge`` in the user's cache folder.

    The user's cache folder is ``$XDG_CACHE_HOME`` (XDG Base Directory Specification), on Windows
    ``%LOCALAPPDATA%``, else ``~/.cache``. Everything in it can be deleted at any time.
    """
    if own := os.environ.get("MEDIMG_EDGE_CACHE"):
        return Path(own)
    users = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(users) if users else Path.home() / ".cache") / "medimg-edge"
