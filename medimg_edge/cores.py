"""How many cores this process may use: its affinity, and the CPU quota of its cgroups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(root: Path = Path("/")) -> int:
    """At least 1; half a core's quota counts as a core. ``root`` holds ``proc`` and ``sys``."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min([cores, *(math.ceil(quota) for quota in _quotas(root))])


def images_at_once(threads: int, cores: int | None = None) -> int:
    """How many images of so many threads each; ``cores``: by default all that may be used."""
    return max(1, (cores or usable_cores()) // threads)


def _quotas(root: Path) -> Iterator[float]:
    """The quota, in cores, of each cgroup that holds this process and has one.

    Linux, Documentation/admin-guide/cgroup-v2.rst (``cpu.max``) and scheduler/sched-bwc.rst
    (``cpu.cfs_quota_us``): microseconds that may be used in each period, of all cores together.
    """
    mount = root / "sys" / "fs" / "cgroup"
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for folder in _holders(mount, path):
                yield from _quota(_text(folder / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for folder in _holders(mount / "cpu", path):
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                yield from _quota([_text(folder / name).strip() for name in names])


def _holders(mount: Path, path: str) -> Iterator[Path]:
    """A cgroup and those around it; in a container the mount itself may be the inmost."""
    inside = PurePosixPath(path.lstrip("/"))
    return (mount / each for each in (inside, *inside.parents) if ".." not in each.parts)


def _quota(words: list[str]) -> Iterator[float]:
    if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):
        yield int(words[0]) / int(words[1])  # else "max" or -1: no limit


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
