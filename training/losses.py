"""The one loss of all three trainings: weighted cross-entropy, plus KL to a teacher's stored distribution.

The teacher (the target) is run once over the training documents, not in every step: the documents never change.
Its distributions are kept as the top_k probabilities; all other tokens count as one more outcome.
Shape suffixes: T tokens of TokenDocs, N predicted tokens, V vocabulary, K top tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from training import ranks
from training.batches import TokenDocs, causal_batch
from training.models import autocast, hidden_states, logits_at

_TINY = 1e-6
TEACH_LOGITS = 1 << 27  # numbers that the teacher computes at once, on average: half a GB


@dataclass(frozen=True)
class SoftTargets:
    """What the teacher thought each token of TokenDocs would be; rows of tokens it never predicted are zero."""

    ids_TK: torch.Tensor
    probs_TK: torch.Tensor


@dataclass(frozen=True)
class Labels:
    """What the loss needs of the documents, on the device."""

    tokens_T: torch.Tensor
    soft: SoftTargets | None = None
    soft_weight: float = 0.0


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """numpy -> tensor; on CUDA through pinned memory, so that the copy does not wait for the GPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


@torch.no_grad()
def teach(teacher: PreTrainedModel, docs: TokenDocs, *, top_k: int = 32, num_docs: int | None = None) -> SoftTargets:
    """The teacher's top_k distribution for every answer token of `docs`, on the teacher's device.

    `num_docs` documents at a time, by default as many as TEACH_LOGITS allow: a small teacher is bound by launches.
    """
    device = next(teacher.parameters()).device
    answer_len = int((docs.lengths - docs.prompt_lens).mean())
    num_docs = num_docs or max(64, TEACH_LOGITS // (teacher.config.vocab_size * max(1, answer_len)))
    top_k = min(top_k, teacher.config.vocab_size)
    ids_TK = torch.zeros((len(docs.tokens), top_k), dtype=torch.int32, device=device)
    probs_TK = torch.zeros((len(docs.tokens), top_k), dtype=torch.float16, device=device)
    teacher.eval()
    by_length = np.argsort(docs.lengths, kind="stable")
    # Each process asks about its share; the rows of the others are zero, so the sum puts the tables together.
    for first in range(ranks.rank() * num_docs, len(docs), ranks.size() * num_docs):
        batch = causal_batch(docs, by_length[first : first + num_docs], pad_id=0, prompt_weight=0.0)
        with autocast(device):
            hidden_BLD = hidden_states(teacher, to_device(batch.ids_BL, device))
            logits_NV = logits_at(teacher, hidden_BLD, to_device(batch.source_N, device))
        top = logits_NV.softmax(-1).topk(top_k, dim=-1)
        token_N = to_device(batch.token_N, device)
        ids_TK[token_N] = top.indices.int()
        probs_TK[token_N] = top.values.half()
    ranks.sum_over_ranks([ids_TK, probs_TK])
    return SoftTargets(ids_TK, probs_TK)


def soft_loss(log_student_NK: torch.Tensor, probs_NK: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) per token (N) over the teacher's top tokens and one outcome for all the others."""
    teacher_NK = probs_NK.float()
    teacher_rest = (1 - teacher_NK.sum(-1)).clamp_min(_TINY)
    student_rest = (1 - log_student_NK.exp().sum(-1)).clamp_min(_TINY)
    inside = (teacher_NK * (teacher_NK.clamp_min(_TINY).log() - log_student_NK)).sum(-1)
    return inside + teacher_rest * (teacher_rest.log() - student_rest.log())


def batch_loss(
    model: PreTrainedModel, hidden_BLD: torch.Tensor, inputs: dict[str, torch.Tensor], labels: Labels
) -> torch.Tensor:
    """Weighted mean over the step's predicted tokens of CE + soft_weight * KL (scalar, fp32).

    `inputs` are Batch.arrays on the device. Of a share of a step it is this share's part of that mean: the parts of
    all processes add up to it.
    """
    token_N, soft = inputs["token_N"], labels.soft if labels.soft_weight > 0 else None
    log_NV = logits_at(model, hidden_BLD, inputs["source_N"]).log_softmax(-1)
    asked_NK = labels.tokens_T[token_N, None]
    if soft is not None:  # one gather: each is a dense matrix on the way back
        asked_NK = torch.cat([asked_NK, soft.ids_TK[token_N].long()], dim=1)
    log_NK = log_NV.gather(-1, asked_NK)
    loss_N = -log_NK[:, 0]
    if soft is not None:
        loss_N = loss_N + labels.soft_weight * soft_loss(log_NK[:, 1:], soft.probs_TK[token_N])
    return (loss_N * inputs["weight_N"]).sum() / inputs["total_weight"]
