"""Our static AR drafting against Hugging Face assisted generation: same models, dtype and draft length.

    python -m experiments.compare_hf_assisted --spec_len 5 --num_questions 24 --max_new_tokens 128

Both decode the same questions in turn, in one process. The first --spec_len is the constant number of drafted tokens (5
in the published comparison). Greedy texts of both are compared as well. The last line on stdout is JSON.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from profiling.common import MODEL_FLAGS, QUESTION_FLAGS, asked_prompts, parser_of, run_measurement, tokens_of
from specdec.config import RunConfig
from specdec.drafters.ar import AR_DRAFTER, ArStatic
from specdec.models.checkpoints import TARGET

if TYPE_CHECKING:
    from specdec.session import Session

FLAGS = (*(name for name in MODEL_FLAGS if name != "dllm_dir"), "dataset_name", *QUESTION_FLAGS, "draft_len")
Decode = Callable[[list[int]], list[int]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.compare_hf_assisted", __doc__, FLAGS)
    parser.set_defaults(drafters=["plain", "ar_sf"])
    return run_measurement(parser, compare, arguments)


def compare(config: RunConfig, session: Session) -> dict[str, Any]:
    """Tokens per second of both, question by question, and the ratio of the medians (ours / theirs)."""
    spec = next(spec for spec in session.specs if isinstance(spec, ArStatic))
    theirs = HfAssisted(config, session, spec.draft_len)
    decoders: dict[str, Decode] = {
        "ours": lambda ids: tokens_of(session.decode(spec, ids)),
        "hf_assisted": theirs.decode,
    }
    prompts = asked_prompts(config, session)
    for warm_up in decoders.values():
        warm_up(prompts[0])
    rates: dict[str, list[float]] = {name: [] for name in decoders}
    num_equal = 0
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
        "draft_len": spec.draft_len,
        "dtype": str(session.dtype),
        "num_questions": len(prompts),
        "num_equal_texts": num_equal,
        "tokens_per_s": medians,
        "ratio_of_medians": medians["ours"] / medians["hf_assisted"],
        "per_question": rates,
    }


class HfAssisted:
    """transformers' own speculative decoding with a constant number of drafted tokens."""

    def __init__(self, config: RunConfig, session: Session, draft_len: int) -> None:
        from transformers import GenerationConfig

        from specdec.models.load import load_hf_model, moved

        self.session = session
        self.target, self.drafter = (
            moved(load_hf_model(session.sources[role], session.dtype), session.device).eval()
            for role in (TARGET, AR_DRAFTER)
        )
        self.drafter.generation_config = GenerationConfig(
            num_assistant_tokens=draft_len,
            num_assistant_tokens_schedule="constant",
            assistant_confidence_threshold=0.0,
            eos_token_id=sorted(session.stop_ids),
        )
        # A neutral configuration: plain argmax, as ours.
        self.settings = GenerationConfig(
            max_new_tokens=config.decoding.max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(session.stop_ids),
            pad_token_id=min(session.stop_ids),
        )

    def decode(self, prompt_ids: list[int]) -> list[int]:
        import torch

        ids_BL = torch.tensor([prompt_ids], device=self.session.device)
        with torch.inference_mode():
            output_BL = self.target.generate(
                ids_BL,
                attention_mask=torch.ones_like(ids_BL),
                generation_config=self.settings,
                assistant_model=self.drafter,
            )
        return output_BL[0, len(prompt_ids) :].tolist()


if __name__ == "__main__":
    sys.exit(main())
