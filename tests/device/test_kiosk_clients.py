"""The clients of docs/hosts, as they are handed out, against a real service."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from tests.device.serving import Served

HOSTS = Path(__file__).parents[2] / "docs" / "hosts"
ONE_LINE = "01-gray8.png: opacity "


def loaded() -> ModuleType:
    """The file, as somebody imports it who copied it."""
    path = HOSTS / "kiosk_client.py"
    spec = importlib.util.spec_from_file_location("kiosk_client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kiosk_client"] = module
    spec.loader.exec_module(module)
    return module


client = loaded()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, frozen: Path) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served"), frozen) as service:
        yield service


@pytest.fixture(scope="module")
def image(frozen: Path) -> Path:
    return frozen / "golden" / "01-gray8.png"


@pytest.fixture(scope="module")
def corrupt(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Path:
    path = tmp_path_factory.mktemp("corrupt") / "half.png"
    path.write_bytes(image.read_bytes()[:200])
    return path


def run(*command: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """A client that must not use a proxy, which would be another machine's."""
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", **variables}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120, env=environment
    )


def test_python(served: Served, image: Path):
    kiosk = client.Kiosk(served.url)
    assert kiosk.is_ready()
    answer = kiosk.predict(image)
    assert answer["record"]["status"] == "ok"
    assert answer == kiosk.prediction(answer["id"])
    assert kiosk.heatmap(answer["id"]).startswith(b"\x89PNG")
    assert kiosk.heatmap(answer["id"], layer="heat") != kiosk.heatmap(answer["id"])
    assert kiosk.model()["model"]["labels"] == ["normal", "opacity"]
    seen = kiosk.acknowledge(answer["id"], "seen, and told")
    assert seen["acknowledged"]["comment"] == "seen, and told"
    assert answer["id"] in [each["id"] for each in kiosk.predictions(acknowledged=True)]


def test_python_goes_through_all_pages(served: Served, image: Path):
    kiosk = client.Kiosk(served.url)
    ids = [kiosk.predict(image.read_bytes())["id"] for _ in range(5)]
    sha256 = kiosk.prediction(ids[0])["input_sha256"]
    found = [each["id"] for each in kiosk.predictions(limit=2, input_sha256=sha256)]
    assert found[:5] == ids[::-1]
    assert list(kiosk.predictions(status="ok", since="2999-01-01T00:00:00Z")) == []


def test_python_answers_an_image_once(served: Served, image: Path):
    kiosk = client.Kiosk(served.url)
    answers = [kiosk.predict(image, key="of-our-own") for _ in range(2)]
    assert answers[0]["id"] == answers[1]["id"]
    with pytest.raises(client.KioskError) as raised:
        kiosk.predict(b"other bytes", key="of-our-own")
    assert raised.value.code == "key-reused"
    assert not isinstance(raised.value, client.NotAnswered)


def test_python_tells_what_went_wrong(served: Served, corrupt: Path, tmp_path: Path):
    kiosk = client.Kiosk(served.url)
    with pytest.raises(client.NotAnswered) as raised:
        kiosk.predict(corrupt)
    assert raised.value.code == "input-truncated"
    assert kiosk.prediction(raised.value.prediction)["record"]["code"] == "input-truncated"
    with pytest.raises(client.NotAnswered, match=r"^\[body-too-large\]"):
        kiosk.predict(bytes(25 * 10**6))
    for made_up in ("0" * 32, "../model", "a/b?c"):
        with pytest.raises(client.NotFound):
            kiosk.prediction(made_up)
    with pytest.raises(OSError, match="No such file"):
        kiosk.predict(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="is no URL"):
        client.Kiosk("127.0.0.1:8080")


def test_python_rejected(served: Served, tmp_path: Path):
    blank = tmp_path / "blank.png"
    cv2 = pytest.importorskip("cv2")
    numpy = pytest.importorskip("numpy")
    cv2.imwrite(str(blank), numpy.zeros((64, 64), numpy.uint8))
    with pytest.raises(client.Rejected) as raised:
        client.Kiosk(served.url).predict(blank)
    assert raised.value.code == "blank"


