"""Our static AR drafting against Hugging Face assisted generation: same models, dtype and draft length.

Both decode the same questions in turn, in one process: `python -m experiments.compare_hf_assisted`.
The flags are failfast.py's; the first --spec_len is the constant number of drafted tokens (5 in
the published comparison). Greedy texts of both are compared as well.
"""

import statistics
import sys
import time
from collections.abc import Sequence

import torch
from tqdm import tqdm
from transformers import GenerationConfig

from profiling.common import asked_prompts, run_measurement
from specdec.checkpoints import AR_DRAFTER, TARGET
from specdec.config import RunConfig
from specdec.models import load_hf_model
from specdec.session import Session
from specdec.specs import ArStatic
from specdec.speculate import speculate


def main(arguments: Sequence[str] | None = None) -> int:
    return run_measurement("compare_hf_assisted", compare, arguments)


def compare(config: RunConfig, session: Session) -> dict:
    """Tokens per second of both, question by question, and the ratio of the medians (ours / theirs)."""
    theirs = HfAssisted(config, session)
    prompts = asked_prompts(config, session)
    decode_ours(config, session, prompts[0])
    theirs.decode(prompts[0])
    rates, num_equal = {"ours": [], "hf_assisted": []}, 0
    decoders = {"ours": lambda ids: decode_ours(config, session, ids), "hf_assisted": theirs.decode}
    for index, prompt_ids in enumerate(tqdm(prompts, desc="questions", disable=None)):
        outputs = {}
        # Who goes first changes with every question, so that neither profits from the machine's drift.
        for name in sorted(decoders, reverse=index % 2 == 0):
            begin = time.perf_counter()
            outputs[name] = decoders[name](prompt_ids)
            rates[name].append(len(outputs[name]) / (time.perf_counter() - begin))
        num_equal += outputs["ours"] == outputs["hf_assisted"]
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "what": "tokens per second, prompt included; medians over questions",
        "draft_len": config.spec_len[0],
        "dtype": str(session.dtype),
        "num_questions": len(prompts),
        "num_equal_texts": num_equal,
        "tokens_per_s": medians,
        "ratio_of_medians": medians["ours"] / medians["hf_assisted"],
        "per_question": rates,
    }


def decode_ours(config: RunConfig, session: Session, prompt_ids: list[int]) -> list[int]:
    rounds = speculate(
        session.target(),
        session.drafter(ArStatic(config.spec_len[0])),
        prompt_ids,
        max_new_tokens=config.max_new_tokens,
        stop_ids=session.stop_ids,
    )
    return [token for turn in rounds for token in turn.emitted_tokens]


class HfAssisted:
    """transformers' own speculative decoding with a constant number of drafted tokens."""

    def __init__(self, config: RunConfig, session: Session) -> None:
        self.session = session
        self.target, self.drafter = (
            load_hf_model(session.sources[role], session.dtype).to(session.device).eval()
            for role in (TARGET, AR_DRAFTER)
        )
        self.drafter.generation_config = GenerationConfig(
            num_assistant_tokens=config.spec_len[0],
            num_assistant_tokens_schedule="constant",
            assistant_confidence_threshold=0.0,
            eos_token_id=sorted(session.stop_ids),
        )
        # A neutral configuration: plain argmax, as ours.
        self.settings = GenerationConfig(
            max_new_tokens=config.max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(session.stop_ids),
            pad_token_id=min(session.stop_ids),
        )

    @torch.inference_mode()
    def decode(self, prompt_ids: list[int]) -> list[int]:
        ids_BL = torch.tensor([prompt_ids], device=self.session.device)
        output_BL = self.target.generate(
            ids_BL,
            attention_mask=torch.ones_like(ids_BL),
            generation_config=self.settings,
            assistant_model=self.drafter,
        )
        return output_BL[0, len(prompt_ids) :].tolist()


if __name__ == "__main__":
    sys.exit(main())
