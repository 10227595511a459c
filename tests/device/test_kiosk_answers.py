"""Answers by a process of their own: what ends it costs one answer."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.errors import (
    BundleMissing,
    Busy,
    ExtraMissing,
    FilesDiffer,
    GoldenMismatch,
    MedimgEdgeError,
    NotFound,
    NotReady,
    PictureGone,
    Unexpected,
)
from medimg_edge.kiosk import keeper
from medimg_edge.kiosk.answers import Answered, Answers, Facts
from medimg_edge.kiosk.pictures import header
from medimg_edge.kiosk.settings import Limits
from medimg_edge.preprocess import percentiles
from medimg_edge.reader import read_image
from medimg_edge.record import encode
from tests.device.kiosk_images import dicom, png


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")

SECONDS = 30
LINES: list[tuple[str, dict[str, Any]]] = []
"""What was logged."""


def log(event: str, **values: Any) -> None:
    LINES.append((event, values))


def children() -> list[int]:
    """The processes that answer which this one has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and b"answers_child" in command and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def child() -> int:
    (found,) = children()
    return found


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def gone(process: int) -> None:
    await until(lambda: process not in children())


@asynccontextmanager
async def started(
    bundle: Path, artifact: str = "auto", force: bool = False, **limits: Any
) -> AsyncIterator[Answers]:
    LINES.clear()
    answers = Answers(
        bundle=bundle,
        artifact=artifact,
        force=force,
        allow_unsigned=True,
        limits=Limits(**limits),
        log=log,
    )
    await answers.start()
    try:
        yield answers
    finally:
        await answers.stop()
        assert children() == []


@asynccontextmanager
async def ready(bundle: Path, **limits: Any) -> AsyncIterator[Answers]:
    async with started(bundle, **limits) as answers:
        await until(lambda: answers.state != "starting")
        answers.require_ready()
        yield answers


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 4 * SECONDS))


def told(answered: Answered) -> dict[str, Any]:
    return json.loads(answered.record)


async def soon(answering: Coroutine[Any, Any, Answered]) -> asyncio.Task[Answered]:
    """It has asked when this returns."""
    task = asyncio.create_task(answering)
    await asyncio.sleep(0)
    return task


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    return [png() for _ in range(6)]


@pytest.fixture(scope="module")
def expected(frozen, images) -> list[float | None]:
    classifier = Classifier(frozen)
    found = [classifier.predict(each).probability for each in images]
    assert len(set(found)) == len(found)
    return found


def test_an_answer_is_the_command_lines(frozen, images):
    def comparable(record: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in record.items() if name != "elapsed_ms"}

    async def test() -> None:
        async with ready(frozen) as answers:
            found = await answers.answer(images[0], name="a name")
            expected = Classifier(frozen).predict(images[0], name="a name").record
            assert comparable(told(found)) == comparable(json.loads(encode(expected)))
            assert (found.status, found.code, found.decision) == ("ok", None, expected.decision)
            assert found.answer_ms >= told(found)["elapsed_ms"] > 0
            assert answers.waiting == 0

    run(test())


def test_what_answers_is_told(frozen):
    async def test() -> None:
        async with started(frozen) as answers:
            with pytest.raises(NotReady):
                await answers.answer(png(), name="x")
            await until(lambda: answers.state == "ready")
            facts, classifier = answers.facts, Classifier(frozen)
            assert facts is not None
            assert (facts.name, facts.version) == (
                classifier.manifest.name,
                classifier.manifest.version,
            )
            assert (facts.hash, facts.artifact) == (classifier.bundle.hash, classifier.artifact)
            assert (facts.runtime, facts.threads) == (classifier.runtime, classifier.threads)
            assert facts.operating_points == classifier.points
            assert facts.metrics == classifier.manifest.artifacts[facts.artifact].metrics
            assert facts.golden.cases == 12
            assert facts.golden.max_difference < 0.05
            assert facts.has_heatmap

    run(test())


def test_images_that_have_no_answer_have_a_record(frozen):
    cases = {
        "input-empty": b"",
        "input-not-an-image": b"<svg>",
        "input-truncated": png()[:-40],
        "blank": png(np.full((64, 64), 9, np.uint8)),
        "too-small": png(np.arange(225, dtype=np.uint8).reshape(15, 15)),
        "wrong-modality": dicom(Modality="CT"),
        "input-unsupported": dicom(np.arange(2 * 64 * 64, dtype=np.uint16).reshape(2, 64, 64)),
    }

    async def test() -> None:
        async with ready(frozen) as answers:
            for code, data in cases.items():
                found = await answers.answer(data, name="x")
                assert found.code == code
                is_rejected = code in ("blank", "too-small", "wrong-modality")
                assert found.status == told(found)["status"]
                assert found.status == ("rejected" if is_rejected else "error")
                assert "probability" not in told(found)
                assert (found.view is not None) == is_rejected  # a person may see it
            assert (await answers.answer(png(), name="x")).status == "ok"

    run(test())


