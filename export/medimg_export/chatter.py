"""Converters talk a lot and fail in their own words: both end here.

tf2onnx, TensorFlow, ONNX Runtime's quantizer and LiteRT print to the process's own descriptors, some of them from
C++, where Python cannot reach. ``conversion`` catches all of it, shows a user none, and quotes its end when
something goes wrong.
"""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from medimg_edge.errors import ConversionError, MedimgEdgeError, WriteError

_TAIL_BYTES = 2000


@contextlib.contextmanager
def conversion(task: str, advice: str) -> Iterator[None]:
    """Run a converter in silence and translate what it raises.

    The redirection covers file descriptors 1 and 2 of the whole process: a progress bar of another thread is
    silent too, as long as this lasts.

    Args:
        task: what is being done, as the subject of a sentence ("the conversion to ONNX").
        advice: what a person can do when it fails, as a sentence.

    Raises:
        ConversionError: for any exception of a foreign library; the message ends with the last lines it printed.
        WriteError: for an OSError, such as a full disk.
        MedimgEdgeError: as it is.
    """
    with tempfile.TemporaryFile() as log:
        try:
            with _captured(log):
                yield
        except MedimgEdgeError:
            raise
        except OSError as error:
            raise WriteError(
                f"{task} could not write its files: {error}. Free space, or choose another folder."
            ) from error
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".strip()
            raise ConversionError(
                f"{task} failed: {reason[-_TAIL_BYTES:]}. {advice}{_tail(log)}"
            ) from error


@contextlib.contextmanager
def _captured(log: BinaryIO) -> Iterator[None]:
    """Send both standard streams to ``log``: as descriptors for C++, as objects for a replaced ``sys.stdout``."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    text = io.TextIOWrapper(
        io.FileIO(os.dup(log.fileno()), "w"), errors="replace", write_through=True
    )
    try:
        for descriptor in saved:
            os.dup2(log.fileno(), descriptor)
        with text, contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            yield
    finally:
        for descriptor, original in saved.items():
            os.dup2(original, descriptor)
            os.close(original)


def _tail(log: BinaryIO) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _TAIL_BYTES))
    said = log.read().decode(errors="replace").strip()
    return f"\nThe converter's last words:\n{said}" if said else ""
