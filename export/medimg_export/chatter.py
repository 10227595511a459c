"""Converters talk a lot and fail in their own words: both end here.

tf2onnx, TensorFlow, ONNX Runtime's quantizer and LiteRT print to the process's own descriptors,
some of them from C++, where Python cannot reach. ``conversion`` catches all of it, shows a user
none, and quotes its end when something goes wrong.
"""

import contextlib
import errno
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from medimg_edge.errors import ConversionError, MedimgEdgeError, WriteError

_REASON_CHARACTERS = 300  # some exceptions carry a whole graph as text
_TAIL_BYTES = 2000
# Native code says these in an exception of its own.
_DISK_FULL = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)))


@contextlib.contextmanager
def conversion(task: str, advice: str) -> Iterator[None]:
    """Run a converter in silence and translate what it raises.

    The redirection covers file descriptors 1 and 2 of the whole process: a progress bar of
    another thread is silent too, as long as this lasts.

    Args:
        task: what is being done, as the subject of a sentence ("The conversion to ONNX").
        advice: what a person can do when it fails, as a sentence.

    Raises:
        ConversionError: for any exception of a foreign library; the message ends with the last
            lines that the library printed.
        WriteError: a file cannot be read or written, such as on a full disk.
        MedimgEdgeError: as it is.
    """
    with tempfile.TemporaryFile() as log:
        try:
            with _captured(log):
                yield
        except MedimgEdgeError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:_REASON_CHARACTERS].strip()
            if isinstance(error, OSError) or any(each in str(error) for each in _DISK_FULL):
                raise WriteError(
                    f"{task} could not read or write a file: {reason}. "
                    "Free space, or choose another folder."
                ) from error
            raise ConversionError(f"{task} failed: {reason}. {advice}{_tail(log)}") from error


def load_tensorflow() -> None:
    """Import TensorFlow in silence, before anything else does.

    It greets every user with the drivers it misses: from C++, before it can be asked not to. Its
    advice on retracing is for whoever writes a training, not for whoever waits for one.
    """
    with tempfile.TemporaryFile() as log, _captured(log):
        import tensorflow
    tensorflow.get_logger().setLevel(logging.ERROR)


@contextlib.contextmanager
def _captured(log: BinaryIO) -> Iterator[None]:
    """Send both streams, as descriptors and as ``sys.stdout``, and the root logger to ``log``.

    The root logger has handlers meanwhile, because ``logging.warning`` of a library would
    otherwise set up one that outlives us and writes to a closed file.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    file = io.FileIO(os.dup(log.fileno()), "w")
    text = io.TextIOWrapper(file, errors="replace", write_through=True)
    root = logging.getLogger()
    captured: list[logging.Handler] = [logging.StreamHandler(text)]
    handlers, root.handlers = root.handlers, captured
    try:
        for descriptor in saved:
            os.dup2(log.fileno(), descriptor)
        with text, contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            yield
    finally:
        root.handlers = handlers
        for descriptor, original in saved.items():
            os.dup2(original, descriptor)
            os.close(original)


def _tail(log: BinaryIO) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _TAIL_BYTES))
    said = log.read().decode(errors="replace").strip()
    return f"\nThe converter's last words:\n{said}" if said else ""
