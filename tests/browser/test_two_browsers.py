"""The report in Chromium and in Firefox, as wide as a telephone and as a screen: nothing cut off, nothing over another
thing, other scripts in their own direction, and a silent console."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import firefox
import pytest
import webdriver
from test_report_page import DRAFTERS, of_categories, record_set, save_page
from written import tokens_of, written

KINDS = {"chromium": (webdriver.Browser, webdriver.missing()), "firefox": (firefox.Firefox, firefox.missing())}
ASKED = ("ما هي عاصمة النمسا؟ أجب في جملتين.", "自転車のブレーキが鳴ります。", "How do I mend a brake? " * 9)
HIGHEST = 190  # pixels of a question's row: its text in a few lines
INSIDE = """
const box = document.querySelector(arguments[0]).getBoundingClientRect();
return [...document.querySelectorAll(arguments[1])].map((one) => one.getBoundingClientRect())
  .filter((one) => one.width && (one.left < box.left || one.right > box.right + 1)).length;
"""
OVERLAPS = """
const parts = document.querySelectorAll('.panel .info, .panel .answer, .panel-head');
const boxes = [...parts].map((one) => one.getBoundingClientRect());
const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
return boxes.filter((one, place) => boxes.some((other, at) => at > place && meet(one, other))).length;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, one with categories, one of questions in other scripts."""
    asked = [
        written(tokens_of(text.encode() * 3), drafter, question_id=number, raw_data={"prompt": text})
        for number, text in enumerate(ASKED)
        for drafter in DRAFTERS
    ]
    own = [replace(one, identity=replace(one.identity, dataset="תיק.jsonl")) for one in asked]
    return save_page(tmp_path_factory.mktemp("page") / "report.html", own + of_categories(record_set("math", 6, 32), 2))


def look(browser: webdriver.Browser, page: Path, width: int) -> None:
    browser.resize(width, 1000)
    browser.open("about:blank")
    browser.open(page.as_uri())
    whole, seen = browser.run("const page = document.documentElement; return [page.scrollWidth, page.clientWidth]")
    assert whole <= seen, width
    assert browser.run(INSIDE, "#ranking .scroll", "#ranking-table td .speedup") == 0, width
    tallest = browser.run(
        "return Math.max(...[...document.querySelectorAll('#question-table tr')].map((one) => one.offsetHeight))"
    )
    assert tallest < HIGHEST, width
    browser.click("#question-table tbody tr:nth-child(1) button.open")
    browser.until("return document.querySelectorAll('.panel .round').length > 0")
    assert browser.run(INSIDE, "#trajectory", ".buttons button, .panel, .answer, .panel select") == 0, width
    assert browser.run(OVERLAPS) == 0, width
    for selector in ("button.open", ".answer", ".asked dd"):
        assert (
            browser.run("return getComputedStyle(document.querySelector(arguments[0])).unicodeBidi", selector)
            == "plaintext"
        )
    browser.click("#close-question")


@pytest.mark.browser
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_whole_at_any_width(kind: str, page: Path, tmp_path: Path) -> None:
    face, is_missing = KINDS[kind]
    if is_missing:
        pytest.skip(is_missing)
    with face(tmp_path, is_dark=True) as browser:
        for width in (400, 1400):
            look(browser, page, width)
        (colour,) = browser.run("return [getComputedStyle(document.body).backgroundColor]")
        assert sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) < 3 * 60
        assert browser.console() == []


@pytest.mark.browser
@pytest.mark.skipif(bool(firefox.missing()), reason=firefox.missing() or "all there")
def test_firefox_does_say_what_is_wrong(tmp_path: Path) -> None:
    """Else a silent console would show nothing."""
    broken = tmp_path / "broken.html"
    broken.write_text("<!doctype html><meta charset=utf-8><script>console.warn('careful'); missing()</script>")
    with firefox.Firefox(tmp_path) as browser:
        browser.open(broken.as_uri())
        said = browser.console()
        assert any("missing is not defined" in line for line in said) and any("careful" in line for line in said)
        assert browser.console() == []
