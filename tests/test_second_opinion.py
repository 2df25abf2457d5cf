"""The second opinion: math-verify in a process of its own, what it is asked, and what happens when it does not end."""

from __future__ import annotations

import ast
import threading
from pathlib import Path

import pytest
from sources import ROOT, imports_anywhere

from specdec.questions import second_opinion
from specdec.questions.mathtext import is_same_answer
from specdec.questions.second_opinion import Verifier

RUNNER = Path("specdec", "questions", "verifying.py")
installed = pytest.mark.skipif(
    not second_opinion.is_installed(), reason="math-verify is not installed (requirements-grade.txt)"
)
# Says "1" to equal answers, and has faults of its own.
FAKE = """
import json, sys, time
print("ready", flush=True)
for line in sys.stdin:
    given, reference = json.loads(line)
    if given == "dies":
        raise SystemExit(1)
    print(int(given.lower() == reference.lower()), flush=True)
"""


@pytest.fixture
def verifier(monkeypatch, tmp_path):
    def made(program: str) -> Verifier:
        runner = tmp_path / "runner.py"
        runner.write_text(program)
        monkeypatch.setattr(second_opinion, "_RUNNER", runner)
        return verifiers.append(Verifier()) or verifiers[-1]

    verifiers: list[Verifier] = []
    yield made
    for one in verifiers:
        one.close()


def test_an_answer_that_ends_the_process_is_wrong_and_the_next_is_judged(verifier):
    fake = verifier(FAKE)
    assert fake.is_same("A", "a") and not fake.is_same("A", "b")
    assert not fake.is_same("dies", "dies")
    assert fake.is_same("B", "b")


def test_threads_ask_one_after_the_other(verifier):
    fake, found = verifier(FAKE), {}

    def ask(n: int) -> None:
        found[n] = fake.is_same(f"x{n}", f"X{n if n % 2 else 0}")

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: bool(n % 2) for n in range(1, 9)}


def test_what_never_starts_is_not_tried_again(verifier, tmp_path):
    fake = verifier("import no_such_package")
    assert not fake.is_same("1", "1")
    (tmp_path / "runner.py").write_text(FAKE)
    assert not fake.is_same("1", "1")


def test_what_says_nothing_is_ended(verifier, monkeypatch):
    monkeypatch.setattr(second_opinion, "WAIT_S", 0.01)
    fake = verifier("import sys\nsys.stdin.read()")
    assert not fake.is_same("1", "1") and fake._process is None


def test_it_is_asked_only_about_formulas_that_ours_does_not_understand(monkeypatch):
    asked: list[tuple[str, str]] = []

    class Asked:
        def is_same(self, given: str, reference: str) -> bool:
            asked.append((given, reference))
            return True

    monkeypatch.setattr(second_opinion, "is_installed", lambda: True)
    monkeypatch.setattr(second_opinion, "VERIFIER", Asked())
    is_same_answer.cache_clear()
    try:
        assert is_same_answer(r"\sum_{k=1}^{4} k", "10")  # ours does not know sums
        assert not is_same_answer("0.7500001", r"\frac{3}{4}")  # ours knows
        assert not is_same_answer("6 squared", "6")  # words
        assert not is_same_answer("5=6", "6")  # two sides, of which the last would be read
        assert not is_same_answer("19_8", "19")  # a base
        assert not is_same_answer(r"\int " * 100, "6")  # too long
    finally:
        is_same_answer.cache_clear()
    assert asked == [(r"\sum_{k=1}^{4} k", "10")]


def test_the_process_needs_nothing_of_the_project_and_never_reads_plain_expressions():
    """math-verify gives those to sympy's parse_expr, which runs them as Python."""
    assert not [name for name in imports_anywhere(RUNNER) if name.startswith("specdec")]
    tree = ast.parse((ROOT / RUNNER).read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert "LatexExtractionConfig" in names and "ExprExtractionConfig" not in names
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "parse"]
    assert calls and all(any(word.arg == "extraction_config" for word in call.keywords) for call in calls)


@installed
@pytest.mark.slow
def test_math_verify_itself():
    verifier = Verifier()
    try:
        assert verifier.is_same(r"\sum_{k=1}^{4} k", "10") and verifier.is_same(r"\int_0^1 2x\,dx", "1")
        assert not verifier.is_same("0.7500001", r"\frac{3}{4}")
        assert not verifier.is_same("9^{9^{9^9}}", "1")
        assert verifier.is_same(r"\frac{6}{8}", "0.75"), "the answer before ended the process, and not this one"
    finally:
        verifier.close()


@installed
@pytest.mark.slow
def test_math_verify_runs_no_text(tmp_path):
    """Every way in which Python could be smuggled in leaves no trace."""
    verifier, trace = Verifier(), tmp_path / "trace"
    code = f"__import__('pathlib').Path('{trace}').touch()"
    try:
        for answer in (code, f"\\text{{{code}}}", f"\\mathrm{{{code}}}", f"x={code}", f"\\operatorname{{{code}}}"):
            verifier.is_same(answer, "1")
            verifier.is_same("1", answer)
    finally:
        verifier.close()
    assert not trace.exists()
