"""The page, in a real browser, of a real service."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import medimg_edge.kiosk
from medimg_edge import read_image, risk
from medimg_edge.admission import admit
from medimg_edge.kiosk.problems import STATUS
from medimg_edge.manifest import OperatingPoint, decode
from tests.device.browsing import LARGEST, SMALLEST, Page
from tests.device.golden_bundle import with_golden_set
from tests.device.kiosk_images import dicom, png
from tests.device.node_packages import installed
from tests.device.serving import Served

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
FROZEN = ROOT / "tests" / "data" / "frozen-bundle"
TEXTS = json.loads(
    (Path(medimg_edge.kiosk.__file__).parent / "page" / "texts.json").read_text("utf-8")
)
TOKEN = "a-token-that-only-tests-know"
HOSTILE = "<img src=x onerror=window.hit=1>"
A4, LETTER = (8.27, 11.69), (8.5, 11.0)
TARGET = 48
"""The least width and height of what is touched, in CSS pixels."""

TAB, ENTER, SPACE = "\ue004", "\ue007", " "
RIGHT, DOWN = "\ue014", "\ue015"

PIXELS = """
    const done = arguments[arguments.length - 1];
    const [path, index] = arguments;
    const bytes = (canvas) => [...canvas.getContext("2d")
        .getImageData(0, 0, canvas.width, canvas.height).data];
    fetch(path).then((response) => response.blob()).then(createImageBitmap).then((image) => {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [image.width, image.height];
        canvas.getContext("2d").drawImage(image, 0, 0);
        const theirs = bytes(canvas);
        const ours = bytes(document.querySelectorAll("#sheet canvas")[index]);
        const apart = ours.map((each, at) => Math.abs(each - theirs[at]));
        done([ours.length === theirs.length, Math.max(0, ...apart.slice(0, 100000)),
              apart.reduce((sum, each) => sum + each, 0) / apart.length, new Set(ours).size]);
    });
"""

CUT = """
    return [...document.querySelectorAll(
        ".button, select, .switch, .drag label, h1, h2, h3, .state, .banner, summary, legend")]
        .filter((each) => each.checkVisibility() && !each.matches(".unseen"))
        .filter((each) => each.scrollWidth > each.clientWidth + 1
            || each.scrollHeight > each.clientHeight + 2
            || each.getBoundingClientRect().right > innerWidth)
        .map((each) => [each.outerHTML.slice(0, 200), each.scrollWidth, each.clientWidth,
                        each.scrollHeight, each.clientHeight]);
"""

SMALL_TARGETS = """
    return [...document.querySelectorAll("button, select, summary, .switch, .drag label, .slider")]
        .filter((each) => each.checkVisibility())
        .map((each) => [each.outerHTML.slice(0, 200), each.getBoundingClientRect()])
        .filter(([, box]) => box.height < arguments[0] || box.width < arguments[0])
        .map(([html, box]) => [html, box.width, box.height]);
"""

SCROLLS = """
    const { scrollWidth, scrollHeight } = document.scrollingElement;
    return [scrollWidth > innerWidth, scrollHeight > innerHeight];
"""

UNTRANSLATED = """
    const texts = arguments[0];
    const said = [...document.querySelectorAll("[data-text]")]
        .filter((each) => each.textContent !== texts[each.dataset.text]);
    const labelled = [...document.querySelectorAll("[data-label]")]
        .filter((each) => each.getAttribute("aria-label") !== texts[each.dataset.label]);
    return [...said, ...labelled].map((each) => each.outerHTML.slice(0, 200));
"""

STAGE = """
    const { width, height } = document.getElementById("canvas");
    const { data } = document.getElementById("canvas").getContext("2d")
        .getImageData(0, 0, width, height);
    let sum = 0;
    for (let at = 0; at < data.length; at += 4) sum = (sum * 31 + data[at] + data[at + 2]) % 1e9;
    return sum;
