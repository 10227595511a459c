"""Silence while it works, the converter's own words when it does not."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from medimg_edge.errors import ConversionError, GateError, MedimgEdgeError, WriteError
from medimg_export.chatter import conversion


def _from_a_child_process() -> None:
    subprocess.run([sys.executable, "-c", "print('child')"], check=True)


@pytest.mark.parametrize(
    "talk",
    [
        lambda: print("python"),
        lambda: print("python", file=sys.stderr),
        lambda: os.write(1, b"as C++ does"),
        lambda: os.write(2, b"as C++ does"),
        lambda: logging.getLogger("nobody").warning("the handler of last resort"),
        _from_a_child_process,
    ],
)
def test_nothing_is_heard(talk: Callable[[], object], capfd: pytest.CaptureFixture[str]) -> None:
    with conversion("The test", "No advice."):
        talk()
    assert capfd.readouterr() == ("", "")


def test_streams_work_again_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConversionError), conversion("The test", "No advice."):
        raise ValueError("bad")
    print("out")
    os.write(2, b"err")
    assert capfd.readouterr() == ("out\n", "err")


def test_the_root_logger_is_left_as_it_was() -> None:
    program = """
import logging
from medimg_export.chatter import conversion
with conversion("The test", "No advice."):
    logging.warning("during")
assert not logging.getLogger().handlers
logging.warning("after")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "WARNING:root:after\n")


def test_no_descriptor_is_lost() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with conversion("The test", "No advice."):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("bad layer"), ConversionError),
        (MemoryError(), ConversionError),
        (OSError(28, "No space left on device"), WriteError),
        (RuntimeError("model.onnx: write failed: No space left on device"), WriteError),
        (GateError("ours"), GateError),
    ],
)
def test_errors_are_ours(raised: Exception, expected: type[MedimgEdgeError]) -> None:
    with pytest.raises(expected), conversion("The test", "No advice."):
        raise raised


def _fail_with_words() -> None:
    with conversion("The conversion to TEST", "Use another layer."):
        os.write(2, b"x" * 10_000 + b"\nnode 7 is not supported\n")
        raise ValueError("bad layer" + "!" * 10_000)


def test_message_has_task_reason_advice_and_the_last_words() -> None:
    with pytest.raises(ConversionError) as caught:
        _fail_with_words()
    message = str(caught.value)
    assert message.startswith("The conversion to TEST failed: ValueError: bad layer!")
    assert "Use another layer." in message
    assert message.endswith("node 7 is not supported")
    assert len(message) < 3000
