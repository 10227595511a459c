"""Clients of a kiosk, in a process of their own: each sends images as fast as it is answered.

Run by `kiosk.py`: python benchmarks/kiosk_clients.py '{"port": ..., "clients": ...,
"requests": ..., "expected": {FILE: PROBABILITY}}'. It prints JSON: the seconds in all, the
milliseconds of each request, and what was not as it has to be. An answer belongs to its image where
it names the hash of what was sent, and gives the probability that the image has alone.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

LIMIT = 1e-6


class Image(NamedTuple):
    """What is sent, and what has to come back."""

    data: bytes
    sha256: str
    probability: float


class Client(threading.Thread):
    """One connection, which is kept."""

    def __init__(self, port: int, images: list[Image], first: int, requests: int) -> None:
        super().__init__()
        self._port, self._images, self._first, self._requests = port, images, first, requests
        self.milliseconds: list[float] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        """Send all, one after another."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        for at in range(self._requests):
            image = self._images[(self._first + at) % len(self._images)]
            started = time.perf_counter()
            connection.request("POST", "/v1/predictions", image.data)
            response = connection.getresponse()
            body = response.read()
            self.milliseconds.append((time.perf_counter() - started) * 1000)
            if (problem := _problem(image, response.status, body)) is not None:
                self.wrong.append(problem)
        connection.close()


def _problem(image: Image, status: int, body: bytes) -> str | None:
    if status != 201:
        return f"status {status}: {body[:200]!r}"
    told = json.loads(body)
    if told["input_sha256"] != image.sha256:
        return "the answer names another image"
    difference = abs(told["record"]["findings"][0]["probability"] - image.probability)
    return f"the probability differs by {difference}" if difference > LIMIT else None


def main(port: int, clients: int, requests: int, expected: dict[str, float]) -> dict[str, Any]:
    """Run all clients to their end."""
    images = []
    for name, probability in expected.items():
        data = Path(name).read_bytes()
        images.append(Image(data, hashlib.sha256(data).hexdigest(), probability))
    threads = [Client(port, images, each * 7, requests) for each in range(clients)]
    started = time.perf_counter()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return {
        "seconds": time.perf_counter() - started,
        "milliseconds": [each for thread in threads for each in thread.milliseconds],
        "wrong": [each for thread in threads for each in thread.wrong],
    }


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
