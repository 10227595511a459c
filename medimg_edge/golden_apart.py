"""The golden set in a process of its own, which a hostile model may take down and nothing else.

The process has a deadline and may take only so much memory. What it says comes back as plain JSON:
it has run whatever the bundle holds, and is not trusted.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import msgspec

from medimg_edge import engines, watchdog
from medimg_edge.bundle import Bundle
from medimg_edge.cores import usable_cores
from medimg_edge.device_profile import Setting
from medimg_edge.errors import (
    FilesDiffer,
    GoldenMismatch,
    MedimgEdgeError,
    ModelDeadline,
    Unexpected,
)
from medimg_edge.golden import Check, verify

MEMORY_BYTES = 2 * 2**30
"""That the process may take, beyond what Python and our own modules have."""

ANSWER_SECONDS = 5.0
"""For one golden input. A network that needs longer on a machine is of no use on it."""

ARTIFACT_SECONDS = 10.0
LEAST_SECONDS = 60.0
"""For all of it, on a slow device: so long by artifact, and no less than that."""

MOST_MESSAGE_BYTES = 2**20
_THREAD_BYTES = 80 * 2**20
"""Of addresses alone: a thread's stack, and what glibc sets aside for it."""


class _Limits(NamedTuple):
    seconds: float
    answer_seconds: float
    memory_bytes: int


class _Progress(msgspec.Struct, tag="progress"):
    artifact: str


class _Checks(msgspec.Struct, tag="checks"):
    checks: list[Check]


class _Error(msgspec.Struct, tag="error"):
    code: str
    message: str


_MESSAGES = msgspec.json.Decoder(_Progress | _Checks | _Error)


def verify_apart(
    bundle: Bundle | str | os.PathLike[str],
    progress: Callable[[str], None] | None = None,
    tuned: Setting | None = None,
    *,
    seconds: float | None = None,
    answer_seconds: float = ANSWER_SECONDS,
    memory_bytes: int = MEMORY_BYTES,
) -> list[Check]:
    """What ``golden.verify`` does, in a process that is ended when it takes too long.

    seconds: for all of it; by default ``ARTIFACT_SECONDS`` for each artifact. answer_seconds: for
    each answer, whatever the runtime. memory_bytes: that it may take; Linux alone limits it.
    Raises what ``golden.verify`` does; ModelDeadline; GoldenMismatch where the process dies.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    artifacts = len(opened.manifest.artifacts) + (tuned is not None)
    limit = seconds or max(LEAST_SECONDS, ARTIFACT_SECONDS * artifacts)
    limits = _Limits(limit, answer_seconds, memory_bytes)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_verify,
        args=(theirs, opened.path.absolute(), opened.hash, tuned, limits),
        daemon=True,
    )
    process.start()
    theirs.close()
    artifact = ""
    try:
        for message in _received(ours, limit):
            if isinstance(message, _Checks):
                return message.checks
            if isinstance(message, _Error):
                raise _raised(message)
            artifact = message.artifact
            if progress:
                progress(artifact)
    finally:
        process.kill()
        process.join()
        ours.close()
    raise GoldenMismatch(
        f"The process that answered the golden set ended{_through(artifact)}, with "
        f"{process.exitcode}: the model took too much memory, or its runtime fails over it. Do not "
        "use the bundle on this machine."
    )


def _received(pipe: Connection, seconds: float) -> Iterator[_Progress | _Checks | _Error]:
    """What the process says until it ends. Raises ModelDeadline, GoldenMismatch for nonsense."""
    end = time.monotonic() + seconds
    artifact = ""
    while True:
        if not pipe.poll(max(0.0, end - time.monotonic())):
            raise ModelDeadline(
                f"The golden set was not answered within {seconds:g} seconds{_through(artifact)}, "
                "and was given up. The machine has too much to do, or is too small for the model."
            )
        try:
            message = _MESSAGES.decode(pipe.recv_bytes(MOST_MESSAGE_BYTES))
        except EOFError:
            return
        except (OSError, msgspec.DecodeError) as error:
            raise GoldenMismatch(
                "The process that answered the golden set said what it never says. Do not use the "
                "bundle on this machine."
            ) from error
        if isinstance(message, _Progress):
            artifact = message.artifact
        yield message


def _through(artifact: str) -> str:
    return f" over {artifact}" if artifact else ""


def _raised(told: _Error) -> MedimgEdgeError:
    """The error that has the code; no other class can come out of the process."""
    pending: list[type[MedimgEdgeError]] = [MedimgEdgeError]
    while pending:
        kind = pending.pop()
        if kind.code == told.code:
            return kind(told.message)
        pending += kind.__subclasses__()
    return Unexpected(told.message)


def _verify(
    pipe: Connection,
    path: Path,
    expected: str,
    tuned: Setting | None,
    limits: _Limits,
) -> None:
    """In the process of its own: send what was found, or the error that ended it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started it ends it
    if hasattr(signal, "alarm"):
        signal.alarm(int(limits.seconds) + 5)  # where that one was ended before
    _limit(limits.memory_bytes)
    artifact = ""

    def send(message: _Progress | _Checks | _Error) -> None:
        with suppress(OSError):
            pipe.send_bytes(msgspec.json.encode(message))

    def give_up() -> None:
        taken = f"One golden input took longer than {limits.answer_seconds:g} seconds"
        send(_Error(ModelDeadline.code, f"{taken}{_through(artifact)}."))
        os._exit(1)

    def tell(name: str) -> None:
        nonlocal artifact
        artifact = name
        send(_Progress(name))

    watchdog.at_last(give_up)
    try:
        with engines.deadline(limits.answer_seconds):
            opened = Bundle.open(path)
            if opened.hash != expected:
                raise FilesDiffer("manifest.json changed while the bundle was checked.")
            send(_Checks(verify(opened, tell, tuned)))
    except MedimgEdgeError as error:
        send(_Error(error.code, error.message))
    except MemoryError:
        text = f"It takes more than {limits.memory_bytes / 2**30:.3g} GiB{_through(artifact)}."
        send(_Error(GoldenMismatch.code, text))
    except Exception as error:
        send(_Error(Unexpected.code, f"{type(error).__name__}: {error}"))


def _limit(memory_bytes: int) -> None:
    """Take no more than so much from here on, and leave no core behind."""
    if sys.platform != "linux":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    has = pages * resource.getpagesize()
    most = has + memory_bytes + usable_cores() * _THREAD_BYTES
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
