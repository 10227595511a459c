"""What the cgroups that hold this process say of it, of version 1 and 2.

Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/cgroups.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def settings(
    controller: str, version1: tuple[str, ...], version2: str, proc: Path, mount: Path
) -> Iterator[list[str]]:
    """The words in a controller's files, of each cgroup that has them, the inmost first.

    version1, version2: the names of its files; those of version 1 hold one word each. Where a
    file cannot be read, it has no words.
    """
    for line in text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = mount, (version2,)
        elif controller in controllers.split(","):
            root, names = mount / controller, version1
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        # In a container the path may not be there, and the mount itself is the inmost.
        for each in (inside, *inside.parents):
            if ".." not in each.parts:
                yield [word for name in names for word in text(root / each / name).split()]


def text(path: Path) -> str:
    """What a file of the system says; nothing where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
