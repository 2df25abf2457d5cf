"""Questions of one's own: what a file may hold, what is said of one that is wrong, and how its answers are graded."""

import json
from pathlib import Path
from typing import Any

import pytest
from toys import toy_tokenizer

from specdec.commands import run as failfast
from specdec.errors import UserError, hub_reason
from specdec.models.tokens import encode_prompt
from specdec.questions import grading, own
from specdec.questions.references import agrees
from specdec.questions.sandbox import Task
from specdec.questions.sets import dataset_name, load_problems, make_problem

SYSTEM = ("system", "Be brief.")


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_prompt_a_conversation_and_turns_in_one_file(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    rows = [
        {"prompt": "Grüße", "reference": 7, "category": "german", "mine": [1]},
        {"messages": [{"role": "system", "content": "Be brief."}, *said, {"role": "user", "content": "1+1?"}]},
        {"turns": ["One?", "Two?", "Three?"], "system": "Be brief.", "reference": ["1", None, "3"]},
    ]
    single, chat, turns = load_problems(str(write(tmp_path / "traffic.jsonl", *rows)))
    assert [one.row for one in (single, chat, turns)] == rows
    assert (single.dataset, single.prompt, single.reference) == ("traffic.jsonl", "Grüße", "7")
    assert chat.before == (SYSTEM, ("user", "Hi"), ("assistant", "Yes?")) and chat.prompt == "1+1?"
    second = turns.following("first answer")
    assert second is not None and second.following("") is not None
    assert second.before == (SYSTEM, ("user", "One?"), ("assistant", "first answer"))
    assert [one.question_id for one in turns.turns] == [2, 1_000_002, 2_000_002]
    assert [one.reference for one in turns.turns] == ["1", None, "3"]
    assert second.title == f"question 2, turn 2 ({tmp_path / 'traffic.jsonl'}, line 3)"
    assert make_problem("traffic.jsonl", turns.row, 2_000_002).reference == "3"


def test_a_folder_is_several_files_and_their_names_are_categories(tmp_path: Path) -> None:
    folder = tmp_path / "gsm8k"  # also the name of a data set of the table
    folder.mkdir()
    write(folder / "b.jsonl", {"prompt": "three"})
    write(folder / "a.jsonl", {"prompt": "one"}, {"prompt": "two", "category": "own"})
    found = load_problems(str(folder))
    assert [(one.dataset, one.prompt, one.row["category"]) for one in found] == [
        ("gsm8k.jsonl", "one", "a"),
        ("gsm8k.jsonl", "two", "own"),
        ("gsm8k.jsonl", "three", "b"),
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "x"}, "no field 'prompt', 'messages' or 'turns' (it has: text)"),
        ({"prompt": "x", "turns": ["x"]}, "fields 'prompt' and 'turns' are two questions"),
        ({"prompt": " "}, "field 'prompt' is empty"),
        ({"prompt": ["x"]}, "field 'prompt' is not text"),
        ({"turns": []}, "field 'turns' is not a list of texts"),
        ({"turns": ["x", 1.5, ""]}, "field 'turns', turn 3 is empty"),
        ({"messages": "x"}, "field 'messages' is not a list of messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "message 1 has the unknown role 'tool'"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "an assistant turn"),
        ({"messages": [{"role": "system", "content": "x"}]}, "ends with a system turn"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "message 1: content is not text"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]},
            "message 2: a system message can only be the first",
        ),
        (
            {"system": "a", "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]},
            "field 'system' is another",
        ),
        ({"turns": ["x", "y"], "reference": ["1"]}, "field 'reference' has 1 entries for 2 turns"),
        ({"prompt": "x", "reference": True}, "field 'reference' is not text"),
        ({"prompt": "x", "category": []}, "field 'category' is not text"),
    ],
)
def test_a_wrong_line_is_named_with_its_field(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "traffic.jsonl", {"prompt": "fine"}, row)
    with pytest.raises(UserError) as caught:
        load_problems(str(path), num_questions=1)
    assert str(caught.value).startswith(f"{path}, line 2: ") and said in str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"\n\xef\xbb\xbf\n", "is empty"),
        ("\ufeff".encode("utf-16-le") + '{"prompt": "x"}'.encode("utf-16-le"), "line 1: not UTF-8 (byte 0xff)"),
        (b'{"prompt": "x"}\n{"prompt": "\xfc"}', "line 2: not UTF-8 (byte 0xfc)"),
        (b'{"prompt": "x"}\n{"prompt"', "line 2: not JSON"),
        (b'{"id": 1, "prompt": "x"}\n{"id": 1, "prompt": "y"}', "line 2: field 'id' is 1, as in "),
    ],
)
def test_a_wrong_file_is_one_line_and_status_2(
    data: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "traffic.jsonl"
    path.write_bytes(data)
    assert failfast.main(["--dataset_name", str(path), "--output_dir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and str(path) in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "traffic.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "x"}\r\n')
    assert load_problems(str(path))[0].prompt == "x"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("gsm9k", "did you mean gsm8k"),
        ("none/traffic.jsonl", "no such file"),
        ("traffic.csv", "name the file NAME.jsonl"),
    ],
)
def test_what_is_no_data_set(given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "traffic.csv").write_text("prompt\n")
    with pytest.raises(UserError, match=said):
        dataset_name(given)


