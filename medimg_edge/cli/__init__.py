"""The command line: parse, call, print, exit code.

Exit 0: all answered. 1: an input, a check or a gate failed. 2: usage. Nothing prints a traceback.
"""

from __future__ import annotations

import io
import sys
import traceback

from medimg_edge.cli.application import app
from medimg_edge.cli.output import fail
from medimg_edge.errors import ExtraMissing, MedimgEdgeError, Unexpected, WriteError

_SAID_CHARACTERS = 300


def main() -> None:
    """Run ``medimg-edge``."""
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
        said = " ".join(f"{type(error).__name__}: {error}".split())[:_SAID_CHARACTERS]
        fail(
            Unexpected(
                f"A fault of medimg-edge itself: {said}. Run it again as "
                "`medimg-edge --log-file FILE ...` and report what that file says."
            ),
            details=traceback.format_exc(),
        )
