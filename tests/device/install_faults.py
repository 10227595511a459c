"""Installs that are killed at each of their steps, or meet a full disk; a program of its own.

It has imported everything before it forks, and has run no network: each try costs milliseconds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medimg_edge import installed, store
from medimg_edge.bundle import Bundle
from medimg_edge.errors import MedimgEdgeError, WriteError
from medimg_edge.trust import Trust
from tests.device.installing import LOCKS, NAME, answer, install, left

SYSCALLS = (
    "write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,"
    "link,linkat,symlink,chmod,fchmod,fchmodat,ftruncate,truncate,flock"
)
MUTATING = re.compile(r"os\.(mkdir|rename|remove|rmdir|chmod|link|symlink|truncate)|fcntl\.flock")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Act = Callable[[], object]


def acts(sources: dict[str, str], trusted: str) -> dict[str, Act]:
    """What is killed, by name."""
    trust = Trust.load(Path(trusted))
    made: dict[str, Act] = {
        f"install {version}": lambda source=source: install(Path(source), trust)
        for version, source in sources.items()
    }
    made["rollback"] = lambda: store.rollback(NAME)
    made["start"] = lambda: store.begin_start(NAME)
    return made


def forked(run: Callable[[], object]) -> tuple[int, Any]:
    """The status of a child, or the signal that killed it, negative; and what it returned."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reading)
            os.write(writing, json.dumps(run()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, json.loads(said) if status == 0 else None


def killing(number: int, act: Act) -> list[str]:
    """Do it, and be killed before the step of that number; the steps, where it came through."""
    steps: list[str] = []

    def step(what: str) -> None:
        steps.append(what)
        if len(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if MUTATING.fullmatch(event) or (event == "open" and (arguments[2] or 0) & WRITES):
            step(event)

    def fsync(descriptor: int, real: Callable[[int], None] = os.fsync) -> None:
        step("fsync")
        real(descriptor)

    os.fsync = fsync
    sys.addaudithook(audit)
    act()
    return list(steps)


def state_of(prepared: Path, state: Path) -> None:
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(prepared, state)


def aftermath(state: Path, again: Act) -> dict[str, Any]:
    """What answers, what another install makes of it, and what then lies in the store."""
    active = installed.find(NAME)
    found: dict[str, Any] = {"version": active and active.version, "answer": None}
    if active:
        found["answer"] = answer()
        Bundle.open(NAME).check_contents()
        if active.previous:  # what the pointer promises is there, too
            before = Bundle.open(active.folder_of(active.previous))
            before.check_contents()
            assert before.hash == active.previous.hash
    litter = left(state)
    again()
    found |= {"litter": len(litter), "then": answer()}
    slots = installed.find(NAME).slots  # type: ignore[union-attr]
    expected = sorted([*LOCKS, f"{NAME}/active.json", *(f"{NAME}/{slot}" for slot in slots)])
    assert left(state) == expected, left(state)
    return found


def kill_at_each_step(prepared: Path, state: Path, act: Act, again: Act) -> Iterator[dict]:
    """Until it comes through; its last line tells the steps that there were."""
    for number in range(1, 1000):
        state_of(prepared, state)
        status, steps = forked(lambda number=number: killing(number, act))
        assert status in (0, -signal.SIGKILL), status
        after, told = forked(lambda: aftermath(state, again))
        assert after == 0, f"after a kill at step {number}"
        yield {"killed": status != 0, "steps": steps, **told}
        if not status:
            return
    raise AssertionError("it never came through")


def kill_by_strace(
    prepared: Path, state: Path, act: Act, again: Act, most: int
) -> Iterator[dict[str, Any]]:
    """At the entry of system calls that write, at most so many of them, evenly spread."""
    state_of(prepared, state)
    status, calls = traced(act, state.with_name("calls"), "")
    assert status == 0
    for number in range(0, len(calls), -(-len(calls) // most)):
        state_of(prepared, state)
        name = calls[number].partition("(")[0]
        which = sum(each.startswith(f"{name}(") for each in calls[: number + 1])
        status, _ = traced(act, state.with_name("calls"), f"{name}:signal=KILL:when={which}")
        after, told = forked(lambda: aftermath(state, again))
        assert after == 0, f"after a kill at call {number}: {calls[number]}"
        yield {"killed": status == -signal.SIGKILL, "call": calls[number], **told}


def traced(act: Act, log: Path, inject: str) -> tuple[int, list[str]]:
    """Do it in a child that strace watches; its status, and the calls."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(writing)
            os.read(reading, 1)
            act()
            status = 0
        finally:
            os._exit(status)
    os.close(reading)
    command = ["strace", "-o", str(log), "-e", f"trace={SYSCALLS}", "-p", str(child)]
    command += ["-e", f"inject={inject}"] if inject else []
    watcher = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert watcher.stderr is not None
    said = watcher.stderr.readline()
    assert "attached" in said, said
    os.write(writing, b"x")
    os.close(writing)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    watcher.communicate(timeout=60)
    return status, [each for each in log.read_text().splitlines() if not each.startswith("+++")]


def fill(disk: Path, free: int) -> Path:
    """Leave so many bytes of a file system."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        room = os.statvfs(disk)
        file.write(bytes(max(0, room.f_bavail * room.f_frsize - free)))
    return ballast


def fill_names(disk: Path, free: int) -> Path:
    """Leave so many files of a file system."""
    ballast = disk / "names"
    ballast.mkdir()
    for number in range(os.statvfs(disk).f_ffree - free):
        (ballast / f"{number}").touch()
    return ballast


def tried(act: Act, state: Path) -> dict[str, Any]:
    """What it raises that is ours, what then answers, and what lies in the store."""
    error = None
    try:
        act()
    except WriteError as raised:
        error = raised.message
    active = installed.find(NAME)
    return {
        "error": error,
        "version": active and active.version,
        "answer": answer(),
        "left": left(state),
    }


def on_a_full_disk(state: Path, act: Act, how: str) -> Iterator[dict[str, Any]]:
    """With ever more room, until it comes through. The state folder is a file system."""
    for step in range(200):
        ballast = fill(state, step * 4096) if how == "bytes" else fill_names(state, step)
        told = tried(act, state)
        shutil.rmtree(ballast) if ballast.is_dir() else ballast.unlink()
        yield told
        if told["error"] is None:
            return


def small_things(state: Path) -> Iterator[dict[str, Any]]:
    """What a service does at its start, and what a person does, where nothing can be written."""
    for _ in range(5):
        active = store.begin_start(NAME)
        yield {"version": active.version, "note": active.note, "answer": answer()}
        store.started(NAME, active.hash)
    yield tried(lambda: store.rollback(NAME), state)
    yield {"problems": [each.problem for each in store.listing()]}


def main(kind: str, described: str) -> None:
    given = json.loads(described)
    state, done = Path(given["state"]), acts(given["sources"], given["trusted"])
    os.environ["MEDIMG_EDGE_STATE"] = str(state)
    runs: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "kill": lambda: kill_at_each_step(
            Path(given["prepared"]), state, done[given["act"]], done[given["again"]]
        ),
        "strace": lambda: kill_by_strace(
            Path(given["prepared"]), state, done[given["act"]], done[given["again"]], given["most"]
        ),
        "bytes": lambda: on_a_full_disk(state, done[given["act"]], "bytes"),
        "names": lambda: on_a_full_disk(state, done[given["act"]], "names"),
        "small": lambda: small_things(state),
        "try": lambda: iter([tried(done[given["act"]], state)]),
    }
    try:
        for told in runs[kind]():
            print(json.dumps(told), flush=True)
    except MedimgEdgeError as error:
        raise SystemExit(f"{error.code}: {error}") from error


if __name__ == "__main__":
    main(*sys.argv[1:])
