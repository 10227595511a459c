"""The machine that this process runs on: its processor, the cores and the memory it may use."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from medimg_edge.cgroups import settings, text
from medimg_edge.cores import usable_cores

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")

FEATURES = {
    "avx": "AVX",
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "amx_int8": "AMX int8",
    "asimd": "NEON",
    "asimddp": "NEON dot product",
    "i8mm": "int8 matrix multiply",
    "sve": "SVE",
}
"""What decides how fast an int8 network runs, by Linux' own word for it."""

NO_LIMIT = 2**60
"""A cgroup without a limit says a number near 2**63."""


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must be the same for a measurement to hold: ``cores`` are those this process may use."""

    architecture: str
    cpu: str
    cores: int
    features: tuple[str, ...]


def this_machine() -> Machine:
    """The machine, as /proc/cpuinfo tells it; on other systems as Python does."""
    told = _cpuinfo()
    words = {*told.get("flags", "").split(), *told.get("Features", "").split()}
    return Machine(
        architecture=platform.machine(),
        cpu=_cpu(told),
        cores=usable_cores(),
        features=tuple(name for word, name in FEATURES.items() if word in words),
    )


@dataclass(frozen=True)
class Memory:
    """In bytes; None where the system does not tell. ``limit`` is that of the cgroup."""

    total: int | None
    available: int | None
    limit: int | None


def memory() -> Memory:
    """What there is, what is free, and how much of it this process may take."""
    told = dict(re.findall(r"^(\w+):\s+(\d+) kB", text(PROC / "meminfo"), re.MULTILINE))
    sizes = {name: int(value) * 1024 for name, value in told.items()}
    return Memory(sizes.get("MemTotal"), sizes.get("MemAvailable"), _memory_limit())


def peak_memory() -> int | None:
    """The most bytes of memory that this process has held; None where the system does not tell.

    VmHWM, because getrusage also counts what the process was forked from.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB", text(PROC / "self" / "status"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines."""
    lines = text(PROC / "cpuinfo").split("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _cpu(told: dict[str, str]) -> str:
    """The model; Arm has numbers for it, and the board's name says more."""
    if "model name" in told:
        return told["model name"]
    board = text(PROC / "device-tree" / "model").strip("\0\n ")
    numbers = [
        f"{name} {told[key]}"
        for name, key in (("implementer", "CPU implementer"), ("part", "CPU part"))
        if key in told
    ]
    return ", ".join([board, *numbers] if board else numbers) or platform.processor() or "unknown"


def _memory_limit() -> int | None:
    """The smallest limit of the cgroups that hold this process."""
    files = (("memory.limit_in_bytes",), "memory.max")
    sizes = (
        int(word)
        for words in settings("memory", *files, PROC, CGROUP)
        for word in words
        if word.isdigit()
    )
    return min((size for size in sizes if size < NO_LIMIT), default=None)
