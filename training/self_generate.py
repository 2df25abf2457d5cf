"""Greedy answers of a target to given prompts, resumable: what its drafters are trained on.

Who decodes is training.decoder; this is which prompts, which file, and what is done already.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from specdec.errors import MALFORMED, UserError
from specdec.models.checkpoints import find_model
from specdec.records.fields import is_count, is_tokens
from specdec.records.identity import first_difference
from training import ranks
from training.answers import Answers, DecodeSettings, save_answers
from training.cli import deadline_of, pick_device, run_command, training_parser
from training.corpus import add_prompt_flags, read_prompts
from training.export import check_free
from training.loop import OutOfTime
from training.models import TARGET_HELP, TRAINED, load_model, weights_digest
from training.tokenizer import chat_prompts, load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MODULE = "training.self_generate"
SAVE_EVERY = 1000  # answers


def _read_partial(path: Path, identity: dict) -> dict[int, list[int]]:
    """Answers of an interrupted run; a half-written last line is cut off. UserError for another run's file."""
    if not path.is_file():
        path.write_text(json.dumps(identity) + "\n", encoding="utf-8")
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        header, *lines = [json.loads(line) for line in whole.splitlines()] or [None]
        if not isinstance(header, dict):
            raise TypeError("no header")
        found = {number: answer for line in lines for number, answer in zip(line["rows"], line["answers"], strict=True)}
        if not all(is_count(number) and is_tokens(answer) for number, answer in found.items()):
            raise TypeError("no tokens")
    except MALFORMED:
        raise UserError(f"{path} holds no partial answers: delete it") from None
    difference = first_difference(header, identity)
    if difference is not None:
        raise UserError(f"{path} belongs to another run ({difference}): use another work folder or delete the file")
    os.truncate(path, len(whole))
    return found


def _identity(
    model: PreTrainedModel, prompts: list[list[int]], stop_ids: Sequence[int], settings: DecodeSettings
) -> dict:
    return {
        "target": weights_digest(model),
        "prompts": hashlib.sha256(json.dumps(prompts).encode()).hexdigest()[:16],
        "stop_ids": list(stop_ids),
        "max_new_tokens": settings.max_new_tokens,
    }


def _append(partial: Path, answers: dict[int, list[int]]) -> None:
    with partial.open("a", encoding="utf-8") as file:
        line = {"rows": list(answers), "answers": list(answers.values())}
        file.write(json.dumps(line, separators=(",", ":")) + "\n")
        file.flush()
        os.fsync(file.fileno())


def self_generate(
    model: PreTrainedModel,
    prompts: list[list[int]],
    stop_ids: Sequence[int],
    path: Path,
    settings: DecodeSettings,
    deadline: float | None = None,
) -> Answers:
    """Greedy answers, written to `path` (.npz); what is finished outlives an interruption. OutOfTime at `deadline`."""
    from training.decoder import BatchDecoder

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.jsonl")
    found = _read_partial(partial, _identity(model, prompts, stop_ids, settings))
    remaining = [number for number in range(len(prompts)) if number not in found]
    unsaved: dict[int, list[int]] = {}
    with tqdm(total=len(prompts), initial=len(found), desc="answers", unit="prompt", mininterval=5) as bar:
        for finished in BatchDecoder(model, stop_ids, settings).answers([prompts[n] for n in remaining]):
            unsaved |= {remaining[place]: answer for place, answer in finished.items()}
            bar.update(len(finished))
            is_late = deadline is not None and time.monotonic() > deadline
            if is_late or len(unsaved) >= SAVE_EVERY:
                _append(partial, unsaved)
                found |= unsaved
                unsaved = {}
            if is_late and len(found) < len(prompts):
                raise OutOfTime(f"answers: {len(found)} of {len(prompts)} done")
    found |= unsaved
    answers = [found[number] for number in range(len(prompts))]
    result = Answers(prompts, answers, [answer[-1] not in stop_ids for answer in answers], weights_digest(model))
    save_answers(result, path)
    partial.unlink()
    return result


def summary(answers: Answers, seconds: float) -> dict:
    """Counts of some answers, for the JSON line and the model cards."""
    return {
        "num_prompts": len(answers.prompts),
        "num_truncated": sum(answers.is_truncated),
        "num_repetitive": answers.num_repetitive(),
        "answer_tokens": sum(map(len, answers.answers)),
        "seconds": round(seconds, 1),
    }


def load_writer(target_dir: Path, device: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[int]]:
    """A target in the dtype that the benchmark runs it in, its tokenizer and its stop ids. UserError for a bad one."""
    from specdec.models.load import moved, resolve_dtype
    from specdec.models.tokens import stop_ids

    source = find_model(TRAINED, str(target_dir))
    tokenizer = load_tokenizer(source.path)
    model = moved(load_model(source.path, device), resolve_dtype("auto", device))
    return model, tokenizer, sorted(stop_ids(source, tokenizer))


def answer_texts(
    target_dir: Path,
    texts: Sequence[str],
    path: Path,
    settings: DecodeSettings,
    *,
    device: torch.device,
    deadline: float | None = None,
    max_prompt: int | None = None,
) -> dict:
    """Writes the target's greedy answers to `texts`, of at most `max_prompt` tokens, to `path`; returns counts."""
    started = time.monotonic()
    model, tokenizer, stops = load_writer(target_dir, device)
    prompts = [ids for ids in chat_prompts(tokenizer, texts) if max_prompt is None or len(ids) <= max_prompt]
    return summary(self_generate(model, prompts, stops, path, settings, deadline), time.monotonic() - started)


def _answer_prompts(arguments: argparse.Namespace) -> dict:
    settings = DecodeSettings(max_new_tokens=arguments.max_new_tokens, max_rows=arguments.max_rows)
    check_free(arguments.out)
    device, deadline = pick_device(arguments.device), deadline_of(arguments.max_minutes)
    texts = read_prompts(arguments)
    facts = answer_texts(arguments.target_dir, texts, arguments.out, settings, device=device, deadline=deadline)
    return {"stage": "answers", **facts}


def main() -> dict:
    parser = training_parser(MODULE, __doc__.splitlines()[0])
    parser.add_argument("--target_dir", type=Path, required=True, help=TARGET_HELP)
    add_prompt_flags(parser)
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--max_new_tokens", type=int, default=DecodeSettings.max_new_tokens, help="the longest")
    parser.add_argument("--max_rows", type=int, default=DecodeSettings.max_rows, help="rows decoded at once")
    arguments = parser.parse_args()
    # By torchrun one process generates and the others wait: batches are large, and a target is small.
    return ranks.on_leader(lambda: _answer_prompts(arguments))


if __name__ == "__main__":
    sys.exit(run_command(MODULE, main))
