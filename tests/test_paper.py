"""Tables for papers: data sets as columns, what is bold, and LaTeX that a strict reader and pdflatex take."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from samples import make_plain, make_record

from plotting import pretty_table
from specdec.errors import UserError
from specdec.ranking.comparisons import BEHIND, BEST, LEVEL, UNDECIDED
from specdec.ranking.statistics import Value
from specdec.ranking.table import Row, Table
from specdec.records.record import identity_path, save_record
from specdec.views.paper import COLUMNS, escaped, latex, markdown, sheet

NAMES = ("dllm_0.05_df_0.45_60_10", "dllm_0.05_sf_8", "ar_None_sf_8")


def row(name: str, speedup: float, standing: str = "") -> Row:
    values = {"speedup_mean": Value(speedup, speedup - 0.25, speedup + 0.25), "acceptance_len": Value(5.0)}
    return Row(name, {"num_questions": 9}, values, rank=1, standing=standing)


def table(title: str, standings: tuple[str, ...] = (BEST, LEVEL, BEHIND)) -> Table:
    rows = [row(name, 4.0 - at, standing) for at, (name, standing) in enumerate(zip(NAMES, standings, strict=True))]
    return Table("A6000 as if Qwen2.5-32B_Instruct", rows, title)


def statements(text: str) -> Iterator[list[str]]:
    """The cells of every line of a tabular."""
    body = text.partition(r"\toprule")[2].partition(r"\bottomrule")[0]
    for line in re.sub(r"\\(midrule|cmidrule\(lr\)\{\d+-\d+\})", "", body).split(r"\\"):
        if line.strip():
            yield [cell.strip() for cell in re.split(r"(?<!\\)&", line)]


def require_sound(text: str) -> None:
    """Braces and dollars pair, environments nest, every line has as many cells as there are columns."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0 and len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    open_ones: list[str] = []
    for verb, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if verb == "begin":
            open_ones.append(name)
        else:
            assert open_ones.pop() == name
    assert not open_ones and not re.search(r"[^\x00-\x7f]", text), "what pdflatex may not know is spelled out"
    spec = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert spec is not None
    for cells in statements(text):
        spans = [int(found[1]) if (found := re.match(r"\\multicolumn\{(\d+)\}", cell)) else 1 for cell in cells]
        assert sum(spans) == len(spec[1]), cells


@pytest.mark.parametrize("columns", [(), ("speedup_mean", "acceptance_len"), ("acceptance_len",)])
@pytest.mark.parametrize("titles", [("gsm8k",), ("gsm8k", "MATH_500 & more", "mmlu 50%")])
def test_latex_is_sound(titles: tuple[str, ...], columns: tuple[str, ...]) -> None:
    text = latex(*map(table, titles), columns=columns)
    require_sound(text)
    assert r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}" in text, "never wider than the column"
    assert text.count(r"\label{tab:gsm8k") == 1 and text.index(r"\caption") < text.index(r"\label")


def test_the_strict_reader_bites() -> None:
    sound = latex(table("gsm8k"))
    for broken in (sound.replace(" & ", " ", 1), sound.replace("}", "", 1), sound.replace(r"\end{tabular}", "", 1)):
        with pytest.raises(AssertionError):
            require_sound(broken)


def test_data_sets_are_columns_and_the_best_are_bold() -> None:
    tables = table("gsm8k"), replace(table("math", (BEST, BEHIND, BEHIND)), rows=table("math").rows[:2])
    head, *rows = statements(latex(*tables))
    assert head == ["drafter", "gsm8k", "math"]
    assert rows[0] == [
        r"FailFast $\tau$ 0.45, $N_{\max}$ 60, N 10",
        *[r"\textbf{4.00$\times$} {\scriptsize (3.75 to 4.25)}"] * 2,
    ]
    assert rows[1][1].startswith(r"\textbf{3.00") and rows[2][1].startswith("2.00")
    assert rows[2][2] == "-", "this data set lacks the drafter"
    text = latex(*tables)
    assert "bold: the first, and what is not shown to be behind it" in text and "95\\% intervals" in text
    page = markdown(*tables)
    assert "| drafter | gsm8k, speedup, mean" in page and "**4.00×** (3.75 to 4.25)" in page


def test_nothing_is_bold_where_nothing_was_compared() -> None:
    text = latex(table("gsm8k", ("", "", "")))
    assert "textbf" not in text and "bold" not in text
    assert latex(table("gsm8k", (UNDECIDED, UNDECIDED, BEHIND))).count("textbf") == 2


def test_columns_are_chosen_in_their_order() -> None:
    made = sheet([table("gsm8k")], ("acceptance_len", "speedup_mean"))
    assert made.quantities == ["acceptance_len", "speedup_mean"]
    with pytest.raises(UserError, match="choose other --columns"):
        sheet([table("gsm8k")], ("ceiling_share",))
    assert escaped("N_max_2") == r"$N_{\max}$\_2" and set(made.quantities) <= COLUMNS.keys()


def test_the_command_lays_data_sets_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dataset in ("gsm8k", "math"):
        for question in range(2):
            for record in (make_record(question), make_record(question, NAMES[0]), make_plain(question)):
                named = replace(record, identity=replace(record.identity, dataset=dataset))
                save_record(named, identity_path(tmp_path / "r", named.identity))
    out = tmp_path / "x.tex"
    flags = ["--layout", "datasets", "--columns", "speedup_mean", "acceptance_rate"]
    assert pretty_table.main([str(tmp_path / "r"), *flags, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    text = out.read_text(encoding="utf-8")
    require_sound(text)
    assert text.count(r"\begin{table}") == 1 and r"\multicolumn{2}{c}{gsm8k}" in text and r"\cmidrule(lr){2-3}" in text


def test_a_table_that_no_page_holds_is_told_so_and_can_be_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"ar_None_sf_{length}" for length in range(1, pretty_table.PAGE_ROWS + 2)]
    for record in (make_plain(0), *(make_record(0, name) for name in names)):
        save_record(record, identity_path(tmp_path / "r", record.identity))
    out = tmp_path / "x.tex"
    line = [str(tmp_path / "r"), "--out", str(out)]
    assert pretty_table.main(line) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n" and said.err.count("\n") == 1 and "--top N, or --drafters" in said.err
    assert f"a table of {len(names)} rows is longer than a page" in said.err
    assert pretty_table.main([*line, "--top", "3"]) == 0
    assert capsys.readouterr().err == "" and len(list(statements(out.read_text(encoding="utf-8")))) == 4
    assert pretty_table.main([str(tmp_path / "r"), "--out", str(tmp_path / "x.md")]) == 0
    assert capsys.readouterr().err == "", "a page of Markdown has no end"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_pdflatex_takes_it(tmp_path: Path) -> None:
    titles = [f"a rather long name {at}" for at in range(8)]
    tables = latex(table("gsm8k")), latex(*map(table, titles), columns=("speedup_mean", "acceptance_len"))
    lines = [r"\documentclass[twocolumn]{article}", r"\usepackage{booktabs,graphicx}", r"\begin{document}", *tables]
    (tmp_path / "x.tex").write_text("\n".join([*lines, r"Tables \ref{tab:gsm8k}.", r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout
