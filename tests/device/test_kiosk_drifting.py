"""A kiosk that watches its own record: what it finds, tells Prometheus, and shows on the page."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medimg_edge.drift_records import read
from medimg_edge.kiosk import drifting
from medimg_edge.kiosk.drifting import Answering, Drifting, Found
from medimg_edge.kiosk.ledger import Ledger
from medimg_edge.kiosk.metrics import Metrics
from tests.device.browsing import SMALLEST, Page
from tests.device.drifting import encoded, put_reference, reference, write_images
from tests.device.golden_bundle import with_golden_set
from tests.device.ledger_writing import new
from tests.device.serving import Served

ARTIFACT = "model.onnx"
TEXTS = json.loads((Path(drifting.__file__).parent / "page" / "texts.json").read_text("utf-8"))


FITS = """
    const box = document.getElementById("drift").getBoundingClientRect();
    const choose = document.getElementById("choose").getBoundingClientRect();
    return box.height > 0 && box.right <= innerWidth && choose.bottom <= innerHeight
        && document.scrollingElement.scrollHeight <= innerHeight;
"""


@pytest.fixture
def bundle(mean_bundle, called, tmp_path) -> Path:
    """A network whose probability rises with brightness, and how validation looked to it."""
    folder = mean_bundle([40.0], [-18.8], task="binary", labels=("normal", "opacity"))
    images = write_images(tmp_path / "validation", 240, 120, 0)
    called("infer", images, "-b", folder, "--out", tmp_path / "v.jsonl")
    with_golden_set(folder)
    put_reference(folder, ARTIFACT, reference(read(tmp_path / "v.jsonl")))
    return folder


@pytest.fixture
def told() -> list[dict[str, Any]]:
    """What was logged."""
    return []


@pytest.fixture
def ledger(tmp_path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "kiosk")) as found:
        yield found


@pytest.fixture
def watching(ledger, bundle, told, answering, monkeypatch) -> Drifting:
    """It looks whenever it is asked."""
    monkeypatch.setattr(drifting, "SECONDS", 0.0)
    answering[:] = [Answering(bundle, hash_of(bundle), ARTIFACT)]
    return watch(ledger, told, answering)


@pytest.fixture
def answering() -> list[Answering]:
    """What answers; the last one counts."""
    return []


def watch(ledger: Ledger, told: list[dict[str, Any]], answering: list[Answering]) -> Drifting:
    return Drifting(
        ledger,
        lambda event, **values: told.append({"event": event, **values}),
        lambda: answering[-1] if answering else None,
    )


def hash_of(bundle: Path) -> str:
    from medimg_edge.bundle import Bundle

    return Bundle.open(bundle).hash


def answered(bundle: Path, called: Any, level: float, count: int, seed: int = 1) -> list[bytes]:
    """Records of images about a grey level, by the bundle."""
    folder = bundle.parent / f"{level}-{count}-{seed}"
    out = folder.with_suffix(".jsonl")
    called("infer", write_images(folder, count, level, seed), "-b", bundle, "--out", out)
    return out.read_bytes().splitlines()


def keep(ledger: Ledger, records: list[bytes]) -> None:
    for each in [ledger.append(new(each)) for each in records]:
        each.result()


def test_the_newest_images(watching, ledger, bundle, called, monkeypatch):
    """First too few, then like validation, then darker; the old ones do not count any more."""
    monkeypatch.setattr(drifting, "IMAGES", 120)
    like = answered(bundle, called, 120, 100)
    keep(ledger, like[:40])
    assert watching.found() == Found(40, {}, None)
    keep(ledger, like[40:])
    found = watching.found()
    assert (found.images, found.drift) == (100, None)
    assert {"brightness", "contrast", "sharpness", "probability of opacity"} <= found.psi.keys()
    keep(ledger, answered(bundle, called, 80, 110))
    found = watching.found()
    assert found.images == 120
    assert found.psi["brightness"] > 1
    assert found.drift is not None
    assert (found.drift.number, found.drift.shift, found.drift.images) == (
        "brightness",
        "lower",
        120,
    )
    assert found.drift.message.startswith("The last 120 images: images are darker than those that")


def test_at_most_once_a_minute(watching, ledger, bundle, called, monkeypatch):
    keep(ledger, answered(bundle, called, 80, 60))
    monkeypatch.setattr(drifting, "SECONDS", 0.5)
    found = watching.found()
    assert found.images == 60
    keep(ledger, answered(bundle, called, 80, 5, seed=2))
    assert watching.found() is found
    time.sleep(0.6)
    assert watching.found().images == 65


def test_another_bundle(watching, ledger, bundle, called, rewrite, answering):
    """After an update what the old one answered is not compared."""
    keep(ledger, answered(bundle, called, 80, 60))
    assert watching.found().drift is not None
    old = hash_of(bundle)
    rewrite(bundle, lambda raw: raw.update(version="2"))
    answering.append(Answering(bundle, hash_of(bundle), ARTIFACT))
    assert watching.found() == Found(0, {}, None)
    keep(ledger, answered(bundle, called, 120, 60))
    found = watching.found()
    assert (found.images, found.drift) == (60, None)
    answering.append(Answering(bundle, old, ARTIFACT))  # the folder holds another one by now
    assert watching.found() == Found()


def test_without_a_reference(ledger, frozen, told, answering):
    found = watch(ledger, told, answering)
    assert found.found() == Found()
    answering.append(Answering(frozen, hash_of(frozen), "model.onnx"))
    assert found.found() == Found()
    assert told == []


def test_a_record_that_cannot_be_read(watching, ledger, bundle, called, told):
    """It is said in the log, and the service goes on."""
    import sqlite3

    keep(ledger, answered(bundle, called, 80, 60))
    with closing(sqlite3.connect(ledger.folder / "record.sqlite3")) as connection, connection:
        connection.execute(
            'UPDATE entries SET body = replace(body, \'"status":"ok"\', \'"status":7\')'
        )
    assert watching.found() == Found()
    assert told[0]["event"] == "drift was not looked at"


def test_many_ask_at_a_time(watching, ledger, bundle, called):
    keep(ledger, answered(bundle, called, 80, 60))
    first = watching.found()
    with ThreadPoolExecutor(8) as pool:
        every = list(pool.map(lambda _: watching.found(), range(80)))
    assert {each.psi["brightness"] for each in every} == {first.psi["brightness"]}


def test_a_look_is_cheap(watching, ledger, bundle, called):
    keep(ledger, answered(bundle, called, 120, 100) * 4)
    watching.found()
    began = time.process_time()
    for _ in range(5):
        assert watching.found().images == drifting.IMAGES
    assert (time.process_time() - began) / 5 < 0.5


def test_metrics(watching, ledger, bundle, called):
    metrics = Metrics(
        waiting=lambda: 0,
        is_ready=lambda: True,
        entries=lambda: ledger.entries,
        free_bytes=lambda: 1,
        drift=watching.found,
    )
    assert b"medimg_edge_drift{" not in metrics.text()
    keep(ledger, answered(bundle, called, 80, 60))
    text = metrics.text().decode()
    found = watching.found()
    for name, value in found.psi.items():
        assert f'medimg_edge_drift{{number="{name}"}} {value}\n' in text
    assert "medimg_edge_drift_images 60.0\n" in text
    assert "medimg_edge_drift_found 1.0\n" in text


def sent(served: Served, level: float, count: int) -> None:
    rng = np.random.default_rng(5)
    for _ in range(count):
        assert served.predict(encoded(rng, level), "image/png").status == 201


@pytest.mark.parametrize("level", [80, 120])
def test_the_service(bundle, tmp_path, level):
    """By HTTP: first nothing, and after a look enough images."""
    with Served(tmp_path / "served", bundle) as served:
        sent(served, level, 60)
        state = served.get("/v1/station").json
        text = served.get("/metrics").body.decode()
    assert "medimg_edge_drift_images 60.0\n" in text
    assert 'medimg_edge_drift{number="brightness"}' in text
    if level == 120:
        assert state["drift"] is None
        assert "medimg_edge_drift_found 0.0\n" in text
    else:
        assert state["drift"]["number"] == "brightness"
        assert state["drift"]["shift"] == "lower"
        assert "medimg_edge_drift_found 1.0\n" in text


def test_who_has_not_signed_in_is_told_nothing(bundle, tmp_path):
    token = tmp_path / "token"
    token.write_text("a-token-that-only-tests-know\n")
    token.chmod(0o600)
    with Served(tmp_path / "served", bundle, "--token-file", token) as served:
        assert served.get("/v1/station").json["drift"] is None


@pytest.mark.browser
def test_the_page(bundle, tmp_path):
    """One sentence, in the language of the page, that leaves room for all else."""
    with Served(tmp_path / "served", bundle) as served, Page(tmp_path / "browser") as page:
        sent(served, 80, 60)
        page.open(served.url)
        page.resize(SMALLEST)
        for language, texts in TEXTS.items():
            page.speak(language)
            said = page.run("return document.getElementById('drift').textContent")
            assert said == texts["drift.brightness-lower"].replace("{images}", "60")
            assert page.run(FITS), language


def test_a_word_for_every_number():
    """What drift can be called, and what the page has for it."""
    keys = {key.removeprefix("drift.") for key in TEXTS["en"] if key.startswith("drift.")}
    looks = {
        f"{name}-{shift}"
        for name in ("brightness", "contrast", "sharpness")
        for shift in ("lower", "higher")
    }
    assert keys == looks | {
        "novelty-higher",
        "probability-lower",
        "probability-higher",
        "code",
        "other",
    }
