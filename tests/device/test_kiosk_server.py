"""Sockets: what is no request, what comes slowly or never, TLS, and how the server ends."""

from __future__ import annotations

import http.client
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from fastapi import FastAPI

from medimg_edge.errors import ServiceRefused
from medimg_edge.kiosk import server
from medimg_edge.kiosk.log import Log
from medimg_edge.kiosk.settings import Limits, Settings, TlsFiles
from tests.device.guarded import LARGE, GuardedProcess
from tests.device.http_peer import HEALTH, ask, code_of, say

POST = b"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NOWHERE = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\n"
BOMB = b"a" * 400_000


@pytest.fixture(scope="module")
def station(tmp_path_factory) -> Iterator[GuardedProcess]:
    with GuardedProcess(tmp_path_factory.mktemp("station"), Settings(port=0)) as running:
        yield running


@pytest.fixture(scope="module")
def hasty(tmp_path_factory) -> Iterator[GuardedProcess]:
    """A server whose deadline is short."""
    settings = Settings(port=0, limits=Limits(receive_seconds=1))
    with GuardedProcess(tmp_path_factory.mktemp("hasty"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> TlsFiles:
    folder = tmp_path_factory.mktemp("tls")
    files = TlsFiles(folder / "cert.pem", folder / "key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-out", files.cert, "-keyout", files.key),
        ],
        check=True,
        capture_output=True,
    )
    return files


@pytest.fixture(scope="module")
def secure(tmp_path_factory, certificate: TlsFiles) -> Iterator[GuardedProcess]:
    settings = Settings(port=0, tls=certificate, limits=Limits(receive_seconds=2))
    with GuardedProcess(tmp_path_factory.mktemp("secure"), settings) as running:
        yield running


# Requests that could be understood in two ways: refused, and what follows is never answered.
AMBIGUOUS = {
    "two kinds of length": POST + b"Content-Length: 3\r\n" + CHUNKED[len(POST) :] + b"0\r\n\r\n",
    "the other order": CHUNKED[:-2] + b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    "the length twice": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
    "a list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a plus": POST + b"Content-Length: +3\r\n\r\nabc",
    "a minus": POST + b"Content-Length: -3\r\n\r\nabc",
    "hexadecimal": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "no length": POST + b"Content-Length: \r\n\r\n",
    "a length beyond 64 bits": POST + b"Content-Length: 99999999999999999999\r\n\r\nabc",
    "a space before the colon": POST + b"Content-Length : 3\r\n\r\nabc",
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked is not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
    "line feeds": HEALTH.replace(b"\r", b""),
    "one line feed": GET.replace(b"\r\n", b"\n", 1) + b"\r\n",
    "a line feed between headers": GET[:-2] + b"\nA: b\r\n\r\n",
    "a carriage return alone": GET[:-2] + b"\rA: b\r\n\r\n",
    "a folded header": GET + b" A: b\r\n\r\n",
    "a NUL": GET + b"A: a\0b\r\n\r\n",
    "a header before the first": GET.replace(b"Host", b" Host") + b"\r\n",
    "a header without a name": GET + b": b\r\n\r\n",
    "chunks with line feeds": CHUNKED + b"3\nabc\n0\n\n",
    "a negative chunk": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "a chunk of 0x3": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a space after a chunk's size": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "a chunk without a size": CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
    "a line feed in a chunk's extension": CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/1.2": HEALTH.replace(b"1.1", b"1.2"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00",
    "an unknown method": HEALTH.replace(b"GET", b"FOO"),
    "a method in lower case": HEALTH.replace(b"GET", b"get"),
    "a tunnel to here": b"CONNECT http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a tunnel": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a target of another host": HEALTH.replace(b"/healthz", b"http://evil.example/healthz"),
    "a target with a user": HEALTH.replace(b"/healthz", b"http://a@localhost/healthz"),
    "a target of another scheme": HEALTH.replace(b"/healthz", b"file://localhost/healthz"),
    "no target": HEALTH.replace(b"/healthz", b"*"),
    "a target that is not ASCII": HEALTH.replace(b"healthz", b"\xff\xfe"),
}

