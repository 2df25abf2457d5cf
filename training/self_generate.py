"""Batched greedy answers of a target to given prompts: what its drafters are trained on.

Written for throughput: large batches, one preallocated KV buffer, a look at the stop tokens every few steps only, and
finished rows dropped as they become many. It is no benchmark decoder; that is specdec.
Shape suffixes: B rows, P prompt positions (left-padded), L positions in the buffer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from specdec.checkpoints import find_model
from specdec.errors import UserError
from specdec.lm import KVBuffer
from specdec.tokens import stop_ids
from training import ranks
from training.answers import Answers, save_answers
from training.cli import deadline_of, pick_device, run_command, training_parser
from training.corpus import load_examples, read_rows
from training.export import check_free
from training.loop import OutOfTime
from training.models import TARGET_HELP, TRAINED, load_model, weights_digest
from training.tokenizer import chat_prompts, load_tokenizer


@dataclass(frozen=True)
class GenerateSettings:
    """How answers are made. Row and position limits bound memory only; greedy answers do not depend on them."""

    max_new_tokens: int = 320
    max_rows: int = 1536
    max_positions: int = 800_000  # rows x (prompt + answer) of one batch
    check_every: int = 16
    compact_below: float = 0.75

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "max_rows"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: give at least 1")


def _next_tokens(
    model: PreTrainedModel, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, kv: KVBuffer
) -> torch.Tensor:
    output = model.model(input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=kv, use_cache=True)
    kv.length += ids.shape[1]
    return model.lm_head(output.last_hidden_state[:, -1]).argmax(-1)


def _prompt_mask(is_real_BP: torch.Tensor) -> torch.Tensor:
    """Causal over the real positions (B, 1, P, P); every position sees itself, or padded queries would give NaN."""
    square = torch.ones((is_real_BP.shape[1],) * 2, dtype=torch.bool, device=is_real_BP.device)
    own = torch.eye(len(square), dtype=torch.bool, device=square.device)
    return ((is_real_BP[:, None, :] & square.tril()) | own)[:, None]


@torch.inference_mode()
def greedy_batch(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    stop_ids: Sequence[int],
    settings: GenerateSettings,
) -> list[list[int]]:
    """Greedy answers, one list a prompt, each ending with the first stop token if one came within the limit."""
    device = next(model.parameters()).device
    width, limit = max(map(len, prompts)), settings.max_new_tokens
    ids_BP = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
    pads_B = torch.tensor([width - len(p) for p in prompts], device=device)
    stops = torch.tensor(list(stop_ids), device=device)
    place_L = torch.arange(width + limit, device=device)
    is_real_BL = place_L >= pads_B[:, None]
    kv = KVBuffer(width + limit)
    positions_BP = (place_L[:width] - pads_B[:, None]).clamp_min(0)
    token_B = _next_tokens(model, ids_BP, positions_BP, _prompt_mask(is_real_BL[:, :width]), kv)
    rows = torch.arange(len(prompts), device=device)
    is_done_B = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    output = torch.full((len(prompts), limit), -1, dtype=torch.long, device=device)
    for step in range(limit):
        output[rows, step] = token_B
        is_done_B |= torch.isin(token_B, stops)
        if step + 1 == limit:
            break
        if (step + 1) % settings.check_every == 0:
            alive = (~is_done_B).nonzero()[:, 0]
            if len(alive) == 0:
                break
            if len(alive) <= settings.compact_below * len(rows):
                rows, token_B, pads_B = rows[alive], token_B[alive], pads_B[alive]
                is_done_B, is_real_BL = is_done_B[alive], is_real_BL[alive]
                kv.keep_rows(alive)
        positions = (width + step - pads_B)[:, None]
        token_B = _next_tokens(model, token_B[:, None], positions, is_real_BL[:, None, None, : width + step + 1], kv)
    return [_cut(answer, stop_ids) for answer in output.tolist()]


def _cut(tokens: list[int], stop_ids: Sequence[int]) -> list[int]:
    for place, token in enumerate(tokens):
        if token in stop_ids:
            return tokens[: place + 1]
        if token < 0:
            return tokens[:place]
    return tokens


def plan_batches(lengths: Sequence[int], settings: GenerateSettings) -> list[list[int]]:
    """Prompt numbers by length, in batches within the row and position limits."""
    batches: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda n: (lengths[n], n)):
        positions = lengths[number] + settings.max_new_tokens
        full = bool(batches) and len(batches[-1]) >= min(settings.max_rows, settings.max_positions // positions)
        if not batches or full:
            batches.append([])
        batches[-1].append(number)
    return batches


def _read_partial(path: Path, identity: dict) -> dict[int, list[int]]:
    """Answers of an interrupted run; a half-written last line is cut off. UserError for another run's file."""
    if not path.is_file():
        path.write_text(json.dumps(identity) + "\n", encoding="utf-8")
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        header, *lines = [json.loads(line) for line in whole.splitlines()] or [None]
        found = {number: answer for line in lines for number, answer in zip(line["rows"], line["answers"], strict=True)}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} holds no partial answers: delete it") from None
    if header != identity:
        raise UserError(f"{path} belongs to another run: use another work folder or delete the file")
    os.truncate(path, len(whole))
    return found


