"""Who may have made what answers: signatures, models that would do harm, and what is not sure."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medimg_edge import risk
from medimg_edge.kiosk import confinement
from tests.device import hostile_networks
from tests.device.golden_bundle import with_golden_set
from tests.device.hostile_networks import hostile
from tests.device.installing import Signer, release
from tests.device.kiosk_images import png
from tests.device.listening import wait_until
from tests.device.serving import Served
from tests.device.test_screening import CASES, picture, screened

__all__ = ["screened"]

STOPPED_SECONDS = 10


def refused(served: Served) -> dict:
    """Why it does not answer, when it has tried."""
    end = time.monotonic() + 60
    while (reply := served.get("/readyz")).json.get("code") == "not-ready":
        assert time.monotonic() < end, served.log.read_text()
        time.sleep(0.1)
    assert reply.status == 503, reply
    assert served.get("/healthz").json == {"status": "alive"}
    state = served.get("/v1/station").json
    assert (state["state"], state["code"]) == ("refused", reply.json["code"])
    assert state["message"] == reply.json["detail"]
    answered = served.predict(png())
    assert (answered.status, answered.json["code"]) == (503, reply.json["code"])
    return reply.json


@pytest.fixture
def signed(mean_bundle, tmp_path) -> tuple[Path, Signer]:
    signer = Signer(tmp_path)
    return signer.sign(release(mean_bundle, "1")), signer


def unsigned(bundle: Path, signer: Signer) -> None:
    (bundle / "signatures" / "clinic.sig").unlink()


def of_an_unknown_key(bundle: Path, signer: Signer) -> None:
    (signer.trusted / "clinic.pub").unlink()


def changed(bundle: Path, signer: Signer) -> None:
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"tests"', '"others"'))


def revoked(bundle: Path, signer: Signer) -> None:
    signer.revoke()


FAULTS = {
    "signature-missing": (unsigned, True),
    "signer-unknown": (of_an_unknown_key, True),
    "signature-invalid": (changed, False),
    "signer-revoked": (revoked, False),
}
"""What is done to a bundle that may answer, and whether --allow-unsigned lets it."""


def test_what_a_trusted_key_signed_answers(signed, tmp_path):
    bundle, signer = signed
    words = ("--trusted", signer.trusted)
    with Served(tmp_path / "kiosk", bundle, *words, unsigned=False) as served:
        assert served.predict(png()).status == 201
        assert served.get("/v1/model").json["model"]["signer"] == "clinic"
        assert "allow-unsigned" not in served.log.read_text()
        maps = Path(f"/proc/{served.process.pid}/maps").read_text()
        assert "cryptography" not in maps, "only the process that answers loads it"
        assert "cryptography" in Path(f"/proc/{served.child}/maps").read_text()


def test_the_trusted_folder_of_the_state_is_the_default(signed, state, tmp_path):
    bundle, signer = signed
    state.mkdir()
    signer.trusted.rename(state / "trusted")
    with Served(tmp_path / "kiosk", bundle, unsigned=False) as served:
        assert served.get("/v1/model").json["model"]["signer"] == "clinic"


@pytest.mark.parametrize("code", FAULTS)
def test_all_else_is_refused_and_the_page_says_why(signed, tmp_path, code):
    bundle, signer = signed
    do, may_be_allowed = FAULTS[code]
    do(bundle, signer)
    words = ("--trusted", signer.trusted)
    with Served(tmp_path / "kiosk", bundle, *words, unsigned=False, wait=False) as served:
        assert refused(served)["code"] == code
    with Served(tmp_path / "kiosk", bundle, *words, wait=False) as served:
        if not may_be_allowed:
            assert refused(served)["code"] == code
            return
        served.wait_until_ready()
        assert served.predict(png()).status == 201
        assert served.get("/v1/model").json["model"]["signer"] is None
        assert "It answers because of --allow-unsigned." in served.log.read_text()


def test_a_key_that_is_withdrawn_counts_from_the_next_start_of_what_answers(signed, tmp_path):
    bundle, signer = signed
    words = ("--trusted", signer.trusted)
    with Served(tmp_path / "kiosk", bundle, *words, unsigned=False) as served:
        signer.revoke()
        assert served.predict(png()).status == 201
        os.kill(served.child, signal.SIGKILL)
        wait_until(lambda: served.get("/readyz").status == 503)
        assert refused(served)["code"] == "signer-revoked"


def test_a_folder_of_keys_that_is_none(command, frozen, tmp_path):
    words = ("--data", tmp_path / "data", "--trusted", tmp_path / "nothing")
    done = command("serve", frozen, *words)
    assert (done.returncode, "error [key]" in done.stderr) == (1, True)


@pytest.mark.parametrize("code", FAULTS)
def test_listen_refuses_the_same(signed, tmp_path, command, code):
    pytest.importorskip("pynetdicom", reason="the extra dicom listens")
    bundle, signer = signed
    do, may_be_allowed = FAULTS[code]
    do(bundle, signer)
    words = ("listen", bundle, "--out", tmp_path / "node", "--port", 0)
    words += ("--trusted", signer.trusted)
    done = command(*words)
    assert (done.returncode, f"error [{code}]" in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "node").exists()
    if not may_be_allowed:
        assert f"error [{code}]" in command(*words, "--allow-unsigned").stderr
        return
    listening = [sys.executable, "-m", "medimg_edge.cli", *map(str, words), "--allow-unsigned"]
    with subprocess.Popen(listening, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout
        assert process.stderr
        assert "listens on 127.0.0.1" in process.stdout.readline()
        process.terminate()
        assert "warning" in process.stderr.read()
    assert process.returncode == 0


def seconds_until(served: Served, words: str) -> float:
    """From now until the log says it."""
    begin = time.monotonic()
    while words not in served.log.read_text():
        assert time.monotonic() < begin + 60, served.log.read_text()
        assert served.get("/healthz").json == {"status": "alive"}
        time.sleep(0.05)
    return time.monotonic() - begin


HOSTILE = {
    "allocates": "model-refused",
    "works": "model-deadline",
    "loops": "model-refused",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_model_that_would_do_harm_is_stopped_and_the_service_goes_on(
    mean_bundle, rewrite, tmp_path, what
):
    bundle = hostile(mean_bundle, rewrite, getattr(hostile_networks, what))
    with Served(tmp_path / "kiosk", bundle, wait=False) as served:
        assert seconds_until(served, "answering does not start") < STOPPED_SECONDS
        assert refused(served)["code"] == HOSTILE[what]
        assert "ready model" not in served.log.read_text()
        path = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children")
        wait_until(lambda: path.read_text() == "")


def limits(process: int) -> tuple[str, str, int]:
    """The soft and the hard limit of memory of a process, and what it has, in bytes."""
    found = re.search(r"Max data size +(\w+) +(\w+)", Path(f"/proc/{process}/limits").read_text())
    assert found is not None
    status = Path(f"/proc/{process}/status").read_text()
    return found[1], found[2], int(status.partition("VmData:")[2].split()[0]) * 1024


def test_memory_is_limited_while_a_model_is_loaded(mean_bundle, rewrite, tmp_path):
    bundle = hostile(mean_bundle, rewrite, hostile_networks.works)
    with Served(tmp_path / "kiosk", bundle, wait=False) as served:
        wait_until(lambda: limits(served.child)[0] != "unlimited")
        soft, hard, taken = limits(served.child)
        assert hard == "unlimited"
        assert taken - 2**30 < int(soft) - confinement.LOADING_BYTES <= taken


def test_and_less_once_it_answers(bundle, tmp_path):
    with Served(tmp_path / "kiosk", bundle) as served:
        soft, hard, loaded = limits(served.child)
        assert soft == hard
        assert 900 * 2**20 < int(soft) - loaded < 1100 * 2**20


def test_a_limit_that_is_not_for_good():
    script = """
