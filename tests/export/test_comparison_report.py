from pathlib import Path

import pytest

from medimg_edge.manifest import Task
from medimg_export.answers import answers_of
from medimg_export.comparison import Comparison, common, interval, number
from medimg_export.comparison_report import LISTED, write_comparison_report
from tests.export.answered import answers, compared
from tests.export.page import HOSTILE, Page


def write(path: Path, a, b) -> tuple[Page, Comparison]:
    found = compared(a, b)
    write_comparison_report(path, found, *common(a, b))
    return Page(path.read_text(encoding="utf-8")), found


@pytest.mark.parametrize(("task", "figures"), [("binary", 1), ("multiclass", 3), ("multilabel", 3)])
def test_numbers_of_the_page_are_those_of_the_comparison(tmp_path: Path, task: Task, figures: int):
    page, found = write(tmp_path / "r.html", answers(task, groups=30), answers(task, 1, groups=30))
    sections = [of["id"] for tag, of in page.tags if tag == "section"]
    assert sections == ["differences", "curves", "images"]
    assert sum(tag == "svg" and of.get("role") == "img" for tag, of in page.tags) == figures
    for of in found.findings:
        for change in of.values.values():
            assert number(change.a) in page.words
            assert interval(change.difference).replace("-", "−") in page.words
    assert "independent" in page.words
    for each in found.disagreements:
        assert each.name in page.words
    ids = page.values("id")
    assert len(ids) == len(set(ids))


def test_nothing_is_fetched_and_what_comes_from_outside_is_escaped(tmp_path: Path):
    a, b = answers(), answers(seed=1)
    labels, names = ("normal", HOSTILE), [f"{HOSTILE}{i}" for i in range(90)]
    a, b = (
        answers_of("binary", labels, names, None, of.y, of.p, {HOSTILE: limit})
        for of, limit in ((a, 0.4), (b, 0.5))
    )
    page, found = write(tmp_path / "r.html", a, b)
    assert found.disagreements
    assert page.words.count(HOSTILE) > len(found.disagreements)
    assert not {"script", "link", "img"} & {tag for tag, _ in page.tags}
    assert "http" not in (tmp_path / "r.html").read_text()


def test_more_images_than_fit_are_counted(tmp_path: Path):
    a, b = answers(n=4000), answers(seed=1, n=4000)
    page, found = write(tmp_path / "r.html", a, b)
    more = len(found.disagreements) - LISTED
    assert more > 0
    assert f"{more} more are in comparison.json" in page.words


def test_models_that_decide_alike(tmp_path: Path):
    page, _ = write(tmp_path / "r.html", answers(), answers())
    assert "They decide alike on every image." in page.words
