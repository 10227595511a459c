"""Who is let in, what every response has, and what the log tells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from medimg_edge.kiosk.sessions import MOST, Sessions
from medimg_edge.kiosk.settings import Settings
from tests.device.guarded import SECRET, GuardedProcess
from tests.device.http_peer import ask, code_of, say

TOKEN = "0123456789abcdef-station"


@pytest.fixture(scope="module")
def station(tmp_path_factory) -> Iterator[GuardedProcess]:
    settings = Settings(port=0, hosts=("xray.clinic.lan",))
    with GuardedProcess(tmp_path_factory.mktemp("station"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def closed(tmp_path_factory) -> Iterator[GuardedProcess]:
    """A station with a token."""
    with GuardedProcess(
        tmp_path_factory.mktemp("closed"), Settings(port=0, token=TOKEN)
    ) as running:
        yield running


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:8080", 200),
        ("[::1]", 200),
        ("xray.clinic.lan", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example:8080", 421),
        ("localhost:8080@evil.example", 421),
        ("localhost:80a", 421),
        ("localhost, evil.example", 421),
        ("::1", 421),
        ("[localhost", 421),
        ("", 421),
    ],
)
def test_a_host_has_to_be_one_of_the_stations_names(station, host: str, status: int):
    response, body = ask(station.port, headers={"Host": host})
    assert response.status == status
    assert status == 200 or code_of(body) == "host-unknown"


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: localhost\r\n"])
def test_there_is_exactly_one_host(station, hosts: bytes):
    said = say(station.port, b"GET /healthz HTTP/1.1\r\n%sConnection: close\r\n\r\n" % hosts)
    assert said.statuses == [421]


_NAVIGATE = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"Origin": "http://localhost:{port}"}, "/healthz", 200),
        ({"Origin": "http://localhost"}, "/healthz", 403),  # another port is another site
        ({"Origin": "https://localhost:{port}"}, "/healthz", 403),
        ({"Origin": "http://127.0.0.1:{port}"}, "/healthz", 403),
        ({"Origin": "http://evil.example"}, "/", 403),
        ({"Origin": "null"}, "/healthz", 403),
        ({"Origin": ""}, "/healthz", 403),
        ({"Sec-Fetch-Site": "same-origin"}, "/healthz", 200),
        ({"Sec-Fetch-Site": "none"}, "/healthz", 200),
        ({"Sec-Fetch-Site": "cross-site"}, "/healthz", 403),
        ({"Sec-Fetch-Site": "same-site"}, "/healthz", 403),
        ({"Sec-Fetch-Site": "cross-site"} | _NAVIGATE, "/", 200),
        ({"Sec-Fetch-Site": "cross-site"} | _NAVIGATE, "/healthz", 403),
        ({"Sec-Fetch-Site": "cross-site"} | _NAVIGATE | {"Sec-Fetch-Dest": "iframe"}, "/", 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, "/", 403),
    ],
)
def test_pages_of_other_sites_are_refused(station, headers, path: str, status: int):
    filled = {name: value.format(port=station.port) for name, value in headers.items()}
    host = {"Host": f"localhost:{station.port}"}
    response, body = ask(station.port, path=path, headers=host | filled)
    assert response.status == status
    assert status == 200 or code_of(body) == "origin-foreign"


def test_a_form_of_another_site_reaches_nothing(station):
    headers = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
    response, _ = ask(station.port, "POST", "/v1/predictions", headers, b"image")
    assert response.status == 403


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        ("Bearer \xff\xfe", 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
    ],
)
@pytest.mark.parametrize("path", ["/v1/room", "/metrics"])
def test_the_token_is_needed(closed, path: str, given: str | None, status: int):
    headers = {} if given is None else {"Authorization": given}
    response, body = ask(closed.port, path=path, headers=headers)
    assert response.status == status
    if status == 401:
        assert code_of(body) == "token"
        assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/", "/healthz", "/page/kiosk.css", "/v1/station"])
def test_what_a_page_starts_with_needs_no_token(closed, path: str):
    assert ask(closed.port, path=path)[0].status == 200


@pytest.mark.parametrize("path", ["/v1/nowhere", "/v1/station/", "/v1/%73tation/x"])
def test_whoever_has_no_token_does_not_learn_what_there_is(closed, path: str):
    assert ask(closed.port, path=path)[0].status == 401


def test_a_session_stands_for_the_token(closed):
    response, _ = ask(closed.port, "PUT", "/v1/session")
    cookie = response.headers["Set-Cookie"].partition(";")[0]
    assert ask(closed.port, path="/v1/room", headers={"Cookie": cookie})[0].status == 200
    assert ask(closed.port, path="/v1/station", headers={"Cookie": cookie})[1] == b"true"
    assert ask(closed.port, path="/v1/station")[1] == b"false"
    for wrong in (f"{cookie}x", cookie[:-1], "medimg_session=", "medimg_session"):
        assert ask(closed.port, path="/v1/room", headers={"Cookie": wrong})[0].status == 401


def test_sessions_end():
    sessions = Sessions()
    first = sessions.create()
    assert sessions.valid(first)
    last = [sessions.create() for _ in range(MOST)][-1]
    assert not sessions.valid(first)
    assert sessions.valid(last)
    sessions.end(last)
    sessions.end(last)
    assert not sessions.valid(last)
    assert not sessions.valid(None)


FAULT = ("type", "place", "logger", "at")
EVERY = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 200),
        ("/page/kiosk.css", {}, 200),
        ("/nowhere", {}, 404),
        (f"/v1/fault/{SECRET}", {}, 500),
        ("/healthz", {"Host": "evil.example"}, 421),
        ("/healthz", {"Origin": "null"}, 403),
        ("/healthz", {"A": "a" * 20_000}, 431),
        ("/healthz", {"Transfer-Encoding": "gzip"}, 400),
    ],
)
def test_every_response_has_its_headers(station, path: str, headers, status: int):
    response, _ = ask(station.port, path=path, headers=headers)
    assert response.status == status
    assert {name: response.headers.get_all(name) for name in EVERY} == {
        name: [value] for name, value in EVERY.items()
    }
    assert "Permissions-Policy" in response.headers
    assert response.headers["Server"] is None
    assert response.headers["Strict-Transport-Security"] is None


def test_a_fault_becomes_a_problem_and_one_line_without_its_words(station):
    response, body = ask(station.port, path=f"/v1/fault/{SECRET}?name={SECRET}")
    assert response.status == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert code_of(body) == "unexpected"
    assert SECRET.encode() not in body
    assert station.has_told(
        event="request", route="/v1/fault/{name}", status=500, code="unexpected"
    )
    fault = next(each for each in station.events() if each["event"] == "fault")
    assert set(fault) == {"time", "event", "type", "place"}
    assert fault["type"] == "ValueError"
    assert fault["place"].startswith("guarded.py:")


def test_a_fault_in_a_response_ends_the_connection(station):
    said = say(
        station.port, b"GET /v1/fault/%s?when=after HTTP/1.1\r\nHost: localhost\r\n\r\n" % b"x"
    )
    assert said.statuses == [200]
    assert said.is_ended
    assert not said.text.endswith("0\r\n\r\n")


def test_a_line_of_the_log_has_no_path_query_or_header(station):
    ask(station.port, "POST", f"/{SECRET}?{SECRET}", {SECRET.replace("^", ""): SECRET}, SECRET)
    assert station.has_told(event="request", method="POST", route="-", status=404)
    for line in station.events():
        assert set(line) <= {*("time", "event", "method", "route", "status", "ms", "code"), *FAULT}


def test_a_client_that_leaves_is_told_of(station):
    say(
        station.port,
        b"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nab",
        seconds=0.3,
    )
    assert station.has_told(event="request", route="/v1/predictions", status=499)
