"""Results reach an archive once, whatever it says, and one that it refuses is in nobody's way."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from medimg_edge.dicom.node.outbox import Outbox
from medimg_edge.dicom.node.pauses import Pauses
from medimg_edge.dicom.node.sender import Peer, Sender
from medimg_edge.errors import NodeError
from tests.device.dicom_peers import SC, SR, wait

QUICK = Pauses(0.05, 0.2)
SLOW = Pauses(1000, 1000)


class Archive:
    """An archive of the test's: ``says`` is the status for an instance, or what to do instead."""

    def __init__(self, classes=(SR, SC), says: Callable[[str], int] = lambda uid: 0, port=0):
        self.stored: Counter[str] = Counter()
        self.names: list[str] = []
        self.associations = 0
        self._says = says
        entity = AE("ARCHIVE")
        entity.require_called_aet = True
        for each in classes:
            entity.add_supported_context(each, ImplicitVRLittleEndian)  # what all have to know
        server = entity.start_server(
            ("127.0.0.1", port),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_ACCEPTED, self._accepted)],
        )
        assert server
        self._server = server
        self.port = server.server_address[1]

    def _store(self, event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        status = self._says(uid)
        if status < 0:
            event.assoc.abort()
        elif status in (0, 0xB000):
            self.stored[uid] += 1
            self.names.append(str(event.dataset.PatientName))
        return max(status, 0)

    def _accepted(self, event) -> None:
        self.associations += 1

    def close(self) -> None:
        if self._server in self._server.ae._servers:
            self._server.shutdown()


class Sending:
    def __init__(self, folder: Path):
        (folder / "outbox").mkdir()
        (folder / "results").mkdir()
        self.folder = folder
        self.outbox = Outbox(folder / "outbox", folder / "results", keep=True)
        self.lines: list[str] = []
        self._ends: list[Callable[[], object]] = []

    def add(self, number: int, kind: str = "sr", sop_class: str = SR) -> Path:
        name = f"{number:032x}-{'a' * 16}"
        (self.folder / "outbox" / name).mkdir(exist_ok=True)
        path = self.folder / "outbox" / name / f"{name}.{kind}.dcm"
        result = Dataset()
        result.file_meta = FileMetaDataset()
        result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        result.SOPClassUID = result.file_meta.MediaStorageSOPClassUID = UID(sop_class)
        uid = UID(f"1.2.3.{number}")
        result.SOPInstanceUID = result.file_meta.MediaStorageSOPInstanceUID = uid
        result.SpecificCharacterSet = "ISO_IR 192"
        result.PatientName = "Ärztin^Ö"
        partial = path.with_suffix(".partial")  # a result is never in the outbox in part
        result.save_as(partial, enforce_file_format=True)
        partial.rename(path)
        return path

    def archive(self, *arguments, **options) -> Archive:
        archive = Archive(*arguments, **options)
        self._ends.append(archive.close)
        return archive

    def start(self, port: int, aet: str = "ARCHIVE", away=QUICK, refused=SLOW) -> Sender:
        sender = Sender(
            self.outbox,
            Peer(aet, "127.0.0.1", port),
            calling="MEDIMG",
            log=self.lines.append,
            away=away,
            refused=refused,
        )
        sender.start()
        self._ends.insert(0, sender.stop)
        return sender

    def end(self) -> None:
        for each in self._ends:
            each()


@pytest.fixture
def sending(tmp_path):
    sending = Sending(tmp_path)
    yield sending
    sending.end()


def test_many_results_go_in_one_association(sending):
    for number in range(1, 31):
        sending.add(number)
    archive = sending.archive()
    sender = sending.start(archive.port)
    wait(lambda: not sending.outbox.pending())
    assert archive.associations == 1
    sending.add(31)
    sender.wake()
    wait(lambda: not sending.outbox.pending())
    assert archive.stored == {f"1.2.3.{number}": 1 for number in range(1, 32)}
    assert set(archive.names) == {"Ärztin^Ö"}
    assert len(list((sending.folder / "results").glob("*/*.sr.dcm"))) == 31
    assert sending.lines == []


def test_a_warning_is_an_acknowledgement(sending):
    sending.add(1)
    archive = sending.archive(says=lambda uid: 0xB000)
    sending.start(archive.port)
    wait(lambda: not sending.outbox.pending())
    assert archive.stored == {"1.2.3.1": 1}


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0110, 0x0124, 0xABCD - 0x1000 + 0x4000])
def test_one_that_is_refused_is_kept_and_the_others_go_on(status, sending):
    refused, *_ = [sending.add(number) for number in (1, 2, 3)]
    archive = sending.archive(says=lambda uid: status if uid == "1.2.3.1" else 0)
    sending.start(archive.port)
    wait(lambda: sending.outbox.pending() == [refused])
    assert archive.stored == {"1.2.3.2": 1, "1.2.3.3": 1}
    (line,) = sending.lines
    assert f"{refused.name}: ARCHIVE@127.0.0.1:{archive.port} refused it (status 0x" in line
    assert line.endswith("It is kept, and offered again.")


