"""Downloads, from a real server on loopback that misbehaves in every way that matters."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from medimg_edge.errors import DataInvalid, DownloadFailed, WriteError
from medimg_export.medmnist import SETS, SIZES, fetch, get, published

CONTENT = bytes(range(256)) * 20_000  # 5 MB
MD5 = hashlib.md5(CONTENT).hexdigest()


class Publisher(BaseHTTPRequestHandler):
    """/whole, /cut (half of what is announced), /other (other bytes), else 404."""

    def do_GET(self):
        self.server.asked.append(self.path)  # pyright: ignore[reportAttributeAccessIssue]
        if self.path not in ("/whole", "/cut", "/other"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path == "/cut":
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
        else:
            self.wfile.write(CONTENT if self.path == "/whole" else bytes(len(CONTENT)))

    def log_message(self, format: str, *args: object):  # noqa: A002
        """Keep the test's output quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Publisher)
    server.asked = []  # pyright: ignore[reportAttributeAccessIssue]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def address(server: ThreadingHTTPServer, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


def test_a_whole_file(server: ThreadingHTTPServer, tmp_path: Path, capfd):
    target = tmp_path / "new" / "set.npz"
    steps: list[tuple[int, int]] = []
    assert fetch(address(server, "/whole"), MD5, target, lambda *step: steps.append(step)) == target
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert steps == sorted(steps)
    assert len(steps) > 3
    fetch(address(server, "/whole"), MD5, target)
    assert len(server.asked) == 1, "what is there is not fetched again"  # pyright: ignore
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/cut", r"set\.npz could not be fetched \(the connection was cut\)"),
        ("/other", "does not have the published MD5"),
        ("/nowhere", r"\(the server answered 404\)"),
    ],
)
@pytest.mark.parametrize("before", [None, b"older"])
def test_a_download_that_fails_leaves_what_was_there(
    server: ThreadingHTTPServer, tmp_path: Path, path: str, message: str, before: bytes | None
):
    target = tmp_path / "set.npz"
    if before:
        target.write_bytes(before)
    url = address(server, path)
    with pytest.raises(DownloadFailed, match=message) as caught:
        fetch(url, MD5, target)
    advice = f"Download {url} by other means (MD5 {MD5}) and put it at {target}."
    assert advice in caught.value.message
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([before] if before else [])


def test_another_file_is_replaced_by_the_right_one(server: ThreadingHTTPServer, tmp_path: Path):
    (tmp_path / "set.npz").write_bytes(b"older")
    fetch(address(server, "/whole"), MD5, tmp_path / "set.npz")
    assert (tmp_path / "set.npz").read_bytes() == CONTENT


def test_no_network(server: ThreadingHTTPServer, tmp_path: Path):
    url = address(server, "/whole")
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadFailed, match=r"\(no connection\)"):
        fetch(url, MD5, tmp_path / "set.npz")
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_get_says_what_to_put_where(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTPS_PROXY", address(server, ""))  # it answers no CONNECT: nothing leaves
    monkeypatch.setenv("MEDIMG_EDGE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DownloadFailed) as caught:
        get("breastmnist", 224)
    assert caught.value.message.endswith(
        "Download https://zenodo.org/records/10519652/files/breastmnist_224.npz?download=1 by "
        "other means (MD5 b56378a6eefa9fed602bb16d192d4c8b) and put it at "
        f"{tmp_path / 'cache' / 'medmnist' / 'breastmnist_224.npz'}."
    )


def test_a_place_that_cannot_be_written(server: ThreadingHTTPServer, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="could not be written"):
        fetch(address(server, "/whole"), MD5, tmp_path / "file" / "set.npz")


@pytest.mark.parametrize(("name", "size"), [("mnist", 28), ("breastmnist", 32)])
def test_what_is_not_published(name: str, size: int, tmp_path: Path):
    with pytest.raises(DataInvalid, match=r"pathmnist, chestmnist.*28, 64, 128, 224"):
        get(name, size, tmp_path)


def test_the_table():
    assert len(SETS) == 12
    sums = [md5 for publication in SETS.values() for md5 in publication.md5]
    assert len(set(sums)) == 12 * len(SIZES)
    assert all(len(bytes.fromhex(md5)) == 16 for md5 in sums)
    for publication in SETS.values():
        assert len(set(publication.labels)) == len(publication.labels)
        assert (publication.positive in publication.labels) == (len(publication.labels) == 2)
        assert not any("," in label for label in publication.labels), "--labels a,b names them"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("breastmnist.npz", True),
        ("sub/chestmnist_128.npz", True),
        ("breastmnist_32.npz", False),
        ("breastmnist-old.npz", False),
        ("vesselmnist3d.npz", False),
    ],
)
def test_published(name: str, known: bool):
    assert (published(Path(name)) is not None) is known
