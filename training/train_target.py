"""Trains the family's target: a small Qwen2 from scratch on worked answers to school-maths questions.

It writes fluent steps and wrong arithmetic; that is enough to study drafting. training.loop runs the loop.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.batches import Batch, Schedule, TokenDocs, causal_batch, pack_documents
from training.checkpoint import Progress
from training.cli import add_loop_flags, loop_of, place_of, run_command, training_parser
from training.corpus import Example, load_examples
from training.export import write_model
from training.loop import LoopSettings, Place, Steps, train
from training.models import Shape, autocast, hidden_states, new_qwen2
from training.tokenizer import chat_prompts, load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from training.graphs import Inputs

MODULE = "training.train_target"
MAX_DOCUMENT = 512


@dataclass(frozen=True)
class TargetSettings:
    shape: Shape = Shape()
    loop: LoopSettings = LoopSettings(num_steps=1500, num_docs=64, learning_rate=1.5e-3)
    prompt_weight: float = 0.1


def encode_examples(
    examples: list[Example], tokenizer: PreTrainedTokenizerBase, max_len: int = MAX_DOCUMENT
) -> TokenDocs:
    """Chat documents of the data sets' own answers, each ended by the stop token; longer ones are left out."""
    prompts = chat_prompts(tokenizer, [example.prompt for example in examples])
    answers = tokenizer([example.answer for example in examples], add_special_tokens=False)["input_ids"]
    return pack_documents(prompts, [[*answer, tokenizer.eos_token_id] for answer in answers], max_len)


def train_target(
    docs: TokenDocs, tokenizer: PreTrainedTokenizerBase, settings: TargetSettings, place: Place
) -> tuple[PreTrainedModel, Progress]:
    """The trained target on place.device, and how it went; resumes from place.checkpoint."""
    from specdec.models.load import moved
    from training.losses import Labels, batch_loss, to_device

    model = moved(new_qwen2(settings.shape, settings.loop.seed), place.device)
    labels = Labels(to_device(docs.tokens, place.device).long())
    schedule = Schedule(docs.lengths, settings.loop.num_docs, settings.loop.seed)

    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def batch_of(step: int) -> Batch:
        return causal_batch(docs, schedule.rows(step), pad_id, settings.prompt_weight)

    def loss_of(inputs: Inputs) -> torch.Tensor:
        with autocast(place.device):
            return batch_loss(model, hidden_states(model, inputs["ids_BL"]), inputs, labels)

    identity = {"docs": docs.fingerprint(), "prompt_weight": settings.prompt_weight, **asdict(settings.shape)}
    report = train("target", model, Steps(batch_of, loss_of), settings.loop, place, identity)
    return model, report


def main() -> dict:
    parser = training_parser(MODULE, __doc__.splitlines()[0])
    add_loop_flags(parser, TargetSettings.loop)
    parser.add_argument("--data_dir", type=Path, required=True, help="has gsm8k/train.jsonl and math/train.jsonl")
    parser.add_argument("--tokenizer_dir", type=Path, required=True, help="whose tokenizer.json it is to have")
    arguments = parser.parse_args()
    loop = loop_of(arguments)
    place, tokenizer = place_of(arguments), load_tokenizer(arguments.tokenizer_dir)
    docs = encode_examples(load_examples(arguments.data_dir), tokenizer)
    settings = TargetSettings(shape=Shape(vocab_size=len(tokenizer)), loop=loop)
    model, report = train_target(docs, tokenizer, settings, place)
    write_model(model, tokenizer, arguments.tokenizer_dir, arguments.out, report.to_builtins())
    place.checkpoint.unlink(missing_ok=True)
    return {"stage": "target", **report.to_builtins()}


if __name__ == "__main__":
    sys.exit(run_command(MODULE, main))
