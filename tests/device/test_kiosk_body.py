"""Bodies: counted, in a form or not, and refused so that the client can read it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from medimg_edge.kiosk.settings import Limits, Settings
from tests.device.guarded import SECRET, GuardedProcess
from tests.device.http_peer import ask, code_of, say

LIMIT = Limits().body_bytes
TOO_LARGE = 25 * 10**6
HEAD = b"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def station(tmp_path_factory) -> Iterator[GuardedProcess]:
    with GuardedProcess(tmp_path_factory.mktemp("station"), Settings(port=0)) as running:
        yield running


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / f"{SECRET}.dcm"
    path.write_bytes(bytes(TOO_LARGE))
    return path


def _form(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


def _part(data: bytes, name: str = "file", more: str = "Content-Type: image/png\r\n") -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{SECRET}.png"\r\n'
    return f"{disposition}{more}\r\n".encode() + data


def _post(station, body, media_type: str | None = None, **headers: str):
    given = {} if media_type is None else {"Content-Type": media_type}
    response, told = ask(station.port, "POST", "/v1/predictions", given | headers, body)
    return response.status, json.loads(told)


@pytest.mark.parametrize("size", [0, 1, 100_000, LIMIT])
@pytest.mark.parametrize("chunks", [0, 65_536])
def test_a_body_arrives_as_it_is(station, size: int, chunks: int):
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    status, told = _post(station, _chunks(data, chunks) if chunks else data, "image/png")
    assert status == 201
    assert told["bytes"] == size
    assert told["sha256"] == hashlib.sha256(data).hexdigest()
    assert told["media_type"] == "image/png"


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def test_a_body_of_single_bytes_arrives(station):
    data = bytes(2000)
    status, told = _post(station, _chunks(data, 1))
    assert (status, told["bytes"]) == (201, 2000)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"image",
        b"\r\n--b",
        b"\r\n--",
        b"\r\n--b\r",
        b"\r\n--bb--\r\n",
        b"--b--",
        bytes(300_000),
        b"\r\n--b" * 20_000 + b"\r",
        b"\r" * 300_000,
    ],
)
@pytest.mark.parametrize("chunks", [0, 1000])
def test_a_form_gives_its_file(station, data: bytes, chunks: int):
    if b"\r\n--b\r\n" in data + b"\r\n" or b"\r\n--b\r\n--b" in data:
        data = data.replace(b"\r\n--b", b"\r\n--c")
    body = _form(_part(data))
    status, told = _post(
        station, _chunks(body, chunks) if chunks else body, "Multipart/Form-Data; boundary=b"
    )
    assert status == 201, told
    assert told["bytes"] == len(data)
    assert told["sha256"] == hashlib.sha256(data).hexdigest()
    assert told["media_type"] == "image/png"


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"", "multipart/form-data; boundary=b"),
        (b"--b--\r\n", "multipart/form-data; boundary=b"),
        (b"no form", "multipart/form-data; boundary=b"),
        (_form(_part(b"x")), "multipart/form-data"),
        (_form(_part(b"x")), "multipart/form-data; boundary="),
        (_form(_part(b"x")), "multipart/form-data; boundary=other"),
        (_form(_part(b"x")), "multipart/form-data; boundary=" + "b" * 300),
        (_form(_part(b"x", "image")), "multipart/form-data; boundary=b"),
        (_form(b"Content-Type: image/png\r\n\r\nx"), "multipart/form-data; boundary=b"),
        (_form(_part(b"x"), _part(b"y")), "multipart/form-data; boundary=b"),
        (_form(_part(b"x"), _part(b"y", "other")), "multipart/form-data; boundary=b"),
        (_form(_part(b"x"), end=b""), "multipart/form-data; boundary=b"),
        (_form(_part(b"x"), end=b"--b"), "multipart/form-data; boundary=b"),
        (_form(_part(b"x", more="A: a\r\n" * 50)), "multipart/form-data; boundary=b"),
        (_form(_part(b"x", more=f"A: {'a' * 50_000}\r\n")), "multipart/form-data; boundary=b"),
        (_form(_part(b"x", more="A\r\n")), "multipart/form-data; boundary=b"),
        (_form(*[_part(b"x")] * 5000), "multipart/form-data; boundary=b"),
    ],
)
def test_a_form_that_is_not_one_file_is_refused(station, body: bytes, media_type: str):
    status, told = _post(station, body, media_type)
    assert (status, told["code"]) == (422, "request-invalid")
    assert SECRET not in told["detail"]


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        (None, 201),
        ("IMAGE/JPEG", 201),
        ("image/tiff; x=y", 201),
        ("application/dicom", 201),
        ("application/octet-stream", 201),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 201),
        ("multipart/mixed; boundary=b", 415),
        ("multipart/related; type=application/dicom; boundary=b", 415),
        ("application/json", 415),
        (f"image/{SECRET}", 415),
        (";", 201),
    ],
)
def test_media_types(station, media_type: str | None, status: int):
    found, told = _post(station, b"image", media_type)
    assert found == status
    assert status == 201 or told["code"] == "media-type"
    assert SECRET not in json.dumps(told)


def test_a_compressed_body_is_refused(station):
    status, told = _post(station, b"image", **{"Content-Encoding": "gzip"})
    assert (status, told["code"]) == (415, "media-type")


def test_a_comment_is_read_apart_from_images(station):
    path = "/v1/predictions/x/acknowledgement"
    for media_type, body, status in (
        ("application/json", b"{}", 200),
        ("application/json; charset=utf-8", b"{}", 200),
        ("text/plain", b"{}", 415),
        ("application/json", b"{}" + b" " * (16 * 1024 - 2), 200),
        ("application/json", b"{", 422),
        ("application/json", bytes(16 * 1024 + 1), 413),
    ):
        response, told = ask(station.port, "PUT", path, {"Content-Type": media_type}, body)
        assert response.status == status, told


class TestTooLarge:
    """25 MB are refused, and every client reads that."""

    @pytest.mark.parametrize("size", [LIMIT + 1, TOO_LARGE])
    @pytest.mark.parametrize("close", [{}, {"Connection": "close"}])
    def test_http_client(self, station, size: int, close: dict[str, str]):
        for body in (bytes(size), _chunks(bytes(size), 65_536)):
            status, told = _post(station, body, "application/dicom", **close)
            assert (status, told["code"]) == (413, "body-too-large")

    def test_a_form(self, station):
        body = _form(_part(bytes(TOO_LARGE)))
        status, told = _post(station, body, "multipart/form-data; boundary=b")
        assert (status, told["code"]) == (413, "body-too-large")

    def test_httpx(self, station):
        httpx = pytest.importorskip("httpx")
        with httpx.Client(base_url=station.url) as client:
            for body in (bytes(TOO_LARGE), _chunks(bytes(TOO_LARGE), 65_536)):
                response = client.post("/v1/predictions", content=body)
                assert (response.status_code, code_of(response.content)) == (413, "body-too-large")
            assert client.get("/healthz").text == "text"

    @pytest.mark.parametrize(
        "how", [["--http1.1"], ["--http1.1", "-H", "Transfer-Encoding: chunked"], ["--http1.0"]]
    )
    @pytest.mark.parametrize("expect", ["Expect:", "Expect: 100-continue"])
    def test_curl(self, station, large, how: list[str], expect: str):
        found = subprocess.run(
            [
                *("curl", "-sS", *how, "-H", expect, "-w", "\n%{http_code}"),
                *("--data-binary", f"@{large}", "-H", "Content-Type: application/dicom"),
                f"{station.url}/v1/predictions",
            ],
            capture_output=True,
            timeout=30,
        )
        assert found.returncode == 0, found.stderr
        body, _, status = found.stdout.rpartition(b"\n")
        assert (status, code_of(body)) == (b"413", "body-too-large")

    def test_whoever_waits_for_100_continue_need_not_send_it(self, station):
        wait = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        said = say(station.port, HEAD + wait % TOO_LARGE, seconds=1)
        assert said.statuses == [413]
        assert "connection: close" in said.text
        said = say(station.port, HEAD + b"Connection: close\r\n" + wait % 3, b"abc")
        assert said.statuses == [100, 201]

    def test_a_length_is_no_promise(self, station):
        said = say(station.port, HEAD + b"Content-Length: %d\r\n\r\n" % LIMIT, b"abc", seconds=0.5)
        assert said.statuses == []
        assert not said.is_ended


def test_bodies_share_a_room(station):
    """Two of three that are held at once fit."""
    head = b"POST /v1/kept?seconds=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n" % LIMIT + bytes(LIMIT)
    with ThreadPoolExecutor(3) as peers:
        found = list(peers.map(lambda _: say(station.port, whole, seconds=10), range(3)))
    assert sorted(each.statuses for each in found) == [[200], [200], [503]]
    (refused,) = (each.text for each in found if each.statuses == [503])
    assert '"busy"' in refused
    assert "retry-after" in refused


def test_no_room_is_taken_after_all_that(station):
    for _ in range(100):
        if ask(station.port, path="/v1/room")[1] == b"0":
            return
        time.sleep(0.02)
    raise AssertionError("room is kept for a body that nobody has")
