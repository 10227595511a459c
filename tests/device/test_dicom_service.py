"""A service: what it acknowledged is answered once, whatever is in the way."""

import json
import os
import threading
import time
from pathlib import Path

import pytest
from pydicom import dcmread

from medimg_edge.dicom.node.service import GIVEN_UP, Answered, Service
from medimg_edge.dicom.node.settings import Settings
from medimg_edge.dicom.node.spool import Spool
from medimg_edge.errors import Blank
from medimg_edge.record import Failure, Record, encode, failure
from tests.device import dicom_peers as peers
from tests.device.dicom_peers import wait


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    return peers.write_images(tmp_path_factory.mktemp("images"), 4)


class Alone:
    """A service in this process, of which the answers can be held back."""

    def __init__(self, spool: Spool):
        self.spool, self.may_answer = spool, threading.Event()
        self.may_answer.set()
        self.lines: list[str] = []
        self.records: list[Record] = []
        self.answered: list[str] = []
        self.service = Service(
            Settings(port=0), spool, self._answer, report=self.records.append, log=self.lines.append
        )
        self.service.start()
        self.port = self.service.address[1]

    def _answer(self, image: Path, name: str) -> Answered:
        self.may_answer.wait()
        self.answered.append(name)
        if b"blank" in image.read_bytes():
            raise Blank("Every pixel is the same.")
        if b"fault" in image.read_bytes():
            raise ZeroDivisionError("Nobody^Secret")
        record = failure(name, Blank("in the stead of an answer"))
        return Answered([record], {"sr.dcm": b"report", "json": encode(record)})

    def send(self, *images: Path) -> list[int | None]:
        with peers.associated(self.port) as send:
            return [send(each) for each in images]


@pytest.fixture
def alone(tmp_path):
    started = []

    def start(**options) -> Alone:
        started.append(Alone(Spool(tmp_path / "node", **{"reserve_bytes": 0, **options})))
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
    assert node.records == node.spool.waiting() == []


def test_an_instance_that_is_sent_twice_is_answered_once(alone, images):
    node = alone()
    assert node.send(images[0], images[0], images[1]) == [0, 0, 0]
    wait(lambda: len(node.records) == 2)
    assert node.send(images[0]) == [0]
    assert len(node.answered) == 2


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
    kept = node.spool.folder / "results" / name
    assert os.listdir(kept) == [f"{name}.json"]
    record = json.loads((kept / f"{name}.json").read_bytes())
    assert (record["code"], record["input"]) == (code, name)
    assert "Secret" not in json.dumps(record) + "".join(node.lines)
    assert node.spool.waiting() == []


def test_an_image_that_ends_the_process_each_time_is_given_up(alone, images, tmp_path):
    spool = Spool(tmp_path / "node", reserve_bytes=0)
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
    assert f"ended {GIVEN_UP} times" in record.message
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
