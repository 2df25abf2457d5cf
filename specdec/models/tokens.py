"""Tokenizers: chat prompts, stop and mask ids, and whether two models speak the same tokens."""

import ast
import datetime
import json
from collections.abc import Sequence
from typing import Any

import jinja2
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from specdec.errors import UserError
from specdec.models.checkpoints import ModelSource

FAST_DLLM_MASK = "|<MASK>|"
PROMPT_DATE = datetime.date(2024, 7, 26)  # every prompt's "today": what Llama 3's template falls back to
STRFTIME_NOW = (
    "{% macro strftime_now(format) %}{{ dates_by_format[format] if format in dates_by_format "
    "else raise_exception('strftime_now is given a format that is not written out') }}{% endmacro %}"
)
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The checkpoint's own tokenizer; code that comes with it is not run.

    A tokenizer.json is read as it stands: AutoTokenizer would rebuild it by the model's type in
    transformers 5, and refuse in 4 what 5 has saved.
    """
    if not any((source.path / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(f"{source.path} has no tokenizer: give {source.role.flag} a folder with a tokenizer.json")
    try:
        if (source.path / "tokenizer.json").is_file():
            return PreTrainedTokenizerFast.from_pretrained(source.path, local_files_only=True)
        return AutoTokenizer.from_pretrained(source.path, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"cannot load the tokenizer of {source.path}: {reason}") from error


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, date: datetime.date = PROMPT_DATE) -> list[int]:
    """The token ids of a user turn and the header of the answer. Raises UserError without a chat template.

    A template that writes today's date writes `date`: a prompt must not change at midnight.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"{tokenizer.name_or_path} has no chat template: add a chat_template to its tokenizer_config.json"
        )
    turn = [{"role": "user", "content": prompt}]
    try:
        text = tokenizer.apply_chat_template(
            turn, add_generation_prompt=True, tokenize=False, **_dated(tokenizer.get_chat_template(), date)
        )
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    except Exception as error:  # a template is a program of the checkpoint's author
        raise UserError(f"the chat template of {tokenizer.name_or_path} fails: {error}") from error


def _dated(template: str, date: datetime.date) -> dict[str, Any]:
    """What makes a template write `date` for today's: `date_string`, as Llama 3 has it, and a strftime_now of its own.

    A macro over the template's own formats, because transformers 5 hands no function to a template. Jinja drops the
    line break after it, so that the template begins as it did; one that never asks for the date stays as it is.
    """
    variables: dict[str, Any] = {"date_string": date.strftime("%d %b %Y")}
    if "strftime_now" not in template:
        return variables
    texts = [ast.literal_eval(text) for _, kind, text in jinja2.Environment().lex(template) if kind == "string"]
    return variables | {
        "chat_template": f"{STRFTIME_NOW}\n{template}",
        "dates_by_format": {text: date.strftime(text) for text in texts if "%" in text},
    }


def stop_ids(source: ModelSource, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end an answer: the generation config's and the tokenizer's."""
    stops = {tokenizer.eos_token_id}
    path = source.path / "generation_config.json"
    if path.is_file():
        try:
            listed = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            stops |= set(listed) if isinstance(listed, list) else {listed}
        except (ValueError, AttributeError, TypeError) as error:
            raise UserError(f"{path} is damaged: mend its eos_token_id or remove the file") from error
    stops.discard(None)
    if not all(type(token) is int for token in stops):
        raise UserError(f"{path}: eos_token_id is not a token id")
    return frozenset(stops)


def mask_id(source: ModelSource, tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that stands for a masked position, from the checkpoint or its tokenizer."""
    candidates = (
        source.config.get("mask_token_id"),
        tokenizer.mask_token_id,
        tokenizer.get_vocab().get(FAST_DLLM_MASK),
    )
    for candidate in candidates:
        if candidate is not None:
            if type(candidate) is not int or not 0 <= candidate < source.vocab_size:
                raise UserError(f"{source.path / 'config.json'}: mask_token_id {candidate!r} is not an id of the model")
            return candidate
    raise UserError(
        f"{source.path} names no mask token: add mask_token_id to its config.json, or give {source.role.flag} "
        "a block-diffusion checkpoint"
    )


def check_same_tokens(
    target: PreTrainedTokenizerBase, drafter: PreTrainedTokenizerBase, *, ignore_ids: Sequence[int] = ()
) -> None:
    """Raise UserError, naming the first difference, unless both map the same ids to the same tokens.

    Sizes of embedding tables may differ (they are padded). `ignore_ids`: a mask token, which a
    target need not have.
    """
    ours, theirs = (
        {index: token for token, index in tokenizer.get_vocab().items() if index not in ignore_ids}
        for tokenizer in (target, drafter)
    )
    if ours == theirs:
        return
    first = min(index for index in ours.keys() | theirs.keys() if ours.get(index) != theirs.get(index))
    raise UserError(
        f"target and drafter tokenizers differ: id {first} is {ours.get(first)!r} in {target.name_or_path} and "
        f"{theirs.get(first)!r} in {drafter.name_or_path}: choose a drafter of the target's family"
    )
