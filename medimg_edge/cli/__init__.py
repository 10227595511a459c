"""The command line: parse, call, print, exit code.

Exit 0: all answered. 1: an input, a check or a gate failed. 2: usage. Nothing prints a traceback.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
from typing import NoReturn

from medimg_edge.cli.output import fail
from medimg_edge.errors import ExtraMissing, MedimgEdgeError, Unexpected, WriteError

_SAID_CHARACTERS = 300
_GARBAGE = 20_000
"""Objects made before the youngest are searched for garbage: a start makes many and drops few."""


def process() -> NoReturn:
    """Run ``medimg-edge`` as a process of its own, which ends without being taken apart.

    Everything written is flushed or closed by then; the system frees the memory in a fraction of
    the time that the interpreter and the libraries need for it.
    """
    gc.set_threshold(_GARBAGE)
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    except KeyboardInterrupt:
        status = 130
    with contextlib.suppress(OSError):  # a pipe that was closed
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Run ``medimg-edge``; it ends in SystemExit."""
    from medimg_edge.cli.application import app

    if isinstance(sys.stdout, io.TextIOWrapper):  # a label may lie outside of a terminal's encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except MedimgEdgeError as error:
        fail(error)
    except ImportError as error:  # such as a native library that this machine cannot load
        fail(ExtraMissing(f"The installation is broken: {error}. Install medimg-edge anew."))
    except OSError as error:  # Typer itself ends well on Ctrl-C and on a pipe that was closed
        where = error.filename or "Standard output"
        fail(WriteError(f"{where} cannot be used: {error.strerror}."))
    except Exception as error:
        import traceback

        said = " ".join(f"{type(error).__name__}: {error}".split())[:_SAID_CHARACTERS]
        fail(
            Unexpected(
                f"A fault of medimg-edge itself: {said}. Run it again as "
                "`medimg-edge --log-file FILE ...` and report what that file says."
            ),
            details=traceback.format_exc(),
        )
