"""``listen`` among its peers: nothing that it acknowledged is lost, and nothing arrives twice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.device import dicom_peers as peers
from tests.device.control_c import hear_control_c
from tests.device.dicom_peers import Node, Orthanc, referenced, to_orthanc, wait


@pytest.fixture
def network():
    with peers.own_network() as network:
        yield network


@pytest.fixture
def images(tmp_path) -> list[Path]:
    return peers.write_images(tmp_path / "images", 4)


@pytest.mark.peers
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_images_in_results_out(secure, network, frozen, images, tmp_path):
    """From a modality and from an archive; the results are with the archive, and here."""
    ours, theirs, scu = to_orthanc(), {}, []
    if secure:
        made = peers.certificates(tmp_path / "tls")
        key, cert, ca = made["our.key"], made["our.crt"], made["ca.crt"]
        ours += ["--tls-cert", cert, "--tls-key", key, "--tls-ca", ca, "--send-tls"]
        theirs = {
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(cert),
            "DicomTlsPrivateKey": str(key),
            "DicomTlsTrustedCertificates": str(ca),
            "DicomTlsRemoteCertificateRequired": True,
        }
        scu = ["+tls", key, cert, "+cf", ca]
    orthanc = Orthanc(network, tmp_path / "orthanc", **theirs)
    if secure:
        ours += ["--keep-results"]
    node = Node(network, frozen, tmp_path / "node", tmp_path / "log", *ours)

    assert network.storescu(images[0], options=scu) == 0
    wait(lambda: orthanc.count() == 2 and node.is_done())
    orthanc.send_to_node(images[1])
    wait(lambda: orthanc.count() == 5 and node.is_done())
    assert node.end() == 0

    reports, captures = orthanc.objects(peers.SR), orthanc.objects(peers.SC)
    assert sorted(map(referenced, reports)) == ["1.2.3.9.1", "1.2.3.9.2"]
    assert len(captures) == 2
    assert {str(each.PatientName) for each in reports + captures} == {peers.PATIENT}
    for folder in node.holds("results"):
        name, model = folder.split("-")
        kept = sorted(os.listdir(node.out / "results" / folder))
        sent = [f"{name}.sc.opacity.dcm", f"{name}.sr.dcm"] if secure else []
        assert kept == [f"{name}.json", *sent], "of what the archive has, as --keep-results says"
        record = json.loads((node.out / "results" / folder / f"{name}.json").read_bytes())
        assert record["model"]["hash"].startswith(model)
        assert record["status"] == "ok"
        line = f"{name}  opacity {record['probability']:.3f}  {record['decision']}"
        assert line in node.said().splitlines()
    everything = node.said() + "".join(map(str, node.out.rglob("*")))
    for secret in ("Nobody", "SECRET", "1970", "1.2.3"):
        assert secret not in everything


@pytest.mark.peers
def test_the_archive_is_away_for_a_while(network, frozen, images, tmp_path):
    node = Node(network, frozen, tmp_path / "node", tmp_path / "log", *to_orthanc())
    assert network.storescu(*images[:2]) == 0
    wait(lambda: len(node.holds("outbox")) == 2 and not node.holds("inbox"))
    assert node.end() == 0
    node.start()
    assert network.storescu(images[2]) == 0
    wait(lambda: len(node.holds("outbox")) == 3)
    assert "ORTHANC@127.0.0.1:14242 does not accept the connection." in node.said()

    orthanc = Orthanc(network, tmp_path / "orthanc")
    wait(node.is_done)
    assert orthanc.count() == 6
    orthanc.stop()
    assert network.storescu(images[3]) == 0
    wait(lambda: len(node.holds("outbox")) == 1)
    orthanc.start()
    wait(node.is_done)
    assert sorted(map(referenced, orthanc.objects(peers.SR))) == [
        f"1.2.3.9.{n}" for n in range(1, 5)
    ]
    assert len(orthanc.objects(peers.SC)) == 4
    assert node.end() == 0
    assert "ORTHANC@127.0.0.1:14242 takes results again." in node.said()


@pytest.mark.peers
def test_the_disk_is_full(frozen, tmp_path):
    """With no reserve, so that it fails wherever it can: in the midst of images and of results."""
    images = peers.write_images(tmp_path / "images", 40, side=256)
    disk = tmp_path / "disk"
    disk.mkdir()
    with peers.own_network(disk, "24m") as network:
        filler = network.seen(disk) / "filler"
        filler.write_bytes(bytes(21 * 10**6))
        node = Node(network, frozen, disk / "node", tmp_path / "log", "--reserve", 0)
        statuses = {each: network.storescu(each) for each in images}
        assert set(statuses.values()) == {0, 0xA7}, "storescu exits with the upper byte"
        refused = [each for each, status in statuses.items() if status]
        accepted = len(images) - len(refused)

        filler.unlink()
        wait(lambda: len(node.holds("results")) == accepted, 70)
        assert network.storescu(*refused[:5]) == 0
        wait(lambda: len(node.holds("results")) == accepted + 5 and node.is_done())
        assert node.end() == 0
        assert node.holds("partial") == []
        for each in node.holds("results"):
            record = network.seen(node.out) / "results" / each / f"{each[:32]}.json"
            assert json.loads(record.read_bytes())["status"] == "ok"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals(number, status, frozen, tmp_path):
    command = [sys.executable, "-m", "medimg_edge.cli", "listen", str(frozen)]
    command += ["--out", str(tmp_path / "node"), "--port", "0", "--aet", "EDGE"]
    command += ["--allow-unsigned"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_control_c,
    )
    assert process.stdout
    line = process.stdout.readline()
    assert line.startswith("EDGE listens on 127.0.0.1, port ")
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "is used by another process" in second.stderr
    process.send_signal(number)
    _, said = process.communicate(timeout=10)
    assert process.returncode == status
    unsigned, ending = said.splitlines()
    assert unsigned.startswith("warning: Not signed")
    assert ending == "Ending: what is not done yet waits for the next start."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--results", "sr,pdf"], "'pdf' is no kind of result; there are sr, sc, json"),
        (["--tls-cert", "a.pem"], "TLS needs --tls-cert, --tls-key and --tls-ca, all three"),
        (["--send-tls"], "--send-tls needs --send-to and the three files"),
    ],
)
def test_contradictions(words, said, called, frozen, tmp_path):
    done = called("listen", frozen, "--out", tmp_path / "node", *words)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "node").exists()


def test_what_a_node_cannot_do(called, frozen, tmp_path, monkeypatch):
    node = tmp_path / "node"
    done = called("listen", frozen, "--allow-unsigned", "--out", node, "--aet", "SEVENTEEN-LETTERS")
    assert (done.returncode, "is no AE title" in done.stderr) == (1, True)
    done = called("listen", frozen, "--allow-unsigned", "--out", node, "--send-to", "ARCHIVE:104")
    assert (done.returncode, "one is AET@HOST:PORT" in done.stderr) == (1, True)
    nobodys = "192.0.2.1"  # RFC 5737
    done = called("listen", frozen, "--allow-unsigned", "--out", node, "--host", nobodys)
    assert (done.returncode, "Cannot listen on 192.0.2.1 port 11112" in done.stderr) == (1, True)
    assert "warning: connections are neither encrypted nor authenticated" in done.stderr
    monkeypatch.setitem(sys.modules, "medimg_edge.dicom.node.service", None)
    done = called("listen", frozen, "--allow-unsigned", "--out", node)
    assert "error [extra-missing]" in done.stderr
    assert "pip install 'medimg-edge[dicom]'" in done.stderr


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_node_whose_thread_ended_ends_with_an_error(called, frozen, tmp_path, monkeypatch):
    from medimg_edge.dicom.node.service import Service

    def work(self) -> None:
        raise SystemExit

    monkeypatch.setattr(Service, "_work", work)
    done = called("listen", frozen, "--allow-unsigned", "--out", tmp_path / "node", "--port", 0)
    assert done.returncode == 1
    assert "error [node]: What answers has ended by itself." in " ".join(done.stderr.split())


def test_systemd_signals_the_node_and_not_what_decodes_for_it():
    unit = Path(__file__).parents[2] / "docs" / "hosts" / "medimg-edge-listen.service"
    assert "KillMode=mixed" in unit.read_text().splitlines()
