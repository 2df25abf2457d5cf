"""Rewritings of made-up references: those that keep the value are graded right, those that change it wrong."""

from __future__ import annotations

from collections import Counter

import pytest

from experiments import grading_table
from experiments.rewritings import CHANGING, KEEPING, text_of
from specdec.questions.mathtext import is_same_answer, last_boxed

# One of every kind that the math data sets have.
REFERENCES = (
    "17", "-6", "2750", "84,300", r"61{,}250", r"9,\!450", "0.375", ".62", r"\frac{5}{8}", r"\frac{17}{6}",
    r"-\frac{11}{4}", r"\dfrac{3}{7}", r"\tfrac25", r"4\frac{2}{3}", r"-7\frac{1}{6}", r"3\sqrt{5}", r"\sqrt{7}",
    r"\frac{4\sqrt{3}}{9}", r"6 + 2\sqrt{3}", r"14\pi", r"\frac{7\pi}{12}", "5 - 3i", "-2+9i", r"2^{31}-1",
    "x^2 + 5x - 14", "3y^4-2y+8", "(t-9)(t+2)", r"\frac{x+4}{3}", "y = 3x - 8", "2x - 7y + z + 4 = 0", "n = 23",
    "4, 11", "-3, 8, 19", r"\frac{2}{5}, -7", r"\{2,6,9\}", r"2 \pm \sqrt{11}", "(7,-4)", "(40,300)", "(1, 5, -2)",
    r"\left( \frac{3}{4}, 2 \right)", "[2,9)", r"(-\infty,6]", r"(3,150) \cup (210,340)",
    r"\begin{pmatrix} 4 \\ -7 \end{pmatrix}", r"\begin{pmatrix} 3 & -1 \\ 0 & 8 \end{pmatrix}",
    r"\begin{pmatrix} 2/3 \\ \frac{1}{5} \end{pmatrix}", "304_5", "1101_{2}", r"35\%", r"7.5\%", r"\$12", r"\$4.60",
    r"65^\circ", r"112.5^{\circ}", r"30\text{ miles}", r"8 \mbox{ cm}^2", r"\text{(D)}", "C", r"\text{Lena}",
    r"\text{even}", "2:7", r"7\!:\!05 \text{ p.m.}", r"\tan x", r"\text{B, D}",
)  # fmt: skip


@pytest.mark.parametrize("rewriting", [*KEEPING, *CHANGING], ids=lambda one: one.__name__)
def test_a_rewriting_is_graded_by_what_it_does_to_the_value(rewriting):
    wrong, num_graded = [], 0
    for reference in REFERENCES:
        text = text_of(rewriting, reference)
        if text is not None:
            num_graded += 1
            given = last_boxed(text)
            if (given is not None and is_same_answer(given, reference)) != (rewriting in KEEPING):
                wrong.append((text, reference))
    assert wrong == []
    assert num_graded, "no reference shows this rewriting"


def test_every_reference_is_its_own_answer():
    for reference in REFERENCES:
        assert [other for other in REFERENCES if is_same_answer(other, reference)] == [reference]


def test_the_table_counts_what_is_graded_skipped_and_wrong(monkeypatch):
    monkeypatch.setitem(grading_table.GRADERS, "blind", lambda given, reference: given == reference)
    tables = grading_table.table_of(
        ["ours", "blind"], {"some": Counter({"18": 3, r"\frac{1}{4}": 2, r"\text{red}": 1})}
    )
    row = tables["some"]["as_decimal"]
    assert (row["graded"], row["skipped"]) == (5, 1) and row["wrong"] == {"blind": 5}
    assert row["examples"] == {"blind": [[r"so it is \boxed{18.0}", "18"], [r"so it is \boxed{0.25}", r"\frac{1}{4}"]]}
    total = grading_table.totals(tables, "ours")
    assert total["false_negatives"] == total["false_positives"] == 0 and min(total["kept"], total["changed"]) > 12


def test_the_command_says_what_it_needs(tmp_path, capsys):
    command = ["--data_dir", str(tmp_path), "--graders", "ours"]
    assert grading_table.main(command) == 2 and "gsm8k/test.jsonl" in capsys.readouterr().err
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text('{"question": "q", "answer": "a\\n#### 1,250"}\n')
    assert grading_table.main(command) == 0
    assert '"num_references": {"GSM8K test": 1}' in capsys.readouterr().out.splitlines()[-1]
