"""A node that is killed while images come and results go."""

import random
import sys
import time
from pathlib import Path

import pytest

from tests.device import dicom_peers as peers
from tests.device.dicom_peers import Node, Orthanc, referenced, to_orthanc, wait

KILLS = 20


@pytest.mark.peers
def test_killed_again_and_again(frozen, tmp_path):
    """At random moments of receiving, answering and sending: what was acknowledged has one SR."""
    images = peers.write_images(tmp_path / "images", 200)
    with peers.own_network() as network:
        orthanc = Orthanc(network, tmp_path / "orthanc")
        node = Node(network, frozen, tmp_path / "node", tmp_path / "log", *to_orthanc())
        acknowledged = tmp_path / "acknowledged"
        with acknowledged.open("w") as file:
            modality = network.start(
                sys.executable, Path(peers.__file__), 0.02, *images, stdout=file, stderr=file
            )
        moments = random.Random(7)
        sent, waited = set(), set()
        for _ in range(KILLS):
            time.sleep(moments.uniform(0.05, 0.4))
            node.kill()
            waited.add(bool(node.holds("inbox")))
            sent.add(len(acknowledged.read_text().split()))
            node.start()
        assert modality.wait(timeout=30) == 0
        wait(node.is_done)
        assert node.end() == 0

        assert sorted(acknowledged.read_text().split()) == sorted(each.name for each in images)
        reports = [referenced(each) for each in orthanc.objects(peers.SR)]
        assert sorted(reports) == sorted(f"1.2.3.9.{number}" for number in range(1, 201))
        assert len(orthanc.objects(peers.SC)) == 200
        assert len(node.holds("results")) == 200
        assert node.holds("partial") == []
        assert len(sent) > KILLS // 2, "most kills came while images were being sent"
        assert True in waited, "some came between an acknowledgement and its answer"
