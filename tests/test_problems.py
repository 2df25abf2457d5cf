"""Questions: prompts and references per data set, and every way a file or the hub can fail."""

import builtins
import json
import sys
import types

import pytest

from specdec.errors import UserError
from specdec.questions import sets as problems
from specdec.questions.sets import BOXED, CODE, DATASETS, LETTER, load_problems, make_problem, option_order

GPQA_ROW = {
    "Question": "Which gas is the lightest?",
    "Correct Answer": "hydrogen\n",
    "Incorrect Answer 1": "helium",
    "Incorrect Answer 2": "neon",
    "Incorrect Answer 3": "argon",
}
MMLU_ROW = {"question": "2 + 3 = ?", "options": ["4", "5", "6", "7", "8"], "answer": "B", "answer_index": 1}
HUMANEVAL_ROW = {
    "task_id": "Made/0",
    "prompt": 'def twice(x):\n    """Return two times x."""\n',
    "canonical_solution": "    return 2 * x\n",
    "test": "",
    "entry_point": "twice",
}
ROWS = {
    "aime": {"id": 1, "problem": "Count them.", "answer": "025"},
    "math": {"problem": "Halve $x$.", "answer": "\\frac{x}{2}", "level": 1},
    "gsm8k": {"question": "Ann has 2 and buys 1,078 more. How many?", "answer": "2+1078=1080\n#### 1,080"},
    "gpqa": GPQA_ROW,
    "humaneval": HUMANEVAL_ROW,
    "mt_bench": {"question_id": 81, "category": "math", "turns": [" Add 1 and 2.\n", "Now add 3."]},
    "mmlu": MMLU_ROW,
    "bundled": {"category": "code", "question": "Write f.", "answer": None},
}


def write_rows(folder, dataset, rows):
    """DIR/NAME/SPLIT.jsonl as --data_dir expects it; returns the file."""
    path = folder / dataset / f"{DATASETS[dataset].split}.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def fake_hub(monkeypatch, load_dataset):
    """Puts a module in the place of `datasets`, so that no test reaches for the network."""
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))


# --- prompts and references ---


@pytest.mark.parametrize(
    ("dataset", "prompt", "reference"),
    [
        ("aime", f"Count them.\n{BOXED}", "25"),
        ("math", f"Halve $x$.\n{BOXED}", "\\frac{x}{2}"),
        ("gsm8k", f"Ann has 2 and buys 1,078 more. How many?\n{BOXED}", "1080"),
        ("mt_bench", " Add 1 and 2.\n", None),
        ("mmlu", f"2 + 3 = ?\nA) 4\nB) 5\nC) 6\nD) 7\nE) 8\n{LETTER}", "B"),
        ("bundled", f"Write f.\n{CODE}", None),
    ],
)
def test_prompt_and_reference(dataset, prompt, reference):
    problem = make_problem(dataset, ROWS[dataset], 0)
    assert (problem.prompt, problem.reference) == (prompt, reference)
    assert problem.row == ROWS[dataset]


def test_humaneval_shows_the_stub_in_a_code_block():
    problem = make_problem("humaneval", HUMANEVAL_ROW, 0)
    assert f"```python\n{HUMANEVAL_ROW['prompt'].strip()}\n```" in problem.prompt
    assert problem.prompt.endswith(CODE)
    assert problem.reference == HUMANEVAL_ROW["canonical_solution"]


@pytest.mark.parametrize("category", ["word_problem", "algebra"])
def test_bundled_asks_as_gsm8k_and_math_do(category):
    row = {"category": category, "question": "1+1?", "answer": "2"}
    bundled = make_problem("bundled", row, 0)
    gsm8k = make_problem("gsm8k", {"question": "1+1?", "answer": "#### 2"}, 0)
    math = make_problem("math", {"problem": "1+1?", "answer": "2"}, 0)
    assert bundled.prompt == gsm8k.prompt == math.prompt
    assert bundled.reference == gsm8k.reference == math.reference == "2"


def test_an_explanation_asks_its_question_alone():
    row = {"category": "explanation", "question": "Why is the sky blue?", "answer": None}
    assert make_problem("bundled", row, 0).prompt == "Why is the sky blue?"


def test_mt_bench_reference_is_the_first_turns():
    row = ROWS["mt_bench"] | {"reference": ["3", "6"]}
    assert make_problem("mt_bench", row, 0).reference == "3"


@pytest.mark.parametrize(("dataset", "answer"), [("gsm8k", "no marker here"), ("math", "")], ids=["gsm8k", "math"])
def test_no_answer_is_none(dataset, answer):
    assert make_problem(dataset, ROWS[dataset] | {"answer": answer}, 0).reference is None


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("#### -5", "-5"), ("#### 0", "0"), ("#### 2.50", "2.50"), ("#### 1,000,000", "1000000")],
)
def test_gsm8k_numbers(answer, reference):
    assert make_problem("gsm8k", ROWS["gsm8k"] | {"answer": answer}, 0).reference == reference


