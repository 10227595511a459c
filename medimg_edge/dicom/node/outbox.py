"""Results that are to be sent, and those that were."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from medimg_edge import disk

ID = re.compile(r"[0-9a-f]{32}")
"""What an instance is called here."""

MODEL = re.compile(r"[0-9a-f]{1,32}")
"""What answered it. Both, with a hyphen in between, are the name of a folder with its results."""

_FOLDER = re.compile(rf"{ID.pattern}-{MODEL.pattern}")


def is_sent(name: str) -> bool:
    """Whether a file of this name is for the archive: DICOM, and not JSON."""
    return name.endswith(".dcm")


class Outbox:
    """``folder``/ID-MODEL/ holds what is to be sent of an instance and what goes with it.

    Each file that was acknowledged is removed, or with ``keep`` moves to ``results``/ID-MODEL/.
    With the last one the rest follows, which is not sent, and the folder here is gone: what is in
    ``results`` alone is done. A folder stays there, empty or not: the instance is known by it.

    Construction ends what a kill interrupted. It and the methods raise WriteError.
    """

    def __init__(self, folder: Path, results: Path, *, keep: bool = False) -> None:
        self.folder, self._results, self._keep = folder, results, keep
        with disk.written(folder):
            for each in self._instances():
                if _to_send(each) == []:
                    self._finish(each)

    def pending(self) -> list[Path]:
        """Files that are to be sent, of the oldest instance first.

        An instance's folder that cannot be listed is one itself: it has to be looked after.
        """
        with disk.written(self.folder):
            return [path for each in self._instances() for path in _to_send(each)]

    def acknowledged(self, path: Path) -> None:
        """Record that the archive has a file: it is not pending any more, whatever happens."""
        folder = path.parent
        done = self._results / folder.name
        with disk.written(self.folder):
            disk.make_folder(done)
            if self._keep:
                disk.rename(path, done / path.name)
            else:
                path.unlink()
                disk.sync(folder)
            if not _to_send(folder):
                self._finish(folder)

    def _finish(self, folder: Path) -> None:
        """Let the files that are not sent follow those that were."""
        done = self._results / folder.name
        disk.make_folder(done)
        for each in folder.iterdir():
            os.rename(each, done / each.name)
        disk.sync(done)
        folder.rmdir()
        disk.sync(self.folder)

    def _instances(self) -> list[Path]:
        found = []
        with os.scandir(self.folder) as entries:
            for each in filter(_is_instance, entries):
                with suppress(FileNotFoundError):  # it was finished meanwhile
                    found.append((each.stat().st_mtime_ns, each.name))
        return [self.folder / name for _, name in sorted(found)]


def _is_instance(entry: os.DirEntry[str]) -> bool:
    return _FOLDER.fullmatch(entry.name) is not None and entry.is_dir(follow_symlinks=False)


def _to_send(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if is_sent(each.name))
    except FileNotFoundError:  # it was finished meanwhile
        return []
    except OSError:
        return [folder]
