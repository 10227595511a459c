"""The picture of a report: what it shows, as SVG and as PNG."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import cv2
import msgspec
import numpy as np
import pytest

from medimg_edge import drift, drift_plot
from medimg_edge.bundle import Bundle
from medimg_edge.drift import Report
from tests.device.drifting import ARTIFACT, HASH, LABEL, reference, site

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def report() -> Report:
    """Eight weeks: the third has few images, the last two are darker, the last turns many away."""
    rng = random.Random(1)
    bundle = SimpleNamespace(
        manifest=SimpleNamespace(
            name="phantom & co <1>",
            version="1",
            reference={ARTIFACT: reference(site(rng, 600))},
            default_artifact=ARTIFACT,
        ),
        hash=HASH,
    )
    seen = []
    for week in range(8):
        moment = datetime(2026, 8, 3, 9, tzinfo=UTC) + timedelta(weeks=week)
        seen += site(
            rng,
            12 if week == 2 else 120,
            darker=1.5 if week > 5 else 0,
            rejected=0.3 if week == 7 else 0.05,
            time=moment.isoformat(),
        )
    return drift.report({"x": seen}, cast(Bundle, bundle))


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in ET.fromstring(svg).iter(f"{SVG}text")]


def fills(svg: str, name: str) -> list[str]:
    """Colours of the boxes whose title begins so."""
    return [
        each.get("fill", "")
        for each in ET.fromstring(svg).iter(f"{SVG}rect")
        if (title := each.find(f"{SVG}title")) is not None and (title.text or "").startswith(name)
    ]


def test_svg(report):
    svg = drift_plot.draw(report, ".svg").decode()
    said = texts(svg)
    assert "phantom & co <1> 1: images here beside those of its validation" in said
    for panel in ("Brightness, mean grey level", f"Decision on {LABEL}", "validation"):
        assert panel in said
    assert {"W32", "W39"} <= set(said)
    newest = report.periods[-1]
    assert newest.sentence in " ".join(said)
    assert fills(svg, "Week 39 of 2026: brightness") == [drift_plot.LARGE]
    assert fills(svg, "Week 32 of 2026: brightness") == [drift_plot.PLAIN]
    assert fills(svg, "Week 34 of 2026: brightness") == [drift_plot.FEW]
    assert fills(svg, "Week 39 of 2026: not-like-training") == [drift_plot.LARGE]
    brightness = next(each for each in newest.comparisons if each.name == "brightness")
    assert f"{brightness.psi:.2f}" in said


def test_svg_needs_nothing_from_elsewhere(report):
    svg = drift_plot.draw(report, ".svg").decode()
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in svg
    assert "href" not in svg


def test_everything_lies_within(report):
    drawing = drift_plot.arranged(report)
    for each in drawing.shapes:
        assert 0 <= each.x <= drift_plot.WIDTH, each
        assert 0 <= each.y <= drawing.height, each
        if isinstance(each, drift_plot.Box):
            assert each.x + each.width <= drift_plot.WIDTH, each
            assert each.width > 0, each
            assert each.height >= 0, each


def test_words_do_not_lie_on_each_other(report):
    words = [
        each for each in drift_plot.arranged(report).shapes if isinstance(each, drift_plot.Words)
    ]
    boxes = []
    for each in words:
        wide = drift_plot._wide(each.text, each.size)
        left = each.x - {"start": 0, "middle": wide / 2, "end": wide}[each.anchor]
        boxes.append((left, each.y - each.size * 0.7, left + wide, each.y, each.text))
    for number, (left, top, right, bottom, text) in enumerate(boxes):
        for other in boxes[number + 1 :]:
            apart = left >= other[2] or other[0] >= right or top >= other[3] or other[1] >= bottom
            assert apart, (text, other[4])


def test_png(report):
    picture = cv2.imdecode(np.frombuffer(drift_plot.draw(report, ".png"), np.uint8), 1)
    assert picture is not None
    drawing = drift_plot.arranged(report)
    assert picture.shape[1] == 2 * drift_plot.WIDTH
    for name, color in (("Week 39", drift_plot.LARGE), ("Week 32", drift_plot.PLAIN)):
        box = next(
            each
            for each in drawing.shapes
            if isinstance(each, drift_plot.Box) and each.title.startswith(f"{name} of 2026: bright")
        )
        x, y = round(2 * box.x + 4), round(2 * (box.y + box.height) - 3)
        assert tuple(picture[y, x]) == drift_plot._bgr(color)
    assert (picture[20:110, :900] < 128).any(), "the title is there"


def test_png_by_an_older_opencv(report, monkeypatch):
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    picture = cv2.imdecode(np.frombuffer(drift_plot.draw(report, ".png"), np.uint8), 1)
    assert picture is not None
    assert (picture[20:110, :900] < 128).any()


def test_a_report_without_images(report):
    for periods in ((), report.periods[2:3]):
        empty = msgspec.structs.replace(report, periods=periods)
        said = texts(drift_plot.draw(empty, ".svg").decode())
        told = periods[0].sentence if periods else "No image of this bundle."
        assert told in said
        assert drift_plot.draw(empty, ".png")[:4] == b"\x89PNG"


def test_many_periods(report):
    many = msgspec.structs.replace(report, periods=report.periods * 9)
    said = texts(drift_plot.draw(many, ".svg").decode())
    assert "The newest 60 of 72 periods are drawn." in said
    assert len(said) < 200


def test_names_that_mean_something_in_xml(report):
    period = msgspec.structs.replace(report.periods[0], name='<a>"&\x00\x1b.jsonl')
    odd = msgspec.structs.replace(report, periods=(period,))
    assert '<a>"&.jsonl' in texts(drift_plot.draw(odd, ".svg").decode())
    assert drift_plot.draw(odd, ".png")[:4] == b"\x89PNG"
