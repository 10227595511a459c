"""A service: what it acknowledged is answered once, whatever is in the way."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pydicom import dcmread

from medimg_edge.dicom.node.pauses import Pauses
from medimg_edge.dicom.node.service import GIVEN_UP, Answered, Service
from medimg_edge.dicom.node.settings import Settings
from medimg_edge.dicom.node.spool import FAILURE, Spool
from medimg_edge.errors import Blank, MachineFault, NodeError
from medimg_edge.record import Answer, Failure, Finding, Model, Record, encode
from tests.device import dicom_peers as peers
from tests.device.dicom_peers import wait

MODEL = "a" * 16


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    return peers.write_images(tmp_path_factory.mktemp("images"), 4)


def answer(name: str) -> Answer:
    return Answer(
        input=name,
        findings=(Finding("opacity", 0.5, "refer"),),
        label="opacity",
        probability=0.5,
        decision="refer",
        artifact="model.onnx",
        runtime="none",
        model=Model("none", "1", "a" * 64),
        elapsed_ms=1,
    )


class Alone:
    """A service in this process, of which the answers can be held back."""

    def __init__(self, spool: Spool):
        self.spool, self.may_answer = spool, threading.Event()
        self.may_answer.set()
        self.lines: list[str] = []
        self.records: list[Record] = []
        self.answered: list[str] = []
        self.faults: list[BaseException] = []
        self.service = Service(
            Settings(port=0),
            spool,
            self._answer,
            report=self.records.append,
            log=self.lines.append,
            later=Pauses(0.05, 0.1),
        )
        self.service.start()
        self.port = self.service.address[1]

    def _answer(self, image: Path, name: str) -> Answered:
        self.may_answer.wait()
        self.answered.append(name)
        if self.faults:
            raise self.faults.pop(0)
        if b"blank" in image.read_bytes():
            raise Blank("Every pixel is the same.")
        if b"fault" in image.read_bytes():
            raise ZeroDivisionError("Nobody^Secret")
        record = answer(name)
        return Answered([record], {"sr.dcm": b"report", "json": encode(record)})

    def send(self, *images: Path) -> list[int | None]:
        with peers.associated(self.port) as send:
            return [send(each) for each in images]


@pytest.fixture
def alone(tmp_path):
    started = []

    def start(**options) -> Alone:
        started.append(
            Alone(Spool(tmp_path / "node", **{"model": MODEL, "reserve_bytes": 0, **options}))
        )
        return started[-1]

    yield start
    for each in started:
        each.may_answer.set()
        each.service.stop()
        each.spool.close()


def test_the_queue_is_full(alone, images):
    node = alone(queue=2)
    node.may_answer.clear()
    assert node.send(*images[:3]) == [0, 0, 0xA700]
    assert node.send(*images[2:4]) == [0xA700, 0xA700]
    refusals = [each for each in node.lines if each.startswith("Images are refused")]
    assert len(refusals) == 1, "one line, however often it is tried"
    assert "2 instances wait for their answers" in refusals[0]

    node.may_answer.set()
    wait(lambda: len(node.records) == 2)
    assert node.send(images[2]) == [0]
    assert "Images are accepted again." in node.lines
    wait(lambda: len(node.records) == 3)


def test_little_disk_is_left(alone, images):
    node = alone(reserve_bytes=2**60)
    assert node.send(images[0]) == [0xA700]
    (line,) = [each for each in node.lines if each.startswith("Images are refused")]
    assert line.endswith("make room. The node's take: inbox 0 MB, outbox 0 MB, results 0 MB.")
    assert node.records == node.spool.waiting() == []


def test_an_instance_that_is_sent_twice_is_answered_once(alone, images):
    node = alone()
    assert node.send(images[0], images[0], images[1]) == [0, 0, 0]
    wait(lambda: len(node.records) == 2)
    assert node.send(images[0]) == [0]
    assert len(node.answered) == 2
    known = f"{node.answered[0]}: received before; it is answered once."
    assert known in node.lines


def test_a_failure_is_answered_anew_when_it_is_sent_again(alone, images):
    node = alone()
    node.faults.append(ZeroDivisionError())
    assert node.send(images[0]) == [0]
    wait(lambda: node.records)
    assert node.send(images[0]) == [0]
    wait(lambda: len(node.records) == 2)
    assert [each.status for each in node.records] == ["error", "ok"]
    (kept,) = (node.spool.folder / "results").iterdir()
    assert sorted(each.suffix for each in kept.iterdir()) == [".dcm", ".json"]


@pytest.mark.parametrize(
    "fault", [MachineFault("No memory."), MemoryError("SECRET"), OSError(24, "Too many files")]
)
def test_a_fault_of_the_machine_is_not_the_images(fault, alone, images):
    """It is tried again later, and the others are answered meanwhile."""
    node = alone()
    node.faults += [fault, fault]
    node.may_answer.clear()
    assert node.send(*images[:3]) == [0, 0, 0]
    node.may_answer.set()
    wait(lambda: len(node.records) == 3)
    assert {each.status for each in node.records} == {"ok"}
    assert len(node.answered) == 5
    assert node.answered[0] != node.answered[1], "not in the way of the next"
    assert len([each for each in node.lines if each.endswith("It is tried again in 0.05 s.")]) == 2
    assert "SECRET" not in " ".join(node.lines)
    wait(lambda: not os.listdir(node.spool.folder / "inbox"))


def test_a_machine_that_fails_at_one_image_each_time_keeps_it(alone, images):
    node = alone()
    node.faults += [MachineFault("No memory.")] * 9
    assert node.send(images[0]) == [0]
    wait(lambda: node.records)
    (record,) = node.records
    assert isinstance(record, Failure)
    assert f"failed {GIVEN_UP} times" in record.message
    assert len(node.answered) == GIVEN_UP
    name = node.answered[0]
    kept = node.spool.folder / "results" / f"{name}-{MODEL}"
    assert sorted(os.listdir(kept)) == [f"{name}.{FAILURE}", f"{name}.source.dcm"]
    assert dcmread(kept / f"{name}.source.dcm").SOPInstanceUID == "1.2.3.9.1"
    node.faults.clear()
    assert node.send(images[0]) == [0]
    wait(lambda: len(node.records) == 2)
    assert node.records[1].status == "ok"


@pytest.mark.parametrize(("words", "code"), [(b"blank", "blank"), (b"fault", "unexpected")])
def test_an_image_without_an_answer_does_not_stop_the_others(words, code, alone, images, tmp_path):
    node = alone()
    bad = tmp_path / "bad.dcm"
    dataset = dcmread(images[0])
    dataset.ImageComments = words.decode()
    dataset.save_as(bad)
    assert node.send(bad, images[1]) == [0, 0]
    wait(lambda: len(node.records) == 2)
    assert node.records[0].status != "ok"
    name = node.answered[0]
    kept = node.spool.folder / "results" / f"{name}-{MODEL}"
    assert os.listdir(kept) == [f"{name}.{FAILURE}"]
    record = json.loads((kept / f"{name}.{FAILURE}").read_bytes())
    assert (record["code"], record["input"]) == (code, name)
    assert "Secret" not in json.dumps(record) + "".join(node.lines)
    assert node.spool.waiting() == []


def test_an_image_that_ends_the_process_each_time_is_given_up(alone, images, tmp_path):
    spool = Spool(tmp_path / "node", model=MODEL, reserve_bytes=0)
    (spool.partial / "arriving").write_bytes(b"")
    name = spool.receive(spool.partial / "arriving", "1.2.3")
    assert name
    inbox = spool.folder / "inbox"
    (inbox / f"{name}.0.dcm").rename(inbox / f"{name}.{GIVEN_UP}.dcm")
    spool.close()
    node = alone()
    wait(lambda: node.records)
    (record,) = node.records
    assert isinstance(record, Failure)
    assert f"failed {GIVEN_UP} times" in record.message
    assert node.answered == []
    assert node.send(images[0]) == [0]


def test_what_is_not_done_at_the_end_is_at_the_next_start(alone, images):
    first = alone()
    first.may_answer.clear()
    assert first.send(*images[:3]) == [0, 0, 0]
    began = time.monotonic()
    first.service.stop()
    assert time.monotonic() - began < 10
    assert first.records == []
    first.spool.close()
    second = alone()
    wait(lambda: len(second.records) == 3)


STOPPED = """
import os, sys, time
from pathlib import Path
from medimg_edge.dicom.node.service import Service
from medimg_edge.dicom.node.settings import Settings
from medimg_edge.dicom.node.spool import Spool