def test_a_frame_is_answered_and_nothing_tells_whose_it_is(frozen):
    both = dicom(np.random.default_rng(1).integers(0, 4096, (2, 64, 64), np.uint16))

    async def test() -> None:
        async with ready(frozen) as answers:
            found = await answers.answer(both, name="x", frame=2)
            assert (told(found)["frame"], told(found)["frames"]) == (2, 2)
            assert found.view is not None
            for personal in (b"MEYER", b"4711", b"1.2.826"):
                assert personal not in found.record + found.view
                assert personal not in repr(LINES).encode()

    run(test())


def test_a_compressed_frame_is_decoded_under_the_limit(frozen):
    pytest.importorskip("gdcm", reason="needs python-gdcm, of the extra dicom")
    path = get_testdata_file("JPGExtended.dcm", download=False)
    data = Path(str(path)).read_bytes()

    async def test() -> None:
        answers = Answers(bundle=frozen, allow_unsigned=True, force=True, limits=Limits(), log=log)
        await answers.start()
        await until(lambda: answers.state == "ready")
        found = await answers.answer(data, name="x")
        await answers.stop()
        assert found.status == "ok", found.record

    run(test())


def test_the_service_does_not_load_what_the_process_does():
    script = (
        "import sys, medimg_edge.kiosk.answers, medimg_edge.kiosk.pictures;"
        "print({'numpy', 'cv2', 'onnxruntime', 'pydicom'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_a_process_that_is_killed_over_an_image_is_replaced_and_the_image_answered(
    frozen, images, expected
):
    async def test() -> None:
        async with ready(frozen) as answers:
            before = child()
            os.kill(before, signal.SIGSTOP)
            asked = [await soon(answers.answer(each, name="x")) for each in images]
            os.kill(before, signal.SIGKILL)
            found = await asyncio.gather(*asked)
            assert [told(each)["probability"] for each in found] == pytest.approx(expected)
            assert child() != before
            assert answers.state == "ready"

    run(test())


def test_an_image_over_which_it_is_killed_again_is_given_up(frozen, images, expected):
    slow = png(np.random.default_rng(3).integers(0, 256, (6000, 6000), np.uint8))

    async def test() -> None:
        async with ready(frozen) as answers:
            data = [slow, *images]
            asked = [await soon(answers.answer(each, name="x")) for each in data]
            for _ in range(2):
                await until(lambda: answers._keeper.child and answers._keeper.child.sent)
                os.kill(child(), signal.SIGKILL)
                await until(lambda: answers._keeper.child is None)
            given_up, *found = await asyncio.gather(*asked)
            assert (given_up.status, given_up.code) == ("error", "answer-stopped")
            assert [told(each)["probability"] for each in found] == pytest.approx(expected)

    run(test())


def test_an_image_sent_behind_one_that_was_killed_has_its_two_tries(frozen, images, expected):
    slow = png(np.random.default_rng(3).integers(0, 256, (6000, 6000), np.uint8))

    async def test() -> None:
        async with ready(frozen) as answers:
            os.kill(child(), signal.SIGSTOP)
            first = await soon(answers.answer(images[0], name="x"))
            behind = await soon(answers.answer(slow, name="x"))
            os.kill(child(), signal.SIGKILL)
            assert told(await first)["probability"] == pytest.approx(expected[0])
            os.kill(child(), signal.SIGKILL)  # the other has just begun, for the first time
            assert (await behind).status == "ok"
            assert [event for event, _ in LINES].count("answering is started anew") == 2

    run(test())


def test_a_service_that_stood_still_blames_no_image(frozen, images, expected):
    large = dicom(np.random.default_rng(5).integers(0, 4096, (1024, 1024), np.uint16))

    async def test() -> None:
        async with ready(frozen, answer_seconds=1) as answers:
            for first in (images[0], large):  # an answer in the pipe; one that does not fit into it
                asked = [await soon(answers.answer(each, name="x")) for each in (first, *images)]
                time.sleep(2)  # nothing is read or timed meanwhile, as when it is stopped
                answered, *found = await asyncio.gather(*asked)
                assert (answered.status, answered.code) == ("ok", None)
                assert [told(each).get("probability") for each in found] == pytest.approx(expected)

    run(test())


