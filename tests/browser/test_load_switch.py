"""The report's load switch in a real headless Chromium: chosen with the keyboard alone, in every width and light."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_load_report import DATA, write_records
from webdriver import Browser, missing

from specdec.commands import report

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing() or "all there")]
LAST = "return document.querySelectorAll('#engines input').length - 1"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """With loads, and without."""
    results = write_records(tmp_path_factory.mktemp("loads"))
    found = {"with": results / "with.html", "without": results / "without.html"}
    report.run([str(results), "--load", "--out", str(found["with"])])
    report.run([str(results), "--out", str(found["without"])])
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


def open_silent(browser: Browser, page: Path) -> None:
    browser.open("about:blank")
    browser.console(), browser.requests()
    browser.open(page.as_uri())


def is_shown(browser: Browser, selector: str) -> bool:
    return browser.run("return document.querySelector(arguments[0]).offsetParent !== null", selector)


def test_the_keyboard_goes_through_all_loads_and_the_ranking_follows(browser: Browser, pages: dict[str, Path]) -> None:
    told = json.loads(DATA.search(pages["with"].read_text(encoding="utf-8"))[1])["load"]
    open_silent(browser, pages["with"])
    assert not is_shown(browser, "#loads")
    one_at_once = browser.texts("#ranking-table tbody b")
    browser.run("document.querySelector('#engines input').focus()")
    browser.press(*["Right"] * browser.run(LAST))
    assert is_shown(browser, "#loads") and "Under load: H100 (bound)" in browser.texts("#engines span")
    browser.press("Tab")
    for load in told["loads"]:
        assert browser.run("return [document.activeElement.name, document.activeElement.value]") == [
            "load",
            str(load["value"]),
        ]
        first = next(row for row in load["rows"] if row[0] != "plain")
        text = f"{load['headline']['before']}{first[2]:.2f}× as fast as plain decoding"
        assert browser.texts("#headline") == [text] and text.startswith("Simulated, by bounds, ")
        assert browser.texts("#lede code") == [first[0]]
        names, speedups = (browser.texts(f"#ranking-table tbody {tag}") for tag in ("code", "b"))
        assert dict(zip(names, speedups, strict=True)) == {row[0]: f"{row[2]:.2f}×" for row in load["rows"]}
        badges = browser.texts("#ranking-table .badge")
        assert sorted(badges) == sorted(row[1] for row in load["rows"] if row[1] != "behind")
        browser.press("Right")
    assert one_at_once != browser.texts("#ranking-table tbody b")
    assert browser.texts('#ranking-table [data-sort="even"]') == ["Breaks even at"]
    assert not browser.texts('#ranking-table [data-sort="ratio"]')
    assert "–" not in browser.texts('#ranking-table tbody tr:not([data-drafter="plain"]) td:nth-child(5)')  # accepted
    assert told["advice"][0] in browser.texts("#load-note")[0]
    browser.run("document.querySelector('#engines input').click()")
    assert browser.texts("#ranking-table tbody b") == one_at_once and not is_shown(browser, "#loads")
    assert browser.texts('#ranking-table [data-sort="ratio"]')
    assert browser.console() == [] and browser.requests() == [pages["with"].as_uri()]


def test_a_page_without_loads_says_how_to_have_them(browser: Browser, pages: dict[str, Path]) -> None:
    open_silent(browser, pages["without"])
    assert not is_shown(browser, "#loads") and "Under load" not in "".join(browser.texts("#engines span"))
    assert "failfast report RESULTS --load" in browser.texts("#load-note")[0]
    assert browser.console() == []


def test_it_is_as_wide_as_the_window(pages: dict[str, Path], tmp_path: Path) -> None:
    for is_dark in (False, True):
        with Browser(tmp_path / f"{is_dark}", is_dark=is_dark) as browser:
            for width in (400, 1400):
                browser.resize(width, 1000)
                open_silent(browser, pages["with"])
                browser.run("document.querySelectorAll('#engines input')[arguments[0]].click()", browser.run(LAST))
                inner, outer = browser.run("const p = document.documentElement; return [p.scrollWidth, p.clientWidth]")
                assert inner <= outer and is_shown(browser, "#loads"), (width, is_dark)
                colours = browser.run(
                    "const look = (one) => { const s = getComputedStyle(one); return [s.color, s.backgroundColor]; };"
                    "return [...document.querySelectorAll('#loads span')].slice(0, 2).map(look)"
                )
                assert colours[0] != colours[1] and colours[0][0] != colours[0][1]  # which one is chosen can be seen
                assert browser.console() == []