"""


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> dict[str, Path]:
    """A healthy and an ill synthetic radiograph, by label."""
    folder = tmp_path_factory.mktemp("phantoms") / "out"
    words = ("data", "phantom", str(folder), "--count", "12", "--size", "256")
    subprocess.run([sys.executable, "-m", "medimg_edge.cli", *words], check=True, timeout=60)
    return {label: next(folder.glob(f"*/{label}/*.png")) for label in ("normal", "opacity")}


@pytest.fixture(scope="module")
def axe(pytestconfig: pytest.Config, tmp_path_factory) -> Path:
    """axe-core's one script."""
    cache = getattr(pytestconfig, "cache", None)  # absent under -p no:cacheprovider
    kept = cache.mkdir("axe-core") if cache else tmp_path_factory.mktemp("npm")
    folder = installed(ROOT / "tests" / "package.json", kept)
    return folder / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    return {"MEDIMG_EDGE_STATE": str(tmp_path_factory.mktemp("state"))}


@pytest.fixture(scope="module")
def inbox(tmp_path_factory, phantoms) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    (folder / f"{HOSTILE}.png").write_bytes(phantoms["opacity"].read_bytes())
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory, environment, inbox) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("kiosk")
    with Served(folder, FROZEN, "--watch", inbox, environment=environment) as it:
        yield it


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Page]:
    with Page(tmp_path_factory.mktemp("profile")) as it:
        yield it


@pytest.fixture
def page(browser: Page, served: Served) -> Iterator[Page]:
    """At home, in English, on the smallest screen."""
    browser.resize(SMALLEST)
    browser.open(served.url)
    yield browser
    assert browser.complaints() == []


def kept(served: Served, page: Page) -> dict[str, Any]:
    """What the record holds of what is open."""
    name = page.run("return location.hash.slice(1)")
    return served.get(f"/v1/predictions/{name}").json


def percent(share: float) -> str:
    if 0.0005 <= share < 0.9995:
        return f"{share * 100:.1f}%"
    return "> 99.9%" if share > 0.5 else "< 0.1%"


def test_a_picture_is_answered(page, served, phantoms):
    page.choose(phantoms["opacity"])
    record = kept(served, page)["record"]
    assert record["decision"] == "positive"
    assert page.text("#headline") == "Signs of opacity likely – refer"
    assert page.text(".number-value") == percent(record["probability"])
    assert page.text(".legend-point") == "operating point 25.2%"
    assert "97.8% of those with opacity" in page.text("#meaning")
    assert page.text("#file-name") == phantoms["opacity"].name
    page.wait(
        "document.querySelector('[role=status]').textContent.includes('Signs of opacity likely')"
    )
    assert page.run("return document.activeElement.id") == "headline"


def test_a_healthy_one_is_not_likely(page, phantoms):
    page.choose(phantoms["normal"])
    assert page.text("#headline") == "Signs of opacity not likely"
    assert "does not rule out an illness" in page.text("#todo")


def test_files_are_sent_without_their_names(page, phantoms):
    page.choose(phantoms["opacity"])
    sent = [
        each["params"]["request"]
        for each in page.events()
        if each["method"] == "Network.requestWillBeSent"
    ]
    assert any(each["method"] == "POST" for each in sent)
    assert phantoms["opacity"].name not in json.dumps(sent)