def test_python_tries_again(image: Path):
    """A connection that ends, then 503, then an answer: asked with one key, and after a pause."""
    keys: list[str] = []
    replies = [
        b"",
        b"HTTP/1.1 503 .\r\nRetry-After: 0\r\nContent-Length: 31\r\n\r\n"
        b'{"code":"busy","detail":"full"}',
        b'HTTP/1.1 201 .\r\nContent-Length: 11\r\n\r\n{"id":"ab"}',
    ]
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        for reply in replies:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as received:
                length = 0
                while line := received.readline().strip():
                    name, _, value = line.decode().partition(": ")
                    length = int(value) if name == "Content-Length" else length
                    if name == "Idempotency-Key":
                        keys.append(value)
                received.read(length)
                connection.sendall(reply)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        kiosk = client.Kiosk(f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert kiosk.predict(image) == {"id": "ab"}
    finally:
        listener.close()
        thread.join(10)
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_python_gives_up():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    kiosk = client.Kiosk(f"http://127.0.0.1:{port}", patience=0)
    assert not kiosk.is_ready()
    with pytest.raises(client.TryLater, match=r"^\[unreachable\]"):
        kiosk.model()


def test_python_as_a_program(served: Served, image: Path, corrupt: Path, tmp_path: Path):
    command = (sys.executable, HOSTS / "kiosk_client.py", "--url", served.url)
    done = run(*command, "--heatmaps", tmp_path / "maps", image, corrupt)
    assert done.returncode == 1
    assert ONE_LINE in done.stdout
    assert "half.png: no answer: [input-truncated]" in done.stderr
    assert len(list((tmp_path / "maps").glob("*.png"))) == 1


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_javascript(served: Served, image: Path, corrupt: Path, tmp_path: Path):
    done = run("node", HOSTS / "kiosk.mjs", served.url, image, corrupt)
    assert done.returncode == 1, done.stderr
    assert ONE_LINE in done.stdout
    assert "half.png: no answer: [input-truncated]" in done.stderr
    program = tmp_path / "program.mjs"
    program.write_text(
        f"""
        import {{ readFile }} from "node:fs/promises";
        import {{ Kiosk, KioskError }} from {json.dumps((HOSTS / "kiosk.mjs").as_uri())};
        const kiosk = new Kiosk({json.dumps(served.url)});
        const image = await readFile({json.dumps(str(image))});
        const answer = await kiosk.predict(image, {{ key: "javascript" }});
        const again = await kiosk.predict(image, {{ key: "javascript" }});
        const png = new Uint8Array(await (await kiosk.heatmap(answer.id)).arrayBuffer());
        const seen = await kiosk.acknowledge(answer.id, "seen");
        const page = await kiosk.predictions({{ limit: 1 }});
        const missing = await kiosk.prediction("0".repeat(32)).catch((error) => error);
        const nobody = new Kiosk("http://127.0.0.1:1", {{ patience: 0 }});
        const alone = await nobody.model().catch((error) => error);
        console.log(JSON.stringify({{
          same: answer.id === again.id,
          png: String.fromCharCode(...png.slice(1, 4)),
          comment: seen.acknowledged.comment,
          newest: page.predictions[0].id === answer.id && typeof page.next,
          labels: (await kiosk.model()).model.labels,
          missing: missing instanceof KioskError && missing.code,
          alone: alone.code,
        }}));
        """
    )
    done = run("node", program)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "same": True,
        "png": "PNG",
        "comment": "seen",
        "newest": "number",
        "labels": ["normal", "opacity"],
        "missing": "not-found",
        "alone": "unreachable",
    }


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl(served: Served, image: Path, corrupt: Path):
    done = run("sh", HOSTS / "kiosk.sh", f"{served.url}/", image, corrupt)
    assert done.returncode == 1, done.stderr
    answer, problem = map(json.loads, done.stdout.splitlines())
    assert answer["record"]["status"] == "ok"
    assert problem["code"] == "input-truncated"
    assert run("sh", HOSTS / "kiosk.sh", served.url, image).returncode == 0
    assert run("sh", HOSTS / "kiosk.sh", served.url).returncode == 2