from medimg_edge.kiosk.confinement import limit
limit(100 * 2**20, for_good=False)
try:
    bytearray(200 * 2**20)
except MemoryError:
    limit(400 * 2**20)
    bytearray(200 * 2**20)
    try:
        limit(800 * 2**20)
        bytearray(600 * 2**20)
    except MemoryError:
        print("kept")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "kept\n", done.stderr


@pytest.mark.parametrize(("draw", "error"), CASES)
def test_what_is_rejected_is_answered_by_force_and_says_so(screened, tmp_path, draw, error):
    from medimg_edge.screening import FORCED

    with_golden_set(screened, png(picture()))
    with Served(tmp_path / "kiosk", screened, "--force") as served:
        record = served.predict(png(draw())).json["record"]
        assert record["status"] == "ok"
        assert [each for each in record["warnings"] if each.startswith(FORCED)]


def test_what_is_not_sure_is_referred(mean_bundle, rewrite, tmp_path):
    bundle = with_golden_set(
        mean_bundle([8.0], [-4.0], task="binary", labels=("no", "yes")), png(picture())
    )
    bounds = {risk.key(0.05): (0.0, 1.0), risk.key(0.2): (0.5, 0.5)}
    rewrite(bundle, lambda raw: raw.update(risks={"model.onnx": {"yes": bounds}}))
    image = png(picture())
    for words, stated in (((), None), (("--risk", 0.05), 0.05), (("--risk", 0.2), 0.2)):
        with Served(tmp_path / "kiosk", bundle, *words) as served:
            record = served.predict(image).json["record"]
            assert (record["decision"] == "refer") == (stated == 0.05)
            assert record.get("risk") == stated
            assert served.get("/v1/model").json["model"]["risk"] == stated
    with Served(tmp_path / "kiosk", bundle, "--risk", 0.1, wait=False) as served:
        assert refused(served)["code"] == "risk"


def test_a_station_is_installed_with_them(tmp_path):
    words = [sys.executable, "-m", "medimg_edge.cli", "kiosk", "install", "pneumonia-cxr"]
    words += ["--program", "/opt/medimg-edge/bin/medimg-edge", "--dry-run"]

    def started(*more: str) -> str:
        done = subprocess.run([*words, *more], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return next(each for each in done.stdout.splitlines() if each.startswith("ExecStart="))

    assert "--trusted" not in started()
    assert "--allow-unsigned" not in started()
    with_both = started("--trusted", "/etc/medimg-edge/trusted", "--allow-unsigned")
    assert " --trusted /etc/medimg-edge/trusted --allow-unsigned" in with_both
    done = subprocess.run([*words, "--trusted", "/home/a/keys"], capture_output=True, text=True)
    assert (done.returncode, "trusted keys" in done.stderr) == (1, True)


def test_the_shipped_bundle_is_signed_by_the_release_key(tmp_path):
    with Served(tmp_path / "kiosk", "pneumonia-cxr", unsigned=False) as served:
        assert served.get("/v1/model").json["model"]["signer"] == "medimg-edge"
