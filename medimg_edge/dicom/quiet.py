"""pydicom without its opinion on values: what is taken over is taken over as it is."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager

from pydicom import config

# pydicom's settings and Python's warning filters belong to the process, not to a thread.
_LOCK = threading.Lock()


@contextmanager
def quiet() -> Generator[None]:
    """Neither warn of values nor refuse them; a warning could name the patient."""
    with _LOCK, warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield
