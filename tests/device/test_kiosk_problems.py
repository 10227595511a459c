"""Every error code that a request can end in, from a real service."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from medimg_edge import errors
from medimg_edge.kiosk.problems import STATUS
from tests.device import hostile_networks
from tests.device.golden_bundle import with_golden_set
from tests.device.hostile_networks import hostile
from tests.device.kiosk_images import dicom, png, window_bundle
from tests.device.serving import FROZEN, Reply, Served
from tests.device.test_bad_inputs import vast
from tests.device.test_kiosk_trust import FAULTS, signed
from tests.device.test_screening import CASES, picture, screened

__all__ = ["screened", "signed"]

TOKEN = "a-token-for-this-test-alone"
SEEN: set[str] = set()
"""The codes that a test has produced."""


@pytest.fixture(scope="module")
def served(tmp_path_factory, rewrite) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("kiosk")
    bundle = Path(shutil.copytree(FROZEN, folder / "bundle"))
    rewrite(bundle, lambda raw: raw.update(view=["AP", "PA"]))
    with Served(folder / "served", bundle, "--answer-seconds", 2) as it:
        yield it


@pytest.fixture(scope="module")
def windowed(tmp_path_factory) -> Iterator[Served]:
    pytest.importorskip("onnx", reason="onnx, of the export extra, builds the network")
    folder = tmp_path_factory.mktemp("windowed")
    with Served(folder, window_bundle(folder / "bundle")) as it:
        yield it


def check(reply: Reply, error: type[errors.MedimgEdgeError], *, kept: bool) -> dict:
    """A problem of RFC 9457; where the image had an entry made of it, that says the same."""
    assert reply.headers["Content-Type"] == "application/problem+json", reply
    told = reply.json
    assert (told["code"], reply.status, told["status"]) == (error.code, *2 * (STATUS[error],))
    assert len(told["detail"]) > 20
    assert told["rejected"] == issubclass(error, errors.Rejected)
    assert (told["prediction"] is not None) == kept
    assert (reply.status == 503) == ("Retry-After" in reply.headers)
    SEEN.add(error.code)
    return told


def sent(**elements) -> Callable[[], bytes]:
    return lambda: dicom(**elements)


def no_pixels() -> bytes:
    names = ("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "PixelData")
    return dicom(**dict.fromkeys(names), BitsAllocated=None)


def other_syntax() -> bytes:
    plain, other = (
        each.ljust(20, b"\0") for each in (b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.99")
    )
    return dicom().replace(plain, other)


IMAGES = [
    (lambda: b"", errors.InputEmpty),
    (lambda: b"Dear colleague, the image is attached.", errors.NotAnImage),
    (lambda: png()[:900], errors.Truncated),
    (vast, errors.TooLarge),
    (lambda: dicom(np.ones((3, 64, 64), np.uint16)), errors.Unsupported),
    (sent(BitsStored=20), errors.DicomInvalid),
    (no_pixels, errors.DicomNoPixels),
    (other_syntax, errors.DicomTransferSyntax),
    (lambda: png(np.arange(64, dtype=np.uint8).reshape(8, 8)), errors.TooSmall),
    (lambda: png(np.full((64, 64), 128, np.uint8)), errors.Blank),
    (sent(Modality="CT"), errors.WrongModality),
    (sent(BodyPartExamined="FOOT"), errors.WrongBodyPart),
    (sent(ViewPosition="LL"), errors.WrongView),
]


@pytest.mark.parametrize(("make", "error"), IMAGES, ids=[each[1].code for each in IMAGES])
def test_images_without_an_answer(served, make, error):
    told = check(served.predict(make()), error, kept=True)
    entry = served.get(f"/v1/predictions/{told['prediction']}").json
    record = entry["record"]
    assert (record["code"], record["message"]) == (told["code"], told["detail"])
    assert record["status"] == ("rejected" if told["rejected"] else "error")
    assert "probability" not in json.dumps(entry)


def test_a_file_that_may_not_be_read(tmp_path):
    """Root reads every file; without that right it is like everybody."""
    (tmp_path / "inbox").mkdir()
    file = tmp_path / "inbox" / "image.png"
    file.write_bytes(png())
    file.chmod(0)
    before = ()
    if os.geteuid() == 0:
        before = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    with Served(tmp_path / "k", FROZEN, "--watch", file.parent, before=before) as served:
        time.sleep(1)
        (item,) = served.get("/v1/inbox").json["items"]
        reply = served.request("POST", f"/v1/inbox/{item['id']}/predictions")
        check(reply, errors.InputMissing, kept=False)


def test_our_own_picture(served, frozen, tmp_path):
    pytest.importorskip("highdicom", reason="the extra dicom writes it")
    from medimg_edge import Classifier
    from medimg_edge.dicom.answer import received

    found = received.answer(
        Classifier(frozen, force=True), dicom(), identifier="x", kinds=("sc",), name_of=str
    )
    picture = next(data for name, data in found[1].items() if name.endswith(".dcm"))
    check(served.predict(picture), errors.OwnResult, kept=True)


def test_values_without_a_unit(windowed):
    check(windowed.predict(png()), errors.UnitUnknown, kept=True)


def test_no_number(windowed):
    assert (
        windowed.predict(dicom(np.arange(3000, 4024, dtype=np.uint16).reshape(32, 32))).status
        == 201
    )
    dark = np.arange(0, 1024, dtype=np.uint16).reshape(32, 32)
    check(windowed.predict(dicom(dark)), errors.NotFinite, kept=True)


@contextmanager
def stopped(served: Served) -> Iterator[None]:
    """What answers stands still."""
    child = served.child
    os.kill(child, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it was ended, as it has to be
            os.kill(child, signal.SIGCONT)


def test_an_answer_that_takes_too_long(served):
    with stopped(served):
        told = check(served.predict(png()), errors.AnswerStopped, kept=True)
    assert "2 s" in told["detail"]
    served.wait_until_ready()
    assert served.predict(png()).status == 201


def test_more_images_than_may_wait(served):
    with stopped(served), ThreadPoolExecutor(60) as threads:
        replies = list(threads.map(lambda _: served.predict(png()), range(60)))
    busy = [each for each in replies if each.status == 503 and b'"busy"' in each.body]
    assert busy
    for each in busy:
        check(each, errors.Busy, kept=False)
    served.wait_until_ready()


def test_a_key_whose_first_request_still_waits(served):
    data = png()
    with ThreadPoolExecutor(1) as thread:
        with stopped(served):
            first = thread.submit(served.predict, data, Idempotency_Key="first")
            time.sleep(0.5)
            check(served.predict(data, Idempotency_Key="first"), errors.KeyInUse, kept=False)
        assert first.result().status in (201, 422)
    served.wait_until_ready()


def test_a_key_for_another_image(served):
    assert served.predict(png(), Idempotency_Key="second").status == 201
    check(served.predict(png(), Idempotency_Key="second"), errors.KeyReused, kept=False)


REQUESTS = [
    ("GET", "/v1/nothing", b"", {}, errors.NotFound),
    ("GET", "/v1/predictions/" + "0" * 32, b"", {}, errors.NotFound),
    ("DELETE", "/v1/predictions", b"", {}, errors.MethodNotAllowed),
    ("POST", "/v1/predictions?frame=0", b"x", {}, errors.RequestInvalid),
    ("POST", "/v1/predictions", b"x", {"Idempotency-Key": "a b"}, errors.RequestInvalid),
    ("GET", "/v1/predictions?limit=1000", b"", {}, errors.RequestInvalid),
    ("POST", "/v1/predictions", b"x", {"Content-Type": "text/html"}, errors.MediaTypeUnknown),
    ("POST", "/v1/predictions", bytes(25 * 10**6), {}, errors.BodyTooLarge),
    ("GET", "/healthz", b"", {"Host": "example.org"}, errors.HostUnknown),
    ("POST", "/v1/predictions", b"x", {"Origin": "https://example.org"}, errors.OriginForeign),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "error"),
    REQUESTS,
    ids=[f"{each[4].code}-{number}" for number, each in enumerate(REQUESTS)],
)
def test_requests_that_are_refused(served, method, path, body, headers, error):
    check(served.request(method, path, body, headers), error, kept=False)


def test_a_body_that_does_not_come(served):
    head = "POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf"
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(head.encode())
        said = connection.makefile("rb").read()
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["code"] == errors.ReceiveDeadline.code
    SEEN.add(errors.ReceiveDeadline.code)


def test_a_disk_that_is_full(served):
    """SQLite cannot make its log longer."""
    limit = resource.RLIMIT_FSIZE
    before = resource.prlimit(served.process.pid, limit, (0, resource.RLIM_INFINITY))
    try:
        check(served.predict(png()), errors.WriteError, kept=False)
    finally:
        resource.prlimit(served.process.pid, limit, before)
    assert served.predict(png()).status == 201


def test_a_disk_with_little_room(tmp_path):
    with Served(tmp_path, FROZEN, "--reserve", 10**9) as served:
        check(served.predict(png()), errors.DiskLow, kept=False)
        assert served.get("/v1/predictions").json == {"predictions": [], "next": None}


def test_before_the_golden_set_has_passed(tmp_path):
    with Served(tmp_path, FROZEN, wait=False) as served:
        check(served.predict(png()), errors.NotReady, kept=False)
        check(served.get("/readyz"), errors.NotReady, kept=False)
        assert served.get("/healthz").json == {"status": "alive"}
        served.wait_until_ready()


def test_a_golden_set_that_differs(bundle, rewrite, tmp_path):
    """It serves, so that the page can say why it does not answer."""
    rewrite(
        bundle,
        lambda raw: raw["golden"][0]["probability"].update(
            {name: [0.123] for name in raw["artifacts"]}
        ),
    )
    with Served(tmp_path / "kiosk", bundle, wait=False) as served:
        while (reply := served.get("/readyz")).json["code"] == errors.NotReady.code:
            time.sleep(0.1)
        check(reply, errors.GoldenMismatch, kept=False)
        check(served.predict(png()), errors.GoldenMismatch, kept=False)
        assert served.get("/v1/station").json["code"] == "bundle-golden"


def refused(served: Served, error: type[errors.MedimgEdgeError]) -> None:
    """A bundle that does not answer here, once that was tried."""
    while (reply := served.get("/readyz")).json["code"] == errors.NotReady.code:
        time.sleep(0.1)
    check(reply, error, kept=False)
    check(served.predict(png()), error, kept=False)


@pytest.mark.parametrize("code", FAULTS)
def test_a_bundle_that_nobody_vouches_for(signed, tmp_path, code):
    bundle, signer = signed
    FAULTS[code][0](bundle, signer)
    (error,) = (each for each in STATUS if each.code == code)
    words = ("--trusted", signer.trusted)
    with Served(tmp_path / "kiosk", bundle, *words, unsigned=False, wait=False) as served:
        refused(served, error)


@pytest.mark.parametrize(
    ("nodes", "error"),
    [(hostile_networks.loops, errors.ModelRefused), (hostile_networks.works, errors.ModelDeadline)],
)
def test_a_model_that_would_never_end(mean_bundle, rewrite, tmp_path, nodes, error):
    pytest.importorskip("onnx", reason="onnx, of the export extra, builds the network")
    with Served(tmp_path / "kiosk", hostile(mean_bundle, rewrite, nodes), wait=False) as served:
        refused(served, error)


def test_images_that_the_model_was_not_made_for(screened, tmp_path):
    with Served(tmp_path / "kiosk", with_golden_set(screened, png(picture()))) as served:
        assert served.predict(png(picture())).status == 201
        for draw, error in CASES:
            told = check(served.predict(png(draw())), error, kept=True)
            entry = served.get(f"/v1/predictions/{told['prediction']}").json
            assert (entry["record"]["status"], entry["record"]["code"]) == ("rejected", error.code)
            assert entry["record"]["measured"]["brightness"] > 0
            assert "probability" not in json.dumps(entry)
            assert served.get(f"/v1/predictions/{told['prediction']}/image").status == 200


def test_pictures_that_are_not_kept(tmp_path):
    with Served(tmp_path, FROZEN) as served:
        made = served.predict(png()).json
        assert made["picture"]
    with Served(tmp_path, FROZEN) as served:
        path = f"/v1/predictions/{made['id']}"
        assert served.get(path).json == made | {"picture": False}
        for name in ("image", "heatmap", "samples"):
            check(served.get(f"{path}/{name}"), errors.PictureGone, kept=False)


def test_without_the_token(tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    right = {"Authorization": f"Bearer {TOKEN}"}
    with Served(tmp_path / "kiosk", FROZEN, "--token-file", file) as served:
        for headers in (
            {},
            {"Authorization": "Bearer of bad news"},
            {"Cookie": "medimg_session=x"},
        ):
            for path in ("/v1/predictions", "/v1/model", "/metrics"):
                reply = served.request("GET", path, headers=headers)
                check(reply, errors.TokenMissing, kept=False)
                assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert served.request("GET", "/v1/predictions", headers=right).status == 200
        assert TOKEN not in served.log.read_text()


def test_a_decoder_that_is_always_ended(served):
    """Of a compressed frame, which is decoded by a process of its own: the machine's fault."""
    pytest.importorskip("gdcm", reason="the extra dicom decodes it")
    from pydicom.data import get_testdata_file

    data = Path(str(get_testdata_file("JPGExtended.dcm"))).read_bytes()
    done = threading.Event()

    def end_all() -> None:
        while not done.is_set():
            for child in Path(f"/proc/{served.child}/task").glob("*/children"):
                for each in child.read_text().split():
                    with suppress(ProcessLookupError):
                        os.kill(int(each), signal.SIGKILL)
            time.sleep(0.002)

    ender = threading.Thread(target=end_all)
    ender.start()
    try:
        check(served.predict(data), errors.MachineFault, kept=False)
    finally:
        done.set()
        ender.join()


def test_every_code_was_produced():
    """The last test: those before it have to have run."""
    if len(SEEN) < 10:
        pytest.skip("only part of this file was run")
    assert {each.code for each in STATUS} == SEEN


def test_the_documentation_has_them_all():
    text = (Path(__file__).parents[2] / "docs" / "kiosk-api.md").read_text()
    for line in text.splitlines():
        status, _, codes = line.removeprefix("| ").partition(" | ")
        if status.isdecimal():
            named = set(re.findall("`([a-z-]+)`", codes.split("|")[0])) - {"unexpected"}
            assert named == {each.code for each, known in STATUS.items() if known == int(status)}
