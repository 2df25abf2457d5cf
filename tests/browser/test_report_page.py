"""The HTML report in a real headless Chromium, opened from disk: what a reader sees, clicks and types."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from webdriver import Browser, missing
from written import HOSTILE, reader, tokens_of, written

from specdec.commands.report import report_html
from specdec.latency.pricing import Pricing
from specdec.latency.profile import load_profile
from specdec.ranking.entries import entry_of, merge
from specdec.views.report_page import inert_json

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing() or "all there")]
PRICING = Pricing((load_profile("vLLM_A6000"),))
DRAFTERS = ("plain", "ar_None_sf_8", "ar_None_sf_4", "dllm_0.05_sf_8", "dllm_0.05_df_0.45_60_10_strict")
LONG = (HOSTILE * 40).encode()[:5000]
HALVES = b"half \xe2\x9c of a sign \xf0\x9f"
TEXTS = (b"First, we add 4 and 5.\nThen 9 = 9.", HOSTILE.encode(), LONG, HALVES, b"The end. " * 9)


def save_page(path: Path, records: list) -> Path:
    stats = merge(entry_of(one, PRICING) for one in records)
    path.write_text(report_html(records, stats, reader()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [
        written(tokens_of(text), drafter, question_id=number, raw_data={"question": f"number-{number}-asks {HOSTILE}"})
        for number, text in enumerate(TEXTS)
        for drafter in DRAFTERS
    ]
    return save_page(tmp_path_factory.mktemp("page") / "report.html", records)


@pytest.fixture
def opened(browser: Browser, page: Path) -> Iterator[Browser]:
    """The browser with the page just opened; afterwards the console must have been silent, and nothing asked for."""
    browser.open("about:blank")
    browser.console(), browser.requests()
    browser.open(page.as_uri())
    yield browser
    assert browser.console() == []
    assert browser.requests() == [page.as_uri()]


def open_question(browser: Browser, index: int) -> None:
    browser.click(f'[data-question="{index}"]')
    browser.until("return document.querySelectorAll('.panel .round').length > 0")


def count_elements(browser: Browser) -> int:
    return browser.run("return document.querySelectorAll('*').length")


def drafters(browser: Browser) -> list[str]:
    return browser.texts("#ranking-table tbody td:nth-child(2) code")


def test_the_page_opens_with_the_ranking(opened: Browser) -> None:
    assert sorted(drafters(opened)) == sorted(DRAFTERS)
    assert "plain decoding" in opened.texts("#headline")[0]
    assert opened.texts("#ranking-count") == ["4 of 4 configurations."]
    assert len(opened.texts("#question-table tbody tr")) == len(TEXTS)
    marks = "return document.querySelectorAll('#position-figure polyline, #passes-figure polygon').length"
    assert opened.run(marks) >= 3


def test_titles_sort(opened: Browser) -> None:
    first = drafters(opened)
    opened.click('#ranking-table [data-sort="drafter"]')
    assert drafters(opened) == sorted(first)
    opened.click('#ranking-table [data-sort="drafter"]')
    assert drafters(opened) == sorted(first, reverse=True)
    order = opened.run("return document.querySelector('[data-sort=drafter]').closest('th').getAttribute('aria-sort')")
    assert order == "descending"
    opened.click('#question-table [data-sort="tokens"]')
    tokens = [int(text) for text in opened.texts("#question-table tbody td:nth-child(3)")]
    assert tokens == sorted(map(len, TEXTS), reverse=True)


def test_words_and_kinds_filter(opened: Browser) -> None:
    opened.type("#filter", "dllm sf")
    assert drafters(opened) == ["dllm_0.05_sf_8"]
    opened.run("document.querySelector('#filter').value = ''")
    opened.type("#filter", " ")
    opened.click('#families input[value="ar_sf"]')
    assert not [name for name in drafters(opened) if name.startswith("ar_")]
    opened.type("#question-filter", "number-3 asks")
    assert opened.texts("#question-count") == ["1 of 5 questions."]


def test_the_other_time(opened: Browser) -> None:
    before = opened.texts("#lede")
    opened.click("#engines label:nth-child(2)")
    assert "Measured time" in opened.texts("#lede")[0] and opened.texts("#lede") != before


@pytest.mark.parametrize("index", range(len(TEXTS)))
def test_a_question_shows_its_text_whatever_it_is(opened: Browser, index: int) -> None:
    """Each panel's kept tokens are the answer, character by character; rejected ones are struck out."""
    open_question(opened, index)
    pieces, _ = reader().read(tokens_of(TEXTS[index]))
    shown = opened.run(
        "return [...document.querySelectorAll('.answer')].map((answer) =>"
        " [...answer.querySelectorAll('.t')].filter((one) => !one.closest('del')).map((one) => one.textContent))"
    )
    assert shown == [[piece.text for piece in pieces]] * 2
    line = opened.run("return getComputedStyle(document.querySelector('.answer del')).textDecorationLine")
    assert line == "line-through"
    assert opened.run("return document.querySelectorAll('.answer ins').length") > 0
    assert opened.run("return document.querySelectorAll('.answer script, .answer img, h2 script').length") == 0


