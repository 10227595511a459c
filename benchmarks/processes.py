"""Processes and what they cost: wall and CPU seconds, peak memory; alone, or by turns."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medimg_edge.machine import peak_memory

HERE = Path(__file__).parent
SCRIPT = "from medimg_edge.cli import process; process()"
"""What the console script does."""

# Modules are compiled once, as an installation does; nothing lies beside a bundle or this user.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "MEDIMG_EDGE_PROFILE")
}


class Cost(NamedTuple):
    """Of one process: seconds, seconds, bytes.

    A process inherits the peak of the one that starts it (Linux keeps it over exec): 0 where that
    is all that is known. So whoever measures must not import what is measured.
    """

    wall: float
    cpu: float
    peak: int


def python(*words: object) -> list[str]:
    """The command line of this interpreter."""
    return [sys.executable, *map(str, words)]


def medimg_edge(*words: object) -> list[str]:
    """The command line of one command."""
    return python("-c", SCRIPT, *words)


def peak(used: resource.struct_rusage) -> int:
    """Bytes, as ``Cost`` has them."""
    found = used.ru_maxrss * 1024
    return found if found > (peak_memory() or 0) else 0


def cost(words: Sequence[str], join: Callable[[], None] | None = None) -> Cost:
    """Run to its end. Raises CalledProcessError where it fails."""
    started = time.perf_counter()
    child = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        preexec_fn=join,
        text=True,
    )
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, words, stderr=said)
    return Cost(wall, used.ru_utime + used.ru_stime, peak(used))


Rounds = dict[str, list[Any]]


def by_turns(contestants: Mapping[str, Callable[[], Any]], rounds: int) -> Rounds:
    """Every contestant in every round, in alternating order; one round before, to warm up."""
    found: Rounds = {name: [] for name in contestants}
    for at in range(rounds + 1):
        order = list(contestants) if at % 2 else list(contestants)[::-1]
        for name in order:
            result = contestants[name]()
            if at:
                found[name].append(result)
    return found


def ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """The median of the ratios within the rounds."""
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


class Worker:
    """A contestant that is loaded and waits; see ``contestants.py``.

    missing: why it is not there; None where it is. Known after ``wait``, as the others are.
    """

    missing: str | None
    runtime: str
    has_network: bool

    def __init__(self, what: dict[str, Any]) -> None:
        self._child = subprocess.Popen(
            [sys.executable, str(HERE / "contestants.py"), json.dumps(what)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            text=True,
        )

    def wait(self) -> None:
        """Until it is loaded, or is not."""
        said = self._read()
        self.missing = said.get("missing")
        self.runtime = said.get("runtime", "")
        self.has_network = said.get("network", False)

    def perform(self, **task: Any) -> dict[str, Any]:
        """One round. Raises EOFError where the contestant has died."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(task) + "\n")
        self._child.stdin.flush()
        said = self._read()
        if "missing" in said:
            raise EOFError(said["missing"])
        return said

    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> Cost:
        """End it; what it cost in all."""
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):
            self._child.stdin.close()
        _, status, used = os.wait4(self._child.pid, 0)
        self._child.returncode = os.waitstatus_to_exitcode(status)
        return Cost(0, used.ru_utime + used.ru_stime, peak(used))

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        return json.loads(line) if line else {"missing": "ended without a word"}


def resident(pid: int) -> int:
    """Bytes of memory that a process holds now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def growth(words: Sequence[str], first: int) -> int:
    """Bytes between the line ``first`` of what a process prints and the last hundred but one.

    When the last are read it may have given back what it held.
    """
    child = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    assert child.stdout is not None
    held: list[int] = []
    for at, _ in enumerate(child.stdout, start=1):
        if at >= first and at % 100 == 0:
            with contextlib.suppress(OSError, IndexError):  # it has just ended
                held.append(resident(child.pid))
    if child.wait():
        raise subprocess.CalledProcessError(child.returncode, words)
    return held[-2] - held[0]


QUOTAS: dict[str, Callable[[int, float], dict[str, int]]] = {
    "memory": lambda memory, share: {"memory.limit_in_bytes": memory},
    "cpu": lambda memory, share: {
        "cpu.cfs_period_us": 100_000,
        "cpu.cfs_quota_us": round(100_000 * share),
    },
}


@contextlib.contextmanager
def small_device(memory: int, share: float) -> Iterator[Callable[[], None]]:
    """One core at a share of its time, and so many bytes: gives what a child does to join.

    cgroup version 1, root. Raises OSError.
    """
    groups = [Path("/sys/fs/cgroup", name, f"yardstick-{os.getpid()}") for name in QUOTAS]
    core = min(os.sched_getaffinity(0))

    def join() -> None:
        for group in groups:
            (group / "cgroup.procs").write_text(str(os.getpid()))
        os.sched_setaffinity(0, {core})

    try:
        for group, files in zip(groups, QUOTAS.values(), strict=True):
            group.mkdir()
            for file, value in files(memory, share).items():
                (group / file).write_text(str(value))
        yield join
    finally:
        for group in groups:
            with contextlib.suppress(OSError):
                group.rmdir()
