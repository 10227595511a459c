"""The whole service, by its interface: a real process, real images."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np
import pytest

from medimg_edge import Classifier
from tests.device.kiosk_images import dicom, png
from tests.device.serving import FROZEN, Reply, Served

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def inbox(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("inbox")


@pytest.fixture(scope="module")
def served(tmp_path_factory, inbox) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("kiosk"), FROZEN, "--watch", inbox) as it:
        yield it


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(FROZEN, profile=None)


def form(data: bytes, name: str = "file") -> tuple[bytes, str]:
    boundary = uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="MEYER ANNA.png"'
        "\r\nContent-Type: image/png\r\n\r\n"
    )
    return head.encode() + data + f"\r\n--{boundary}--\r\n".encode(), (
        f"multipart/form-data; boundary={boundary}"
    )


@pytest.mark.parametrize("sent", ["raw", "typed", "form"])
@pytest.mark.parametrize("make", [png, dicom])
def test_an_answer_is_the_classifiers(served, classifier, make, sent):
    data = make()
    body, kind = form(data) if sent == "form" else (data, {"typed": "image/png"}.get(sent, ""))
    reply = served.predict(body, kind)
    assert reply.status == 201, reply
    told = reply.json
    expected = classifier.predict(data).record
    assert reply.headers["Location"] == f"/v1/predictions/{told['id']}"
    assert told["record"]["input"] == told["id"]
    assert told["record"]["probability"] == pytest.approx(expected.probability, abs=1e-6)
    assert told["record"]["decision"] == expected.decision
    assert told["record"]["model"]["hash"] == classifier.bundle.hash
    assert told["input_sha256"] == hashlib.sha256(data).hexdigest()
    assert told["source"] == "upload"
    point = classifier.points["opacity"]
    assert told["operating_points"]["opacity"]["threshold"] == point.threshold
    assert 0 < told["timings"]["answer_ms"] < 60_000
    assert served.get(reply.headers["Location"]).json == told
    assert b"MEYER" not in reply.body


def test_a_frame_of_several(served, classifier):
    frames = np.random.default_rng(1).integers(0, 4096, (3, 64, 64), np.uint16)
    data = dicom(frames)
    reply = served.request("POST", "/v1/predictions?frame=2", data)
    assert reply.status == 201
    record = reply.json["record"]
    assert (record["frame"], record["frames"]) == (2, 3)
    expected = classifier.predict(data, frame=2).probability
    assert record["probability"] == pytest.approx(expected, abs=1e-6)


def test_a_request_again_is_the_first_answer(served):
    data = png()
    first = served.predict(data, Idempotency_Key="a-key")
    before = served.get("/v1/station").json["record"]["entries"]
    again = served.predict(data, Idempotency_Key="a-key")
    assert (first.status, again.status) == (201, 200)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json == first.json
    assert served.get("/v1/station").json["record"]["entries"] == before
    broken = served.predict(b"no image", Idempotency_Key="broken")
    again = served.predict(b"no image", Idempotency_Key="broken")
    assert (broken.status, broken.body) == (again.status, again.body)


def test_a_key_is_of_an_image_and_its_frame(served):
    path, key = "/v1/predictions?frame=1", {"Idempotency-Key": "framed"}
    data = png()
    first, again = (served.request("POST", path, data, key) for _ in range(2))
    assert (first.status, again.status) == (201, 200)
    assert again.json == first.json
    data = dicom(np.random.default_rng(2).integers(0, 4096, (2, 64, 64), np.uint16))
    key = {"Idempotency-Key": "several"}
    several = served.request("POST", "/v1/predictions", data, key)
    assert several.json["code"] == "input-unsupported"
    assert served.request("POST", path, data, key).json["record"]["frame"] == 1


def decoded(reply: Reply) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(reply.body, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return picture


def test_pictures(served, classifier):
    data = dicom()
    told = served.predict(data).json
    path = f"/v1/predictions/{told['id']}"
    image = decoded(served.get(f"{path}/image"))
    assert image.shape == (64, 64)
    values = served.get(f"{path}/samples")
    assert (values.headers["X-Rows"], values.headers["X-Bits"]) == ("64", "16")
    samples = np.frombuffer(values.body, "<u2").reshape(64, 64).astype(float)
    low, high = float(values.headers["X-Low"]), float(values.headers["X-High"])
    shown = np.clip((samples - low) / (high - low) * 255, 0, 255)
    assert np.abs(shown - image).max() <= 1
    for layer, channels in (("overlay", 3), ("heat", 4)):
        reply = served.get(f"{path}/heatmap?layer={layer}")
        assert reply.headers["Content-Type"] == "image/png"
        assert decoded(reply).shape[2] == channels
    assert served.get(f"{path}/heatmap?label=nothing").status == 404


def test_the_list(served):
    for data in (png(), b"no image", png()):
        served.predict(data)
    everything, before = [], ""
    while True:
        page = served.get(f"/v1/predictions?limit=3{before}").json
        everything += page["predictions"]
        if page["next"] is None:
            break
        assert len(page["predictions"]) == 3
        before = f"&before={page['next']}"
    times = [each["time"] for each in everything]
    assert times == sorted(times, reverse=True)
    assert len({each["id"] for each in everything}) == len(everything) > 6
    for query, holds in {
        "status=ok": lambda each: each["record"]["status"] == "ok",
        "code=input-not-an-image": lambda each: each["record"]["code"] == "input-not-an-image",
        "decision=positive": lambda each: each["record"]["decision"] == "positive",
        "acknowledged=true": lambda each: each["acknowledged"] is not None,
        f"input_sha256={everything[0]['input_sha256']}": lambda each: (
            each["input_sha256"] == everything[0]["input_sha256"]
        ),
        "since=2099-01-01T00:00:00Z": lambda each: False,
        "until=2099-01-01T00:00:00Z": lambda each: True,
    }.items():
        found = served.get(f"/v1/predictions?limit=200&{query}").json["predictions"]
        assert found == [
            each for each in everything if ("record" in each and _holds(holds, each))
        ], query


def _holds(holds, each) -> bool:
    try:
        return holds(each)
    except KeyError:
        return False


def test_somebody_has_seen_it(served):
    told = served.predict(png()).json
    path = f"/v1/predictions/{told['id']}/acknowledgement"
    kind = {"Content-Type": "application/json"}
    for comment in ("film repeated", "", "<b>第二</b>"):
        reply = served.request("PUT", path, json.dumps({"comment": comment}).encode(), kind)
        assert reply.status == 200
        assert reply.json["acknowledged"]["comment"] == comment
    assert served.get(f"/v1/predictions/{told['id']}").json == reply.json
    for body in (b"{}x", b'{"comment": 1}', b'{"other": ""}', json.dumps({"comment": "x" * 501})):
        sent = body if isinstance(body, bytes) else body.encode()
        assert served.request("PUT", path, sent, kind).status == 422


def test_a_watched_folder(served, inbox):
    data = png()
    (inbox / "MEYER ANNA.png").write_bytes(data)
    (inbox / "notes.txt").write_bytes(b"none")
    end = time.monotonic() + 20
    while not (items := served.get("/v1/inbox").json["items"]):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert [(each["name"], each["bytes"]) for each in items] == [("MEYER ANNA.png", len(data))]
    reply = served.request("POST", f"/v1/inbox/{items[0]['id']}/predictions")
    assert reply.status == 201
    assert reply.json["source"] == "folder"
    assert reply.json["input_sha256"] == hashlib.sha256(data).hexdigest()
    assert b"MEYER" not in reply.body
    assert served.request("POST", "/v1/inbox/nothing/predictions").status == 404


TRAVERSALS = [
    "/page/../settings.py",
    "/page/%2e%2e/settings.py",
    "/page/..%2fsettings.py",
    "/page//etc/passwd",
    "/..%2f..%2fetc/passwd",
    "/v1/predictions/..%2f..%2fetc%2fpasswd",
    "/v1/predictions/%2e%2e/model",
    "/v1/predictions/%2e%2e%2fdata/image",
    "/v1/predictions/..%2f" + "0" * 32 + "/heatmap",
    "/v1/predictions/%00/samples",
    "/v1/inbox/..%2f..%2fetc%2fpasswd",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out(served, path):
    assert served.get(path).status == 404
    assert served.request("POST", path + "/predictions").status in (404, 405)


def test_what_watches_over_it(served, classifier):
    assert served.get("/healthz").json == {"status": "alive"}
    assert served.get("/readyz").json == {"status": "ready"}
    model = served.get("/v1/model").json["model"]
    name = classifier.manifest.name
    assert (model["name"], model["task"]) == (name, "binary")
    served.predict(png())
    served.predict(b"no image")
    text = served.get("/metrics").body.decode()
    for line in (
        'medimg_edge_predictions_total{code="input-not-an-image",status="error"}',
        "medimg_edge_decisions_total{decision=",
        "medimg_edge_answer_seconds_bucket",
        "medimg_edge_waiting 0.0",
        "medimg_edge_ready 1.0",
        'medimg_edge_http_requests_total{code="",method="POST",route="/v1/predictions",status="201"}',
        f'name="{name}"',
    ):
        assert line in text, text


def test_head(served):
    """RFC 9110 section 9.3.2: what GET has, without the body."""
    for path in ("/", "/healthz", "/v1/model", "/v1/predictions"):
        reply = served.request("HEAD", path)
        assert (reply.status, reply.body) == (200, b"")
        assert int(reply.headers["Content-Length"]) > 0


def test_headers_of_every_answer(served):
    for path in ("/", "/v1/model", "/nothing", "/page/kiosk.css", "/v1/predictions?limit=0"):
        headers = served.get(path).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"


def test_the_document_of_the_interface(served):
    """docs/openapi.json is what the service tells, by the FastAPI of constraints.txt."""
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    if f"fastapi=={version('fastapi')}" not in pins:
        pytest.skip("another FastAPI than that of constraints.txt")
    told = served.get("/openapi.json").json
    assert told == json.loads((ROOT / "docs" / "openapi.json").read_text())


def test_nothing_says_whose_an_image_is(served, inbox):
    """Neither the folder nor the log, after all that was sent above and some mistakes."""
    data = dicom(PatientName="MEYER^ANNA", PatientID="4711-X")
    for each in (data, b"MEYER^ANNA^19610203: a report", data[:900], png() + b"MEYER"):
        assert b"MEYER" not in served.predict(each).body
    for path in served.folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for word in (b"MEYER", b"ANNA", b"4711-X", b"1.2.826.0.1."):
                assert word not in data, path


def test_log_lines_as_json(tmp_path):
    with Served(tmp_path, FROZEN, "--log-format", "json") as served:
        served.predict(png())
        served.predict(b"no image")
        served.get("/nothing?MEYER")
    lines = [json.loads(line) for line in served.log.read_text().splitlines()]
    requests = [each for each in lines if each["event"] == "request"]
    assert [
        (each["route"], each["status"], each.get("code"))
        for each in requests
        if each["route"] != "/readyz"
    ] == [
        ("/v1/predictions", 201, None),
        ("/v1/predictions", 415, "input-not-an-image"),
        (requests[-1]["route"], 404, "not-found"),
    ]
    assert "MEYER" not in served.log.read_text()


def test_images_are_kept_where_it_is_told(tmp_path):
    data = dicom()
    with Served(tmp_path, FROZEN, "--keep-images", 1) as served:
        told = served.predict(data).json
    with Served(tmp_path, FROZEN, "--keep-images", 1) as served:
        path = f"/v1/predictions/{told['id']}"
        assert served.get(path).json["picture"]
        assert served.get(f"{path}/heatmap").status == 200
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == data]
    assert len(kept) == 1
    assert kept[0].stat().st_mode & 0o077 == 0


def test_old_images_are_removed_also_where_the_disk_is_full(tmp_path):
    """And the record's own retention fails: nothing of it can be written."""
    with Served(tmp_path, FROZEN, "--keep-images", 1) as served:
        served.predict(png())
    for path in (tmp_path / "data" / "pictures").iterdir():
        os.utime(path, (0, 0))
    limit = resource.RLIMIT_FSIZE

    def full() -> None:
        resource.setrlimit(limit, (2**20, resource.RLIM_INFINITY))

    words = ("--keep-images", 1, "--keep-records", 1)
    with Served(tmp_path, FROZEN, *words, preexec=full):
        assert list((tmp_path / "data" / "pictures").iterdir()) == []


