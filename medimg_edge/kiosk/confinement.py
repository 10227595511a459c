"""How the process that answers is kept from harming others."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

OOM_SCORE = 500
"""How much sooner than others it is ended when memory is short: -1000 to 1000."""

PIPE_BYTES = 2**20
"""A view fits into the pipe: it is not waited for until somebody reads it."""

LOADING_BYTES = 1536 * 2**20
"""The most that a model may take to be loaded and to answer its golden set."""

_PR_SET_PDEATHSIG = 1
_F_SETPIPE_SZ = 1031


def begin() -> None:
    """End with the parent, on Linux whatever ends it; and not before.

    A signal to all of a service lets it finish its answers.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if sys.platform != "linux":
        return
    import fcntl

    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended just before
        sys.exit()
    for pipe in (0, 1):
        with suppress(OSError):
            fcntl.fcntl(pipe, _F_SETPIPE_SZ, PIPE_BYTES)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def step(seconds: float) -> None:
    """End by SIGALRM unless the next step begins within so many seconds; 0: it was the last.

    Also in the midst of native code. Windows alone cannot.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def limit(memory_bytes: int, *, for_good: bool = True) -> None:
    """Take no more than so much from here on, and leave no core behind; Linux alone can.

    Processes that it starts to decode inherit it. for_good: no other limit can follow.
    """
    if sys.platform != "linux":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = Path("/proc/self/status").read_text()
    data = next(line for line in status.splitlines() if line.startswith("VmData:"))
    most = int(data.split()[1]) * 1024 + memory_bytes
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most if for_good else hard))


def trim() -> None:
    """Give freed memory back to the system; only glibc keeps it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
