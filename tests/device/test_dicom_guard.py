"""Peers that want more than their share: limits in bytes, connections and seconds."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

pytest.importorskip("pynetdicom", reason="pynetdicom, of the dicom extra, is not installed")

from medimg_edge.dicom.node.guard import OWED_MESSAGES, PlainConnection, Slots
from medimg_edge.dicom.node.listener import Listener
from medimg_edge.dicom.node.settings import Limits, Settings
from tests.device import upper_layer as raw
from tests.device.listening import ListeningProcess, wait_until
from tests.device.upper_layer import Peer

ECHOSCU = "/usr/bin/echoscu"
needs_dcmtk = [
    pytest.mark.peers,
    pytest.mark.skipif(not Path(ECHOSCU).exists(), reason="dcmtk is not installed"),
]
DEFLATED = "1.2.840.10008.1.2.1.99"

Start = Callable[..., ListeningProcess]


@pytest.fixture
def listening(tmp_path) -> Callable[..., ListeningProcess]:
    def start(status: int = 0, **limits: float) -> ListeningProcess:
        settings = Settings(port=0, limits=Limits(**limits))  # pyright: ignore[reportArgumentType]
        return ListeningProcess(tmp_path, settings, status)

    return start


def echo(port: int, *options: str) -> int:
    words = [ECHOSCU, "-aec", "MEDIMG", *options, "127.0.0.1", str(port)]
    return subprocess.run(words, env={"TCP_NODELAY": "1"}, timeout=60, check=False).returncode


class TestAttack:
    pytestmark = needs_dcmtk

    @pytest.mark.parametrize("silent", ["before the association", "after it"])
    def test_a_modality_is_heard(self, listening, silent):
        with listening() as node, contextlib.ExitStack() as attack:
            assert echo(node.port) == 0
            before = node.resident()
            node.forget_peak()
            ends = threading.Event()
            attack.callback(ends.set)

            for number in range(200):
                peer = attack.enter_context(Peer(node.port))
                with contextlib.suppress(OSError):
                    peer.sendall(random.Random(number).randbytes(1000))
            mute = [attack.enter_context(Peer(node.port)) for _ in range(30)]
            if silent == "after it":
                for peer in mute:
                    with contextlib.suppress(OSError):
                        peer.sendall(raw.associate())
            for attacker in (declare_300_megabytes, drip):
                threading.Thread(target=attacker, args=(node.port, ends)).start()

            started = time.monotonic()
            assert echo(node.port) == 0
            assert time.monotonic() - started <= 15
            time.sleep(1)
            grown = node.resident("VmHWM") - before
            print(f"echo within {time.monotonic() - started - 1:.2f} s, {grown:.1f} MB more")
            assert grown <= 20

    def test_a_full_house_of_one_address_keeps_no_other_out(self, listening):
        """Also where each of its connections asks, and so is displaced by none of its own."""
        with listening(connections=8, connections_per_address=6) as node:
            busy = [Peer(node.port, "127.0.0.2") for _ in range(6)]
            for peer in busy:
                peer.associated(abstract=raw.VERIFICATION)
                peer.sendall(raw.fragment(raw.echo_request(), command=True))
                assert raw.answer(peer)[0] == raw.DATA
            late = Peer(node.port, "127.0.0.2")
            assert raw.answer(late)[0] == 0
            node.wait_for("127.0.0.2: refused: too many connections")
            assert echo(node.port) == 0
            for peer in (*busy, late):
                peer.close()


@pytest.mark.parametrize("fault", [AttributeError, ValueError, MemoryError])
def test_whatever_goes_wrong_with_one_peer_the_listener_goes_on(tmp_path, monkeypatch, fault):
    lines: list[str] = []
    listener = Listener(Settings(port=0), lambda received: 0, tmp_path, lines.append)
    listener.start()
    try:
        with monkeypatch.context() as broken:
            broken.setattr(PlainConnection, "accepted", Mock(side_effect=fault))
            for _ in range(3):
                with Peer(listener.address[1]) as peer:
                    assert peer.recv(1) == b""
        assert listener.is_alive
        with Peer(listener.address[1]) as peer:
            peer.associated(abstract=raw.VERIFICATION)
            peer.leave()
        assert lines == [f"127.0.0.1: ended: {fault.__name__}"] * 3
    finally:
        listener.stop()
    assert not listener.is_alive


def declare_300_megabytes(port: int, ends: threading.Event) -> None:
    with Peer(port) as peer, contextlib.suppress(OSError):
        peer.sendall(b"\1\0" + (300_000_000).to_bytes(4, "big"))
        for _ in range(300):
            peer.sendall(bytes(1_000_000))


def drip(port: int, ends: threading.Event) -> None:
    with Peer(port) as peer, contextlib.suppress(OSError):
        for byte in raw.associate():
            peer.sendall(bytes([byte]))
            if ends.wait(1):
                return


class TestThousandAssociations:
    pytestmark = needs_dcmtk

    def test_they_leave_nothing(self, listening):
        with listening() as node:
            threads, descriptors = node.threads(), node.descriptors()
            for _ in range(50):
                assert echo(node.port) == 0
                stores_and_leaves(node.port)
            before = node.resident()
            started = time.monotonic()
            for number in range(1000):
                stores_and_leaves(node.port) if number % 2 else echoes_and_leaves(node.port)
            seconds = time.monotonic() - started
            wait_until(lambda: node.threads() == threads and node.descriptors() == descriptors)
            grown = node.resident() - before
            print(f"1,000 associations in {seconds:.1f} s: {grown:+.1f} MB")
            assert grown <= 10


def echoes_and_leaves(port: int) -> None:
    with Peer(port) as peer:
        peer.associated(abstract=raw.VERIFICATION)
        peer.sendall(raw.fragment(raw.echo_request(), command=True))
        assert raw.status(raw.answer(peer)[1]) == 0
        peer.leave()


def stores_and_leaves(port: int) -> None:
    with Peer(port) as peer:
        peer.associated()
        peer.sendall(raw.fragment(raw.store_request(b"1.2"), command=True))
        peer.sendall(raw.fragment(raw.data_set(b"1.2"), command=False))
        assert raw.status(raw.answer(peer)[1]) == 0
        peer.leave()


class TestDeadlines:
    def test_silence_before_an_association(self, listening):
        with listening(association_seconds=0.5) as node, Peer(node.port) as peer:
            assert seconds_until_the_end(peer) == pytest.approx(0.5, abs=0.4)
            node.wait_for("ended: too slow")

    def test_who_leaves_before_asking_leaves_no_thread(self, listening):
        with listening() as node:
            threads = node.threads()
            for _ in range(20):
                with Peer(node.port) as peer:
                    peer.sendall(b"\1")
            wait_until(lambda: node.threads() == threads, Limits().association_seconds / 2)

    def test_a_drip_before_an_association(self, listening):
        with listening(association_seconds=0.5) as node, Peer(node.port) as peer:
            assert seconds_until_the_end(peer, raw.associate()) == pytest.approx(0.5, abs=0.4)
            node.wait_for("ended: too slow")

    def test_a_drip_within_a_message(self, listening):
        with listening(pdu_seconds=0.5) as node, Peer(node.port) as peer:
            peer.associated()
            slowly = raw.fragment(bytes(1000), command=True)
            assert seconds_until_the_end(peer, slowly) == pytest.approx(0.5, abs=0.4)
            node.wait_for("ended: too slow")

    def test_silence_within_an_association(self, listening):
        with listening(idle_seconds=0.5) as node, Peer(node.port) as peer:
            peer.associated()
            started = time.monotonic()
            assert raw.answer(peer)[0] == raw.ABORTED
            assert time.monotonic() - started == pytest.approx(0.5, abs=0.4)


def seconds_until_the_end(peer: socket.socket, slowly: bytes = b"") -> float:
    """Of a connection on which a byte is sent each 20 ms."""
    started = time.monotonic()
    peer.settimeout(0.02 if slowly else 20)
    for at in range(5000):
        try:
            peer.sendall(slowly[at : at + 1])
            if not peer.recv(1):
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - started


class TestMessages:
    def test_a_request_that_is_too_large(self, listening):
        with listening() as node, Peer(node.port) as peer:
            peer.sendall(b"\1\0" + (64 * 1024 + 1).to_bytes(4, "big"))
            assert raw.answer(peer)[0] == 0
            node.wait_for("ended: a PDU of 65,537 bytes")

    def test_requests_with_thousands_of_items(self, listening):
        """As many as one address may send at once."""
        syntax = raw.item(0x40, b"1")
        context = b"\1\0\0\0" + raw.item(0x30, b"1.2") + syntax * (64_000 // len(syntax))
        request = raw.pdu(1, raw.associate()[6:] + raw.item(0x20, context))
        with listening() as node, contextlib.ExitStack() as peers:
            before = node.resident()
            node.forget_peak()
            many = [peers.enter_context(Peer(node.port)) for _ in range(8)]
            for peer in many:
                peer.sendall(request)
            assert {raw.answer(peer)[0] for peer in many} == {raw.ACCEPTED}
            assert node.resident("VmHWM") - before <= 30

    def test_a_pdu_that_is_too_large(self, listening):
        with listening() as node, Peer(node.port) as peer:
            peer.associated()
            peer.sendall(b"\4\0" + (128 * 1024 + 1).to_bytes(4, "big"))
            assert raw.answer(peer)[0] == 0
            node.wait_for("ended: a PDU of 131,073 bytes")

    def test_a_command_without_end(self, listening):
        with listening() as node, Peer(node.port) as peer:
            peer.associated()
            part = raw.fragment(bytes(16_000), command=True, last=False)
            assert megabytes_taken(peer, part) < 10
            node.wait_for("ended: a message larger than is accepted")

    def test_data_where_none_belong(self, listening):
        with listening() as node, Peer(node.port) as peer:
            peer.associated(abstract=raw.VERIFICATION)
            peer.sendall(raw.fragment(raw.echo_request(with_data=True), command=True))
            part = raw.fragment(bytes(16_000), command=False, last=False)
            assert megabytes_taken(peer, part) < 10
            node.wait_for("ended: a message larger than is accepted")

    def test_an_object_without_end(self, listening):
        with listening(object_bytes=1_000_000) as node, Peer(node.port) as peer:
            peer.associated()
            peer.sendall(raw.fragment(raw.store_request(b"1.2"), command=True))
            part = raw.fragment(bytes(16_000), command=False, last=False)
            assert megabytes_taken(peer, part) < 10
            node.wait_for("ended: an object larger than is accepted")

    def test_requests_that_do_not_wait_for_an_answer(self, listening):
        with listening() as node, Peer(node.port) as peer:
            peer.associated(abstract=raw.VERIFICATION)
            many = raw.fragment(raw.echo_request(), command=True) * 100
            assert megabytes_taken(peer, many) < 10
            node.wait_for("ended: more requests than are answered")
            answered = sum("echo" in line for line in node.lines())
            assert answered < 100 * OWED_MESSAGES

    def test_a_message_that_is_no_request(self, listening):
        response = raw.echo_request().replace(b"\x30\0", b"\x30\x80", 1)
        with listening() as node, Peer(node.port) as peer:
            peer.associated(abstract=raw.VERIFICATION)
            peer.sendall(raw.fragment(response, command=True))
            assert raw.answer(peer)[0] in (0, raw.ABORTED)
            node.wait_for("ended: a message")

    def test_noise_within_an_association(self, listening):
        noise = random.Random(7)
        with listening() as node:
            for number in range(140):
                with Peer(node.port) as peer, contextlib.suppress(ConnectionError):
                    peer.associated()
                    peer.sendall(raw.pdu(number % 7 + 1, noise.randbytes(noise.randrange(100))))
                    peer.sendall(raw.fragment(noise.randbytes(100), command=True))
            with Peer(node.port) as peer:
                peer.associated()

    def test_deflated_to_four_gigabytes(self, listening):
        """Its UIDs are found, or not, without the rest."""
        zeros = zlib.compressobj(9, zlib.DEFLATED, -15)
        million = zeros.compress(bytes(1_000_000)) + zeros.flush(zlib.Z_FULL_FLUSH)
        bomb = million * 4000 + zeros.flush()
        with listening() as node, Peer(node.port) as peer:
            before = node.resident()
            node.forget_peak()
            peer.associated(transfer=DEFLATED)
            peer.sendall(raw.fragment(raw.store_request(b"1.2"), command=True))
            for at in range(0, len(bomb), 16_000):
                last = at + 16_000 >= len(bomb)
                part = bomb[at : at + 16_000]
                peer.sendall(raw.fragment(part, command=False, last=last))
            assert raw.status(raw.answer(peer)[1]) == 0xC000
            assert node.resident("VmHWM") - before < 10


def megabytes_taken(peer: socket.socket, part: bytes) -> float:
    """Until the peer ends it, so that the one who sends notices."""
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    taken = 0
    with contextlib.suppress(ConnectionError):
        while taken < 100_000_000:
            peer.sendall(part)
            taken += len(part)
    return taken / 1e6


class TestSlots:
    """Without a network: who has to go."""

    @staticmethod
    def connection(host: str, *pdus: int) -> PlainConnection:
        new = PlainConnection()
        new.accepted(host, Limits(), Path())
        for kind in pdus:
            new._follow(raw.pdu(kind, b""))
        return new

    def test_first_those_without_association_then_the_mute_and_none_that_talks(self):
        slots = Slots(Limits(connections_per_address=3))
        talks, mute, new = (self.connection("a", *pdus) for pdus in ([1, 4], [1], []))
        assert all(slots.admit(each) for each in (talks, mute, new))
        newcomers = [self.connection("a", 1, 4) for _ in range(3)]
        assert [slots.admit(each) for each in newcomers] == [True, True, False]
        assert (talks.fault, mute.fault, new.fault) == (None, *["displaced by a newcomer"] * 2)

    def test_the_address_that_has_most(self):
        slots = Slots(Limits(connections=3))
        one, *two = (self.connection(host) for host in "abb")
        assert all(slots.admit(each) for each in (one, *two))
        assert slots.admit(self.connection("c"))
        assert [each.fault for each in (one, *two)] == [None, "displaced by a newcomer", None]

    def test_a_released_slot_is_free(self):
        slots = Slots(Limits(connections=1))
        first, second = self.connection("a", 1, 4), self.connection("b", 1, 4)
        assert slots.admit(first)
        assert not slots.admit(second)
        slots.release(first)
        assert slots.admit(second)