@pytest.fixture
def without_collector() -> Iterator[None]:
    """What cycles hold stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collector")
def test_an_image_without_an_answer_is_not_held(frozen):
    async def test() -> None:
        data = png()
        async with ready(frozen, answer_seconds=1) as answers:
            held = sys.getrefcount(data)
            os.kill(child(), signal.SIGSTOP)
            assert (await answers.answer(data, name="x")).code == "answer-stopped"
            await until(lambda: sys.getrefcount(data) == held)
            await until(lambda: answers._keeper.child)
            before = child()
            os.kill(before, signal.SIGSTOP)
            asked = await soon(answers.answer(data, name="x"))
            os.kill(before, signal.SIGKILL)
            await until(lambda: children() not in ([], [before]))
            os.kill(child(), signal.SIGKILL)
            with pytest.raises(NotReady):
                await asked
            del asked
            await until(lambda: sys.getrefcount(data) == held)

    run(test())


def test_a_hang_costs_its_own_answer(frozen, images, expected):
    async def test() -> None:
        async with ready(frozen, answer_seconds=1.5) as answers:
            os.kill(child(), signal.SIGSTOP)
            hung, *asked = [await soon(answers.answer(each, name="x")) for each in images]
            given_up = await hung
            assert (given_up.status, given_up.code) == ("error", "answer-stopped")
            assert "1.5 seconds" in told(given_up)["message"]
            assert given_up.answer_ms >= 1400
            assert given_up.view is None
            found = await asyncio.gather(*asked)
            assert [told(each)["probability"] for each in found] == pytest.approx(expected[1:])
            assert ("answering is started anew", {"ended": "deadline"}) in LINES

    run(test())


def test_memory_is_limited_and_the_next_image_answered(frozen, images, expected):
    large = np.zeros((8000, 7500), np.uint16)
    large[::3, ::5] = 40_000
    bombs = {
        "png": png(large),
        "jpeg": cv2.imencode(".jpg", large.astype(np.uint8))[1].tobytes(),
        "tiff": cv2.imencode(".tiff", large)[1].tobytes(),
        "dicom": dicom(large, BitsStored=16, HighBit=15),
    }

    async def test() -> None:
        async with ready(frozen, memory_bytes=48 * 2**20) as answers:
            for name, bomb in bombs.items():
                found = await answers.answer(bomb, name="x")
                assert found.status == "error", name
                assert found.code == "answer-stopped", (name, found.record)
                after = await answers.answer(images[0], name="x")
                assert told(after)["probability"] == pytest.approx(expected[0])

    run(test())


def test_a_large_image_is_answered_and_its_memory_given_back(frozen):
    large = np.random.default_rng(2).integers(0, 4096, (4000, 4000), np.uint16)

    def resident() -> int:
        status = Path(f"/proc/{child()}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) // 1024

    async def test() -> None:
        async with ready(frozen) as answers:
            before = resident()
            for _ in range(3):
                found = await answers.answer(dicom(large), name="x")
                assert found.view is not None
                assert (header(found.view)["rows"], header(found.view)["bits"]) == (1024, 16)
            assert resident() < before + 60

    run(test())


PARENT = """
import asyncio, sys
from pathlib import Path
from medimg_edge.kiosk import keeper
from medimg_edge.kiosk.answers import Answers
from medimg_edge.kiosk.settings import Limits

async def main():
    answers = Answers(
        bundle=Path(sys.argv[1]),
        allow_unsigned=True,
        limits=Limits(),
        log=lambda *_, **__: None,
    )
    await answers.start()
    while answers.state != "ready":
        await asyncio.sleep(0.01)
    print(answers._keeper.child._process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["idle", "stopped"])
def test_it_ends_with_a_service_that_is_killed(frozen, how):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(frozen)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        process = int(parent.stdout.readline())
        if how == "stopped":
            os.kill(process, signal.SIGSTOP)
        parent.kill()
    try:
        end = time.monotonic() + 2
        while _runs(process):
            assert time.monotonic() < end, "it outlives the service"
            time.sleep(0.02)
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_signal_to_the_whole_service_lets_it_finish(frozen, images):
    async def test() -> None:
        async with ready(frozen) as answers:
            before = child()
            os.kill(before, signal.SIGTERM)
            os.kill(before, signal.SIGINT)
            assert (await answers.answer(images[0], name="x")).status == "ok"
            assert child() == before

    run(test())


