"""How many cores this process may use: its affinity, and the CPU quota of its cgroups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from medimg_edge.cgroups import settings


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
    version1 = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    mount = root / "sys" / "fs" / "cgroup"
    for words in settings("cpu", version1, "cpu.max", root / "proc", mount):
        if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):
            yield int(words[0]) / int(words[1])  # else "max" or -1: no limit