def answer(image, name):
    print("answering", flush=True)
    time.sleep(60)

spool = Spool(Path(sys.argv[1]), model="a" * 16, reserve_bytes=0)
service = Service(Settings(port=0), spool, answer, report=print, log=print)
service.start()
sys.stdin.read()
service.stop()
"""


def test_ordinary_restarts_during_a_long_answer_give_up_no_image(tmp_path):
    spool = Spool(tmp_path / "node", model=MODEL, reserve_bytes=0)
    (spool.partial / "arriving").write_bytes(b"image")
    name = spool.receive(spool.partial / "arriving", "1.2.3")
    for _ in range(2):
        spool.close()
        process = subprocess.Popen(
            [sys.executable, "-c", STOPPED, str(spool.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        assert process.stdout.readline() == "answering\n"
        assert os.path.exists(spool.folder / "inbox" / f"{name}.trying")
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert os.listdir(spool.folder / "inbox") == [f"{name}.0.dcm"]
        spool = Spool(spool.folder, model=MODEL, reserve_bytes=0)
    assert spool.waiting() == [name]
    spool.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_by_itself_is_noticed(alone, images):
    node = alone()
    node.service.require_alive()
    assert node.send(images[0]) == [0]
    wait(lambda: node.records)

    def report(record: Record) -> None:
        raise SystemExit

    node.service._report = report
    assert node.send(images[1]) == [0]
    wait(lambda: not node.service._worker.is_alive())
    with pytest.raises(NodeError, match="What answers has ended by itself"):
        node.service.require_alive()
