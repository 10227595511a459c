"""C-ECHO and C-STORE: what arrives, what is refused, plain and with TLS."""

from __future__ import annotations

import resource
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom", reason="pynetdicom, of the dicom extra, is not installed")

import pydicom
from pydicom import uid
from pydicom.data import get_testdata_file
from pynetdicom import AE, _config
from pynetdicom.dsutils import split_dataset

from medimg_edge.dicom.node.listener import (
    SOP_CLASSES,
    TRANSFER_SYNTAXES,
    Listener,
    Received,
    is_uid,
)
from medimg_edge.dicom.node.settings import Limits, Settings, TlsFiles, ae_title
from medimg_edge.dicom.node.tls import client_context, server_context
from medimg_edge.errors import NodeError, WriteError
from tests.device import upper_layer as raw
from tests.device.listening import ListeningProcess, wait_until
from tests.device.upper_layer import Peer

DCMTK = Path("/usr/bin")
FILES = {
    "CT_small.dcm": uid.ExplicitVRLittleEndian,
    "MR_small_implicit.dcm": uid.ImplicitVRLittleEndian,
    "MR_small_bigendian.dcm": uid.ExplicitVRBigEndian,
    "image_dfl.dcm": uid.DeflatedExplicitVRLittleEndian,
    "MR_small_RLE.dcm": uid.RLELossless,
    "SC_rgb_jpeg_dcmtk.dcm": uid.JPEGBaseline8Bit,
    "JPGExtended.dcm": uid.JPEGExtended12Bit,
    "SC_rgb_jpeg_gdcm.dcm": uid.JPEGLosslessSV1,
    "MR_small_jpeg_ls_lossless.dcm": uid.JPEGLSLossless,
    "JPEGLSNearLossless_16.dcm": uid.JPEGLSNearLossless,
    "MR_small_jp2klossless.dcm": uid.JPEG2000Lossless,
    "JPEG2000.dcm": uid.JPEG2000,
}
LABELS = [uid.JPEGLossless, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K]
"""Of these pydicom has no file; the listener only reads the label."""

peers = pytest.mark.peers
needs_dcmtk = pytest.mark.skipif(not (DCMTK / "storescu").exists(), reason="dcmtk is not installed")
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")


@pytest.fixture
def listening(tmp_path) -> Callable[..., ListeningProcess]:
    def start(
        status: int = 0, preexec: Callable[[], None] | None = None, **settings: Any
    ) -> ListeningProcess:
        return ListeningProcess(tmp_path, Settings(port=0, **settings), status, preexec)

    return start


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> Iterator[ListeningProcess]:
    """One for those that only send to it."""
    with ListeningProcess(tmp_path_factory.mktemp("node"), Settings(port=0)) as shared:
        yield shared