@pytest.mark.parametrize("question_id", range(12))
def test_gpqa_letter_points_to_the_correct_answer(question_id):
    problem = make_problem("gpqa", GPQA_ROW, question_id, seed=3)
    assert f"\n{problem.reference}) hydrogen\n" in problem.prompt
    names = ["hydrogen", "helium", "neon", "argon"]
    shown = [names[i] for i in problem.row["option_order"]]
    assert [problem.prompt.index(f"{'ABCD'[i]}) {name}") for i, name in enumerate(shown)] == sorted(
        problem.prompt.index(name + "\n") - 3 for name in names
    )
    assert "option_order" not in GPQA_ROW


def test_gpqa_order_depends_on_seed_and_question_only(tmp_path):
    write_rows(tmp_path, "gpqa", [GPQA_ROW] * 30)
    everything = load_problems("gpqa", data_dir=tmp_path, seed=1)
    some = load_problems("gpqa", data_dir=tmp_path, seed=1, question_ids=[17, 4])
    assert some == [everything[17], everything[4]]
    assert {problem.reference for problem in everything} == set("ABCD")
    assert [option_order(1, i) for i in range(30)] != [option_order(2, i) for i in range(30)]


def test_rows_become_plain_builtins():
    row = ROWS["math"] | {"when": types.SimpleNamespace(), "tags": ("a", "b")}
    kept = make_problem("math", row, 0).row
    assert kept["tags"] == ["a", "b"]
    assert isinstance(kept["when"], str)


@pytest.mark.parametrize(
    ("dataset", "field"),
    [
        ("aime", "problem"),
        ("aime", "answer"),
        ("math", "answer"),
        ("gsm8k", "question"),
        ("gpqa", "Incorrect Answer 2"),
        ("humaneval", "prompt"),
        ("mt_bench", "turns"),
        ("mmlu", "options"),
        ("bundled", "category"),
    ],
)
@pytest.mark.parametrize("is_null", [False, True])
def test_a_lacking_field_is_named(dataset, field, is_null):
    row = {key: value for key, value in ROWS[dataset].items() if key != field}
    if is_null:
        row[field] = None
    said = f"has a field '{field}' that is null" if is_null else f"lacks the field '{field}'"
    with pytest.raises(UserError, match=f"question 7 of {dataset} {said}"):
        make_problem(dataset, row, 7)


@pytest.mark.parametrize(
    ("dataset", "change", "message"),
    [
        ("mmlu", {"answer": "F"}, "not a letter of its 5 options"),
        ("mmlu", {"answer": "AB"}, "not a letter of its 5 options"),
        ("mmlu", {"options": "4 5"}, "'options' that is not a list"),
        ("mt_bench", {"turns": []}, "'turns' that is not a list"),
        ("mt_bench", {"reference": "3"}, "'reference' that is not a list"),
        ("gsm8k", {"question": ["1+1?"]}, "'question' that is not text"),
        ("bundled", {"category": "poem"}, "unknown category 'poem'"),
    ],
)
def test_a_wrong_field_is_named(dataset, change, message):
    with pytest.raises(UserError, match=message):
        make_problem(dataset, ROWS[dataset] | change, 0)


# --- which rows, from where ---


@pytest.mark.parametrize("dataset", [name for name in DATASETS if name != "bundled"])
def test_the_same_from_a_folder_and_from_the_hub(dataset, tmp_path, monkeypatch):
    asked = []

    def load_dataset(name, config, split):
        asked.append((name, config, split))
        return [ROWS[dataset]] * 3

    fake_hub(monkeypatch, load_dataset)
    write_rows(tmp_path, dataset, [ROWS[dataset]] * 3)
    from_folder = load_problems(dataset, data_dir=tmp_path)
    assert asked == []
    assert load_problems(dataset) == from_folder
    entry = DATASETS[dataset]
    assert asked == [(entry.hub_name, entry.hub_config, entry.split)]
    assert [problem.question_id for problem in from_folder] == [0, 1, 2]


def test_question_ids_keep_their_order_and_win(tmp_path):
    write_rows(tmp_path, "math", [{"problem": f"{i}?", "answer": str(i)} for i in range(6)])
    chosen = load_problems("math", data_dir=tmp_path, question_ids=[4, 0, 5], num_questions=1)
    assert [(problem.question_id, problem.reference) for problem in chosen] == [(4, "4"), (0, "0"), (5, "5")]
    first = load_problems("math", data_dir=tmp_path, num_questions=2)
    assert [problem.question_id for problem in first] == [0, 1]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"question_ids": [0, 3]}, "has 3 questions, 0 to 2: there is no question 3"),
        ({"question_ids": [-1]}, "there is no question -1"),
        ({"question_ids": [1, 1]}, "asked twice"),
        ({"num_questions": 4}, "has 3 questions: --num_questions cannot be 4"),
        ({"num_questions": 0}, "cannot be 0"),
    ],
)
def test_impossible_choices(asked, message, tmp_path):
    write_rows(tmp_path, "math", [ROWS["math"]] * 3)
    with pytest.raises(UserError, match=message):
        load_problems("math", data_dir=tmp_path, **asked)