def test_what_was_refused_is_taken_once_the_archive_is_put_right(sending):
    sending.add(1)
    tries = []

    def at_the_third(uid: str) -> int:
        tries.append(uid)
        return 0 if len(tries) == 3 else 0xC000

    archive = sending.archive(says=at_the_third)
    sending.start(archive.port, refused=QUICK)
    wait(lambda: not sending.outbox.pending())
    assert len(tries) == 3
    assert len(sending.lines) == 1, "said once, for the same reason"


@pytest.mark.parametrize("classes", [(SC,), ("1.2.840.10008.1.1",)], ids=["others", "none"])
def test_a_class_that_the_archive_does_not_take(classes, sending):
    report = sending.add(1, "sr", SR)
    capture = sending.add(2, "sc", SC)
    archive = sending.archive(classes=classes)
    sending.start(archive.port)
    kept = [report] if SC in classes else [report, capture]
    wait(lambda: sending.outbox.pending() == kept and len(sending.lines) == len(kept))
    assert "does not take objects of the class Comprehensive SR Storage" in " ".join(sending.lines)


def test_a_damaged_file_is_in_nobodys_way(sending):
    half, cut, folder = sending.add(1), sending.add(2), sending.add(3)
    half.write_bytes(half.read_bytes()[:100])
    cut.write_bytes(cut.read_bytes()[:-8])
    folder.unlink()
    folder.mkdir()
    sending.add(4)
    archive = sending.archive()
    sending.start(archive.port)
    wait(lambda: sorted(sending.outbox.pending()) == [half, cut, folder])
    wait(lambda: len(sending.lines) == 3)
    assert all("The file is damaged or cannot be read (" in line for line in sending.lines)
    assert archive.stored == {"1.2.3.4": 1}


def test_one_that_breaks_the_connection_is_in_nobodys_way(sending):
    breaks = sending.add(1)
    sending.add(2)
    archive = sending.archive(says=lambda uid: -1 if uid == "1.2.3.1" else 0)
    sending.start(archive.port)
    wait(lambda: sending.outbox.pending() == [breaks])
    assert archive.stored == {"1.2.3.2": 1}
    assert "did not answer, or ended the connection" in sending.lines[0]


def test_an_archive_that_is_full_is_not_pressed(sending):
    full = threading.Event()
    full.set()
    tries = []

    def says(uid: str) -> int:
        tries.append(uid)
        return 0xA700 if full.is_set() else 0

    for number in (1, 2, 3):
        sending.add(number)
    archive = sending.archive(says=says)
    sending.start(archive.port)
    wait(lambda: len(sending.lines) == 2)
    assert set(tries) == {"1.2.3.1"}, "the others would be refused as well"
    full.clear()
    wait(lambda: not sending.outbox.pending())
    assert archive.stored == {f"1.2.3.{number}": 1 for number in (1, 2, 3)}
    assert "is out of resources (status 0xA700)" in sending.lines[0]
    wait(lambda: sending.lines[-1].endswith("takes results again."))


def test_an_archive_that_is_away_comes_back(sending):
    elsewhere = sending.archive()
    port = elsewhere.port
    elsewhere.close()
    sending.add(1)
    sending.start(port)
    wait(lambda: len(sending.lines) == 3)
    pauses = [line.split("tried again in ")[1] for line in sending.lines[:3]]
    assert pauses == ["0.05 s.", "0.1 s.", "0.2 s."]
    archive = sending.archive(port=port)
    wait(lambda: not sending.outbox.pending())
    assert archive.stored == {"1.2.3.1": 1}


def test_an_archive_that_does_not_know_us(sending):
    sending.add(1)
    archive = sending.archive()
    sending.start(archive.port, aet="OTHER")
    wait(lambda: sending.lines)
    assert "rejected the association (Called AE title not recognised)" in sending.lines[0]


def test_a_host_that_is_not_known(sending):
    sending.add(1)
    sender = Sender(
        sending.outbox,
        Peer("ARCHIVE", "archive.invalid", 104),
        calling="MEDIMG",
        log=sending.lines.append,
        away=QUICK,
    )
    sender.start()
    wait(lambda: sending.lines)
    sender.stop()
    assert sending.lines[0].startswith("ARCHIVE@archive.invalid:104 cannot be reached: ")


def test_it_ends_while_it_waits(sending):
    sending.add(1)
    sender = sending.start(1, away=SLOW)
    wait(lambda: sending.lines)
    sender.stop()
    assert not any(each.name == "sender" for each in threading.enumerate())


def test_an_archives_address():
    assert Peer.parse("ARCHIVE@10.0.0.5:104") == Peer("ARCHIVE", "10.0.0.5", 104)
    assert Peer.parse("A B@[::1]:11112") == Peer("A B", "::1", 11112)
    assert str(Peer("A", "::1", 104)) == "A@[::1]:104"
    for text in ("ARCHIVE", "ARCHIVE@host", "@host:104", "A@host:0", "A@host:70000", "A@::1:104"):
        with pytest.raises(NodeError, match="is no archive; one is AET@HOST:PORT"):
            Peer.parse(text)
    with pytest.raises(NodeError, match="is no AE title"):
        Peer.parse("SEVENTEEN-LETTERS@host:104")
