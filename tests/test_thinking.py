"""--thinking: whether a target thinks is part of the prompt, of the record's identity and of what tables compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from families import WORDS, flags, save_family
from samples import make_record, with_settings
from toys import toy_tokenizer

from specdec.commands import run as failfast
from specdec.errors import UserError
from specdec.models.tokens import encode_prompt
from specdec.ranking.source import Source
from specdec.records.record import find_records, load_record

ONE, TWO, THREE = (f"word{index}" for index in (1, 2, 3))
# Built as Qwen3's is: thinking is what it does, and an empty thought keeps it from it.
KNOWS = (
    f"{{% for message in messages %}}{{{{ message['content'] }}}} {{% endfor %}}{ONE} "
    f"{{%- if enable_thinking is defined and enable_thinking is false %}} {TWO} {THREE}{{% endif %}}"
)


def tokenizer_of(template: str) -> object:
    made = toy_tokenizer(WORDS)
    made.chat_template = template
    return made


def test_a_template_that_knows_it_is_told() -> None:
    made = tokenizer_of(KNOWS)
    default, on, off = (encode_prompt(made, "word9", thinking=how) for how in (None, "on", "off"))
    assert default == on and off == [*on, *made(f"{TWO} {THREE}")["input_ids"]]


@pytest.mark.parametrize("how", ["on", "off"])
def test_a_template_that_does_not_is_refused_in_one_line(how: str) -> None:
    with pytest.raises(UserError, match=f"knows no enable_thinking: leave out --thinking {how}") as error:
        encode_prompt(tokenizer_of("{{ messages[0].content }}"), "word9", thinking=how)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = save_family(tmp_path_factory.mktemp("thinking"))
    for path in made["target"].glob("chat_template.jinja"):
        path.unlink()
    loaded = tokenizer_of(KNOWS)
    loaded.save_pretrained(made["target"])
    return made


def test_a_record_says_it_and_another_choice_is_another_record(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(family, tmp_path, "--drafters", "plain", "--num_questions", "1", "--max_new_tokens", "4")
    assert failfast.main([*arguments, "--thinking", "off"]) == 0
    assert "thinking off" in capsys.readouterr().out
    (path,) = find_records(tmp_path)
    record = load_record(path)
    assert record.identity.settings["thinking"] == "off" and record.prompt_ids[-2:] == [4, 5]
    assert failfast.main([*arguments, "--thinking", "on"]) == 2
    assert "thinking: stored 'off', asked 'on'" in capsys.readouterr().err
    assert failfast.main(arguments) == 2
    assert "thinking: stored 'off', asked nothing" in capsys.readouterr().err


def test_without_the_flag_identities_are_those_of_before(family: dict[str, Path], tmp_path: Path) -> None:
    arguments = flags(family, tmp_path, "--drafters", "plain", "--num_questions", "1", "--max_new_tokens", "4")
    assert failfast.main(arguments) == 0
    (path,) = find_records(tmp_path)
    assert "thinking" not in load_record(path).identity.to_builtins()


def test_a_template_that_knows_nothing_ends_the_run_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--target_model_name", "bundled", "--drafters", "plain", "--num_questions", "1", "--thinking", "on")
    assert failfast.main([*asked, "--output_dir", str(tmp_path / "out"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "knows no enable_thinking" in error


def test_questions_under_another_choice_are_of_another_source() -> None:
    record = make_record()
    thinking = replace(record, identity=with_settings(record.identity, {"thinking": "on"}))
    ours, theirs = Source.of(record), Source.of(thinking)
    assert ours != theirs and theirs.title == f"{ours.title} thinking on"
    assert Source.from_builtins(theirs.to_builtins()) == theirs


@pytest.mark.parametrize("thinking", [None, "on"])
def test_several_templates_without_a_default_are_a_line(thinking: str | None) -> None:
    tokenizer = toy_tokenizer(["a"])
    tokenizer.chat_template = {"rag": "enable_thinking", "tool": "b"}  # type: ignore[assignment]
    with pytest.raises(UserError, match="chat template"):
        encode_prompt(tokenizer, "a", thinking=thinking)
