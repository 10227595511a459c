"""A record whose process is killed, whose disk is full or fails, and whose power is cut."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medimg_edge.kiosk.ledger import Ledger
from medimg_edge.kiosk.ledger_file import Synchronous
from medimg_edge.kiosk.ledger_reader import entries, verify
from tests.device.ledger_writing import read_ids

KILLS = 15
CUTS = 20
ENDLESS = 10**9
IMAGE_BYTES = 256 * 2**20
PROGRAM = [sys.executable, "-m", "tests.device.ledger_writing"]


def kept(folder: Path) -> set[str]:
    """The ids of the answers in a record that is whole."""
    found = verify(folder)
    ids = [each.id for each in entries(folder) if each.kind == "answer"]
    assert len(ids) == len(set(ids)) == found.entries
    return set(ids)


def wait_for_more(process: subprocess.Popen, acknowledged: Path, before: int) -> None:
    end = time.monotonic() + 60
    while len(read_ids(acknowledged)) <= before:
        assert process.poll() is None
        assert time.monotonic() < end, "it does not go on"
        time.sleep(0.005)


@contextmanager
def writing(
    folder: Path, acknowledged: Path, *synchronous: Synchronous
) -> Iterator[subprocess.Popen]:
    """A process that adds answers until it is killed; it has begun to."""
    before = len(read_ids(acknowledged))
    words = [*PROGRAM, "add", folder, acknowledged, str(ENDLESS), *synchronous]
    process = subprocess.Popen(words)
    try:
        wait_for_more(process, acknowledged, before)
        yield process
    finally:
        process.kill()
        process.wait()


def test_killed_again_and_again(tmp_path):
    """What was said to be safe is there, and the next process goes on with the chain."""
    folder, acknowledged = tmp_path / "kiosk", tmp_path / "acknowledged"
    moments, safe = random.Random(6), set()
    for _ in range(KILLS):
        with writing(folder, acknowledged):
            time.sleep(moments.uniform(0, 0.1))
        safe = read_ids(acknowledged)
        assert safe <= kept(folder)
    assert len(safe) > KILLS
    Ledger(folder).close()
    assert safe <= kept(folder)


def test_a_full_disk(tmp_path):
    """What cannot be written is said to be so, and what comes when there is room again is kept."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=2m none "$1" && shift && exec "$@"'
    words = ["unshare", "-rm", "sh", "-c", script, "sh", disk, *PROGRAM, "fill", disk]
    if subprocess.run([*words[: -len(PROGRAM) - 2], "true"], capture_output=True).returncode:
        pytest.skip("no mounts in a namespace of one's own here")
    done = subprocess.run(
        [*words, tmp_path / "acknowledged"], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    safe, failed = map(int, done.stdout.split())
    assert safe
    assert failed


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_a_disk_that_fails(tmp_path):
    """What did not come to it is said not to be safe; then the record goes on."""
    folder, acknowledged = tmp_path / "kiosk", tmp_path / "acknowledged"
    Ledger(folder).close()
    fault = ("-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=4..6")
    words = ["strace", "-f", "-qq", "-o", "/dev/null", *fault, *PROGRAM]
    done = subprocess.run(
        [*words, "add", folder, acknowledged, "100"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    failed, safe = int(done.stdout), read_ids(acknowledged)
    assert failed > 0
    assert len(safe) == 100 - failed > 0
    assert safe == kept(folder)


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop devices here: {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def writes(folder: Path) -> tuple[int, ...]:
    """What the disk under a folder was told to write so far, and what is under way."""
    device = folder.stat().st_dev
    fields = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
    return int(fields[4]), int(fields[6]), int(fields[8])


def copied(image: Path, disk: Path, copy: Path) -> None:
    """The disk as it is between two writes of the kernel, which a stopped process does not end."""
    for _ in range(100):
        before = writes(disk)
        subprocess.run(["cp", "--sparse=always", image, copy], check=True)
        if before == writes(disk) and before[-1] == 0:
            return
    pytest.fail("the disk never came to rest")


def stop(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def lost_by_cuts(
    tmp_path: Path, moments: random.Random, *synchronous: Synchronous
) -> Iterator[int]:
    """For each power cut, how many answers were said to be safe and are not in the record."""
    image, copy = tmp_path / "image", tmp_path / "copy"
    disk, later = tmp_path / "disk", tmp_path / "later"
    acknowledged = tmp_path / "acknowledged"  # on another disk
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    with mounted(image, disk), writing(disk / "kiosk", acknowledged, *synchronous) as process:
        for _ in range(CUTS):
            before = len(read_ids(acknowledged))
            time.sleep(moments.uniform(0.01, 0.15))
            wait_for_more(process, acknowledged, before)
            stop(process)
            safe = read_ids(acknowledged)
            copied(image, disk, copy)
            with mounted(copy, later):
                yield len(safe - kept(later / "kiosk"))
            process.send_signal(signal.SIGCONT)


needs_disks = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("mkfs.ext4"), reason="needs root and mkfs.ext4"
)


@needs_disks
def test_a_power_cut_takes_nothing_that_was_safe(tmp_path):
    found = list(lost_by_cuts(tmp_path, random.Random(20)))
    assert found == [0] * CUTS


@needs_disks
def test_a_power_cut_takes_what_only_seemed_safe(tmp_path):
    """Without synchronous=FULL, which shows that the test before this one can fail."""
    assert any(lost_by_cuts(tmp_path, random.Random(20), "NORMAL"))
