"""JPEG frames in a process of their own, which a damaged one ends."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from medimg_edge.dicom import isolated
from medimg_edge.dicom.read import read_dicom
from medimg_edge.errors import MachineFault, Truncated

pytest.importorskip("gdcm", reason="needs python-gdcm, of the extra dicom")


def shipped(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert path is not None
    return Path(str(path)).read_bytes()


WHOLE = shipped("JPGExtended.dcm")
# One byte of a marker, at which GDCM ends its process.
FATAL = WHOLE.replace(b"\xff\xdb", b"\xff\x01", 1)


@pytest.fixture(autouse=True)
def none_idle():
    """Each test begins, and leaves, without processes."""
    isolated._end_all()
    yield
    isolated._end_all()


def test_what_ends_the_decoder_is_an_error_and_the_next_frame_is_read():
    expected = read_dicom(WHOLE).frames
    (child,) = isolated._idle
    with pytest.raises(Truncated):
        read_dicom(FATAL)
    assert child.returncode == -signal.SIGABRT
    assert isolated._idle == []
    assert np.array_equal(read_dicom(WHOLE).frames, expected)


def test_a_process_is_kept_and_threads_have_their_own():
    for _ in range(3):
        read_dicom(WHOLE)
    assert len(isolated._idle) == 1
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda at: read_dicom(FATAL if at % 3 else WHOLE), [0] * 12))
    assert all(np.array_equal(each.frames, found[0].frames) for each in found)
    assert 1 <= len(isolated._idle) <= 3


def test_a_decoder_that_was_killed_while_it_waited_is_replaced():
    read_dicom(WHOLE)
    (child,) = isolated._idle
    child._process.kill()
    child._process.wait()
    read_dicom(WHOLE)


def test_one_that_does_not_answer_is_ended(monkeypatch):
    read_dicom(WHOLE)
    (child,) = isolated._idle
    os.kill(child._process.pid, signal.SIGSTOP)
    monkeypatch.setattr(isolated, "SECONDS", 2)
    assert np.array_equal(read_dicom(WHOLE).frames, read_dicom(WHOLE).frames)
    assert not child.alive


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere", None])
def test_no_process_is_no_fault_of_the_image(monkeypatch, program):
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(MachineFault, match="cannot be started"):
        read_dicom(WHOLE)


def test_nor_is_one_that_is_ended_again_and_again(monkeypatch):
    """As a system ends the largest process when it is short of memory."""
    decode = isolated._Child.decode

    def ended(child, frame, request):
        child._process.kill()
        return decode(child, frame, request)

    monkeypatch.setattr(isolated._Child, "decode", ended)
    with pytest.raises(MachineFault):
        read_dicom(WHOLE)


def test_what_ends_a_group_of_processes_ends_no_decoder():
    read_dicom(WHOLE)
    (child,) = isolated._idle
    assert os.getpgid(child._process.pid) != os.getpgid(0)


def test_a_decoder_has_an_end_to_its_memory():
    read_dicom(WHOLE)
    (child,) = isolated._idle
    limits = Path(f"/proc/{child._process.pid}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max address space"))
    assert int(line.split()[3]) == 3 * 2**30


ENDS = """
import os, sys
from medimg_edge.dicom import isolated
from medimg_edge.dicom.read import read_dicom
read_dicom(sys.stdin.buffer.read())
print(isolated._idle[0]._process.pid, flush=True)
os._exit(0)  # as the command line does
"""


def test_no_process_is_left_behind():
    done = subprocess.run(
        [sys.executable, "-c", ENDS], input=WHOLE, capture_output=True, check=True
    )
    pid = int(done.stdout)
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()
