"""Tokenizers: chat prompts, stop and mask ids, and whether two models speak the same tokens."""

import datetime
import json
from collections.abc import Mapping, Sequence

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from specdec.errors import MALFORMED, UserError
from specdec.models.checkpoints import ModelSource
from specdec.models.template_world import PROMPT_DATE, dated, settled_chance

SWITCH = "enable_thinking"  # the variable of a chat template that lets a model think, or not
FAST_DLLM_MASK = "|<MASK>|"
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


Messages = Sequence[Mapping[str, str]]  # each with a role and a content


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str | Messages,
    date: datetime.date = PROMPT_DATE,
    thinking: str | None = None,
) -> list[int]:
    """The token ids of a user turn, or of a conversation, and the header of the answer. Raises UserError without a chat
    template, for one that leaves a system message out, and for one that knows nothing of `thinking` ("on" or "off";
    None: as it has it).

    A template that writes today's date writes `date`: see `template_world.py`.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"{tokenizer.name_or_path} has no chat template: add a chat_template to its tokenizer_config.json"
        )
    if thinking is not None and SWITCH not in _template(tokenizer):
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} knows no {SWITCH}: leave out --thinking {thinking}"
        )
    world = {} if thinking is None else {SWITCH: thinking == "on"}
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(one) for one in prompt]
    try:
        text = _rendered(tokenizer, messages, date, world)
        is_ignored = messages[0]["role"] == "system" and text == _rendered(tokenizer, messages[1:], date, world)
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    except Exception as error:  # a template is a program of the checkpoint's author
        raise UserError(f"the chat template of {tokenizer.name_or_path} fails: {error}") from error
    if is_ignored:
        raise UserError(f"the chat template of {tokenizer.name_or_path} has no system role: put it into the prompt")
    return ids


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template that is used. Raises UserError where there are several, and none of them is the default."""
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise UserError(f"{tokenizer.name_or_path} has several chat templates and none is the default") from error


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], date: datetime.date, asked: Mapping[str, bool]
) -> str:
    world = {**dated(tokenizer.get_chat_template(), date), **asked}
    with settled_chance():
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **world))


def stop_ids(source: ModelSource, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's, and those of the generation config or, where it has none, of
    config.json, as in transformers. Raises UserError for what is not a token of the model."""
    path, given = source.path / "generation_config.json", None
    if path.is_file():
        try:
            given = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
        except MALFORMED as error:
            raise UserError(f"{path} is damaged: mend its eos_token_id or remove the file") from error
    if given is None:
        path, given = source.path / "config.json", source.config.get("eos_token_id")
    listed = given if isinstance(given, list) else [given]
    for where, tokens in ((path, listed), (source.path / "tokenizer_config.json", [tokenizer.eos_token_id])):
        _check_ids(source, f"{where}: eos_token_id", [token for token in tokens if token is not None])
    return frozenset({*listed, tokenizer.eos_token_id} - {None})


def predicted_tokens(tokenizer: PreTrainedTokenizerBase, num_rows: int) -> tuple[int, tuple[int, ...]]:
    """What a table of `num_rows` may predict: (its first rows, up to the last token; those among them that are none).

    Tables are padded, and a padding row can have a logit like any other; it is not a token, and is never predicted.
    Example: of the tokens 0, 1 and 3 over a table of 8 rows: (4, (2,)). Raises UserError where there is no token.
    """
    known = {index for index in tokenizer.get_vocab().values() if index < num_rows}
    if not known:
        raise UserError(f"the tokenizer of {tokenizer.name_or_path} has no token")
    size = max(known) + 1
    return size, tuple(sorted(set(range(size)) - known))


def _check_ids(source: ModelSource, what: str, tokens: Sequence[object]) -> None:
    """Raise UserError unless all of them are rows of the model's table."""
    for token in tokens:
        if type(token) is not int or not 0 <= token < source.vocab_size:
            raise UserError(
                f"{what} {token!r} is not a token id of the model, whose table has {source.vocab_size} rows"
            )


def mask_id(source: ModelSource, tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that stands for a masked position, from the checkpoint or its tokenizer."""
    candidates = (
        source.config.get("mask_token_id"),
        tokenizer.mask_token_id,
        tokenizer.get_vocab().get(FAST_DLLM_MASK),
    )
    for candidate in candidates:
        if candidate is not None:
            _check_ids(source, f"{source.path / 'config.json'}: mask_token_id", [candidate])
            return int(candidate)
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
