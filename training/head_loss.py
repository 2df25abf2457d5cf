"""The loss of all heads: weighted cross-entropy to the target's own tokens, plus KL to its distributions, of drafts
that begin at given positions; and how often their tokens are right.

Shape suffixes: B documents, K top tokens, N predicted tokens, R drafts, S tokens of a draft, T tokens of TokenDocs, V
the drafter's vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.graphs import Inputs
from training.losses import Labels, soft_loss

FAR = -1e4  # the logarithm of a probability of nothing


@dataclass(frozen=True)
class Asked:
    """What drafts should be. `at_BRS`: counts in TokenDocs.tokens; `weight_BRS`: nothing after a document's end."""

    at_BRS: Tensor
    weight_BRS: Tensor

    def of(self, slot: int | None) -> tuple[Tensor, Tensor]:
        """Flat: of one token of every draft, or of all."""
        chosen = slice(None) if slot is None else slice(slot, slot + 1)
        return self.at_BRS[..., chosen].flatten(), self.weight_BRS[..., chosen].flatten()


def asked_of(inputs: Inputs, slot_weights_S: Tensor) -> Asked:
    """Drafts of as many tokens as there are weights, from every begin of a step."""
    slots = torch.arange(1, len(slot_weights_S) + 1, device=slot_weights_S.device)
    places_BRS = inputs["begins_BR"][..., None] + slots
    is_there = places_BRS < inputs["lengths_B"][:, None, None]
    flat_BL = inputs["flat_BL"]
    at_BX = flat_BL.gather(1, places_BRS.clamp(max=flat_BL.shape[1] - 1).flatten(1))
    return Asked(at_BX.view(places_BRS.shape), slot_weights_S * is_there)


def draft_loss(log_NV: Tensor, at_N: Tensor, weight_N: Tensor, labels: Labels, words_T: Tensor | None = None) -> Tensor:
    """The weighted sum (not mean) over predicted tokens. `words_T`: of each token of the target's vocabulary its number
    in the drafter's, or -1: what it cannot write teaches it nothing."""
    token_N = labels.tokens_T[at_N]
    word_N = token_N if words_T is None else words_T[token_N]
    hard_N = -log_NV.gather(-1, word_N.clamp(min=0)[:, None])[:, 0] * (word_N >= 0)
    if labels.soft is None or not labels.soft_weight:
        return (hard_N * weight_N).sum()
    ids_NK, probs_NK = labels.soft.ids_TK[at_N].long(), labels.soft.probs_TK[at_N]
    if words_T is not None:
        ids_NK = words_T[ids_NK]
    log_NK = log_NV.gather(-1, ids_NK.clamp(min=0))
    if words_T is not None:
        log_NK, probs_NK = log_NK.where(ids_NK >= 0, FAR), probs_NK * (ids_NK >= 0)
    return ((hard_N + labels.soft_weight * soft_loss(log_NK, probs_NK)) * weight_N).sum()


def num_right(log_NV: Tensor, at_N: Tensor, labels: Labels, words_T: Tensor | None = None) -> Tensor:
    """Which of the most probable tokens are the text's, [N]."""
    token_N = labels.tokens_T[at_N]
    word_N = token_N if words_T is None else words_T[token_N]
    return log_NV.argmax(-1) == word_N