# More than the head of a request may be.
BOMBS = {
    "a value": GET + b"A: " + BOMB + b"\r\n\r\n",
    "a name": GET + BOMB + b": a\r\n\r\n",
    "many headers": GET + b"A: a\r\n" * 40_000 + b"\r\n",
    "a target": b"GET /" + BOMB + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a little too much": GET + b"A: " + b"a" * 16_400 + b"\r\n\r\n",
    "a head without end": GET + b"A: " + BOMB,
    "empty lines": b"\r\n" * 100_000,
    "a chunk's extension": CHUNKED + b"3;" + BOMB + b"\r\nabc\r\n0\r\n\r\n",
    "a trailer": CHUNKED + b"3\r\nabc\r\n0\r\nA: " + BOMB + b"\r\n\r\n",
    "many trailers": CHUNKED + b"3\r\nabc\r\n0\r\n" + b"A: a\r\n" * 40_000 + b"\r\n",
}


class TestRequests:
    @pytest.mark.parametrize("name", AMBIGUOUS)
    def test_what_could_be_read_in_two_ways_is_refused(self, station, name: str):
        said = say(station.port, AMBIGUOUS[name] + HEALTH)
        assert (said.statuses, said.is_ended) == ([400], True)
        assert '"request-invalid"' in said.text

    @pytest.mark.parametrize("name", BOMBS)
    def test_a_head_has_an_end(self, station, name: str):
        said = say(station.port, BOMBS[name] + HEALTH)
        assert (said.statuses, said.is_ended) == ([431], True)

    def test_bombs_leave_no_memory_behind(self, station):
        def resident() -> int:
            status = Path(f"/proc/{station.process.pid}/status").read_text()
            return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)

        before = resident()
        for each in [*BOMBS.values()] * 3:
            say(station.port, each)
        assert resident() - before < 10_000  # kB

    @pytest.mark.parametrize(
        ("parts", "statuses"),
        [
            ((LAST,), [200]),
            ((HEALTH + HEALTH + LAST,), [200, 200, 200]),
            ((HEALTH[:10], HEALTH[10:] + LAST), [200, 200]),
            ((HEALTH, b"\r\n" + LAST), [200, 200]),
            ((LAST + HEALTH,), [200]),
            ((HEALTH.replace(b"1.1", b"1.0"),), [200]),
            ((HEALTH.replace(b"1.1", b"1.0") + HEALTH,), [200]),
            ((POST.replace(b"1.1", b"1.0") + b"Content-Length: 3\r\n\r\nabc",), [201]),
            ((HEALTH.replace(b"/healthz", b"http://LOCALHOST/healthz") + LAST,), [200, 200]),
            ((HEALTH.replace(b"/healthz", b"http://localhost") + LAST,), [200, 200]),
            ((CHUNKED + b"3;a=b\r\nabc\r\n0\r\nHost: evil.example\r\n\r\n" + LAST,), [201, 200]),
            ((GET + b"Content-Length: 3\r\n\r\nabc" + LAST,), [200, 200]),
            ((POST + b"Content-Length: %d\r\n\r\n" % len(HEALTH), HEALTH, LAST), [201, 200]),
            ((b"GET /v1/slow?seconds=.2 HTTP/1.1\r\nHost: localhost\r\n\r\n" + LAST,), [200, 200]),
            ((b"GET /v1/slow?seconds=.2" + GET[12:] + b"\r\n" + HEALTH * 6 + LAST,), [200] * 8),
        ],
    )
    def test_one_after_the_other(self, station, parts: tuple[bytes, ...], statuses: list[int]):
        said = say(station.port, *parts)
        assert (said.statuses, said.is_ended) == (statuses, True)

    @pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
    def test_a_body_that_comes_after_its_response_is_no_request(self, station, close: bytes):
        length = b"Content-Length: %d\r\n\r\n" % len(HEALTH)
        said = say(station.port, NOWHERE + close + length, HEALTH, b"" if close else LAST)
        assert said.statuses == ([404] if close else [404, 200])

    @pytest.mark.parametrize("form", [b"Content-Length: 40\r\n\r\n%s", b"%s"])
    @pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
    def test_an_upgrade_is_ignored_and_the_body_is_not(self, station, form, protocol: bytes):
        """As Java's client asks for HTTP/2 unless it is told not to."""
        asks = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAA\r\nUpgrade: %s\r\n"
        head, body = POST + asks % protocol, HEALTH.ljust(40, b"x")[:40]
        chunked = b"Transfer-Encoding: chunked\r\n\r\n28\r\n" + body + b"\r\n0\r\n\r\n"
        whole = head + (form % body if b"Length" in form else chunked)
        said = say(station.port, whole[:-20], whole[-20:] + LAST)
        assert (said.statuses, said.is_ended) == ([201, 200], True)
        assert '"bytes":40' in said.text

    def test_garbage_behind_a_request_is_not_taken_for_its_response(self, station):
        said = say(station.port, b"GET /v1/slow?seconds=.3" + GET[12:] + b"\r\n\0\0\r\n\r\n")
        assert (said.statuses, said.is_ended) == ([], True)

    def test_requests_at_once_have_an_end(self, station):
        said = say(station.port, b"GET /v1/slow?seconds=.3" + GET[12:] + b"\r\n" + HEALTH * 1000)
        assert (said.statuses, said.is_ended) == ([], True)

    def test_what_is_refused_is_in_the_log(self, station):
        say(station.port, BOMBS["a name"])
        assert station.has_told(event="refused", status=431, code="request-invalid")


