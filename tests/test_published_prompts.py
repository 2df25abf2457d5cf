"""Prompts as published: the same characters, rows and orders as the published program, in an identity of their own, and
answers to them graded right.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from samples import make_record, with_settings
from test_problems import GPQA_ROW, MMLU_ROW, ROWS, fake_hub, write_rows

from specdec.commands.run import parse_args
from specdec.config import RunConfig
from specdec.errors import UserError
from specdec.questions.grading import is_correct
from specdec.questions.sets import DATASETS, PUBLISHED, SHORT, Problem, load_problems, make_problem
from specdec.ranking.source import Source
from specdec.records.identity import Identity

PUBLISHED_ROWS = ROWS | {"mmlu": MMLU_ROW | {"category": "maths"}}
RIGHT_FIRST = [GPQA_ROW[name] for name in GPQA_ROW if name.endswith(("Correct Answer", "1", "2", "3"))]
# SHA-256, first 16 digits, of what the published program makes of these rows.
DIGESTS = {
    "aime": "f0e5095d338633d8",
    "math": "36475d72f120c964",
    "gsm8k": "3ac3305dfcb04ef3",
    "gpqa": "49be2594c74adc12",
    "humaneval": "4c85ea97eb44ebb6",
    "mt_bench": "ca9878490090ea52",
    "mmlu": "a549c4b7995b9aa5",
}


def published(dataset: str, row: dict, question_id: int = 0) -> Problem:
    return make_problem(dataset, row, question_id, prompt_style=PUBLISHED)


@pytest.mark.parametrize("dataset", DIGESTS)
def test_every_character_is_as_published(dataset: str) -> None:
    problem, ours = published(dataset, PUBLISHED_ROWS[dataset]), make_problem(dataset, PUBLISHED_ROWS[dataset], 0)
    assert hashlib.sha256(problem.prompt.encode()).hexdigest()[:16] == DIGESTS[dataset]
    assert problem.prompt != ours.prompt
    assert problem.reference == ("A" if dataset == "gpqa" else ours.reference)


@pytest.mark.parametrize("dataset", sorted(DATASETS.keys() - DIGESTS.keys() - {"bundled"}))
def test_a_data_set_that_the_published_program_does_not_know_is_refused(dataset: str) -> None:
    with pytest.raises(UserError, match="has no published prompt: leave out --prompt_style"):
        published(dataset, PUBLISHED_ROWS[dataset])


@pytest.mark.parametrize(
    ("category", "like", "field"),
    [
        ("word_problem", "gsm8k", "question"),
        ("algebra", "math", "problem"),
        ("code", "humaneval", "prompt"),
        ("explanation", "mt_bench", "turns"),
    ],
)
def test_bundled_questions_are_asked_as_the_data_set_of_their_kind(category: str, like: str, field: str) -> None:
    asked = "Why {x}?"
    row = ROWS[like] | {field: [asked] if field == "turns" else asked}
    bundled = published("bundled", {"category": category, "question": asked, "answer": None})
    assert bundled.prompt == published(like, row).prompt


@pytest.mark.parametrize("question_id", range(5))
def test_the_right_answer_of_gpqa_is_always_a(question_id: int) -> None:
    problem = published("gpqa", GPQA_ROW, question_id)
    assert problem.reference == "A" and problem.row["option_order"] == [0, 1, 2, 3]
    shown = [problem.prompt.index(f"({letter}) {name}") for letter, name in zip("ABCD", RIGHT_FIRST, strict=True)]
    assert shown == sorted(shown)


@pytest.mark.parametrize("field", ["category", "options"])
def test_a_field_that_only_the_published_prompt_needs_is_named(field: str) -> None:
    row = {key: value for key, value in PUBLISHED_ROWS["mmlu"].items() if key != field}
    with pytest.raises(UserError, match=f"question 0 of mmlu lacks the field '{field}'"):
        published("mmlu", row)


# --- which rows ---


def test_mt_bench_begins_at_row_60(tmp_path: Path) -> None:
    write_rows(tmp_path, "mt_bench", [{"turns": [f"question {i}"]} for i in range(62)])
    found = load_problems("mt_bench", data_dir=tmp_path, prompt_style=PUBLISHED)
    assert [(problem.question_id, problem.row["turns"]) for problem in found] == [
        (0, ["question 60"]),
        (1, ["question 61"]),
    ]
    assert load_problems("mt_bench", data_dir=tmp_path)[0].prompt == "question 0"
    with pytest.raises(UserError, match="from row 60 on has 2 questions: --num_questions cannot be 3"):
        load_problems("mt_bench", data_dir=tmp_path, prompt_style=PUBLISHED, num_questions=3)


def test_mmlu_is_its_validation_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str | None, split: str) -> list[dict]:
        asked.append((name, config, split))
        return [PUBLISHED_ROWS["mmlu"]]

    fake_hub(monkeypatch, load_dataset)
    from_hub = load_problems("mmlu", prompt_style=PUBLISHED)
    assert asked == [("TIGER-Lab/MMLU-Pro", None, "validation")]
    file = tmp_path / "mmlu" / "validation.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(PUBLISHED_ROWS["mmlu"]))
    assert load_problems("mmlu", data_dir=tmp_path, prompt_style=PUBLISHED) == from_hub
    with pytest.raises(UserError, match=r"mmlu.test\.jsonl"):
        load_problems("mmlu", data_dir=tmp_path)


# --- grading ---


def graded(dataset: str, text: str, style: str = PUBLISHED) -> bool | None:
    """The grade of an answer to `dataset`'s row, as a record keeps it."""
    problem = make_problem(dataset, PUBLISHED_ROWS[dataset], 0, prompt_style=style)
    record = make_record(raw_data=problem.row, output_text=text)
    said = {} if style == SHORT else {"prompt_style": style}
    identity = replace(with_settings(record.identity, said), dataset=dataset)
    return is_correct(replace(record, identity=identity))


