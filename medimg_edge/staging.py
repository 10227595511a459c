"""Write a folder beside the one that it will replace, and exchange the two in one step."""

from __future__ import annotations

import ctypes
import errno
import glob
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medimg_edge.bundle import MANIFEST, walk
from medimg_edge.errors import FilesDiffer, WriteError

ABANDONED_SECONDS = 24 * 60 * 60
"""A folder that was not finished and not added to for so long is not being written any more."""


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Give a new folder to fill; make it ``out`` when the block ends well, remove it otherwise.

    Every file is on the disk before the folder takes its name, and an existing ``out`` is exchanged
    in one step, so that a power cut leaves the old bundle or the new one. Raises WriteError where
    ``out`` is not a bundle, or cannot be written.
    """
    try:
        _refuse_foreign(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(out)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise WriteError(f"{out.parent} cannot be written: {error.strerror}.") from error
    try:
        yield folder
        folder.chmod(0o755)
        for name in walk(folder):
            _sync(folder / name)
        for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            _sync(each)
        _replace(folder, out)
    except OSError as error:
        raise WriteError(
            f"{out} was not written ({error.strerror}); what was there before is unchanged."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        _sync(out.parent)
    except OSError as error:
        raise WriteError(
            f"{out} was written, but the disk does not confirm it ({error.strerror}): verify it."
        ) from error


def _refuse_foreign(out: Path) -> None:
    """Replace nothing but a bundle or an empty folder."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise WriteError(f"{out} exists and is not a folder. Name another output.")
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        written = json.loads((out / MANIFEST).read_bytes())
        listed = {MANIFEST, *written["artifacts"], *written["files"]}
        foreign = sorted(set(walk(out)) - listed)
    except ValueError:  # a bundle whose manifest is damaged: what an export is run again for
        return
    except (OSError, TypeError, KeyError, FilesDiffer) as error:
        raise WriteError(f"{out} holds other files and no bundle. Name another output.") from error
    if foreign:
        raise WriteError(f"{out} holds {foreign[0]}, no part of the bundle there. Move it away.")


def _clear_abandoned(out: Path) -> None:
    """Remove what killed exports left beside ``out``: nothing was added to it for a day."""
    for partial in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
        if time.time() - partial.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(partial, ignore_errors=True)


def _replace(new: Path, out: Path) -> None:
    if not out.exists():
        new.rename(out)
    elif not _exchange(new, out):
        old = new.with_suffix(".old")
        out.rename(old)
        try:
            new.rename(out)
        except OSError:
            old.rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step by renameat2(2); False where that is missing."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code))


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder to flush it
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
