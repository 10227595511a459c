"""The command line: parse, call, print, exit code.

Exit 0: all answered. 1: an input, a check or a gate failed. 2: usage. Nothing prints a traceback.
"""

from __future__ import annotations

import os
import sys

from medimg_edge.cli.application import app
from medimg_edge.cli.output import fail
from medimg_edge.errors import MedimgEdgeError


def main() -> None:
    """Run ``medimg-edge``."""
    try:
        app()
    except MedimgEdgeError as error:
        fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `medimg-edge infer ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
