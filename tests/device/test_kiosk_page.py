"""The page's files as they lie there: texts in every language, and nothing from elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import medimg_edge.kiosk

FOLDER = Path(medimg_edge.kiosk.__file__).parent / "page"
TEXTS = json.loads((FOLDER / "texts.json").read_text("utf-8"))
SCRIPTS = {path.name: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.js"))}
HTML = (FOLDER / "index.html").read_text("utf-8")
STYLES = {path.name: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.css"))}

NAMES = re.compile(r"\{(\w+)\}")
SAME_IN_ALL = re.compile(
    r"label\.|viewer\.window$|wait\.seconds$|details\.ms$|(inbox|source)\.dicom$"
)
MARKUP = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function")


def used() -> set[str]:
    """Keys that are written out in the page; of those that are put together a part, with a star."""
    keys = set(re.findall(r'data-(?:text|label)="([^"]+)"', HTML))
    for script in SCRIPTS.values():
        keys.update(re.findall(r'"([a-z][a-z-]*(?:\.[a-z-]+)+)"', script))
        keys.update(re.findall(r'\bt\("([^"]+)"', script))
        keys.update(f"{each}*" for each in re.findall(r"`([a-z-]+\.)\$\{", script))
        keys.update(f"*{each}" for each in re.findall(r"`\$\{\w+\}(\.[a-z-]+)`", script))
    return keys


@pytest.mark.parametrize("language", TEXTS)
def test_every_language_has_every_text(language):
    assert list(TEXTS[language]) == list(TEXTS["en"])
    assert all(text.strip() for text in TEXTS[language].values())


def test_there_are_the_four_languages():
    assert {code: texts["language"] for code, texts in TEXTS.items()} == {
        "en": "English",
        "zh": "中文",
        "es": "Español",
        "fr": "Français",
    }


@pytest.mark.parametrize("language", TEXTS)
def test_a_text_holds_the_same_values_in_every_language(language):
    def names(key: str, texts: dict[str, str]) -> set[str]:
        return {name.lower() for name in NAMES.findall(texts[key])}

    differing = [
        key for key in TEXTS["en"] if names(key, TEXTS[language]) != names(key, TEXTS["en"])
    ]
    assert differing == []


@pytest.mark.parametrize("language", [each for each in TEXTS if each != "en"])
def test_texts_are_translated(language):
    same = [
        key
        for key, text in TEXTS[language].items()
        if len(text) > 12 and text == TEXTS["en"][key] and not SAME_IN_ALL.match(key)
    ]
    assert same == []


def test_every_key_that_the_page_uses_is_there():
    keys = set(TEXTS["en"])
    exact = {key for key in used() if "*" not in key and not key.startswith("medimg-edge.")}
    missing = {key for key in exact if key not in keys and not is_file(key)}
    # Warnings are named without their beginning in verdict.js.
    assert {key for key in missing if f"warning.{key}" not in keys} == set()


def is_file(key: str) -> bool:
    return (FOLDER / key).is_file()


def test_every_text_is_used():
    words = used()
    starts = tuple(each[:-1] for each in words if each.endswith("*"))
    ends = tuple(each[1:] for each in words if each.startswith("*"))
    unused = {
        key
        for key in TEXTS["en"]
        if key not in words and not key.startswith(starts) and not key.endswith(ends)
    }
    assert unused == {"language"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_reads_markup_or_code(name):
    assert [each for each in MARKUP if each in SCRIPTS[name]] == []


@pytest.mark.parametrize("name", [*SCRIPTS, *STYLES, "index.html", "texts.json", "icon.svg"])
def test_nothing_is_of_another_host(name):
    text = (FOLDER / name).read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"(?:https?:)?//[\w.]+\w/", text) == []
    assert "@import" not in text
    assert "@font-face" not in text


def test_the_html_holds_no_script_and_no_style():
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", HTML) == []
    assert re.findall(r"<script[^>]*>", HTML) == ['<script type="module" src="/page/app.js">']


def test_the_html_holds_no_words_of_its_own():
    """But for its title, and for a browser in which nothing would replace them."""
    body = re.sub(r"<(title|noscript)>.*?</\1>", "", HTML, flags=re.DOTALL)
    assert re.findall(r">[^<>]*\w[^<>]*<", body) == []


def test_every_module_is_one_that_is_there():
    for name, script in SCRIPTS.items():
        for module in re.findall(r'from "([^"]+)"', script):
            assert module.startswith("./"), (name, module)
            assert (FOLDER / module).is_file(), (name, module)