def test_answers_to_published_prompts_are_graded_right() -> None:
    assert [graded("gpqa", rf"so \boxed{{{letter}}}") for letter in "ABCD"] == [True, False, False, False]
    ours = make_problem("gpqa", GPQA_ROW, 0).reference
    assert [letter for letter in "ABCD" if graded("gpqa", rf"\boxed{{{letter}}}", SHORT)] == [ours]
    assert graded("math", r"it is \boxed{\frac{x}{2}}") is True and graded("math", r"\boxed{x}") is False
    assert graded("gsm8k", r"\boxed{1080}") is True and graded("aime", r"\boxed{25}") is True
    assert graded("mt_bench", r"\boxed{3}") is None


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        ("5 it is, so the answer is (B)", True),
        ("The answer is: **B**.", True),
        ("Maybe the answer is (A). No: the answer is (B).", True),
        ("the answer is (C)", False),
        ("The answer is Beethoven", False),
        ("B", False),
        (r"\boxed{B}", True),
    ],
)
def test_mmlu_states_its_letter(text: str, is_right: bool) -> None:
    assert graded("mmlu", text) is is_right
    if "boxed" not in text:
        assert graded("mmlu", text, SHORT) is False


# --- what a record says ---


def identity_of(config: RunConfig) -> Identity:
    return config.identity("gsm8k", 0, "plain", "digest", {"seed": 0})


def test_the_identity_knows_whose_prompts_they_are() -> None:
    ours, theirs = (identity_of(parse_args(["--prompt_style", style])) for style in (SHORT, PUBLISHED))
    assert parse_args([]).questions.prompt_style == SHORT
    assert "prompt_style" not in ours.to_builtins()  # as in records that are older than the choice
    assert theirs.settings == ours.settings | {"prompt_style": PUBLISHED}
    assert Identity.from_builtins(theirs.to_builtins()) == theirs
    with pytest.raises(UserError, match="prompt_style: stored nothing, asked 'published'"):
        ours.require(theirs, "x was made", "ask otherwise")
    with pytest.raises(UserError, match="prompt_style: stored 'published', asked nothing"):
        theirs.require(
            replace(ours, settings={**ours.settings, "prompt_sha256": "other"}), "x was made", "ask otherwise"
        )


def test_they_are_other_questions_in_a_ranking() -> None:
    record = make_record()
    theirs = replace(record, identity=with_settings(record.identity, {"prompt_style": PUBLISHED}))
    sources = Source.of(record), Source.of(theirs)
    assert sources[0] != sources[1] and sources[1].title == "bundled gsm8k 64 float32 prompt_style published"
    assert Source.from_builtins(sources[1].to_builtins()) == sources[1]
    assert Source.from_builtins(sources[0].to_builtins()) == sources[0]