def dcmtk(program: str, port: int, *words: str | Path, called: str = "MEDIMG", calling: str = "CT"):
    """Its exit code."""
    files = [each for each in words if isinstance(each, Path)]
    options = [each for each in words if isinstance(each, str)]
    command = [DCMTK / program, "-aec", called, "-aet", calling, *options, "127.0.0.1", str(port)]
    done = subprocess.run(
        [*command, *files],
        env={"TCP_NODELAY": "1", "PATH": "/usr/bin"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode


def file(name: str) -> Path:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return Path(path)


def data_set(path: Path) -> bytes:
    return path.read_bytes()[split_dataset(path)[1] :]


class TestEcho:
    pytestmark = [peers, needs_dcmtk]  # noqa: RUF012

    def test_it_is_answered(self, listening):
        with listening() as node:
            assert dcmtk("echoscu", node.port) == 0
            assert "127.0.0.1 CT: echo" in node.lines()

    def test_who_calls_another_is_refused(self, listening):
        with listening() as node:
            assert dcmtk("echoscu", node.port, called="ELSEWHERE") == 1
            assert "127.0.0.1 CT: refused: it does not call MEDIMG" in node.lines()
            assert dcmtk("echoscu", node.port) == 0

    def test_who_is_not_on_the_list_is_refused(self, listening):
        with listening(allow=("CT", "MR 2")) as node:
            assert dcmtk("echoscu", node.port, calling="STRANGER") == 1
            assert dcmtk("echoscu", node.port, calling="O'NEIL JOHN") == 1
            assert dcmtk("echoscu", node.port, calling="MR 2") == 0
            assert node.lines()[1:] == [
                "127.0.0.1 STRANGER: refused: its AE title is not on the list",
                "127.0.0.1 ?: refused: its AE title is not on the list",
                "127.0.0.1 MR 2: echo",
            ]


class TestStore:
    @pytest.mark.parametrize("name", FILES)
    def test_every_byte_of_a_data_set(self, node, monkeypatch, name):
        monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
        sent = file(name)
        assert send(node.port, sent) == 0x0000
        arrived = node.images()[-1]
        assert data_set(arrived) == data_set(sent)
        meta = pydicom.dcmread(arrived, stop_before_pixels=True).file_meta
        assert meta.TransferSyntaxUID == FILES[name]

    @pytest.mark.parametrize("syntax", LABELS, ids=lambda syntax: syntax.keyword)
    def test_other_transfer_syntaxes(self, node, monkeypatch, tmp_path, syntax):
        monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
        labelled = pydicom.dcmread(file("JPEG2000.dcm"))
        labelled.file_meta.TransferSyntaxUID = syntax
        labelled.save_as(tmp_path / "labelled.dcm")
        assert send(node.port, tmp_path / "labelled.dcm") == 0x0000
        assert data_set(node.images()[-1]) == data_set(tmp_path / "labelled.dcm")

    def test_each_transfer_syntax_was_tried(self):
        assert {*FILES.values(), *LABELS} == set(TRANSFER_SYNTAXES)

    @peers
    @needs_dcmtk
    def test_storescu_with_many(self, listening):
        sent = [file(name) for name in ("CT_small.dcm", "MR_small_implicit.dcm")] * 10
        with listening() as node:
            assert dcmtk("storescu", node.port, *sent) == 0
            arrived = [pydicom.dcmread(each) for each in node.images()]
            for one, other in zip(sent, arrived, strict=True):
                assert pydicom.dcmread(one).PixelData == other.PixelData

    @peers
    @needs_dcmtk
    def test_full(self, listening):
        with listening(status=0xA700) as node:
            assert dcmtk("storescu", node.port, file("CT_small.dcm")) == 0xA7
            assert "127.0.0.1 CT: store 0xA700" in node.lines()
            assert node.images() == []

    def test_a_disk_that_is_full(self, listening):
        """The rest of the image is read and let go, so that the peer hears the reason."""

        def small() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

        with listening(preexec=small) as node:
            assert send(node.port, file("CT_small.dcm")) == 0xA700
            assert send(node.port, file("MR_small_implicit.dcm")) == 0x0000

    def test_only_images(self, node):
        with Peer(node.port) as peer:
            peer.sendall(raw.associate(abstract=uid.RTPlanStorage))
            kind, body = raw.answer(peer)
            assert kind == raw.ACCEPTED
            result = body[body.index(b"\x21\0") + 6]
            assert result == 3  # PS3.8 table 9-18: the abstract syntax is not supported

    def test_a_peer_that_goes_leaves_nothing(self, listening):
        with listening() as node:
            with Peer(node.port) as peer:
                peer.associated()
                peer.sendall(raw.fragment(raw.store_request(b"1.2"), command=True))
                peer.sendall(raw.fragment(bytes(9000), command=False, last=False))
                wait_until(lambda: len(list(node.receiving.iterdir())) == 1)
            wait_until(lambda: not list(node.receiving.iterdir()))


def send(port: int, path: Path) -> int:
    """Status of a C-STORE of the file as it is."""
    meta = pydicom.dcmread(path, stop_before_pixels=True).file_meta
    entity = AE("CT")
    entity.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="MEDIMG")
    assert association.is_established
    status = association.send_c_store(path).Status
    association.release()
    return status


class TestUids:
    @pytest.mark.parametrize(
        "text",
        [
            b"../../x",
            b"/etc/x",
            b"1.2/../../x",
            b"1." * 2500 + b"1",
            b"1.2\0.3",
            b"1.2\n",
            b"1.2\\1.3",
            b"01.2",
            b"1.02",
            b"1..2",
            b"12",
            b"1." * 32 + b"1",
            b"",
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("which", ["instance", "sop_class"])
    def test_an_invalid_one_is_refused(self, node, text, which):
        uids = {"instance": b"1.2", which: text}
        before = everything_around(node)
        with Peer(node.port) as peer:
            peer.associated()
            peer.sendall(raw.fragment(raw.store_request(**uids), command=True))
            peer.sendall(raw.fragment(raw.data_set(**uids), command=False))
            kind, body = raw.answer(peer)
            assert kind in (0, raw.ABORTED) or raw.status(body) in (0x0122, 0xA900, 0xC000)
        wait_until(lambda: everything_around(node) == before)

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (raw.data_set(b"1.2"), 0x0000),
            (raw.data_set(b"1.3"), 0xA900),
            (raw.data_set(b"1.2", uid.MRImageStorage.encode()), 0xA900),
            (raw.data_set(b"1.2")[:40], 0xC000),
            (b"\xff" * 100, 0xC000),
        ],
        ids=["same", "other instance", "other class", "none", "noise"],
    )
    def test_they_are_those_of_the_data_set(self, node, data, status):
        before = len(node.images())
        with Peer(node.port) as peer:
            peer.associated()
            peer.sendall(raw.fragment(raw.store_request(b"1.2"), command=True))
            peer.sendall(raw.fragment(data, command=False))
            assert raw.status(raw.answer(peer)[1]) == status
            assert len(node.images()) == before + (status == 0)

    def test_a_request_without_a_data_set(self, node):
        command = raw.store_request(b"1.2").replace(b"\0\x08\2\0\0\0\0\0", b"\0\x08\2\0\0\0\1\1")
        with Peer(node.port) as peer:
            peer.associated()
            peer.sendall(raw.fragment(command, command=True))
            kind, body = raw.answer(peer)
            assert kind in (0, raw.ABORTED) or raw.status(body) >= 0xA000

    def test_the_class_is_that_of_the_presentation_context(self, node):
        command = raw.store_request(b"1.2", uid.MRImageStorage.encode())
        data = raw.data_set(b"1.2", uid.MRImageStorage.encode())
        with Peer(node.port) as peer:
            peer.associated()
            peer.sendall(raw.fragment(command, command=True))
            peer.sendall(raw.fragment(data, command=False))
            assert raw.status(raw.answer(peer)[1]) == 0xA900

    def test_valid_ones(self):
        for each in (*SOP_CLASSES, "1.2", "0.0", "2.25." + "9" * 59):
            assert is_uid(each)


def everything_around(node: ListeningProcess) -> list[Path]:
    return sorted(node.stored.parent.parent.rglob("*"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    """``node`` and ``peer`` are signed by the authority ``ca``, ``bad`` by ``rogue``."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "rogue"):
        out = ("-keyout", f"{name}.key", "-out", f"{name}.crt")
        openssl("req", "-x509", *key, *out, "-subj", f"/CN={name}", "-days", "2")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name, authority in (("node", "ca"), ("peer", "ca"), ("bad", "rogue")):
        openssl(
            "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"
        )
        signed = ("-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial")
        signing = ("-req", "-in", f"{name}.csr", *signed, "-extfile", "names", "-days", "2")
        openssl("x509", *signing, "-out", f"{name}.crt")
    return folder


def tls_files(folder: Path, name: str, authority: str = "ca") -> TlsFiles:
    return TlsFiles(folder / f"{name}.crt", folder / f"{name}.key", folder / f"{authority}.crt")


@needs_openssl
class TestTls:
    @peers
    @needs_dcmtk
    def test_who_is_heard(self, listening, certificates):
        def store(name: str, authority: str = "ca") -> int:
            files = tls_files(certificates, name, authority)
            options = ["+tls", str(files.key), str(files.cert), "+cf", str(files.ca)]
            return dcmtk("storescu", node.port, *options, file("CT_small.dcm"))

        limits = Limits(handshake_seconds=2)
        with listening(tls=tls_files(certificates, "node"), limits=limits) as node:
            assert store("peer") == 0
            assert store("bad") != 0
            node.wait_for("ended: no TLS handshake (CERTIFICATE_VERIFY_FAILED)")
            anonymous = ["+tla", "+cf", str(certificates / "ca.crt")]
            assert dcmtk("storescu", node.port, *anonymous, file("CT_small.dcm")) != 0
            node.wait_for("ended: no TLS handshake (PEER_DID_NOT_RETURN_A_CERTIFICATE)")
            assert dcmtk("storescu", node.port, file("CT_small.dcm")) != 0
            assert store("peer") == 0
            assert len(node.images()) == 2

    def test_a_silent_client_keeps_nobody_waiting(self, listening, certificates):
        limits = Limits(handshake_seconds=1)
        with listening(tls=tls_files(certificates, "node"), limits=limits) as node:
            with Peer(node.port) as silent:
                started = time.monotonic()
                context = client_context(tls_files(certificates, "peer"))
                with (
                    socket.create_connection(("127.0.0.1", node.port), 20) as plain,
                    context.wrap_socket(plain, server_hostname="localhost") as secure,
                ):
                    secure.sendall(raw.associate())
                    assert raw.answer(secure)[0] == raw.ACCEPTED
                assert time.monotonic() - started < 1
                assert raw.answer(silent)[0] == 0
                assert 0.5 < time.monotonic() - started < 5
            node.wait_for("ended: no TLS handshake (the peer does not answer)")

    @pytest.mark.parametrize("words", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1"])
    def test_who_resets_at_once_ends_nothing(self, listening, certificates, words):
        """ssl looks what such a peer left, before anything else is known of it."""
        with listening(tls=tls_files(certificates, "node")) as node:
            for _ in range(300):
                with Peer(node.port) as peer:
                    peer.sendall(words)
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            context = client_context(tls_files(certificates, "peer"))
            with (
                socket.create_connection(("127.0.0.1", node.port), 20) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                secure.sendall(raw.associate())
                assert raw.answer(secure)[0] == raw.ACCEPTED

    def test_a_large_image(self, listening, certificates, tmp_path):
        """Longer than what a TLS record or a PDU holds."""
        image = pydicom.dcmread(file("CT_small.dcm"))
        image.Rows, image.Columns, image.PixelData = 1000, 2000, bytes(range(250)) * 16_000
        image.save_as(tmp_path / "large.dcm")
        with listening(tls=tls_files(certificates, "node")) as node:
            entity = AE("CT")
            entity.add_requested_context(image.SOPClassUID, uid.ExplicitVRLittleEndian)
            context = client_context(tls_files(certificates, "peer"))
            association = entity.associate(
                "127.0.0.1", node.port, ae_title="MEDIMG", tls_args=(context, "localhost")
            )
            assert association.send_c_store(image).Status == 0x0000
            association.release()
            assert pydicom.dcmread(node.images()[0]).PixelData == image.PixelData

    def test_files_that_cannot_be_used(self, certificates, tmp_path):
        with pytest.raises(NodeError, match=r"There is no file .*nobody\.crt"):
            server_context(tls_files(certificates, "nobody"))
        other_key = TlsFiles(*(certificates / f for f in ("node.crt", "peer.key", "ca.crt")))
        (tmp_path / "text.crt").write_text("no certificate")
        no_ca = TlsFiles(
            certificates / "node.crt", certificates / "node.key", tmp_path / "text.crt"
        )
        locked = tmp_path / "locked.key"
        words = ["openssl", "ec", "-aes128", "-passout", "pass:secret", "-out", str(locked)]
        key = (certificates / "node.key").read_bytes()
        subprocess.run(words, input=key, check=True, capture_output=True, timeout=60)
        asks = TlsFiles(certificates / "node.crt", locked, certificates / "ca.crt")
        for files in (other_key, no_ca, asks):
            with pytest.raises(NodeError, match="Accepted are PEM files"):
                server_context(files)


class TestListener:
    """In this process."""

    def test_a_port_that_is_taken(self, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(NodeError, match=f"127.0.0.1 port {port} .Address already in use"):
                Listener(Settings(port=port), lambda received: 0, tmp_path).start()

    def test_no_address_of_this_machine(self, tmp_path):
        with pytest.raises(NodeError, match="Choose an address of this machine"):
            Listener(Settings(host="no.such.host.invalid"), lambda received: 0, tmp_path).start()

    @pytest.mark.parametrize(
        ("error", "status", "line"),
        [
            (WriteError("/home/x"), 0xA700, "store: write"),
            (KeyError("DOE^JOHN"), 0x0110, "store: KeyError"),
        ],
    )
    def test_a_store_that_fails(self, tmp_path, error, status, line):
        def fail(received: Received) -> int:
            raise error

        lines: list[str] = []
        listener = Listener(Settings(port=0), fail, tmp_path, lines.append)
        listener.start()
        try:
            assert send(listener.address[1], file("CT_small.dcm")) == status
        finally:
            listener.stop()
        assert line in lines
        assert "DOE" not in str(lines)
        assert list(tmp_path.iterdir()) == []

    def test_it_stops_with_peers_that_stay(self, tmp_path):
        listener = Listener(Settings(port=0), lambda received: 0, tmp_path)
        listener.start()
        with Peer(listener.address[1]) as silent, Peer(listener.address[1]) as associated:
            associated.associated()
            started = time.monotonic()
            listener.stop()
            assert time.monotonic() - started < 3
            assert raw.answer(silent)[0] == raw.answer(associated)[0] == 0


class TestSettings:
    def test_ae_titles(self):
        assert ae_title(" MEDIMG ") == "MEDIMG"
        assert ae_title("A" * 16) == "A" * 16
        for wrong in ("", "  ", "A" * 17, "A\\B", "A\nB", "Ä"):
            with pytest.raises(NodeError, match="is no AE title"):
                ae_title(wrong)
            with pytest.raises(NodeError, match="is no AE title"):
                Settings(allow=(wrong,))

    def test_numbers(self):
        with pytest.raises(NodeError, match="-1 is no port"):
            Settings(port=-1)
        with pytest.raises(NodeError, match="idle_seconds is 0"):
            Limits(idle_seconds=0)

    def test_only_this_machine_unless_told_otherwise(self):
        assert Settings().host == "127.0.0.1"
