"""What a benchmark ran on: processor, versions, what is installed. No names, no paths.

Run: python benchmarks/installation.py [EXTRA]

Prints what the device's packages take on the disk, or those that an extra adds to them.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from table import ROOT

from medimg_edge.machine import memory, this_machine

DEVICE = "medimg-edge"
PEERS = ("ai-edge-litert", "openvino", "tensorflow", "mediapipe")


def facts() -> dict[str, Any]:
    """The processor, its cores and what it can do, memory, system, versions."""
    here, held = this_machine(), memory()
    known = (*required(), *PEERS)
    return {
        "processor": here.cpu,
        "architecture": here.architecture,
        "cores": here.cores,
        "features": here.features,
        "memory": held.total,
        "load": os.getloadavg()[0],
        "system": f"{platform.system()}, {' '.join(platform.libc_ver())}",
        "python": platform.python_version(),
        "versions": {name: found for name in known if (found := _version(name))},
    }


def required(extra: str = "") -> list[str]:
    """The device's package and all that it requires, with an extra of it or without, by name."""
    found, pending = set(), [DEVICE]
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        wanted = {"extra": extra if name == DEVICE else ""}
        for line in distribution(name).requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(wanted):
                pending.append(requirement.name.lower().replace("_", "-"))
    return sorted(found)


def size(name: str) -> int:
    """Bytes on the disk, without what Python compiles; ours from the tree that is measured."""
    paths = [Path(str(each.locate())) for each in distribution(name).files or []]
    if name == DEVICE:
        paths = list((ROOT / "medimg_edge").rglob("*"))
    return sum(each.stat().st_size for each in paths if each.is_file() and each.suffix != ".pyc")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Print the table."""
    extra = sys.argv[1] if len(sys.argv) > 1 else ""
    names = set(required(extra)) - (set(required()) if extra else set())
    for name in sorted(names, key=size, reverse=True):
        print(f"{size(name) / 1e6:8.1f} MB  {name}")
    print(f"{sum(map(size, names)) / 1e6:8.1f} MB  in all")


if __name__ == "__main__":
    main()