def test_the_picture_is_drawn_as_the_station_draws_it(page, phantoms, tmp_path):
    deep = np.linspace(0, 4095, 96 * 64).reshape(96, 64).astype(np.uint16)
    window = {"WindowCenter": "2000", "WindowWidth": "1000", "PhotometricInterpretation": None}
    files = {
        "deep.dcm": dicom(deep, **window | {"PhotometricInterpretation": "MONOCHROME1"}),
        "color.png": png(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for path in (phantoms["opacity"], *(tmp_path / name for name in files)):
        page.choose(path)
        name = page.run("return location.hash.slice(1)")
        for index, picture in enumerate(("image", "heatmap?layer=overlay")):
            found = page.driver.execute_async_script(
                PIXELS, f"/v1/predictions/{name}/{picture}", index
            )
            same_size, largest, mean, levels = found
            assert same_size
            assert largest <= 3, (path.name, picture)  # of 255: three roundings of a blend
            assert mean < 0.6, (path.name, picture)
            assert levels > 10, (path.name, picture)


def test_evidence_and_light_are_changed_by_sliders(page, phantoms):
    page.choose(phantoms["opacity"])
    as_it_came, words = page.run(STAGE), page.text("#window")
    for slider in ("heat", "brightness", "contrast"):
        page.find(f"#{slider}").send_keys(RIGHT * 8)
        assert page.run(STAGE) != as_it_came, slider
        page.click("#reset")
        assert page.run(STAGE) == as_it_came, slider
    page.find("#contrast").send_keys(RIGHT * 8)
    assert page.text("#window") != words


def test_the_picture_is_moved_and_enlarged(page, phantoms):
    from selenium.webdriver import ActionChains

    page.choose(phantoms["opacity"])
    as_it_came = page.run(STAGE)
    page.click("#zoom-in")
    larger = page.run(STAGE)
    assert larger != as_it_came
    stage = page.find("#stage")
    ActionChains(page.driver).drag_and_drop_by_offset(stage, 60, 30).perform()
    assert page.run(STAGE) != larger
    page.click("#reset")
    assert page.run(STAGE) == as_it_came
    page.click(".drag label:last-child")
    words = page.text("#window")
    ActionChains(page.driver).drag_and_drop_by_offset(stage, 60, 30).perform()
    assert page.text("#window") != words
    touches = [
        [{"x": 200, "y": 300}, {"x": 300, "y": 300}],
        [{"x": 150, "y": 300}, {"x": 350, "y": 300}],
    ]
    page.click("#reset")
    page.cdp("Input.dispatchTouchEvent", type="touchStart", touchPoints=touches[0])
    page.cdp("Input.dispatchTouchEvent", type="touchMove", touchPoints=touches[1])
    page.cdp("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    assert page.run(STAGE) != as_it_came


def test_a_damaged_file_gives_words_and_no_number(page, served, phantoms, tmp_path):
    path = tmp_path / "damaged.png"
    path.write_bytes(phantoms["opacity"].read_bytes()[:4000])
    page.choose(path)
    assert page.text("#headline") == "Cannot say: the file is damaged or not whole"
    assert "Copy or export the picture again" in page.text("#todo")
    shown = page.text("#answer") + page.text(".viewer")
    assert "%" not in shown
    assert page.run("return document.querySelector('.number, .scale')") is None
    name = page.run("return location.hash.slice(1)")
    page.home()
    page.wait(f"document.querySelector('#history [data-id=\"{name}\"]')")
    assert "%" not in page.text(f'#history [data-id="{name}"]')


def test_no_other_dropped_thing_is_taken(page):
    page.run("""
        const event = new DragEvent("drop", { dataTransfer: new DataTransfer(), bubbles: true });
        event.dataTransfer.items.add(new File(["a"], "a.png"));
        event.dataTransfer.items.add(new File(["b"], "b.png"));
        document.body.dispatchEvent(event);
    """)
    assert page.text("#intake-note") == "One picture at a time: choose one, then the next."
    assert page.run("return document.body.dataset.view") == "home"


def test_a_dropped_picture_is_read(page):
    page.run(
        """
        const bytes = Uint8Array.from(arguments[0]);
        const event = new DragEvent("drop", { dataTransfer: new DataTransfer(), bubbles: true });
        event.dataTransfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
        document.body.dispatchEvent(event);
        """,
        list(png()),
    )
    page.wait("document.body.dataset.view === 'result'")
    assert page.text("#file-name") == "dropped.png"
    assert page.text(".number-value")


def test_one_of_several_pictures_in_a_file(page, served, tmp_path):
    path = tmp_path / "series.dcm"
    frames = np.random.default_rng(1).integers(0, 4096, (3, 64, 64), np.uint16)
    path.write_bytes(dicom(frames))
    page.choose(path)
    assert page.text("#headline") == "Cannot say: the file holds several pictures"
    assert page.text("#frame-range") == "1 to 3"
    page.run("document.getElementById('frame').value = '2'")
    page.click(".frame button")
    page.wait("document.querySelector('.number-value')")
    assert kept(served, page)["record"]["frame"] == 2
    assert "Picture 2 of 3" in page.run("return document.getElementById('details').textContent")


def test_answers_of_today_are_listed_confirmed_and_opened_again(page, served, phantoms):
    page.choose(phantoms["opacity"])
    name, words = page.run("return location.hash.slice(1)"), page.text("#headline")
    page.click("#confirm")
    page.find("#comment").send_keys(f"Seen. {HOSTILE}")
    page.click("#confirm-send")
    page.wait("!document.getElementById('confirmed').hidden")
    assert kept(served, page)["acknowledged"]["comment"] == f"Seen. {HOSTILE}"
    assert HOSTILE in page.text("#confirmed")
    page.choose(phantoms["normal"])
    page.home()
    row = f'#history [data-id="{name}"]'
    page.wait(f"document.querySelector('{row}')")
    page.click("#open-only")
    page.wait(f"!document.querySelector('{row}')")
    assert page.texts("#history .row") != []
    page.click("#open-only")
    page.wait(f"document.querySelector('{row}')")
    page.click(row)
    page.wait("document.body.dataset.view === 'result'")
    assert page.text("#headline") == words
    page.driver.back()
    page.wait("document.body.dataset.view === 'home'")
    page.driver.get(f"{served.url}/#{name}")  # a reload, or a link from elsewhere
    page.driver.refresh()
    page.wait("document.body.dataset.view === 'result'")
    assert page.text("#headline") == words


SLOW = """
    const real = window.fetch;
    window.fetch = async (path, ...rest) => {
      if (String(path).startsWith(arguments[0]) && (rest[0]?.method ?? 'GET') === arguments[1])
        await new Promise((done) => setTimeout(done, arguments[2]));
      return real(path, ...rest);
    };
"""


def test_an_answer_that_comes_late_is_not_shown_over_a_new_one(page, phantoms):
    page.choose(phantoms["opacity"])
    old = page.run("return location.hash.slice(1)")
    page.home()
    row = f'#history [data-id="{old}"]'
    page.wait(f"document.querySelector('{row}')")
    page.run(SLOW, f"/v1/predictions/{old}", "GET", 1500)
    page.click(row)
    page.choose(phantoms["normal"])
    new = page.run("return location.hash.slice(1)")
    assert new != old
    words = page.text("#headline")
    time.sleep(2)
    assert (page.run("return location.hash.slice(1)"), page.text("#headline")) == (new, words)


def test_while_a_picture_is_read_nothing_else_is_shown_or_taken(page, phantoms):
    page.choose(phantoms["opacity"])
    page.home()
    page.wait("document.querySelector('#history .row')")
    page.run(SLOW, "/v1/predictions", "POST", 2000)
    page.find("#file").send_keys(str(phantoms["normal"]))
    page.wait("document.body.dataset.waiting === 'true'")
    assert page.run("return document.getElementById('lists').inert")
    page.find("#file").send_keys(str(phantoms["opacity"]))
    page.wait("document.getElementById('wait-note').textContent")
    assert page.text("#wait-name") == phantoms["normal"].name
    page.wait("document.body.dataset.view === 'result'")
    assert page.text("#file-name") == phantoms["normal"].name
    assert not page.run("return document.getElementById('lists').inert")


def test_an_answer_is_confirmed_once(page, served, phantoms):
    page.choose(phantoms["opacity"])
    before = served.get("/v1/station").json["record"]["entries"]
    page.click("#confirm")
    page.run("for (let i = 0; i < 3; i++) document.getElementById('confirm-send').click()")
    page.wait("!document.getElementById('confirmed').hidden")
    time.sleep(0.5)
    assert served.get("/v1/station").json["record"]["entries"] == before + 1


def test_older_answers_come_when_they_are_asked_for(page, served):
    for _ in range(52):
        assert served.predict(png()).status == 201
    page.driver.refresh()
    page.wait("document.querySelectorAll('#history .row').length === 50")
    assert page.text("#more") == "More"
    page.click("#more")
    page.wait("document.querySelectorAll('#history .row').length > 50")
    entries = served.get("/v1/predictions?limit=200").json["predictions"]
    page.wait("document.querySelectorAll('#history .row').length === arguments[0]", len(entries))
    assert page.text("#more") == "Earlier days"
    page.click("#more")
    page.wait("document.getElementById('more').hidden")
    assert page.text("#history-note") == "Nothing older is kept."


def test_an_image_of_the_watched_folder_is_read_by_the_keyboard_alone(page, served):
    page.wait("document.querySelector('#inbox .row')")
    reach(page, "document.activeElement.matches('#inbox .row')")
    assert is_focus_seen(page)
    page.keys(ENTER)
    page.wait("document.body.dataset.view === 'result'")
    page.wait_for_picture()
    assert kept(served, page)["source"] == "folder"
    as_it_came = page.run(STAGE)
    reach(page, "document.activeElement.id === 'stage'")
    assert is_focus_seen(page)
    for keys in ("+", DOWN):
        before = page.run(STAGE)
        page.keys(keys)
        assert page.run(STAGE) != before, keys
    page.keys("0")
    assert page.run(STAGE) == as_it_came
    reach(page, "document.activeElement.id === 'confirm'")
    page.keys(ENTER)
    page.wait("document.activeElement.id === 'comment'")
    page.keys("by keyboard", TAB)
    reach(page, "document.activeElement.id === 'confirm-send'")
    page.keys(ENTER)
    page.wait("!document.getElementById('confirming').open")
    page.wait("!document.getElementById('confirmed').hidden")
    assert kept(served, page)["acknowledged"]["comment"] == "by keyboard"
    reach(page, "document.activeElement.id === 'next'")
    page.keys(SPACE)
    page.wait("document.body.dataset.view === 'home' && document.activeElement.id === 'choose'")
    reach(page, "document.activeElement.matches('#history .row')")
    page.keys(ENTER)
    page.wait("document.body.dataset.view === 'result'")


def test_a_file_is_chosen_by_the_keyboard(page):
    page.cdp("Page.enable")
    page.cdp("Page.setInterceptFileChooserDialog", enabled=True)
    try:
        reach(page, "document.activeElement.id === 'choose'")
        assert is_focus_seen(page)
        page.keys(ENTER)
        page.wait("true")
        opened = [each for each in page.events() if each["method"] == "Page.fileChooserOpened"]
    finally:
        page.cdp("Page.setInterceptFileChooserDialog", enabled=False)
    assert opened


def reach(page: Page, condition: str) -> None:
    """Press Tab until something has the focus."""
    for _ in range(80):
        if page.run(f"return {condition}"):
            return
        page.keys(TAB)
    pytest.fail(f"Tab does not come to: {condition}")


def is_focus_seen(page: Page) -> bool:
    style, width = page.run("""
        const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
        return [outlineStyle, outlineWidth];
    """)
    return style == "solid" and float(width.removesuffix("px")) >= 2


@pytest.mark.parametrize("language", TEXTS)
def test_every_language_says_everything_and_has_room(page, phantoms, tmp_path, language):
    texts = TEXTS[language]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    unsaid = tmp_path / "unsaid.dcm"
    unsaid.write_bytes(dicom(BodyPartExamined=None, BurnedInAnnotation="YES"))
    page.speak(language)
    assert page.run("return document.documentElement.lang") == {"zh": "zh-Hans"}.get(
        language, language
    )
    for path in (None, phantoms["opacity"], broken, unsaid):
        if path:
            page.choose(path)
        assert page.run(UNTRANSLATED, texts) == []
        assert page.run(SCROLLS) == [False, False], path
        assert page.run(CUT) == [], path
        assert page.run(SMALL_TARGETS, TARGET) == [], path
    # The station's own words of care are known in every language.
    assert len(page.texts("#warnings li")) == 2
    assert page.run("return document.querySelector('#warnings [lang]')") is None
    assert page.text("#state") == texts["state.ready"]
    assert page.text("#use") == texts["use.phantom-opacity"]
    page.click("#confirm")
    assert page.run(CUT) == []
    page.click("#confirming [data-close]")
    page.click("#model")
    assert page.run(CUT) == []


def test_the_browsers_language_is_taken_and_another_is_kept(page, served):
    page.open(served.url, language="fr-CA,fr")
    assert page.text("h1") == "Poste de lecture"
    page.open(served.url, language="de-DE,zh-TW")
    assert page.text("h1") == "阅片工作站"
    page.speak("es")
    page.driver.refresh()
    page.wait("document.body.dataset.state === 'ready'")
    assert page.text("h1") == "Estación de lectura"
    page.open(served.url, language="de")
    assert page.text("h1") == "Reading station"


@pytest.mark.parametrize("size", [SMALLEST, (1366, 768), LARGEST])
def test_nothing_of_the_main_flow_has_to_be_scrolled(page, phantoms, size):
    page.resize(size)
    assert page.run(SCROLLS) == [False, False]
    page.choose(phantoms["opacity"])
    assert page.run(SCROLLS) == [False, False]
    for selector in (
        "#headline",
        "#todo",
        ".number-value",
        ".scale",
        "#confirm",
        "#print",
        "#next",
    ):
        assert page.run(
            """
            const { x, y, width, height } = arguments[0].getBoundingClientRect();
            const seen = document.elementFromPoint(x + width / 2, y + height / 2);
            return arguments[0].contains(seen);
            """,
            page.find(selector),
        ), selector


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing_serious(page, axe, phantoms, tmp_path, theme):
    found = {}
    if theme == "light":
        page.click("#theme")
    page.choose(phantoms["normal"])
    page.home()
    page.wait("document.querySelector('#history .row') && document.querySelector('#inbox .row')")
    found["home"] = page.violations(axe)
    for name, data in {
        "broken": b"no picture",
        "unsaid": dicom(BodyPartExamined=None),
        "series": dicom(np.ones((2, 64, 64), np.uint16)),
    }.items():
        path = tmp_path / name
        path.write_bytes(data)
        page.choose(path)
        page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        found[name] = page.violations(axe)
    page.choose(phantoms["opacity"])
    found["answer"] = page.violations(axe)
    page.click("#confirm")
    found["confirm"] = page.violations(axe)
    page.click("#confirming [data-close]")
    page.click("#model")
    found["about"] = page.violations(axe)
    assert {state: each for state, each in found.items() if each} == {}


@pytest.mark.parametrize("paper", [A4, LETTER])
def test_the_print_is_one_page(page, served, phantoms, paper):
    page.choose(phantoms["opacity"])
    printed = page.pdf(*paper)
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) == 1
    box = re.search(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", printed)
    assert box is not None
    assert [float(each) / 72 for each in box.groups()] == pytest.approx(paper, abs=0.02)
    assert printed.count(b"/Subtype /Image") >= 2
    prediction = kept(served, page)
    record = prediction["record"]
    page.cdp("Emulation.setEmulatedMedia", media="print")
    try:
        sheet = page.text("body")
        fits = page.run(
            "const s = document.getElementById('sheet'); "
            "return s.scrollHeight <= s.clientHeight + 1"
        )
    finally:
        page.cdp("Emulation.setEmulatedMedia", media="")
    assert fits
    for words in (
        "Signs of opacity likely – refer",
        percent(record["probability"]),
        "operating point 25.2%",
        record["model"]["name"],
        record["model"]["version"],
        record["model"]["hash"],
        record["artifact"],
        record["runtime"],
        prediction["id"],
        "A demonstration on synthetic radiographs. Never for patients.",
        "Decision support, not a diagnosis.",
        "Date and signature",
    ):
        assert words in sheet, words
    assert "Next picture" not in sheet
    assert phantoms["opacity"].name not in sheet


def test_who_signed_the_model_and_what_risk_is_taken(
    page, mean_bundle, rewrite, environment, tmp_path, phantoms
):
    page.click("#model")
    assert "nobody: this station allows it" in page.text("#about-facts")
    with Served(tmp_path / "shipped", "pneumonia-cxr", environment=environment) as other:
        page.open(other.url)
        page.click("#model")
        facts = page.text("#about-facts")
        assert "Signed by\nmedimg-edge" in facts
        assert "Risk of missing" not in facts
    bundle = mean_bundle([8.0], [-4.0], task="binary", labels=("no", "yes"))
    bounds = {risk.key(0.05): (0.0, 1.0)}
    rewrite(bundle, lambda raw: raw.update(risks={"model.onnx": {"yes": bounds}}))
    words = ("--risk", 0.05)
    with Served(tmp_path / "risk", with_golden_set(bundle), *words, environment=environment) as it:
        page.open(it.url)
        page.click("#model")
        told = "Risk of missing the true answer, at most\n5.0%"
        assert told in page.text("#about-facts")
        page.click("#about [data-close]")
        page.choose(phantoms["opacity"])
        page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert told in page.text("#result")


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_text_of_others_is_shown_as_text(
    page, served, mean_bundle, environment, tmp_path, phantoms
):
    labels = ("healthy", HOSTILE, *(f"a long label of a finding, number {i}" for i in range(12)))
    points = {
        label: OperatingPoint(threshold=0.35, rule="stated", refer=(0.3, 0.4)) for label in labels
    }
    bundle = mean_bundle(
        [1.0, 3.0, *[-1.0] * 12],
        [-3.0, 0.0, *[-1.0] * 12],
        labels=labels,
        intended_use=HOSTILE,
        decision={"model.onnx": points},
    )
    hostile = tmp_path / f"{HOSTILE}.dcm"
    hostile.write_bytes(
        dicom(PatientName=HOSTILE, StudyDescription=HOSTILE, BodyPartExamined=HOSTILE[:16])
    )
    page.wait("document.querySelector('#inbox .row')")
    assert page.texts("#inbox .row-name") == [f"{HOSTILE}.png"]
    page.choose(hostile)
    assert page.text("#file-name") == hostile.name
    assert_plain(page)
    with Served(tmp_path / "kiosk", with_golden_set(bundle), environment=environment) as other:
        page.open(other.url)
        assert page.text("#use") == HOSTILE
        page.choose(phantoms["opacity"])
        assert page.text("#headline") == f"Signs of {HOSTILE} likely – refer"
        assert page.texts(".finding-label")[0] == HOSTILE
        assert len(page.texts(".finding-label")) == 14
        assert page.text("#heat-label option") == HOSTILE
        assert_plain(page)
        printed = page.pdf(*LETTER)
        assert len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) <= 2  # and nothing is cut off
        page.click("#model")
        assert HOSTILE in page.text("#about-facts")
        assert_plain(page)


def assert_plain(page: Page) -> None:
    assert page.run("return document.querySelector('[onerror], img[src=x]')") is None
    assert page.run("return window.hit") is None


def test_labels_of_which_one_is_chosen(page, mean_bundle, environment, tmp_path, phantoms):
    bundle = mean_bundle(
        [3.0, 1.0, 0.0],
        [0.0, 0.0, 0.0],
        task="multiclass",
        labels=("normal", "bacterial", "viral"),
        decision={"model.onnx": {}},
    )
    with Served(tmp_path / "kiosk", with_golden_set(bundle), environment=environment) as served:
        page.open(served.url)
        page.choose(phantoms["opacity"])
        assert page.text("#headline") == "Looks most like: normal"
        assert page.texts(".finding-label") == ["normal", "bacterial pneumonia", "viral pneumonia"]
        before = page.run(STAGE)
        page.run("""
            const choice = document.getElementById("heat-label");
            choice.value = "viral";
            choice.dispatchEvent(new Event("change"));
        """)
        page.wait(f"(() => {{{STAGE}}})() !== arguments[0]", before)


def test_a_token_is_asked_for_and_the_page_tells_how_the_station_is(
    page, axe, environment, tmp_path, phantoms
):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    words = ("--token-file", token)
    with Served(tmp_path / "kiosk", FROZEN, *words, environment=environment, wait=False) as served:
        page.open(served.url, state="sign-in")
        assert page.violations(axe) == []
        page.find("#token").send_keys("another-token-of-someone", ENTER)
        page.wait("document.getElementById('sign-in-wrong').textContent")
        page.find("#token").send_keys(TOKEN, ENTER)
        page.wait("document.body.dataset.state === 'ready'")
        page.choose(phantoms["opacity"])
        assert page.text(".number-value")
        page.driver.refresh()
        page.wait("document.body.dataset.state === 'ready'")
        page.click("#sign-out")
        page.wait("document.getElementById('sign-in').open")
        page.find("#token").send_keys(TOKEN, ENTER)
        page.wait("document.body.dataset.state === 'ready'")
    page.wait("document.body.dataset.state === 'away'")
    page.home()
    assert page.text("#notice-title") == "The page has lost the station"
    assert page.violations(axe) == []


def test_a_station_that_must_not_answer_says_what_to_do(
    page, axe, bundle, rewrite, environment, tmp_path
):
    def change(raw: dict[str, Any]) -> None:
        for case in raw["golden"]:
            case["probability"] = {name: [0.123] for name in case["probability"]}

    rewrite(bundle, change)
    with Served(tmp_path / "kiosk", bundle, environment=environment, wait=False) as served:
        page.open(served.url, state="refused")
        assert page.text("#notice-title") == "The station gives no answers"
        assert "Decide as you would without it" in page.text("#notice")
        assert page.text("#notice-code") == "bundle-golden"
        assert page.violations(axe) == []


def test_every_code_of_the_station_has_words(page):
    script = """
        const done = arguments[arguments.length - 1];
        import("/page/verdict.js").then((verdict) => done(verdict.GROUPS));
    """
    groups = page.driver.execute_async_script(script)
    codes = {code for each in groups.values() for code in each}
    # What the page never asks for, or what only its own mistake could bring about.
    others = {"request-invalid", "method-not-allowed", "key-reused"}
    assert {each.code for each in STATUS} - codes - others == set()
    assert {f"{do}.{group}" for group in groups for do in ("cannot", "do")} <= set(TEXTS["en"])


def test_the_stations_warnings_have_words(page):
    """As the device's own code says them."""
    headers: list[dict[str, Any]] = [
        {"Modality": None, "BodyPartExamined": None, "ViewPosition": None},
        {"Modality": "OT", "BodyPartExamined": "RIB", "ViewPosition": "ELSEWHERE"},
        {"BodyPartExamined": "PHANTASY"},
        {"Modality": "MR", "BodyPartExamined": "KNEE", "ViewPosition": "LL"},
        {"BurnedInAnnotation": "YES", "LossyImageCompression": "01"},
        {"PixelIntensityRelationship": "LIN", "PixelPaddingValue": 0},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"},
        {"WindowCenter": "1", "WindowWidth": "0"},
        {"WindowCenter": "1", "WindowWidth": "2", "VOILUTFunction": "OTHER"},
    ]
    manifest = decode((FROZEN / "manifest.json").read_bytes())
    manifest = msgspec.structs.replace(manifest, view=("AP", "PA"))
    for elements in headers:
        image = read_image(dicom(**elements))
        said = [*image.warnings, *admit(image, manifest, force=True)]
        assert said, elements
        script = """
            const done = arguments[arguments.length - 1];
            import("/page/verdict.js").then((verdict) => done(verdict.warnings(arguments[0])));
        """
        found = page.driver.execute_async_script(script, {"warnings": said})
        assert [words for words, language in found if language is not None] == []
        assert not [words for words, _ in found if "{" in words]


def test_nothing_is_asked_of_another_host(page, phantoms):
    """Of this and all that was done before."""
    page.choose(phantoms["opacity"])
    hosts = page.asked()
    assert hosts
    assert {each.rpartition(":")[0] for each in hosts} == {"127.0.0.1"}
