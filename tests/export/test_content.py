"""Digests: right, remembered, and not remembered when a file changes."""

import hashlib
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from medimg_export.content import BATCH, SETTLED_NS, contents, in_order
from medimg_export.dataset import ArrayRow, Sample


def write_samples(folder: Path, count: int = 5) -> list[Sample]:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.png").write_bytes(bytes([number]) * 100)
    return [Sample(path.name, path, 0) for path in sorted(folder.iterdir())]


def digests(samples: list[Sample], memory: Path) -> list[str | None]:
    return [each.digest if each else None for each in contents(samples, memory)]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_digests_of_files(tmp_path: Path):
    samples = write_samples(tmp_path / "data")
    (tmp_path / "data" / "3.png").unlink()
    seen = []
    found = contents(samples, tmp_path / "memory.json", lambda *step: seen.append(step))
    expected = [sha256(tmp_path / "data" / f"{n}.png") if n != 3 else None for n in range(5)]
    assert [each.digest if each else None for each in found] == expected
    assert seen == [("hashing", done, 5) for done in range(1, 6)]


def test_a_settled_file_is_read_once_and_a_changed_one_again(tmp_path: Path):
    samples = write_samples(tmp_path / "data")
    memory = tmp_path / "cache" / "memory.json"
    true = digests(samples, memory)
    assert true[0] is not None
    if memory.exists():  # nothing is remembered of a file that was written just now
        assert true[0] not in memory.read_text()
    time.sleep(SETTLED_NS / 1e9 + 0.1)
    assert digests(samples, memory) == true
    marker = "f" * 64  # comes back only if it is not computed
    memory.write_text(memory.read_text().replace(true[0], marker))
    assert digests(samples, memory) == [marker, *true[1:]]

    first = tmp_path / "data" / "0.png"
    times = first.stat().st_atime_ns, first.stat().st_mtime_ns
    first.write_bytes(b"x" * 100)  # the same size, and the old time set again
    os.utime(first, ns=times)
    assert digests(samples, memory) == [sha256(first), *true[1:]]


@pytest.mark.parametrize("damage", [b"", b"{", b"[1, 2]", b'{"0.png": [[1], "x"]}', b"\xff\xfe"])
def test_a_damaged_memory_only_costs_time(tmp_path: Path, damage: bytes):
    samples = write_samples(tmp_path / "data")
    (tmp_path / "memory.json").write_bytes(damage)
    assert digests(samples, tmp_path / "memory.json") == [
        sha256(sample.source) for sample in samples if isinstance(sample.source, Path)
    ]


def test_rows_of_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MEDIMG_EDGE_CACHE", str(tmp_path / "cache"))
    images = np.zeros((4, 20, 20), np.uint8)
    images[1] = images[3] = 1
    path = tmp_path / "x.npz"
    # the same bytes in another shape are another image
    np.savez(path, train_images=images, val_images=images.reshape(4, 10, 40))
    rows = [
        ArrayRow(path, f"{split}_images", row) for split in ("train", "val") for row in range(4)
    ]
    found = digests([Sample(str(n), row, 0) for n, row in enumerate(rows)], tmp_path / "memory")
    assert [found.index(digest) for digest in found] == [0, 1, 0, 1, 4, 5, 4, 5]


def test_in_order_is_lazy_and_ordered():
    started = []
    lock = threading.Lock()

    def work(item: int) -> int:
        time.sleep(0.001 if item % 2 else 0)
        with lock:
            started.append(item)
        return item * 2

    results = in_order(work, range(10 * BATCH))
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    time.sleep(0.5)  # time enough for all of them
    assert len(started) <= BATCH, "results that nobody took would fill the memory"
    assert list(results) == [2 * item for item in range(5, 10 * BATCH)]
