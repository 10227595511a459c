"""A listener in a process of its own, whose memory, threads and descriptors can be counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medimg_edge.dicom.node.settings import Limits, Settings, TlsFiles


class ListeningProcess:
    """Takes what it receives into ``stored``; what is being received is in ``receiving``.

    It has to end well: without a word on standard error, a thread, or a file in ``receiving``.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        status: int = 0,
        preexec: Callable[[], None] | None = None,
    ) -> None:
        self.receiving, self.stored = folder / "receiving", folder / "stored"
        self.receiving.mkdir()
        self.stored.mkdir()
        self._log = folder / "log"
        words = [str(folder), json.dumps(asdict(settings), default=str), str(status)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.device.listening", *words],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.PIPE,
                preexec_fn=preexec,
            )
        self.wait_for("listening")
        self.port = int(self.lines()[0].split()[-1])

    def __enter__(self) -> ListeningProcess:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            _, errors = self._process.communicate(timeout=30)
        finally:
            self._process.kill()
        if kind is None:
            assert errors.decode() == ""
            assert self.lines()[-1] == "ended with 1 thread"
            assert list(self.receiving.iterdir()) == []

    def lines(self) -> list[str]:
        return self._log.read_text().splitlines()

    def wait_for(self, words: str, seconds: float = 20) -> None:
        wait_until(lambda: any(words in line for line in self.lines()), seconds)

    def images(self) -> list[Path]:
        return sorted(self.stored.iterdir())

    def resident(self, key: str = "VmRSS") -> float:
        """Megabytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if key in line) / 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self._process.pid}/task"))

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))


def wait_until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to be so"
        time.sleep(0.02)


def _listen(folder: Path, raw: dict[str, Any], status: int) -> None:
    import threading

    from medimg_edge.dicom.node.listener import Listener, Received

    lock = threading.Lock()

    def log(line: str) -> None:
        print(line, flush=True)

    def store(received: Received) -> int:
        assert received.path.parent == folder / "receiving"
        with lock:
            if status == 0:
                number = len(list((folder / "stored").iterdir()))
                os.replace(received.path, folder / "stored" / f"{number:04}.dcm")
        return status

    tls = raw.pop("tls")
    settings = Settings(
        **(raw | {"allow": tuple(raw["allow"]), "limits": Limits(**raw["limits"])}),
        tls=TlsFiles(**{key: Path(value) for key, value in tls.items()}) if tls else None,
    )
    listener = Listener(settings, store, folder / "receiving", log)
    listener.start()
    log(f"listening on port {listener.address[1]}")
    sys.stdin.read()
    listener.stop()
    log(f"ended with {threading.active_count()} thread")


if __name__ == "__main__":
    _listen(Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]))
