"""What a kiosk bears, and what it takes: `serve` under load, idle, and for long.

Run: python benchmarks/kiosk.py --images DIR [--bundle B] [--rounds N] [--many N]

DIR holds images, of which the first twenty are brought to the input's size as JPEG, as device.py
does. Eight clients, in a process of their own on the same cores, send them 500 times each, by turns
with floor.py's loop over the same files; the ratio is the median of those within the rounds. The
service runs in a cgroup of 512 MB (version 1, as root; else without). Then it is left alone, and at
last it answers --many images, while its memory is read. About four minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import installation
import table
from processes import ENVIRONMENT, HERE, Worker, medimg_edge, python

from medimg_edge.bundle import Bundle
from medimg_edge.models import DEFAULT

CLIENTS, REQUESTS = 8, 500
MEMORY = 512 * 2**20
IDLE_SECONDS = 30
MB = 10**6


class Service:
    """``serve`` in its cgroup, from its start until the block ends."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self._group = contextlib.ExitStack()
        self.group = self._group.enter_context(memory_group(MEMORY))
        words = medimg_edge(
            "serve", bundle, "--port", 0, "--data", folder, "--profile", "none", "--force"
        )
        self._log = (folder.parent / "serve.log").open("wb")
        self._process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=ENVIRONMENT,
            text=True,
            preexec_fn=joining(self.group),
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip().rstrip("/")
        self.port = int(self.url.rpartition(":")[2])
        while not self._is_ready():
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz") as reply:
            return reply.status == 200
        return False

    @property
    def processes(self) -> list[int]:
        """The service, and what answers."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def memory(self, key: str = "Pss") -> float:
        """Megabytes of both processes; what they share is counted once."""
        kilobytes = 0
        for pid in self.processes:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(f"{key}:"):
                    kilobytes += int(line.split()[1])
        return kilobytes * 1024 / MB

    def cpu(self) -> float:
        """Seconds so far, of both."""
        ticks = 0
        for pid in self.processes:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def peak(self) -> float | None:
        """Megabytes that the cgroup held at most, files in memory included."""
        if self.group is None:
            return None
        return int((self.group / "memory.max_usage_in_bytes").read_text()) / MB

    def close(self) -> None:
        """End it as systemd does."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
        self._log.close()
        self._group.close()


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path | None]:
    """A cgroup of version 1 with so many bytes; None where it cannot be made."""
    group = Path("/sys/fs/cgroup/memory", f"kiosk-{os.getpid()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        time.sleep(0.2)
        with contextlib.suppress(OSError):
            group.rmdir()


def joining(group: Path | None) -> Callable[[], None] | None:
    """What a child does to be in the group."""
    if group is None:
        return None

    def join() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    return join


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--bundle", default=DEFAULT)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--many", type=int, default=24_000)
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = jpegs(bundle, options.images, folder / "files")
        service = Service(bundle.path, folder / "data")
        try:
            print(f"{installation.facts()['processor']}, commit {table.commit()}")
            expected = alone(bundle, files)
            idle(service)
            under_load(service, bundle, expected, options.rounds)
            for_long(service, expected, options.many)
        finally:
            service.close()


def jpegs(bundle: Bundle, images: Path, folder: Path) -> list[str]:
    """As device.py has them."""
    words = python(HERE / "device_files.py", bundle.path, folder, images)
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    return sorted(map(str, (folder / "JPEG").iterdir()))


def alone(bundle: Bundle, files: list[str]) -> dict[str, float]:
    """What `infer` answers."""
    words = medimg_edge("infer", *files, "--bundle", bundle.path, "--profile", "none", "--force")
    said = subprocess.run(words, stdout=subprocess.PIPE, env=ENVIRONMENT, check=True).stdout
    records = map(json.loads, said.splitlines())
    return {each["input"]: each["findings"][0]["probability"] for each in records}


def idle(service: Service) -> None:
    """Memory and CPU of a service that nobody asks."""
    time.sleep(2)
    before = service.cpu()
    time.sleep(IDLE_SECONDS)
    share = (service.cpu() - before) / IDLE_SECONDS
    print(
        f"idle: {service.memory():.0f} MB (resident {service.memory('Rss'):.0f}), "
        f"{share:.2%} of a core"
    )


def under_load(service: Service, bundle: Bundle, expected: dict[str, float], rounds: int) -> None:
    """The service and the floor by turns."""
    artifact = bundle.manifest.default_artifact
    shape = list(bundle.manifest.input.shape)
    floor = Worker(
        {
            "kind": "floor",
            "model": str(bundle.path / artifact),
            "threads": 1,
            "shape": shape,
            "first": next(iter(expected)),
        }
    )
    floor.wait()
    ratios, rates, milliseconds = [], [], []
    for _ in range(rounds):
        by_hand = loop(floor, list(expected))
        found = load(service.port, expected, CLIENTS, REQUESTS)
        rate = CLIENTS * REQUESTS / found["seconds"]
        rates.append(rate)
        ratios.append(rate / statistics.mean([by_hand, loop(floor, list(expected))]))
        milliseconds += found["milliseconds"]
    floor.close()
    quantiles = statistics.quantiles(milliseconds, n=100)
    peak = service.peak()
    print(
        f"load: {CLIENTS} clients x {REQUESTS}, {statistics.median(rates):.0f} a second, "
        f"{statistics.median(ratios):.2f} of the floor ({', '.join(f'{r:.2f}' for r in ratios)}); "
        f"latency median {quantiles[49]:.0f} ms, p99 {quantiles[98]:.0f} ms"
    )
    print(
        f"memory under load: {service.memory('Rss'):.0f} MB resident"
        + (f", cgroup of {MEMORY / MB:.0f} MB at most {peak:.0f} MB" if peak else "")
    )


def loop(floor: Worker, files: list[str]) -> float:
    """Images a second of the loop by hand, which has the machine for itself."""
    started = time.perf_counter()
    for _ in range(25):
        floor.perform(files=files)
    return 25 * len(files) / (time.perf_counter() - started)


def load(port: int, expected: dict[str, float], clients: int, requests: int) -> dict[str, Any]:
    """What the clients say. Raises RuntimeError where one answer is not as it has to be."""
    task = {"port": port, "clients": clients, "requests": requests, "expected": expected}
    words = [sys.executable, str(HERE / "kiosk_clients.py"), json.dumps(task)]
    found = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
    if found["wrong"]:
        raise RuntimeError(f"{len(found['wrong'])} wrong answers, such as: {found['wrong'][0]}")
    return found


def for_long(service: Service, expected: dict[str, float], many: int) -> None:
    """Memory after a quarter of the images, when all that is made once is made, and at the end."""
    quarter = many // 4 // CLIENTS
    held = []
    for _ in range(4):
        load(service.port, expected, CLIENTS, quarter)
        held.append(service.memory("Rss"))
    print(
        f"{many} images: resident {', '.join(f'{each:.1f}' for each in held)} MB after each "
        f"quarter; growth {held[-1] - held[0]:.1f} MB"
    )


if __name__ == "__main__":
    main()