@pytest.mark.alone
class TestDeadlines:
    def test_300_slow_sockets(self, station):
        """Half of them send a header without end, half a body; /healthz answers all the while."""
        began = time.monotonic()
        heads = [_open(station.port, GET + b"A: ") for _ in range(150)]
        bodies = [_open(station.port, POST + b"Content-Length: 900000\r\n\r\n") for _ in range(150)]
        longest, left = 0.0, set(heads + bodies)
        while left and time.monotonic() - began < 20:
            for each in list(left):
                try:
                    each.send(b"a")
                    each.setblocking(False)
                    received = each.recv(4096)
                except BlockingIOError:
                    continue
                except OSError:
                    received = b""
                left -= set() if received else {each}
            asked = time.monotonic()
            assert ask(station.port)[0].status == 200
            longest = max(longest, time.monotonic() - asked)
            time.sleep(0.2)
        assert not left
        assert time.monotonic() - began < 17
        assert longest < 1

    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            (b"", None),
            (b"\r\n", None),
            (b"GET", None),
            (GET, None),
            (HEALTH + GET, 200),
            (POST + b"Content-Length: 9\r\n\r\nab", 408),
            (CHUNKED + b"2\r\nab\r\n", 408),
            (CHUNKED + b"2\r\nab\r\n0\r\n", 408),
            (NOWHERE + b"Content-Length: 9\r\n\r\nab", 404),
            (NOWHERE + b"Connection: close\r\nContent-Length: 9\r\n\r\nab", 404),
        ],
    )
    def test_what_never_ends_is_ended(self, hasty, sent: bytes, status: int | None):
        said = say(hasty.port, sent)
        assert said.is_ended
        assert said.statuses == ([] if status is None else [status])
        assert status != 408 or '"receive-deadline"' in said.text

    def test_an_empty_line_is_no_request(self, hasty):
        said = say(hasty.port, HEALTH, b"\r\n", seconds=3)
        assert (said.statuses, said.is_ended) == ([200], True)

    def test_each_byte_does_not_start_the_clock_anew(self, hasty):
        with _open(hasty.port, POST + b"Content-Length: 1000000\r\n\r\n") as peer:
            for _ in range(40):
                try:
                    peer.sendall(b"a")
                except OSError:
                    return
                time.sleep(0.1)
        raise AssertionError("a body may take its time")

    @pytest.mark.parametrize(
        ("more", "statuses"), [(b"\r\n", [200]), (GET, [200]), (LAST, [200] * 2)]
    )
    def test_a_request_that_is_whole_has_all_the_time(self, hasty, more: bytes, statuses):
        slow = b"GET /v1/slow?seconds=1.5" + GET[12:] + b"\r\n"
        said = say(hasty.port, slow, more)
        assert (said.statuses, said.is_ended) == (statuses, True)

    def test_a_connection_without_a_request_is_ended(self, station):
        began = time.monotonic()
        said = say(station.port, HEALTH, seconds=10)
        assert (said.statuses, said.is_ended) == ([200], True)
        assert time.monotonic() - began < 9

    def test_the_deadline_is_in_the_log(self, hasty):
        say(hasty.port, POST + b"Content-Length: 9\r\n\r\nab")
        assert hasty.has_told(event="request", status=408, code="receive-deadline")
        say(hasty.port, GET)
        assert hasty.has_told(event="ended", code="receive-deadline")