def test_unknown_data_set():
    with pytest.raises(UserError, match="unknown data set 'maths' .*gsm8k"):
        load_problems("maths")


def raise_connection_error(*_args, **_kwargs):
    raise ConnectionError("no route to the hub\nsecond line")


def test_hub_unreachable_names_the_flag_and_the_file(monkeypatch):
    fake_hub(monkeypatch, raise_connection_error)
    with pytest.raises(UserError) as caught:
        load_problems("gsm8k")
    message = str(caught.value)
    assert "openai/gsm8k" in message
    assert "--data_dir DIR" in message
    assert "DIR/gsm8k/test.jsonl" in message
    assert "\n" not in message


def test_without_the_datasets_package(monkeypatch):
    real_import = builtins.__import__

    def import_without_datasets(name, *args, **kwargs):
        if name == "datasets":
            raise ModuleNotFoundError("No module named 'datasets'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", import_without_datasets)
    with pytest.raises(UserError, match="--data_dir"):
        load_problems("aime")


def test_file_missing_is_named(tmp_path):
    with pytest.raises(UserError) as caught:
        load_problems("gsm8k", data_dir=tmp_path)
    assert str(tmp_path / "gsm8k" / "test.jsonl") in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [b'{"problem": "x", ', b"[1, 2]", b"\xff\xfe", b"[" * 100_000],
    ids=["cut", "list", "bytes", "deep"],
)
def test_corrupt_line_is_named(line, tmp_path):
    path = write_rows(tmp_path, "math", [ROWS["math"]] * 2)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(UserError) as caught:
        load_problems("math", data_dir=tmp_path, num_questions=1)
    assert f"{path}, line 3" in str(caught.value)


def test_a_row_without_a_field_names_its_file(tmp_path):
    path = write_rows(tmp_path, "math", [ROWS["math"], {"problem": "x"}])
    with pytest.raises(UserError) as caught:
        load_problems("math", data_dir=tmp_path)
    assert str(path) in str(caught.value)
    assert "question 1 of math lacks the field 'answer'" in str(caught.value)


def test_an_empty_file_is_an_error(tmp_path):
    write_rows(tmp_path, "math", [])
    with pytest.raises(UserError, match="no questions"):
        load_problems("math", data_dir=tmp_path)


def test_line_separators_inside_a_text_end_no_row(tmp_path):
    question = "one\u2028two\x85three\r\n"
    write_rows(tmp_path, "math", [{"problem": question, "answer": "1"}])
    (problem,) = load_problems("math", data_dir=tmp_path)
    assert problem.row["problem"] == question


# --- the questions that come with the program ---


def test_bundled_questions():
    bundled = load_problems("bundled")
    categories = [problem.row["category"] for problem in bundled]
    assert len(bundled) >= 40
    assert len({problem.row["question"] for problem in bundled}) == len(bundled)
    assert set(categories) == {"word_problem", "algebra", "code", "explanation"}
    assert sorted(categories[:4]) == ["algebra", "algebra", "word_problem", "word_problem"]
    for problem, category in zip(bundled, categories, strict=True):
        assert set(problem.row) == {"category", "question", "answer"}
        assert (problem.reference is None) == (category == "explanation")


def test_bundled_code_answers_run():
    for problem in load_problems("bundled"):
        if problem.row["category"] == "code":
            namespace = {}
            exec(problem.reference, namespace)  # our own file
            assert any(name in problem.prompt for name in namespace if not name.startswith("__"))


def test_bundled_needs_neither_hub_nor_folder(monkeypatch, tmp_path):
    fake_hub(monkeypatch, raise_connection_error)
    assert load_problems("bundled", data_dir=tmp_path) == load_problems("bundled")
    assert problems.BUNDLED_FILE.is_file()


@pytest.mark.parametrize("question", ["half a character \ud800", [["deep"]]])
def test_what_no_record_can_hold_is_refused(question: object) -> None:
    for _ in range(60):
        question = [question] if isinstance(question, list) else question
    with pytest.raises(UserError, match="question 3 of gsm8k has half a character or is nested too deep|is nested"):
        make_problem("gsm8k", {"question": "How many?", "answer": "#### 1", "extra": question}, 3)


def test_huge_integers_become_text() -> None:
    row = {"question": "How many?", "answer": "#### 1", "extra": 10**30, "small": 7}
    assert make_problem("gsm8k", row, 0).row == {**row, "extra": str(10**30)}