def test_a_full_line_is_told_at_once(frozen, images, expected):
    async def test() -> None:
        async with ready(frozen, waiting=4) as answers:
            os.kill(child(), signal.SIGSTOP)
            asked = [await soon(answers.answer(each, name="x")) for each in images]
            assert answers.waiting == 6  # four, and those that were sent
            with pytest.raises(Busy):
                await answers.answer(images[0], name="x")
            os.kill(child(), signal.SIGCONT)
            found = await asyncio.gather(*asked)
            assert [told(each)["probability"] for each in found] == pytest.approx(expected)
            assert found[-1].waited_ms > found[0].waited_ms
            assert answers.waiting == 0
            assert (await answers.answer(images[0], name="x")).status == "ok"

    run(test())


def test_many_large_images_do_not_wait(frozen):
    async def test() -> None:
        async with ready(frozen) as answers:
            os.kill(child(), signal.SIGSTOP)
            asked = [await soon(answers.answer(bytes(40 * 10**6), name="x")) for _ in range(2)]
            with pytest.raises(Busy):
                await answers.answer(bytes(40 * 10**6), name="x")
            os.kill(child(), signal.SIGCONT)
            assert {each.code for each in await asyncio.gather(*asked)} == {"input-not-an-image"}

    run(test())


def test_who_goes_away_does_not_confuse_the_others(frozen, images, expected):
    async def test() -> None:
        async with ready(frozen) as answers:
            os.kill(child(), signal.SIGSTOP)
            asked = [await soon(answers.answer(each, name="x")) for each in images]
            for gone in (0, 1, 3):  # sent, sent, waiting
                asked[gone].cancel()
            await asyncio.sleep(0)
            assert answers.waiting == 5
            os.kill(child(), signal.SIGCONT)
            for at in (2, 4, 5):
                assert told(await asked[at])["probability"] == pytest.approx(expected[at])
            assert answers.waiting == 0
            assert "answering is started anew" not in dict(LINES)
            last = await answers.answer(images[0], name="x")
            assert told(last)["probability"] == pytest.approx(expected[0])

    run(test())


def other_probability(raw: dict[str, Any]) -> None:
    for each in raw["golden"][3]["probability"].values():
        each[0] = 1 - each[0]


def no_golden_set(raw: dict[str, Any]) -> None:
    raw["golden"] = []


@pytest.mark.parametrize("change", [other_probability, no_golden_set])
def test_a_bundle_that_answers_otherwise_here_is_refused(bundle, rewrite, change):
    rewrite(bundle, change)
    run(_refused(bundle, GoldenMismatch))


def test_another_network_is_refused(bundle, rewrite):
    onnx = pytest.importorskip("onnx", reason="onnx, of the export extra, changes the network")
    model = onnx.load(bundle / "model.onnx")
    largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    weights = np.frombuffer(largest.raw_data, np.float32)
    largest.raw_data = (weights * np.float32(0.7)).tobytes()
    onnx.save(model, bundle / "model.onnx")
    rewrite(bundle)
    run(_refused(bundle, GoldenMismatch, artifact="model.onnx"))


def test_a_changed_file_is_refused(bundle):
    data = bytearray((bundle / "model.int8.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.int8.onnx").write_bytes(data)
    run(_refused(bundle, FilesDiffer))


async def _refused(bundle: Path, error: type[MedimgEdgeError], artifact: str = "auto") -> None:
    async with started(bundle, artifact) as answers:
        await until(lambda: answers.state != "starting")
        assert answers.state == "refused"
        assert isinstance(answers.refusal, error)
        assert answers.facts is None
        with pytest.raises(error):
            answers.require_ready()
        with pytest.raises(error):
            await answers.answer(png(), name="x")
        assert answers.refusal.__traceback__ is None  # it would hold every request's frames
        await until(lambda: children() == [])


def test_one_that_is_killed_while_it_loads_is_started_again(frozen, images):
    async def test() -> None:
        async with started(frozen) as answers:
            for _ in range(2):
                await until(children)
                os.kill(killed := child(), signal.SIGKILL)
                await gone(killed)
                assert answers.state == "starting"
            await until(lambda: answers.state == "ready")
            assert (await answers.answer(images[0], name="x")).status == "ok"

    run(test())


def test_one_that_is_killed_while_it_has_nothing_to_do_is_replaced(frozen, images):
    async def test() -> None:
        async with ready(frozen) as answers:
            before = child()
            os.kill(before, signal.SIGKILL)
            await until(lambda: children() not in ([], [before]))
            assert answers.state == "ready"
            assert (await answers.answer(images[0], name="x")).status == "ok"

    run(test())


def test_one_that_does_not_start_any_more_is_told(bundle, images):
    async def test() -> None:
        async with ready(bundle) as answers:
            (bundle / "manifest.json").rename(bundle / "gone.json")
            os.kill(child(), signal.SIGSTOP)
            asked = [await soon(answers.answer(each, name="x")) for each in images]
            os.kill(child(), signal.SIGKILL)
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(each) for each in found} == {BundleMissing}
            assert answers.state == "refused"

    run(test())