class TestPlaces:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[GuardedProcess]:
        settings = Settings(port=0, limits=Limits(connections=5))
        with GuardedProcess(tmp_path, settings) as running:
            yield running

    def test_a_newcomer_takes_the_place_of_who_has_been_slow_for_longest(self, small):
        slow = [_open(small.port, GET) for _ in range(5)]
        for number in range(3):
            assert ask(small.port)[0].status == 200
            assert [_is_ended(each) for each in slow] == [n == 0 for n in range(5)], number
        newer = [_open(small.port, b"") for _ in range(2)]
        assert ask(small.port)[0].status == 200
        assert [_is_ended(each) for each in slow] == [True, True, True, False, False]
        assert not any(map(_is_ended, newer))

    def test_never_of_one_that_is_being_answered(self, small):
        request = b"GET /v1/slow?seconds=2" + GET[12:] + b"\r\n"
        busy = [_open(small.port, request) for _ in range(5)]
        time.sleep(0.2)
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(small.port)
        assert [each.recv(12) for each in busy] == [b"HTTP/1.1 200"] * 5
        assert ask(small.port)[0].status == 200

    def test_600_connections(self, small):
        began = small.descriptors()
        peers = [_open(small.port, b"G") for _ in range(600)]
        assert ask(small.port)[0].status == 200
        assert small.descriptors() - began <= 5
        for each in peers:
            each.close()

    @pytest.mark.alone
    def test_fewer_descriptors_than_connections(self, tmp_path):
        with GuardedProcess(tmp_path, Settings(port=0), descriptors=400) as running:
            peers = [_open(running.port, b"G") for _ in range(450)]
            assert ask(running.port)[0].status == 200
            assert "library" not in running.log()  # asyncio would tell that there is none left
            for each in peers:
                each.close()

    def test_they_are_given_back(self, small):
        for _ in range(50):
            assert ask(small.port)[0].status == 200
            _open(small.port, POST + b"Content-Length: 9\r\n\r\nab").close()
            say(small.port, b"\0", seconds=1)
        before = [_open(small.port, GET) for _ in range(4)]
        assert ask(small.port)[0].status == 200
        assert not any(map(_is_ended, before))


