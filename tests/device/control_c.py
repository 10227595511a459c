"""Processes that are to be interrupted."""

import signal


def hear_control_c() -> None:
    """Before a process begins: also where the tests run in the background, and it would be deaf."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
