"""A network of our own with an archive (Orthanc), a modality (dcmtk) and a node in it.

Run as a program it is a modality that does not give up: it sends files until each is acknowledged,
and writes down which were.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

ORTHANC, STORESCU = "/usr/sbin/Orthanc", "/usr/bin/storescu"  # pynetdicom has a storescu, too
DICOM_PORT, HTTP_PORT, NODE_PORT = 14242, 18042, 11112
SR, SC = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.7"
PATIENT = "Nobody^Secret"
T = TypeVar("T")


def wait(what: Callable[[], T], seconds: float = 30) -> T:
    """What it returns once that is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"waited {seconds} s"
        time.sleep(0.02)
    return found


def write_images(folder: Path, count: int, side: int = 64) -> list[Path]:
    """Radiographs of noise, of one patient in one study."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    paths = []
    for number in range(1, count + 1):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = UID(
            "1.2.840.10008.5.1.4.1.1.1.1"
        )
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.9.{number}")
        image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3.1", "1.2.3.2"
        image.Modality, image.BodyPartExamined, image.ViewPosition = "DX", "CHEST", "PA"
        image.PatientName, image.PatientID = PATIENT, "SECRET-7"
        image.PatientBirthDate, image.PatientSex = "19700101", "O"
        image.StudyDate, image.StudyTime, image.StudyID = "20260101", "120000", "1"
        image.AccessionNumber, image.ReferringPhysicianName = "", ""
        image.SeriesNumber, image.InstanceNumber = 1, number
        image.Rows = image.Columns = side
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 8
        image.HighBit, image.PixelRepresentation = 7, 0
        image.PixelData = random.integers(0, 256, (side, side), np.uint8).tobytes()
        paths.append(folder / f"{number}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


class Network:
    """A network namespace with a loopback that only its own processes reach."""

    def __init__(self, tmpfs: Path | None = None, size: str = "") -> None:
        mount = f"mount -t tmpfs -o size={size} none '{tmpfs}' && " if tmpfs else ""
        self._holder = subprocess.Popen(
            ["unshare", "-rnm", "sh", "-c", f"ip link set lo up && {mount}echo up && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout
        self.up = self._holder.stdout.readline() == b"up\n"
        self._started: list[subprocess.Popen] = []

    def seen(self, path: Path) -> Path:
        """A folder as the processes there see it."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def start(self, *command: object, **options: Any) -> subprocess.Popen:
        inside = ["nsenter", "-t", str(self._holder.pid), "-U", "-n", "-m", f"--wd={os.getcwd()}"]
        process = subprocess.Popen(
            [*inside, "--preserve-credentials", *map(str, command)], **options
        )
        self._started.append(process)
        return process

    def run(self, *command: object, **options: Any) -> tuple[int, str]:
        """Its exit code and all that it says."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
        process = self.start(*command, **options)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def close(self) -> None:
        for each in self._started:
            if each.poll() is None:
                each.kill()
                each.wait()
        assert self._holder.stdin
        self._holder.stdin.close()
        self._holder.wait()

    def storescu(self, *files: Path, options: Sequence[object] = ()) -> int:
        command = [STORESCU, "-aet", "CR1", "-aec", "MEDIMG", *options, "127.0.0.1", NODE_PORT]
        return self.run(*command, *files, env={**os.environ, "TCP_NODELAY": "1"})[0]


class Orthanc:
    """An archive. It overwrites nothing, as by default."""

    def __init__(self, network: Network, folder: Path, **options: object) -> None:
        self._network, self._folder = network, folder
        self._folder.mkdir(exist_ok=True)
        self.files = folder / "storage"
        edge: dict[str, object] = {"AET": "MEDIMG", "Host": "127.0.0.1", "Port": NODE_PORT}
        if "DicomTlsEnabled" in options:
            edge["UseDicomTls"] = True
        self._configuration = folder / "orthanc.json"
        self._configuration.write_text(
            json.dumps(
                {
                    "StorageDirectory": str(self.files),
                    "IndexDirectory": str(self.files),
                    "HttpPort": HTTP_PORT,
                    "DicomPort": DICOM_PORT,
                    "DicomAet": "ORTHANC",
                    "DicomCheckCalledAet": True,
                    "AuthenticationEnabled": False,
                    "DicomModalities": {"edge": edge},
                    **options,
                }
            )
        )
        self.start()

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = self._network.start(ORTHANC, self._configuration, stderr=log)
        wait(lambda: self._curl("/system"))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def send_to_node(self, file: Path) -> None:
        """Give it a file by HTTP, and let it send that to the node."""
        instance = json.loads(self._curl("/instances", "--data-binary", f"@{file}"))["ID"]
        sent = json.loads(self._curl("/modalities/edge/store", "-d", instance))
        assert sent["FailedInstancesCount"] == 0, sent

    def objects(self, sop_class: str) -> list:
        """The data sets that it keeps of a SOP class."""
        from pydicom import dcmread

        known = json.loads(self._curl("/statistics"))["CountInstances"]
        kept = [dcmread(each) for each in self.files.glob("??/??/*") if _is_dicom(each)]
        assert len(kept) == known
        return [each for each in kept if each.SOPClassUID == sop_class]

    def count(self) -> int:
        return json.loads(self._curl("/statistics"))["CountInstances"]

    def _curl(self, path: str, *options: str) -> str:
        url = f"http://127.0.0.1:{HTTP_PORT}{path}"
        return self._network.run("curl", "-s", *options, url, stderr=subprocess.DEVNULL)[1]


def to_orthanc(*more: object) -> list[object]:
    """Options of a node, by which it sends there."""
    return ["--send-to", f"ORTHANC@127.0.0.1:{DICOM_PORT}", *more]


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def referenced(report: Any) -> str:
    """The SOP Instance UID of the image that a report is about."""
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    (instance,) = series.ReferencedSOPSequence
    return instance.ReferencedSOPInstanceUID


class Node:
    """``medimg-edge listen``, which can be started again and again on the same folder."""

    def __init__(self, network: Network, bundle: Path, out: Path, log: Path, *options: object):
        self._network, self.out, self._log = network, out, log
        command = [sys.executable, "-m", "medimg_edge.cli", "listen", bundle, "--out", out]
        self._command = [*command, "--port", NODE_PORT, "--allow-unsigned", *options]
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            begin = log.seek(0, os.SEEK_END)
            self.process = self._network.start(*self._command, stdout=log, stderr=log)
        wait(lambda: b" listens on " in self._said(begin) or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=20)

    def said(self) -> str:
        """Everything, of all starts."""
        return self._said(0).decode()

    def holds(self, folder: str) -> list[str]:
        return sorted(os.listdir(self._network.seen(self.out) / folder))

    def is_done(self) -> bool:
        return not self.holds("inbox") and not self.holds("outbox")

    def _said(self, begin: int) -> bytes:
        with self._log.open("rb") as log:
            log.seek(begin)
            return log.read()


@contextmanager
def own_network(tmpfs: Path | None = None, size: str = "") -> Iterator[Network]:
    """A network for the block, in which ``tmpfs`` is a disk of so many bytes, or a skipped test."""
    import pytest

    for program in (ORTHANC, STORESCU, "unshare", "nsenter", "ip", "curl", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    network = Network(tmpfs, size)
    try:
        if not network.up:
            pytest.skip("this user may not have network namespaces")
        yield network
    finally:
        network.close()


def certificates(folder: Path) -> dict[str, Path]:
    """An authority, and a certificate with its key for 127.0.0.1."""
    folder.mkdir()
    made = {name: folder / name for name in ("ca.key", "ca.crt", "our.key", "our.csr", "our.crt")}
    extension = folder / "extension"
    extension.write_text("subjectAltName=IP:127.0.0.1\n")
    new = ["req", "-newkey", "rsa:2048", "-nodes", "-keyout"]
    ca = ["-CA", made["ca.crt"], "-CAkey", made["ca.key"], "-CAcreateserial"]
    signed = ["-in", made["our.csr"], "-out", made["our.crt"], "-extfile", extension]
    for command in (
        [*new, made["ca.key"], "-x509", "-out", made["ca.crt"], "-subj", "/CN=ca"],
        [*new, made["our.key"], "-out", made["our.csr"], "-subj", "/CN=node"],
        ["x509", "-req", *signed, *ca],
    ):
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    return made


@contextmanager
def associated(port: int = NODE_PORT) -> Iterator[Callable[[Path], int | None]]:
    """What sends a file, and gives the status, or None where the association is lost."""
    from pydicom import dcmread
    from pynetdicom import AE

    entity = AE("CR1")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", port, ae_title="MEDIMG")

    def send(path: Path) -> int | None:
        if not association.is_established:
            return None
        try:
            return association.send_c_store(dcmread(path)).get("Status")
        except RuntimeError:  # lost since it was looked at
            return None

    yield send
    association.release()


def send_all(files: Iterable[Path], acknowledged: IO[str], pause: float) -> None:
    """Send each file until it is acknowledged; write its name when it is."""
    waiting = list(files)
    while waiting:
        with associated() as send:
            while waiting and (status := send(waiting[0])) is not None:
                if status == 0:
                    print(waiting.pop(0).name, file=acknowledged, flush=True)
                else:
                    waiting.append(waiting.pop(0))
                time.sleep(pause)
        time.sleep(0.05)


if __name__ == "__main__":
    send_all(map(Path, sys.argv[2:]), sys.stdout, float(sys.argv[1]))