def _identity(
    model: PreTrainedModel, prompts: list[list[int]], stop_ids: Sequence[int], settings: GenerateSettings
) -> dict:
    digest = hashlib.sha256(json.dumps(prompts).encode())
    digest.update(weights_digest(model).encode())
    return {
        "run": digest.hexdigest()[:16],
        "stop_ids": list(stop_ids),
        "max_new_tokens": settings.max_new_tokens,
    }


def _append(partial: Path, rows: list[int], answers: list[list[int]]) -> None:
    with partial.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"rows": rows, "answers": answers}, separators=(",", ":")) + "\n")
        file.flush()
        os.fsync(file.fileno())


def self_generate(
    model: PreTrainedModel,
    prompts: list[list[int]],
    stop_ids: Sequence[int],
    path: Path,
    settings: GenerateSettings,
    deadline: float | None = None,
) -> Answers:
    """Greedy answers to all prompts, written to `path` (.npz); finished batches survive an interruption.

    Raises OutOfTime between two batches once `deadline` has passed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.jsonl")
    identity = _identity(model, prompts, stop_ids, settings)
    found = _read_partial(partial, identity)
    model.eval()
    remaining = [number for number in range(len(prompts)) if number not in found]
    plan = plan_batches([len(prompts[number]) for number in remaining], settings)
    started = time.monotonic()
    for batch in tqdm(plan, desc="answers", disable=not sys.stderr.isatty()):
        if deadline is not None and time.monotonic() > deadline:
            raise OutOfTime(f"answers: {len(found)} of {len(prompts)} done")
        rows = [remaining[place] for place in batch]
        answers = greedy_batch(model, [prompts[row] for row in rows], stop_ids, settings)
        _append(partial, rows, answers)
        found.update(zip(rows, answers, strict=True))
        print(
            f"answers: {len(found)}/{len(prompts)}, {time.monotonic() - started:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    answers = [found[number] for number in range(len(prompts))]
    result = Answers(prompts, answers, [answer[-1] not in stop_ids for answer in answers])
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


def _read_prompts(arguments: argparse.Namespace) -> list[str]:
    if not arguments.prompt_file:
        return [example.prompt for example in load_examples(arguments.data_dir)]
    rows = read_rows(arguments.prompt_file, "--prompt_file needs JSON lines")
    if any(not isinstance(row.get("prompt"), str) or not row["prompt"].strip() for row in rows):
        raise UserError(f'{arguments.prompt_file}: every line must be {{"prompt": "..."}}, and not empty')
    return [row["prompt"] for row in rows]


def _answer_prompts(arguments: argparse.Namespace) -> dict:
    started = time.monotonic()
    settings = GenerateSettings(max_new_tokens=arguments.max_new_tokens, max_rows=arguments.max_rows)
    check_free(arguments.out)
    device, source = pick_device(arguments.device), find_model(TRAINED, str(arguments.target_dir))
    tokenizer = load_tokenizer(source.path)
    prompts = chat_prompts(tokenizer, _read_prompts(arguments))
    model, deadline = load_model(source.path, device), deadline_of(arguments.max_minutes)
    stops = sorted(stop_ids(source, tokenizer))
    answers = self_generate(model, prompts, stops, arguments.out, settings, deadline)
    return {"stage": "answers", **summary(answers, time.monotonic() - started)}


def main() -> dict:
    """The command: a target and prompts in, answers out."""
    parser = training_parser(__doc__.splitlines()[0])
    parser.add_argument("--target_dir", type=Path, required=True, help=TARGET_HELP)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data_dir", type=Path, help="prompts from the GSM8K and MATH training questions here")
    source.add_argument("--prompt_file", type=Path, help='JSON lines, each {"prompt": "..."}')
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--max_new_tokens", type=int, default=GenerateSettings.max_new_tokens)
    parser.add_argument("--max_rows", type=int, default=GenerateSettings.max_rows, help="rows decoded at once")
    arguments = parser.parse_args()
    # By torchrun one process generates and the others wait: batches are large, and a target is small.
    return ranks.on_leader(lambda: _answer_prompts(arguments))


if __name__ == "__main__":
    sys.exit(run_command(main))