def test_images_of_the_inbox_take_their_room_too(tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    for number in range(24):
        (folder / f"{number}.png").write_bytes(png() + bytes(19 * 10**6))
    with Served(tmp_path / "kiosk", FROZEN, "--watch", folder) as served:
        time.sleep(1)
        paths = [
            f"/v1/inbox/{each['id']}/predictions" for each in served.get("/v1/inbox").json["items"]
        ]
        assert len(paths) == 24
        with ThreadPoolExecutor(24) as threads:
            replies = list(threads.map(lambda path: served.request("POST", path), paths))
        assert {each.status for each in replies} <= {422, 201, 503}
        status = Path(f"/proc/{served.process.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
        assert peak < 400_000, f"{peak} kB"  # without it, above 500 MB


def test_a_machine_that_stands_still_blames_no_image(tmp_path):
    """The service is stopped for longer than an answer may take, and goes on."""
    images = [
        png(np.random.default_rng(each).integers(0, 256, (900, 900), np.uint8))
        for each in range(12)
    ]
    with (
        Served(tmp_path, FROZEN, "--answer-seconds", 1) as served,
        ThreadPoolExecutor(8) as threads,
    ):
        for _ in range(3):
            replies = [threads.submit(served.predict, each) for each in images]
            time.sleep(0.12)
            os.kill(served.process.pid, signal.SIGSTOP)
            time.sleep(2)
            os.kill(served.process.pid, signal.SIGCONT)
            assert {each.result().status for each in replies} == {201}


def test_images_that_were_given_up_are_not_held(tmp_path):
    data = os.urandom(19 * 10**6)
    with Served(tmp_path, FROZEN, "--answer-seconds", 1) as served:

        def resident() -> int:
            status = Path(f"/proc/{served.process.pid}/status").read_text()
            return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)

        before = resident()
        for _ in range(5):
            assert served.predict(png()).status == 201  # so it is not being loaded
            os.kill(served.child, signal.SIGSTOP)
            assert served.predict(data).json["code"] == "answer-stopped"
        assert resident() - before < 60_000  # one of them may be


def test_a_stop_lets_requests_end(tmp_path):
    """SIGTERM under load: whoever was heard has an answer, and the record holds it."""
    with Served(tmp_path, FROZEN) as served, ThreadPoolExecutor(8) as threads:
        replies = [threads.submit(served.predict, png()) for _ in range(60)]
        time.sleep(0.15)
        assert served.end() == 0
        answered = [each.result().json["id"] for each in replies if not each.exception()]
    with Served(tmp_path, FROZEN) as served:
        for each in answered:
            assert served.get(f"/v1/predictions/{each}").status == 200
    assert answered


def test_ctrl_c(tmp_path):
    served = Served(tmp_path, FROZEN)
    assert served.end(signal.SIGINT) == 130


REFUSED = [
    (["--host", "0.0.0.0"], "a token and TLS is missing"),
    (["--port", "70000"], "no port"),
    (["--tls-cert", "x"], "--tls-key"),
    (["--watch", "/nothing/there"], "no folder"),
    (["--artifact", "other.onnx"], "no artifact"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_it_does_not_start(command, tmp_path, words, said):
    done = command("serve", FROZEN, "--data", tmp_path, *words)
    assert done.returncode in (1, 2)
    assert said in done.stderr


def test_one_service_for_a_folder(served, command):
    done = command("serve", FROZEN, "--data", served.folder / "data", "--port", 0)
    assert done.returncode == 1
    assert "error [write]" in done.stderr


def test_without_the_extra(tmp_path):
    program = (
        "import sys; sys.modules['fastapi'] = None; sys.argv[1:] = ['serve', 'pneumonia-cxr']\n"
        "from medimg_edge.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'medimg-edge[serve]'" in done.stderr
