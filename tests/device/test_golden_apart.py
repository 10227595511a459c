"""The golden set in a process of its own, and what that process cannot do to ours."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from medimg_edge import engines, golden_apart
from medimg_edge.bundle import Bundle
from medimg_edge.device_profile import Setting
from medimg_edge.errors import FilesDiffer, GoldenMismatch, ModelDeadline, Unexpected
from medimg_edge.golden import verify
from medimg_edge.golden_apart import verify_apart
from tests.device import hostile_models as hostile
from tests.device.golden_bundle import with_golden_set


@pytest.fixture
def hostile_bundle(mean_bundle, rewrite):
    """Make a bundle whose golden set is of the plain network, and whose model is another."""

    def make(change: hostile.Change) -> Path:
        folder = with_golden_set(mean_bundle([1, 2], [0.5, -0.5]))
        (folder / "model.onnx").write_bytes(hostile.changed(change))
        rewrite(folder)
        return folder

    return make


def test_it_says_what_golden_verify_says(frozen):
    seen: list[str] = []
    opened = Bundle.open(frozen)
    assert verify_apart(frozen, seen.append) == verify(opened)
    assert seen == list(opened.manifest.artifacts)


def test_what_tune_chose_is_checked_too(frozen):
    if engines.version("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    tuned = Setting("model.onnx", "openvino", 1)
    checks = verify_apart(Bundle.open(frozen), tuned=tuned)
    assert [each.artifact for each in checks][-1] == "model.onnx by openvino"
    assert {each.status for each in checks} <= {"ok", "not run"}


def test_our_errors_come_back(bundle):
    opened = Bundle.open(bundle)
    (bundle / "MODEL_CARD.md").write_bytes((bundle / "MODEL_CARD.md").read_bytes()[::-1])
    with pytest.raises(FilesDiffer, match=r"MODEL_CARD\.md is not the file"):
        verify_apart(opened)


def test_it_is_the_bundle_that_was_opened(bundle, rewrite):
    opened = Bundle.open(bundle)
    rewrite(bundle, lambda raw: raw.update(version="2"))
    with pytest.raises(FilesDiffer, match=r"manifest\.json changed"):
        verify_apart(opened)


def test_memory_is_limited(hostile_bundle):
    """256 MB are asked for by a model that its guard accepts, and 64 are there."""
    folder = hostile_bundle(hostile.large)
    assert [each.status for each in verify_apart(folder)] == ["ok"]
    started = time.monotonic()
    (check,) = verify_apart(folder, memory_bytes=_base_memory() + 2**26)
    assert check.status == "failed"
    assert time.monotonic() - started < 10


def _base_memory() -> int:
    """What ONNX Runtime's own files take."""
    program = (
        "import resource\n"
        "size = lambda: int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "import medimg_edge.golden_apart; before = size()\n"
        "import onnxruntime; print(size() - before)"
    )
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True).stdout)


def test_an_answer_has_a_deadline(hostile_bundle):
    folder = hostile_bundle(hostile.heavy)
    started = time.monotonic()
    (check,) = verify_apart(folder, answer_seconds=0.5)
    assert check.status == "failed"
    assert "longer than the 0.5 seconds" in check.message
    assert time.monotonic() - started < 10


def test_what_cannot_be_stopped_is_ended(bundle, rewrite):
    """LiteRT runs on; the process does not."""
    if not engines.installed("tflite"):
        pytest.skip("LiteRT is not installed")
    pytest.importorskip("flatbuffers")
    path = bundle / "model.tflite"
    path.write_bytes(hostile.changed_tflite(path.read_bytes(), hostile.heavy_tflite))
    rewrite(bundle)
    started = time.monotonic()
    with pytest.raises(ModelDeadline, match=r"longer than 0\.3 seconds over model\.tflite"):
        verify_apart(bundle, answer_seconds=0.3)
    assert time.monotonic() - started < 10


def test_all_of_it_has_a_deadline(hostile_bundle):
    folder = hostile_bundle(hostile.heavy)
    started = time.monotonic()
    with pytest.raises(ModelDeadline, match=r"not answered within 1\.5 seconds"):
        verify_apart(folder, seconds=1.5, answer_seconds=60)
    assert time.monotonic() - started < 5
    assert multiprocessing.active_children() == []


def test_a_process_that_dies(frozen):
    def kill(_: str) -> None:
        (child,) = multiprocessing.active_children()
        child.kill()

    with pytest.raises(GoldenMismatch, match=r"ended over model\.onnx, with -9"):
        verify_apart(frozen, kill)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"not JSON", GoldenMismatch),
        (b'{"type": "checks", "checks": [{"artifact": 1}]}', GoldenMismatch),
        (b'{"type": "error", "code": "no-such", "message": "m"}', Unexpected),
        (b"x" * (golden_apart.MOST_MESSAGE_BYTES + 1), GoldenMismatch),
    ],
)
def test_what_it_says_is_not_trusted(frozen, monkeypatch, said, error):
    """A model that took the process over may say anything; nothing of it is run here."""
    monkeypatch.setattr(golden_apart, "_verify", _Saying(said))
    with pytest.raises(error):
        verify_apart(frozen)


class _Saying:
    """In the place of ``_verify``, in the other process."""

    def __init__(self, said: bytes) -> None:
        self.said = said

    def __call__(self, pipe: Any, *_: object) -> None:
        pipe.send_bytes(self.said)


def test_control_c_ends_both(frozen):
    """The one that checks ignores it, and is ended by the one that asked."""
    program = (
        "import os, signal\n"
        "from medimg_edge.golden_apart import verify_apart\n"
        "def interrupt(name): os.killpg(0, signal.SIGINT)\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"    try: verify_apart({str(frozen)!r}, interrupt)\n"
        "    except KeyboardInterrupt: print('interrupted', end='')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, start_new_session=True
    )
    assert (run.stdout, run.stderr) == ("interrupted", "")


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="POSIX")
def test_nothing_is_left_where_the_one_who_asked_is_killed(frozen):
    program = (
        "import multiprocessing, os, signal\n"
        "from medimg_edge.golden_apart import verify_apart\n"
        "def end(name):\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"if __name__ == '__main__': verify_apart({str(frozen)!r}, end)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == -9
    child = int(run.stdout.split()[0])
    end = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "Z" not in _state(child):
        assert time.monotonic() < end
        time.sleep(0.05)


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