def test_a_folder_without_questions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no .jsonl file"):
        own.read_rows(tmp_path)


@pytest.mark.parametrize(
    ("answer", "reference", "is_right"),
    [
        ("First 3, then 4. So 1,080 in all.", "1080", True),
        ("1080 is not it, 1081 is.", "1080", False),
        ("It is 7.50", "7.5", True),
        ("no number", "3", False),
        ("\\boxed{\\frac12} or 3", "1/2", True),
        ("\\boxed{4} or 3", "3", False),
        ("I say the answer is (B).", "B", True),
        ("A good question. The answer is C", "A", False),
        ("**B**", "B", True),
        ("B or A", "A", False),
        ("The capital is  Paris, of course", "paris", True),
        ("A comparison", "paris", False),
        ("\\boxed{Paris}", "paris", True),
    ],
)
def test_the_rule_for_references(answer: str, reference: str, is_right: bool) -> None:
    assert agrees(answer, reference) is is_right


def test_mbpp_is_graded_by_its_own_lines() -> None:
    row = {
        "code": "def helper(a):\n    return a\ndef add(a, b):\n    return a + b",
        "test_list": ["assert add(1, 2) == 3", "assert math.isclose(add(1, 2), 3)"],
        "test_imports": ["import math"],
    }
    task = grading._task("mbpp", row, "the answer")
    assert isinstance(task, Task) and (task.text, task.function) == ("the answer", "add")
    space: dict[str, Any] = {}
    exec(task.tests, space)  # the test's own text
    space["check"](lambda a, b: a + b)
    with pytest.raises(AssertionError):
        space["check"](lambda a, b: a - b)
    assert grading._task("mbpp", {"turns": ["Add."]}, "") is None


def test_speed_bench_placeholders_are_refused() -> None:
    row = {"turns": ["FULL BENCHMARK DATA SHOULD BE FETCHED FROM THE SOURCE USING SPECDEC_BENCH"]}
    with pytest.raises(UserError, match="question 3 of speed_bench is a placeholder"):
        make_problem("speed_bench", row, 3)


def test_a_template_without_a_system_role() -> None:
    messages = [{"role": "system", "content": "word1"}, {"role": "user", "content": "word2"}]
    tokenizer = toy_tokenizer(("word1", "word2"))
    tokenizer.chat_template = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }} {% endfor %}"
    with pytest.raises(UserError, match="has no system role"):
        encode_prompt(tokenizer, messages)
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(UserError, match="fails: System role not supported"):
        encode_prompt(tokenizer, messages)


class GatedRepoError(Exception):
    """As the hub's own, by name."""


class LocalEntryNotFoundError(Exception):
    """As the hub's own, by name."""


class RepositoryNotFoundError(Exception):
    """As the hub's own, by name."""


def raised_from(outer: Exception, inner: Exception | None) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (raised_from(LocalEntryNotFoundError("no file"), GatedRepoError("403")), "it is gated"),
        (RepositoryNotFoundError("401 Client Error: a private or gated repo?"), "there is no such repository"),
        (raised_from(LocalEntryNotFoundError("no file"), ConnectionError("refused")), "no network"),
        (OSError("disk full"), "OSError: disk full"),
    ],
)
def test_the_hub_says_why(error: Exception, reason: str) -> None:
    assert hub_reason(error, "Qwen/Qwen2.5-7B-Instruct", ["Qwen/Qwen2.5-7B-Instruct"]).startswith(reason)
    mistyped = hub_reason(error, "Qwen/Qwen2.5-7B-Instrct", ["Qwen/Qwen2.5-7B-Instruct"])
    assert mistyped.endswith("did you mean Qwen/Qwen2.5-7B-Instruct?")
