"""How much of a target's text stays when its layers are kept in 8 bits, and when its head is too: why the head is not.

    python -m experiments.int8_agreement --device cpu --num_questions 8 --max_new_tokens 96 --drafters plain

Along the text that the target in full writes: at which share of its tokens the one in 8 bits finds the same token best,
and how far its distribution is (nats of Kullback-Leibler divergence, mean and 99th percentile). Speed is not measured.
The last line on stdout is JSON.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from profiling.common import QUESTION_FLAGS, asked_prompts, parser_of, run_measurement, tokens_of
from specdec.config import RunConfig
from specdec.drafters.plain import Plain
from specdec.models.checkpoints import TARGET

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from specdec.models.lm import CachedLM
    from specdec.session import Session

FLAGS = ("target_model_name", "device", "dtype", "dataset_name", *QUESTION_FLAGS, "drafters")
FAR = 0.99


def main(arguments: Sequence[str] | None = None) -> int:
    return run_measurement(parser_of("experiments.int8_agreement", __doc__, FLAGS), measure, arguments)


def measure(config: RunConfig, session: Session) -> dict[str, Any]:
    """By what is kept in 8 bits."""
    from specdec.models.int8 import quantised
    from specdec.models.lm import CachedLM
    from specdec.models.load import load_hf_model, moved

    def loaded() -> PreTrainedModel:
        return moved(load_hf_model(session.sources[TARGET], session.dtype), session.device)

    layers = quantised(loaded(), session.device)
    lms = {"layers": CachedLM(layers), "layers and head": CachedLM(with_head(layers))}
    full, texts = CachedLM(loaded()), []
    for prompt_ids in asked_prompts(config, session):
        texts.append((prompt_ids, tokens_of(session.decode(Plain(), prompt_ids))))
    found = {name: compared(full, lm, texts) for name, lm in lms.items()}
    return {"what": "a target in 8 bits along its own text in full", "texts": len(texts), "in_8_bits": found}


def with_head(model: PreTrainedModel) -> PreTrainedModel:
    """A copy whose head is in 8 bits too; the embedding stays."""
    from torch import nn

    from specdec.models.int8 import Int8Linear

    twin = copy.deepcopy(model)
    head = twin.get_submodule("lm_head")
    assert isinstance(head, nn.Linear)
    twin.set_output_embeddings(Int8Linear(head, model.device))
    return twin


def compared(full: CachedLM, lm: CachedLM, texts: Sequence[tuple[list[int], list[int]]]) -> dict[str, Any]:
    import torch

    distances, same = [], []
    for prompt_ids, answer in texts:
        ours, theirs = (after(one, prompt_ids, answer) for one in (full, lm))
        distances.append((ours.exp() * (ours - theirs).nan_to_num()).sum(-1))
        same.append(ours.argmax(-1) == theirs.argmax(-1))
    all_distances, all_same = torch.cat(distances), torch.cat(same)
    return {
        "tokens": len(all_same),
        "same_best": all_same.float().mean().item(),
        "divergence": all_distances.mean().item(),
        "divergence_p99": all_distances.quantile(FAR).item(),
    }


def after(lm: CachedLM, prompt_ids: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """Log-probabilities before each token of an answer, [L, V]."""
    lm.rollback(0)
    tokens = [*prompt_ids, *answer[:-1]]
    return lm.forward(tokens, keep=range(len(prompt_ids) - 1, len(tokens))).float().log_softmax(-1)


if __name__ == "__main__":
    sys.exit(main())