def test_images_do_not_wait_long_for_one_that_hangs_while_it_loads(frozen, images, monkeypatch):
    monkeypatch.setattr(keeper, "RESTART_SECONDS", 1)

    async def test() -> None:
        async with ready(frozen) as answers:
            before = child()
            os.kill(before, signal.SIGKILL)
            await until(lambda: children() not in ([], [before]))
            os.kill(child(), signal.SIGSTOP)
            assert (answers._keeper.child, answers.state) == (None, "ready")
            with pytest.raises(NotReady):
                await asyncio.wait_for(answers.answer(images[0], name="x"), SECONDS)
            assert answers.state == "starting"
            os.kill(child(), signal.SIGCONT)
            await until(lambda: answers.state == "ready")
            assert (await answers.answer(images[0], name="x")).status == "ok"

    run(test())


def test_a_native_library_that_cannot_be_loaded_is_told(frozen, tmp_path, monkeypatch):
    (tmp_path / "cv2.abi3.so").write_bytes(b"of another machine")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    run(_refused(frozen, ExtraMissing))
    ((_, values),) = (line for line in LINES if line[0] == "answering does not start")
    assert values["code"] == "extra-missing"
    assert "cv2.abi3.so" in values["message"]


def test_a_fault_of_ours_is_told(frozen):
    def faulty(facts: Facts) -> None:
        raise ZeroDivisionError

    async def test() -> None:
        answers = Answers(
            bundle=frozen, allow_unsigned=True, limits=Limits(), log=log, ready=faulty
        )
        await answers.start()
        await until(lambda: answers.state != "starting")
        with pytest.raises(Unexpected, match="ZeroDivisionError"):
            answers.require_ready()
        await answers.stop()
        assert children() == []

    run(test())


def test_what_waits_when_the_service_stops_has_no_answer(frozen, images):
    async def test() -> None:
        async with ready(frozen) as answers:
            os.kill(child(), signal.SIGSTOP)
            asked = [await soon(answers.answer(each, name="x")) for each in images]
            await answers.stop()
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(each) for each in found} == {NotReady}

    run(test())


def test_pictures_are_drawn(frozen, images):
    async def test() -> None:
        async with ready(frozen) as answers:
            view = (await answers.answer(images[0], name="x")).view
            assert view is not None
            label = header(view)["label"]
            image = decoded(await answers.render(view, "image", None))
            assert np.array_equal(image, decoded(images[0]))
            assert decoded(await answers.render(view, "heat", None)).shape == (64, 64, 4)
            assert decoded(await answers.render(view, "overlay", label)).shape == (64, 64, 3)
            with pytest.raises(NotFound):
                await answers.render(view, "heat", "<script>")
            with pytest.raises(PictureGone):
                await answers.render(view[:-1], "image", None)
            assert (await answers.answer(images[0], name="x")).status == "ok"

    run(test())


def test_a_hang_over_a_picture_costs_that_picture(frozen, images):
    async def test() -> None:
        async with ready(frozen, answer_seconds=1) as answers:
            view = (await answers.answer(images[0], name="x")).view
            assert view is not None
            os.kill(child(), signal.SIGSTOP)
            with pytest.raises(MedimgEdgeError) as stopped:
                await answers.render(view, "image", None)
            assert stopped.value.code == "answer-stopped"
            assert (await answers.render(view, "image", None)).startswith(b"\x89PNG")

    run(test())


def test_a_large_jpeg_is_shown_larger_than_the_network_sees_it(rewrite, tmp_path):
    copy = Path(shutil.copytree(Bundle.open("pneumonia-cxr").path, tmp_path / "bundle"))
    shutil.rmtree(copy / "signatures")
    rewrite(copy, lambda raw: raw["preprocessing"].update(decode="scaled"))
    bundle = Bundle.open(copy)
    needed = bundle.manifest.preprocessing.needed
    noise = np.random.default_rng(4).integers(0, 256, (2400, 1800), np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    seen = read_image(data, needed=needed)
    assert max(seen.size) < 512
    assert percentiles(seen.frames, 1, 99) != percentiles(read_image(data).frames, 1, 99)

    async def test() -> None:
        async with ready(bundle.path, force=True) as answers:
            found = await answers.answer(data, name="x")
            assert found.view is not None
            layout = header(found.view)
            assert (layout["rows"], layout["columns"]) == (1024, 768)
            assert (layout["low"], layout["high"]) == percentiles(seen.frames, 1, 99)

    run(test())