class TestTls:
    def test_a_request(self, secure, certificate: TlsFiles):
        context = ssl.create_default_context(cafile=str(certificate.cert))
        peer = http.client.HTTPSConnection("localhost", secure.port, context=context, timeout=10)
        for size in (0, 10**6, 2 * 10**6):
            peer.request("POST", "/v1/predictions", bytes(size))
            response = peer.getresponse()
            assert response.status == 201
            assert b'"bytes":%d' % size in response.read()
        peer.request("GET", "/healthz")
        response = peer.getresponse()
        assert response.read() == b"text"
        assert response.headers["Strict-Transport-Security"].startswith("max-age=")
        peer.request("POST", "/v1/predictions", bytes(25 * 10**6))
        response = peer.getresponse()
        assert (response.status, code_of(response.read())) == (413, "body-too-large")
        peer.close()

    def test_a_request_that_comes_with_the_handshakes_end(self, secure):
        """Both in one packet, before asyncio has told of the connection."""
        context = _trusting()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with socket.create_connection(("127.0.0.1", secure.port), timeout=5) as peer:
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    peer.sendall(outgoing.read())
                    incoming.write(peer.recv(65536))
            tls.write(LAST)
            peer.sendall(outgoing.read())
            received = b""
            while b"text" not in received:
                try:
                    received += tls.read(65536)
                except ssl.SSLWantReadError:
                    incoming.write(peer.recv(65536))
        assert received.startswith(b"HTTP/1.1 200")

    def test_plain_http_is_ended(self, secure):
        said = say(secure.port, HEALTH)
        assert (said.statuses, said.is_ended) == ([], True)

    @pytest.mark.alone
    @pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
    def test_handshakes_that_never_end_are_ended(self, secure, sent: bytes):
        before = secure.descriptors()
        began = time.monotonic()
        peers = [_open(secure.port, sent) for _ in range(300)]
        while not any(map(_is_ended, peers)):
            assert _get_secure(secure.port).startswith(b"HTTP/1.1 200")
            time.sleep(0.1)
        assert time.monotonic() - began >= 2
        _wait_until(lambda: all(map(_is_ended, peers)), 5)
        _wait_until(lambda: secure.descriptors() <= before, 2)

    def test_whoever_shakes_hands_and_says_nothing_is_ended(self, secure):
        with socket.create_connection(("127.0.0.1", secure.port), timeout=5) as peer:
            tls = _trusting().wrap_socket(peer)
            tls.sendall(b"GET")
            with tls, suppress(OSError):
                assert tls.recv(1) == b""

    def test_handshakes_have_places(self, tmp_path, certificate: TlsFiles):
        settings = Settings(port=0, tls=certificate, limits=Limits(connections=5))
        with GuardedProcess(tmp_path, settings) as running:
            before = running.descriptors()
            peers = [_open(running.port, b"\x16") for _ in range(200)]
            assert _get_secure(running.port).startswith(b"HTTP/1.1 200")
            assert running.descriptors() - before <= 5
            for each in peers:
                each.close()

    @pytest.mark.parametrize("damage", ["missing", "empty", "other key", "encrypted"])
    def test_files_that_cannot_be_used(self, certificate: TlsFiles, tmp_path, damage: str):
        key = tmp_path / "key.pem"
        if damage == "empty":
            key.touch()
        elif damage != "missing":
            pkey = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)]
            more = ["-aes256", "-pass", "pass:secret"] if damage == "encrypted" else []
            subprocess.run(pkey + more, check=True, capture_output=True)
        settings = Settings(port=0, tls=TlsFiles(certificate.cert, key))
        with pytest.raises(ServiceRefused, match=r"TLS cannot use .*key\.pem"):
            server.serve(_unused, settings, log=Log(), started=print)


class TestReading:
    def test_a_client_that_does_not_read_keeps_nobody_out(self, station):
        """What it has asked for waits in one buffer, and no more of it is made."""
        peer = _open(station.port, (b"GET /v1/large" + GET[12:] + b"\r\n") * 5)
        time.sleep(0.5)
        assert ask(station.port)[0].status == 200
        peer.close()

    def test_a_client_that_never_reads_is_ended(self, tmp_path):
        with GuardedProcess(tmp_path, Settings(port=0), send_seconds=1) as running:
            before = running.descriptors()
            peer = _open(running.port, b"GET /v1/large" + GET[12:] + b"\r\n")
            idle = _open(running.port, b"GET /v1/large" + LAST[12:])
            time.sleep(0.5)
            assert running.descriptors() == before + 2
            _wait_until(lambda: running.descriptors() == before, 3)
            for each in (peer, idle):
                each.close()

    def test_a_client_that_reads_slowly_gets_all(self, station):
        with _open(station.port, b"GET /v1/large" + LAST[12:]) as peer:
            received = 0
            while chunk := peer.recv(2**20):
                received += len(chunk)
                time.sleep(0.01)
        assert received > LARGE


