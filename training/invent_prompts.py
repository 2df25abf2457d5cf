"""Prompts that a chat model makes up itself: for a target whose users' questions no data set at hand holds.

An instruction-tuned model that is given only the head of a user's turn goes on to write a user's turn (Magpie,
arXiv 2406.08464). An opening such as "Write a Python function" says what sort of prompts are wanted.

    python -m training.invent_prompts --target_dir DIR --num_prompts 1000 --out prompts.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from specdec.errors import UserError
from specdec.records.pickles import write_atomic
from training import ranks
from training.answers import DecodeSettings
from training.cli import pick_device, run_command, training_parser
from training.export import check_free
from training.made_from import is_made, note, note_path, target_facts
from training.models import TARGET_HELP, find_target
from training.self_generate import load_writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from training.decoder import BatchDecoder

MODULE = "training.invent_prompts"
SHORTEST = 12  # characters: what is shorter asks nothing
_PLACE = "PLACE-OF-THE-PROMPT"


def opened_turn(tokenizer: PreTrainedTokenizerBase, opening: str) -> list[int]:
    """Token ids of a chat up to the first words of the user's turn. Raises UserError when there are none."""
    turn = [{"role": "user", "content": _PLACE}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=False)
    assert isinstance(text, str)  # not tokenized
    head, found, _ = text.partition(_PLACE)
    if not found:
        raise UserError(f"the chat template of {tokenizer.name_or_path} leaves the user's words out")
    tokens = tokenizer(head + opening, add_special_tokens=False)["input_ids"]
    if not tokens:
        raise UserError(f"the chat template of {tokenizer.name_or_path} begins with the user's words: give --opening")
    return tokens


def invent_prompts(
    decoder: BatchDecoder, tokenizer: PreTrainedTokenizerBase, openings: list[str], num_prompts: int
) -> list[str]:
    """At most `num_prompts` different prompts, in equal parts from each opening; unfinished ones are left out."""
    asked = [openings[n % len(openings)] for n in range(num_prompts)]
    turns = {opening: opened_turn(tokenizer, opening) for opening in openings}
    found: dict[int, str] = {}
    with tqdm(total=num_prompts, desc="prompts", unit="prompt", mininterval=5) as bar:
        for finished in decoder.answers([turns[opening] for opening in asked]):
            for number, tokens in finished.items():
                written = tokenizer.decode(tokens[:-1], skip_special_tokens=True)
                assert isinstance(written, str)  # a list of texts comes of a batch only
                text = asked[number] + written
                if tokens[-1] in decoder.stop_ids and len(text.strip()) >= SHORTEST:
                    found[number] = text.strip()
            bar.update(len(finished))
    return list(dict.fromkeys(found[number] for number in sorted(found)))  # each once, in order


def main() -> dict:
    parser = training_parser(MODULE, __doc__.splitlines()[0])
    parser.add_argument("--target_dir", type=Path, required=True, help=TARGET_HELP)
    parser.add_argument("--num_prompts", type=int, required=True, help="how many to write; fewer are left in the end")
    parser.add_argument("--opening", nargs="+", default=[""], help="first words of the prompts, each as many times")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: greedy")
    parser.add_argument("--max_new_tokens", type=int, default=160, help="a longer prompt is left out")
    parser.add_argument("--max_rows", type=int, default=DecodeSettings.max_rows, help="prompts written at once")
    parser.add_argument("--out", type=Path, required=True, help="the .jsonl to write")
    arguments = parser.parse_args()
    if arguments.num_prompts < 1:
        raise UserError(f"--num_prompts {arguments.num_prompts}: give at least 1")
    settings = DecodeSettings(arguments.max_new_tokens, arguments.max_rows, temperature=arguments.temperature)
    return ranks.on_leader(lambda: _write(arguments, settings))


def _made_from(arguments: argparse.Namespace, settings: DecodeSettings) -> dict:
    """What decides the prompts; the number of rows does not."""
    named = {name: getattr(arguments, name) for name in ("num_prompts", "opening", "seed")}
    chosen = {"temperature": settings.temperature, "max_new_tokens": settings.max_new_tokens}
    return {**target_facts(find_target(arguments.target_dir)), **named, **chosen}


def _write(arguments: argparse.Namespace, settings: DecodeSettings) -> dict:
    import torch

    from training.decoder import BatchDecoder

    asked = _made_from(arguments, settings)
    if note_path(arguments.out).exists() and is_made(arguments.out, asked):
        ranks.say(f"reused: the prompts are at {arguments.out}")
        return {"stage": "prompts", "reused": str(arguments.out)}
    check_free(arguments.out)
    model, tokenizer, stops = load_writer(arguments.target_dir, pick_device(arguments.device))
    torch.manual_seed(arguments.seed)
    decoder = BatchDecoder(model, stops, settings)
    prompts = invent_prompts(decoder, tokenizer, arguments.opening, arguments.num_prompts)
    if not prompts:
        raise UserError("not one whole prompt came of it: raise --max_new_tokens or --num_prompts")
    note(arguments.out, asked)
    lines = [json.dumps({"prompt": prompt}, ensure_ascii=False) + "\n" for prompt in prompts]
    write_atomic(arguments.out, "".join(lines).encode("utf-8", "replace"))
    return {"stage": "prompts", "num_prompts": len(prompts), "asked": arguments.num_prompts}


if __name__ == "__main__":
    sys.exit(run_command(MODULE, main))