def test_halves_of_characters_are_marked(opened: Browser) -> None:
    open_question(opened, TEXTS.index(HALVES))
    assert {"E2", "9C", "F0", "9F"} <= set(opened.texts(".answer .part"))


def span_of_current(browser: Browser, panel: int) -> tuple[int, int]:
    """Which tokens of the answer a panel's marked round wrote: from, and up to."""
    return tuple(
        browser.run(
            """const answer = document.querySelector(`.panel:nth-child(${arguments[0]}) .answer`);
            const current = answer.querySelector('.current');
            const kept = [...answer.querySelectorAll('.t')].filter((one) => !one.closest('del'));
            const own = kept.filter((one) => current.contains(one));
            return [kept.indexOf(own[0]), kept.indexOf(own[0]) + own.length]""",
            panel,
        )
    )


def test_panels_stay_on_the_same_text_when_a_drafter_is_switched(opened: Browser) -> None:
    open_question(opened, TEXTS.index(LONG))
    opened.click(".panel:nth-child(1) .round:nth-child(40)")
    begin, end = span_of_current(opened, 1)
    assert 39 <= begin < end
    first, last = span_of_current(opened, 2)
    assert first <= begin < last
    opened.run(
        "const select = document.querySelector('.panel:nth-child(2) select');"
        "select.value = 'plain'; select.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    assert span_of_current(opened, 2) == (first, first + 1)
    assert f"Round {first + 1} of {len(LONG)}: the target's own token" in opened.texts(".panel:nth-child(2) .info")[0]
    assert not opened.texts(".panel:nth-child(2) del")
    opened.press("Tab")
    opened.click(".panel:nth-child(2) .round:nth-child(9)")
    first, last = span_of_current(opened, 1)
    assert first <= 8 < last


def test_the_keyboard_is_enough(opened: Browser) -> None:
    opened.run("document.querySelector('[data-question=\"4\"]').focus()")
    opened.press("Enter")
    opened.until("return document.querySelectorAll('.panel .round').length > 0")
    opened.press("Right", "Right")
    assert opened.texts(".panel:nth-child(1) .info")[0].startswith("Round 3 of ")
    opened.press("End")
    last = opened.texts(".panel:nth-child(1) .info")[0].split(":")[0].split(" of ")
    assert last[0] == f"Round {last[1]}"
    opened.press("Escape")
    opened.until("return !document.querySelector('#trajectory').open")
    assert opened.run("return document.activeElement.dataset.question") == "4"
    opened.run("document.querySelector('[data-sort=acceptance]').focus()")
    opened.press("Enter")
    assert opened.run("return document.activeElement.dataset.sort") == "acceptance"


def test_next_question_and_hidden_tokens(opened: Browser) -> None:
    open_question(opened, 0)
    title = opened.texts("#trajectory-title")
    opened.click("#next-question")
    opened.until("return document.querySelectorAll('.panel .round').length > 0")
    assert opened.texts("#trajectory-title") != title
    opened.click("#show-rejected")
    assert opened.run("return getComputedStyle(document.querySelector('.answer del')).display") == "none"


def test_only_the_opened_question_is_unpacked(opened: Browser) -> None:
    assert opened.run("return document.querySelectorAll('.answer').length") == 0
    open_question(opened, 0)
    opened.click("#close-question")
    opened.until("return document.querySelectorAll('.answer').length === 0")  # the page hears of it a moment later


# ---- what the page says is true, whatever the numbers ----------------------------------------------------------------


def changed(page: Path, to: Path, change: Callable[[dict], None]) -> Path:
    """The page with other data in it; its program stays as it is."""
    before, start, rest = page.read_text(encoding="utf-8").partition('<script type="application/json" id="data">')
    text, end, after = rest.partition("</script>")
    data = json.loads(text)
    change(data)
    to.write_text(before + start + inert_json(data) + end + after, encoding="utf-8")
    return to


def test_intervals_keep_their_sign(browser: Browser, page: Path, tmp_path: Path) -> None:
    """Random differences, many with intervals across 0: what the card says is minus the row's own, ends exchanged."""
    rng = random.Random(7)
    asked = []
    for _ in range(40):
        value, reach = rng.uniform(-2, 0.5), rng.choice((0.001, 0.3, 3.0)) * rng.random()
        asked.append((value, value - reach, value + reach))

    def change(data: dict) -> None:
        (first, *_) = data["ranking"]["engines"]
        made = []
        for index, (value, low, high) in enumerate(asked):
            rows = [dict(row) for row in first["rows"]]
            own = next(row for row in rows if row["drafter_name"] == "ar_None_sf_8")
            own |= {"to_best_value": value, "to_best_low": low, "to_best_high": high, "rank": 2}
            rows = sorted(rows, key=lambda row: row["drafter_name"] == "ar_None_sf_8")
            rows[0]["rank"] = 1
            made.append(first | {"engine": f"E{index}", "rows": rows, "ar_baseline": "ar_None_sf_8"})
        data["ranking"]["engines"] = made
        data["engines"] = [{"name": one["engine"], "title": one["engine"], "is_measured": False} for one in made]

    browser.open(changed(page, tmp_path / "report.html", change).as_uri())
    for index, (value, low, high) in enumerate(asked):
        browser.run("document.querySelectorAll('#engines input')[arguments[0]].click()", index)
        (said,) = [text for text in browser.texts("#cards small") if "behind" in text]
        numbers = re.findall(r"−?\d+\.\d\d", said.partition(",")[2])
        assert [float(one.replace("−", "-")) for one in numbers] == pytest.approx([-value, -high, -low], abs=0.0051)
        assert not any(one == "−0.00" for one in numbers)
    assert browser.console() == []


def record_set(dataset: str, num_questions: int, num_tokens: int) -> list:
    made = [
        written(tokens_of("The sum is 12. " * 3)[:num_tokens], drafter, question_id=number)
        for number in range(num_questions)
        for drafter in DRAFTERS
    ]
    return [replace(one, identity=replace(one.identity, dataset=dataset, max_new_tokens=num_tokens)) for one in made]


@pytest.mark.parametrize("num_questions", [4, 6])
def test_nothing_is_fastest_without_evidence(browser: Browser, tmp_path: Path, num_questions: int) -> None:
    """4 questions have no intervals; 6 have, and drafters that look alike."""
    browser.open(save_page(tmp_path / "report.html", record_set("gsm8k", num_questions, 40)).as_uri())
    (said,) = browser.texts("#headline")
    assert said.startswith("Modelled, as if Qwen2.5-32B-Instruct under vLLM_A6000: ")
    assert ("Too few questions to say (4; at least 5 needed)".lower() in said) == (num_questions == 4)
    assert "fastest" not in said and "plain decoding" in said
    badges = browser.texts("#ranking-table .badge")
    assert not badges if num_questions == 4 else badges[0] == "undecided" and "best" not in badges
    assert browser.console() == []


def test_data_sets_are_switched(browser: Browser, tmp_path: Path) -> None:
    records = record_set("gsm8k", 6, 40) + record_set("math", 5, 32)
    browser.open(save_page(tmp_path / "report.html", records).as_uri())
    assert browser.texts("#scopes label") == ["All together", "gsm8k, 40 tokens", "math, 32 tokens"]
    assert browser.texts("#scope")[0].lower() == (
        "target bundled: gsm8k, 6 questions, up to 40 tokens; math, 5 questions, up to 32 tokens"
    )
    assert "11 questions of all data sets together" in browser.texts("#lede")[0]
    browser.click("#scopes label:nth-child(3)")
    assert "5 questions of math, up to 32 tokens" in browser.texts("#lede")[0]
    assert browser.texts("#question-count") == ["5 of 11 questions."]
    assert browser.console() == []


def test_dark_mode(page: Path, tmp_path: Path) -> None:
    with Browser(tmp_path, is_dark=True) as dark:
        dark.open(page.as_uri())
        colour = dark.run("return getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) < 3 * 60


def test_30_questions_of_40_drafters_and_1024_tokens(browser: Browser, tmp_path: Path) -> None:
    """Under 10 MB; opened, and a question unpacked, with few of 1.2 million tokens drawn. Seconds are printed."""
    rng, names = random.Random(1), [f"dllm_0.05_sf_{size}" for size in range(1, 41)]
    texts = [rng.choices(range(300, 4000), k=1024) for _ in range(30)]
    records = [written(text, name, question_id=i) for i, text in enumerate(texts) for name in ["plain", *names]]
    page = save_page(tmp_path / "report.html", records)
    assert page.stat().st_size < 10e6
    begin = time.perf_counter()
    browser.open(page.as_uri())
    browser.until("return document.querySelectorAll('#ranking-table tbody tr').length === 41")
    seconds, num_opened = time.perf_counter() - begin, count_elements(browser)
    begin = time.perf_counter()
    open_question(browser, 0)
    unpacking = time.perf_counter() - begin
    num_unpacked = count_elements(browser)
    print(f"{page.stat().st_size / 1e6:.1f} MB, opened in {seconds:.2f} s, a question in {unpacking:.2f} s")
    assert num_opened < 5_000 and num_unpacked < num_opened + 20_000
    assert browser.console() == []


# ---- categories, one drafter closer, and room for it all -------------------------------------------------------------

WIDTHS = (400, 1400, 1440)


def of_categories(records: list, num_rows: int = 5) -> list:
    """The records with categories, `num_rows` rows of each."""
    names = ("writing", "<b>roleplay", "")
    return [
        replace(one, raw_data={"question": "?", "category": names[one.question_id // num_rows % 3]}) for one in records
    ]


def choose(browser: Browser, selector: str, value: str) -> None:
    script = "const s = document.querySelector(arguments[0]); s.value = arguments[1];"
    browser.run(script + "s.dispatchEvent(new Event('change', {bubbles: true}))", selector, value)


def test_categories_are_switched(browser: Browser, tmp_path: Path) -> None:
    records = of_categories(record_set("spec_bench", 15, 40)) + record_set("gsm8k", 6, 32)
    browser.open(save_page(tmp_path / "report.html", records).as_uri())
    assert browser.texts("#category option") == ["all", "writing", "<b>roleplay", "none"]
    browser.click("#scopes label:nth-child(3)")
    assert browser.texts("#category option") == ["all", "writing", "<b>roleplay", "none"]
    assert "15 questions of spec_bench, up to 40 tokens, 95 %" in browser.texts("#lede")[0]
    together = browser.texts("#ranking-table tbody b")
    choose(browser, "#category", "1")
    assert "5 questions of spec_bench, up to 40 tokens, category <b>roleplay" in browser.texts("#lede")[0]
    assert browser.texts("#ranking-table tbody b") != together
    assert browser.texts("#question-count") == ["5 of 21 questions."]
    choose(browser, "#category", "")
    assert browser.texts("#ranking-table tbody b") == together
    browser.click("#scopes label:nth-child(2)")  # a set without categories
    assert browser.run("return document.querySelector('#categories').hidden") is True
    assert browser.texts("#question-count") == ["6 of 21 questions."]
    assert browser.console() == []


def test_without_categories_there_is_nothing_to_choose(opened: Browser) -> None:
    assert opened.run("return getComputedStyle(document.querySelector('#categories')).display") == "none"


def test_one_drafter_closer(opened: Browser) -> None:
    """Every number of the table is the records', by brute force; the chart has a bar and a mark a position."""
    name = "ar_None_sf_8"
    choose(opened, "#drafter-choice", name)
    turns = [
        turn
        for number, text in enumerate(TEXTS)
        for turn in written(tokens_of(text), name, question_id=number).rounds
        if turn.draft_tokens
    ]
    rows = [row.split("|") for row in opened.run(
        "return [...document.querySelectorAll('#acceptance-table tbody tr')].map((row) =>"
        " [...row.cells].map((cell) => cell.textContent).join('|'))"
    )]  # fmt: skip
    for position, cells in enumerate(rows):
        assert [int(cells[0]), int(cells[1])] == [position, sum(one.accepted_len == position for one in turns)]
        if not position:
            continue
        came = [one for one in turns if one.draft_len >= position and one.accepted_len >= position - 1]
        accepted = [one for one in turns if one.accepted_len >= position]
        assert int(cells[2]) == len(came)
        rates = [float(cell.removesuffix(" %")) for cell in cells[3:]]
        assert rates == pytest.approx([100 * len(accepted) / len(turns), 100 * len(accepted) / len(came)], abs=0.06)
    marks = "return document.querySelectorAll('#acceptance-figure .plot rect').length"
    assert opened.run(marks) == len(rows) - 1
    assert opened.texts("#drafter-facts b")[2].startswith(f"{len(turns)}/")
    opened.click("#engines label:nth-child(2)")  # measured: the choice stays, and times come along
    assert opened.run("return document.querySelector('#drafter-choice').value") == name
    assert any("TTFT" in text for text in opened.texts("#drafter-facts span"))


def test_the_page_is_as_wide_as_the_window(page: Path, tmp_path: Path) -> None:
    """With every column that there is, and the longest names; light and dark; a table alone may be scrolled."""

    def change(data: dict) -> None:
        for engine in data["ranking"]["engines"]:
            for row in [*engine["rows"], engine["plain_row"]]:
                row |= {"ceiling_share": 0.731, "num_graded": 480, "num_correct": 123, "num_checked": 480}
                row["num_degenerate"] = 111

    full = changed(page, tmp_path / "report.html", change)
    for is_dark in (False, True):
        with Browser(tmp_path / f"{is_dark}", is_dark=is_dark) as browser:
            for width in WIDTHS:
                browser.resize(width, 1000)
                browser.open(full.as_uri())
                inner, outer = browser.run(
                    "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
                )
                assert inner <= outer, (width, is_dark)
                inner, outer = browser.run(
                    "const box = document.querySelector('#ranking-table').parentElement;"
                    "return [box.scrollWidth, box.clientWidth]"
                )
                assert inner <= outer or width < 900, (width, is_dark)
            assert browser.console() == []