class TestEnd:
    def test_a_port_in_use(self, station):
        with pytest.raises(ServiceRefused, match=f"port {station.port} .*in use"):
            server.serve(_unused, Settings(port=station.port), log=Log(), started=print)

    def test_an_address_that_is_not_ours(self):
        settings = Settings(host="127.0.0.1", port=0)
        object.__setattr__(settings, "host", "192.0.2.1")
        with pytest.raises(ServiceRefused, match=r"Cannot listen on 192\.0\.2\.1"):
            server.serve(_unused, settings, log=Log(), started=print)

    def test_what_the_lifespan_raises_is_raised(self):
        """In a process of its own: signals are for a main thread."""
        code = (
            "from tests.device.test_kiosk_server import _failing, Settings, Log, server\n"
            "try:\n"
            "    server.serve(_failing(), Settings(port=0), log=Log(), started=print)\n"
            "except ArithmeticError as error:\n"
            "    print('raised', error)\n"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
        assert found.stdout.decode() == "raised secret\n"
        assert b"secret" not in found.stderr
        assert b"Traceback" not in found.stderr

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_the_first_signal_lets_requests_finish(self, tmp_path, number: signal.Signals):
        running = GuardedProcess(tmp_path, Settings(port=0))
        idle = _open(running.port, b"")
        busy = _open(running.port, b"GET /v1/slow?seconds=1" + GET[12:] + b"\r\n")
        time.sleep(0.3)
        running.process.send_signal(number)
        time.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.port), timeout=1)
        assert busy.recv(12) == b"HTTP/1.1 200"
        out, _ = running.process.communicate(timeout=10)
        assert out.decode() == f"ended by {number.value}\n"
        assert running.process.returncode == 0
        assert _is_ended(idle)

    def test_requests_that_do_not_finish_are_told(self, tmp_path):
        with GuardedProcess(tmp_path, Settings(port=0), stop_seconds=1) as running:
            busy = _open(running.port, b"GET /v1/slow?seconds=60" + GET[12:] + b"\r\n")
            time.sleep(0.3)
        received = busy.recv(65536)
        assert received.startswith(b"HTTP/1.1 503")
        assert b'"not-ready"' in received

    def test_the_second_does_not(self, tmp_path):
        running = GuardedProcess(tmp_path, Settings(port=0))
        busy = _open(running.port, b"GET /v1/slow?seconds=60" + GET[12:] + b"\r\n")
        time.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGTERM)
        running.process.communicate(timeout=5)
        assert running.process.returncode == 0
        assert _is_ended(busy)
        assert "Traceback" not in running.log()

    @pytest.mark.alone
    def test_it_sleeps_when_nobody_asks(self, tmp_path):
        """Once a second it wakes up: the times that it gave the processor back by itself."""
        with GuardedProcess(tmp_path, Settings(port=0)) as running:
            time.sleep(0.5)
            before = _switches(running)
            time.sleep(3)
            assert 1 <= _switches(running) - before <= 6


async def _unused(scope, receive, send) -> None:
    raise AssertionError


def _failing() -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI):
        raise ArithmeticError("secret")
        yield

    return FastAPI(lifespan=lifespan)


def _switches(station: GuardedProcess) -> int:
    status = Path(f"/proc/{station.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("volun"))


def _open(port: int, sent: bytes) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port), timeout=10)
    peer.sendall(sent)
    return peer


def _is_ended(peer: socket.socket) -> bool:
    """Whether the server has; what it said before is left."""
    peer.setblocking(False)
    try:
        while peer.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        peer.settimeout(10)
    return True


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _get_secure(port: int) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=1) as peer,
        _trusting().wrap_socket(peer) as tls,
    ):
        tls.sendall(LAST)
        return tls.recv(65536)


def _wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)
