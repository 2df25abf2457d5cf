"""The pages that people read: links that lead somewhere, tables that are the data's, code that is run."""

from __future__ import annotations

import ast
import contextlib
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from sources import ROOT, project_files, tree_of

import specdec
from scripts import paper, tables
from scripts.cells import document, result
from scripts.findings import NAME
from specdec import cli

PAGES = [*tables.pages(), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
# What a user would have to translate: "is not available", "after", "otherwise", ...
STIFF = re.compile(
    r"to be had|with nothing beside|\bso many\b|\bis no [a-z]+ of\b|\bless best\b|\bnot at hand\b|\bof one's own\b"
)


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def anchors(page: Path) -> set[str]:
    """The places of a page that a link can name, as GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path, text: str) -> list[str]:
    """Links of a page that lead nowhere; those to other sites are not followed."""
    found = []
    for link in LINK.findall(FENCED.sub("", text)):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if link.startswith(("https://", "http://")):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("link", ["no_such_page.md", "docs/engine.md#no-such-heading", "#no-such-heading"])
def test_a_broken_link_is_found(link: str) -> None:
    assert broken(ROOT / "README.md", f"[a](docs/engine.md) [b]({link})") == [link]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_page_can_be_reached_from_the_readme(page: Path) -> None:
    seen, left = set(), [ROOT / "README.md"]
    while left:
        at = left.pop()
        if at.suffix == ".md" and at not in seen:
            seen.add(at)
            links = LINK.findall(at.read_text(encoding="utf-8"))
            left += [(at.parent / link.partition("#")[0]).resolve() for link in links if "://" not in link]
    assert page in seen or page.parent.name == "assets"


@pytest.mark.parametrize("page", tables.pages(), ids=ids)
def test_every_table_is_what_the_script_prints(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert tables.page_with(text) == text, "run: python -m scripts.tables --write"


def test_every_table_is_shown_once() -> None:
    shown = [found[2] for page in tables.pages() for found in tables.BLOCK.finditer(page.read_text(encoding="utf-8"))]
    assert sorted(shown) == sorted(tables.TABLES)


@pytest.mark.parametrize("page", tables.pages(), ids=ids)
def test_no_speedup_is_typed_into_a_page(page: Path) -> None:
    """Outside tables that are made, and code that shows what a command prints."""
    typed = FENCED.sub("", tables.BLOCK.sub("", page.read_text(encoding="utf-8")))
    assert [found for found in re.findall(r"\d\.\d+x\b", typed) if found != "1.00x"] == []


def test_a_changed_number_is_noticed() -> None:
    assert tables.page_with(README.replace("1.00x", "1.01x")) == README
    with pytest.raises(KeyError):
        tables.page_with("<!-- table: unknown -->\n<!-- end of table -->")


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150
    pictures = [ROOT / link for link in LINK.findall(README) if link.endswith(".png")]
    assert pictures and all(0 < picture.stat().st_size < 300_000 for picture in pictures)


def test_the_readmes_python_is_the_example_that_is_run() -> None:
    """test_package runs the docstring's lines."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    example = [line[4:] for line in (specdec.__doc__ or "").splitlines() if line.startswith("    ") or not line]
    assert code.split() == "\n".join(example).split()


def commands(text: str) -> list[list[str]]:
    """The `failfast ...` lines of a page's code, as words, without comments."""
    blocks = "\n".join(FENCED.findall(text)).replace("\\\n", " ")
    lines = re.findall(r"^(?:[A-Z_]+=\S+ )*failfast .*$", blocks, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_have_the_flags_that_pages_give_them(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _, *words in commands(page.read_text(encoding="utf-8")):
        verb = words[:2] if words[0] in ("plot", "profile", "train") else words[:1]
        with contextlib.suppress(SystemExit):
            cli.main([*verb, "--help"])
        known = set(re.findall(r"--\w+", capsys.readouterr().out))
        assert known or verb == ["help"], verb
        assert {word for word in words if word.startswith("--")} <= known, words


def test_pages_are_in_plain_english() -> None:
    for page in PAGES:
        assert STIFF.findall(FENCED.sub("", page.read_text(encoding="utf-8"))) == [], page


@pytest.mark.parametrize("path", project_files(), ids=str)
def test_what_the_program_says_is_in_plain_english(path: Path) -> None:
    said = [node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant)]
    odd = re.compile(r"to be had|with nothing beside|^less $")  # "minus best" is the difference to the best
    assert [text for text in said if isinstance(text, str) and odd.search(text)] == []


# ---- reproducing the paper -----------------------------------------------------------------------------------------


def test_the_papers_runs_name_what_is_there() -> None:
    asked = document(paper.REFERENCE / "paper_runs.json")
    for run in asked["runs"]:
        assert (ROOT / "plotting" / f"{run['figure']}.py").is_file() and paper.num_settings(run) >= 1
        for drafter in run.get("at", {}).values():
            assert run["quantity"] in paper.published(run["targets"][0], drafter), drafter
        assert run.get("at") or run.get("stated")


def test_what_the_page_exports_is_what_its_commands_leave_out() -> None:
    text = (ROOT / "docs" / "reproduce-paper.md").read_text(encoding="utf-8")
    for name, value in document(paper.REFERENCE / "paper_runs.json")["exported"].items():
        assert re.search(rf"^export .*\b{name}={re.escape(value)}( |$)", text, re.MULTILINE)


def test_memory_and_hours_by_hand() -> None:
    asked = document(paper.REFERENCE / "paper_runs.json")
    run = {"script": "microbenchmark_maxlen", "targets": ["Qwen2.5-32B"], "datasets": ["math"]}
    assert paper.num_settings(run) == 7
    assert paper.hours(run, asked) == pytest.approx(8 * 30 * 1024 * 52.6 / 3.6e6)
    billions = 32.76 + 2 * 1.54  # parameters, by the models' cards; keys and values are 0.3 of a GB more
    assert paper.memory_GB("Qwen2.5-32B", asked) == pytest.approx(2 * billions + 0.6, abs=0.5)


# ---- the first hour ------------------------------------------------------------------------------------------------


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_finding_names_commits_and_tests_that_exist() -> None:
    rows = result(NAME)["findings"]
    counts = {"A": 10, "B": 6, "C": 7, "D": 6, "E": 6, "F": 6, "G": 6}
    assert [row["finding"] for row in rows] == [f"{key}{n}" for key in counts for n in range(1, counts[key] + 1)]
    for row in rows:
        assert row["state"] in ("mended", "partly", "open") and row["wrong"]
        assert row["state"] == "open" or (row["commits"] and row["tests"])
        assert row["state"] != "partly" or row["note"]
        assert all(re.fullmatch("[0-9a-f]{7,12}", commit) for commit in row["commits"])
        for name in row["tests"]:
            file, _, test = name.partition("::")
            assert test in names_in(file), name
